"""Black bars around the picture, which are cut away before the pictures of a shot are compared."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

_BAR = 24  # Grey levels. Bars are darker, with what compression does to them.


def inside_bars(pictures: Sequence[Grey]) -> tuple[slice, slice] | None:
    """The rows and columns within the bars that pictures of one size have in common; None if all of them are black. To a third of
    a side no bars reach; a picture that is dark there is a dark one. pictures: uint8 [h, w] each."""
    seen = np.max(pictures, axis=0) > _BAR
    rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
    if not len(rows):
        return None
    height, width = seen.shape
    top, bottom = min(rows[0], height // 3), max(rows[-1] + 1, height - height // 3)
    left, right = min(columns[0], width // 3), max(columns[-1] + 1, width - width // 3)
    return slice(top, bottom), slice(left, right)


def without_bars(pictures: Sequence[Grey]) -> Sequence[Grey]:
    """The pictures without the bars that they have in common, as large as before: uint8 [h, w] each."""
    inside = inside_bars(pictures)
    height, width = pictures[0].shape
    if inside in (None, (slice(0, height), slice(0, width))):
        return pictures
    return [np.asarray(cv2.resize(picture[inside], (width, height)), np.uint8) for picture in pictures]
