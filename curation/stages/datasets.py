"""The end of the stage export: dataset/<tier>/ of each tier, brought up to what is encoded.

The clips go by once, a slice at a time. What is held of a clip that no tier keeps is the number of its key; of one that is
published some 2 kB: where it lies in which video, its scores, its file and its captions. Rows become Python objects a few
thousand at a time, and a shard is written before the rows of the next one are made.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import captioner_fault, clip_scores, score_slices, written_slices
from longtake.curation.errors import SetupError
from longtake.curation.looking.stats import added, funnel
from longtake.curation.looking.truth import agreed, write_truth
from longtake.curation.recipe import Recipe
from longtake.curation.running.faults import this_host
from longtake.curation.stages import kept_back
from longtake.curation.stages.facts import facts_of
from longtake.curation.stages.formats import NAMES, READ_CLIPS, write_formats
from longtake.curation.workspace import Workspace
from longtake.filters.base import FilterUnavailable
from longtake.filters.concept import CONCEPT_COLUMNS, Concept, weights_and_quotas
from longtake.filters.verdicts import ClipScores, TierResult, decide
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.dataset import extras
from longtake.manifests.dataset.card import dataset_card
from longtake.manifests.dataset.huggingface import front_matter
from longtake.manifests.dataset.shards import (
    SCORES,
    DatasetError,
    dataset_schema,
    dataset_table,
    finish_dataset,
    presto_problems,
    read_shards,
    write_sorted,
)
from longtake.manifests.dataset.splits import SPLIT, split_of
from longtake.manifests.dataset.switch import (
    OURS,
    ClipsGone,
    Copy,
    beside,
    carry_over,
    changes_at_once,
    published,
    switch,
)
from longtake.manifests.folder import Folder, whole_file
from longtake.manifests.keys import Index
from longtake.manifests.lookup import Lookup, Scattered
from longtake.manifests.parts import as_dictionary, fit, steadily

# A folder of the workspace. Each clip lies in it once, as `<two digits>/<clip id>.mp4`, even if several tiers keep the clip.
ENCODED = "encoded"
_RENAMED = {"width": "source_width", "height": "source_height", "fps": "source_fps"}
_OURS = (*OURS, *NAMES)  # Names in a dataset's folder that this project writes.
_ROWS = 2000  # Rows of a dataset that are Python objects at a time, each of some 15 kB.
_PLACE = ["video_id", "uri", "start", "end", "licence", *schemas.CROP]
_TOLD = ["clip_id", "scan_id", "caption", "sub_captions"]  # These columns of captions are read.
_FILE = ["path", "num_frames", "height", "width", "fps", "pace", "bytes", "sha256"]


def finish(
    workspace: Workspace, recipe: Recipe, held: dict[str, str] | None = None, copy: Copy | None = None
) -> dict[str, int]:
    """Bring dataset/<tier>/ of each tier up to what is encoded: clips, shards, card, checksums, index. Gives the number of
    clips in each. held: filled in with the tiers whose old dataset stays as it is, and why. copy: see `switch`. The rows of
    clips whose encoded files are gone become errors that the next run tries again, and the datasets are made without them."""
    while True:
        try:
            gathered = steadily(lambda: _gather(workspace, recipe))
        except FilterUnavailable as error:
            raise SetupError(str(error)) from error
        try:
            return _write_all(gathered, held, copy)
        except ClipsGone as gone:
            _take_down(gathered, gone)


def _write_all(gathered: _Gathered, held: dict[str, str] | None, copy: Copy | None) -> dict[str, int]:
    """As `finish`. Raises ClipsGone."""
    workspace = gathered.workspace
    counts: dict[str, int] = {}
    for tier, made in gathered.tiers.items():
        place = workspace.folder / "dataset" / tier
        if made.before is not None and (why := made.before.reason(made.ids(), partial(gathered.silent, made))):
            counts[tier] = made.before.old.num_rows
            if held is not None:
                held[tier] = why
            continue
        with beside(place) as folder:
            at_once = changes_at_once(place)
            if at_once:
                carry_over(place, folder, _OURS)
            clips = _write_dataset(gathered, made, folder, at_once)
            switch(folder, place, at_once, _OURS, clips, copy)
        counts[tier] = len(made.rows)
    return counts


def _take_down(gathered: _Gathered, gone: ClipsGone) -> None:
    """Append error rows of the clips whose encoded files are gone. Raises ClipsGone if these are of no clip that is known."""
    rows = []
    for made in gathered.tiers.values():
        files = gathered.files.among(made.ids())
        lost = files.filter(pc.is_in(files["path"], value_set=pa.array(gone.files)))
        for row in lost.select(["clip_id", "scan_id", "path"]).to_pylist():
            message = f"its encoded file is gone: {gathered.workspace.folder.file(row['path'])}"
            rows.append(row | {"status": "error", "error_kind": "away", "error": message})
    shared = {"export_protocol": gathered.recipe.export_protocol, "host": this_host()}
    unique = {row["clip_id"]: row | shared for row in rows}
    if not unique:
        raise gone
    gathered.workspace.exports.append(pa.Table.from_pylist(list(unique.values()), schema=schemas.EXPORTS))


@dataclass(slots=True)
class _Tier:
    """What is gathered of a tier. rows: of the clips that are published, in the order of the manifest. before: what is published
    now, and what would drop out of it; None if nothing is."""

    name: str
    before: kept_back.Before | None
    rows: Scattered
    funnel: list[dict[str, Any]] = field(default_factory=list)

    def add(self, scores: ClipScores, result: TierResult, files: pa.Table, recipe: Recipe) -> None:
        """The clips of a slice. files: clip_id and scan_id of those that the tier keeps and that are encoded."""
        steps = funnel(result)
        self.funnel = added(self.funnel, steps) if self.funnel else steps
        kept = counting(scores, recipe, result.kept)
        at = pc.index_in(kept["clip_id"], value_set=files["clip_id"].combine_chunks())
        # A file of another scan of the video is not the clip that the scores are of.
        current = pc.equal(files["scan_id"].cast(pa.string()).take(at), kept["scan_id"])
        self.rows.add(kept.filter(pc.fill_null(current, False)))

    def ids(self) -> pa.ChunkedArray:
        """The clips that are published, in the order of `rows`."""
        return self.rows.column("clip_id")


@dataclass(slots=True)
class _Gathered:
    """What is known of all clips, and of those that are published. files: their encoded files; captions: what was written of
    them, and of older scans of them. marked: the scores of the clips that people marked. fault: why the captions are believed."""

    workspace: Workspace
    recipe: Recipe
    tiers: dict[str, _Tier]
    files: Lookup
    clips: int = 0
    unchecked: dict[str, str] = field(default_factory=dict)
    marked: list[pa.Table] = field(default_factory=list)
    captions: Scattered = field(
        default_factory=lambda: Scattered(pa.schema([schemas.CAPTIONS.field(n) for n in _TOLD]))
    )
    fault: str | None = None
    _written: Index | None = None

    def captions_of(self, ids: pa.ChunkedArray) -> pa.Table:
        """The captions of those of some clips that have any."""
        if self._written is None:
            self._written = Index.of(self.captions.column("clip_id"))
        at = self._written.find(ids)
        return self.captions.take(at[at >= 0])

    def silent(self, made: _Tier) -> pa.ChunkedArray:
        """The clips of a tier without a caption."""
        chunks = [pa.array([], pa.string())]
        for clips in made.rows.tables:
            said = self.captions_of(clips["clip_id"])
            at = pc.index_in(clips["clip_id"], value_set=said["clip_id"].combine_chunks())
            current = pc.equal(said["scan_id"].take(at), clips["scan_id"])
            told = pc.and_(pc.fill_null(current, False), said["caption"].take(at).is_valid())
            chunks += clips["clip_id"].filter(pc.invert(told)).chunks
        return pa.chunked_array(chunks)

    def marked_scores(self) -> ClipScores:
        """The scores of the clips that people marked, and of no others."""
        return ClipScores(pa.concat_tables(self.marked, promote_options="default"), self.recipe.built)


def _gather(workspace: Workspace, recipe: Recipe) -> _Gathered:
    texts = ["status", "error_kind"]
    exported = Lookup(
        workspace.exports,
        ["scan_id", *texts, *_FILE],
        optional=[one.name for one in _further(recipe) if one.name in schemas.EXPORTS.names],
        encoded=texts,
        only=lambda rows: pc.equal(rows["export_protocol"].cast(pa.string()), recipe.export_protocol),
        read=["export_protocol"],
    )
    tiers = {}
    for tier in recipe.tiers:
        old = published(workspace.folder / "dataset" / tier, ["clip_id", "video_id", "caption", "path", "sha256"])
        before = None if old is None else kept_back.Before(workspace, old)
        tiers[tier] = _Tier(tier, before, Scattered(_held(recipe)))
    gathered = _Gathered(workspace, recipe, tiers, exported, fault=captioner_fault(recipe))
    marks = Index.of(pa.array(_marked(workspace), pa.string()))
    for scores in score_slices(workspace, recipe, _PLACE) if workspace.clips.rows() else ():
        _add(gathered, scores, marks)
    if not gathered.clips:
        _add(gathered, clip_scores(workspace, recipe, _PLACE), marks)
    wanted = Index.of(pa.chunked_array([chunk for made in tiers.values() for chunk in made.ids().chunks], pa.string()))
    for told in written_slices(workspace, recipe, _TOLD):
        gathered.captions.add(told.filter(from_numpy(wanted.has(told["clip_id"]))))
    return gathered


def _add(gathered: _Gathered, scores: ClipScores, marks: Index) -> None:
    """A slice of the clips."""
    results = {tier: decide(scores, gates) for tier, gates in gathered.recipe.tiers.items()}
    kept = np.any([result.kept for result in results.values()], axis=0)
    files = gathered.files.among(scores.table["clip_id"].filter(pa.array(kept)))
    files = files.filter(from_numpy(~lost(gathered.workspace, files)))
    encoded = files.filter(pc.equal(files["status"].cast(pa.string()), "ok"))
    for tier, result in results.items():
        made = gathered.tiers[tier]
        made.add(scores, result, encoded, gathered.recipe)
        if made.before is not None:
            made.before.add(scores, result, files)
    gathered.clips += scores.table.num_rows
    gathered.unchecked |= scores.unchecked
    gathered.marked.append(scores.table.filter(from_numpy(marks.has(scores.table["clip_id"]))))


def lost(workspace: Workspace, files: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows of exports name a file that is gone, or has another size. files: with the columns status, path and bytes.
    In a bucket nothing is looked up, since each look is a request: whether a file is there turns out when it is copied."""
    found = np.zeros(files.num_rows, bool)
    if workspace.folder.is_local:
        named = np.flatnonzero(pc.fill_null(pc.equal(files["status"].cast(pa.string()), "ok"), False).to_numpy())
        at = pa.array(named)
        sizes = zip(files["path"].take(at).to_pylist(), files["bytes"].take(at).to_pylist(), strict=True)
        found[named] = [_size_of(f"{workspace.folder.root}/{path}") != size for path, size in sizes]
    return found


