"""Fast moves of the camera: whether it went from one picture to another without a cut.

The shot network takes a fast turn, pan or zoom for a transition, since another picture comes of it. In a move all that a picture
shows is found again in the next one, moved, turned and scaled as a whole, until it has left the picture. In a dissolve, a wipe or
an iris it vanishes in its place. A push moves two pictures as a whole, too (`pushes`). Where the camera follows a person, who
stays in the picture, that holds of the ground behind this person (`grounds`).
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

from longtake.curation.reading.grounds import ground_of
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
_CLOSER = [(x, y) for y in range(0, _SIZE[1] - 11, _STRIDE[1]) for x in range(0, _SIZE[0] - 15, _STRIDE[0] // 2)]
_NEAR = 3  # Pixels. A block is looked for so far around the place in which a move puts it.
# Grey levels. A block with a smaller standard deviation shows nothing; from the larger one on all weigh the same.
_FLAT, _BUSY = 2.0, 12.0
_BLOCKS = 3  # Blocks. Where fewer show something, nothing is known.
# Mean correlations of blocks. Two pictures with the first one need not be compared in any other way. A picture is found in the
# next one with the second.
_CERTAIN, _STEP = 0.85, 0.6
_COMMON = 0.35  # A share of the picture. Something alike is found in any two pictures, if they need to have no more in common.
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
class _Limits:
    """What is asked of the part of the pictures that is followed. block: the share of a block that belongs to it, at least. lost:
    with less of it in common, a share, the first picture is lost, and a later one takes its place. seen: two pictures with less
    in common are not compared. again: the mean correlation of blocks with which a picture is found in those up to the one that
    has lost it."""

    block: float
    lost: float
    seen: float
    again: float


# Where all of the picture is followed. 12 of 1,413 transitions other than pushes are, and 83 of 138 fast moves of the camera.
_OF_ALL = _Limits(block=0.9, lost=0.5, seen=0.3, again=0.65)
# Where the ground behind a figure is. The figure takes its part of the blocks, and hides another place in each picture.
_OF_GROUND = _Limits(block=0.5, lost=0.65, seen=0.5, again=0.7)


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of the pictures that is followed, and what a search for it needs: the ways of `_WAYS` at half the size, padded so
    that pictures are moved against each other by any number of pixels. pixels: 1 for each that belongs to it, else 0, float32
    [36, 64]; half: the same at half the size. masks: the pixels that each way fills, float32 [ways, 18, 32]. shapes: their
    transforms. whole: the transform of `half`. counts: the number of pixels in common at each shift, float32 [ways, 36, 64]."""

    limits: _Limits
    pixels: Matrix
    half: Matrix
    masks: Matrix
    shapes: npt.NDArray[np.complex64]
    whole: npt.NDArray[np.complex64]
    counts: Matrix

    @property
    def all(self) -> bool:
        """Whether it is all of the picture."""
        return self.limits is _OF_ALL


def _part(pixels: Matrix, limits: _Limits) -> _Part:
    half = np.asarray(cv2.resize(pixels, _HALF, interpolation=cv2.INTER_AREA) > 0.5, np.float32)
    masks = np.asarray([cv2.warpAffine(half, one, _HALF, flags=cv2.INTER_NEAREST) for one in _maps()], np.float32)
    shapes, whole = _transformed(masks), np.conj(_transformed(half))
    return _Part(limits, pixels, half, masks, shapes, whole, np.maximum(np.round(_back(shapes * whole)), 1))


@cache
def _all_of_it() -> _Part:
    return _part(np.ones(_SIZE[::-1], np.float32), _OF_ALL)


@cache
def _maps() -> list[npt.NDArray[np.float64]]:
    """The ways of `_WAYS` at half the size: float64 [2, 3] each."""
    centre = ((_HALF[0] - 1) / 2, (_HALF[1] - 1) / 2)
    return [np.asarray(cv2.getRotationMatrix2D(centre, *way), np.float64) for way in _WAYS]


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
    part = _all_of_it()
    steps = _followed(pictures, first, last, part)
    if steps is None:
        ground = ground_of(pictures[max(first - BESIDE, 0) : last + BESIDE + 1])
        if ground is not None:
            part = _part(ground, _OF_GROUND)
            steps = _followed(pictures, first, last, part)
    if steps is None or not may_be_push or _turned(steps):
        return steps is not None
    start, end = first, last
    while (
        start > max(first - BESIDE, 0) and (step := _moved(pictures[start - 1], pictures[start], part)).alike >= _STEP
    ):
        steps.insert(0, step)
        start -= 1
    until = min(last + BESIDE, len(pictures) - 1)
    while end < until and (step := _moved(pictures[end], pictures[end + 1], part)).alike >= _STEP:
        steps.append(step)
        end += 1
    return not pushed(pictures[start : end + 1], [step.shift for step in steps])


