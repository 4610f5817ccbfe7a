"""The store against a plain dict, and against kill -9, full disks and files that are not what they should be."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.manifests import store
from longtake.manifests.store import FEW_PARTS, Manifest, StoreError

REPOSITORY = Path(__file__).parents[2]
PAIR = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
SCHEMA = pa.schema([pa.field("clip_id", pa.string(), nullable=False), ("flow", pa.float64()), ("pairs", PAIR)])


def clips(workspace: Path | str, version: int = 1) -> Manifest:
    return Manifest(str(workspace), "clips", "clip_id", SCHEMA, version)


def rows(values: dict[str, float], **more: Any) -> pa.Table:
    table = pa.table(
        {
            "clip_id": list(values),
            "flow": list(values.values()),
            "pairs": pa.array([[{"name": key, "value": value}] for key, value in values.items()], PAIR),
        }
    )
    for name, column in more.items():
        table = table.append_column(name, column)
    return table


def as_dict(table: pa.Table) -> dict[str, float]:
    """Fails if a key is there twice, or its nested column is not its own."""
    found: dict[str, float] = {}
    for row in table.to_pylist():
        assert row["clip_id"] not in found
        assert row["pairs"] == [{"name": row["clip_id"], "value": row["flow"]}]
        found[row["clip_id"]] = row["flow"]
    return found


def as_pandas_reads(manifest: Manifest) -> dict[str, float]:
    frame = pd.read_parquet(manifest.path)
    assert frame["clip_id"].is_unique
    return dict(zip(frame["clip_id"], frame["flow"], strict=True))


# The files of a manifest.


def test_empty_manifest_has_the_schema_and_creates_nothing(tmp_path: Path) -> None:
    manifest = clips(tmp_path / "workspace")
    assert manifest.append(SCHEMA.empty_table()) is None
    manifest.compact()
    assert manifest.read().schema == SCHEMA
    assert manifest.read().num_rows == manifest.rows() == len(manifest.parts()) == 0
    assert manifest.read(["flow"]).schema == pa.schema([("flow", pa.float64())])
    assert not (tmp_path / "workspace").exists()


def test_newest_row_wins_and_names_count_rows(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    first = manifest.append(rows({"a": 1, "b": 2}))
    second = manifest.append(rows({"b": 3, "c": 4, "d": 5}))
    assert first is not None
    assert second is not None
    assert manifest.parts() == [first, second]
    assert (first.rows, second.rows, manifest.rows()) == (2, 3, 5)
    assert first.name < second.name
    assert as_dict(manifest.read()) == {"a": 1, "b": 3, "c": 4, "d": 5}
    manifest.compact()
    assert as_dict(manifest.read()) == as_pandas_reads(manifest) == {"a": 1, "b": 3, "c": 4, "d": 5}
    assert manifest.rows() == 4


def test_read_gives_the_columns_asked_for_in_their_order(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1}))
    manifest.append(rows({"a": 2}))
    assert manifest.read(["pairs", "flow"]).column_names == ["pairs", "flow"]
    assert manifest.read(["flow"]).to_pydict() == {"flow": [2.0]}
    assert manifest.read([]).num_columns == 0
    with pytest.raises(StoreError, match="no column 'flaw'"):
        manifest.read(["flaw"])


def test_columns_are_cast_filled_and_kept(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    manifest.append(pa.table({"clip_id": ["a"], "flow": pa.array([3], pa.int32())}))
    manifest.append(rows({"b": 1}, sharpness=pa.array([7], pa.int64())))
    manifest.append(rows({"c": 1}, sharpness=pa.array([0.5]), note=pa.array([None])))
    table = manifest.read()
    assert table.schema == pa.schema([*SCHEMA, ("sharpness", pa.float64()), ("note", pa.null())])
    assert table["flow"].to_pylist() == [3, 1, 1]
    assert table["pairs"].to_pylist()[0] is None
    assert table["sharpness"].to_pylist() == [None, 7, 0.5]
    assert manifest.read(["sharpness"])["sharpness"].to_pylist() == [None, 7, 0.5]
    # After a compaction every file has every column: some readers look at the schema of the first file only.
    manifest.compact()
    assert manifest.read().sort_by("clip_id") == table
    assert list(pd.read_parquet(manifest.path).columns) == table.column_names


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (pa.table({"flow": [1.0]}), StoreError, "'clip_id' is missing"),
        (pa.table({"clip_id": ["a"], "flow": ["fast"]}), StoreError, "'flow' of type string does not fit double"),
        (pa.table({"clip_id": ["a", "b", "a"]}), ValueError, "the key a in column 'clip_id' more than once"),
        (pa.table({"clip_id": ["a" * 9, "a" * 9]}), ValueError, "more than once"),
        (pa.table({"clip_id": ["a", None]}), ValueError, "nulls in column 'clip_id'"),
        (pa.Table.from_arrays([["a"], [1.0], [2.0]], ["clip_id", "flow", "flow"]), StoreError, "more than one column"),
    ],
)
def test_refused_rows_leave_nothing(tmp_path: Path, table: pa.Table, error: type[Exception], words: str) -> None:
    manifest = clips(tmp_path)
    with pytest.raises(error, match=words):
        manifest.append(table)
    assert manifest.parts() == []


def test_columns_whose_types_do_not_go_together_are_named(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1}, mark=pa.array(["x"])))
    manifest.append(rows({"b": 1}, mark=pa.array([1])))
    with pytest.raises(StoreError, match="mark"):
        manifest.read()
    assert manifest.read(["clip_id"]).num_rows == 2


def test_older_versions_stay_readable_and_newer_ones_are_refused(tmp_path: Path) -> None:
    clips(tmp_path).append(rows({"a": 1}))
    wider = pa.schema([*SCHEMA, ("speed", pa.int32())])
    newer = Manifest(str(tmp_path), "clips", "clip_id", wider, version=2)
    part = newer.append(pa.table({"clip_id": ["b"], "speed": [4]}))
    assert part is not None
    assert newer.read(["clip_id", "speed"]).to_pydict() == {"clip_id": ["a", "b"], "speed": [None, 4]}
    with pytest.raises(StoreError, match=f"{part.name} was written as clips/2.*newer program"):
        clips(tmp_path).read()


def test_parts_are_tagged_compressed_and_have_statistics(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    part = manifest.append(rows({"a": 1, "b": 2}))
    assert part is not None
    file = pq.ParquetFile(f"{manifest.path}/{part.name}")
    assert file.schema_arrow.metadata[b"longtake.manifest"] == b"clips/1"
    column = file.metadata.row_group(0).column(1)
    assert column.compression == "ZSTD"
    assert (column.statistics.min, column.statistics.max) == (1, 2)


def test_age_never_goes_backwards_with_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = clips(tmp_path)
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_001)
    manifest.append(rows({"a": 1, "b": 1}))
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    manifest.append(rows({"a": 2}))
    manifest.compact()
    manifest.append(rows({"a": 3}))
    manifest.compact()
    manifest.append(rows({"b": 4}))
    assert as_dict(manifest.read()) == {"a": 3, "b": 4}
    names = [part.name for part in manifest.parts()]
    assert names == sorted(names)


def test_a_manifest_can_be_pickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(clips(tmp_path))).append(rows({"a": 1}))
    assert as_dict(clips(tmp_path).read()) == {"a": 1}


def test_types_that_parquet_changes_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not keep the type"):
        Manifest(str(tmp_path), "clips", "id", pa.schema([("id", pa.string()), ("at", pa.timestamp("s"))]))
    with pytest.raises(ValueError, match="not in the schema"):
        Manifest(str(tmp_path), "clips", "id", SCHEMA)


# The tests below compare a manifest with a dict.

KEYS = st.sampled_from(["a", "b", "clip-00001", "clip-00002", "clip-000010", "another clip of some length", "ä" * 5])
STEP = st.one_of(st.just(None), st.dictionaries(KEYS, st.integers(0, 99), max_size=5))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14))
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_any_appends_and_compactions_equal_a_dict(
    where: str, tmp_path: Path, steps: list[dict[str, int] | None]
) -> None:
    if where == "disk":
        shutil.rmtree(tmp_path / "clips", ignore_errors=True)
        manifest = clips(tmp_path)
    else:
        MemoryFileSystem.store.clear()
        manifest = clips("memory://workspace")
    model: dict[str, float] = {}
    for step in steps:
        if step is None:
            manifest.compact()
            assert manifest.rows() == len(model)
        else:
            manifest.append(rows({key: float(value) for key, value in step.items()}))
            model |= step
        assert as_dict(manifest.read()) == model
    manifest.compact()
    if model:
        assert as_pandas_reads(manifest) == model


@given(st.lists(st.lists(st.text("ab", max_size=20), max_size=6), min_size=1, max_size=5))
@settings(deadline=None)
def test_newest_is_the_last_row_of_each_key(parts: list[list[str]]) -> None:
    for kind in (pa.string(), pa.large_string()):
        masks = store._newest([pa.chunked_array([pa.array(part, kind)]) for part in parts])
        everything = [key for part in parts for key in part]
        expected = [key not in everything[i + 1 :] for i, key in enumerate(everything)]
        assert (masks is None) == all(expected)
        if masks is not None:
            assert [len(mask) for mask in masks] == [len(part) for part in parts]
            assert np.concatenate(masks).tolist() == expected


@given(st.lists(st.text(min_size=8, max_size=30), max_size=30, unique=True), st.data())
@settings(deadline=None)
def test_equal_keys_are_never_taken_for_distinct(keys: list[str], data: st.DataObject) -> None:
    if keys:
        again = data.draw(st.sampled_from(keys))
        chunks = pa.chunked_array([pa.array(keys), pa.array(["x" * 40, again]).slice(1)])
        assert store._newest([chunks]) is not None
    ids = pa.chunked_array([pa.array([f"video-{i:07d}-{i % 3}" for i in range(1000)])])
    assert store._newest([ids]) is None


# The tests below are about compaction.


def test_compaction_leaves_few_full_parts_and_touches_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_ROWS", 100)
    manifest = clips(tmp_path)
    model = {f"clip-{i:05d}": float(i) for i in range(1000)}
    for start in range(0, 1000, 20):
        manifest.append(rows(dict(list(model.items())[start : start + 20])))
    manifest.compact()
    assert [part.rows for part in manifest.parts()] == [100] * 10
    before = set(manifest.parts())
    manifest.compact()
    assert set(manifest.parts()) == before
    manifest.append(rows({"clip-00005": -1.0}))
    manifest.compact()
    assert len(before & set(manifest.parts())) == 9
    assert as_dict(manifest.read()) == model | {"clip-00005": -1.0}


def test_compaction_does_nothing_for_few_parts_without_repeated_keys(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    for i in range(FEW_PARTS):
        manifest.append(rows({f"clip {i}": i}))
    before = manifest.parts()
    manifest.compact()
    assert manifest.parts() == before
    manifest.append(rows({"one more": 9}))
    manifest.compact()
    assert len(manifest.parts()) == 1


def test_compaction_leaves_out_the_keys_it_is_told_to(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1, "b": 1, "c": 1}))
    manifest.append(rows({"b": 2, "d": 2}))
    before = manifest.parts()
    manifest.compact(without=pa.array(["nobody", "b"]))
    assert as_pandas_reads(manifest) == as_dict(manifest.read()) == {"a": 1, "c": 1, "d": 2}
    assert not set(before) & set(manifest.parts())
    manifest.append(rows({"b": 3}))
    assert as_dict(manifest.read()) == {"a": 1, "b": 3, "c": 1, "d": 2}
    manifest.compact(without=manifest.read(["clip_id"])["clip_id"])
    assert manifest.parts() == []
    assert manifest.read().schema == SCHEMA


def test_an_append_during_compaction_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker that outlived its driver: its row comes between the compaction's reading and its writing."""
    manifest, late = clips(tmp_path), clips(tmp_path)
    manifest.append(rows({"a": 1, "b": 1}))
    manifest.append(rows({"b": 2}))
    pieces = store._pieces

    def append_then_go_on(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
        late.append(rows({"a": 3, "c": 3}))
        yield from pieces(tables, size)

    monkeypatch.setattr(store, "_pieces", append_then_go_on)
    manifest.compact()
    assert as_dict(manifest.read()) == {"a": 3, "b": 2, "c": 3}
    monkeypatch.undo()
    manifest.compact()
    assert as_pandas_reads(manifest) == {"a": 3, "b": 2, "c": 3}


@contextmanager
def before_the_next_upload_ends(what: Callable[[], object]) -> Iterator[None]:
    """In a bucket, let `what` happen once, after the next upload of a part has its name and before it is there."""
    uploaded = MemoryFileSystem.pipe_file
    with pytest.MonkeyPatch.context() as patch:

        def late(self: Any, path: str, *arguments: Any, **how: Any) -> Any:
            if path.endswith(".parquet"):
                patch.undo()
                what()
            return uploaded(self, path, *arguments, **how)

        patch.setattr(MemoryFileSystem, "pipe_file", late)
        yield


def test_an_upload_that_ends_behind_a_compaction_counts() -> None:
    """A worker stands still in the middle of its upload, and a compaction takes a later time (seeds 4160, 7222 and 9890 of the
    simulation): its append has not returned, and when it has, its rows are the newest."""
    manifest, late = clips("memory://late-upload"), clips("memory://late-upload")
    manifest.append(rows({"a": 1, "b": 1}))

    def meanwhile() -> None:
        manifest.append(rows({"b": 2}))
        manifest.compact()

    with before_the_next_upload_ends(meanwhile):
        late.append(rows({"a": 3, "c": 3}))
    assert as_dict(manifest.read()) == {"a": 3, "b": 2, "c": 3}
    manifest.compact()
    assert as_dict(manifest.read()) == {"a": 3, "b": 2, "c": 3}
    assert manifest.rows() == 3


def two_writers(folder: str) -> tuple[Manifest, Manifest]:
    """The manifest of a bucket as two machines see it, with three parts."""
    manifest, late = clips(folder), clips(folder)
    late.append(rows({"z": 1}))
    manifest.append(rows({"a": 1, "b": 1}))
    manifest.append(rows({"b": 2}))
    return manifest, late


@contextmanager
def an_older_clock() -> Iterator[None]:
    """The clock of this machine lags far behind."""
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr(store.time, "time_ns", lambda: 1)
        yield


def test_a_compaction_takes_along_what_an_older_clock_appends_meanwhile() -> None:
    """After the compaction listed the folder, and before its part is there: nobody but the compaction can see that its time is
    later than that of the rows."""
    manifest, late = two_writers("memory://old-clock")

    def meanwhile() -> None:
        with an_older_clock():
            late.append(rows({"a": 3, "c": 3}))
            late.append(rows({"a": 4}))

    with before_the_next_upload_ends(meanwhile):
        manifest.compact()
    assert as_dict(manifest.read()) == {"a": 4, "b": 2, "c": 3, "z": 1}
    manifest.append(rows({"c": 5}))
    manifest.compact()
    assert as_dict(manifest.read()) == {"a": 4, "b": 2, "c": 5, "z": 1}
    assert manifest.rows() == 4


def test_the_next_compaction_takes_along_what_one_that_died_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction dies when its part is there, before it looks a second time: the rows that came meanwhile with an older time
    were acknowledged, and are not lost to older ones of the same keys."""
    manifest, late = two_writers("memory://died")

    def meanwhile() -> None:
        with an_older_clock():
            late.append(rows({"a": 3, "c": 3}))

    def dies(self: Manifest, seen: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, before_the_next_upload_ends(meanwhile):
        patch.setattr(Manifest, "_take_along", dies)
        with pytest.raises(KeyboardInterrupt):
            manifest.compact()
    clips("memory://died").append(rows({"b": 4}))
    again = clips("memory://died")
    again.compact()
    assert as_dict(again.read()) == {"a": 3, "b": 4, "c": 3, "z": 1}
    again.compact()
    assert as_dict(again.read()) == {"a": 3, "b": 4, "c": 3, "z": 1}
    assert again.rows() == 4
    assert all(name.endswith(".parquet") for name in again.folder.names())


def test_an_append_behind_a_compaction_is_newer_than_what_it_takes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the writer's clock lags behind: the first time after a compaction is that of the rows it takes along."""
    manifest = clips("memory://slot")
    manifest.append(rows({"a": 1, "b": 1}))
    manifest.append(rows({"a": 2}))
    manifest.compact()
    newest = manifest.parts()[-1].time
    assert newest % 2
    monkeypatch.setattr(store.time, "time_ns", lambda: 1)
    part = clips("memory://slot").append(rows({"a": 3}))
    assert part is not None
    assert part.time > newest + 1


def test_readers_are_right_while_another_process_appends_and_compacts(tmp_path: Path) -> None:
    """The value of every key only grows, and no key that was seen is ever missing."""
    manifest = clips(tmp_path)
    manifest.append(rows({f"clip-{i}": 0.0 for i in range(20)}))
    writer = start(WRITER, tmp_path, "0")
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen: dict[str, float] = {}
        for _ in range(25):
            now = as_dict(manifest.read())
            assert all(now.get(key, -1.0) >= value for key, value in seen.items())
            seen = now
    finally:
        kill(writer)
    assert len(seen) > 20


def test_abandoned_temporary_files_go_and_fresh_ones_stay(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1}))
    old, fresh, foreign = (
        Path(manifest.path, name)
        for name in (".5-01234567.parquet.0123abcd.tmp", ".6-01234567.parquet.0123abcd.tmp", ".something.tmp")
    )
    for file in (old, fresh, foreign):
        file.write_bytes(b"PAR1")
    an_hour_ago = datetime.now().timestamp() - 3700
    os.utime(old, (an_hour_ago, an_hour_ago))
    os.utime(foreign, (an_hour_ago, an_hour_ago))
    assert as_pandas_reads(manifest) == as_dict(manifest.read()) == {"a": 1}
    assert list(Path(manifest.path).glob("*.parquet")) == [Path(manifest.path, p.name) for p in manifest.parts()]
    manifest.compact()
    assert not old.exists()
    assert fresh.exists()
    assert foreign.exists()


