"""What a run is at: a small file in the workspace, `.status/run.json`, that the driver writes anew every few seconds.

Whoever can read the workspace can so watch the run, from anywhere: `longtake status`. A run with `--part I/N` has a file of
its own. A note is one put on an object store (every 15 s: some 6,000 a day), it never stops a run, and no result depends on
it. Its last state stays until the next run. Names of videos stand in it only while their batches are late.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from longtake import __version__
from longtake.curation.running.faults import this_host
from longtake.curation.running.jobs import Hands, Job, Report
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import this_process
from longtake.manifests.parts import check_guard
from longtake.manifests.uris import redact

FOLDER = ".status"
WHOLE = "run.json"  # The note of a run without --part.
# Seconds between two notes: on a disk, and elsewhere, where each is a request that costs.
EVERY_SECONDS, EVERY_SECONDS_AWAY = 5.0, 15.0
# Seconds. The rate of a stage is that of the last five minutes: long enough for a few slow films.
WINDOW_SECONDS = 300.0
_POINTS = 64  # Moments of that window that are kept for each stage.
_LAST_WORD_SECONDS = 20.0  # Seconds that a run that ends waits for a note that is being written.
NO_ROOM = "waiting for room"  # An engine's report begins with these words where there is no place for a worker.
RUNNING, ENDED, FAILED, STOPPED = "running", "ended", "failed", "stopped"
# Ends of a run that are no fault of it: Ctrl-C, and a pipe that takes no more of its output (`| head`).
_STOPS = (KeyboardInterrupt, SystemExit)


@dataclass(slots=True)
class StageStatus:
    """One stage of a run. state: `waiting` (for its turn), `running`, `ended` or `stopped`. rows: that came to it so far, of
    which `done` are done; more: whether there are others to plan. errors: rows; error_kinds: [kind, host, rows]. seconds: since
    it began. cpu_seconds, worker_seconds, busy_seconds: of the workers, see `jobs.Report`. gpus: that each worker takes.
    gpu_seconds: that workers held a GPU, and gpu_busy_seconds: in which a model worked on one; both count a part of a GPU as
    that part. window: rows, seconds and the three times above within the last minutes. The rest: `jobs.Hands`."""

    stage: str
    state: str = "waiting"
    rows: int = 0
    done: int = 0
    more: bool = False
    errors: int = 0
    faults: int = 0
    error_kinds: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    worker_seconds: float = 0.0
    busy_seconds: float = 0.0
    video_seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repeated: int = 0
    workers: int = 0
    gpus: float = 0.0
    gpu_seconds: float = 0.0
    gpu_busy_seconds: float = 0.0
    batches: int = 0
    oldest_seconds: float = 0.0
    usual_seconds: float | None = None
    late: list[dict[str, Any]] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class RunStatus:
    """A run as its note tells it. started, beat: seconds since 1970, by the driver's clock; every: seconds between two beats.
    process: see `lock.this_process`. message: why it stopped. waits: what it said last of what it waits for."""

    run: str
    part: str | None
    host: str
    pid: int
    process: str | None
    command: str
    recipe: str
    longtake: str
    started: float
    beat: float
    every: float
    state: str = RUNNING
    message: str | None = None
    waits: str | None = None
    stages: list[StageStatus] = field(default_factory=list)

    @classmethod
    def of(cls, data: bytes) -> RunStatus:
        """From a note. Raises ValueError, also where it is another version's."""
        try:
            told = json.loads(data)
            return cls(**{**told, "stages": [StageStatus(**one) for one in told["stages"]]})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no note of this version: {error}") from error


class _AtWork:
    """A stage under way, and its last minutes."""

    def __init__(self, stage: str) -> None:
        self.told = StageStatus(stage)
        self.began = self.last = self.seen = 0.0
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.hands = Hands()
        self.held_before = 0.0  # Seconds that workers of finished streams held GPUs.
        self.points: deque[tuple[float, int, float, float, float]] = deque(maxlen=_POINTS)

    def sums(self, now: float) -> tuple[float, int, float, float, float]:
        told = self.told
        return now, told.done, told.worker_seconds, told.busy_seconds, told.cpu_seconds

    def held(self, now: float) -> float:
        """Seconds that the workers of this job held GPUs."""
        return self.hands.gpus * (self.hands.worker_seconds or (now - self.seen if self.hands.workers else 0.0))

    def status(self, now: float) -> StageStatus:
        """As it is now."""
        reports, hands = self.told, self.hands
        if reports.state == RUNNING:
            reports.seconds = now - self.began
            reports.workers, reports.batches, reports.gpus = hands.workers, hands.batches, hands.gpus
            here = hands.workers and not hands.worker_seconds  # A worker in this process has no ledger.
            reports.oldest_seconds = now - self.last if here else hands.oldest_seconds
            reports.usual_seconds = hands.usual_seconds
            reports.late = [asdict(one) for one in hands.late]
            reports.gpu_seconds = self.held_before + self.held(now)
            while len(self.points) > 1 and self.points[1][0] < now - WINDOW_SECONDS:
                self.points.popleft()
            first, sums = self.points[0], self.sums(now)
            names = ("seconds", "rows", "worker_seconds", "busy_seconds", "cpu_seconds")
            reports.window = {name: float(b - a) for name, a, b in zip(names, first, sums, strict=True)}
            if not self.points or now - self.points[-1][0] >= WINDOW_SECONDS / _POINTS:
                self.points.append(sums)
        reports.error_kinds = [[kind, host, rows] for (kind, host), rows in sorted(self.kinds.items())]
        return reports

    def rest(self, now: float, state: str) -> None:
        """The stage is at work no more."""
        told = self.status(now)
        told.state, told.more = state, told.more and state != ENDED
        told.workers = told.batches = 0
        told.late, told.oldest_seconds = [], 0.0


