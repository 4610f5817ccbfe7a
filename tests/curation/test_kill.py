"""kill -9 at any moment (design, section 11): of the driver in the middle of each stage, of Ray's workers, of the
decoding processes. Afterwards nothing is lost, nothing is there twice, nothing that was committed was measured again.

`make chaos` does the same at many random moments.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from longtake.manifests import schemas
from longtake.manifests.store import Manifest
from tests.curation.workbench import (
    CLIPS_EACH,
    Bench,
    Committed,
    RunningRay,
    actors,
    alive,
    assert_kept,
    assert_whole,
    begun,
    family,
    kill_driver,
    kill_tree,
    processes,
    videos,
    wait_for,
)

COUNT = 24  # Videos: three batches in scan, caption and export, sixteen in score.

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    videos(folder, COUNT)
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Measuring takes long enough to be killed in the middle of it."""
    found = Bench(tmp_path)
    slow = {"pause": 0.1}
    found.recipe(filters={"seen": slow, "looked": slow}, captioning={"settings": slow})
    return found


def in_the_middle(bench: Bench, stage: str, process: object) -> None:
    """Wait until a stage has committed something, and is at work on more."""
    outputs = {"scan": "videos", "score": "clips", "caption": "captions", "export": "exports"}
    manifest: Manifest = getattr(schemas, outputs[stage])(str(bench.workspace))
    done = begun(bench, stage)
    wait_for(lambda: begun(bench, stage) > done, f"{stage} to begin", process=process)
    rows = manifest.rows()
    wait_for(lambda: manifest.rows() > rows, f"{stage} to commit rows", process=process)
    done = begun(bench, stage)
    wait_for(lambda: begun(bench, stage) > done, f"{stage} to go on", process=process)


@pytest.mark.campaign
@pytest.mark.slow
def test_the_driver_is_killed_in_the_middle_of_a_stage(bench: Bench, films: Path, running_ray: RunningRay) -> None:
    """On a cluster that lives on: its workers may outlive the driver by a moment, while the next run starts."""
    address = running_ray.address
    committed: list[Committed] = []
    for stage in ("scan", "caption", "export"):
        process = bench.start("curate", films, "--address", address)
        try:
            in_the_middle(bench, stage, process)
        finally:
            kill_driver(process)
        committed.append(Committed.of(bench))
    bench.run("curate", films, "--engine", "inline")
    assert_whole(bench, COUNT)
    for before in committed:
        assert_kept(before, bench)
    lines = bench.lines()
    assert len(lines) == 4 * CLIPS_EACH * COUNT
    # Each kill costs at most the batches in hand.
    assert sum(lines.values()) - len(lines) <= 2 * CLIPS_EACH * 8 + 2 * (16 + 16)


@pytest.mark.slow
def test_killed_workers_and_decoders(bench: Bench, films: Path, running_ray: RunningRay) -> None:
    """The run ends well by itself, and nothing is left to tidy up."""
    address, members = running_ray.address, running_ray.members
    process = bench.start("curate", films, "--address", address, "--until", "score")
    try:
        wait_for(lambda: begun(bench, "scan") > 2, "the scan to work", process=process)
        wait_for(lambda: processes(members, "longtake.curation.reading.sandbox"), "a decoder", process=process)[
            0
        ].kill()
        done = begun(bench, "scan")
        wait_for(lambda: begun(bench, "scan") > done + 4, "the next batches", process=process)
        wait_for(lambda: actors(members, "scan"), "an actor", process=process)[0].kill()
        wait_for(lambda: begun(bench, "score") > 2, "the score to work", process=process)
        before = Committed.of(bench)
        wait_for(lambda: actors(members, "score"), "an actor", process=process)[0].kill()
        output, _ = process.communicate(timeout=240)
    except BaseException:
        kill_tree(process)
        raise
    assert process.returncode == 0, output
    rows = bench.plain("videos")
    assert len(rows) == COUNT
    assert (rows["status"] == "ok").all()
    clips = bench.plain("clips")
    assert clips["clip_id"].is_unique
    assert len(clips) == CLIPS_EACH * COUNT
    assert clips["looked"].notna().all()
    assert_kept(before, bench)
    fast = {"pause": 0.0}  # Every kill of this test is over.
    bench.recipe(filters={"seen": fast, "looked": fast}, captioning={"settings": fast})
    bench.run("curate", "--engine", "inline")
    assert_whole(bench, COUNT)


def working(members: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there, but for Ray's two agents: they look for their cluster for a minute, then end."""
    left = []
    for process in filter(alive, members):
        with suppress(psutil.NoSuchProcess):
            if "Agent" not in " ".join(process.cmdline()):
                left.append(process)
    return left


@pytest.mark.slow
@pytest.mark.campaign
def test_a_ray_of_its_own_ends_with_the_driver(bench: Bench, films: Path) -> None:
    """Ctrl-C, then kill -9: no process stays behind, and the next run finishes."""
    process = bench.start("curate", films, "--engine", "ray")
    try:
        in_the_middle(bench, "scan", process)
        members = family(process)
        os.killpg(process.pid, signal.SIGINT)  # A terminal sends the signal to the whole group.
        output, _ = process.communicate(timeout=60)
    except BaseException:
        kill_tree(process)
        raise
    assert process.returncode == 130, output
    assert "goes on from here" in output
    assert "Traceback" not in output
    wait_for(lambda: not working(members), "Ray's processes to end", 30)
    before = [Committed.of(bench)]

    process = bench.start("curate", films, "--engine", "ray")
    try:
        in_the_middle(bench, "score", process)
    finally:
        members = kill_driver(process)
    assert len(members) > 3
    wait_for(lambda: not working(members), "Ray's processes to end", 30)
    before.append(Committed.of(bench))

    bench.run("curate", films, "--engine", "inline")
    assert_whole(bench, COUNT)
    for committed in before:
        assert_kept(committed, bench)