def _turned(steps: Sequence[Found]) -> bool:
    """Whether the camera turned or zoomed in all its steps together, as no push does."""
    whole = reduce(np.matmul, (step.where for step in steps), np.eye(3))
    return abs(zoomed(whole)) > _ZOOMED or abs(math.atan2(whole[1, 0], whole[0, 0])) > _ZOOMED


def _followed(pictures: Sequence[Grey], first: int, last: int, part: _Part) -> list[Found] | None:
    """How each picture is found in the next one, if all are of one scene, seen by a camera that moves."""
    limits = part.limits
    anchor, known, steps = first, _SAME, list[Found]()
    for i in range(first + 1, last + 1):
        # Most cameras go on as they went.
        ahead = known.where @ steps[-1].where if steps else known.where
        found = _compare(pictures[anchor], pictures[i], ahead, part)
        if found.alike >= _CERTAIN and found.common >= limits.lost:
            steps.append(Found(np.linalg.inv(known.where) @ found.where, found.alike, found.common))
        else:
            step = _moved(pictures[i - 1], pictures[i], part)
            if step.alike < _STEP or step.common < _COMMON:
                return None
            steps.append(step)
            going = known.where @ step.where
            found = _compare(pictures[anchor], pictures[i], going, part) if i - 1 > anchor else step
            if found.alike < limits.again and found.common >= limits.seen and i - 1 > anchor:
                return None
        known = found
        if i - 1 > anchor and (distance(found.where) > _FAR or found.common < limits.lost):
            anchor, known = i - 1, steps[-1]
    return steps


def jerked(before: Grey, after: Grey) -> Found:
    """How a picture is found in a later one, if the camera moved and turned at once, and zoomed little. before, after: uint8
    [36, 64]."""
    part = _all_of_it()
    return _compare(before, after, _searched(before, after, _UNSCALED, part), part)


def moved(before: Grey, after: Grey) -> Found:
    """How a picture is found in the next one, if the camera moved. before, after: uint8 [36, 64]."""
    return _moved(before, after, _all_of_it())


def _moved(before: Grey, after: Grey, part: _Part) -> Found:
    best = _compare(before, after, np.eye(3), part)
    for ways in (_FIRST, _OTHERS):
        if best.alike >= _CERTAIN:
            break
        found = _compare(before, after, _searched(before, after, ways, part), part)
        if found.alike < _CERTAIN:
            found = max(found, _compare(before, after, found.where, part), key=lambda one: one.alike)
        best = max(best, found, key=lambda one: one.alike * min(1.0, one.common + part.limits.seen))
    return best


