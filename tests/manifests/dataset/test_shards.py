from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.manifests.dataset import extras
from longtake.manifests.dataset.shards import (
    DATASET_SCHEMA,
    FRAMES,
    MEANINGS,
    DatasetError,
    caption_frames,
    dataset_schema,
    dataset_table,
    finish_dataset,
    presto_problems,
    write_shards,
)
from longtake.manifests.folder import remove_folder, whole_file, whole_folder

KEYS = ["45", "135", "225", "315", "405"]


def row(number: int, **changed: Any) -> dict[str, Any]:
    clip = f"clip{number:03d}"
    made: dict[str, Any] = {
        "path": f"clips/{clip}.mp4",
        "num_frames": 450,
        "height": 720,
        "width": 1280,
        "clip_id": clip,
        "video_id": "video",
        "uri": "s3://somewhere/video.mkv",
        "start": 15.0 * number,
        "end": 15.0 * number + 15.0,
        "fps": 30.0,
        "pace": 1.0,
        "caption": f"caption {number}",
        "sub_captions": [f"{number} {name}" for name in ("one", "two", "three", "four", "five")],
        "tier": "pretrain",
        "verdict": "kept",
        "licence": None,
        "sha256": hashlib.sha256(clip.encode()).hexdigest(),
        "flow": 40.0 + number,
        "protocols": {"flow": "dis/long side 960/mean"},
    }
    return made | changed


def folder_with_clips(folder: Path, count: int) -> Path:
    (folder / "clips").mkdir(parents=True)
    for number in range(count):
        (folder / "clips" / f"clip{number:03d}.mp4").write_bytes(f"clip{number:03d}".encode())
    return folder


def read_as_presto(table: pd.DataFrame) -> dict[str, list[str]]:
    """Captions by path of the rows that the published trainer keeps (its filter_data_list and get_video)."""
    read: dict[str, list[str]] = {}
    for i in range(len(table)):
        data = table.loc[i]
        aspect = data["height"] / data["width"]
        fits = data["height"] >= 720 and data["width"] >= 1280 and 0.5625 / 1.5 <= aspect <= 0.5625 * 1.5
        if not (fits and data["num_frames"] >= 5 * 90 and data["path"].endswith(".mp4")):
            continue
        assert isinstance(data["cap"], dict)
        frames, texts = zip(*sorted(data["cap"].items(), key=lambda item: int(item[0])), strict=True)
        assert int(frames[1]) - int(frames[0]) == 90
        read[str(data["path"])] = list(texts)
    return read


def test_captions_stand_at_the_centres_of_their_segments() -> None:
    assert caption_frames() == (45, 135, 225, 315, 405)
    assert caption_frames(88) == (8, 26, 44, 61, 79)
    with pytest.raises(DatasetError):
        caption_frames(9)


@given(st.integers(10, 10_000), st.integers(1, 5))
def test_every_caption_frame_lies_in_its_own_segment(frames: int, captions: int) -> None:
    edges = np.linspace(0, frames, captions + 1)
    for i, frame in enumerate(caption_frames(frames, captions)):
        assert edges[i] <= frame < edges[i + 1]
        assert abs(frame - (edges[i] + edges[i + 1]) / 2) < 1


def test_every_column_has_a_meaning() -> None:
    optional = {
        "split",
        "concept_weight",
        "concept_quota",
        *extras.MEANINGS,
    }  # These columns exist where the recipe asks for them.
    assert set(MEANINGS) == {*DATASET_SCHEMA.names, *optional}


def test_shards_load_as_presto_loads_them(tmp_path: Path) -> None:
    """Also when a whole shard has no captions, which is where structs with differing keys would go wrong."""
    rows = [row(i, **({"sub_captions": None, "caption": None} if i < 3 else {})) for i in range(10)]
    paths = write_shards(dataset_table(rows), tmp_path, rows_per_shard=3)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        f"shards/shard-{i:05d}-of-00004.parquet" for i in range(4)
    ]
    table = pd.read_parquet(tmp_path / "shards")
    assert table["clip_id"].tolist() == [f"clip{i:03d}" for i in range(10)]
    assert table["cap"][0] is None
    assert table["cap"][5] == dict(zip(KEYS, rows[5]["sub_captions"], strict=True))
    assert table["num_frames"].dtype == np.int32
    read = read_as_presto(table.loc[3:].reset_index(drop=True))
    assert read == {r["path"]: r["sub_captions"] for r in rows[3:]}
    for path in paths:
        assert pq.read_schema(path).equals(DATASET_SCHEMA)


