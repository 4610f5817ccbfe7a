"""How the camera moves between two frames, named from the optical flow between them.

The flow is explained by one similarity of the picture (shift, zoom, turn), fitted so that things which move on their
own count little. What is named is the camera: content that moves left means that the camera pans right; content that
moves down, that it tilts up; content that grows, that it zooms in; content that turns clockwise, that it rolls the
other way. A camera that travels sideways looks the same at this level, and is called a pan too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from longtake.filters.flow_dis import flow_field

LONG_SIDE = 320  # pixels at which the flow is measured: enough to name a movement, and cheap
STEP = 4  # the fit uses every 4th flow vector each way
ROUNDS = 12  # of reweighting; the fit stands still after about 8

# Speeds are means over the picture, in long sides of the picture per second. The paper's pretrain gate on flow, 40 px
# of 960 in 0.5 s, is 0.083.
STILL = 0.012
SLOW = 0.08
FAST = 0.3
SEEN = 0.1  # with less texture than this (black, fog, a line of text on white), what moves need not be the camera
MINOR = 0.4  # a second movement is named from this share of the first one's speed
OWN_MOTION = 0.04  # this far from the camera's own speed, a part of the picture moves by itself
UNCLEAR_SHARE = 0.45  # and if this much of it does, what was fitted is not the camera

Move = Literal[
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll left",
    "roll right",
    "unclear",
]
Pace = Literal["still", "slow", "medium", "fast"]


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """One stretch of camera movement.

    moves: the strongest movement first, then at most one more that matters; `static` or `unclear` stand alone. speed:
    mean displacement that the camera causes over the picture, long sides per second. own_motion: share [0, 1] of the
    picture that moves otherwise than the camera explains.
    """

    moves: tuple[Move, ...]
    speed: float
    own_motion: float

    @property
    def pace(self) -> Pace:
        if self.speed < STILL:
            return "still"
        return "slow" if self.speed < SLOW else "medium" if self.speed < FAST else "fast"


def camera_motion(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], seconds: float) -> CameraMotion:
    """The camera's movement from `a` to `b`, two RGB frames uint8 [height, width, 3], `seconds` (> 0) apart."""
    return motion_between(small_grey(a), small_grey(b), seconds)


def motion_between(grey_a: npt.NDArray[np.uint8], grey_b: npt.NDArray[np.uint8], seconds: float) -> CameraMotion:
    """The same of two frames as `small_grey` makes them."""
    flow = flow_field(grey_a, grey_b)
    return motion_of(flow, texture(grey_a) * agreement(grey_a, grey_b, flow), seconds)


def small_grey(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB uint8 [height, width, 3] or grey uint8 [height, width] as grey, long side at most 320, never enlarged."""
    import cv2

    height, width = frame.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def texture(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """How far the flow at each pixel of `grey` can be believed, float32 [height, width] in [0, 1]; 0 if flat."""
    import cv2

    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8))
    # From noise (a slope of about 1 grey level per pixel) up; a bright edge is not more believable than a fair one.
    return np.asarray(np.clip(cv2.blur(slope, (9, 9)) - 0.5, 0, 4) / 4, dtype=np.float32)


def agreement(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], flow: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """How far what is at each pixel of grey `a` is found in `b` where `flow` says, float32 [height, width] in [0, 1].

    Flow always names some place; on noise, water or across a cut it is no match, and must not count.
    """
    import cv2

    height, width = a.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    found = cv2.remap(b, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # Each without its surroundings' mean, so that a change of light is no disagreement.
    relief_a, relief_b = (g.astype(np.float32) - cv2.blur(g.astype(np.float32), (31, 31)) for g in (a, found))
    wrong = cv2.blur(np.abs(relief_a - relief_b), (15, 15)) / (cv2.blur(np.abs(relief_a), (15, 15)) + 1)
    return np.asarray(np.clip(2 - 2 * wrong, 0, 1), dtype=np.float32)


def motion_of(flow: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], seconds: float) -> CameraMotion:
    """Name the camera movement in a flow field.

    flow: float32 [height, width, 2], pixels right and down from the first frame to the second. weight: float32
    [height, width], trust in each vector. seconds: between the frames, > 0.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[STEP // 2 : height : STEP, STEP // 2 : width : STEP]
    u, v = flow[y, x, 0].ravel().astype(np.float64), flow[y, x, 1].ravel().astype(np.float64)
    w = weight[y, x].ravel().astype(np.float64)
    if w.mean() < SEEN:
        return CameraMotion(("unclear",), 0.0, 0.0)
    # Around the picture's centre, in long sides: then all the numbers below are speeds of one kind.
    unit = max(height, width)
    px, py = (x.ravel() + 0.5 - width / 2) / unit, (y.ravel() + 0.5 - height / 2) / unit
    u, v = u / unit / seconds, v / unit / seconds
    shift_x, shift_y, grow, turn, residual = fit_similarity(px, py, u, v, w)

    reach = float(np.hypot(px, py).mean())  # a zoom or roll moves the picture by this much on average
    speeds: list[tuple[float, Move]] = [
        (abs(shift_x), "pan right" if shift_x < 0 else "pan left"),
        (abs(shift_y), "tilt up" if shift_y > 0 else "tilt down"),
        (abs(grow) * reach, "zoom in" if grow > 0 else "zoom out"),
        (abs(turn) * reach, "roll left" if turn > 0 else "roll right"),
    ]
    speeds.sort(key=lambda speed: -speed[0])
    speed = float(np.hypot(shift_x + grow * px - turn * py, shift_y + turn * px + grow * py).mean())
    own = float(w[residual > max(OWN_MOTION, 0.35 * speed)].sum() / w.sum())
    if own > UNCLEAR_SHARE:
        return CameraMotion(("unclear",), speed, own)
    if speed < STILL:
        return CameraMotion(("static",), speed, own)
    first, second = speeds[:2]
    moves = (first[1], second[1]) if second[0] >= max(MINOR * first[0], STILL) else (first[1],)
    return CameraMotion(moves, speed, own)


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
    return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0])  # also where points lie on one spot


def _weighted_median(values: npt.NDArray[np.float64], w: npt.NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(w[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
