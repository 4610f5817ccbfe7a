"""The ground behind a figure that the camera follows: what goes by, while the figure stays in the picture.

A camera that walks along with a person, or a drone that follows a car, shows another ground each second behind a figure that is
always there. For the shot network that is what a transition looks like: the scene is another one, and some of it vanishes in its
place, behind the figure. Such a move is followed by its ground alone (`camera_moves`).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]

# Pictures, half a second. In that time the ground has gone on, and the figure is still there.
_LATER = 6
_PAIRS = 16  # Pairs of pictures, at most, which lie evenly over the stretch.
_AROUND = (8, 6)  # Pixels, width and height: what is compared around each pixel.
_NEAR = 2  # Pixels. A figure moves no further in its place.
_NOISE = 9.0  # Grey levels squared. A variance that noise alone makes.
# A mean correlation over the pairs. A pixel of the figure has at least that.
_STAYS = 0.6
_BESIDE = np.ones((5, 5), np.uint8)  # Pixels about those of the figure: its arms and legs.
_MOST = 0.6  # A share of the picture. If more of it stays, too little ground is left to be followed.


def ground_of(pictures: Sequence[Grey]) -> Matrix | None:
    """1 for each pixel of the ground, 0 for those of a figure that stays in the picture: float32 [36, 64]; None if more of the
    picture stays than not. pictures: uint8 [36, 64] each, some twelve a second."""
    if len(pictures) <= _LATER:
        return None
    numbers = np.unique(np.linspace(0, len(pictures) - 1 - _LATER, _PAIRS).round().astype(int))
    stays = np.mean([_stays(pictures[i], pictures[i + _LATER]) for i in numbers], axis=0)
    smooth = cv2.GaussianBlur(stays.astype(np.float32), (0, 0), 1.0)
    figure = cv2.dilate((smooth > _STAYS).astype(np.uint8), _BESIDE)
    return None if figure.mean() > _MOST else np.asarray(1 - figure, np.float32)


def _stays(before: Grey, after: Grey) -> Matrix:
    """How much alike two pictures are around each pixel, in its place or up to `_NEAR` pixels beside it: a correlation, float32
    [36, 64]."""
    height, width = before.shape
    padded = cv2.copyMakeBorder(before, _NEAR, _NEAR, _NEAR, _NEAR, cv2.BORDER_REPLICATE)
    shifted = np.lib.stride_tricks.sliding_window_view(padded, (height, width)).reshape(-1, height, width)
    was = np.ascontiguousarray(shifted.transpose(1, 2, 0), np.float32)
    now = after.astype(np.float32)[..., None]
    levels, level = _mean(was), _mean(now)
    spreads, spread = _mean(was * was) - levels**2, _mean(now * now) - level**2
    both = _mean(was * now) - levels * level
    return np.asarray((both / np.sqrt(np.maximum(spreads * spread, _NOISE))).max(axis=2), np.float32)


def _mean(values: Matrix) -> Matrix:
    """The mean around each pixel. float32 [h, w, n]."""
    mean = cv2.boxFilter(values, -1, _AROUND, borderType=cv2.BORDER_REFLECT)
    return np.asarray(mean, np.float32).reshape(values.shape)
