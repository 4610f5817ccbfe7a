"""How a video wants its pictures turned and mirrored: by the display matrix of its frames, and of its `tkhd` box.

PyAV shows the display matrix on decoded frames only; the metadata gates must know the displayed size before any frame
is decoded, so the matrix of an MP4 or MOV file is read from where it stands (ISO/IEC 14496-12, 8.3.2). A few hundred bytes
are read.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type

from longtake.curation.reading.mp4 import headers_of_tracks, within


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a decoded picture becomes upright: mirrored left to right if `mirrored`, then turned by `rotation` degrees (0, 90, 180
    or 270) clockwise. All eight orientations of a display matrix are of this form."""

    rotation: int = 0
    mirrored: bool = False

    def upright(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A picture [height, width, …] as it is to be shown; a view."""
        turned = picture[:, ::-1] if self.mirrored else picture
        return np.rot90(turned, -self.rotation // 90)  # The function rot90 turns anticlockwise.


UPRIGHT = Orientation()


def _nameless(kinds: Any, number: int) -> Any:
    """A kind of side data that PyAV does not know."""
    kind = object.__new__(kinds)
    kind._name_, kind._value_ = f"KIND_{number}", number
    kinds._value2member_map_[number] = kind
    return kind


# PyAV 18.1 raises ValueError for a frame with any side data that is newer than its table, such as the EXIF data of photo cameras.
cast(Any, Type)._missing_ = classmethod(_nameless)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How a decoded frame is to be shown, by its display matrix; upright without one."""
    # PyAV's types declare the side data as a mapping of strings, but a loop over them gives the data.
    for data in cast(Any, frame.side_data):
        if data.type.name == "DISPLAYMATRIX" and data.buffer_size >= 36:
            a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
            return _oriented(a, b, c, d)
    return UPRIGHT


def _oriented(a: int, b: int, c: int, d: int) -> Orientation:
    """By the four numbers of a matrix that bring a picture's point (x, y) to (a·x + c·y, b·x + d·y), y pointing down. An
    angle between quarter turns is rounded to one; a matrix that flattens the picture leaves it as it is."""
    area = a * d - b * c
    if not area:
        return UPRIGHT
    # The direction in which the right side of the picture is shown, once the picture is mirrored.
    right, down = (-a, -b) if area < 0 else (a, b)
    return Orientation(round(math.degrees(math.atan2(down, right)) / 90) % 4 * 90, area < 0)


def track_orientations(file: BinaryIO) -> dict[int, Orientation]:
    """Track id → how its pictures are shown, of an ISO base media file; {} for any other file."""
    try:
        headers = (header for track in headers_of_tracks(file) for header in within(file, *track, b"tkhd"))
        return dict(_header(file, start, stop) for start, stop in headers)
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return {}


def _header(file: BinaryIO, start: int, stop: int) -> tuple[int, Orientation]:
    file.seek(start)
    body = file.read(min(stop - start, 96))
    wide = body[0] == 1  # A box of version 1 has 64-bit times and a 64-bit duration.
    (track_id,) = struct.unpack_from(">I", body, 20 if wide else 12)
    a, b, _, c, d = struct.unpack_from(">5i", body, 52 if wide else 40)
    return track_id, _oriented(a, b, c, d)
