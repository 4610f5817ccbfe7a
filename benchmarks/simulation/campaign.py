"""Many seeds, on all cores, and what they came to."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.simulation.copies import compiled
from benchmarks.simulation.planted import Planted
from benchmarks.simulation.scenario import Medium, play, sites


@dataclass
class Outcome:
    """What a range of seeds came to. hits: (kind, site) → how many faults happened there. broken: seed → why."""

    seeds: int = 0
    calls: int = 0
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: dict[int, str] = field(default_factory=dict)

    def __iadd__(self, other: Outcome) -> Outcome:
        self.seeds += other.seeds
        self.calls += other.calls
        self.hits += other.hits
        self.broken |= other.broken
        return self

    @property
    def by_site(self) -> Counter[str]:
        """Faults by call site."""
        found: Counter[str] = Counter()
        for (_, site), count in self.hits.items():
            found[site] += count
        return found


def run(seeds: Iterable[int], planted: Planted | None = None, until_broken: bool = False) -> Outcome:
    """Play seeds one after the other. until_broken: stop at the first that breaks a promise."""
    logging.getLogger("longtake").setLevel(logging.CRITICAL)
    codes = compiled({planted.module: [(planted.old, planted.new)]} if planted else None)
    found = call_sites()
    outcome = Outcome()
    for seed in seeds:
        outcome.seeds += 1
        try:
            world = play(seed, codes, found)
        except Exception as error:
            outcome.broken[seed] = f"{type(error).__name__}: {error}"
            if until_broken:
                break
            continue
        outcome.calls += world.calls
        outcome.hits += world.hits
    return outcome


_found: dict[Medium, Mapping[str, Sequence[int]]] = {}


def call_sites() -> dict[Medium, Mapping[str, Sequence[int]]]:
    """The call sites of the project's code on both media; the same in each process."""
    if not _found:
        codes = compiled()
        for medium in ("disk", "bucket"):
            _found[medium] = sites(medium, codes)
    return _found


def on_all_cores(first: int, count: int, processes: int | None = None) -> Iterator[Outcome]:
    """The outcomes of pieces of the seeds from `first` on, as they come."""
    pieces = [range(at, min(at + 100, first + count)) for at in range(first, first + count, 100)]
    with multiprocessing.get_context("spawn").Pool(processes or os.cpu_count()) as pool:
        yield from pool.imap_unordered(run, pieces)
