"""Whether a scene moves enough to tell what was put over it.

For each pixel with an edge, with g the gradients of n frames: |Σ g|² / (n Σ |g|²), the share that all frames have in common. It
is 1 where nothing moves, and about 1/n where what the frames show has nothing in common. A scene moves if half of its edges
have at most a fifth in common, and three quarters at most three tenths: then a watermark over all of the picture is still the
smaller part of its edges.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

EDGE = 3.0  # Grey levels per px, in the quadratic mean over the frames, of an edge.
FEWEST = 0.01  # Share of the pixels that must be such edges for movement to be seen.
# On real film half of the edges have 0.18 at most in common where the camera moves, and 0.23 at least where it stands; three
# quarters 0.28 and 0.39.
HALF, THREE_QUARTERS = 0.2, 0.3
NINE_TENTHS = 0.5  # The same limit for nine tenths of the edges, outside of panels.
STILL = 0.8  # Share of an edge's energy that all frames have in common: from it on the edge stands still.
# Shares of a side's edges that stand still: the still side has the first at least, the moving side the second at most,
# and the third is the least difference close to the line between them.
MOST_STILL, FEW_STILL, SHARPLY = 0.95, 0.03, 0.7
NEAR = 6  # Px from the line between them.


def moves(common: Field, energy: Field, frames: int, outside: Mask) -> bool:
    """Whether the scene moves enough to tell.

    common: float32 [h, w], see above; energy: the sum of squared gradients over the frames [h, w]; outside: bool, the pixels
    that count.
    """
    shares = common[outside & (energy > frames * EDGE**2)]
    if shares.size < FEWEST * common.size:
        return False
    half, most, nearly_all = np.quantile(shares, (0.5, 0.75, 0.9))
    # Without its still parts, the rest of the frame must not be another part of one tripod shot.
    return bool(half <= HALF and most <= THREE_QUARTERS and (outside.all() or nearly_all <= NINE_TENTHS))


def still_side(common: Field, energy: Field, frames: int) -> Mask | None:
    """The left or the right part of a frame if it stands still up to an upright line, and the other moves: a split screen, one
    half a picture.

    Upright lines only: a level one may be a shore. Arguments as of `moves`; bool [h, w].
    """
    edges = energy > frames * EDGE**2
    still = (edges & (common > STILL)).sum(axis=0, dtype=np.float64)
    all_ = edges.sum(axis=0, dtype=np.float64)
    before = np.cumsum(still) / np.maximum(np.cumsum(all_), 1.0)
    after = np.cumsum(still[::-1])[::-1] / np.maximum(np.cumsum(all_[::-1])[::-1], 1.0)
    width = len(still)
    places = np.arange(width // 4, width - width // 4)
    contrast = np.abs(before[places - 1] - after[places])
    place = int(places[np.argmax(contrast)])
    near = [slice(place - NEAR, place), slice(place, place + NEAR)]
    left, right = (float(still[part].sum() / max(1.0, all_[part].sum())) for part in near)
    enough = min(all_[:place].sum(), all_[place:].sum()) >= FEWEST * common.size
    whole = sorted((float(before[place - 1]), float(after[place])))
    if not enough or whole[0] > FEW_STILL or whole[1] < MOST_STILL or abs(left - right) < SHARPLY:
        return None
    mask = np.zeros(common.shape, dtype=np.bool_)
    mask[:, slice(0, place) if before[place - 1] > after[place] else slice(place, None)] = True
    return mask
