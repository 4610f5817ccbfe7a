"""A folder is one door to a place: the same answers on a disk, in memory, and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from longtake.manifests.folder import (
    Folder,
    FolderError,
    folder_by_name,
    is_uri,
    local_path,
    whole_file,
    whole_folder,
)


@pytest.fixture(params=["disk", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(tmp_path / "a folder, with ünusual name")
    if request.param == "memory":
        return Folder(f"memory://{uuid4().hex}")
    request.getfixturevalue("s3")
    return Folder(f"s3://place/{uuid4().hex}")


# ── the same everywhere ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read(folder: Folder) -> None:
    assert not folder.exists()
    assert folder.names() == []
    assert list(folder.entries()) == []
    with pytest.raises(FileNotFoundError):
        folder.read("a/b.bin")
    for data in (b"first", b"the second, longer", b""):
        folder.write_whole("a/b.bin", data)
        assert folder.read("a/b.bin") == data
    folder.write_whole("c.bin", b"0123456789")
    assert folder.read("c.bin", at_most=4) == b"0123"
    with folder.open("c.bin") as file:
        file.seek(7)
        assert file.read() == b"789"
    assert folder.exists("a/b.bin")
    assert not folder.exists("a/c.bin")
    assert sorted(folder.names()) == ["a", "c.bin"]
    assert (folder / "a").names() == ["b.bin"]
    assert sorted((entry.name, entry.size) for entry in folder.entries()) == [("a/b.bin", 0), ("c.bin", 10)]
    assert abs(time.time() - folder.modified("c.bin").timestamp()) < 120


def test_a_file_is_made_from_a_path(folder: Folder, tmp_path: Path) -> None:
    with folder.whole_file("deep/er/x.bin") as part:
        part.write_bytes(b"by path")
        assert not folder.exists("deep/er/x.bin")
        assert list(folder.entries()) == []
    assert folder.read("deep/er/x.bin") == b"by path"
    (tmp_path / "local").write_bytes(b"put")
    folder.put(tmp_path / "local", "y.bin")
    assert folder.read("y.bin") == b"put"
    with pytest.raises(RuntimeError), folder.whole_file("deep/er/x.bin") as part:  # noqa: PT012
        part.write_bytes(b"half")
        raise RuntimeError
    assert folder.read("deep/er/x.bin") == b"by path"
    assert sorted(entry.name for entry in folder.entries()) == ["deep/er/x.bin", "y.bin"]


def test_a_name_can_be_chosen_at_the_last_moment(folder: Folder) -> None:
    with folder.prepared("x", b"data") as give:
        assert list(folder.entries()) == []
        give("chosen")
    assert folder.read("chosen") == b"data"
    assert folder.names() == ["chosen"]


def test_of_many_that_create_a_file_one_succeeds(folder: Folder) -> None:
    def attempt(number: int) -> int | None:
        try:
            folder.create_only("in/lock", str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(attempt, range(8)) if number is not None]
    assert len(winners) == 1
    assert folder.read("in/lock") == str(winners[0]).encode()
    with pytest.raises(FileExistsError):
        folder.create_only("in/lock", b"later")
    folder.remove("in/lock")
    folder.create_only("in/lock", b"again")
    assert folder.read("in/lock") == b"again"


def test_bytes_are_added_at_the_end(folder: Folder) -> None:
    for line in (b"one\n", b"two\n", b"three\n"):
        folder.append("log", line)
    assert folder.read("log") == b"one\ntwo\nthree\n"


def test_a_link_is_the_same_file(folder: Folder, tmp_path: Path) -> None:
    other = folder / "other"
    folder.write_whole("film", b"frames")
    other.write_whole("film", b"an older one")
    other.link(folder, "film", "film")
    assert other.read("film") == b"frames"
    if folder.is_local:
        assert os.path.samefile(folder.path / "film", other.path / "film")
    here = Folder(tmp_path / "here")
    here.link(folder, "film", "sub/copy")
    assert here.read("sub/copy") == b"frames"
    folder.remove("film")
    folder.remove("film")  # The file is gone already.
    assert other.read("film") == b"frames"


def test_all_of_a_folder_goes(folder: Folder) -> None:
    folder.write_whole("a/b/c", b"1")
    folder.write_whole("d", b"2")
    (folder / "a").remove_all()
    assert [entry.name for entry in folder.entries()] == ["d"]
    folder.remove_all()
    folder.remove_all()
    assert not folder.exists("d")


def test_it_can_be_pickled_and_compared(folder: Folder) -> None:
    folder.write_whole("a", b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert hash(again) == hash(folder)
    assert again.read("a") == b"1"
    assert (folder / "x") != folder


@pytest.mark.parametrize(
    "place",
    ["s3://KEY:HIDDEN@bucket/ws", "s3://HIDDEN@bucket/ws", "https://u:HIDDEN@h/ws", "memory://x/ws?token=HIDDEN"],
)
def test_the_address_of_a_folder_holds_no_secret(place: str) -> None:
    with pytest.raises(FolderError, match="give them in the environment") as raised:
        folder_by_name(place)
    assert "HIDDEN" not in str(raised.value)
    assert folder_by_name("memory://x/ws") == Folder("memory://x/ws")


# ── on a disk ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_paths_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder("ws") == Folder(tmp_path / "ws") == Folder(f"file://{tmp_path}/ws")
    assert Folder(f"file://{tmp_path}/a%20b") == Folder(f"file://localhost{tmp_path}/a b") == Folder(tmp_path / "a b")
    assert Folder("memory://x/y").uri == "memory:///x/y"
    assert is_uri("s3://bucket/x")
    assert not is_uri("/a/b://c")
    assert not is_uri("C:/films")
    assert local_path("a.mp4") == tmp_path / "a.mp4"
    assert local_path(f"file://{tmp_path}/a.mp4") == tmp_path / "a.mp4"
    assert local_path("https://example.com/a.mp4") is None
    with pytest.raises(FolderError, match="nowhere://x"):
        Folder("nowhere://x")
    with pytest.raises(ValueError, match="is not a folder of this machine"):
        _ = Folder("memory://x").path


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the rename must not leave a name without its bytes: sync, rename, sync of the folder."""
    calls: list[str] = []
    sync, replace, link = os.fsync, os.replace, os.link

    def noted(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")
            calls.append("fsync folder" if folder else name)
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", sync))
    monkeypatch.setattr(os, "replace", noted("replace", replace))
    monkeypatch.setattr(os, "link", noted("link", link))
    folder = Folder(tmp_path / "new" / "deeper")
    folder.write_whole("a", b"1")
    above = len((tmp_path / "new" / "deeper").parents)
    assert calls == [*["fsync folder"] * above, "fsync", "replace", "fsync folder"], "names of folders come first"
    calls.clear()
    folder.write_whole("a", b"1")
    assert calls == ["fsync", "replace", "fsync folder"], "once for each process"
    calls.clear()
    with folder.whole_file("b") as part:
        part.write_bytes(b"2")
    assert calls == ["fsync", "replace", "fsync folder"]
    calls.clear()
    folder.create_only("c", b"3")
    assert calls == ["fsync", "link", "fsync folder"]
    calls.clear()
    folder.append("d", b"4")
    assert calls == ["fsync", "fsync folder"]
    calls.clear()
    with whole_file(tmp_path / "new" / "deeper" / "e") as part:
        part.write_bytes(b"5")
    assert calls == ["fsync", "replace", "fsync folder"]


def _write_for_ever(path: str) -> None:
    folder, number = Folder(path), 0
    while True:
        number += 1
        folder.write_whole("file", bytes([number % 251]) * 300_000)


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(4):
        writer = context.Process(target=_write_for_ever, args=(str(tmp_path),))
        writer.start()
        assert writer.pid is not None
        deadline = time.monotonic() + 60
        while not (tmp_path / "file").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        data = Folder(tmp_path).read("file")
        assert len(data) == 300_000
        assert len(set(data)) == 1
    left = [name for name in os.listdir(tmp_path) if name != "file"]
    assert Folder(tmp_path).remove_abandoned(3600) == 0  # The files may still be written.
    assert Folder(tmp_path).remove_abandoned(-1) == len(left)
    assert os.listdir(tmp_path) == ["file"]
    assert [entry.name for entry in Folder(tmp_path).entries()] == ["file"]


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        Folder(tmp_path / "x").names()
    with pytest.raises(OSError, match=r"exists|directory"):
        Folder(tmp_path / "x").write_whole("y", b"1")


def test_a_whole_folder_and_links_to_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_bytes(b"1")
    (tmp_path / "set").symlink_to(elsewhere)
    with whole_folder(tmp_path / "set") as part:
        (part / "new").write_bytes(b"2")
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["new"]
    assert (elsewhere / "mine").read_bytes() == b"1"
    (tmp_path / "set2").symlink_to(elsewhere)
    Folder(tmp_path / "set2").remove_all()
    assert (elsewhere / "mine").read_bytes() == b"1"


# ── what other stores are asked ──────────────────────────────────────────────────────────────────────────────────────


def test_s3_is_asked_to_put_only_if_nothing_is_there(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(f"s3://place/{uuid4().hex}")
    asked: list[dict[str, Any]] = []
    call = folder.filesystem._call_s3

    async def noted(method: str, *rest: Any, **words: Any) -> Any:
        asked.append({"method": method, **words})
        return await call(method, *rest, **words)

    monkeypatch.setattr(folder.filesystem, "_call_s3", noted)
    folder.create_only("lock", b"1")
    (put,) = [ask for ask in asked if ask["method"] == "put_object"]
    assert put["IfNoneMatch"] == "*"


class Listener(BaseHTTPRequestHandler):
    """Answers the first PUT or POST well, and each later one as a store does whose condition does not hold."""

    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []
    refusal = 412
    body = b"{}"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        good = not self.asked
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(201 if good else self.refusal)
        if not good:
            self.send_header("x-ms-error-code", "BlobAlreadyExists")
        for name in ("ETag", "x-ms-request-id"):
            self.send_header(name, '"0x1"')
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 12:00:00 GMT")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing goes to the terminal."""


@pytest.fixture
def listener() -> Iterator[tuple[str, type[Listener]]]:
    """A server on loopback that notes what it is asked: its address, and the notes."""
    kind = type("Noting", (Listener,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kind
    server.shutdown()
    server.server_close()


def of(filesystem: Any, root: str) -> Folder:
    folder = Folder("memory://x")
    folder.filesystem, folder.root = filesystem, root
    return folder


def test_gcs_is_asked_to_put_only_if_nothing_is_there(listener: tuple[str, type[Listener]]) -> None:
    core = pytest.importorskip("gcsfs.core")
    address, notes = listener
    folder = of(core.GCSFileSystem(token="anon", endpoint_url=address, skip_instance_cache=True), "bucket/ws")
    folder.create_only("lock", b"1")
    ((path, _),) = notes.asked
    assert parse_qs(urlsplit(path).query)["ifGenerationMatch"] == ["0"]
    notes.body = (
        b'{"error": {"code": 412, "message": "At least one of the pre-conditions you specified did not hold."}}'
    )
    with pytest.raises(FileExistsError):
        folder.create_only("lock", b"2")


def test_azure_is_asked_to_put_only_if_nothing_is_there(listener: tuple[str, type[Listener]]) -> None:
    adlfs = pytest.importorskip("adlfs")
    address, notes = listener
    notes.refusal, notes.body = 409, b""
    known = f"AccountName=dev;AccountKey=bm8ga2V5;BlobEndpoint={address}/dev;DefaultEndpointsProtocol=http"
    folder = of(adlfs.AzureBlobFileSystem(connection_string=known, skip_instance_cache=True), "container/ws")
    folder.create_only("lock", b"1")
    ((path, headers),) = notes.asked
    assert path.startswith("/dev/container/ws/lock")
    assert headers["if-none-match"] == "*"
    with pytest.raises(FileExistsError):
        folder.create_only("lock", b"2")
