"""The same loop under Ray Train: a worker is killed, and the run goes on from its checkpoint. Here the run starts its Ray."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from longtake.presto import checkpoint
from longtake.presto.launch import fit_on_ray
from longtake.presto.logs import read_log
from longtake.presto.prepare import Run
from longtake.presto.train import fit
from tests.presto.made import config, encoded_folder
from tests.presto.ranks import losses, steps_done
from tests.presto.test_checkpoint import flip


def training_workers() -> list[psutil.Process]:
    """Processes of Ray Train's ranks, among those of this process."""
    family = psutil.Process().children(recursive=True)
    return [p for p in family if p.is_running() and any("RayTrainWorker" in part for part in p.cmdline())]


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.cluster
def test_a_killed_worker_is_replaced_and_the_run_goes_on(model: Path, tmp_path: Path) -> None:
    data = encoded_folder(tmp_path / "data", model, 8)
    settings = config(steps=24, checkpoints={"every": 5, "keep": 2})
    run = Run(settings, model, data, tmp_path / "run")
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while steps_done(run) < 6:  # However long a busy machine takes to get there.
            if ended.wait(0.05):
                return
        victim = training_workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(steps_done(run))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        exported = fit_on_ray(run, 2, gpus=False, retries=2)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert killed[0] < 24
    found = checkpoint.newest(run.output)
    assert found is not None
    assert found.step == 24
    assert found.meta["world"] == 2
    assert list(losses(run.output)) == list(range(1, 25))
    times = [line["time"] for line in read_log(run.output) if line["kind"] == "train"]
    assert times == sorted(times)
    assert (exported / "transformer" / "segmented_attention.json").is_file()


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.cluster
def test_a_damaged_checkpoint_is_left_under_ray_train_too(model: Path, tmp_path: Path) -> None:
    """Campaign: it starts a Ray of its own. The newest of two checkpoints has sixteen other bytes."""
    data = encoded_folder(tmp_path / "data", model, 8)
    run = Run(config(), model, data, tmp_path / "run")
    fit(run)
    newest = run.output / checkpoint.FOLDER / "step-00000004"
    flip(next(newest.glob("*.distcp")))
    before = losses(run.output)
    fit_on_ray(run, 1, gpus=False, retries=0)
    assert newest.with_name("damaged-00000004").is_dir()
    assert [line["step"] for line in read_log(run.output) if line["kind"] == "damaged"] == [2]
    assert losses(run.output) == before
