"""`longtake report`: a workspace as one HTML file that needs nothing else, to be read, printed and passed on.

Pictures are in it, scripts are not. Its size is bounded whatever the corpus: numbers are aggregated, so many clips are
shown, each once, and their pictures get fewer as the room for them gets less. What is on the page is worked out here;
`report.html.jinja` says how it looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from longtake.curation.looking.compare import OWN, Named, compare
from longtake.curation.looking.compare_tables import headline, notes, tables
from longtake.curation.looking.html import render
from longtake.curation.looking.pictures import Pictures
from longtake.curation.looking.report import findings
from longtake.curation.looking.report.charts import bars, distributions, histogram
from longtake.curation.looking.report.clips import PICTURE, STRIP, ClipView, Looker
from longtake.curation.looking.report.columns import Columns, Rows
from longtake.curation.looking.stats import (
    clip_seconds,
    counted,
    encoded_clips,
    facts_of_files,
    hours,
    length_notes,
    stage_runs,
)
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate

MOST_PAGE = 15_000_000  # Bytes of the file, for any corpus.
MOST_BYTES = 10_000_000  # Bytes of pictures among them. The bytes left over are more than the text of any recipe took.
MOST_CLIPS = 160
# Seconds for reading pictures of clips that the scan did not decode from their sources: of all, and of one.
SOURCES_SECONDS, SOURCE_SECONDS = 30.0, 3.0
KEPT_SHOWN, REJECTED_SHOWN, NEAR_SHOWN = 6, 2, 2  # Clips shown of a tier, of a gate, and on a side of a threshold.


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip's place on the page. anchor: the element that shows it, None where the page has no more room. view: what is shown of
    it here. again: the anchor stands elsewhere, and here are its pictures only. score: at the gate that it is shown for."""

    anchor: str | None = None
    view: ClipView | None = None
    again: bool = False
    score: str = ""


