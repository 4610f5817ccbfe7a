"""The progressive method (design, section 8), over any backend: a caption per keyframe, one of the whole clip, then a causal
refinement. Sub-caption i is written seeing the overall caption and sub-captions 1 to i−1, so that the five tell one story.
Where two neighbours come out more alike than the strictest gate allows, the rest of the story is told once more, asked for
more difference; the gate decides what becomes of it. After Presto (arXiv 2412.01316, section 3).

One coroutine per clip: its steps follow one another, its answers are in its own variables, and no id that a model returns
is looked at. So however requests are batched, delayed, repeated or answered out of order, no caption can move.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import cv2

from longtake.captioning.allowance import Allowing
from longtake.captioning.answers import SCHEMA, read_caption
from longtake.captioning.base import Captioner, Captions, ClipFrames, Spent, check_times, decode, failed
from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatBackend, ChatFailed, ChatRequest, Gathered
from longtake.captioning.checks import MAX_CAPTION, MAX_SUB_CAPTION, SUB_CAPTIONS, CaptionError, Status, normalised
from longtake.captioning.motion import CameraMotion, motion_between, small_grey
from longtake.captioning.permission import Permission
from longtake.captioning.prompting import Prompts, load_prompts
from longtake.captioning.quality import Standards, echoes, style_faults
from longtake.captioning.settings import MethodSettings, Settings
from longtake.settings import checked

METHOD = 1  # raise it when the steps or what they are shown change
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "es": "Spanish", "fr": "French", "ja": "Japanese"}

SETTLE_SECONDS = 120.0  # that answers in the air are waited for when the run has to stop: they are paid for

T = TypeVar("T")


class Progressive(Captioner):
    """The method over the backend of a subclass, which sets `name` and `settings_type`, and writes `backend`."""

    settings_type: ClassVar[type[Settings]]

    def __init__(self, **settings: Any) -> None:
        known = MethodSettings.model_fields
        self.method = checked(MethodSettings, {k: v for k, v in settings.items() if k in known}, quote=False)
        own = {k: v for k, v in settings.items() if k not in known}
        self.describer = self.backend(checked(self.settings_type, own, quote=False))
        self.refiner = self._refiner(own, self.method.refiner) if self.method.refiner else self.describer
        self.templates: Prompts = load_prompts(self.method.prompts)
        self.standards = Standards(
            self.method.words, self.method.caption_words, self.method.language, self.method.speculations
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
        asked = self.method.model_dump(exclude={"prompts", "refiner", "tries"})
        settings = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        models = " + ".join(backend.identity for backend in self.backends)
        return f"progressive/{METHOD}/{models}/{self.templates.version}/{settings}"

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
        self._stop(CaptionerFault("captioning was stopped"))
        with self._lock:
            flow, self._flow = self._flow, None
        if flow is not None:
            flow.settle(SETTLE_SECONDS)
            flow.close([backend.close() for backend in self.backends])

    def _stop(self, fault: CaptionerFault) -> None:
        """From now on nothing is asked."""
        for backend in self.backends:
            backend.fault = backend.fault or fault

    # ── clips ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, batch: Sequence[ClipFrames]) -> Iterable[Captions]:
        """Results as clips end. May be called from several threads at once: their clips flow side by side."""
        with self._lock:
            flow = self._flow = self._flow or Flow()
        futures = [flow.submit(self._clip(clip)) for clip in batch]
        try:
            for future in concurrent.futures.as_completed(futures):
                try:
                    yield future.result()
                except concurrent.futures.CancelledError:  # by `close`: that is no result of the clip
                    raise CaptionerFault("captioning was stopped") from None
        except (CaptionerFault, KeyboardInterrupt):
            self._stop(CaptionerFault("captioning was stopped"))
            flow.settle(SETTLE_SECONDS)
            raise
        finally:
            for future in futures:
                future.cancel()

    async def _clip(self, clip: ClipFrames) -> Captions:
        story = Story(clip)
        try:
            caption, subs = await self._tell(story)
            result = Captions(clip.clip_id, Status.OK, caption=caption, sub_captions=subs)
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

    async def _tell(self, story: Story) -> tuple[str, tuple[str, ...]]:
        clip = story.clip
        check_times(clip)
        loop = asyncio.get_running_loop()
        if self.journal is not None:
            story.answers = await loop.run_in_executor(None, self.journal.read, clip.clip_id)
        story.moves = await loop.run_in_executor(self._small, camera_movements, clip)
        keyframes = await together(self._describe(story, i) for i in range(SUB_CAPTIONS))
        overall = await self._overall(story, keyframes)
        subs = await self._refine(story, overall, keyframes, [])
        if again := await self._too_much_alike(subs):
            first, before = again
            other = await self._refine(story, overall, keyframes, subs[:first], rejected=subs)
            after = await self._too_much_alike(other)
            if after is None or after[1] < before:
                subs = other
        return overall, tuple(subs)

    async def _describe(self, story: Story, i: int) -> str:
        low, high = self.method.words
        prompt = self.templates.fill(
            "describe", number=i + 1, seconds=story.seconds, camera=story.hint(i), low=low, high=high
        )
        image = story.clip.encoded_keyframes[i]
        return await self._ask(
            story, self.describer, f"keyframe {i + 1}", prompt, (image,), self.method.words, MAX_SUB_CAPTION
        )

    async def _overall(self, story: Story, keyframes: Sequence[str]) -> str:
        low, high = self.method.caption_words
        prompt = self.templates.fill(
            "overall",
            seconds=story.seconds,
            camera="; ".join(f"{i + 1}. {story.hint(i)}" for i in range(SUB_CAPTIONS)),
            keyframes=numbered(keyframes),
            low=low,
            high=high,
        )
        images = tuple(story.clip.encoded_keyframes)
        band = self.method.caption_words
        return await self._ask(story, self.describer, "the overall caption", prompt, images, band, MAX_CAPTION)

    async def _refine(
        self,
        story: Story,
        overall: str,
        keyframes: Sequence[str],
        told: Sequence[str],
        rejected: Sequence[str] | None = None,
    ) -> list[str]:
        """All five sub-captions, of which the first are `told`. rejected: how the story was told before."""
        subs = list(told)
        low, high = self.method.words
        for i in range(len(told), SUB_CAPTIONS):
            prompt = self.templates.fill(
                "refine",
                number=i + 1,
                seconds=story.seconds,
                camera=story.hint(i),
                overall=overall,
                earlier=numbered(subs) or "(none yet)",
                keyframe=keyframes[i],
                low=low,
                high=high,
            )
            name = f"sub-caption {i + 1}"
            if rejected is not None:
                prompt += "\n\n" + self.templates.fill("differ", rejected=rejected[i])
                name += ", told anew"
            subs.append(await self._ask(story, self.refiner, name, prompt, (), self.method.words, MAX_SUB_CAPTION))
        return subs

    async def _too_much_alike(self, subs: Sequence[str]) -> tuple[int, float] | None:
        """The first sub-caption that is too much like an earlier one, and the greatest likeness of neighbours."""
        texts = [normalised(text) for text in subs]
        same = [i for i in range(1, len(texts)) if texts[i] in texts[:i]]
        alike: Sequence[float] = []
        if self._similarities is not None and self.similarity_limit is not None:
            alike = await self._similarities(tuple(subs))
        over = [i + 1 for i, value in enumerate(alike) if value > (self.similarity_limit or 0.0)]
        if not same and not over:
            return None
        return min([*same, *over]), 2.0 if same else max(alike)

    @cached_property
    def _similarities(self) -> Gathered[tuple[str, ...], Sequence[float]] | None:
        # batches of some clips are twice as fast as single ones
        return None if self.similarity is None else Gathered(self.similarity, most=32, wait=0.05)

    # ── one step ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(
        self,
        story: Story,
        backend: ChatBackend,
        name: str,
        prompt: str,
        images: tuple[bytes, ...],
        band: tuple[int, int],
        max_chars: int,
    ) -> str:
        """The caption of one step. Asks again for what cannot be used, with what was wrong; and once for what could be
        better. Raises CaptionError."""
        usable: str | None = None
        problem = CaptionError(f"{name}: nothing was asked")
        mend = ""
        for attempt in range(self.method.tries):
            request = ChatRequest(
                system=self.templates.fill(
                    "system", language=LANGUAGES.get(self.method.language, self.method.language)
                ),
                text=prompt + mend,
                images=images,
                schema=SCHEMA,
                seed=story.seed(self.method.seed, name, attempt),
                temperature=self.method.temperature,
                max_tokens=self.method.max_tokens,
            )
            story.attempts = max(story.attempts, attempt + 1)
            try:
                answer = await self._answered(story, backend, request)
            except ChatFailed as error:
                story.attempts = max(story.attempts, attempt + error.attempts)
                raise CaptionError(f"{name}: {error}", fault=error.fault) from error
            try:
                text = read_caption(answer, name, max_chars)
                if echoes(text, self.prompts):
                    raise CaptionError(f"{name}: it echoes the prompt: {text[:80]!r}")
            except CaptionError as error:
                problem = error
                mend = "\n\n" + self.templates.fill("mend", faults=_for_the_model(error))
                continue
            faults = style_faults(text, self.standards, band)
            if not faults or usable is not None:
                return text
            usable = text
            mend = "\n\n" + self.templates.fill("mend", faults="; ".join(faults))
        if usable is not None:
            return usable
        raise problem

    async def _answered(self, story: Story, backend: ChatBackend, request: ChatRequest) -> ChatAnswer:
        """The answer to a request: from the journal, or paid for and noted there."""
        key = request.digest(backend.identity)
        answer = story.answers.get(key)
        if answer is None:
            if backend.fault is not None:
                raise backend.fault
            try:
                answer = await backend.answer(request)
            except CaptionerFault as fault:
                self._stop(fault)
                raise
            if self.journal is not None:
                try:
                    await asyncio.get_running_loop().run_in_executor(
                        None, self.journal.add, story.clip.clip_id, key, answer
                    )
                except OSError as error:
                    raise CaptionerFault(f"the answers that are paid for cannot be kept: {error}") from error
            story.answers[key] = answer
        story.requests += 1
        story.prompt_tokens += answer.prompt_tokens
        story.completion_tokens += answer.completion_tokens
        story.attempts = max(story.attempts, answer.attempts)
        return answer


@dataclass(eq=False)
class Story:
    """One clip on its way."""

    clip: ClipFrames
    answers: dict[str, ChatAnswer] = field(default_factory=dict)
    moves: tuple[str, ...] | None = None
    attempts: int = 1
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def seconds(self) -> str:
        return f"{self.clip.seconds:.0f}"

    def hint(self, i: int) -> str:
        """The camera's movement in part `i`, for the model."""
        move = self.moves[i] if self.moves else "unclear"
        return "not measurable" if move == "unclear" else move

    def seed(self, base: int, name: str, attempt: int) -> int:
        """For each step and try another one, and always the same."""
        words = f"{base}/{self.clip.clip_id}/{self.clip.tried}/{name}/{attempt}"
        return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=4).digest()) >> 1


