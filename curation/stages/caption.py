"""caption: clips → captions. Five sub-captions and an overall caption, then the filters on them.

A worker may have several batches at a time, each in a thread: the captioner lets all of their clips flow side by side, so
that a slow clip holds up its own batch and nothing else. What a model answered is in the captioner's journal until the
batch is committed, so whatever is killed when, no answer is paid for twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.base import Captioner, Captions, ClipFrames, Spent, failed
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import Status
from longtake.captioning.journal import ANSWERS, Journal
from longtake.captioning.permission import Permission, PermissionFault
from longtake.captioning.quality import camera_agrees, measured_quality
from longtake.captioning.registry import make_captioner
from longtake.captioning.waves import Vllm
from longtake.curation.clip_table import dump_protocols, rows_table, with_captions, with_embeddings
from longtake.curation.errors import SetupError, is_of_the_world
from longtake.curation.reading.samples import unread_frames
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.faults import (
    FAULT_BEFORE,
    HAD_RESULT,
    SOURCE_WORKS,
    kinds_of,
    of_the_world,
    outcome,
    this_host,
    untried,
    with_past,
)
from longtake.curation.running.jobs import AT_A_TIME, Job, Report, split
from longtake.curation.running.on_ray import run_llm
from longtake.curation.running.shared import allowances
from longtake.curation.stages.stage import Run, Stage, of_part
from longtake.curation.workspace import Workspace
from longtake.filters.base import Captioned, Filter, FilterUnavailable, MeasureError, Needs, Score
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.frames import StoredFrames, read_frames
from longtake.manifests.keys import Index, Seen
from longtake.manifests.lookup import Lookup
from longtake.manifests.store import Manifest, open_folder

EMBEDDINGS = schemas.KEYFRAME_EMBEDDINGS.name
SIMILARITY = "text_similarity"  # The filter that the captioner asks while it works.
# Scores of captions that are being written, at some 3 KB each: of more clips than any worker has under way at once.
_MEASURED = 10_000
_STAYS = "stays"  # Column: whether a clip's captions stay.
# Columns of a row that stay when only its scores are measured again.
_KEPT = (
    "caption", "sub_captions", "model", "prompts", "seed", "attempts", "requests", "prompt_tokens", "completion_tokens",
    "moves", *schemas.MORE_TEXTS,
)  # fmt: skip


class Caption(Stage):
    """clips → captions."""

    name = "caption"
    measures = frozenset({Needs.CAPTIONS})

    def output(self, workspace: Workspace) -> Manifest:
        return workspace.captions

    def validate(self, recipe: Recipe) -> None:
        needed, there = _captioner(recipe).keyframes, recipe.sampling.keyframes
        if needed not in (None, there):
            raise SetupError(
                f"recipe {recipe.name}: sampling.keyframes is {there}, and the captioner {recipe.captioning.captioner} "
                f"captions clips of {needed}: write {needed} there, or end before the captions (--until score)"
            )

    def check(self, run: Run) -> None:
        super().check(run)
        try:
            _captioner(run.recipe).check()
        except CaptionerFault as error:
            raise SetupError(f"recipe {run.recipe.name}: captioning: {error}") from error

    def plan(self, run: Run) -> Job | None:
        how = run.options
        tried = run.tried.get(self.name)
        return plan(
            run.workspace,
            run.recipe,
            retry_errors=how.retry_errors,
            sample=how.sample,
            part=how.part,
            tried=tried,
            run=run.id,
        )

    def job(self, run: Run, batches: Sequence[pa.Table]) -> Job:
        return job(run.workspace, run.recipe, batches, run.id)

    def waits(self, run: Run) -> bool:
        corpus = run.recipe.needing(Needs.CORPUS)  # Near-duplicates are not captioned.
        return bool(corpus) or run.options.sample is not None or _captioner(run.recipe).running.on_driver

    def take(self, run: Run, clips: pa.Table) -> tuple[list[pa.Table], pa.Table]:
        ready = pa.array(_ready(clips, run.recipe))
        todo = clips.filter(ready)
        for name in _KEPT:
            todo = todo.append_column(f"old {name}", pa.nulls(todo.num_rows, schemas.CAPTIONS.field(name).type))
        todo = todo.append_column("tried", pa.array(np.zeros(todo.num_rows, np.int64)))
        past = [pa.nulls(todo.num_rows, kind) for kind in (pa.bool_(), pa.string(), pa.bool_())]
        for name, column in zip((HAD_RESULT, FAULT_BEFORE, SOURCE_WORKS), past, strict=True):
            todo = todo.append_column(name, column)
        how = _captioner(run.recipe).running
        batches = split(todo, [1.0] * todo.num_rows, per_batch=how.batch, at_most=how.batch)
        return batches, clips.filter(pc.invert(ready))

    def finish(self, run: Run) -> None:
        from longtake.curation.stages import copies

        copies.finish(run.workspace, run.recipe)


def plan(
    workspace: Workspace,
    recipe: Recipe,
    *,
    retry_errors: bool,
    sample: int | None = None,
    part: tuple[int, int] | None = None,
    tried: Seen | None = None,
    at_a_time: int = AT_A_TIME,
    run: str = "",
) -> Job | None:
    """The clips that pass every other gate of some tier, and are not captioned by this captioner yet; of very many some, see
    `Job.partial`.

    sample: only among so many, those of `sampled`. part: only clips of its videos. tried: rows that were tried in this run.
    """
    captioner = _captioner(recipe)
    on_captions = recipe.needing(Needs.CAPTIONS)
    try:
        protocol = captioner.protocol
        protocols = dump_protocols({name: filter_.protocol for name, filter_ in on_captions.items()})
    except (FilterUnavailable, CaptionerFault) as error:
        raise SetupError(f"recipe {recipe.name}: {error}") from error
    names = ["scan_id", "caption_protocol", "status", "protocols", "error_kind", "attempts"]
    old = Lookup(workspace.captions, names, encoded=["caption_protocol", "status", "protocols", "error_kind"])
    tables, count = list[pa.Table](), 0
    slices = _ready_slices(workspace, recipe) if sample is None else [_first(_ready_slices(workspace, recipe), sample)]
    for ready in slices:
        ready = untried(of_part(ready, part), tried)
        ready, done = _with_old(ready, old, protocol, protocols, retry_errors)
        tables.append(ready.filter(pc.invert(done)))
        count += tables[-1].num_rows
        if count > at_a_time:
            break
    if not count:
        return None
    todo = _with_kept(workspace, pa.concat_tables(tables).slice(0, at_a_time)).sort_by("video_id")
    if any(filter_.reads_embeddings for filter_ in on_captions.values()):
        todo = with_embeddings(workspace, todo).drop_columns(schemas.EMBEDDING.name)
    how = captioner.running
    batches = split(todo, [1.0] * todo.num_rows, per_batch=how.batch, at_most=how.batch)
    return replace(job(workspace, recipe, batches, run), partial=count > at_a_time)


def _with_old(
    todo: pa.Table, old: Lookup, protocol: str, protocols: str, retry_errors: bool
) -> tuple[pa.Table, pa.ChunkedArray]:
    """Clips with what is known of their captions, and which of them are done."""
    theirs, _ = old.of(todo["clip_id"])
    theirs = theirs.set_column(0, "scan_id", theirs["scan_id"].cast(pa.string()))
    texts = {name: theirs[name].cast(pa.string()) for name in ("caption_protocol", "status", "protocols", "error_kind")}
    same = pc.and_(pc.equal(theirs["scan_id"], todo["scan_id"]), pc.equal(texts["caption_protocol"], protocol))
    written = pc.equal(texts["status"], "ok")
    measured = pc.equal(texts["protocols"], protocols)
    tried_in_vain = pc.and_(pc.invert(written), pc.invert(of_the_world(texts["error_kind"])))
    given_up = pc.and_(tried_in_vain, pa.scalar(not retry_errors))
    done = pc.fill_null(pc.and_(same, pc.or_(pc.and_(written, measured), given_up)), False)
    tried = pc.if_else(pc.fill_null(same, False), pc.fill_null(theirs["attempts"], 0), 0)
    todo = todo.append_column(_STAYS, pc.fill_null(pc.and_(same, written), False)).append_column("tried", tried)
    return with_past(todo, "clip_id", old.among(todo["clip_id"])), done


def _with_kept(workspace: Workspace, todo: pa.Table) -> pa.Table:
    """Clips with those captions that stay, and only need another measurement: they travel along."""
    stay = todo["clip_id"].filter(todo[_STAYS])
    wanted = Index.of(stay)
    old = (
        Lookup(workspace.captions, _KEPT, only=lambda rows: from_numpy(wanted.has(rows["clip_id"])))
        if len(stay)
        else None
    )
    if old is not None:
        rows, _ = old.of(pc.if_else(todo[_STAYS], todo["clip_id"], ""))
    for name in _KEPT:
        kind = schemas.CAPTIONS.field(name).type
        column = pa.nulls(todo.num_rows, kind) if old is None else rows[name].cast(kind)
        todo = todo.append_column(f"old {name}", column)
    return todo.drop_columns([_STAYS])


def job(workspace: Workspace, recipe: Recipe, batches: Sequence[pa.Table], run: str = "") -> Job:
    """The job of these batches. run: the run's id. Raises SetupError if what the user allowed cannot be read."""
    captioner = _captioner(recipe)
    _ = captioner.protocol  # The property fills in what the captioner works out by itself.
    try:
        permission = Permission.of_user()
    except PermissionFault as error:
        raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error
    how = captioner.running
    plain = recipe.model_dump(mode="json")
    plain["captioning"]["settings"] = captioner.resolved or plain["captioning"]["settings"]
    return Job(
        "caption",
        batches,
        CaptionWorker,
        (workspace.path, plain, permission, run),
        on_gpu=how.on_gpu,
        memory_mib=3072,
        workers=how.workers,
        at_once=how.at_once,
        on_driver=how.on_driver,
        clip_seconds=how.clip_seconds,
    )


