"""The global motion of a pair of pictures: one similarity (shift, zoom, turn), fitted to the optical flow between them so that
things which move on their own count little (`longtake.filters.similarities`).

What it says of a clip is measured on the pairs that the pass brings (`longtake.filters.base.Motion`), by the flow that the
filter `flow` measures too. Sideways travel of a camera looks the same as a turn of it, and is a shift here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image, Motion
from longtake.filters.flow_dis import Flow, flows_of
from longtake.filters.similarities import Floats, Points, fit_similarities, squares_left

STEP = 16  # Px of the flow's size. The fit uses every sixteenth vector in each direction.
TEXTURE_SIDE = 240  # Px. Texture is looked for at this long side.
# Mean texture. In a picture with less (black, fog, a line of text on white), the fitted motion need not be the
# camera's.
SEEN = 0.1

# The start at the medians is good, and three rounds come near enough to where the motions of the area and of the rim would stand
# still.
FEW_ROUNDS = 3
# No other motion is tried where the area moves as the texture does: where less than FEW_OFF of it is off by more than ALIKE (long
# sides per second) and ALIKE_SHARE of the speed.
FEW_OFF, ALIKE, ALIKE_SHARE = 0.1, 0.02, 0.35
RIM = 0.6  # Share of the way from the centre to a side. The rim begins there.
FAINT = 8.0  # Texture counts in full from an eighth of a fair edge on, where the area counts and not how strong its edges are.
# Long sides per second. Motions that differ by less are one: by a tenth of a pixel of the pictures that are compared, at most.
APART = 0.0008
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
    """The fits of all pairs of a clip, in order of time: of each the motion on which most of the picture agrees. Those of the
    clip that was asked for last are remembered, since several filters ask for them one after the other. Raises MeasureError."""
    flows = flows_of(motion)
    if not flows:
        return ()
    seconds = motion.partner_times - motion.times
    field = _Field.of(flows, seconds, STEP)
    weight = np.stack([field.picked(texture(first)) for first in motion.first])
    fits = _fits(field, weight)
    other = [number for number, fit in enumerate(fits) if fit.seen and _off(fit) >= FEW_OFF]
    motions = _candidates(field, fits, other)
    chosen = _chosen(motion, motions)
    for number, fit in enumerate(fits):
        if number in chosen:
            best, agreed = chosen[number]
            fits[number] = replace(_moved(field, fit, number, motions[number][best]) if best else fit, agreed=agreed)
        elif fit.seen:
            fits[number] = replace(fit, agreed=1 - _off(fit))
    return tuple(fits)


@dataclass(frozen=True, eq=False)
class _Field:
    """The flow of n pairs at the k points of a grid, counted from the picture's centre. points: in long sides. y, x: rows and
    columns of the flow, int64 [rows, columns]. u, v: to the right and down, long sides per second, float64 [n, k]. height,
    width: of the flow, px."""

    points: Points
    y: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]
    u: Floats
    v: Floats
    height: int
    width: int

    @classmethod
    def of(cls, flows: Sequence[Flow], seconds: Floats, step: int) -> _Field:
        height, width = flows[0].shape[:2]
        y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
        # In long sides all the numbers of a fit are speeds of one kind.
        px, py = ((p.ravel() + 0.5 - side / 2) / max(height, width) for p, side in ((x, width), (y, height)))
        picked = np.stack([flow[y, x].reshape(-1, 2) for flow in flows]).astype(np.float64)
        picked /= max(height, width) * seconds[:, None, None]
        return cls(Points.at(px, py), y, x, picked[..., 0], picked[..., 1], height, width)

    def picked(self, weight: npt.NDArray[np.float32]) -> Floats:
        """A float32 [h, w] picture of any size at the points, float64 [k]."""
        at = self.y * weight.shape[0] // self.height, self.x * weight.shape[1] // self.width
        return np.asarray(weight[at].ravel(), np.float64)


def _fits(field: _Field, weight: Floats) -> list[Fit]:
    """The fit of each pair. weight: float64 [n, k]. What has too little texture does not move."""
    motions, squares = fit_similarities(field.points, field.u, field.v, weight)
    flat = weight.mean(axis=1) < SEEN
    motions[flat] = 0.0
    squares[flat] = field.u[flat] ** 2 + field.v[flat] ** 2
    reach = float(np.sqrt(field.points.square).mean())
    x, y = field.points.x, field.points.y
    return [
        Fit(shift_x, shift_y, grow, turn, residual, w, x, y, u, reach)
        for (shift_x, shift_y, grow, turn), residual, w, u in zip(
            motions.tolist(), np.sqrt(squares), weight, field.u, strict=True
        )
    ]


def _moved(field: _Field, fit: Fit, number: int, motion: Similarity) -> Fit:
    """The fit of a pair with another motion."""
    shift_x, shift_y, grow, turn = motion
    squares = squares_left(field.points, np.array([motion]), field.u[number], field.v[number])[0]
    return replace(fit, shift_x=shift_x, shift_y=shift_y, grow=grow, turn=turn, residual=np.sqrt(squares))


def _by_area(fit: Fit) -> Floats:
    """The weight of each point where the area counts and not how strong its edges are."""
    return np.minimum(FAINT * fit.weight, 1.0)


def _off(fit: Fit) -> float:
    """The share of the area, by the flow, that moves otherwise than the fit."""
    weight = _by_area(fit)
    return float(weight @ (fit.residual > max(ALIKE, ALIKE_SHARE * fit.speed)) / weight.sum())


Similarity = tuple[float, float, float, float]  # Shift to the right and down, growth, turn; units as in `Fit`.


def _candidates(field: _Field, fits: Sequence[Fit], numbers: Sequence[int]) -> dict[int, list[Similarity]]:
    """The motions that may be the camera's, of the pairs of some numbers: of the texture, none, of the area, of the rim."""
    if not numbers:
        return {}
    candidates: dict[int, list[Similarity]] = {
        number: [
            (fits[number].shift_x, fits[number].shift_y, fits[number].grow, fits[number].turn),
            (0.0, 0.0, 0.0, 0.0),
        ]
        for number in numbers
    }
    weight = np.stack([_by_area(fits[number]) for number in numbers])
    points = field.points
    aside = np.maximum(np.abs(points.x) / np.abs(points.x).max(), np.abs(points.y) / np.abs(points.y).max()) > RIM
    for part in (np.ones_like(aside), aside):
        u, v, w = (array[:, part] for array in (field.u[numbers], field.v[numbers], weight))
        motions, _ = fit_similarities(points.only(part), u, v, w, FEW_ROUNDS)
        for number, motion, seen in zip(numbers, motions, w.sum(axis=1) > 0, strict=True):
            shift_x, shift_y, grow, turn = motion.tolist()
            tried = (shift_x, shift_y, grow, turn)
            if seen and all(_apart(tried, other) for other in candidates[number]):
                candidates[number].append(tried)
    return candidates


