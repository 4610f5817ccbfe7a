"""PSNR of neighbouring keyframes: rejects clips in which too little, or everything, changes.

Formula: 10 · log10(255² / MSE) of the two grey frames (BT.601). Unit: dB. Range: 0 (black against white) to 100. Two
identical frames have an infinite PSNR; it is given as 100 dB, so that the mean stays finite (8-bit frames of 2 MP that differ
by one level in one pixel have 111 dB: such values are cut to 100 too). Source: gate [4, 20] dB in Table 4 of the Presto paper
(arXiv 2412.01316), which says neither pairs nor size. Protocol: `grey/bt601,neighbouring-keyframes@3s,cap100/REDUCE`, 3 s
being how far apart the keyframes are, at the size of the sample (long side at most 960): n − 1 pairs of n keyframes, reduced
by their mean unless set. Cost: 1 ms per clip of five 960×540 keyframes.

Known to go wrong: PSNR depends on contrast: dark and foggy clips have a high one though they move, a flash gives a low
one though nothing moves. A periodic motion may bring the same frame back. Bars and marks count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from longtake.filters.base import Image, MeasureError, Needs, Sample
from longtake.filters.grayscale import grey_keyframes
from longtake.filters.spacing import Spaced

CAP_DB = 100.0


def psnr(a: Image, b: Image) -> float:
    """PSNR in dB, 0 to 100, of two uint8 images of equal shape."""
    import cv2

    squares = cv2.norm(a, b, cv2.NORM_L2SQR)
    if squares == 0:
        return CAP_DB
    return min(CAP_DB, 10 * math.log10(255.0**2 * a.size / squares))


class Psnr(Spaced):
    """PSNR in dB. Detail: one value per pair of neighbouring keyframes. Raises MeasureError below two keyframes."""

    name: ClassVar[str] = "psnr"
    backend: ClassVar[str] = "grey"
    unit: ClassVar[str] = "dB"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 2.0
    samples_time: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"bt601,{self.compared},cap{CAP_DB:g}"

    def measure_one(self, item: Sample) -> Sequence[float]:
        if len(item.keyframes) < 2:
            raise MeasureError(f"PSNR needs two keyframes, the sample has {len(item.keyframes)}")
        return [psnr(a, b) for a, b in pairwise(grey_keyframes(item))]
