"""What parts of a manifest are: their names and ages, their form as Parquet, and how tables are cut into them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.folder import Folder, FolderError, folder_by_name
from longtake.manifests.keys import Hashes, Index

GROUP_ROWS = 125_000  # Rows of a row group, which is the unit that DuckDB and others read in parallel.
# Bytes of a row group in memory, about. Arrow reads a nested column of a group as one array, whose strings may take 2 GiB.
GROUP_BYTES = 256 * 2**20
METADATA = b"longtake.manifest"
PART = re.compile(r"\d{20}-(\d+)-[0-9a-f]{8}\.parquet")
# An attribute of a local folder: the boot of the machine, and the time of the newest part.
_NEWEST = "user.longtake.newest"
_guards: dict[str, Guard] = {}
_Read = TypeVar("_Read")
HINTS = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "raise the quota or free some space, and run again",
    errno.EROFS: "choose a workspace that can be written",
    errno.EFBIG: "no file may grow so large: raise the limit (ulimit -f)",
    errno.EMFILE: "let this command have more files open (ulimit -n)",
    errno.EACCES: "allow writing there, or choose another workspace",
    errno.EPERM: "allow writing there, or choose another workspace",
    errno.ENOTDIR: "a file is where the folder should be: move it away",
    errno.EEXIST: "a file is where the folder should be: move it away",
}


_UNREADABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def hint(error: BaseException, reading: bool = False) -> str:
    """What to do about an error of the filesystem, in brackets behind a space; empty where nobody knows."""
    number = getattr(error, "errno", None) or 0
    told = "allow this user to read it" if reading and number in _UNREADABLE else HINTS.get(number, "")
    return f" ({told})" if told else ""


class StoreError(Exception):
    """A manifest cannot be written or read, or is not what it should be. The message names the file and what to do."""


class Overtaken(StoreError):
    """A compaction by another run replaced parts while they were being read. Read again from the beginning."""


_READINGS = 5  # A command reads so often, at most, until no compaction overtakes it.


def steadily(read: Callable[[], _Read]) -> _Read:
    """What `read` gives, from the beginning again where another run compacts meanwhile. Raises Overtaken in the end."""
    for _ in range(_READINGS - 1):
        with suppress(Overtaken):
            return read()
    return read()


class Guard(Protocol):
    """Who holds the lock of a workspace in this process (longtake.manifests.lock)."""

    def check(self) -> None:
        """Raises if the lock was lost."""

    def turn(self, wait: bool) -> AbstractContextManager[bool]:
        """For the length of a compaction: whether it is ours to compact. wait: until it is. Raises if the lock was lost."""


def guard(workspace: str, holder: Guard | None) -> None:
    """Let compactions of a workspace by this process be allowed by the holder of its lock. None: no more."""
    if holder is None:
        _guards.pop(workspace, None)
    else:
        _guards[workspace] = holder


def check_guard(workspace: str) -> None:
    """Raises if this process had the lock of a workspace, and lost it."""
    if (holder := _guards.get(workspace)) is not None:
        holder.check()


def turn(workspace: str, wait: bool) -> AbstractContextManager[bool]:
    """As `Guard.turn`; whoever has no lock compacts at once."""
    holder = _guards.get(workspace)
    return nullcontext(True) if holder is None else holder.turn(wait)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a manifest: its name in the folder, and the number of rows in it."""

    name: str
    rows: int

    @property
    def time(self) -> int:
        """Nanoseconds since 1970."""
        return int(self.name[:20])

    @property
    def compacted(self) -> bool:
        return self.time % 2 == 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The parts of a manifest at one moment: their schemas, and of each a mask of the rows that count (None: all rows do)."""

    parts: list[Part]
    schemas: list[pa.Schema]
    masks: list[npt.NDArray[np.bool_]] | None
    keys: list[Hashes]


def open_folder(place: str) -> Folder:
    """The folder at a path or URI. Raises StoreError if the protocol is unknown or its package is not installed, and for
    a URI with a secret in it."""
    try:
        return folder_by_name(place)
    except FolderError as error:
        raise StoreError(f"cannot open the workspace {error}") from error


def rows_in(folder: Folder) -> int:
    """The rows in all parts of the manifest that lies in a folder, by the parts' names. Reads no file. Raises OSError."""
    return sum(int(match[1]) for match in map(PART.fullmatch, folder.names()) if match)


