"""Reading a manifest: its parts, the newest row of each key, and slices of them (see longtake.manifests.store)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.arrow import from_numpy
from longtake.manifests.folder import in_words
from longtake.manifests.keys import Hashes, hashed, newest, newest_of
from longtake.manifests.parts import (
    METADATA,
    PART,
    Overtaken,
    Part,
    Snapshot,
    StoreError,
    as_dictionary,
    fit,
    hint,
    joined,
    no_rows,
    open_folder,
    parquet,
    pieces,
)
from longtake.manifests.ranges import Fetched, fetch_columns

SCAN_ROWS = 50_000  # Rows of one slice of `scan`.
FEW_ROWS = 2000  # Threads cost more than they save where a part has fewer rows.
READERS = 8  # Parts that are opened at once: it hides the latency of an object store.
TRIES = 10  # Readings, at most, until one is not overtaken by a compaction.


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read of a part: its whole schema, and the columns asked for."""

    schema: pa.Schema
    table: pa.Table


class ManifestReader:
    """A manifest as far as it is read: `longtake.manifests.store.Manifest` says what its arguments mean."""

    def __init__(
        self, workspace: str, name: str, key: str, schema: pa.Schema, version: int = 1, heavy: Sequence[str] = ()
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
        self.workspace = workspace
        self.folder = open_folder(workspace) / name

    @property
    def path(self) -> str:
        """The folder of the parts, an absolute path or a URI: what pandas and DuckDB take."""
        return self.folder.uri

    def parts(self) -> list[Part]:
        """The parts, oldest first; what a writer has not finished is not among them. A missing folder has none.

        Raises StoreError if the folder cannot be listed or holds a Parquet file that is not a part.
        """
        return self._parts_among(self._names())

    def _parts_among(self, names: Iterable[str]) -> list[Part]:
        parts = []
        for name in names:
            if name.startswith((".", "_")) or not name.endswith(".parquet"):
                continue  # Readers such as pandas leave these files out, too.
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
                continue  # A compaction has replaced the part since the listing.
            # A long listing is no snapshot: it can miss a part that was added meanwhile and parts that were removed.
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
        masks = newest([table[self.key] for table in tables])
        if masks is not None:
            tables = [
                table if mask.all() else table.filter(from_numpy(mask))
                for table, mask in zip(tables, masks, strict=True)
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

        for table in pieces(slices(), rows or SCAN_ROWS):
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
                schemas, keys = self._keys(parts)
            except FileNotFoundError:
                continue
            if not self._overtaken(parts):
                return Snapshot(parts, schemas, newest_of(keys), keys if keep else [])
        raise Overtaken(f"{self.path} changes faster than it can be read: stop what is deleting its parts")

    def _keys(self, parts: Sequence[Part]) -> tuple[list[pa.Schema], list[Hashes]]:
        """The schema of each part, and the hashes of its keys. The keys themselves are not kept."""

        def look(part: Part) -> tuple[pa.Schema, Hashes]:
            loaded = self._load(part, [self.key])
            return loaded.schema, hashed(self._fit_key(part, loaded.table))

        with ThreadPoolExecutor(READERS) as pool:
            looks = list(pool.map(look, parts))
        return [one[0] for one in looks], [one[1] for one in looks]

    def _chosen(
        self,
        schemas: Sequence[pa.Schema],
        columns: Sequence[str] | None,
        optional: Sequence[str],
        encoded: Sequence[str],
        without: Sequence[str] = (),
    ) -> pa.Schema:
        """The schema of what is read: the columns asked for, or all but some. Raises StoreError if one of them is nowhere."""
        if columns is not None:  # Columns that were not asked for may differ between parts.
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
    ) -> list[Loaded]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(lambda part: self._load(part, columns, encoded, without=without), parts))

    def _load(
        self,
        part: Part,
        columns: Iterable[str] | None,
        encoded: Sequence[str] = (),
        verify: bool = False,
        without: Sequence[str] = (),
    ) -> Loaded:
        """A part's schema, and those of the columns that it has. FileNotFoundError passes: see `read`."""
        with self._opened(part, encoded, verify) as (parquet, schema, source):
            names = schema.names
            wanted = names if columns is None else columns
            present = [name for name in names if name in wanted and name not in without]
            threads = part.rows > FEW_ROWS and self.folder.is_local
            groups = []
            for group in range(parquet.num_row_groups):
                # The groups are read one at a time: Arrow makes one array of a nested column, whose strings may not take 2 GiB.
                fetch_columns(source, parquet, [group], present)
                groups.append(parquet.read_row_group(group, None if present == names else present, use_threads=threads))
            table = pa.concat_tables(groups) if groups else parquet.read(present)
            table = table if present == names else table.select(present)
            return Loaded(schema, table.replace_schema_metadata())

    def _slices(self, part: Part, columns: Iterable[str], encoded: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of a part, a slice at a time. FileNotFoundError passes."""
        wanted = set(columns)
        if part.rows <= SCAN_ROWS:
            yield self._load(part, wanted, encoded).table
            return
        with self._opened(part, encoded) as (parquet, schema, source):
            present = [name for name in schema.names if name in wanted]
            threads = self.folder.is_local
            for group in range(parquet.num_row_groups):
                fetch_columns(source, parquet, [group], present)
                for batch in parquet.iter_batches(SCAN_ROWS, [group], present, use_threads=threads):
                    yield pa.Table.from_batches([batch]).select(present).replace_schema_metadata()

    @contextmanager
    def _opened(
        self, part: Part, encoded: Sequence[str] = (), verify: bool = False
    ) -> Iterator[tuple[pq.ParquetFile, pa.Schema, Any]]:
        """A part's file as a table, its schema, and the file itself."""
        local = self.folder.is_local
        try:
            with pa.OSFile(self._file(part.name), "rb") if local else Fetched(self.folder, part.name) as source:
                parquet = pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=verify)
                if there := [name for name in encoded if name in parquet.schema_arrow.names]:
                    # Arrow raises KeyError where a part does not have such a column, as one of an older version may not.
                    parquet = pq.ParquetFile(
                        source,
                        metadata=parquet.metadata,
                        pre_buffer=False,
                        page_checksum_verification=verify,
                        read_dictionary=there,
                    )
                schema = parquet.schema_arrow
                self._check(part, parquet.metadata.num_rows, schema)
                yield parquet, schema.remove_metadata(), source
        except (StoreError, FileNotFoundError, MemoryError, GeneratorExit):
            raise
        except Exception as error:
            # Arrow reports bad content as ArrowInvalid, or as an OSError without a number, which a remote filesystem
            # may also raise for a bad connection. Any other error says nothing of the content.
            bad = isinstance(error, pa.ArrowException) or (local and isinstance(error, OSError) and error.errno is None)
            if not bad:
                told = in_words(error) if local else str(error).strip() or type(error).__name__
                raise StoreError(f"cannot read {self._file(part.name)}: {told}{hint(error, reading=True)}") from error
            reason = str(error).strip() or type(error).__name__
            raise StoreError(
                f"{self._file(part.name)} is damaged ({reason}). {_remedy(self.name, part.rows)}"
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
                f"{_remedy(self.name, part.rows)}"
            )

    # Columns.

    def _joined(self, schemas: Iterable[pa.Schema]) -> pa.Schema:
        return joined(self.schema, schemas, self.path)

    def _fit_key(self, part: Part, table: pa.Table) -> pa.ChunkedArray:
        return fit(table, pa.schema([self.schema.field(self.key)]), self._file(part.name))[self.key]

    # Files.

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
            reading = verb in ("list", "read")
            raise StoreError(
                f"cannot {verb} {what}: {in_words(error)}{hint(error, reading)}. What was stored before is intact"
            ) from error


def _remedy(manifest: str, rows: int) -> str:
    """What to do about a damaged part of a manifest. Rows of most are results, which a run computes once more; those of some
    came from a person."""
    if manifest == "inputs":
        return f"Delete it, and give its {rows} videos to the next run once more, by the lists or folders that they came from"
    if manifest == "forgotten":
        return (
            f"Bring it back from a copy, or delete it and give its {rows} videos to `longtake forget` once more: a run would "
            "else take them again"
        )
    if manifest == "runs":
        return "Delete it: it holds only when earlier runs were, and what they took"
    return f"Delete it: its {rows} rows are then computed again by the next run"
