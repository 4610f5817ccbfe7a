"""The pipeline as a whole, without Ray: what is computed again and what is not, bad inputs, full disks, two at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longtake.curation.errors import ERROR_KINDS
from longtake.curation.growth import add_inputs
from longtake.curation.inputs import read_inputs
from longtake.curation.recipe import load_recipe
from longtake.curation.running.inline import Inline
from longtake.curation.stages import scan
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import WorkspaceLock
from tests.corpus import Corpus
from tests.curation.faulty_server import faulty_server
from tests.curation.workbench import (
    CLIPS_EACH,
    NOTHING,
    PLUGIN,
    Bench,
    Committed,
    assert_kept,
    assert_whole,
    call,
    computed,
    stats,
    videos,
)

BROKEN = {
    "empty": {"empty"},
    "garbage": {"not_video"},
    "text": {"not_video"},
    "no_index": {"not_video", "truncated"},  # Without the index, either of the two is right.
    "cut_off": {"truncated"},
    "one_frame": {"too_short"},
    "enormous": {"too_large"},
    "impossible_size": {"too_large", "unsupported"},
    "sound_only": {"no_video"},
    "sound_with_cover": {"no_video"},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return videos(tmp_path_factory.mktemp("films"), 6)


# ── what is left to do ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_measures_everything_once_and_a_second_run_nothing(bench: Bench, films: list[Path]) -> None:
    call(bench, "curate", *films)
    assert_whole(bench, len(films))
    lines = bench.lines()
    assert set(lines.values()) == {1}
    clips = CLIPS_EACH * len(films)
    assert Counter(line.split()[0] for line in lines) == dict.fromkeys(("seen", "looked", "teller", "heard"), clips)
    before = Committed.of(bench)
    assert computed(call(bench, "curate")) == NOTHING
    assert computed(call(bench, "curate", *films)) == NOTHING
    assert Committed.of(bench) == before


def test_a_growing_corpus_computes_what_is_new(bench: Bench, films: list[Path]) -> None:
    call(bench, "curate", *films[:2])
    before = Committed.of(bench)
    clips = CLIPS_EACH * 4
    assert computed(call(bench, "curate", *films)) == {"scan": 4, "score": clips, "caption": clips, "export": clips}
    assert_kept(before, bench)
    assert_whole(bench, 6)
    assert set(bench.lines().values()) == {1}


def test_each_stage_alone_in_order(bench: Bench, films: list[Path]) -> None:
    clips = CLIPS_EACH * 2
    assert computed(call(bench, "curate", *films[:2], "--until", "scan")) == {"scan": 2}
    assert bench.lines("looked") == {}
    assert computed(call(bench, "score")) == {"score": clips}
    assert bench.lines("teller") == {}
    assert computed(call(bench, "curate", "--until", "caption")) == {"scan": 0, "score": 0, "caption": clips}
    assert not (bench.workspace / "dataset").exists()
    assert computed(call(bench, "export")) == {"export": clips}
    assert_whole(bench, 2)


def test_score_and_caption_open_no_video(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    own = [Path(shutil.copy(film, tmp_path)) for film in films[:2]]
    call(bench, "scan", *own)
    for film in own:
        film.unlink()
    assert computed(call(bench, "score")) == {"score": 4}
    assert computed(call(bench, "caption")) == {"caption": 4}
    bench.recipe(captioning={"settings": {"voice": "high"}})
    assert computed(call(bench, "curate", "--until", "caption")) == {"scan": 0, "score": 0, "caption": 4}
    assert all("high voice" in text for texts in bench.plain("captions")["sub_captions"] for text in texts)
    assert set(bench.lines("looked").values()) == {1}
    # A clip that can no longer be cut is an error, and neither a rejection nor a crash.
    assert "4 with errors" in call(bench, "export")
    assert set(bench.plain("exports")["error_kind"]) == {"missing"}
    call(bench, "export", "--retry-errors", "--strict", code=1)


def test_a_looser_threshold_computes_what_is_missing_and_a_stricter_one_nothing(
    bench: Bench, films: list[Path]
) -> None:
    call(bench, "scan", *films, "--all-scores")
    seen = bench.plain("clips").set_index("clip_id")["seen"]
    shutil.rmtree(bench.workspace)
    bench.log.unlink()
    middle = float(np.median(seen))
    bench.recipe(tiers={"pretrain": {"seen": f">= {middle}"}})
    kept = set(seen.index[seen >= middle])

    call(bench, "curate", *films)
    assert set(bench.plain("captions")["clip_id"]) == kept
    assert len(bench.lines("looked")) == len(kept)
    assert stats(bench)["tiers"]["pretrain"]["rejected"] == len(seen) - len(kept)
    before = Committed.of(bench)
    clips = bench.plain("clips")
    complete = {v for v, group in clips.groupby("video_id") if set(group["clip_id"]) <= kept}

    bench.recipe(tiers={"pretrain": {"seen": f">= {seen.max()}"}})
    assert computed(call(bench, "curate")) == NOTHING
    assert len(pd.read_parquet(bench.workspace / "dataset/pretrain/index.parquet")) == 1

    bench.recipe(tiers={"pretrain": {"seen": ">= 0"}})
    again = computed(call(bench, "curate"))
    assert again["scan"] == len(films) - len(complete)
    assert_whole(bench, len(films))
    after = Committed.of(bench)
    assert {v: after.scans[v] for v in complete} == {v: before.scans[v] for v in complete}
    assert set(bench.lines("looked").values()) == {1}, "the frames are the same: the score stays with its clip"
    assert computed(call(bench, "curate")) == NOTHING


def test_all_scores_measures_what_is_rejected(bench: Bench, films: list[Path]) -> None:
    bench.recipe(tiers={"pretrain": {"width": ">= 1280"}})
    call(bench, "curate", *films[:2])
    assert bench.lines() == {}
    call(bench, "curate", "--all-scores")
    assert Counter(line.split()[0] for line in bench.lines()) == {"seen": 4, "looked": 4}
    assert computed(call(bench, "curate", "--all-scores")) == NOTHING
    assert computed(call(bench, "curate")) == NOTHING
    found = stats(bench)["tiers"]["pretrain"]
    assert (found["kept"], found["rejected"], found["error"]) == (0, 4, 0)


@pytest.mark.parametrize("gate", [{"duration": ">= 2"}, {}])
def test_a_video_shorter_than_any_clip_is_scanned_once(bench: Bench, tmp_path: Path, gate: dict[str, str]) -> None:
    """Its one row is rejected by its length, or, where no gate asks for that, measured like any other."""
    bench.recipe(tiers={"pretrain": gate})
    call(bench, "curate", *videos(tmp_path / "short", 1, frames=30))
    assert computed(call(bench, "curate")) == NOTHING
    found = stats(bench)
    tier = found["tiers"]["pretrain"]
    assert found["clips"]["total"] == tier["kept"] + tier["rejected"] + tier["error"] == 1
    assert tier["rejected"] == len(gate)


def test_retry_errors_after_a_file_is_mended(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"
    late.write_bytes(b"")
    assert "1 with errors" in call(bench, "curate", films[0], late)
    before = Committed.of(bench)
    shutil.copy(films[1], late)
    assert computed(call(bench, "curate")) == NOTHING
    assert computed(call(bench, "curate", "--retry-errors"))["scan"] == 1
    assert_kept(before, bench)
    assert_whole(bench, 2)


def test_export_follows_the_tiers(bench: Bench, films: list[Path]) -> None:
    folder = bench.workspace / "dataset" / "pretrain"

    def exported() -> set[str]:
        on_disk = {path.stem for path in (folder / "clips").glob("*/*.mp4")}
        assert set(pd.read_parquet(folder / "index.parquet")["clip_id"]) == on_disk
        assert set(pd.read_parquet(folder / "shards")["clip_id"]) == on_disk
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
        return on_disk

    call(bench, "curate", *films[:3])
    seen = bench.plain("clips").set_index("clip_id")["seen"].sort_values()
    assert exported() == set(seen.index)
    bench.recipe(tiers={"pretrain": {"seen": f">= {seen.iloc[2]}"}})
    assert computed(call(bench, "export")) == {"export": 0}
    assert exported() == set(seen.index[2:])
    bench.recipe(tiers={"pretrain": {"seen": f"[0, {seen.iloc[3]}]"}})
    assert computed(call(bench, "export")) == {"export": 0}, "they are encoded already"
    assert exported() == set(seen.index[:4])


# ── bad inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def spoiled(film: Path, target: Path) -> Path:
    """A good index, and noise over most of the pictures."""
    data = bytearray(film.read_bytes())
    start, length = data.index(b"mdat") + 2000, 25_000
    data[start : start + length] = np.random.default_rng(1).bytes(length)
    target.write_bytes(data)
    return target


def test_each_bad_input_is_one_error_row_of_a_documented_kind(
    bench: Bench, films: list[Path], corpus: Corpus, tmp_path: Path
) -> None:
    expected: dict[str, set[str]] = {str(corpus[name]): kinds for name, kinds in BROKEN.items()}

    expected[str(spoiled(films[0], tmp_path / "spoiled.mp4"))] = {"corrupt"}
    expected[str(tmp_path / "nowhere.mp4")] = {"missing"}
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    expected[str(tmp_path / "dangling.mp4")] = {"missing"}
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    expected[str(tmp_path / "loop.mp4")] = {"not_a_file"}
    (tmp_path / "folder.mp4").mkdir()
    expected[str(tmp_path / "folder.mp4")] = {"not_a_file"}
    os.mkfifo(tmp_path / "pipe.mp4")
    expected[str(tmp_path / "pipe.mp4")] = {"not_a_file"}
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    expected[str(tmp_path / "endless.mp4")] = {"not_a_file"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.mp4"))
    expected[str(tmp_path / "s.mp4")] = {"not_a_file"}
    expected["http://127.0.0.1:9/closed.mp4"] = {"unreachable"}
    expected["nosuch://bucket/video.mp4"] = {"unreachable"}

    table = tmp_path / "inputs.txt"  # The films stand in a list, so that the folder among them is not walked.
    table.write_text("\n".join([*expected, str(films[0]), str(films[1])]) + "\n")
    output = call(bench, "curate", table)

    rows = bench.plain("videos").set_index("uri")
    assert rows.index.is_unique
    assert set(rows.index) == {*expected, str(films[0]), str(films[1])}
    wrong = {uri: (kind, kinds, rows.loc[uri, "error"]) for uri, kinds in expected.items()
             if (kind := rows.loc[uri, "error_kind"]) not in kinds}  # fmt: skip
    assert not wrong
    assert all(kinds <= set(ERROR_KINDS) for kinds in expected.values())
    assert rows.loc[list(expected), "error"].str.len().min() > 5
    counts = stats(bench)
    assert counts["videos"]["total"] == len(expected) + 2
    assert counts["videos"]["ok"] == 2
    assert counts["videos"]["error"] == len(expected) == sum(counts["videos"]["error_kinds"].values())
    assert counts["clips"]["total"] == 2 * CLIPS_EACH
    assert f"{len(expected)} with errors" in output
    again = {**NOTHING, "scan": 2}
    assert computed(call(bench, "curate")) == again, "facts are not read again unasked, faults of the world are"
    call(bench, "curate", "--retry-errors", "--strict", code=1)
    assert bench.plain("videos")["uri"].is_unique


def test_a_poisoned_video_costs_one_row(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    """In the sandbox, as on Ray: one crashes the decoder, one keeps it waiting for a read for ever, one takes all memory."""
    bad = {f"poison://{kind}{films[0]}": kind for kind in ("crash", "hang", "bloat")}
    table = tmp_path / "inputs.txt"
    table.write_text("\n".join([str(films[0]), *bad, str(films[1]), str(films[2])]))
    recipe = load_recipe(bench.recipe(scan={"min_time_limit": 15.0, "memory_limit_mib": 600}))
    workspace = Workspace(str(bench.workspace))
    add_inputs(workspace, [read_inputs([str(table)])])
    job = scan.plan(workspace, recipe, all_scores=False, retry_errors=False)
    assert job is not None
    assert sum(report.errors for report in Inline().run(job)) == 3

    rows = bench.plain("videos").set_index("uri")
    kinds = {"crash": "crash", "hang": "timed_out", "bloat": "memory"}
    assert dict(rows.loc[list(bad), "error_kind"]) == {uri: kinds[kind] for uri, kind in bad.items()}
    assert "SIGSEGV" in rows.loc[f"poison://crash{films[0]}", "error"]
    good = rows.loc[list(map(str, films[:3]))]
    assert (good["status"] == "ok").all()
    assert good["clips"].str.len().tolist() == [CLIPS_EACH] * 3


# ── remote sources ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def served(films: list[Path]) -> Iterator[str]:
    with faulty_server(films[0].parent) as server:
        yield server.url


def test_http_sources_give_what_local_ones_give(bench: Bench, films: list[Path], served: str) -> None:
    pytest.importorskip("aiohttp")
    remote = [f"{served}/{film.name}" for film in films[:2]]
    call(bench, "curate", *remote, f"{served}/nowhere.mp4", *films[:2])
    rows = bench.plain("videos").set_index("uri")
    assert rows.loc[f"{served}/nowhere.mp4", "error_kind"] == "missing"
    index = pd.read_parquet(bench.workspace / "dataset" / "pretrain" / "index.parquet")
    for here, there in zip(films[:2], remote, strict=True):
        local, far = (index[index["uri"] == str(uri)].sort_values("start") for uri in (here, there))
        assert len(local) == CLIPS_EACH
        for column in ("start", "end", "seen", "grayscale", "sha256"):
            assert local[column].tolist() == far[column].tolist(), column


# ── the workspace ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small filesystem cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("stage", ["scan", "score", "caption", "export"])
def test_a_full_disk_stops_the_run_and_spoils_nothing(
    bench: Bench, films: list[Path], small_disk: Path, stage: str
) -> None:
    bench.workspace.symlink_to(small_disk)
    stages = ["scan", "score", "caption", "export"]
    if before := stages[: stages.index(stage)]:
        call(bench, "curate", *films, "--until", before[-1])
    else:
        call(bench, "scan", *films[:1])
    ballast = small_disk / "ballast"
    fill(ballast, leave=24 * 1024 if stage == "scan" else 8 * 1024 if stage == "export" else 2 * 1024)
    committed = Committed.of(bench)

    output = call(bench, "curate", *films, code=3)
    assert "No space left on device" in output, output
    assert str(bench.workspace) in output.replace("\n", "")
    assert_kept(committed, bench)
    assert not (bench.rows("videos")["status"] == "error").any(), "a full disk is no fault of a video"

    ballast.unlink()
    call(bench, "curate", *films)
    assert_kept(committed, bench)
    assert_whole(bench, len(films))


def fill(path: Path, leave: int) -> None:
    """A file that takes all the room there is but `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave) // 4096 * 4096)


def test_a_workspace_that_cannot_be_written(bench: Bench, films: list[Path]) -> None:
    bench.workspace.write_text("I was here first")
    output = call(bench, "curate", films[0], code=3)
    assert str(bench.workspace) in output.replace("\n", "")
    assert bench.workspace.read_text() == "I was here first"


def test_a_manifest_that_cannot_be_written(bench: Bench, films: list[Path]) -> None:
    bench.workspace.mkdir()
    (bench.workspace / "videos").write_text("I was here first")
    assert "videos" in call(bench, "curate", films[0], code=3)
    (bench.workspace / "videos").unlink()
    (bench.workspace / "frames").write_text("I was here first")
    assert "frames" in call(bench, "curate", films[0], code=3)
    (bench.workspace / "frames").unlink()
    call(bench, "curate", films[0])
    assert_whole(bench, 1)


def test_two_runs_at_once_the_second_names_the_first(bench: Bench, films: list[Path]) -> None:
    with WorkspaceLock(str(bench.workspace)):
        output = call(bench, "curate", films[0], code=3)
    assert f"process {os.getpid()}" in output
    call(bench, "curate", films[0])


def test_the_counts_add_up_when_everything_happens_at_once(bench: Bench, films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    bench.recipe(tiers={"pretrain": {"seen": ">= 2000000000"}, "finetune": {"seen": ">= 3000000000", "looked": ">= 0"}})
    call(bench, "curate", *films, tmp_path / "empty.mp4")
    found = stats(bench)
    assert found["videos"]["total"] == found["videos"]["ok"] + found["videos"]["error"] == 7
    clips = found["clips"]["total"]
    assert clips == CLIPS_EACH * 6
    for tier in found["tiers"].values():
        assert tier["kept"] + tier["rejected"] + tier["error"] == clips
        for gate in tier["gates"].values():
            assert gate["passed"] + gate["failed"] + gate["missing"] == clips - tier["error"]
    assert found["tiers"]["finetune"]["kept"] <= found["tiers"]["pretrain"]["kept"]


def test_until_and_time_of_an_idle_run(bench: Bench, films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished workspace again, without --engine inline: Ray is not even imported."""
    call(bench, "curate", *films[:1])
    guard = bench.folder / "guard"
    guard.mkdir()
    (guard / "ray.py").write_text("raise SystemExit('Ray was imported')\n")
    monkeypatch.setenv("PYTHONPATH", "")
    process = subprocess.run(
        bench.command("curate"), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(guard), str(PLUGIN), str(PLUGIN.parents[2])])},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert computed(process.stdout) == NOTHING
