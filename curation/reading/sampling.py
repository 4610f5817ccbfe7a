"""Which moments of a shot become clips, and which frames of a clip become its sample; pure planning and a small buffer.

The start of a shot is known late, and its end is not known while it is being read; so a clip's sample times are not either.
Kept in the buffer are the frames nearest to two kinds of moments: those that will be right if nothing else comes to light
(exact), and, where these lie far apart, a grid for all other clips.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from longtake.curation.recipe import Longer
from longtake.filters.flow_dis import LEAST_PAIRS

Frame = TypeVar("Frame")
Small = TypeVar("Small")

# Seconds. At most 16 pictures a second are looked at for cuts, and for what does not change: the reference frames of H.264 mostly
# come at this rate.
LOOK_SECONDS = 1 / 16
# Seconds before the end of a clip. The second picture of a pair is planned no later: decoded frames lie up to 0.1 s apart, and a
# frame behind the end does not belong to the clip.
_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of video, [start, end) in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length, to the microsecond: (start + 15) - start may fall short of 15 in the last digit, and of a gate."""
        return round(self.end - self.start, 6)


def cut_windows(shot: Span, window: float, minimum: float, longer: Longer = "windows") -> list[Span]:
    """The clips of a shot. One that is shorter than `window` seconds is one clip if it has `minimum` seconds, and none otherwise.
    Of a longer one (`Splitting.longer`), `windows`: windows of exactly `window` seconds from its start on; `trim`: the first of
    them; `faster`: all of them, the last with what is left at the end of the shot."""
    count = math.floor(shot.seconds / window + 1e-6)
    if count < 1:
        return [shot] if shot.seconds >= minimum - 1e-6 else []
    edges = [shot.start + i * window for i in range((1 if longer == "trim" else count) + 1)]
    if longer == "faster" or edges[-1] > shot.end:
        # The last edge may lie beyond the end of the shot by less than floats can tell.
        edges[-1] = shot.end
    return [Span(a, b) for a, b in pairwise(edges)]


def centres(span: Span, count: int) -> list[float]:
    """The centres of `count` equal segments of `span`, seconds."""
    return [span.start + span.seconds * (2 * i + 1) / (2 * count) for i in range(count)]


def pair_count(keyframes: int) -> int:
    """How many pairs of pictures the motion of a clip is measured on: at least LEAST_PAIRS, and such a multiple of the keyframes
    that these, with their partners, are among the pairs."""
    each = math.ceil(LEAST_PAIRS / keyframes)
    # An odd number of pairs in each segment has one at the segment's centre.
    return keyframes * (each + (each + 1) % 2)


def pair_starts(span: Span, count: int, gap: float) -> list[float]:
    """When the first pictures of `count` pairs are taken, seconds: at the centres of equal segments of `span`, but early enough
    that one `gap` seconds later lies inside of it, too."""
    last = span.end - gap - _MARGIN
    if span.seconds >= count * gap:
        return [min(centre, last) for centre in centres(span, count)]
    return centres(Span(span.start, max(last, span.start)), count)


def grid_step(window: float, count: int, partner: float) -> float:
    """A step of which `partner` is a multiple, and at least two of which lie in each of `count` segments."""
    return partner / math.ceil(partner / (window / (2 * count)) - 1e-9)


# Steps of the grid. A frame is kept for the grid only when none was kept for a step and a fourth: where all clips have one
# length, exact moments already lie a step apart, and a grid beside them would hold twice the frames.
LOOSE = 1.25


class FrameBuffer(Generic[Frame, Small]):
    """Holds the frames nearest to wanted moments, each made small once, for as long as a clip may need them.

    step: seconds after which a frame is kept if none was wanted meanwhile. shrink: what to keep of a frame, which it gets after
    its time in seconds; called for kept frames only, in their order.
    """

    def __init__(self, step: float, shrink: Callable[[float, Frame], Small]) -> None:
        self._step = step
        self._shrink = shrink
        # The exact moments still to come, each with its gap or 0, are a heap.
        self._wanted: list[tuple[float, float]] = []
        self._last: tuple[float, Frame] | None = None
        self._times: list[float] = []
        self._kept: list[Small] = []
        self._newest = -math.inf  # The time of the frame that was kept last, in seconds.

    def want(self, times: Sequence[float], gap: float = 0.0) -> None:
        """Exact moments, seconds. Those already passed are left to what was kept. gap: seconds; not 0: the frame so much later
        than each frame that is then kept is wanted, too."""
        now = self._last[0] if self._last else -math.inf
        for time in times:
            if time > now and math.isfinite(time):
                heapq.heappush(self._wanted, (time, gap))

    def forget(self) -> None:
        """Want no exact moment any more that is still to come."""
        self._wanted.clear()

    def push(self, time: float, frame: Frame) -> None:
        """The next frame; times strictly increase."""
        previous = self._last
        while self._wanted and (moment := self._wanted[0][0]) <= time:
            chosen = (time, frame) if previous is None or time - moment < moment - previous[0] else previous
            self._keep(*chosen)
            while self._wanted and self._wanted[0][0] <= moment:
                _, gap = heapq.heappop(self._wanted)
                if gap and chosen[0] + gap > moment:
                    heapq.heappush(self._wanted, (chosen[0] + gap, 0.0))
        if time - self._newest >= self._step:
            grid = self._newest + self._step
            early = previous is not None and previous[0] > self._newest and grid - previous[0] <= time - grid
            self._keep(*(previous if early and previous is not None else (time, frame)))
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

    def _keep(self, time: float, frame: Frame) -> None:
        if time > self._newest:
            self._newest = time
            self._times.append(time)
            self._kept.append(self._shrink(time, frame))
