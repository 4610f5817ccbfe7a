"""The global motion of a pair of pictures: one similarity (shift, zoom, turn), fitted to the optical flow between them so
that things
which move on their own count little.

What it says of a clip is measured on the pairs that the pass brings (`longtake.filters.base.Motion`), by the flow that the
filter `flow` measures too. Sideways travel of a camera looks the same as a turn of it, and is a shift here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image, Motion
from longtake.filters.flow_dis import Flow, flows_of

STEP = 8  # Px of the flow's size. The fit uses every eighth vector in each direction.
ROUNDS = 12  # Rounds of reweighting. The fit stands still after about 8.
TEXTURE_SIDE = 240  # Px. Texture is looked for at this long side.
# Mean texture. In a picture with less (black, fog, a line of text on white), the fitted motion need not be the
# camera's.
SEEN = 0.1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """The similarity of one pair: speeds in long sides of the picture per second (`turn`: radians per second).

    shift_x, shift_y: right and down. grow: of a length, per second. residual, weight: float64 [n], at each point of the grid
    how far the flow is from the fit, and how far it is believed. px, py, u: float64 [n], where the points lie to the right of
    and below the centre, in long sides, and how fast they move to the right. reach: by how much a zoom or turn of
    1 moves the picture on average.
    """

    shift_x: float
    shift_y: float
    grow: float
    turn: float
    residual: Floats
    weight: Floats
    px: Floats
    py: Floats
    u: Floats
    reach: float

    @property
    def seen(self) -> bool:
        """Whether there is enough texture to tell how the camera moves."""
        return float(self.weight.mean()) >= SEEN

    @property
    def speed(self) -> float:
        """Mean displacement that the camera causes over the picture, long sides per second."""
        x = self.shift_x + self.grow * self.px - self.turn * self.py
        y = self.shift_y + self.turn * self.px + self.grow * self.py
        return float(np.hypot(x, y).mean())


@lru_cache(maxsize=1)
def global_motion(motion: Motion) -> tuple[Fit, ...]:
    """The fits of all pairs of a clip, in order of time. Those of the clip that was asked for last are remembered, since several
    filters ask for them one after the other. Raises MeasureError."""
    seconds = motion.partner_times - motion.times
    return tuple(
        fit_flow(flow, texture(first), float(gap))
        for flow, first, gap in zip(flows_of(motion), motion.first, seconds, strict=True)
    )


def fit_flow(flow: Flow, weight: npt.NDArray[np.float32], seconds: float, step: int = STEP) -> Fit:
    """The similarity that explains a flow field best.

    flow: float32 [height, width, 2], pixels right and down from the first picture to the second. weight: float32 [h, w],
    trust in the vectors, at any size. seconds: between the pictures, > 0.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    at = y * weight.shape[0] // height, x * weight.shape[1] // width
    w = weight[at].ravel().astype(np.float64)
    unit = max(height, width) * seconds
    u, v = (flow[y, x, axis].ravel().astype(np.float64) / unit for axis in (0, 1))
    # Coordinates count from the picture's centre in long sides: all the numbers are then speeds of one kind.
    px, py = ((p.ravel() + 0.5 - side / 2) / max(height, width) for p, side in ((x, width), (y, height)))
    reach = float(np.hypot(px, py).mean())
    if w.mean() < SEEN:
        return Fit(0.0, 0.0, 0.0, 0.0, np.hypot(u, v), w, px, py, u, reach)
    shift_x, shift_y, grow, turn, residual = fit_similarity(px, py, u, v, w)
    return Fit(shift_x, shift_y, grow, turn, residual, w, px, py, u, reach)


def texture(grey: Image) -> npt.NDArray[np.float32]:
    """How far the flow at each pixel of a uint8 [h, w] picture, at a long side of at most 240 px, can be believed: float32 in
    [0, 1], 0 where it is flat."""
    import cv2

    scale = min(1.0, TEXTURE_SIDE / max(grey.shape))
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    return believable(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8))


def believable(grey: Image) -> npt.NDArray[np.float32]:
    """How far the flow at each pixel of `grey` can be believed, float32 [height, width] in [0, 1]; 0 if flat."""
    import cv2

    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8))
    # Belief rises from the level of noise (a slope of about 1 grey level per pixel) up to that of a fair edge. A bright
    # edge is not more believable than a fair one.
    return np.asarray(np.clip(cv2.blur(slope, (9, 9)) - 0.5, 0, 4) / 4, dtype=np.float32)


def fit_similarity(
    px: npt.NDArray[np.float64],
    py: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
) -> tuple[float, float, float, float, npt.NDArray[np.float64]]:
    """(shift x, shift y, grow, turn) with u ≈ shift_x + grow·px - turn·py, v ≈ shift_y + turn·px + grow·py, and what is
    left at each point (length of the difference).

    px, py: points; u, v: their displacements; w: weights ≥ 0; each float64 [n]. Least squares with Cauchy weights,
    repeated from a start at the weighted medians, with a scale that follows the median residual: up to about 40% of the
    points may move on their own.
    """
    # The weighted medians are a better start than the mean when much moves by itself.
    solution = np.array([_weighted_median(u, w), _weighted_median(v, w), 0.0, 0.0])
    for _ in range(ROUNDS):
        residual = _left_over(solution, px, py, u, v)
        scale = max(1.5 * _weighted_median(residual, w), 1e-3)
        solution = _weighted_fit(px, py, u, v, w / (1 + (residual / scale) ** 2))
    residual = _left_over(solution, px, py, u, v)
    if not np.all(np.isfinite(solution)):
        return 0.0, 0.0, 0.0, 0.0, np.full_like(px, math.inf)
    shift_x, shift_y, grow, turn = (float(s) for s in solution)
    return shift_x, shift_y, grow, turn, residual


def _left_over(
    solution: npt.NDArray[np.float64],
    px: npt.NDArray[np.float64],
    py: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    shift_x, shift_y, grow, turn = solution
    return np.asarray(np.hypot(u - shift_x - grow * px + turn * py, v - shift_y - turn * px - grow * py))


def _weighted_fit(
    px: npt.NDArray[np.float64],
    py: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The least-squares solution, by its normal equations: written out, they are nine sums."""
    n, x, y = w.sum(), w @ px, w @ py
    square = w @ (px * px + py * py)
    left = np.array([[n, 0, x, -y], [0, n, y, x], [x, y, square, 0], [-y, x, 0, square]])
    right = np.array([w @ u, w @ v, w @ (px * u + py * v), w @ (px * v - py * u)])
    # `lstsq` also solves it where points lie on one spot.
    return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0])


def _weighted_median(values: npt.NDArray[np.float64], w: npt.NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(w[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
