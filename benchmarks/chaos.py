"""Faults at random moments, for a long time: `make chaos`, or `python -m benchmarks.chaos --faults 20 --seed 1`.

In each round a corpus is curated on a cluster of three nodes (three raylets on this machine), and in each stage, at random
moments, faults happen: the driver, a worker, a decoding process or a whole node is killed or frozen, a node is added, another
job takes the cores, or needs the machine. After a fault that ends the driver the same command is given again, and to nothing
else: `--retry-errors` is never used. At the end of a round each input has one row, and all rows are those of a run in which
nothing happened. Prints a line per fault; exits with 1 if anything was lost, there twice, or different.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pandas as pd
import psutil

from tests.curation.workbench import (
    CLIPS_EACH,
    IMPATIENT,
    MANIFESTS,
    ROOT,
    Bench,
    NodeNotStarted,
    RunningRay,
    actors,
    add_node,
    assert_whole,
    begun,
    drain,
    environment,
    kill_driver,
    kill_tree,
    node_id,
    processes,
    ray_cluster,
    signal_all,
    videos,
)

STAGES = ("scan", "score", "caption", "export")
HELD_SECONDS = 15.0  # Seconds that another job has the cores, or the machine.
# Seconds that a driver is frozen. It goes on by itself, as on a laptop that was closed and opened.
FROZEN_SECONDS = 10.0
ROUND_SECONDS = 1800.0
PATIENT = {
    "RAY_health_check_failure_threshold": "12"
}  # A busy machine must not take its own nodes for dead: half a minute.
# Columns in which two runs on the same films may differ.
OF_THE_RUN = {"host", "scan_id", "cpu_seconds", "decoded_seconds", "path", "attempts", "bytes", "sha256", "seconds"}

# Takes all cores of the cluster that are free, for a time.
HOLD = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level=50)
@ray.remote(num_cpus=1)
def hold(seconds): time.sleep(seconds)
ray.get([hold.remote(float(sys.argv[2])) for _ in range(8)])
"""
BURN = "import sys, time; end = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


