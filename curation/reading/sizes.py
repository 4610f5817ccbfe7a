"""Films whose picture changes its size: calls whose bandwidth changes, joined recordings, a telephone that is turned.

So are broadcasts whose pictures of 4:3 and of 16:9 have one coded size (`aspects`), and films that name another orientation in
their middle (`turns`).

A change of size is a cut, and each clip has the size of its own pictures: a scan that brought them all to one size would show
other pictures than an export, which cuts a clip by itself.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import av

from longtake.curation.errors import RowError
from longtake.curation.reading.aspects import Aspects
from longtake.curation.reading.opening import displayed_size
from longtake.curation.reading.orientation import UPRIGHT, Orientation
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.turns import Turns


@dataclass(slots=True)
class Size:
    """width, height: of a frame as it is coded, px. aspect: of a sample. turn: how it is shown."""

    width: int
    height: int
    aspect: float
    turn: Orientation = UPRIGHT

    def __str__(self) -> str:
        """Upright, with square pixels."""
        return "{}×{}".format(*displayed_size(self.width, self.height, self.turn.rotation, self.aspect))


def size_of(time: float, frame: av.VideoFrame, aspects: Aspects, turns: Turns) -> Size:
    """The size of a frame that is shown at `time`, seconds. aspects, turns: of its film."""
    return Size(frame.width, frame.height, aspects.at(time), turns.at(time))


class Change(NamedTuple):
    """before, time: of the last frame of the old size and the first one of the new, seconds."""

    before: float
    time: float
    old: Size
    new: Size


class Sizes:
    """The sizes of a film's frames, which are pushed in their order."""

    def __init__(self, aspects: Aspects, turns: Turns) -> None:
        self._aspects, self._turns = aspects, turns
        self._last = 0.0
        self._starts: list[float] = []
        self._sizes: list[Size] = []

    def push(self, time: float, frame: av.VideoFrame) -> Change | None:
        """The next frame. What changes with it."""
        size = size_of(time, frame, self._aspects, self._turns)
        before, self._last = self._last, time
        if self._sizes and size == self._sizes[-1]:
            return None
        self._starts.append(time)
        self._sizes.append(size)
        return Change(before, time, self._sizes[-2], size) if len(self._sizes) > 1 else None

    def at(self, time: float) -> Size | None:
        """The size of the frames from `time` on; None before the first."""
        return self._sizes[max(bisect_right(self._starts, time) - 1, 0)] if self._sizes else None

    def within(self, span: Span) -> RowError | None:
        """Why a clip that holds pictures of two sizes is none; None where all have one size."""
        at = bisect_right(self._starts, span.start)
        if not 0 < at < len(self._starts) or self._starts[at] >= span.end:
            return None
        return RowError("unsupported", changes(self._sizes[at - 1], self._sizes[at], self._starts[at]))


def changes(old: Size, new: Size, time: float) -> str:
    """What a clip is told that holds pictures of two sizes. time: seconds."""
    what = "is turned or mirrored anew" if old.turn != new.turn else f"changes its size from {old} to {new} px"
    return f"its picture {what} at {time:.3f} s; clips before and after that can be cut"
