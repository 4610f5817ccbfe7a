"""Batches, and the way over Ray: the same rows as in one process, and faults that end in words instead of a hang."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import SetupError
from longtake.curation.growth import add_inputs
from longtake.curation.inputs import read_inputs
from longtake.curation.recipe import load_recipe
from longtake.curation.running import on_ray
from longtake.curation.running.inline import Inline
from longtake.curation.running.jobs import Hands, Job, Report, split
from longtake.curation.running.on_ray import Cluster, _later, why_not
from longtake.curation.stages import scan
from longtake.curation.workspace import Workspace
from tests.curation.workbench import RunningRay, environment

# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    st.lists(st.floats(0, 100), max_size=60),
    st.floats(0.1, 300),
    st.integers(1, 20),
)
def test_split_keeps_rows_and_order_within_its_limits(costs: list[float], per_batch: float, at_most: int) -> None:
    table = pa.table({"row": np.arange(len(costs))})
    batches = split(table, costs, per_batch, at_most)
    assert [row for batch in batches for row in batch["row"].to_pylist()] == list(range(len(costs)))
    for batch in batches:
        rows = batch["row"].to_pylist()
        assert 1 <= len(rows) <= at_most
        assert len(rows) == 1 or sum(costs[row] for row in rows) <= per_batch * (1 + 1e-9)
    for first, second in pairwise(batches):  # The batches are no smaller than they need to be.
        rows = [*first["row"].to_pylist(), second["row"][0].as_py()]
        assert len(rows) > at_most or sum(costs[row] for row in rows) > per_batch * (1 - 1e-9)


def test_the_largest_videos_come_first(tmp_path: Path) -> None:
    sizes = [3, 50, 7, 0, 41, 41, 12]
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}.mp4").write_bytes(bytes(size * 2**20))
    workspace = Workspace(str(tmp_path / "workspace"))
    add_inputs(workspace, [read_inputs([str(tmp_path), str(tmp_path / "missing.mp4")])])
    job = scan.plan(workspace, load_recipe("embedded"), all_scores=False, retry_errors=False)
    assert job is not None
    names = [[Path(uri).stem for uri in batch["uri"].to_pylist()] for batch in job.batches]
    assert [name for batch in names for name in batch] == ["1", "4", "5", "6", "2", "0", "3", "missing"]
    assert len(names) > 3, "a batch is some seconds of decoding"


def test_reports_add_up() -> None:
    total = Report()
    total += Report(rows=2, errors=1, seconds=1.5, cpu_seconds=3.0, video_seconds=20.0)
    assert total.busy_share is None
    total += Report(rows=3, seconds=0.5, cpu_seconds=1.0, video_seconds=5.0, busy_seconds=0.4)
    assert total == Report(5, 1, 2.0, 4.0, 25.0, 0.4)
    assert total.busy_share == 0.2


# ── on Ray ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cluster(running_ray: RunningRay) -> Iterator[Cluster]:
    """The suite's Ray, of two CPUs."""
    joined = Cluster(running_ray.address)
    joined.start()
    yield joined
    joined.close()


