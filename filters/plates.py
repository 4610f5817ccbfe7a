"""The plate under a line of text: a level rectangle of one colour that ends sharply on all sides, as editors put it there.

The colour most frequent on the rim of the text's box is its ground: within, bold letters may take more. The box is grown side
by side as long as the next row or column is of that colour; to the left and to the right, where other words may follow, as long
as it is above and below the letters, and at round corners as long as the middle of the next column is. It is a plate if the
growth ends on every side, above and below within two lines, at an edge or at the frame's; a wall behind a line without a plate
goes on, or fades out. A slab or a road may end as a plate does, but elsewhere in every picture: a plate has to be found again
around its line in another keyframe, or, if the line is in no other one, half a second later.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image
from longtake.filters.text_boxes import LARGEST, Boxes

Mask = npt.NDArray[np.bool_]
Sides = tuple[int, int, int, int]  # Top, bottom, left, right, in px.

SAME = 28  # Levels of red, green or blue by which compression may change a plate's colour.
MODE = 0.25  # Share of a box that its ground must take.
# Share of a row in the plate's colour: at least in a row of the plate, at most in a row beyond it.
FULL, EMPTY = 0.8, 0.5
ABOVE = 2.0  # Line heights that a plate may reach above and below its text.
RIM = 2  # Rows of a box at its upper and at its lower rim.
EDGE = 3  # Px within which a plate must end.
LEVEL = 0.75  # The box of a level line takes this share of its upright bounding box at least.


def on_lasting_plates(keyframes: Image, partners: Image, boxes: Sequence[Boxes]) -> list[Boxes]:
    """The boxes [n, 4, 2] of text in each keyframe, grown to the plates on which they stand, if these last.

    keyframes: RGB uint8 [n, h, w, 3]. partners: the same, of each keyframe half a second later.
    """
    grown = [on_plates(image, found) for image, found in zip(keyframes, boxes, strict=True)]
    lasting = [found.copy() for found in boxes]
    for index, (found, plates) in enumerate(zip(boxes, grown, strict=True)):
        for line, (box, plate) in enumerate(zip(found, plates, strict=True)):
            if np.array_equal(box, plate):
                continue
            others = [other for other in range(len(boxes)) if other != index]
            again = [
                its_plate
                for other in others
                for same, its_plate in zip(boxes[other], grown[other], strict=True)
                if _near(box, same, np.ptp(box, axis=0).min() / 2)
            ]
            if any(_near(plate, one, EDGE) for one in again or on_plates(partners[index], box[None])):
                lasting[index][line] = plate
    return lasting


def on_plates(image: Image, boxes: Boxes) -> Boxes:
    """Boxes [n, 4, 2] of text in an image RGB uint8 [h, w, 3], each grown to the plate on which it stands, if any."""
    return np.array([_grown(image, box) for box in boxes], np.int32).reshape(-1, 4, 2)


def without_known(boxes: Boxes, known: Mask) -> Boxes:
    """The boxes [n, 4, 2] whose plates are to be looked for. known: bool [h, w], what is under panels and marks. Where it reaches
    beyond a box on all sides it is more than the letters."""
    kept = []
    for box in boxes:
        (left, top), (right, bottom) = np.maximum(box.min(axis=0) - EDGE, 0), box.max(axis=0) + EDGE + 1
        kept.append(not known[top:bottom, left:right].all())
    return boxes[np.array(kept, np.bool_)]


def _near(box: npt.NDArray[np.int32], other: npt.NDArray[np.int32], px: float) -> bool:
    """Whether no side of the upright box around a box [4, 2] is farther than so many px from that around the other."""
    sides = [np.concatenate([one.min(axis=0), one.max(axis=0)]) for one in (box, other)]
    return bool(np.abs(sides[0] - sides[1]).max() <= px)


def _grown(image: Image, box: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    height, width = image.shape[:2]
    (left, top), (right, bottom) = np.maximum(box.min(axis=0), 0), np.minimum(box.max(axis=0) + 1, (width, height))
    line = min(right - left, bottom - top)
    upright = bottom - top > right - left
    if line < 4 or not _fills(box):
        return box
    sides = (int(top), int(bottom), int(left), int(right))
    across = round(line * ABOVE)
    grown = _plate(image, sides, (height, across) if upright else (across, width))
    if grown in (None, sides) or (grown[1] - grown[0]) * (grown[3] - grown[2]) > LARGEST * height * width:
        return box
    return _corners(grown)


def _plate(image: Image, sides: Sides, reach: tuple[int, int]) -> Sides | None:
    """The plate around a box, if it ends within reach (px down, px across) of it."""
    height, width = image.shape[:2]
    top, bottom, left, right = sides
    limits = (
        max(0, top - reach[0]),
        min(height, bottom + reach[0]),
        max(0, left - reach[1]),
        min(width, right + reach[1]),
    )
    near = _of_its_colour(image[limits[0] : limits[1], limits[2] : limits[3]], image[top:bottom, left:right])
    if near is None:
        return None
    grown = _rectangle(near, [top - limits[0], bottom - limits[0], left - limits[2], right - limits[2]])
    ends = [
        (grown[0], limits[0] == 0),
        (len(near) - grown[1], limits[1] == height),
        (grown[2], limits[2] == 0),
        (near.shape[1] - grown[3], limits[3] == width),
    ]
    if any(room < EDGE and not at_border for room, at_border in ends) or not _ends_sharply(near, grown):
        return None
    return grown[0] + limits[0], grown[1] + limits[0], grown[2] + limits[2], grown[3] + limits[2]


def _corners(sides: Sides) -> npt.NDArray[np.int32]:
    top, bottom, left, right = sides
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.int32)


def _fills(box: npt.NDArray[np.int32]) -> bool:
    """Whether the box of a line of text, int32 [4, 2], fills its upright bounding box, so that a level plate may hold it."""
    (left, top), (right, bottom) = box.min(axis=0), box.max(axis=0)
    x, y = box.astype(np.float64).T
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    return area >= LEVEL * float(right - left) * float(bottom - top)


def _of_its_colour(around: Image, inside: Image) -> Mask | None:
    """Where the surroundings of a box are of the colour most frequent in it; None where no colour is frequent."""
    import cv2

    flat = np.concatenate([inside[:RIM], inside[-RIM:]]).reshape(-1, 3)
    codes = (flat >> 5).astype(np.int32) @ np.array([64, 8, 1], np.int32)
    counts = np.bincount(codes, minlength=512)
    most = int(np.argmax(counts))
    colour = np.median(flat[codes == most], axis=0)
    if cv2.inRange(np.ascontiguousarray(inside), *_range(colour)).mean() < 255 * MODE:
        return None
    return np.asarray(cv2.inRange(np.ascontiguousarray(around), *_range(colour)) > 0)


def _range(colour: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What differs from a colour by SAME at most."""
    return tuple(float(np.ceil(v - SAME)) for v in colour), tuple(float(np.floor(v + SAME)) for v in colour)


