"""scan: inputs → videos. One decode pass per video; one row per video, its clips nested; the frames file before the row."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any
from uuid import uuid4

import av.error
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.access import ACCESS, ANYWHERE, NEEDS, Access, Reach, Source, source_of_row
from longtake.curation.clip_table import STORED, explode, sync_clips
from longtake.curation.errors import RowError, VideoError
from longtake.curation.folders import NO_FILE
from longtake.curation.growth import SEEN, same_file
from longtake.curation.reading.faults import kind_of, words
from longtake.curation.reading.judge import ClipScan, Keep, Show, VideoScan
from longtake.curation.reading.pieces import scan_first, scan_piece, scan_whole
from longtake.curation.reading.samples import store_sample
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.sandbox import Limits, Sandbox, allow_seconds
from longtake.curation.reading.seams import Piece, SeamError
from longtake.curation.reading.strips import strip_of_pictures
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.faults import (
    FAULT_BEFORE,
    HAD_RESULT,
    kinds_of,
    of_the_world,
    outcome,
    source_of,
    this_host,
    untried,
    with_past,
)
from longtake.curation.running.jobs import AT_A_TIME, Job, Report, allow, split
from longtake.curation.stages import pieces
from longtake.curation.stages.sizes import clips_in, file_sizes
from longtake.curation.stages.stage import Run, Stage, of_part
from longtake.curation.workspace import Workspace
from longtake.filters.base import Needs, Sample
from longtake.filters.verdicts import ClipScores, alive
from longtake.manifests import ids, schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.folder import local_path
from longtake.manifests.frames import FramesWriter, StoredStrip, frames_writer, piece_name
from longtake.manifests.keys import Index, Seen, hashed
from longtake.manifests.lookup import Lookup
from longtake.manifests.store import Manifest

_BATCH_BYTES = 32 * 2**20  # Bytes of video. A batch of the scan has about this much: some seconds of decoding.
_CLIP_SECONDS = 2.0  # Seconds of CPU that 15 s of film take, as a rule, for an estimate of a run.
# Seconds beyond the sandbox's limit, which depends on the video: its process has to start, and rows have to be written.
_MARGIN_SECONDS = 90.0


class Scan(Stage):
    """inputs → videos, and the clips nested in them → clips."""

    name = "scan"
    measures = frozenset({Needs.PROBE, Needs.SAMPLE})

    def output(self, workspace: Workspace) -> Manifest:
        return workspace.videos

    def plan(self, run: Run) -> Job | None:
        how = run.options
        return plan(
            run.workspace,
            run.recipe,
            all_scores=how.all_scores,
            retry_errors=how.retry_errors,
            access=run.access,
            part=how.part,
            tried=run.tried.get(self.name),
        )

    def job(self, run: Run, batches: Sequence[pa.Table]) -> Job:
        how = run.options
        return job(run.workspace, run.recipe, batches, how.all_scores, (run.access or Access()).reach)

    def begins(self, run: Run) -> bool:
        return bool(run.workspace.pieces.parts())

    def settle(self, run: Run) -> None:
        sync_clips(run.workspace, run.recipe, run.options.part)
        pieces.clear(run.workspace, run.options.part)

    def finish(self, run: Run) -> None:
        if len(run.tried[self.name]) and (count := pieces.unsplit(run.workspace)):
            films, were = ("1 film", "was") if count == 1 else (f"{count} films", "were")
            run.notes.append(pieces.UNSPLIT.format(films, were))


def plan(
    workspace: Workspace,
    recipe: Recipe,
    *,
    all_scores: bool,
    retry_errors: bool,
    access: Access | None = None,
    part: tuple[int, int] | None = None,
    tried: Seen | None = None,
    at_a_time: int = AT_A_TIME,
) -> Job | None:
    """The videos that have to be scanned: those never seen, those whose clips were made in another way, and those a clip
    of which needs a score or frames that a stricter recipe did without. Of very many the dearest, see `Job.partial`.

    part: only of its videos. tried: rows that were tried in this run."""
    names = ["status", "error_kind", "clip_protocol"]
    videos = Lookup(workspace.videos, [*names, "scan_id", *SEEN], encoded=names)
    begun = pieces.Begun(workspace)
    again = incomplete_videos(workspace, recipe, all_scores, retry_errors, part)
    working: Callable[[], pa.Array] = cache(lambda: _working(workspace, recipe))
    todo, cost, cut = pa.table({}), np.zeros(0), False
    for wanted in workspace.inputs.scan():
        wanted = of_part(wanted.filter(pc.is_null(wanted["removed"])), part)
        if not begun:
            wanted = untried(wanted, tried)
        rows, there = videos.of(wanted["video_id"])
        done = there & _done(wanted, rows, recipe, retry_errors) & ~again.has(wanted["video_id"])
        open_ = from_numpy(~done)
        wanted = _work(wanted.filter(open_), rows.filter(open_), begun, recipe, retry_errors, tried)
        if not wanted.num_rows:
            continue
        wanted = with_past(wanted, "video_id", videos.among(wanted["video_id"]), working)
        costs = pieces.costs(wanted, file_sizes(wanted), _BATCH_BYTES)
        todo, cost = pa.concat_tables([todo, wanted] if todo.num_rows else [wanted]), np.append(cost, costs)
        if todo.num_rows > 2 * at_a_time:
            order, cut = _in_order(todo, cost)[:at_a_time], True
            todo, cost = todo.take(order), cost[order]
    if not todo.num_rows:
        return None
    order = _in_order(todo, cost)
    cut |= len(order) > at_a_time
    order = order[:at_a_time]
    access = access or Access()
    todo = access.attached(todo.take(order))
    batches = split(todo, cost[order].tolist(), per_batch=_BATCH_BYTES, at_most=8)
    return replace(
        job(workspace, recipe, batches, all_scores, access.reach),
        clips=partial(clips_in, todo, cost[order].tolist(), access.reach),
        partial=cut,
    )


def _work(
    wanted: pa.Table, videos: pa.Table, begun: pieces.Begun, recipe: Recipe, retry_errors: bool, tried: Seen | None
) -> pa.Table:
    """Rows of work for inputs that are not done: the films themselves, or what is left of those that are scanned in pieces.
    videos: their rows."""
    if not begun:  # Rows that were tried are left out already.
        return pieces.with_fields(wanted)
    has = from_numpy(begun.has(wanted["video_id"]))
    theirs, rows = wanted.filter(has), videos.filter(has)
    protocols = [clip_protocol(recipe, spans) for spans in theirs["spans"].to_pylist()]
    good = pc.equal(rows["status"].cast(pa.string()), "ok")
    spent = pc.if_else(pc.fill_null(good, False), rows["scan_id"], None).to_pylist()
    work, fresh = begun.rows(theirs, protocols, spent, retry_errors, tried)
    fresh = untried(pa.concat_tables([wanted.filter(pc.invert(has)), fresh]), tried)
    return pa.concat_tables([pieces.with_fields(fresh), work])


def _in_order(todo: pa.Table, cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Dearest first: no long tail. What met a fault before comes last: it must not hold up what can be read."""
    return np.lexsort([-cost, todo[FAULT_BEFORE].is_valid().to_numpy()])


