"""Runs the four stages: on Ray at the same time, as far as they can, or inline one by one; with a lock, a log of runs, and
a watcher.

The rows that are left to do are found by an anti-join over manifests, so a stream that broke is no loss: its rows are
planned anew and computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation import forgetting, growth
from longtake.curation.access import ACCESS, NEEDS, Access
from longtake.curation.clip_table import rows_of, sync_clips
from longtake.curation.errors import SetupError
from longtake.curation.gathered import Gathered
from longtake.curation.inputs import InputReport, gather
from longtake.curation.lists import ListRules
from longtake.curation.recipe import Recipe
from longtake.curation.running.engines import Engines
from longtake.curation.running.faults import Faults, untried
from longtake.curation.running.jobs import Job, Lost, NoRoom, Report
from longtake.curation.running.on_ray import AGAIN, Cluster
from longtake.curation.running.status import Note
from longtake.curation.stages.flow import Flow, groups
from longtake.curation.stages.stage import Options, Run, Stage, of_part, stage
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.keys import Index, Seen
from longtake.manifests.lock import WorkspaceLock
from longtake.manifests.parts import check_guard
from longtake.manifests.store import Manifest

TRIES = 5  # Times in a row that Ray may fail without a finished batch.
# Seconds between two checks that the workspace's lock is still held. For a remote workspace the check is a request to a
# server.
LOOK_SECONDS = 1.0
MERGE_REPORTS = 64  # Batches, each a part of a manifest, after which parts are merged.


class Watcher(Protocol):
    """An object that is called with the progress of a run. Stages may overlap: a report names its stage (`report.stage`).
    Three methods are optional: `inputs(report)` is called with the report on the inputs before the work begins, `say(text)`
    with the reason for which a run waits, `more(stage, rows)` with rows that reach a stage after its beginning."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None: ...


@dataclass(slots=True)
class RunResult:
    """The result of a run: the reports of its stages, the clips in each dataset that it wrote, and the report on its inputs
    (None: it had no new inputs). kept_back: tier → why its dataset stays as it was. notes: further sentences of stages."""

    stages: dict[str, Report] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)
    kept_back: dict[str, str] = field(default_factory=dict)
    inputs: InputReport | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(report.errors for report in self.stages.values())

    @property
    def faults(self) -> int:
        """Rows that met a fault of the world."""
        return sum(report.faults for report in self.stages.values())

    @property
    def left(self) -> int:
        """Rows whose older result stays, since they met a fault of the world."""
        return sum(report.left for report in self.stages.values())

    @property
    def incomplete(self) -> bool:
        """Whether faults of the world kept results from being made anew."""
        return bool(self.left or self.kept_back)


def run(
    workspace: Workspace,
    recipe: Recipe,
    inputs: Sequence[str],
    options: Options,
    watcher: Watcher,
    uri_column: str | None = None,
    *,
    rules: ListRules | None = None,
    access: Access | None = None,
    strict: bool = False,
    hashes: bool = False,
) -> RunResult:
    """Run stages over a workspace. rules: how lists are read. access: the secrets that open videos (None: those of the
    environment). strict: stop before any work if some input cannot be used. hashes: see `growth.update`. Raises SetupError,
    StoreError or WorkspaceBusy before or between units of work; what is committed stays good, and the same call goes on
    from there."""
    for name in options.stages:
        stage(name).validate(recipe)
    if not (inputs or workspace.inputs.parts()):
        raise SetupError(f"nothing to do: no videos were given, and {workspace.path} has none; nothing was written")
    rules, access = rules or ListRules(uri_column), access or Access.load()
    part = options.part
    note = Note(workspace, recipe.name, options.stages, part)
    engines = Engines(
        options.engine, options.address, options.workers, options.gpus_per_worker, partial(_say, watcher, note)
    )
    result = RunResult()
    with WorkspaceLock(workspace.path, part), note:
        try:
            _complete_forgetting(workspace, part)
            if inputs and not workspace.inputs.parts():
                # There will be work, so Ray, which takes its time, starts while the list is read.
                _check(Run(workspace, recipe, options, access))
                engines.start()
            if inputs:
                gathered = gather(inputs, rules, access, workspace=workspace.path, strict=strict)
                result.inputs = _taken_in(workspace, gathered, access, part, hashes, watcher)
            if not workspace.inputs.parts():
                if part is None or result.inputs is None or not result.inputs.videos:
                    raise SetupError(f"nothing to do: {workspace.path} has no videos")
                result.notes.append(_EMPTY.format(*part))  # The videos may be fewer than the parts.
                return result
            _run_stages(Run(workspace, recipe, options, access), engines, watcher, note, result)
        finally:
            engines.close()
    return result


