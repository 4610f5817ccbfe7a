"""Which engine does what there is to do, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from longtake.curation.cli.options import EngineName
from longtake.curation.errors import SetupError
from longtake.curation.running import engines
from longtake.curation.running.engines import ENGINES, Engines
from longtake.curation.running.inline import Inline
from longtake.curation.running.jobs import Job, Report, cpu_seconds, parts_of
from longtake.curation.running.on_ray import Cluster
from longtake.curation.running.plugins import plugin_paths


class Nothing:
    """A worker."""

    def __call__(self, batch: pa.Table) -> Report:
        return Report(rows=batch.num_rows)


def job(rows: int, seconds: float, **more: Any) -> Job:
    return Job(
        "test", [pa.table({"row": list(range(rows))})] if rows else [], Nothing, (), clip_seconds=seconds, **more
    )


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ray is not started; what would have been."""
    started: list[str] = []
    monkeypatch.setattr(Cluster, "start", lambda self: started.append("ray"))
    return started


def test_a_guess_counts_what_comes_to_later_stages() -> None:
    assert cpu_seconds([job(10, 2.0)]) == 20
    assert cpu_seconds([job(3, 2.0, clips=lambda: 10.0), job(0, 1.0), job(5, 3.0)]) == 20 + 10 + 45


def test_little_is_done_here_and_much_on_ray_and_either_is_said(no_ray: list[str]) -> None:
    said: list[str] = []
    of_a_run = Engines(None)
    assert isinstance(of_a_run.choose([job(10, 1.0)], said.append), Inline)
    assert isinstance(of_a_run.choose([job(11, 1.0)], said.append), Inline)
    assert not no_ray
    assert said == ["engine: this process, since there is about 10 s of CPU to do (--engine ray: a local Ray)"]
    assert isinstance(of_a_run.choose([job(600, 1.0)], said.append), Cluster)
    assert said[1:] == ["engine: a local Ray, since there is about 10 min of CPU to do (--engine inline: this process)"]
    assert isinstance(of_a_run.choose([job(1, 1.0)], said.append), Cluster), "Ray is there already"
    assert len(said) == 2
    assert no_ray


def test_a_captioner_that_needs_ray_gets_it(no_ray: list[str]) -> None:
    said: list[str] = []
    assert isinstance(Engines(None).choose([job(1, 0.1, on_driver=True)], said.append), Cluster)
    assert said == ["engine: a local Ray, since the captioner needs one"]


@pytest.mark.parametrize(("asked", "address"), [("ray", None), (None, "auto"), ("inline", None)])
def test_what_was_asked_for_is_taken_without_a_word(no_ray: list[str], asked: str | None, address: str | None) -> None:
    said: list[str] = []
    chosen = Engines(asked, address).choose([job(9999 if asked == "inline" else 1, 1.0)], said.append)
    assert isinstance(chosen, Inline if asked == "inline" else Cluster)
    assert not said


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(SetupError, match="joins no cluster"):
        Engines("inline", "auto")
    with pytest.raises(SetupError, match="there is no engine 'slurm'"):
        Engines("slurm")


def test_the_command_knows_all_engines() -> None:
    assert [str(name) for name in EngineName] == list(ENGINES)  # type: ignore[attr-defined]
    assert engines.LITTLE_SECONDS == 60.0, "the option's help says a minute"


class Cutting(Nothing):
    """Takes two rows at a time."""

    def parts(self, batch: pa.Table) -> list[pa.Table]:
        return [batch.slice(at, 2) for at in range(0, batch.num_rows, 2)]


def test_how_much_is_done_at_a_time_is_the_workers_word() -> None:
    batch = pa.table({"row": list(range(5))})
    assert parts_of(Nothing(), batch) == [batch]
    for at_once in (1, 2):
        batches = Job("test", [batch, batch], Cutting, (), at_once=at_once)
        assert sorted(report.rows for report in Inline().run(batches)) == [1, 1, 2, 2, 2, 2]


def test_workers_share_a_gpu_if_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster of one GPU, as it says itself: this machine may have none."""
    from longtake.curation.running import streaming

    monkeypatch.setattr(streaming, "resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    jobs = [job(1, 1.0), job(1, 1.0, on_gpu=True), job(1, 1.0, on_gpu=True)]
    for asked, taken in ((None, 0.5), (0.25, 0.25), (1.0, 0.5)):
        sized = Cluster("somewhere:1", gpus_per_worker=asked)._sized(jobs)
        assert [share.gpus for share in streaming.shares(sized, ours=False)] == [0.0, taken, taken]


def test_plug_ins_travel_with_what_they_are_found_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "brought-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[longtake.filters]\nmine = brought.filters:Mine\n")
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {str(tmp_path / "brought"), str(metadata)} <= set(plugin_paths())