class Worker:
    """Writes down each batch and who worked on it, and behaves as `how` says."""

    def __init__(self, folder: str, how: str) -> None:
        self.folder, self.how = Path(folder), how
        if how == "no model":
            raise FileNotFoundError("the weights are not there")

    def __call__(self, batch: pa.Table) -> Report:
        (self.folder / f"{batch['row'][0].as_py()}").write_text(f"{os.getpid()} {time.time_ns()}")
        if self.how == "fault":
            raise ValueError("this batch is cursed")
        if self.how == "all sorts":
            if batch["row"][0].as_py() == 5 and not (self.folder / "killed").exists():
                (self.folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if "deadly" in batch["name"].to_pylist():
                os.kill(os.getpid(), signal.SIGKILL)
            if "hanging" in batch["name"].to_pylist():
                if (self.folder / "hung").exists():
                    os.kill(os.getpid(), signal.SIGSTOP)
                (self.folder / "hung").touch()
                ctypes.PyDLL(None).sleep(3600)  # The call holds the interpreter's lock.
        time.sleep(0.2)
        return Report(rows=batch.num_rows, errors=1)

    def give_up(self, batch: pa.Table, message: str) -> Report:
        (self.folder / f"given up {batch['name'][0].as_py()}").write_text(message)
        return Report(rows=batch.num_rows, errors=batch.num_rows)


def job(folder: Path, how: str = "", batches: int = 8, **more: float) -> Job:
    names = {1: "deadly", 3: "hanging"}
    tables = [pa.table({"row": [i, i], "name": [names.get(i, ""), "innocent"]}) for i in range(batches)]
    return Job("test", tables, Worker, (str(folder), how), **more)  # type: ignore[arg-type]


@pytest.mark.cluster
def test_each_batch_is_done_once_by_workers(cluster: Cluster, tmp_path: Path) -> None:
    seen: list[Mapping[str, Hands]] = []
    reports = list(cluster.run(job(tmp_path), see=seen.append))
    assert sum(report.rows for report in reports) == 16
    assert {report.host for report in reports} == {os.uname().nodename}
    hands = [what["test"] for what in seen if what]
    assert 1 <= hands[-1].workers <= 2
    assert max(what.batches for what in hands) >= 1
    assert hands[0].worker_seconds < hands[-1].worker_seconds
    assert hands[-1].usual_seconds is not None
    assert sum(report.errors for report in reports) == 8
    done = {int(path.name): path.read_text().split() for path in tmp_path.iterdir()}
    assert sorted(done) == list(range(8))
    assert {pid for pid, _ in done.values()}.isdisjoint({str(os.getpid())})


def test_the_same_job_in_this_process_gives_the_same(tmp_path: Path) -> None:
    reports = list(Inline().run(job(tmp_path, batches=2)))
    assert [report.rows for report in reports] == [2, 2]


@pytest.mark.cluster
def test_a_worker_that_cannot_be_made_is_one_clear_error(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="test: FileNotFoundError: the weights are not there"):
        list(cluster.run(job(tmp_path, "no model")))


@pytest.mark.cluster
def test_a_worker_that_fails_stops_the_run_with_its_words(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="this batch is cursed"):
        list(cluster.run(job(tmp_path, "fault")))


@pytest.mark.slow  # Ray makes an actor anew three times.
@pytest.mark.cluster
def test_what_kills_or_stops_its_workers_ends_as_an_error_and_costs_nobody_else(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A worker killed once: its batch is done. A row that hangs or freezes and a row that kills, whoever takes them: errors of
    their own, after their batches ended two workers and they alone a third."""
    reports = list(cluster.run(job(tmp_path, "all sorts", batches=8, patience=4.0)))
    rows = sum(report.rows for report in reports)
    assert rows == 16
    assert (tmp_path / "killed").exists()
    given_up = {path.name: path.read_text() for path in tmp_path.glob("given up *")}
    assert set(given_up) == {"given up deadly", "given up hanging"}
    assert "ended two workers, and it alone ended another one" in given_up["given up deadly"]
    assert sum(report.repeated for report in reports) >= 4
    assert {path.name for path in tmp_path.glob("[0-9]")} == {str(i) for i in range(8)}


@pytest.mark.cluster
def test_what_is_waited_for_is_said(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.curation.running import streaming

    monkeypatch.setattr(streaming, "_SAY_SECONDS", 1.0)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        raise SetupError("enough")

    with pytest.raises(SetupError, match="enough"):
        list(cluster.run(job(tmp_path, cpus=64.0), say))
    assert said == ["waiting for room: a test worker needs 64 CPU and 1 GiB"]
    assert not list(tmp_path.iterdir())
    left = [thread.name for thread in threading.enumerate() if "Streaming" in thread.name or "flow" in thread.name]
    assert not left, "a thread that is at Ray's core when Ray is left takes the process with it"


class InParts:
    """Takes a row at a time, and is killed once in the third."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def parts(self, batch: pa.Table) -> list[pa.Table]:
        return [batch.slice(at, 1) for at in range(batch.num_rows)]

    def __call__(self, part: pa.Table) -> Report:
        row = part["row"][0].as_py()
        with (self.folder / "log").open("a") as log:
            log.write(f"{row} ")
        if row == 2 and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Report(rows=part.num_rows)


@pytest.mark.slow  # An actor is made twice.
@pytest.mark.cluster
def test_a_kill_costs_the_part_in_hand_and_not_the_batch(cluster: Cluster, tmp_path: Path) -> None:
    reports = list(cluster.run(Job("test", [pa.table({"row": [0, 1, 2, 3]})], InParts, (str(tmp_path),))))
    assert sum(report.rows for report in reports) == 4
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "2", "3"]
    assert sum(report.repeated for report in reports) == 1


class Passing(Worker):
    """Gives on what it did."""

    def __call__(self, batch: pa.Table) -> Report:
        report = super().__call__(batch)
        report.clips = batch
        return report


def follow(after: str, clips: pa.Table) -> list[tuple[str, pa.Table]]:
    """From the first stage to the second and, past that, to the third."""
    half = clips.num_rows // 2
    return {"first": [("second", clips[:half]), ("third", clips[half:])], "second": [("third", clips)]}[after]


@pytest.mark.campaign
@pytest.mark.slow  # Three pools of actors are started.
@pytest.mark.cluster
def test_stages_flow_at_once_with_what_was_left_for_them(cluster: Cluster, tmp_path: Path) -> None:
    jobs = []
    for name, count in (("first", 8), ("second", 0), ("third", 2)):
        (tmp_path / name).mkdir()
        tables = [pa.table({"row": [i + (100 if name == "third" else 0)] * 2}) for i in range(count)]
        jobs.append(Job(name, tables, Passing, (str(tmp_path / name), "")))
    assert cluster.fits(jobs)
    reports = list(cluster.stream(jobs, follow))
    rows = {name: sum(r.rows for r in reports if r.stage == name) for name in ("first", "second", "third")}
    assert rows == {"first": 16, "second": 8, "third": 20}
    more: Counter[str] = Counter()
    for report in reports:
        more.update(report.more)
    assert more == {"second": 8, "third": 16}
    began = {name: [int(p.read_text().split()[1]) for p in (tmp_path / name).iterdir()] for name in rows}
    assert min(began["third"]) < max(began["first"]), "the last stage began before the first was over"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("Version mismatch: The cluster was started with:\n  Ray: 2.59.0", "another version of Ray or Python"),
        ("Failed to connect to Ray cluster at 10.0.0.1:6379", "it wants another token than this command has"),
        ("nobody there", "^nobody there$"),
    ],
)
def test_why_a_cluster_cannot_be_joined(fault: str, words: str) -> None:
    assert re.search(words, why_not(RuntimeError(fault)))


