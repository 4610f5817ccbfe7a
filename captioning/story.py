"""A story holds everything about one clip while a method captions it: measurements, answers, and the cost so far."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2

from longtake.captioning.base import ClipFrames, decode
from longtake.captioning.chat import CaptionerFault, ChatAnswer
from longtake.captioning.checks import CaptionError
from longtake.captioning.motion import CameraMotion, motion_between, small_grey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """The texts that a method has written about a clip, not yet checked as a whole. more: further texts, by their column."""

    caption: str
    sub_captions: tuple[str, ...]
    more: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Story:
    """One clip while a method captions it."""

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
        """The seed of a step and a try: different for each of them, and the same in every run."""
        words = f"{base}/{self.clip.clip_id}/{self.clip.tried}/{name}/{attempt}"
        return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=4).digest()) >> 1


def camera_movements(clip: ClipFrames) -> tuple[str, ...]:
    """The camera's movement from each keyframe to its partner, in words."""
    gaps = clip.partner_times - clip.times
    movements = []
    for a, b, gap in zip(clip.encoded_keyframes, clip.encoded_partners, gaps, strict=True):
        grey = [small_grey(decode(data, cv2.IMREAD_GRAYSCALE, "frame")) for data in (a, b)]
        if grey[0].shape != grey[1].shape:
            raise CaptionError(f"a keyframe and its partner differ in size: {grey[0].shape}, {grey[1].shape}")
        try:
            movements.append(camera_words(motion_between(grey[0], grey[1], float(gap))))
        except ValueError as error:
            raise CaptionError(f"the camera's movement cannot be measured: {error}") from error
    return tuple(movements)


def camera_words(motion: CameraMotion) -> str:
    """`static`, `unclear`, or one or two movements and the pace, such as `pan left and tilt up (slow)`."""
    if motion.moves[0] in ("static", "unclear"):
        return motion.moves[0]
    return f"{' and '.join(motion.moves)} ({motion.pace})"


def numbered(texts: Sequence[str]) -> str:
    """The texts as a numbered list, one on a line."""
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. At the first failure the other questions are cancelled, which saves their cost. If the run has
    to stop, no further request is sent, and answers to requests under way are waited for, since they are paid for."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except CaptionerFault:
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()
