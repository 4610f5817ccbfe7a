"""Runs of several ranks on gloo, each a process that a warm server forks, so that torch is imported once."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

from longtake.presto.logs import read_log
from longtake.presto.prepare import Run

CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["longtake.presto.train", "longtake.presto.export", "diffusers.models.transformers.transformer_allegro"]
)


def free_port() -> int:
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _rank(run: Run, rank: int, world: int, port: int, before: Callable[[], None]) -> None:
    import torch

    from longtake.presto.errors import PrestoError
    from longtake.presto.train import fit

    torch.set_num_threads(1)
    before()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    try:
        fit(run)
    except PrestoError as error:
        run.output.mkdir(parents=True, exist_ok=True)
        (run.output / f"error-{rank}.txt").write_text(str(error))
        raise SystemExit(2) from None


def nothing() -> None:
    pass


def start(run: Run, world: int, before: Callable[[], None] = nothing) -> list[BaseProcess]:
    """before: a function of a module, which each rank calls first."""
    port = free_port()
    processes: list[BaseProcess] = [
        CONTEXT.Process(target=_rank, args=(run, rank, world, port, before)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[BaseProcess], timeout: float = 120) -> list[int | None]:
    """Exit codes. A rank whose peer is gone waits for it: so when one fails, the others are ended."""
    end = time.monotonic() + timeout
    while any(p.is_alive() for p in processes) and time.monotonic() < end:
        if any(p.exitcode not in (None, 0) for p in processes):
            time.sleep(1)
            break
        time.sleep(0.05)
    for process in processes:
        if process.is_alive() and any(p.exitcode not in (None, 0) for p in processes):
            process.kill()
        process.join(timeout=10)
    return [p.exitcode for p in processes]


def wait_until(condition: Callable[[], bool], timeout: float = 90) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def steps_done(run: Run) -> int:
    return max((line["step"] for line in read_log(run.output) if line["kind"] == "train"), default=0)


def losses(output: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_log(output) if line["kind"] == "train"}
