"""The store as it grows: appends that list nothing, parts that are merged while others append, slices that are read."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.manifests import parts as parts_module
from longtake.manifests import reader, store
from longtake.manifests.folder import Folder
from longtake.manifests.keys import hashed
from longtake.manifests.store import MERGE_PARTS, Manifest, Overtaken, StoreError
from tests.manifests.test_store import KEYS, as_dict, as_pandas_reads, clips, rows


def sliced(manifest: Manifest, size: int = 3, **more: Any) -> dict[str, float]:
    tables = list(manifest.scan(rows=size, **more))
    assert all(table.num_rows == size for table in tables[:-1])
    assert len({table.schema for table in tables}) <= 1
    return as_dict(pa.concat_tables([manifest.read()[:0], *tables]))


# The tests below are about slices.


def test_slices_are_what_read_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SCAN_ROWS", 4)
    manifest = clips(tmp_path)
    assert list(manifest.scan()) == []
    manifest.append(rows({f"clip-{i}": float(i) for i in range(11)}, note=pa.array(["n"] * 11)))
    manifest.append(rows({"clip-3": 30.0, "other": 1.0}, mark=pa.array([1, 2])))
    whole = manifest.read()
    assert pa.concat_tables(manifest.scan()) == whole
    assert [table.num_rows for table in manifest.scan()] == [4, 4, 4]
    wanted: dict[str, Any] = {"columns": ["mark", "clip_id"], "optional": ["note", "nowhere"], "encoded": ["clip_id"]}
    found = pa.concat_tables(manifest.scan(**wanted))
    assert found.column_names == ["mark", "clip_id", "note"]
    assert found.to_pydict() == manifest.read(**wanted).to_pydict()
    assert sliced(manifest, 5) == as_dict(whole)
    assert (manifest.keys() == hashed(whole["clip_id"])).all()
    with pytest.raises(StoreError, match="no column 'flaw'"):
        list(manifest.scan(["flaw"]))


def test_a_part_without_an_encoded_column_has_null_there(tmp_path: Path) -> None:
    """As a part that an older version wrote."""
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1.0}))
    manifest.append(rows({"b": 2.0}, note=pa.array(["seen"])))
    wanted: dict[str, Any] = {"columns": ["clip_id"], "optional": ["note"], "encoded": ["clip_id", "note"]}
    for table in (manifest.read(**wanted), pa.concat_tables(manifest.scan(**wanted))):
        assert sorted(table.to_pylist(), key=str) == [{"clip_id": "a", "note": None}, {"clip_id": "b", "note": "seen"}]
        assert pa.types.is_dictionary(table.schema.field("clip_id").type)


def test_a_slice_leaves_heavy_columns_out_unless_they_are_named(tmp_path: Path) -> None:
    light = clips(tmp_path)
    manifest = Manifest(str(tmp_path), "clips", "clip_id", light.schema, heavy=["pairs"])
    manifest.append(rows({"a": 1.0}))
    assert next(iter(manifest.scan())).column_names == ["clip_id", "flow"]
    assert next(iter(manifest.scan(["pairs"]))).column_names == ["pairs"]


def test_who_reads_while_another_compacts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FEW_PARTS", 0)
    manifest = clips(tmp_path)
    for i in range(4):
        manifest.append(rows({f"clip-{i}": float(i)}))
    reading = manifest.scan(rows=1)
    next(reading)
    clips(tmp_path).compact()
    with pytest.raises(Overtaken, match="read it again"):
        list(reading)
    assert sliced(manifest) == {f"clip-{i}": float(i) for i in range(4)}


# The tests below are about merging.

STEP = st.one_of(st.sampled_from(["compact", "merge"]), st.dictionaries(KEYS, st.integers(0, 99), max_size=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=30), full=st.integers(1, 12))
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_any_appends_merges_and_compactions_equal_a_dict(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Any], full: int
) -> None:
    for name, value in {"MERGE_PARTS": 2, "FEW_PARTS": 2, "MERGE_GROWTH": 2, "PART_ROWS": full, "SETTLED": 0}.items():
        monkeypatch.setattr(store, name, value)
    if where == "disk":
        shutil.rmtree(tmp_path / "clips", ignore_errors=True)
        manifest = clips(tmp_path)
    else:
        MemoryFileSystem.store.clear()
        manifest = clips("memory://workspace")
    model: dict[str, float] = {}
    for step in steps:
        if step == "compact":
            manifest.compact()
            assert manifest.rows() == len(model)
        elif step == "merge":
            manifest.merge()
        else:
            manifest.append(rows({key: float(value) for key, value in step.items()}))
            model |= step
        assert as_dict(manifest.read()) == model
    assert sliced(manifest) == model
    manifest.compact()
    if model:
        assert as_pandas_reads(manifest) == model


def test_merges_keep_parts_few_and_write_each_row_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = Manifest._write

    def counting(self: Manifest, table: pa.Table, choose: Any) -> Any:
        nonlocal written
        written += table.num_rows
        return write(self, table, choose)

    monkeypatch.setattr(store, "MERGE_PARTS", 8)
    manifest = clips(tmp_path)
    count = 600
    most = 0
    monkeypatch.setattr(Manifest, "_write", counting)
    for i in range(count):
        manifest.append(rows({f"clip-{i:05d}": float(i), "again": float(i)}))
        if i % 4 == 3:
            manifest.merge()
            most = max(most, len(manifest.parts()))
    assert most <= 8 + 4 * 4  # The parts are those that are not merged yet, and a few of each size.
    assert written <= 2 * count * 6
    assert as_dict(manifest.read()) == {f"clip-{i:05d}": float(i) for i in range(count)} | {"again": count - 1.0}


def test_a_merge_leaves_the_rows_of_older_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PART_ROWS", 100)
    manifest = clips(tmp_path)
    old = manifest.append(rows({f"clip-{i}": 0.0 for i in range(90)}))
    for i in range(MERGE_PARTS + 1):
        manifest.append(rows({f"clip-{i % 20}": 1.0 + i}))
    before = as_dict(manifest.read())
    assert manifest.merge() == MERGE_PARTS + 1
    first, merged = manifest.parts()
    assert first == old
    assert (merged.rows, merged.compacted) == (20, True)
    assert as_dict(manifest.read()) == before
    assert manifest.merge() == 0
    manifest.append(rows({"clip-3": 99.0}))
    assert as_dict(manifest.read()) == before | {"clip-3": 99.0}


def test_an_old_row_of_a_merged_run_never_hides_a_part_of_the_same_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction that was killed before it deleted: what it replaced lies beside two new parts of one age, a small one and
    a full one. The small ones must not be merged into one that is as new as the full one."""
    monkeypatch.setattr(store, "PART_ROWS", 6)
    monkeypatch.setattr(store, "FEW_PARTS", 0)
    manifest = clips(tmp_path)
    for i in range(8):
        manifest.append(rows({f"clip-{i}": 0.0, "clip-7": float(i)}))
    model = as_dict(manifest.read())
    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "_delete_all", lambda self, parts: None)
        manifest.compact()
    assert as_dict(manifest.read()) == model
    for _ in range(3):
        manifest.compact()
        assert as_dict(manifest.read()) == as_pandas_reads(manifest) == model


