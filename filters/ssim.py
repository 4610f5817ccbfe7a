"""SSIM of neighbouring keyframes: rejects clips whose structure does not change.

Formula: Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 13(4), 2004),
as scikit-image's `structural_similarity` computes it by default: per pixel
(2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)) over a uniform 7×7 window, sample (n − 1) covariance,
C1 = (0.01 · 255)², C2 = (0.03 · 255)², then the mean over all pixels whose window lies in the frame. Unit: none.
Range: −1 to 1; 1 for identical frames. Source: gate [0, 0.7] in Table 4 of the Presto paper (arXiv 2412.01316).
Protocol: `grey/bt601,uniform7,neighbouring-keyframes@3s/REDUCE`, 3 s being how far apart the keyframes are, at the size of
the sample (long side at most 960): n − 1 pairs of n keyframes, reduced by their mean unless set.

Cost: 5 ms per pair at 960×540 on one core, where scikit-image takes 82 ms in float64 and 44 ms in float32 (2026-11-22).
OpenCV's box filters take the window sums and their differences in whole numbers, so that nothing cancels: the result is
within 1e-7 of scikit-image's float64, in almost white and almost black frames too.

Known to go wrong: flat and dark pictures are alike by this measure, with any content; fine grain makes every
pair unlike. Bars and marks count, and do not change: they raise it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image, MeasureError, Needs, Sample
from longtake.filters.grayscale import grey_keyframes
from longtake.filters.spacing import Spaced

WINDOW = 7
_ROWS = 64  # Rows of a strip. Its arrays then fit into the cache of a core, which more than halves the time.


def ssim(a: Image, b: Image) -> float:
    """Mean SSIM, −1 to 1, of two grey uint8 [h, w] images, both sides at least 7 px. Raises MeasureError if smaller."""
    return ssims([a, b])[0]


def ssims(images: Sequence[Image]) -> list[float]:
    """The same of each of some images and the next one, in order; what a pair needs of one image is computed once."""
    for a, b in pairwise(images):
        if a.shape != b.shape or min(a.shape) < WINDOW:
            raise MeasureError(
                f"SSIM needs two frames of one size, {WINDOW}×{WINDOW} at least; got {a.shape} and {b.shape}"
            )
    height, width = images[0].shape
    # The formula gives 1 for equal frames; stills and black films are not rare.
    equal = [np.array_equal(a, b) for a, b in pairwise(images)]
    sums: list[list[float]] = [[] for _ in equal]
    for top in () if all(equal) else _tops(height):
        strips = [_Strip.of(image[top : top + _ROWS]) for image in images]
        for pair, (first, second) in zip(sums, pairwise(strips), strict=True):
            pair.append(_ssim_sum(first, second))
    windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    return [1.0 if same else math.fsum(pair) / windows for same, pair in zip(equal, sums, strict=True)]


def _tops(height: int) -> range:
    """First rows of strips of _ROWS rows; neighbours share as many rows as a window has less one."""
    return range(0, height - WINDOW + 1, _ROWS - WINDOW + 1)


@dataclass(frozen=True, eq=False, slots=True)
class _Strip:
    """Some rows of an image, and over each window of theirs the sum of the pixels and that of their squares."""

    pixels: Image
    sums: npt.NDArray[np.int32]
    squares: npt.NDArray[np.int32]

    @classmethod
    def of(cls, pixels: Image) -> _Strip:
        import cv2

        return cls(pixels, _windows(cv2.boxFilter, pixels), _windows(cv2.sqrBoxFilter, pixels))


def _ssim_sum(a: _Strip, b: _Strip) -> float:
    """Sum of SSIM over all windows in a strip of both images."""
    import cv2

    pixels = WINDOW * WINDOW
    # Means and covariances are left multiplied by pixels² and pixels · (pixels − 1), and so are the constants.
    c1 = np.float32((0.01 * 255) ** 2 * pixels * pixels)
    c2 = np.float32((0.03 * 255) ** 2 * pixels * (pixels - 1))
    # Differences are whole numbers, so that nothing cancels; then float32, in place, which halves the memory that is
    # moved.
    product = a.sums * b.sums
    squares = a.sums * a.sums
    squares += b.sums * b.sums
    variances = a.squares + b.squares
    variances *= pixels
    variances -= squares
    covariance = _windows(cv2.boxFilter, cv2.multiply(a.pixels, b.pixels, dtype=cv2.CV_16U)) * pixels
    covariance -= product
    above = _plus(2 * product, c1)
    above *= _plus(2 * covariance, c2)
    below = _plus(squares, c1)
    below *= _plus(variances, c2)
    above /= below
    return float(above.sum(dtype=np.float64))


def _plus(whole: npt.NDArray[np.int32], constant: np.float32) -> npt.NDArray[np.float32]:
    numbers = whole.astype(np.float32)
    numbers += constant
    return numbers


def _windows(box: Callable[..., Any], values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The sum that `box` takes over each whole 7×7 window of whole numbers, int32 [h − 6, w − 6]; exact."""
    import cv2

    margin = WINDOW // 2
    sums = box(values, cv2.CV_32S, (WINDOW, WINDOW), normalize=False)
    return np.asarray(sums[margin:-margin, margin:-margin], dtype=np.int32)


class Ssim(Spaced):
    """SSIM. Detail: one value per pair of neighbouring keyframes. Raises MeasureError below two keyframes or 7×7 px."""

    name: ClassVar[str] = "ssim"
    backend: ClassVar[str] = "grey"
    unit: ClassVar[str] = "ratio (-1 to 1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 40.0
    samples_time: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"bt601,uniform{WINDOW},{self.compared}"

    def measure_one(self, item: Sample) -> Sequence[float]:
        if len(item.keyframes) < 2:
            raise MeasureError(f"SSIM needs two keyframes, the sample has {len(item.keyframes)}")
        return ssims(grey_keyframes(item))
