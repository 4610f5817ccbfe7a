"""Fast moves of the camera: whether it went from one picture to another without a cut.

The shot network takes a fast turn, pan or zoom for a transition, since another picture comes of it. In a move all that a picture
shows is found again in the next one, moved, turned and scaled as a whole, until it has left the picture. In a dissolve, a wipe or
an iris it vanishes in its place. A push moves two pictures as a whole, too (`pushes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.fft

from longtake.curation.reading.pushes import pushed

Grey = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]
# A map from the points of a picture to those of an earlier one: float64 [3, 3], on (x, y, 1), pixels.
Map = npt.NDArray[np.float64]

_SIZE = (64, 36)  # Pixels, width and height. The size of the pictures that are compared (`likeness.Looks.grey`).
_HALF = (32, 18)  # Pixels. A move is searched for at this size.
_CENTRE = np.array([31.5, 17.5, 1.0])
# Degrees and factors. A move is searched for at these turns and scales: the nearest of them puts no block further than `_NEAR`
# from its place. From one picture to the next, a twelfth of a second later, a hand turns and zooms no further.
_WAYS = sorted(
    ((turn, scale) for turn in (-24.0, -12.0, 0.0, 12.0, 24.0) for scale in (1 / 1.3, 1 / 1.14, 1.0, 1.14, 1.3)),
    key=lambda way: (way[1] != 1.0, abs(way[0])),
)
_FIRST, _OTHERS, _UNSCALED = slice(0, 1), slice(1, None), slice(0, 5)  # No turn and no scale; all others; no scale.
_BLOCK, _STRIDE = (16, 12), (8, 6)  # Pixels, width and height: of a block that is compared, and from one to the next.
_CORNERS = [(x, y) for y in range(0, _SIZE[1] - 11, _STRIDE[1]) for x in range(0, _SIZE[0] - 15, _STRIDE[0])]
_NEAR = 3  # Pixels. A block is looked for so far around the place in which a move puts it.
# Grey levels. A block with a smaller standard deviation shows nothing; from the larger one on all weigh the same.
_FLAT, _BUSY = 2.0, 12.0
_BLOCKS = 3  # Blocks. Where fewer show something, nothing is known.
# Mean correlations of blocks. Two pictures with the first one need not be compared in any other way. A picture is found in the
# next one with the second, and in those up to the one that has lost half of it with the third. Of 1,413 transitions other than
# pushes 12 reach both; of 138 false ones where the camera moves fast 83 do.
_CERTAIN, _STEP, _AGAIN = 0.85, 0.6, 0.65
# Shares of the picture. Something alike is found in any two pictures, if they need to have no more in common than the first; with
# less than the second in common, the first picture is lost, and a later one takes its place.
_COMMON, _LOST = 0.35, 0.5
_SEEN = 0.3  # A share of the picture. Two pictures with less in common are not compared.
_FAR = 16.0  # Pixels in the mean. After such a move a later picture takes the place of the first one, too.
# A factor. A picture with so much less contrast than the other one is that of a fade, or shows nothing.
_FADED = 0.25
_TURNS = 5  # Blocks. Fewer say nothing about turn and scale.
_PULL = 3.0  # Blocks in a row say little about turn and scale, so that these are pulled towards none.
_AT_MOST = 0.15  # A turn (radians) and a scale that are made up for at once.
# The natural logarithm of a factor, and radians. A push zooms and turns no more than that, with what its takes do.
_ZOOMED = 0.7
BESIDE = 8  # Pictures. A push may begin so long before what the network calls a transition, and end so long after it.


@dataclass(frozen=True, slots=True)
class Found:
    """How a picture is found in a later one. where: the map from the later one to it. alike: mean correlation of blocks. common:
    the share of the later picture that the earlier one shows, too."""

    where: Map
    alike: float
    common: float

    @property
    def shift(self) -> npt.NDArray[np.float64]:
        """By how much the middle of the picture has moved, pixels, float64 [2]."""
        return np.asarray((self.where @ _CENTRE - _CENTRE)[:2], np.float64)


_SAME = Found(np.eye(3), 1.0, 1.0)


def moves_on(pictures: Sequence[Grey], first: int, last: int, may_be_push: bool) -> bool:
    """Whether the camera moved from picture number `first` to number `last`, and nothing was cut. pictures: uint8 [36, 64] each,
    with some before and after these two, in which a push may begin and end. may_be_push: whether what looks like a push is one,
    and not a move."""
    spreads = [float(pictures[i].std()) for i in (first, last)]
    if min(spreads) < _FADED * max(spreads):
        return False
    steps = _followed(pictures, first, last)
    if steps is None or not may_be_push or _turned(steps):
        return steps is not None
    start, end = first, last
    while start > max(first - BESIDE, 0) and (step := moved(pictures[start - 1], pictures[start])).alike >= _STEP:
        steps.insert(0, step)
        start -= 1
    until = min(last + BESIDE, len(pictures) - 1)
    while end < until and (step := moved(pictures[end], pictures[end + 1])).alike >= _STEP:
        steps.append(step)
        end += 1
    return not pushed(pictures[start : end + 1], [step.shift for step in steps])


def _turned(steps: Sequence[Found]) -> bool:
    """Whether the camera turned or zoomed in all its steps together, as no push does."""
    whole = reduce(np.matmul, (step.where for step in steps), np.eye(3))
    return abs(zoomed(whole)) > _ZOOMED or abs(math.atan2(whole[1, 0], whole[0, 0])) > _ZOOMED


def _followed(pictures: Sequence[Grey], first: int, last: int) -> list[Found] | None:
    """How each picture is found in the next one, if all are of one scene, seen by a camera that moves."""
    anchor, known, steps = first, _SAME, list[Found]()
    for i in range(first + 1, last + 1):
        # Most cameras go on as they went.
        ahead = known.where @ steps[-1].where if steps else known.where
        found = _compare(pictures[anchor], pictures[i], ahead)
        if found.alike >= _CERTAIN and found.common >= _LOST:
            steps.append(Found(np.linalg.inv(known.where) @ found.where, found.alike, found.common))
        else:
            step = moved(pictures[i - 1], pictures[i])
            if step.alike < _STEP or step.common < _COMMON:
                return None
            steps.append(step)
            found = _compare(pictures[anchor], pictures[i], known.where @ step.where) if i - 1 > anchor else step
            if found.alike < _AGAIN and found.common >= _SEEN and i - 1 > anchor:
                return None
        known = found
        if i - 1 > anchor and (distance(found.where) > _FAR or found.common < _LOST):
            anchor, known = i - 1, steps[-1]
    return steps


def jerked(before: Grey, after: Grey) -> Found:
    """How a picture is found in a later one, if the camera moved and turned at once, and zoomed little. before, after: uint8
    [36, 64]."""
    return _compare(before, after, _searched(before, after, _UNSCALED))


def moved(before: Grey, after: Grey) -> Found:
    """How a picture is found in the next one, if the camera moved. before, after: uint8 [36, 64]."""
    best = _compare(before, after, np.eye(3))
    for ways in (_FIRST, _OTHERS):
        if best.alike >= _CERTAIN:
            break
        found = _compare(before, after, _searched(before, after, ways))
        if found.alike < _CERTAIN:
            found = max(found, _compare(before, after, found.where), key=lambda one: one.alike)
        best = max(best, found, key=lambda one: one.alike * min(1.0, one.common + _SEEN))
    return best


def _compare(before: Grey, after: Grey, where: Map) -> Found:
    """How alike two pictures are if `where` leads from the later one to the earlier one, up to `_NEAR` pixels; and where it leads
    if these pixels are made up for by a move, a turn and a scale of the whole."""
    inside = _inside(where)
    drawn = cv2.warpAffine(before, where[:2], _SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    (width, height), common = _BLOCK, float(inside.mean())
    spreads = _spreads(after)
    shown = (_block_means(inside) > 0.9) & (spreads >= _FLAT)
    corners = [(x, y) for x, y in _CORNERS if shown[y, x]]
    if len(corners) < _BLOCKS:
        return Found(where, 0.0, common)
    alike, apart = np.zeros(len(corners)), np.zeros((len(corners), 2))
    for i, (x, y) in enumerate(corners):
        top, left = max(y - _NEAR, 0), max(x - _NEAR, 0)
        place = drawn[top : y + height + _NEAR, left : x + width + _NEAR]
        likeness = cv2.matchTemplate(place, after[y : y + height, x : x + width], cv2.TM_CCOEFF_NORMED)
        _, alike[i], _, (u, v) = cv2.minMaxLoc(likeness)
        apart[i] = left + u - x + _peak(likeness[v], u), top + v - y + _peak(likeness[:, u], v)
    weights = np.array([min(float(spreads[y, x]), _BUSY) for x, y in corners])
    points = np.array(corners) + np.array([width - 1, height - 1]) / 2
    fitted = _fitted(points, apart, weights * np.maximum(alike, 1e-3) ** 2)
    return Found(where @ fitted, float((alike * weights).sum() / weights.sum()), common)


def _block_means(values: Matrix) -> Matrix:
    """The mean of the block at each place, by its upper left corner: float32 [36, 64]."""
    return np.asarray(cv2.boxFilter(values, -1, _BLOCK, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT), np.float32)


def _spreads(picture: Grey) -> Matrix:
    """The standard deviation of the block at each place, by its upper left corner: float32 [36, 64]."""
    levels = picture.astype(np.float32)
    means, squares = _block_means(levels), _block_means(levels * levels)
    return np.asarray(np.sqrt(np.maximum(squares - means * means, 0.0)), np.float32)


def _peak(values: npt.NDArray[Any], at: int) -> float:
    """How far the top of a parabola through the value at a place and its two neighbours is from it, −0.5 to 0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, middle, after = values[at - 1 : at + 2].tolist()
    bend = before - 2 * middle + after
    return float(0.5 * (before - after) / bend) if bend < -1e-6 else 0.0


