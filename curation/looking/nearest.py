"""After a run that keeps next to nothing: which gate decides most, which clips come nearest, and what would keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_scores
from longtake.curation.looking.stats import Floats, clip_seconds, funnel
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.filters.verdicts import TierResult, Verdict, decide

FEW = 0.01  # Share of the clips. A tier that keeps less keeps next to nothing, and is reported.
BEST = 10  # Clips that the changes keep: enough to look at, and few enough that the gates still say something.
# Spreads of a score. A gate that has no score of a clip counts as one that the clip fails by this much.
_UNMEASURED = 1.0
_DIGITS = 3  # Digits of the new end of a gate. It is rounded outwards, so that the clip it was made for is kept.


@dataclass(frozen=True, slots=True)
class Near:
    """A clip that a tier rejects. failed: gate → its score, and how far outside of the gate that is (`Gate.excess`). unmeasured:
    how many gates have no score of it."""

    clip_id: str
    failed: dict[str, tuple[float, float]]
    unmeasured: int


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of the tier that keeps most, where that is next to nothing. decisive: the gate at which most clips fall, with its range,
    how many, and their hours; None where no gate rejects any. near: the nearest clips, nearest first. changes: `TIER.GATE` → its
    range or `off`: what would keep the best ten; empty where nothing would. exact: every gate has a score of each of them; where
    metadata rejected a film, it was not cut into clips yet. would_keep: how many clips the changes keep.
    too_short: clips that no gate could keep, since no shot of their film has `splitting.min_seconds`."""

    tier: str
    kept: int
    clips: int
    kept_seconds: float
    seconds: float
    decisive: tuple[str, str, int, float] | None
    near: list[Near]
    changes: dict[str, str]
    exact: bool
    would_keep: int
    would_keep_seconds: float
    too_short: int


def nearest(workspace: Workspace, recipe: Recipe) -> Nearest | None:
    """None where some tier keeps FEW or more of the clips, or where there is no clip without an error."""
    scores = clip_scores(workspace, recipe, ["start", "end", "clip_protocol"])
    clips, seconds = scores.table, clip_seconds(scores.table)
    results = {tier: decide(scores, gates) for tier, gates in recipe.tiers.items()}
    if not results or not scores.ok().any():
        return None
    tier = max(results, key=lambda name: int(results[name].kept.sum()))
    result = results[tier]
    kept = int(result.kept.sum())
    if kept >= FEW * clips.num_rows and kept:
        return None
    short = _too_short(clips, seconds, recipe)
    candidates = np.flatnonzero(scores.ok() & ~short & (result.verdicts != Verdict.KEPT))
    order = candidates[np.argsort(_distance(result, candidates), kind="stable")]
    best = order[:BEST]
    changes = _changes(result, best) if best.size else {}
    after = decide(scores, _with(recipe.tiers[tier], changes))
    keeps = after.kept & ~short
    ids = clips["clip_id"].take(pa.array(best[:3])).to_pylist()
    return Nearest(
        tier,
        kept,
        clips.num_rows,
        float(seconds[result.kept].sum()),
        float(seconds.sum()),
        _decisive(result, seconds),
        [_near(clip_id, int(row), result) for clip_id, row in zip(ids, best[:3], strict=True)],
        {f"{tier}.{name}": "off" if gate is None else str(gate) for name, gate in changes.items()},
        bool(np.all(result.tally.missings[best] == 0)),
        int(keeps.sum()),
        float(seconds[keeps].sum()),
        int(short.sum()),
    )


def _too_short(clips: pa.Table, seconds: Floats, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Clips that stand for a film without a shot of `min_seconds`; those that a list names are as long as they are."""
    listed = pc.match_substring(clips["clip_protocol"], "+").fill_null(False).to_numpy().astype(bool)
    return np.asarray((seconds < recipe.splitting.min_seconds - 1e-6) & ~listed)


def _distance(result: TierResult, rows: npt.NDArray[np.int64]) -> Floats:
    """How far each of some clips is from being kept [rows]: over all gates, how far outside it is, in spreads of the score."""
    far = np.zeros(rows.size)
    for gate in result.gates.values():
        known = gate.low[gate.passed | gate.failed]
        spread = float(np.std(known)) if known.size else 0.0
        failed, excess = gate.failed[rows], gate.outside(rows)[1]
        far += np.where(failed, np.abs(excess) / (spread or 1.0), 0.0) + _UNMEASURED * gate.missing[rows]
    return far


def _changes(result: TierResult, rows: npt.NDArray[np.int64]) -> dict[str, Gate | None]:
    """Gates that let all of some clips through; None: no gate, since it has no score of one of them."""
    changes: dict[str, Gate | None] = {}
    for name, gate in result.gates.items():
        if gate.missing[rows].any():
            changes[name] = None
        elif gate.failed[rows].any():
            low, high = float(np.min(gate.low[rows])), float(np.max(gate.high[rows]))
            changes[name] = Gate(
                gate.gate.low if low >= gate.gate.low else _rounded(low, up=False),
                gate.gate.high if high <= gate.gate.high else _rounded(high, up=True),
            )
    return changes


def _rounded(value: float, up: bool) -> float:
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    whole = math.ceil(value / step) if up else math.floor(value / step)
    return float(f"{whole * step:.12g}")


def _with(gates: Mapping[str, Gate], changes: Mapping[str, Gate | None]) -> dict[str, Gate]:
    both = {**gates, **changes}
    return {name: gate for name, gate in both.items() if gate is not None}


def _decisive(result: TierResult, seconds: Floats) -> tuple[str, str, int, float] | None:
    steps = funnel(result, seconds)
    if not steps or not max(step["fall at it"] for step in steps):
        return None
    most = max(steps, key=lambda step: int(step["fall at it"]))
    at = steps.index(most)
    before = steps[at - 1]["hours left"] if at else float(seconds[result.verdicts != Verdict.ERROR].sum()) / 3600
    return most["gate"], most["range"], most["fall at it"], 3600 * (before - most["hours left"])


def _near(clip_id: str, row: int, result: TierResult) -> Near:
    failed = {}
    for name, gate in result.gates.items():
        if gate.failed[row]:
            (score,), (excess,) = gate.outside(slice(row, row + 1))
            failed[name] = float(score), float(excess)
    return Near(clip_id, failed, sum(bool(gate.missing[row]) for gate in result.gates.values()))
