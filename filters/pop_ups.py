"""Pop-ups: rectangles that are in some frames of a scene that stands still, and not in the others. Inserted pictures, cards,
plates of captions.

In a tripod shot what moves has any outline; what an editor shows for a while is a level rectangle. Each frame is compared with
the median of all frames of the clip (long side 320): what differs from it in a connected area, fills its bounding rectangle, and
has an edge along all four sides of it in this frame that the median has not, was put there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image

Mask = npt.NDArray[np.bool_]

WORK_SIDE = 320
DIFFERS = 20  # Levels of red, green or blue by which a pop-up differs from the median.
SMALLEST, LARGEST = 0.005, 0.6  # Share of the frame.
FILLED = 0.85  # Share of its bounding rectangle that a pop-up must fill.
SIDE = 0.8  # Share of each side that must be an edge.
EDGE = 8.0  # Levels per px of an edge.
GAP = 5  # Px between the parts of one pop-up: its letters may have the median's own colour.


def pop_ups(keyframes: Sequence[Image] | Image, partners: Sequence[Image] | Image) -> list[Mask]:
    """What pops up in each keyframe: bool [h, w]. Frames: RGB uint8 [h, w, 3], or [n, h, w, 3]."""
    import cv2

    height, width = keyframes[0].shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in (*keyframes, *partners)])
    usual = _middle(np.asarray(small, np.uint8))
    found = []
    for frame in small[: len(keyframes)]:
        mask = _rectangles(frame, usual).astype(np.uint8)
        found.append(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0)
    return found


def _middle(frames: Image) -> Image:
    """The median (the upper one of two) of each level over frames [n, h, w, 3], by exchanges of whole frames: [h, w, 3]."""
    levels = list(frames)
    for turn in range(len(levels)):
        for i in range(turn % 2, len(levels) - 1, 2):
            levels[i], levels[i + 1] = np.minimum(levels[i], levels[i + 1]), np.maximum(levels[i], levels[i + 1])
    return np.asarray(levels[len(levels) // 2], np.uint8)


def _rectangles(frame: Image, usual: Image) -> Mask:
    import cv2

    differs = (cv2.absdiff(frame, usual).max(axis=2) > DIFFERS).astype(np.uint8)
    closed = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((GAP, GAP), np.uint8))
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((GAP, GAP), np.uint8))
    out = np.zeros(opened.shape, np.bool_)
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    for left, top, width, height, area in stats[1:].tolist():
        if not SMALLEST * out.size <= area <= LARGEST * out.size or area < FILLED * width * height:
            continue
        window = (left, top, left + width, top + height)
        if min(_sides(frame, window)) >= SIDE and min(_sides(usual, window)) < SIDE / 2:
            out[top : top + height, left : left + width] = True
    return out


def _sides(frame: Image, window: tuple[int, int, int, int]) -> list[float]:
    """Of each side of a rectangle within a frame, the share that is an edge across it, one px inside or outside."""
    left, top, right, bottom = window
    image = frame.astype(np.int16)
    shares = [1.0]
    for place, turned, along in (
        (left, image, slice(top, bottom)),
        (right, image, slice(top, bottom)),
        (top, image.swapaxes(0, 1), slice(left, right)),
        (bottom, image.swapaxes(0, 1), slice(left, right)),
    ):
        if 1 < place < turned.shape[1] - 1:
            strip = turned[along, max(0, place - 3) : place + 3]
            steps = np.abs(np.diff(strip, axis=1)).max(axis=(1, 2))
            shares.append(float((steps >= EDGE).mean()))
    return shares
