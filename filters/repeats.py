"""Share of the clip that shows again what it has shown before: a loop, or a boomerang that runs back.

Formula: of every look of the scan (at most 16 a second) the mean grey levels of 16×16 equal fields are kept. Two looks differ
by the root mean square over the fields; how far a look is from a time between two others is its distance to the straight line
between these. A look moves by as much as it differs from the most different one of the second before it, or after it if that is
less. It repeats if it moves by at least 2 grey levels and lies, a second or more later, within a fifth of its motion of what
was there one period before; and if that is so of all looks of a stretch of at least a second, at the same period. For a
boomerang it is the same with a moment about which time is mirrored in place of the period. The score is the time of the looks
that repeat over the time of all. So what does not move is no repeat: a still scene, stills that are cut to and fro, a
background before and after a person has passed through. And what moves to and fro by nature (waves, a walk, a wheel, a shaking
camera) does not come back within a fifth of its motion for a whole second, all over the picture. Unit: share, from 0 to 1; a
loop of 5 s in a clip of 15 s has 0.67, a clip that runs back from its middle 0.47. Detail: the share of each of five equal
parts of the clip. Source: this project's own. No gate in the recipes that ship.

Protocol: `thumbs/grid16,within20%,atleast2,for1s,gaps/mean`, on the looks of `frozen`. In a long clip of a list only the groups
of pictures around its sample are looked at, and a stretch does not go over what lies between. Cost: 2.4 ms per clip of 15 s, and
0.01 ms per look.

Known to go wrong: a picture that is loop by nature (a cinemagraph, a pendulum or a machine before a fixed camera, animation
that uses its drawings again) is one here; a camera on a tripod that pans and pans back the same way runs back; a loop of under
a second, and one in which less than 2 grey levels move, are not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Changes, Filter, MeasureError, Needs, Sample
from longtake.filters.frozen import GRID, PARTS

# Share of a look's own motion. Real takes that were looped and encoded again lie below 0.1 of it, in the dark below 0.2; of those
# that do not repeat, no second lies within 0.25 (one of 28 does within 0.3).
WITHIN = 0.2
LEAST = 2.0  # Grey levels. Below this motion, noise and an encoder's errors are as large as WITHIN of it.
# Seconds on both sides of a look over which its motion is measured. A stretch and a period last at least as long.
SECONDS = 1.0

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def repeating(changes: Changes) -> Flags:
    """Which looks show again what an earlier one showed, [n]."""
    times = changes.ends
    repeated = np.zeros(len(times), np.bool_)
    if len(times) < 4:
        return repeated
    apart = _distances(changes.grids.astype(np.float64))
    motion = _motion(apart, times)
    if (motion < LEAST).all():
        return repeated
    off = _to_lines(apart)
    # A look may repeat the line between two looks, or a line beside it: the time of the repeated picture is known to one look.
    off = np.minimum(
        off, np.minimum(np.pad(off[:, 1:], ((0, 0), (0, 1)), "edge"), np.pad(off[:, :-1], ((0, 0), (1, 0)), "edge"))
    )
    allowed = np.where(motion >= LEAST, WITHIN * motion, -1.0)
    # The lines beside each line are compared, too, so half of the periods are enough.
    step = 2 * float(np.median(np.diff(times)))
    first, last = float(times[0]), float(times[-1])
    periods = np.arange(SECONDS, last - first, step)
    mirrors = np.arange(2 * first, 2 * last, step)
    follows = np.concatenate([[False], changes.starts[1:] == times[:-1]])
    for earlier in (times - periods[:, None], mirrors[:, None] - times):
        at = np.clip(np.searchsorted(times, earlier) - 1, 0, len(times) - 2)
        there = (earlier >= first) & (times - earlier >= SECONDS)
        same = there & (off[np.arange(len(times)), at] <= allowed)
        repeated |= _in_long_stretches(same, times, follows)
    return repeated


def _distances(grids: Floats) -> Floats:
    """Mean square differences of all pairs of looks, [n, n]."""
    squares = (grids * grids).sum(axis=1)
    return np.asarray(np.maximum(squares[:, None] + squares - 2 * grids @ grids.T, 0) / grids.shape[1])


def _motion(apart: Floats, times: Floats) -> Floats:
    """How much the picture moves at each look, grey levels [n]: before it or after it, whichever is less, so that a cut between
    two stills moves nothing. At both ends there is one side only. apart: mean square differences."""
    later = times - times[:, None]
    before = np.sqrt(np.where((later < 0) & (later >= -SECONDS), apart, 0).max(axis=1))
    after = np.sqrt(np.where((later > 0) & (later <= SECONDS), apart, 0).max(axis=1))
    before[times - times[0] < SECONDS / 2] = np.inf
    after[times[-1] - times < SECONDS / 2] = np.inf
    return np.asarray(np.minimum(before, after))


def _to_lines(apart: Floats) -> Floats:
    """How far each look is from the line between each look and the next, grey levels [n, n - 1]. apart: mean square
    differences."""
    a, b, line = apart[:, :-1], apart[:, 1:], np.diagonal(apart, 1)
    along = (a - b + line) / 2
    share = np.clip(along / np.maximum(line, 1e-9), 0, 1)
    return np.asarray(np.sqrt(np.maximum(a - 2 * share * along + share * share * line, 0)))


def _in_long_stretches(same: Flags, times: Floats, follows: Flags) -> Flags:
    """The columns in which some row of `same` [rows, n] holds for SECONDS or longer without a break. follows: whether nothing was
    passed over before a look."""
    goes_on = same[:, 1:] & same[:, :-1] & follows[1:]
    edges = np.diff(np.pad(goes_on.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    _, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    long = times[ends] - times[starts] >= SECONDS
    marks = np.bincount(starts[long], minlength=len(times) + 1) - np.bincount(ends[long] + 1, minlength=len(times) + 1)
    return np.asarray(np.cumsum(marks)[: len(times)] > 0)


class Repeats(Filter[Sample]):
    """Share of the clip that repeats an earlier part of it. Detail: one value per fifth of it. Raises MeasureError for a sample
    that the scan did not bring its looks with."""

    name: ClassVar[str] = "repeats"
    backend: ClassVar[str] = "thumbs"
    unit: ClassVar[str] = "share (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 3.0

    @property
    def method(self) -> str:
        return f"grid{GRID},within{100 * WITHIN:g}%,atleast{LEAST:g},for{SECONDS:g}s,gaps"

    def measure_one(self, item: Sample) -> Sequence[float]:
        changes = item.changes
        if changes is None or not len(changes.ends):
            raise MeasureError("repeats are seen in the scan only, and this clip brings no two looks")
        seconds = changes.ends - changes.starts
        again = np.concatenate([[0.0], np.cumsum(seconds * repeating(changes))])
        looked = np.concatenate([[0.0], np.cumsum(seconds)])
        edges = np.linspace(0.0, looked[-1], PARTS + 1)
        return [float(part) for part in np.diff(np.interp(edges, looked, again)) / (looked[-1] / PARTS)]
