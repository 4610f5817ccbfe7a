"""Films in an archive and in a table, from the scan to the dataset, and everything that shows them."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtake.curation.access import Source
from longtake.manifests.members import cell_uri, member_uri
from tests.curation.faulty_server import faulty_server
from tests.curation.workbench import CLIPS_EACH, Bench, longtake, videos


def fill(folder: Path) -> tuple[Path, Path, bytes]:
    """An archive of three films, one with a caption and one cut off; a table of one. Gives both, and the first film."""
    films = [film.read_bytes() for film in videos(folder.parent / "films", 4)]
    folder.mkdir()
    archive = folder / "shard #0.tar"
    with tarfile.open(archive, "w") as tar:
        for name, data in (
            ("a/b c.x.mp4", films[0]), ("a/b c.json", b'{"caption": "a table"}'), ("d.mp4", films[1]), ("e.mp4", films[2]),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        cut = tar.offset
    archive.write_bytes(archive.read_bytes()[: cut - len(films[2]) // 2])
    table = folder / "data" / "train-0.parquet"
    table.parent.mkdir()
    pq.write_table(pa.table({"video": [{"bytes": films[3], "path": "x.mp4"}], "caption": ["x"]}), table)
    return archive, table, films[0]


@pytest.mark.slow  # The test runs nine commands, of which three compute.
def test_films_in_an_archive_and_a_table_become_a_dataset(bench: Bench, tmp_path: Path) -> None:
    archive, table, first = fill(tmp_path / "in")
    args = ("-o", bench.workspace, "-r", bench.recipe(), "--engine", "inline")
    output = longtake("curate", tmp_path / "in", *args)
    assert "3 members of 1 archive" in output
    rows = bench.rows("videos").set_index("uri")
    named = member_uri(str(archive), "a/b c.x.mp4")
    good = [named, member_uri(str(archive), "d.mp4"), cell_uri(str(table), "video", 0)]
    assert rows.loc[good, "status"].tolist() == ["ok"] * 3
    assert rows.loc[named, "bytes"] == len(first)
    assert rows.loc[member_uri(str(archive), "e.mp4"), "error_kind"] in ("truncated", "not_video", "corrupt")
    assert rows.loc[str(archive), "error_kind"] == "input"
    assert "cut off" in rows.loc[str(archive), "error"]
    clips = bench.rows("clips")
    whole = clips[clips["uri"].isin([named, good[2]])]
    assert sorted(whole["source_caption"]) == ["a table", "x"]
    assert (clips["uri"] == good[1]).sum() == CLIPS_EACH
    exported = bench.rows("exports")
    assert set(exported["status"]) == {"ok"}
    assert len(exported) == 2 + CLIPS_EACH
    again = longtake("curate", tmp_path / "in", *args)
    for stage in ("scan", "caption", "export"):
        assert f"{stage}: nothing to compute" in again
    clip = clips[clips["uri"] == named]["clip_id"].iloc[0]
    shown = json.loads(longtake("show", clip, "-o", bench.workspace, "--json"))
    assert shown["uri"] == named
    longtake("show", clip, "-o", bench.workspace)
    page = tmp_path / "report.html"
    longtake("report", bench.workspace, "-o", page)
    assert "b%20c.x.mp4" in page.read_text()
    longtake("stats", bench.workspace)
    longtake("export", "-o", bench.workspace, "--format", "webdataset", "--engine", "inline")
    # The files of a workspace are no input, and neither are its own archives.
    assert list((bench.workspace / "dataset/pretrain").rglob("*.tar"))
    assert "left out, a workspace" in longtake(
        "curate", tmp_path, "-o", bench.workspace, "--engine", "inline", "--until", "scan"
    )


def test_the_studio_plays_a_member(tmp_path: Path) -> None:
    from longtake.curation.looking.studio.server import _video

    archive, table, first = fill(tmp_path / "in")

    async def body(uri: str, wanted: str | None) -> bytes:
        answer = _video(Source(uri), wanted)
        assert answer.media_type == "video/mp4"
        return b"".join([piece async for piece in answer.body_iterator])  # type: ignore[attr-defined]

    uri = member_uri(str(archive), "a/b c.x.mp4")
    assert asyncio.run(body(uri, None)) == first
    assert asyncio.run(body(uri, "bytes=5-99")) == first[5:100]
    assert asyncio.run(body(cell_uri(str(table), "video", 0), "bytes=4-7")) == b"ftyp"
    assert _video(Source(member_uri(str(archive), "gone.mp4")), None).status_code == 404


def test_films_in_an_archive_behind_a_signature(bench: Bench, tmp_path: Path) -> None:
    archive, _, _ = fill(tmp_path / "in")
    archive.rename(tmp_path / "in" / "a.tar")
    with faulty_server(tmp_path / "in") as server:
        uri = f"{server.url}/a.tar?v=2&X-Amz-Signature=hidden"
        args = ("-o", bench.workspace, "-r", bench.recipe(), "--allow-private")
        longtake("curate", uri, *args, "--engine", "inline")
        rows = bench.rows("videos").set_index("uri")
        assert (rows["status"] == "ok").sum() == 2
        assert f"{server.url}/a.tar?v=2#member=d.mp4" in rows.index
        assert set(bench.rows("exports")["status"]) == {"ok"}
    stored = "\n".join(str(pq.read_table(file).to_pylist()) for file in bench.workspace.rglob("*.parquet"))
    assert "hidden" not in stored
