"""The global motion of a pair of pictures: one similarity (shift, zoom, turn), fitted to the optical flow between them so
that things
which move on their own count little.

What it says of a clip is measured on the pairs that the pass brings (`longtake.filters.base.Motion`), by the flow that the
filter `flow` measures too. Sideways travel of a camera looks the same as a turn of it, and is a shift here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image, Motion
from longtake.filters.flow_dis import Flow, flows_of

STEP = 8  # Px of the flow's size. The fit uses every eighth vector in each direction.
ROUNDS = 12  # Rounds of reweighting at most. The fit stands still after about 8.
FEW = 256  # The median of fewer values is found by sorting them all.
# Long sides per second. A round that changes the fit by less is the last one: the change is a ten-thousandth of the
# slowest motion that counts as one.
SETTLED = 1e-6
TEXTURE_SIDE = 240  # Px. Texture is looked for at this long side.
# Mean texture. In a picture with less (black, fog, a line of text on white), the fitted motion need not be the
# camera's.
SEEN = 0.1

# The motions of the area and of the rim are fitted to every second vector of the fit in each direction.
COARSE = 2
COARSE_ROUNDS = (
    3  # The start at the medians is good, and three rounds come near enough to where such a motion would stand still.
)
# No other motion is tried where the area moves as the texture does: where less than FEW_OFF of it is off by more than ALIKE (long
# sides per second) and ALIKE_SHARE of the speed.
FEW_OFF, ALIKE, ALIKE_SHARE = 0.1, 0.02, 0.35
RIM = 0.6  # Share of the way from the centre to a side. The rim begins there.
FAINT = 8.0  # Texture counts in full from an eighth of a fair edge on, where the area counts and not how strong its edges are.
VOTE_SIDE = 240  # Px. The pictures are compared at this long side.
VOTE_CELL = 8  # Px. Each square cell of this side has one vote.
VOTE_BAND = 15  # Px. Parts that are wider are left out of the comparison, since the exposure may change.
# Grey levels. A cell in which the worst and the best motion differ by less has no vote.
VOTE_LEAST = 0.5
# A share. A cell votes for a motion that is off the best one by less than this share of how far the worst is.
VOTE_NEAR = 0.2
# Grey levels. A cell shows where its picture went if it has more contrast.
CONTRAST = 2.0
# Such a cell moves with the camera if it is off by less than this many grey levels, or this share of its contrast.
OFF_LEVELS, OFF_SHARE = 0.7, 0.5
# A share of the cells with contrast. If fewer move alike, the motion need not be the camera's.
AGREED = 0.3

Floats = npt.NDArray[np.float64]
Greys = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fit:
    """The similarity of one pair: speeds in long sides of the picture per second (`turn`: radians per second).

    shift_x, shift_y: right and down. grow: of a length, per second. residual, weight: float64 [n], at each point of the grid
    how far the flow is from the fit, and how far it is believed. px, py, u: float64 [n], where the points lie to the right of
    and below the centre, in long sides, and how fast they move to the right. reach: by how much a zoom or turn of
    1 moves the picture on average. agreed: the share of the picture, as far as it has contrast, that moves so; 1 where only the
    flow was looked at.
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
    agreed: float = 1.0

    @property
    def seen(self) -> bool:
        """Whether there is enough texture to tell how the camera moves, and enough of the picture moves alike."""
        return float(self.weight.mean()) >= SEEN and self.agreed >= AGREED

    @cached_property
    def speed(self) -> float:
        """Mean displacement that the camera causes over the picture, long sides per second."""
        x = self.shift_x + self.grow * self.px - self.turn * self.py
        y = self.shift_y + self.turn * self.px + self.grow * self.py
        return float(np.sqrt(x * x + y * y).mean())


@lru_cache(maxsize=1)
def global_motion(motion: Motion) -> tuple[Fit, ...]:
    """The fits of all pairs of a clip, in order of time. Those of the clip that was asked for last are remembered, since several
    filters ask for them one after the other. Raises MeasureError."""
    seconds = motion.partner_times - motion.times
    return tuple(
        agreed_fit(flow, first, second, float(gap))
        for flow, first, second, gap in zip(flows_of(motion), motion.first, motion.second, seconds, strict=True)
    )


