"""PySceneDetect's detectors of hard cuts, fed by our pass."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction

import cv2
import numpy as np

from longtake.curation.reading.cuts import Cut
from longtake.filters.base import Image

_TICK = Fraction(1, 90_000)  # Seconds.
_ANY_RATE = Fraction(25)  # Frames per second. PySceneDetect requires a rate, though its times are in ticks.


class SceneDetectCuts:
    """PySceneDetect's content or adaptive detector (hard cuts), fed by our pass.

    content: a cut where the mean HSV difference to the frame before is at least `threshold` (27 by default).
    adaptive: where that difference is `threshold` (3 by default) times the mean of its two neighbours on each side, so that
    fast camera movement is not taken for cuts; it reports two frames late.
    """

    def __init__(self, kind: str, threshold: float | None) -> None:
        # PySceneDetect takes half a second to import, for a video splitter that this project does not use.
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        self._detector = (
            ContentDetector(threshold=27.0 if threshold is None else threshold, min_scene_len=0)
            if kind == "content"
            else AdaptiveDetector(adaptive_threshold=3.0 if threshold is None else threshold, min_scene_len=0)
        )
        self._times: deque[float] = deque(maxlen=self._detector.event_buffer_length + 2)
        self._shape: tuple[int, ...] = ()  # The shape of the first thumbnail.
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        from scenedetect.common import FrameTimecode, Timecode

        self._times.append(time)
        self._shape = self._shape or thumb.shape
        if thumb.shape != self._shape:
            # The film changes its size, and PySceneDetect compares pictures of one size only.
            thumb = np.asarray(cv2.resize(thumb, self._shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        code = FrameTimecode(Timecode(pts=round(time / _TICK), time_base=_TICK), fps=_ANY_RATE)
        found = self._detector.process_frame(code, thumb)
        cuts = []
        for cut in found:
            at = min(range(len(self._times)), key=lambda i: abs(self._times[i] - cut.seconds))
            cuts.append(Cut(self._times[max(at - 1, 0)], self._times[at]))
        self.settled = self._times[0]
        return cuts

    def finish(self) -> list[Cut]:
        return []

    def doubt(self, start: float, end: float) -> float:
        # PySceneDetect measures no probability.
        return math.nan

    def forget(self, time: float) -> None:
        pass