def test_the_index_is_the_shards(tmp_path: Path) -> None:
    folder = folder_with_clips(tmp_path / "pretrain", 7)
    write_shards(dataset_table(row(i) for i in reversed(range(7))), folder, rows_per_shard=2)
    assert not (folder / "index.parquet").exists()
    index = finish_dataset(folder)
    assert index == folder / "index.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(index), pd.read_parquet(folder / "shards"))
    assert len(read_as_presto(pd.read_parquet(index))) == 7
    assert json.loads(pd.read_parquet(index)["protocols"][0]) == {"flow": "dis/long side 960/mean"}


def test_sha256sum_agrees(tmp_path: Path) -> None:
    folder = folder_with_clips(tmp_path / "a folder", 3)
    (folder / "README.md").write_text("card")
    (folder / "webdataset").mkdir()
    (folder / "webdataset" / "shard-000000.tar").write_bytes(b"tar")
    (folder / "clips" / "orphan of an earlier export.mp4").write_bytes(b"?")
    (folder / "clips" / ".clip.part").write_bytes(b"?")
    write_shards(dataset_table(row(i) for i in range(3)), folder, rows_per_shard=2)
    finish_dataset(folder)
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = [line.removesuffix(": OK") for line in done.stdout.splitlines()]
    assert listed == sorted(
        ["README.md", "index.parquet", "webdataset/shard-000000.tar"]
        + [f"clips/clip{i:03d}.mp4" for i in range(3)]
        + [f"shards/shard-0000{i}-of-00002.parquet" for i in range(2)]
    )
    (folder / "clips" / "clip001.mp4").write_bytes(b"changed")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 1


