"""Two films in one frame, one of which stands still: a picture in a picture, or the halves of a split screen.

A camera that moves changes all of the picture, and one on a tripod leaves nearly all of it. So a frame whose edges stand still
within a rectangle, and all move outside of it, or the other way about, is made of two films if the sides of the rectangle are
seams (panels.py). A seam is needed, since a meadow under a sky, or a bonnet before a road, divides a scene in the same way, but
along no straight lines that reach round a rectangle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from longtake.filters.panels import LARGEST, MORE, Panel, Panels
from longtake.filters.stillness import EDGE, FEWEST, HALF, NINE_TENTHS, THREE_QUARTERS

Field = npt.NDArray[np.float32]
Counts = npt.NDArray[np.float64]

# A share of a rectangle's sides that must lie on seams. In a tripod shot some rectangle nearly always has 0.8.
COVERED = 0.9
# A share of the still film's edges that have over NINE_TENTHS in common, as a tenth of a moving film's have. In a tripod shot
# things move, too: where they are people, over half of the edges.
STANDS = 0.33
# Shares of the moving film's edges that have at most HALF, THREE_QUARTERS and NINE_TENTHS in common. They are smaller than those
# names say, as a film that is set in small moves by fewer px.
MOVES = (0.5, 0.7, 0.85)
NEXT = 6  # Px to both sides of a line: the distance at which it is compared what moves.
# Px to both sides of the rectangle's sides that do not count: the jump between the films is an edge that stands still.
RIM = 3


def still_and_moving(found: Panels, common: Field, energy: Field, frames: int) -> Panel | None:
    """The panel that best divides what stands still from what moves, if one does; either may be within it. Of two halves it is
    the one that stands still: what moves is the picture.

    found: rectangles on seams in a frame [h, w]. common, energy: [h, w], frames: see `stillness.moves`.
    """
    height, width = common.shape
    _, _, left, right = found.sides
    # A panel that reaches from the left to the right of the frame may be a road, or lie beyond a shore.
    fits = (found.covered >= COVERED) & (found.areas <= LARGEST * height * width)
    tried = found.those(fits & ((left > 0) | (right < width)))
    if len(tried) == 0:
        return None
    edges = energy > frames * EDGE**2
    shares = (1.0, HALF, THREE_QUARTERS, NINE_TENTHS)
    inside, outside = (
        np.stack(parts)
        for parts in zip(*(_counts(edges & (common <= most), tried.sides) for most in shares), strict=True)
    )
    least = FEWEST * common.size
    scores = []
    for still, moving in ((inside, outside), (outside, inside)):
        standing, passing = still[0] - still[3], moving[0] - moving[3]
        good = (np.minimum(still[0], moving[0]) >= least) & (standing >= STANDS * still[0])
        good &= (moving[1:] >= np.array(MOVES)[:, None] * moving[0]).all(axis=0)
        # The share of all still edges on the still side, minus the share of all others there: 1 is a clean division.
        divides = standing / np.maximum(standing + passing, 1) - still[3] / np.maximum(still[3] + moving[3], 1)
        scores.append(np.where(good, divides, 0.0))
    best = int(np.argmax(np.maximum(*scores)))
    if max(scores[0][best], scores[1][best]) <= 0:
        return None
    panel = tried[best]
    half = panel.inner(height, width) == 1 and height * width - panel.area <= LARGEST * height * width
    return _beside(panel, width) if half and scores[1][best] > scores[0][best] else panel


def _beside(panel: Panel, width: int) -> Panel:
    """The other part of a frame of this width that an upright line divides."""
    left, right = (panel.right, width) if panel.left == 0 else (0, panel.left)
    return Panel(panel.top, panel.bottom, left, right, panel.covered)


def begins(moving: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Where more moves on one side of an upright line than on the other, bool [h, w], and of a level one, bool [w, h].

    moving: how much the edges of each pixel change, float32 [h, w] (`panels.moving_edges`).
    """
    import cv2

    near = np.asarray(cv2.blur(moving, (NEXT, NEXT)) + 1, np.float32)
    found = []
    for field in (near, np.ascontiguousarray(near.T)):
        on = np.zeros(field.shape, np.bool_)
        left, right = field[:, : -2 * NEXT], field[:, 2 * NEXT :]
        on[:, NEXT:-NEXT] = np.maximum(left, right) > MORE * np.minimum(left, right)
        found.append(on)
    return found[0], found[1]


def _counts(mask: npt.NDArray[np.bool_], sides: npt.NDArray[np.int64]) -> tuple[Counts, Counts]:
    """How many pixels of a mask bool [h, w] lie inside and outside of each of the boxes [4, n] (top, bottom, left, right);
    pixels on their rims do not count."""
    import cv2

    sums = cv2.integral(mask.astype(np.uint8)).astype(np.float64)
    top, bottom, left, right = sides
    height, width = mask.shape
    within = []
    for rim in (-RIM, RIM):
        # There is no rim along the frame's own border.
        above, before = np.where(top > 0, top - rim, 0), np.where(left > 0, left - rim, 0)
        below, behind = np.where(bottom < height, bottom + rim, height), np.where(right < width, right + rim, width)
        above, before, below, behind = above.clip(0), before.clip(0), below.clip(0, height), behind.clip(0, width)
        within.append(sums[below, behind] - sums[above, behind] - sums[below, before] + sums[above, before])
    return within[0], sums[-1, -1] - within[1]
