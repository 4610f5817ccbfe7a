"""Secrets of URIs let a run in and are found nowhere; lists lead nowhere they should not; bad rows are counted."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from longtake.curation.access import Access, Reach, Source, is_public, open_source
from longtake.curation.errors import RowError, SetupError
from longtake.manifests import ids
from tests.curation.workbench import CLIPS_EACH, Bench, longtake, videos

USER, PASSWORD, SIGNATURE = "hidden-user", "hidden%2Fpass", "hidden+signature%2F1"
SECRETS = ("hidden-user", "hidden%2Fpass", "hidden/pass", "hidden+signature", "hidden signature", "aGlkZGVu")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return videos(tmp_path_factory.mktemp("films"), 2)


class Locked(http.server.BaseHTTPRequestHandler):
    """Serves files to those who have the password and a signature; /open/… to everybody; /to?URL sends elsewhere."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        wanted = "Basic " + base64.b64encode(b"hidden-user:hidden/pass").decode()
        path = self.folder / Path(url.path).name
        if url.path.startswith("/to"):
            self.answer(302, headers={"Location": query["u"][0]})
        elif url.path.startswith("/open/"):
            self.answer(200 if path.is_file() else 404, path)
        elif self.headers.get("Authorization") != wanted or "hidden" not in str(query.get("X-Amz-Signature")):
            self.answer(401 if "Authorization" not in self.headers else 403)
        else:
            self.answer(200 if path.is_file() else 404, path)

    do_HEAD = do_GET

    def answer(self, status: int, path: Path | None = None, headers: dict[str, str] | None = None) -> None:
        data = path.read_bytes() if status == 200 and path else b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if data else None
        size = len(data)
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or size), size - 1)
            status, data = 206, data[start : end + 1]
        self.send_response(status)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        for key, value in {"Accept-Ranges": "bytes", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@pytest.fixture
def host(films: list[Path]) -> Iterator[str]:
    handler = type("Handler", (Locked,), {"folder": films[0].parent})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def signed(host: str, name: str, signature: str = SIGNATURE) -> str:
    return f"http://{USER}:{PASSWORD}@{host}/v/{name}?take=1&X-Amz-Signature={signature}"


def assert_no_secret(*places: Path | str) -> None:
    for place in places:
        files = [file for file in place.rglob("*") if file.is_file()] if isinstance(place, Path) else []
        for where, content in [(str(file), file.read_bytes()) for file in files] or [("a text", str(place).encode())]:
            for secret in SECRETS:
                assert secret.encode() not in content, f"{where} holds {secret}"


def tables(folder: Path) -> str:
    """Every value of every Parquet file, which compression hides from a search for bytes."""
    import pyarrow.parquet as pq

    return "\n".join(str(pq.read_table(file).to_pylist()) for file in folder.rglob("*.parquet"))


def test_secrets_let_in_and_are_found_nowhere(bench: Bench, films: list[Path], host: str, tmp_path: Path) -> None:
    listed = tmp_path / "in" / "list.txt"
    listed.parent.mkdir()
    listed.write_text("\n".join(signed(host, name) for name in (films[0].name, films[1].name, "nowhere.mp4")))
    formats = [f for name in ("webdataset", "huggingface", "fiftyone") for f in ("--format", name)]
    args = ("-o", bench.workspace, "-r", bench.recipe(), "--engine", "inline")
    output = longtake("curate", listed, *args)
    output += longtake("export", "-o", bench.workspace, *formats)
    rows = bench.rows("videos").set_index("uri")
    uri = f"http://{host}/v/{films[0].name}?take=1"
    assert rows["status"].tolist() == ["ok", "ok", "error"]
    assert rows.loc[uri, "video_id"] == ids.video_id(uri)
    assert rows.loc[f"http://{host}/v/nowhere.mp4?take=1", "error_kind"] == "missing"
    clip = bench.rows("clips")["clip_id"][0]
    (tmp_path / "out").mkdir()
    output += longtake("report", bench.workspace, "-o", tmp_path / "out" / "report.html")
    output += longtake("stats", bench.workspace) + longtake("show", clip, "-o", bench.workspace, "--json")
    assert len(list((bench.workspace / "dataset/pretrain").rglob("*.tar"))) == 1
    assert_no_secret(bench.workspace, tmp_path / "out", output, tables(bench.workspace))

    renewed = tmp_path / "in" / "renewed.txt"
    renewed.write_text("\n".join(signed(host, film.name, "hidden2") for film in films))
    assert "scan: nothing to compute" in longtake("curate", renewed, *args), "a renewed signature is the same film"


def test_without_access_the_error_names_the_host(bench: Bench, films: list[Path], host: str, tmp_path: Path) -> None:
    args = ("-o", bench.workspace, "-r", bench.recipe(), "--engine", "inline")
    longtake(
        "curate", signed(host, films[0].name), f"http://{host}/v/{films[1].name}", *args, "--until", "score", code=3
    )
    rows = bench.rows("videos").set_index("uri")
    told = rows.loc[f"http://{host}/v/{films[1].name}", "error"]
    assert told.startswith(
        f"the server refuses (HTTP 401); access to {host} is missing: give the list with its URIs again"
    )
    longtake("curate", *args, code=3)  # The URI is not given again.
    exported = bench.rows("exports")
    assert set(exported["error"]) == {told.partition("; ")[2]}
    # The file names access by identity and by host, and only its owner may read it.
    file = tmp_path / "access.json"
    file.write_text(json.dumps({host: f"http://{USER}:{PASSWORD}@{host}/?X-Amz-Signature={SIGNATURE}"}))
    file.chmod(0o644)
    assert "chmod 600" in longtake("export", "-o", bench.workspace, "--access", file, code=3)
    file.chmod(0o600)
    output = longtake("export", "-o", bench.workspace, "--retry-errors", "--access", file, "--engine", "inline")
    assert f"export: {CLIPS_EACH} computed" in output
    assert set(bench.rows("exports")["status"]) == {"ok"}
    longtake("curate", *args, "--retry-errors", "--access", file)
    assert set(bench.rows("videos")["status"]) == {"ok"}
    assert_no_secret(bench.workspace, tables(bench.workspace))


def test_a_file_of_accesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(text: str) -> Access:
        file = tmp_path / "access"
        file.write_text(text)
        file.chmod(0o600)
        monkeypatch.setenv("LONGTAKE_ACCESS", str(file))
        return Access.load()

    for text in (
        "# ours\nh,me:hidden\nhttps://h/a?v=1,?token=hidden\nhttps://me:hidden@g/b\n",
        json.dumps({"h": "me:hidden@", "https://h/a?v=1": "?token=hidden", "https://g/b": "https://me:hidden@g/b"}),
    ):
        access = load(text)
        assert "hidden" not in repr(access)
        for identity, userinfo, tail in (
            ("https://h/c", "me:hidden", None), ("https://h/a?v=1", None, "?token=hidden"), ("https://g/b", "me:hidden", None),
        ):  # fmt: skip
            found = access.of(identity)
            assert found is not None
            assert (found.userinfo, found.tail) == (userinfo, tail)
        assert access.of("https://g/c") is None
    for text in ("{", '{"h": 1}', "hidden", "a,b,hidden", "h,https://h/a\n"):
        with pytest.raises(SetupError) as caught:
            load(text)
        assert "hidden" not in str(caught.value)


# ── where lists may lead ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.0.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False),
        ("fd00::1", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True), ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_private_addresses_are_refused_whatever_leads_there(
    films: list[Path], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, name = host.rpartition(":")[2], films[0].name
    closed, opened = Reach(), Reach(private=True)
    with open_source(Source(f"http://{host}/open/{name}", reach=opened)) as file:
        assert file.read(8) == films[0].read_bytes()[:8]
    with open_source(Source(f"http://{host}/to?u=/open/{name}", reach=opened)) as file:
        assert file.read(8) == films[0].read_bytes()[:8]
    for uri in (f"http://{host}/open/{name}", f"http://localhost:{port}/open/{name}"):
        with pytest.raises(RowError, match="is an address of this machine or its network; --allow-private"):
            open_source(Source(uri, reach=closed))
    # A redirect: the first address passes for a public one, the second does not.
    import longtake.curation.access as module

    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
    redirect = f"http://{host}/to?u=http://127.0.0.2:{port}/open/{name}"
    with pytest.raises(RowError, match=r"127\.0\.0\.2 is an address of this machine") as caught:
        open_source(Source(redirect, reach=closed))
    assert caught.value.kind == "input"


def test_chains_are_refused(tmp_path: Path) -> None:
    for uri in ("simplecache::https://h/a.mp4", "zip://a.mp4::file:///x.zip", "https://h/a::file:///etc/passwd"):
        with pytest.raises(RowError, match="a chain of addresses"):
            open_source(Source(uri))
        assert "a chain of addresses" in longtake("scan", uri, "-o", tmp_path / "w", "--engine", "inline", code=3)


# ── bad rows, whole films, workspaces ────────────────────────────────────────────────────────────────────────────────


def test_bad_rows_are_counted_and_go_when_they_are_mended(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    args = (table, "-o", bench.workspace, "-r", bench.recipe(), "--engine", "inline")
    bad = "path,start,end,caption\n{0},,,whole\n{0},1,3,part\n{0},1,3,again\n{1},5,2,\n{1},00:00:01:12,00:00:03:12,\n"
    table.write_text(bad.format(*films))
    assert "2 inputs cannot be used" in longtake("scan", *args, "--strict", code=3)
    assert not (bench.workspace / "videos").exists()
    output = longtake("curate", *args)
    assert "cannot be used, and become error rows: 2" in output
    rows = bench.rows("videos").set_index("uri")
    assert rows["status"].tolist().count("error") == 2
    assert rows.loc[f"{table}#row=4", "error"].endswith("the clip ends (2) before it starts (5)")
    assert set(rows.loc[[f"{table}#row=4", f"{table}#row=5"], "error_kind"]) == {"input"}
    clips = bench.rows("clips").sort_values("start")
    assert clips[["start", "source_caption"]].values.tolist() == [[0.0, "whole"], [1.0, "part"]]
    assert clips["end"].round(2).tolist() == [4.08, 3.0]
    assert clips["source_captions"].tolist()[0] is None
    assert clips["source_captions"].tolist()[1].tolist() == ["part", "again"]
    assert "scan: nothing to compute" in longtake("curate", *args)
    longtake("curate", *args, "--list-fps", "24")
    rows = bench.rows("videos").set_index("uri")
    assert sorted(rows.index) == sorted([f"{table}#row=4", *map(str, films)])
    assert bench.rows("clips").set_index("uri").loc[str(films[1]), "start"] == pytest.approx(1.5)
    table.write_text(bad.replace("5,2", "2,4").format(*films))
    longtake("curate", *args, "--list-fps", "24")
    assert set(bench.rows("videos")["status"]) == {"ok"}


def test_a_workspace_inside_the_folder_of_videos_is_no_input(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    for film in films:
        os.link(film, folder / film.name)
    for _ in range(2):
        output = longtake("curate", folder, "-o", folder / "ws", "-r", bench.recipe(), "--engine", "inline")
    assert "left out, a workspace: 1" in output
    assert "scan: nothing to compute" in output


def test_export_notices_equal_clips(bench: Bench, films: list[Path], host: str) -> None:
    uris = [f"http://{host}/open/{films[0].name}?copy={n}" for n in (1, 2)]
    output = longtake("curate", *uris, "-o", bench.workspace, "-r", bench.recipe(), "--engine", "inline")
    told = f"Equal byte for byte to another clip, by SHA-256: {CLIPS_EACH} of {2 * CLIPS_EACH} clips"
    assert told in output
    assert told in (bench.workspace / "dataset/pretrain/README.md").read_text()


def test_a_workspace_with_a_password_in_its_address_is_refused(films: list[Path], bench: Bench) -> None:
    place = "s3://KEYAAA:hidden%2Fpass@bucket/ws"
    for arguments in (
        ("curate", films[0], "-o", place), ("curate", films[0], "-o", place, "--engine", "inline"), ("stats", place),
        ("doctor", "-o", place), ("forget", place, films[0], "--yes"), ("studio", place),
    ):  # fmt: skip
        output = longtake(*arguments, code=3)
        assert "give them in the environment" in output
        assert_no_secret(output)
