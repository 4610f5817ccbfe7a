"""Joints of split screens in a scene that stands still: level or upright lines from border to border, exact as no camera is.

An edge of the scene leans by a tenth of a degree at least, bends in the lens, and ends where something stands before it. The
joint of two pictures lies on one row of pixels over its whole length: in each of its parts the profile of the gradients across it
has its peak there, to a fraction of a pixel, and the picture goes on on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

PARTS = 16  # Parts of a joint's length that are looked at one by one.
MOST_PARTS = 14  # Parts, at least, that must show the joint.
SPREAD = 0.2  # Px by which the joint's places in the parts may scatter.
LEAN = 0.2  # Px by which the joint's ends may differ.
AT_PEAK = 0.8  # Share of the parts whose largest step lies on the row of the joint.
NEAR = 3  # Px to both sides of the joint in which a part's peak must lie.
AWAY = 12  # Px to both sides of the joint. The peak must stand out of them.
STANDS_OUT = 2.0  # Factor by which the peak must stand out.
STEP = 4.0  # Grey levels per px at the peak.
# Squared grey levels: the mean squared gradient on either side of a joint. Beside a plain ground there is no second picture.
TEXTURE = 2.0


MOST = 4  # Rows that are looked at: those that stand out most.
SMALLEST, LARGEST = 0.03, 0.5  # Share of the frame. The smaller side of a joint is the inserted picture.


def joined(frames: Sequence[Grey]) -> Mask:
    """The smaller part of a frame beside the joint of two pictures, if there is one: bool [h, w]. frames: grey [h, w]."""
    mean = np.asarray(np.mean(np.stack(frames), axis=0, dtype=np.float32))
    for turned in (False, True):
        place = _joint(np.ascontiguousarray(mean.T) if turned else mean)
        if place is None:
            continue
        mask = np.zeros(mean.shape, np.bool_)
        side = mask.T if turned else mask
        side[slice(0, place) if 2 * place < len(side) else slice(place, None)] = True
        return mask
    return np.zeros(mean.shape, np.bool_)


def _joint(mean: Field) -> int | None:
    """The row at which a level joint begins its lower picture, in the mean [h, w] of all frames."""
    height, width = mean.shape
    if height < 4 * AWAY or width < 4 * PARTS:
        return None
    steps = np.abs(np.diff(mean, axis=0))
    rows = steps.mean(axis=1)
    beside = np.maximum(np.roll(rows, 2 * NEAR), np.roll(rows, -2 * NEAR))
    stands_out = rows / np.maximum(beside, 0.5)
    least = max(AWAY, round(SMALLEST * height))
    stands_out[:least] = stands_out[len(rows) - least :] = 0.0
    for row in np.argsort(-stands_out)[:MOST]:
        if stands_out[row] > 1 and _is_joint(steps[row - AWAY : row + AWAY + 1]):
            return int(row) + 1
    return None


def _is_joint(steps: Field) -> bool:
    """Whether the middle row of the lengths of steps down [2 · AWAY + 1, w] is a joint."""
    parts = steps[:, : steps.shape[1] // PARTS * PARTS].reshape(len(steps), PARTS, -1).mean(axis=2)
    middle = parts[AWAY - NEAR : AWAY + NEAR + 1]
    beside = np.concatenate([parts[: AWAY - NEAR - 1], parts[AWAY + NEAR + 2 :]])
    usual = np.median(beside, axis=0)
    shows = (middle.max(axis=0) > np.maximum(STANDS_OUT * usual, STEP)) & (middle.max(axis=0) > beside.max(axis=0))
    if shows.sum() < MOST_PARTS or min(float(np.square(side).mean()) for side in np.array_split(beside, 2)) < TEXTURE:
        return False
    above = np.maximum(middle - usual, 0.0)[:, shows]
    peak = int(np.argmax(above.sum(axis=1)))
    window = above[max(0, peak - 1) : peak + 2]
    places = (np.arange(len(window))[:, None] * window).sum(axis=0) / np.maximum(window.sum(axis=0), 1e-6)
    slope = np.polyfit(np.flatnonzero(shows), places, 1)[0]
    at_peak = float((np.argmax(above, axis=0) == peak).mean())
    return bool(places.std() <= SPREAD and abs(slope) * PARTS <= LEAN and at_peak > AT_PEAK)