# The tests below kill a process that writes.

# Set before each program below. They do not import this file, whose own imports take seconds.
PRELUDE = """
import sys
sys.path.insert(0, sys.argv[1])
import pyarrow as pa
from longtake.manifests.store import Manifest, StoreError
PAIR = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
SCHEMA = pa.schema([pa.field("clip_id", pa.string(), nullable=False), ("flow", pa.float64()), ("pairs", PAIR)])
def clips(workspace):
    return Manifest(workspace, "clips", "clip_id", SCHEMA)
def rows(values):
    return pa.Table.from_pylist(
        [{"clip_id": key, "flow": value, "pairs": [{"name": key, "value": value}]} for key, value in values.items()]
    )
"""

# Appends for ever and compacts at every tenth append; says what it has appended only when that is done.
WRITER = """
manifest = clips(sys.argv[2])
n = int(sys.argv[3])
while True:
    manifest.append(rows({f"clip-{n}": n, f"again-{n % 7}": n}))
    print(n, flush=True)
    n += 1
    if n % 10 == 0:
        manifest.compact()
"""

# Compacts copies of a folder; the copy number n is killed just before its n-th operation on a file of the folder.
CRASHER = """
import os, shutil, signal
import pandas  # which pyarrow would import in every child
def compact_and_die(workspace, n):
    left = n
    def watch(event, arguments):
        nonlocal left
        on_files = event in ("open", "os.rename", "os.remove", "os.listdir")
        if on_files and str(arguments[0]).startswith(workspace + "/clips"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    clips(workspace).compact()
    os._exit(0)
for n in range(1000):
    workspace = f"{sys.argv[2]}/{n}"
    shutil.copytree(f"{sys.argv[2]}/original", workspace)
    child = os.fork()
    if child == 0:
        try:
            compact_and_die(workspace, n)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, flush=True)
    if status == 0:
        break
"""