def _working(workspace: Workspace, recipe: Recipe) -> pa.Array:
    """One URI for each source that gave a video what is asked for now."""
    uri_of: dict[str, str] = {}
    for videos in workspace.videos.scan(["uri", "status", "clip_protocol"]):
        good = pc.and_(pc.equal(videos["status"], "ok"), pc.starts_with(videos["clip_protocol"], recipe.clip_protocol))
        uri_of |= {source_of(uri): uri for uri in videos["uri"].filter(good).to_pylist()}
    return pa.array(list(uri_of.values()), pa.string())


def job(workspace: Workspace, recipe: Recipe, batches: Sequence[pa.Table], all_scores: bool, reach: Reach) -> Job:
    """The job of these batches."""
    args = (workspace.path, recipe.model_dump(mode="json"), all_scores, reach)
    patience = recipe.scan.min_time_limit + _MARGIN_SECONDS
    return Job(
        "scan",
        batches,
        ScanWorker,
        args,
        memory_mib=recipe.scan.memory_limit_mib,
        patience=patience,
        clip_seconds=_CLIP_SECONDS,
    )


def _done(wanted: pa.Table, videos: pa.Table, recipe: Recipe, retry_errors: bool) -> npt.NDArray[np.bool_]:
    """Which of some inputs are scanned as the recipe asks, or ended in an error that is a fact, and are the files that they were.
    videos: their rows."""
    protocols = np.full(wanted.num_rows, recipe.clip_protocol, object)
    listed = np.flatnonzero(pc.fill_null(pc.greater(pc.list_value_length(wanted["spans"]), 0), False).to_numpy())
    for row, spans in zip(listed.tolist(), wanted["spans"].take(from_numpy(listed)).to_pylist(), strict=True):
        protocols[row] = clip_protocol(recipe, spans)
    same = pc.fill_null(pc.equal(videos["clip_protocol"].cast(pa.string()), pa.array(protocols, pa.string())), False)
    status = videos["status"].cast(pa.string())
    if retry_errors:
        done = pc.and_(same, pc.fill_null(pc.equal(status, "ok"), False))
    else:
        done = pc.or_(same, pc.fill_null(pc.equal(status, "error"), False))
    done = np.asarray(pc.and_(done, pc.invert(of_the_world(videos["error_kind"]))).to_numpy().astype(bool))
    return done & same_file(wanted, videos)


