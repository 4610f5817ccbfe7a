"""`longtake report`: a workspace as one HTML file that needs nothing else, to be read, printed and passed on.

Pictures are in it, scripts are not. Its size is bounded whatever the corpus: numbers are aggregated, and so many clips
are shown, each once. What is on the page is worked out here; `report.html.jinja` says how it looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from longtake.curation.looking.compare import OWN, Named, compare
from longtake.curation.looking.compare_tables import headline, notes, tables
from longtake.curation.looking.html import render
from longtake.curation.looking.report import findings
from longtake.curation.looking.report.charts import bars, distributions, histogram
from longtake.curation.looking.report.clips import PICTURE, ClipView, Looker
from longtake.curation.looking.report.columns import Columns
from longtake.curation.looking.stats import (
    clip_seconds,
    counted,
    encoded_clips,
    hours,
    length_notes,
    seconds_left_out,
    stage_runs,
)
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate

MOST_BYTES = 6_000_000  # of pictures: the file stays below 10 MB
MOST_CLIPS = 160
KEPT_SHOWN, REJECTED_SHOWN, NEAR_SHOWN = 6, 2, 2  # of each tier, gate, side of a threshold


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip's place on the page. anchor: the element that shows it, None where the page has no more room. view: None
    where the anchor stands elsewhere."""

    anchor: str | None = None
    view: ClipView | None = None


