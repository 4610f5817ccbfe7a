from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from longtake.manifests.dataset.lance import write_lance
from longtake.manifests.dataset.shards import DatasetError, dataset_table
from tests.manifests.dataset.formats import COUNT, dataset

lance: Any = pytest.importorskip("lance")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder, table = dataset(tmp_path / "my data #1 %41")
    return write_lance(table, folder, folder / "clips.lance", clips_per_fragment=3)


def test_lance_reads_the_table_and_the_clips(written: Path, tmp_path: Path) -> None:
    _, table = dataset(tmp_path / "again")
    clips = lance.dataset(str(written))
    assert len(clips.get_fragments()) == -(-COUNT // 3)
    assert clips.to_table(columns=table.column_names).equals(table)
    wanted = [COUNT - 1, 0, 4]
    blobs = clips.take_blobs("video", indices=wanted)
    assert [blob.read().decode() for blob in blobs] == table["clip_id"].take(wanted).to_pylist()
    assert clips.to_table(columns=["clip_id"], filter="flow > 42").num_rows == sum(
        (flow or 0) > 42 for flow in table["flow"].to_pylist()
    )


def test_it_holds_no_second_copy_and_moves(written: Path, tmp_path: Path) -> None:
    blobs = {os.stat(path).st_ino for path in written.rglob("*.blob")}
    assert blobs == {os.stat(path).st_ino for path in (written.parent / "clips").rglob("*.mp4")}
    moved = tmp_path / "elsewhere.lance"
    shutil.move(written, moved)
    shutil.rmtree(written.parent)
    assert [blob.read() for blob in lance.dataset(str(moved)).take_blobs("video", indices=[1])] == [b"clip001"]


def test_clips_that_are_alike_are_told_apart(tmp_path: Path) -> None:
    """Of one length: the content decides what is linked."""
    folder, table = dataset(tmp_path)
    inside = write_lance(table, folder, folder / "clips.lance")
    clips = {path.stat().st_ino: path.read_text() for path in (folder / "clips").rglob("*.mp4")}
    assert {path.read_text() for path in inside.rglob("*.blob")} == set(clips.values())
    assert all(clips[path.stat().st_ino] == path.read_text() for path in inside.rglob("*.blob"))


def test_again_it_is_the_same_and_nothing_is_left_over(written: Path) -> None:
    folder = written.parent
    before = lance.dataset(str(written)).to_table()
    _, table = dataset(folder / "unused")
    write_lance(table, folder, written)
    after = lance.dataset(str(written))
    assert after.version == 1
    assert after.to_table(columns=table.column_names).equals(before.select(table.column_names))
    assert not list(folder.glob(".*"))


def test_of_no_clips(tmp_path: Path) -> None:
    empty = lance.dataset(str(write_lance(dataset_table([]), tmp_path, tmp_path / "clips.lance")))
    assert empty.count_rows() == 0
    assert "video" in empty.schema.names


def test_a_missing_clip_leaves_nothing(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path)
    gone = folder / table["path"][5].as_py()
    gone.unlink()
    with pytest.raises(DatasetError, match=gone.name):
        write_lance(table, folder, folder / "clips.lance", clips_per_fragment=2)
    assert sorted(path.name for path in folder.iterdir()) == ["clips"]


def test_where_lance_cannot_write_it_says_so(tmp_path: Path) -> None:
    folder, table = dataset(tmp_path / "a\tb")
    with pytest.raises(DatasetError, match="Lance cannot write to this path"):
        write_lance(table, folder, folder / "clips.lance")
    assert not (folder / "clips.lance").exists()
