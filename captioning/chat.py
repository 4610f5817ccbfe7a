"""What a backend is asked, and what it answers: one chat request with pictures, one text. The method (progressive) stands
on this alone, so a backend knows nothing of clips, and every backend writes captions in the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from longtake.captioning.allowance import Allowing
from longtake.captioning.checks import CaptionError
from longtake.captioning.permission import Permission

Item = TypeVar("Item")
Result = TypeVar("Result")


class CaptionerFault(Exception):
    """The captioner cannot go on with any clip: a wrong key, an unknown model, a ceiling that is reached. Stops the run,
    not the row; the message says what to change."""


class Finish(StrEnum):
    """How an answer ended."""

    STOP = "stop"
    LENGTH = "length"  # The answer was cut off at `max_tokens`.
    REFUSED = "refused"  # The server itself reports that it refused.


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. It holds no clip id: a model that is told one can only get it wrong.

    images: JPEG or PNG, shown before `text`, in order. schema: JSON Schema of the answer; a backend that can holds the
    model to it, and whoever asks checks the answer either way. seed: ≥ 0.
    """

    system: str
    text: str
    images: tuple[bytes, ...]
    schema: Mapping[str, Any]
    seed: int
    temperature: float
    max_tokens: int

    def digest(self, identity: str) -> str:
        """The same for the same question to the same model: under it an answer is kept."""
        words = (identity, self.system, self.text, self.schema, self.seed, self.temperature, self.max_tokens)
        digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
        for image in self.images:
            digest.update(hashlib.sha256(image).digest())
        return digest.hexdigest()[:32]


def media_type(image: bytes) -> str:
    """Of a picture as it is stored."""
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came back. tokens: as the backend counts them, 0 where it does not say. attempts: how often it was asked until
    it answered."""

    text: str
    finish: Finish
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 1


class ChatFailed(CaptionError):
    """A request got no answer; attempts: how often it was sent. fault: see `CaptionError`."""

    def __init__(self, reason: str, attempts: int, fault: str | None = None) -> None:
        super().__init__(reason, fault=fault)
        self.attempts = attempts


class ChatBackend(ABC):
    """A model that answers chat requests, as many at once as are asked.

    identity: what names the model in the protocol. concurrency: how many requests it can take at once. meter: what it
    had in hand. fault: once it is set, nothing is sent any more. `answer` and `close` run on one event loop, and always
    the same.
    """

    identity: str
    model: str
    concurrency: int

    def __init__(self) -> None:
        self.meter = Meter()
        self.fault: CaptionerFault | None = None

    def check(self) -> None:  # noqa: B027
        """Raises CaptionerFault if it cannot work here: not configured, no such model, nobody there."""

    def examine(self) -> list[str]:
        """As `check`, for whoever only looks: no secret leaves this machine. Says what a run would send where."""
        self.check()
        return []

    def permit(self, permission: Permission) -> None:  # noqa: B027
        """Where it may send pictures and a key. Without it, what this user's own configuration says counts."""

    def share(self, run: str, allowances: Callable[[str], Allowing]) -> None:  # noqa: B027
        """Which run it works for, and what an endpoint may be asked by all that work side by side."""

    @abstractmethod
    async def answer(self, request: ChatRequest) -> ChatAnswer:
        """Raises ChatFailed if this request gets no answer, CaptionerFault if none will."""

    async def close(self) -> None:  # noqa: B027
        """Let go of connections and models."""


class Meter:
    """How much a backend had in hand over time. Any thread may read it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying = 0
        self._since = time.monotonic()
        self._flight_seconds = 0.0
        self.requests = self.prompt_tokens = self.completion_tokens = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._flight_seconds += self._flying * (now - self._since)
            self._since, self._flying = now, self._flying + by

    def paid(self, answer: ChatAnswer) -> None:
        """Count an answer."""
        with self._lock:
            self.requests += 1
            self.prompt_tokens += answer.prompt_tokens
            self.completion_tokens += answer.completion_tokens

    @property
    def flight_seconds(self) -> float:
        """The time in flight of all requests, added up."""
        self._change(0)
        return self._flight_seconds


class Gathered(Generic[Item, Result]):
    """A plain function over lists, for coroutines that each have one item: what they bring while it runs, or within
    `wait` seconds, goes to it together, at most `most` at once, in a thread of its own.

    function: gives one result per item, in order; an exception among the results is raised for that item alone, one that
    it raises for all of them.
    """

    def __init__(self, function: Callable[[list[Item]], Sequence[Result | Exception]], most: int, wait: float) -> None:
        self._function, self._most, self._wait = function, most, wait
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._thread = ThreadPoolExecutor(1)
        self._pump: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._wait)
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            call = asyncio.get_running_loop().run_in_executor(self._thread, self._function, [item for item, _ in batch])
            try:
                results: Sequence[Result | Exception] = await call
            except Exception as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # The question was cancelled while its answer was on the way.
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class Batched(ChatBackend):
    """A model that answers lists of requests. What all clips ask within `wait` seconds goes together, at most `most`."""

    concurrency = 1

    def __init__(self, most: int, wait: float) -> None:
        super().__init__()
        self._gathered = Gathered(self._paid, most, wait)

    @abstractmethod
    def answers(self, requests: list[ChatRequest]) -> Sequence[ChatAnswer | Exception]:
        """An answer for each, in order, or why it has none."""

    async def answer(self, request: ChatRequest) -> ChatAnswer:
        return await self._gathered(request)

    async def close(self) -> None:
        self._gathered.close()

    def _paid(self, requests: list[ChatRequest]) -> Sequence[ChatAnswer | Exception]:
        if self.fault is not None:
            raise self.fault
        results = self.answers(requests)
        for result in results:
            if isinstance(result, ChatAnswer):
                self.meter.paid(result)
        return results
