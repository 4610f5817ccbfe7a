"""export: kept clips → dataset/<tier>/. Clips are encoded once and linked into each tier that keeps them; the index is last."""

from __future__ import annotations

import errno
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.access import ANYWHERE, NEEDS, Access, Reach, Source, open_source, source_of_row
from longtake.curation.clip_table import clip_scores, written_captions
from longtake.curation.errors import RowError, SetupError
from longtake.curation.looking.stats import funnel
from longtake.curation.reading.cutting import EncodeSettings, cut_clip
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.jobs import Job, Report, split
from longtake.curation.stages.formats import check_formats, remove_formats, write_formats
from longtake.curation.stages.stage import Run, Stage
from longtake.curation.workspace import Workspace
from longtake.filters.base import FilterUnavailable
from longtake.filters.verdicts import ClipScores, TierResult, decide
from longtake.manifests import schemas
from longtake.manifests.dataset.card import DatasetFacts, dataset_card
from longtake.manifests.dataset.huggingface import front_matter
from longtake.manifests.dataset.shards import (
    INDEX,
    SCORES,
    dataset_schema,
    dataset_table,
    finish_dataset,
    presto_problems,
    write_shards,
)
from longtake.manifests.folder import Folder, local_path
from longtake.manifests.store import Manifest, StoreError, open_folder

_ENCODED = "encoded"  # clips/<two digits>/<clip id>.mp4, by clip, whatever tiers keep it
_RENAMED = {"width": "source_width", "height": "source_height", "fps": "source_fps"}
_BATCH_SECONDS = 60.0  # of video
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
_SAME_PACE = 1.05  # what is less longer is cut: no caption is then off by more than a fifth of its segment


class Export(Stage):
    """Clips that a tier keeps → exports, and dataset/<tier>/."""

    name = "export"

    def output(self, workspace: Workspace) -> Manifest:
        return workspace.exports

    def validate(self, recipe: Recipe) -> None:
        check_formats(recipe.export.formats)

    def plan(self, run: Run) -> Job | None:
        return plan(run.workspace, run.recipe, retry_errors=run.options.retry_errors, access=run.access)

    def finish(self, run: Run) -> None:
        run.datasets.update(finish(run.workspace, run.recipe))
        encoded = run.workspace.exports.read(["clip_id", "status", "export_protocol", "sha256"])
        ours = pc.and_(
            pc.equal(encoded["status"], "ok"), pc.equal(encoded["export_protocol"], run.recipe.export_protocol)
        )
        run.notes.extend(equal_clips(encoded.filter(ours)))


def plan(workspace: Workspace, recipe: Recipe, *, retry_errors: bool, access: Access | None = None) -> Job | None:
    """The clips that some tier keeps, with good captions, that are not encoded under these settings yet."""
    scores = clip_scores(workspace, recipe)
    if not scores.table.num_rows:
        return None
    clips = scores.table.filter(pa.array(np.any([kept(scores, recipe, tier) for tier in recipe.tiers], axis=0)))
    done = workspace.exports.read(["clip_id", "status", "scan_id", "export_protocol"])
    settled = pc.or_(pc.equal(done["status"], "ok"), pa.scalar(not retry_errors))
    done = done.filter(pc.and_(settled, pc.equal(done["export_protocol"], recipe.export_protocol)))
    finished = pc.and_(
        pc.is_in(clips["clip_id"], value_set=done["clip_id"]), pc.is_in(clips["scan_id"], value_set=done["scan_id"])
    )
    todo = clips.filter(pc.invert(finished)).select(["clip_id", "video_id", "uri", "start", "end", "scan_id"])
    if not todo.num_rows:
        return None
    access = access or Access()
    todo = access.attached(todo.sort_by("video_id"), workspace.inputs.read(["video_id", NEEDS]))
    seconds = pc.subtract(todo["end"], todo["start"]).to_pylist()
    batches = split(todo, seconds, per_batch=_BATCH_SECONDS, at_most=16)
    args = (workspace.path, recipe.model_dump(mode="json"), access.reach)
    return Job("export", batches, ExportWorker, args, memory_mib=2048)


def kept(scores: ClipScores, recipe: Recipe, tier: str) -> npt.NDArray[np.bool_]:
    """The clips of a tier."""
    return decide(scores, recipe.tiers[tier]).kept


