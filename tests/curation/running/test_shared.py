"""An endpoint on this machine, asked by several processes of a real Ray: its limits are those of all of them together."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatRequest
from longtake.captioning.endpoint import Endpoint
from longtake.captioning.settings import EndpointSettings
from longtake.curation.running.on_ray import Cluster
from longtake.curation.running.shared import NAMESPACE, allowances, name_of
from tests.captioning.server import Ask, Reply, Server, good
from tests.curation.workbench import RunningRay

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.campaign,
]  # Worker processes of Ray take seconds to start.


@pytest.fixture(scope="module")
def cluster(running_ray: RunningRay) -> Iterator[Cluster]:
    joined = Cluster(running_ray.address)
    assert joined.workers == 2
    yield joined
    joined.close()


class Asking:
    """A worker: puts questions to an endpoint, as many at once as it can."""

    def __init__(self, url: str, run: str, settings: dict[str, Any]) -> None:
        self.endpoint = Endpoint(EndpointSettings(endpoint=url, model="tiny", **settings))
        self.endpoint.share(run, allowances())

    def ask(self, count: int) -> tuple[int, str]:
        """The answers, and what stopped it."""

        async def all_of_them() -> tuple[int, str]:
            texts = [f"the caption of part 1. What is seen: Scene clip{i}, a street" for i in range(count)]
            requests = [ChatRequest("", text, (), {"properties": {"caption": {}}}, 1, 0.5, 20) for text in texts]
            ended = await asyncio.gather(*map(self.endpoint.answer, requests), return_exceptions=True)
            await self.endpoint.close()
            faults = [str(one) for one in ended if isinstance(one, CaptionerFault)]
            return sum(isinstance(one, ChatAnswer) for one in ended), faults[0] if faults else ""

        return asyncio.run(all_of_them())


def asked(server: Server, runs: tuple[str, str], count: int, **settings: Any) -> list[tuple[int, str]]:
    """What comes of two workers, each in a process of its own."""
    made: Any = ray.remote(Asking)
    actors = [made.options(num_cpus=0.1).remote(server.url, run, settings) for run in runs]
    try:
        ended: list[tuple[int, str]] = ray.get([actor.ask.remote(count) for actor in actors], timeout=240)
    finally:
        for actor in actors:
            ray.kill(actor)
    return ended


@pytest.mark.parametrize("runs", [("one", "one"), ("one", "two")], ids=["two workers", "two runs"])
def test_no_more_requests_fly_than_the_endpoint_allows(cluster: Cluster, runs: tuple[str, str]) -> None:
    with Server(lambda ask: Reply(good(ask).text, delay=0.05)) as server:
        assert [count for count, _ in asked(server, runs, 20, concurrency=3)] == [20, 20]
        most = max(flying for _, flying in server.flying)
        assert most == 3, "no more, and no fewer: nobody holds a place for nothing"
        keeper = ray.get_actor(name_of(server.url), namespace=NAMESPACE)
        assert ray.get(keeper.flying.remote()) == 0


def test_a_429_that_one_worker_got_is_respected_by_the_other(cluster: Cluster) -> None:
    """The fifth request of all is told to wait for two seconds: in that time nobody comes."""
    times: list[float] = []
    turn = threading.Lock()

    def script(ask: Ask) -> Reply:
        with turn:
            times.append(time.monotonic())
            if len(times) == 5:
                return Reply(status=429, headers={"Retry-After": "2"})
        return Reply(json.dumps({"caption": "so it is"}), delay=0.1)

    with Server(script) as server:
        assert [count for count, _ in asked(server, ("one", "two"), 8, concurrency=2)] == [8, 8]
    refused = times[4]
    # One that was under way already may have come just after it.
    early = [at for at in times[5:] if at < refused + 1.9]
    assert len(early) <= 1
    assert all(at - refused < 0.1 for at in early)


def test_the_ceiling_is_the_runs_and_not_a_workers(cluster: Cluster) -> None:
    """An answer is 110 tokens, so the ceiling lies at ten answers."""
    with Server(lambda ask: Reply(good(ask).text, delay=0.02)) as server:
        ended = asked(server, ("one", "one"), 30, concurrency=2, token_ceiling=1100)
        assert 10 <= sum(count for count, _ in ended) <= 12
        assert all("the token ceiling of this run is reached" in fault for _, fault in ended)


def test_a_keeper_that_died_is_made_anew(cluster: Cluster) -> None:
    with Server() as server:
        assert asked(server, ("one", "one"), 3) == [(3, ""), (3, "")]
        ray.kill(ray.get_actor(name_of(server.url), namespace=NAMESPACE))
        assert asked(server, ("one", "one"), 3) == [(3, ""), (3, "")]
