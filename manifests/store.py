"""The store: a manifest is a folder of Parquet parts that only grows; of rows with one key, the newest wins.

A part is named `TIME-ROWS-RANDOM.parquet`, so that names in order are parts by age, and counting rows reads nothing. It
appears whole or not at all, and nothing ever changes it. So a writer may be killed at any moment, a block may be
written twice, and many processes may append at once: `Manifest.read` still gives each key exactly once. `compact` makes
that true of the files too, for everyone else who reads the folder (pandas, DuckDB, a glob).

Ages. An append is named after the clock, or after the newest part if the clock lags behind it, and always at an even
nanosecond. A compacted part takes the odd nanosecond right after the newest part that its maker saw: newer than all
that it replaces, and older than any append that started later, such as one by a worker that outlived its driver.

Costs. An append is O(1): on a disk the folder itself remembers its newest part, in an extended attribute, and is listed only
where that is not believed. While a run appends, it calls `merge` now and then: parts of like size at the new end become one, so
that a row is written a few times however many parts there are, and a reader holds some hundred parts. Keys are compared as
numbers (longtake.manifests.keys), and `scan` gives the rows a slice at a time: what reads by it takes memory for one.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Hashes, hashed, newest_of
from longtake.manifests.keys import newest as _newest
from longtake.manifests.keys import surely_distinct as _surely_distinct
from longtake.manifests.parts import (
    HINTS,
    METADATA,
    PART,
    Overtaken,
    Part,
    Snapshot,
    StoreError,
    as_dictionary,
    check_guard,
    excluding,
    fit,
    in_turn,
    joined,
    no_rows,
    note_time,
    noted_time,
    open_folder,
    parquet,
    rows_in,
    turn,
)
from longtake.manifests.parts import pieces as _pieces

__all__ = ["Manifest", "Overtaken", "Part", "StoreError", "_newest", "_surely_distinct", "open_folder", "rows_in"]

PART_ROWS = 250_000  # rows of a full compacted part, unless the manifest says otherwise
SCAN_ROWS = 50_000  # rows of a slice of `scan`
FEW_ROWS = 2000  # Threads cost more than they save where a part has fewer rows.
FEW_PARTS = 8  # so many small parts cost a reader nothing
MERGE_PARTS = 64  # small parts that `merge` leaves alone: fewer are not worth the writing
MERGE_GROWTH = (
    4  # A merged part is merged again when the rows after it are four times as many: each row some five times.
)
# Seconds. A remote store tells nobody the order of two appends by machines whose clocks differ, and an upload takes a while:
# parts that are younger are not merged.
SETTLED = 600.0
ABANDONED = 3600.0  # seconds: a temporary file of this age has no writer any more
READERS = 8  # parts opened at once: hides the latency of an object store
TRIES = 10  # readings until one is not overtaken by a compaction


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

    heavy: further columns that `read` gives only when they are named. part_rows: of a full compacted part (None: PART_ROWS),
    fewer where rows are large, since a compaction holds two such parts.
    """

    def __init__(
        self,
        workspace: str,
        name: str,
        key: str,
        schema: pa.Schema,
        version: int = 1,
        heavy: Sequence[str] = (),
        part_rows: int | None = None,
    ) -> None:
        if key not in schema.names:
            raise ValueError(f"manifest {name!r}: the key {key!r} is not in the schema {schema.names}")
        stored = pq.read_schema(pa.BufferReader(parquet(no_rows(schema))))
        if changed := [f for f in schema if f != stored.field(f.name)]:
            raise ValueError(f"manifest {name!r}: Parquet does not keep the type of {changed}")
        self.name = name
        self.key = key
        self.schema = schema.remove_metadata()
        self.version = version
        self.heavy = tuple(heavy)
        self.part_rows = part_rows
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
        table = fit(table, self._joined([table.schema]), rows)
        for field in self.schema:
            if table[field.name].null_count and (field.name == self.key or not field.nullable):
                raise ValueError(f"{rows} have nulls in column {field.name!r}")
        newest = _newest([table[self.key]])
        if newest is not None:
            example = table[self.key].filter(from_numpy(~newest[0]))[0]
            raise ValueError(f"{rows} have the key {example} in column {self.key!r} more than once")
        return self._write(table, lambda folder: self._next_time(after, folder)) if table.num_rows else None

    def make_readable(self, further: Sequence[pa.Field] = ()) -> None:
        """Where there is no part, write one without rows: pandas and DuckDB then read an empty table with these columns, and do
        not fail at a folder that is not there. further: columns beyond the schema. A compaction removes the part once there
        are rows."""
        if not self.parts():
            schema = self._joined([pa.schema(further)])
            self._write(no_rows(schema), lambda folder: self._next_time(0, folder))

    def compact(self, without: pa.Array | pa.ChunkedArray | None = None) -> None:
        """Leave exactly one row per key in the files, in few files, all with the same columns.

        without: keys to leave out from now on, all of their rows.

        For the holder of the workspace's lock. Full parts without superseded rows stay as they are: a compaction costs
        what has changed, and holds the keys and about one part in memory. A kill at any moment loses nothing, and the
        next compaction completes the work. Temporary files that dead writers left are removed.

        Raises StoreError if a part cannot be read or written; then nothing was lost.
        """
        with turn(self.workspace, wait=True):
            self._compact(without)

    def _compact(self, without: pa.Array | pa.ChunkedArray | None) -> None:
        with self._in_plain_words("list", self.path):
            self.folder.remove_abandoned(ABANDONED)
        with in_turn(self.folder):  # no append may be between its choice of a name and that name's appearance
            parts = self.parts()
        if any(part.rows for part in parts):
            for part in (part for part in parts if not part.rows):  # see `make_readable`
                with self._in_plain_words("delete", self._file(part.name)):
                    self.folder.remove(part.name)
            parts = [part for part in parts if part.rows]
        if sum(map(self._is_small, parts)) > FEW_PARTS:
            parts = self._with_small_merged(parts)
        found, keys = self._keys(parts)
        schema = self._joined(found)
        masks = newest_of(keys)
        if without is not None and len(without):
            masks = excluding(masks, keys, without)
        del keys
        changed = [one != schema or (masks is not None and not masks[i].all()) for i, one in enumerate(found)]
        small = [self._is_small(part) for part in parts]
        chosen = [i for i in range(len(parts)) if changed[i] or (small[i] and sum(small) > FEW_PARTS)]
        if chosen:
            kept = None if masks is None else [masks[i] for i in chosen]
            self._replace([parts[i] for i in chosen], kept, schema, parts[-1].time | 1)

    def merge(self) -> int:
        """Make one part of many small ones, while others append; how many parts are gone.

        As `compact`, but it looks only at small parts at the new end of the folder, and only where they are many. Rows that
        older parts hold and that were replaced stay until `compact`.
        """
        with in_turn(self.folder):
            parts = self.parts()
        if not self.folder.is_local:
            settled = time.time_ns() - int(SETTLED * 1e9)
            parts = [part for part in parts if part.time < settled]
        first, start, after = len(parts), len(parts), 0
        while first and self._is_small(parts[first - 1]):
            first -= 1
            if parts[first].rows * MERGE_GROWTH <= after:
                start = first
            after += parts[first].rows
        chosen = parts[start:]
        if len(chosen) <= MERGE_PARTS:
            return 0
        with turn(self.workspace, wait=False) as ours:
            if ours and set(chosen) <= set(self.parts()):  # nobody else has compacted since
                self._with_small_merged(chosen)
                return len(chosen)
        return 0

    def _with_small_merged(self, parts: Sequence[Part]) -> list[Part]:
        """Make one part of each run of small ones, which are read once; the parts there are then. A merged part is as old as the
        youngest of its run: newer than all parts before, and older than all behind. So no run ends between parts of the same
        age, or an old row of the run could pass for as new as one of those."""
        runs: list[list[Part]] = [[]]
        rows = 0
        for part in parts:
            whole = not runs[-1] or runs[-1][-1].time != part.time
            small = self._is_small(part)
            if whole and (
                not small or not runs[-1] or rows + part.rows > self._full or not self._is_small(runs[-1][-1])
            ):
                runs.append([])
                rows = 0
            runs[-1].append(part)
            rows += part.rows
        after: list[Part] = []
        for run in runs:
            if len(run) > 1 and all(map(self._is_small, run)):
                after += self._merged(run)
            else:
                after += run
        return after

    def _merged(self, parts: Sequence[Part]) -> list[Part]:
        """One part in place of some; a few, where those of one age are many rows."""
        tables = [loaded.table for loaded in self._ahead(parts, lambda part: self._load(part, None, verify=True))]
        schema = self._joined([table.schema for table in tables])
        tables = [fit(table, schema, self._file(part.name)) for part, table in zip(parts, tables, strict=True)]
        masks = _newest([table[self.key] for table in tables])
        if masks is not None:
            tables = [table.filter(from_numpy(mask)) for table, mask in zip(tables, masks, strict=True)]
        made = [self._write(table, lambda _: parts[-1].time | 1) for table in _pieces(tables, self._full)]
        self._delete_all(parts)
        return made

    def _replace(
        self, parts: Sequence[Part], masks: list[npt.NDArray[np.bool_]] | None, schema: pa.Schema, when: int
    ) -> None:
        """Write the rows of some parts that count into new ones, then delete these parts."""

        def rows_to_keep() -> Iterator[pa.Table]:
            # The last reading of these files, so their checksums are looked at.
            for i, loaded in enumerate(self._ahead(parts, lambda part: self._load(part, None, verify=True))):
                table = fit(loaded.table, schema, self._file(parts[i].name))
                yield table if masks is None or masks[i].all() else table.filter(from_numpy(masks[i]))

        for table in _pieces(rows_to_keep(), self._full):
            self._write(table, lambda _: when)
        self._delete_all(parts)

    def _delete_all(self, parts: Sequence[Part]) -> None:
        check_guard(self.workspace)
        at_once = 1 if self.folder.is_local else READERS
        with self._in_plain_words("delete parts of", self.path), ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.folder.remove, [part.name for part in parts]))

    @property
    def _full(self) -> int:
        return self.part_rows or PART_ROWS

    def _is_small(self, part: Part) -> bool:
        return part.rows < self._full // 2

    def _next_time(self, after: int, folder: int | None) -> int:
        """An even time later than every part's. folder: the local one, open, in which it is our turn. What it remembers counts
        if it was noted since this machine was started: a power cut may have kept a part and lost the note.

        A remote folder is listed once, since that takes seconds for 100,000 objects; from then on our clock and our own parts
        decide."""
        noted = noted_time(folder)
        if noted is None and (self.folder.is_local or not self._latest):
            noted = int(max(filter(PART.fullmatch, self._names()), default="0")[:20])
        now = max(time.time_ns(), self._latest + 1, (noted or 0) + 1, after + 1)
        self._latest = now + now % 2
        note_time(folder, self._latest)
        return self._latest

    def _write(self, table: pa.Table, choose_time: Callable[[int | None], int]) -> Part:
        """One new part. Its time is chosen at the last moment, in turn with other writers."""
        try:
            tag = {METADATA: f"{self.name}/{self.version}".encode()}
            data = parquet(table.replace_schema_metadata(tag))
        except pa.ArrowException as error:
            raise StoreError(f"rows for {self.path} cannot be stored as Parquet: {error}") from error
        rest = f"{table.num_rows}-{uuid.uuid4().hex[:8]}.parquet"
        prepared = self.folder.prepared(rest, memoryview(data))
        with self._in_plain_words("write to", self.path), prepared as give, in_turn(self.folder) as folder:
            name = f"{choose_time(folder):020d}-{rest}"
            give(name)
        return Part(name, table.num_rows)

    # Reading

    def parts(self) -> list[Part]:
        """The parts, oldest first; what a writer has not finished is not among them. A missing folder has none.

        Raises StoreError if the folder cannot be listed or holds a Parquet file that is not a part.
        """
        parts = []
        for name in self._names():
            if name.startswith((".", "_")) or not name.endswith(".parquet"):
                continue  # as pandas does
            match = PART.fullmatch(name)
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
            if not self._overtaken(parts):
                break
        else:
            raise StoreError(f"{self.path} changes faster than it can be read: stop what is deleting its parts")
        schema = self._chosen([part.table.schema for part in loaded], columns, optional, encoded)
        if columns is not None:
            columns = [*columns, *(name for name in optional if name in schema.names)]
        tables = [
            fit(part_loaded.table, schema, self._file(part.name))
            for part, part_loaded in zip(parts, loaded, strict=True)
        ]
        newest = _newest([table[self.key] for table in tables])
        if newest is not None:
            tables = [
                table if mask.all() else table.filter(from_numpy(mask))
                for table, mask in zip(tables, newest, strict=True)
            ]
        whole = pa.concat_tables([no_rows(schema), *tables])
        return whole if columns is None else whole.select(list(columns))

    def scan(
        self,
        columns: Sequence[str] | None = None,
        *,
        optional: Sequence[str] = (),
        encoded: Sequence[str] = (),
        rows: int | None = None,
    ) -> Iterator[pa.Table]:
        """What `read` gives, in slices of at most so many rows (None: SCAN_ROWS), all with the same columns; none if there are no
        rows. Memory: 17 bytes for each key, and two slices.

        Raises Overtaken if another process compacts meanwhile; else as `read` does.
        """
        seen = self._seen()
        if not seen.parts:
            return
        schema = self._chosen(seen.schemas, columns, optional, encoded, self.heavy if columns is None else ())
        names = None if columns is None else [*columns, *(name for name in optional if name in schema.names)]
        wanted = set(schema.names)

        def slices() -> Iterator[pa.Table]:
            for i, part in enumerate(seen.parts):
                start = 0
                try:
                    for table in self._slices(part, wanted, encoded):
                        table = fit(table, schema, self._file(part.name))
                        mask = None if seen.masks is None else seen.masks[i][start : start + table.num_rows]
                        start += table.num_rows
                        yield table if mask is None or mask.all() else table.filter(from_numpy(mask))
                except FileNotFoundError as error:
                    raise Overtaken(f"{self.path} is being compacted by another run: read it again") from error

        for table in _pieces(slices(), rows or SCAN_ROWS):
            yield table if names is None else table.select(names)

    def keys(self) -> Hashes:
        """The keys as numbers (longtake.manifests.keys), each once, in the order of `scan`."""
        seen = self._seen(keep=True)
        masks = seen.masks or [np.ones(part.rows, bool) for part in seen.parts]
        keys = [one[:, mask] for one, mask in zip(seen.keys, masks, strict=True)]
        return np.concatenate([np.zeros((2, 0), np.uint64), *keys], axis=1)

    def _seen(self, keep: bool = False) -> Snapshot:
        for _ in range(TRIES):
            parts = self.parts()
            try:
                found, keys = self._keys(parts)
            except FileNotFoundError:
                continue
            if not self._overtaken(parts):
                return Snapshot(parts, found, newest_of(keys), keys if keep else [])
        raise Overtaken(f"{self.path} changes faster than it can be read: stop what is deleting its parts")

    def _keys(self, parts: Sequence[Part]) -> tuple[list[pa.Schema], list[Hashes]]:
        """The schema of each part, and the hashes of its keys. The keys themselves are not kept."""

        def look(part: Part) -> tuple[pa.Schema, Hashes]:
            loaded = self._load(part, [self.key])
            return loaded.schema, hashed(self._fit_key(part, loaded.table))

        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(look, parts))
        return [one[0] for one in found], [one[1] for one in found]

    def _ahead(self, parts: Sequence[Part], load: Callable[[Part], _Loaded]) -> Iterator[_Loaded]:
        """Parts in order, each loaded while the one before is in use: small ones many at a time, large ones one."""
        with ThreadPoolExecutor(1 if self.folder.is_local else READERS) as pool:
            coming: deque[Future[_Loaded]] = deque()
            held = 0
            for part in parts:
                coming.append(pool.submit(load, part))
                held += part.rows
                while len(coming) > 1 and (held > self._full or len(coming) > READERS):
                    done = coming.popleft()
                    table = done.result()
                    held -= table.table.num_rows
                    yield table
            while coming:
                yield coming.popleft().result()

    def _chosen(
        self,
        schemas: Sequence[pa.Schema],
        columns: Sequence[str] | None,
        optional: Sequence[str],
        encoded: Sequence[str],
        without: Sequence[str] = (),
    ) -> pa.Schema:
        """The schema of what is read: the columns asked for, or all but some. Raises StoreError if one of them is nowhere."""
        if columns is not None:  # others may disagree among themselves
            wanted = {self.key, *columns, *optional}
            schemas = [pa.schema([field for field in one if field.name in wanted]) for one in dict.fromkeys(schemas)]
        schema = self._joined(schemas)
        if columns is not None:
            if unknown := [name for name in columns if name not in schema.names]:
                raise StoreError(f"{self.path} has no column {', '.join(map(repr, unknown))} in any of its parts")
            names = [*columns, *(name for name in optional if name in schema.names)]
            schema = pa.schema([schema.field(name) for name in dict.fromkeys([self.key, *names])])
        fields = [field for field in schema if field.name not in without]
        return pa.schema([as_dictionary(field) if field.name in encoded else field for field in fields])

    def _overtaken(self, parts: Sequence[Part]) -> bool:
        """Whether a listing may have missed what a compaction moved: there is a compacted part that it has not, or, on a disk,
        where names are in the order of events, a part older than one that it has."""
        newest = parts[-1].name if parts and self.folder.is_local else ""
        return any(part.compacted or part.name < newest for part in set(self.parts()) - set(parts))

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
        with self._opened(part, encoded, verify) as (parquet, schema):
            names = schema.names
            wanted = names if columns is None else columns
            present = [name for name in names if name in wanted and name not in without]
            threads = part.rows > FEW_ROWS
            if present == names:
                table = parquet.read(use_threads=threads)
            else:
                table = parquet.read(present, use_threads=threads).select(present)
            return _Loaded(schema, table.replace_schema_metadata())

    def _slices(self, part: Part, columns: Iterable[str], encoded: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of a part, a slice at a time. FileNotFoundError passes."""
        wanted = set(columns)
        if part.rows <= SCAN_ROWS:
            yield self._load(part, wanted, encoded).table
            return
        with self._opened(part, encoded) as (parquet, schema):
            present = [name for name in schema.names if name in wanted]
            for batch in parquet.iter_batches(SCAN_ROWS, columns=present):
                yield pa.Table.from_batches([batch]).select(present).replace_schema_metadata()

    @contextmanager
    def _opened(
        self, part: Part, encoded: Sequence[str] = (), verify: bool = False
    ) -> Iterator[tuple[pq.ParquetFile, pa.Schema]]:
        """A part's file, and its schema."""
        local = self.folder.is_local
        try:
            with pa.OSFile(self._file(part.name), "rb") if local else self.folder.open_by_range(part.name) as source:
                parquet = pq.ParquetFile(
                    source,
                    pre_buffer=not local,
                    page_checksum_verification=verify,
                    read_dictionary=list(encoded) or None,
                )
                schema = parquet.schema_arrow
                self._check(part, parquet.metadata.num_rows, schema)
                yield parquet, schema.remove_metadata()
        except (StoreError, FileNotFoundError, MemoryError, GeneratorExit):
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

    def _check(self, part: Part, rows: int, schema: pa.Schema) -> None:
        file = self._file(part.name)
        tag = (schema.metadata or {}).get(METADATA, b"").decode(errors="replace")
        name, _, version = tag.rpartition("/")
        if name != self.name or not version.isdecimal():
            what = f"a part of the manifest {tag!r}" if tag else "a Parquet file of another program"
            raise StoreError(f"{file} is {what}, not of {self.name!r}: move it elsewhere")
        if int(version) > self.version:
            raise StoreError(
                f"{file} was written as {tag}, and this program knows {self.name}/{self.version}: "
                "use the newer program that wrote it, or another workspace"
            )
        if rows != part.rows:
            raise StoreError(
                f"{file} holds {rows} rows and not the {part.rows} of its name: it was changed. "
                "Delete it: its rows are then computed again by the next run"
            )

    # Columns

    def _joined(self, schemas: Iterable[pa.Schema]) -> pa.Schema:
        return joined(self.schema, schemas, self.path)

    def _fit_key(self, part: Part, table: pa.Table) -> pa.ChunkedArray:
        return fit(table, pa.schema([self.schema.field(self.key)]), self._file(part.name))[self.key]

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
            hint = HINTS.get(number or 0, "")
            raise StoreError(
                f"cannot {verb} {what}: {reason}{f' ({hint})' if hint else ''}. What was stored before is intact"
            ) from error
