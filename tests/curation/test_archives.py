"""Archives and tables as inputs: their videos are read where they lie, with the captions beside them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtake.curation.access import Access, Reach, Source, open_source
from longtake.curation.archives import key_of
from longtake.curation.errors import SetupError, VideoError
from longtake.curation.inputs import Gathered, gather
from longtake.curation.lists import ListRules
from longtake.curation.reading.faults import kind_of
from longtake.curation.reading.opening import source_file
from longtake.manifests.members import MemberError, cell_uri, member_uri
from tests.curation.faulty_server import Faulty, faulty_server

Files = list[tuple[str, bytes]]


def tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def captions(gathered: Gathered) -> dict[str, Any]:
    """URI → the captions of the whole film; None: shots are looked for."""
    found = {}
    for row in gathered.table.to_pylist():
        if row["error"] is None:
            spans = row["spans"]
            assert all((span["start"], span["end"]) == (0.0, None) for span in spans)
            found[row["uri"]] = next((span["captions"] or [span["caption"]]) for span in spans) if spans else None
    return found


def errors(gathered: Gathered) -> list[str]:
    return [error for error in gathered.table["error"].to_pylist() if error is not None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Faulty]:
    (tmp_path / "web").mkdir()
    with faulty_server(tmp_path / "web") as served:
        yield served


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_the_name_up_to_its_first_dot() -> None:
    assert key_of("a/b.c.MP4") == ("a/b", ".c.mp4")
    assert key_of("a.b/c") == ("a.b/c", "")
    assert key_of("x.mp4") == ("x", ".mp4")


SAMPLES: Files = [
    ("a.mp4", b"A" * 3000),
    ("a.json", json.dumps({"caption": "of a", "licence": "CC0", "start": 17.0, "end": 3.0}).encode()),
    ("s/b.left.mp4", b"BL"),
    ("s/b.right.mp4", b"BR"),
    ("s/b.txt", b"of both\n"),
    ("s/b.right.txt", b"of the right"),
    ("c #%1é 日.webm", b"C"),
    ("d.json", b'{"caption": "of nobody"}'),
    ("e.jpg", b"E"),
    ("f.mkv", b"F"),
    ("f.json", b'{"text": ["one", "two"]}'),
    ("f.txt", b"three"),
    ("._f.mkv", b"a fork of macOS"),
]


def test_an_archive_gives_its_videos_with_their_captions(here: Path) -> None:
    path = tar(here / "shard.tar", SAMPLES)
    expected = {
        member_uri(str(path), "a.mp4"): ["of a"],
        member_uri(str(path), "s/b.left.mp4"): ["of both"],
        member_uri(str(path), "s/b.right.mp4"): ["of the right"],
        member_uri(str(path), "c #%1é 日.webm"): None,
        member_uri(str(path), "f.mkv"): ["one", "two", "three"],
    }
    (here / "list.txt").write_text("shard.tar\n")
    for item in ("shard.tar", f"file://{path}", ".", "*.tar", "list.txt"):
        found = gather([item])
        assert captions(found) == expected, item
        assert not errors(found)
        assert found.report.members == 5
        lines = "\n".join(found.report.lines())
        assert "5 members of 1 archive" in lines
        assert "no video by its name: 2 (.json 1, .jpg 1)" in lines or item in (".", "*.tar")
        assert "left out, hidden: 1 (" in lines
    assert found.table["licence"].to_pylist()[0] == "CC0"
    data = dict(SAMPLES)
    for uri, name in zip(expected, [name for name, _ in SAMPLES if name.endswith(("4", "m", "v"))], strict=False):
        with source_file(Source(uri)) as file:
            assert file.read() == data[name]
    # The address of a member names that member in each way of giving it.
    for uri in expected:
        (here / "one.txt").write_text(uri + "\n")
        assert gather([uri]).table["uri"].to_pylist() == gather(["one.txt"]).table["uri"].to_pylist() == [uri]


def test_each_of_several_members_of_one_name_is_read(here: Path) -> None:
    path = tar(here / "x.tar", [("a.mp4", b"first"), ("a.mp4", b"second"), ("a,2.mp4", b"comma"), ("./b.mp4", b"dot")])
    uris = gather(["x.tar"]).table["uri"].to_pylist()
    assert uris == [
        f"{path}#member=a.mp4", f"{path}#member=a.mp4,2", f"{path}#member=a%2C2.mp4", f"{path}#member=./b.mp4",
    ]  # fmt: skip
    assert [open_source(Source(uri)).read() for uri in uris] == [b"first", b"second", b"comma", b"dot"]
    assert gather(uris).table["uri"].to_pylist() == uris


def test_what_lies_before_the_damage_is_read_and_the_damage_is_said(here: Path) -> None:
    files = [(f"{n}.mp4", bytes([n]) * 2000) for n in range(1, 5)]
    whole = tar(here / "whole.tar", files).read_bytes()
    block = 512 + 2048  # The block of a member is its header, and its bytes in whole blocks.
    spoilt = bytearray(whole)
    spoilt[2 * block : 2 * block + 300] = b"\xff" * 300
    joined = tar(here / "second.tar", [("z.mp4", b"z")]).read_bytes()
    cases = {
        "cut.tar": (whole[: 2 * block + 900], 3, "damaged or cut off"),
        "in_header.tar": (whole[: 2 * block + 100], 2, "damaged"),
        "spoilt.tar": (bytes(spoilt), 2, "no header at byte 5120"),
        "joined.tar": (whole + joined, 4, "another archive seems to follow"),
    }
    for name, (data, count, words) in cases.items():
        (here / "d" / name).parent.mkdir(exist_ok=True)
        (here / "d" / name).write_bytes(data)
        found = gather([f"d/{name}"])
        assert len(captions(found)) == count, name
        assert [words in error for error in errors(found)] == [True], (name, errors(found))
    assert len(captions(gather(["d"]))) == 11
    with pytest.raises(SetupError, match="--strict"):
        gather(["d"], strict=True)
    # The member in which the archive ends is shorter than its header says, which shows when it is decoded.
    with source_file(Source(f"{here}/d/cut.tar#member=3.mp4")) as file:
        assert len(file.read()) == 388


def test_archives_without_a_video(here: Path) -> None:
    tar(here / "empty.tar", [])
    tar(here / "prose.tar", [("a.txt", b"x")])
    for name, words in (("empty", "there is no video in it"), ("prose", r"no video by its name: 1 \(\.txt 1\)")):
        with pytest.raises(SetupError, match=words):
            gather([f"{name}.tar"])
    with pytest.raises(SetupError, match="no such archive"):
        gather(["away.tar"])
    (here / "zero.tar").write_bytes(b"")
    (here / "noise.tar").write_bytes(b"noise" * 1000)
    (here / "zip.tar").write_bytes(gzip.compress(b"x"))
    (here / "a.mp4").write_bytes(b"x")
    found = gather(["."])
    assert list(captions(found)) == [str(here / "a.mp4")]
    assert len(errors(found)) == 3
    assert sum("not a tar archive" in error for error in errors(found)) == 2
    assert sum("a compressed archive" in error for error in errors(found)) == 1


def test_compressed_archives_are_told(here: Path) -> None:
    for name in ("a.tar.gz", "b.tgz"):
        (here / name).write_bytes(gzip.compress(tar(here / "x" / "x.tar", SAMPLES).read_bytes()))
    (here / "a.mp4").write_bytes(b"x")
    found = gather(["a.mp4", "*.tgz", "a.tar.gz"])
    assert any("compressed archive" in line and "a.tar.gz" in line for line in found.report.lines())
    with pytest.raises(SetupError, match="compressed archive"):
        gather(["b.tgz"])


def test_a_caption_that_cannot_be_read_is_told_and_the_video_stays(here: Path) -> None:
    path = tar(here / "x.tar", [("a.mp4", b"a"), ("a.json", b"{"), ("b.mp4", b"b"), ("b.json", b"[1]")])
    found = gather(["x.tar"])
    assert captions(found) == {member_uri(str(path), name): None for name in ("a.mp4", "b.mp4")}
    assert len(errors(found)) == 1
    assert "a.mp4" in errors(found)[0]


def test_links_in_archives_lead_nowhere(here: Path) -> None:
    with tarfile.open(here / "x.tar", "w") as archive:
        entry = tarfile.TarInfo("a.mp4")
        archive.addfile(entry, io.BytesIO())
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = gather(["x.tar"])
    assert len(captions(found)) == 1
    assert any("a link or a device in an archive: 1" in line for line in found.report.lines())


def test_archives_of_a_workspace_are_no_inputs(here: Path) -> None:
    (here / "v/ws/clips").mkdir(parents=True)
    (here / "v/ws/recipe.yaml").write_text("x: 1")
    (here / "v/ws/clips/0-1.parquet").write_bytes(b"x")
    made = str(tar(here / "v/ws/dataset/pretrain/shards/0.tar", SAMPLES))
    path = tar(here / "v/own.tar", [("a.mp4", b"a")])
    for items in (["v"], ["v/own.tar", made, f"{made}#member=a.mp4"], ["v/**"], ["v/own.tar", "v"]):
        assert list(captions(gather(items))) == [member_uri(str(path), "a.mp4")], items


# ── over the network ─────────────────────────────────────────────────────────────────────────────────────────────────


def counted(served: Faulty, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each answer that fsspec got."""
    from fsspec.implementations.http import HTTPFile

    sizes: list[int] = []
    original = HTTPFile._fetch_range

    def fetch(self: Any, start: int, end: int) -> bytes:
        data: bytes = original(self, start, end)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(HTTPFile, "_fetch_range", fetch)
    return sizes