def _fitted(points: npt.NDArray[np.float64], apart: npt.NDArray[np.float64], sure: npt.NDArray[np.float64]) -> Map:
    """The move, turn and scale that leads from points to those so far apart from them. With few points it is a mere move."""
    fitted = np.eye(3)
    if len(points) < _TURNS:
        fitted[:2, 2] = np.average(apart, axis=0, weights=sure)
        return fitted
    x, y = (points - _CENTRE[:2]).T
    one, none = np.ones(len(x)), np.zeros(len(x))
    rows = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    weights = np.sqrt(np.tile(sure, 2))
    pull = np.diag([_PULL, _PULL, 0.0, 0.0]) * np.sqrt(sure.mean())
    ends = np.concatenate([apart.T.ravel() * weights, np.zeros(4)])
    scale, turn, right, below = np.linalg.lstsq(np.concatenate([rows * weights[:, None], pull]), ends, rcond=None)[0]
    scale, turn = np.clip([scale, turn], -_AT_MOST, _AT_MOST)
    fitted[:2, :2] += [[scale, -turn], [turn, scale]]
    fitted[:2, 2] = np.array([right, below]) - (fitted[:2, :2] - np.eye(2)) @ _CENTRE[:2]
    return fitted


def _led(where: Map, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """The points to which a map leads from others, x and y."""
    return [row[0] * x + row[1] * y + row[2] for row in where[:2]]


def _inside(where: Map) -> Matrix:
    """1 for each pixel that leads into the earlier picture, else 0: float32 [36, 64]."""
    x, y = _led(where, np.arange(float(_SIZE[0])), np.arange(float(_SIZE[1]))[:, None])
    return np.asarray((x >= -0.5) & (x <= _SIZE[0] - 0.5) & (y >= -0.5) & (y <= _SIZE[1] - 0.5), np.float32)


def distance(where: Map) -> float:
    """By how much a map moves the points of a picture, pixels in the mean."""
    x, y = np.meshgrid(np.linspace(7.5, 55.5, 7), np.linspace(5.5, 29.5, 5))
    right, below = _led(where, x, y)
    return float(np.hypot(right - x, below - y).mean())


def zoomed(where: Map) -> float:
    """By how much a map makes a picture larger or smaller: the natural logarithm of the factor."""
    return 0.5 * math.log(max(float(np.linalg.det(where[:2, :2])), 1e-12))


@dataclass(frozen=True, slots=True)
class _Search:
    """The ways of `_WAYS` at half the size, padded so that pictures are moved against each other by any number of pixels. maps:
    float64 [2, 3] each. masks: the pixels that each way fills, float32 [ways, 18, 32]. shapes: their transforms. whole: the
    transform of a picture of ones. counts: the number of pixels in common at each shift, float32 [ways, 36, 64]."""

    maps: list[npt.NDArray[np.float64]]
    masks: Matrix
    shapes: npt.NDArray[np.complex64]
    whole: npt.NDArray[np.complex64]
    counts: Matrix


@cache
def _search() -> _Search:
    ones = np.ones(_HALF[::-1], np.float32)
    centre = ((_HALF[0] - 1) / 2, (_HALF[1] - 1) / 2)
    maps = [np.asarray(cv2.getRotationMatrix2D(centre, *way), np.float64) for way in _WAYS]
    masks = np.asarray([cv2.warpAffine(ones, one, _HALF, flags=cv2.INTER_NEAREST) for one in maps], np.float32)
    shapes, whole = _transformed(masks), np.conj(_transformed(ones))
    return _Search(maps, masks, shapes, whole, np.maximum(np.round(_back(shapes * whole)), 1))


def _transformed(pictures: Matrix) -> npt.NDArray[np.complex64]:
    found: npt.NDArray[np.complex64] = scipy.fft.rfft2(pictures, s=_SIZE[::-1])
    return found


def _back(transforms: npt.NDArray[np.complex64]) -> Matrix:
    return np.asarray(scipy.fft.irfft2(transforms, s=_SIZE[::-1]), np.float32)


def _searched(before: Grey, after: Grey, some: slice) -> Map:
    """The move, with one of `some` of the ways, at which the common part of two pictures correlates most. The sums over this part
    at all shifts are products of Fourier transforms (Padfield, Masked object registration in the Fourier domain, 2012)."""
    known = _search()
    shapes, whole, counts = known.shapes[some], known.whole, known.counts[some]
    a, b = (cv2.resize(one, _HALF, interpolation=cv2.INTER_AREA).astype(np.float32) for one in (before, after))
    a, b = a - a.mean(), b - b.mean()
    drawn = np.stack([cv2.warpAffine(a, one, _HALF) for one in known.maps[some]]) * known.masks[some]
    first, second = np.conj(_transformed(b)), np.conj(_transformed(b * b))
    plain, squared = _transformed(drawn), _transformed(drawn * drawn)
    products = np.stack([plain * first, plain * whole, squared * whole, shapes * first, shapes * second])
    both, sums_a, squares_a, sums_b, squares_b = _back(products)
    spread_a, spread_b = squares_a - sums_a * sums_a / counts, squares_b - sums_b * sums_b / counts
    enough = (counts >= _COMMON * a.size) & (spread_a > counts) & (spread_b > counts)
    alike = (both - sums_a * sums_b / counts) / np.sqrt(np.maximum(spread_a * spread_b, 1.0))
    way, y, x = np.unravel_index(int(np.argmax(np.where(enough, alike, -1.0))), alike.shape)
    # Shifts to the left and upwards lie behind the others.
    below, right = (int(shift) - side * (2 * int(shift) >= side) for shift, side in ((y, _SIZE[1]), (x, _SIZE[0])))
    turn = cv2.getRotationMatrix2D((float(_CENTRE[0]), float(_CENTRE[1])), *_WAYS[some][way])
    turn[:, 2] -= (2 * right, 2 * below)
    return np.asarray(np.linalg.inv(np.vstack([turn, [0.0, 0.0, 1.0]])), np.float64)
