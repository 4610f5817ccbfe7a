"""Folders and buckets of any number of files: the same inputs, in the same order, and only some of them in memory."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.curation import gathered, listing
from longtake.curation.access import Access
from longtake.curation.gathered import Found
from longtake.curation.growth import update
from longtake.curation.inputs import gather
from longtake.curation.listing import Inodes, Waiting, files_below, in_order, looked_through
from longtake.curation.workspace import Workspace

PAGE = 7  # Files of a page of the simulated bucket.


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to nothing is held in memory."""
    monkeypatch.setattr(listing, "HELD", 40)
    monkeypatch.setattr(listing, "_BLOCK", 10)
    monkeypatch.setattr(gathered, "HELD", 40)
    monkeypatch.setattr(gathered, "_ROWS", 20)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=3), max_size=60), held=st.integers(1, 20))
def test_texts_are_sorted_however_few_are_held(texts: list[str], held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "HELD", held)
    monkeypatch.setattr(listing, "_BLOCK", 3)
    assert list(in_order(iter(texts))) == sorted(texts)


def test_a_name_that_is_no_utf8_is_put_aside_too(few: None) -> None:
    names = [os.fsdecode(b"\xff%d" % i) for i in range(100)]
    assert list(in_order(names)) == sorted(names)


def test_what_waits_comes_in_order_while_more_is_added(few: None) -> None:
    waiting, came = Waiting(), list[str]()
    for i in range(95):
        waiting.append(str(i))
    for text in waiting:
        came.append(text)
        if len(came) <= 100:
            waiting.append(f"more {text}")
    assert came[:95] == [str(i) for i in range(95)]
    assert len(came) == 195


def test_a_file_has_the_name_that_it_came_under_first(few: None) -> None:
    seen = Inodes()
    for i in range(1, 500):
        assert seen.first(i * 7919, i) == i
        assert seen.first((i + 1) // 2 * 7919, -1) == (i + 1) // 2
    assert [seen.first(i * 7919, -1) for i in range(1, 500)] == list(range(1, 500))
    assert seen.first(2**63 + 5, 9) == 9
    assert seen.first(2**63 + 5, 10) == 9


def fill(folder: Path, count: int) -> None:
    """So many films, in one folder and in folders of 50 below it, some under two names, and some workspaces."""
    for i in range(count):
        below = folder / f"{i // 50:05d}" if i % 2 else folder
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{i:08d}.mp4").touch()
        if i % 10 == 0:
            os.link(below / f"{i:08d}.mp4", below / f"{i:08d}-again.mp4")
            (folder / f"link-{i:08d}.mp4").symlink_to(below / f"{i:08d}.mp4")
    (folder / ".hidden.mp4").touch()
    (folder / "notes.md").touch()


def test_a_folder_gives_the_same_however_few_of_its_files_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "films", 300)
    whole = gather([str(tmp_path / "films")])
    pattern = gather([str(tmp_path / "films/**/*.mp4")])
    monkeypatch.setattr(listing, "HELD", 16)
    monkeypatch.setattr(gathered, "HELD", 16)
    for item, wanted in ((tmp_path / "films", whole), (tmp_path / "films/**/*.mp4", pattern)):
        found = gather([str(item)])
        assert found.table.sort_by("uri") == wanted.table.sort_by("uri")
        assert found.report == wanted.report
    assert whole.report.videos == 300


def peak(folder: Path) -> int:
    """Bytes of Python objects, at most, while the films of a folder are gathered and counted: the least of three times, since
    objects that other threads of this process make count, too."""
    return min(peak_once(folder) for _ in range(3))


def peak_once(folder: Path) -> int:
    tracemalloc.start()
    found = gather([str(folder)])
    count = sum(table.num_rows for table in found.tables())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == found.report.videos
    return most


def test_memory_does_not_grow_with_the_files_of_a_folder(few: None, tmp_path: Path) -> None:
    """A row of an input takes some 1.5 KB: here 26 bytes of each file are left, and 64 files of others that are put aside."""
    fill(tmp_path / "some", 300)
    fill(tmp_path / "more", 1100)
    peak(tmp_path / "some")
    assert peak(tmp_path / "more") - peak(tmp_path / "some") < 800 * 250