def _rectangle(near: Mask, sides: list[int]) -> list[int]:
    """A rectangle (top, bottom, left, right) grown as long as the next line on a side is of the plate's colour."""
    top, bottom, left, right = sides
    first, last = top, bottom  # Rows of the text.
    grows = True
    while grows:
        grows = False
        if top > 0 and near[top - 1, left:right].mean() >= FULL:
            top, grows = top - 1, True
        if bottom < near.shape[0] and near[bottom, left:right].mean() >= FULL:
            bottom, grows = bottom + 1, True
        rows = np.r_[top:first, last:bottom]
        if len(rows) < EDGE:
            rows = np.arange(top, bottom)
        if left > 0 and near[rows, left - 1].mean() >= FULL:
            left, grows = left - 1, True
        if right < near.shape[1] and near[rows, right].mean() >= FULL:
            right, grows = right + 1, True
    high = bottom - top
    middle = near[top + high // 4 : bottom - high // 4]
    for _ in range(high // 2 if high < right - left else 0):  # Round corners.
        left -= int(left > 0 and middle[:, left - 1].mean() >= FULL)
        right += int(right < near.shape[1] and middle[:, right].mean() >= FULL)
    return [top, bottom, left, right]


def _ends_sharply(near: Mask, sides: list[int]) -> bool:
    """Whether there is little of the plate's colour a few px beyond each side that has something beyond it."""
    top, bottom, left, right = sides
    beyond = []
    if top >= EDGE:
        beyond.append(near[top - EDGE, left:right])
    if bottom + EDGE <= near.shape[0]:
        beyond.append(near[bottom + EDGE - 1, left:right])
    if left >= EDGE:
        beyond.append(near[top:bottom, left - EDGE])
    if right + EDGE <= near.shape[1]:
        beyond.append(near[top:bottom, right + EDGE - 1])
    return all(float(line.mean()) <= EMPTY for line in beyond)
