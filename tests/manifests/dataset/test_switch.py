"""At each moment of a switch, before each single file operation, one of the two datasets is whole."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from longtake.manifests.dataset import switch as switching
from longtake.manifests.dataset.shards import dataset_table, finish_dataset, write_shards
from longtake.manifests.dataset.switch import OURS, beside, carry_over, changes_at_once, published, switch
from longtake.manifests.folder import Folder
from tests.manifests.dataset.test_shards import row

Clips = Mapping[str, bytes]  # By path in the dataset: the content.
OLD: Clips = {f"clips/{name}.mp4": f"old {name}".encode() for name in "abcd"}
# `a` stays, `b` is another file under another name, `c` goes, `e` comes.
NEW: Clips = {"clips/a.mp4": b"old a", "clips/b-2.mp4": b"new b", "clips/d.mp4": b"old d", "clips/e.mp4": b"new e"}


def make(folder: Path, clips: Clips, mark: str | None) -> None:
    rows = []
    for number, (path, content) in enumerate(clips.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        rows.append(row(number, path=path, sha256=hashlib.sha256(content).hexdigest()))
    write_shards(dataset_table(rows), folder, rows_per_shard=2, mark=mark)
    (folder / "README.md").write_text(f"{len(clips)} clips")
    finish_dataset(folder)


def put(place: Folder, clips: Clips, mark: str | None) -> None:
    at_once = changes_at_once(place)
    with beside(place) as folder:
        if at_once:
            carry_over(place, folder, OURS)
        make(folder, clips, mark)
        switch(folder, place, at_once, OURS, {})


def whole(place: Folder, checksums: bool) -> str:
    """Which of the two datasets is there; an AssertionError unless it is whole. checksums: also by its list of them."""
    index = pq.read_table(io.BytesIO(place.read("index.parquet")))
    clips = {path: place.read(path) for path in index["path"].to_pylist()}
    found = {tuple(OLD.items()): "old", tuple(NEW.items()): "new"}[tuple(clips.items())]
    names = [entry.name for entry in place.entries()]
    shards = [pq.read_table(io.BytesIO(place.read(name))) for name in names if name.startswith("shards/")]
    rows = [one for shard in shards for one in shard.to_pylist()]
    assert all(one in rows for one in index.to_pylist()), "the shards hold what the index does"
    if checksums:
        assert sorted(one["path"] for one in rows) == sorted(clips)
        for line in place.read("SHA256SUMS").decode().splitlines():
            digest, _, name = line.partition("  ")
            assert hashlib.sha256(place.read(name)).hexdigest() == digest, name
    return found


_look: Callable[[], None] | None = None
_OPERATIONS = (
    "os.rename",
    "os.link",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    global _look
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
    if _look is not None and (event in _OPERATIONS or writes):
        look, _look = _look, None  # The look itself is made of file operations.
        try:
            look()
        finally:
            _look = look


sys.addaudithook(_on_event)


@contextmanager
def looking(place: Folder, checksums: bool) -> Iterator[list[str]]:
    """What is found before each file operation in the block: `old`, `new`, or what is wrong."""
    global _look
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append(whole(place, checksums))
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")

    _look = look
    try:
        yield seen
    finally:
        _look = None
        look()


def test_two_folders_change_places(tmp_path: Path) -> None:
    place = Folder(tmp_path / "pretrain")
    if not changes_at_once(place):
        pytest.skip("this disk cannot exchange two folders")
    put(place, OLD, None)
    (place.path / "notes.txt").write_text("mine")
    (place.path / "marks").mkdir()
    (place.path / "marks" / "a.json").write_text("{}")
    with looking(place, checksums=True) as seen:
        put(place, NEW, None)
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, reverse=True)
    assert len(seen) > 20
    assert (place.path / "notes.txt").read_text() == "mine"
    assert (place.path / "marks" / "a.json").read_text() == "{}"
    assert "notes.txt" in (place.path / "SHA256SUMS").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["pretrain"]


def test_a_disk_that_cannot_exchange_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "_exchange", lambda one, other: False)
    place = Folder(tmp_path / "pretrain")
    put(place, OLD, "1")
    (place.path / "notes.txt").write_text("mine")
    with looking(place, checksums=False) as seen:
        put(place, NEW, "2")
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, reverse=True)
    assert whole(place, checksums=True) == "new"
    assert (place.path / "notes.txt").read_text() == "mine"
    left = {entry.name for entry in place.entries()}
    assert {name for name in left if name.startswith("clips/")} == set(NEW)


def test_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    place = Folder("memory://test-switch/dataset/pretrain")
    put(place, OLD, "1")
    seen: list[str] = []
    for name in ("pipe_file", "put_file", "cp_file", "rm_file", "_rm", "mv"):
        if (method := getattr(type(store), name, None)) is None:
            continue

        def looked(self: Any, *args: Any, _method: Any = method, **kwargs: Any) -> Any:
            if "test-switch" in str(args):  # Threads of other tests may have this store at work, too.
                seen.append(whole(place, checksums=False))
            return _method(self, *args, **kwargs)

        monkeypatch.setattr(type(store), name, looked)
    put(place, NEW, "2")
    monkeypatch.undo()
    assert len(seen) > 8
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, reverse=True)
    assert whole(place, checksums=True) == "new"


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    place = Folder(tmp_path / "pretrain")
    put(place, OLD, None)
    left = tmp_path / ".pretrain.new"
    make(left, NEW, None)
    with beside(place) as folder:
        assert folder == left
        assert not any(folder.iterdir())
    assert not left.exists()
    assert whole(place, checksums=True) == "old"


def test_a_dataset_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "pretrain").symlink_to(tmp_path / "disk" / "real")
    place = Folder(tmp_path / "pretrain")
    put(place, OLD, None)
    put(place, NEW, None)
    assert (tmp_path / "pretrain").is_symlink()
    assert whole(place, checksums=True) == "new"


def test_what_is_published(tmp_path: Path) -> None:
    place = Folder(tmp_path / "pretrain")
    assert published(place, ["clip_id"]) is None
    put(place, OLD, None)
    table = published(place, ["path"])
    assert table is not None
    assert table["path"].to_pylist() == list(OLD)


def test_a_process_that_read_an_index_ends_well(tmp_path: Path) -> None:
    """Arrow's own threads once let go of the file after the interpreter had ended: more than half of such processes aborted."""
    make(tmp_path, OLD, None)
    program = (
        "import sys\nfrom longtake.manifests.dataset.switch import published\n"
        "from longtake.manifests.parts import open_folder\npublished(open_folder(sys.argv[1]))"
    )
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
