"""Shots: stretches without a cut. Detectors are pushed one thumbnail after another and report cuts, some of them late.

A cut is a stretch of time: from the last frame that is surely of the old shot to the first that is surely of the new one.
Between reference frames it is a frame or two wide, a dissolve is as wide as it lasts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from filters.base import Image


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """start: time of the last frame of the old shot; end: of the first frame of the new one. Seconds."""

    start: float
    end: float


class CutDetector(Protocol):
    """Pushed a thumbnail (uint8 [h, w, 3], BGR) for each decoded frame, in order."""

    settled: float  # no cut that starts before this time will be reported any more

    def push(self, time: float, thumb: Image) -> list[Cut]: ...

    def finish(self) -> list[Cut]: ...


class SceneDetectCuts:
    """PySceneDetect's content or adaptive detector (hard cuts), fed by our pass.

    content: a cut where the mean HSV difference to the frame before is at least `threshold` (27 by default).
    adaptive: where that difference is `threshold` (3 by default) times the mean of its two neighbours on each side, so that
    fast camera movement is not taken for cuts; it reports two frames late.
    """

    def __init__(self, kind: str, threshold: float | None) -> None:
        # PySceneDetect takes half a second to import, for a video splitter that is not needed here
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        self._detector = (
            ContentDetector(threshold=27.0 if threshold is None else threshold, min_scene_len=0)
            if kind == "content"
            else AdaptiveDetector(adaptive_threshold=3.0 if threshold is None else threshold, min_scene_len=0)
        )
        self._times: deque[float] = deque(maxlen=self._detector.event_buffer_length + 2)
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        from scenedetect.common import FrameTimecode, Timecode

        self._times.append(time)
        code = FrameTimecode(Timecode(pts=round(time * 90_000), time_base=Fraction(1, 90_000)), fps=Fraction(25))
        found = self._detector.process_frame(code, thumb)
        cuts = []
        for cut in found:
            at = min(range(len(self._times)), key=lambda i: abs(self._times[i] - cut.seconds))
            cuts.append(Cut(self._times[max(at - 1, 0)], self._times[at]))
        self.settled = self._times[0]
        return cuts

    def finish(self) -> list[Cut]:
        return []
