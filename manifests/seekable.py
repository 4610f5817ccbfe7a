"""Files of a known size that are only read, and of which a place is sought without a request."""

from __future__ import annotations

import io


class Seekable(io.RawIOBase):
    """The place at which such a file is read next; who derives from it reads. A place before the beginning is the beginning."""

    def __init__(self, size: int) -> None:
        """size: of the file, bytes."""
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at
