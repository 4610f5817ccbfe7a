"""Stretches in which a film has no new frame: a recording of a screen on which nothing changes, a slide show.

The frames that are decoded do not tell: the scan passes over some. So the times of all packets are looked at.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right, insort

# Seconds. A shorter stretch is the rate of a slow film; cameras do not hold still for so long (`longtake.filters.frozen`).
_LONG = 0.5
_CLOCK = 1e-6  # Seconds. Times that differ by less are equal, up to the noise of adding floats.


def is_gap(seconds: float) -> bool:
    """Whether it is a gap if from one frame to the next it takes so many seconds."""
    return seconds >= _LONG - _CLOCK


class Gaps:
    """The gaps of a film, as far as it was read. A stretch may be read again."""

    def __init__(self) -> None:
        self._known: list[tuple[float, float]] = []  # From a frame to the next, in seconds; rising, and apart.
        self._ahead: list[float] = []  # A heap of the times at which packets are shown, in seconds.
        self._last = math.inf

    def skip(self) -> None:
        """Reading goes on at another place."""
        self._ahead.clear()
        self._last = math.inf

    def coming(self, shown: float) -> None:
        """A packet that is shown at this time, seconds, before it is decoded."""
        heapq.heappush(self._ahead, shown)

    def reached(self, time: float) -> None:
        """A frame that is shown at this time, seconds, was decoded: all packets that are shown before it have come."""
        while self._ahead and self._ahead[0] <= time:
            shown = heapq.heappop(self._ahead)
            if is_gap(shown - self._last) and not self.within(self._last, shown):
                insort(self._known, (self._last, shown))
            self._last = shown if math.isinf(self._last) else max(self._last, shown)

    def within(self, start: float, end: float) -> float:
        """Seconds of gaps between two moments."""
        at = max(bisect_right(self._known, (start, math.inf)) - 1, 0)
        seconds = 0.0
        for first, last in self._known[at:]:
            if first >= end:
                break
            seconds += max(0.0, min(last, end) - max(first, start))
        return seconds
