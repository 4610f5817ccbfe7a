"""A Parquet file in a store: what is wanted of it is fetched in few requests, and on no thread of Arrow's.

Arrow fetches ahead by itself where it is asked to (`pre_buffer`), and decodes on several threads where it may: on threads of its
own, which let go of a Python file a moment after the read. If the interpreter ends meanwhile, the process aborts (pyarrow 26).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow.parquet as pq

from longtake.manifests.folder import Folder
from longtake.manifests.seekable import Seekable

Range: TypeAlias = tuple[int, int]  # Bytes of a file: the first, and the one behind the last.

# Bytes. What lies nearer together is fetched by one request: to wait for another takes longer than to fetch so much.
_NEAR = 64 * 2**10
# Bytes of one request, unless one column is larger: a store serves several requests faster than a long one.
_AT_MOST = 32 * 2**20


class Fetched(Seekable):
    """A remote file for reading, seekable, of which ranges are fetched before they are read. What was not, such as the index at
    its end, is fetched when it is read, and remembered: of a small file this is all. Raises as `Folder.open_by_range` does."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._read: list[tuple[int, bytes]] = []  # Bytes that were read, with the place of the first.
        self._ahead: list[tuple[int, bytes]] = []  # Bytes that were fetched ahead, likewise.
        self._file: Any = None
        self._file = folder.open_by_range(name)
        self._filesystem, self._path = folder.filesystem, f"{folder.root}/{name}"
        super().__init__(self._file.seek(0, io.SEEK_END))

    def fetch(self, ranges: Iterable[Range]) -> None:
        """Fetch these ranges, all at once where the client can, in place of those that were fetched before."""
        self._ahead.clear()
        wanted = list(_joined(one for one in ranges if self._known(*one) is None))
        if len(wanted) > 1 and getattr(self._filesystem, "async_impl", False):
            starts, ends = [start for start, _ in wanted], [end for _, end in wanted]
            fetched = self._filesystem.cat_ranges([self._path] * len(wanted), starts, ends, on_error="raise")
        else:
            fetched = [self._asked_for(start, end) for start, end in wanted]
        self._ahead += [(start, bytes(data)) for (start, _), data in zip(wanted, fetched, strict=True)]

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data = self._known(self._at, end)
        if data is None:
            data = self._asked_for(self._at, end)
            self._read.append((self._at, data))
        self._at += len(data)
        return data

    def close(self) -> None:
        self._read.clear()
        self._ahead.clear()
        if self._file is not None:
            self._file.close()
        super().close()

    def _known(self, start: int, end: int) -> bytes | None:
        for at, data in (*self._ahead, *self._read):
            if at <= start and end <= at + len(data):
                return data[start - at : end - at]
        return None

    def _asked_for(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return bytes(self._file.read(end - start))


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges that lie near together as one."""
    held: Range | None = None
    for start, end in sorted(ranges):
        if held is not None and start - held[1] <= _NEAR and end - held[0] <= _AT_MOST:
            held = held[0], max(held[1], end)
            continue
        if held is not None:
            yield held
        held = start, end
    if held is not None:
        yield held


def fetch_columns(source: Any, parquet: pq.ParquetFile, groups: Sequence[int], columns: Collection[str]) -> None:
    """Fetch these columns of some row groups, if `source`, the file of `parquet`, is one of which that can be asked."""
    if isinstance(source, Fetched):
        source.fetch(_ranges(parquet, groups, columns))


def _ranges(parquet: pq.ParquetFile, groups: Sequence[int], columns: Collection[str]) -> Iterator[Range]:
    for group in groups:
        about = parquet.metadata.row_group(group)
        for place in range(about.num_columns):
            chunk = about.column(place)
            # The path of a nested column goes on with the names of what is in it.
            path = chunk.path_in_schema
            if path in columns or any(path.startswith(f"{name}.") for name in columns):
                start = chunk.data_page_offset
                if chunk.has_dictionary_page:
                    start = min(start, chunk.dictionary_page_offset)
                yield start, start + chunk.total_compressed_size
