"""The right side of an anti-join: a few columns of a manifest, found by key, in some ten bytes a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Index, hashed
from longtake.manifests.parts import fit, no_rows
from longtake.manifests.store import Manifest

_TOGETHER = 20_000  # Rows that become one table of `Scattered`: rows that are taken then lie in few tables.


class Lookup:
    """Some columns of the newest rows of a manifest. It is read a slice at a time; strings of few values are kept as
    dictionaries (encoded). only: a slice → which of its rows are wanted; read: further columns that it looks at."""

    def __init__(
        self,
        manifest: Manifest,
        columns: Sequence[str],
        *,
        optional: Sequence[str] = (),
        encoded: Sequence[str] = (),
        only: Callable[[pa.Table], pa.Array | pa.ChunkedArray] | None = None,
        read: Sequence[str] = (),
    ) -> None:
        hashes, tables = [np.zeros((2, 0), np.uint64)], list[pa.Table]()
        names = list(dict.fromkeys([manifest.key, *columns]))
        for table in manifest.scan([*names, *read], optional=optional, encoded=[*encoded, *read]):
            if only is not None:
                table = table.filter(only(table))
            hashes.append(hashed(table[manifest.key]))
            tables.append(_wide(table.drop_columns([manifest.key, *read])))
        self.key = manifest.key
        self.index = Index(np.concatenate(hashes, axis=1))
        self._table = _in_one_piece(pa.concat_tables(tables)) if tables else _wide(_empty(manifest, names[1:]))

    def __len__(self) -> int:
        return len(self.index)

    def of(self, keys: pa.ChunkedArray) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """The row of each key, null where there is none; and which keys have one."""
        at = self.index.find(keys)
        return self._table.take(from_numpy(at, at >= 0)), at >= 0

    def among(self, keys: pa.ChunkedArray) -> pa.Table:
        """The rows of those keys that have one, the key itself among the columns."""
        at = self.index.find(keys)
        there = from_numpy(at >= 0)
        return self._table.take(from_numpy(at[at >= 0])).append_column(self.key, keys.filter(there))


class Scattered:
    """Tables whose rows are taken in any order. They are not joined into one, since a column of strings may take more than 2
    GiB. schema: of all of them."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = pa.schema([field.with_nullable(True) for field in schema])
        self._tables: list[pa.Table] = []
        self._edges = [0]  # The first row of each table, and the end of the last.
        self._coming: list[pa.Table] = []

    def __len__(self) -> int:
        return len(self.column(self.schema.names[0]))

    def add(self, table: pa.Table) -> None:
        """Add rows, of whose columns those of the schema are kept."""
        if table.num_rows:
            self._coming.append(fit(table, self.schema, "rows that are held in memory"))
            if sum(one.num_rows for one in self._coming) >= _TOGETHER:
                self._settle()

    @property
    def tables(self) -> list[pa.Table]:
        """All rows, in their order."""
        self._settle()
        return self._tables

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        return pa.chunked_array(
            [chunk for one in self.tables for chunk in one[name].chunks], self.schema.field(name).type
        )

    def take(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """These rows, in this order."""
        self._settle()
        owner = np.searchsorted(self._edges, rows, "right") - 1
        order = np.argsort(owner, kind="stable")
        taken = [no_rows(self.schema)]
        for which in np.unique(owner).tolist():
            taken.append(self._tables[which].take(from_numpy(rows[owner == which] - self._edges[which])))
        place = np.empty(len(rows), np.int64)
        place[order] = np.arange(len(rows))
        return _in_one_piece(pa.concat_tables(taken)).take(from_numpy(place))

    def _settle(self) -> None:
        if self._coming:
            self._tables.append(_in_one_piece(pa.concat_tables(self._coming)))
            self._edges.append(self._edges[-1] + self._tables[-1].num_rows)
            self._coming = []


def _empty(manifest: Manifest, names: Sequence[str]) -> pa.Table:
    return no_rows(pa.schema([manifest.schema.field(name) for name in names]))


def _wide(table: pa.Table) -> pa.Table:
    """With 64-bit offsets: one column of many rows may take more than 2 GiB."""
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.large_string()))
    return table


def _in_one_piece(table: pa.Table) -> pa.Table:
    """Each column as one array, since rows are taken of it again and again."""
    return pa.table({name: table[name].unify_dictionaries().combine_chunks() for name in table.column_names})