@dataclass
class Scene:
    """A round under way: the cluster, its nodes besides the head, and what was started beside the run. wanted: rows of each
    manifest in the end."""

    bench: Bench
    ray: RunningRay
    corpus: Path
    nodes: list[list[psutil.Process]]
    process: subprocess.Popen[str]
    wanted: dict[str, int]
    beside: list[subprocess.Popen[bytes]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    output: str = ""

    def again(self) -> None:
        """The same command, unless it is still running."""
        if self.process.poll() is not None:
            self.process = start(self.bench, self.corpus, self.ray)

    def members(self) -> list[psutil.Process]:
        """The cluster's processes, on all nodes."""
        return [*self.ray.members, *(process for node in self.nodes for process in node)]


def start(bench: Bench, corpus: Path, ray: RunningRay) -> subprocess.Popen[str]:
    return bench.start("curate", corpus, "--address", ray.address)


def one_of(found: list[psutil.Process], chance: random.Random, how: signal.Signals) -> bool:
    """A signal to one of several processes; whether there was one."""
    if not found:
        return False
    with suppress(psutil.NoSuchProcess):
        chance.choice(found).send_signal(how)
    return True


def driver_killed(scene: Scene, chance: random.Random) -> bool:
    kill_driver(scene.process)
    return True


def driver_frozen(scene: Scene, chance: random.Random) -> bool:
    scene.process.send_signal(signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    scene.process.send_signal(signal.SIGCONT)
    return True


def worker(how: signal.Signals) -> Callable[[Scene, random.Random], bool]:
    return lambda scene, chance: one_of(actors(scene.members()), chance, how)


def decoder(how: signal.Signals) -> Callable[[Scene, random.Random], bool]:
    mark = "longtake.curation.reading.sandbox"
    return lambda scene, chance: one_of(processes(scene.members(), mark), chance, how)


def node(how: signal.Signals) -> Callable[[Scene, random.Random], bool]:
    """A raylet with all that it started; another node takes its place."""

    def lose(scene: Scene, chance: random.Random) -> bool:
        signal_all(scene.nodes.pop(chance.randrange(len(scene.nodes))), how)
        scene.nodes.append(add_node(scene.ray, 1))
        return True

    return lose


def node_added(scene: Scene, chance: random.Random) -> bool:
    if len(scene.nodes) > 2:
        return False
    scene.nodes.append(add_node(scene.ray, 1))
    return True


def node_drained(scene: Scene, chance: random.Random) -> bool:
    """A notice that a node is taken away within ten seconds, as for a spot machine; and so it is. Another one takes its place."""
    members = scene.nodes.pop(chance.randrange(len(scene.nodes)))
    with suppress(subprocess.CalledProcessError):  # The process has ended.
        drain(scene.ray, node_id(members), 10)
    time.sleep(10)
    signal_all(members, signal.SIGKILL)
    scene.nodes.append(add_node(scene.ray, 1))
    return True


def no_room(scene: Scene, chance: random.Random) -> bool:
    command = [sys.executable, "-c", HOLD, scene.ray.address, str(HELD_SECONDS)]
    scene.beside.append(subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL))
    return True


def load(scene: Scene, chance: random.Random) -> bool:
    command = [sys.executable, "-c", BURN, str(HELD_SECONDS)]
    scene.beside += [subprocess.Popen(command) for _ in range(2)]
    return True


FAULTS: dict[str, Callable[[Scene, random.Random], bool]] = {
    "driver killed": driver_killed,
    "driver frozen": driver_frozen,
    "worker killed": worker(signal.SIGKILL),
    "worker frozen": worker(signal.SIGSTOP),
    "decoder killed": decoder(signal.SIGKILL),
    "decoder frozen": decoder(signal.SIGSTOP),
    "node killed": node(signal.SIGKILL),
    "node frozen": node(signal.SIGSTOP),
    "node added": node_added,
    "node drained": node_drained,
    "no room": no_room,
    "load": load,
}
WITHOUT_DECODERS = ("score", "caption")


def rows_of(bench: Bench) -> dict[str, pd.DataFrame]:
    """All manifests, by key, without what may differ from run to run."""
    found = {}
    for name, key in MANIFESTS.items():
        table = bench.plain(name).set_index(key).sort_index()
        table = table.drop(columns=[column for column in table.columns if column in OF_THE_RUN])
        if "clips" in table.columns:  # The clips are in a manifest of their own.
            table = table.drop(columns="clips")
        found[name] = table.reindex(sorted(table.columns), axis=1).astype(str)
    return found


def left(scene: Scene, stage: str) -> int:
    """The rows that a stage still has to write; of score, those of the captions that follow."""
    name = {"scan": "videos", "score": "captions", "caption": "captions", "export": "exports"}[stage]
    return scene.wanted[name] - len(scene.bench.rows(name))


def disturb(scene: Scene, stage: str, met: Counter[str], chance: random.Random) -> bool:
    """One fault at a random moment of a stage, if the stage is at work; whether there was one. met: how often each has happened
    so far."""
    scene.again()
    before = begun(scene.bench, stage)
    limit = time.monotonic() + 600
    while begun(scene.bench, stage) == before and left(scene, stage):
        if scene.process.poll() is not None or time.monotonic() > limit:
            return False  # The end of the round looks at the result.
        time.sleep(0.5)
    if not left(scene, stage):
        return False
    time.sleep(chance.uniform(0, 3))
    names = [name for name in FAULTS if not (stage in WITHOUT_DECODERS and name.startswith("decoder"))]
    # A fault that has happened less often comes first, so that a campaign meets each.
    name = min(names, key=lambda name: (met[name], chance.random()))
    if scene.process.poll() is not None or not FAULTS[name](scene, chance):
        return False
    met[name] += 1
    scene.faults.append((stage, name))
    print(f"       {stage:8} {name}", flush=True)
    return True


def end(scene: Scene) -> None:
    """Let the run end by itself; give the command again if its driver was killed. Raises AssertionError."""
    limit = time.monotonic() + ROUND_SECONDS
    scene.again()
    output, _ = scene.process.communicate(timeout=max(1.0, limit - time.monotonic()))
    assert scene.process.returncode == 0, f"exit status {scene.process.returncode}:\n{output[-3000:]}"


def one_round(
    folder: Path,
    corpus: Path,
    films: int,
    wanted: dict[str, pd.DataFrame],
    met: Counter[str],
    chance: random.Random,
) -> tuple[list[tuple[str, str]], str, int]:
    """One corpus from nothing to the dataset; the faults, what was wrong, if anything, and how much was measured twice."""
    bench = slow_bench(folder)
    with ray_cluster(1, **(IMPATIENT | PATIENT)) as ray:
        rows = {name: len(table) for name, table in wanted.items()}
        scene = Scene(bench, ray, corpus, [], start(bench, corpus, ray), rows)
        try:
            scene.nodes = [add_node(ray, 1), add_node(ray, 1)]
            # The stages flow at once, and are disturbed in turn until none of them has anything left to do.
            stages = list(STAGES)
            while stages:
                stages = [stage for stage in stages if disturb(scene, stage, met, chance)]
            end(scene)
            assert_whole(bench, films)
            for name, table in rows_of(bench).items():
                assert table.equals(wanted[name]), f"{name}: other rows than of the undisturbed run"
            wrong = ""
        except NodeNotStarted:
            raise
        except (AssertionError, subprocess.TimeoutExpired) as error:
            wrong = str(error) or "see above"
        finally:
            kill_tree(scene.process)
            for process in scene.beside:
                process.kill()
                process.wait()
            for members in scene.nodes:
                signal_all(members, signal.SIGKILL)
    lines = bench.lines()
    return scene.faults, wrong, sum(lines.values()) - len(lines)


def slow_bench(folder: Path) -> Bench:
    """A workspace whose measurements take long enough to be disturbed."""
    bench = Bench(folder)
    slow = {"pause": 0.3}
    bench.recipe(filters={"seen": slow, "looked": slow}, captioning={"settings": slow})
    return bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="rounds are added until so many have happened")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--seed", type=int, default=None, help="to repeat a campaign; default: another one each time")
    parser.add_argument("--minutes", type=float, default=None, help="begin no round after so many")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    # The exit goes through the code that ends the cluster.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    # Each run and each cluster of this campaign asks for one token: no other Ray of this user gets in the way.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=f"{random.getrandbits(128):032x}")
    began, faults, stages, wrong, done = time.monotonic(), Counter[str](), Counter[str](), 0, 0
    print(
        f"{given.faults} faults, in rounds over {given.videos} videos, {CLIPS_EACH * given.videos} clips; seed {seed}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        corpus = Path(scratch) / "corpus"
        videos(corpus, given.videos)
        calm = slow_bench(Path(scratch) / "calm")
        calm.run("curate", corpus, "--engine", "inline", seconds=1800)
        wanted = rows_of(calm)
        for number in count(1):
            late = given.minutes is not None and time.monotonic() - began > given.minutes * 60
            if late or stages.total() >= given.faults:
                break
            at = time.monotonic()
            chance = random.Random(f"{seed} {number}")
            try:
                met, fault, twice = one_round(
                    Path(scratch) / f"round{number}", corpus, given.videos, wanted, faults, chance
                )
            except NodeNotStarted:
                print(f"{number:>5}  not counted: this machine is too busy to start a node of Ray", flush=True)
                continue
            stages.update(stage for stage, _ in met)
            done, wrong = done + 1, wrong + bool(fault)
            how = f"WRONG: {fault}" if fault else f"whole; {twice} measurements were of batches in hand, done again"
            print(f"{number:>5}  {len(met)} faults, {time.monotonic() - at:.0f} s: {how}", flush=True)
    told, where = (", ".join(f"{name} {times}" for name, times in sorted(one.items())) for one in (faults, stages))
    print(f"\n{done - wrong} of {done} rounds whole after {faults.total()} faults ({told}; {where})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
