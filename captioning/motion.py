"""How the camera moves between two frames, named from the optical flow between them.

The flow is explained by one similarity of the picture (shift, zoom, turn), fitted so that things which move on their
own count little. What is named is the camera: content that moves left means that the camera pans right; content that
moves down, that it tilts up; content that grows, that it zooms in; content that turns clockwise, that it rolls the
other way. A camera that travels sideways looks the same at this level, and is called a pan too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from longtake.filters.flow_dis import MIN_SIDE, flow_field
from longtake.filters.global_motion import believable, fit_flow

LONG_SIDE = 320  # Pixels. The flow is measured at this size, which is enough to name a movement, and cheap.
STEP = 4  # The fit uses every fourth flow vector in each direction.

# Speeds are means over the picture, in long sides of the picture per second. The paper's pretrain gate on flow, 40 px
# of 960 in 0.5 s, is 0.083.
STILL = 0.012
SLOW = 0.08
FAST = 0.3
MINOR = 0.4  # Share of the first movement's speed from which on a second movement is named.
OWN_MOTION = 0.04  # Difference from the camera's speed from which on a part of the picture moves by itself.
UNCLEAR_SHARE = 0.45  # Share of the picture. If more of it moves by itself, the fitted motion is not the camera's.

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
    """The same of two frames as `small_grey` makes them. Of frames that are too small for flow, it is unclear."""
    if min(grey_a.shape) < MIN_SIDE:
        return CameraMotion(("unclear",), 0.0, 0.0)
    flow = flow_field(grey_a, grey_b)
    return motion_of(flow, believable(grey_a) * agreement(grey_a, grey_b, flow), seconds)


def small_grey(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB uint8 [height, width, 3] or grey uint8 [height, width] as grey, long side at most 320, never enlarged."""
    import cv2

    height, width = frame.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def agreement(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], flow: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """How far what is at each pixel of grey `a` is found in `b` where `flow` says, float32 [height, width] in [0, 1].

    Flow always names some place; on noise, water or across a cut it is no match, and must not count.
    """
    import cv2

    height, width = a.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warped = cv2.remap(b, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # Each picture loses the mean of its surroundings first, so that a change of light is no disagreement.
    relief_a, relief_b = (g.astype(np.float32) - cv2.blur(g.astype(np.float32), (31, 31)) for g in (a, warped))
    wrong = cv2.blur(np.abs(relief_a - relief_b), (15, 15)) / (cv2.blur(np.abs(relief_a), (15, 15)) + 1)
    return np.asarray(np.clip(2 - 2 * wrong, 0, 1), dtype=np.float32)


def motion_of(flow: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], seconds: float) -> CameraMotion:
    """Name the camera movement in a flow field.

    flow: float32 [height, width, 2], pixels right and down from the first frame to the second. weight: float32
    [height, width], trust in each vector. seconds: between the frames, > 0.
    """
    fit = fit_flow(flow, weight, seconds, STEP)
    if not fit.seen:
        return CameraMotion(("unclear",), 0.0, 0.0)
    speeds: list[tuple[float, Move]] = [
        (abs(fit.shift_x), "pan right" if fit.shift_x < 0 else "pan left"),
        (abs(fit.shift_y), "tilt up" if fit.shift_y > 0 else "tilt down"),
        (abs(fit.grow) * fit.reach, "zoom in" if fit.grow > 0 else "zoom out"),
        (abs(fit.turn) * fit.reach, "roll left" if fit.turn > 0 else "roll right"),
    ]
    speeds.sort(key=lambda speed: -speed[0])
    speed = fit.speed
    own = float(fit.weight[fit.residual > max(OWN_MOTION, 0.35 * speed)].sum() / fit.weight.sum())
    if own > UNCLEAR_SHARE:
        return CameraMotion(("unclear",), speed, own)
    if speed < STILL:
        return CameraMotion(("static",), speed, own)
    first, second = speeds[:2]
    moves = (first[1], second[1]) if second[0] >= max(MINOR * first[0], STILL) else (first[1],)
    return CameraMotion(moves, speed, own)