def test_of_a_remote_archive_headers_and_the_member_are_read(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: Files = []
    for number in range(10):
        files += [(f"{number}.mp4", bytes([number]) * 300_000), (f"{number}.txt", f"caption {number}".encode())]
    tar(tmp_path / "web" / "a.tar", files)
    sizes = counted(server, monkeypatch)
    access = Access(Reach(private=True))
    url = f"{server.url}/a.tar"
    found = gather([f"{url}?X-Amz-Signature=secret123"], access=access)
    uri = f"{url}#member=7.mp4"
    assert captions(found)[uri] == ["caption 7"]
    assert "secret123" not in json.dumps(found.table.to_pylist())
    assert found.table["needs_access"].to_pylist() == [True] * 10
    assert sum(sizes) < 12 * 2**14 + 2**17
    assert len(sizes) < 15
    del sizes[:]
    source = access.source(uri, needs=True)
    assert "secret123" not in repr(source)
    with source_file(source) as file:
        assert file.read() == bytes([7]) * 300_000
    assert sum(sizes) < 300_000 + 12 * 2**14 + 2**17
    del sizes[:]
    with source_file(access.source(f"{url}#member=2.mp4")) as file:
        assert file.read() == bytes([2]) * 300_000
    assert sum(sizes) == 300_000 + 512  # The places of the members are known now, so one header is read.
    # Another archive of the same size has taken the name.
    tar(tmp_path / "web" / "a.tar", files[10:] + files[:10])
    with source_file(access.source(f"{url}#member=2.mp4")) as file:
        assert file.read() == bytes([2]) * 300_000


def test_a_fault_of_the_world_is_none_of_the_archive(server: Faulty, tmp_path: Path) -> None:
    tar(tmp_path / "web" / "a.tar", [("a.mp4", b"a" * 30_000)])
    (tmp_path / "web" / "noise.tar").write_bytes(b"noise" * 1000)
    reach = Reach(private=True)
    url = f"{server.url}/a.tar#member=a.mp4"
    for uri, kind in ((f"{url}x", "missing"), (f"{server.url}/noise.tar#member=a", "not_video")):
        with pytest.raises(VideoError) as caught, source_file(Source(uri, reach=reach)):
            pass
        assert caught.value.kind == kind
    for fault, kind in (("403", "credentials"), ("503", "throttled"), ("reset", "unreachable")):
        server.fault = fault
        with pytest.raises(VideoError) as caught, source_file(Source(url, reach=reach)):
            pass
        assert caught.value.kind == kind
        with pytest.raises(SetupError, match="cannot be read"):
            gather([f"{server.url}/a.tar"], access=Access(reach))


def test_of_which_kind_an_error_of_an_archive_is() -> None:
    assert kind_of(MemberError("not a tar archive"), remote=True) == "not_video"
    broken = MemberError("not a tar archive")
    broken.__cause__ = ConnectionResetError("reset")
    assert kind_of(broken, remote=True) == "unreachable"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def hub_table(path: Path, cells: list[dict[str, Any] | None], texts: list[str | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    picture = pa.array([{"bytes": b"p", "path": "p.jpg"}] * len(cells))
    noted = {"info": {"features": {"video": {"_type": "Video"}, "image": {"_type": "Image"}}}}
    table = pa.table({"image": picture, "video": video, "text": texts, "views": range(len(cells))})
    table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    pq.write_table(table, path, row_group_size=2)
    return path


def test_a_dataset_of_hugging_face(here: Path) -> None:
    cells = [{"bytes": bytes([n]) * 1000, "path": f"{n}.mp4"} for n in range(3)]
    beside = {"bytes": None, "path": "files/d.mp4"}
    path = hub_table(here / "set/data/train-0.parquet", [*cells, beside, None], ["one", None, "", "of d", "x"])
    expected = {
        cell_uri(str(path), "video", 0): ["one"],
        cell_uri(str(path), "video", 1): None,
        cell_uri(str(path), "video", 2): None,
        str(path.parent / "files/d.mp4"): ["of d"],
    }
    for item in ("set", "set/data/train-0.parquet", "set/data/*.parquet", f"file://{path}"):
        found = gather([item])
        assert captions(found) == expected, item
        assert ["neither bytes nor a path" in error for error in errors(found)] == [True]
        assert any("not read: image, views" in line for line in found.report.lines())
    assert gather(["set"]).table["uri"].to_pylist()[0] == f"{path}#cell=video,0"
    for n in range(3):
        with source_file(Source(cell_uri(str(path), "video", n))) as file:
            assert file.read() == bytes([n]) * 1000
    for bad in (3, 4, 5):
        with pytest.raises(VideoError) as caught, source_file(Source(cell_uri(str(path), "video", bad))):
            pass
        assert caught.value.kind == "missing"


def test_columns_of_unknown_kind(here: Path) -> None:
    cell = {"bytes": b"x", "path": "a.mp4"}
    pq.write_table(pa.table({"first": [cell], "second": [cell]}), here / "two.parquet")
    with pytest.raises(SetupError, match=r"first, second.*--uri-column"):
        gather(["two.parquet"])
    uris = gather(["two.parquet"], ListRules("second")).table["uri"].to_pylist()
    assert uris == [cell_uri(str(here / "two.parquet"), "second", 0)]
    pq.write_table(pa.table({"clip": [cell]}), here / "one.parquet")
    assert gather(["one.parquet"]).table["uri"].to_pylist() == [cell_uri(str(here / "one.parquet"), "clip", 0)]


def test_metadata_tells_of_the_files_of_its_folder(here: Path) -> None:
    for name in ("csv/a.mp4", "csv/s/b.mp4", "jsonl/a.mp4", "parquet/a.mp4", "pictures/a.mp4"):
        (here / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "v" / name).write_bytes(name.encode())
    (here / "v/csv/metadata.csv").write_text("file_name,text\na.mp4,of a\ns/b.mp4,of b\n")
    (here / "v/jsonl/metadata.jsonl").write_text('{"file_name": "a.mp4", "caption": "of ja"}\n')
    pq.write_table(pa.table({"file_name": ["a.mp4"], "caption": ["of pa"]}), here / "v/parquet/metadata.parquet")
    (here / "v/pictures/metadata.csv").write_text("file_name,text\na.jpg,a picture\n")
    (here / "v/other.parquet").write_bytes(b"")
    pq.write_table(pa.table({"path": ["x.jpg"], "n": [1]}), here / "v/pictures/n.parquet")
    found = gather(["v"])
    assert captions(found) == {
        str(here / "v/csv/a.mp4"): ["of a"],
        str(here / "v/csv/s/b.mp4"): ["of b"],
        str(here / "v/jsonl/a.mp4"): ["of ja"],
        str(here / "v/parquet/a.mp4"): ["of pa"],
        str(here / "v/pictures/a.mp4"): None,
    }
    assert len(errors(found)) == 1
    assert "other.parquet" in errors(found)[0]
    assert any(".csv 1" in line and ".parquet 1" in line for line in found.report.lines())


def test_a_table_of_addresses_in_a_folder(here: Path) -> None:
    (here / "v").mkdir()
    (here / "v/a.mp4").write_bytes(b"x")
    pq.write_table(pa.table({"video": ["a.mp4", "s3://films/b.mp4"], "caption": ["A", "B"]}), here / "v/t.parquet")
    ours = {"clip_id": ["1"], "video_id": ["2"], "sha256": ["3"], "uri": ["s3://films/c.mp4"], "path": ["a.mp4"]}
    pq.write_table(pa.table(ours), here / "v/index.parquet")
    found = gather(["v"])
    assert captions(found) == {str(here / "v/a.mp4"): ["A"], "s3://films/b.mp4": ["B"]}
    assert any("the table of an exported dataset" in line for line in found.report.lines())


def test_of_a_remote_table_no_more_is_read_than_the_cell_needs(
    server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    noise = np.random.default_rng(1)
    cells = [{"bytes": noise.bytes(400_000), "path": f"{n}.mp4"} for n in range(20)]
    hub_table(tmp_path / "web" / "t.parquet", cells, [f"caption {n}" for n in range(20)])
    sizes = counted(server, monkeypatch)
    access = Access(Reach(private=True))
    url = f"{server.url}/t.parquet"
    found = gather([f"{url}?token=secret123"], access=access)
    assert len(captions(found)) == 20
    assert captions(found)[f"{url}#cell=video,11"] == ["caption 11"]
    assert sum(sizes) < 400_000
    del sizes[:]
    with source_file(access.source(f"{url}#cell=video,11")) as file:
        assert file.read() == cells[11]["bytes"]
    assert sum(sizes) < 1_000_000


def test_a_store_gives_its_archives_and_tables(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/films/a.tar", tar(tmp_path / "a.tar", SAMPLES[:2]).read_bytes())
    table = hub_table(tmp_path / "t.parquet", [{"bytes": b"x", "path": "x.mp4"}], ["of x"])
    memory.pipe_file("/films/data/t.parquet", table.read_bytes())
    memory.pipe_file("/films/m/metadata.csv", b"file_name,text\nb.mp4,of b\n")
    memory.pipe_file("/films/m/b.mp4", b"x")
    expected = {
        "memory:///films/a.tar#member=a.mp4": ["of a"],
        "memory:///films/data/t.parquet#cell=video,0": ["of x"],
        "memory:///films/m/b.mp4": ["of b"],
    }
    assert captions(gather(["memory://films/"])) == expected
    assert list(captions(gather(["memory://films/*.tar"]))) == list(expected)[:1]
    assert list(captions(gather(["memory://films/a.tar"]))) == ["memory://films/a.tar#member=a.mp4"]
    assert list(captions(gather(["memory://films/data/*.parquet"]))) == list(expected)[1:2]
    memory.pipe_file("/films/list.csv", b"path\nm/b.mp4\n")
    assert list(captions(gather(["memory://films/*.csv"]))) == list(expected)[2:]
    for uri, data in zip(expected, (b"A" * 3000, b"x", b"x"), strict=True):
        with source_file(Source(uri)) as file:
            assert file.read() == data
    memory.store.clear()