def agreed_fit(flow: Flow, first: Image, second: Image, seconds: float) -> Fit:
    """The motion on which most of the picture agrees. flow: as in `fit_flow`. first, second: uint8 [h, w], the pictures."""
    fit = fit_flow(flow, texture(first), seconds)
    if not fit.seen:
        return fit
    off = _off(fit)
    if off < FEW_OFF:
        return replace(fit, agreed=1 - off)
    motions = _candidates(fit, flow, seconds)
    best, agreed = _chosen(_fine(first), _fine(second), motions, seconds)
    shift_x, shift_y, grow, turn = motions[best]
    if best == 0:
        return replace(fit, agreed=agreed)
    height, width = flow.shape[:2]
    y, x = _grid(height, width, STEP)
    v = flow[y, x, 1].ravel().astype(np.float64) / (max(height, width) * seconds)
    residual = np.sqrt(_squares_left(np.array(motions[best]), fit.px, fit.py, fit.u, v))
    return replace(fit, shift_x=shift_x, shift_y=shift_y, grow=grow, turn=turn, residual=residual, agreed=agreed)


def _off(fit: Fit) -> float:
    """The share of the area, by the flow, that moves otherwise than the fit."""
    weight = np.minimum(FAINT * fit.weight, 1.0)
    return float(weight @ (fit.residual > max(ALIKE, ALIKE_SHARE * fit.speed)) / weight.sum())


Similarity = tuple[float, float, float, float]  # Shift to the right and down, growth, turn; units as in `Fit`.


def _candidates(fit: Fit, flow: Flow, seconds: float) -> list[Similarity]:
    """The motions that may be the camera's: of the texture, none, of the area, of the rim."""
    height, width = flow.shape[:2]
    y, x = _grid(height, width, STEP)
    kept = np.zeros(y.shape, bool)
    kept[::COARSE, ::COARSE] = True
    few = kept.ravel()
    v = flow[y, x, 1].ravel().astype(np.float64) / (max(height, width) * seconds)
    weight = np.minimum(FAINT * fit.weight, 1.0)
    found: list[Similarity] = [(fit.shift_x, fit.shift_y, fit.grow, fit.turn), (0.0, 0.0, 0.0, 0.0)]
    aside = np.maximum(np.abs(fit.px) / np.abs(fit.px).max(), np.abs(fit.py) / np.abs(fit.py).max()) > RIM
    for part in (few, few & aside):
        if weight[part].sum() > 0:
            found.append(
                fit_similarity(fit.px[part], fit.py[part], fit.u[part], v[part], weight[part], COARSE_ROUNDS)[:4]
            )
    return found


def _fine(grey: Image) -> Greys:
    """A picture at the size at which motions are compared, without its coarse parts: float32 [h, w]."""
    import cv2

    scale = min(1.0, VOTE_SIDE / max(grey.shape))
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (3, 3), 0).astype(np.float32)
    return np.asarray(small - cv2.blur(small, (VOTE_BAND, VOTE_BAND)), np.float32)


