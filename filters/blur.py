"""Blur of the keyframes: rejects clips that are out of focus, shaken or enlarged, and, above the range, noise and hard edges.

Formula of `blur`: the variance of the Laplacian (3×3, 4 neighbours) of the grey keyframe (BT.601) at a long side of exactly
640 px, so that film of any size is compared alike; a smaller film is enlarged, since it would be for a trainer. A high score
is a sharp picture. Unit: squared grey levels. Range: from 0 (an even picture). It depends on what is shown as well: a sharp
picture of fog has less than a blurred one of letters.

Formula of `blurred`: the share of keyframes whose strongest edges are less sharp than the setting `below`. The strongest edges
are the 2 % of the same picture with the steepest slope (gradient behind a Gaussian of 1.5 px); their sharpness is the greatest
Laplacian (absolute value) within 2 px of each, in the mean, divided by their mean slope, and so does not depend on the
contrast. Of an edge that a Gaussian of s px has blurred it is √(s² + 1.5²) / (s² √e): 3.8 for a step, 1.1 at 1 px, 0.4 at 2 px;
texture and corners make it higher. A keyframe without edges does not count. Unit: share. Range: 0 to 1.

Source of `blur`: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000); the gate [200, 2000] of MUG-V
10B (arXiv 2510.17519), which does not say at which size, so its numbers are no numbers of this scale. Of `blurred`: this
project's own. Protocol: `laplacian/bt601@640linear,keyframes/REDUCE`, one value per keyframe, reduced by their mean unless set;
of `blurred` `edges/bt601@640linear,top2%<BELOW,keyframes,v2/REDUCE`. Cost: 2 ms per clip of five 960×540 keyframes; of `blurred`
4 ms.

Known to go wrong: grain and compression noise count as sharpness; what moves fast is blurred by right; for `blur`, a sharp
picture of the sky or of a face before an even wall has little; for `blurred`, sharp letters over a blurred picture are the
strongest edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Image, MeasureError, Needs, Sample, Score
from longtake.filters.grayscale import grey_keyframes

SIDE = 640  # Px. The long side at which blur is measured: that of the smallest film that is worth training on.


# A share of the picture. So much of it is its strongest edges.
STRONGEST = 0.02
# Px at SIDE. The slope of an edge is taken behind a Gaussian of this width, so that it is of the edge and not of noise.
SLOPE_WIDTH = 1.5
# Px. The side of that Gaussian's kernel: three widths to each side.
SLOPE_KERNEL = 9
# Px at SIDE. The peak of the Laplacian lies within half of this of the place where an edge is steepest.
AROUND = 5
# Grey levels per px. An edge is at least this steep.
LEAST_SLOPE = 1.0


@dataclass(frozen=True, slots=True)
class Bends:
    """A grey picture at a long side of 640 px, uint8 [h, w], and its Laplacian, int16 [h, w]."""

    picture: Image
    laplacian: npt.NDArray[np.int16]


def bends(grey: Image) -> Bends:
    """grey: uint8 [h, w], of any size."""
    import cv2

    picture = _at_size(grey)
    return Bends(picture, np.asarray(cv2.Laplacian(picture, cv2.CV_16S), np.int16))


@lru_cache(maxsize=1)
def _of_keyframes(sample: Sample) -> tuple[Bends, ...]:
    """Both filters look at the same."""
    return tuple(bends(grey) for grey in grey_keyframes(sample))


def sharpness(seen: Bends) -> float:
    """Variance of the Laplacian, squared grey levels."""
    import cv2

    mean = cv2.mean(seen.laplacian)[0]
    return cv2.norm(seen.laplacian, cv2.NORM_L2SQR) / seen.laplacian.size - mean * mean


def edge_sharpness(seen: Bends) -> float:
    """How sharp the strongest edges are, per px; nan if there are none."""
    import cv2

    smooth = cv2.GaussianBlur(seen.picture, (SLOPE_KERNEL, SLOPE_KERNEL), SLOPE_WIDTH)
    # A fourth of the slopes is enough, and a fourth of these to tell how steep the steepest ones are.
    right, down = (part[::2, ::2].astype(np.float32) for part in cv2.spatialGradient(smooth))
    slope = np.asarray(cv2.magnitude(right, down), np.float32) / 8
    few = slope[::2, ::2].ravel()
    place = int((1 - STRONGEST) * few.size)
    strong = slope >= max(float(np.partition(few, place)[place]), LEAST_SLOPE)
    if not strong.any():
        return math.nan
    peaks = cv2.dilate(np.abs(seen.laplacian), np.ones((AROUND, AROUND), np.uint8))[::2, ::2]
    return float(peaks[strong].mean()) / float(slope[strong].mean())


def _at_size(grey: Image) -> Image:
    import cv2

    height, width = grey.shape
    scale = SIDE / max(height, width)
    if scale == 1:
        return grey
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Down to a half no pixel is passed over, and a picture of a sample has at most one and a half times this size.
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey, size, interpolation=method), np.uint8)


class Blur(Filter[Sample]):
    """Variance of the Laplacian: low is blurred. Detail: one value per keyframe."""

    name: ClassVar[str] = "blur"
    backend: ClassVar[str] = "laplacian"
    unit: ClassVar[str] = "squared grey levels"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 4.0

    @property
    def method(self) -> str:
        return f"bt601@{SIDE}linear,keyframes"

    def measure_one(self, item: Sample) -> Sequence[float]:
        return [sharpness(seen) for seen in _of_keyframes(item)]


class BlurredSettings(FilterSettings):
    """What counts as blurred."""

    below: float = Field(1.5, gt=0, le=100, description="per px; a keyframe with less sharp edges counts as blurred")


class Blurred(Filter[Sample]):
    """Share of blurred keyframes. Detail: 1 for each keyframe that is, 0 for each that is not, of those that have edges."""

    name: ClassVar[str] = "blurred"
    backend: ClassVar[str] = "edges"
    unit: ClassVar[str] = "share (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 8.0
    version: ClassVar[int] = 2
    settings_model: ClassVar[type[FilterSettings]] = BlurredSettings

    settings: BlurredSettings

    @property
    def method(self) -> str:
        return f"bt601@{SIDE}linear,top{STRONGEST:.0%}<{self.settings.below:g},keyframes"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._of(item) for item in items]

    def _of(self, item: Sample) -> Score:
        sharpness = [edge_sharpness(seen) for seen in _of_keyframes(item)]
        detail = [float(sharp < self.settings.below) for sharp in sharpness if not math.isnan(sharp)]
        return self.reduced(detail) if detail else Score(math.nan, (0.0,))
