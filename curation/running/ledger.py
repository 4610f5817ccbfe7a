"""What a run knows of its batches: which were begun by whom, which ended, and what came of them. One for a run.

Workers tell it of each batch, the driver asks it for news, and it outlives every worker, so that a batch that kills whoever
takes it does not go round for ever. On Ray it is an actor beside the driver.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from longtake.curation.running.jobs import Report

_BAD_STARTS = 5  # of a stage's workers, if none ever started: then it is no accident
_ENOUGH = 4  # deaths over one batch, be they all on one machine


@dataclass(frozen=True, slots=True)
class Place:
    """A worker: its process, by an id of its own, and the machine that it is on."""

    worker: str
    node: str
    host: str


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
    """What happened since it was asked for last. ready: stage → workers that are
    there now or were. open: batches in hand. closing: workers that end what is under way. failure: why the run stops."""

    reports: list[Report] = field(default_factory=list)
    ready: dict[str, int] = field(default_factory=dict)
    open: int = 0
    closing: int = 0
    failure: str | None = None


class Ledger:
    """Its methods are coroutines, since Ray runs those of an actor side by side."""

    def __init__(self) -> None:
        self._open: dict[str, Place] = {}
        self._ended: set[str] = set()
        self._deaths: dict[str, list[Place]] = {}
        self._starting: Counter[str] = Counter()
        self._ready: dict[str, set[str]] = {}
        self._closing: set[str] = set()
        self._news = News()
        self._failure: str | None = None
        self._nodes = 1
        self._leaving: dict[str, asyncio.Event] = {}  # by node
        self._over = asyncio.Event()

    async def starts(self, stage: str) -> None:
        """A worker of a stage is being made."""
        self._starting[stage] += 1
        if not self._ready.get(stage) and self._starting[stage] > _BAD_STARTS:
            await self.fail(stage, f"its workers died {_BAD_STARTS} times over while they started")

    async def ready(self, stage: str, worker: str) -> None:
        """A worker takes batches now."""
        self._ready.setdefault(stage, set()).add(worker)

    async def begin(self, key: str, place: Place) -> Orders:
        """A worker takes a batch. If another had it and did not end it, that one is dead."""
        before = self._open.get(key)
        if before is not None and before.worker != place.worker:
            self._deaths.setdefault(key, []).append(before)
        if self._over.is_set():
            return Orders(stop=True)
        self._open[key] = place
        killed = self._deaths.get(key, [])
        several = len({one.node for one in killed}) >= min(2, self._nodes)
        alone = len(killed) >= _ENOUGH or (len(killed) >= 2 and several)
        return Orders(done=key in self._ended, alone=alone, killed=tuple(one.host for one in killed))

    async def end(self, key: str, report: Report) -> None:
        """A batch was done. One that was done twice counts once."""
        self._open.pop(key, None)
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

    async def left(self, worker: str) -> None:
        """A worker ends, as its node is to go. That is no fault of what it had not begun in earnest."""
        self._open = {key: place for key, place in self._open.items() if place.worker != worker}

    async def stopped(self, worker: str) -> None:
        """Returns once the run stops; the worker then ends what it has under way, and says so by `closed`."""
        await self._over.wait()
        if any(place.worker == worker for place in self._open.values()):
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
        return news
