"""What several raters say of the same clips: how well they agree, which half of the marks chooses thresholds and which checks
them, and how many kept clips are good, by a random audit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.looking.questions import interval
from longtake.manifests.keys import hashed

Half = Literal["choosing", "checking"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two raters on the clips that both marked. same: on how many they agree. low, high: the 95 % interval of that share
    (Wilson). kappa: see `cohen_kappa`."""

    one: str
    other: str
    clips: int
    same: int
    low: float
    high: float
    kappa: float | None


@dataclass(frozen=True, slots=True)
class Raters:
    """Several raters. marks: by rater, how many. pairs: those with clips in common. kappa: the mean of the pairs' kappas (R. J.
    Light, Measures of response agreement, 1971), with two raters Cohen's own; None where no pair has one. disputed: clips that
    one calls good and another bad."""

    marks: dict[str, int]
    pairs: list[Pair]
    kappa: float | None
    disputed: list[str]


def raters(marks: Mapping[str, Mapping[str, bool]]) -> Raters:
    """marks: rater → clip id → good."""
    pairs = []
    for one, other in combinations(sorted(marks), 2):
        shared = sorted(marks[one].keys() & marks[other].keys())
        if shared:
            a, b = ([marks[who][clip] for clip in shared] for who in (one, other))
            same = sum(x == y for x, y in zip(a, b, strict=True))
            pairs.append(Pair(one, other, len(shared), same, *interval(same, len(shared)), cohen_kappa(a, b)))
    kappas = [pair.kappa for pair in pairs if pair.kappa is not None]
    said: dict[str, set[bool]] = {}
    for made in marks.values():
        for clip, good in made.items():
            said.setdefault(clip, set()).add(good)
    return Raters(
        {who: len(made) for who, made in sorted(marks.items())},
        pairs,
        sum(kappas) / len(kappas) if kappas else None,
        sorted(clip for clip, answers in said.items() if len(answers) > 1),
    )


def cohen_kappa(one: Sequence[bool], other: Sequence[bool]) -> float | None:
    """Agreement of two raters beyond chance, 1 at most (J. Cohen, A coefficient of agreement for nominal scales, 1960). None
    without clips, and where both gave the same answer throughout: then chance explains all of it.

    one, other: what each says of the same clips, in the same order."""
    a, b = np.array(one, bool), np.array(other, bool)
    if not a.size:
        return None
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float((np.mean(a == b) - chance) / (1 - chance)) if chance < 1 else None


def half_of(clip: str) -> Half:
    """The half that the marks of a clip belong to, whoever makes them and whenever: by the first bit of the SHA-256 of its id.

    A threshold that is chosen on some marks looks better on these than it is; so it is checked on the others."""
    return "checking" if hashlib.sha256(clip.encode()).digest()[0] & 0x80 else "choosing"


@dataclass(frozen=True, slots=True)
class Audit:
    """A random audit of kept clips. drawn: how many were drawn. marked, good: of these. share: of good ones among the marked
    ones, and its 95 % interval (Wilson); None before the first mark."""

    drawn: int
    marked: int
    good: int
    share: float | None
    low: float | None
    high: float | None


def drawn(clips: pa.Array | pa.ChunkedArray, most: int, seed: int = 0) -> list[int]:
    """At most `most` of some clips, drawn at random: their positions, in the order in which they are to be marked. Whoever is
    drawn stays drawn when other clips come or go, and more are drawn after those there are. clips: their ids, no null."""
    if not len(clips) or most < 1:
        return []
    keys = hashed(pc.binary_join_element_wise(clips, pa.scalar(f"audit {seed}"), " "))[0]
    most = min(most, keys.size)
    few = np.argpartition(keys, most - 1)[:most]
    return [int(at) for at in few[np.argsort(keys[few])]]


def audited(clips: Sequence[str], marks: Mapping[str, bool]) -> Audit:
    """What the marks (clip id → good) say of the clips that were drawn. A clip that was drawn and not marked does not count: if
    the difficult ones are passed over, the share is too high."""
    answers = [marks[clip] for clip in clips if clip in marks]
    hits = sum(answers)
    low, high = interval(hits, len(answers)) if answers else (None, None)
    return Audit(len(clips), len(answers), hits, hits / len(answers) if answers else None, low, high)