def sampled(workspace: Workspace, recipe: Recipe, count: int) -> list[str]:
    """So many of the clips to be captioned (all of them if there are fewer): those with the lowest ids, which is as good
    as at random, and always the same ones."""
    clip_ids: list[str] = _first(_ready_slices(workspace, recipe), count)["clip_id"].to_pylist()
    return clip_ids


def ready(workspace: Workspace, recipe: Recipe) -> pa.ChunkedArray:
    """The ids of all clips that are to be captioned, or are already."""
    slices = [clips["clip_id"].combine_chunks() for clips in _ready_slices(workspace, recipe)]
    return pa.chunked_array(slices, pa.string())


def _first(slices: Iterable[pa.Table], count: int) -> pa.Table:
    """Of all clips those with the lowest ids."""
    first: list[pa.Table] = []
    for clips in slices:
        first = [pa.concat_tables([*first, clips]).sort_by("clip_id").slice(0, count)]
    return first[0]


def _captioner(recipe: Recipe) -> Captioner:
    try:
        return make_captioner(recipe.captioning.captioner, recipe.captioning.settings)
    except ValueError as error:
        raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error


def _ready_slices(workspace: Workspace, recipe: Recipe) -> Iterator[pa.Table]:
    """The clips that wait for captions, or have some; at least one table."""
    if not workspace.clips.rows():
        yield workspace.clips.read()
    for clips in workspace.clips.scan():
        yield clips.filter(pa.array(_ready(clips, recipe)))