def clip_protocol(recipe: Recipe, spans: Sequence[Mapping[str, Any]] | None) -> str:
    """What the clips of a video depend on: the recipe, and the clips that its source list names."""
    if not spans:
        return recipe.clip_protocol
    # Clips got several captions only in a later version: without such captions, the name of the way is the old one.
    plain = [{key: value for key, value in span.items() if key != "captions" or value} for span in spans]
    named = f"sought:{json.dumps(plain, sort_keys=True)}".encode()
    return f"{recipe.clip_protocol}+{hashlib.sha256(named).hexdigest()[:8]}"


def incomplete_videos(
    workspace: Workspace, recipe: Recipe, all_scores: bool, retry_errors: bool, part: tuple[int, int] | None = None
) -> Index:
    """Videos with a clip that lacks a score of the scan, or its frames, and for which it now matters."""
    hashes = [np.zeros((2, 0), np.uint64)]
    for clips in workspace.clips.scan():
        clips = of_part(clips, part)
        if clips.num_rows:
            again = _incomplete(clips, recipe, all_scores, retry_errors)
            hashes.append(hashed(pc.unique(clips["video_id"].filter(pa.array(again)))))
    return Index(np.concatenate(hashes, axis=1))


def _incomplete(clips: pa.Table, recipe: Recipe, all_scores: bool, retry_errors: bool) -> npt.NDArray[np.bool_]:
    scores = ClipScores(clips, recipe.built)
    ok = pc.equal(clips["status"], "ok").to_numpy(zero_copy_only=False)
    lacking = ~clips["has_frames"].to_numpy(zero_copy_only=False)
    for name in recipe.needing(Needs.SAMPLE):
        lacking |= scores.missing(name) & ~scores.settled(name)
    for name, filter_ in recipe.built.items():
        if filter_.lower_bound is not None:
            low, _, _ = scores.span(name)
            lacking |= np.isnan(low)
    living = alive(scores, recipe.tiers)
    needed = np.ones(len(ok), bool) if all_scores else living
    again = ok & ((lacking & needed) | (_too_short(clips, recipe) & living))
    return np.asarray(again | ~ok if retry_errors else again)


