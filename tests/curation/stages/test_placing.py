"""What export does to files when a threshold was moved: it places the clips that enter and removes those that leave."""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from longtake.curation.clip_table import rows_table
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.inline import in_this_process
from longtake.curation.running.jobs import Job
from longtake.curation.stages.export import encoded_path, finish, plan
from longtake.curation.stages.placing import by_workers
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.dataset.shards import INDEX
from longtake.manifests.dataset.switch import changes_at_once, published
from longtake.manifests.folder import Folder

CLIPS = 40


def recipe(least: int, **export: Any) -> Recipe:
    """One that keeps the clips of at least so many pixels' width."""
    plain = {
        "name": "width",
        "filters": {"width": {}},
        "tiers": {"pretrain": {"width": f"[{least}, {least + 24}]"}},
        "captioning": {"captioner": "sidecar"},
        "export": export,
    }
    return parse_recipe(plain, source="by hand")


def name(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def fill(place: str) -> Workspace:
    """A workspace of 40 clips, 100 to 139 px wide, all of them encoded."""
    workspace, chosen = Workspace(place), recipe(100)
    protocols = f'{{"width":"{chosen.built["width"].protocol}"}}'
    clips = [
        {
            "clip_id": name(i),
            "video_id": f"v{i % 4}",
            "uri": f"/v{i % 4}.mp4",
            "start": 0.0,
            "end": 15.0,
            "status": "ok",
        }
        | {"has_frames": False, "scan_id": "scan", "protocols": protocols}
        | {"width": 100.0 + i, "width_detail": [100.0 + i]}
        for i in range(CLIPS)
    ]
    workspace.clips.append(rows_table(clips, schemas.CLIPS, ["width"]))
    exports = []
    for i in range(CLIPS):
        data, path = f"clip {i}".encode(), encoded_path(name(i))
        workspace.folder.write_whole(path, data)
        row = {"clip_id": name(i), "scan_id": "scan", "status": "ok", "path": path, "num_frames": 450, "fps": 30.0}
        row |= {
            "width": 100,
            "height": 100,
            "pace": 1.0,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        exports.append(row | {"export_protocol": chosen.export_protocol})
    workspace.exports.append(pa.Table.from_pylist(exports, schema=schemas.EXPORTS))
    return workspace


def clips_of(workspace: Workspace) -> set[int]:
    """The clips of the dataset, each looked at."""
    place = workspace.folder / "dataset" / "pretrain"
    index = published(place, ["path", "clip_id"])
    assert index is not None
    numbers = {name(i): i for i in range(CLIPS)}
    found = set()
    for path, clip in zip(*index.to_pydict().values(), strict=True):
        assert place.read(path) == f"clip {numbers[clip]}".encode()
        found.add(numbers[clip])
    files = {entry.name for entry in place.entries() if entry.name.startswith("clips/")}
    assert files == set(index["path"].to_pylist())
    return found


def test_an_index_is_read_on_no_thread_that_may_outlive_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands read it last of all, and one aborted at its end once."""
    pq.write_table(pa.table({"path": ["a", "b"], "fps": [24.0, 30.0]}), tmp_path / INDEX)
    threads: list[int] = []

    class Noted(io.FileIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            threads.append(threading.get_ident())
            return super().seek(offset, whence)

        def read(self, size: int | None = -1) -> bytes | None:
            threads.append(threading.get_ident())
            return super().read(-1 if size is None else size)

    monkeypatch.setattr(Folder, "open", lambda folder, name: Noted(f"{folder.root}/{name}"))
    index = published(Folder(tmp_path))
    assert index is not None
    assert index["fps"].to_pylist() == [24.0, 30.0]
    assert set(threads) == {threading.get_ident()}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is asked of an object store, for each file of a clip."""
    MemoryFileSystem.store.clear()
    asked: Counter[str] = Counter()
    for verb in (
        "pipe_file",
        "put_file",
        "get_file",
        "cat_file",
        "cp_file",
        "rm_file",
        "_rm",
        "open",
        "exists",
        "info",
    ):
        if (method := getattr(MemoryFileSystem, verb, None)) is None:
            continue

        def counted(self: Any, *args: Any, _verb: str = verb, _method: Any = method, **more: Any) -> Any:
            if any(isinstance(one, str) and one.endswith(".mp4") for one in args):
                asked[_verb] += 1
            return _method(self, *args, **more)

        monkeypatch.setattr(MemoryFileSystem, verb, counted)
    return asked


def test_in_a_bucket_only_what_changes_is_placed_and_no_clip_comes_through_the_driver(bucket: Counter[str]) -> None:
    workspace = fill("memory://placing/workspace")
    bucket.clear()
    finish(workspace, recipe(100))
    assert bucket["cp_file"] == 25
    assert not bucket["get_file"] + bucket["put_file"] + bucket["pipe_file"]
    assert clips_of(workspace) == set(range(25))
    bucket.clear()
    finish(workspace, recipe(103))  # Three clips leave, and three enter.
    assert bucket["cp_file"] == 3
    assert bucket["rm_file"] + bucket["_rm"] in (3, 6)  # One of the two calls may be made through the other.
    assert not bucket["get_file"] + bucket["put_file"] + bucket["pipe_file"] + bucket["exists"]
    assert clips_of(workspace) == set(range(3, 28))
    bucket.clear()
    finish(workspace, recipe(103))
    assert not bucket["cp_file"] + bucket["rm_file"] + bucket["_rm"]


def test_workers_of_the_run_ask_a_bucket_for_copies(bucket: Counter[str]) -> None:
    workspace, done = fill("memory://placing/by-workers"), list[tuple[int, int]]()

    def perform(job: Job) -> None:
        reports = list(in_this_process(pickle.loads(pickle.dumps(job))))
        done.append((job.rows, sum(report.rows for report in reports)))

    finish(workspace, recipe(100), None, by_workers(perform))
    assert bucket["cp_file"] == 25
    assert clips_of(workspace) == set(range(25))
    finish(workspace, recipe(103), None, by_workers(perform))
    assert clips_of(workspace) == set(range(3, 28))
    finish(workspace, recipe(103), None, by_workers(perform))
    assert done == [(25, 25), (3, 3)]  # Nothing has changed at last, and no worker is asked.


def test_on_a_disk_no_byte_of_a_clip_is_copied(tmp_path: Path) -> None:
    workspace = fill(str(tmp_path))
    if not changes_at_once(workspace.folder / "dataset" / "pretrain"):
        pytest.skip("this disk cannot exchange two folders")
    for least in (100, 103):
        finish(workspace, recipe(least))
        assert clips_of(workspace) == set(range(least - 100, least - 75))
        links = {path.stat().st_nlink for path in (tmp_path / "dataset").rglob("*.mp4")}
        assert links == {2}


def test_on_a_disk_that_cannot_exchange_folders_only_what_changes_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtake.manifests.dataset import switch

    monkeypatch.setattr(switch, "_exchange", lambda one, other: False)
    workspace = fill(str(tmp_path))
    finish(workspace, recipe(100))
    linked, link = list[str](), Folder.link
    removed, remove = list[str](), Folder.remove

    def counted(self: Folder, source: Folder, of: str, target: str) -> None:
        linked.append(target)
        link(self, source, of, target)

    def gone(self: Folder, one: str) -> None:
        removed.append(one)
        remove(self, one)

    monkeypatch.setattr(Folder, "link", counted)
    monkeypatch.setattr(Folder, "remove", gone)
    finish(workspace, recipe(103))
    assert sorted(one for one in linked if one.endswith(".mp4")) == sorted(
        encoded_path(name(i)).replace("encoded", "clips", 1) for i in (25, 26, 27)
    )
    assert len([one for one in removed if one.endswith(".mp4")]) == 3
    assert clips_of(workspace) == set(range(3, 28))


@pytest.mark.parametrize("formats", [["parquet"], ["parquet", "webdataset"]], ids=["copied", "read"])
@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize("store", ["memory", "s3"])
def test_an_encoded_file_that_is_gone_from_a_bucket_is_to_do_again(
    request: pytest.FixtureRequest, store: str, formats: list[str], workers: bool
) -> None:
    """It ended each export. Now the dataset is made without the clip, and the next run encodes it anew."""
    request.getfixturevalue("s3" if store == "s3" else "bucket")
    workspace = fill(f"{store}://place/gone-{workers}-{len(formats)}")
    copy = by_workers(lambda job: list(in_this_process(pickle.loads(pickle.dumps(job))))) if workers else None
    finish(workspace, recipe(100, formats=formats), None, copy)
    workspace.folder.remove(encoded_path(name(26)))
    held: dict[str, str] = {}
    assert finish(workspace, recipe(103, formats=formats), held, copy) == {"pretrain": 24}
    assert held == {}, "the clip was not in the dataset before"
    assert clips_of(workspace) == {*range(3, 28)} - {26}
    job = plan(workspace, recipe(103, formats=formats), retry_errors=False)
    assert job is not None
    assert [row["clip_id"] for batch in job.batches for row in batch.to_pylist()] == [name(26)]
    (row,) = [row for row in workspace.exports.read().to_pylist() if row["status"] == "error"]
    assert (row["clip_id"], row["error_kind"]) == (name(26), "away")
    assert "its encoded file is gone" in row["error"]


def test_a_dataset_in_a_bucket_stays_where_a_file_is_gone_that_it_needs_again(bucket: Counter[str]) -> None:
    workspace = fill("memory://gone/again")
    finish(workspace, recipe(100))
    workspace.folder.remove(encoded_path(name(5)))
    (workspace.folder / "dataset" / "pretrain").remove(encoded_path(name(5)).replace("encoded", "clips"))
    held: dict[str, str] = {}
    finish(workspace, recipe(100), held)
    assert "1 of its 25 clips would drop out only because of faults of the world (away 1)" in held["pretrain"]


def test_a_format_that_holds_the_clips_themselves_gets_them(bucket: Counter[str]) -> None:
    workspace = fill("memory://tars/workspace")
    finish(workspace, recipe(100, formats=["parquet", "webdataset"]))
    names = {entry.name for entry in (workspace.folder / "dataset" / "pretrain").entries()}
    assert any(one.startswith("webdataset/") for one in names)
    assert clips_of(workspace) == set(range(25))
