"""Changes of a still picture: slides, boards, a tripod shot that is followed by another.

Where nothing moves for a second before and after, one change stands out that the shot network may take for a small thing, since
a frame or a heading stays. What tells it from something that pops up over a still scene is how much of the picture is gone.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

_STILL = 1.0  # Seconds. Nothing moves for so long before and after.
_FEW = 3  # Pictures. At least this number before and after is looked at, however long they last.
# Of the differences between two pictures, grey levels, one in fifty is larger than the change. A change is stark from `_LEAST`
# on, if it is `_TIMES` as large as any other around it; noise up to `_NOISE` is none.
_CHANGE, _LEAST, _TIMES, _NOISE = 98, 12.0, 4.0, 2.0
_BLOCK = (8, 6)  # Pixels, width and height.
# Grey levels. A block whose standard deviation is greater shows something, if the means of its rows and of its columns are taken
# away first: the straight edge of a frame, a border or a page shows nothing.
_BUSY = 2.0
_SAME = 0.8  # Correlation of a block with the one in its place. Light and contrast do not matter.
_BLOCKS = 8  # Blocks, of 48. A picture with fewer that show something is a plain one, with a title at most.
# A share of these blocks. Where fewer are the same, there is another picture.
_KEPT = 0.45


def still_changes(times: npt.NDArray[np.float64], greys: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """times: seconds, float64 [n]. greys: uint8 [n, 36, 64]. Before which of them another still picture comes, bool [n]. Of the
    first and last second of them nothing can be said."""
    count = len(times)
    found = np.zeros(count, bool)
    if count < 2 * _FEW:
        return found
    apart = np.abs(np.diff(greys.astype(np.int16), axis=0)).reshape(count - 1, -1)
    change = np.concatenate([[0.0], np.percentile(apart, _CHANGE, axis=1)])
    for i in np.nonzero(change > _LEAST)[0].tolist():
        low = min(int(np.searchsorted(times, times[i] - _STILL)), i - _FEW)
        high = max(int(np.searchsorted(times, times[i] + _STILL)), i + 1 + _FEW)
        others = np.concatenate([change[max(low, 1) : i], change[i + 1 : high]])
        if low < 0 or high > count or change[i] <= _TIMES * max(float(others.max()), _NOISE):
            continue
        found[i] = another(greys[i - 1], greys[i])
    return found


def another(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> bool:
    """Whether most of what a picture shows is gone in the next one, and has not merely moved, as by a jerk of the camera."""
    was, now = before.astype(np.float32), after.astype(np.float32)
    (dx, dy), _ = cv2.phaseCorrelate(was, now)
    moved = min(max(round(dx), -was.shape[1] // 3), was.shape[1] // 3), min(max(round(dy), -12), 12)
    return _kept(was, now, 0, 0) < _KEPT and _kept(was, now, *moved) < _KEPT


def _kept(was: Matrix, now: Matrix, dx: int, dy: int) -> float:
    """The share of the blocks that show something in one of two pictures and are the same in the other, (dx, dy) pixels away: the
    greater one of the two shares. 1 where a picture shows next to nothing."""
    height, width = was.shape
    a = _blocks(was[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)])
    b = _blocks(now[max(dy, 0) : height - max(-dy, 0), max(dx, 0) : width - max(-dx, 0)])
    spreads = a.std(axis=1), b.std(axis=1)
    same = (a * b).mean(axis=1) > _SAME * spreads[0] * spreads[1] + 1e-3
    busy = [spread > _BUSY for spread in spreads]
    return max(float(same[some].mean()) if some.sum() >= _BLOCKS else 1.0 for some in busy)


def _blocks(picture: Matrix) -> Matrix:
    """float32 [blocks, pixels], without the means of their rows and columns; what is left over at the right and at the bottom is
    left out."""
    (width, height), (high, wide) = _BLOCK, picture.shape
    rows, columns = high // height, wide // width
    cut = picture[: rows * height, : columns * width]
    blocks = cut.reshape(rows, height, columns, width).transpose(0, 2, 1, 3).reshape(-1, height, width)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    return np.ascontiguousarray(blocks.reshape(len(blocks), -1))
