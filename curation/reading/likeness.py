"""How like two pictures of a film are: what the shot network is shown of them.

Each picture is reduced once to a few small descriptions, none of which depends on its size. Compared are a picture and those
before it, up to a second back. Many pictures are described and compared at once, since a call of numpy costs as much as its
work on one picture of this size. Every comparison is a plain function of arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from longtake.filters.base import Image

Vector = npt.NDArray[np.float32]

# Pictures. A picture is compared with those so far before it: at 16 pictures a second up to a second back, which most transitions
# do not outlast.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
_SIZE = (64, 36)  # Pixels, width and height. All descriptions of a picture are made of it at this size.
_BLOCK = (16, 12)  # Pixels, width and height. Each block of this size is looked for in a later picture.
_SEARCH = (8, 6)  # Pixels. A block may have moved by this much to either side, and up or down.
_PLACE = (_BLOCK[1] + 2 * _SEARCH[1], _BLOCK[0] + 2 * _SEARCH[0])  # Pixels, height and width, of where a block may lie.
_FLAT = 1.0  # Grey levels. A block whose standard deviation is smaller has nothing that could be recognised.
_BUSY = 12.0  # Grey levels. From this standard deviation on all blocks weigh the same.
_COLOURS = 8  # Levels of each of Y, U and V in the histogram.
_ANGLES = 8  # A power of two.
_PARTS = (16 * 9, _COLOURS**3, 12 * _ANGLES, 6 * _ANGLES)
_PART_STARTS = np.cumsum((0, *_PARTS[:-1]))
_PART_SCALES = np.array([1, 1, 4, 8], np.float32)  # These factors bring the unlikeness of the four parts to one size.
# The number of the cell in which each pixel lies, 4×3 cells to a picture.
_CELLS = ((np.arange(36) * 3 // 36)[:, None] * 4 + (np.arange(64) * 4 // 64)[None]).reshape(1, -1).astype(np.int32)
# The level of the histogram for each value of Y, U and V, uint8 [1, 256, 3]. Chroma is spread out, since most films keep to its
# middle.
_SPREAD_OUT = np.clip((np.arange(256) - 128) * 2 + 128, 0, 255)
_LEVELS = (np.stack([np.arange(256), _SPREAD_OUT, _SPREAD_OUT], axis=1)[None] * _COLOURS >> 8).astype(np.uint8)
REMEMBERED = max(LAGS)  # Pictures. So many before those that are compared have to be remembered.


@dataclass(frozen=True, eq=False, slots=True)
class Looks:
    """Some pictures, one after another, as they are compared.

    times: seconds, float64 [n]. grey: uint8 [n, 36, 64]; tiny: uint8 [n, 18, 32]. parts: float32 [n, numbers], four vectors of
    each picture with a length of 1, one after another (`_PARTS`): the layout of grey; the joint histogram of Y, U and V, square
    roots; the directions of the gradients in 4×3 cells, square roots; directions by strength in the whole picture, square roots.
    level, spread: mean and standard deviation of grey, float64 [n]. blocks: standard deviation of grey in each block that is
    looked for, float32 [n, blocks].
    """

    times: npt.NDArray[np.float64]
    grey: npt.NDArray[np.uint8]
    tiny: npt.NDArray[np.uint8]
    parts: Vector
    level: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    blocks: Vector

    def __len__(self) -> int:
        return len(self.times)

    def since(self, first: int) -> Looks:
        """Those from number `first` on; counted from the end, if it is less than 0."""
        return Looks(*(getattr(self, field.name)[first:] for field in fields(self)))

    def before(self, later: Looks) -> Looks:
        """These, and `later` ones."""
        names = [field.name for field in fields(self)]
        return Looks(*(np.concatenate([getattr(self, name), getattr(later, name)]) for name in names))


def look_at(times: Sequence[float], thumbs: Sequence[Image]) -> Looks:
    """thumbs: uint8 [h, w, 3], BGR."""
    small = np.stack([cv2.resize(thumb, _SIZE, interpolation=cv2.INTER_AREA) for thumb in thumbs])
    count, _, width, _ = small.shape
    yuv = np.asarray(cv2.cvtColor(small.reshape(-1, width, 3), cv2.COLOR_BGR2YUV), np.uint8).reshape(small.shape)
    grey = np.ascontiguousarray(yuv[..., 0])
    # Pictures one under the other are reduced as one, since no pixel of the result lies across two of them.
    under = grey.reshape(-1, width)
    tiny = np.asarray(cv2.resize(under, (32, 18 * count), interpolation=cv2.INTER_AREA), np.uint8).reshape(-1, 18, 32)
    layout = np.asarray(cv2.resize(under, (16, 9 * count), interpolation=cv2.INTER_AREA), np.float32).reshape(count, -1)
    level = layout.mean(axis=1, dtype=np.float64)
    spread, blocks = _spreads(grey)
    edges, texture = _gradients(grey)
    parts = np.concatenate([_unit(layout - level[:, None]), _histogram(yuv), edges, texture], axis=1).astype(np.float32)
    return Looks(np.array(times, np.float64), grey, tiny, parts, level, spread, blocks)


def _spreads(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], Vector]:
    """Standard deviations of whole pictures, uint8 [n, 36, 64], and of their blocks."""
    (width, height), count = _BLOCK, len(grey)
    bands = grey.astype(np.float32).reshape(count, _SIZE[1] // height, height, _SIZE[0] // width, width)
    # Sums of a block's levels and of their squares are whole numbers that float32 holds exactly.
    sums = np.einsum("nbyax->nba", bands).reshape(count, -1).astype(np.float64)
    squares = np.einsum("nbyax,nbyax->nba", bands, bands).reshape(count, -1).astype(np.float64)
    pixels = width * height
    blocks = np.sqrt(squares * pixels - sums * sums) / pixels
    total, every = sums.sum(axis=1), grey[0].size
    spread = np.sqrt(squares.sum(axis=1) * every - total * total) / every
    return spread, blocks.astype(np.float32)


def _histogram(yuv: npt.NDArray[np.uint8]) -> Vector:
    levels = np.asarray(cv2.LUT(yuv.reshape(1, -1, 3), _LEVELS), np.int32).reshape(len(yuv), -1, 3)
    counts = _counts((levels[..., 0] * _COLOURS + levels[..., 1]) * _COLOURS + levels[..., 2], None, _COLOURS**3)
    return np.asarray(np.sqrt(counts / (yuv.shape[1] * yuv.shape[2])), np.float32)


def _counts(index: npt.NDArray[np.int32], weights: Vector | None, size: int) -> Vector:
    """index: [n, values], each below `size`. How often each is there, or with which weight: float32 [n, size]."""
    count = len(index)
    apart = index + np.arange(0, count * size, size, dtype=np.int32)[:, None]
    heavy = None if weights is None else weights.ravel()
    return np.bincount(apart.ravel(), weights=heavy, minlength=count * size).reshape(count, size).astype(np.float32)


def _gradients(grey: npt.NDArray[np.uint8]) -> tuple[Vector, Vector]:
    """grey: uint8 [n, 36, 64]. Directions in 4×3 cells, directions by strength."""
    count, _, width = grey.shape
    # Pictures one under the other, each between mirrored rows, are filtered as one, and each as if it were alone.
    under = np.pad(grey, ((0, 0), (2, 2), (0, 0)), mode="reflect").reshape(-1, width)
    soft = cv2.GaussianBlur(under, (3, 3), 0)
    dx, dy = (
        np.ascontiguousarray(cv2.Sobel(soft, cv2.CV_32F, *way).reshape(count, -1, width)[:, 2:-2]).reshape(-1, width)
        for way in ((1, 0), (0, 1))
    )
    size, angle = cv2.cartToPolar(dx, dy)
    # A direction and its opposite count as one.
    bins = (angle * (2 * _ANGLES / (2 * np.pi))).astype(np.int32) & (_ANGLES - 1)
    bins, strong = bins.reshape(count, -1), np.asarray(size, np.float32).reshape(count, -1)
    strength = np.minimum(np.log2(strong / 8 + 1).astype(np.int32), 5)
    edges = _counts(bins + _CELLS * _ANGLES, strong, 12 * _ANGLES)
    texture = _counts(bins + strength * _ANGLES, None, 6 * _ANGLES)
    return _unit(np.sqrt(edges)), _unit(np.sqrt(texture))


def _unit(vectors: npt.NDArray[np.floating[Any]]) -> Vector:
    """Each to a length of 1; what has next to none becomes zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.where(lengths > 1e-3, vectors / np.maximum(lengths, 1e-3), 0).astype(np.float32)


