"""What one endpoint may be asked by all workers of all runs together: how many requests at once, how many a minute, how long it
wants to be left alone, and how many tokens and how much money each run may spend.

A worker asks to be let in before each request, and says afterwards that it is over. In one process an `Allowance` is enough; on a
cluster it stands in an actor that all workers find by the endpoint's address (longtake.curation.running.shared). Little is lost
where that actor is: each worker says with each request what it has spent so far, and a request whose worker is dead is over
when no answer could come any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

# Seconds. A request that is not let in within this time asks again, so that one whose process has died blocks no other.
ASK_AGAIN_SECONDS = 1.0
RECENT_SECONDS = 60.0  # Seconds. The limits of a run bind the other runs for this long after its last request.
# Seconds. A run that has sent no request for this long is over, and its limits are forgotten.
FORGET_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Who asks, and within which limits. run, worker: ids. concurrency: requests at once. seconds: after which a request is over
    for certain. per_minute: requests. tokens, money: what the run may spend; prices: of a million tokens, of the prompt and of
    the answer. None: no limit."""

    run: str
    worker: str
    concurrency: int
    seconds: float
    per_minute: float | None = None
    tokens: int | None = None
    money: float | None = None
    prices: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Admission:
    """ticket: the request may be sent; to be given back afterwards. refusal: why this run may send no more, ever. Neither:
    not yet, so ask again."""

    ticket: str | None = None
    refusal: str | None = None


class Allowing(Protocol):
    """An `Allowance`, wherever it stands."""

    async def enter(self, terms: Terms, spent: tuple[int, int]) -> Admission: ...

    def leave(self, ticket: str, quiet: float) -> None: ...


@dataclass(slots=True)
class _Run:
    """spent: worker → tokens of prompts and of answers. seen: when it asked last."""

    spent: dict[str, tuple[int, int]] = field(default_factory=dict)
    concurrency: int = 1
    seen: float = 0.0


class Allowance:
    """Of one endpoint. For one event loop at a time. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._flying: dict[str, float] = {}  # Ticket → the moment at which its request is over for certain.
        self._runs: dict[str, _Run] = {}
        self._not_before = 0.0  # The server asked for quiet until this moment.
        self._next_start = 0.0  # The earliest start of the next request, where requests are limited per minute.
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def flying(self) -> int:
        """Requests that are under way."""
        return len(self._flying)

    async def enter(self, terms: Terms, spent: tuple[int, int]) -> Admission:
        """Ask for a request to be let in. spent: tokens of prompts and answers that this worker paid for in this run so far."""
        until = self._clock() + ASK_AGAIN_SECONDS
        while True:
            now = self._clock()
            run = self._known(terms, spent, now)
            if (refusal := _refusal(run, terms)) is not None:
                return Admission(refusal=refusal)
            wait = self._wait(now)
            if terms.per_minute is not None:
                wait = max(wait, self._next_start - now)
            if wait <= 0:
                return Admission(self._let_in(terms, now))
            if now >= until:
                return Admission()
            await self._change(min(wait, until - now))

    def leave(self, ticket: str, quiet: float) -> None:
        """A request is over. quiet: seconds for which the server asked everybody to send nothing, from now on."""
        self._flying.pop(ticket, None)
        self._not_before = max(self._not_before, self._clock() + quiet) if quiet > 0 else self._not_before
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.get_loop().call_soon_threadsafe(_wake, future)

    def _known(self, terms: Terms, spent: tuple[int, int], now: float) -> _Run:
        if terms.run not in self._runs:
            self._runs = {name: run for name, run in self._runs.items() if now - run.seen < FORGET_SECONDS}
        run = self._runs.setdefault(terms.run, _Run())
        before = run.spent.get(terms.worker, (0, 0))
        run.spent[terms.worker] = max(before[0], spent[0]), max(before[1], spent[1])
        run.concurrency, run.seen = terms.concurrency, now
        return run

    def _wait(self, now: float) -> float:
        """Seconds after which it is worth looking again; not above 0: come in."""
        self._flying = {ticket: end for ticket, end in self._flying.items() if end > now}
        if now < self._not_before:
            return self._not_before - now
        # The smallest limit of the runs holds: the person who pays for the endpoint may run others at the same time.
        limit = min(run.concurrency for run in self._runs.values() if now - run.seen < RECENT_SECONDS)
        return min(self._flying.values()) - now if len(self._flying) >= limit else 0.0

    def _let_in(self, terms: Terms, now: float) -> str:
        ticket = uuid4().hex
        self._flying[ticket] = now + terms.seconds
        if terms.per_minute is not None:
            self._next_start = max(now, self._next_start) + 60 / terms.per_minute
        return ticket

    async def _change(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            self._waiting.discard(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refusal(run: _Run, terms: Terms) -> str | None:
    prompt, answer = (sum(tokens[i] for tokens in run.spent.values()) for i in (0, 1))
    if terms.tokens is not None and prompt + answer >= terms.tokens:
        return f"the token ceiling of this run is reached: {prompt + answer} of {terms.tokens}"
    cost = (prompt * terms.prices[0] + answer * terms.prices[1]) / 1e6
    if terms.money is not None and cost >= terms.money:
        return f"the cost ceiling of this run is reached: {cost:.2f} of {terms.money:.2f}"
    return None


class Here:
    """The allowances of one process, by the endpoint's address."""

    def __init__(self) -> None:
        self._of: dict[str, Allowance] = {}

    def __call__(self, address: str) -> Allowing:
        return self._of.setdefault(address, Allowance())
