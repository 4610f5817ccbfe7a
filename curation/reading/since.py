"""What holds from a moment of a film on, until something else does."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Generic, TypeVar

T = TypeVar("T")


class Since(Generic[T]):
    """Values by the moments from which they hold, as far as a film was read."""

    def __init__(self, first: T) -> None:
        self._starts, self._known = [-math.inf], [first]

    def note(self, time: float, value: T) -> None:
        """From `time` on, seconds, it is `value`. A moment may be read again."""
        at = bisect_right(self._starts, time)
        if self._known[at - 1] != value:
            self._starts.insert(at, time)
            self._known.insert(at, value)

    def at(self, time: float) -> T:
        """What holds at `time`, seconds."""
        return self._known[-1 if len(self._known) == 1 else bisect_right(self._starts, time) - 1]