def found_again(looks: Looks, here: npt.NDArray[np.intp], olds: Sequence[npt.NDArray[np.intp]]) -> list[Vector]:
    """How well the blocks of each of some older pictures are found in the pictures `here`, moved by up to an eighth of the
    picture. Of each of `olds`, the numbers of as many pictures as `here`, float32 [pictures, 2]: mean and lower quartile of the
    greatest correlations, 1 for a block that is there as it was. Light and contrast do not matter.

    The correlations at all shifts are the inverse of a product of Fourier transforms, each of which serves several pairs.
    """
    first = min(int(old.min()) for old in olds)
    places, shares = _searched(looks.grey[here])
    blocks = _looked_for(looks.grey[first : max(int(old.max()) for old in olds) + 1])
    down, across = 2 * _SEARCH[1] + 1, 2 * _SEARCH[0] + 1
    result = []
    for old in olds:
        # Only the rows of shifts that are asked for are transformed back.
        rows = scipy.fft.ifft(places * blocks[old - first], axis=2)[:, :, :down]
        matched = scipy.fft.irfft(rows, n=_PLACE[1], axis=3)[..., :across]
        known = looks.blocks[old]
        lengths = np.maximum(known * np.float32(math.sqrt(_BLOCK[0] * _BLOCK[1])), 1.0)
        alike = (matched * shares).max(axis=(2, 3)) / lengths
        alike = np.where(known >= _FLAT, np.clip(alike, -1.0, 1.0), 1.0)
        weight = np.minimum(known, _BUSY) + 0.1
        mean, low = (alike * weight).sum(axis=1) / weight.sum(axis=1), np.partition(alike, 3, axis=1)[:, 3]
        result.append(np.stack([mean, low], axis=1).astype(np.float32))
    return result


