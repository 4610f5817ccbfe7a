"""MP4 and MOV as their demuxer should see them, where it would read on in another film, or not read on at all.

Where files were put one behind another, ffmpeg takes fragments of the second film for some of the first. It ends at bytes that
are no box, as on a disk with a fault.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from longtake.curation.reading import mp4

_DESCRIPTIONS = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_LONGEST = 4096  # Bytes. So much is compared of how the samples of a track are described.
_AT_ONCE = 2**20  # Bytes that are searched at once.
_INDEX = 2**20  # Bytes. An index names 65,535 fragments at most, by 12 bytes each.
_BOXES = (
    1_000_000  # Boxes: a hundred hours of film in fragments of a second. A hostile file of 1 GB would hold 134 million.
)
_HOLES = 1000  # Holes. A damaged file with more of them must not keep the scan busy.
_FRAGMENT = 16  # Bytes from the beginning of a fragment to the end of the first name in it.


@dataclass(slots=True)
class Layout:
    """Of a film in its file. end: where another film begins, in bytes, or the size of the file. boxes: where the last of its
    fragments ends by its own header; 0 if it has none. instead: place in the file → bytes that stand for those at it, so that
    bytes that are no box are passed over."""

    end: int
    boxes: int = 0
    instead: dict[int, bytes] = field(default_factory=dict)


def layout(file: BinaryIO, size: int, by_index: bool = False) -> Layout:
    """The layout of a file; of any but MP4 and MOV, all of it is one film. by_index: an index that names all fragments is
    believed, as where a look at each of them is a request to a store; ffmpeg then finds its way past bytes that are no box by
    itself."""
    found = Layout(size)
    with suppress(struct.error, ValueError, IndexError):
        # A box ends before its header says so.
        _Walk(file, size, found, by_index).go()
    return found


class _Walk:
    """From one of the outermost boxes to the next."""

    def __init__(self, file: BinaryIO, size: int, found: Layout, by_index: bool) -> None:
        self._file, self._size, self._found, self._by_index = file, size, found, by_index
        self._described: list[bytes] = []  # How the samples of its tracks are described.
        self._times: dict[int, int] = {}  # By track: when its latest fragment begins, in ticks.
        self._second = 0  # Where another film may begin.

    def go(self) -> None:
        at = 0
        for _ in range(_BOXES):
            if at >= self._size:
                break
            name, start, stop = self._box(at)
            if name == b"sidx" and self._by_index and not self._times and (end := self._indexed(start, stop)):
                self._found.boxes = end
                return
            if name in mp4.OUTERMOST:
                if self._ends_at(name, at, start, stop):
                    self._found.end = self._second
                    return
                at = stop
                if self._times and not self._second:
                    self._found.boxes = at
                continue
            more = self._times and len(self._found.instead) < _HOLES
            behind = self._next_fragment(at) if more else -1
            if behind < at + 8:
                break
            self._found.instead[at] = struct.pack(">I4s", behind - at, b"free")
            at = behind
        self._found.end = self._second or self._size

    def _box(self, at: int) -> tuple[bytes, int, int]:
        """The box at a place of the file, as of `mp4.boxes`; one without a name where there is none."""
        with suppress(struct.error):
            return next(mp4.boxes(self._file, at, mp4.ENDLESS), (b"", at, at))
        return b"", at, at

    def _indexed(self, start: int, stop: int) -> int:
        """Where the fragments end that an index names (ISO/IEC 14496-12, 8.16.3), if nothing but the table of their keyframes
        lies behind them; else 0."""
        self._file.seek(start)
        body = self._file.read(min(stop - start, _INDEX))
        times = struct.Struct(">QQHH" if body[0] == 1 else ">IIHH")
        _, offset, _, count = times.unpack_from(body, 12)
        sizes = [one for one, _, _ in struct.iter_unpack(">III", body[12 + times.size :][: 12 * count])]
        if len(sizes) < count or any(one >> 31 for one in sizes):  # It is cut off, or names further indexes.
            return 0
        end = stop + int(offset) + sum(sizes)
        name, _, behind = self._box(end) if end < self._size else (b"", end, self._size)
        return end if end >= self._size or (name == b"mfra" and behind >= self._size) else 0

    def _ends_at(self, name: bytes, at: int, start: int, stop: int) -> bool:
        """Whether the film ended before this box. Its beginning may be repeated, as in streams, where its fragments go on."""
        if name == b"ftyp" and self._described:
            self._second = at
            return not self._times
        if name == b"moov":
            described = [self._read(*each) for each in mp4.within(self._file, start, stop, *_DESCRIPTIONS)]
            if self._second and described != self._described:
                return True
            self._described = described
        elif name == b"moof":
            times = {
                track: time
                for each in mp4.within(self._file, start, stop, b"traf")
                for track, time in self._begins(*each)
            }
            if self._second and any(time <= self._times.get(track, -1) for track, time in times.items()):
                return True
            self._second, self._times = 0, self._times | times
        return False

    def _begins(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(track, time in ticks) of a fragment of a track; of one that tells no time, none."""
        parts = {name: self._read(inner, end) for name, inner, end in mp4.boxes(self._file, start, stop)}
        if b"tfdt" not in parts:
            return []
        time = parts[b"tfdt"]
        (track,) = struct.unpack_from(">I", parts[b"tfhd"], 4)
        return [(track, struct.unpack_from(">Q" if time[0] == 1 else ">I", time, 4)[0])]

    def _next_fragment(self, at: int) -> int:
        """Where the next fragment begins; -1: there is none."""
        while at < self._size:
            self._file.seek(at)
            data = self._file.read(_AT_ONCE)
            found = -1
            while (found := data.find(b"moof", found + 1)) >= 0:
                if found >= 4 and data[found + 8 : found + 12] == b"mfhd":
                    return at + found - 4
            at += max(len(data) - _FRAGMENT, 1) if len(data) == _AT_ONCE else self._size
        return -1

    def _read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        return self._file.read(min(stop - start, _LONGEST))
