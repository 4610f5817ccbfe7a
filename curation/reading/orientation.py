"""How an MP4 or MOV file wants its video turned, read from its `tkhd` boxes.

PyAV shows the display matrix on decoded frames only; the metadata gates must know the displayed size before any frame
is decoded, so the matrix is read from where it stands (ISO/IEC 14496-12, 8.3.2). A few hundred bytes are read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

_MAX_BOXES = 10_000  # a damaged file must not keep us here


def track_rotations(file: BinaryIO) -> dict[int, int]:
    """Track id → clockwise rotation in degrees (0, 90, 180, 270) of an ISO base media file; {} for any other file."""
    try:
        file.seek(0, 2)
        end = file.tell()
        moov = next((box for box in _boxes(file, 0, end) if box[0] == b"moov"), None)
        if moov is None:
            return {}
        return dict(
            _header(file, start, stop)
            for name, trak_start, trak_stop in _boxes(file, *moov[1:])
            if name == b"trak"
            for kind, start, stop in _boxes(file, trak_start, trak_stop)
            if kind == b"tkhd"
        )
    except (struct.error, ValueError, IndexError):  # a box that ends before what it promises
        return {}


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, stop) of the contents of each box in [start, stop)."""
    for _ in range(_MAX_BOXES):
        if start + 8 > stop:
            return
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            header = 16
        elif size == 0:
            size = stop - start
        if size < header:
            return
        yield name, start + header, min(start + size, stop)
        start += size


def _header(file: BinaryIO, start: int, stop: int) -> tuple[int, int]:
    file.seek(start)
    body = file.read(min(stop - start, 96))
    wide = body[0] == 1  # version 1 has 64-bit times and duration
    (track_id,) = struct.unpack_from(">I", body, 20 if wide else 12)
    a, b = struct.unpack_from(">ii", body, 52 if wide else 40)
    turned = math.degrees(math.atan2(b, a)) if (a or b) else 0.0
    return track_id, round(turned / 90) % 4 * 90
