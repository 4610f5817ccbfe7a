"""How like two pictures of a film are: what the shot network is shown of them.

Each picture is reduced once to a few small descriptions, none of which depends on its size. Compared are a picture and those
before it, up to a second back. Many pictures are described and compared at once, since a call of numpy costs as much as its
work on one picture of this size. Every comparison is a plain function of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
_ANGLES = 8
_PARTS = (16 * 9, _COLOURS**3, 12 * _ANGLES, 6 * _ANGLES)
_PART_STARTS = np.cumsum((0, *_PARTS[:-1]))
_PART_SCALES = np.array([1, 1, 4, 8], np.float32)  # These factors bring the unlikeness of the four parts to one size.
# The number of the cell in which each pixel lies, 4×3 cells to a picture.
_CELLS = ((np.arange(36) * 3 // 36)[:, None] * 4 + (np.arange(64) * 4 // 64)[None]).reshape(1, -1).astype(np.int32)
_LEVELS = (np.arange(256) * _COLOURS >> 8).astype(np.int32)
# Chroma is spread out, since most films keep to its middle.
_CHROMA = (np.clip((np.arange(256) - 128) * 2 + 128, 0, 255) * _COLOURS >> 8).astype(np.int32)
REMEMBERED = max(LAGS)  # Pictures. So many before those that are compared have to be remembered.


@dataclass(frozen=True, slots=True)
class Look:
    """A picture as it is compared. grey: uint8 [36, 64]; tiny: uint8 [18, 32]; the other vectors have a length of 1.

    parts: four vectors, one after another (`_PARTS`): the layout of grey; the joint histogram of Y, U and V, square roots; the
    directions of the gradients in 4×3 cells, square roots; directions by strength in the whole picture, square roots. level,
    spread: mean and standard deviation of grey. blocks: standard deviation of grey in each block that is looked for.
    """

    time: float
    grey: npt.NDArray[np.uint8]
    tiny: npt.NDArray[np.uint8]
    parts: Vector
    level: float
    spread: float
    blocks: Vector


def look_at(times: Sequence[float], thumbs: Sequence[Image]) -> list[Look]:
    """thumbs: uint8 [h, w, 3], BGR."""
    small = np.stack([cv2.resize(thumb, _SIZE, interpolation=cv2.INTER_AREA) for thumb in thumbs])
    count, height, width, _ = small.shape
    yuv = np.asarray(cv2.cvtColor(small.reshape(-1, width, 3), cv2.COLOR_BGR2YUV), np.uint8).reshape(small.shape)
    grey = np.ascontiguousarray(yuv[..., 0])
    # Pictures one under the other are reduced as one, since no pixel of the result lies across two of them.
    under = grey.reshape(-1, width)
    tiny = np.asarray(cv2.resize(under, (32, 18 * count), interpolation=cv2.INTER_AREA), np.uint8).reshape(-1, 18, 32)
    layout = np.asarray(cv2.resize(under, (16, 9 * count), interpolation=cv2.INTER_AREA), np.float32).reshape(count, -1)
    exact = grey.astype(np.float32)
    level = layout.mean(axis=1, dtype=np.float64)
    spread = exact.std(axis=(1, 2), dtype=np.float64)
    bands = exact.reshape(count, height // _BLOCK[1], _BLOCK[1], width // _BLOCK[0], _BLOCK[0])
    blocks = bands.std(axis=(2, 4)).reshape(count, -1)
    edges, texture = _gradients(grey)
    parts = np.concatenate([_unit(layout - level[:, None]), _histogram(yuv), edges, texture], axis=1).astype(np.float32)
    return [
        Look(times[i], grey[i], tiny[i], parts[i], float(level[i]), float(spread[i]), blocks[i]) for i in range(count)
    ]


def _histogram(yuv: npt.NDArray[np.uint8]) -> Vector:
    index = (_LEVELS[yuv[..., 0]] * _COLOURS + _CHROMA[yuv[..., 1]]) * _COLOURS + _CHROMA[yuv[..., 2]]
    counts = _counts(index.reshape(len(yuv), -1), None, _COLOURS**3)
    return np.asarray(np.sqrt(counts / (yuv.shape[1] * yuv.shape[2])), np.float32)


def _counts(index: npt.NDArray[np.int32], weights: Vector | None, size: int) -> Vector:
    """index: [n, values], each below `size`. How often each is there, or with which weight: float32 [n, size]."""
    count = len(index)
    apart = index + np.arange(0, count * size, size, dtype=np.int32)[:, None]
    heavy = None if weights is None else weights.ravel()
    return np.bincount(apart.ravel(), weights=heavy, minlength=count * size).reshape(count, size).astype(np.float32)


def _gradients(grey: npt.NDArray[np.uint8]) -> tuple[Vector, Vector]:
    """grey: uint8 [n, 36, 64]. Directions in 4×3 cells, directions by strength."""
    count, soft = len(grey), [cv2.GaussianBlur(g, (3, 3), 0) for g in grey]
    dx, dy = (np.concatenate([cv2.Sobel(s, cv2.CV_32F, *way) for s in soft]) for way in ((1, 0), (0, 1)))
    size, angle = cv2.cartToPolar(dx, dy)
    # A direction and its opposite count as one.
    bins = (angle * (2 * _ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES
    bins, strong = bins.reshape(count, -1), np.asarray(size, np.float32).reshape(count, -1)
    strength = np.minimum(np.log2(strong / 8 + 1).astype(np.int32), 5)
    edges = _counts(bins + _CELLS * _ANGLES, strong, 12 * _ANGLES)
    texture = _counts(bins + strength * _ANGLES, None, 6 * _ANGLES)
    return _unit(np.sqrt(edges)), _unit(np.sqrt(texture))


def _unit(vectors: Vector) -> Vector:
    """Each to a length of 1; what has next to none becomes zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.where(lengths > 1e-3, vectors / np.maximum(lengths, 1e-3), 0).astype(np.float32)


