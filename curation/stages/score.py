"""score: clips → clips. The filters that need a model, in batches across clips, on the stored frames; no video is opened.

The device must not wait for frames. A batch is therefore processed in parts: while the models work on one part, a thread
reads and decodes the next part and runs the filters on it that need no device. At most two parts are in memory, at some 15
MiB a clip.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.base import ClipFrames, Spent
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import CaptionError
from longtake.captioning.journal import QUESTIONS, Journal
from longtake.captioning.permission import Permission, PermissionFault
from longtake.captioning.questions import Questioner, Questions
from longtake.curation.clip_table import STORED, carried, dump_protocols, rows_table, score_columns, with_embeddings
from longtake.curation.errors import RowError, SetupError
from longtake.curation.models import check_filters
from longtake.curation.reading.samples import load_sample, unread_frames
from longtake.curation.recipe import Recipe, parse_recipe, questioner
from longtake.curation.running.faults import HAD_RESULT, kinds_of, outcome, this_host, untried
from longtake.curation.running.jobs import AT_A_TIME, Job, Report, split
from longtake.curation.running.shared import allowances
from longtake.curation.stages.stage import Run, Stage, of_part
from longtake.curation.workspace import Workspace
from longtake.filters.ask import Ask
from longtake.filters.base import Filter, FilterUnavailable, MeasureError, Needs, Sample
from longtake.filters.base import Score as Measured
from longtake.filters.batches import ModelFilter, cores
from longtake.filters.gates import Tier
from longtake.filters.verdicts import ClipScores, standard_error_of, to_measure
from longtake.manifests import schemas
from longtake.manifests.frames import StoredFrames, read_frames
from longtake.manifests.keys import Seen
from longtake.manifests.schemas import KEYFRAME_EMBEDDINGS
from longtake.manifests.store import Manifest, open_folder

# Milliseconds of CPU. On a machine without a GPU, a batch is stored before it takes more than this, which is what a
# kill costs.
_PART_MS = 15_000
AT_MOST = 32
_PART = 8  # Clips.

Row = dict[str, Any]


class Score(Stage):
    """clips → clips, with more scores."""

    name = "score"
    measures = frozenset({Needs.FRAMES, Needs.CORPUS})

    def output(self, workspace: Workspace) -> Manifest:
        return workspace.clips

    def plan(self, run: Run) -> Job | None:
        how, tried = run.options, run.tried.get(self.name)
        return plan(run.workspace, run.recipe, all_scores=how.all_scores, part=how.part, tried=tried, run=run.id)

    def job(self, run: Run, batches: Sequence[pa.Table]) -> Job:
        return job(run.workspace, run.recipe, batches, run.options.all_scores, run.id)

    def waits(self, run: Run) -> bool:
        return False

    def take(self, run: Run, clips: pa.Table) -> tuple[list[pa.Table], pa.Table]:
        wanted = _wanted(clips, run.recipe, run.options.all_scores)
        return _batches(clips.filter(wanted)), clips.filter(pc.invert(wanted))

    def finish(self, run: Run) -> None:
        from longtake.curation.stages import concepts, deduplicate

        changed = deduplicate.finish(run.workspace, run.recipe) + concepts.finish(run.workspace, run.recipe)
        if changed:
            run.workspace.clips.compact()

    def check(self, run: Run) -> None:
        super().check(run)
        if any(filter_.asks for filter_ in run.recipe.built.values()):
            _check_questions(run.recipe)


def plan(
    workspace: Workspace,
    recipe: Recipe,
    *,
    all_scores: bool,
    part: tuple[int, int] | None = None,
    tried: Seen | None = None,
    at_a_time: int = AT_A_TIME,
    run: str = "",
) -> Job | None:
    """The clips that some tier may still keep and that lack a score of this stage. If there are very many, the plan has a
    part of them (`Job.partial`). Raises SetupError if a filter cannot work on this machine: a package or a weight is
    missing, or a weight is not the right file.

    part: only clips of its videos. tried: rows that were tried in this run."""
    filters = recipe.needing(Needs.FRAMES)
    if not filters or not workspace.clips.rows():
        return None
    for filter_ in filters.values():
        try:
            _ = filter_.protocol
        except FilterUnavailable as error:
            raise SetupError(f"recipe {recipe.name}: {error}") from error
    slices, rows = list[pa.Table](), 0
    for clips in workspace.clips.scan():
        clips = of_part(clips, part)
        clips = untried(clips.filter(_wanted(clips, recipe, all_scores)), tried)
        slices.append(clips)
        rows += clips.num_rows
        if rows > at_a_time:
            break
    if not rows:
        return None
    todo = pa.concat_tables(slices).slice(0, at_a_time).sort_by("video_id")
    check_filters(recipe, filters)
    if any(todo[name].null_count < todo.num_rows for name in filters if name in todo.column_names):
        todo = with_embeddings(workspace, todo)
    return replace(job(workspace, recipe, _batches(todo), all_scores, run), partial=rows > at_a_time)


def _wanted(clips: pa.Table, recipe: Recipe, all_scores: bool) -> pa.Array:
    filters = recipe.needing(Needs.FRAMES)
    if not filters or not clips.num_rows:
        return pa.array(np.zeros(clips.num_rows, bool))
    wanted = to_measure(ClipScores(clips, recipe.built), filters, _cascade(recipe), all_scores=all_scores)
    return pa.array(wanted & clips["has_frames"].to_numpy(zero_copy_only=False).astype(bool))


def _clip_ms(recipe: Recipe) -> float:
    """CPU that a clip takes, by the filters' own cost; a question costs none."""
    return sum(filter_.cost for filter_ in recipe.needing(Needs.FRAMES).values() if not filter_.asks) or 1.0


