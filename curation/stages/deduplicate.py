"""The end of score: near-duplicates over all clips at once, from the embeddings that are kept. Nothing is decoded.

The result is a function of the clips in the manifest, so it is computed as a whole, but only where something it depends
on has changed since; and only rows that come out differently are written. A clip that another gate rejects has no part
in it: else a group could lose its best clip and all others with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import dump_protocols, rows_of, tiers_left, with_embeddings
from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.duplicates import Duplicates
from longtake.filters.verdicts import ClipScores
from longtake.manifests import schemas
from longtake.manifests.keys import Index

# Among near-duplicates the clip with more tiers is kept, then the one with the higher score, then the lower clip id.
ORDER = ("aesthetic", "flow")
NAME = Duplicates.name
_AT_ONCE = 100_000  # Rows that are written in one part.
_NOTE = ".duplicates"  # A note in the workspace: the data that the stored scores were computed from.


def source_of_embeddings(recipe: Recipe) -> str | None:
    """The filter whose embeddings are compared; None if the recipe does not look for duplicates."""
    if NAME not in recipe.built:
        return None
    return next(name for name, filter_ in recipe.built.items() if filter_.embeds)


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the scores `duplicates` and the column `duplicate_of` up to date; the number of rows that changed."""
    source = source_of_embeddings(recipe)
    if source is None:
        return 0
    filter_ = recipe.built[NAME]
    assert isinstance(filter_, Duplicates)
    corpus = _Corpus.of(workspace, recipe, source)
    if not len(corpus.ids):
        return 0
    order = corpus.best_first()
    taking_part = np.zeros(len(corpus.ids), bool)
    taking_part[order] = True
    digest = hashlib.sha256(f"{filter_.protocol}\n{recipe.built[source].protocol}\n".encode())
    for clip_id in corpus.ids.take(pa.array(order)).to_pylist():
        digest.update(clip_id.encode())
    fresh, has_score = corpus.fresh, corpus.has_score
    if _noted(workspace) == digest.hexdigest() and (fresh == taking_part).all() and not (has_score & ~fresh).any():
        return 0

    value, owner = np.full(len(corpus.ids), np.nan), np.full(len(corpus.ids), -1)
    embeddings, known = _embeddings(workspace, pa.chunked_array([corpus.ids.take(pa.array(order))]))
    order = order[known]
    instead, cosine = filter_.kept_instead(embeddings)
    value[order] = cosine
    owner[order] = np.where(instead >= 0, order[instead], -1)
    before = np.where(fresh, corpus.value, np.nan)
    changed = np.flatnonzero(~((value == before) | (np.isnan(value) & ~has_score)) | (owner != corpus.owners_before()))
    for start in range(0, len(changed), _AT_ONCE):
        rows = _rows(workspace, corpus.ids, changed[start : start + _AT_ONCE], value, owner, filter_.protocol)
        workspace.clips.append(rows)
    if len(changed):
        workspace.clips.compact()
    _note(workspace, digest.hexdigest())
    return len(changed)


