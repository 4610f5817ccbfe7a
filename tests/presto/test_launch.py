"""Starting ranks as people do: the Slurm script against stand-ins for its commands, and two torchrun agents as two machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from longtake.presto import checkpoint
from longtake.presto.prepare import Run
from tests.presto.made import config, encoded_folder
from tests.presto.ranks import free_port, losses, steps_done, wait_until

SCRIPT = Path(__file__).parents[2] / "deploy" / "presto.slurm.sh"
# Two tasks in the background, each with its own numbers; the step's exit code is the highest. A job's steps are signalled by
# `scancel`, which finds them by the file that `srun` writes.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 "$@" & echo $! >> "$STEPS"
done
code=0
while read -r task; do wait "$task" || code=$?; done < "$STEPS"
exit "$code"
"""
SCANCEL = """#!/usr/bin/env bash
kill -TERM $(cat "$STEPS")
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == requeue ]]; then echo "requeued $2"; else echo 127.0.0.1; fi
"""


def commands(folder: Path) -> dict[str, str]:
    """An environment in which `srun`, `scancel` and `scontrol` are the stand-ins, and longtake is this one."""
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "STEPS": str(folder / "steps"),
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "MASTER_PORT": str(free_port()),
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }


def recipe(folder: Path, run: Run) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(run.config.model_dump(mode="json")))
    return path


@pytest.mark.slow
def test_a_slurm_job_that_is_out_of_time_is_queued_again_and_ends(model: Path, tmp_path: Path) -> None:
    """Slow: two times two ranks. The first job is told to stop; the second goes on and ends well."""
    data = encoded_folder(tmp_path / "data", model, 8)
    run = Run(config(steps=400, checkpoints={"every": 400, "keep": 1}), model, data, tmp_path / "run")
    given = [str(data), "-m", str(model), "-r", str(recipe(tmp_path, run)), "-o", str(run.output)]
    environment = commands(tmp_path)
    job = subprocess.Popen(
        [str(SCRIPT), *given], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: steps_done(run) >= 2, timeout=900)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=900)
    assert "the same command goes on from it" in said
    assert "requeued 77" in said
    assert job.returncode == 0
    found = checkpoint.newest(run.output)
    assert found is not None
    assert found.meta["world"] == 2
    assert 2 <= found.step < 400
    Path(environment["STEPS"]).unlink()
    more = [*given, "--set", f"steps={found.step + 1}"]
    done = subprocess.run(
        [str(SCRIPT), *more], env=environment, capture_output=True, text=True, timeout=900, check=True
    )
    assert f"{found.step + 1} steps done" in done.stdout
    assert "requeued" not in done.stdout


@pytest.mark.slow
def test_two_torchrun_agents_are_two_machines(model: Path, tmp_path: Path) -> None:
    """Slow: two agents with a rank each, as on two machines; the command of docs/training.md."""
    data = encoded_folder(tmp_path / "data", model, 8)
    run = Run(config(steps=2), model, data, tmp_path / "run")
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "--rdzv-id", "pretrain"]
    command += ["-m", "longtake.presto", "train", str(data), "-m", str(model), "-r", str(recipe(tmp_path, run))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    agents = [
        subprocess.Popen([*command, "-o", str(run.output)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    end = time.monotonic() + 900
    assert [agent.wait(timeout=end - time.monotonic()) for agent in agents] == [0, 0]
    found = checkpoint.newest(run.output)
    assert found is not None
    assert found.meta["world"] == 2
    assert list(losses(run.output)) == [1, 2]
