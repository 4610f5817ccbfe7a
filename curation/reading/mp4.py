"""The boxes of MP4 and MOV files (ISO/IEC 14496-12), where PyAV does not show what they say. A few hundred bytes are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

ENDLESS = 1 << 62  # Bytes. A part that goes on to the end of the file, wherever that is.
# The boxes with which such files begin, and those that come outermost.
FIRST = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
OUTERMOST = FIRST | {b"moof", b"sidx", b"ssix", b"emsg", b"prft", b"mfra", b"uuid", b"meta", b"udta"}
_MAX_BOXES = 10_000  # Boxes. A damaged file with more of them must not keep the scan busy.
_SAMPLE_ENTRIES = 8  # Bytes before the first sample entry of `stsd`: version, flags and their number.
_NOTHING = -1  # Where a part of an edit list begins during which nothing is shown.
_MAX_READ = 1 << 16  # Bytes. A longer edit list, or table of samples, is read so far.
# Two qualities of one codec, which ffmpeg reads from one track.
_SAME = {"apch": "apcn", "dvpp": "dvcp"}
_VISUAL = 78  # Bytes of a visual sample entry before the boxes in it.


def boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
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


def headers_of_tracks(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Start and stop of what a film's header says of each track. Behind the header there may be thousands of fragments, each of
    which would be a request to a store: they are not looked at."""
    size = file.seek(0, 2)
    for name, start, stop in boxes(file, 0, size):
        if name == b"moov":
            yield from within(file, start, stop, b"trak")
            return


def in_sample_entries(file: BinaryIO) -> Iterator[tuple[int, bytes, int, int]]:
    """(track id, type, start, stop) of the contents of each box in the sample entries of tracks, as of visual ones; none of any
    other file. Raises struct.error, ValueError or IndexError where a box ends before its header says so."""
    for track, start, stop in _sample_tables(file):
        for entries, end in within(file, start, stop, b"stsd"):
            for _, entry, entry_end in boxes(file, entries + _SAMPLE_ENTRIES, end):
                for name, inner, inner_end in boxes(file, entry + _VISUAL, entry_end):
                    yield track, name, inner, inner_end


def _sample_tables(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(track id, start, stop) of the contents of the box `stbl` of each track."""
    for start, stop in headers_of_tracks(file):
        track = next(_ids(file, start, stop), None)
        if track is not None:
            for table in within(file, start, stop, b"mdia", b"minf", b"stbl"):
                yield track, *table


def encrypted(file: BinaryIO) -> set[int]:
    """The ids of the tracks whose samples are encrypted (ISO/IEC 14496-12, 8.12: they say by which scheme); none of any other
    file."""
    try:
        return {track for track, name, _, _ in in_sample_entries(file) if name == b"sinf"}
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return set()


def several_codecs(file: BinaryIO) -> dict[int, list[str]]:
    """The tracks whose samples are of several kinds, as where files were put into one track, of which ffmpeg reads one only:
    track id → names of the kinds; none of any other file."""
    tracks: dict[int, list[str]] = {}
    try:
        for track, start, stop in _sample_tables(file):
            kinds = [
                name.decode("latin-1")
                for entries, end in within(file, start, stop, b"stsd")
                for name, _, _ in boxes(file, entries + _SAMPLE_ENTRIES, end)
            ]
            used = [
                kinds[number - 1] for chunks in within(file, start, stop, b"stsc") for number in _used(file, *chunks)
            ]
            if len({_SAME.get(kind, kind) for kind in used}) > 1:
                tracks[track] = list(dict.fromkeys(used))
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return {}
    return tracks


def _used(file: BinaryIO, start: int, stop: int) -> list[int]:
    """The numbers of the sample entries to which chunks of samples refer, from 1 on, in the order of their use."""
    file.seek(start)
    body = file.read(min(stop - start, _MAX_READ))
    (count,) = struct.unpack_from(">I", body, 4)
    runs = struct.iter_unpack(">III", body[8 : 8 + 12 * min(count, (len(body) - 8) // 12)])
    return list(dict.fromkeys(number for _, _, number in runs))


def odd_edits(file: BinaryIO) -> set[int]:
    """The ids of the tracks whose edit list does not just show parts one after the other at their own speed: it shows nothing for
    a while after the first, or one of several slower, faster or still (ISO/IEC 14496-12, 8.6.6); none of any other file. The
    speed of a single part does not count: its frames are the right ones."""
    tracks: set[int] = set()
    try:
        for start, stop in headers_of_tracks(file):
            track = next(_ids(file, start, stop), None)
            parts = [part for edits in within(file, start, stop, b"edts", b"elst") for part in _edits(file, *edits)]
            shown = [(begins, speed) for begins, speed in parts if begins != _NOTHING]
            gap = parts[len(parts) - len(shown) :] != shown
            if track is not None and (gap or (len(shown) > 1 and any(speed != 1 for _, speed in shown))):
                tracks.add(track)
    except (struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        return set()
    return tracks


def _edits(file: BinaryIO, start: int, stop: int) -> list[tuple[int, float]]:
    """Where each part of an edit list begins in its track, in ticks, or _NOTHING, and how fast it is shown."""
    file.seek(start)
    body = file.read(min(stop - start, _MAX_READ))
    (count,) = struct.unpack_from(">I", body, 4)
    # A list of version 1 has numbers of 64 bits.
    part = struct.Struct(">qqi" if body[0] == 1 else ">iii")
    whole = min(count, (len(body) - 8) // part.size)
    return [(begins, speed / 65536) for _, begins, speed in part.iter_unpack(body[8 : 8 + whole * part.size])]


def _ids(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    for header, end in within(file, start, stop, b"tkhd"):
        file.seek(header)
        body = file.read(min(end - header, 24))
        # A header of version 1 has two times of 64 bits before the id.
        yield struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]


def within(file: BinaryIO, start: int, stop: int, name: bytes, *names: bytes) -> Iterator[tuple[int, int]]:
    """Start and stop of the contents of each box on a path of names."""
    for box, inner, end in boxes(file, start, stop):
        if box != name:
            continue
        if names:
            yield from within(file, inner, end, *names)
        else:
            yield inner, end