@dataclass(frozen=True, slots=True)
class _Corpus:
    """What is asked of each clip, gathered a slice of the manifest at a time: some 100 bytes a clip. part: those that take part,
    since they have an embedding and some tier may still keep them. order: the higher, the better. fresh: the stored score is of
    this protocol. named: of which clip each is a duplicate, where it is one; at: their rows."""

    ids: pa.Array
    part: npt.NDArray[np.bool_]
    order: dict[str, npt.NDArray[np.float64]]
    fresh: npt.NDArray[np.bool_]
    has_score: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    named: pa.Array
    at: npt.NDArray[np.int64]

    @classmethod
    def of(cls, workspace: Workspace, recipe: Recipe, source: str) -> _Corpus:
        ids, named, columns, count = list[pa.Array](), list[pa.Array](), list[dict[str, Any]](), 0
        names = [name for name in ORDER if name in recipe.built]
        for clips in workspace.clips.scan():
            scores, n = ClipScores(clips, recipe.built), clips.num_rows
            tiers = tiers_left(scores, recipe)
            ranks = {name: np.nan_to_num(scores.span(name)[0], nan=-np.inf) for name in names}
            stored = clips[NAME] if NAME in clips.column_names else pa.chunked_array([pa.nulls(n, pa.float64())])
            duplicate = schemas.DUPLICATE_OF.name in clips.column_names
            owners = clips[schemas.DUPLICATE_OF.name] if duplicate else pa.chunked_array([pa.nulls(n, pa.string())])
            columns.append(
                {
                    "tiers": tiers.astype(np.float64),
                    **ranks,
                    "part": scores.ok() & (tiers > 0) & ~scores.missing(source),
                    "fresh": ~scores.missing(NAME),
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
            {name: whole.get(name, empty) for name in ("tiers", *names)},
            whole.get("fresh", empty).astype(bool),
            whole.get("has", empty).astype(bool),
            whole.get("value", empty),
            pa.concat_arrays([pa.array([], pa.large_string()), *named]),
            whole.get("at", empty).astype(np.int64),
        )

    def best_first(self) -> npt.NDArray[np.int64]:
        """The rows of the clips that take part."""
        rows = np.flatnonzero(self.part)
        columns: dict[str, Any] = {name: pa.array(values[rows]) for name, values in self.order.items()}
        table = pa.table({"row": rows, **columns, "clip_id": self.ids.take(pa.array(rows))})
        keys = [(name, "descending") for name in columns]
        return np.asarray(table.sort_by([*keys, ("clip_id", "ascending")])["row"].to_numpy())

    def owners_before(self) -> npt.NDArray[np.int64]:
        """Per row the row that it names, −1 for none, −2 for a clip that is no longer there."""
        owner = np.full(len(self.ids), -1)
        found = Index.of(self.ids).find(self.named)
        owner[self.at] = np.where(found < 0, -2, found)
        return owner


def _embeddings(
    workspace: Workspace, clip_ids: pa.ChunkedArray
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """float16 [known, dim], and which of the clips have one. Raises SetupError if they are of different sizes."""
    column = with_embeddings(workspace, pa.table({"clip_id": clip_ids}))[schemas.EMBEDDING.name]
    known = column.is_valid().to_numpy().astype(bool)
    column = column.drop_null().combine_chunks()
    if not len(column):
        return np.zeros((0, 1), np.float16), known
    sizes = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(sizes) > 1:
        raise SetupError(f"{workspace.clips.path}: embeddings of different sizes {sizes} cannot be compared")
    return column.flatten().to_numpy().reshape(-1, sizes[0]), known


def _rows(
    workspace: Workspace,
    ids: pa.Array,
    changed: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    protocol: str,
) -> pa.Table:
    """The changed rows as they are to be. By columns: there may be hundreds of thousands."""
    rows = rows_of(workspace.clips, pa.chunked_array([ids.take(pa.array(changed))]))
    changed = Index.of(ids).find(rows["clip_id"])
    scored = ~np.isnan(value[changed])
    values = pa.array(value[changed], mask=~scored)
    offsets = np.concatenate([[0], np.cumsum(scored)]).astype(np.int32)
    details = pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~scored, False)), values.drop_null())
    at = owner[changed]
    names = ids.take(pa.array(at, mask=at < 0)).cast(pa.string())
    texts = pc.dictionary_encode(pc.fill_null(rows["protocols"], "{}").combine_chunks())
    both = []
    for add in (False, True):
        for text in texts.dictionary.to_pylist():
            protocols = {name: stored for name, stored in json.loads(text).items() if name != NAME}
            both.append(dump_protocols({**protocols, NAME: protocol} if add else protocols))
    codes = texts.indices.to_numpy() + np.where(scored, len(texts.dictionary), 0)
    new = {
        "protocols": pa.array(both).take(pa.array(codes)),
        NAME: values,
        f"{NAME}_detail": details,
        schemas.DUPLICATE_OF.name: names,
    }
    for name, column in new.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, column)
        else:
            rows = rows.append_column(name, column)
    return with_embeddings(workspace, rows)


def _noted(workspace: Workspace) -> str:
    try:
        return workspace.folder.read(_NOTE).decode("ascii")
    except FileNotFoundError:
        return ""


def _note(workspace: Workspace, digest: str) -> None:
    workspace.folder.write_whole(_NOTE, digest.encode("ascii"))
