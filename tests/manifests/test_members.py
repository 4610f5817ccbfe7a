"""Videos in archives and tables are read where they lie."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.manifests.members import (
    MemberError,
    cell_uri,
    container_of,
    member_uri,
    members,
    open_inside,
    read_index,
    video_columns,
)

FILES = {
    "a.mp4": bytes(range(256)) * 40,
    "a.json": b"{}",
    "sub/b c#é.mp4": b"second" * 1000,
    "empty.mp4": b"",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "shard-000000.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def test_members_are_files_and_their_bytes_are_theirs(archive: Path) -> None:
    with archive.open("rb") as file:
        found = list(members(file))
    assert [member.name for member in found] == list(FILES)
    for name, data in FILES.items():
        with open_inside(archive.open("rb"), member_uri(str(archive), name)) as inside:
            assert inside.read() == data
    with pytest.raises(MemberError, match=r"no member 'link\.mp4'"):
        open_inside(archive.open("rb"), member_uri(str(archive), "link.mp4"))


@given(st.lists(st.tuples(st.integers(0, 10_300), st.integers(0, 3000)), max_size=20))
def test_a_member_is_a_file_like_any_other(reads: list[tuple[int, int]]) -> None:
    whole = FILES["a.mp4"]
    outer = io.BytesIO(b"x" * 512 + whole + b"y" * 512)
    from longtake.manifests.members import _Range

    inside, plain = io.BufferedReader(_Range(outer, 512, len(whole))), io.BytesIO(whole)
    assert inside.seek(0, io.SEEK_END) == len(whole)
    for at, size in reads:
        inside.seek(at)
        plain.seek(at)
        assert inside.read(size) == plain.read(size)
        assert inside.tell() == (plain.tell() if at <= len(whole) else at)


def test_no_more_is_read_than_headers_and_the_range(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(20):
            entry = tarfile.TarInfo(f"{number}.mp4")
            entry.size = 1_000_000
            tar.addfile(entry, io.BytesIO(np.full(1_000_000, number, np.uint8).tobytes()))

    class Counting(io.BufferedReader):
        total = 0

        def read(self, *size: Any) -> bytes:
            data = super().read(*size)
            Counting.total += len(data)
            return data

    with open_inside(Counting(io.FileIO(path)), member_uri(str(path), "17.mp4")) as inside:
        inside.seek(500_000)
        assert set(inside.read(1000)) == {17}
    assert Counting.total < 60_000


def test_cells_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    videos = [{"bytes": bytes([n]) * (n * 1000), "path": f"{n}.mp4"} for n in range(1, 8)]
    table = pa.table(
        {"video": videos, "caption": [str(n) for n in range(1, 8)], "other": [{"bytes": 1, "path": "x"}] * 7}
    )
    pq.write_table(table, path, row_group_size=3)
    assert video_columns(table.schema) == ["video"]
    for row, video in enumerate(videos):
        uri = cell_uri(str(path), "video", row)
        assert container_of(uri) == str(path)
        with open_inside(path.open("rb"), uri) as inside:
            assert inside.read() == video["bytes"]
    for uri in (cell_uri(str(path), "video", 7), cell_uri(str(path), "nothing", 0), f"{path}#cell=video,x"):
        with pytest.raises(MemberError):
            open_inside(path.open("rb"), uri)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive" * 100)
    with (tmp_path / "x.tar").open("rb") as file, pytest.raises(MemberError, match="not a tar archive"):
        list(members(file))
    assert container_of("s3://bucket/a.mp4") is None
    assert container_of(member_uri("s3://bucket/x.tar", "a.mp4")) == "s3://bucket/x.tar"


def test_cells_of_a_column_are_read_once_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    videos = [{"bytes": bytes([n]) * 20_000, "path": f"{n}.mp4"} for n in range(1, 41)]
    pq.write_table(pa.table({"video": videos}), path, row_group_size=20, compression="none")
    total = 0

    class Counting(io.FileIO):
        def read(self, *size: Any) -> bytes:
            nonlocal total
            data = super().read(*size)
            total += len(data)
            return data

    def read(row: int) -> bytes:
        with open_inside(Counting(path), cell_uri(str(path), "video", row), str(path)) as inside:
            return inside.read()

    for row, video in enumerate(videos):
        assert read(row) == video["bytes"]
    assert total < 2 * 20 * 40_000
    for row in (39, 39, 20, 3, 17, 5, 0):  # The rows can be read in any order.
        assert read(row) == videos[row]["bytes"]
    pq.write_table(pa.table({"video": videos[::-1]}), path, row_group_size=20, compression="none")
    assert read(7) == videos[32]["bytes"]  # The table was written again.
    with pytest.raises(MemberError, match="no such row"):
        open_inside(Counting(path), cell_uri(str(path), "video", 40), str(path))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    uri = member_uri(str(path), name)
    assert uri == f"{path}#member=caf%E9.mp4"
    with open_inside(path.open("rb"), uri) as inside:
        assert inside.read() == b"x"


def test_of_a_spoilt_archive_the_members_before_the_damage_are_good(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    long = "long/" * 40 + "name.mp4"  # A pax archive has further headers for a name this long.
    files = {"a.mp4": b"a" * 700, long: b"b" * 700, "c.mp4": b"c" * 700, "日.mp4": b"d" * 700}
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    whole = path.read_bytes()
    good = read_index(io.BytesIO(whole)).files
    assert [member.name for member in good] == list(files)
    noise = np.random.default_rng(3)
    for _ in range(300):
        at = int(noise.integers(0, good[-1].offset))
        spoilt = bytearray(whole)
        spoilt[at : at + 40] = noise.bytes(40)
        before = [member for member in good if member.offset + member.size <= at]
        try:
            index = read_index(io.BytesIO(bytes(spoilt)))
        except MemberError:
            assert not before
            continue
        assert index.files[: len(before)] == before
        cut = read_index(io.BytesIO(whole[:at])) if at >= 512 else None
        assert cut is None or cut.files[: len(before)] == before
