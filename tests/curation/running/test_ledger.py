"""The ledger: who is blamed for a worker's death, and what is counted."""

from __future__ import annotations

import asyncio

from longtake.curation.running.jobs import Report
from longtake.curation.running.ledger import Ledger, Orders, Place

A1, A2, A3, B1 = (
    Place("1", "a", "host-a"),
    Place("2", "a", "host-a"),
    Place("3", "a", "host-a"),
    Place("4", "b", "host-b"),
)


async def begun(nodes: int, *places: Place) -> tuple[Ledger, list[Orders]]:
    ledger = Ledger()
    await ledger.news(nodes)
    return ledger, [await ledger.begin("batch", place) for place in places]


def test_a_batch_is_blamed_after_two_deaths_on_two_nodes_where_there_are_two() -> None:
    _, orders = asyncio.run(begun(1, A1, A2, A3))
    assert [one.alone for one in orders] == [False, False, True]
    _, orders = asyncio.run(begun(2, A1, A2, A3, B1, A1, B1))
    # Three deaths on one node blame the node; the fourth is enough, on any node.
    assert [one.alone for one in orders] == [False, False, False, False, True, True]
    _, orders = asyncio.run(begun(2, A1, B1, A2))
    assert orders[-1] == Orders(alone=True, killed=("host-a", "host-b"))


def test_the_same_worker_again_is_no_death() -> None:
    _, orders = asyncio.run(begun(1, A1, A1, A1))
    assert orders[-1] == Orders()


def test_what_is_done_twice_counts_once() -> None:
    async def run() -> list[Report]:
        ledger, _ = await begun(1, A1, A2)
        await ledger.end("batch", Report(rows=3, stage="scan"))
        await ledger.begin("batch", A2)
        await ledger.end("batch", Report(rows=3, stage="scan"))
        return (await ledger.news(1)).reports

    total = Report()
    for report in asyncio.run(run()):
        total += report
    assert (total.rows, total.repeated) == (3, 6)


def test_a_stopped_run_begins_nothing_and_hears_of_who_closes() -> None:
    async def run() -> None:
        ledger, _ = await begun(1, A1)
        await ledger.fail("scan", "no disk")
        await ledger.fail("score", "later")
        await ledger.stopped("1")
        assert (await ledger.begin("other", A2)).stop
        news = await ledger.news(1)
        assert (news.failure, news.closing, news.open) == ("scan: no disk", 1, 1)
        await ledger.closed("1")
        assert (await ledger.news(1)).closing == 0

    asyncio.run(run())


def test_workers_that_die_while_they_start_end_the_run() -> None:
    async def run() -> str | None:
        ledger = Ledger()
        for _ in range(6):
            await ledger.starts("score")
        return (await ledger.news(1)).failure

    assert asyncio.run(run()) == "score: its workers died 5 times over while they started"


def test_whoever_leaves_with_its_node_is_no_death() -> None:
    async def run() -> tuple[bool, Orders, Orders]:
        ledger, _ = await begun(2, A1)
        waiting = asyncio.create_task(ledger.leaves("a"))
        await ledger.news(2, ["b"])
        await asyncio.sleep(0)
        early = waiting.done()
        await ledger.news(2, ["a", "b"])
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(ledger.leaves("b"), 5)
        await ledger.left(A1)
        return early, await ledger.begin("batch", B1), await ledger.begin("batch", A2)

    early, first, second = asyncio.run(run())
    assert not early
    assert first == Orders()
    assert second.killed == ("host-b",), "who was not told to leave is"