def test_an_error_of_the_system_is_told_without_its_number() -> None:
    assert why_not(PermissionError(errno.EACCES, "Permission denied", "/home/me")) == "/home/me: Permission denied"
    assert why_not(ConnectionRefusedError(errno.ECONNREFUSED, "?")) == "Connection refused"


def test_a_process_that_may_open_few_files_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's core ended the whole command, with exit code 1 and without a word."""
    monkeypatch.setattr(on_ray.resource, "getrlimit", lambda which: (64, 64))
    cluster = Cluster()
    with pytest.raises(
        SetupError, match=r"does not start: it needs 128 open files at least, and this command may have 64"
    ):
        _ = cluster.workers
    cluster.close()


def test_a_disk_too_full_for_rays_scratch_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import OutOfDiskError

    from longtake.curation.running import streaming

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for free, said in ((51, None), (49, f"the disk of {tmp_path}, where Ray has its scratch folder, is 95% full")):
        usage = shutil._ntuple_diskusage(1000, 1000 - free, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", {str(tmp_path): usage}.__getitem__)
        told = on_ray.full_scratch()
        assert told is None if said is None else told is not None and told.startswith(said)
    monkeypatch.undo()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "missing"))
    assert on_ray.full_scratch() is None
    assert "the disk of Ray's scratch folder on a machine is too full" in streaming._last_line(OutOfDiskError("put"))


@pytest.mark.parametrize("number", [1, 2])
def test_the_line_of_rays_core_is_left_out_and_nothing_else(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with _later(number):
        os.write(number, b"before\n")
        os.write(
            number, b"[2026-11-25 logging.cc:123] Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL\n"
        )
        os.write(number, b"after\n")
    assert capfd.readouterr()[number - 1] == "before\nafter\n"


@pytest.mark.slow  # The test starts a Ray of its own.
@pytest.mark.cluster
def test_starting_ray_is_said_and_its_core_says_nothing() -> None:
    code = "from longtake.curation.running.on_ray import Cluster; c = Cluster(say=print); print(c.workers); c.close()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(), timeout=300
    )
    assert re.fullmatch(r"starting Ray, some 10 s\n\d+\n", done.stdout)
    assert "logging.cc" not in done.stderr


def test_a_cluster_that_is_not_there_is_a_clear_error() -> None:
    """In a process of its own: this one has a Ray already."""
    code = "from longtake.curation.running.on_ray import Cluster; Cluster('127.0.0.1:9').workers"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(), timeout=120
    )
    assert done.returncode == 1
    assert "SetupError: the Ray cluster at 127.0.0.1:9 does not start" in done.stderr
