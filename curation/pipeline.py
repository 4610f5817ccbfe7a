"""The four stages in order, on Ray or inline, with a lock, a log of runs, and somebody to tell how it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

import pyarrow as pa

from longtake.captioning.chat import CaptionerFault
from longtake.captioning.registry import make_captioner
from longtake.curation.clip_table import sync_clips
from longtake.curation.errors import SetupError
from longtake.curation.inputs import read_inputs
from longtake.curation.models import check_filters
from longtake.curation.recipe import Recipe
from longtake.curation.running.inline import Inline
from longtake.curation.running.jobs import Job, Report
from longtake.curation.running.on_ray import Cluster
from longtake.curation.stages.formats import check_formats
from longtake.curation.workspace import Workspace, without_ids
from longtake.filters.base import Needs
from longtake.manifests import schemas
from longtake.manifests.lock import WorkspaceLock

STAGES = ("scan", "score", "caption", "export")
_MEASURED_IN = {
    Needs.PROBE: "scan",
    Needs.SAMPLE: "scan",
    Needs.FRAMES: "score",
    Needs.CORPUS: "score",
    Needs.CAPTIONS: "caption",
}


class Watcher(Protocol):
    """Told how a run goes."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. stages: in order. workers: at once; None: as many as there are CPUs. sample: caption only so many clips,
    always the same ones."""

    stages: Sequence[str] = STAGES
    all_scores: bool = False
    retry_errors: bool = False
    inline: bool = False
    address: str | None = None
    workers: int | None = None
    sample: int | None = None


@dataclass(slots=True)
class RunResult:
    """What a run computed, stage by stage, and the clips in each dataset it wrote."""

    stages: dict[str, Report] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        return sum(report.errors for report in self.stages.values())


def run(
    workspace: Workspace,
    recipe: Recipe,
    inputs: Sequence[str],
    options: Options,
    watcher: Watcher,
    uri_column: str | None = None,
) -> RunResult:
    """Run stages over a workspace. Raises SetupError, StoreError or WorkspaceBusy before or between units of work; what
    is committed stays good, and the same call goes on from there."""
    if "export" in options.stages:
        check_formats(recipe.export.formats)
    executor = Inline() if options.inline else Cluster(options.address, options.workers)
    result = RunResult()
    with WorkspaceLock(workspace.path):
        try:
            if inputs and not workspace.inputs.parts():
                # there will be work: Ray, which takes its time, starts while the list is read
                _check(recipe, options.stages)
                executor.start()
            if inputs:
                add_inputs(workspace, read_inputs(inputs, uri_column))
            if not workspace.inputs.parts():
                raise SetupError(f"nothing to do: no videos were given, and {workspace.path} has none")
            workspace.save_recipe(recipe)
            sync_clips(workspace, recipe)  # what a run that was killed left undone
            for stage in options.stages:
                result.stages[stage] = _run_stage(stage, workspace, recipe, options, executor, watcher)
                if stage == "score":
                    from longtake.curation.stages import deduplicate

                    deduplicate.finish(workspace, recipe)
                if stage == "caption":
                    from longtake.curation.stages import copies

                    copies.finish(workspace, recipe)
                if stage == "export":
                    from longtake.curation.stages import export

                    result.datasets = export.finish(workspace, recipe)
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


def _check(recipe: Recipe, stages: Sequence[str]) -> None:
    """Raises SetupError if any of these stages cannot work on this machine: nobody wants to hear of it in the morning."""
    check_filters(recipe, {name: f for name, f in recipe.built.items() if _MEASURED_IN[f.needs] in stages})
    if "caption" in stages:
        try:
            make_captioner(recipe.captioning.captioner, recipe.captioning.settings).check()
        except (ValueError, CaptionerFault) as error:
            raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error


def _run_stage(
    stage: str, workspace: Workspace, recipe: Recipe, options: Options, executor: Inline | Cluster, watcher: Watcher
) -> Report:
    started, began = time.monotonic(), datetime.now(UTC)
    job = _plan(stage, workspace, recipe, options)
    total = Report()
    if job is not None:
        _check(recipe, options.stages)
        executor.start()
        watcher.begin(stage, job.rows)
        for report in executor.run(job):
            total += report
            watcher.advance(report)
        outputs = {
            "scan": workspace.videos,
            "score": workspace.clips,
            "caption": workspace.captions,
            "export": workspace.exports,
        }
        outputs[stage].compact()
        workspace.clear_leftovers()
        if stage == "scan":
            sync_clips(workspace, recipe)
    seconds = time.monotonic() - started
    watcher.end(stage, total, seconds)
    _log(workspace, stage, recipe, total, seconds, began, executor.workers if job else 0)
    return total


def _plan(stage: str, workspace: Workspace, recipe: Recipe, options: Options) -> Job | None:
    # late: each stage imports what it works with
    if stage == "scan":
        from longtake.curation.stages import scan

        return scan.plan(
            workspace, recipe, all_scores=options.all_scores, retry_errors=options.retry_errors, inline=options.inline
        )
    if stage == "score":
        from longtake.curation.stages import score

        return score.plan(workspace, recipe, all_scores=options.all_scores)
    if stage == "caption":
        from longtake.curation.stages import caption

        return caption.plan(workspace, recipe, retry_errors=options.retry_errors, sample=options.sample)
    from longtake.curation.stages import export

    return export.plan(workspace, recipe, retry_errors=options.retry_errors)


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
    workspace.runs.compact()