def _apart(one: Similarity, other: Similarity) -> bool:
    """Whether two motions differ by more than the comparison of pictures shows."""
    right, down, grow, turn = (abs(a - b) for a, b in zip(one, other, strict=True))
    return max(right, down) + (grow + turn) / 2 >= APART


def _fine(grey: Image) -> Greys:
    """A picture at the size at which motions are compared, without its coarse parts: float32 [h, w]."""
    import cv2

    scale = min(1.0, VOTE_SIDE / max(grey.shape))
    size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
    small = cv2.GaussianBlur(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), (3, 3), 0)
    return np.asarray(small - cv2.boxFilter(small, cv2.CV_32F, (VOTE_BAND, VOTE_BAND)), np.float32)


def _chosen(motion: Motion, motions: Mapping[int, Sequence[Similarity]]) -> dict[int, tuple[int, float]]:
    """Of each pair the number of the motion that explains the most of the picture, and the share of it that moves so. motions: by
    the numbers of their pairs. A cell has no vote where the picture of one of the motions comes from outside."""
    if not motions:
        return {}
    most = max(len(each) for each in motions.values())
    errors, contrasts = [], []
    for number, each in motions.items():
        seconds = float(motion.partner_times[number] - motion.times[number])
        left, contrast = _left(_fine(motion.first[number]), _fine(motion.second[number]), each, seconds)
        # A motion that is there twice changes no vote, and the first of two that are equal is chosen.
        errors.append(np.pad(left, ((0, most - len(each)), (0, 0)), mode="edge"))
        contrasts.append(contrast)
    return dict(zip(motions, _elected(np.stack(errors), np.stack(contrasts)), strict=True))


