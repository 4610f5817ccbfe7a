"""Bars around the picture, black or of any other even colour, which are cut away before the pictures of a shot are compared."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

# Grey levels. Black bars are darker than the first number, with what compression does to them; the levels of others, in all
# pictures, differ by no more than the second one.
_BLACK, _EVEN = 24, 4


def inside_bars(pictures: Sequence[Grey]) -> tuple[slice, slice] | None:
    """The rows and columns within the bars that pictures of one size have in common; None if all of them are black. To a third of
    a side no bars reach; a picture that is even there is a plain one. pictures: uint8 [h, w] each."""
    low, high = np.min(pictures, axis=0), np.max(pictures, axis=0)
    if high.max() <= _BLACK:
        return None
    rows = slice(_bar(low, high), len(high) - _bar(low[::-1], high[::-1]))
    low, high = low[rows].T, high[rows].T
    return rows, slice(_bar(low, high), len(high) - _bar(low[::-1], high[::-1]))


def _bar(low: Grey, high: Grey) -> int:
    """The number of rows, from the first on, that are a bar, with the one in which it may end. low, high: the least and the
    highest level of each pixel in all pictures, uint8 [h, w]."""
    least, most = np.minimum.accumulate(low.min(axis=1)), np.maximum.accumulate(high.max(axis=1))
    bar = (most <= _BLACK) | (most - least <= _EVEN)
    count = int(np.cumprod(bar).sum())
    return min(count + (count > 0), len(bar) // 3)


def without_bars(pictures: Sequence[Grey]) -> Sequence[Grey]:
    """The pictures without the bars that they have in common, as large as before: uint8 [h, w] each."""
    inside = inside_bars(pictures)
    height, width = pictures[0].shape
    if inside in (None, (slice(0, height), slice(0, width))):
        return pictures
    return [np.asarray(cv2.resize(picture[inside], (width, height)), np.uint8) for picture in pictures]
