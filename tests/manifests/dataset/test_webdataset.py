from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from longtake.manifests.dataset.shards import DatasetError, dataset_table
from longtake.manifests.dataset.webdataset import write_tars
from tests.manifests.dataset.test_shards import folder_with_clips, row


def samples(paths: list[Path]) -> list[dict[str, Any]]:
    webdataset = pytest.importorskip("webdataset")
    return list(webdataset.WebDataset([str(p) for p in paths], shardshuffle=False))


def test_webdataset_reads_what_was_written(tmp_path: Path) -> None:
    dataset = folder_with_clips(tmp_path, 7)
    rows = [row(i, caption="a café — «naïve»" if i else None) for i in range(7)]
    paths = write_tars(dataset_table(reversed(rows)), dataset, dataset / "webdataset", clips_per_tar=3)
    assert [p.name for p in paths] == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    read = samples(paths)
    assert [s["__key__"] for s in read] == [f"clip{i:03d}" for i in range(7)]
    for sample, made in zip(read, rows, strict=True):
        assert sample["mp4"] == made["clip_id"].encode()
        assert sample["txt"].decode() == (made["caption"] or "")
        stored = json.loads(sample["json"])
        assert stored["sub_captions"] == made["sub_captions"] == list(stored["cap"].values())
        assert (stored["flow"], stored["psnr"], stored["start"]) == (made["flow"], None, made["start"])
    webdataset = pytest.importorskip("webdataset")
    tuples = webdataset.WebDataset([str(p) for p in paths], shardshuffle=False).decode().to_tuple("mp4", "json", "txt")
    assert [t[1]["clip_id"] for t in tuples] == [r["clip_id"] for r in rows]


def test_the_same_clips_are_the_same_tars(tmp_path: Path) -> None:
    dataset = folder_with_clips(tmp_path, 5)
    first = write_tars(dataset_table(row(i) for i in range(5)), dataset, tmp_path / "a", clips_per_tar=2)
    for clip in (dataset / "clips").iterdir():
        os.utime(clip, (1, 1))
        clip.chmod(0o600)
    second = write_tars(dataset_table(row(4 - i) for i in range(5)), dataset, tmp_path / "b", clips_per_tar=2)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with tarfile.open(first[0]) as tar:
        assert [m.name for m in tar] == [f"clip{i:03d}.{end}" for i in range(2) for end in ("json", "mp4", "txt")]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


def test_a_smaller_export_leaves_nothing_of_the_larger_one(tmp_path: Path) -> None:
    dataset = folder_with_clips(tmp_path, 5)
    write_tars(dataset_table(row(i) for i in range(5)), dataset, tmp_path / "tars", clips_per_tar=1)
    paths = write_tars(dataset_table(row(i) for i in range(2)), dataset, tmp_path / "tars", clips_per_tar=2)
    assert sorted((tmp_path / "tars").iterdir()) == paths
    assert len(samples(paths)) == 2
    assert write_tars(dataset_table([]), dataset, tmp_path / "tars", 100) == []
    assert os.listdir(tmp_path / "tars") == []


def test_a_clip_that_is_not_the_exported_one_stops_the_tar(tmp_path: Path) -> None:
    dataset = folder_with_clips(tmp_path, 2)
    table = dataset_table(row(i) for i in range(2))
    (dataset / "clips" / "clip001.mp4").write_bytes(b"something else")
    with pytest.raises(DatasetError, match=r"clip001.*not the file that was exported"):
        write_tars(table, dataset, tmp_path / "tars", 100)
    (dataset / "clips" / "clip001.mp4").unlink()
    with pytest.raises(DatasetError, match=r"clip001.*missing"):
        write_tars(table, dataset, tmp_path / "tars", 100)
    assert os.listdir(tmp_path / "tars") == []


@pytest.mark.parametrize("key", ["a.b", "a/b", "../a", "a b", "ü"])
def test_ids_that_would_be_split_are_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "x.mp4").write_bytes(b"x")
    table = dataset_table([row(0, clip_id=key, path="clips/x.mp4", sha256=hashlib.sha256(b"x").hexdigest())])
    with pytest.raises(DatasetError, match="cannot name files"):
        write_tars(table, tmp_path, tmp_path / "tars", 100)
