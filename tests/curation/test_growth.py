"""A corpus that grows: files that change are scanned again, those that go leave tombstones, those that come back cost nothing."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from longtake.curation.access import Access
from longtake.curation.forgetting import forget
from longtake.curation.growth import add_inputs, same_file, update
from longtake.curation.inputs import gather
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.ids import video_id
from tests.curation.workbench import CLIPS_EACH, NOTHING, Bench, call, computed, stats, videos


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return videos(tmp_path_factory.mktemp("films"), 3)


@pytest.fixture
def bench(bench: Bench, tmp_path: Path, films: list[Path]) -> Bench:
    """A workspace over a folder of three films, curated."""
    (tmp_path / "corpus").mkdir()
    for film in films:
        shutil.copy2(film, tmp_path / "corpus" / film.name)
    call(bench, "curate", tmp_path / "corpus")
    return bench


def names(bench: Bench) -> set[str]:
    index = bench.workspace / "dataset" / "pretrain" / "index.parquet"
    return {Path(uri).name for uri in pd.read_parquet(index)["uri"]}


def test_a_corpus_that_changes(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    first, second, third = (corpus / film.name for film in films)
    everything = {"scan": 0, "score": 0, "caption": 0, "export": 0}
    assert computed(call(bench, "curate", corpus)) == NOTHING
    assert names(bench) == {film.name for film in films}

    # Another film under the same name.
    shutil.copyfile(third, first)
    output = call(bench, "curate", corpus)
    assert computed(output)["scan"] == 1
    assert f"changed since they were scanned, and scanned again: 1 ({first})" in output
    assert computed(call(bench, "curate", corpus)) == everything

    # A film goes: its row says so, its clips count no more, and its cost is still recorded.
    paid = len(bench.rows("captions"))
    second.rename(tmp_path / "aside.mp4")
    output = call(bench, "curate", corpus)
    assert computed(output) == NOTHING
    assert f"gone from their folders, so that their clips do not count: 1 ({second})" in output
    counts = stats(bench)["videos"]
    assert (counts["total"], counts["ok"], counts["error_kinds"]) == (3, 2, {"removed": 1})
    assert stats(bench)["clips"]["total"] == 2 * CLIPS_EACH
    assert second.name not in names(bench)
    assert len(bench.rows("captions")) == paid
    output = call(bench, "curate", corpus, "--retry-errors")
    assert computed(output) == NOTHING
    assert "gone from their folders" not in output

    # It comes back, as it was: nothing of it is read, captioned or encoded again.
    (tmp_path / "aside.mp4").rename(second)
    output = call(bench, "curate", corpus)
    assert f"back in their folders: 1 ({second})" in output
    done = computed(output)
    assert (done["scan"], done["caption"], done["export"]) == (0, 0, 0)
    counts = stats(bench)["videos"]
    assert (counts["total"], counts["ok"], counts["error_kinds"]) == (3, 3, {})
    assert names(bench) == {film.name for film in films}


def test_forget_erases_what_a_tombstone_kept(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    gone = tmp_path / "corpus" / films[1].name
    gone.unlink()
    call(bench, "curate", tmp_path / "corpus")
    frames = bench.workspace / "frames"
    assert len(list(frames.rglob("*.parquet"))) == 3
    workspace = Workspace(str(bench.workspace))
    assert forget(workspace, [str(gone)]).clips == CLIPS_EACH
    assert len(list(frames.rglob("*.parquet"))) == 2
    assert set(workspace.videos.read(["status"])["status"].to_pylist()) == {"ok"}
    assert workspace.inputs.rows() == 2


# Without films: the facts about files.


def seen(workspace: Workspace, corpus: Path, hashes: bool = False) -> str:
    gathered = gather([str(corpus)], workspace=workspace.path)
    update(workspace, gathered, Access(), hashes=hashes)
    return "\n".join(gathered.report.lines()[1:])


def scanned(workspace: Workspace) -> None:
    """As if a scan had read the files as they were listed."""
    rows = workspace.inputs.read().to_pylist()
    told = {"status": "ok", "clips": [], "scan_id": "1"}
    kept = ("video_id", "uri", "bytes", "modified", "sha256")
    made = [{name: row[name] for name in kept} | told for row in rows]
    workspace.videos.append(pa.Table.from_pylist(made, schema=schemas.VIDEOS))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b/c.mp4", "b/d.mp4", "e/f.mp4"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path / "corpus"


def test_what_is_away_is_not_gone(tmp_path: Path, corpus: Path) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    assert seen(workspace, corpus) == ""
    scanned(workspace)
    (corpus / "e" / "f.mp4").unlink()  # The folder e is empty now, as a mount point is.
    assert seen(workspace, corpus) == ""
    (corpus / "b" / "c.mp4").unlink()
    assert "their clips do not count: 1" in seen(workspace, corpus)
    (corpus / "e").rmdir()  # The user removed the whole folder.
    shutil.rmtree(corpus / "b")
    assert "their clips do not count: 2" in seen(workspace, corpus)
    status = workspace.videos.read(["uri", "error_kind"])
    gone = {Path(uri).name for uri, kind in zip(*status.to_pydict().values(), strict=True) if kind == "removed"}
    assert gone == {"c.mp4", "d.mp4", "f.mp4"}
    workspace.inputs.compact()
    assert workspace.inputs.rows() == 4
    # A folder that was not read says nothing of those in it.
    (corpus / "a.mp4").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "g.mp4").write_bytes(b"g")
    assert seen(workspace, tmp_path / "other") == ""


@pytest.mark.parametrize("hashes", [False, True])
def test_a_change_is_seen_by_size_and_time_or_by_content(tmp_path: Path, corpus: Path, hashes: bool) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    seen(workspace, corpus, hashes)
    scanned(workspace)
    assert seen(workspace, corpus, hashes) == ""
    os.utime(corpus / "a.mp4")  # The file is written anew with the same content.
    assert ("scanned again: 1" in seen(workspace, corpus, hashes)) is not hashes
    other = corpus / "b" / "c.mp4"  # The file has other content of the same size, and the old time.
    other.write_bytes(b"b/C.mp4")
    os.utime(other, (1_700_000_000, 1_700_000_000))
    assert (str(other) in seen(workspace, corpus, hashes)) is hashes


def test_the_content_of_a_file_is_read_once_by_a_command(tmp_path: Path) -> None:
    corpus, workspace = tmp_path / "corpus", Workspace(str(tmp_path / "workspace"))
    corpus.mkdir()
    (corpus / "a.mp4").write_bytes(bytes(20_000_000))
    for _ in range(2):
        before = read_bytes()
        seen(workspace, corpus, hashes=True)
        assert 20_000_000 <= read_bytes() - before < 30_000_000
        scanned(workspace)


def read_bytes() -> int:
    """How much this process has read of files."""
    return int(Path("/proc/self/io").read_text().split()[1])


def archive(path: Path, *names: str) -> bytes:
    """Write a tar archive of these members; its bytes."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes(1000)))
    return path.read_bytes()


