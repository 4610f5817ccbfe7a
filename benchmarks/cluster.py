"""`make bench-cluster`: what a second node brings, and what Ray itself costs, in the scan.

A Ray of several nodes on this machine: a head without a core for workers, where the driver is, and one or two nodes of one core.
The same films are scanned with one worker and with two. Printed are the time from the first batch to the last, the share of
that time in which workers had a batch in hand (which tells of the engine also where the machine has not enough cores for
what runs on it), and the shares of CPU of decoders, workers, the driver and Ray's own processes.

    python -m benchmarks.cluster [--films 48] [--seconds 60]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from longtake.curation.growth import add_inputs
from longtake.curation.inputs import read_inputs
from longtake.curation.recipe import load_recipe
from longtake.curation.running.on_ray import Cluster
from longtake.curation.stages import scan
from longtake.curation.workspace import Workspace
from tests.corpus import Encoding, film, pan
from tests.curation.workbench import RunningRay, add_node, everyone, ray_cluster, signal_all

SIZE = (1280, 720)
DECODER = "longtake.curation.reading.sandbox"


@dataclass(frozen=True)
class Measured:
    """films: scanned after the first batch had ended. seconds: from then to the last. in_hand: seconds in which workers had a
    batch, added up; cpu: of everything; decoding: of the decoders alone."""

    films: int
    seconds: float
    in_hand: float
    cpu: Counter[str]

    @property
    def rate(self) -> float:
        return self.films / self.seconds


def corpus(folder: Path, count: int, seconds: float) -> None:
    """Films of one content, each a file of its own."""
    folder.mkdir()
    first = folder / "0000.mp4"
    film(first, pan("table", (3, 0), (100, 60), SIZE, round(24 * seconds)), Encoding(size=SIZE))
    for number in range(1, count):
        shutil.copy(first, folder / f"{number:04}.mp4")


def kind_of(process: psutil.Process) -> str:
    """Whether it is a decoder, a worker, the driver, or one of Ray's own: raylets, the control store, agents, idle workers."""
    command = " ".join(process.cmdline())
    if DECODER in command:
        return "decoders"
    if process.pid == os.getpid():
        return "driver"
    return "workers" if command.startswith("ray::") and not command.startswith("ray::IDLE") else "Ray's own"


def cpu_seconds(ray: RunningRay, nodes: list[list[psutil.Process]]) -> dict[int, tuple[float, str]]:
    """By process: CPU so far, and of which kind it is."""
    found = {}
    for process in everyone([psutil.Process(), *ray.members, *(one for node in nodes for one in node)]):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system, kind_of(process)
    return found


def measure(place: Path, films: Path, ray: RunningRay, nodes: list[list[psutil.Process]]) -> Measured:
    """Scan all films into a new workspace."""
    workspace = Workspace(str(place))
    add_inputs(workspace, [read_inputs([str(films)])])
    # All scores: a film that gates reject by its container alone would not be decoded.
    job = scan.plan(workspace, load_recipe("embedded"), all_scores=True, retry_errors=False)
    assert job is not None
    cluster = Cluster(ray.address)
    try:
        began, ended = 0.0, 0.0
        before, after = dict[int, tuple[float, str]](), dict[int, tuple[float, str]]()
        rows = in_hand = 0.0
        for reports, report in enumerate(cluster.run(job), 1):
            assert not report.errors
            # Workers and their decoders end with the last report, so each report says what they have taken so far.
            after |= cpu_seconds(ray, nodes)
            if reports == len(nodes):  # Each worker has started, and is at its second batch.
                began, before = time.monotonic(), dict(after)
            elif reports > len(nodes):
                rows, in_hand, ended = rows + report.rows, in_hand + report.seconds, time.monotonic()
        seconds = ended - began
    finally:
        cluster.close()
    spent = Counter[str]()
    for pid, (cpu, kind) in after.items():
        spent[kind] += cpu - before.get(pid, (0.0, kind))[0]
    return Measured(int(rows), seconds, in_hand, spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=48)
    # A film too short for a window of 15 s is rejected by its container alone, and not decoded.
    parser.add_argument("--seconds", type=float, default=60.0, help="of each film")
    given = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=f"{random.getrandbits(128):032x}")
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="nodes-") as scratch, ray_cluster(0) as ray:
        films = Path(scratch) / "films"
        corpus(films, given.films, given.seconds)
        nodes: list[list[psutil.Process]] = []
        try:
            for count in (1, 2):
                nodes.append(add_node(ray, 1))
                load = os.getloadavg()[0]
                found = measure(Path(scratch) / f"workspace{count}", films, ray, nodes)
                rates[count] = found.rate
                total = found.cpu.total()
                shares = ", ".join(f"{kind} {cpu / total:.1%}" for kind, cpu in found.cpu.most_common())
                print(
                    f"{count} node{'s' if count > 1 else ''}: {found.films} films in {found.seconds:.0f} s, "
                    f"{found.rate:.2f} a second; workers with a batch in hand {found.in_hand / found.seconds / count:.0%} of "
                    f"the time; CPU {total:.0f} s: {shares}; load of the machine before: {load:.1f} on {os.cpu_count()} cores",
                    flush=True,
                )
        finally:
            for node in nodes:
                signal_all(node, signal.SIGKILL)
    print(f"two nodes are {rates[2] / rates[1]:.2f} times as fast as one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
