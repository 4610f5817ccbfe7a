"""Where the parts of a chart lie; `charts.html.jinja` draws them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.curation.looking.report.columns import BINS, Scale
from longtake.filters.gates import Gate

# Units of a histogram itself: the page stretches it to the width of its place.
WIDTH, HEIGHT = 320, 96
_BAR = 1000  # Units of a row of the funnel, which is stretched as well.
_GAP = 0.4  # Units between two columns of a histogram.
_LINES = 4  # Kinds of lines that the style sheet distinguishes: the lines of a fifth gate look like those of the first.


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a row of the funnel. kind: its CSS class."""

    kind: str
    x: float
    width: float


def bars(shares: Mapping[str, float]) -> list[Bar]:
    """Parts beside each other. shares: of the whole, by kind."""
    drawn, x = [], 0.0
    for kind, share in shares.items():
        drawn.append(Bar(kind, x, max(0.0, _BAR * share)))
        x += _BAR * share
    return drawn


@dataclass(frozen=True, slots=True)
class Column:
    """The count of one bin."""

    x: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """name: of the axis. told: all of it in words. outside: (x, width) of what lies outside of the first gate. ends: (x,
    number of the gate) of every end of a gate."""

    name: str
    told: str
    scale: Scale
    columns: list[Column]
    outside: list[tuple[float, float]]
    ends: list[tuple[float, int]]
    width: int = WIDTH
    height: int = HEIGHT


def histogram(name: str, scale: Scale, counts: Sequence[int], gates: Sequence[Gate], told: str) -> Histogram:
    """counts [BINS]. told: in words."""
    top = max(max(counts), 1)
    width = WIDTH / BINS
    columns = [Column(i * width, width - _GAP, HEIGHT * n / top) for i, n in enumerate(counts) if n]
    outside = []
    for gate in gates[:1]:
        high = _at(scale, gate.high)
        outside = [(0.0, _at(scale, gate.low)), (high, WIDTH - high)]
    ends = [
        (_at(scale, end), i % _LINES)
        for i, gate in enumerate(gates)
        for end in (gate.low, gate.high)
        if np.isfinite(end)
    ]
    return Histogram(name, told, scale, columns, outside, ends)


def _at(scale: Scale, value: float) -> float:
    return float(np.clip((value - scale.low) / (scale.high - scale.low), 0, 1) * WIDTH)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Numbers that no gate looks at. told: their quantiles."""

    drawn: Histogram
    told: str


def distributions(numbers: Mapping[str, npt.NDArray[np.float64]]) -> list[Distribution]:
    """Of each name's numbers, where there are any, a histogram up to their 99 % quantile."""
    return [_distribution(name, values) for name, values in numbers.items() if values.size]


def _distribution(name: str, values: npt.NDArray[np.float64]) -> Distribution:
    least, low, mid, high, most = (float(q) for q in np.quantile(values, (0, 0.05, 0.5, 0.95, 1)))
    end = float(np.quantile(values, 0.99))
    scale = Scale(min(0.0, least), end if end > min(0.0, least) else min(0.0, least) + 1.0)
    counts = np.bincount(scale.bins(values), minlength=256)[:BINS].tolist()
    told = f"5 % {low:.4g}, median {mid:.4g}, 95 % {high:.4g}, most {most:.4g}"
    return Distribution(histogram(name, scale, counts, (), f"{name}: {told}"), told)