def _complete_forgetting(workspace: Workspace, part: tuple[int, int] | None) -> None:
    """Erase what a `longtake forget` left that was killed. Raises SetupError if that is not for a part."""
    if part is None:
        forgetting.complete(workspace)
    elif forgetting.left(workspace):
        raise SetupError(
            f"{workspace.path}: `longtake forget` was interrupted, and its work is completed by a run without --part: "
            "start one first"
        )


def _taken_in(
    workspace: Workspace,
    gathered: Gathered,
    access: Access,
    part: tuple[int, int] | None,
    hashes: bool,
    watcher: Watcher,
) -> InputReport:
    """Bring the inputs up to what was gathered, and show the report on it."""
    forgetting.leave_out(workspace, gathered)
    gathered.chosen.append(lambda table: of_part(table, part))
    growth.update(workspace, gathered, access, part, hashes=hashes)
    if tell := getattr(watcher, "inputs", None):
        tell(gathered.report)
    return gathered.report


def _run_stages(run: Run, engines: Engines, watcher: Watcher, note: Note, result: RunResult) -> None:
    """Run the stages over the inputs that there are; what comes of them goes into the result."""
    workspace, recipe, part = run.workspace, run.recipe, run.options.part
    workspace.save_recipe(recipe)
    if part is None:
        workspace.make_readable(recipe)
    sync_clips(workspace, recipe, part)  # A run that was killed may have left the clips behind the videos.
    run.perform.append(partial(_perform, engines, partial(_say, watcher, note)))
    for names in groups(run):
        if part is not None and result.stages and stage(names[0]).waits(run):
            run.notes.append(_WAITS.format(names[0]))
            break
        result.stages |= _run_group(names, run, engines, watcher, note)
    result.datasets, result.kept_back, result.notes = run.datasets, run.kept_back, run.notes
    workspace.runs.compact()
    workspace.make_readable(recipe)  # A compaction may have left no row.


def _say(watcher: Watcher, note: Note, text: str) -> None:
    """Pass a sentence to the watcher and into the note."""
    note.say(text)
    if tell := getattr(watcher, "say", None):
        tell(text)


def _perform(engines: Engines, say: Callable[[str], None], job: Job) -> None:
    """Do a job at the end of a stage, which makes no rows. Raises SetupError."""
    try:
        with closing(engines.choose([job], say).run(job, say)) as reports:
            for _ in reports:
                pass
    except Lost as error:
        raise SetupError(f"{job.stage}: Ray stopped: {error}; {AGAIN}") from error


_EMPTY = "Part {} of {} is done: none of the videos belongs to it."
_WAITS = (
    "This part is done: {} needs the results of all parts. Once all parts are done, run the command without --part, which "
    "goes on."
)


def _check(run: Run) -> None:
    """Raises SetupError if a stage of the run cannot work on this machine, so that the run fails at its start and not after
    hours."""
    for name in run.options.stages:
        stage(name).check(run)


