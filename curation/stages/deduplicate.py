"""The end of score: copies and near-duplicates over all clips at once, from the hashes and embeddings that are kept. Nothing is
decoded.

The result is a function of the clips in the manifest, so it is computed as a whole, but only where something it depends
on has changed since; and only rows that come out differently are written. A clip that another gate rejects has no part
in it: else a group could lose its best clip and all others with it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import embedding_matrix, rows_of, with_column, with_embeddings, with_new_score
from longtake.curation.orphans import looking, tiers_left
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.copies import Copies
from longtake.filters.duplicates import Duplicates
from longtake.filters.phash import Phash, unpack
from longtake.filters.verdicts import ClipScores
from longtake.manifests import schemas
from longtake.manifests.keys import Index

_AT_ONCE = 100_000  # Rows that are written in one part.

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# For the clips with these ids, best first: which of them can be compared, and of these the row kept instead (−1: itself) and the
# score.
Compared = tuple[npt.NDArray[np.bool_], Ints, Floats]


class _Groups(ABC):
    """One way of looking for groups. name: of its filter."""

    name: ClassVar[str]

    def __init__(self, workspace: Workspace, recipe: Recipe) -> None:
        self.workspace, self.recipe = workspace, recipe
        self.filter: Any = recipe.built[self.name]

    @property
    @abstractmethod
    def source(self) -> str:
        """The filter whose scores a clip must have to take part."""

    @abstractmethod
    def ranks(self, clips: pa.Table, scores: ClipScores) -> dict[str, Floats]:
        """What makes a clip the better one, after the number of tiers: the higher, the better. At last decides the clip id."""

    @abstractmethod
    def compare(self, clip_ids: pa.ChunkedArray) -> Compared:
        """Hold these clips, best first, against each other."""

    @property
    def note(self) -> str:
        """The file of the workspace that says what the scores that are there were computed from."""
        return f".{self.name}"

    @property
    def column(self) -> str:
        """It names the clip kept instead."""
        return str(schemas.KEPT_INSTEAD[self.name].name)


class _Duplicates(_Groups):
    """Clips that look like a better one, by their embeddings."""

    name = Duplicates.name

    @property
    def source(self) -> str:
        names = [str(name) for name, filter_ in self.recipe.built.items() if filter_.embeds]
        return names[0]

    def ranks(self, clips: pa.Table, scores: ClipScores) -> dict[str, Floats]:
        names = [name for name in ("aesthetic", "flow") if name in self.recipe.built]
        return {name: np.nan_to_num(scores.span(name)[0], nan=-np.inf) for name in names}

    def compare(self, clip_ids: pa.ChunkedArray) -> Compared:
        embeddings, known = embedding_matrix(
            self.workspace, with_embeddings(self.workspace, pa.table({"clip_id": clip_ids}))
        )
        return known, *self.filter.kept_instead(embeddings)


class _Copies(_Groups):
    """Clips that show the film of another video again, by the hashes of their keyframes and by their stream."""

    name = Copies.name
    source = Phash.name

    def __init__(self, workspace: Workspace, recipe: Recipe) -> None:
        super().__init__(workspace, recipe)
        videos = workspace.videos.read(["video_id", "width", "height"], optional=["stream_sha256"])
        self.videos = Index.of(videos["video_id"])
        self.pixels = np.asarray(pc.fill_null(pc.multiply(videos["width"].cast("float64"), videos["height"]), 0.0))
        self.streams = np.full(videos.num_rows, -1)
        if "stream_sha256" in videos.column_names:
            codes = pc.dictionary_encode(videos["stream_sha256"].combine_chunks()).indices
            self.streams = np.asarray(codes.fill_null(-1), np.int64)

    def ranks(self, clips: pa.Table, scores: ClipScores) -> dict[str, Floats]:
        at = self.videos.find(clips["video_id"])
        pixels = np.append(self.pixels, 0.0)[at]
        return {"pixels": pixels, "seconds": np.asarray(pc.subtract(clips["end"], clips["start"]).to_numpy()).round(3)}

    def compare(self, clip_ids: pa.ChunkedArray) -> Compared:
        columns = ["clip_id", "video_id", "start", "end", f"{self.source}_detail"]
        rows = rows_of(self.workspace.clips, clip_ids, columns[:-1], optional=columns[-1:])
        rows = rows.take(pa.array(Index.of(rows["clip_id"]).find(clip_ids)))
        details = rows[columns[-1]].combine_chunks()
        length = 2 * self.recipe.sampling.keyframes
        known = np.asarray(
            pc.fill_null(pc.equal(pc.list_value_length(details), length), False).to_numpy(zero_copy_only=False)
        )
        rows, details = rows.filter(pa.array(known)), details.filter(pa.array(known))
        hashes, told = unpack(np.asarray(details.flatten().to_numpy()).reshape(-1, length))
        videos = self.videos.find(rows["video_id"])
        streams = np.append(self.streams, -1)[videos]
        spans = [np.rint(1000 * rows[name].to_numpy()).astype(np.int64) for name in ("start", "end")]
        _, moments = np.unique(np.stack([streams, *spans]), axis=1, return_inverse=True)
        return known, *self.filter.kept_instead(hashes, told, videos, np.where(streams >= 0, moments.ravel(), -1))


_KINDS = {kind.name: kind for kind in (_Copies, _Duplicates)}


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the scores of the filters that look for groups up to date, with the columns that name the clips kept instead; the
    number of rows that changed."""
    return sum(_bring_up_to_date(_KINDS[name](workspace, recipe)) for name in looking(recipe))


