"""Totals of a corpus from a sample of its videos, with an interval. Plain arithmetic on arrays; no video is opened.

A sample is drawn in two parts, by a size of each video: what work it is expected to be. The few largest are all taken, since any
one of them could outweigh the rest. Of the others every k-th is taken in the order of their sizes, from a random start: small and
large ones then come in their true proportion.

The interval is that of the Polya posterior (Ghosh and Meeden, "Bayesian Methods for Finite Population Sampling", 1997): what was
not sampled is taken to be like what was, by drawing it many times from the sample's videos, each time with other weights
(Dirichlet). It knows that a corpus ends: a sample of half of it leaves half of the doubt, and one of all of it none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

LEVEL = 0.9  # Level of the interval: nine of ten should hold the truth.
_DRAWS = 2000  # Draws from the posterior: the ends of the interval are then known to a few per cent.
_LARGEST = 0.2  # Share of the sample that may be spent on the largest files.
# Videos of the sample in a stratum, at least, so that its spread is known; and the number of strata, at most. Strata
# have like sizes.
_LEAST_IN_STRATUM = 8
_MOST_STRATA = 4
# A sample of few videos misses what is rare and dear: the spread of the draws about their mean is widened by 1 + 2 / √n.
_WIDENED = 2.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a total: its expected value, and the interval of LEVEL."""

    expected: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(self.expected * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Which videos are looked at. certain: those that are taken whatever the dice say. strata [videos]: the stratum of each of
    the others, −1 for certain ones. chosen: the rows that are looked at, certain ones among them."""

    certain: Rows
    strata: Rows
    chosen: Rows


def draw(sizes: Sequence[float], count: int, seed: int = 0) -> Sampled:
    """A sample of `count` of the videos that have these sizes: expected work, or bytes; 0 where nothing is known."""
    size = np.asarray(sizes, np.float64)
    count = min(count, len(size))
    order = np.argsort(-size, kind="stable")
    share = size[order] / max(size.sum(), 1.0)
    large = int(np.sum(share > 1.0 / max(count, 1)))
    certain = order[: min(large, int(_LARGEST * count))] if count < len(size) else order
    rest = np.sort(order[len(certain) :])
    rest = rest[np.argsort(size[rest], kind="stable")]
    left = count - len(certain)
    strata = np.full(len(size), -1)
    if left > 0:
        number = max(1, min(_MOST_STRATA, left // _LEAST_IN_STRATUM))
        strata[rest] = np.arange(len(rest)) * number // max(len(rest), 1)
        step = len(rest) / left
        start = np.random.default_rng(seed).uniform(0, step)
        at = np.minimum((start + step * np.arange(left)).astype(np.int64), len(rest) - 1)
        rest = rest[at]
    else:
        rest = rest[:0]
    return Sampled(np.sort(certain), strata, np.sort(np.concatenate([certain, rest])))


def draws(values: Floats, sampled: Sampled, seed: int = 0) -> Floats:
    """Totals that the corpus may have [draws, quantities]. values [chosen, quantities]: of the sample, in its order."""
    rng = np.random.default_rng(seed)
    of = sampled.strata[sampled.chosen]
    totals = np.tile(values.sum(axis=0), (_DRAWS, 1))
    for stratum in np.unique(sampled.strata[sampled.strata >= 0]):
        seen = values[of == stratum]
        unseen = int(np.sum(sampled.strata == stratum)) - len(seen)
        if not unseen:
            continue
        if not len(seen):  # A stratum without a video in the sample is taken to be like all others.
            seen = values[of >= 0]
        weights = rng.dirichlet(np.ones(len(seen)), _DRAWS)
        totals += np.array([rng.multinomial(unseen, w) for w in weights]) @ seen
    looked = int(np.sum(of >= 0))
    mean = totals.mean(axis=0)
    widened = mean + (totals - mean) * (1.0 + _WIDENED / math.sqrt(max(looked, 1)))
    return np.asarray(np.maximum(widened, values.sum(axis=0)))  # The total is at least what the sample itself has.


def estimate(totals: Floats) -> Estimate:
    """Of one quantity [draws]."""
    low, high = np.quantile(totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(totals.mean()), float(low), float(high))


def money(totals: Mapping[str, Floats], prices: Mapping[str, float]) -> Estimate:
    """What a corpus costs. totals: quantity → its draws, of one posterior, so that they go together; prices: of one unit."""
    parts = [totals[name] * price for name, price in prices.items()]
    return estimate(np.sum(parts, axis=0))
