"""A manifest that remembers what was read of it until its parts change, for a process that asks many questions of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longtake.manifests.parts import Part, as_dictionary
from longtake.manifests.reader import SCAN_ROWS, Loaded
from longtake.manifests.store import ABANDONED, FEW_PARTS, Manifest

MANY_ROWS = 100_000  # Rows of up to some KB each that are kept in memory, at most.


class Remembered(Manifest):
    """A `Manifest` whose first reading takes all columns but the heavy ones; later ones are answered from it, as long as the
    folder holds the same parts. Heavy columns are read each time, and so is everything of a manifest of very many rows."""

    _parts: tuple[Part, ...] | None = None
    _table: pa.Table | None = None
    _schemas: frozenset[pa.Schema] = frozenset()

    @classmethod
    def of(cls, manifest: Manifest) -> Remembered:
        """The same manifest, with a memory."""
        return cls(
            manifest.workspace,
            manifest.name,
            manifest.key,
            manifest.schema,
            manifest.version,
            manifest.heavy,
            manifest.part_rows,
        )

    def read(
        self, columns: Sequence[str] | None = None, *, optional: Sequence[str] = (), encoded: Sequence[str] = ()
    ) -> pa.Table:
        if not set(self.heavy).isdisjoint([*(columns or ()), *optional]):
            return super().read(columns, optional=optional, encoded=encoded)
        if self.rows() > MANY_ROWS:
            self._table = self._parts = None
            return super().read(columns, optional=optional, encoded=encoded)
        table = self._remembered()
        if columns is not None:
            if any(name not in table.column_names for name in columns):
                # The store's own error names the missing column.
                return super().read(columns, optional=optional, encoded=encoded)
            names = dict.fromkeys([*columns, *(name for name in optional if name in table.column_names)])
            table = table.select(list(names))
        for name in encoded:
            if name in table.column_names:
                at = table.column_names.index(name)
                field = as_dictionary(table.schema.field(name))
                table = table.set_column(at, field, pc.dictionary_encode(table[name]).cast(field.type))
        return table

    def scan(
        self,
        columns: Sequence[str] | None = None,
        *,
        optional: Sequence[str] = (),
        encoded: Sequence[str] = (),
        rows: int | None = None,
    ) -> Iterator[pa.Table]:
        if self.rows() > MANY_ROWS or not set(self.heavy).isdisjoint([*(columns or ()), *optional]):
            yield from super().scan(columns, optional=optional, encoded=encoded, rows=rows)
            return
        table, size = self.read(columns, optional=optional, encoded=encoded), rows or SCAN_ROWS
        for start in range(0, table.num_rows, size):
            yield table.slice(start, size)

    def compact(self, without: pa.Array | pa.ChunkedArray | None = None) -> None:
        if self._is_compact(without):
            with self._in_plain_words("list", self.path):
                self.folder.remove_abandoned(ABANDONED)
        else:
            super().compact(without)

    def _remembered(self) -> pa.Table:
        parts = tuple(self.parts())
        if self._table is None or self._parts != parts:
            self._table, self._parts = None, parts
            self._table = super().read()
        return self._table

    def _is_compact(self, without: pa.Array | pa.ChunkedArray | None) -> bool:
        """Whether a compaction would find nothing to do, as far as the last reading tells."""
        if self._table is None or self._parts != tuple(self.parts()):
            return False
        if len(self._parts) > 1 and not all(part.rows for part in self._parts):
            return False
        small = sum(map(self._is_small, self._parts))
        if small > FEW_PARTS or sum(part.rows for part in self._parts) != self._table.num_rows:
            return False
        if len(self._parts) and self._schemas != {self._joined(self._schemas)}:
            return False
        unwanted = without is not None and len(without)
        return not (unwanted and pc.any(pc.is_in(self._table[self.key], value_set=without)).as_py())

    def _load_all(
        self,
        parts: Sequence[Part],
        columns: Iterable[str] | None,
        encoded: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> list[Loaded]:
        loaded = super()._load_all(parts, columns, encoded, without)
        if columns is None:
            self._schemas = frozenset(part.schema for part in loaded)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_table", "_parts", "_schemas")}