def _batches(todo: pa.Table) -> list[pa.Table]:
    """Batches of a size that suits a GPU. A worker without a GPU divides them (`ScoreWorker.parts`)."""
    return split(todo, [1.0] * todo.num_rows, per_batch=AT_MOST, at_most=AT_MOST)


def job(workspace: Workspace, recipe: Recipe, batches: Sequence[pa.Table], all_scores: bool, run: str = "") -> Job:
    """The job of these batches. run: the run's id."""
    filters = recipe.needing(Needs.FRAMES)
    plain = recipe.model_dump(mode="json")
    permission = None
    if any(filter_.asks for filter_ in filters.values()):
        asked = _questioner(recipe)
        try:
            permission = Permission.of_user()
        except PermissionFault as error:
            raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error
        # These settings came from this machine's environment, and that of other workers may differ.
        plain["captioning"]["settings"] = asked.captioner.resolved or plain["captioning"]["settings"]
    args = (workspace.path, plain, all_scores, permission, run)
    on_gpu = any(isinstance(filter_, ModelFilter) and filter_.device != "cpu" for filter_ in filters.values())
    return Job(
        "score", batches, ScoreWorker, args, memory_mib=3072, on_gpu=on_gpu, clip_seconds=_clip_ms(recipe) / 1000
    )


def _cascade(recipe: Recipe) -> dict[str, Tier]:
    """The gates whose failure ends the measurement of a clip. Gates on near-duplicates are not among them, since they
    depend on all scores of all clips."""
    later = recipe.needing(Needs.CORPUS)
    return {
        tier: {name: gate for name, gate in gates.items() if name not in later} for tier, gates in recipe.tiers.items()
    }


def _questioner(recipe: Recipe) -> Questioner:
    try:
        return questioner(recipe.captioning.captioner, recipe.captioning.settings)
    except ValueError as error:
        raise SetupError(f"recipe {recipe.name}: {error}") from error


def _check_questions(recipe: Recipe) -> None:
    """Raises SetupError unless the model that answers questions is available."""
    try:
        _questioner(recipe).captioner.check()
    except CaptionerFault as error:
        raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error


def _on_gpu(filter_: Filter[Any]) -> bool:
    """Whether its model will run on a GPU of this machine, as far as can be said without torch."""
    if not isinstance(filter_, ModelFilter) or filter_.device == "cpu":
        return False
    # Ray hides the GPUs in this way from a worker that asked for none.
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return filter_.device == "cuda" or (not hidden and any(Path("/dev").glob("nvidia[0-9]*")))