class Note:
    """Kept by the driver while it holds the workspace's lock: `with WorkspaceLock(…), Note(…) as note:`. Told as a
    `pipeline.Watcher` is. For several threads."""

    def __init__(
        self, workspace: Workspace, recipe: str, stages: Sequence[str], part: tuple[int, int] | None = None
    ) -> None:
        self._workspace, self._folder, self._turn = workspace.path, workspace.folder, threading.Lock()
        self._name = f"{FOLDER}/{WHOLE if part is None else f'{part[0]}-of-{part[1]}.json'}"
        self._part = None if part is None else f"{part[0]}/{part[1]}"
        self._recipe = recipe
        self._stages = {name: _AtWork(name) for name in stages}
        self._every = EVERY_SECONDS if self._folder.is_local else EVERY_SECONDS_AWAY
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="status", daemon=True)

    def __enter__(self) -> Self:
        now = time.time()
        self._run = RunStatus(
            uuid4().hex, self._part, socket.gethostname(), os.getpid(), this_process(), _command(),
            self._recipe, __version__, now, now, self._every,
        )  # fmt: skip
        if self._part is None:  # The run has the workspace alone, so earlier parts are over.
            with suppress(Exception):
                for name in (self._folder / FOLDER).names():
                    if name != WHOLE:
                        self._folder.remove(f"{FOLDER}/{name}")
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_LAST_WORD_SECONDS)
        with self._turn:
            self._run.state = ENDED if kind is None else STOPPED if kind in _STOPS else FAILED
            self._run.message = None if kind in (None, *_STOPS) else redact(f"{error}" or str(kind))
            self._run.waits = None
            now = time.monotonic()
            for one in self._stages.values():
                if one.told.state == RUNNING:
                    one.rest(now, STOPPED)
        if not self._thread.is_alive():
            self._write()

    # ── told by the driver ───────────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> None:
        """What the run waits for."""
        with self._turn:
            self._run.waits = redact(text)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Jobs are handed to an engine, which has nothing in hand."""
        now = time.monotonic()
        with self._turn:
            for job in jobs:
                one = self._stages[job.stage]
                if one.told.state != RUNNING:
                    one.told.state, one.began, one.last = RUNNING, now, now
                    one.points.append(one.sums(now))
                one.told.rows, one.told.more = one.told.done + job.rows, job.partial
                one.held_before += one.held(now)
                one.hands, one.seen = Hands(), now

    def see(self, hands: Mapping[str, Hands]) -> None:
        """What workers have in hand."""
        now = time.monotonic()
        with self._turn:
            if hands and not (self._run.waits or "").startswith(NO_ROOM):
                self._run.waits = None  # The workers are there now, and the reason for waiting is past.
            for stage, what in hands.items():
                if stage in self._stages:
                    self._stages[stage].seen = now
                    self._stages[stage].hands = what

    def advance(self, report: Report) -> None:
        """A batch has ended."""
        with self._turn:
            self._run.waits = None
            for stage, rows in report.more.items():
                if stage in self._stages:
                    self._stages[stage].told.rows += rows
            one = self._stages[report.stage]
            before, one.last = one.told, time.monotonic()
            before.done += report.rows
            before.errors += report.errors
            before.faults += report.faults
            before.cpu_seconds += report.cpu_seconds
            before.worker_seconds += report.seconds
            before.busy_seconds += report.busy_seconds
            before.video_seconds += report.video_seconds
            before.requests += report.requests
            before.prompt_tokens += report.prompt_tokens
            before.completion_tokens += report.completion_tokens
            before.repeated += report.repeated
            before.gpu_busy_seconds += report.busy_seconds * one.hands.gpus
            host = report.host or this_host()
            for kind, rows in report.error_kinds.items():
                one.kinds[kind, host] += rows
            if other := report.errors - sum(report.error_kinds.values()):
                one.kinds["error", host] += other

    def end(self, stage: str) -> None:
        """A stage is over."""
        now = time.monotonic()
        with self._turn:
            self._stages[stage].rest(now, ENDED)

    # ── written by a thread ──────────────────────────────────────────────────────────────────────────────────────────

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            self._write()

    def _write(self) -> None:
        """Write the note, unless the lock is lost: then it is another run's. A note that cannot be written stops nobody."""
        with suppress(Exception):
            check_guard(self._workspace)
            self._folder.write_whole(self._name, self.data())

    def data(self) -> bytes:
        """The note as it is now."""
        now = time.monotonic()
        with self._turn:
            self._run.beat = time.time()
            self._run.stages = [one.status(now) for one in self._stages.values()]
            return json.dumps(asdict(self._run)).encode()


def _command() -> str:
    """This process's command, as one types it, without secrets."""
    program, *arguments = sys.argv
    name = program.replace("\\", "/").rpartition("/")[2]
    return redact(shlex.join(["longtake" if name == "__main__.py" else name, *arguments]))
