"""Videos inside of larger files: members of tar archives (WebDataset), cells of Parquet tables (datasets of Hugging Face).

A member of an archive is read by its range: nothing is unpacked, and no more is read than a video of its own would need. Its
address is the archive's with `#member=NAME`; that of a cell is the table's with `#cell=COLUMN,ROW`. The second member of one
name is `#member=NAME,2`, and so on, so that each of them can be read.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

_MEMBER, _CELL = "member=", "cell="
_BLOCK = 512  # Bytes. A tar archive is made of blocks of this size, and a header is one of them.
# Bytes that one request for headers asks for. A caption or two beside a video lie within it; a video is passed over.
_HEADERS_AT_ONCE = 2**14
# Bytes that one request for a remote member or a column asks for. A stream is read in few requests, and a seek costs
# little.
_AT_ONCE = 2**20
# Errors that tarfile raises for headers that make no sense.
_BROKEN = (tarfile.TarError, EOFError, ValueError, OverflowError)
_LAST_LOOK = 2**16  # Bytes behind the end mark of an archive in which a second archive is looked for.
# The archives and members that one process remembers, at most. A member takes about 300 bytes.
_MOST_MEMBERS, _MOST_ARCHIVES = 500_000, 64
# Bytes of a column's videos in one row group up to which the open group is kept, since the bytes read from it stay in
# memory.
_KEPT_COLUMN = 2**29


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. offset, size: where its bytes lie. number: the second of one name is 2, and so on."""

    name: str
    offset: int
    size: int
    number: int = 1


class MemberError(OSError):
    """An archive or a table is not what it should be."""


class NoMemberError(MemberError):
    """An archive or a table does not hold what is looked for."""


@dataclass(slots=True)
class Index:
    """What an archive holds. files: in order. others: names of links, devices and files with holes, which have no range of
    bytes. damage: why the archive cannot be read further; the files before are good. kept: bytes that were asked for."""

    files: list[Member] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    damage: str | None = None
    kept: dict[Member, bytes] = field(default_factory=dict)

    def find(self, name: str, number: int = 1) -> Member | None:
        """The member that is the `number`th of its name."""
        return self._places().get((name, number))

    _by_name: dict[tuple[str, int], Member] | None = None

    def _places(self) -> dict[tuple[str, int], Member]:
        if self._by_name is None:
            self._by_name = {(member.name, member.number): member for member in self.files}
        return self._by_name


def member_uri(archive: str, name: str, number: int = 1) -> str:
    """The address of a member. number: which of several members of one name, from 1."""
    further = f",{number}" if number > 1 else ""
    return f"{archive}#{_MEMBER}{quote(name, safe='/', errors='surrogateescape')}{further}"


def cell_uri(table: str, column: str, row: int) -> str:
    """The address of a video that lies in a cell. row: counted from 0."""
    return f"{table}#{_CELL}{quote(column, safe='')},{row}"


def container_of(uri: str) -> str | None:
    """The archive or table that an address leads into; None for an ordinary address."""
    container, _, inside = uri.rpartition("#")  # A # in the name of the member is escaped.
    return container if container and inside.startswith((_MEMBER, _CELL)) else None


def file_of(uri: str) -> str:
    """The address of the file that holds a video: the container of a member, and otherwise the address itself."""
    return container_of(uri) or uri


def absolute(path: str) -> str:
    """A path made absolute, with what it names inside of a container as it is."""
    container = container_of(path)
    return os.path.abspath(path) if container is None else os.path.abspath(container) + path[len(container) :]


def members(file: BinaryIO) -> Iterator[Member]:
    """The files of an archive, in order. Reads the headers only. Raises MemberError, also for damage after good members."""
    index = read_index(file)
    yield from index.files
    if index.damage:
        raise MemberError(index.damage)


