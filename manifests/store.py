"""The store: a manifest is a folder of Parquet parts that only grows; of rows with one key, the newest wins.

A part is named `TIME-ROWS-RANDOM.parquet`, so that names in order are parts by age, and counting rows reads nothing. It
appears whole or not at all, and nothing ever changes it. So a writer may be killed at any moment, a block may be
written twice, and many processes may append at once: `Manifest.read` still gives each key exactly once. `compact` makes
that true of the files too, for everyone else who reads the folder (pandas, DuckDB, a glob).

Ages. An append is named after the clock, or after the newest part if the clock lags behind it, and always at an even
nanosecond. A compacted part takes the odd nanosecond right after the newest part that its maker saw: newer than all
that it replaces, and older than any append that started later, such as one by a worker that outlived its driver.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longtake.manifests.arrow import from_numpy
from longtake.manifests.folder import Folder, FolderError, folder_by_name

PART_ROWS = 250_000  # rows of a full compacted part
GROUP_ROWS = 125_000  # rows of a row group: what DuckDB and others read in parallel
FEW_PARTS = 8  # so many small parts cost a reader nothing
ABANDONED = 3600.0  # seconds: a temporary file of this age has no writer any more
READERS = 8  # parts opened at once: hides the latency of an object store
TRIES = 10  # readings until one is not overtaken by a compaction

_METADATA = b"longtake.manifest"
_PART = re.compile(r"\d{20}-(\d+)-[0-9a-f]{8}\.parquet")
_HINTS = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "raise the quota or free some space, and run again",
    errno.EROFS: "choose a workspace that can be written",
    errno.EACCES: "allow writing there, or choose another workspace",
    errno.EPERM: "allow writing there, or choose another workspace",
    errno.ENOTDIR: "a file is where the folder should be: move it away",
    errno.EEXIST: "a file is where the folder should be: move it away",
}


class StoreError(Exception):
    """A manifest cannot be written or read, or is not what it should be. The message names the file and what to do."""


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


def open_folder(place: str) -> Folder:
    """The folder at a path or URI. Raises StoreError if the protocol is unknown or its package is not installed, and for
    a URI with a secret in it."""
    try:
        return folder_by_name(place)
    except FolderError as error:
        raise StoreError(f"cannot open the workspace {error}") from error


def rows_in(folder: Folder) -> int:
    """The rows in all parts of the manifest that lies in a folder, by the parts' names. Reads no file. Raises OSError."""
    return sum(int(match[1]) for match in map(_PART.fullmatch, folder.names()) if match)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was read of a part: its whole schema, and the columns asked for."""

    schema: pa.Schema
    table: pa.Table


class Manifest:
    """A table on disk under `WORKSPACE/NAME`: append-only, one key column, the newest row per key wins.

    workspace: a local path or an fsspec URI. schema: the columns of every row; fields that are not nullable must be
    given. Rows may carry more columns (such as one per third-party filter), whose type must stay the same. version:
    raise it when the schema changes; older parts stay readable as long as only nullable columns are added.

    Nothing is created before the first append. A manifest can be pickled, and used by many threads and processes at
    once, except that `compact` is for the holder of the workspace's lock (longtake.manifests.lock).

    heavy: further columns that `read` gives only when they are named.
    """

    def __init__(
        self, workspace: str, name: str, key: str, schema: pa.Schema, version: int = 1, heavy: Sequence[str] = ()
    ) -> None:
        if key not in schema.names:
            raise ValueError(f"manifest {name!r}: the key {key!r} is not in the schema {schema.names}")
        stored = pq.read_schema(pa.BufferReader(_parquet(_no_rows(schema))))
        if changed := [f for f in schema if f != stored.field(f.name)]:
            raise ValueError(f"manifest {name!r}: Parquet does not keep the type of {changed}")
        self.name = name
        self.key = key
        self.schema = schema.remove_metadata()
        self.version = version
        self.heavy = tuple(heavy)
        self.workspace = workspace
        self.folder = open_folder(workspace) / name
        self._latest = 0

    @property
    def path(self) -> str:
        """The folder of the parts, an absolute path or a URI: what pandas and DuckDB take."""
        return self.folder.uri

    # Writing

    def append(self, table: pa.Table, after: int = 0) -> Part | None:
        """Add rows as one new part. When this returns they are on the disk; before, no reader sees any of them. after: the time
        of the part whose rows these replace, which another machine's clock may have given it.

        Columns are cast to the schema's types, missing nullable ones become null, and those beyond the schema are kept.
        A table without rows adds nothing and gives None.

        Raises ValueError if a key is null or there twice, or if a column that is not nullable holds a null; StoreError
        if the columns do not fit the schema or the part cannot be written.
        """
        rows = f"the rows to append to {self.path}"
        table = self._fit(table, self._joined([table.schema]), rows)
        for field in self.schema:
            if table[field.name].null_count and (field.name == self.key or not field.nullable):
                raise ValueError(f"{rows} have nulls in column {field.name!r}")
        newest = _newest([table[self.key]])
        if newest is not None:
            example = table[self.key].filter(from_numpy(~newest[0]))[0]
            raise ValueError(f"{rows} have the key {example} in column {self.key!r} more than once")
        return self._write(table, lambda: self._next_time(after)) if table.num_rows else None

    def make_readable(self, further: Sequence[pa.Field] = ()) -> None:
        """Where there is no part, write one without rows: pandas and DuckDB then read an empty table with these columns, and do
        not fail at a folder that is not there. further: columns beyond the schema. A compaction removes the part once there
        are rows."""
        if not self.parts():
            schema = self._joined([pa.schema(further)])
            self._write(_no_rows(schema), lambda: self._next_time(0))

    def compact(self, without: pa.Array | pa.ChunkedArray | None = None) -> None:
        """Leave exactly one row per key in the files, in few files, all with the same columns.

        without: keys to leave out from now on, all of their rows.

        For the holder of the workspace's lock. Full parts without superseded rows stay as they are: a compaction costs
        what has changed, and holds the keys and about one part in memory. A kill at any moment loses nothing, and the
        next compaction completes the work. Temporary files that dead writers left are removed.

        Raises StoreError if a part cannot be read or written; then nothing was lost.
        """
        with self._in_plain_words("list", self.path):
            self.folder.remove_abandoned(ABANDONED)
        with self._in_turn():  # no append may be between its choice of a name and that name's appearance
            parts = self.parts()
        if any(part.rows for part in parts):
            for part in (part for part in parts if not part.rows):  # see `make_readable`
                with self._in_plain_words("delete", self._file(part.name)):
                    self.folder.remove(part.name)
            parts = [part for part in parts if part.rows]
        keys = self._load_all(parts, [self.key])
        schema = self._joined([key.schema for key in keys])
        newest = _newest([self._fit_key(part, key.table) for part, key in zip(parts, keys, strict=True)])
        if without is not None and len(without):
            newest = _excluding(newest, [key.table[self.key] for key in keys], without)
        changed = [key.schema != schema or (newest is not None and not newest[i].all()) for i, key in enumerate(keys)]
        small = [part.rows < PART_ROWS // 2 for part in parts]
        chosen = [i for i in range(len(parts)) if changed[i] or (small[i] and sum(small) > FEW_PARTS)]
        if not chosen:
            return

        def rows_to_keep() -> Iterator[pa.Table]:
            for i in chosen:
                # The last reading of this file, so its checksums are looked at.
                table = self._load(parts[i], None, verify=True).table
                table = self._fit(table, schema, self._file(parts[i].name))
                yield table if newest is None else table.filter(from_numpy(newest[i]))

        after_all = parts[-1].time | 1
        for table in _pieces(rows_to_keep(), PART_ROWS):
            self._write(table, lambda: after_all)
        for i in chosen:
            with self._in_plain_words("delete", self._file(parts[i].name)):
                self.folder.remove(parts[i].name)

    def _next_time(self, after: int) -> int:
        """An even time later than every part's. To list 100,000 objects takes seconds, so a remote folder is listed
        once, and from then on our clock and our own parts decide; a local one is listed each time."""
        if self.folder.is_local or not self._latest:
            self._latest = int(max(filter(_PART.fullmatch, self._names()), default="0")[:20])
        now = max(time.time_ns(), self._latest + 1, after + 1)
        self._latest = now + now % 2
        return self._latest

    def _write(self, table: pa.Table, choose_time: Callable[[], int]) -> Part:
        """One new part. Its time is chosen at the last moment, in turn with other writers."""
        try:
            tag = {_METADATA: f"{self.name}/{self.version}".encode()}
            data = _parquet(table.replace_schema_metadata(tag))
        except pa.ArrowException as error:
            raise StoreError(f"rows for {self.path} cannot be stored as Parquet: {error}") from error
        rest = f"{table.num_rows}-{uuid.uuid4().hex[:8]}.parquet"
        prepared = self.folder.prepared(rest, memoryview(data))
        with self._in_plain_words("write to", self.path), prepared as give, self._in_turn():
            name = f"{choose_time():020d}-{rest}"
            give(name)
        return Part(name, table.num_rows)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """One process at a time, from the choice of a name until a part has it: names are then in the order of events.

        By a lock on the folder, which the kernel lifts when its holder dies. Where there are no such locks (object
        stores, some network filesystems), two appends at the same moment may take either order, and the one thing
        to avoid is a worker still appending while the workspace is compacted.
        """
        try:
            folder = os.open(self.folder.path, os.O_RDONLY | os.O_DIRECTORY) if self.folder.is_local else None
        except FileNotFoundError:
            folder = None
        if folder is None:
            yield
            return
        try:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)

    # Reading

    def parts(self) -> list[Part]:
        """The parts, oldest first; what a writer has not finished is not among them. A missing folder has none.

        Raises StoreError if the folder cannot be listed or holds a Parquet file that is not a part.
        """
        parts = []
        for name in self._names():
            if name.startswith((".", "_")) or not name.endswith(".parquet"):
                continue  # as pandas does
            match = _PART.fullmatch(name)
            if match is None:
                raise StoreError(f"{self._file(name)} is not a part of the manifest {self.name!r}: move it elsewhere")
            parts.append(Part(name, int(match[1])))
        return sorted(parts, key=lambda part: part.name)

    def rows(self) -> int:
        """The rows in all parts. Before `compact` a key that was appended again is counted again. Reads no file."""
        return sum(part.rows for part in self.parts())

    def read(
        self, columns: Sequence[str] | None = None, *, optional: Sequence[str] = (), encoded: Sequence[str] = ()
    ) -> pa.Table:
        """The newest row of each key, with these columns (None: all but the heavy ones, those of the schema first).

        A column that a part does not have is null in its rows. An empty manifest gives an empty table with the schema.
        optional: further columns, where there are such. encoded: columns of the schema with few different strings,
        wanted as dictionaries: a fraction of the time and the memory.

        Raises StoreError if a part is not whole, of another manifest or newer than this program, if no part and no
        schema has one of the columns, or if parts disagree on the type of a column.
        """
        wanted = None if columns is None else {self.key, *columns, *optional}
        for _ in range(TRIES):
            parts = self.parts()
            try:
                loaded = self._load_all(parts, wanted, encoded, self.heavy if columns is None else ())
            except FileNotFoundError:
                continue  # a compaction has replaced it since
            # A long listing is no snapshot: it can miss a part that has come and those that have gone meanwhile.
            if not any(part.compacted for part in set(self.parts()) - set(parts)):
                break
        else:
            raise StoreError(f"{self.path} changes faster than it can be read: stop what is deleting its parts")
        schema = self._joined([part.table.schema for part in loaded])
        if columns is not None:
            if unknown := [name for name in columns if name not in schema.names]:
                raise StoreError(f"{self.path} has no column {', '.join(map(repr, unknown))} in any of its parts")
            columns = [*columns, *(name for name in optional if name in schema.names)]
            schema = pa.schema([schema.field(name) for name in dict.fromkeys([self.key, *columns])])
        schema = pa.schema([_as_dictionary(field) if field.name in encoded else field for field in schema])
        tables = [
            self._fit(part_loaded.table, schema, self._file(part.name))
            for part, part_loaded in zip(parts, loaded, strict=True)
        ]
        newest = _newest([table[self.key] for table in tables])
        if newest is not None:
            tables = [
                table if mask.all() else table.filter(from_numpy(mask))
                for table, mask in zip(tables, newest, strict=True)
            ]
        whole = pa.concat_tables([_no_rows(schema), *tables])
        return whole if columns is None else whole.select(list(columns))

    def _load_all(
        self,
        parts: Sequence[Part],
        columns: Iterable[str] | None,
        encoded: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> list[_Loaded]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda part: self._load(part, columns, encoded, without=without), parts))

    def _load(
        self,
        part: Part,
        columns: Iterable[str] | None,
        encoded: Sequence[str] = (),
        verify: bool = False,
        without: Sequence[str] = (),
    ) -> _Loaded:
        """A part's schema, and those of the columns that it has. FileNotFoundError passes: see `read`."""
        local = self.folder.is_local
        try:
            with pa.OSFile(self._file(part.name), "rb") if local else self.folder.open(part.name) as source:
                parquet = pq.ParquetFile(
                    source,
                    pre_buffer=not local,
                    page_checksum_verification=verify,
                    read_dictionary=list(encoded) or None,
                )
                self._check(part, parquet)
                schema = parquet.schema_arrow.remove_metadata()
                wanted = schema.names if columns is None else columns
                present = [name for name in schema.names if name in wanted and name not in without]
                table = parquet.read(None if present == schema.names else present).select(present)
                return _Loaded(schema, table.replace_schema_metadata())
        except (StoreError, FileNotFoundError, MemoryError):
            raise
        except Exception as error:
            # Arrow reports bad content as ArrowInvalid, or as an OSError without a number, which a remote filesystem
            # may also raise for a bad connection.
            bad = isinstance(error, pa.ArrowException) or (local and getattr(error, "errno", None) is None)
            reason = str(error).strip() or type(error).__name__
            if not bad:
                raise StoreError(f"cannot read {self._file(part.name)}: {reason}") from error
            raise StoreError(
                f"{self._file(part.name)} is damaged ({reason}). "
                f"Delete it: its {part.rows} rows are then computed again by the next run"
            ) from error

    def _check(self, part: Part, parquet: pq.ParquetFile) -> None:
        file = self._file(part.name)
        tag = (parquet.schema_arrow.metadata or {}).get(_METADATA, b"").decode(errors="replace")
        name, _, version = tag.rpartition("/")
        if name != self.name or not version.isdecimal():
            what = f"a part of the manifest {tag!r}" if tag else "a Parquet file of another program"
            raise StoreError(f"{file} is {what}, not of {self.name!r}: move it elsewhere")
        if int(version) > self.version:
            raise StoreError(
                f"{file} was written as {tag}, and this program knows {self.name}/{self.version}: "
                "use the newer program that wrote it, or another workspace"
            )
        if parquet.metadata.num_rows != part.rows:
            raise StoreError(
                f"{file} holds {parquet.metadata.num_rows} rows and not the {part.rows} of its name: it was changed. "
                "Delete it: its rows are then computed again by the next run"
            )

    # Columns

    def _joined(self, schemas: Iterable[pa.Schema]) -> pa.Schema:
        """The manifest's columns, then the further ones of `schemas`, each with the widest of its types."""
        known = set(self.schema.names)
        further = [
            pa.schema([field.with_nullable(True) for field in schema if field.name not in known])
            for schema in dict.fromkeys(schemas)
        ]
        try:
            found = pa.unify_schemas([pa.schema([]), *further], promote_options="permissive")
        except pa.ArrowException as error:
            raise StoreError(f"rows of {self.path} do not go together, leave this column out: {error}") from error
        return pa.schema([*self.schema, *(field.remove_metadata() for field in found)])

    def _fit(self, table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
        """`table` with exactly the columns of `schema`, which has all of its names or selects from them."""
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

    def _fit_key(self, part: Part, table: pa.Table) -> pa.ChunkedArray:
        return self._fit(table, pa.schema([self.schema.field(self.key)]), self._file(part.name))[self.key]

    # Files

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _names(self) -> list[str]:
        with self._in_plain_words("list", self.path):
            try:
                return self.folder.names()
            except NotADirectoryError as error:
                raise StoreError(
                    f"cannot list {self.path}: a file is where the folder should be: move it away"
                ) from error

    @contextmanager
    def _in_plain_words(self, verb: str, what: str) -> Iterator[None]:
        """Turns an error of the filesystem (any error of a remote one) into a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            if self.folder.is_local and not isinstance(error, OSError):
                raise
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if isinstance(number, int) else f"{type(error).__name__}: {error}"
            hint = _HINTS.get(number or 0, "")
            raise StoreError(
                f"cannot {verb} {what}: {reason}{f' ({hint})' if hint else ''}. What was stored before is intact"
            ) from error


def _parquet(table: pa.Table) -> pa.Buffer:
    """`table` as a Parquet file, in memory: whether it can be encoded is known before a file is touched."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True)
    return sink.getvalue()


def _as_dictionary(field: pa.Field) -> pa.Field:
    return field.with_type(pa.dictionary(pa.int32(), field.type))


def _pieces(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of `tables`, in order, in tables of `rows` rows; the last has what is left."""
    held: pa.Table | None = None
    for table in tables:
        held = table if held is None else pa.concat_tables([held, table])
        while held.num_rows >= rows:
            yield held.slice(0, rows)
            held = held.slice(rows)
    if held is not None and held.num_rows:
        yield held


def _newest(keys: Sequence[pa.ChunkedArray]) -> list[npt.NDArray[np.bool_]] | None:
    """For the keys of each part, oldest first: a mask of the rows that no later row replaces. None: of all rows."""
    chunks = [chunk for part in keys for chunk in part.chunks if len(chunk)]
    if not chunks:
        return None
    together = pa.chunked_array(chunks)
    if _surely_distinct(together):
        return None
    if pa.types.is_string(together.type):
        together = together.cast(pa.large_string())  # one array may then hold more than 2 GiB
    codes = pa.concat_arrays(together.chunks).dictionary_encode(null_encoding="encode")
    if len(codes.dictionary) == len(together):
        return None
    last = np.zeros(len(codes.dictionary), np.int64)
    last[np.from_dlpack(codes.indices)] = np.arange(len(together))  # of repeated indices numpy keeps the last
    mask = np.zeros(len(together), np.bool_)
    mask[last] = True
    return np.split(mask, np.cumsum([len(part) for part in keys])[:-1])


def _no_rows(schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches([], schema)  # schema.empty_table() imports pandas, see longtake.manifests.arrow


def _excluding(
    masks: list[npt.NDArray[np.bool_]] | None, keys: Sequence[pa.ChunkedArray], without: pa.Array | pa.ChunkedArray
) -> list[npt.NDArray[np.bool_]]:
    """`masks` (None: of all rows) less the rows whose key is among `without`."""
    gone = [pc.is_in(part, value_set=without).to_numpy().astype(np.bool_) for part in keys]
    return [~out if masks is None else masks[i] & ~out for i, out in enumerate(gone)]


def _surely_distinct(keys: pa.ChunkedArray) -> bool:
    """True if no two keys are equal; False if that is unknown. A third of the time of a hash table of strings.

    Equal keys have equal 64-bit numbers, made of their length, their last eight bytes and the words that all of them
    have; so keys are distinct where their sorted numbers are.
    """
    if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)) or keys.null_count:
        return False
    shortest = pc.min(pc.binary_length(keys)).as_py()
    if shortest < 8:
        return False
    for starts in ([0], list(range(0, shortest - 7, 8))):  # of ids that are hashes the first word tells enough
        numbers = np.sort(np.concatenate([_numbers(chunk, starts) for chunk in keys.chunks]))
        if (numbers[1:] != numbers[:-1]).all():
            return True
    return False


def _numbers(keys: pa.Array, starts: Sequence[int]) -> npt.NDArray[np.uint64]:
    """A number per key, the same for equal keys whatever else is in `keys`, of the words of eight bytes that begin at
    `starts` and the last. No key is shorter than the last of these."""
    _, offsets, data = keys.buffers()
    width = np.int64 if pa.types.is_large_string(keys.type) else np.int32
    edges = np.frombuffer(offsets, width)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
    words = np.ndarray((len(data) - 7,), np.uint64, data, strides=(1,))  # the eight bytes from each byte on
    numbers = np.diff(edges).astype(np.uint64)
    for word in [*(edges[:-1] + start for start in starts), edges[1:] - 8]:
        numbers *= np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
        numbers ^= words[word]
    return numbers
