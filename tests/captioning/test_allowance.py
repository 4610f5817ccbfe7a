"""What an endpoint may be asked, by a clock that the test sets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from longtake.captioning import allowance
from longtake.captioning.allowance import Admission, Allowance, Terms

ONE = Terms("run", "1", concurrency=2, seconds=100)


class Clock:
    """Seconds, as the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def refused_or_not(keeper: Allowance, terms: Terms, spent: tuple[int, int] = (0, 0)) -> Admission:
    """What is said at once."""
    try:
        return await asyncio.wait_for(keeper.enter(terms, spent), 0.05)
    except TimeoutError:
        return Admission()


async def ticket(keeper: Allowance, terms: Terms) -> str:
    """Of a request that is let in."""
    admission = await refused_or_not(keeper, terms)
    assert admission.ticket is not None
    return admission.ticket


def test_requests_at_once_are_counted_over_workers_and_the_dead_are_forgotten() -> None:
    async def run() -> None:
        clock = Clock()
        keeper = Allowance(clock)
        first = await ticket(keeper, ONE)
        await ticket(keeper, replace(ONE, worker="2"))
        assert await refused_or_not(keeper, ONE) == Admission()
        keeper.leave(first, 0.0)
        await ticket(keeper, ONE)
        clock.now += 101  # The tickets never come back: their workers are dead.
        await ticket(keeper, ONE)
        assert keeper.flying == 1

    asyncio.run(run())


def test_whoever_waits_comes_in_as_soon_as_there_is_room() -> None:
    async def run() -> None:
        keeper = Allowance()
        tickets = [await ticket(keeper, ONE), await ticket(keeper, ONE)]
        waiting = asyncio.create_task(keeper.enter(ONE, (0, 0)))
        await asyncio.sleep(0.02)
        keeper.leave(tickets[0], 0.0)
        assert (await asyncio.wait_for(waiting, 0.5)).ticket is not None

    asyncio.run(run())


def test_the_run_that_wants_least_at_once_decides_while_it_asks() -> None:
    async def run() -> None:
        clock = Clock()
        keeper = Allowance(clock)
        many = Terms("other", "3", concurrency=50, seconds=1000)
        await ticket(keeper, ONE)
        await ticket(keeper, many)
        assert await refused_or_not(keeper, many) == Admission()
        clock.now += allowance.RECENT_SECONDS + 1
        await ticket(keeper, many)

    asyncio.run(run())


def test_a_429_of_one_run_is_respected_by_all() -> None:
    async def run() -> None:
        clock = Clock()
        keeper = Allowance(clock)
        keeper.leave(await ticket(keeper, ONE), quiet=30.0)
        other = replace(ONE, run="other", worker="2")
        assert await refused_or_not(keeper, other) == Admission()
        clock.now += 31
        await ticket(keeper, other)

    asyncio.run(run())


def test_requests_a_minute_are_those_of_all() -> None:
    async def run() -> None:
        clock = Clock()
        keeper = Allowance(clock)
        terms = replace(ONE, concurrency=10, per_minute=6)
        await ticket(keeper, terms)
        assert await refused_or_not(keeper, replace(terms, worker="2")) == Admission()
        clock.now += 10
        await ticket(keeper, replace(terms, worker="2"))

    asyncio.run(run())


def test_ceilings_count_what_all_workers_of_the_run_spent_and_nobody_else() -> None:
    async def run() -> None:
        keeper = Allowance(Clock())
        terms = replace(ONE, tokens=100, money=1.0, prices=(1e6, 0.0), concurrency=99)
        assert (await refused_or_not(keeper, replace(terms, worker="2", money=None), (60, 20))).ticket
        refusal = (await refused_or_not(keeper, terms, (5, 15))).refusal
        assert refusal == "the token ceiling of this run is reached: 100 of 100"
        assert (await refused_or_not(keeper, replace(terms, tokens=None))).refusal is not None
        assert (await refused_or_not(keeper, replace(terms, run="other"))).ticket
        # The worker's own count is believed only upwards: a late message takes nothing back.
        assert (await refused_or_not(keeper, terms, (0, 0))).refusal == refusal

    asyncio.run(run())
