"""Videos inside of larger files: members of tar archives (WebDataset), cells of Parquet tables (datasets of Hugging Face).

A member of an archive is read by its range: nothing is unpacked, and no more is read than a video of its own would need. Its
address is the archive's with `#member=NAME`; that of a cell is the table's with `#cell=COLUMN,ROW`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

_MEMBER, _CELL = "#member=", "#cell="


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. offset, size: where its bytes lie."""

    name: str
    offset: int
    size: int


class MemberError(OSError):
    """An archive or a table is not what it should be, or does not hold what is looked for."""


def member_uri(archive: str, name: str) -> str:
    """The address of a member."""
    return f"{archive}{_MEMBER}{quote(name, safe='/')}"


def cell_uri(table: str, column: str, row: int) -> str:
    """The address of a video that lies in a cell. row: counted from 0."""
    return f"{table}{_CELL}{quote(column, safe='')},{row}"


def container_of(uri: str) -> str | None:
    """The archive or table that an address leads into; None for an ordinary address."""
    for mark in (_MEMBER, _CELL):
        if mark in uri:
            return uri.rpartition(mark)[0]
    return None


def members(file: BinaryIO) -> Iterator[Member]:
    """The files of an archive, in order; links and devices are left out. Reads the headers only. Raises MemberError."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                if entry.isfile():
                    yield Member(entry.name, entry.offset_data, entry.size)
                archive.members = []  # type: ignore[attr-defined]  # else all of them are kept in memory
    except (tarfile.TarError, EOFError) as error:
        raise MemberError(f"not a tar archive that can be read without unpacking: {error}") from error


def open_inside(file: BinaryIO, uri: str) -> BinaryIO:
    """What `uri` names inside of its open container, seekable; closing it closes the container. Raises MemberError."""
    if _MEMBER in uri:
        wanted = unquote(uri.rpartition(_MEMBER)[2])
        for member in members(file):
            if member.name == wanted:
                return io.BufferedReader(_Range(file, member.offset, member.size))
        raise MemberError(f"the archive has no member {wanted!r}")
    column, _, row = uri.rpartition(_CELL)[2].rpartition(",")
    data = _cell(file, unquote(column), int(row) if row.isdecimal() else -1)
    file.close()
    return io.BytesIO(data)


def video_columns(schema: pa.Schema) -> list[str]:
    """The columns of a table whose cells hold videos as datasets of Hugging Face store them: structs of `bytes` and `path`."""
    return [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and {inner.name for inner in field.type} == {"bytes", "path"}
        and (
            pa.types.is_binary(field.type.field("bytes").type)
            or pa.types.is_large_binary(field.type.field("bytes").type)
        )
    ]


def _cell(file: BinaryIO, column: str, row: int) -> bytes:
    try:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if 0 <= row < rows:
                for batch in parquet.iter_batches(batch_size=1, row_groups=[group], columns=[column]):
                    if row == 0:
                        cell = batch[column][0].as_py()
                        if cell and cell["bytes"]:
                            return bytes(cell["bytes"])
                        raise MemberError("the cell holds no bytes")
                    row -= 1
            row -= rows
    except (pa.ArrowException, KeyError) as error:
        raise MemberError(f"not a table with a column {column!r} of videos: {error}") from error
    raise MemberError("the table has no such row")


class _Range(io.RawIOBase):
    """The bytes [offset, offset + size) of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = max(0, min(len(view), self._size - self._at))
        if wanted:
            self._file.seek(self._offset + self._at)
        data = self._file.read(wanted) if wanted else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
