"""SSIM of neighbouring keyframes: rejects clips whose structure does not change.

Formula: Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 13(4), 2004),
as scikit-image's `structural_similarity` computes it by default: per pixel
(2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)) over a uniform 7×7 window, sample (n − 1) covariance,
C1 = (0.01 · 255)², C2 = (0.03 · 255)², then the mean over all pixels whose window lies in the frame. Unit: none.
Range: −1 to 1; 1 for identical frames. Source: gate [0, 0.7] in Table 4 of the Presto paper (arXiv 2412.01316).
Protocol: `grey/bt601,uniform7,neighbouring-keyframes/REDUCE` at the size of the sample (long side at most 960): n − 1
pairs of n keyframes, reduced by their mean unless set.

Cost: 10 ms per pair at 960×540 on one core, where scikit-image takes 65 ms in float64 and 35 ms in float32 (measured
side by side). The window sums are taken with OpenCV's box filter and their differences in whole numbers, so that
nothing cancels: the result is within 1e-8 of scikit-image's float64, in almost white and almost black frames too.

Known to go wrong: flat and dark pictures are alike by this measure whatever happens in them; fine grain makes every
pair unlike. Bars and marks count, and do not change: they raise it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from filters.base import Filter, Image, MeasureError, Needs, Sample
from filters.grayscale import grey_keyframes

WINDOW = 7


def ssim(a: Image, b: Image) -> float:
    """Mean SSIM, −1 to 1, of two grey uint8 [h, w] images, both sides at least 7 px. Raises MeasureError if smaller."""
    if a.shape != b.shape or min(a.shape) < WINDOW:
        raise MeasureError(
            f"SSIM needs two frames of one size, {WINDOW}×{WINDOW} at least; got {a.shape} and {b.shape}"
        )
    pixels = WINDOW * WINDOW
    # Means and covariances are left multiplied by pixels² and pixels · (pixels − 1), and so are the constants.
    c1 = np.float32((0.01 * 255) ** 2 * pixels * pixels)
    c2 = np.float32((0.03 * 255) ** 2 * pixels * (pixels - 1))
    x, y = a.astype(np.float32), b.astype(np.float32)
    sum_x, sum_y = _window_sums(x), _window_sums(y)
    squares = sum_x * sum_x + sum_y * sum_y
    product = sum_x * sum_y
    variances = pixels * _window_sums(x * x + y * y) - squares
    covariance = pixels * _window_sums(x * y) - product
    above = (2 * product).astype(np.float32) + c1
    above *= (2 * covariance).astype(np.float32) + c2
    below = squares.astype(np.float32) + c1
    below *= variances.astype(np.float32) + c2
    return float((above / below).mean(dtype=np.float64))


def _window_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Sum of each whole 7×7 window of whole numbers, int32 [h − 6, w − 6]; exact, as all sums are under 2²⁴."""
    margin = WINDOW // 2
    sums = cv2.boxFilter(values, -1, (WINDOW, WINDOW), normalize=False)
    return np.asarray(sums[margin:-margin, margin:-margin], dtype=np.float32).astype(np.int32)


class Ssim(Filter[Sample]):
    """SSIM. Detail: one value per pair of neighbouring keyframes. Raises MeasureError below two keyframes or 7×7 px."""

    name: ClassVar[str] = "ssim"
    backend: ClassVar[str] = "grey"
    unit: ClassVar[str] = "ratio (-1 to 1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 40.0

    @property
    def method(self) -> str:
        return f"bt601,uniform{WINDOW},neighbouring-keyframes"

    def measure_one(self, item: Sample) -> Sequence[float]:
        if len(item.keyframes) < 2:
            raise MeasureError(f"SSIM needs two keyframes, the sample has {len(item.keyframes)}")
        return [ssim(a, b) for a, b in pairwise(grey_keyframes(item))]