class ScoreWorker:
    """Holds the models, measures batches of clips and appends their rows. permission: the hosts that questions may be sent
    to, from the driver. run: the run's id; its workers share the limits of an endpoint."""

    def __init__(
        self,
        workspace: str,
        recipe: Mapping[str, Any],
        all_scores: bool,
        permission: Permission | None = None,
        run: str = "",
    ) -> None:
        self.workspace = workspace
        self.manifest = schemas.clips(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        measured = list(self.recipe.needing(Needs.FRAMES).values())
        self.filters = [filter_ for filter_ in measured if not filter_.asks]
        self.questions = {filter_.name: filter_ for filter_ in measured if isinstance(filter_, Ask)}
        self.questioner: Questioner | None = None
        if self.questions:
            self.questioner = _questioner(self.recipe)
            self.questioner.captioner.journal = Journal(open_folder(workspace) / QUESTIONS)
            self.questioner.captioner.share(run, allowances())
            if permission is not None:
                self.questioner.captioner.permit(permission)
        self.tiers = _cascade(self.recipe)
        self.all_scores = all_scores
        # The cheapest filters come first, so that those before the first model can be measured ahead.
        self.ahead = list(takewhile(lambda filter_: not isinstance(filter_, ModelFilter), self.filters))

    def __call__(self, batch: pa.Table) -> Report:
        started, cpu, busy = time.monotonic(), time.process_time(), self._busy_seconds()
        rows = batch.to_pylist()
        parts = [rows[start : start + _PART] for start in range(0, len(rows), _PART)]
        with ThreadPoolExecutor(1) as thread:
            prepared: Future[dict[str, Sample]] = thread.submit(self._prepare, parts[0])
            for part, following in zip(parts, [*parts[1:], []], strict=True):
                samples = prepared.result()
                prepared = thread.submit(self._prepare, following)
                for filter_ in self.filters[len(self.ahead) :]:
                    self._measure(filter_, part, samples)
        spent = self._ask(rows)
        names = dict.fromkeys([*score_columns(batch), *(filter_.name for filter_ in self.filters), *self.questions])
        outcomes = [outcome({**row, HAD_RESULT: True}, self.workspace, row["error_kind"], row["error"]) for row in rows]
        # A clip whose frames this machine cannot read now keeps the scores that it has.
        kept = [row for row, one in zip(rows, outcomes, strict=True) if not one.left_as_it_was]
        table = rows_table(kept, schemas.CLIPS, names)
        self.manifest.append(table, pc.max(batch[STORED]).as_py() if STORED in batch.column_names else 0)
        if self.questioner is not None and self.questioner.captioner.journal is not None:
            self.questioner.captioner.journal.forget(row["clip_id"] for row in kept)
        return Report(
            rows=len(rows),
            requests=spent.requests,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            errors=sum(row["status"] == "error" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=time.process_time() - cpu,
            video_seconds=sum(row["end"] - row["start"] for row in rows),
            busy_seconds=self._busy_seconds() - busy,
            outcomes=tuple(outcomes),
            error_kinds=kinds_of(rows),
            clips=self._carried(table, kept, batch),
        )

    def parts(self, batch: pa.Table) -> list[pa.Table]:
        """The parts of a batch on this machine: the whole batch with a GPU, and small parts on a CPU, so that none takes
        long."""
        if any(map(_on_gpu, self.filters)):
            return [batch]
        return split(batch, [_clip_ms(self.recipe)] * batch.num_rows, per_batch=_PART_MS, at_most=AT_MOST)

    def _carried(self, table: pa.Table, rows: Sequence[Row], batch: pa.Table) -> pa.Table:
        """The clips for the next stage, with the keyframe embeddings where a filter on captions reads them."""
        clips = carried(table, rows, batch)
        name = KEYFRAME_EMBEDDINGS.name
        if name in table.column_names and any(f.reads_embeddings for f in self.recipe.needing(Needs.CAPTIONS).values()):
            clips = clips.append_column(KEYFRAME_EMBEDDINGS, table[name])
        return clips

    def give_up(self, batch: pa.Table, message: str) -> Report:
        """Error rows for clips that ended every worker."""
        rows = batch.to_pylist()
        for row in rows:
            _fail(row, RowError("crash", message))
        self.manifest.append(rows_table(rows, schemas.CLIPS, score_columns(batch)))
        outcomes = tuple(outcome({**row, HAD_RESULT: True}, self.workspace, None, None) for row in rows)
        return Report(rows=len(rows), errors=len(rows), outcomes=outcomes, error_kinds={"crash": len(rows)})

    def _busy_seconds(self) -> float:
        return sum(filter_.busy_seconds for filter_ in self.filters if isinstance(filter_, ModelFilter))

    def _prepare(self, rows: Sequence[Row]) -> dict[str, Sample]:
        """The frames of a part, after the filters that need no device have seen them."""
        samples = self._load(rows)
        for filter_ in self.ahead:
            self._measure(filter_, rows, samples)
        return samples

    def _load(self, rows: Sequence[Row]) -> dict[str, Sample]:
        by_video: dict[str, list[str]] = {}
        for row in rows:
            by_video.setdefault(row["video_id"], []).append(row["clip_id"])
        stored: dict[str, StoredFrames] = {}
        faults: dict[str, RowError] = {}
        for video, clips in by_video.items():
            try:
                stored |= read_frames(self.workspace, video, clips)
            except Exception as error:
                faults[video] = unread_frames(error, self.workspace)

        def load(row: Row) -> Sample | RowError:
            try:
                if row["clip_id"] not in stored:
                    raise faults.get(row["video_id"]) or unread_frames(None, self.workspace)
                return load_sample(stored[row["clip_id"]])
            except RowError as error:
                return error

        samples: dict[str, Sample] = {}
        with ThreadPoolExecutor(cores()) as pool:
            for row, loaded in zip(rows, pool.map(load, rows), strict=True):
                if isinstance(loaded, RowError):
                    _fail(row, loaded)
                else:
                    samples[row["clip_id"]] = loaded
        return samples

    def close(self) -> None:
        """End the work of the captioner that asks the questions."""
        if self.questioner is not None:
            self.questioner.captioner.close()

    def _ask(self, rows: Sequence[Row]) -> Spent:
        """Ask the questions about the clips that all other filters let through. One request per clip has all questions
        without an answer. Gives the cost."""
        if self.questioner is None:
            return Spent()
        before = self.questioner.captioner.spent
        scores = ClipScores.of_rows(rows, self.recipe.built)
        lacking = {name: to_measure(scores, [name], self.tiers, all_scores=self.all_scores) for name in self.questions}
        asked = {at: [n for n, lacks in lacking.items() if lacks[at]] for at in range(len(rows))}
        todo = [(rows[at], names) for at, names in asked.items() if names]
        about, met = self._about(todo)
        try:
            answers = dict(zip(met, self.questioner.answers(about), strict=True))
        except CaptionerFault as error:
            raise SetupError(f"{error}; what is done is kept, and the same command goes on from here") from error
        for row, names in todo:
            given = answers.get(row["clip_id"])
            if given is None:
                continue
            if isinstance(given, CaptionError) and given.fault is not None:
                _fail(row, RowError(given.fault, f"the questions: {given}"))
                continue
            for name in names:
                answer = MeasureError(str(given)) if isinstance(given, CaptionError) else given[name]
                (score,) = self.questions[name].measure([answer])
                _keep(row, self.questions[name], score)
        return self.questioner.captioner.spent - before

    def _about(self, todo: Sequence[tuple[Row, Sequence[str]]]) -> tuple[list[Questions], list[str]]:
        """The questions about each clip, and the ids of these clips, for clips whose frames can be read."""
        stored: dict[str, StoredFrames] = {}
        for video in dict.fromkeys(row["video_id"] for row, _ in todo):
            ids = [row["clip_id"] for row, _ in todo if row["video_id"] == video]
            try:
                stored |= read_frames(self.workspace, video, ids)
            except Exception as error:
                fault = unread_frames(error, self.workspace)
                for row, _ in todo:
                    if row["video_id"] == video:
                        _fail(row, fault)
        about = []
        for row, names in todo:
            if (frames := stored.get(row["clip_id"])) is not None:
                clip = ClipFrames(
                    row["clip_id"],
                    frames.keyframes,
                    frames.partners,
                    np.array(frames.times),
                    np.array(frames.partner_times),
                    seconds=row["end"] - row["start"],
                )
                questions = {name: self.questions[name].question for name in names}
                about.append(Questions(clip, {name: (q.text, q.answers) for name, q in questions.items()}))
        return about, [questions.clip.clip_id for questions in about]

    def _measure(self, filter_: Filter[Any], rows: Sequence[Row], samples: Mapping[str, Sample]) -> None:
        scores = ClipScores.of_rows(rows, self.recipe.built)
        wanted = to_measure(scores, [filter_.name], self.tiers, all_scores=self.all_scores)
        todo = [row for row, needed in zip(rows, wanted, strict=True) if needed]
        try:
            measured = filter_.measure([_input(filter_, row, samples) for row in todo])
        except FilterUnavailable as error:  # The device is missing or too small.
            raise SetupError(f"filter {filter_.name}: {error}") from error
        for row, score in zip(todo, measured, strict=True):
            _keep(row, filter_, score)


def _input(filter_: Filter[Any], row: Row, samples: Mapping[str, Sample]) -> Any:
    """What a filter measures of a clip: its sample, or the embeddings of its keyframes, [n, dim], where it has some."""
    if not filter_.reads_embeddings:
        return samples[row["clip_id"]]
    flat = row.get(KEYFRAME_EMBEDDINGS.name)
    return None if flat is None else np.asarray(flat, np.float16).reshape(len(samples[row["clip_id"]].times), -1)


def _keep(row: Row, filter_: Filter[Any], score: Measured | MeasureError) -> None:
    """Put a score into the row of its clip."""
    if isinstance(score, MeasureError):
        _fail(row, RowError("measure", f"{filter_.name}: {score}"))
        return
    row[filter_.name], row[f"{filter_.name}_detail"] = score.known, list(score.detail)
    row[standard_error_of(filter_.name)] = score.standard_error
    if score.embedding is not None:
        row["embedding"] = score.embedding
    if score.keyframe_embeddings is not None:
        row[KEYFRAME_EMBEDDINGS.name] = score.keyframe_embeddings.ravel()
    protocols = json.loads(row["protocols"] or "{}")
    row["protocols"] = dump_protocols({**protocols, filter_.name: score.protocol or filter_.protocol})


def _fail(row: Row, error: RowError) -> None:
    row["status"], row["error_kind"], row["error"], row["host"] = "error", error.kind, str(error), this_host()
