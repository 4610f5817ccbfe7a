"""What Matroska and WebM files say of their video tracks (RFC 9559), where PyAV does not show it. A few kilobytes are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

MAGIC = b"\x1a\x45\xdf\xa3"  # The bytes with which Matroska and WebM files begin.
_MAX_ELEMENTS = 10_000  # Elements. A damaged file with more of them must not keep the scan busy.
_LONGEST = 4096  # Bytes. No element that is read needs more.
_SEGMENT, _TRACKS, _CLUSTER, _TRACK = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE
_NUMBER, _TYPE, _VIDEO, _IS_VIDEO = 0xD7, 0x83, 0xE0, 1
_TIMESTAMP, _SIMPLE_BLOCK, _GROUP, _BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
_ADDITION, _ADDITION_KIND, _ADDITION_DATA = 0x41E4, 0x41E7, 0x41ED
_ENCODINGS, _ENCODING, _ENCRYPTION = 0x6D80, 0x6240, 0x5035


@dataclass(slots=True)
class VideoTrack:
    """What is read of a video track. crop: the pixels that are not to be shown, above, to the right, below and to the left.
    additions: kind of what comes along with its frames → what describes it. encrypted: its frames are. number: by which its
    blocks name it."""

    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    additions: dict[int, bytes] = field(default_factory=dict)
    encrypted: bool = False
    number: int = 0


def video_tracks(file: BinaryIO) -> list[VideoTrack]:
    """The video tracks of a file, in their order; none of any other file, and none where they come after the film."""
    try:
        end = file.seek(0, 2)
        segment = next((inner for kind, *inner in _elements(file, 0, end) if kind == _SEGMENT), None)
        if segment is None:
            return []
        for kind, start, stop in _elements(file, *segment):
            if kind == _TRACKS:
                tracks = (_track(file, a, b) for kind, a, b in _elements(file, start, stop) if kind == _TRACK)
                return [track for track in tracks if track is not None]
            if kind == _CLUSTER:
                break
    except (ValueError, IndexError):
        # An element ends before its header says so.
        pass
    return []


def is_whole(file: BinaryIO) -> bool:
    """Whether a file holds all of its film: its segment tells a size, and ends within it. False for any other."""
    # In a file of one byte more, a segment without a size, or one that was cut short, would go on to the end.
    beyond = file.seek(0, 2) + 1
    return 0 < end_of_segment(file, beyond) < beyond


def end_of_segment(file: BinaryIO, most: int) -> int:
    """Where the segment of a file ends, in bytes, at most `most`: there, if it tells no size. 0 for any other file."""
    try:
        return next((stop for kind, _, stop in _elements(file, 0, most) if kind == _SEGMENT), 0)
    except (ValueError, IndexError):
        # An element ends before its header says so.
        return 0


def first_times(file: BinaryIO, track: int) -> dict[int, int]:
    """Where the first block of a track lies, in bytes, and when it is shown, in ticks; and the same of its blocks before zero. A
    cluster cannot begin before zero, but its blocks can, and ffmpeg's demuxer gives such packets no time; nor does it know when a
    film begins whose sound begins many seconds earlier. Of other files, the first few kilobytes are read."""
    found: dict[int, int] = {}
    latest = 0
    try:
        for cluster, number, place, ticks in islice(_blocks(file), _MAX_ELEMENTS):
            if number != track:
                continue
            if not found or ticks < 0:
                found[place], latest = ticks, cluster
            elif min(found.values()) >= 0 or cluster > latest + 1:
                break
    except (ValueError, IndexError):
        # An element ends before its header says so.
        pass
    return found


def _blocks(file: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
    """(cluster, track, place in bytes, time in ticks) of the blocks in a file, by the numbers of clusters and tracks."""
    segment = next((inner for kind, *inner in _elements(file, 0, file.seek(0, 2)) if kind == _SEGMENT), (0, 0))
    clusters = ((start, stop) for kind, start, stop in _elements(file, *segment) if kind == _CLUSTER)
    began = 0
    for cluster, (start, stop) in enumerate(clusters):
        for kind, a, b in _elements(file, start, stop):
            if kind == _TIMESTAMP:
                began = _number(_bytes(file, a, b))
            elif kind == _CLUSTER:
                # The one before has no size, and ends where this one begins.
                break
            elif kind in (_SIMPLE_BLOCK, _GROUP):
                block = (
                    a
                    if kind == _SIMPLE_BLOCK
                    else next((x for name, x, _ in _elements(file, a, b) if name == _BLOCK), a)
                )
                head = _bytes(file, block, block + 10)
                width = _width(head[0])
                after = int.from_bytes(head[width : width + 2], "big", signed=True)
                yield cluster, _sized(head[:width]), block, began + after


def _track(file: BinaryIO, start: int, stop: int) -> VideoTrack | None:
    """A track, if it is one of video."""
    track, is_video = VideoTrack(), False
    for kind, a, b in _elements(file, start, stop):
        if kind == _NUMBER:
            track.number = _number(_bytes(file, a, b))
        elif kind == _TYPE:
            is_video = _number(_bytes(file, a, b)) == _IS_VIDEO
        elif kind == _VIDEO:
            sides = {name: _number(_bytes(file, x, y)) for name, x, y in _elements(file, a, b) if name in _SIDES}
            track.crop = sides.get(_TOP, 0), sides.get(_RIGHT, 0), sides.get(_BOTTOM, 0), sides.get(_LEFT, 0)
        elif kind == _ADDITION:
            inner = {name: _bytes(file, x, y) for name, x, y in _elements(file, a, b)}
            track.additions[_number(inner.get(_ADDITION_KIND, b""))] = inner.get(_ADDITION_DATA, b"")
        elif kind == _ENCODINGS:
            steps = (step for name, *step in _elements(file, a, b) if name == _ENCODING)
            track.encrypted = any(name == _ENCRYPTION for x, y in steps for name, _, _ in _elements(file, x, y))
    return track if is_video else None


_SIDES = {_BOTTOM, _TOP, _LEFT, _RIGHT}


def _bytes(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(min(stop - start, _LONGEST))


def _number(data: bytes) -> int:
    return int.from_bytes(data[:8], "big")


def _elements(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(id, start, stop) of the contents of each element in [start, stop)."""
    for _ in range(_MAX_ELEMENTS):
        if start + 2 > stop:
            return
        file.seek(start)
        head = file.read(min(12, stop - start))
        width = _width(head[0])
        size_width = _width(head[width])
        header = width + size_width
        if width > 4 or header > len(head):
            return
        size = _sized(head[width:header])
        # A size of ones only is not known: the element goes on to the end, as that of a live film.
        unknown = size == (1 << 7 * size_width) - 1
        end = stop if unknown else min(start + header + size, stop)
        yield _number(head[:width]), start + header, end
        start = end


def _sized(data: bytes) -> int:
    """A number whose first bits say how many bytes it has."""
    return _number(data) & ((1 << 7 * len(data)) - 1)


def _width(first: int) -> int:
    """The bytes of a number, by the place of the first bit that is set in the first of them."""
    return 9 - first.bit_length()