def _too_short(clips: pa.Table, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Clips that are the longest shot of their film, and shorter than a clip has to be: those of lists are as they are."""
    seconds = np.asarray(pc.subtract(clips["end"], clips["start"]))
    sought = pc.match_substring(clips["clip_protocol"], "+").fill_null(False).to_numpy().astype(bool)
    return np.asarray((seconds < recipe.splitting.min_seconds - 1e-6) & ~sought)


class ScanWorker:
    """Scans batches of videos, each in the sandbox, and appends their rows."""

    def __init__(
        self,
        workspace: str,
        recipe: Mapping[str, Any],
        all_scores: bool,
        reach: Reach = ANYWHERE,
    ) -> None:
        self.workspace = Workspace(workspace)
        self.manifest, self.clips = self.workspace.videos, self.workspace.clips
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.job = (workspace, dict(recipe), all_scores, reach)
        self.all_scores, self.reach = all_scores, reach
        self.sandbox = Sandbox(lambda seconds: allow(seconds + _MARGIN_SECONDS))

    def __call__(self, batch: pa.Table) -> Report:
        started = time.monotonic()
        todo = batch.to_pylist()
        rows = [self._scan(row) for row in todo]
        outcomes = [
            outcome(row, row["uri"], made.get("error_kind"), made.get("error"))
            for row, made in zip(todo, rows, strict=True)
        ]
        # A fault of the world replaces no result, be it of another protocol: its clips, captions and datasets stay.
        kept = [made for made, one in zip(rows, outcomes, strict=True) if not one.left_as_it_was]
        videos = pa.Table.from_pylist([made for made in kept if not pieces.is_part(made)], schema=schemas.VIDEOS)
        self.manifest.append(videos)
        self.workspace.pieces.append(pieces.lasting(kept))
        return Report(
            rows=len(rows),
            errors=sum(row["status"] == "error" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=sum(map(pieces.cpu_spent, rows)),
            video_seconds=sum(map(pieces.seconds_read, rows)),
            outcomes=tuple(outcomes),
            error_kinds=kinds_of(rows),
            clips=self._clips(videos, batch),
        )

    def give_up(self, batch: pa.Table, message: str) -> Report:
        """Errors in place of videos that nobody survives."""
        rows = [self._failed(row, VideoError("crash", message)) for row in batch.to_pylist()]
        videos = [row for row in rows if not pieces.is_part(row)]
        self.manifest.append(pa.Table.from_pylist(videos, schema=schemas.VIDEOS))
        self.workspace.pieces.append(pieces.lasting(rows))
        outcomes = tuple(outcome(row, row["uri"], None, None) for row in batch.to_pylist())
        return Report(rows=len(rows), errors=len(rows), outcomes=outcomes, error_kinds={"crash": len(rows)})

    def _clips(self, videos: pa.Table, batch: pa.Table) -> pa.Table:
        """The clips of videos that are scanned for the first time, which go on at once, with what opens their videos. Those of
        others wait for `sync_clips`, which knows what was measured on them before."""
        new = (
            batch.filter(pc.invert(pc.fill_null(batch[HAD_RESULT], True)))
            if HAD_RESULT in batch.column_names
            else batch[:0]
        )
        clips = explode(videos.filter(pc.is_in(videos["video_id"], value_set=new["video_id"])))
        part = self.clips.append(clips)
        clips = clips.append_column(STORED, pa.array(np.full(clips.num_rows, part.time if part else 0)))
        at = pc.index_in(clips["video_id"], value_set=new["video_id"].combine_chunks())
        for name in (ACCESS, NEEDS):
            if name in new.column_names:
                clips = clips.append_column(name, new[name].take(at))
        return clips

    def _scan(self, row: dict[str, Any]) -> dict[str, Any]:
        scan = self.recipe.scan
        limits = Limits(scan.min_time_limit, scan.memory_limit_mib)
        source = source_of_row(dict(row), self.reach)
        allow(limits.seconds + _MARGIN_SECONDS)
        try:
            if row.get("error") is not None:
                # A bad row of a list has an error already, and nothing to open.
                raise VideoError("input", row["error"])
            if row.get(pieces.TASK) == pieces.JOIN:
                with suppress(SeamError):
                    return self._joined(row, source)
            task = scan_row if row.get(pieces.TASK) == pieces.JOIN else scan_item
            result: dict[str, Any] = self.sandbox.run(task, (row, *self.job), limits)
            return result
        except RowError as error:
            return self._failed(row, RowError(error.kind, source.redact(str(error))))

    def _joined(self, row: dict[str, Any], source: Source) -> dict[str, Any]:
        """The row of a film whose pieces are scanned. Raises RowError, and SeamError if it has to be scanned in one go."""
        cpu = time.process_time()
        scanned, before = pieces.joined(self.workspace, row, self.recipe, self.all_scores)
        made = made_row(row, self.recipe, scanned, source)
        samples, strips = (
            {clip["clip_id"] for clip in made["clips"] if clip[name]} for name in ("has_frames", "has_strip")
        )
        with frames_writer(self.workspace.path, row["video_id"]) as frames:
            pieces.join_frames(self.workspace, row, samples, strips, frames)
        now = time.process_time() - cpu
        told = {pieces.READ: 0.0, pieces.SPENT: now, "cpu_seconds": before + now}
        return made | {"scan_id": pieces.scan_of(row)} | told

    def _failed(self, row: Mapping[str, Any], error: RowError) -> dict[str, Any]:
        made = _video_row(row, self.recipe)
        if row.get(pieces.TASK) == pieces.PIECE:
            return pieces.failed(made, row, self.recipe, error)
        if row.get(pieces.TASK) == pieces.JOIN:
            made["scan_id"] = pieces.scan_of(row)
        return made | {"status": "error", "error_kind": error.kind, "error": str(error), "cpu_seconds": 0.0}


_recipes: dict[str, Recipe] = {}


def _recipe(data: Mapping[str, Any]) -> Recipe:
    """Built once per process: a job brings its recipe as plain data."""
    key = repr(data)
    if key not in _recipes:
        _recipes.clear()
        _recipes[key] = parse_recipe(dict(data), source="the recipe of this run")
    return _recipes[key]


def scan_row(
    row: dict[str, Any],
    workspace: str,
    recipe_data: Mapping[str, Any],
    all_scores: bool,
    reach: Reach = ANYWHERE,
) -> dict[str, Any]:
    """One row of inputs to one row of videos, a long film in one go. Raises VideoError. Runs in the sandbox."""
    cpu = time.process_time()
    recipe, source = _recipe(recipe_data), source_of_row(dict(row), reach)
    with frames_writer(workspace, row["video_id"]) as frames, _reading(row):
        keep, show = _keeper(row["uri"], lambda: frames, recipe)
        scanned = scan_whole(
            source, recipe, keep, show=show, spans=_spans(row), all_scores=all_scores, on_duration=_knower(recipe)
        )
    return made_row(row, recipe, scanned, source) | {"cpu_seconds": time.process_time() - cpu}


def scan_item(
    row: dict[str, Any],
    workspace: str,
    recipe_data: Mapping[str, Any],
    all_scores: bool,
    reach: Reach = ANYWHERE,
) -> dict[str, Any]:
    """As `scan_row`, but of a long film one piece only, to a row of pieces: the one that the row names, or the first."""
    cpu = time.process_time()
    recipe, source = _recipe(recipe_data), source_of_row(dict(row), reach)
    scan, piece = pieces.scan_of(row), pieces.piece_of(row, recipe) if row.get(pieces.TASK) else None
    with ExitStack() as stack:
        opened: list[FramesWriter] = []

        def frames() -> FramesWriter:
            if not opened:  # The name of the file is not known before the film is open.
                name = row["video_id"] if piece is None else piece_name(row["video_id"], scan, piece.number)
                opened.append(stack.enter_context(frames_writer(workspace, name)))
            return opened[0]

        def begin(first: Piece) -> None:
            nonlocal piece
            piece = first

        (keep, show), know = _keeper(row["uri"], frames, recipe), _knower(recipe)
        with _reading(row):
            scanned = (
                scan_first(
                    source,
                    recipe,
                    keep,
                    spans=_spans(row),
                    all_scores=all_scores,
                    on_duration=know,
                    on_piece=begin,
                    show=show,
                )
                if piece is None
                else scan_piece(source, recipe, keep, piece, all_scores=all_scores, on_duration=know, show=show)
            )
    if isinstance(scanned, VideoScan):
        return made_row(row, recipe, scanned, source) | {"cpu_seconds": time.process_time() - cpu}
    assert piece is not None
    pieces.store_found(workspace, row["video_id"], scan, scanned)
    made = _video_row(row, recipe) | {"bytes": scanned.info.size}
    told = {pieces.READ: scanned.time - piece.start, "cpu_seconds": time.process_time() - cpu}
    return pieces.made(made, piece, scan) | told


def _spans(row: Mapping[str, Any]) -> list[Span]:
    """The clips that the source list names."""
    return [Span(span["start"], math.inf if span["end"] is None else span["end"]) for span in row["spans"] or []]


def _keeper(uri: str, frames: Callable[[], FramesWriter], recipe: Recipe) -> tuple[Keep, Show]:
    """What stores samples with their strips, and what stores strips alone. frames: gives their file."""

    def keep(span: Span, sample: Sample) -> None:
        name = ids.clip_id(uri, span.start, span.end)
        strip = strip_of_pictures(sample.keyframes, sample.times)
        frames().write(store_sample(name, sample, recipe.sampling.jpeg_quality), strip.jpeg)

    def show(span: Span, strip: StoredStrip) -> None:
        frames().write_strip(ids.clip_id(uri, span.start, span.end), strip)

    return keep, show


def _knower(recipe: Recipe) -> Callable[[float], None]:
    """What is told the seconds of video to come."""
    return lambda seconds: allow_seconds(max(recipe.scan.min_time_limit, recipe.scan.time_limit * seconds))


@contextmanager
def _reading(row: Mapping[str, Any]) -> Iterator[None]:
    """Faults within are those of reading a film."""
    try:
        yield
    except RowError:
        raise
    except OSError as error:
        if isinstance(error, av.error.FFmpegError) and not isinstance(error, MemoryError):
            # A fault of the source is raised where it is closed, so this one is of a filter or of the scaler.
            raise VideoError("unsupported", f"its pictures cannot be converted: {words(error)}") from error
        kind = kind_of(error, local_path(row["uri"]) is None)
        raise VideoError(kind, f"while reading: {words(error)}") from error


def made_row(row: Mapping[str, Any], recipe: Recipe, scanned: VideoScan, source: Source) -> dict[str, Any]:
    """The row of videos that comes of a scan."""
    given = row["spans"] or []
    clips = [
        _clip(row["uri"], clip, _brought(clip.span, given, scanned.whole), source.redact) for clip in scanned.clips
    ]
    told = {"clips": clips, "pieces": None if given else scanned.pieces}
    return _video_row(row, recipe) | _scanned(scanned) | told


def _video_row(row: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    return {
        "video_id": row["video_id"],
        "uri": row["uri"],
        "licence": row["licence"],
        "status": "ok",
        "host": this_host(),
        "scan_id": uuid4().hex,
        "clip_protocol": clip_protocol(recipe, row["spans"]),
        "duration": None,
        **{name: row.get(name) for name in NO_FILE},
        "listed_bytes": row.get("bytes"),
        "clips": [],
    }


def _scanned(scanned: VideoScan) -> dict[str, Any]:
    info, count = scanned.info, scanned.count
    return {
        "width": info.width,
        "height": info.height,
        "fps": _number(info.fps),
        "duration": _number(info.duration),
        "codec": info.codec,
        "pixel_format": info.pixel_format,
        "container": info.container,
        "rotation": info.rotation,
        "mirrored": info.mirrored,
        "transfer": info.transfer or None,
        "primaries": info.primaries or None,
        "tone_mapped": info.tone_mapped,
        "projection": info.projection or None,
        "stereo": info.stereo or None,
        "has_audio": info.has_audio,
        "origin": info.origin,
        "bytes": info.size,
        "store_tags": list(info.store_tags) or None,
        "cuts": scanned.cuts,
        "frames_decoded": count.frames,
        "frames_corrupt": count.corrupt,
        "seconds_damaged": _number(count.damaged_seconds(info.duration)),
        "clock_restarts": count.restarts,
        "decoded_seconds": scanned.decoded_seconds,
        "seconds_left_out": scanned.left_out,
        "streams_left_out": info.streams_left_out,
        "cut_off": info.cut_off or None,
        "stream_sha256": scanned.stream_sha256,
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _brought(span: Span, given: Sequence[Mapping[str, Any]], whole: float | None) -> Mapping[str, Any]:
    """The captions that the source list gives for a clip: all of them in order, and the first."""
    ends = {round(span.end, 3)} | ({None} if whole is None or round(whole, 3) == round(span.end, 3) else set())
    ours = [g for g in given if round(g["start"], 3) == round(span.start, 3) and _end(g) in ends]
    texts = list(dict.fromkeys(text for g in ours for text in g.get("captions") or [g["caption"]] if text is not None))
    return {
        "caption": texts[0] if texts else None,
        "sub_captions": next((g["sub_captions"] for g in ours if g["sub_captions"]), None),
        "captions": texts if len(texts) > 1 else None,
    }


def _end(given: Mapping[str, Any]) -> float | None:
    return None if given["end"] is None else round(given["end"], 3)


def _clip(uri: str, clip: ClipScan, brought: Mapping[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    return {
        "clip_id": ids.clip_id(uri, clip.span.start, clip.span.end),
        "start": clip.span.start,
        "end": clip.span.end,
        "status": "error" if clip.error else "ok",
        "error_kind": clip.error.kind if clip.error else None,
        "error": redact(str(clip.error)) if clip.error else None,
        "has_frames": clip.has_frames,
        "has_strip": clip.has_strip,
        **brought,
        **(clip.crop.columns() if clip.crop else {}),
        "not_cropped": clip.not_cropped or None,
        "fields_since": clip.fields_since if clip.fields_since < clip.span.end else None,
        "scores": [
            {"name": name, "value": m.score.known, "detail": list(m.score.detail), "protocol": m.protocol}
            for name, m in clip.scores.items()
        ],
    }