class Pages:
    """A bucket that is listed a page at a time, as S3 does it; it counts how many files it has named, and keeps no list."""

    def __init__(self, name_of: Callable[[int], str], count: int) -> None:
        self.req_kw: dict[str, str] = {}
        self.name_of, self.count, self.named = name_of, count, 0

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def isdir(self, path: str) -> bool:
        return True

    def unstrip_protocol(self, path: str) -> str:
        return f"s3://{path}"

    def call_s3(self, method: str, Bucket: str, Prefix: str, ContinuationToken: str = "0") -> dict[str, Any]:
        assert (method, Bucket, Prefix) == ("list_objects_v2", "bucket", "films/")
        start = int(ContinuationToken)
        end = min(start + PAGE, self.count)
        self.named += end - start
        when = datetime(2026, 1, 1, tzinfo=UTC)
        keys = [{"Key": f"films/{self.name_of(i)}", "Size": i, "LastModified": when} for i in range(start, end)]
        return {"Contents": keys, "IsTruncated": end < self.count, "NextContinuationToken": str(end)}


def test_a_bucket_is_drawn_a_page_ahead() -> None:
    bucket = Pages(lambda i: f"{i:08d}.mp4", 1000)
    for i, (name, info) in enumerate(files_below(bucket, "bucket/films")):
        assert (name, info["size"]) == (f"bucket/films/{i:08d}.mp4", i)
        assert bucket.named <= i + PAGE
    assert bucket.named == 1000


@pytest.mark.slow  # A server has to start, and takes a thousand files.
def test_pages_of_s3_are_what_its_client_finds(s3: str) -> None:
    import s3fs

    place = s3fs.S3FileSystem()
    names = [f"{i % 7}/{i:04d}.mp4" for i in range(1010)] + ["7.mp4", "é.mp4", "0.mp4"]
    for i, name in enumerate(names):
        place.pipe_file(f"place/listing/{name}", b"x" * (i % 9))
    found = list(files_below(place, "place/listing"))
    wanted = sorted(place.find("place/listing", detail=True).items())
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for key in ("size", "LastModified"):
        assert [told[key] for _, told in found] == [told[key] for _, told in wanted]
    assert list(files_below(place, "place/nothing/")) == []


def test_a_long_listing_is_looked_through_and_asked_for_again(few: None) -> None:
    asked = list[int]()

    def make(count: int) -> Callable[[], Iterator[int]]:
        def listed() -> Iterator[int]:
            asked.append(count)
            yield from range(count)

        return listed

    for count in (0, 39, 40, 41, 200):
        seen = list[int]()
        asked.clear()
        assert list(looked_through(make(count), seen.append)) == list(range(count)) == seen
        assert len(asked) == (1 if count <= 40 else 2)


@pytest.mark.parametrize("count", [30, 150])
def test_of_a_bucket_only_some_films_are_held(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """With a workspace in it, which is known by what comes after its first files."""
    made = ["ws/encoded/ab/x.mp4", "ws/mine.mp4", "ws/recipe.yaml", "ws/videos/0-1.parquet"]
    names = sorted([*(f"{i:08d}.mp4" for i in range(count)), *made, "notes.md"])
    bucket = Pages(lambda i: names[i], len(names))
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda uri: (bucket, uri.removeprefix("s3://").rstrip("/")))
    held, relieve = list[int](), Found.relieve

    def looked(self: Found) -> None:
        held.append(len(self.rows))
        relieve(self)

    monkeypatch.setattr(Found, "relieve", looked)
    found = gather(["s3://bucket/films/"])
    workspace = Workspace(str(tmp_path))
    update(workspace, found, Access())
    rows = workspace.inputs.read().to_pylist()
    assert sorted(row["uri"] for row in rows) == [f"s3://bucket/films/{i:08d}.mp4" for i in range(count)]
    assert all(row["bytes"] == names.index(row["uri"].rpartition("/")[2]) for row in rows)
    assert found.report.videos == found.report.files == count
    assert found.report.left_out["a workspace"].examples == ["s3://bucket/films/ws"]
    assert max(held) <= 41
    assert bucket.named == len(names) * (1 if len(names) <= 40 else 2)
