"""The clips on a gate's threshold, and what follows from where it stands: for all places at once, so that a drag asks nothing.

While one end of one gate moves, the clips whose fate it decides stay the same: those that no other gate rejects. Sorted by
their score they are a film that slides past a line. What is kept at each place of the line is counted once, from the score at
which each clip changes sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.curation.looking.report.columns import Bools, Columns, Rows, Scale
from longtake.filters.gates import Gate

MOST_PLACES = 400  # Places of an end on its scale: one is about two pixels of a wide plot.

Floats = npt.NDArray[np.float64]


def step_of(scale: Scale) -> float:
    """How far an end moves at a time: 1, 2 or 5 times a power of ten, so that there are at most MOST_PLACES."""
    least = (scale.high - scale.low) / MOST_PLACES
    power = 10.0 ** math.floor(math.log10(least))
    return next(float(f"{times * power:.12g}") for times in (1, 2, 5, 10, 20) if times * power >= least * (1 - 1e-9))


def places(scale: Scale, further: Sequence[float]) -> Floats:
    """Where an end of a gate can be put on its scale, in order: at each step, and at some further values."""
    step = step_of(scale)
    numbers = np.arange(math.floor(scale.low / step), math.ceil(scale.high / step) + 1)
    values = [float(f"{number * step:.12g}") for number in numbers.tolist()]
    inside = [value for value in values if scale.low < value < scale.high]
    return np.unique(np.array([*inside, *(value for value in further if math.isfinite(value))]))


@dataclass(frozen=True, slots=True)
class Film:
    """The clips whose fate a gate decides and that have its score, by this score. rows [n]; values [n]."""

    rows: Rows
    values: Floats

    def line(self, gate: Gate | None) -> list[int]:
        """How many of the clips lie before the low end of a gate, and how many up to its high end."""
        if gate is None:
            return [0, self.rows.size]
        return [
            int(np.searchsorted(self.values, gate.low, "left")),
            int(np.searchsorted(self.values, gate.high, "right")),
        ]


class Films:
    """Films of gates, the last few of which are kept. order: of all clips by a score, sought once."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._order: dict[str, npt.NDArray[np.int32]] = {}
        self._known: dict[Any, Film] = {}

    def of(self, tier: str, name: str, selection: Any) -> Film:
        """The film of a gate of a tier, as its other gates are set now. selection: names what is selected."""
        columns = self._columns
        now = columns.tiers if columns.follows_others else {tier: columns.tiers[tier]}
        gates = tuple((t, n, r.gate) for t, one in now.items() for n, r in one.gates.items() if (t, n) != (tier, name))
        key = tier, name, gates, selection
        if columns.follows_others or key not in self._known:
            order = self._sorted(name)
            among = np.zeros(len(columns), bool)
            among[columns.others_pass(tier, name)] = True
            rows = order[among[order]].astype(np.int64)
            while len(self._known) >= 4:
                self._known.pop(next(iter(self._known)))
            self._known[key] = Film(rows, columns.values(name, rows))
        return self._known[key]

    def _sorted(self, name: str) -> npt.NDArray[np.int32]:
        if name not in self._order:
            values = self._columns.values(name, slice(None))
            order = np.argsort(values, kind="stable")  # NumPy sorts nan last.
            self._order[name] = order[: values.size - int(np.isnan(values).sum())].astype(np.int32)
        return self._order[name]


def _turning(columns: Columns, name: str, end: str, other: float) -> tuple[Floats, Bools, Bools]:
    """Where each clip [clips] is lost as one end of a gate moves inwards: where a low end lies above it, or a high end below it;
    infinite where no place of this end loses it. Which clips the other end loses anyway. And which have no score as long as the
    gate does not reject them. other: the other end, infinite if it is open."""
    low, high, bound = columns.span(name)
    always = math.inf if end == "low" else -math.inf
    lost = high > other if end == "low" else low < other
    at = low if end == "low" else high
    if bound.any():
        # A lower bound can only show that a score is too high; a score between two values is lost where both are outside.
        between = columns.scores.between(name)
        at = np.where(bound, np.where(between, high, always) if end == "low" else np.where(between, low, high), at)
        of_bound = np.where(between, low > other, high > other) if end == "low" else between & (high < other)
        lost = np.where(bound, of_bound, lost)
    return np.where(np.isnan(low), always, at), np.asarray(lost), np.asarray(np.isnan(low) | bound)


