"""`--part I/N`: independent tasks on one workspace, some of which die; then the plain command. Equal to one run."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from longtake.curation import pipeline
from longtake.curation.recipe import load_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import LockLost
from tests.curation.workbench import CLIPS_EACH, Bench, assert_whole, begun, call, kill_tree, videos, wait_for

COUNT = 12
OF_A_SCAN = ["scan_id", "host", "cpu_seconds"]  # Columns that differ from run to run.


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    videos(folder, COUNT)
    return folder


def comparable(bench: Bench, manifest: str, key: str) -> list[dict[str, object]]:
    rows = bench.plain(manifest)
    assert rows[key].is_unique
    rows = rows.drop(columns=[name for name in OF_A_SCAN if name in rows.columns]).sort_values(key)
    rows = rows[sorted(rows.columns)]
    if "clips" in rows:
        rows = rows.assign(clips=rows["clips"].map(str))
    return [{name: str(value) for name, value in row.items()} for row in rows.to_dict("records")]


def assert_equal_runs(one: Bench, other: Bench) -> None:
    for manifest, key in {
        "inputs": "video_id",
        "videos": "video_id",
        "clips": "clip_id",
        "captions": "clip_id",
    }.items():
        assert comparable(one, manifest, key) == comparable(other, manifest, key), manifest
    for bench in (one, other):
        index = pd.read_parquet(bench.workspace / "dataset" / "pretrain" / "index.parquet")
        assert len(index) == COUNT * CLIPS_EACH


def test_parts_one_after_the_other_and_then_a_plain_run_equal_one_run(
    bench: Bench, films: Path, tmp_path: Path
) -> None:
    scanned = 0
    for part in ("1/3", "3/3", "2/3"):
        call(bench, "curate", films, "--part", part)
        assert len(bench.rows("videos")) > scanned or part == "2/3"
        scanned = len(bench.rows("videos"))
        assert len(bench.rows("exports")) == CLIPS_EACH * scanned
        assert not (bench.workspace / "dataset").exists()
    assert scanned == COUNT
    lines = bench.lines()
    assert set(lines.values()) == {1}
    call(bench, "curate", films)
    assert bench.lines() == lines
    assert_whole(bench, COUNT)
    one = Bench(tmp_path / "one")
    call(one, "curate", films)
    assert_equal_runs(bench, one)


def test_a_part_without_videos_is_done_at_once(bench: Bench, films: Path) -> None:
    # Tasks of an array start in any order: the first to start may be one that has none of few videos.
    one = next(films.iterdir())
    outputs = [
        call(Bench(bench.workspace.parent / str(part)), "curate", one, "--part", f"{part}/3") for part in (1, 2, 3)
    ]
    empty = [output for output in outputs if "none of the videos belongs to it" in output]
    assert len(empty) == 2
    assert all("Part " in output and " of 3 is done" in output for output in empty)
    assert "no videos were given" in call(bench, "curate", "--part", "1/3", code=3)


def test_a_part_must_be_one(bench: Bench, films: Path) -> None:
    for part in ("0/3", "4/3", "2", "a/b", "-1/3"):
        assert "is no part" in call(bench, "curate", films, "--part", part, code=2)


@pytest.mark.slow  # The test starts six runs as processes of their own.
def test_five_parts_at_once_two_of_which_are_killed(bench: Bench, films: Path, tmp_path: Path) -> None:
    bench.recipe(filters={"seen": {"pause": 0.3}, "looked": {"pause": 0.3}})
    tasks = [bench.start("curate", films, "--part", f"{i}/5", "--engine", "inline") for i in range(1, 6)]
    try:
        # The paths of the films decide their parts, and a part may have none.
        wait_for(lambda: begun(bench, "scan") > 2, "the scan to work")
        for task in tasks[:2]:
            os.killpg(task.pid, signal.SIGKILL)
        for task in tasks[2:]:
            output, _ = task.communicate(timeout=400)
            assert task.returncode == 0, output
    finally:
        for task in tasks:
            kill_tree(task)
    assert set(Counter(bench.rows("clips")["clip_id"]).values()) == {1}
    bench.recipe(filters={"seen": {"pause": 0.0}, "looked": {"pause": 0.0}})  # Every kill of this test is over.
    call(bench, "curate", films)
    assert_whole(bench, COUNT)
    one = Bench(tmp_path / "one")
    one.changes = bench.changes
    one.recipe(filters={"seen": {"log": str(one.log)}, "looked": {"log": str(one.log)}})
    call(one, "curate", films)
    assert_equal_runs(bench, one)


class Deaf:
    """A watcher that takes the workspace's lock away after the first batch."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.batches = workspace, 0

    def begin(self, stage: str, rows: int) -> None: ...

    def end(self, stage: str, total: object, seconds: float) -> None: ...

    def advance(self, report: object) -> None:
        self.batches += 1
        (self.workspace / ".lock").unlink()


def test_a_run_that_lost_its_lock_stops_before_its_next_batch(
    bench: Bench, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOOK_SECONDS", 0.0)
    watcher = Deaf(bench.workspace)
    workspace, recipe = Workspace(str(bench.workspace), remembers=True), load_recipe(str(bench.recipe()))
    with pytest.raises(LockLost, match="was lost"):
        pipeline.run(workspace, recipe, [str(films)], Options(("scan",), engine="inline"), watcher)
    assert watcher.batches == 1
    assert 0 < len(bench.rows("videos")) < COUNT
