"""Columns of more than 2 GiB: an Arrow string array counts its bytes with 32 bits, and a manifest may hold more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from longtake.manifests import parts, store
from longtake.manifests.store import Manifest

ROWS, EACH = 2400, 2**20  # Rows of a mebibyte: 2.3 GiB in all.
NESTED = pa.list_(pa.struct([pa.field("text", pa.string())]))


def available() -> int:
    """Bytes of memory that are to be had."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(told["MemAvailable"].split()[0]) * 1024


def texts(nested: bool) -> pa.ChunkedArray:
    """As many rows, made of the same 100 in memory."""
    array = pa.array([f"{i:03d}" + "x" * (EACH - 3) for i in range(100)], pa.string())
    if nested:
        inner = pa.StructArray.from_arrays([array], fields=list(NESTED.value_type))
        array = pa.ListArray.from_arrays(pa.array(np.arange(101, dtype=np.int32)), inner)
    return pa.chunked_array([array] * (ROWS // 100))


@pytest.mark.slow
@pytest.mark.campaign  # The test writes and reads gibibytes.
@pytest.mark.skipif(available() < 8 * 2**30, reason="less than 8 GiB of memory are free")
@pytest.mark.parametrize("nested", [False, True], ids=["strings", "nested strings"])
def test_a_column_of_more_than_two_gibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    kind = NESTED if nested else pa.string()
    manifest = Manifest(str(tmp_path), "clips", "clip_id", pa.schema([("clip_id", pa.string()), ("text", kind)]))
    ids = pa.array([f"clip-{i:05d}" for i in range(ROWS)])
    manifest.append(pa.table({"clip_id": ids, "text": texts(nested)}))
    manifest.append(pa.table({"clip_id": ids.slice(0, 10), "text": pa.nulls(10, kind)}))
    monkeypatch.setattr(store, "FEW_PARTS", 0)
    manifest.compact()
    assert [part.rows for part in manifest.parts()] == [ROWS]
    total, seen = 0, set[str]()
    for table in manifest.scan(rows=500):
        total += table.nbytes
        seen.update(table["clip_id"].to_pylist())
        last = table["text"][0].as_py()  # The rows that were replaced come last.
        del table
    assert total > 2 * 2**30
    assert len(seen) == ROWS
    text = last[0]["text"] if nested else last
    assert len(text) == EACH
    assert text[3:] == "x" * (EACH - 3)


def test_groups_of_rows_are_cut_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(parts, "GROUP_BYTES", 1000)
    manifest = Manifest(str(tmp_path), "clips", "clip_id", pa.schema([("clip_id", pa.string()), ("text", NESTED)]))
    rows = [{"clip_id": f"{i:04d}", "text": [{"text": "y" * 100}]} for i in range(50)]
    table = pa.Table.from_pylist(rows, schema=manifest.schema)
    manifest.append(table)
    (file,) = (tmp_path / "clips").glob("*.parquet")
    assert pq.ParquetFile(file).num_row_groups > 4
    assert manifest.read().to_pylist() == rows
    assert manifest.read(["clip_id"]).column_names == ["clip_id"]