def _ready(clips: pa.Table, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Whether some tier keeps a clip, captions aside."""
    scores = ClipScores(clips, recipe.built)
    on_captions = recipe.needing(Needs.CAPTIONS)
    ready = np.zeros(clips.num_rows, bool)
    for tier in recipe.tiers.values():
        rest = {name: gate for name, gate in tier.items() if name not in on_captions}
        ready |= decide(scores, rest).kept
    return np.asarray(ready & clips["has_frames"].to_numpy(zero_copy_only=False).astype(bool))


def similarity_limit(recipe: Recipe) -> float | None:
    """Where the strictest tier's gate begins to reject neighbours that are alike; None: no tier has such a gate."""
    highs = [gates[SIMILARITY].high for gates in recipe.tiers.values() if SIMILARITY in gates]
    return min((high for high in highs if high is not None), default=None)


class CaptionWorker:
    """Holds the captioner and the filters on captions; captions batches of clips and appends their rows.

    permission: where the captioner may send pictures and a key, as the driver's user said. The key itself comes from the
    environment that this worker runs in. run: the run's id, whose workers share what an endpoint may be asked."""

    def __init__(self, workspace: str, recipe: Mapping[str, Any], permission: Permission, run: str = "") -> None:
        self.workspace = workspace
        self.manifest = schemas.captions(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.filters = self.recipe.needing(Needs.CAPTIONS)
        self.captioner = make_captioner(self.recipe.captioning.captioner, self.recipe.captioning.settings)
        self.captioner.permit(permission)
        self.captioner.share(run, allowances())
        self.captioner.journal = Journal(open_folder(workspace) / ANSWERS)
        limit = similarity_limit(self.recipe)
        if SIMILARITY in self.filters and limit is not None:
            self.captioner.similarity, self.captioner.similarity_limit = self._similarities, limit
        self._scores: dict[tuple[str, ...], Score] = {}  # Scores that were measured while captions were written.
        self._measuring = threading.Lock()  # Neither tokenizers nor models work well in several threads.
        self._reporting = threading.Lock()
        self._reported: tuple[float, float, Spent] | None = None
        if isinstance(self.captioner, Vllm):
            self.captioner.execute_with(run_llm)
        if self.captioner.similarity is not None:
            # The similarity's model takes seconds to load, and loads while the first captions are written.
            threading.Thread(target=self._similarities, args=[[tuple("abcde")]], daemon=True).start()

    def __call__(self, batch: pa.Table) -> Report:
        started = time.monotonic(), time.process_time(), self.captioner.spent
        clips = batch.to_pylist()
        try:
            results = self._captions(clips)
        except CaptionerFault as error:
            raise SetupError(f"{error}; what is done is kept, and the same command goes on from here") from error
        rows = [self._row(clip, results[clip["clip_id"]]) for clip in clips]
        self._measure(rows, clips)
        source = f"the captioner {self.captioner.name}"
        outcomes = [
            replace(outcome(clip, "", row["error_kind"], row["reason"]), source=source)
            for clip, row in zip(clips, rows, strict=True)
        ]
        # A fault of the endpoint replaces no captions, even those of another captioner.
        kept = [row for row, one in zip(rows, outcomes, strict=True) if not one.left_as_it_was]
        table = rows_table(kept, schemas.CAPTIONS, self.filters)
        self.manifest.append(table)
        assert self.captioner.journal is not None
        # Answers about a clip before the fault are paid for, and the clip's questions are asked again.
        self.captioner.journal.forget(
            row["clip_id"] for row, one in zip(rows, outcomes, strict=True) if one.kind is None
        )
        report = replace(self._time(started), outcomes=tuple(outcomes))
        report.rows, report.errors = len(rows), sum(row["status"] != "ok" for row in rows)
        told = [{"error_kind": row["error_kind"] or row["status"]} for row in rows if row["status"] != "ok"]
        report.error_kinds = kinds_of(told)
        report.video_seconds = sum(clip["end"] - clip["start"] for clip in clips)
        report.clips = self._captioned(batch, table)
        return report

    def give_up(self, batch: pa.Table, message: str) -> Report:
        """Errors in place of captions of clips that nobody survives."""
        clips = batch.to_pylist()
        rows = [self._row(clip, failed(clip["clip_id"], message)) | {"protocols": None} for clip in clips]
        self.manifest.append(rows_table(rows, schemas.CAPTIONS, self.filters))
        outcomes = tuple(outcome(clip, "", None, None) for clip in clips)
        return Report(len(rows), len(rows), outcomes=outcomes, error_kinds={"crash": len(rows)})

    def _captioned(self, batch: pa.Table, captions: pa.Table) -> pa.Table:
        """The clips of a batch with the verdict on their captions. A clip whose captions met a fault of the world waits."""
        good = captions.filter(pc.invert(of_the_world(captions["error_kind"])))
        here = batch.filter(pc.is_in(batch["clip_id"], value_set=good["clip_id"]))
        ours = {f"old {name}" for name in _KEPT} | {"tried", HAD_RESULT, FAULT_BEFORE, SOURCE_WORKS, EMBEDDINGS}
        here = here.drop_columns([name for name in here.column_names if name in ours])
        fields = [field for name in self.filters for field in schemas.score_fields(name)]
        return with_captions(here, good, fields)

    def close(self) -> None:
        """End what is under way."""
        self.captioner.close()

    def _time(self, started: tuple[float, float, Spent]) -> Report:
        """What was spent since the last report: batches overlap, but their reports add up."""
        with self._reporting:
            seconds, cpu, spent = self._reported or started
            self._reported = now = time.monotonic(), time.process_time(), self.captioner.spent
            more = now[2] - spent
            return Report(
                seconds=now[0] - seconds,
                cpu_seconds=now[1] - cpu,
                busy_seconds=more.busy_seconds,
                requests=more.requests,
                prompt_tokens=more.prompt_tokens,
                completion_tokens=more.completion_tokens,
            )

    def _captions(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, Captions]:
        results: dict[str, Captions] = {}
        todo: list[Mapping[str, Any]] = []
        for clip in clips:
            if clip["old caption"] is None:
                todo.append(clip)
                continue
            old = {name: clip[f"old {name}"] for name in _KEPT}
            for name in ("sub_captions", "moves"):
                old[name] = None if old[name] is None else tuple(old[name])
            counts = {name: old[name] or 0 for name in ("attempts", "requests", "prompt_tokens", "completion_tokens")}
            more = {name: text for name in schemas.MORE_TEXTS if (text := old.pop(name)) is not None}
            results[clip["clip_id"]] = Captions(clip["clip_id"], Status.OK, more=more, **{**old, **counts})
        frames: list[ClipFrames] = []
        for video_id, together in groupby(todo, key=lambda clip: str(clip["video_id"])):
            of_video = list(together)
            stored: dict[str, StoredFrames] = {}
            why = unread_frames(None, self.workspace)
            try:
                stored = read_frames(self.workspace, video_id, [clip["clip_id"] for clip in of_video])
            except Exception as error:
                why = unread_frames(error, self.workspace)
            for clip in of_video:
                if clip["clip_id"] in stored:
                    frames.append(_frames(clip, stored[clip["clip_id"]]))
                else:
                    fault = why.kind if is_of_the_world(why.kind) else None
                    results[clip["clip_id"]] = replace(failed(clip["clip_id"], str(why)), fault=fault)
        for result in self.captioner.caption(frames):
            results[result.clip_id] = result
        return results

    def _similarities(self, clips: list[tuple[str, ...]]) -> list[Sequence[float]]:
        """The likeness of neighbouring sub-captions, by the filter that the gate is on; none where it cannot tell."""
        with self._measuring:
            scores = self.filters[SIMILARITY].measure(clips)
            known = zip(clips, scores, strict=True)
            self._scores |= {texts: score for texts, score in known if isinstance(score, Score)}
            # Versions that were rejected are never asked for again.
            for texts in list(self._scores)[:-_MEASURED]:
                del self._scores[texts]
        return [() if isinstance(score, MeasureError) else score.detail for score in scores]

    def _measure(self, rows: list[dict[str, Any]], clips: Sequence[Mapping[str, Any]]) -> None:
        embeddings = {clip["clip_id"]: clip.get(EMBEDDINGS) for clip in clips}
        for name, filter_ in self.filters.items():
            good = [row for row in rows if row["status"] == Status.OK]
            if filter_.reads_embeddings:
                keyframes = self.recipe.sampling.keyframes
                items = [texts_and_pictures(row, embeddings[row["clip_id"]], keyframes) for row in good]
                with self._measuring:
                    scores = filter_.measure(items)
            else:
                scores = self._on_texts(name, filter_, [tuple(row["sub_captions"]) for row in good])
            for row, score in zip(good, scores, strict=True):
                if isinstance(score, MeasureError):
                    row["status"], row["error_kind"], row["reason"] = "error", "caption", f"{name}: {score}"
                    row["caption"] = row["sub_captions"] = None
                    row |= dict.fromkeys(schemas.MORE_TEXTS)
                else:
                    row[name], row[f"{name}_detail"] = score.known, list(score.detail)
        protocols = dump_protocols({name: filter_.protocol for name, filter_ in self.filters.items()})
        for row in rows:
            row["protocols"] = protocols

    def _on_texts(
        self, name: str, filter_: Filter[Any], texts: Sequence[tuple[str, ...]]
    ) -> list[Score | MeasureError]:
        """The scores of these sub-captions; those that were measured while they were written are not measured again."""
        with self._measuring:
            known = {one: self._scores.pop(one) for one in texts if one in self._scores} if name == SIMILARITY else {}
            new = [one for one in texts if one not in known]
            measured: dict[tuple[str, ...], Score | MeasureError] = dict(zip(new, filter_.measure(new), strict=True))
        return [measured[one] if one in measured else known[one] for one in texts]

    def _row(self, clip: Mapping[str, Any], result: Captions) -> dict[str, Any]:
        row = {
            "clip_id": clip["clip_id"],
            "status": str(result.status),
            "reason": result.reason,
            "error_kind": (result.fault or "caption") if result.status == Status.ERROR else None,
            "host": this_host(),
            "caption": result.caption,
            "sub_captions": list(result.sub_captions) if result.sub_captions else None,
            "model": result.model,
            "prompts": result.prompts,
            "seed": result.seed,
            "attempts": result.attempts,
            "requests": result.requests,
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "moves": list(result.moves) if result.moves else None,
            "scan_id": clip["scan_id"],
            "caption_protocol": self.captioner.protocol,
            **{name: text for name, text in result.more.items() if name in schemas.MORE_TEXTS},
            "camera_agrees": camera_agrees(result.more.get("camera"), result.moves),
        }
        if result.status == Status.OK and result.caption is not None and result.sub_captions is not None:
            row |= measured_quality(
                result.caption, result.sub_captions, self.captioner.standards, self.captioner.prompts, result.moves
            )
        return row


def texts_and_pictures(row: Mapping[str, Any], embeddings: Sequence[float] | None, keyframes: int) -> Captioned:
    """What a filter on captions and pictures is given. embeddings: of as many keyframes, one after the other."""
    rows = None if embeddings is None else np.asarray(embeddings, np.float16).reshape(keyframes, -1)
    return Captioned(tuple(row["sub_captions"]), rows)


def _frames(clip: Mapping[str, Any], stored: StoredFrames) -> ClipFrames:
    names = [key.removesuffix("_detail") for key in clip if key.endswith("_detail")]
    sidecar = None
    if clip["source_caption"] is not None or clip["source_sub_captions"] is not None:
        sidecar = {"caption": clip["source_caption"], "sub_captions": clip["source_sub_captions"]}
    return ClipFrames(
        clip["clip_id"],
        stored.keyframes,
        stored.partners,
        np.array(stored.times),
        np.array(stored.partner_times),
        {name: clip[name] for name in names if clip[name] is not None},
        sidecar,
        seconds=clip["end"] - clip["start"],
        tried=clip["tried"] or 0,
    )
