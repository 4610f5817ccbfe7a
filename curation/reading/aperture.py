"""The part of its pictures that a container wants shown: the clean aperture of MP4 and MOV, and Matroska's PixelCrop.

Editors of DV mark the ragged sides of a picture so, and encoders of whole macroblocks the lines below it. Players that follow
their container (QuickTime, ffmpeg's own since 7.1) show nothing else; the decoders know nothing of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, cast

import av
import av.error

from longtake.curation.errors import VideoError
from longtake.curation.reading.faults import words
from longtake.curation.reading.graphs import graph_for, kind_of
from longtake.curation.reading.matroska import VideoTrack
from longtake.curation.reading.mp4 import in_sample_entries

Timed = tuple[float, av.VideoFrame]


@dataclass(frozen=True, slots=True)
class Aperture:
    """What is shown of a decoded frame, in its px, before it is turned or stretched."""

    x: int
    y: int
    width: int
    height: int


def of_mp4(file: BinaryIO, track: int, width: int, height: int) -> Aperture | None:
    """The clean aperture of a track (ISO/IEC 14496-12, 12.1.4); None if its pictures, width × height px, are shown whole."""
    try:
        for of, name, start, stop in in_sample_entries(file):
            if of == track and name == b"clap":
                file.seek(start)
                numbers = struct.unpack(">IIIIiIiI", file.read(min(stop - start, 32)))
                wide, high, right, down = (Fraction(*numbers[i : i + 2]) for i in (0, 2, 4, 6))
                # The offsets are from the centre of the whole picture to the centre of what is shown.
                left, top = (width - wide) / 2 + right, (height - high) / 2 + down
                return _box(left, top, width - wide - left, height - high - top, width, height)
    except (struct.error, ValueError, IndexError, ZeroDivisionError):
        # The box is damaged, or ends before its header says so.
        pass
    return None


def of_matroska(track: VideoTrack, width: int, height: int) -> Aperture | None:
    """What is left of a track's pictures, width × height px, as `of_mp4`."""
    top, right, bottom, left = track.crop
    return _box(left, top, right, bottom, width, height)


def _box(
    left: Fraction | int, top: Fraction | int, right: Fraction | int, bottom: Fraction | int, width: int, height: int
) -> Aperture | None:
    """What is left of a picture without its sides, in whole px; None for all of it, and where the sides make no sense."""
    if min(left, top, right, bottom) < 0 or not any((left, top, right, bottom)):
        return None
    # The first column and line are even, so that chroma stays in its place, and each field of interlaced film what it is.
    x, y = int(left) // 2 * 2, int(top) // 2 * 2
    box = Aperture(x, y, round(width - right) - x, round(height - bottom) - y)
    return box if box.width >= 2 and box.height >= 2 and (box.width, box.height) != (width, height) else None


def within(frames: Iterator[Timed], box: Aperture | None, width: int, height: int) -> Iterator[Timed]:
    """`frames` with their times, of each that is width × height px what lies within the box. Raises VideoError (unsupported)."""
    if box is None:
        yield from frames
        return
    cutter: _Cutter | None = None
    for time, frame in frames:
        if (frame.width, frame.height) != (width, height):
            yield time, frame
            continue
        try:
            if cutter is None or not cutter.fits(frame):
                cutter = _Cutter(frame, box)
            yield time, cutter.cut(frame)
        except (av.error.FFmpegError, ValueError) as error:
            reason = f"its pictures ({frame.format.name}) cannot be cropped as it asks: {words(error)}"
            raise VideoError("unsupported", reason) from error


class _Cutter:
    """A graph of ffmpeg's `crop`, which copies no pixel, for frames of one format."""

    def __init__(self, frame: av.VideoFrame, box: Aperture) -> None:
        self._kind = kind_of(frame)
        self._graph = graph_for(frame, "crop", f"{box.width}:{box.height}:{box.x}:{box.y}:exact=1")

    def fits(self, frame: av.VideoFrame) -> bool:
        return kind_of(frame) == self._kind

    def cut(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._graph.push(frame)
        return cast(av.VideoFrame, self._graph.pull())
