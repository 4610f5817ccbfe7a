"""Blur of the keyframes: rejects clips that are out of focus, shaken or enlarged, and, above the range, noise and hard edges.

Formula of `blur`: the variance of the Laplacian (3×3, 4 neighbours) of the grey keyframe (BT.601) at a long side of exactly
640 px, so that film of any size is compared alike; a smaller film is enlarged, since it would be for a trainer. A high score
is a sharp picture. Unit: squared grey levels. Range: from 0 (an even picture). Formula of `blurred`: the share of keyframes
whose variance is below the setting `below`. Unit: share. Range: 0 to 1. Source: Pech-Pacheco et al., "Diatom autofocusing in
brightfield microscopy" (ICPR 2000); the gate [200, 2000] of MUG-V 10B (arXiv 2510.17519), which does not say at which size,
so its numbers are no numbers of this scale. Protocol: `laplacian/bt601@640,keyframes/REDUCE`, one value per keyframe, reduced
by their mean unless set; of `blurred` `laplacian/bt601@640<BELOW,keyframes/REDUCE`. Cost: 4 ms per clip of five 960×540
keyframes, for each of both.

Known to go wrong: grain and compression noise count as sharpness; a sharp picture of fog, of the sky or of a face before an
even wall has little; what moves fast is blurred by right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Image, Needs, Sample
from longtake.filters.grayscale import grey_keyframes

SIDE = 640  # Px. The long side at which blur is measured: that of the smallest film that is worth training on.


def sharpness(grey: Image) -> float:
    """Variance of the Laplacian of a grey uint8 [h, w] image at a long side of 640 px."""
    import cv2

    height, width = grey.shape
    scale = SIDE / max(height, width)
    if scale != 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = np.asarray(
            cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8
        )
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


class Blur(Filter[Sample]):
    """Variance of the Laplacian: low is blurred. Detail: one value per keyframe."""

    name: ClassVar[str] = "blur"
    backend: ClassVar[str] = "laplacian"
    unit: ClassVar[str] = "squared grey levels"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 4.0

    @property
    def method(self) -> str:
        return f"bt601@{SIDE},keyframes"

    def measure_one(self, item: Sample) -> Sequence[float]:
        return [sharpness(grey) for grey in grey_keyframes(item)]


class BlurredSettings(FilterSettings):
    """What counts as blurred."""

    below: float = Field(100.0, gt=0, le=1e6, description="squared grey levels; a keyframe with less counts as blurred")


class Blurred(Filter[Sample]):
    """Share of blurred keyframes. Detail: 1 for each keyframe that is, 0 for each that is not."""

    name: ClassVar[str] = "blurred"
    backend: ClassVar[str] = "laplacian"
    unit: ClassVar[str] = "share (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 4.0
    settings_model: ClassVar[type[FilterSettings]] = BlurredSettings

    settings: BlurredSettings

    @property
    def method(self) -> str:
        return f"bt601@{SIDE}<{self.settings.below:g},keyframes"

    def measure_one(self, item: Sample) -> Sequence[float]:
        return [float(sharpness(grey) < self.settings.below) for grey in grey_keyframes(item)]
