"""A fault of the world is not a fact about a film: whatever happens to the sources of a finished workspace, nothing that it
holds goes, and the same command makes what was asked for once the world is well again."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from longtake.curation.access import Source
from longtake.curation.errors import SetupError
from longtake.curation.running.faults import IN_A_ROW, LAST, Faults, Outcome, source_of
from longtake.curation.running.jobs import Report
from longtake.curation.stages import score
from longtake.curation.stages.sizes import remote_sizes
from tests.curation.faulty_server import FAULTS, KINDS, Faulty, faulty_server
from tests.curation.workbench import CLIPS_EACH, NOTHING, Bench, call, computed, stats, videos

OTHER_WINDOWS: dict[str, Any] = {"splitting": {"min_seconds": 4, "window_seconds": 4}}
WHAT_IS_HELD = ("inputs", "videos", "clips", "captions", "exports")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return videos(tmp_path_factory.mktemp("films"), 3)


@pytest.fixture
def server(films: list[Path]) -> Iterator[Faulty]:
    pytest.importorskip("aiohttp")
    with faulty_server(films[0].parent) as running:
        yield running


def held(bench: Bench) -> dict[str, Any]:
    """All that a workspace holds: the rows of its manifests, and the bytes of its datasets' files by inode."""
    rows = {name: bench.rows(name).to_json(date_format="iso") for name in WHAT_IS_HELD if name != "inputs"}
    files = {str(p): (p.stat().st_ino, p.stat().st_size) for p in dataset(bench).rglob("*") if p.is_file()}
    return {**rows, "files": files}


def dataset(bench: Bench) -> Path:
    return bench.workspace / "dataset" / "pretrain"


def assert_dataset(bench: Bench, clips: int) -> None:
    """It is whole: each file that its checksums and its index name is there, and is the one."""
    folder = dataset(bench)
    index = pd.read_parquet(folder / "index.parquet")
    assert len(index) == clips
    assert all((folder / path).is_file() for path in index["path"])
    assert pd.read_parquet(folder / "shards")["sha256"].tolist() == index["sha256"].tolist()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


# ── the whole way ────────────────────────────────────────────────────────────────────────────────────────────────────


# One for each kind of error; `reading/test_faults.py` has all of them, without the whole way.
SOME = ("403", "503", "cut")


@pytest.mark.parametrize(
    "fault",
    [*SOME, *(pytest.param(f, marks=(pytest.mark.slow, pytest.mark.campaign)) for f in FAULTS if f not in SOME)],
)
def test_other_windows_while_the_source_is_away(bench: Bench, films: list[Path], server: Faulty, fault: str) -> None:
    call(bench, "curate", *(f"{server.url}/{film.name}" for film in films))
    assert_dataset(bench, CLIPS_EACH * 3)
    before = held(bench)

    server.fault = fault
    bench.recipe(**OTHER_WINDOWS)
    for _ in range(2):
        said = call(bench, "curate", code=3).splitlines()[-1]
        assert KINDS[fault] in said
        assert server.url in said
        assert socket.gethostname() in said
        assert "no result was replaced" in said
        assert held(bench) == before

    server.fault = None
    done = computed(call(bench, "curate"))
    assert done == {"scan": 3, "score": 3, "caption": 3, "export": 3}
    assert_dataset(bench, 3)
    assert computed(call(bench, "curate")) == NOTHING


@pytest.mark.slow
@pytest.mark.campaign
def test_a_source_that_never_answers_is_no_fact(bench: Bench, films: list[Path], server: Faulty) -> None:
    call(bench, "curate", *(f"{server.url}/{film.name}" for film in films))
    before = held(bench)
    server.fault = "hang"
    bench.recipe(**OTHER_WINDOWS)
    said = call(bench, "curate", code=3).splitlines()[-1]
    assert "timed_out" in said
    assert "no result was replaced" in said
    assert held(bench) == before


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.cluster
def test_refused_on_ray_the_run_stops_and_replaces_nothing(bench: Bench, films: list[Path], server: Faulty) -> None:
    call(bench, "curate", *(f"{server.url}/{film.name}" for film in films))
    before = held(bench)
    server.fault = "403"
    bench.recipe(**OTHER_WINDOWS)
    said = bench.run("curate", "--engine=ray", "--workers=2", code=3).splitlines()[-1]
    assert "credentials" in said
    assert socket.gethostname() in said
    assert held(bench) == before
    server.fault = None
    bench.run("curate", "--engine=ray", "--workers=2")
    assert_dataset(bench, 3)


def test_addresses_that_lead_nowhere_end_at_once_and_start_no_ray(tmp_path: Path) -> None:
    """A port of this machine that nobody listens on; by the number of remote films alone, a local Ray would be started."""
    pytest.importorskip("aiohttp")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = Bench(tmp_path).run("curate", *(f"{url}/{number}.mp4" for number in range(12)), code=3)
    assert "engine: this process" in said
    assert "starting Ray" not in said
    assert re.search(rf"12 rows of 12 could not be read: unreachable .* at {url}", said.splitlines()[-1])