def test_what_is_not_read_of_an_archive_is_not_gone(tmp_path: Path) -> None:
    """It may be half copied, or its disk may be at fault."""
    workspace, corpus = Workspace(str(tmp_path / "workspace")), tmp_path / "corpus"
    corpus.mkdir()
    path = corpus / "a.tar"
    whole = archive(path, "a.mp4", "b.mp4", "c.mp4")
    seen(workspace, corpus)
    scanned(workspace)
    for damaged in (whole[:2700], b"no archive" * 100):
        path.write_bytes(damaged)
        report = seen(workspace, corpus)
        assert "cannot be used" in report
        assert "gone" not in report
        assert not workspace.inputs.read()["removed"].is_valid().to_numpy().any()
    path.write_bytes(whole)
    report = seen(workspace, corpus)
    assert "cannot be used" not in report
    assert "gone" not in report
    assert workspace.inputs.rows() == 3  # The row of the archive itself is gone with the damage.
    # It was written anew without one of them.
    archive(path, "a.mp4", "c.mp4")
    assert f"their clips do not count: 1 ({path}#member=b.mp4)" in seen(workspace, corpus)


def test_what_nobody_knows_of_a_file_is_no_change(tmp_path: Path, corpus: Path) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    seen(workspace, corpus)
    scanned(workspace)
    rows = workspace.videos.read()
    older = rows.drop_columns(["listed_bytes", "modified", "sha256"])  # The row is of a version that did not note it.
    workspace.videos.append(older)
    assert seen(workspace, corpus) == ""
    inputs, videos_ = workspace.inputs.read(), workspace.videos.read()
    assert same_file(inputs, videos_).all()