class _Tally:
    """The sums of a group's stages so far. It passes reports on to the watcher, the note and the log."""

    def __init__(self, names: Sequence[str], run: Run, watcher: Watcher, note: Note) -> None:
        self.names, self.run, self.watcher, self.note = names, run, watcher, note
        now = time.monotonic(), datetime.now(UTC)
        self.began = dict.fromkeys(names, now)
        self.total = {name: Report() for name in names}
        self.faults = {name: Faults(name) for name in names}
        self.done = {name: run.tried[name] for name in names}
        self.last: dict[str, float] = {}  # Stage → the time of its last report.
        self.workers = 0
        self.shown: set[str] = set()
        self.cut: set[str] = set()  # Stages whose last job was only a part of what there is to do.
        self.looked = 0.0
        self.reports = 0

    def begin(self, jobs: Sequence[Job]) -> None:
        self.note.begin(jobs)
        for job in jobs:
            if job.stage not in self.shown:
                self.began[job.stage] = time.monotonic(), datetime.now(UTC)
                self.watcher.begin(job.stage, job.rows)
            elif job.stage in self.cut and (grow := getattr(self.watcher, "more", None)):
                grow(job.stage, job.rows)
            self.shown.add(job.stage)
        self.cut = {job.stage for job in jobs if job.partial}

    def add(self, report: Report) -> None:
        """Add a report. Raises SetupError if there are too many faults of the world, and LockLost before the next batch
        once the lock is lost."""
        self.total[report.stage] += report
        if grow := getattr(self.watcher, "more", None):
            for name, rows in report.more.items():
                grow(name, rows)
        self.watcher.advance(report)
        self.note.advance(report)
        self.last[report.stage] = time.monotonic()
        self.done[report.stage].update([one.key for one in report.outcomes])
        self.faults[report.stage].see(report.outcomes)
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            check_guard(self.run.workspace.path)
            self.looked = time.monotonic()
        self.reports += 1
        if self.reports % MERGE_REPORTS == 0:
            for manifest in self.run.workspace.outputs:
                manifest.merge()

    def say(self, text: str) -> None:
        _say(self.watcher, self.note, text)

    def end(self, name: str) -> None:
        self.note.end(name)
        started, began = self.began[name]
        seconds = self.last.get(name, time.monotonic()) - started
        self.watcher.end(name, self.total[name], seconds)
        run = self.run
        _log(run.workspace, name, run.recipe, self.total[name], seconds, began, self.workers)


def _run_group(names: Sequence[str], run: Run, engines: Engines, watcher: Watcher, note: Note) -> dict[str, Report]:
    """Stages that run at once, as far as the executor can; then, one by one, what is left for each."""
    tally = _Tally(names, run, watcher, note)
    ended: set[str] = set()
    try:
        if len(names) > 1:
            _flow(names, run, engines, tally)
        for name in names:
            this = stage(name)
            _finish_job(this, run, engines, tally)
            if tally.total[name].rows:
                this.output(run.workspace).compact()
                run.workspace.clear_leftovers()
                this.settle(run)
                tally.faults[name].end(_anything_good(this.output(run.workspace)))
            tally.end(name)
            ended.add(name)
            if run.options.part is None:
                this.finish(run)
    except SetupError:
        for name in names:  # The faults are stored even if they stopped the run.
            if name not in ended and tally.total[name].rows:
                tally.end(name)
        raise
    return tally.total


def _flow(names: Sequence[str], run: Run, engines: Engines, tally: _Tally) -> None:
    """Rows of a stage reach the next stage as soon as they are done. If machines are lost meanwhile, the stream is started
    again. Rows that are left over, for any reason, are left to `_finish_job`."""
    while True:
        jobs: list[Job] = []
        for name in names:
            job = _own(stage(name), run, jobs, tally.done[name])
            if job is None and jobs:
                job = stage(name).job(run, [])
            if job is not None:
                jobs.append(job)
        if len(jobs) < 2:
            return
        _check(run)
        executor = engines.choose(jobs, tally.say)
        if not isinstance(executor, Cluster) or not executor.fits(jobs):
            return
        tally.workers = executor.workers
        tally.begin(jobs)
        before = sum(map(len, tally.done.values()))
        following = Flow.of([job.stage for job in jobs], run)
        try:
            with closing(executor.stream(jobs, following, tally.say, tally.note.see)) as reports:
                for report in reports:
                    tally.add(report)
            if not any(job.partial for job in jobs) and not _begun(names, run, tally):
                return
        except NoRoom:
            return
        except Lost:
            if sum(map(len, tally.done.values())) == before:
                return
        for name in names:
            stage(name).output(run.workspace).compact()
            stage(name).settle(run)


