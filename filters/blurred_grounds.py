"""Blurred pillars, and blurred banners above and below: at two lines that mirror one another the picture becomes blurred.

The ground is the picture itself, enlarged or as it is, so that there need be no jump in brightness at its edge, and no seam
(panels.py). But wherever the picture has edges beside the line, next to none are beyond it, all along both lines. A lens blurs
what is near or far, and neither along a straight upright line nor on both sides alike. Edges that the line crosses do not
count: where the last column of the picture is drawn out to the frame's border, all of them go on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.bars import median
from longtake.filters.panels import BESIDE, MIDDLE, SHORTEST, Panel, strips

Field = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]

PARTS = 16  # Parts of a line that are looked at one by one.
NEAR, WIDE = 4, 10  # Px beside the line, on both sides, in which edges are compared: all parts must agree in both.
TEXTURE = 2.0  # Mean squared gradient on the picture's side from which on a part says something.
FEWEST = 5  # Parts of each of both lines that must.
BLURRED = 0.35  # Mean squared gradient beyond the line, as a share of that beside it.
OFTEN = 0.9  # Share of the parts beyond which the ground has so few edges.
GROUND = 0.2  # BLURRED of the whole ground and the whole picture.
UNEVEN = (
    5.0  # Grey levels: mean deviation of the ground from its median. Around a thing on black, or on a wall, it is less.
)
BEGINS = 0.4  # Share of the edges beside the line from which on a column is the picture's.


def blurred_ground(frames: Sequence[Grey], right: Field, down: Field) -> list[Panel]:
    """The two parts of a blurred ground, or nothing. frames: grey [h, w]. right, down: the sums of their squared gradients in
    these directions [h, w]."""
    height, width = right.shape
    for turned in (False, True):
        place = _place(np.asarray((down.T if turned else right) / len(frames), np.float32))
        if place is None:
            continue
        box = (place, height - place, 0, width) if turned else (0, height, place, width - place)
        ground = strips(Panel(*box, 1.0), height, width) or ()
        if np.mean([_deviation(frame[part.window]) for frame in frames for part in ground]) >= UNEVEN:
            return list(ground)
    return []


def _deviation(part: Grey) -> float:
    """The mean distance of grey levels from their median. A line at the part's border hardly counts."""
    return float(np.abs(part - median(part)).mean())


def _place(edges: Field) -> int | None:
    """The column at which the picture begins, and before which it ends on the other side as well. edges: mean squared gradients
    to the right [h, w]."""
    rows, width = len(edges) // PARTS * PARTS, edges.shape[1]
    half = width // 2
    parts = edges[:rows].reshape(PARTS, -1, width).mean(axis=1)
    both = np.concatenate([parts, parts[:, ::-1]])
    sums = np.concatenate([np.zeros((2 * PARTS, 1)), np.cumsum(both, axis=1, dtype=np.float64)], axis=1)
    first, last = max(WIDE + BESIDE, round(SHORTEST * half)), round((1 - MIDDLE) * half)
    places = np.arange(first, last)
    if len(places) == 0:
        return None
    good = np.ones(len(places), np.bool_)
    contrast = np.zeros(len(places))
    for reach in (NEAR, WIDE):
        beyond = (sums[:, places - 2] - sums[:, places - 2 - reach]) / reach
        beside = (sums[:, places + 2 + reach] - sums[:, places + 2]) / reach
        says = beside >= TEXTURE
        blurred = says & (beyond <= BLURRED * beside)
        good &= np.minimum(says[:PARTS].sum(axis=0), says[PARTS:].sum(axis=0)) >= FEWEST
        good &= blurred.sum(axis=0) >= OFTEN * np.maximum(says.sum(axis=0), 1)
        # A part beyond which there are edges and beside which there are none speaks against a blurred ground.
        good &= ((beyond >= TEXTURE) & ~blurred).sum(axis=0) <= (1 - OFTEN) * says.sum(axis=0)
        if reach == NEAR:
            contrast = (np.log(beside + 1) - np.log(beyond + 1)).sum(axis=0)
    outside = sums[:, places - 2].sum(axis=0) / (places - 2)
    inside = (sums[:, half, None] - sums[:, places + 2]).sum(axis=0) / (half - places - 2)
    good &= outside <= GROUND * inside
    if not good.any():
        return None
    best = int(places[np.argmax(np.where(good, contrast, -np.inf))])
    columns = both.mean(axis=0)
    begins = columns[best : best + NEAR] >= BEGINS * columns[best + NEAR : best + NEAR + WIDE].mean()
    return best + (int(np.argmax(begins)) if begins.any() else 0)
