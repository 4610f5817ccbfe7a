"""Pushes: a picture goes out on one side while another one comes in behind it, as if the camera moved on by just one picture.

It differs from a move of the camera by two things together: it goes along a side by one picture, from rest to rest; and a seam
goes with it, or its speed is even. A slow move from rest to rest by one picture may be a push in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Way = npt.NDArray[np.float64]

_SIZE = (64, 36)  # Pixels, width and height.
# A share of a side. In a shorter way there is no push, even if its slow ends are not looked at.
_SOME = 0.2
# Shares of a side. A push goes by one side, of which the slow ends may be missing, and by nothing across, as far as its takes do
# not move.
_MISSING, _ACROSS = 0.25, 0.45
# Pictures, and a share of the mean speed of a push. Before and after it, pictures move no faster, as far as the takes themselves
# do not.
_REST, _SLOW = 3, 0.6
# A share of the mean speed, a share of a side, and pictures. A push of an even speed stops and begins so suddenly, and is nowhere
# further from this speed, for at least so long. No hand moves a camera so.
_SUDDEN, _EVEN, _LONG = 0.25, 0.05, 7
# Pictures. In a push that takes longer, the seam is lost, since the takes themselves move, too: each move like it may be one.
_SLOWLY = 14
# A factor. Across the seam of a push pictures change so much more than across lines beside it: 92 of 95 pushes and 11 of 25
# moves by one picture do.
_SEAM = 1.45
_LINES = (-12, -8, -4, 4, 8, 12)  # Pixels from the seam to those lines.
_SOFT, _SIDE = 2, 6  # Pixels from a line to the columns that are compared across it, and on one side of it.
_NOISE = 3.0  # Grey levels. A change of so much says nothing.
_USUAL = 0.6  # The change across a line, against that beside it, where no other line is known.


def pushed(pictures: Sequence[Grey], shifts: Sequence[Way]) -> bool:
    """Whether some of the pictures, uint8 [36, 64] each, one after another, may be a push. shifts: by how much the camera seems
    to move from each picture to the next, pixels to the right and down, float64 [2] each."""
    places = np.concatenate([np.zeros((1, 2)), np.cumsum(shifts, axis=0)])
    if np.abs(places / _SIZE).max() < _SOME:
        return False
    number = np.arange(len(places))
    earlier, later = np.maximum(number - _REST, 0), np.minimum(number + _REST, len(number) - 1)
    before = np.abs(places - places[earlier]) / np.maximum(number - earlier, 1)[:, None]
    after = np.abs(places - places[later]) / np.maximum(later - number, 1)[:, None]
    # A push that begins with the first picture or stops with the last one looks like a part of a longer move.
    before[0], after[-1] = np.inf, np.inf
    for side, length in enumerate(_SIZE):
        for begin in range(len(places) - 1):
            ways = np.abs(places[begin + 1 :] - places[begin])
            speeds = ways[:, side] / np.arange(1, len(ways) + 1)
            rests = np.maximum(before[begin, side], after[begin + 1 :, side]) / np.maximum(speeds, 1e-6)
            by = np.abs(ways[:, side] / length - 1)
            may = (by <= _MISSING) & (ways[:, 1 - side] <= _ACROSS * _SIZE[1 - side]) & (rests <= _SLOW)
            if not may.any():
                continue
            last = int(np.argmin(np.where(may, by, np.inf)))
            way = (places[begin + 1 :, side] - places[begin, side])[: last + 1]
            if last >= _SLOWLY or (rests[last] <= _SUDDEN and _even(way / length)):
                return True
            if _seam([_along(picture, side) for picture in pictures[begin + 1 : begin + 2 + last]], way) >= _SEAM:
                return True
    return False


def _even(way: Way) -> bool:
    """Whether a way is one of an even speed but for its last step. way: shares of a side, [pictures]."""
    count = len(way) - 1
    if count < _LONG:
        return False
    slope, start = np.polyfit(np.arange(count), way[:-1], 1)
    return bool(np.abs(way[:-1] - slope * np.arange(count) - start).max() <= _EVEN)


def _along(picture: Grey, side: int) -> npt.NDArray[np.float32]:
    """A picture whose columns lie across the way of a push to the side (0), or up and down (1)."""
    return (picture if side == 0 else picture.T).astype(np.float32)


def _seam(pictures: Sequence[npt.NDArray[np.float32]], way: Way) -> float:
    """How much more pictures change across the column to which the border of the one before them has come than across those
    beside it. way: by how many pixels the camera has moved in each, [pictures]."""
    length = pictures[0].shape[1]
    border = length - 0.5 if way[-1] > 0 else -0.5
    changes: dict[int, list[float]] = {offset: [] for offset in (0, *_LINES)}
    for picture, moved in zip(pictures, way.tolist(), strict=True):
        for offset, known in changes.items():
            at = border - moved + offset
            if _SIDE + 1 <= at <= length - _SIDE - 3:
                known.append(_change(picture, at))
    seam = changes.pop(0)
    if len(seam) < 2:
        return 0.0
    beside = [float(np.median(known)) for known in changes.values() if len(known) >= 2] or [_USUAL]
    return float(np.median(seam)) / max(float(np.median(beside)), 0.1)


def _change(picture: npt.NDArray[np.float32], at: float) -> float:
    """How much a picture changes across the column at a place, against the change on both sides of it."""
    columns = []
    for offset in (-_SIDE, -_SOFT, _SOFT, _SIDE):
        left, share = int(at + offset), (at + offset) % 1
        columns.append(picture[:, left] * (1 - share) + picture[:, left + 1] * share)
    far_left, near_left, near_right, far_right = columns
    sides = (np.abs(far_left - near_left).mean() + np.abs(far_right - near_right).mean()) / 2
    return float(np.abs(near_left - near_right).mean() / (sides + _NOISE))