def _begun(names: Sequence[str], run: Run, tally: _Tally) -> bool:
    """Whether workers of these stages have begun what no plan knew of, and there is something left of it."""
    begun = [name for name in names if stage(name).begins(run)]
    return any(_untried(stage(name).plan(run), tally.done[name]) is not None for name in begun)


def _untried(job: Job | None, done: Seen) -> Job | None:
    """A job without the rows that were tried in this run."""
    if job is None or not len(done):
        return job
    batches = [batch for batch in (untried(batch, done) for batch in job.batches) if batch.num_rows]
    return replace(job, batches=batches) if batches else None


def _own(this: Stage, run: Run, before: Sequence[Job], done: Seen) -> Job | None:
    """Rows that earlier runs left for a stage in the middle of a flow, without those that the stream will bring, and
    without clips that later stages have rows of."""
    job = _untried(this.plan(run), done)
    if job is None or "clip_id" not in job.batches[0].column_names:
        return job
    coming = [
        pa.array([], pa.string()),
        *(chunk for job in before for batch in job.batches for chunk in batch["video_id"].chunks),
    ]
    videos = pc.unique(pa.chunked_array(coming))
    manifests = {"captions": run.workspace.captions, "exports": run.workspace.exports}
    output = this.output(run.workspace).name
    later = list(manifests.values())[list(manifests).index(output) + 1 if output in manifests else 0 :]
    known = [Index(one.keys()) for one in later]
    batches = []
    for batch in job.batches:
        theirs = np.any(
            [pc.is_in(batch["video_id"], value_set=videos), *(one.has(batch["clip_id"]) for one in known)], axis=0
        )
        batches += [batch.filter(pa.array(~theirs))] if not theirs.all() else []
    job = replace(job, batches=batches) if batches else None
    if job is None or ACCESS in job.batches[0].column_names:
        return job
    access = run.access or Access()
    ours = pa.chunked_array([chunk for batch in job.batches for chunk in batch["video_id"].chunks])
    needs = rows_of(run.workspace.inputs, ours, ["video_id", NEEDS])
    return replace(job, batches=[access.attached(batch, needs) for batch in job.batches])


def _finish_job(this: Stage, run: Run, engines: Engines, tally: _Tally) -> None:
    """Plan the rows that are left for a stage and compute them. If machines are lost meanwhile, do so again."""
    tries, done = 0, tally.done[this.name]
    while True:
        job = _untried(this.plan(run), done)
        if job is None:
            return
        _check(run)
        executor = engines.choose([job], tally.say)
        tally.workers = executor.workers
        tally.begin([job])
        before = len(done)
        try:
            with closing(executor.run(job, tally.say, tally.note.see)) as reports:
                for report in reports:
                    report.stage = this.name
                    tally.add(report)
            if not job.partial and not this.begins(run):
                return
        except Lost as error:
            tries = tries + 1 if len(done) == before else 0
            if tries == TRIES:
                raise SetupError(f"{this.name}: Ray stopped: {error}; {AGAIN}") from error
        this.output(run.workspace).compact()
        this.settle(run)


def _anything_good(output: Manifest) -> bool:
    """Whether a manifest holds a result: a row that is no error, or any row where rows have no status."""
    if "status" not in output.schema.names:
        return output.rows() > 0
    return any(pc.any(pc.equal(rows["status"], "ok")).as_py() for rows in output.scan(["status"]))


def _log(
    workspace: Workspace, stage: str, recipe: Recipe, total: Report, seconds: float, began: datetime, workers: int
) -> None:
    row = {
        "run_id": uuid4().hex,
        "stage": stage,
        "started": began,
        "seconds": seconds,
        "computed": total.rows,
        "errors": total.errors,
        "faults": total.faults,
        "cpu_seconds": total.cpu_seconds,
        "video_seconds": total.video_seconds,
        "busy_share": total.busy_share,
        "requests": total.requests,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "workers": workers,
        "recipe": recipe.name,
    }
    workspace.runs.append(pa.Table.from_pylist([row], schema=schemas.RUNS))
