"""export: kept clips → dataset/<tier>/. Clips are encoded once and linked into each tier that keeps them.

A dataset is made beside the one that is published, and takes its place when it is whole. It does not if clips would drop out
only because of faults of the world: then the old one stays as it is, and the run says so. An encoded file is never
replaced: a clip that is encoded again gets a file of another name, and the old one goes once the row names the new.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.registry import make_captioner
from longtake.curation.access import ANYWHERE, NEEDS, Access, Reach, Source, is_plain_file, source_of_row
from longtake.curation.clip_table import CARRIED, CurrentClips, rows_of, score_slices
from longtake.curation.errors import RowError, SetupError
from longtake.curation.looking.stats import encoded_clips
from longtake.curation.reading.box import Box
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import source_file
from longtake.curation.reading.same_film import OF_THE_SCAN, require_scanned
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.reading.sound import Sound
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.faults import (
    FAULT_BEFORE,
    HAD_RESULT,
    SOURCE_WORKS,
    kinds_of,
    of_the_world,
    outcome,
    source_of,
    this_host,
    untried,
    with_past,
)
from longtake.curation.running.jobs import AT_A_TIME, Job, Report, allow, split
from longtake.curation.stages.datasets import ENCODED, finish, lost
from longtake.curation.stages.facts import equal_clips
from longtake.curation.stages.formats import check_formats
from longtake.curation.stages.placing import by_workers
from longtake.curation.stages.stage import Run, Stage, of_part
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.folder import in_words, local_path
from longtake.manifests.keys import Seen
from longtake.manifests.lookup import Lookup
from longtake.manifests.members import container_of
from longtake.manifests.store import Manifest, StoreError, open_folder

_BATCH_SECONDS = 60.0  # Seconds of video. A batch of the export has about this much.
_CLIP_SECONDS = 12.0  # Seconds of CPU that a clip takes, as a rule, for an estimate of a run.
_MARGIN_SECONDS = 90.0  # Seconds beyond the sandbox's limit: its process has to start, and rows have to be written.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}
# Seconds of the source per second of the clip. A clip whose pace would be no higher is not made faster, but loses its end:
# then no caption is off by more than a fifth of its segment.
_SAME_PACE = 1.05


class Export(Stage):
    """Clips that a tier keeps → exports, and dataset/<tier>/."""

    name = "export"

    def output(self, workspace: Workspace) -> Manifest:
        return workspace.exports

    def validate(self, recipe: Recipe) -> None:
        check_formats(recipe.export.formats)

    def plan(self, run: Run) -> Job | None:
        how, tried = run.options, run.tried.get(self.name)
        return plan(
            run.workspace, run.recipe, retry_errors=how.retry_errors, access=run.access, part=how.part, tried=tried
        )

    def job(self, run: Run, batches: Sequence[pa.Table]) -> Job:
        return job(run.workspace, run.recipe, batches, (run.access or Access()).reach)

    def waits(self, run: Run) -> bool:
        # The clips whose captions are copies are not exported, and which clips these are is known only at the end.
        how = run.recipe.captioning
        return how.max_copies is not None or make_captioner(how.captioner, how.settings).running.on_driver

    def take(self, run: Run, clips: pa.Table) -> tuple[list[pa.Table], pa.Table]:
        scores = ClipScores(clips, run.recipe.built)
        ours = np.any([kept(scores, run.recipe, tier) for tier in run.recipe.tiers], axis=0)
        wanted = ["clip_id", "scan_id", *_OF_CLIPS, *CARRIED]
        todo = clips.filter(pa.array(ours)).select([name for name in wanted if name in clips.column_names])
        past = {HAD_RESULT: pa.bool_(), FAULT_BEFORE: pa.string(), SOURCE_WORKS: pa.bool_(), "old_path": pa.string()}
        for name, kind in past.items():
            todo = todo.append_column(name, pa.nulls(todo.num_rows, kind))
        return _batches(todo), clips[:0]

    def check(self, run: Run) -> None:
        super().check(run)
        refuse_links(run.workspace, run.recipe.tiers)

    def finish(self, run: Run) -> None:
        refuse_links(run.workspace, run.recipe.tiers)
        copy = by_workers(run.perform[-1]) if run.perform else None
        run.datasets.update(finish(run.workspace, run.recipe, run.kept_back, copy))
        encoded = encoded_clips(run.workspace, run.recipe, CurrentClips.of(run.workspace))
        run.notes.extend(equal_clips(encoded))


def refuse_links(workspace: Workspace, tiers: Iterable[str]) -> None:
    """Raises SetupError if `dataset`, a tier's folder in it, or something that export writes there is a symbolic link: export
    replaces and removes files, and would do so wherever the link leads."""
    if not workspace.folder.is_local:
        return
    dataset = workspace.folder.path / "dataset"
    suspects = [dataset]
    for tier in tiers:
        suspects.append(dataset / tier)
        for folder in (dataset / tier, *(dataset / tier).glob("*/")):
            if folder.is_dir() and not folder.is_symlink():
                suspects += [Path(entry.path) for entry in os.scandir(folder) if entry.is_symlink()]
    for path in suspects:
        if path.is_symlink():
            raise SetupError(
                f"{path} is a symbolic link to {os.readlink(path)}: export replaces and removes files there, and does not "
                "follow it. Remove the link, or put the whole workspace where there is room"
            )


def plan(
    workspace: Workspace,
    recipe: Recipe,
    *,
    retry_errors: bool,
    access: Access | None = None,
    part: tuple[int, int] | None = None,
    tried: Seen | None = None,
    at_a_time: int = AT_A_TIME,
) -> Job | None:
    """The clips that some tier keeps, with good captions, that are not encoded under these settings yet; of very many some, see
    `Job.partial`. part: only clips of its videos. tried: rows that were tried in this run."""
    if not workspace.clips.rows():
        return None
    encoded = ["status", "error_kind", "export_protocol"]
    files = ["path", "bytes"] if workspace.folder.is_local else []
    old = Lookup(workspace.exports, ["scan_id", *encoded, *files], encoded=encoded)
    working: set[str] = set()
    tables, count = list[pa.Table](), 0
    for scores in score_slices(workspace, recipe, _OF_CLIPS):
        keep = np.any([kept(scores, recipe, tier) for tier in recipe.tiers], axis=0)
        clips = of_part(scores.table.filter(pa.array(keep)).select(["clip_id", "scan_id", *_OF_CLIPS]), part)
        rows, there = old.of(clips["clip_id"])
        done = there & _finished(clips, rows, recipe, retry_errors)
        finished = from_numpy(done & ~lost(workspace, rows))
        working.update(_sources(clips.filter(finished)))
        todo = untried(clips.filter(pc.invert(finished)), tried)
        tables.append(with_past(todo, "clip_id", old.among(todo["clip_id"])))
        count += todo.num_rows
        if count > at_a_time:
            break
    if not count:
        return None
    todo = _with_sources(pa.concat_tables(tables).slice(0, at_a_time), working)
    todo = _with_scanned(workspace, _with_old_paths(workspace, todo, old)).sort_by("video_id")
    access = access or Access()
    todo = access.attached(todo, rows_of(workspace.inputs, todo["video_id"], ["video_id", NEEDS]))
    return replace(job(workspace, recipe, _batches(todo), access.reach), partial=count > at_a_time)


_SCANNED = "scanned"  # Column: see `_with_scanned`. Clips that flow from the scan have none.
_OF_CLIPS = ["video_id", "uri", "start", "end", "clock_restarts", "film_fps", *schemas.SHOWN]


def _finished(clips: pa.Table, rows: pa.Table, recipe: Recipe, retry_errors: bool) -> npt.NDArray[np.bool_]:
    """Which clips are encoded under these settings, or ended in a fact. rows: theirs in the exports manifest."""
    texts = {name: rows[name].cast(pa.string()) for name in rows.column_names}
    given_up = pc.and_(pc.invert(of_the_world(texts["error_kind"])), pa.scalar(not retry_errors))
    settled = pc.or_(pc.equal(texts["status"], "ok"), given_up)
    same = pc.and_(
        pc.equal(texts["export_protocol"], recipe.export_protocol), pc.equal(texts["scan_id"], clips["scan_id"])
    )
    return np.asarray(pc.fill_null(pc.and_(settled, same), False).to_numpy().astype(bool))


def _sources(clips: pa.Table) -> set[str]:
    """One URI for each source of some clips."""
    return set({source_of(uri): uri for uri in pc.unique(clips["uri"]).to_pylist()}.values())


def _with_sources(todo: pa.Table, working: set[str]) -> pa.Table:
    """Clips, and whether their source gave others that are encoded."""
    works = pa.nulls(todo.num_rows, pa.bool_())
    if pc.any(pc.equal(todo[FAULT_BEFORE], "credentials")).as_py():
        sources = {source_of(uri) for uri in working}
        works = pa.array([source_of(uri) in sources for uri in todo["uri"].to_pylist()], pa.bool_())
    return todo.set_column(todo.column_names.index(SOURCE_WORKS), SOURCE_WORKS, works)


def _with_old_paths(workspace: Workspace, todo: pa.Table, old: Lookup) -> pa.Table:
    """Clips, and where the file lies that each was encoded to before."""
    again = todo["clip_id"].filter(from_numpy(old.index.has(todo["clip_id"])))
    rows = rows_of(workspace.exports, again, ["clip_id", "status", "path"]) if len(again) else None
    paths = pa.nulls(todo.num_rows, pa.string())
    if rows is not None:
        encoded = pc.if_else(pc.equal(rows["status"], "ok"), rows["path"], pa.scalar(None, pa.string()))
        paths = encoded.take(pc.index_in(todo["clip_id"], value_set=rows["clip_id"].combine_chunks()))
    return todo.append_column("old_path", paths)


def _with_scanned(workspace: Workspace, todo: pa.Table) -> pa.Table:
    """Clips, and the film of each as it was scanned."""
    videos = rows_of(workspace.videos, todo["video_id"], ["video_id", *OF_THE_SCAN])
    film = pa.StructArray.from_arrays([videos[name].combine_chunks() for name in OF_THE_SCAN], list(OF_THE_SCAN))
    at = pc.index_in(todo["video_id"], value_set=videos["video_id"].combine_chunks())
    return todo.append_column(_SCANNED, film.take(at.combine_chunks()))


def _batches(todo: pa.Table) -> list[pa.Table]:
    seconds = pc.subtract(todo["end"], todo["start"]).to_pylist()
    return split(todo, seconds, per_batch=_BATCH_SECONDS, at_most=16)


def job(workspace: Workspace, recipe: Recipe, batches: Sequence[pa.Table], reach: Reach) -> Job:
    """The job of these batches."""
    args = (workspace.path, recipe.model_dump(mode="json"), reach)
    patience = recipe.scan.min_time_limit + _MARGIN_SECONDS
    return Job("export", batches, ExportWorker, args, memory_mib=2048, patience=patience, clip_seconds=_CLIP_SECONDS)


def kept(scores: ClipScores, recipe: Recipe, tier: str) -> npt.NDArray[np.bool_]:
    """The clips of a tier."""
    return decide(scores, recipe.tiers[tier]).kept


class ExportWorker:
    """Cuts and encodes batches of clips, in the sandbox, and appends their rows."""

    def __init__(self, workspace: str, recipe: Mapping[str, Any], reach: Reach = ANYWHERE) -> None:
        self.workspace, self.reach = workspace, reach
        self.manifest = schemas.exports(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.sandbox = Sandbox(lambda seconds: allow(seconds + _MARGIN_SECONDS))

    def __call__(self, batch: pa.Table) -> Report:
        started = time.monotonic()
        clips = batch.to_pylist()
        rows = [self._export(clip) for clip in clips]
        cpu = sum(row.pop("cpu_seconds", 0.0) for row in rows)
        outcomes = [
            outcome(clip, clip["uri"], row.get("error_kind"), row.get("error"))
            for clip, row in zip(clips, rows, strict=True)
        ]
        kept = [row for row, one in zip(rows, outcomes, strict=True) if not one.left_as_it_was]
        self.manifest.append(pa.Table.from_pylist(kept, schema=schemas.EXPORTS))
        folder = open_folder(self.workspace)
        for clip, row in zip(clips, rows, strict=True):
            if row["status"] == "ok" and clip.get("old_path") not in (None, row["path"]):
                with suppress(Exception):
                    # No row names the old file any more, and datasets have links or copies of their own.
                    folder.remove(clip["old_path"])
        return Report(
            rows=len(rows),
            errors=sum(row["status"] == "error" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=cpu,
            video_seconds=pc.sum(pc.subtract(batch["end"], batch["start"])).as_py(),
            outcomes=tuple(outcomes),
            error_kinds=kinds_of(rows),
        )

    def give_up(self, batch: pa.Table, message: str) -> Report:
        """Errors in place of clips that nobody survives."""
        clips = batch.to_pylist()
        rows = [self._row(clip) | {"status": "error", "error_kind": "crash", "error": message} for clip in clips]
        self.manifest.append(pa.Table.from_pylist(rows, schema=schemas.EXPORTS))
        outcomes = tuple(outcome(clip, clip["uri"], None, None) for clip in clips)
        return Report(rows=len(rows), errors=len(rows), outcomes=outcomes, error_kinds={"crash": len(rows)})

    def _row(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "clip_id": clip["clip_id"],
            "scan_id": clip["scan_id"],
            "export_protocol": self.recipe.export_protocol,
            "path": self._path(clip),
            "host": this_host(),
        }

    def _export(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        scan = self.recipe.scan
        row = self._row(clip)
        seconds = max(scan.min_time_limit, 10 * scan.time_limit * (clip["end"] - clip["start"]))
        allow(seconds + _MARGIN_SECONDS)
        limits = scan.time_limit, seconds
        try:
            done: dict[str, Any] = self.sandbox.run(
                encode_clip,
                (
                    dict(clip),
                    self.workspace,
                    row["path"],
                    self.recipe.export.model_dump(),
                    self._faster,
                    self.reach,
                    limits,
                ),
                Limits(seconds, scan.memory_limit_mib),
            )
            return row | {"status": "ok"} | done
        except RowError as error:
            told = source_of_row(dict(clip), self.reach).redact(str(error))
            return row | {"status": "error", "error_kind": error.kind, "error": told}

    @property
    def _faster(self) -> bool:
        return self.recipe.splitting.longer == "faster"

    def _path(self, clip: Mapping[str, Any]) -> str:
        """Of a file that no row names: what a row names is never replaced, or the row would be of another file."""
        if clip.get("old_path") is None:
            return encoded_path(clip["clip_id"])
        made = f"{clip['scan_id']} {self.recipe.export_protocol}".encode()
        return encoded_path(clip["clip_id"], hashlib.sha256(made).hexdigest()[:8])


def encoded_path(clip_id: str, mark: str | None = None) -> str:
    """Where an encoded clip lies below the workspace, and below each dataset instead of `encoded`, `clips`. mark: of a clip
    that was encoded before."""
    return f"{ENCODED}/{clip_id[:2]}/{clip_id}{f'-{mark}' if mark else ''}.mp4"


def encode_clip(
    clip: Mapping[str, Any],
    workspace: str,
    target: str,
    export: Mapping[str, Any],
    faster: bool = False,
    reach: Reach = ANYWHERE,
    limits: tuple[float, float] = (inf, inf),
) -> dict[str, Any]:
    """Cut one clip into the workspace, to `target`. faster: see `_pace`. limits: seconds for each second of a film that has to be
    read to know whether it is the same, and for the clip. Raises RowError. Runs in the sandbox."""
    cpu = time.process_time()
    settings = EncodeSettings(
        fps=export["fps"],
        frames=export["frames"],
        max_height=export["max_height"],
        preset=export["preset"],
        crf=export["crf"],
        keep_audio=export["keep_audio"],
    )
    folder = open_folder(workspace)
    seconds = clip["end"] - clip["start"]
    pace = _pace(seconds, settings) if faster else 1.0
    origin = source_of_row(dict(clip), reach)
    with _source(origin) as source:
        if (scanned := clip.get(_SCANNED)) is not None:
            require_scanned(origin, source, scanned, *limits)
        try:
            with folder.whole_file(target) as part:
                encoded = cut_clip(
                    source,
                    clip["start"],
                    clip["end"],
                    part,
                    settings,
                    pace,
                    seek=not clip.get("clock_restarts"),
                    crop=Box.of_row(clip),
                    fields_since=inf if (since := clip.get("fields_since")) is None else since,
                    film_fps=clip.get("film_fps"),
                )
        except OSError as error:
            aside = error.filename == tempfile.gettempdir()  # Long sound waits there to be encoded.
            message = f"cannot write {error.filename if aside else folder.file(target)}: {in_words(error)}"
            if error.errno in _OF_THE_DISK:
                # The disk is at fault, and not the clip, so the run stops.
                raise StoreError(message) from error
            raise RowError("export", message) from error
    return {
        "num_frames": encoded.frames,
        "width": encoded.width,
        "height": encoded.height,
        "fps": encoded.fps,
        "pace": pace,
        "seconds_left_out": max(0.0, seconds - pace * encoded.frames / encoded.fps) if settings.frames else 0.0,
        "bytes": encoded.bytes,
        "sha256": encoded.sha256,
        **(_sound_columns(encoded.sound) if encoded.sound else {}),
        "cpu_seconds": time.process_time() - cpu,
    }


def _sound_columns(sound: Sound) -> dict[str, Any]:
    """What is stored of a clip's sound."""
    if not sound.audible:
        return {"audio": sound.state}
    return {
        "audio": sound.state,
        "audio_rate": sound.rate,
        "audio_channels": sound.channels,
        "loudness": None if np.isnan(sound.loudness) else sound.loudness,
        "silence": sound.silence,
    }


def _pace(seconds: float, settings: EncodeSettings) -> float:
    """Seconds of the source per second of the clip, with `splitting.longer: faster`: a clip that is longer than a trainer's fixed
    number of frames is shown whole, faster, since its captions tell of all of it. Otherwise nothing is ever sped up."""
    if settings.frames is None or settings.fps is None:
        return 1.0
    pace = seconds * settings.fps / settings.frames
    return pace if pace > _SAME_PACE else 1.0


@contextmanager
def _source(source: Source) -> Iterator[str | BinaryIO]:
    path = local_path(source.uri)
    if path is not None and (container_of(source.uri) is None or is_plain_file(source.uri)):
        yield str(path)
        return
    with source_file(source) as file:
        yield file
