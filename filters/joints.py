"""Joints of split screens, above all in a scene that stands still: level or upright lines from border to border, exact as no
camera is.

An edge of the scene leans by a tenth of a degree at least, bends in the lens, and ends where something stands before it. The
joint of two pictures lies on one row of pixels over its whole length: in each of its parts the profile of the gradients across it
has its peak there, to a fraction of a pixel, and the picture goes on on both sides. In a scene that moves such a line may be an
edge in one frame, or a horizon in a level pan: there it has to stand out in most frames, and what lies on its two sides has to
move apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

PARTS = 16  # Parts of a joint's length that are looked at one by one.
MOST_PARTS = 14  # Parts, at least, that must show the joint; one more in a scene that moves.
SPREAD = 0.2  # Px by which the joint's places in the parts may scatter.
LEAN = 0.4  # Px by which the joint's ends may differ: a tenth of a degree is 0.9 px on the short side of 540.
AT_PEAK = 0.8  # Share of the parts whose largest step lies on the row of the joint.
NEAR = 3  # Px to both sides of the joint in which a part's peak must lie.
AWAY = 12  # Px to both sides of the joint. The peak must stand out of them.
STANDS_OUT = 2.0  # Factor by which the peak must stand out.
STEP = 4.0  # Grey levels per px at the peak.
# Share of the step that must be left NEAR px beyond both sides of it: a thin line of a scene, as on a mat, has another picture
# on neither side.
STAYS = 0.5
# Squared grey levels: the mean squared gradient on either side of a joint. Beside a plain ground there is no second picture.
TEXTURE = 2.0
# Correlation of the edges on the two sides of a line. A joint breaks off what meets it. Beside the joints of split screens the
# correlation is 0.4 at most, beside the lines of chess boards and tiled floors 0.66 and more.
GOES_ON = 0.5
MOST_EDGE = 20.0  # Grey levels per px that an edge counts for there, at most.
# Share of the frames of a scene that moves in which a joint stands out, and the factor by which it does.
OFTEN, IN_ONE = 0.8, 1.2
ALIKE = 2.0  # Px by which the shifts of its two sides may differ in a scene that moves as one.
SURE = 0.1  # Response of the phase correlation from which on its shift is believed.


MOST = 4  # Rows that are looked at: those that stand out most.
SMALLEST, LARGEST = 0.03, 0.5  # Share of the frame. The smaller side of a joint is the inserted picture.


def joined(frames: Sequence[Grey], *, moving: bool = False) -> Mask:
    """The smaller part of a frame beside the joint of two pictures, if there is one: bool [h, w]. frames: grey [h, w].

    moving: the scene is known to move, so that the joint has to stand out in most frames: in their mean one frame's edge would
    do.
    """
    import cv2

    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        cv2.accumulate(frame, total)
    mean = total / np.float32(len(frames))
    for turned in (False, True):
        views = [frame.T for frame in frames] if turned else list(frames)
        place = _joint(np.asarray(cv2.transpose(mean), np.float32) if turned else mean, moving)
        if place is None or (moving and not _is_of_two_films(views, place)):
            continue
        mask = np.zeros(mean.shape, np.bool_)
        side = mask.T if turned else mask
        side[slice(0, place) if 2 * place < len(side) else slice(place, None)] = True
        return mask
    return np.zeros(mean.shape, np.bool_)


def _stands_out(frame: Grey, place: int) -> bool:
    """Whether one frame [h, w] has larger steps on the row at `place` than on those near it."""
    rows = frame[place - AWAY : place + AWAY].astype(np.float32)
    steps = np.abs(np.diff(rows, axis=0)).mean(axis=1)
    return bool(steps[AWAY - 1] > IN_ONE * np.delete(steps, slice(AWAY - 2, AWAY + 1)).max())


def _moves_as_one(frames: Sequence[Grey], place: int) -> bool:
    """Whether what lies above the row at `place` and what lies below move alike from keyframes to their partners: then it is an
    edge of one scene, in a level pan. frames [h, w]: keyframes, then partners."""
    import cv2

    half, deep = len(frames) // 2, min(place, len(frames[0]) - place) - NEAR
    window = cv2.createHanningWindow((frames[0].shape[1], deep), cv2.CV_32F)
    alike = 0
    for before, after in zip(frames[:half], frames[half:], strict=False):
        shifts = []
        for rows in (slice(place - NEAR - deep, place - NEAR), slice(place + NEAR, place + NEAR + deep)):
            first, second = (np.ascontiguousarray(frame[rows], np.float32) for frame in (before, after))
            shifts.append(cv2.phaseCorrelate(first, second, window))
        ((x, y), sure), ((other_x, other_y), other_sure) = shifts
        alike += min(sure, other_sure) > SURE and max(abs(x - other_x), abs(y - other_y)) <= ALIKE
    return alike >= max(1, half // 2)


def _is_of_two_films(frames: Sequence[Grey], place: int) -> bool:
    """Whether a joint stands out in most frames [h, w], with a picture on both sides, and these move apart."""
    if sum(_stands_out(frame, place) for frame in frames) < OFTEN * len(frames):
        return False
    # The mean lacks what moves, and with it the texture on both sides.
    above, below = (_texture(frames, slice(place + a, place + b)) for a, b in ((-AWAY, -NEAR), (NEAR, AWAY)))
    return min(above, below) >= TEXTURE and not _moves_as_one(frames, place)


def _texture(frames: Sequence[Grey], rows: slice) -> float:
    """The mean squared step down in some rows, of parts of them and over all frames [h, w]."""
    found = []
    for frame in frames:
        steps = np.abs(np.diff(frame[rows].astype(np.float32), axis=0))
        parts = steps[:, : steps.shape[1] // PARTS * PARTS].reshape(len(steps), PARTS, -1).mean(axis=2)
        found.append(float(np.square(parts).mean()))
    return float(np.mean(found))


def _joint(mean: Field, moving: bool) -> int | None:
    """The row at which a level joint begins its lower picture, in the mean [h, w] of all frames."""
    import cv2

    height, width = mean.shape
    if height < 4 * AWAY or width < 4 * PARTS:
        return None
    steps = np.asarray(cv2.absdiff(mean[1:], mean[:-1]), np.float32)
    rows = steps.mean(axis=1)
    beside = np.maximum(np.roll(rows, 2 * NEAR), np.roll(rows, -2 * NEAR))
    stands_out = rows / np.maximum(beside, 0.5)
    least = max(AWAY, round(SMALLEST * height))
    stands_out[:least] = stands_out[len(rows) - least :] = 0.0
    for row in np.argsort(-stands_out)[:MOST]:
        if stands_out[row] > 1 and _is_joint(steps[row - AWAY : row + AWAY + 1], moving):
            peak = int(row) - NEAR + int(np.argmax(rows[row - NEAR : row + NEAR + 1]))
            above, below = mean[peak - NEAR], mean[peak + 1 + NEAR]
            if float(cv2.absdiff(above, below).mean()) >= STAYS * rows[peak] and not _goes_on(above, below):
                return int(row) + 1
    return None


def _goes_on(above: Field, below: Field) -> bool:
    """Whether the edges on a row [w] above a line go on below it."""
    import cv2

    edges = [np.minimum(cv2.blur(np.abs(np.diff(row))[None], (3, 1))[0], MOST_EDGE) for row in (above, below)]
    return min(float(one.std()) for one in edges) > 0 and float(np.corrcoef(*edges)[0, 1]) > GOES_ON


def _is_joint(steps: Field, moving: bool) -> bool:
    """Whether the middle row of the lengths of steps down [2 · AWAY + 1, w] is a joint. moving: the texture beside it is not
    looked for."""
    parts = steps[:, : steps.shape[1] // PARTS * PARTS].reshape(len(steps), PARTS, -1).mean(axis=2)
    middle = parts[AWAY - NEAR : AWAY + NEAR + 1]
    beside = np.concatenate([parts[: AWAY - NEAR - 1], parts[AWAY + NEAR + 2 :]])
    largest = middle.max(axis=0)
    shows = (largest > STEP) & (largest > beside.max(axis=0))
    if shows.sum() < MOST_PARTS + moving:  # The median, which takes longer, would only take some away.
        return False
    usual = np.median(beside, axis=0)
    shows &= largest > STANDS_OUT * usual
    if shows.sum() < MOST_PARTS + moving:
        return False
    if not moving and min(float(np.square(side).mean()) for side in np.array_split(beside, 2)) < TEXTURE:
        return False
    above = np.maximum(middle - usual, 0.0)[:, shows]
    peak = int(np.argmax(above.sum(axis=1)))
    window = above[max(0, peak - 1) : peak + 2]
    places = (np.arange(len(window))[:, None] * window).sum(axis=0) / np.maximum(window.sum(axis=0), 1e-6)
    slope = np.polyfit(np.flatnonzero(shows), places, 1)[0]
    at_peak = float((np.argmax(above, axis=0) == peak).mean())
    return bool(places.std() <= SPREAD and abs(slope) * PARTS <= LEAN and at_peak > AT_PEAK)
