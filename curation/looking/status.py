"""How a run goes, by its note in the workspace (`running/status.py`), seen from any machine that can read the workspace.

Nothing here asks the run itself. Whether it lives is told by its process, where that is one of this machine, and else by its
last beat and this machine's clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from longtake.curation.running.status import FOLDER, NO_ROOM, RUNNING, RunStatus, StageStatus
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import lives
from longtake.manifests.uris import redact

DIED = "died"
# A run that says nothing for four beats, and a minute at least, is taken for dead: a busy store delays a beat or two.
_SILENT_BEATS, _SILENT_SECONDS = 4, 60.0
# Shares of the workers' time. Above the first one, models or an endpoint are what limits a stage; above the second one, cores.
_BUSY, _COMPUTES = 0.7, 0.6


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits a run now. by: `cpu`, `gpu`, `endpoint` (or a model beside the pipeline), `feeding` (what brings work to
    models), `waiting` (for reads, writes or cores), `room`, `start` or `planning`. why: a sentence."""

    stage: str | None
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A workspace as it was seen. now: seconds since 1970. runs: those whose notes are there, by part. stored: manifest → rows,
    of which a row that was replaced counts until the next compaction."""

    workspace: str
    now: float
    runs: list[RunStatus]
    stored: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data: what is in the notes, and what follows from it."""
        return {
            "workspace": self.workspace,
            "now": self.now,
            "runs": [_run_json(run, self.now) for run in self.runs],
            "stored": self.stored,
        }


def look(workspace: Workspace) -> Seen:
    """What the notes of a workspace say. Raises SetupError if it is no workspace."""
    folder, runs = workspace.folder, []
    for name in sorted((folder / FOLDER).names()):
        if name.endswith(".json") and not name.startswith("."):
            with suppress(FileNotFoundError, ValueError):  # The note was removed meanwhile, or is of another version.
                runs.append(RunStatus.of(folder.read(f"{FOLDER}/{name}")))
    if not runs:
        workspace.must_exist()
    runs.sort(key=lambda run: [int(number) for number in (run.part or "0/0").split("/")][::-1])
    manifests = (workspace.inputs, workspace.videos, workspace.clips, workspace.captions, workspace.exports)
    stored = {manifest.name: manifest.rows() for manifest in manifests}
    now = time.time()
    return Seen(redact(workspace.path), now, [replace(run, state=state_of(run, now)) for run in runs], stored)


def state_of(run: RunStatus, now: float) -> str:
    """What became of a run: as it says itself, but for one that says no more."""
    if run.state != RUNNING:
        return run.state
    alive = lives(run.process or "")
    return DIED if alive is False or (alive is None and is_silent(run, now)) else RUNNING


def is_silent(run: RunStatus, now: float) -> bool:
    """Whether a run has written no note for longer than a busy store would delay one, by this machine's clock and its own."""
    return abs(now - run.beat) > max(_SILENT_SECONDS, _SILENT_BEATS * run.every)


def left(stage: StageStatus) -> int:
    """Rows that are known to be left; more may come from the stages before."""
    return max(0, stage.rows - stage.done)


def rate(stage: StageStatus) -> float:
    """Rows per second within the last minutes; of a stage that is over, from its beginning to its end."""
    if stage.state == RUNNING and stage.window.get("seconds", 0.0) > 0:
        return stage.window["rows"] / stage.window["seconds"]
    return stage.done / stage.seconds if stage.seconds else 0.0


def seconds_left(stage: StageStatus) -> float | None:
    """Until what is known to be left is done; None while nobody can tell, and of a stage that is not at work."""
    if stage.state != RUNNING:
        return None
    if not left(stage):
        return 0.0
    return left(stage) / rate(stage) if rate(stage) else None


def share(stage: StageStatus, what: str) -> float | None:
    """The part of the workers' time within the last minutes that was `busy_seconds` or `cpu_seconds`; None without any."""
    whole = stage.window.get("worker_seconds", 0.0)
    return min(1.0, stage.window[what] / whole) if whole else None


def limit(run: RunStatus) -> Limit | None:
    """What limits a run now: of the stages at work the one that needs longest for what it has, and what its workers do."""
    if run.state != RUNNING:
        return None
    at_work = [stage for stage in run.stages if stage.state == RUNNING and left(stage)]
    if not at_work:
        return Limit(None, "planning", run.waits or "all planned batches are done: the run reads, plans or compacts")
    slowest = max(at_work, key=lambda stage: _or_ever(seconds_left(stage)))
    name = slowest.stage
    if not slowest.workers:
        by = "room" if run.waits and run.waits.startswith(NO_ROOM) else "start"
        return Limit(name, by, run.waits or f"the workers of {name} are being made")
    busy, computes = share(slowest, "busy_seconds"), share(slowest, "cpu_seconds")
    if busy is None or computes is None:
        return Limit(name, "start", f"no batch of {name} has ended within the last minutes")
    if slowest.gpus and busy < _BUSY:
        return Limit(
            name, "feeding", f"{name}: its GPUs are busy {busy:.0%} of their workers' time, and wait for frames"
        )
    if slowest.gpus:
        return Limit(name, "gpu", f"{name}: its GPUs are busy {busy:.0%} of their workers' time")
    if slowest.requests and busy >= _BUSY:
        why = f"{name}: {busy:.0%} of the allowed requests are under way; the endpoint takes the rest of the time"
        return Limit(name, "endpoint", why)
    if slowest.requests:
        return Limit(name, "feeding", f"{name}: {busy:.0%} of the allowed requests are under way")
    workers = f"its {slowest.workers} workers compute" if slowest.workers > 1 else "its worker computes"
    if computes >= _COMPUTES:
        return Limit(name, "cpu", f"{name}: {workers} {computes:.0%} of the time: more cores would make it faster")
    why = f"{name}: {workers} {computes:.0%} of the time, and waits for reads and writes, or for cores that others have"
    return Limit(name, "waiting", why if slowest.workers == 1 else why.replace("and waits", "and wait"))


def together(runs: Sequence[RunStatus]) -> list[StageStatus]:
    """The stages of several parts added up, in order; a stage is at work if any part is at it."""
    summed: dict[str, StageStatus] = {}
    for run in runs:
        for stage in run.stages:
            total = summed.setdefault(stage.stage, StageStatus(stage.stage, state=stage.state))
            total.state = RUNNING if RUNNING in (total.state, stage.state) else total.state
            for name in ("rows", "done", "errors", "faults", "workers", "batches", "gpu_seconds", "gpu_busy_seconds"):
                setattr(total, name, getattr(total, name) + getattr(stage, name))
            total.more |= stage.more
            total.seconds = max(total.seconds, stage.seconds)
            if run.state == RUNNING and stage.state == RUNNING:
                total.window["seconds"] = 1.0
                total.window["rows"] = total.window.get("rows", 0.0) + rate(stage)
    return list(summed.values())


def _or_ever(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


def _run_json(run: RunStatus, now: float) -> dict[str, Any]:
    limited = limit(run)
    stages = [
        {
            **asdict(stage),
            "left": left(stage),
            "rate": rate(stage),
            "seconds_left": seconds_left(stage) if run.state == RUNNING else None,
            "busy_share": share(stage, "busy_seconds"),
            "cpu_share": share(stage, "cpu_seconds"),
        }
        for stage in run.stages
    ]
    silent = max(0.0, now - run.beat)
    return {
        **asdict(run),
        "silent_seconds": silent,
        "limited_by": asdict(limited) if limited else None,
        "stages": stages,
    }
