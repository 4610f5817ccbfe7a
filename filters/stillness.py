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

EDGE = 3.0  # grey levels per px, in the quadratic mean over the frames, from which on there is something to see
FEWEST = 0.01  # share of the pixels that must be such edges for movement to be seen
# On real film half of the edges have 0.18 at most in common where the camera moves, and 0.23 at least where it stands; three
# quarters 0.28 and 0.39.
HALF, THREE_QUARTERS = 0.2, 0.3


def moves(common: Field, energy: Field, frames: int, outside: Mask) -> bool:
    """Whether the scene moves enough to tell.

    common: float32 [h, w], see above; energy: the sum of squared gradients over the frames [h, w]; outside: bool, the pixels
    that count.
    """
    shares = common[outside & (energy > frames * EDGE**2)]
    if shares.size < FEWEST * common.size:
        return False
    half, most = np.quantile(shares, (0.5, 0.75))
    return bool(half <= HALF and most <= THREE_QUARTERS)