def _looked_for(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.complex64]:
    """Of pictures uint8 [n, 36, 64]: the conjugate transforms of their blocks, less their means, complex64 [n, blocks, rows,
    columns]."""
    (width, height), count = _BLOCK, len(grey)
    blocks = grey.reshape(count, _SIZE[1] // height, height, _SIZE[0] // width, width).transpose(0, 1, 3, 2, 4)
    blocks = blocks.reshape(count, -1, height, width).astype(np.float32)
    blocks -= blocks.mean(axis=(2, 3), dtype=np.float32, keepdims=True)
    found: npt.NDArray[np.complex64] = np.conj(
        scipy.fft.fft(scipy.fft.rfft(blocks, n=_PLACE[1], axis=3), n=_PLACE[0], axis=2)
    )
    return found


def _searched(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.complex64], Vector]:
    """Of pictures uint8 [n, 36, 64]: the transforms of the places in which each block may lie, complex64 [n, blocks, rows,
    columns], and at each shift 1 / the length of what lies there, less its mean, float32 [n, blocks, shifts down, across]; 0
    where that is even, and a block is not found."""
    (width, height), (x, y), count = _BLOCK, _SEARCH, len(grey)
    wide = np.stack([cv2.copyMakeBorder(g, y, y, x, x, cv2.BORDER_REPLICATE) for g in grey])
    places = sliding_window_view(wide, _PLACE, axis=(1, 2))[:, ::height, ::width].reshape(count, -1, *_PLACE)
    sums, squares = (_block_sums(box, wide) for box in (cv2.boxFilter, cv2.sqrBoxFilter))
    # The square of a length, times the pixels of a block: a whole number below 2^32.
    lengths = squares * np.uint32(width * height) - sums * sums
    # An even place has 0, any other one a length of nearly 1 or more.
    inverse = np.sqrt(np.float32(width * height) / np.maximum(lengths, 1).astype(np.float32))
    shares = np.where(lengths > 0, inverse, np.float32(0))
    shifts = (2 * y + 1, 2 * x + 1)
    shares = sliding_window_view(shares, shifts, axis=(1, 2))[:, ::height, ::width].reshape(count, -1, *shifts)
    # Less a middle grey, which changes no correlation, the numbers are smaller and the transforms more exact.
    return scipy.fft.rfft2(places.astype(np.float32) - 128, axes=(2, 3)), shares


def _block_sums(box: Callable[..., Any], pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The sum that `box` takes over a block at each place of pictures uint8 [n, h, w]."""
    (width, height), (count, high, wide) = _BLOCK, pictures.shape
    sums = box(pictures.reshape(-1, wide), cv2.CV_32S, _BLOCK, normalize=False, anchor=(0, 0))
    whole = sums.reshape(count, high, wide)[:, : 1 - height, : 1 - width]
    return np.asarray(whole, np.uint32)


# Numbers that `compare` gives to a picture.
NUMBERS = 4 * len(LAGS) + 13


def compare(looks: Looks, first: int) -> Vector:
    """The pictures from number `first` on beside those before them, float32 [n − first, NUMBERS]. Before them must lie as many as
    are `REMEMBERED`, or all that the film has: pictures that are not there count as the first."""
    here = np.arange(first, len(looks))
    back = {lag: np.maximum(here - lag, 0) for lag in LAGS}
    parts, level, spread, times = looks.parts, looks.level, looks.spread, looks.times
    unlike = [
        _PART_SCALES * (1 - np.add.reduceat(parts[back[lag]] * parts[here], _PART_STARTS, axis=1)) for lag in LAGS
    ]
    last, fourth = back[1], back[4]
    found = [
        2 - 2 * near[:, :1] if k == 0 else 1 - near[:, 1:]
        for near in found_again(looks, here, (last, fourth))
        for k in (0, 1)
    ]
    tiny = looks.tiny.astype(np.float32)
    apart = [np.log1p(np.abs(tiny[here] - tiny[old]).mean(axis=(1, 2))) / 3 for old in (last, fourth)]
    others = [
        *apart,
        (level[here] - level[last]) / 40,
        (level[here] - level[fourth]) / 40,
        level[here] / 255,
        np.log1p(spread[here]) / 4,
        np.log1p(spread[last]) / 4,
        np.minimum(times[here] - times[last], 1.0) * 4,
        np.minimum(times[here] - times[fourth], 2.0),
    ]
    return np.concatenate([*unlike, *found, np.stack(others, axis=1)], axis=1).astype(np.float32)
