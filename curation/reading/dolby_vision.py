"""Dolby Vision without a base layer that others can show (profile 5, and its kin in AV1).

Its numbers are no YCbCr, and what they mean changes from scene to scene, by metadata that no library here applies: shown as other
film is, it would be purple and green. The configuration record names it (Dolby Vision Streams Within the ISO Base Media File
Format, 3.2, and Within Matroska). Profiles with a base (4, 7, 8, 9) are film in SDR, PQ or HLG.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from longtake.curation.reading.matroska import VideoTrack
from longtake.curation.reading.mp4 import in_sample_entries

_RECORDS = (b"dvcC", b"dvvC", b"dvwC")
_COMPATIBILITY = 4  # The byte of a record whose upper half says which base layer there is; 0 is none.


def without_base(file: BinaryIO) -> set[int]:
    """The ids of the tracks of an ISO base media file that hold such film; none of any other file."""
    tracks: set[int] = set()
    try:
        for track, name, start, stop in in_sample_entries(file):
            if name in _RECORDS:
                file.seek(start)
                if _is_bare(file.read(min(stop - start, _COMPATIBILITY + 1))):
                    tracks.add(track)
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return set()
    return tracks


def is_without_base(track: VideoTrack) -> bool:
    """Whether a track of Matroska holds such film."""
    kinds = [int.from_bytes(name, "big") for name in _RECORDS]
    return any(_is_bare(track.additions.get(kind, b"")) for kind in kinds)


def _is_bare(record: bytes) -> bool:
    return len(record) > _COMPATIBILITY and record[_COMPATIBILITY] >> 4 == 0