def read_index(file: BinaryIO, keep: Callable[[Member], bool] | None = None) -> Index:
    """What an archive holds. Reads the headers only, and the bytes of members for which `keep` is true, while it passes them.
    Raises MemberError for what is no archive from its first bytes on, and what reading the file raises."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    buffered = file if isinstance(file, io.BufferedReader) else _range(file, 0, size, _HEADERS_AT_ONCE, closes=False)
    index, seen = Index(), dict[str, int]()
    try:
        with tarfile.open(fileobj=buffered, mode="r:") as archive:
            try:
                while (entry := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else all of them are kept in memory
                    if entry.isfile() and not entry.issparse():
                        seen[entry.name] = seen.get(entry.name, 0) + 1
                        member = Member(entry.name, entry.offset_data, entry.size, seen[entry.name])
                        index.files.append(member)
                        if keep is not None and keep(member):
                            buffered.seek(member.offset)
                            index.kept[member] = buffered.read(member.size)
                    elif not entry.isdir():
                        index.others.append(entry.name)
                index.damage = _after_the_end(buffered, archive.offset, size)
            except _BROKEN as error:
                index.damage = f"it is damaged or cut off: {error}"
    except _BROKEN as error:
        raise MemberError(f"not a tar archive that can be read without unpacking: {error}") from error
    return index


def _after_the_end(file: BinaryIO, at: int, size: int) -> str | None:
    """What is wrong behind the last header that could be read; None if nothing is. tarfile ends there in silence."""
    file.seek(at)
    rest = file.read(min(size - at, _LAST_LOOK))
    if not rest.strip(b"\0"):
        return None
    if rest[:_BLOCK].strip(b"\0"):
        return f"it is damaged: there is no header at byte {at}, {size - at} bytes before its end"
    return f"another archive seems to follow after its end at byte {at}: join archives with tar -A, not with cat"


def open_inside(file: BinaryIO, uri: str, identity: str | None = None) -> BinaryIO:
    """What `uri` names inside of its open container, seekable; closing it closes the container. Raises MemberError.

    identity: of the container, by which this process remembers where the members of an archive lie; None: it does not.
    """
    inside = uri.rpartition("#")[2]
    if inside.startswith(_MEMBER):
        name, _, number = inside[len(_MEMBER) :].partition(",")
        member = _find(
            file, unquote(name, errors="surrogateescape"), int(number) if number.isdecimal() else 1, identity
        )
        return _range(file, member.offset, member.size, _AT_ONCE)
    column, _, row = inside[len(_CELL) :].rpartition(",")
    return io.BytesIO(_cell(file, unquote(column), int(row) if row.isdecimal() else -1, identity))


def _find(file: BinaryIO, name: str, number: int, identity: str | None) -> Member:
    key = (identity, file.seek(0, io.SEEK_END), _modified(file)) if identity is not None else None
    index = _indexes.get(key) if key else None
    member = index.find(name, number) if index else None
    if member is None or not _is_there(file, member):
        index = read_index(file)
        if key:
            _indexes.put(key, index)
        member = index.find(name, number)
    if member is None:
        assert index is not None
        further = f"; {index.damage}" if index.damage else ""
        raise NoMemberError(f"the archive has no member {name!r}{further}")
    return member


def _is_there(file: BinaryIO, member: Member) -> bool:
    """Whether the header of a remembered member is still before its bytes: another archive may have taken the name."""
    file.seek(member.offset - _BLOCK)
    try:
        header = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    # A name of more than 100 characters is shortened in this header, and whole in a header before it.
    return header.size == member.size and (header.name == member.name or len(os.fsencode(member.name)) >= 100)


def _modified(file: BinaryIO) -> int:
    try:
        return os.fstat(file.fileno()).st_mtime_ns
    except (OSError, AttributeError):  # A remote file has no number.
        return 0


class _Indexes:
    """The archives that this process read last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, int], Index] = OrderedDict()

    def get(self, key: tuple[str, int, int]) -> Index | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: tuple[str, int, int], index: Index) -> None:
        with self._lock:
            self._known[key] = index
            self._known.move_to_end(key)
            while len(self._known) > 1 and (
                len(self._known) > _MOST_ARCHIVES
                or sum(len(known.files) for known in self._known.values()) > _MOST_MEMBERS
            ):
                self._known.popitem(last=False)


_indexes = _Indexes()


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


def open_table(file: BinaryIO) -> pq.ParquetFile:
    """A Parquet table, of which columns are read piece by piece: a column of videos is no text to be held in memory."""
    return pq.ParquetFile(file, buffer_size=_AT_ONCE, pre_buffer=False)


