"""Simulated processes on simulated hosts, under one seed: who runs next, what time it is, and which call fails.

Each process is a greenlet of this program, and exactly one runs at a time: at each call that reaches the machine (a file, the
store, the clock) it hands over, and the seed decides who goes on. So a seed is one history, and can be replayed.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet

START = 1_700_000_000.0  # Seconds since 1970 at which each world begins.
CALL_SECONDS = 0.002  # Seconds that a call takes, on average.
MOST_CALLS = 60_000  # Calls of one world. More are a loop without an end.
_PACKAGE = str(Path(__file__).parent)


class Killed(BaseException):
    """This process is dead: nothing it still does has an effect."""


class Stuck(AssertionError):
    """A world that does not come to an end."""


@dataclass
class Host:
    """A machine. skew: seconds by which its clock is wrong. Its disks are the world's (one filesystem that all hosts mount)."""

    name: str
    skew: float = 0.0


@dataclass
class Process:
    """A simulated process: dead ones have no effect on anything."""

    name: str
    host: Host
    pid: int
    dead: bool = False
    locks: set[int] = field(default_factory=set)  # Descriptors with a lock on them.
    frozen_until: float = 0.0


@dataclass
class Task:
    """A thread of a process."""

    process: Process
    run: Callable[[], None]
    thread: greenlet | None = None
    asleep_until: float = 0.0
    blocked: Callable[[], bool] | None = None  # The thread waits while this is true.
    ended: bool = False
    error: BaseException | None = None
    is_main: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `occurrence`-th call at a site. kind: see `faults`."""

    kind: str
    site: str
    occurrence: int


class World:
    """One history. faults: by seed. log: whether the history is kept as lines of text."""

    def __init__(self, seed: int, faults: list[Fault] | None = None, log: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = START
        self.calls = 0
        self.sites: Counter[str] = Counter()  # Call site → how often it was reached.
        self.hits: Counter[tuple[str, str]] = Counter()  # (kind, site) of the faults that happened
        self.faults = {(fault.site, fault.occurrence): fault for fault in faults or []}
        self.history: list[str] | None = [] if log else None
        self.healed = False
        self.boots = 0  # How often the power came back.
        self.power_cut: Callable[[], None] = lambda: None
        self._tasks: list[Task] = []
        self._scheduler = getcurrent()
        self._current: Task | None = None
        self._pids = 100

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str, host: Host, main: Callable[[Process], None]) -> Process:
        """A new process, which runs `main` once it is its turn."""
        self._pids += 1
        process = Process(name, host, self._pids)
        self.spawn(process, lambda: main(process), is_main=True)
        return process

    def spawn(self, process: Process, run: Callable[[], None], is_main: bool = False) -> Task:
        """A further thread of a process."""
        task = Task(process, run, is_main=is_main)
        self._tasks.append(task)
        task.thread = greenlet(lambda: self._carry(task), parent=self._scheduler)
        return task

    def _carry(self, task: Task) -> None:
        try:
            if not task.process.dead:
                task.run()
        except Killed:
            pass
        except BaseException as error:
            task.error = error
        task.ended = True

    def run(self) -> None:
        """Until no process lives. Raises the first error that ended a process, and Stuck."""
        while True:
            for task in self._tasks:
                if task.error is not None:
                    raise task.error
                if task.is_main and task.ended and not task.process.dead:
                    self.kill(task.process)  # The other threads of the process end with it.
            living = [task for task in self._tasks if not task.ended]
            self._tasks = living
            if not living:
                return
            dead = [task for task in living if task.process.dead]
            ready = dead or [
                task
                for task in living
                if max(task.asleep_until, task.process.frozen_until) <= self.now
                and not (task.blocked is not None and task.blocked())
            ]
            if not ready:
                times = [max(task.asleep_until, task.process.frozen_until) for task in living if task.blocked is None]
                later = [time for time in times if time > self.now]
                if not later:
                    raise Stuck(f"seed {self.seed}: {len(living)} threads wait for one another")
                self.now = min(later)
                continue
            task = self.random.choice(ready)
            task.blocked = None
            self._current = task
            assert task.thread is not None
            task.thread.switch()
            self._current = None

    def kill(self, process: Process) -> None:
        """End a process as SIGKILL does: the kernel lifts its locks and closes its files."""
        process.dead = True
        process.locks.clear()

    # ── what a process asks of the world ─────────────────────────────────────────────────────────────────────────────

    def step(self, process: Process, call: str) -> str | None:
        """Before each call of a process: others may run first, and a fault may happen at it. The kind of a fault that the call
        itself has to carry out (`error`, `lost answer`); raises Killed."""
        self.pause(process)
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise Stuck(f"seed {self.seed}: more than {MOST_CALLS} calls")
        self.now += self.random.expovariate(1 / CALL_SECONDS)
        site = _site(call)
        self.sites[site] += 1
        if self.history is not None:
            self.history.append(f"{self.now - START:10.3f} {process.name:>10} {site}")
        fault = None if self.healed else self.faults.get((site, self.sites[site]))
        if fault is None:
            return None
        self.hits[fault.kind, site] += 1
        if self.history is not None:
            self.history.append(f"{'':21} *** {fault.kind}")
        if fault.kind == "crash":
            self.kill(process)
            raise Killed
        if fault.kind == "power cut":
            for task in self._tasks:
                self.kill(task.process)
            self.power_cut()
            self.boots += 1
            raise Killed
        if fault.kind == "freeze":
            process.frozen_until = self.now + self.random.choice([5.0, 150.0, 400.0])
            self.pause(process)
            return None
        if fault.kind == "slow":
            self.sleep(process, self.random.choice([0.2, 3.0]))
            return None
        return fault.kind

    def lives(self, pid: int, host: Host) -> bool:
        """Whether a host has a living process of this number."""
        return any(
            task.process.pid == pid and task.process.host.name == host.name and not task.process.dead
            for task in self._tasks
        )

    def pause(self, process: Process) -> None:
        """Let others run. Raises Killed if this process died meanwhile."""
        if process.dead:
            raise Killed
        task = self._current
        assert task is not None
        assert task.process is process, "a call by a process whose turn it is not"
        self._scheduler.switch()
        if process.dead:
            raise Killed

    def linger(self, process: Process) -> None:
        """In the middle of a long call: others may do one thing, or many."""
        if self.random.random() < 0.3:
            self.sleep(process, self.random.expovariate(10))
        else:
            self.pause(process)

    def sleep(self, process: Process, seconds: float) -> None:
        """Let so many seconds pass. Raises Killed."""
        if process.dead:
            raise Killed
        assert self._current is not None
        self._current.asleep_until = self.now + seconds
        self.pause(process)

    def wait_while(self, process: Process, blocked: Callable[[], bool]) -> None:
        """Until something is no longer so. Raises Killed."""
        while blocked():
            if process.dead:
                raise Killed
            assert self._current is not None
            self._current.blocked = blocked
            self.pause(process)


def _site(call: str) -> str:
    """The call and the function of the project that makes it, such as `folder.prepared: os.fsync`."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_globals.get("__simulated__"):
            return f"{name.rsplit('.', 1)[-1]}.{frame.f_code.co_name}: {call}"
        frame = frame.f_back
    return f"scenario: {call}"
