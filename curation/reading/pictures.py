"""Small pictures out of decoded frames: thumbnails for cut detection, analysis frames for filters.

Both are made of frames that are about to be thrown away, some of them for every decoded frame: thumbnails come straight
from the planes (0.1 ms from 1080p), analysis frames stay planar YUV until one is chosen (half the memory of RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace, ColorTrc, VideoReformatter

from longtake.curation.reading.aspects import Aspects
from longtake.curation.reading.colour import Colour, Mapper, colour_of, stand_in, with_chroma
from longtake.curation.reading.combs import Fields, uncombed
from longtake.curation.reading.native import NativeLook
from longtake.curation.reading.orientation import Orientation
from longtake.curation.reading.turns import Turns
from longtake.curation.reading.video import VideoInfo, resized
from longtake.filters.base import Image, Native

ANALYSIS_SIDE = 960  # Pixels. The long side of analysis frames has at most this length; no frame is enlarged.
# Pictures. At most this number are remembered: the motion of a clip has 30, ten of which are also in its sample.
_REMEMBERED = 32
# Pixels of the long side. PySceneDetect reduces to twice as much: the mean differences that it looks at are the same at this
# size, at a quarter of the cost.
THUMB_SIDE = 128
_PLANAR = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10, "yuv420p12le": 12}


def thumbnail(frame: av.VideoFrame) -> Image:
    """uint8 [h, w, 3] BGR, the frame shrunk by a whole number to a long side of at least THUMB_SIDE (where it has that
    many pixels); neither turned nor stretched."""
    factor = max(1, max(frame.width, frame.height) // THUMB_SIDE)
    width, height = (max(2, side // factor // 2 * 2) for side in (frame.width, frame.height))
    bits = _PLANAR.get(frame.format.name)
    if bits is None or factor == 1 or min(frame.width, frame.height) < 4 * factor:
        small = frame.reformat(
            width=width,
            height=height,
            format="bgr24",
            src_colorspace=stand_in(frame),
            interpolation="FAST_BILINEAR",
            threads=1,
        )
        return np.ascontiguousarray(small.to_ndarray())
    packed = np.empty((height * 3 // 2, width), np.uint8)  # I420 has Y first, then U and V at half size.
    packed[:height] = _shrink(frame, 0, bits, width, height, factor)
    chroma = packed[height:].reshape(2, height // 2, width // 2)
    for plane in (1, 2):
        chroma[plane - 1] = _shrink(frame, plane, bits, width // 2, height // 2, factor)
    return np.asarray(cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420), dtype=np.uint8)


def _shrink(frame: av.VideoFrame, index: int, bits: int, width: int, height: int, factor: int) -> npt.NDArray[np.uint8]:
    plane = frame.planes[index]
    dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    # One of `factor` rows is taken, the middle one, with all of its columns: a quarter of the cost of the whole area, and as good
    # for finding cuts.
    few = np.ascontiguousarray(rows[factor // 2 : height * factor : factor, : width * factor])
    small: npt.NDArray[Any] = cv2.resize(few, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small if bits == 8 else small >> (bits - 8), dtype=np.uint8)


def _deep(colour: Colour) -> str:
    """The format of small frames that a table maps. Ten bits have few numbers for the dark of linear light."""
    bits = 16 if colour.transfer == ColorTrc.LINEAR else 10
    return f"gbrp{bits}le" if colour.rgb else f"yuv420p{bits}le"


@dataclass(frozen=True, slots=True)
class Before:
    """What is kept of a picture before it is reduced, as the `opaque` of the reduced one. turn: how it is shown."""

    turn: Orientation
    native: Native | None


class AnalysisFrames:
    """Brings decoded frames of one video to the analysis size, and those that are chosen to RGB."""

    def __init__(
        self,
        info: VideoInfo,
        look: NativeLook | None = None,
        fields: Fields | None = None,
        aspects: Aspects | None = None,
        turns: Turns | None = None,
    ) -> None:
        """look: what is kept of each picture before it is reduced. fields: what is known of the film's, which the frames that are
        reduced with their times add to. aspects, turns: of its samples and pictures; None: always as `info` says."""
        self.info = info
        self._aspects, self._turns = aspects, turns
        self.fields = fields or Fields()
        self._look = look
        # The size of reduced frames, not yet turned, by the size of the frames that were decoded, and their sample aspect ratio.
        self._reduced: dict[tuple[int, int, float | None, Orientation | None], tuple[int, int]] = {}
        self._orientation = Orientation(info.rotation, info.mirrored)
        self._shrinker = VideoReformatter()
        self._painter = VideoReformatter()
        self._mappers: dict[tuple[Colour, int, int], Mapper] = {}
        # Reduced frames and their RGB pictures, by the identity of the reduced frame.
        self._painted: dict[int, tuple[av.VideoFrame, Image]] = {}

    def shrink(self, frame: av.VideoFrame, time: float | None = None) -> av.VideoFrame:
        """`frame` at the analysis size, not yet turned, in its own colours: planar YUV, of 8 bits where that is enough. time:
        when it is shown, seconds, rising; None: whether it holds fields is judged by its own picture alone."""
        aspect = self._aspects.at(time) if self._aspects is not None and time is not None else None
        turn = self._turns.at(time) if self._turns is not None and time is not None else self._orientation
        width, height = self.reduced_size(frame.width, frame.height, aspect, turn)
        frame = with_chroma(uncombed(frame) if time is None else self.fields.whole(time, frame))
        colour = colour_of(frame)
        # RGB gets the matrix of BT.709.
        hidden = stand_in(frame)
        painted = colour.rgb and not colour.mapped
        small = self._shrinker.reformat(
            frame,
            width=width,
            height=height,
            format=_deep(colour) if colour.mapped else "yuv420p",
            src_colorspace=hidden,
            dst_colorspace=Colorspace.ITU709 if painted else hidden,
            interpolation="AREA",
            threads=1,
        )
        another_size = (frame.width, frame.height) != (self.info.coded_width, self.info.coded_height)
        if hidden is not None or (another_size and not painted):
            # A film of several sizes may have the matrix of SD and that of HD.
            small.colorspace = colour.matrix
        small.opaque = Before(turn, self._look.of(frame) if self._look is not None else None)
        return small

    def rgb(self, small: av.VideoFrame) -> Image:
        """uint8 [h, w, 3], RGB, full range, upright, SDR, BT.709, of what `shrink` gave; not to be written to.

        A frame may be asked for again, as a keyframe and for its motion. HDR takes 13 ms, so it is painted once, until `forget`.
        """
        if not self._colour(small).mapped:
            return self._paint(small)
        if id(small) not in self._painted:
            if len(self._painted) >= _REMEMBERED:
                self._painted.clear()
            self._painted[id(small)] = small, self._paint(small)
        return self._painted[id(small)][1]

    def rgbs(self, smalls: Sequence[av.VideoFrame]) -> Image:
        """The same of some frames, uint8 [n, h, w, 3]."""
        sides = smalls[0].height, smalls[0].width
        height, width = sides[::-1] if self._turn(smalls[0]).rotation % 180 else sides
        pictures = np.empty((len(smalls), height, width, 3), np.uint8)
        for picture, small in zip(pictures, smalls, strict=True):
            picture[:] = self.rgb(small)
        return pictures

    def forget(self) -> None:
        """Hold no picture any more."""
        self._painted.clear()

    def _paint(self, small: av.VideoFrame) -> Image:
        colour = self._colour(small)
        if colour.mapped:
            key = colour, small.width, small.height
            if key not in self._mappers:
                self._mappers[key] = Mapper(*key)
            deep = self._mappers[key].map(small).to_ndarray()
            eight = cv2.convertScaleAbs(deep, alpha=255 / 65535)
            return np.ascontiguousarray(self._turn(small).upright(eight), dtype=np.uint8)
        unknown = small.colorspace in (0, 2)
        matrix = (Colorspace.ITU709 if colour.matrix == 1 else Colorspace.ITU601) if unknown else None
        picture: npt.NDArray[Any] = self._painter.reformat(
            small, format="rgb24", src_colorspace=matrix, threads=1
        ).to_ndarray()
        return np.ascontiguousarray(self._turn(small).upright(picture), dtype=np.uint8)

    def reduced_size(
        self, width: int, height: int, aspect: float | None = None, turn: Orientation | None = None
    ) -> tuple[int, int]:
        """The size, not yet turned, to which frames of a size as coded are reduced. aspect: of a sample; turn: how they are
        shown; None: as the film."""
        key = width, height, aspect, turn
        if key not in self._reduced:
            shown = resized(self.info, *key)
            scale = min(1.0, ANALYSIS_SIDE / max(shown.width, shown.height))
            across, down = (max(2, round(side * scale)) for side in (shown.width, shown.height))
            self._reduced[key] = (down, across) if shown.rotation % 180 else (across, down)
        return self._reduced[key]

    def _turn(self, small: av.VideoFrame) -> Orientation:
        """How the picture is shown that was reduced."""
        return small.opaque.turn if isinstance(small.opaque, Before) else self._orientation

    def _colour(self, frame: av.VideoFrame) -> Colour:
        """Of a reduced frame."""
        return colour_of(frame, (self.info.coded_width, self.info.coded_height))
