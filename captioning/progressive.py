"""Captions by a model that is asked questions: the methods `joint` and `stepwise` (longtake.captioning.joint, .stepwise) over any
backend.

Each clip has one coroutine: its steps follow one another, its answers are in its own variables, and an id in an answer is
never read. Requests may therefore be batched, delayed, repeated or answered out of order: no caption can end up on another
clip.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from longtake.captioning import joint, stepwise
from longtake.captioning.allowance import Allowing
from longtake.captioning.asking import Asker
from longtake.captioning.base import Captioner, Captions, ClipFrames, Spent, check_times, failed
from longtake.captioning.chat import CaptionerFault, ChatBackend, Gathered
from longtake.captioning.checks import Status
from longtake.captioning.permission import Permission
from longtake.captioning.prompting import Prompts, load_prompts
from longtake.captioning.quality import Standards
from longtake.captioning.settings import MethodSettings, Settings
from longtake.captioning.story import Story, Told, camera_movements
from longtake.settings import checked

# Method → its name and version in the protocol, the function that writes the captions of a clip, and the number of its
# questions where every answer can be used.
METHODS: dict[str, tuple[str, Callable[[Asker, Story], Awaitable[Told]], int]] = {
    "joint": (joint.VERSION, joint.tell, joint.QUESTIONS),
    "stepwise": (stepwise.VERSION, stepwise.tell, stepwise.QUESTIONS),
}

# Seconds. When a run stops, requests already sent may take this long to answer: each is paid for, so it is waited for.
SETTLE_SECONDS = 120.0

T = TypeVar("T")


class Progressive(Captioner):
    """The methods over the backend of a subclass, which sets `name` and `settings_type`, and writes `backend`."""

    settings_type: ClassVar[type[Settings]]

    def __init__(self, **settings: Any) -> None:
        known = MethodSettings.model_fields
        self.method = checked(MethodSettings, {k: v for k, v in settings.items() if k in known}, quote=False)
        own = {k: v for k, v in settings.items() if k not in known}
        self.describer = self.backend(checked(self.settings_type, own, quote=False))
        self.refiner = self._refiner(own, self.method.refiner) if self.method.refiner else self.describer
        self.templates: Prompts = load_prompts(self.method.prompts, self.method.method)
        self.standards = Standards(
            self.method.band, self.method.caption_words, self.method.language, self.method.speculations
        )
        self._flow: Flow | None = None
        self._lock = threading.Lock()
        self._small = concurrent.futures.ThreadPoolExecutor(2, "motion")

    @classmethod
    @abstractmethod
    def backend(cls, settings: Any) -> ChatBackend:
        """The backend for settings of `settings_type`. Does nothing that takes time."""

    def _refiner(self, own: Mapping[str, Any], changes: Mapping[str, Any]) -> ChatBackend:
        from longtake.captioning.registry import captioner_class

        changes = dict(changes)
        name = changes.pop("captioner", self.name)
        cls = type(self) if name == self.name else captioner_class(name)
        if not issubclass(cls, Progressive):
            raise ValueError(f"refiner: the captioner {name!r} does not answer questions")
        merged = {**(own if cls is type(self) else {}), **changes}
        try:
            return cls.backend(checked(cls.settings_type, merged, quote=False))
        except ValueError as error:
            raise ValueError(f"refiner: {error}") from error

    @property
    def backends(self) -> list[ChatBackend]:
        """The describer, and the refiner if it is another one."""
        return list(dict.fromkeys([self.describer, self.refiner]))

    @property
    def model(self) -> str:
        return " + ".join(dict.fromkeys(backend.model for backend in self.backends))

    @property
    def protocol(self) -> str:
        asked = self.method.protocol()
        settings = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        models = " + ".join(backend.identity for backend in self.backends)
        return f"{METHODS[self.method.method][0]}/{models}/{self.templates.version}/{settings}"

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.templates.templates.values())

    @property
    def prompt_version(self) -> str:
        return self.templates.version

    @property
    def seed(self) -> int:
        return self.method.seed

    @property
    def least_requests(self) -> int:
        return METHODS[self.method.method][2]

    @property
    def spent(self) -> Spent:
        meters = [backend.meter for backend in self.backends]
        return Spent(
            sum(meter.flight_seconds for meter in meters) / sum(backend.concurrency for backend in self.backends),
            sum(meter.requests for meter in meters),
            sum(meter.prompt_tokens for meter in meters),
            sum(meter.completion_tokens for meter in meters),
        )

    def check(self) -> None:
        for backend in self.backends:
            backend.check()

    def examine(self) -> list[str]:
        return [line for backend in self.backends for line in backend.examine()]

    def permit(self, permission: Permission) -> None:
        for backend in self.backends:
            backend.permit(permission)

    def share(self, run: str, allowances: Callable[[str], Allowing]) -> None:
        for backend in self.backends:
            backend.share(run, allowances)

    def close(self) -> None:
        self.stop(CaptionerFault("captioning was stopped"))
        with self._lock:
            flow, self._flow = self._flow, None
        if flow is not None:
            flow.settle(SETTLE_SECONDS)
            flow.close([backend.close() for backend in self.backends])

    def stop(self, fault: CaptionerFault) -> None:
        """Send no further question."""
        for backend in self.backends:
            backend.fault = backend.fault or fault

    @property
    def flow(self) -> Flow:
        """The event loop that sends the questions to its models."""
        with self._lock:
            self._flow = self._flow or Flow()
            return self._flow

    def settle(self, flow: Flow) -> None:
        """Send no further question, and wait for the answers to requests that were sent. flow: the loop that runs them. It
        is an argument, since after `close` this captioner would begin another loop, and the wait would be for that one."""
        self.stop(CaptionerFault("captioning was stopped"))
        flow.settle(SETTLE_SECONDS)

    # ── clips ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, batch: Sequence[ClipFrames]) -> Iterable[Captions]:
        """The results, each as soon as its clip is done. It may be called from several threads at once, whose clips then
        run side by side."""
        flow = self.flow
        futures = [flow.submit(self._clip(clip)) for clip in batch]
        try:
            for future in concurrent.futures.as_completed(futures):
                try:
                    yield future.result()
                except concurrent.futures.CancelledError:  # `close` cancelled the clip, which is no result of it.
                    raise CaptionerFault("captioning was stopped") from None
        except (CaptionerFault, KeyboardInterrupt):
            self.settle(flow)
            raise
        finally:
            for future in futures:
                future.cancel()

    async def _clip(self, clip: ClipFrames) -> Captions:
        story = Story(clip)
        try:
            told = await self._tell(story)
            result = Captions(
                clip.clip_id, Status.OK, caption=told.caption, sub_captions=told.sub_captions, more=told.more
            )
        except CaptionerFault:
            raise
        except Exception as error:
            result = failed(clip.clip_id, error)
        return replace(
            result,
            attempts=story.attempts,
            requests=story.requests,
            prompt_tokens=story.prompt_tokens,
            completion_tokens=story.completion_tokens,
            moves=story.moves,
        )

    async def _tell(self, story: Story) -> Told:
        check_times(story.clip)
        loop = asyncio.get_running_loop()
        if self.journal is not None:
            story.answers = await loop.run_in_executor(None, self.journal.read, story.clip.clip_id)
        story.moves = await loop.run_in_executor(self._small, camera_movements, story.clip)
        _, tell, _ = METHODS[self.method.method]
        return await tell(self._asker, story)

    @cached_property
    def _asker(self) -> Asker:
        return Asker(
            self.method,
            self.templates,
            self.standards,
            self.describer,
            self.refiner,
            self.stop,
            self.journal,
            # Batches of several clips are twice as fast as single clips.
            None if self.similarity is None else Gathered(self.similarity, most=32, wait=0.05),
            self.similarity_limit,
        )


class Flow:
    """An event loop in a thread of its own, which runs the coroutines of all clips of a captioner."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._settling, self._until = threading.Lock(), 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, name="captions", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine in the loop; its result can be waited for in any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def settle(self, seconds: float) -> None:
        """Wait until all coroutines have ended, but not longer than the given time. A second call waits for the rest of
        that time only."""

        async def settled(seconds: float) -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=seconds)

        with self._settling:  # Two threads that close at once would wait for each other.
            if self._closed:
                return
            self._until = self._until or time.monotonic() + seconds
            left = max(0.0, self._until - time.monotonic())
            with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                self.submit(settled(left)).result(timeout=left + 5)

    def close(self, last: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Cancel all coroutines, run `last`, and end the loop."""
        with self._settling:
            self._closed = True

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for coroutine in last:
                await coroutine

        with suppress(concurrent.futures.TimeoutError):
            self.submit(end()).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
