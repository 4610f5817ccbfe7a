"""What a run knows of its batches: which were begun by whom, which ended, and what came of them. One for a run.

Workers tell it of each batch, the driver asks it for news, and it outlives every worker, so that a batch that kills whoever
takes it does not go round for ever. On Ray it is an actor beside the driver.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from longtake.curation.running.jobs import Hands, Late, Report

_BAD_STARTS = 5  # Workers of a stage that fail to start before any has started: more is no accident.
_ENOUGH = 4  # Workers that die over one batch, even if all of them ran on one machine.
_LAST = 200  # Batches of a stage whose median time counts: the times of hours ago may be usual no longer.
# A batch is late that takes so many times the median, and so many seconds at least: batches of one stage differ by a
# factor of some three.
_LATE_TIMES, _LATE_SECONDS = 5.0, 30.0
# Late batches of a stage that are named, the oldest first. More are no accident, and a longer list would not be read.
_LATE_TOLD = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A worker: its process, by an id of its own, the machine that it is on, and the stage that it works for."""

    worker: str
    node: str
    host: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class _InHand:
    """A batch that a worker has: since when, by the ledger's clock, and its first row."""

    place: Place
    since: float
    what: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker does with a batch that it was given. stop: the run is over: nothing. done: it is done already. alone: it
    has killed two workers: its rows one by one, with nothing beside them. killed: the hosts of the workers that ended at it."""

    stop: bool = False
    done: bool = False
    alone: bool = False
    killed: tuple[str, ...] = ()


@dataclass(slots=True)
class News:
    """What happened since it was asked for last. ready: stage → workers that are there now or were. open: batches in hand.
    hands: stage → what its workers have. closing: workers that end what is under way. failure: why the run stops."""

    reports: list[Report] = field(default_factory=list)
    ready: dict[str, int] = field(default_factory=dict)
    open: int = 0
    hands: dict[str, Hands] = field(default_factory=dict)
    closing: int = 0
    failure: str | None = None


class Ledger:
    """Its methods are coroutines, since Ray runs those of an actor side by side."""

    def __init__(self) -> None:
        self._open: dict[str, _InHand] = {}
        self._ended: set[str] = set()
        self._deaths: dict[str, list[Place]] = {}
        self._starting: Counter[str] = Counter()
        self._ready: dict[str, set[str]] = {}
        # Stage → worker → its start, for workers that are not known to be dead.
        self._there: dict[str, dict[str, float]] = {}
        self._were: dict[str, float] = {}  # Stage → seconds that workers lived which are dead by now.
        self._took: dict[str, deque[float]] = {}  # Stage → seconds of its last batches.
        self._closing: set[str] = set()
        self._news = News()
        self._failure: str | None = None
        self._nodes = 1
        self._leaving: dict[str, asyncio.Event] = {}  # Node → set when the node is about to leave.
        self._over = asyncio.Event()

    async def starts(self, stage: str) -> None:
        """A worker of a stage is being made."""
        self._starting[stage] += 1
        if not self._ready.get(stage) and self._starting[stage] > _BAD_STARTS:
            await self.fail(stage, f"its workers died {_BAD_STARTS} times over while they started")

    async def ready(self, stage: str, worker: str, seconds: float = 0.0) -> None:
        """A worker takes batches now. seconds: that it took to be made."""
        self._ready.setdefault(stage, set()).add(worker)
        self._there.setdefault(stage, {})[worker] = time.monotonic() - seconds

    async def begin(self, key: str, place: Place, what: str = "") -> Orders:
        """A worker takes a batch. If another had it and did not end it, that one is dead. what: its first row."""
        before = self._open.get(key)
        if before is not None and before.place.worker != place.worker:
            self._deaths.setdefault(key, []).append(before.place)
            self._bury(before.place)
        if self._over.is_set():
            return Orders(stop=True)
        self._open[key] = _InHand(place, time.monotonic(), what)
        self._moved(key)
        killed = self._deaths.get(key, [])
        several = len({one.node for one in killed}) >= min(2, self._nodes)
        alone = len(killed) >= _ENOUGH or (len(killed) >= 2 and several)
        return Orders(done=key in self._ended, alone=alone, killed=tuple(one.host for one in killed))

    async def end(self, key: str, report: Report) -> None:
        """A batch was done. One that was done twice counts once."""
        if (ended := self._open.pop(key, None)) is not None and report.rows:
            took = self._took.setdefault(ended.place.stage, deque(maxlen=_LAST))
            took.append(time.monotonic() - ended.since)
        self._moved(key)
        again = report.rows if self._deaths.get(key) else 0
        if key in self._ended:
            report = Report(stage=report.stage, repeated=report.rows)
        elif again:
            report = replace(report, repeated=again)
        self._ended.add(key)
        self._news.reports.append(report)

    async def fail(self, stage: str, message: str) -> None:
        """Something is wrong that is no fault of a row: the run ends."""
        self._failure = self._failure or f"{stage}: {message}"
        self._over.set()

    async def stop(self) -> None:
        """No batch is begun any more."""
        self._over.set()

    async def leaves(self, node: str) -> None:
        """Returns once a node is to go."""
        await self._leaving.setdefault(node, asyncio.Event()).wait()

    async def left(self, place: Place) -> None:
        """A worker ends, as its node is to go. That is no fault of what it had not begun in earnest."""
        self._open = {key: one for key, one in self._open.items() if one.place.worker != place.worker}
        self._bury(place)

    async def stopped(self, worker: str) -> None:
        """Returns once the run stops; the worker then ends what it has under way, and says so by `closed`."""
        await self._over.wait()
        if any(one.place.worker == worker for one in self._open.values()):
            self._closing.add(worker)

    async def closed(self, worker: str) -> None:
        """A worker has ended what was under way."""
        self._closing.discard(worker)

    async def news(self, nodes: int, leaving: Collection[str] = ()) -> News:
        """What the driver does not know yet. nodes: that the cluster has; leaving: those of them that are to go."""
        self._nodes = nodes
        for node in leaving:
            self._leaving.setdefault(node, asyncio.Event()).set()
        news, self._news = self._news, News()
        news.ready = {stage: len(workers) for stage, workers in self._ready.items()}
        news.open, news.closing, news.failure = len(self._open), len(self._closing), self._failure
        news.hands = {stage: self._hands(stage) for stage in self._there}
        return news

    def _moved(self, key: str) -> None:
        """A part of a batch, or a row of it, was begun or ended: in hand since now. Their names begin with the batch's."""
        whole = re.split("[:-]", key)[0]
        if whole != key and (one := self._open.get(whole)) is not None:
            self._open[whole] = replace(one, since=time.monotonic())

    def _bury(self, place: Place) -> None:
        """A worker is dead, since when it is not known: until now it is taken to have been there."""
        since = self._there.get(place.stage, {}).pop(place.worker, None)
        if since is not None:
            self._were[place.stage] = self._were.get(place.stage, 0.0) + time.monotonic() - since

    def _hands(self, stage: str) -> Hands:
        now, there = time.monotonic(), self._there[stage]
        in_parts = {re.split("[:-]", key)[0] for key in self._open if not key.isalnum()}
        ours = [one for key, one in self._open.items() if one.place.stage == stage and key not in in_parts]
        open_ = sorted(ours, key=lambda one: one.since)
        took = self._took.get(stage)
        usual = statistics.median(took) if took else None
        limit = max(_LATE_SECONDS, _LATE_TIMES * (usual or 0.0))
        late = [Late(one.place.host, now - one.since, one.what) for one in open_ if usual and now - one.since > limit]
        return Hands(
            workers=len(there),
            batches=len(open_),
            worker_seconds=self._were.get(stage, 0.0) + sum(now - since for since in there.values()),
            oldest_seconds=now - open_[0].since if open_ else 0.0,
            usual_seconds=usual,
            late=tuple(late[:_LATE_TOLD]),
        )