def test_the_size_of_remote_films_is_asked_for_a_few_of_them(films: list[Path], server: Faulty) -> None:
    """Servers tell it, tell that there is nothing, or tell nothing in time."""
    assert remote_sizes([Source(f"{server.url}/shard.tar#member=film.mp4")]) == [None]
    assert not server.asked, "what lies in an archive would have to be read"
    sources = [Source(f"{server.url}/{name}") for name in (films[0].name, "none.mp4")]
    assert remote_sizes(sources) == [films[0].stat().st_size, 0]
    server.fault = "hang"
    assert remote_sizes(sources[:1], seconds=0.3) == [None]


def test_other_windows_while_the_folder_is_away(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    videos(folder, 3)
    call(bench, "curate", folder)
    before = held(bench)
    bench.recipe(**OTHER_WINDOWS)

    folder.rename(tmp_path / "elsewhere")
    assert "away" in call(bench, "curate", code=3)
    assert "nothing was changed" in call(bench, "curate", folder, code=3)
    folder.mkdir()  # The folder is a mount point without its mount.
    assert "away" in call(bench, "curate", code=3)
    assert "nothing was changed" in call(bench, "curate", folder, code=3)
    assert "nothing was changed" in call(bench, "curate", f"{folder}/*.mp4", code=3)
    assert held(bench) == before

    folder.rmdir()
    (tmp_path / "elsewhere").rename(folder)
    assert computed(call(bench, "curate"))["scan"] == 3
    assert_dataset(bench, 3)


def test_a_film_that_is_gone_from_its_folder_is_a_fact(bench: Bench, tmp_path: Path) -> None:
    paths = videos(tmp_path / "films", 3)
    call(bench, "curate", tmp_path / "films")
    paths[0].unlink()
    bench.recipe(**OTHER_WINDOWS)
    call(bench, "curate")
    assert bench.plain("videos")["error_kind"].dropna().tolist() == ["missing"]
    assert_dataset(bench, 2)
    assert computed(call(bench, "curate")) == NOTHING


def test_one_source_that_is_away_stops_nothing_and_loses_nothing(
    bench: Bench, films: list[Path], server: Faulty
) -> None:
    call(bench, "curate", *(f"{server.url}/{film.name}" for film in films))
    before = bench.rows("videos").set_index("uri")
    server.fault, server.only = "503", {films[0].name}
    bench.recipe(**OTHER_WINDOWS)

    said = call(bench, "curate", code=1)
    assert "1 of them keep the result they had" in said
    after = bench.rows("videos").set_index("uri")
    stale = f"{server.url}/{films[0].name}"
    assert after.loc[stale, "scan_id"] == before.loc[stale, "scan_id"]
    assert (after["status"] == "ok").all()
    # The old clips of the film count as they are: they were made under the old windows, and pass the gates.
    assert_dataset(bench, CLIPS_EACH + 2)

    server.fault = None
    assert computed(call(bench, "curate"))["scan"] == 1
    assert_dataset(bench, 3)


def test_a_dead_link_has_a_row_and_is_tried_again_and_stops_nothing(
    bench: Bench, films: list[Path], server: Faulty
) -> None:
    server.fault, server.only = "reset", {films[0].name}
    uris = [f"{server.url}/{film.name}" for film in films]
    call(bench, "curate", *uris)
    rows = bench.plain("videos").set_index("uri")
    assert rows.loc[uris[0], ["status", "error_kind", "host"]].tolist() == [
        "error",
        "unreachable",
        socket.gethostname(),
    ]
    assert stats(bench)["error_hosts"]["videos"] == {socket.gethostname(): 1}
    assert computed(call(bench, "curate")) == {**NOTHING, "scan": 1}
    server.fault = None
    assert computed(call(bench, "curate"))["scan"] == 1
    assert_dataset(bench, 3 * CLIPS_EACH)


def test_a_refused_film_does_not_stop_the_run_for_ever(bench: Bench, films: list[Path], server: Faulty) -> None:
    """The first refusal stops a run, whatever is behind it; when it comes again while others are read, it is of that film."""
    server.fault, server.only = "403", {films[0].name}
    uris = [f"{server.url}/{film.name}" for film in films]
    said = call(bench, "curate", *uris, code=3)
    assert "HTTP 403" in said
    call(bench, "curate", *uris)
    assert_dataset(bench, 2 * CLIPS_EACH)


def test_retry_errors_replaces_no_fact_by_a_fault(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    videos(folder, 1)
    (folder / "broken.mp4").write_bytes(b"no film")
    call(bench, "curate", films[0], folder)
    folder.rename(tmp_path / "elsewhere")
    call(bench, "curate", "--retry-errors", code=3)
    assert bench.rows("videos")["error_kind"].dropna().tolist() == ["not_video"]


# ── score ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_frames_that_cannot_be_read_cost_no_score(
    bench: Bench, films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(bench, "curate", *films)
    before = held(bench)
    read = score.read_frames

    def broken(workspace: str, video_id: str, clips: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(score, "read_frames", broken)
    bench.recipe(filters={"looked": {"version": "2"}})  # The clips have to be measured anew.
    assert "unreadable" in call(bench, "curate", code=3)
    assert held(bench) == before
    # The command export alone must not empty the dataset either.
    assert "stays as it was" in call(bench, "export", code=1)
    assert held(bench) == before

    monkeypatch.setattr(score, "read_frames", read)
    assert computed(call(bench, "curate"))["score"] == 3 * CLIPS_EACH
    assert_dataset(bench, 3 * CLIPS_EACH)


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_export_with_its_sources_away_keeps_what_is_published(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    videos(folder, 3)
    call(bench, "curate", folder)
    before = held(bench)
    bench.recipe(export={"crf": 20})
    (tmp_path / "one").mkdir()
    away = folder / "000.mp4"
    film = away.rename(tmp_path / "one" / "000.mp4")
    away.symlink_to(tmp_path / "gone" / "000.mp4")  # The link points to a folder that does not exist.

    said = call(bench, "export", code=1)
    assert "dataset pretrain stays as it was" in said
    assert f"{CLIPS_EACH} of its {3 * CLIPS_EACH} clips" in said
    assert "away" in said or "not encoded" in said
    assert held(bench)["files"] == before["files"]
    assert_dataset(bench, 3 * CLIPS_EACH)
    assert (bench.rows("exports")["status"] == "ok").all()

    away.unlink()
    film.rename(away)
    assert computed(call(bench, "export")) == {"export": CLIPS_EACH}
    assert_dataset(bench, 3 * CLIPS_EACH)
    after = {str(p): p.stat().st_size for p in dataset(bench).rglob("*.mp4")}
    assert sum(after.values()) > sum(size for path, (_, size) in before["files"].items() if path.endswith(".mp4"))
    encoded = {str(p.relative_to(bench.workspace)) for p in (bench.workspace / "encoded").rglob("*.mp4")}
    assert encoded == set(bench.rows("exports")["path"]), "what no row names any more is gone"


def test_a_dataset_shrinks_where_facts_say_so(bench: Bench, tmp_path: Path) -> None:
    paths = videos(tmp_path / "films", 3)
    call(bench, "curate", *paths)
    bench.recipe(export={"crf": 20})
    paths[0].unlink()
    call(bench, "export")
    assert_dataset(bench, 2 * CLIPS_EACH)


# ── when a run stops ─────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = Outcome("s3://bucket")


def bad(kind: str = "unreachable", **more: Any) -> Outcome:
    return Outcome("s3://bucket", kind, "no answer", "node-3", **more)


def test_the_first_refused_credential() -> None:
    faults = Faults("scan")
    faults.see((GOOD,) * 300)
    with pytest.raises(SetupError, match=r"credentials \(no answer\) at s3://bucket, seen from node-3"):
        faults.see((GOOD, bad("credentials")))


def test_a_run_of_faults() -> None:
    faults = Faults("scan")
    faults.see((bad(),) * (IN_A_ROW - 1))
    faults.see((GOOD,))
    faults.see((bad(),) * (IN_A_ROW - 1))
    with pytest.raises(SetupError, match=f"{IN_A_ROW} rows in a row"):
        faults.see((bad("away"),))


def test_a_fifth_of_the_last_ones() -> None:
    faults = Faults("scan")
    faults.see((bad(), GOOD, GOOD, GOOD) * 49)
    with pytest.raises(SetupError, match=rf"5\d rows of the last {LAST}"):
        faults.see((bad(), GOOD, GOOD, GOOD))
    faults = Faults("scan")
    for _ in range(20):
        faults.see((bad(), *(GOOD,) * 5) * 10)


def test_nothing_but_faults() -> None:
    faults = Faults("scan")
    faults.see((bad(), bad()))
    faults.end(anything_good=True)  # The fault stands for dead links in a workspace that has other films.
    with pytest.raises(SetupError):
        faults.end(anything_good=False)
    faults.see((bad(had_result=True),))
    with pytest.raises(SetupError, match="3 rows of 3"):
        faults.end(anything_good=True)


def test_reports_add_up() -> None:
    total = Report()
    total += Report(rows=3, errors=2, outcomes=(GOOD, bad(), bad(had_result=True)))
    total += Report(rows=1, errors=1, outcomes=(bad(),))
    assert (total.rows, total.errors, total.faults, total.left, total.outcomes) == (4, 3, 3, 1, ())


def test_sources() -> None:
    assert source_of("https://user:secret@host:1/a/b.mp4?key=1") == "https://host:1"
    assert source_of("s3://bucket/films/a.mp4") == "s3://bucket"
    assert source_of("http://[bad/a.mp4") == "http://[bad", "an older workspace may hold what is no address"
    assert source_of("file:///mnt/films/a.mp4") == source_of("/mnt/films/a.mp4") == "/mnt/films"