def test_young_parts_of_a_remote_folder_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryFileSystem.store.clear()
    monkeypatch.setattr(store, "MERGE_PARTS", 2)
    manifest = clips("memory://young")
    for i in range(5):
        manifest.append(rows({f"clip-{i}": float(i)}))
    assert manifest.merge() == 0
    monkeypatch.setattr(store, "SETTLED", 0.0)
    assert manifest.merge() == 5
    assert as_dict(manifest.read()) == {f"clip-{i}": float(i) for i in range(5)}


def test_others_append_while_one_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MERGE_PARTS", 3)
    over = threading.Event()

    def write(who: int) -> None:
        manifest = clips(tmp_path)
        for i in range(40):
            manifest.append(rows({f"clip-{who}-{i}": float(i), f"last-{who}": float(i)}))

    def merge() -> None:
        manifest, luck = clips(tmp_path), random.Random(1)
        while not over.is_set():
            (manifest.merge if luck.random() < 0.8 else manifest.compact)()

    writers = [threading.Thread(target=write, args=[who]) for who in range(3)]
    merger = threading.Thread(target=merge)
    for thread in (*writers, merger):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    merger.join()
    expected = {f"clip-{who}-{i}": float(i) for who in range(3) for i in range(40)} | {
        f"last-{who}": 39.0 for who in range(3)
    }
    assert as_dict(clips(tmp_path).read()) == expected


