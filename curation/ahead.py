"""A remote file for somebody who reads on from a place, and then goes elsewhere: as decoders do.

What its client fetches by itself is of one size, wherever one reads: megabytes for an index of some kilobytes, and a request for
each 32 KiB if that is switched off. Here the first read at a place fetches little, and who reads on gets twice as much each time.
So what is fetched is at most twice what was read, and a little at each place; and a whole film takes few requests.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from longtake.manifests.seekable import Seekable

LEAST = 64 * 2**10  # Bytes that are fetched at a new place.
MOST = 8 * 2**20  # Bytes that are fetched at once, at most: a store sends so many in a tenth of a second.
# Ranges that are kept. A film's sound and pictures may lie apart and its index at the end, so that a reader goes back
# and forth.
KEPT = 4


class ReadAhead(Seekable):
    """file: open, seekable, of which each read is a request. tags: how its store says in which state it is. Closing this closes
    it."""

    def __init__(self, file: BinaryIO, tags: tuple[str, ...] = ()) -> None:
        self._file, self.tags = file, tags
        super().__init__(file.seek(0, os.SEEK_END))
        # For each range: its start, its content, and the bytes that the next fetch behind it takes. The newest range is
        # the last.
        self._ranges: list[tuple[int, bytes, int]] = []

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < end:
            start, content, _ = self._range(end - self._at)
            part = content[self._at - start : end - start]
            if not part:  # The file is shorter than it was.
                break
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _range(self, wanted: int) -> tuple[int, bytes, int]:
        """The range that the next byte lies in, fetched if need be. wanted: bytes."""
        ahead = LEAST
        for number, (start, content, after) in enumerate(self._ranges):
            if start <= self._at < start + len(content):
                self._ranges.append(self._ranges.pop(number))
                return self._ranges[-1]
            if self._at == start + len(content):
                ahead = after
        self._file.seek(self._at)
        content = self._file.read(min(max(ahead, wanted), self._size - self._at))
        self._ranges = [*self._ranges[1 - KEPT :], (self._at, content, min(2 * max(ahead, LEAST), MOST))]
        return self._ranges[-1]
