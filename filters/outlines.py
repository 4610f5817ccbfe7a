"""Outlines of pale marks: closed lines that stand still and jump one way, from the scene to the mark, all the way round.

A flat mark of a quarter's opacity changes the picture behind it by little: on its rim most frames' own edges are stronger. What
tells it is that all of its rim agrees. Gradients are clipped, so that no frame counts for more than a pale mark's own edge, and
summed over the frames; of that sum, the part across a short line is averaged along it, for eight directions, and compared with
the energy around. Where the strongest of these closes round an area, that area is a mark if the jump over its rim goes one way:
what a scene leaves in the sum closes seldom, and then jumps both ways.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

MOST = 8.0  # Grey levels per px that a frame counts for, at most: about the edge of a white mark at alpha 0.25.
NOISE = 0.5  # Grey levels per px of coding and noise in one frame.
AROUND = 9  # Px over which the energy around a line is averaged.
# Shares of the energy that all frames have in common along a line. Three levels are tried: a weak place must not open
# the outline of a mark on a quiet ground, nor the ground of a busy picture close it.
LEVELS = (0.12, 0.2, 0.3)
LEAST = 0.7  # Grey levels per px, in the mean of all frames, of every px of an outline.
JUMP = 1.8  # Grey levels per px, in the mean of all frames, of an outline as a whole.
GAP = 3  # Px that an outline may miss.
ONE_WAY = 0.6  # Share of the jump over an outline that goes one way.
COMPACT = 0.15  # 4π · area / perimeter², which is 1 for a disc. Chance makes ragged areas.
SMALLEST, LARGEST = 0.005, 0.3  # Share of the frame.

# Points (right, down) of short lines in eight directions, and the directions across them.
LINES = tuple(
    (
        tuple((round(x * t), round(y * t)) for t in (-2, -1, 0, 1, 2)),
        (-y / float(np.hypot(x, y)), x / float(np.hypot(x, y))),
    )
    for x, y in ((2, 0), (2, 1), (1.5, 1.5), (1, 2), (0, 2), (-1, 2), (-1.5, 1.5), (-2, 1))
)
REACH = 4  # Px: the distance of the farthest of these points.


def outlined(sums: Field, frames: int) -> Mask:
    """What lies within outlines: bool [h, w].

    sums: float32 [3, h, w], over the frames, of gradients clipped to MOST (right, down) and of their squared lengths.
    """
    import cv2

    right, down = sums[0] / frames, sums[1] / frames
    length = cv2.magnitude(right, down)
    common = _along_lines(right, down) / (cv2.blur(sums[2], (AROUND, AROUND)) / frames + NOISE**2)
    weak = length > LEAST
    mask = np.zeros(length.shape, np.bool_)
    for level in LEVELS:
        on = ((common > level) & weak).astype(np.uint8)
        on = cv2.morphologyEx(on, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP)))
        for window, inside in _holes(np.asarray(on, np.uint8)):
            if _jumps_one_way(inside, right[window], down[window], length[window]):
                mask[window] |= cv2.dilate(inside, np.ones((3, 3), np.uint8)) > 0
    return mask


def _along_lines(right: Field, down: Field) -> Field:
    """The squared mean of a gradient across short lines, of the line on which it is largest: float32 [h, w]."""
    height, width = right.shape
    padded = np.pad(np.stack([right, down]), ((0, 0), (REACH, REACH), (REACH, REACH)), mode="edge")
    best = np.zeros_like(right)
    for points, (to_right, to_down) in LINES:
        across = np.float32(to_right) * padded[0] + np.float32(to_down) * padded[1]
        total = np.zeros_like(right)
        for x, y in points:
            total += across[REACH + y : REACH + y + height, REACH + x : REACH + x + width]
        total *= total
        np.maximum(best, total, out=best)
    return best / np.float32(len(LINES[0][0]) ** 2)


def _holes(on: npt.NDArray[np.uint8]) -> Iterator[tuple[tuple[slice, slice], npt.NDArray[np.uint8]]]:
    """Areas closed in by lines of the right size: a window with some room around each, and the area in it (1)."""
    import cv2

    height, width = on.shape
    free = np.pad(1 - on, 1, constant_values=1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    fits = (stats[:, 4] >= SMALLEST * on.size) & (stats[:, 4] <= LARGEST * on.size)
    for label in np.flatnonzero(fits):
        if label in (0, labels[0, 0]):
            continue
        x, y, w, h, _ = (int(value) for value in stats[label])
        window = (
            slice(max(0, y - 1 - REACH), min(height, y - 1 + h + REACH)),
            slice(max(0, x - 1 - REACH), min(width, x - 1 + w + REACH)),
        )
        yield window, (labels[1:-1, 1:-1][window] == label).astype(np.uint8)


def _jumps_one_way(inside: npt.NDArray[np.uint8], right: Field, down: Field, length: Field) -> bool:
    """Whether the mean gradient on the rim of an area points inwards all the way round, or outwards."""
    import cv2

    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    perimeter = max(len(contour) for contour in contours)
    if 4 * np.pi * float(inside.sum()) < COMPACT * perimeter**2:
        return False
    rim = (cv2.dilate(inside, np.ones((7, 7), np.uint8)) - cv2.erode(inside, np.ones((3, 3), np.uint8))) > 0
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 2.5)
    x, y = cv2.Sobel(soft, cv2.CV_32F, 1, 0)[rim], cv2.Sobel(soft, cv2.CV_32F, 0, 1)[rim]
    inwards = (right[rim] * x + down[rim] * y) / np.maximum(np.hypot(x, y), 1e-6)
    return bool(abs(float(inwards.sum())) > ONE_WAY * float(length[rim].sum()) and float(np.abs(inwards).mean()) > JUMP)
