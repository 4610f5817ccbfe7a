"""What is kept of a decoded picture before it is reduced to the analysis size. Only full size shows where exactly borders end,
and how sharp the picture really is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import av
import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.colour import stand_in
from longtake.filters.base import Image, Native

# Pixels. Each tile is a square of this side.
TILE = 256
# Tiles are spread evenly over the picture: this number of them across, and this number down.
ACROSS, DOWN = 3, 2
# The bits of a component, by the end of a planar format's name (`yuv420p10le`, `gray12le`); none: eight.
_DEEP = re.compile(r"(?:p|gray)(9|10|12|14|16)le$")
_PLANAR = ("yuv", "yuvj", "yuva", "gray", "nv1", "nv2")


@dataclass(frozen=True, slots=True)
class NativeLook:
    """What to keep of each picture. tiles: square parts of the luma. edges: how much the luma changes from row to row, and from
    column to column."""

    tiles: bool = False
    edges: bool = False

    def of(self, frame: av.VideoFrame) -> Native:
        """The parts to keep of a decoded picture, which is neither turned nor stretched yet."""
        luma = luma_of(frame)
        tiles, places = _tiles(luma) if self.tiles else (None, None)
        rows, columns = _steps(luma) if self.edges else (None, None)
        return Native(luma.shape[1], luma.shape[0], tiles, places, rows, columns)


def luma_of(frame: av.VideoFrame) -> Image:
    """uint8 [h, w], in the frame's own range; a view of its memory where it has such a plane."""
    name = frame.format.name
    found = _DEEP.search(name)
    bits = int(found[1]) if found else 8
    if not name.startswith(_PLANAR) or name.endswith("be") or "yuyv" in name or (name.endswith("le") and not found):
        matrix = stand_in(frame)
        grey = frame.reformat(format="gray", src_colorspace=matrix, dst_colorspace=matrix, threads=1)
        return np.asarray(grey.to_ndarray(), np.uint8)
    plane = frame.planes[0]
    if bits == 8:
        whole = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return whole[: frame.height, : frame.width]
    deep = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)[: frame.height, : frame.width]
    return np.asarray(deep >> (bits - 8), np.uint8)


def _tiles(luma: Image) -> tuple[Image, npt.NDArray[np.int32]]:
    """uint8 [n, side, side] and the corners (x, y) of each, int32 [n, 2]."""
    height, width = luma.shape
    side = min(TILE, height, width)
    places = _places(side, height, width)
    tiles = np.empty((len(places), side, side), np.uint8)
    for tile, (x, y) in zip(tiles, places.tolist(), strict=True):
        tile[:] = luma[y : y + side, x : x + side]
    return tiles, places


@lru_cache(64)
def _places(side: int, height: int, width: int) -> npt.NDArray[np.int32]:
    """The corners (x, y) of the tiles in a picture, int32 [n, 2]; not to be written to."""
    lefts = np.unique(np.linspace(0, width - side, ACROSS + 2)[1:-1].round().astype(int))
    tops = np.unique(np.linspace(0, height - side, DOWN + 2)[1:-1].round().astype(int))
    places = np.array([(x, y) for y in tops for x in lefts], np.int32)
    places.flags.writeable = False
    return places


def _steps(luma: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """float32 [h] and [w]: the mean of |difference| between each row and the one above it, and each column and the one to
    its left; 0 for the first."""
    rows, columns = np.zeros(luma.shape[0], np.float32), np.zeros(luma.shape[1], np.float32)
    rows[1:] = cv2.reduce(cv2.absdiff(luma[1:], luma[:-1]), 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    columns[1:] = cv2.reduce(cv2.absdiff(luma[:, 1:], luma[:, :-1]), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0]
    return rows, columns
