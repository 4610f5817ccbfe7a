"""Files that end before their own outermost parts do: downloads that broke off, recordings whose end was never written.

Where such a file still opens, the scan sees that film is missing. These are files that do not open, since what tells how to read
them stood at the end (the index of an MP4 or MOV file), or is cut itself. A few hundred bytes are read.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import BinaryIO

from longtake.curation.reading import matroska, mp4

_ENDLESS = 1 << 62  # Bytes. A part that goes on to the end of the file, wherever that is.
# The boxes with which MP4 and MOV files begin.
_FIRST = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}


def cut_off(file: BinaryIO) -> str:
    """Why a file that does not open is one that was cut off; "" if it is none, as far as its bytes tell."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    end, lost = 0, ""
    if head[4:8] in _FIRST:
        end, names = _of_boxes(file)
        lost = "" if b"moov" in names else "; its index (moov), without which it cannot be read, stood behind that"
    elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
        end = 8 + struct.unpack("<I", head[4:8])[0]
    elif head[:4] == matroska.MAGIC:
        end = matroska.end_of_segment(file, _ENDLESS)
    if size < end < _ENDLESS:
        return f"the file ends at byte {size} of {end}{lost}"
    return f"the file ends at byte {size}{lost}" if lost else ""


def _of_boxes(file: BinaryIO) -> tuple[int, set[bytes]]:
    """Where the last of the outermost boxes ends, in bytes, by its own header, and the names of all."""
    names, end = set(), 0
    with suppress(struct.error):
        # The header of the box behind the last one is not there, or not whole.
        for name, _, stop in mp4.boxes(file, 0, _ENDLESS):
            names.add(name)
            end = stop
    return end, names
