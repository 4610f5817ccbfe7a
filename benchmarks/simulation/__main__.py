"""`python -m benchmarks.simulation`: a campaign over many seeds, one seed again, or the planted faults."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.simulation.campaign import Outcome, call_sites, on_all_cores, run
from benchmarks.simulation.copies import compiled
from benchmarks.simulation.planted import PLANTED
from benchmarks.simulation.scenario import Broken, Stuck, play

FEWEST_HITS = 50


def main() -> int:
    """1 if a promise was broken, a call site was hit too seldom, or a planted fault was not found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="How many seeds (default 10000).")
    parser.add_argument("--first", type=int, default=0, help="The first seed (default 0).")
    parser.add_argument("--seed", type=int, help="Play this seed alone, and print its history.")
    parser.add_argument("--planted", action="store_true", help="Plant each known fault and search for it.")
    asked = parser.parse_args()
    if asked.seed is not None:
        return _one(asked.seed)
    return _planted(asked.first) if asked.planted else _campaign(asked.first, asked.seeds)


def _one(seed: int) -> int:
    try:
        world = play(seed, compiled(), call_sites(), log=True)
    except (Broken, Stuck) as error:
        print("\n".join(error.__notes__))
        print(error)
        return 1
    print("\n".join(world.history or ()))
    return 0


def _planted(first: int) -> int:
    missed = 0
    for planted in PLANTED:
        outcome = run(range(first, first + 1000), planted, until_broken=True)
        if outcome.broken:
            print(f"found by seed {min(outcome.broken):4d}  {planted.name}")
        else:
            missed += 1
            print(f"NOT FOUND           {planted.name}")
    return int(missed > 0)


def _campaign(first: int, count: int) -> int:
    began, whole = time.monotonic(), Outcome()
    for outcome in on_all_cores(first, count):
        whole += outcome
        for seed, why in outcome.broken.items():
            print(f"seed {seed}: {why}", flush=True)
    print(f"{'faults':>7}  call site")
    sites = {site for found in call_sites().values() for site in found}
    for site in sorted(sites, key=lambda site: whole.by_site[site]):
        kinds = ", ".join(f"{count} {kind}" for (kind, at), count in sorted(whole.hits.items()) if at == site)
        print(f"{whole.by_site[site]:7d}  {site} ({kinds})")
    print(
        f"{whole.seeds} seeds, {whole.calls} calls, {sum(whole.hits.values())} faults at {len(sites)} call sites, "
        f"{len(whole.broken)} broken, in {time.monotonic() - began:.0f} s"
    )
    seldom = count >= 10_000 and min(whole.by_site[site] for site in sites) < FEWEST_HITS
    if seldom:
        print(f"a call site was hit fewer than {FEWEST_HITS} times")
    return int(bool(whole.broken) or seldom)


if __name__ == "__main__":
    sys.exit(main())
