"""Pop-ups: rectangles that are in some frames of a scene that stands still, and not in the others. Inserted pictures, cards,
plates of captions.

In a tripod shot what moves has any outline; what an editor shows for a while is a level rectangle. Each frame is compared with
the median of all frames of the clip (long side 320): what differs from it in a connected area, fills its bounding rectangle, and
has an edge along all four sides of it in this frame that the median has not, was put there.

A white card over a bright ground differs from it by a few levels along parts of its rim. But what stands still is gone from the
difference between frame and median, and there a card's sides are straight lines on one row or column from corner to corner,
however faint (panels.py), nearly all that is within differs, and beyond some part of each side nothing does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image
from longtake.filters.marks import gradients
from longtake.filters.panels import Panel, panels, seam_maps

Mask = npt.NDArray[np.bool_]

WORK_SIDE = 320
DIFFERS = 20  # Levels of red, green or blue by which a pop-up differs from the median.
SMALLEST, LARGEST = 0.005, 0.6  # Share of the frame.
FILLED = 0.85  # Share of its bounding rectangle that a pop-up must fill.
SIDE = 0.8  # Share of each side that must be an edge.
EDGE = 8.0  # Levels per px of an edge.
COVERED = 0.95  # Share of a card's sides that must lie on straight lines of the difference.
CARD = 0.02  # Share of the frame: the smallest card whose rim is so faint.
DIFFERS_AT_ALL = 8  # DIFFERS within a card of the ground's own lightness, and beyond its sides.
# Share of a card that must differ so. A person before a wall has lines that look like sides, but within them 0.58 differs.
OWN = 0.9
QUIET = 0.25  # Share of the strip beyond each of its sides that must not.
INNER = 3  # Sides of a card that must lie within the frame.
BEYOND = slice(1, 4)  # Px from a side to the strip beyond it.
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
        mask = (_rectangles(frame, usual) | _cards(frame, usual)).astype(np.uint8)
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


def _cards(frame: Image, usual: Image) -> Mask:
    """Cards whose rim is faint in parts: bool [h, w]."""
    import cv2

    difference = np.clip((frame.astype(np.int16) - usual) // 2 + 128, 0, 255).astype(np.uint8)
    fields = gradients([difference[..., channel] for channel in range(3)])
    # At each pixel, the channel in which the difference has the strongest edge.
    strongest = np.abs(fields).argmax(axis=0)
    found = panels(seam_maps(np.take_along_axis(fields, strongest[None], axis=0)))  # The best covered first.
    differs = cv2.absdiff(frame, usual).max(axis=2) > DIFFERS_AT_ALL
    mask = np.zeros(differs.shape, np.bool_)
    for panel in found:
        fits = CARD * mask.size <= panel.area <= LARGEST * mask.size and panel.covered >= COVERED
        new = fits and not mask[panel.window].any()  # Other readings of a card overlap with it.
        if new and panel.inner(*mask.shape) >= INNER and _is_card(panel, differs):
            mask[panel.window] = True
    return mask


def _is_card(panel: Panel, differs: Mask) -> bool:
    """Whether most of a panel differs from what is there otherwise, and beyond each of its sides something does not."""
    rows, columns = panel.window
    height, width = differs.shape
    sides = (
        (differs[: panel.top, columns][::-1], panel.top),
        (differs[panel.bottom :, columns], height - panel.bottom),
        (differs[rows, : panel.left].T[::-1], panel.left),
        (differs[rows, panel.right :].T, width - panel.right),
    )
    quiet = [1 - float(beyond[BEYOND].mean()) for beyond, room in sides if room >= BEYOND.stop]
    return float(differs[panel.window].mean()) >= OWN and min(quiet, default=0.0) >= QUIET


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