def test_a_lost_lock_stops_a_compaction_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MERGE_PARTS", 1)
    manifest = clips(tmp_path)
    for i in range(12):
        manifest.append(rows({f"clip-{i}": float(i)}))
    before = manifest.parts()

    class Lost:
        def check(self) -> None:
            raise RuntimeError("the lock was lost")

        def turn(self, wait: bool) -> Any:
            self.check()

    parts_module.guard(str(tmp_path), Lost())
    try:
        for action in (manifest.compact, manifest.merge):
            with pytest.raises(RuntimeError, match="lost"):
                action()
    finally:
        parts_module.guard(str(tmp_path), None)
    assert manifest.parts() == before
    manifest.compact()
    assert len(manifest.parts()) == 1


# The tests below are about appends.


def has_attributes(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.longtake.test", b"1")
    except (OSError, AttributeError):
        return False
    return True


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    names = Folder.names

    def listed(self: Folder) -> list[str]:
        seen.append(self.uri)
        return names(self)

    monkeypatch.setattr(Folder, "names", listed)
    return seen


def test_an_append_lists_nothing(tmp_path: Path, listings: list[str]) -> None:
    if not has_attributes(tmp_path):
        pytest.skip("this filesystem has no extended attributes")
    manifest, other = clips(tmp_path), clips(tmp_path)
    manifest.append(rows({"a": 1.0}))
    listings.clear()
    for i in range(5):
        other.append(rows({"a": float(i)}))
        manifest.append(rows({"a": float(i), "b": 1.0}))
    assert listings == []
    assert as_dict(manifest.read()) == {"a": 4.0, "b": 1.0}


def test_what_a_folder_notes_counts_only_since_the_machine_was_started(
    tmp_path: Path, listings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut can keep a part and lose the note of it."""
    monkeypatch.setattr("time.time_ns", lambda: 2_000_000_000_000_000_000)
    clips(tmp_path).append(rows({"a": 1.0}))
    clips(tmp_path).append(rows({"a": 2.0}))
    parts_module.note_time(os.open(tmp_path / "clips", os.O_RDONLY), 5)
    monkeypatch.setattr(parts_module, "_boot", lambda: b"another start")
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000_000_000_000)
    listings.clear()
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 3.0}))
    assert len(listings) == 1
    assert as_dict(manifest.read()) == {"a": 3.0}


def test_without_attributes_the_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    for name in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.setattr(os, name, refuse, raising=False)
    monkeypatch.setattr("time.time_ns", lambda: 2_000_000_000_000_000_000)
    clips(tmp_path).append(rows({"a": 1.0}))
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000_000_000_000)
    clips(tmp_path).append(rows({"a": 2.0}))
    assert as_dict(clips(tmp_path).read()) == {"a": 2.0}


@pytest.mark.campaign
@pytest.mark.slow  # The test writes two thousand files.
def test_compaction_is_linear_in_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tables that are handled, and not by the clock: a table of many pieces must not be put together again and again."""
    pieces_handled = 0
    concat = pa.concat_tables

    def counting(tables: Any, *args: Any, **more: Any) -> pa.Table:
        nonlocal pieces_handled
        tables = list(tables)
        pieces_handled += sum(max(1, table.column(0).num_chunks) for table in tables if table.num_columns)
        return concat(tables, *args, **more)

    for number, values in enumerate(np.split(np.arange(2000.0), 2000)):
        clips(tmp_path).append(rows({f"clip-{number}": float(values[0])}))
    monkeypatch.setattr(pa, "concat_tables", counting)
    clips(tmp_path).compact()
    assert len(clips(tmp_path).parts()) == 1
    assert pieces_handled <= 3 * 2000