def found_again(
    looks: Sequence[Look], here: npt.NDArray[np.intp], olds: Sequence[npt.NDArray[np.intp]]
) -> list[Vector]:
    """How well the blocks of each of some older pictures are found in the pictures `here`, moved by up to an eighth of the
    picture. Of each of `olds`, the numbers of as many pictures as `here`, float32 [pictures, 2]: mean and lower quartile of the
    greatest correlations, 1 for a block that is there as it was. Light and contrast do not matter.

    The correlations at all shifts are the inverse of a product of Fourier transforms, each of which serves several pairs.
    """
    first = min(int(old.min()) for old in olds)
    grey = np.stack([look.grey for look in looks[first:]])
    places, shares = _searched(grey[here - first])
    blocks, norms = _looked_for(grey[: max(int(old.max()) for old in olds) + 1 - first])
    spread = np.stack([look.blocks for look in looks[first:]])
    down, across = 2 * _SEARCH[1] + 1, 2 * _SEARCH[0] + 1
    result = []
    for old in (each - first for each in olds):
        # Only the rows of shifts that are asked for are transformed back.
        rows = scipy.fft.ifft(places * blocks[old], axis=2)[:, :, :down]
        matched = scipy.fft.irfft(rows, n=_PLACE[1], axis=3)[..., :across]
        known = spread[old]
        alike = (matched * shares).max(axis=(2, 3)) / np.maximum(norms[old], 1.0)
        alike = np.where(known >= _FLAT, np.clip(alike, -1.0, 1.0), 1.0)
        weight = np.minimum(known, _BUSY) + 0.1
        mean, low = (alike * weight).sum(axis=1) / weight.sum(axis=1), np.partition(alike, 3, axis=1)[:, 3]
        result.append(np.stack([mean, low], axis=1).astype(np.float32))
    return result