def start(program: str, *arguments: Path | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + program, str(REPOSITORY), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> list[str]:
    """The lines that it had still written."""
    process.send_signal(signal.SIGKILL)
    left, _ = process.communicate()
    return left.splitlines()


def test_what_was_acknowledged_survives_kill_9_at_random_moments(tmp_path: Path) -> None:
    luck = random.Random(7)
    done = 0
    model: dict[str, float] = {}
    manifest = clips(tmp_path)
    for _ in range(4):
        writer = start(WRITER, tmp_path, str(done))
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(luck.uniform(0, 0.4))
        lines += kill(writer)
        for line in lines:
            n = int(line)
            model |= {f"clip-{n}": n, f"again-{n % 7}": n}
            done = n + 1
        found = as_dict(manifest.read())
        if f"clip-{done}" in found:  # The process had appended the rows, and was killed before it could say so.
            model |= {f"clip-{done}": done, f"again-{done % 7}": done}
            done += 1
        assert found == model
    manifest.compact()
    assert as_pandas_reads(manifest) == as_dict(manifest.read()) == model


def test_compaction_may_be_killed_before_any_file_operation(tmp_path: Path) -> None:
    manifest = clips(tmp_path / "original")
    model: dict[str, float] = {}
    for i in range(12):
        new = {f"clip-{i}": float(i), f"again-{i % 3}": float(i)}
        manifest.append(rows(new))
        model |= new
    crasher = start(CRASHER, tmp_path)
    output, _ = crasher.communicate()
    statuses = [int(line) for line in output.split()]
    assert statuses == [-signal.SIGKILL] * (len(statuses) - 1) + [0]
    assert len(statuses) > 12  # The process was killed at least once for every part that is removed.
    for n in range(len(statuses)):
        copy = clips(tmp_path / str(n))
        assert as_dict(copy.read()) == model
        copy.append(rows({"again-0": 100.0}))
        copy.compact()
        assert as_pandas_reads(copy) == as_dict(copy.read()) == model | {"again-0": 100.0}


def test_many_processes_append_at_once(tmp_path: Path) -> None:
    program = """
for i in range(12):
    clips(sys.argv[2]).append(rows({f"clip-{sys.argv[3]}-{i}": float(i), "shared": float(sys.argv[3])}))
"""
    writers = [start(program, tmp_path, str(n)) for n in range(3)]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    found = as_dict(clips(tmp_path).read())
    assert found.pop("shared") in (0.0, 1.0, 2.0)
    assert found == {f"clip-{n}-{i}": float(i) for n in range(3) for i in range(12)}
    assert len({part.time for part in clips(tmp_path).parts()}) == 36


# The tests below are about disks and files.


def only_whole_parts(folder: Path) -> bool:
    return all(name.endswith(".parquet") and not name.startswith(".") for name in os.listdir(folder))


def test_a_file_that_may_not_grow_leaves_nothing_behind(tmp_path: Path) -> None:
    clips(tmp_path).append(rows({"a": 1}))
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    clips(sys.argv[2]).append(rows({"b": 2}))
except StoreError as error:
    print(error)
"""
    message, _ = start(program, tmp_path).communicate()
    assert f"cannot write to {tmp_path}/clips: {os.strerror(errno.EFBIG)}" in message
    assert "What was stored before is intact" in message
    assert only_whole_parts(tmp_path / "clips")
    assert as_dict(clips(tmp_path).read()) == {"a": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk(small_disk: Path) -> None:
    manifest = clips(small_disk)
    manifest.append(rows({"a": 1, "b": 1}))
    manifest.append(rows({"a": 2}))
    noise = np.random.default_rng(0).bytes(400_000).hex()
    with pytest.raises(StoreError, match=f"{os.strerror(errno.ENOSPC)} .free some space"):
        manifest.append(rows({noise: 1}))
    assert only_whole_parts(small_disk / "clips")
    assert as_dict(manifest.read()) == {"a": 2, "b": 1}
    with suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(1024))
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        manifest.compact()
    assert as_dict(manifest.read()) == {"a": 2, "b": 1}


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("mine")
    (tmp_path / "workspace").write_text("mine")
    for manifest in (clips(tmp_path), clips(tmp_path / "workspace")):
        with pytest.raises(StoreError, match=r"cannot write to .*clips.*a file is where the folder should be"):
            manifest.append(rows({"a": 1}))
        with pytest.raises(StoreError, match=r"cannot list .*clips"):
            manifest.read()
        with pytest.raises(StoreError, match=r"cannot list .*clips"):
            manifest.compact()
    assert (tmp_path / "clips").read_text() == "mine"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_part_that_is_cut_short_is_named(tmp_path: Path, share: float) -> None:
    manifest = clips(tmp_path)
    manifest.append(rows({"a": 1}))
    part = manifest.append(rows({"b": 1, "c": 1}))
    assert part is not None
    file = Path(manifest.path, part.name)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    for action in (manifest.read, manifest.compact, lambda: manifest.read(["flow"])):
        with pytest.raises(StoreError, match=f"{part.name} is damaged.*Delete it: its 2 rows are then computed again"):
            action()
    file.unlink()
    assert as_dict(manifest.read()) == {"a": 1}


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EACCES, " (allow this user to read it)"), (errno.EIO, ""), (errno.EMFILE, " (let this command have more files open")],
)  # fmt: skip
def test_a_part_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    """Whoever follows the advice for damage deletes good rows. The system's number is told in words."""
    manifest = clips(tmp_path)
    part = manifest.append(rows({"a": 1}))
    assert part is not None

    def refused(path: str, mode: str) -> None:
        raise OSError(number, f"Failed to open local file '{path}'. Detail: [errno {number}] {os.strerror(number)}")

    with monkeypatch.context() as patched:
        patched.setattr("longtake.manifests.reader.pa.OSFile", refused)
        with pytest.raises(StoreError) as told:
            manifest.read()
    assert str(told.value).startswith(f"cannot read {manifest.path}/{part.name}: {os.strerror(number)}{hint}")
    assert "rrno" not in str(told.value)
    assert as_dict(manifest.read()) == {"a": 1}


def test_a_folder_whose_name_is_no_utf_8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Arrow opens no file in it: each part was called damaged, and was to be deleted."""
    place = f"{tmp_path}/caf\udce9"
    with pytest.raises(StoreError, match=r"its name is no UTF-8.*rename the folder"):
        clips(place)
    assert not os.path.exists(place)


def test_a_flipped_bit_is_not_copied_by_compaction(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    part = manifest.append(rows({"a": 1, "b": 2}))
    manifest.append(rows({"a": 2}))
    assert part is not None
    file = Path(manifest.path, part.name)
    data = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=f"{part.name} is damaged"):
        manifest.compact()
    assert len(manifest.parts()) == 2


def test_foreign_parts_are_named(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    part = manifest.append(rows({"a": 1}))
    assert part is not None
    file = Path(manifest.path, part.name)

    pq.write_table(rows({"a": 1}), file)
    with pytest.raises(StoreError, match=f"{part.name} is a Parquet file of another program, not of 'clips'"):
        manifest.read()

    videos = Manifest(str(tmp_path), "videos", "clip_id", SCHEMA)
    other = videos.append(rows({"v": 1}))
    assert other is not None
    shutil.copy(f"{videos.path}/{other.name}", file)
    with pytest.raises(StoreError, match=f"{part.name} is a part of the manifest 'videos/1', not of 'clips'"):
        manifest.read()

    file.unlink()
    part = manifest.append(rows({"a": 1}))
    assert part is not None
    renamed = part.name.replace("-1-", "-5-")
    Path(manifest.path, part.name).rename(Path(manifest.path, renamed))
    with pytest.raises(StoreError, match=f"{renamed} holds 1 rows and not the 5 of its name"):
        manifest.read()

    Path(manifest.path, renamed).rename(Path(manifest.path, "mine.parquet"))
    with pytest.raises(StoreError, match=r"clips/mine.parquet is not a part of the manifest"):
        manifest.parts()


# The tests below keep a manifest in a remote store.


class Shelf(MemoryFileSystem):  # type: ignore[misc]
    """A remote filesystem that is not known to put files atomically, such as sftp."""

    protocol = "shelf"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("shelf://").strip("/")


def test_remote_files_are_renamed_into_place(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    manifest = clips("shelf://workspace")
    manifest.append(rows({"a": 1}))
    manifest.append(rows({"a": 2, "b": 1}))
    manifest.compact()
    assert as_dict(manifest.read()) == {"a": 2, "b": 1}
    assert [Path(name).name for name in Shelf.store] == [part.name for part in manifest.parts()]

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ECONNRESET, "connection reset")

    monkeypatch.setattr(Shelf, "mv", fail)
    with pytest.raises(StoreError, match=f"cannot write to shelf://.*clips: {os.strerror(errno.ECONNRESET)}"):
        manifest.append(rows({"c": 1}))
    assert as_dict(manifest.read()) == {"a": 2, "b": 1}
    assert len(Shelf.store) == 1


def test_unknown_protocols_are_told() -> None:
    with pytest.raises(StoreError, match="cannot open the workspace nowhere://x"):
        clips("nowhere://x")
