"""Weights over a real server on this machine: resumed, cut, wrong, missing; from mirrors; and before a run begins."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from longtake.curation import downloads, models
from longtake.curation.doctor import examine
from longtake.curation.downloads import DownloadError, fetch
from longtake.curation.errors import SetupError
from longtake.curation.recipe import load_recipe
from longtake.filters import weights
from longtake.filters.weights import WEIGHTS
from tests.curation.workbench import free_port, longtake

SHARED = Path(__file__).parents[3] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
NAME, NAMELESS = "aesthetic-v2", "unimatch"  # The first weight has a published hash, and the second has none.
CONTENT = b"PK" + bytes(range(256)) * 12_000  # The content has three of the blocks that are read at once.


@dataclass
class Site:
    """What a server offers, how it misbehaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # The bytes after which each of the next answers ends.
    ranges: bool = True
    tag: str | None = '"one"'
    fails: list[int] = field(default_factory=list)  # The statuses of the next answers.
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # The path and the Range of each request.


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.asked.append((self.path, wanted))
            body = site.files.get(self.path)
            if site.fails or body is None:
                self.send_error(site.fails.pop(0) if site.fails else 404)
                return
            start = 0
            if wanted and site.ranges and self.headers.get("If-Range") in (None, site.tag):
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if site.tag:
                self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : start + (site.cuts.pop(0) if site.cuts else len(body))])

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder; two weights have CONTENT, at the site."""
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path / "models"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    for name, sha256 in ((NAME, digest), (NAMELESS, None)):
        site.files[f"/{name}"] = CONTENT
        url = f"{site.url}/{name}"
        monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], source=url, size=None, sha256=sha256))
    return tmp_path / "models"


call = partial(longtake, columns=300)


def where(folder: Path, name: str = NAME) -> Path:
    return folder / WEIGHTS[name].filename


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pull_brings_the_file_once(folder: Path, site: Site) -> None:
    assert f"{NAME}: fetched, {where(folder)}" in call("models", "pull", NAME)
    assert where(folder).read_bytes() == CONTENT
    assert [path.name for path in where(folder).parent.iterdir()] == [where(folder).name]
    assert "was here" in call("models", "pull", NAME)
    assert site.asked == [(f"/{NAME}", None)]
    assert weights.verify(NAME) == where(folder)


def test_a_connection_that_is_cut_goes_on_where_it_ended(folder: Path, site: Site) -> None:
    site.cuts = [1_000_000, 1, 2_000_000]
    call("models", "pull", NAME)
    assert where(folder).read_bytes() == CONTENT
    starts = [None, "bytes=1000000-", "bytes=1000001-", "bytes=3000001-"]
    assert site.asked == [(f"/{NAME}", start) for start in starts]


def test_another_process_goes_on_too(folder: Path, site: Site) -> None:
    site.cuts = [1_000_000, *[0] * downloads.TRIES]
    said = call("models", "pull", NAME, code=3)
    assert "ended after 1000000 of 3072002 bytes" in said
    assert f"{where(folder)}.part keeps the 1000000 bytes" in said
    assert not where(folder).exists()
    site.asked.clear()
    call("models", "pull", NAME)
    assert site.asked == [(f"/{NAME}", "bytes=1000000-")]
    assert where(folder).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(folder: Path, site: Site) -> None:
    site.ranges, site.cuts = False, [1_000_000, 2_000_000]
    call("models", "pull", NAME)
    assert where(folder).read_bytes() == CONTENT
    site.ranges, site.tag = True, None  # No tag says that the rest belongs to the same file.
    where(folder).unlink()
    site.cuts = [1_000_000]
    site.asked.clear()
    call("models", "pull", NAME)
    assert site.asked == [(f"/{NAME}", None)] * 2


def test_a_file_that_changed_meanwhile_starts_over(folder: Path, site: Site) -> None:
    site.cuts = [1_000_000, *[0] * downloads.TRIES]
    site.files["/unimatch"] = b"PK" + b"x" * 3_000_000
    call("models", "pull", NAMELESS, code=3)
    site.files["/unimatch"], site.tag = CONTENT, '"two"'
    call("models", "pull", NAMELESS)
    assert where(folder, NAMELESS).read_bytes() == CONTENT


def test_what_is_here_already_is_all_there_is(tmp_path: Path, site: Site) -> None:
    site.files["/short"] = b"abc"
    part = tmp_path / "short.part"
    part.write_bytes(b"abcdef")
    part.with_name("short.part.tag").write_text('"one"')
    fetch(f"{site.url}/short", part)
    assert part.read_bytes() == b"abc"


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(folder: Path, site: Site) -> None:
    site.fails = [503, 429, 500]
    call("models", "pull", NAME)
    assert len(site.asked) == 4
    site.asked.clear()
    del site.files["/unimatch"]
    assert f"{site.url}/unimatch: HTTP 404" in call("models", "pull", NAMELESS, code=3)
    assert len(site.asked) == 1


def test_nobody_there(folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHTS, NAME, replace(WEIGHTS[NAME], source=f"http://127.0.0.1:{free_port()}/x"))
    assert "refused" in call("models", "pull", NAME, code=3)


def test_two_at_once_do_not_mix(tmp_path: Path, site: Site) -> None:
    import fcntl

    site.files["/x"] = CONTENT
    with (tmp_path / "x.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another download"):
            fetch(f"{site.url}/x", tmp_path / "x.part")


# ── another file than expected ───────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_file_is_kept_aside_and_never_used(folder: Path, site: Site) -> None:
    site.files[f"/{NAME}"] = CONTENT[:-1] + b"?"
    said = call("models", "pull", NAME, code=3)
    bad = where(folder).with_name(where(folder).name + ".bad")
    for part in (NAME, f"{site.url}/{NAME}", "SHA-256", hashlib.sha256(CONTENT).hexdigest(), str(bad)):
        assert part in said
    assert bad.read_bytes() == site.files[f"/{NAME}"]
    assert [path.name for path in where(folder).parent.iterdir()] == [bad.name]
    assert weights.missing([NAME]) == [NAME]


def test_a_wrong_file_in_place_is_replaced_by_the_right_one(folder: Path) -> None:
    where(folder).parent.mkdir(parents=True)
    where(folder).write_bytes(CONTENT[:1000])
    assert "cannot be used: aesthetic-v2" in call("models", "verify", code=3)
    assert "the file was a wrong one" in call("models", "pull", NAME)
    assert where(folder).read_bytes() == CONTENT
    assert where(folder).with_name(where(folder).name + ".bad").read_bytes() == CONTENT[:1000]
    assert f"{NAME}: good" in call("models", "verify")


def test_a_hash_that_nobody_states_is_recorded_and_counts_from_then_on(folder: Path, site: Site) -> None:
    call("models", "pull", NAMELESS)
    path = where(folder, NAMELESS)
    assert weights.expected_sha256(NAMELESS) == hashlib.sha256(CONTENT).hexdigest()
    assert f"{NAMELESS}: good" in call("models", "verify", NAMELESS)
    path.unlink()
    site.files["/unimatch"] = CONTENT + b"more"
    assert f"kept as {path}.bad" in call("models", "pull", NAMELESS, code=3)
    assert not path.exists()


def test_a_proxys_page_is_no_weight(folder: Path, site: Site) -> None:
    site.files["/unimatch"] = b"<html>please log in</html>"
    assert "no weight file at all" in call("models", "pull", NAMELESS, code=3)
    assert weights.missing([NAMELESS]) == [NAMELESS]


# ── mirrors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("scheme", ["", "file://", "http"])
def test_a_mirror_with_and_without_subfolders(
    folder: Path, site: Site, tmp_path: Path, scheme: str, flat: bool
) -> None:
    filename = WEIGHTS[NAMELESS].filename.rpartition("/")[2] if flat else WEIGHTS[NAMELESS].filename
    mirror = tmp_path / "mirror"
    (mirror / filename).parent.mkdir(parents=True)
    (mirror / filename).write_bytes(CONTENT)
    site.files[f"/m/{filename}"] = CONTENT
    call("models", "pull", NAMELESS, "--mirror", f"{site.url}/m/" if scheme == "http" else f"{scheme}{mirror}")
    assert where(folder, NAMELESS).read_bytes() == CONTENT
    assert not [path for path, _ in site.asked if not path.startswith("/m/")]


def test_a_models_folder_is_a_mirror_and_its_records_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("models", "pull", NAMELESS)
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path / "second"))
    call("models", "pull", NAMELESS, "--mirror", str(folder))
    assert where(tmp_path / "second", NAMELESS).read_bytes() == CONTENT
    where(tmp_path / "second", NAMELESS).unlink()
    where(folder, NAMELESS).write_bytes(CONTENT + b"more")
    assert "SHA-256" in call("models", "pull", NAMELESS, "--mirror", str(folder), code=3)


def test_sums_of_a_mirror_count(folder: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "flow").mkdir(parents=True)
    (mirror / WEIGHTS[NAMELESS].filename).write_bytes(CONTENT)
    (mirror / "SHA256SUMS").write_text(f"{'0' * 64}  ./{WEIGHTS[NAMELESS].filename}\n")
    assert f"not {'0' * 64}" in call("models", "pull", NAMELESS, "--mirror", str(mirror), code=3)


def test_a_mirror_that_lacks_the_file(folder: Path, tmp_path: Path) -> None:
    said = call("models", "pull", NAME, NAMELESS, "--mirror", str(tmp_path / "nowhere"), code=3)
    assert said.count("the mirror has neither") == 2
    assert f"{tmp_path}/nowhere/{WEIGHTS[NAME].filename}" in said


def test_a_uri_in_the_variable_is_copied_to_the_local_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("models", "pull", NAMELESS)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LONGTAKE_MODELS", f"file://{folder}")
    local = tmp_path / "home" / ".cache/longtake/models"
    with pytest.raises(weights.FilterUnavailable, match=f"{local}.* is missing.*{folder}"):
        weights.find_weight(NAMELESS)
    assert f"copying from file://{folder} (LONGTAKE_MODELS) into {local}" in call("models", "pull", NAMELESS)
    assert weights.verify(NAMELESS) == where(local, NAMELESS)


@needs_shared
def test_the_shared_weights_are_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    call("models", "pull", "aesthetic-v2", "raft-small-princeton", "squeezenet1_1-vmaf", "--mirror", str(SHARED))
    found = {row["name"]: row for row in json.loads(call("models", "list", "--json"))}
    assert found["aesthetic-v2"]["path"] == str(tmp_path / WEIGHTS["aesthetic-v2"].filename)
    assert found["unimatch"]["path"] is None
    assert call("models", "verify").count(": good") == 3


# ── what is there, what is needed ────────────────────────────────────────────────────────────────────────────────────


def test_the_list_says_who_needs_what(folder: Path) -> None:
    rows = {row["name"]: row for row in json.loads(call("models", "list", "--json"))}
    assert set(rows) == set(WEIGHTS)
    rated = ["longtake-hd", "allegro", "cosmos", "mug-v", "open-sora-plan"]
    users = {name: row["needed_by"] for name, row in rows.items() if row["needed_by"]}
    assert users == {
        "clip-vit-l-14": [f"{recipe}: aesthetic" for recipe in rated],
        "aesthetic-v2": [f"{recipe}: aesthetic" for recipe in rated],
        "alexnet": ["longtake-hd: lpips", "allegro: lpips"],
        "unimatch": ["longtake-hd: flow", "allegro: flow"],
        "dover": ["open-sora-plan: dover_technical"],
    }
    said = call("models", "list")
    for weight in WEIGHTS.values():
        assert weight.source in said
        assert weight.licence in said


def test_a_weight_inside_another_download_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = call("models", "pull", "raft-small-princeton", code=3)
    assert "only inside another download (princeton-vl/RAFT" in said
    # With --all it is left out; the test may not ask the network.
    for name in WEIGHTS:
        if "://" in WEIGHTS[name].source:
            monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[NAME], name=name, filename=f"{name}.pt"))
    assert "raft-small-princeton: left out" in call("models", "pull", "--all")


@pytest.mark.parametrize(
    "arguments", [(), ("alexnett",), ("alexnet", "--all"), ("alexnet", "-r", "longtake-hd"), ("-r", "nothing")]
)
def test_what_to_pull_must_be_said_once(folder: Path, arguments: tuple[str, ...]) -> None:
    call("models", "pull", *arguments, code=2)


def test_verify_of_what_must_be_here(folder: Path) -> None:
    assert "this machine has no weights" in call("models", "verify")
    said = call("models", "verify", "-r", "longtake-hd", code=3)
    assert "4 of 4 weights cannot be used: clip-vit-l-14, aesthetic-v2, unimatch, alexnet" in said
    assert "needs no weights" in call("models", "pull", "-r", "embedded")


def test_doctor_shows_the_weights(folder: Path) -> None:
    findings = {finding.what: finding for finding in examine(load_recipe("longtake-hd"), None, False)}
    for name, weight in (("aesthetic", "clip-vit-l-14"), ("flow", "unimatch"), ("lpips", "alexnet")):
        assert not findings[f"filter {name}"].good
        assert f"longtake models pull {weight}" in findings[f"filter {name}"].detail
    assert findings["filter ssim"].good


# ── before a run begins ──────────────────────────────────────────────────────────────────────────────────────────────


@needs_shared
@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_a_run_stops_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """Also before the scan: nobody wants to hear in the morning that a file is missing."""
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path / "models"))
    path = where(tmp_path / "models", "raft-small-princeton")
    path.parent.mkdir(parents=True)
    data = (SHARED / "flow" / "raft-small.pth").read_bytes()
    if harm != "missing":
        path.write_bytes(data[:-7] if harm == "truncated" else data[:-1] + b"?")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "raft",
                "filters": {"width": {}, "flow": {"backend": "raft", "variant": "small", "source": "princeton"}},
                "tiers": {"pretrain": {"width": ">= 64", "flow": ">= 40"}},
            }
        )
    )
    (tmp_path / "a.mp4").write_bytes(b"not looked at")
    said = call("curate", str(tmp_path / "a.mp4"), "-r", str(recipe), "-o", str(tmp_path / "ws"), code=3)
    for part in (str(path), "longtake models pull raft-small-princeton", "princeton-vl/RAFT"):
        assert part in said
    assert not (tmp_path / "ws" / "videos").exists()


def test_the_names_of_a_strangers_filter_are_not_taken_for_weights() -> None:
    class Stranger:
        def __init__(self) -> None:
            self.weights = {"a": 1}

    assert models.weights_of(Stranger()) == ()  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="only inside"):
        models.pull("raft-large-princeton")


def test_a_recipe_without_models_needs_none() -> None:
    assert models.needed(load_recipe("embedded")) == {}
