"""Round pictures in pictures: circles at which the picture jumps in most frames, while the scene moves.

The rim of an inserted picture is an edge of one direction in most frames, whatever its strength and its sign: for a circle that
direction is its radius. Each such pixel votes for the centres that lie along it (the Hough transform by gradients: Kimme, Ballard
and Sklansky, "Finding circles by an array of accumulators", CACM 1975). Of the best centre the circle is fitted, and it has to be
seen nearly all the way round: what passes by makes such rims by chance, and they take half of a circle at most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

SMALLEST, LARGEST = 0.01, 0.3  # Share of the frame's area. The image of a fish-eye lens is larger.
VOTERS = 1000  # Pixels that vote, at most.
CELL = 2  # Px: the side of an accumulator's cell, and the step between the radii that are tried.
NEAR = 2.5  # Px by which a rim's pixels may lie off the circle.
RADIAL = 0.9  # Cosine between a pixel's direction and the radius.
SECTORS = 64  # Sectors of a circle in each of which its rim is looked for.
ROUND = 0.8  # Share of the sectors within the frame. On real film that moves, chance has 0.53 at most.


def disc(rims: Mask, tensor: Field) -> Mask:
    """What lies within the best circle on the rims, if one is closed: bool [h, w].

    rims: pixels with an edge of one direction in most frames, bool [h, w]. tensor: their structure tensors (xx, yy, xy), float32
    [3, h, w].
    """
    import cv2

    height, width = rims.shape
    found = np.zeros(rims.shape, np.bool_)
    least, most = (float((share * rims.size / np.pi) ** 0.5) for share in (SMALLEST, LARGEST))
    y, x = np.nonzero(rims)
    if len(x) < ROUND * 2 * np.pi * least:
        return found
    xx, yy, xy = tensor[:, y, x].astype(np.float64)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    rim = np.stack([x, y, np.cos(angle), np.sin(angle)])
    centre_x, centre_y = _centre(rim[:, :: max(1, len(x) // VOTERS)], least, most, height, width)
    away = _from_centre(rim, centre_x, centre_y)
    # The radius on which most pixels lie; the longer of two circles has more of them by its length alone.
    radii = np.bincount(np.rint(away[away < most]).astype(np.int64), minlength=round(most) + 2)[: round(most) + 2]
    thick = radii[:-2] + radii[1:-1] + radii[2:]
    lengths = np.maximum(np.arange(1, len(radii) - 1), least)
    radius = float(np.argmax(np.where(np.arange(1, len(radii) - 1) >= least, thick / lengths, 0)) + 1)
    on = np.abs(away - radius) <= 2 * NEAR
    if on.sum() < 3:
        return found
    # The circle x² + y² = a x + b y + c by least squares.
    px, py = rim[0, on], rim[1, on]
    (a, b, c), *_ = np.linalg.lstsq(np.stack([px, py, np.ones_like(px)], axis=1), px**2 + py**2, rcond=None)
    centre_x, centre_y = float(a) / 2, float(b) / 2
    radius = float(max(0.0, float(c) + centre_x**2 + centre_y**2) ** 0.5)
    if least <= radius <= most and _closed(rim, centre_x, centre_y, radius, height, width):
        filled = cv2.circle(found.astype(np.uint8), (round(centre_x), round(centre_y)), round(radius), 1, -1)
        found = np.asarray(filled) > 0
    return found


def _centre(rim: Numbers, least: float, most: float, height: int, width: int) -> tuple[float, float]:
    """The centre for which most pixels vote. rim: x, y and direction of each, [4, n]. least, most: radii in px."""
    import cv2

    radii = np.arange(least, most, CELL)
    radii = np.concatenate([radii, -radii])
    x, y = (((rim[k, :, None] + radii * rim[k + 2, :, None]) / CELL).astype(np.int32) for k in (0, 1))
    columns, rows = width // CELL, height // CELL
    within = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    votes = np.bincount((y * columns + x)[within], minlength=rows * columns).reshape(rows, columns).astype(np.float32)
    row, column = np.unravel_index(int(np.argmax(cv2.blur(votes, (3, 3)))), votes.shape)
    return CELL * (float(column) + 0.5), CELL * (float(row) + 0.5)


def _from_centre(rim: Numbers, x: float, y: float) -> Numbers:
    """How far each pixel lies from a centre, if its direction points there; infinite otherwise."""
    right, down = rim[0] - x, rim[1] - y
    away = np.hypot(right, down)
    return np.where(np.abs(right * rim[2] + down * rim[3]) > RADIAL * away, away, np.inf)


def _closed(rim: Numbers, x: float, y: float, radius: float, height: int, width: int) -> bool:
    """Whether the rim of a circle is seen nearly all the way round, where it lies within the frame."""
    angles = (np.arange(SECTORS) + 0.5) * 2 * np.pi / SECTORS - np.pi
    right, down = x + radius * np.cos(angles), y + radius * np.sin(angles)
    within = (right > NEAR) & (right < width - NEAR) & (down > NEAR) & (down < height - NEAR)
    on = np.abs(_from_centre(rim, x, y) - radius) <= NEAR
    turned = np.arctan2(rim[1, on] - y, rim[0, on] - x)
    seen = np.zeros(SECTORS, np.bool_)
    seen[((turned + np.pi) / (2 * np.pi) * SECTORS).astype(np.int64) % SECTORS] = True
    return bool(within.sum() >= ROUND * SECTORS / 2 and (seen & within).sum() >= ROUND * within.sum())
