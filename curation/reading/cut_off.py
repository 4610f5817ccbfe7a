"""Files that end before their own outermost parts do: downloads that broke off, recordings whose end was never written.

Some do not open, since what tells how to read them stood at the end (the index of an MP4 or MOV file), or is cut itself. Others
open: if their header promises much more film than comes, the scan refuses them, and else it reads what there is. What is known of
the end that they lack then stands in the film's row. Transport and program streams, live Matroska and Ogg do not tell it. A few
hundred bytes are read.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import BinaryIO

from longtake.curation.reading import matroska, mp4

# The length that ffmpeg writes into the header of an AVI file until it knows it: into a pipe it comes back to no header.
_UNFILLED = b"\xff\xff\xff\xff"


def cut_off(file: BinaryIO) -> str:
    """Why a file that does not open is one that was cut off; "" if it is none, as far as its bytes tell."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(12)
    end, lost = 0, ""
    if head[4:8] in mp4.FIRST:
        end, names = _of_boxes(file)
        if b"moof" in names and b"moov" not in names:
            return "it is a segment of a stream, whose beginning (moov) is another file: put that before it"
        lost = "" if b"moov" in names else "; its index (moov), without which it cannot be read, stood behind that"
    elif head[:4] == b"RIFF" and head[8:] == b"AVI ":
        end = 0 if head[4:8] == _UNFILLED else 8 + struct.unpack("<I", head[4:8])[0]
    elif head[:4] == matroska.MAGIC:
        end = matroska.end_of_segment(file, mp4.ENDLESS)
    return (_words(size, end) or (f"the file ends at byte {size}" if lost else "")) + lost


def missing_end(file: BinaryIO, known: int) -> str:
    """What is known of the end that a file lacks, though it opens; "" if it is whole, as far as its bytes tell. known: where the
    last sample of its index ends, in bytes; 0 if it has none."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(8)[4:] not in mp4.FIRST:
        return cut_off(file)
    end = known
    with suppress(struct.error):
        # Behind the last sample there may be padding, which is no box.
        for name, _, stop in mp4.boxes(file, known, mp4.ENDLESS) if known < size else ():
            if name not in mp4.OUTERMOST:
                break
            end = stop
    return _words(size, end)


def _words(size: int, end: int) -> str:
    return f"the file ends at byte {size} of {end}" if size < end < mp4.ENDLESS else ""


def _of_boxes(file: BinaryIO) -> tuple[int, set[bytes]]:
    """Where the last of the outermost boxes ends, in bytes, by its own header, and the names of all."""
    names, end = set(), 0
    with suppress(struct.error):
        # The header of the box behind the last one is not there, or not whole.
        for name, _, stop in mp4.boxes(file, 0, mp4.ENDLESS):
            names.add(name)
            end = stop
    return end, names