def parquet(table: pa.Table) -> pa.Buffer:
    """`table` as a Parquet file, in memory: whether it can be encoded is known before a file is touched."""
    sink = pa.BufferOutputStream()
    rows = min(GROUP_ROWS, max(1, table.num_rows * GROUP_BYTES // max(1, table.nbytes)))
    pq.write_table(table, sink, compression="zstd", row_group_size=rows, write_page_checksum=True)
    return sink.getvalue()


def as_dictionary(field: pa.Field) -> pa.Field:
    """The field with few different values."""
    return field.with_type(pa.dictionary(pa.int32(), field.type))


def pieces(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of `tables`, in order, in tables of `rows` rows; the last has what is left."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= rows:
            part = table.slice(0, rows - count)
            yield pa.concat_tables([*held, part])
            held, count, table = [], 0, table.slice(part.num_rows)
        if table.num_rows:
            held.append(table)
            count += table.num_rows
    if held:
        yield pa.concat_tables(held)


def no_rows(schema: pa.Schema) -> pa.Table:
    """A table of this schema without rows."""
    return pa.Table.from_batches([], schema)  # Arrow's empty_table() would import pandas: see longtake.manifests.arrow.


@cache
def _boot() -> bytes:
    """What this start of the machine is called."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().strip()
    return b""


def noted_time(folder: int | None) -> int | None:
    """The time of the newest part that an open folder has noted since the machine was started; None if it has not."""
    if folder is None or not _boot():
        return None
    with suppress(OSError, ValueError, AttributeError):
        boot, _, noted = os.getxattr(folder, _NEWEST).partition(b" ")
        return int(noted) if boot == _boot() else None
    return None


def note_time(folder: int | None, when: int) -> None:
    """Before the part has its name: a note may be of a part that never came, but no part is without one."""
    if folder is not None and _boot():
        try:
            os.setxattr(folder, _NEWEST, b"%s %d" % (_boot(), when))
        except (OSError, AttributeError):  # The filesystem has no attributes or is full. An old note must not count.
            with suppress(OSError, AttributeError):
                os.removexattr(folder, _NEWEST)


@contextmanager
def in_turn(place: Folder) -> Iterator[int | None]:
    """One process at a time, from the choice of a name until a part has it: names are then in the order of events. Gives
    the folder, open, where it is local and such a lock is to be had.

    By a lock on the folder, which the kernel lifts when its holder dies. Where there are no such locks (object
    stores, some network filesystems), two appends at the same moment may take either order, and the one thing
    to avoid is a worker still appending while the workspace is compacted.
    """
    try:
        folder = os.open(place.path, os.O_RDONLY | os.O_DIRECTORY) if place.is_local else None
    except FileNotFoundError:
        folder = None
    if folder is None:
        yield None
        return
    locked = False
    try:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
            locked = True
        yield folder if locked else None
    finally:
        if not locked:  # This writer noted nothing, so writers that can lock must not believe an older note.
            with suppress(OSError, AttributeError):
                os.removexattr(folder, _NEWEST)
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def excluding(
    masks: list[npt.NDArray[np.bool_]] | None, keys: Sequence[Hashes], without: pa.Array | pa.ChunkedArray
) -> list[npt.NDArray[np.bool_]]:
    """`masks` (None: of all rows) less the rows whose key is among `without`."""
    gone = Index.of(without)
    stays = [gone.find_hashed(part) < 0 for part in keys]
    return stays if masks is None else [mask & one for mask, one in zip(masks, stays, strict=True)]


def joined(base: pa.Schema, schemas: Iterable[pa.Schema], where: str) -> pa.Schema:
    """The columns of `base`, then the further ones of `schemas`, each with the widest of its types."""
    known = set(base.names)
    further = [
        pa.schema([field.with_nullable(True) for field in schema if field.name not in known])
        for schema in dict.fromkeys(schemas)
    ]
    try:
        unified = pa.unify_schemas([pa.schema([]), *further], promote_options="permissive")
    except pa.ArrowException as error:
        raise StoreError(f"rows of {where} do not go together, leave this column out: {error}") from error
    return pa.schema([*base, *(field.remove_metadata() for field in unified)])


def fit(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """`table` with exactly the columns of `schema`, which has all of its names or selects from them."""
    if table.schema == schema:
        return table
    columns = []
    for field in schema:
        count = table.schema.names.count(field.name)
        if count > 1:
            raise StoreError(f"{what}: there is more than one column {field.name!r}")
        if count == 0 and not field.nullable:
            raise StoreError(f"{what}: the column {field.name!r} is missing")
        try:
            column = table[field.name] if count else pa.nulls(table.num_rows, field.type)
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise StoreError(
                f"{what}: the column {field.name!r} of type {table.schema.field(field.name).type} "
                f"does not fit {field.type}: {error}"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)