def camera_movements(clip: ClipFrames) -> tuple[str, ...]:
    """The camera's movement from each keyframe to its partner, in words."""
    gaps = clip.partner_times - clip.times
    found = []
    for a, b, gap in zip(clip.encoded_keyframes, clip.encoded_partners, gaps, strict=True):
        grey = [small_grey(decode(data, cv2.IMREAD_GRAYSCALE, "frame")) for data in (a, b)]
        if grey[0].shape != grey[1].shape:
            raise CaptionError(f"a keyframe and its partner differ in size: {grey[0].shape}, {grey[1].shape}")
        try:
            found.append(camera_words(motion_between(grey[0], grey[1], float(gap))))
        except ValueError as error:
            raise CaptionError(f"the camera's movement cannot be measured: {error}") from error
    return tuple(found)


def camera_words(motion: CameraMotion) -> str:
    """`static`, `unclear`, or one or two movements and the pace, such as `pan left and tilt up (slow)`."""
    if motion.moves[0] in ("static", "unclear"):
        return motion.moves[0]
    return f"{' and '.join(motion.moves)} ({motion.pace})"


def numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))


def _for_the_model(error: CaptionError) -> str:
    # never the answer itself: what it holds is not to come back as an instruction
    if error.status == Status.REFUSED:
        return "it did not describe what is given"
    if error.status == Status.TRUNCATED:
        return "it was too long and was cut off"
    return 'it was not one JSON object with the single key "caption" and a caption in it'


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; at the first failure the others are cancelled: what they would cost is saved. If the run has
    to stop, those in the air come home first: they are paid for, and no others are asked."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except CaptionerFault:
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()


class Flow:
    """An event loop in a thread of its own, in which all clips of a captioner flow."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._settling, self._until = threading.Lock(), 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, name="captions", daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Its result, for any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def settle(self, seconds: float) -> None:
        """Wait until all that flows has ended, but not longer. Whoever comes next waits for what is left of that time."""

        async def settled(seconds: float) -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=seconds)

        with self._settling:  # two at once would wait for each other
            if self._closed:
                return
            self._until = self._until or time.monotonic() + seconds
            left = max(0.0, self._until - time.monotonic())
            with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                self.submit(settled(left)).result(timeout=left + 5)

    def close(self, last: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Cancel all that flows, run `last`, and end."""
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