def _elected(errors: Greys, contrast: Greys) -> list[tuple[int, float]]:
    """Of each of n pairs the number of the motion that most cells vote for, and the share of the cells with contrast that moves
    so. errors: what each of m motions leaves in each of k cells, float32 [n, m, k], nan where the picture comes from outside.
    contrast: float32 [n, k]."""
    inside = np.isfinite(errors).all(axis=1)
    nearest, farthest = errors.min(axis=1), errors.max(axis=1)
    told = inside & (farthest - nearest > VOTE_LEAST)
    explained = (errors <= (nearest + VOTE_NEAR * (farthest - nearest))[:, None]) & told[:, None]
    best = explained.sum(axis=2).argmax(axis=1)
    shows = inside & (contrast > CONTRAST)
    alike = shows & (errors[np.arange(len(best)), best] <= np.maximum(OFF_LEVELS, OFF_SHARE * contrast))
    agreed = alike.sum(axis=1) / np.maximum(shows.sum(axis=1), 1)
    return list(zip(best.tolist(), agreed.tolist(), strict=True))


def _left(first: Greys, second: Greys, motions: Sequence[Similarity], seconds: float) -> tuple[Greys, Greys]:
    """What each motion leaves of the difference of two pictures, the mean of each whole cell: float32 [motions, cells], nan where
    the picture comes from outside; and how much contrast the second picture has there, float32 [cells]."""
    import cv2

    height, width = first.shape
    left = []
    for motion in motions:
        moved = first
        if any(motion):
            matrix = _matrix(motion, seconds, width, height)
            warped = cv2.warpAffine(first, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
            moved = np.asarray(warped, np.float32)
        left.append(_in_cells(np.asarray(cv2.absdiff(moved, second), np.float32)))
    return np.stack(left), _in_cells(np.abs(second))


def _in_cells(picture: Greys) -> Greys:
    """The mean of each whole cell of a float32 [h, w] picture, float32 [cells]."""
    import cv2

    across, down = (max(1, side // VOTE_CELL) for side in picture.shape[::-1])
    whole = picture[: down * VOTE_CELL, : across * VOTE_CELL]
    return np.asarray(cv2.resize(whole, (across, down), interpolation=cv2.INTER_AREA), np.float32).ravel()


def _matrix(motion: Similarity, seconds: float, width: int, height: int) -> Floats:
    """A motion over some seconds as the 2×3 matrix that moves a picture's pixels."""
    shift_x, shift_y, grow, turn = (part * seconds for part in motion)
    linear = np.array([[1 + grow, -turn], [turn, 1 + grow]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = np.array([shift_x, shift_y]) * max(width, height) + centre - linear @ centre
    return np.column_stack([linear, offset])


def fit_flow(flow: Flow, weight: npt.NDArray[np.float32], seconds: float, step: int = STEP) -> Fit:
    """The similarity that explains a flow field best.

    flow: float32 [height, width, 2], pixels right and down from the first picture to the second. weight: float32 [h, w],
    trust in the vectors, at any size. seconds: between the pictures, > 0.
    """
    field = _Field.of([flow], np.array([seconds]), step)
    return _fits(field, field.picked(weight)[None])[0]


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
