"""Which moments of a shot become clips, and which frames of a clip become its sample; pure planning and a small buffer.

The end of a shot is not known while it is being read, so a clip's sample times are not either. Kept in the buffer
are the frames nearest to two kinds of moments: those that will be right if nothing cuts the shot short (exact), and a
grid (at most half a step off) for the clip that a cut ends early.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Small = TypeVar("Small")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of video, [start, end) in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length, to the microsecond: (start + 15) - start may fall short of 15 in the last digit, and of a gate."""
        return round(self.end - self.start, 6)


def cut_windows(shot: Span, window: float, minimum: float) -> list[Span]:
    """Windows of `window` seconds from the start of `shot` on; what is left at its end joins the last one. A shot shorter
    than `window` is one window if it has `minimum` seconds, and none otherwise."""
    count = math.floor(shot.seconds / window + 1e-6)
    if count < 1:
        return [shot] if shot.seconds >= minimum - 1e-6 else []
    starts = [shot.start + i * window for i in range(count)]
    return [Span(a, b) for a, b in zip(starts, [*starts[1:], shot.end], strict=True)]


def centres(span: Span, count: int) -> list[float]:
    """The centres of `count` equal segments of `span`, seconds."""
    return [span.start + span.seconds * (2 * i + 1) / (2 * count) for i in range(count)]


def grid_step(window: float, count: int, partner: float) -> float:
    """A step of which `partner` is a multiple, and at least two of which lie in each of `count` segments."""
    return partner / math.ceil(partner / (window / (2 * count)) - 1e-9)


class FrameBuffer(Generic[Frame, Small]):
    """Holds the frames nearest to wanted moments, each made small once, for as long as a clip may need them.

    shrink: what to keep of a frame; called for kept frames only.
    """

    def __init__(self, step: float, shrink: Callable[[Frame], Small]) -> None:
        self._step = step
        self._shrink = shrink
        self._grid = 0  # number of the next grid moment
        self._wanted: list[float] = []  # a heap of exact moments still to come
        self._last: tuple[float, Frame] | None = None
        self._times: list[float] = []
        self._kept: list[Small] = []

    def want(self, times: Sequence[float]) -> None:
        """Exact moments, seconds. Those already passed are left to what was kept."""
        now = self._last[0] if self._last else -math.inf
        for time in times:
            if time > now and math.isfinite(time):
                heapq.heappush(self._wanted, time)

    def forget(self) -> None:
        """Want no exact moment any more that is still to come."""
        self._wanted.clear()

    def push(self, time: float, frame: Frame) -> None:
        """The next frame; times strictly increase."""
        previous = self._last
        while (moment := self._next_moment()) <= time:
            if previous is None or time - moment < moment - previous[0]:
                self._keep(time, frame)
            else:
                self._keep(*previous)
            self._pop_until(moment)
            self._grid = max(self._grid, math.floor(time / self._step) - 1)  # a leap in time costs no more than a step
        self._last = (time, frame)

    def finish(self) -> None:
        """After the last frame: it is nearest to all moments still to come."""
        if self._last:
            self._keep(*self._last)

    def near(self, time: float, span: Span) -> tuple[float, Small] | None:
        """The kept frame within `span` that is nearest to `time`, and its own time."""
        low, high = bisect_left(self._times, span.start), bisect_left(self._times, span.end)
        if low == high:
            return None
        at = min(range(low, high), key=lambda i: abs(self._times[i] - time))
        return self._times[at], self._kept[at]

    def drop_before(self, time: float) -> None:
        """Forget frames before `time`."""
        gone = bisect_left(self._times, time)
        del self._times[:gone], self._kept[:gone]

    def __len__(self) -> int:
        return len(self._times)

    def _next_moment(self) -> float:
        grid = self._grid * self._step
        return min(grid, self._wanted[0]) if self._wanted else grid

    def _pop_until(self, moment: float) -> None:
        while self._wanted and self._wanted[0] <= moment:
            heapq.heappop(self._wanted)
        self._grid = max(self._grid, math.floor(moment / self._step + 1e-9) + 1)

    def _keep(self, time: float, frame: Frame) -> None:
        if not self._times or time > self._times[-1]:
            self._times.append(time)
            self._kept.append(self._shrink(frame))