def test_a_file_that_grew_until_it_was_scanned_is_scanned_once_more_when_it_is_listed_again(
    tmp_path: Path, corpus: Path
) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    seen(workspace, corpus)
    row = {"video_id": video_id(str(corpus / "a.mp4")), "uri": str(corpus / "a.mp4"), "status": "ok", "clips": []}
    # The file had five bytes when it was listed.
    listed = {"bytes": 1000, "listed_bytes": 5, "modified": 1_700_000_000 * 10**6}
    workspace.videos.append(pa.Table.from_pylist([row | listed], schema=schemas.VIDEOS))
    wanted = workspace.inputs.read().filter(pc.equal(workspace.inputs.read()["uri"], row["uri"]))
    assert same_file(wanted, workspace.videos.read()).all()  # The file was not listed since.
    (corpus / "a.mp4").write_bytes(b"a" * 1000)
    assert "scanned again: 1" in seen(workspace, corpus)


def test_a_growing_list_of_inputs_appends_what_is_new_only(tmp_path: Path, corpus: Path) -> None:
    workspace = Workspace(str(tmp_path / "workspace"))
    table = gather([str(corpus)]).table
    add_inputs(workspace, [table.slice(0, 3)])
    before = workspace.inputs.parts()
    add_inputs(workspace, [table.slice(0, 3)])
    assert workspace.inputs.parts() == before
    add_inputs(workspace, [table])
    assert [part.rows for part in workspace.inputs.parts()] == [3, 1]
    assert workspace.inputs.read().sort_by("uri") == table.sort_by("uri")


def test_of_a_bucket_sizes_come_with_the_listing_and_what_is_gone_is_seen(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    place = MemoryFileSystem()
    for name, size in {"one.mp4": 10, "two.mp4": 2000, "far/three.mp4": 30}.items():
        place.pipe_file(f"/films/{name}", b"x" * size)
    workspace = Workspace(str(tmp_path / "workspace"))

    def look() -> str:
        gathered = gather(["memory:///films/"], workspace=workspace.path)
        update(workspace, gathered, Access())
        return "\n".join(gathered.report.lines()[1:])

    assert look() == ""
    sizes = {row["uri"].rpartition("/")[2]: row["bytes"] for row in workspace.inputs.read().to_pylist()}
    assert sizes == {"one.mp4": 10, "two.mp4": 2000, "three.mp4": 30}
    scanned(workspace)
    place.rm_file("/films/one.mp4")
    assert "their clips do not count: 1" in look()
    removed = {row["video_id"]: row["removed"] for row in workspace.inputs.read().to_pylist()}
    (gone,) = [video for video, when in removed.items() if when]
    assert gone == video_id("memory:///films/one.mp4")


def test_what_is_gone_of_a_bucket_is_seen_by_one_listing(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that was gone cost two requests, one after the other."""
    import s3fs
    from aiobotocore.httpsession import AIOHTTPSession

    asked, send = list[str](), AIOHTTPSession.send

    async def counted(self: AIOHTTPSession, request: Any) -> Any:
        asked.append(request.url)
        return await send(self, request)

    store = s3fs.S3FileSystem()
    for number in range(30):
        store.pipe_file(f"place/grown/{number % 3}/{number}.mp4", b"x")
    store.pipe_file("place/grown/notes", b"x")
    workspace = Workspace(str(tmp_path / "workspace"))

    def look(*named: str) -> str:
        gathered = gather(["s3://place/grown/", *named], workspace=workspace.path)
        update(workspace, gathered, Access())
        return "\n".join(gathered.report.lines()[1:])

    listed = tmp_path / "list.txt"
    listed.write_text("s3://place/grown/notes\n")
    look(str(listed))  # It is an input since a list names it: the folder leaves it out by its name.
    monkeypatch.setattr(AIOHTTPSession, "send", counted)
    for number in range(20):
        store.rm_file(f"place/grown/{number % 3}/{number}.mp4")
    asked.clear()
    assert "their clips do not count: 20" in look()
    assert len(asked) == 2
    gone = {row["uri"].rpartition("/")[2] for row in workspace.inputs.read().to_pylist() if row["removed"]}
    assert gone == {f"{number}.mp4" for number in range(20)}