def _bring_up_to_date(groups: _Groups) -> int:
    workspace, filter_ = groups.workspace, groups.filter
    corpus = _Corpus.of(groups)
    if not len(corpus.ids):
        return 0
    order = corpus.best_first()
    taking_part = np.zeros(len(corpus.ids), bool)
    taking_part[order] = True
    source = groups.recipe.built[groups.source]
    digest = hashlib.sha256(f"{filter_.protocol}\n{source.protocol}\n".encode())
    for clip_id in corpus.ids.take(pa.array(order)).to_pylist():
        digest.update(clip_id.encode())
    fresh, has_score = corpus.fresh, corpus.has_score
    made_of = digest.hexdigest().encode("ascii")
    if workspace.read_file(groups.note) == made_of and (fresh == taking_part).all() and not (has_score & ~fresh).any():
        return 0

    value, owner = np.full(len(corpus.ids), np.nan), np.full(len(corpus.ids), -1)
    known, instead, score = groups.compare(pa.chunked_array([corpus.ids.take(pa.array(order))]))
    order = order[known]
    value[order] = score
    owner[order] = np.where(instead >= 0, order[instead], -1)
    before = np.where(fresh, corpus.value, np.nan)
    changed = np.flatnonzero(~((value == before) | (np.isnan(value) & ~has_score)) | (owner != corpus.owners_before()))
    for start in range(0, len(changed), _AT_ONCE):
        workspace.clips.append(_rows(groups, corpus.ids, changed[start : start + _AT_ONCE], value, owner))
    workspace.write_file(groups.note, made_of)
    return len(changed)


@dataclass(frozen=True, slots=True)
class _Corpus:
    """What is asked of each clip, gathered a slice of the manifest at a time: some 100 bytes a clip. part: those that take part,
    since they have what is compared and some tier may still keep them. order: the higher, the better. fresh: the stored score is
    of this protocol. named: of which clip each is a copy or duplicate, where it is one; at: their rows."""

    ids: pa.Array
    part: npt.NDArray[np.bool_]
    order: dict[str, Floats]
    fresh: npt.NDArray[np.bool_]
    has_score: npt.NDArray[np.bool_]
    value: Floats
    named: pa.Array
    at: Ints

    @classmethod
    def of(cls, groups: _Groups) -> _Corpus:
        workspace, recipe, name = groups.workspace, groups.recipe, groups.name
        ids, named, columns, count = list[pa.Array](), list[pa.Array](), list[dict[str, Any]](), 0
        ranks: dict[str, Floats] = {}
        for clips in workspace.clips.scan():
            scores, n = ClipScores(clips, recipe.built), clips.num_rows
            tiers = tiers_left(scores, recipe, name)
            ranks = groups.ranks(clips, scores)
            stored = clips[name] if name in clips.column_names else pa.chunked_array([pa.nulls(n, pa.float64())])
            there = groups.column in clips.column_names
            owners = clips[groups.column] if there else pa.chunked_array([pa.nulls(n, pa.string())])
            columns.append(
                {
                    "tiers": tiers.astype(np.float64),
                    **ranks,
                    "part": scores.ok() & (tiers > 0) & ~scores.missing(groups.source),
                    "fresh": ~scores.missing(name),
                    "has": stored.is_valid().to_numpy().astype(bool),
                    "value": stored.to_numpy().astype(np.float64),
                    "at": count + np.flatnonzero(owners.is_valid().to_numpy()),
                }
            )
            ids += clips["clip_id"].cast(pa.large_string()).chunks
            named += owners.drop_null().cast(pa.large_string()).chunks
            count += n
        whole = {name: np.concatenate([one[name] for one in columns]) for name in columns[0]} if columns else {}
        empty = np.zeros(0)
        return cls(
            pa.concat_arrays([pa.array([], pa.large_string()), *ids]),
            whole.get("part", empty).astype(bool),
            {name: whole.get(name, empty) for name in ("tiers", *ranks)},
            whole.get("fresh", empty).astype(bool),
            whole.get("has", empty).astype(bool),
            whole.get("value", empty),
            pa.concat_arrays([pa.array([], pa.large_string()), *named]),
            whole.get("at", empty).astype(np.int64),
        )

    def best_first(self) -> Ints:
        """The rows of the clips that take part."""
        rows = np.flatnonzero(self.part)
        columns: dict[str, Any] = {name: pa.array(values[rows]) for name, values in self.order.items()}
        table = pa.table({"row": rows, **columns, "clip_id": self.ids.take(pa.array(rows))})
        keys = [(name, "descending") for name in columns]
        return np.asarray(table.sort_by([*keys, ("clip_id", "ascending")])["row"].to_numpy())

    def owners_before(self) -> Ints:
        """Per row the row that it names, −1 for none, −2 for a clip that is no longer there."""
        owner = np.full(len(self.ids), -1)
        places = Index.of(self.ids).find(self.named)
        owner[self.at] = np.where(places < 0, -2, places)
        return owner


def _rows(groups: _Groups, ids: pa.Array, changed: Ints, value: Floats, owner: Ints) -> pa.Table:
    """The changed rows as they are to be."""
    workspace = groups.workspace
    rows = rows_of(workspace.clips, pa.chunked_array([ids.take(pa.array(changed))]))
    changed = Index.of(ids).find(rows["clip_id"])
    at = owner[changed]
    names = ids.take(pa.array(at, mask=at < 0)).cast(pa.string())
    rows = with_new_score(rows, groups.name, value[changed], groups.filter.protocol)
    return with_embeddings(workspace, with_column(rows, groups.column, names))
