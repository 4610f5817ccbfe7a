"""What the workers of all runs on a cluster share: how much each endpoint may be asked. One small actor for an endpoint, found by
its name by whoever is on the cluster, so that pools may grow and shrink, and two runs go side by side.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any

from longtake import __version__
from longtake.captioning.allowance import Admission, Allowance, Allowing, Here, Terms
from longtake.captioning.chat import CaptionerFault

NAMESPACE = "longtake"
_AT_ONCE = 100_000  # Calls that the actor takes at once: each of them waits for its turn.
_IDLE_SECONDS = 900.0  # Seconds without a call after which the actor ends, since no run asks that endpoint any more.
_TRIES = 60  # Tries to reach the actor or to make it anew, a second or so apart.
# The actor takes next to nothing. It lives on the head of the cluster, whose loss no run survives.
_ON_THE_HEAD = {"node:__internal_head__": 0.0001}
_HERE = Here()  # Without Ray, the allowance belongs to this process, whose stages follow one another.


def allowances() -> Callable[[str], Allowing]:
    """From an endpoint's address to what it may be asked: for the whole cluster on Ray, for this process elsewhere."""
    ray = sys.modules.get("ray")
    return Elsewhere if ray is not None and ray.is_initialized() else _HERE


def name_of(address: str) -> str:
    """Of the actor for an endpoint; with the version, so that no run speaks to another's code."""
    return f"endpoint {__version__} {hashlib.sha256(address.encode()).hexdigest()[:16]}"


class Elsewhere:
    """An allowance that stands in the cluster's actor."""

    def __init__(self, address: str) -> None:
        self._name = name_of(address)
        self._actor: Any = None

    async def enter(self, terms: Terms, spent: tuple[int, int]) -> Admission:
        """Raises CaptionerFault if the actor is not to be had: without it, nobody knows what may be sent."""
        from ray.exceptions import RayError

        fault: BaseException | None = None
        for _ in range(_TRIES):
            try:
                admission: Admission = await self._reached().enter.remote(terms, spent)
                return admission
            except (RayError, ValueError) as error:  # ValueError: another run is taking the name at this moment.
                fault, self._actor = error, None
                await asyncio.sleep(1.0)
        raise CaptionerFault(f"an actor of Ray counts the requests to the endpoint, and cannot be reached: {fault}")

    def leave(self, ticket: str, quiet: float) -> None:
        """Does not wait for it. What is lost with the actor is over by its time."""
        if self._actor is not None:
            self._actor.leave.remote(ticket, quiet)

    def _reached(self) -> Any:
        if self._actor is None:
            import ray

            made: Any = ray.remote(_Keeper)
            self._actor = made.options(
                name=self._name,
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached",
                num_cpus=0,
                resources=_ON_THE_HEAD,
                max_concurrency=_AT_ONCE,
            ).remote()
        return self._actor


class _Keeper:
    """The actor: an allowance, until nobody has asked for long."""

    def __init__(self) -> None:
        self._allowance = Allowance()
        self._asked = time.monotonic()
        self._ends: asyncio.Task[None] | None = None

    async def enter(self, terms: Terms, spent: tuple[int, int]) -> Admission:
        self._asked = time.monotonic()
        self._ends = self._ends or asyncio.create_task(self._end())
        return await self._allowance.enter(terms, spent)

    async def leave(self, ticket: str, quiet: float) -> None:
        self._allowance.leave(ticket, quiet)

    async def flying(self) -> int:
        """Requests that are under way."""
        return self._allowance.flying

    async def _end(self) -> None:
        import os

        while time.monotonic() - self._asked < _IDLE_SECONDS:
            await asyncio.sleep(_IDLE_SECONDS / 10)
        os._exit(0)