class ExportWorker:
    """Cuts and encodes batches of clips, in the sandbox, and appends their rows."""

    def __init__(self, workspace: str, recipe: Mapping[str, Any], reach: Reach = ANYWHERE) -> None:
        self.workspace, self.reach = workspace, reach
        self.manifest = schemas.exports(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.sandbox = Sandbox()

    def __call__(self, batch: pa.Table) -> Report:
        started = time.monotonic()
        rows = [self._export(clip) for clip in batch.to_pylist()]
        cpu = sum(row.pop("cpu_seconds", 0.0) for row in rows)
        self.manifest.append(pa.Table.from_pylist(rows, schema=schemas.EXPORTS))
        return Report(
            rows=len(rows),
            errors=sum(row["status"] == "error" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=cpu,
            video_seconds=pc.sum(pc.subtract(batch["end"], batch["start"])).as_py(),
        )

    def _export(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        scan = self.recipe.scan
        row = {
            "clip_id": clip["clip_id"],
            "scan_id": clip["scan_id"],
            "export_protocol": self.recipe.export_protocol,
            "path": encoded_path(clip["clip_id"]),
        }
        seconds = max(scan.min_time_limit, 10 * scan.time_limit * (clip["end"] - clip["start"]))
        try:
            done: dict[str, Any] = self.sandbox.run(
                encode_clip,
                (dict(clip), self.workspace, self.recipe.export.model_dump(), self.reach),
                Limits(seconds, scan.memory_limit_mib),
            )
            return row | {"status": "ok"} | done
        except RowError as error:
            told = source_of_row(dict(clip), self.reach).redact(str(error))
            return row | {"status": "error", "error_kind": error.kind, "error": told}


def encoded_path(clip_id: str) -> str:
    """Where an encoded clip lies below the workspace, and below each dataset instead of `encoded`, `clips`."""
    return f"{_ENCODED}/{clip_id[:2]}/{clip_id}.mp4"


def encode_clip(
    clip: Mapping[str, Any], workspace: str, export: Mapping[str, Any], reach: Reach = ANYWHERE
) -> dict[str, Any]:
    """Cut one clip into the workspace. Raises RowError. Runs in the sandbox."""
    cpu = time.process_time()
    settings = EncodeSettings(
        fps=export["fps"],
        frames=export["frames"],
        max_height=export["max_height"],
        preset=export["preset"],
        crf=export["crf"],
    )
    folder, target = open_folder(workspace), encoded_path(clip["clip_id"])
    pace = _pace(clip["end"] - clip["start"], settings)
    with _source(source_of_row(dict(clip), reach)) as source:
        try:
            with folder.whole_file(target) as part:
                encoded = cut_clip(source, clip["start"], clip["end"], part, settings, pace)
        except OSError as error:
            message = f"cannot write {folder.file(target)}: {error}"
            if error.errno in _OF_THE_DISK:  # no fault of the clip: the run stops
                raise StoreError(message) from error
            raise RowError("export", message) from error
    return {
        "num_frames": encoded.frames,
        "width": encoded.width,
        "height": encoded.height,
        "fps": encoded.fps,
        "pace": pace,
        "bytes": encoded.bytes,
        "sha256": encoded.sha256,
        "cpu_seconds": time.process_time() - cpu,
    }


def _pace(seconds: float, settings: EncodeSettings) -> float:
    """Seconds of the source per second of the clip. What was left of a shot has joined its last clip, which then is longer
    than a trainer's fixed number of frames: it is shown whole, faster, since its captions tell of all of it."""
    if settings.frames is None or settings.fps is None:
        return 1.0
    pace = seconds * settings.fps / settings.frames
    return pace if pace > _SAME_PACE else 1.0


@contextmanager
def _source(source: Source) -> Iterator[str | BinaryIO]:
    path = local_path(source.uri)
    if path is not None:
        yield str(path)
        return
    try:
        opened = open_source(source)
    except RowError:
        raise
    except Exception as error:
        raise RowError("unreachable", f"{source.uri}: {error}") from error
    with opened as file:
        yield file


def finish(workspace: Workspace, recipe: Recipe) -> dict[str, int]:
    """Write dataset/<tier>/ for each tier out of what is encoded: clips, shards, card, checksums, the index last. Gives
    the number of clips in each."""
    try:
        scores = clip_scores(workspace, recipe)
    except FilterUnavailable as error:
        raise SetupError(str(error)) from error
    counts: dict[str, int] = {}
    for tier in recipe.tiers:
        result = decide(scores, recipe.tiers[tier])
        place = workspace.folder / "dataset" / tier
        if place.is_local:
            counts[tier] = _write_dataset(workspace, recipe, tier, scores, result, place.path)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / tier
            counts[tier] = _write_dataset(workspace, recipe, tier, scores, result, folder)
            place.remove_all()
            index = folder / INDEX
            for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != index):
                place.put(file, file.relative_to(folder).as_posix())
            place.put(index, INDEX)
    return counts


def _write_dataset(
    workspace: Workspace, recipe: Recipe, tier: str, scores: ClipScores, result: TierResult, folder: Path
) -> int:
    exported = workspace.exports.read()
    exported = exported.filter(
        pc.and_(pc.equal(exported["status"], "ok"), pc.equal(exported["export_protocol"], recipe.export_protocol))
    )
    files = {row["clip_id"]: row for row in exported.to_pylist()}
    written, fault = written_captions(workspace, recipe, ["clip_id", "scan_id", "caption", "sub_captions"])
    captions = {(row["clip_id"], row["scan_id"]): row for row in written.to_pylist()}
    clips = _counting(scores, recipe).filter(pa.array(result.kept)).to_pylist()
    measured = [_RENAMED.get(name, name) for name in recipe.filters]
    schema = dataset_schema(tuple(dict.fromkeys([*SCORES, *measured])), recipe.export.frames or 450)
    rows = [
        _row(clip, files[clip["clip_id"]], captions.get((clip["clip_id"], clip["scan_id"]), {}), tier, recipe)
        for clip in clips
        if clip["clip_id"] in files
    ]
    table = dataset_table(rows, schema)
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(table, folder, recipe.export.rows_per_shard)  # takes the old index away first
    remove_formats(folder)  # they name clips that may go now
    _place_clips(workspace, folder, table["path"].to_pylist())
    write_formats(table, folder, recipe.export.formats, recipe.export.clips_per_tar)
    believed = {**scores.unchecked, **({"captions": fault} if fault else {})}
    size = sum(files[row["clip_id"]]["bytes"] for row in rows)
    facts = _facts(workspace, recipe, tier, len(scores.table), result, table, size, believed)
    head = front_matter(facts.title, facts.kept) if "huggingface" in recipe.export.formats else ""
    (folder / "README.md").write_text(head + dataset_card(facts), encoding="utf-8")
    finish_dataset(folder)
    return int(table.num_rows)


def _counting(scores: ClipScores, recipe: Recipe) -> pa.Table:
    """The clips, null where a score does not count under the recipe's protocols: a stale one, or a mere lower bound."""
    table = scores.table
    for name in recipe.filters:
        if name in table.column_names:
            at = table.column_names.index(name)
            nothing = pa.scalar(None, table[name].type)
            table = table.set_column(at, name, pc.if_else(pa.array(scores.missing(name)), nothing, table[name]))
    return table


def _row(
    clip: Mapping[str, Any], file: Mapping[str, Any], captions: Mapping[str, Any], tier: str, recipe: Recipe
) -> dict[str, Any]:
    return {
        "path": file["path"].replace(_ENCODED, "clips", 1),
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
        **{_RENAMED.get(name, name): clip.get(name) for name in recipe.filters},
    }


def _place_clips(workspace: Workspace, folder: Path, paths: list[str]) -> None:
    """Clips of the table in, clips of an earlier table out. On one disk a clip in two tiers takes its space once."""
    wanted, place = set(paths), Folder(folder)
    for path in paths:
        place.link(workspace.folder, path.replace("clips", _ENCODED, 1), path)
    for old in (folder / "clips").glob("*/*.mp4"):
        if str(old.relative_to(folder)) not in wanted:
            old.unlink()


def equal_clips(clips: pa.Table) -> list[str]:
    """A sentence on clips that are equal byte for byte, as one film under two addresses gives them; none if there are none.
    clips: clip_id, sha256."""
    of: dict[str, list[str]] = {}
    for clip, digest in zip(clips["clip_id"].to_pylist(), clips["sha256"].to_pylist(), strict=True):
        of.setdefault(digest, []).append(clip)
    same = [names for names in of.values() if len(names) > 1]
    if not same:
        return []
    more = sum(len(names) - 1 for names in same)
    example = " and ".join(sorted(same[0])[:2])
    return [f"Equal byte for byte to another clip, by SHA-256: {more} of {clips.num_rows} clips ({example}, for one)."]


def _facts(
    workspace: Workspace,
    recipe: Recipe,
    tier: str,
    clips: int,
    result: TierResult,
    table: pa.Table,
    size: int,
    believed: Mapping[str, str],
) -> DatasetFacts:
    problems = Counter(f"{p.column}: {p.message}" for p in presto_problems(table))
    seconds = pc.sum(pc.divide(pc.cast(table["num_frames"], pa.float64()), table["fps"])).as_py() or 0.0
    notes = [
        f"Gate of the paper that this recipe does not apply: {name} ({why})."
        for name, why in recipe.not_applied.items()
    ]
    notes += [
        f"Believed as stored: {name}. The machine that exported could not tell how they are made now ({why})."
        for name, why in believed.items()
    ]
    notes += equal_clips(table)
    return DatasetFacts(
        title=f"{recipe.name}: {tier}",
        tier=tier,
        version=version("longtake"),
        videos=workspace.videos.read(["video_id"]).num_rows,
        clips=clips,
        kept=table.num_rows,
        seconds=seconds,
        size=size,
        funnel=funnel(result),
        recipe=recipe.to_yaml(),
        licences=Counter(table["licence"].to_pylist()),
        problems=problems,
        schema=table.schema,
        notes=notes,
    )
