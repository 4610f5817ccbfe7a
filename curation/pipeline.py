"""The four stages in order, on Ray or inline, with a lock, a log of runs, and somebody to tell how it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation import forgetting
from longtake.curation.access import Access
from longtake.curation.clip_table import sync_clips
from longtake.curation.errors import SetupError
from longtake.curation.inputs import Gathered, InputReport, gather, place_of
from longtake.curation.lists import ListRules
from longtake.curation.recipe import Recipe
from longtake.curation.running.faults import Faults
from longtake.curation.running.inline import Inline
from longtake.curation.running.jobs import Report
from longtake.curation.running.on_ray import Cluster
from longtake.curation.stages.stage import Options, Run, Stage, stage
from longtake.curation.workspace import Workspace, without_ids
from longtake.manifests import schemas
from longtake.manifests.lock import WorkspaceLock
from longtake.manifests.store import Manifest


class Watcher(Protocol):
    """Told how a run goes. One that has the method `inputs(report)` is told what was read, too, before the work begins."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None: ...


@dataclass(slots=True)
class RunResult:
    """What a run computed, stage by stage, the clips in each dataset it wrote, and what it read of its inputs (None: it was
    given none). kept_back: tier → why its dataset stays as it was. notes: what stages have to say, in sentences."""

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
        """Whether faults of the world left something as it was that should have been made anew."""
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
) -> RunResult:
    """Run stages over a workspace. rules: how lists are read. access: what lets this command in (None: what the environment
    gives). strict: stop before any work if some input cannot be used. Raises SetupError, StoreError or WorkspaceBusy before
    or between units of work; what is committed stays good, and the same call goes on from there."""
    for name in options.stages:
        stage(name).validate(recipe)
    rules, access = rules or ListRules(uri_column), access or Access.load()
    executor = Inline() if options.inline else Cluster(options.address, options.workers)
    result = RunResult()
    with WorkspaceLock(workspace.path):
        try:
            forgetting.complete(workspace)
            if inputs and not workspace.inputs.parts():
                # there will be work: Ray, which takes its time, starts while the list is read
                _check(Run(workspace, recipe, options, access))
                executor.start()
            if inputs:
                gathered = gather(inputs, rules, access, workspace=workspace.path, strict=strict)
                forgetting.leave_out(workspace, gathered)
                result.inputs = gathered.report
                if tell := getattr(watcher, "inputs", None):
                    tell(gathered.report)
                withdraw(workspace, gathered)
                add_inputs(workspace, gathered.table)
            if not workspace.inputs.parts():
                raise SetupError(f"nothing to do: no videos were given, and {workspace.path} has none")
            workspace.save_recipe(recipe)
            sync_clips(workspace, recipe)  # what a run that was killed left undone
            this = Run(workspace, recipe, options, access)
            for name in options.stages:
                result.stages[name] = _run_stage(stage(name), this, executor, watcher)
            result.datasets, result.kept_back, result.notes = this.datasets, this.kept_back, this.notes
            workspace.runs.compact()
        finally:
            executor.close()
    return result


def add_inputs(workspace: Workspace, table: pa.Table) -> None:
    """Note videos that the workspace does not know yet, or knows with other clips."""
    known = workspace.inputs.read()
    old = {row["video_id"]: row for row in known.to_pylist()} if known.num_rows else {}
    new = without_ids(table, "video_id", known["video_id"])
    changed = [row for row in table.to_pylist() if row["video_id"] in old and row != old[row["video_id"]]]
    workspace.inputs.append(pa.concat_tables([new, pa.Table.from_pylist(changed, schema=schemas.INPUTS)]))
    workspace.inputs.compact()


def withdraw(workspace: Workspace, gathered: Gathered) -> None:
    """Take out the error rows of lists and folders that were read again now, where they say so no more."""
    if not workspace.inputs.parts():
        return
    known = workspace.inputs.read(["video_id", "uri", "error"])
    known = known.filter(pc.is_valid(known["error"]))
    now = dict(zip(gathered.table["video_id"].to_pylist(), gathered.table["error"].to_pylist(), strict=True))
    gone = [
        row["video_id"]
        for row in known.to_pylist()
        if now.get(row["video_id"]) != row["error"]
        and (row["video_id"] in now or place_of(row["uri"]) in gathered.places)
    ]
    if gone:
        ids = pa.array(gone, pa.string())
        workspace.inputs.compact(without=ids)
        workspace.videos.compact(without=ids)


def _check(run: Run) -> None:
    """Raises SetupError if any of the run's stages cannot work on this machine: nobody wants to hear of it in the morning."""
    for name in run.options.stages:
        stage(name).check(run)


def _run_stage(this: Stage, run: Run, executor: Inline | Cluster, watcher: Watcher) -> Report:
    started, began = time.monotonic(), datetime.now(UTC)
    job = this.plan(run)
    total, workers = Report(), 0

    def tell() -> None:
        seconds = time.monotonic() - started
        watcher.end(this.name, total, seconds)
        _log(run.workspace, this.name, run.recipe, total, seconds, began, workers)

    if job is not None:
        _check(run)
        executor.start()
        workers = executor.workers
        watcher.begin(this.name, job.rows)
        faults = Faults(this.name)
        try:
            for report in executor.run(job):
                total += report
                watcher.advance(report)
                faults.see(report.outcomes)
            this.output(run.workspace).compact()
            run.workspace.clear_leftovers()
            this.settle(run)
            faults.end(_anything_good(this.output(run.workspace)))
        except SetupError:
            tell()  # what faults a run met is to be known also if they stopped it
            raise
    tell()
    this.finish(run)
    return total


def _anything_good(output: Manifest) -> bool:
    """Whether a manifest holds a result: a row that is no error, or any row where rows have no status."""
    if "status" not in output.schema.names:
        return output.rows() > 0
    return bool(pc.any(pc.equal(output.read(["status"])["status"], "ok")).as_py())


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
