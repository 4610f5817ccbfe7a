"""Optical flow by OpenCV's DIS: how far the picture moves in half a second.

Formula: the mean over all pixels of √(u² + v²), where (u, v) is the flow from one picture to another half a second later, in
pixels of a frame whose long side is 960, times 0.5 s / (the pair's real gap). Unit: px. Range: from 0. Source: Kroeger et al.,
"Fast Optical Flow using Dense Inverse Search" (ECCV 2016), in OpenCV; gate ≥ 40 (≥ 50) in Table 4 of the Presto paper
(arXiv 2412.01316), which uses UniMatch: these are other numbers under another protocol.

Protocol: `dis/fast480+phase240,15pairs,per0.5s@960/REDUCE`: at least 15 pairs at the centres of equal parts of the clip, an odd
number for each keyframe, so that the keyframes and their partners are among them; the last one early enough to lie in the clip.
Both pictures in grey (luma, full range), reduced to a long side of 480 (never enlarged), preset FAST, and the vectors scaled to a
long side of 960. One value per pair, in order of time, reduced by their mean unless set; its standard error is stored, too. With
`pairs: stored` (`keyframe-partner` in the protocol) the stored frames are measured instead, which is what networks measure and
`longtake calibrate` compares. DIS alone loses translations of a tenth of the width (it starts at 60 px wide with a
few px of reach). So a global shift is first found by phase correlation; where it is at least 40 px and at least halves
the difference of the two frames, DIS starts from it. The whole frame counts: bars and marks, which stand still, lower
the mean by their share.

Cost: 4 to 6 ms per pair of 960×540 on one core, 50 to 90 ms per clip (preset MEDIUM at 480 16 ms, at 960 54 ms).
Accuracy, value / truth, lowest and highest over five photographic scenes with noise (σ 2), 960×540:

| motion in the pair | this | MEDIUM at 480, same start |
|---|---|---|
| pan 20–80 px | 0.99–1.00 | 0.99–1.01 |
| pan 120–150 px | 1.00–1.02 | 0.99–1.01 |
| zoom in 10 % (mean 29 px) | 0.85–1.00 | 0.94–0.99 |
| zoom in 20 % (mean 59 px) | 0.50–0.96 | 0.58–0.97 |

On real film (107 pairs of 49 clips on which RAFT small finds 5 px or more, 2026-11-25), DIS / RAFT on the same pairs, median and
quartiles:

| motion in the pair | pairs | DIS / RAFT small |
|---|---|---|
| one shift of most of the picture | 33 | 0.99 (0.93–1.05) |
| things that move, or depth | 49 | 1.00 (0.63–1.30) |
| zoom or turn | 25 | 0.96 (0.54–1.04) |
| any, 80 px and more | 21 | 0.90 (0.57–0.97) |

So there is no one factor between the two. But what moves far, and zooms, reads low, and that is what gates let through: of the 49
clips, `>= 32` on this scale decides 48 as RAFT's `>= 40` does, and `>= 40` 48 as RAFT's `>= 50`; with the same numbers on both
scales it is 47 and 47. Hence the gates of the recipe `embedded`, four fifths of the paper's.

Without the start, FAST at 960 loses pans of 120 px on smooth scenes (down to 0.26 of the truth).

Known to go wrong: strong zooms and turns read low (table); what leaves the frame has no true match, which changes the
mean by up to 4 % for pans up to 160 px; near-flat pictures read low, and grain adds a few tenths of a pixel; cuts,
flashes and water give vectors that are not motion; frames under 480 px wide have coarser vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Image, MeasureError, Motion, Needs, Sample
from longtake.filters.grayscale import grey

Flow = npt.NDArray[np.float32]

WORK_SIDE = 480  # Px. DIS runs on frames of this long side.
COARSE_SIDE = 240  # Px. The global shift is sought on frames of this long side.
REPORT_SIDE = 960  # Px. The score is given in pixels of a frame with this long side.
GAP_SECONDS = 0.5
# Pairs of a clip, at least. Against pairs at every quarter of a second, the score from 5 pairs is 24 % off (root mean
# square over 56 real clips that move, 2026-11-25), from 15 pairs 9.5 %; every further pair costs 6 ms.
LEAST_PAIRS = 15
MIN_SIDE = 32  # Px. DIS needs a few patches of 8 px; on a smaller frame it refuses or invents.
FAR = 40 / REPORT_SIDE  # Share of the long side. DIS finds nearer shifts by itself.
FITS = 0.5  # Share of the difference. A true shift leaves less of it; false shifts of zooms leave 0.6 and more.


def flow_field(a: Image, b: Image) -> Flow:
    """Dense flow from `a` to `b`: float32 [h, w, 2], (right, down) in pixels of the images as given.

    a, b: uint8 [h, w, 3] RGB or [h, w] grey, of one size, each side at least 32 px. What is at (x, y) in `a` is at
    (x + u, y + v) in `b`. Raises MeasureError for other sizes.
    """
    import cv2

    height, width = a.shape[:2]
    small = _work_flow(a, b)
    # A flow that has the size already is returned as it is.
    flow: Flow = np.asarray(cv2.resize(small, (width, height)), dtype=np.float32)
    return flow * np.array([width / small.shape[1], height / small.shape[0]], np.float32)


def _work_flow(a: Image, b: Image) -> Flow:
    """The flow at WORK_SIDE, in pixels of that size."""
    import cv2

    if a.shape != b.shape:
        raise MeasureError(f"flow needs two frames of one size; got {a.shape} and {b.shape}")
    first, second = (_shrink(grey(image) if image.ndim == 3 else image, WORK_SIDE) for image in (a, b))
    if min(first.shape) < MIN_SIDE:
        raise MeasureError(f"flow needs frames of at least {MIN_SIDE} px a side; got {a.shape[1]}×{a.shape[0]}")
    if np.array_equal(first, second):  # DIS gives the same for equal frames, but takes its time.
        return np.zeros((*first.shape, 2), np.float32)
    # A new object each time: DIS keeps a start it was given once, and uses it in later calls that give none.
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    shift = _far_shift(first, second)
    start: Any = None if shift is None else np.tile(np.array(shift, np.float32), (*first.shape, 1))
    return np.asarray(dis.calc(first, second, start), dtype=np.float32)


@lru_cache(maxsize=1)
def flows_of(motion: Motion) -> tuple[Flow, ...]:
    """The flow of each pair of a clip, in order of time, at its working size. Those of the clip that was asked for last are
    remembered (15 MB), since several filters ask for them one after the other. Raises MeasureError."""
    return tuple(_work_flow(a, b) for a, b in zip(motion.first, motion.second, strict=True))


def mean_length(flow: Flow) -> float:
    """Mean vector length in pixels of a flow field [h, w, 2]."""
    import cv2

    return float(cv2.magnitude(flow[..., 0], flow[..., 1]).mean(dtype=np.float64))


def _far_shift(a: Image, b: Image) -> tuple[float, float] | None:
    """The global shift (right, down) in pixels from `a` to `b`, if it is far and true; else None."""
    import cv2

    small_a, small_b = (_shrink(image, COARSE_SIDE).astype(np.float32) for image in (a, b))
    height, width = small_a.shape
    if min(height, width) < 16:
        return None
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    # Copies: phaseCorrelate applies the window in place.
    (right, down), _ = cv2.phaseCorrelate(small_a.copy(), small_b.copy(), window)
    x, y = round(right), round(down)
    if np.hypot(x, y) < FAR * max(height, width) or abs(x) > 0.5 * width or abs(y) > 0.5 * height:
        return None
    overlap_a = small_a[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    overlap_b = small_b[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
    shifted = np.abs(overlap_a - overlap_b).mean()
    unshifted = np.abs(small_a - small_b).mean()
    if shifted >= FITS * unshifted:
        return None
    return right * a.shape[1] / width, down * a.shape[0] / height


def work_size(image: Image) -> Image:
    """A grey image as DIS sees it: its long side at most 480 px. More than that need not be kept of a picture."""
    return _shrink(image, WORK_SIDE)


def _shrink(image: Image, long_side: int) -> Image:
    """A grey image with its long side at most `long_side`; never enlarged."""
    import cv2

    height, width = image.shape
    scale = long_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


class FlowDisSettings(FilterSettings):
    """Which pairs are measured."""

    pairs: Literal["spread", "stored"] = Field(
        "spread",
        description="`spread`: at least 15 pairs over the whole clip, which only the scan sees; `stored`: the keyframes and "
        "their partners, as filters with a model measure them",
    )


class FlowDis(Filter[Sample]):
    """Mean flow length in px per 0.5 s at a long side of 960. Detail: one value per pair, in order of time.

    Raises MeasureError for frames under 32 px a side, for a partner that is not later than its first picture, and, unless
    `pairs: stored`, for a sample without pairs of the pass.
    """

    name: ClassVar[str] = "flow"
    backend: ClassVar[str] = "dis"
    unit: ClassVar[str] = "px per 0.5 s at 960"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 90.0
    samples_time: ClassVar[bool] = True
    settings_model: ClassVar[type[FilterSettings]] = FlowDisSettings

    settings: FlowDisSettings

    @property
    def method(self) -> str:
        pairs = f"{LEAST_PAIRS}pairs" if self.settings.pairs == "spread" else "keyframe-partner"
        return f"fast{WORK_SIDE}+phase{COARSE_SIDE},{pairs},per{GAP_SECONDS:g}s@{REPORT_SIDE}"

    @property
    def on_stored(self) -> FlowDis:
        """The same on the stored frames."""
        return FlowDis(pairs="stored", reduce=self.reduce).seeing(self.crop)

    def measure_one(self, item: Sample) -> Sequence[float]:
        if self.settings.pairs == "stored":
            pairs = zip(item.keyframes, item.partners, item.times, item.partner_times, strict=True)
        elif item.motion is not None:
            motion = item.motion
            times = zip(motion.times, motion.partner_times, strict=True)
            gaps = [_gap(float(start), float(end)) for start, end in times]
            return [_half_second(flow, gap) for flow, gap in zip(flows_of(motion), gaps, strict=True)]
        else:
            raise MeasureError(
                "the pairs of this flow are seen in the scan only; `pairs: stored` measures stored frames"
            )
        timed = [(a, b, _gap(float(start), float(end))) for a, b, start, end in pairs]
        return [_half_second(_work_flow(a, b), gap) for a, b, gap in timed]


def _gap(start: float, end: float) -> float:
    """Seconds between the pictures of a pair. Raises MeasureError."""
    if not end > start:
        raise MeasureError(f"the partner of the picture at {start:g} s is not later than it ({end:g} s)")
    return end - start


def _half_second(flow: Flow, gap: float) -> float:
    """The score of one pair of pictures, `gap` seconds apart."""
    scale: float = REPORT_SIDE / max(flow.shape[:2])
    return mean_length(flow) * scale * GAP_SECONDS / gap
