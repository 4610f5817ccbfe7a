"""How like two pictures of a film are: what the shot network is shown of them.

Each picture is reduced once to a few small descriptions, none of which depends on its size. Compared are a picture and those
before it, up to a second back. Every comparison is a plain function of arrays.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image

Vector = npt.NDArray[np.float32]

# How many pictures back a picture is compared: at 16 pictures a second a second back, which most transitions do not outlast.
LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
_SIZE = (64, 36)  # of the picture that everything is made of
_BLOCK = (16, 12)  # of what is looked for in the next picture
_SEARCH = (8, 6)  # how far it may have moved, either way
_FLAT = 1.0  # Grey levels. A block whose standard deviation is smaller has nothing that could be recognised.
_BUSY = 12.0  # Grey levels. From this standard deviation on all blocks weigh the same.
_COLOURS = 8  # levels of each of Y, U and V in the histogram
_ANGLES = 8
_PARTS = (16 * 9, _COLOURS**3, 12 * _ANGLES, 6 * _ANGLES)
_PART_STARTS = np.cumsum((0, *_PARTS[:-1]))
_PART_SCALES = np.array([1, 1, 4, 8], np.float32)  # bring their unlikeness to one size
_CELLS = (np.arange(36) * 3 // 36)[:, None] * 4 + (np.arange(64) * 4 // 64)[None]  # of each pixel, 4×3 to a picture


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


def look_at(time: float, thumb: Image) -> Look:
    """thumb: uint8 [h, w, 3], BGR."""
    small = cv2.resize(thumb, _SIZE, interpolation=cv2.INTER_AREA)
    yuv = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2YUV), np.uint8)
    grey = np.ascontiguousarray(yuv[..., 0])
    tiny = np.asarray(cv2.resize(grey, (32, 18), interpolation=cv2.INTER_AREA), np.uint8)
    layout = cv2.resize(grey, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    level, spread = cv2.mean(layout)[0], float(cv2.meanStdDev(grey)[1][0, 0])
    edges, texture = _gradients(grey)
    height, width = grey.shape
    bands = grey.reshape(height // _BLOCK[1], _BLOCK[1], width // _BLOCK[0], _BLOCK[0])
    blocks = bands.std(axis=(1, 3), dtype=np.float32).ravel()
    parts = np.concatenate([_unit(layout - level), _histogram(yuv), edges, texture])
    return Look(time, grey, tiny, parts, level, spread, blocks)


def _histogram(yuv: Image) -> Vector:
    """Chroma is spread out, since most films keep to its middle."""
    y = yuv[..., 0].astype(np.int32) * _COLOURS >> 8
    chroma = np.clip((yuv[..., 1:].astype(np.int32) - 128) * 2 + 128, 0, 255) * _COLOURS >> 8
    index = (y * _COLOURS + chroma[..., 0]) * _COLOURS + chroma[..., 1]
    counts = np.bincount(index.ravel(), minlength=_COLOURS**3)
    return np.asarray(np.sqrt(counts / index.size), np.float32)


def _gradients(grey: npt.NDArray[np.uint8]) -> tuple[Vector, Vector]:
    soft = cv2.GaussianBlur(grey, (3, 3), 0)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    size, angle = cv2.cartToPolar(dx, dy)
    bins = (angle * (2 * _ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES  # a direction and its opposite are one
    edges = np.bincount((_CELLS * _ANGLES + bins).ravel(), weights=size.ravel(), minlength=12 * _ANGLES)
    strength = np.minimum(np.log2(size / 8 + 1).astype(np.int32), 5)
    texture = np.bincount((strength * _ANGLES + bins).ravel(), minlength=6 * _ANGLES)
    return _unit(np.sqrt(edges).astype(np.float32)), _unit(np.sqrt(texture).astype(np.float32))


def _unit(vector: Vector) -> Vector:
    length = float(np.sqrt(vector @ vector))
    return vector / length if length > 1e-3 else np.zeros_like(vector)


def found_again(before: Look, after: Look) -> tuple[float, float]:
    """How well the blocks of a picture are found in another, moved by up to an eighth of the picture: mean and lower quartile
    of the correlations, 1 for a block that is there as it was. Light and contrast do not matter."""
    width, height = _SIZE
    (bw, bh), (sx, sy) = _BLOCK, _SEARCH
    wide = cv2.copyMakeBorder(after.grey, sy, sy, sx, sx, cv2.BORDER_REPLICATE)
    alike = np.ones(len(before.blocks), np.float32)
    number = 0
    for y in range(0, height, bh):
        for x in range(0, width, bw):
            if before.blocks[number] >= _FLAT:
                where = wide[y : y + bh + 2 * sy, x : x + bw + 2 * sx]
                block = before.grey[y : y + bh, x : x + bw]
                alike[number] = cv2.minMaxLoc(cv2.matchTemplate(where, block, cv2.TM_CCOEFF_NORMED))[1]
            number += 1
    alike = np.clip(np.nan_to_num(alike, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
    weight = np.minimum(before.blocks, _BUSY) + 0.1
    return float((alike * weight).sum() / weight.sum()), float(np.partition(alike, 3)[3])


# How many numbers `compare` gives.
NUMBERS = 4 * len(LAGS) + 13


def compare(looks: deque[Look]) -> Vector:
    """The last of `looks` beside those before it, float32 [NUMBERS]. Pictures that are not there count as the first."""
    now = looks[-1]
    old = np.stack([looks[max(len(looks) - 1 - lag, 0)].parts for lag in LAGS])
    unlike = _PART_SCALES * (1 - np.add.reduceat(old * now.parts, _PART_STARTS, axis=1))
    last = looks[max(len(looks) - 2, 0)]
    fourth = looks[max(len(looks) - 5, 0)]
    mean, low = found_again(last, now)
    far_mean, far_low = found_again(fourth, now)
    apart = float(cv2.norm(now.tiny, last.tiny, cv2.NORM_L1)) / now.tiny.size
    return np.array(
        [
            *unlike.ravel(),
            2 * (1 - mean),
            1 - low,
            2 * (1 - far_mean),
            1 - far_low,
            np.log1p(apart) / 3,
            np.log1p(float(cv2.norm(now.tiny, fourth.tiny, cv2.NORM_L1)) / now.tiny.size) / 3,
            (now.level - last.level) / 40,
            (now.level - fourth.level) / 40,
            now.level / 255,
            np.log1p(now.spread) / 4,
            np.log1p(last.spread) / 4,
            min(now.time - last.time, 1.0) * 4,
            min(now.time - fourth.time, 2.0),
        ],
        np.float32,
    )