def _chosen(first: Greys, second: Greys, motions: Sequence[Similarity], seconds: float) -> tuple[int, float]:
    """The number of the motion that explains the most of the picture, and the share of it that moves so. A cell has no vote where
    the picture of one of the motions comes from outside."""
    import cv2

    height, width = first.shape
    size = max(1, width // VOTE_CELL), max(1, height // VOTE_CELL)
    left = []
    for motion in motions:
        moved = first
        if any(motion):
            matrix = _matrix(motion, seconds, width, height)
            warped = cv2.warpAffine(first, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
            moved = np.asarray(warped, np.float32)
        left.append(cv2.resize(np.abs(moved - second), size, interpolation=cv2.INTER_AREA).ravel())
    errors = np.stack(left)
    contrast = cv2.resize(np.abs(second), size, interpolation=cv2.INTER_AREA).ravel()
    inside = np.isfinite(errors).all(axis=0)
    errors, contrast = errors[:, inside], contrast[inside]
    if not contrast.size:
        return 0, 0.0
    nearest, farthest = errors.min(axis=0), errors.max(axis=0)
    told = farthest - nearest > VOTE_LEAST
    explained = (errors <= nearest + VOTE_NEAR * (farthest - nearest)) & told
    best = int(np.argmax(explained.sum(axis=1)))
    shows = contrast > CONTRAST
    alike = errors[best, shows] <= np.maximum(OFF_LEVELS, OFF_SHARE * contrast[shows])
    return best, float(alike.mean()) if shows.any() else 0.0


def _matrix(motion: Similarity, seconds: float, width: int, height: int) -> Floats:
    """A motion over some seconds as the 2×3 matrix that moves a picture's pixels."""
    shift_x, shift_y, grow, turn = (part * seconds for part in motion)
    linear = np.array([[1 + grow, -turn], [turn, 1 + grow]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = np.array([shift_x, shift_y]) * max(width, height) + centre - linear @ centre
    return np.column_stack([linear, offset])


def _grid(height: int, width: int, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows and columns of the vectors that a fit uses, each [rows, columns]."""
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    return y, x


def fit_flow(flow: Flow, weight: npt.NDArray[np.float32], seconds: float, step: int = STEP) -> Fit:
    """The similarity that explains a flow field best.

    flow: float32 [height, width, 2], pixels right and down from the first picture to the second. weight: float32 [h, w],
    trust in the vectors, at any size. seconds: between the pictures, > 0.
    """
    height, width = flow.shape[:2]
    y, x = _grid(height, width, step)
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
    slope = cv2.magnitude(*(cv2.Sobel(smooth, cv2.CV_32F, x, 1 - x, scale=1 / 8) for x in (1, 0)))
    # Belief rises from the level of noise (a slope of about 1 grey level per pixel) up to that of a fair edge. A bright
    # edge is not more believable than a fair one.
    return np.asarray(np.clip(cv2.blur(slope, (9, 9)) - 0.5, 0, 4) / 4, dtype=np.float32)


def fit_similarity(
    px: npt.NDArray[np.float64],
    py: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
    rounds: int = ROUNDS,
) -> tuple[float, float, float, float, npt.NDArray[np.float64]]:
    """(shift x, shift y, grow, turn) with u ≈ shift_x + grow·px - turn·py, v ≈ shift_y + turn·px + grow·py, and what is
    left at each point (length of the difference).

    px, py: points; u, v: their displacements; w: weights ≥ 0; each float64 [n]. Least squares with Cauchy weights,
    repeated from a start at the weighted medians, with a scale that follows the median residual: up to about 40% of the
    points may move on their own.
    """
    # The weighted medians are a better start than the mean when much moves by itself.
    solution = np.array([_weighted_median(u, w), _weighted_median(v, w), 0.0, 0.0])
    for _ in range(rounds):
        before, squares = solution, _squares_left(solution, px, py, u, v)
        scale = max(2.25 * _weighted_median(squares, w), 1e-6)
        solution = _weighted_fit(px, py, u, v, w / (1 + squares / scale))
        if np.abs(solution - before).max() < SETTLED:
            break
    residual = np.sqrt(_squares_left(solution, px, py, u, v))
    if not np.all(np.isfinite(solution)):
        return 0.0, 0.0, 0.0, 0.0, np.full_like(px, math.inf)
    shift_x, shift_y, grow, turn = (float(s) for s in solution)
    return shift_x, shift_y, grow, turn, residual


def _squares_left(
    solution: npt.NDArray[np.float64],
    px: npt.NDArray[np.float64],
    py: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    shift_x, shift_y, grow, turn = solution
    right, down = u - shift_x - grow * px + turn * py, v - shift_y - turn * px - grow * py
    return np.asarray(right * right + down * down)


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
    try:
        solution = np.linalg.solve(left, right)
    except np.linalg.LinAlgError:
        solution = np.full(4, np.inf)
    if np.abs(solution).max() < 1e3:
        return solution
    # `lstsq` also solves it where points lie on one spot.
    return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0])


def _weighted_median(values: npt.NDArray[np.float64], w: npt.NDArray[np.float64]) -> float:
    half = float(w.sum()) / 2
    if len(values) > FEW and values.min() >= 0:
        # By the upper half of their bits as float32 alone, which sort four times as fast; then only those are sorted among which
        # it lies.
        coarse = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        order = np.argsort(coarse, kind="stable")
        total = np.cumsum(w[order])
        at = coarse[order[min(int(np.searchsorted(total, half)), len(order) - 1)]]
        half -= float(w[coarse < at].sum())
        inside = coarse == at
        values, w = values[inside], w[inside]
    order = np.argsort(values)
    total = np.cumsum(w[order])
    return float(values[order[min(int(np.searchsorted(total, half)), len(order) - 1)]])
