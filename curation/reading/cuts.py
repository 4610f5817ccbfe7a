"""Cuts, and what every detector of them does: pushed one thumbnail after another, it reports cuts, some of them late.

A cut is a stretch of time: from the last frame that is surely of the old shot to the first that is surely of the new one.
Between reference frames it is a frame or two wide, a dissolve is as wide as it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from longtake.filters.base import Image


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """start: time of the last frame of the old shot; end: of the first frame of the new one. Seconds."""

    start: float
    end: float


class CutDetector(Protocol):
    """Pushed a thumbnail (uint8 [h, w, 3], BGR) for each decoded frame, in order."""

    settled: float  # Seconds. No cut that starts before this time will be reported any more.

    def push(self, time: float, thumb: Image) -> list[Cut]: ...

    def finish(self) -> list[Cut]: ...

    def doubt(self, start: float, end: float) -> float:
        """How likely it is that [start, end) holds a cut all the same, 0 to 1; nan if this detector cannot tell."""

    def forget(self, time: float) -> None:
        """No doubt about what lies before this time will be asked for any more."""