def _compare(before: Grey, after: Grey, where: Map, part: _Part) -> Found:
    """How alike two pictures are if `where` leads from the later one to the earlier one, up to `_NEAR` pixels; and where it leads
    if these pixels are made up for by a move, a turn and a scale of the whole."""
    inside = _inside(where, part)
    drawn = np.asarray(
        cv2.warpAffine(before, where[:2], _SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint8
    )
    (width, height), common = _BLOCK, float(inside.sum() / part.pixels.sum())
    spreads = _spreads(after)
    shown = (_block_means(inside) > part.limits.block) & (spreads >= _FLAT)
    corners = [(x, y) for x, y in (_CORNERS if part.all else _CLOSER) if shown[y, x]]
    if len(corners) < _BLOCKS:
        return Found(where, 0.0, common)
    alike, apart = np.zeros(len(corners)), np.zeros((len(corners), 2))
    for i, (x, y) in enumerate(corners):
        top, left = max(y - _NEAR, 0), max(x - _NEAR, 0)
        place = drawn[top : y + height + _NEAR, left : x + width + _NEAR]
        here = slice(y, y + height), slice(x, x + width)
        likeness = _likeness(place, after[here], None if part.all else inside[here])
        _, alike[i], _, (u, v) = cv2.minMaxLoc(likeness)
        apart[i] = left + u - x + _peak(likeness[v], u), top + v - y + _peak(likeness[:, u], v)
    weights = np.array([min(float(spreads[y, x]), _BUSY) for x, y in corners])
    points = np.array(corners) + np.array([width - 1, height - 1]) / 2
    fitted = _fitted(points, apart, weights * np.maximum(alike, 1e-3) ** 2)
    return Found(where @ fitted, float((alike * weights).sum() / weights.sum()), common)


def _likeness(place: Grey, block: Grey, counts: Matrix | None) -> Matrix:
    """The correlation of a block with each place of a larger piece, float32 [places down, places across]. counts: 1 for each
    pixel of the block that counts, else 0; None if all do."""
    if counts is None:
        return np.asarray(cv2.matchTemplate(place, block, cv2.TM_CCOEFF_NORMED), np.float32)
    levels, wanted = place.astype(np.float32), block.astype(np.float32)
    found = np.asarray(
        cv2.matchTemplate(levels, wanted, cv2.TM_CCOEFF_NORMED, mask=np.ascontiguousarray(counts)), np.float32
    )
    # The correlation with a plain place is not a number, or a wrong one.
    return np.where(np.abs(found) <= 1.001, found, np.float32(-1))


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


def _inside(where: Map, part: _Part) -> Matrix:
    """1 for each pixel of a part that leads to a pixel of it in the earlier picture, else 0: float32 [36, 64]."""
    x, y = _led(where, np.arange(float(_SIZE[0])), np.arange(float(_SIZE[1]))[:, None])
    inside = np.asarray((x >= -0.5) & (x <= _SIZE[0] - 0.5) & (y >= -0.5) & (y <= _SIZE[1] - 0.5), np.float32)
    if part.all:
        return inside
    was = cv2.warpAffine(part.pixels, where[:2], _SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.5
    return np.asarray(inside * part.pixels * was, np.float32)


def distance(where: Map) -> float:
    """By how much a map moves the points of a picture, pixels in the mean."""
    x, y = np.meshgrid(np.linspace(7.5, 55.5, 7), np.linspace(5.5, 29.5, 5))
    right, below = _led(where, x, y)
    return float(np.hypot(right - x, below - y).mean())


def zoomed(where: Map) -> float:
    """By how much a map makes a picture larger or smaller: the natural logarithm of the factor."""
    return 0.5 * math.log(max(float(np.linalg.det(where[:2, :2])), 1e-12))


def _transformed(pictures: Matrix) -> npt.NDArray[np.complex64]:
    found: npt.NDArray[np.complex64] = scipy.fft.rfft2(pictures, s=_SIZE[::-1])
    return found


def _back(transforms: npt.NDArray[np.complex64]) -> Matrix:
    return np.asarray(scipy.fft.irfft2(transforms, s=_SIZE[::-1]), np.float32)


def _searched(before: Grey, after: Grey, some: slice, part: _Part) -> Map:
    """The move, with one of `some` of the ways, at which the common part of two pictures correlates most. The sums over this part
    at all shifts are products of Fourier transforms (Padfield, Masked object registration in the Fourier domain, 2012)."""
    shapes, whole, counts = part.shapes[some], part.whole, part.counts[some]
    a, b = (cv2.resize(one, _HALF, interpolation=cv2.INTER_AREA).astype(np.float32) for one in (before, after))
    size = float(part.half.sum())
    a, b = ((one - (one * part.half).sum() / size) * part.half for one in (a, b))
    drawn = np.stack([cv2.warpAffine(a, one, _HALF) for one in _maps()[some]]) * part.masks[some]
    first, second = np.conj(_transformed(b)), np.conj(_transformed(b * b))
    plain, squared = _transformed(drawn), _transformed(drawn * drawn)
    products = np.stack([plain * first, plain * whole, squared * whole, shapes * first, shapes * second])
    both, sums_a, squares_a, sums_b, squares_b = _back(products)
    spread_a, spread_b = squares_a - sums_a * sums_a / counts, squares_b - sums_b * sums_b / counts
    enough = (counts >= _COMMON * size) & (spread_a > counts) & (spread_b > counts)
    alike = (both - sums_a * sums_b / counts) / np.sqrt(np.maximum(spread_a * spread_b, 1.0))
    way, y, x = np.unravel_index(int(np.argmax(np.where(enough, alike, -1.0))), alike.shape)
    # Shifts to the left and upwards lie behind the others.
    below, right = (int(shift) - side * (2 * int(shift) >= side) for shift, side in ((y, _SIZE[1]), (x, _SIZE[0])))
    turn = cv2.getRotationMatrix2D((float(_CENTRE[0]), float(_CENTRE[1])), *_WAYS[some][way])
    turn[:, 2] -= (2 * right, 2 * below)
    return np.asarray(np.linalg.inv(np.vstack([turn, [0.0, 0.0, 1.0]])), np.float64)
