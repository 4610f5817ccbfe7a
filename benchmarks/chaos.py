"""kill -9 at random moments, for a long time: `make chaos`, or `python -m benchmarks.chaos --rounds 5 --seed 1`.

In each round a corpus is curated on Ray; in each stage, at a random moment, the driver is killed, or the driver with
all that it started, or a Ray worker, or a decoding process. After the first two the same command is given again. At
the end of the round the workspace must hold every row once, and nothing that was committed at the moment of a kill may
have been measured again. Prints a line per kill; exits with 1 if anything was lost, there twice, or measured again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.curation.workbench import (
    CLIPS_EACH,
    Bench,
    Committed,
    actors,
    assert_kept,
    assert_whole,
    begun,
    kill_driver,
    kill_tree,
    processes,
    videos,
    wait_for,
)

STAGES = ("scan", "score", "caption", "export")
VICTIMS = ("driver", "everything", "worker", "decoder")


@dataclass(frozen=True)
class Kill:
    """One kill and what it hit."""

    stage: str
    victim: str
    committed: Committed
    rows: dict[str, int]


def rows_of(bench: Bench) -> dict[str, int]:
    return {name: len(bench.rows(name)) for name in ("videos", "clips", "captions", "exports")}


def kill_once(bench: Bench, process: subprocess.Popen[str], stage: str, victim: str, delay: float) -> Kill | None:
    """Kill at a random moment of a stage. None if the run was over before."""
    try:
        before = begun(bench, stage)
        wait_for(lambda: begun(bench, stage) > before, f"{stage} to begin", 300, process)
    except AssertionError:
        if process.poll() is None:
            raise
        return None
    time.sleep(delay)
    if process.poll() is not None:
        return None
    ours = [psutil.Process(process.pid)]
    if victim == "driver":
        kill_driver(process)
    elif victim == "everything":
        kill_tree(process)
    else:
        found = actors(ours) if victim == "worker" else processes(ours, "longtake.curation.reading.sandbox")
        if not found:
            return None
        with suppress(psutil.NoSuchProcess):
            random.choice(found).kill()
    return Kill(stage, victim, Committed.of(bench), rows_of(bench))


def one_round(folder: Path, corpus: Path, count: int, chance: random.Random) -> tuple[list[Kill], str, Counts]:
    """One corpus from nothing to the dataset, with a kill in each stage; what was wrong, if anything."""
    bench = Bench(folder)
    slow = {"pause": 0.1}
    bench.recipe(filters={"seen": slow, "looked": slow}, captioning={"settings": slow})
    kills: list[Kill] = []
    process: subprocess.Popen[str] | None = None
    try:
        for stage in STAGES:
            victim = chance.choice(VICTIMS)
            if victim == "decoder" and stage in ("score", "caption"):  # they have none
                victim = "worker"
            if process is None or process.poll() is not None:
                process = bench.start("curate", corpus)
            kill = kill_once(bench, process, stage, victim, chance.uniform(0, 4))
            if kill is not None:
                kills.append(kill)
        assert process is not None
        if process.poll() is None:
            process.communicate(timeout=600)
    except BaseException:
        if process is not None:
            kill_tree(process)
        raise
    try:
        bench.run("curate", corpus, "--retry-errors", seconds=600)
        assert_whole(bench, count)
        for kill in kills:
            assert_kept(kill.committed, bench)
    except AssertionError as error:
        return kills, str(error).splitlines()[0] or "see above", counts(bench)
    return kills, "", counts(bench)


@dataclass(frozen=True)
class Counts:
    """Measurements in all, and how many of them were of something that had been measured before."""

    measured: int
    repeated: int


def counts(bench: Bench) -> Counts:
    lines = bench.lines()
    return Counts(sum(lines.values()), sum(lines.values()) - len(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None, help="to repeat a campaign; default: another one each time")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    chance = random.Random(seed)
    print(f"{given.rounds} rounds over {given.videos} videos, {CLIPS_EACH * given.videos} clips; seed {seed}\n")
    print("round  stage    killed      videos  clips  captions  exports")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        corpus = Path(scratch) / "corpus"
        videos(corpus, given.videos)
        for number in range(1, given.rounds + 1):
            began = time.monotonic()
            kills, fault, total = one_round(Path(scratch) / f"round{number}", corpus, given.videos, chance)
            for kill in kills:
                have = "  ".join(f"{kill.rows[name]:>{len(name)}}" for name in kill.rows)
                print(f"{number:>5}  {kill.stage:8} {kill.victim:11} {have}")
            print(
                f"{number:>5}  whole after {time.monotonic() - began:.0f} s; "
                f"{total.repeated} of {total.measured} measurements were of batches in hand, done again"
                if not fault
                else f"{number:>5}  WRONG: {fault}",
                flush=True,
            )
            wrong += [fault] if fault else []
    print(f"\n{given.rounds - len(wrong)} of {given.rounds} rounds whole, nothing lost, nothing twice")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