@dataclass(slots=True)
class _Sheets:
    """Shows clips, each once with its pictures: of all five, of three, of one and of none, as the room for them gets less. room:
    bytes of pictures."""

    looker: Looker
    room: int
    anchors: dict[int, str] = field(default_factory=dict)
    repeated: int = 0
    used: int = 0
    seconds: float = 0.0  # The time spent on sources.
    fewer: int = 0  # Clips with fewer pictures than there are.
    unread: int = 0  # Clips whose sources were not read any more.

    def sheet(self, rows: Sequence[int], width: int = STRIP, scores: Sequence[str] = ()) -> list[Shown]:
        """The clips in these rows of the table, as the page shows them. width: of their pictures. scores: told of each."""
        pictures = []
        for row, score in zip(rows, scores or [""] * len(rows), strict=True):
            again = row in self.anchors
            if not again and len(self.anchors) >= MOST_CLIPS:
                pictures.append(Shown())
                break
            if again and self.repeated >= MOST_CLIPS:
                pictures.append(Shown(self.anchors[row], again=True, score=score))
                continue
            view = self._look(row, STRIP if again else width)
            self.used += sum(len(picture) * 4 // 3 for picture in view.pictures)
            self.repeated += again
            self.anchors.setdefault(row, f"clip-{len(self.anchors) + 1}")
            pictures.append(Shown(self.anchors[row], view, again, score))
        return pictures

    def _look(self, row: int, width: int) -> ClipView:
        left = 1 - self.used / self.room if self.room else 0.0
        most = 5 if left > 0.4 else 3 if left > 0.15 else 1 if left > 0 else 0
        began, stored = time.monotonic(), bool(self.looker.columns.seen(row))
        sources = stored or self.seconds < SOURCES_SECONDS
        (view,) = self.looker.look([row], width, most=most, sources=sources)
        if not stored and most:
            self.seconds += time.monotonic() - began
            self.unread += not sources and not view.pictures
        self.fewer += most < 5
        return view

    def notes(self) -> list[str]:
        """What the page leaves out."""
        texts = []
        if self.fewer:
            texts.append(
                f"{self.fewer:,} of the clips on this page show fewer than five pictures, so that it stays under "
                f"{MOST_PAGE / 1e6:g} MB"
            )
        if self.unread:
            texts.append(
                f"{self.unread:,} clips that were rejected without being decoded have no picture here: their sources are read "
                f"for {SOURCES_SECONDS:g} s at most"
            )
        return texts


def write_report(workspace: Workspace, recipe: Recipe, others: Sequence[Named] = ()) -> bytes:
    """The page, as UTF-8. others: the recipes to compare with."""
    columns = Columns.load(workspace, recipe)
    looker = Looker(workspace, columns, Pictures(workspace, seconds=SOURCE_SECONDS))
    told = {
        "recipe": recipe.name,
        "workspace": workspace.path,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "funnels": [_funnel(columns, tier) for tier in columns.tiers],
        "scores": [_score(columns, name) for name in columns.scales],
        "compared": _compared(workspace, recipe, others),
        "together": _together(columns),
        "errors": findings.error_examples(workspace, columns),
        "files": _files(workspace),
        "crops": _crops(workspace) if recipe.crop else [],
        "captions": _captions(looker),
        "time": findings.seconds_of(stage_runs(workspace, columns.current)),
    }
    try:
        page = b""
        for room in (MOST_BYTES, MOST_BYTES // 4, 0):
            page = _page(workspace, columns, looker, told, room)
            if len(page) <= MOST_PAGE:
                break
        return page
    finally:
        looker.close()


def _page(workspace: Workspace, columns: Columns, looker: Looker, told: dict[str, Any], room: int) -> bytes:
    """The page with so many bytes of pictures. told: all of it but clips and summary."""
    sheets = _Sheets(looker, room)
    # A clip has its pictures where it is chosen first, so these three are in the order of the page.
    clips = {
        "kept": list(_kept(columns, sheets)),
        "rejected": list(_rejected(columns, sheets)),
        "near": list(_near(columns, sheets)),
    }
    summary = _summary(workspace, columns, looker)
    summary["notes"] += sheets.notes()
    return render("report/report.html.jinja", **told, **clips, summary=summary).encode()


def _compared(workspace: Workspace, recipe: Recipe, others: Sequence[Named]) -> dict[str, Any]:
    comparison = compare(workspace, [Named(OWN, recipe, own=True), *others])
    return {"headline": headline(comparison), "tables": list(tables(comparison)), "notes": list(notes(comparison))}


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _errors(statuses: Mapping[str, int]) -> str:
    count = statuses.get("error", 0)
    return f"{count:,} error{'' if count == 1 else 's'}"


def _summary(workspace: Workspace, columns: Columns, looker: Looker) -> dict[str, Any]:
    videos = counted(workspace.videos.read(["status"], encoded=["status"])["status"])
    clips = counted(columns.scores.table["status"])
    captions = counted(looker.captions()["status"])
    long = float(clip_seconds(columns.scores.table).sum())
    cards = [
        {"name": "videos", "count": sum(videos.values()), "more": _errors(videos)},
        {"name": "clips", "count": sum(clips.values()), "more": f"{hours(long)}, {_errors(clips)}"},
        {
            "name": "captions",
            "count": sum(captions.values()),
            "more": ", ".join(f"{n:,} {status}" for status, n in sorted(captions.items())),
        },
    ]
    for tier in columns.tiers:
        counts = columns.counts(tier)
        others = ", ".join(f"{counts[v]:,} {v}" for v in ("rejected", "undecided", "error") if counts[v])
        more = [hours(columns.kept_seconds(tier)), f"{_share(counts['kept'], len(columns))} of all", others]
        cards.append({"name": f"kept: {tier}", "count": counts["kept"], "more": "; ".join(filter(None, more))})
    notes = [f"not applied: {name} ({why})" for name, why in columns.recipe.not_applied.items()]
    seconds, files = facts_of_files(workspace)
    notes += length_notes(columns.recipe, seconds, encoded_clips(workspace, columns.recipe, columns.current))
    notes += files
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
    if not known.size:
        shares = [f"{', '.join(tiers)} {gate}: no clip has this score" for gate, tiers in gates.items()]
    told = f"{name}: {known.size:,} clips have it. {'; '.join(shares)}"
    unit = columns.recipe.built[name].unit
    drawn = histogram(unit, columns.scales[name], columns.histogram(name), list(gates), told)
    return {"name": name, "known": known.size, "clips": len(columns), "drawn": drawn, "shares": shares}


def _together(columns: Columns) -> dict[str, Any]:
    correlation = findings.rank_correlation(columns)
    rows = []
    for i, name in enumerate(correlation.names):
        cells = [
            _rho(float(correlation.rho[i, j]), int(correlation.pairs[i, j]), i == j)
            for j in range(len(correlation.names))
        ]
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
        yield {"name": tier, "clips": sheets.sheet(chosen.tolist(), PICTURE), "empty": _why_none(columns, tier)}


def _why_none(columns: Columns, tier: str) -> str:
    """What to say where a tier keeps no clip."""
    if not len(columns):
        return "There are no clips: `longtake scan` finds them."
    steps = columns.funnel(tier)
    worst = max(steps, key=lambda step: step["fall at it"], default=None)
    if worst is None or not worst["fall at it"]:
        return "No clip is kept, and no gate rejects one: scores are missing, and `longtake curate` measures them."
    return (
        f"No clip is kept. Most fall at {worst['gate']} ({worst['range']}): {worst['fall at it']:,} of {len(columns):,}. "
        f"`longtake tiers` and the studio show what another threshold would keep."
    )


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
                sheets.sheet(near.tolist(), scores=_distances(columns, name, threshold, near, side))
                for near, side in zip(
                    columns.near_end(tiers[0], name, end, rows, NEAR_SHOWN), ("inside", "outside"), strict=True
                )
            )
            title = f"{name} {'≥' if end == 'low' else '≤'} {threshold:g} ({', '.join(tiers)})"
            yield {"title": title, "tier": tiers[0], "inside": inside, "outside": outside}


def _distances(columns: Columns, name: str, threshold: float, rows: Rows, side: str) -> list[str]:
    """The score of each clip, and how far from a threshold it is."""
    values = columns.values(name, rows).tolist()
    return [
        f"{name} {value:.4g}, {'on the threshold' if value == threshold else f'{abs(value - threshold):.4g} {side}'}"
        for value in values
    ]


def _gates(columns: Columns) -> list[tuple[Gate, str, list[str]]]:
    """Each gate once, with the tiers that have it."""
    tiers_of: dict[tuple[str, Gate], list[str]] = {}
    for tier, now in columns.tiers.items():
        for name, result in now.gates.items():
            tiers_of.setdefault((name, result.gate), []).append(tier)
    return [(gate, name, tiers) for (name, gate), tiers in tiers_of.items()]


def _files(workspace: Workspace) -> dict[str, Any]:
    facts = findings.files(workspace)
    counts = {name: [(key, f"{n:,}") for key, n in rows] for name, rows in facts.counts.items()}
    return {"numbers": distributions(facts.numbers), "counts": counts}


def _crops(workspace: Workspace) -> list[tuple[str, ...]]:
    return [(words, f"{clips:,}", f"{cut:.1%}") for words, clips, cut in findings.crops(workspace)]


def _captions(looker: Looker) -> dict[str, Any]:
    wording = findings.wording(looker.captions())
    return {
        "read": wording.read,
        "words": distributions(wording.words),
        "repeats": [(text, f"{n:,}") for text, n in wording.repeats],
        "phrases": [(text, f"{n:,}", _share(n, wording.read)) for text, n in wording.phrases],
    }
