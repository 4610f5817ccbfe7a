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
from tests.presto.made import config, encoded_folder
from tests.presto.ranks import losses, steps_done, wait_until


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

    def kill() -> None:
        wait_until(lambda: steps_done(run) >= 6, timeout=200)
        victim = training_workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(steps_done(run))

    killer = threading.Thread(target=kill)
    killer.start()
    exported = fit_on_ray(run, 2, gpus=False, retries=2)
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