def rows_with_bytes(table: pq.ParquetFile, group: int, column: str) -> list[bool]:
    """Which cells of a column of videos hold bytes, in one row group. Read from the group's statistics where all or none do."""
    about = table.metadata.row_group(group)
    for at in range(about.num_columns):
        if about.column(at).path_in_schema == f"{column}.bytes":
            known = about.column(at).statistics
            if known is not None and known.has_null_count and known.null_count in (0, about.num_rows):
                return [known.null_count == 0] * about.num_rows
    has_bytes: list[bool] = []
    for batch in table.iter_batches(batch_size=1, row_groups=[group], columns=[f"{column}.bytes"]):
        cells = batch.column(0)
        has_bytes += [
            cells.is_valid()[at].as_py() and cells.field(0).is_valid()[at].as_py() for at in range(len(cells))
        ]
    return has_bytes


class _Column:
    """The cells of a column of videos in one row group, read in order. A page of it may hold the videos of many rows, and can
    only be read whole: so the place is kept for the next row."""

    def __init__(self, file: BinaryIO, column: str, row: int) -> None:
        self.file, table = file, open_table(file)
        self.first, group = 0, 0
        while group < table.num_row_groups and row >= self.first + table.metadata.row_group(group).num_rows:
            self.first += table.metadata.row_group(group).num_rows
            group += 1
        if row < 0 or group == table.num_row_groups:
            raise NoMemberError("the table has no such row")
        about = table.metadata.row_group(group)
        self.end = self.first + about.num_rows
        self.size = sum(
            about.column(at).total_uncompressed_size
            for at in range(about.num_columns)
            if about.column(at).path_in_schema.startswith(f"{column}.")
        )
        self.at, self._column, self._bytes = self.first - 1, column, b""
        self._rows = table.iter_batches(batch_size=1, row_groups=[group], columns=[column])

    def read(self, row: int) -> bytes:
        """The bytes of a cell that is not before the one that was read last; empty if it holds none."""
        while self.at < row:
            batch = next(self._rows)
            self.at += 1
            cell = batch[self._column][0].as_py() if self.at == row else None
            self._bytes = bytes((cell or {}).get("bytes") or b"")
        return self._bytes


# The column of the cell that this process read last.
_column: tuple[tuple[str, int, int, str, int], _Column] | None = None
_column_lock = threading.Lock()


def _cell(file: BinaryIO, column: str, row: int, identity: str | None) -> bytes:
    """The bytes of a cell. Closes the file, or keeps it for the next cell of the column."""
    global _column
    key = (identity or "", file.seek(0, io.SEEK_END), _modified(file), column, os.getpid())
    with _column_lock:
        kept, _column = _column, None
        data = b""
        if kept is not None and kept[0] == key and kept[1].at <= row < kept[1].end:
            with suppress(Exception):  # The permission to read its file may have run out; the new file is read then.
                data = kept[1].read(row)
        if data and kept is not None:
            _column = kept
            file.close()
            return data
        if kept is not None and kept[0][-1] == os.getpid():
            kept[1].file.close()
        try:
            cells = _Column(file, column, row)
            data = cells.read(row)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, TypeError, StopIteration) as error:
            raise MemberError(f"not a table with a column {column!r} of videos: {error}") from error
        if not data:
            raise NoMemberError("the cell holds no bytes")
        if identity is not None and cells.size <= _KEPT_COLUMN:
            _column = key, cells
        else:
            file.close()
        return data


def _range(file: BinaryIO, offset: int, size: int, at_once: int, closes: bool = True) -> BinaryIO:
    """A range of a file as a file, read in pieces. closes: with it, the whole file is closed."""
    local = isinstance(file, io.BufferedReader)  # A local file has a buffer of its own.
    return io.BufferedReader(_Range(file, offset, size, closes), io.DEFAULT_BUFFER_SIZE if local else at_once)


class _Range(io.RawIOBase):
    """The bytes [offset, offset + size) of a file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, size: int, closes: bool = True) -> None:
        self._file, self._offset, self._size, self._at, self._closes = file, offset, size, 0, closes

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

    def readall(self) -> bytes:
        data = bytearray(max(0, self._size - self._at))
        read = 0
        while read < len(data) and (more := self.readinto(memoryview(data)[read:])):
            read += more
        return bytes(data[:read])

    def close(self) -> None:
        if not self.closed and self._closes:
            self._file.close()
        super().close()