def _size_of(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _marked(workspace: Workspace) -> list[str]:
    """The clips that people marked; none where the marks cannot be read, which the card tells."""
    try:
        return list(agreed(workspace))
    except SetupError:
        return []


def _further(recipe: Recipe) -> list[pa.Field]:
    """The columns of a dataset that this recipe asks for besides."""
    further = [*(extras.CROP if recipe.crop else ()), *(extras.SOUND if recipe.export.keep_audio else ())]
    # A score of the same name says the same already.
    return [one for one in further if one.name not in recipe.filters]


def _held(recipe: Recipe) -> pa.Schema:
    """What is held of a clip that is published."""
    fields = [schemas.CLIPS.field(name).with_nullable(True) for name in ("clip_id", "scan_id", *_PLACE)]
    fields.append(as_dictionary(schemas.CLIPS.field("protocols")))
    return pa.schema([*fields, *(pa.field(_score(name), pa.float64()) for name in recipe.filters)])


def _score(name: str) -> str:
    """The column of a score: a filter may be called like another column."""
    return f"score {name}"


def counting(scores: ClipScores, recipe: Recipe, rows: npt.NDArray[np.bool_]) -> pa.Table:
    """Some of the clips, with their places, and null where a score does not count under the recipe's protocols: a stale one, or a
    mere lower bound."""
    schema, chosen = _held(recipe), pa.array(rows)
    columns = {}
    for one in schema:
        if one.name in scores.table.column_names:
            columns[one.name] = scores.table[one.name].filter(chosen)
    for name in recipe.filters:
        if name in scores.table.column_names:
            values = scores.table[name].filter(chosen).cast(pa.float64())
            lost = pa.array(scores.missing(name)[rows])
            columns[_score(name)] = pc.if_else(lost, pa.scalar(None, pa.float64()), values)
    return fit(pa.table(columns), schema, "clips that a tier keeps")


def _schema(recipe: Recipe) -> pa.Schema:
    measured = [_RENAMED.get(name, name) for name in recipe.filters]
    measured += CONCEPT_COLUMNS if Concept.name in recipe.filters else ()
    return dataset_schema(
        tuple(dict.fromkeys([*SCORES, *measured])),
        recipe.export.frames or 450,
        bool(recipe.export.split),
        _further(recipe),
    )


@dataclass(slots=True)
class _Writing:
    """A dataset while its rows are made, a few at a time, by clip id. old: path → SHA-256 of the clips among whose files it will
    be put; none if it takes the place of the whole folder at once. places: path → name of the file in the workspace."""

    gathered: _Gathered
    made: _Tier
    schema: pa.Schema
    old: Mapping[str, str]
    places: dict[str, str] = field(default_factory=dict)
    size: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of the dataset."""
        order = _order(self.made.ids())
        concepts = self._concepts(order)
        last = ""
        for start in range(0, len(order), _ROWS):
            clips = self.made.rows.take(order[start : start + _ROWS])
            if (first := clips["clip_id"][0].as_py()) == last:
                raise DatasetError(f"two rows have the clip_id {first!r}")
            last = clips["clip_id"][-1].as_py()
            rows = self._rows(clips)
            for i, row in enumerate(rows) if concepts else ():
                row |= {name: _number(values[start + i]) for name, values in concepts.items()}
            table = dataset_table(rows, self.schema)
            self.problems.update(f"{one.column}: {one.message}" for one in presto_problems(table))
            yield table

    def _rows(self, clips: pa.Table) -> list[dict[str, Any]]:
        recipe = self.gathered.recipe
        told = self.gathered.captions_of(clips["clip_id"]).to_pylist()
        captions = {(row["clip_id"], row["scan_id"]): row for row in told}
        files = {row["clip_id"]: row for row in self.gathered.files.among(clips["clip_id"]).to_pylist()}
        rows = []
        for clip in clips.to_pylist():
            file = files[clip["clip_id"]]
            row = _row(clip, file, captions.get((clip["clip_id"], clip["scan_id"]), {}), self.made.name, recipe)
            # Another path for a clip whose path another file has in the old index: that one must stay until the new index
            # stands.
            if self.old.get(row["path"], row["sha256"]) != row["sha256"]:
                row["path"] = f"{row['path'].removesuffix('.mp4')}-{row['sha256'][:8]}.mp4"
            if row["path"] in self.places:
                raise DatasetError(f"two rows have the path {row['path']!r}")
            self.places[row["path"]] = file["path"]
            self.size += file["bytes"]
            rows.append(row)
        return rows

    def _concepts(self, order: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
        """What a sampler needs of each clip, in this order."""
        if Concept.name not in self.gathered.recipe.filters:
            return {}
        numbers = self.made.rows.column(_score(Concept.name)).to_numpy().astype(np.float64)[order]
        return dict(zip(CONCEPT_COLUMNS, weights_and_quotas(numbers), strict=True))

    def mark(self) -> str:
        """Another one for other clips."""
        ids = self.made.ids().take(from_numpy(_order(self.made.ids())))
        digest = hashlib.sha256()
        for start in range(0, len(ids), _ROWS):
            some = ids.slice(start, _ROWS)
            files = self.gathered.files.among(some)
            digest.update("".join(files["sha256"].to_pylist()).encode())
        return digest.hexdigest()[:8]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _order(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The rows of clips by their ids."""
    return np.asarray(pc.sort_indices(ids).to_numpy(), np.int64)


def _write_dataset(gathered: _Gathered, made: _Tier, folder: Path, at_once: bool) -> dict[str, tuple[Folder, str]]:
    """Write a dataset into an empty folder. at_once: it takes the place of the old folder at once, and is not put among its
    files. Gives path in the dataset → where the clip lies in the workspace. Raises ClipsGone."""
    workspace, recipe, schema = gathered.workspace, gathered.recipe, _schema(gathered.recipe)
    old = made.before.old if made.before is not None and not at_once else None
    taken = {} if old is None else dict(zip(old["path"].to_pylist(), old["sha256"].to_pylist(), strict=True))
    writing = _Writing(gathered, made, schema, taken)
    mark = None if at_once else writing.mark()
    shards = write_sorted(writing.tables(), len(made.rows), schema, folder, recipe.export.rows_per_shard, mark)
    # Elsewhere clips are placed from where they lie, by the store itself, and do not come through this machine.
    here = at_once or not READ_CLIPS.isdisjoint(recipe.export.formats)
    gone = []
    for path, name in writing.places.items() if here else ():
        try:
            Folder(folder).link(workspace.folder, name, path)
        except FileNotFoundError:
            gone.append(name)
    if gone:
        raise ClipsGone(gone)
    if set(recipe.export.formats) - {"parquet"}:
        write_formats(read_shards(shards), folder, recipe.export.formats, recipe.export.clips_per_tar)
    believed = {**gathered.unchecked, **({"captions": gathered.fault} if gathered.fault else {})}
    facts = facts_of(
        workspace, recipe, made.name, gathered.clips, made.funnel, shards, writing.size, writing.problems, believed
    )
    marked = write_truth(workspace, gathered.marked_scores(), made.name, recipe.tiers[made.name], folder)
    facts = replace(facts, **marked)
    head = front_matter(facts.title, facts.kept) if "huggingface" in recipe.export.formats else ""
    with whole_file(folder / "README.md") as part:
        part.write_text(head + dataset_card(facts), encoding="utf-8")
    finish_dataset(folder, clips_elsewhere=not here)
    return {path: (workspace.folder, name) for path, name in writing.places.items()}


def _row(
    clip: Mapping[str, Any], file: Mapping[str, Any], captions: Mapping[str, Any], tier: str, recipe: Recipe
) -> dict[str, Any]:
    return {
        "path": file["path"].replace(ENCODED, "clips", 1),
        "num_frames": file["num_frames"],
        "height": file["height"],
        "width": file["width"],
        "clip_id": clip["clip_id"],
        "video_id": clip["video_id"],
        "uri": clip["uri"],
        "start": clip["start"],
        "end": clip["end"],
        "fps": file["fps"],
        "pace": file["pace"],
        "caption": captions.get("caption"),
        "sub_captions": captions.get("sub_captions"),
        "tier": tier,
        "verdict": "kept",
        "licence": clip["licence"],
        "sha256": file["sha256"],
        "protocols": clip["protocols"],
        **({SPLIT: split_of(clip["video_id"], recipe.export.split)} if recipe.export.split else {}),
        **{one.name: {**file, **clip}.get(one.name) for one in _further(recipe)},
        **{_RENAMED.get(name, name): clip[_score(name)] for name in recipe.filters},
    }