def test_the_same_rows_are_the_same_files(tmp_path: Path) -> None:
    rows = [row(i) for i in range(9)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        folder_with_clips(tmp_path / name, 9)
        write_shards(dataset_table(order), tmp_path / name, rows_per_shard=4)
        finish_dataset(tmp_path / name)
    assert (tmp_path / "a/SHA256SUMS").read_bytes() == (tmp_path / "b/SHA256SUMS").read_bytes()


def test_a_smaller_export_leaves_nothing_of_the_larger_one(tmp_path: Path) -> None:
    folder = folder_with_clips(tmp_path / "pretrain", 9)
    write_shards(dataset_table(row(i) for i in range(9)), folder, rows_per_shard=2)
    finish_dataset(folder)
    write_shards(dataset_table(row(i) for i in range(3)), folder, rows_per_shard=2)
    assert not (folder / "index.parquet").exists()
    assert not (folder / "SHA256SUMS").exists()
    finish_dataset(folder)
    assert len(pd.read_parquet(folder / "shards")) == len(pd.read_parquet(folder / "index.parquet")) == 3


def test_no_clip_is_a_dataset_too(tmp_path: Path) -> None:
    write_shards(dataset_table([]), tmp_path)
    finish_dataset(tmp_path)
    assert pd.read_parquet(tmp_path / "index.parquet").columns.tolist() == DATASET_SCHEMA.names
    assert len(pd.read_parquet(tmp_path / "shards")) == 0


def test_an_unfinished_dataset_gets_no_index(tmp_path: Path) -> None:
    folder = folder_with_clips(tmp_path / "pretrain", 4)
    with pytest.raises(DatasetError, match="shards"):
        finish_dataset(folder)
    paths = write_shards(dataset_table(row(i) for i in range(4)), folder, rows_per_shard=1)
    (folder / "clips" / "clip002.mp4").unlink()
    with pytest.raises(DatasetError, match=r"clips/clip002\.mp4"):
        finish_dataset(folder)
    paths[-1].unlink()
    with pytest.raises(DatasetError, match="whole set"):
        finish_dataset(folder)
    assert sorted(os.listdir(folder)) == ["clips", "shards"]


def test_a_forged_name_is_no_line_of_the_checksums(tmp_path: Path) -> None:
    write_shards(dataset_table([]), tmp_path)
    (tmp_path / "notes\nffff  clips").write_text("?")
    with pytest.raises(DatasetError, match="not a path inside"):
        finish_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"path": "/etc/passwd.mp4"}, "not a path inside"),
        ({"path": "../other.mp4"}, "not a path inside"),
        ({"path": "clips/a\nb.mp4"}, "not a path inside"),
        ({"path": "clips\\a.mp4"}, "not a path inside"),
        ({"path": ""}, "not a path inside"),
        ({"path": None}, "clip001: there is no path"),
        ({"sha256": None}, "clip001: there is no sha256"),
        ({"num_frames": None}, "clip001: there is no num_frames"),
        ({"sub_captions": ["one", "two"]}, "clip001: 2 sub-captions, not 5"),
        ({"flwo": 4.0}, "clip001: .*'flwo'"),
        ({"cap": {"45": "one"}}, "clip001: .*'cap'"),
        ({"flow": float("nan")}, "clip001: flow is nan"),
        ({"psnr": float("inf")}, "clip001: psnr is inf"),
    ],
)
def test_rows_that_cannot_be_exported(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        dataset_table([row(0), row(1, **changed)])


@pytest.mark.parametrize("column", ["clip_id", "path"])
def test_nothing_twice(column: str) -> None:
    with pytest.raises(DatasetError, match=f"two rows have the {column}"):
        dataset_table([row(0), row(1, **{column: row(0)[column]})])


def test_filters_of_others_get_their_columns() -> None:
    schema = dataset_schema(["flow", "sharpness"], frames=100)
    table = dataset_table([row(0, sharpness=0.25)], schema)
    assert table["sharpness"].to_pylist() == [0.25]
    assert list(table["cap"].to_pylist()[0]) == ["10", "30", "50", "70", "90"]
    with pytest.raises(DatasetError, match="'width'"):
        dataset_schema(["width"])


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path / "below") == []
    with whole_file(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


# Clips that the published trainer drops.

GOOD = {"num_frames": FRAMES, "height": 720, "width": 1280}


@pytest.mark.parametrize(
    ("changed", "columns"),
    [
        ({}, []),
        ({"height": 1080, "width": 1920}, []),
        ({"height": 1080, "width": 1280}, []),  # The ratio of the sides is 0.84375, just within the bound.
        ({"height": 720, "width": 1920}, []),  # The ratio of the sides is 0.375, just within the bound.
        ({"height": 1082, "width": 1280}, ["height"]),
        ({"height": 720, "width": 1922}, ["height"]),
        ({"height": 1280, "width": 720}, ["width", "height"]),
        ({"height": 718, "width": 1280}, ["height"]),
        ({"num_frames": 360}, ["num_frames"]),
        ({"num_frames": 449}, ["num_frames"]),
        ({"num_frames": 900}, ["num_frames"]),
        ({"path": "clips/clip000.webm"}, ["path"]),
        ({"sub_captions": None}, ["cap"]),
        ({"sub_captions": ["one", "", "three", " ", "five"]}, ["cap"]),
        ({"sub_captions": ["one", None, "three", "four", "five"]}, ["cap"]),
    ],
)
def test_presto_problems_are_told(changed: dict[str, Any], columns: list[str]) -> None:
    table = dataset_table([row(0, **changed)])
    problems = presto_problems(table)
    assert [p.column for p in problems] == columns
    assert all(p.clip_id == "clip000" and p.message for p in problems)
    if dropped := [p for p in problems if p.message.endswith("dropped")]:
        assert read_as_presto(table.to_pandas()) == {}, dropped


def test_presto_wants_its_stride() -> None:
    table = dataset_table([row(0, num_frames=300)], dataset_schema(["flow"], frames=300))
    assert [p.column for p in presto_problems(table)] == ["num_frames", "cap"]


@given(
    st.integers(1, 1000), st.integers(100, 3000), st.integers(100, 3000), st.sampled_from(["a.mp4", "a.MP4", "a.mov"])
)
def test_a_row_without_problems_is_read_and_no_other(frames: int, height: int, width: int, path: str) -> None:
    table = dataset_table([row(0, num_frames=frames, height=height, width=width, path=path)])
    unread = [p for p in presto_problems(table) if not p.message.startswith(f"{frames} frames, but")]
    assert (not unread) == bool(read_as_presto(table.to_pandas()))


def test_one_struct_type_in_every_shard() -> None:
    kind = DATASET_SCHEMA.field("cap").type
    assert kind == pa.struct([(key, pa.string()) for key in KEYS])


def test_a_folder_that_is_a_link_is_taken_away_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """A second format on another disk: the link goes, twice if need be, and the disk is left alone."""
    disk, folder = tmp_path / "disk", tmp_path / "webdataset"
    disk.mkdir()
    (disk / "mine.tar").write_bytes(b"x")
    (tmp_path / ".webdataset.part").symlink_to(disk)
    folder.symlink_to(disk)
    with whole_folder(folder) as part:
        (part / "new.tar").write_bytes(b"y")
    assert [path.name for path in folder.iterdir()] == ["new.tar"]
    assert not folder.is_symlink()
    assert [path.name for path in disk.iterdir()] == ["mine.tar"]
    remove_folder(folder)
    remove_folder(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk"]