def _looked_for(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.complex64], Vector]:
    """Of pictures uint8 [n, 36, 64]: the conjugate transforms of their blocks, less their means, complex64 [n, blocks, rows,
    columns], and the blocks' lengths, float32 [n, blocks]."""
    (width, height), count = _BLOCK, len(grey)
    blocks = grey.reshape(count, _SIZE[1] // height, height, _SIZE[0] // width, width).transpose(0, 1, 3, 2, 4)
    blocks = blocks.reshape(count, -1, height, width).astype(np.float32)
    blocks = blocks - blocks.mean(axis=(2, 3), keepdims=True)
    norms = np.sqrt(np.einsum("nbyx,nbyx->nb", blocks, blocks))
    return np.conj(scipy.fft.fft(scipy.fft.rfft(blocks, n=_PLACE[1], axis=3), n=_PLACE[0], axis=2)), norms


def _searched(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.complex64], Vector]:
    """Of pictures uint8 [n, 36, 64]: the transforms of the places in which each block may lie, complex64 [n, blocks, rows,
    columns], and at each shift 1 / the length of what lies there, less its mean, float32 [n, blocks, shifts down, across]; 0
    where that is even, and a block is not found."""
    (width, height), (x, y), count = _BLOCK, _SEARCH, len(grey)
    wide = np.stack([cv2.copyMakeBorder(g, y, y, x, x, cv2.BORDER_REPLICATE) for g in grey])
    places = sliding_window_view(wide, _PLACE, axis=(1, 2))[:, ::height, ::width].reshape(count, -1, *_PLACE)
    integrals = [cv2.integral2(picture, sdepth=cv2.CV_64F) for picture in wide]
    sums, squares = (_area_sums(np.stack(totals), height, width) for totals in zip(*integrals, strict=True))
    # The square of a length is 0, or nearly 1 and more: levels are whole.
    lengths = np.sqrt(np.maximum(squares - sums * sums / (width * height), 0.5))
    shares = np.where(lengths > 0.75, 1 / lengths, 0).astype(np.float32)
    shifts = (2 * y + 1, 2 * x + 1)
    shares = sliding_window_view(shares, shifts, axis=(1, 2))[:, ::height, ::width].reshape(count, -1, *shifts)
    # Less a middle grey, which changes no correlation, the numbers are smaller and the transforms more exact.
    return scipy.fft.rfft2(places.astype(np.float32) - 128, axes=(2, 3)), shares


def _area_sums(integral: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """The sum over each rectangle of a size, of each integral image [n, h + 1, w + 1]."""
    rows = integral[:, height:] - integral[:, :-height]
    return np.asarray(rows[..., width:] - rows[..., :-width])


# Numbers that `compare` gives to a picture.
NUMBERS = 4 * len(LAGS) + 13


def compare(looks: Sequence[Look], first: int) -> Vector:
    """The pictures from number `first` on beside those before them, float32 [n − first, NUMBERS]. Before them must lie as many as
    are `REMEMBERED`, or all that the film has: pictures that are not there count as the first."""
    here = np.arange(first, len(looks))
    back = {lag: np.maximum(here - lag, 0) for lag in LAGS}
    parts = np.stack([look.parts for look in looks])
    unlike = [
        _PART_SCALES * (1 - np.add.reduceat(parts[back[lag]] * parts[here], _PART_STARTS, axis=1)) for lag in LAGS
    ]
    last, fourth = back[1], back[4]
    found = [
        2 - 2 * near[:, :1] if k == 0 else 1 - near[:, 1:]
        for near in found_again(looks, here, (last, fourth))
        for k in (0, 1)
    ]
    tiny = np.stack([look.tiny for look in looks]).astype(np.float32)
    apart = [np.log1p(np.abs(tiny[here] - tiny[old]).mean(axis=(1, 2))) / 3 for old in (last, fourth)]
    level, spread, times = (np.array([getattr(look, name) for look in looks]) for name in ("level", "spread", "time"))
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
