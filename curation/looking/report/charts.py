"""Pictures of numbers, as SVG without a script. What they show is also told in words or in a table beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.curation.looking.report.clips import plain
from longtake.curation.looking.report.columns import BINS, Scale
from longtake.filters.gates import Gate

WIDTH, HEIGHT = 320, 96  # of a histogram, in its own units: it is stretched to the room there is


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a row of the funnel: its share of the whole, and its kind (a CSS class)."""

    share: float
    kind: str


def bars(parts: Sequence[Bar]) -> str:
    """One line of parts beside each other. Decoration: the numbers stand next to it."""
    drawn, x = [], 0.0
    for part in parts:
        width = 1000 * part.share
        drawn.append(f'<rect class="{part.kind}" x="{x:.1f}" width="{max(0.0, width):.1f}" height="10"/>')
        x += width
    return (
        '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="whole" width="1000" height="10"/>{"".join(drawn)}</svg>'
    )


def histogram(name: str, scale: Scale, counts: Sequence[int], gates: Sequence[tuple[str, Gate]], told: str) -> str:
    """counts [BINS]. gates: (tiers, gate), drawn as lines, what lies outside of the first one shaded. told: in words."""
    top = max(max(counts), 1)
    width = WIDTH / BINS
    columns = "".join(
        f'<rect class="count" x="{i * width:.2f}" y="{HEIGHT - HEIGHT * n / top:.2f}" width="{width - 0.4:.2f}" '
        f'height="{HEIGHT * n / top:.2f}"/>'
        for i, n in enumerate(counts)
        if n
    )
    marks = []
    for i, (_, gate) in enumerate(gates):
        low, high = _at(scale, gate.low), _at(scale, gate.high)
        if i == 0:
            marks.append(f'<rect class="out" x="0" y="0" width="{low:.2f}" height="{HEIGHT}"/>')
            marks.append(f'<rect class="out" x="{high:.2f}" y="0" width="{WIDTH - high:.2f}" height="{HEIGHT}"/>')
        for end, x in ((gate.low, low), (gate.high, high)):
            if np.isfinite(end):
                marks.append(f'<line class="gate g{i % 4}" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{HEIGHT}"/>')
    return (
        f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{plain(told)}">{columns}{"".join(marks)}</svg>'
        f'<div class="axis" aria-hidden="true"><span>{scale.low:.4g}</span><span>{plain(name)}</span>'
        f"<span>{scale.high:.4g}</span></div>"
    )


def _at(scale: Scale, value: float) -> float:
    return float(np.clip((value - scale.low) / (scale.high - scale.low), 0, 1) * WIDTH)


def distribution(name: str, values: npt.NDArray[np.float64]) -> str:
    """A histogram of numbers that no gate looks at, up to their 99 % quantile, with their quantiles in words."""
    if not values.size:
        return ""
    least, low, mid, high, most = (float(q) for q in np.quantile(values, (0, 0.05, 0.5, 0.95, 1)))
    end = float(np.quantile(values, 0.99))
    scale = Scale(min(0.0, least), end if end > min(0.0, least) else min(0.0, least) + 1.0)
    counts = np.bincount(scale.bins(values), minlength=256)[:BINS].tolist()
    told = f"5 % {low:.4g}, median {mid:.4g}, 95 % {high:.4g}, most {most:.4g}"
    return f"<figure>{histogram(name, scale, counts, (), f'{name}: {told}')}<figcaption>{told}</figcaption></figure>"
