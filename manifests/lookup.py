"""The right side of an anti-join: a few columns of a manifest, found by key, in some ten bytes a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Index, hashed
from longtake.manifests.parts import no_rows
from longtake.manifests.store import Manifest


class Lookup:
    """Some columns of the newest rows of a manifest. It is read a slice at a time; strings of few values are kept as
    dictionaries (encoded). only: a slice → which of its rows are wanted."""

    def __init__(
        self,
        manifest: Manifest,
        columns: Sequence[str],
        *,
        optional: Sequence[str] = (),
        encoded: Sequence[str] = (),
        only: Callable[[pa.Table], pa.Array | pa.ChunkedArray] | None = None,
    ) -> None:
        hashes, tables = [np.zeros((2, 0), np.uint64)], list[pa.Table]()
        names = list(dict.fromkeys([manifest.key, *columns]))
        for table in manifest.scan(names, optional=optional, encoded=encoded):
            if only is not None:
                table = table.filter(only(table))
            hashes.append(hashed(table[manifest.key]))
            tables.append(_wide(table.drop_columns([manifest.key])))
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