def sweep(
    columns: Columns, tier: str, name: str, end: str, order: Sequence[str], grid: Floats
) -> dict[str, list[Any]] | None:
    """What a tier keeps with an end of one of its gates at each place of `grid`, and open (the last of each list): kept,
    seconds (of those), undecided, rejected, and of the gate itself failed, alone, so_far; left: a list per gate, in the funnel's
    `order`, which holds this gate. None where the score itself depends on what other gates keep."""
    now = columns.tiers[tier]
    if columns.follows_others:
        return None
    result = now.gates.get(name)
    other = math.inf if end == "low" else -math.inf
    if result is not None:
        other = result.gate.high if end == "low" else result.gate.low
    tally = now.tally if result is None else now.tally.minus(result)
    at, lost_anyway, missing = _turning(columns, name, end, other)
    counted = columns.counted
    # The first other gate that rejects each clip, in the funnel's order; the number of gates where none does.
    names = [one for one in order if one != name]
    first = np.full(len(columns), len(names), np.uint8)
    for i, one in reversed(list(enumerate(names))):
        np.copyto(first, np.uint8(i), where=now.gates[one].failed)
    # Classes: a clip that other gates reject has the first of them; another has one of four, by its missing scores.
    n = len(names)
    kind = first.astype(np.int64)
    kind += np.where(first == n, 2 * (tally.missings > 0) + missing, 0)
    # The number of places of the grid that each clip survives, from the one that loses least on; `open` loses no clip.
    inwards = np.searchsorted(grid, at, "right") if end == "low" else grid.size - np.searchsorted(grid, at, "left")
    lives = np.where(lost_anyway, 0, inwards + 1)
    size, classes = grid.size + 2, n + 4
    key = (kind * size + lives)[counted]
    table = np.bincount(key, minlength=classes * size).reshape(classes, size)
    # `alive` [classes, open and places, inwards]: a clip whose `lives` is k + 1 survives open and the k outermost places.
    alive = np.cumsum(table[:, ::-1], axis=1)[:, ::-1][:, 1:]
    whole = kind[counted] == n
    weights = np.bincount(lives[counted][whole], columns.seconds[counted][whole], size)
    seconds = np.cumsum(weights[::-1])[::-1][1:]

    def along(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """From the order of losing more to that of the grid, open last."""
        return np.concatenate([counts[1:] if end == "low" else counts[1:][::-1], counts[:1]])

    unfailed, kept = alive[n:].sum(axis=0), alive[n]
    totals = table.sum(axis=1)
    lost, lost_whole = totals.sum() - alive.sum(axis=0), totals[n : n + 2].sum() - alive[n : n + 2].sum(axis=0)
    lost_so_far = totals[n + 2 :].sum() - alive[n + 2 :].sum(axis=0)
    here = list(order).index(name)
    left = []
    for k in range(len(order)):
        if k < here:
            left.append(np.full(grid.size + 1, totals[k + 1 :].sum()))
        else:
            left.append(along(alive[k:].sum(axis=0)))  # The clips left have passed k of the other gates.
    return {
        "kept": along(kept).tolist(),
        "seconds": np.round(along(seconds), 3).tolist(),
        "undecided": along(unfailed - kept).tolist(),
        "rejected": (int(np.count_nonzero(counted)) - along(unfailed)).tolist(),
        "failed": along(lost).tolist(),
        "alone": along(lost_whole).tolist(),
        "so_far": along(lost_so_far).tolist(),
        "left": [counts.tolist() for counts in left],
    }
