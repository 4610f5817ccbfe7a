"""`longtake status`: what follows from a note, what Prometheus reads, and a run that is watched and dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.cli.status import show, span
from longtake.curation.looking import metrics
from longtake.curation.looking.status import Seen, left, limit, look, rate, seconds_left, state_of, together
from longtake.curation.running.status import RunStatus, StageStatus
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import this_process
from tests.curation.workbench import Bench, environment, kill_tree, longtake, videos, wait_for

ODD = 'a "strange"\\host\nof mine'


def stage(name: str = "scan", **changes: Any) -> StageStatus:
    window = {"seconds": 100.0, "rows": 50.0, "worker_seconds": 200.0, "busy_seconds": 0.0, "cpu_seconds": 180.0}
    made = StageStatus(name, "running", 1000, 400, seconds=800.0, workers=2, batches=2, window=window)
    return replace(made, **{**changes, "window": {**window, **changes.get("window", {})}})


def run(*stages: StageStatus, **changes: Any) -> RunStatus:
    made = RunStatus(
        "id", None, "vm", 1, None, "longtake curate", "mine", "0", 1000.0, 2000.0, 5.0, stages=list(stages)
    )
    return replace(made, **changes)


def test_rate_and_time_left_are_those_of_the_last_minutes() -> None:
    now = stage()
    assert (left(now), rate(now), seconds_left(now)) == (600, 0.5, 1200.0)
    standing = stage(window={"rows": 0.0})
    assert seconds_left(standing) is None
    ended = stage(state="ended", done=1000)
    assert (rate(ended), seconds_left(ended)) == (1.25, None)
    assert seconds_left(stage(done=1000)) == 0.0


def test_a_run_that_is_silent_has_died() -> None:
    assert state_of(run(), now=2055.0) == "running"
    assert state_of(run(), now=2061.0) == "died"
    assert state_of(run(every=30.0), now=2061.0) == "running"  # The time without a beat is less than four beats.
    assert state_of(run(state="ended"), now=9999.0) == "ended"


@pytest.mark.parametrize("days", [-1, 1])
def test_a_run_of_this_machine_whose_process_lives_has_not_died_though_the_clock_was_set(
    capsys: pytest.CaptureFixture[str], days: int
) -> None:
    ours = run(process=this_process(), started=2000.0 + 86400 * days, pid=7)
    assert state_of(ours, now=2000.0 + 86400 * days) == "running"
    seen = Seen("ws", 2000.0 + 86400 * days, [ours], {"videos": 0})
    show(seen)
    text = " ".join(capsys.readouterr().out.split())
    assert "Its process lives, but its last note is of 1970-01-01" in text
    assert "(-" not in text  # No length of time is less than nothing.


@pytest.mark.parametrize(
    ("found", "by", "of"),
    [
        (run(stage()), "cpu", "scan"),
        (run(stage(window={"cpu_seconds": 20.0})), "waiting", "scan"),
        (run(stage(), stage("score", gpus=1.0, rows=5000, window={"busy_seconds": 190.0})), "gpu", "score"),
        (run(stage(), stage("score", gpus=1.0, rows=5000, window={"busy_seconds": 20.0})), "feeding", "score"),
        (run(stage(done=999), stage("caption", requests=9, window={"busy_seconds": 199.0})), "endpoint", "caption"),
        (run(stage(done=999), stage("caption", requests=9, window={"busy_seconds": 9.0})), "feeding", "caption"),
        (run(stage(workers=0), waits="waiting for room: a scan worker needs 1 CPU"), "room", "scan"),
        (run(stage(workers=0)), "start", "scan"),
        (run(stage(window={"worker_seconds": 0.0})), "start", "scan"),
        (run(stage(done=1000)), "planning", None),
    ],
)
def test_what_limits_a_run(found: RunStatus, by: str, of: str | None) -> None:
    told = limit(found)
    assert told is not None
    assert (told.by, told.stage) == (by, of)


def test_nothing_limits_a_run_that_is_over() -> None:
    assert limit(run(stage(), state="ended")) is None


def test_parts_are_added_up() -> None:
    (total,) = together([run(stage(), part="1/2"), run(stage(done=600), part="2/2")])
    assert (total.done, left(total), rate(total), seconds_left(total)) == (1000, 1000, 1.0, 1000.0)


def test_prometheus_reads_what_is_there() -> None:
    errors = [["corrupt", ODD, 7]]
    seen = Seen("s3://me/ws", 2000.0, [run(stage(error_kinds=errors, gpus=1.0, gpu_seconds=12.5))], {"videos": 3})
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition(seen))}
    samples = {
        (sample.name, sample.labels.get("stage"), sample.labels.get("kind")): sample
        for family in families.values()
        for sample in family.samples
    }
    assert samples["longtake_stored_rows", None, None].labels == {"workspace": "s3://me/ws", "manifest": "videos"}
    assert samples["longtake_run_up", None, None].value == 1.0
    assert samples["longtake_stage_rows_done_total", "scan", None].value == 400.0
    assert samples["longtake_stage_left_seconds", "scan", None].value == 1200.0
    assert samples["longtake_stage_gpu_held_seconds_total", "scan", None].value == 12.5
    found = samples["longtake_stage_errors_total", "scan", "corrupt"]
    assert (found.value, found.labels["host"]) == (7.0, ODD)
    assert samples["longtake_run_limited", "scan", None].labels["by"] == "feeding"
    for name, family in families.items():
        assert family.documentation, name
        assert family.type in ("counter", "gauge"), name
        # The samples of a counter end with _total, and no others do.
        assert all(sample.name.endswith("_total") == (family.type == "counter") for sample in family.samples), name


def test_no_samples_are_given_twice() -> None:
    seen = Seen("ws", 0.0, [run(stage(), part="1/2"), run(stage(), part="2/2")], {})
    lines = [line for line in metrics.exposition(seen).splitlines() if not line.startswith("#")]
    names = [line.rpartition(" ")[0] for line in lines]
    assert len(set(names)) == len(names)


def test_a_server_gives_metrics_and_nothing_else(tmp_path: Path) -> None:
    looks: list[int] = []

    def seen() -> Seen:
        looks.append(1)
        return Seen("ws", 0.0, [run(stage())], {})

    with metrics.server("127.0.0.1", 0, seen) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        for _ in range(2):
            with urllib.request.urlopen(f"{place}/metrics", timeout=10) as answer:
                assert answer.headers["Content-Type"] == metrics.CONTENT_TYPE
                assert b"longtake_run_up" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{place}/", timeout=10)
        server.shutdown()
    assert len(looks) == 1  # Two requests within two seconds are answered by one look.


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.21 s"), (59, "59 s"), (600, "10 min"), (9000, "2.5 h"), (259200, "3.0 d")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def status(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["status", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result.stdout


def test_what_is_no_workspace_is_refused(tmp_path: Path) -> None:
    status(str(tmp_path), code=3)
    status(str(tmp_path), "--metrics-port", "nonsense", code=3)


@pytest.mark.slow  # A beat takes five seconds, and the run is begun twice.
def test_a_run_is_watched_from_outside_until_it_dies_and_after(tmp_path: Path) -> None:
    """At work, with a film that is no film; killed; begun again and ended. Numbers are those of the manifests."""
    bench, films = Bench(tmp_path / "bench"), tmp_path / "films"
    videos(films, 4)
    (films / "broken.mp4").write_bytes(b"no video" * 99)
    bench.recipe(filters={"seen": {"log": str(bench.log), "pause": 5.0}})
    place = str(bench.workspace)
    process = bench.start("curate", films, "--engine", "inline", "--until", "scan")
    try:
        note = bench.workspace / ".status" / "run.json"
        at_work = lambda: note.exists() and look(Workspace(place)).runs[0].stages[0].rows  # noqa: E731
        wait_for(at_work, "a plan", process=process)
        told = json.loads(status(place, "--json"))
        (seen,) = told["runs"]
        assert (seen["state"], seen["pid"], seen["host"]) == ("running", process.pid, socket.gethostname())
        assert seen["stages"][0]["rows"] == 5
        assert seen["limited_by"]["stage"] in ("scan", None)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        text = status(place, code=1)  # The status is known at once, since the process ran on this machine.
        assert "died: no beat since 20" in text
        assert f"longtake curate {films}" in text
        assert json.loads(status(place, "--json", code=1))["runs"][0]["limited_by"] is None
    finally:
        kill_tree(process)
    bench.recipe(filters={"seen": {"log": str(bench.log), "pause": 0.0}})
    bench.run("curate", films, "--engine", "inline")
    (over,) = json.loads(status(place, "--json"))["runs"]
    assert over["state"] == "ended"
    assert [one["state"] for one in over["stages"]] == ["ended"] * 4
    text = status(place)
    assert "ended at 20" in text
    assert f"{5} videos" in text
    assert max(map(len, text.split("The workspace holds")[0].splitlines()[1:])) <= 80
    file = tmp_path / "longtake.prom"
    status(place, "--metrics-file", str(file))
    assert {family.name for family in text_string_to_metric_families(file.read_text())} >= {"longtake_run_up"}


@pytest.mark.slow  # The test runs a whole curation of one broken film.
def test_errors_are_told_by_kind_and_machine(tmp_path: Path, plugin: None) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "broken.mp4").write_bytes(b"no video" * 99)
    place = str(tmp_path / "workspace")
    longtake("curate", films, "-o", place, "-r", "explore", "--engine", "inline", code=1)
    (over,) = json.loads(status(place, "--json"))["runs"]
    assert over["stages"][0]["error_kinds"] == [["not_video", socket.gethostname(), 1]]
    assert "not_video" in status(place)


@pytest.mark.slow  # The test starts a command as a process of its own.
def test_lines_of_json_are_written_while_it_watches(tmp_path: Path) -> None:
    (tmp_path / ".status").mkdir()
    from dataclasses import asdict

    (tmp_path / ".status" / "run.json").write_text(json.dumps(asdict(run(stage(), state="ended"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "longtake", "status", str(tmp_path), "--watch", "--json", "--every", "0.1"],
        stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert [line["runs"][0]["state"] for line in lines] == ["ended"] * 3
    assert time.time() - lines[-1]["now"] < 60
