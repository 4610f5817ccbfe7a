"""Dolby Vision without a base layer that others can show (profile 5, and its kin in AV1).

Its numbers are no YCbCr, and what they mean changes from scene to scene, by metadata that no library here applies: shown as other
film is, it would be purple and green. The configuration record of MP4 and MOV names it (Dolby Vision Streams Within the ISO Base
Media File Format, 3.2). Profiles with a base (4, 7, 8, 9) are film in SDR, PQ or HLG.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from longtake.curation.reading.orientation import boxes

_RECORDS = (b"dvcC", b"dvvC", b"dvwC")
_SAMPLE_ENTRIES = 8  # Bytes before the first sample entry of `stsd`: version, flags and their number.
_VISUAL = 78  # Bytes of a visual sample entry before the boxes in it.
_COMPATIBILITY = 4  # The byte of a record whose upper half says which base layer there is; 0 is none.


def without_base(file: BinaryIO) -> set[int]:
    """The ids of the tracks of an ISO base media file that hold such film; none of any other file."""
    try:
        file.seek(0, 2)
        return {
            track
            for start, stop in _within(file, 0, file.tell(), b"moov", b"trak")
            for track in _ids(file, start, stop)
        }
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return set()


def _ids(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """The id of a track, if it is such film."""
    for entries, end in _within(file, start, stop, b"mdia", b"minf", b"stbl", b"stsd"):
        for _, entry, entry_end in boxes(file, entries + _SAMPLE_ENTRIES, end):
            for name, record, record_end in boxes(file, entry + _VISUAL, entry_end):
                if name in _RECORDS and record_end - record > _COMPATIBILITY:
                    file.seek(record + _COMPATIBILITY)
                    if file.read(1)[0] >> 4 == 0:
                        yield from _track(file, start, stop)


def _track(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    for header, end in _within(file, start, stop, b"tkhd"):
        file.seek(header)
        body = file.read(min(end - header, 24))
        # A header of version 1 has two times of 64 bits before the id.
        yield struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]


def _within(file: BinaryIO, start: int, stop: int, name: bytes, *names: bytes) -> Iterator[tuple[int, int]]:
    """Start and stop of the contents of each box on a path of names."""
    for found, inner, end in boxes(file, start, stop):
        if found != name:
            continue
        if names:
            yield from _within(file, inner, end, *names)
        else:
            yield inner, end