@dataclass(slots=True)
class _Sheets:
    """Shows clips, each once with its pictures, until there is no more room."""

    looker: Looker
    anchors: dict[int, str] = field(default_factory=dict)
    pictures: int = 0

    def sheet(self, rows: Iterable[int]) -> list[Shown]:
        """The clips in these rows of the table, as the page shows them."""
        found = []
        for row in rows:
            if row in self.anchors:
                found.append(Shown(self.anchors[row]))
                continue
            if len(self.anchors) >= MOST_CLIPS:
                found.append(Shown())
                break
            room = self.pictures < MOST_BYTES
            view = self.looker.look([row], PICTURE if room else 0)[0]
            self.pictures += sum(len(picture) * 4 // 3 for picture in view.pictures)
            self.anchors[row] = f"clip-{len(self.anchors) + 1}"
            found.append(Shown(self.anchors[row], view))
        return found


def write_report(workspace: Workspace, recipe: Recipe, others: Sequence[Named] = ()) -> bytes:
    """The page, as UTF-8. others: the recipes to compare with."""
    columns = Columns.load(workspace, recipe)
    looker = Looker(workspace, columns)
    sheets = _Sheets(looker)
    page = render(
        "report/report.html.jinja",
        recipe=recipe.name,
        workspace=workspace.path,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        picture_width=PICTURE,
        summary=_summary(workspace, columns, looker),
        funnels=[_funnel(columns, tier) for tier in columns.tiers],
        scores=[_score(columns, name) for name in columns.scales],
        compared=_compared(workspace, recipe, others),
        together=_together(columns),
        # A clip has its pictures where it is chosen first, so these three are in the order of the page.
        kept=list(_kept(columns, sheets)),
        rejected=list(_rejected(columns, sheets)),
        near=list(_near(columns, sheets)),
        errors=findings.error_examples(workspace, columns),
        files=_files(workspace),
        captions=_captions(looker),
        time=findings.seconds_of(stage_runs(workspace)),
    )
    return page.encode()


def _compared(workspace: Workspace, recipe: Recipe, others: Sequence[Named]) -> dict[str, Any]:
    found = compare(workspace, [Named(OWN, recipe, own=True), *others])
    return {"headline": headline(found), "tables": list(tables(found)), "notes": list(notes(found))}


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _summary(workspace: Workspace, columns: Columns, looker: Looker) -> dict[str, Any]:
    videos = counted(workspace.videos.read(["status"], encoded=["status"])["status"])
    clips = counted(columns.scores.table["status"])
    captions = counted(looker.captions()["status"])
    long = float(clip_seconds(columns.scores.table).sum())
    cards = [
        {"name": "videos", "count": sum(videos.values()), "more": f"{videos.get('error', 0):,} errors"},
        {"name": "clips", "count": sum(clips.values()), "more": f"{hours(long)}, {clips.get('error', 0):,} errors"},
        {
            "name": "captions",
            "count": sum(captions.values()),
            "more": ", ".join(f"{n:,} {status}" for status, n in sorted(captions.items())),
        },
    ]
    for tier in columns.tiers:
        counts = columns.counts(tier)
        told = ", ".join(f"{counts[v]:,} {v}" for v in ("rejected", "undecided", "error") if counts[v])
        more = f"{hours(columns.kept_seconds(tier))}; {_share(counts['kept'], len(columns))} of all; {told}"
        cards.append({"name": f"kept: {tier}", "count": counts["kept"], "more": more})
    notes = [f"not applied: {name} ({why})" for name, why in columns.recipe.not_applied.items()]
    notes += length_notes(columns.recipe, seconds_left_out(workspace), encoded_clips(workspace, columns.recipe))
    notes += [
        f"not comparable: {name} of {int(other.sum()):,} clips, whose keyframes are not as far apart as those of the windows"
        for name in columns.recipe.filters
        if (other := columns.scores.settled(name)).any()
    ]
    notes += [f"taken as they are: scores of {n}, since here {why}" for n, why in columns.scores.unchecked.items()]
    return {"cards": cards, "notes": notes}


def _funnel(columns: Columns, tier: str) -> dict[str, Any]:
    counts = columns.counts(tier)
    steps = columns.funnel(tier)
    whole = max(steps[0]["reach it"] if steps else 0, 1)
    rows = []
    for step in steps:
        held = (step["no score"] + step["not known"]) / whole
        alone = counts["gates"][step["gate"]]
        rows.append(
            {
                "gate": step["gate"],
                "range": step["range"],
                "parts": bars({"kept": step["left"] / whole - held, "hold": held, "fall": step["fall at it"] / whole}),
                "counts": [
                    *(step[name] for name in ("reach it", "fall at it", "no score", "not known", "left")),
                    *(alone[name] for name in ("failed", "only_failure", "only_failure_so_far", "uncertain")),
                ],
            }
        )
    return {"title": f"{tier}: {counts['kept']:,} of {len(columns):,} clips are kept", "rows": rows}


def _score(columns: Columns, name: str) -> dict[str, Any]:
    gates: dict[Gate, list[str]] = {}
    for tier, now in columns.tiers.items():
        if name in now.gates:
            gates.setdefault(now.gates[name].gate, []).append(tier)
    rows = columns.everything()
    known = columns.values(name, rows)
    rows, known = rows[~np.isnan(known)], known[~np.isnan(known)]
    shares = []
    for gate, tiers in gates.items():
        _, excess = columns.tiers[tiers[0]].gates[name].outside(rows)
        below, above = int(np.sum(excess < 0)), int(np.sum(excess > 0))
        sides = [f"{_share(below, known.size)} below" if np.isfinite(gate.low) else ""]
        sides += [f"{_share(known.size - below - above, known.size)} inside"]
        sides += [f"{_share(above, known.size)} above" if np.isfinite(gate.high) else ""]
        shares.append(f"{', '.join(tiers)} {gate}: {', '.join(filter(None, sides))}")
    told = f"{name}: {known.size:,} clips have it. {'; '.join(shares)}"
    unit = columns.recipe.built[name].unit
    drawn = histogram(unit, columns.scales[name], columns.histogram(name), list(gates), told)
    return {"name": name, "known": known.size, "clips": len(columns), "drawn": drawn, "shares": shares}


def _together(columns: Columns) -> dict[str, Any]:
    found = findings.rank_correlation(columns)
    rows = []
    for i, name in enumerate(found.names):
        cells = [_rho(float(found.rho[i, j]), int(found.pairs[i, j]), i == j) for j in range(len(found.names))]
        rows.append({"name": name, "cells": cells})
    return {"most": findings.MOST_RANKED, "rows": rows}


def _rho(rho: float, pairs: int, same: bool) -> dict[str, Any]:
    if np.isnan(rho) or same:
        return {"told": "1" if same else "–", "pairs": pairs, "color": None}
    color = "kept" if rho >= 0 else "fall"
    return {"told": f"{rho:.2f}", "pairs": pairs, "color": color, "percent": f"{45 * abs(rho):.0f}"}


def _kept(columns: Columns, sheets: _Sheets) -> Iterator[dict[str, Any]]:
    for tier in columns.tiers:
        chosen = columns.to_show(columns.kept(tier), KEPT_SHOWN)
        yield {"name": tier, "clips": sheets.sheet(chosen.tolist())}


def _rejected(columns: Columns, sheets: _Sheets) -> Iterator[dict[str, Any]]:
    for gate, name, tiers in _gates(columns):
        result = columns.tiers[tiers[0]].gates[name]
        alone, so_far = columns.alone(tiers[0], name)
        failed = np.flatnonzero(columns.counted & result.failed)
        told = f"in {tiers[0]} {alone.size:,} by it alone, {so_far.size:,} by it alone as far as they are measured"
        title = f"{name} {gate} ({', '.join(tiers)}): {failed.size:,} rejected, {told}"
        chosen: list[int] = []
        for rows in (alone, so_far, failed):
            if len(chosen) < REJECTED_SHOWN and (rows is not failed or not chosen):
                chosen += columns.to_show(rows, REJECTED_SHOWN - len(chosen)).tolist()
        yield {"title": title, "tier": tiers[0], "clips": sheets.sheet(chosen)}


def _near(columns: Columns, sheets: _Sheets) -> Iterator[dict[str, Any]]:
    for gate, name, tiers in _gates(columns):
        rows = columns.others_pass(tiers[0], name)
        if not np.any(~np.isnan(columns.values(name, rows))):
            rows = columns.everything()
        for end, threshold in (("low", gate.low), ("high", gate.high)):
            if not np.isfinite(threshold):
                continue
            inside, outside = (
                sheets.sheet(near.tolist()) for near in columns.near_end(tiers[0], name, end, rows, NEAR_SHOWN)
            )
            title = f"{name} {'≥' if end == 'low' else '≤'} {threshold:g} ({', '.join(tiers)})"
            yield {"title": title, "tier": tiers[0], "inside": inside, "outside": outside}


def _gates(columns: Columns) -> list[tuple[Gate, str, list[str]]]:
    """Each gate once, with the tiers that have it."""
    found: dict[tuple[str, Gate], list[str]] = {}
    for tier, now in columns.tiers.items():
        for name, result in now.gates.items():
            found.setdefault((name, result.gate), []).append(tier)
    return [(gate, name, tiers) for (name, gate), tiers in found.items()]


def _files(workspace: Workspace) -> dict[str, Any]:
    found = findings.files(workspace)
    counts = {name: [(key, f"{n:,}") for key, n in rows] for name, rows in found.counts.items()}
    return {"numbers": distributions(found.numbers), "counts": counts}


def _captions(looker: Looker) -> dict[str, Any]:
    found = findings.wording(looker.captions())
    return {
        "read": found.read,
        "words": distributions(found.words),
        "repeats": [(text, f"{n:,}") for text, n in found.repeats],
        "phrases": [(text, f"{n:,}", _share(n, found.read)) for text, n in found.phrases],
    }
