"""The note of a run: what it counts, when it is written, and that it stops nobody."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from longtake.curation.running import ledger as ledgers
from longtake.curation.running import status
from longtake.curation.running.jobs import Hands, Job, Late, Report
from longtake.curation.running.ledger import Ledger, Place
from longtake.curation.running.status import Note, RunStatus
from longtake.curation.workspace import Workspace
from longtake.manifests.lock import this_process


def job(stage: str, rows: int, *, partial: bool = False) -> Job:
    batches = [pa.table({"video_id": [f"{i}"]}) for i in range(rows)]
    return Job(stage, batches, lambda: lambda batch: Report(), (), partial=partial)


def read(folder: Path, name: str = "run.json") -> RunStatus:
    return RunStatus.of((folder / ".status" / name).read_bytes())


def test_a_note_counts_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(status.time, "monotonic", lambda: float(next(clock)))
    note = Note(Workspace(str(tmp_path)), "mine", ("scan", "score"))
    with note:
        note.say("joining the cluster")
        assert RunStatus.of(note.data()).waits == "joining the cluster"
        note.begin([job("scan", 5), job("score", 0)])
        note.see({"score": Hands(2, 1, worker_seconds=100.0, gpus=0.5, late=(Late("a", 99.0, "film"),))})
        note.advance(
            Report(3, 2, 30.0, 6.0, stage="scan", host="b", error_kinds={"corrupt": 1}, more={"score": 4}, faults=1)
        )
        note.advance(Report(2, 1, 20.0, 2.0, busy_seconds=10.0, stage="score", host="a", error_kinds={"crash": 1}))
        found = RunStatus.of(note.data())
    scan, score = found.stages
    assert (scan.state, scan.rows, scan.done, scan.errors, scan.faults) == ("running", 5, 3, 2, 1)
    assert scan.error_kinds == [["corrupt", "b", 1], ["error", "b", 1]]  # An error without a kind is counted, too.
    assert (scan.window["rows"], scan.window["worker_seconds"], scan.window["cpu_seconds"]) == (3.0, 30.0, 6.0)
    assert (score.rows, score.done, score.workers, score.batches) == (4, 2, 2, 1)
    # Two workers of half a GPU each ran for 50 s each.
    assert (score.gpu_seconds, score.gpu_busy_seconds) == (50.0, 5.0)
    assert score.late == [{"host": "a", "seconds": 99.0, "what": "film"}]
    assert found.waits is None
    last = read(tmp_path)
    assert (last.state, last.process, last.pid) == ("ended", this_process(), os.getpid())
    assert [stage.late for stage in last.stages] == [[], []]  # No names stay.


def test_a_job_that_is_planned_anew_counts_what_is_left(tmp_path: Path) -> None:
    with Note(Workspace(str(tmp_path)), "mine", ("scan",)) as note:
        note.begin([job("scan", 5, partial=True)])
        note.advance(Report(2, stage="scan"))
        assert RunStatus.of(note.data()).stages[0].more
        note.begin([job("scan", 3)])  # Three of the five were lost with a machine.
        scan = RunStatus.of(note.data()).stages[0]
        assert (scan.rows, scan.done, scan.more) == (5, 2, False)


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (None, "ended", None),
        (OSError("no disk"), "failed", "no disk"),
        (KeyboardInterrupt(), "stopped", None),
        (SystemExit(1), "stopped", None),
    ],
    ids=["ended", "failed", "stopped", "its output was cut"],
)
def test_how_a_run_ended_is_told(tmp_path: Path, error: BaseException | None, state: str, message: str | None) -> None:
    try:
        with Note(Workspace(str(tmp_path)), "mine", ("scan",)):
            assert read(tmp_path).state == "running"
            if error:
                raise error
    except (OSError, KeyboardInterrupt, SystemExit):
        pass
    assert (read(tmp_path).state, read(tmp_path).message) == (state, message)


def test_parts_have_notes_of_their_own_and_a_whole_run_clears_them(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    for part in ((1, 2), (2, 2)):
        with Note(workspace, "mine", ("scan",), part):
            pass
    assert read(tmp_path, "1-of-2.json").part == "1/2"
    with Note(workspace, "mine", ("scan",)):
        assert [path.name for path in (tmp_path / ".status").iterdir()] == ["run.json"]


def test_a_note_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / ".status").write_text("a file in the way")
    with Note(Workspace(str(tmp_path)), "mine", ("scan",)) as note:
        note.begin([job("scan", 1)])
    assert (tmp_path / ".status").read_text() == "a file in the way"


def test_no_secret_is_in_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.sys, "argv", ["/usr/lib/longtake/__main__.py", "curate", "https://me:word@a.b/f.mp4"])
    with Note(Workspace(str(tmp_path)), "mine", ("scan",)) as note:
        note.say("waiting for https://me:word@a.b/f.mp4")
        text = note.data().decode()
    assert "word" not in text + (tmp_path / ".status" / "run.json").read_text()
    assert json.loads(text)["command"].startswith("longtake curate ")


def test_another_versions_note_is_told_apart() -> None:
    for data in (b"", b"[]", b'{"run": "1"}', b'{"stages": [{"stages": 1}]}'):
        with pytest.raises(ValueError, match=r"."):
            RunStatus.of(data)


def test_the_ledger_tells_who_is_late_and_for_how_long_workers_were_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ledgers.time, "monotonic", lambda: now[0])
    one, two = (Place(str(i), "node", f"host-{i}", "scan") for i in (1, 2))

    async def run() -> Hands:
        ledger = Ledger()
        await ledger.ready("scan", "1", seconds=5.0)
        await ledger.ready("scan", "2")
        await ledger.begin("slow", one, "slow.mp4")
        for i in range(3):
            await ledger.begin(f"{i}", two, f"{i}.mp4")
            now[0] += 10.0
            await ledger.end(f"{i}", Report(1, stage="scan"))
        assert (await ledger.news(1)).hands["scan"].late == ()  # The batch has taken 30 s, where 10 s are usual.
        now[0] += 30.0
        late = (await ledger.news(1)).hands["scan"]
        assert [(at.host, at.what, at.seconds) for at in late.late] == [("host-1", "slow.mp4", 60.0)]
        assert (late.workers, late.batches, late.usual_seconds, late.oldest_seconds) == (2, 1, 10.0, 60.0)
        assert late.worker_seconds == 65.0 + 60.0
        await ledger.begin("slow", two, "slow.mp4")  # A second worker begins the same batch, so the first one is dead.
        now[0] += 1.0
        return (await ledger.news(1)).hands["scan"]

    async def in_parts() -> Hands:
        ledger = Ledger()
        await ledger.ready("scan", "1")
        await ledger.begin("batch", one, "a.mp4")
        for i in range(20):
            await ledger.begin(f"batch:{i}-{i + 1}", one, f"{i}.mp4")
            now[0] += 10.0
            assert (await ledger.news(1)).hands["scan"].batches == 1
            await ledger.end(f"batch:{i}-{i + 1}", Report(1, stage="scan"))
        return (await ledger.news(1)).hands["scan"]

    whole = asyncio.run(in_parts())  # No part was late, so the batch is not late.
    assert (whole.batches, whole.late, whole.oldest_seconds, whole.usual_seconds) == (1, (), 0.0, 10.0)
    after = asyncio.run(run())
    assert (after.workers, after.worker_seconds) == (1, 65.0 + 61.0)
