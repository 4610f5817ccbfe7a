"""The store: a manifest is a folder of Parquet parts that only grows. Among rows with one key, the newest wins.

A part is named `TIME-ROWS-RANDOM.parquet`, so that names in order are parts by age, and counting rows reads nothing. It
appears whole or not at all, and is never changed. A writer may therefore be killed at any moment, a block may be written
twice, and many processes may append at once: `Manifest.read` still gives each key exactly once. `compact` removes the
replaced rows from the files, for other readers of the folder (pandas, DuckDB, a glob).

Ages. An append is named after the clock, or after the newest part if the clock lags behind it, and always at an even
nanosecond. A compacted part takes the odd nanosecond right after the newest part that its maker saw: newer than all
that it replaces, and older than any append that started later, such as one by a worker that outlived its driver. On a disk
appends choose their times in turn. A bucket has no turns: an upload may end after a compaction that chose a later time and
did not see its rows. So there a writer lists the folder after its upload, and appends again behind such a compaction, and a
compaction lists the folder again after its own, and takes along what came meanwhile. Before it writes, it notes what it has
listed: if it dies, the next compaction takes along the rest.

Costs. On a disk an append is O(1): an extended attribute of the folder names its newest part, and the folder is listed only
where this attribute may be wrong. In a bucket each append lists the folder once, behind its upload. While a run appends, it
calls `merge` now and then: parts of like size at the new end become one. With any number of parts, a row is thus written a
few times only, and a folder has some hundred parts. Keys are compared as numbers (longtake.manifests.keys), and `scan`
gives the rows a slice at a time, so that its callers hold one slice in memory.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import newest as _newest
from longtake.manifests.keys import newest_of
from longtake.manifests.parts import (
    METADATA,
    PART,
    Overtaken,
    Part,
    StoreError,
    check_guard,
    excluding,
    fit,
    in_turn,
    no_rows,
    note_time,
    noted_time,
    open_folder,
    parquet,
    rows_in,
    turn,
)
from longtake.manifests.parts import pieces as _pieces
from longtake.manifests.reader import READERS, Loaded, ManifestReader

__all__ = ["Manifest", "Overtaken", "Part", "StoreError", "_newest", "open_folder", "rows_in"]

PART_ROWS = 250_000  # Rows of a full compacted part, unless the manifest names another number.
FEW_PARTS = 8  # Small parts that cost a reader nothing.
MERGE_PARTS = 64  # Small parts that `merge` leaves alone: fewer are not worth the writing.
# A merged part is merged again when the rows after it are four times as many: each row some five times.
MERGE_GROWTH = 4
# Seconds. A remote store does not say in which order two machines with different clocks appended, and an upload takes a
# while: younger parts are not merged.
SETTLED = 600.0
# A note of this name, with digits behind it, lists the parts that a compaction in a bucket has seen. Readers pass over it.
SEEN = ".listed-"
ABANDONED = 3600.0  # Seconds. A temporary file of this age has no writer any more.


class Manifest(ManifestReader):
    """A table on disk under `WORKSPACE/NAME`: append-only, one key column, the newest row per key wins.

    workspace: a local path or an fsspec URI. schema: the columns of every row; fields that are not nullable must be
    given. Rows may carry more columns (such as one per third-party filter), whose type must stay the same. version:
    raise it when the schema changes; older parts stay readable as long as only nullable columns are added.

    Nothing is created before the first append. A manifest can be pickled, and used by many threads and processes at
    once, except that `compact` is for the holder of the workspace's lock (longtake.manifests.lock).

    heavy: further columns that `read` gives only when they are named. part_rows: rows of a full compacted part (None:
    PART_ROWS); fewer where rows are large, since a compaction holds two such parts in memory.
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
        super().__init__(workspace, name, key, schema, version, heavy)
        self.part_rows = part_rows
        self._latest = 0

    def append(self, table: pa.Table, after: int = 0) -> Part | None:
        """Add rows as one new part. When this returns they are on the disk; before, no reader sees any of them. after: the time
        of the part whose rows these replace, which another machine's clock may have given it.

        Columns are cast to the schema's types, missing nullable ones become null, and those beyond the schema are kept.
        A table without rows adds nothing and gives None.

        Raises ValueError if a key is null or given twice, or if a column that is not nullable holds a null; StoreError if
        the columns do not fit the schema or the part cannot be written.
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
        if not table.num_rows:
            return None
        part = self._write(table, lambda folder: self._next_time(after, folder))
        while (compaction := self._hidden_by(part)) is not None:
            part = self._write(table, partial(self._next_time, compaction.time))
        return part

    def _hidden_by(self, part: Part) -> Part | None:
        """The newest compaction that is newer than a part that was just uploaded, and may not have its rows; None on a disk, and
        where the part is gone: then a compaction has them."""
        if self.folder.is_local:
            return None
        parts = self.parts()
        newer = [one for one in parts if one.compacted and one.time > part.time]
        return newer[-1] if newer and part in parts else None

    def make_readable(self, further: Sequence[pa.Field] = ()) -> None:
        """If the manifest has no part, write one without rows: pandas and DuckDB then read an empty table with these
        columns, and do not fail because the folder is missing. further: columns beyond the schema. A compaction removes the
        part once there are rows."""
        if not self.parts():
            schema = self._joined([pa.schema(further)])
            self._write(no_rows(schema), lambda folder: self._next_time(0, folder))

    def compact(self, without: pa.Array | pa.ChunkedArray | None = None) -> None:
        """Leave exactly one row per key in the files, in few files, all with the same columns.

        without: keys whose rows are all removed.

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
        with in_turn(self.folder):  # No append may be between its choice of a name and the appearance of that name.
            names = self._names()
        if dead := [name for name in names if name.startswith(SEEN)]:
            self._ended(dead)
            names = self._names()
        parts = seen = self._parts_among(names)
        if any(part.rows for part in parts):
            for part in (part for part in parts if not part.rows):  # Empty parts come from `make_readable`.
                with self._in_plain_words("delete", self._file(part.name)):
                    self.folder.remove(part.name)
            parts = [part for part in parts if part.rows]
        notes: list[str] = []
        if sum(map(self._is_small, parts)) > FEW_PARTS:
            notes += self._noted(seen)
            parts = self._with_small_merged(parts)
        schemas, keys = self._keys(parts)
        schema = self._joined(schemas)
        masks = newest_of(keys)
        if without is not None and len(without):
            masks = excluding(masks, keys, without)
        del keys
        changed = [one != schema or (masks is not None and not masks[i].all()) for i, one in enumerate(schemas)]
        small = [self._is_small(part) for part in parts]
        chosen = [i for i in range(len(parts)) if changed[i] or (small[i] and sum(small) > FEW_PARTS)]
        if chosen:
            notes += [] if notes else self._noted(seen)
            kept = None if masks is None else [masks[i] for i in chosen]
            self._replace([parts[i] for i in chosen], kept, schema, parts[-1].time | 1)
        if not self.folder.is_local:
            self._take_along({part.name for part in seen})
            self._remove_all(notes)

    def _noted(self, seen: Sequence[Part]) -> list[str]:
        """In a bucket, note which parts a compaction has listed, before it writes one: if it dies before its second look, the
        next one does what was left. Gives the names of the notes."""
        if self.folder.is_local:
            return []
        name = f"{SEEN}{uuid.uuid4().hex[:8]}"
        with self._in_plain_words("write to", self.path):
            self.folder.write_whole(name, "\n".join(part.name for part in seen).encode())
        return [name]

    def _ended(self, notes: Sequence[str]) -> None:
        """Take along what compactions that died did not. notes: theirs."""
        for name in notes:
            with self._in_plain_words("read", self._file(name)), suppress(FileNotFoundError):
                self._take_along(set(self.folder.read(name).decode().split()))
        self._remove_all(notes)

    def _take_along(self, seen: Container[str]) -> None:
        """Append rows again that came after a compaction had listed the folder, with an older time than it has. They get the
        first time after its own: older than those of all later appends. seen: the parts that it listed."""
        parts = self.parts()
        newest = max((part.time for part in parts if part.compacted), default=0)
        late = [part for part in parts if part.time < newest and not part.compacted and part.name not in seen]
        if late:
            self._written_again(late, newest + 1)

    def merge(self) -> int:
        """Make one part of many small ones, while others append. Gives the number of parts that were replaced.

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
            if ours and set(chosen) <= set(self.parts()):  # No other run has compacted since.
                self._with_small_merged(chosen)
                return len(chosen)
        return 0

    def _with_small_merged(self, parts: Sequence[Part]) -> list[Part]:
        """Make one part of each sequence of small ones, which are read once. Gives the parts that exist then. A merged part
        has the age of the youngest of its sequence: newer than all parts before it, and older than all parts behind it. A
        sequence therefore never ends between parts of the same age: an old row of it would count as being as new as the
        rows of those parts."""
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
        """One part in place of several, or a few parts, where parts of one age have many rows."""
        made = self._written_again(parts, parts[-1].time | 1)
        self._delete_all(parts)
        return made

    def _written_again(self, parts: Sequence[Part], when: int) -> list[Part]:
        """The rows of some parts that are the newest among them, in new parts of one time."""
        tables = [loaded.table for loaded in self._ahead(parts, lambda part: self._load(part, None, verify=True))]
        schema = self._joined([table.schema for table in tables])
        tables = [fit(table, schema, self._file(part.name)) for part, table in zip(parts, tables, strict=True)]
        masks = _newest([table[self.key] for table in tables])
        if masks is not None:
            tables = [table.filter(from_numpy(mask)) for table, mask in zip(tables, masks, strict=True)]
        return [self._write(table, lambda _: when) for table in _pieces(tables, self._full)]

    def _replace(
        self, parts: Sequence[Part], masks: list[npt.NDArray[np.bool_]] | None, schema: pa.Schema, when: int
    ) -> None:
        """Write the rows of some parts that count into new ones, then delete these parts."""

        def rows_to_keep() -> Iterator[pa.Table]:
            # This is the last reading of these files, so their checksums are verified.
            for i, loaded in enumerate(self._ahead(parts, lambda part: self._load(part, None, verify=True))):
                table = fit(loaded.table, schema, self._file(parts[i].name))
                yield table if masks is None or masks[i].all() else table.filter(from_numpy(masks[i]))

        for table in _pieces(rows_to_keep(), self._full):
            self._write(table, lambda _: when)
        self._delete_all(parts)

    def _ahead(self, parts: Sequence[Part], load: Callable[[Part], Loaded]) -> Iterator[Loaded]:
        """Parts in order, each loaded while the one before is in use: small ones many at a time, large ones one."""
        with ThreadPoolExecutor(1 if self.folder.is_local else READERS) as pool:
            coming: deque[Future[Loaded]] = deque()
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

    def _delete_all(self, parts: Sequence[Part]) -> None:
        check_guard(self.workspace)
        self._remove_all([part.name for part in parts])

    def _remove_all(self, names: Sequence[str]) -> None:
        at_once = 1 if self.folder.is_local else READERS
        with self._in_plain_words("delete parts of", self.path), ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.folder.remove, names))

    @property
    def _full(self) -> int:
        return self.part_rows or PART_ROWS

    def _is_small(self, part: Part) -> bool:
        return part.rows < self._full // 2

    def _next_time(self, after: int, folder: int | None) -> int:
        """An even time later than every part's. folder: the open local folder, if this process has its turn in it. Its note
        of the newest part counts only if it was written since this machine was started: a power cut may have kept a part
        and lost the note.

        A remote folder is listed by the first append only, since that takes seconds for 100,000 objects; from then on our clock
        and our own parts decide."""
        noted = noted_time(folder)
        if noted is None and (self.folder.is_local or not self._latest):
            noted = int(max(filter(PART.fullmatch, self._names()), default="0")[:20])
        # The first time after a compaction is for the rows that it takes along.
        noted, after = (when + 2 * (when % 2) for when in (noted or 0, after))
        now = max(time.time_ns(), self._latest + 1, (noted or 0) + 1, after + 1)
        self._latest = now + now % 2
        note_time(folder, self._latest)
        return self._latest

    def _write(self, table: pa.Table, choose_time: Callable[[int | None], int]) -> Part:
        """Write one new part. Its time is chosen at the last moment, in turn with other writers."""
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
