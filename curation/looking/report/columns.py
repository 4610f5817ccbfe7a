"""Every clip's scores as columns in memory, so that moving one end of one gate costs one gate.

`longtake tiers` reads the manifests and applies every gate; that is seconds for a million clips. Here the columns are
read once (`clip_scores`, the same), a gate is applied by the same `ClipScores.result`, and per tier its `Tally` is kept:
of each clip, how many gates failed it, and how many have no score of it. A moved gate changes only its own share of
them, and all that is shown (verdicts, funnel, histograms, clips near a threshold) follows from them in passes over
arrays of bytes. What follows is for `longtake.filters.verdicts` to say; here is only when to count anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import CurrentClips
from longtake.curation.looking.report.loading import all_scores
from longtake.curation.looking.stats import clip_seconds
from longtake.curation.orphans import looking
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import Needs
from longtake.filters.gates import Gate, Tier
from longtake.filters.verdicts import ClipScores, GateResult, Tally, TierResult
from longtake.manifests import schemas

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

BINS = 64
_NONE = 255  # The bin of a clip without a score: bins are uint8, and BINS is smaller.
_PIECE = 1 << 15  # Values that are sorted into bins at once: they stay in the processor's cache.
OF_A_CLIP = ("video_id", "uri", "start", "end", "has_frames", "has_strip", "host")
OF_A_CROP = ("crop_width", "crop_height", "not_cropped")


@dataclass(frozen=True, slots=True)
class Scale:
    """The axis of a score: BINS equal bins from low to high; the outer ones also hold what lies beyond."""

    low: float
    high: float

    def bins(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """The bin of each value [clips]; _NONE for nan."""
        bins = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _PIECE):
            at = values[start : start + _PIECE] - self.low
            at *= BINS / (self.high - self.low)
            np.clip(at, 0, BINS - 1, out=at)
            np.copyto(at, _NONE, where=np.isnan(at))
            bins[start : start + _PIECE] = at
        return bins


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a tier comes from by moving one gate: what was known of it, and the clips whose fate at that gate is another.

    All that is counted is a sum over clips, so it changes by what these clips count for now, less what they did.
    """

    gates: dict[str, GateResult]
    steps: Counts | None
    rows: Rows
    shares: dict[str, Counts]
    # Those of `rows` that at most one gate rejects, before or now: `shares` counts no other clips.
    near: Rows
    before: Tally  # [near]
    now: Tally  # [near]


@dataclass(slots=True)
class _Tier:
    gates: dict[str, GateResult]
    tally: Tally
    # These rows are sought when they are needed: the counted clips that no gate rejects, and those that no other gate rejects.
    passing: Rows | None = None
    others: dict[str, Rows] = field(default_factory=dict)
    shares: dict[str, Counts] = field(default_factory=dict)  # [_NONE + 1]: bins of `others`
    steps: Counts | None = None  # `Columns._steps` counts them.
    counts: dict[str, Any] | None = None
    origin: _Origin | None = None


@dataclass(slots=True)
class Columns:
    """The scores of a workspace under a recipe's filters, and the tiers as they are set now.

    scores: as of `clip_scores`, with OF_A_CLIP. selected [clips]: what is counted and shown, see `select`. counted
    [clips]: those of them that did not end in an error.
    """

    scores: ClipScores
    recipe: Recipe
    selected: Bools
    counted: Bools
    tiers: dict[str, _Tier] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    _seen: Bools = field(default_factory=lambda: np.zeros(0, bool))
    _scanned: Bools = field(default_factory=lambda: np.zeros(0, bool))
    _spans: dict[str, tuple[Any, Any, Bools]] = field(default_factory=dict)
    _errors: dict[str, npt.NDArray[np.float64] | None] = field(default_factory=dict)
    _shown: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    _bins: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    _whole: dict[str, list[int]] = field(default_factory=dict)
    _alone: dict[tuple[str, Gate], tuple[int, int, int, int]] = field(default_factory=dict)
    # By filter: the row of the clip kept instead.
    _repeats: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    _seconds: npt.NDArray[np.float64] | None = None
    _current: CurrentClips | None = None

    @classmethod
    def load(cls, workspace: Workspace, recipe: Recipe) -> Columns:
        """Read a workspace, and set the recipe's own tiers."""
        # Without gates, every clip that repeats another keeps its score. Which of them lose it depends on the gates.
        no_gates = recipe.model_copy(update={"tiers": {tier: {} for tier in recipe.tiers}})
        names = (*OF_A_CLIP, *(OF_A_CROP if recipe.crop else ()))
        columns = cls.of(all_scores(workspace, no_gates, names), recipe)
        columns.scores.forget()
        columns.set(recipe.tiers)
        return columns

    @classmethod
    def of(cls, scores: ClipScores, recipe: Recipe) -> Columns:
        """The columns of scores that are in memory, no tier set."""
        self = cls(scores, recipe, np.ones(scores.table.num_rows, bool), scores.ok())
        # A clip without captions is an error, but others may repeat it all the same.
        uncaptioned = pc.equal(scores.table["error_kind"], "caption").fill_null(False).to_numpy().astype(bool)
        self._scanned = scores.ok() | uncaptioned
        self._seen = scores.table["has_frames"].to_numpy().astype(bool)
        if "has_strip" in scores.table.column_names:
            self._seen = self._seen | scores.table["has_strip"].fill_null(False).to_numpy().astype(bool)
        scores.details_needed()  # This call reads the protocols, once for all threads.
        self._errors = {name: scores.errors(name) for name in recipe.filters}
        with ThreadPoolExecutor() as threads:  # NumPy releases the interpreter's lock, so threads gain time.
            self._spans = dict(zip(recipe.filters, threads.map(scores.span, recipe.filters), strict=True))
            self._shown = dict(zip(recipe.filters, threads.map(self._values, recipe.filters), strict=True))
            self.scales = dict(zip(recipe.filters, threads.map(self._scale, recipe.filters), strict=True))
            bins = threads.map(lambda name: self.scales[name].bins(self._shown[name]), recipe.filters)
            self._bins = dict(zip(recipe.filters, bins, strict=True))
        for name in looking(recipe):
            if (column := schemas.KEPT_INSTEAD[name].name) in scores.table.column_names:
                ids = scores.table["clip_id"].combine_chunks()
                at = pc.index_in(scores.table[column], value_set=ids)
                missing = pc.if_else(scores.table[column].is_valid(), -2, -1)  # A clip that repeats none has -1.
                self._repeats[name] = pc.coalesce(at.cast("int64"), missing.cast("int64")).to_numpy()
        return self

    def _values(self, name: str) -> npt.NDArray[np.float64]:
        low, high, bound = self._spans[name]
        gates = self._gates(name)
        values = high if gates and all(np.isinf(gate.low) for gate in gates) else low
        return np.asarray(np.where(bound, np.nan, values) if bound.any() else values)

    def _scale(self, name: str) -> Scale:
        return _scale(self._shown[name], self._gates(name), limits(self.scores.filters[name].unit))

    def span(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Bools]:
        """As of `ClipScores.span`: the least and greatest value that a gate looks at, and where these are bounds only."""
        return self._spans[name]

    def _gates(self, name: str) -> list[Gate]:
        return [tier[name] for tier in self.recipe.tiers.values() if name in tier]

    def __len__(self) -> int:
        return int(self.scores.table.num_rows)

    def select(self, rows: Bools | None) -> None:
        """Count and show only these clips [clips]; None: all. Verdicts stay as they are."""
        self.selected = np.ones(len(self), bool) if rows is None else rows
        self.counted = self.scores.ok() & self.selected
        self._alone, self._whole = {}, {}
        for tier in self.tiers.values():
            tier.passing, tier.others, tier.shares = None, {}, {}
            tier.steps, tier.counts, tier.origin = None, None, None

    def values(self, name: str, rows: Rows | slice) -> npt.NDArray[np.float64]:
        """The scores of `rows` to be shown, nan where there is none: a bound is none. With `reduce: every` the one of a
        clip's values that a gate looks at first: the least, or the greatest where all gates are upper limits."""
        return self._shown[name][rows]

    def seen(self, row: int) -> bool:
        """Whether a picture of a clip is stored."""
        return bool(self._seen[row])

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set(self, tiers: Mapping[str, Tier]) -> None:
        """Make these the tiers. Only gates that changed are applied again; those of near-duplicates follow the others.

        Raises KeyError for a gate without a filter.
        """
        corpus = list(self._repeats)
        spans = self._spans
        for i, name in enumerate(corpus):
            later = corpus[i:]
            others = {tier: {n: gate for n, gate in gates.items() if n not in later} for tier, gates in tiers.items()}
            spans = {**spans, name: self._without_orphans(name, self._apply(others, spans, corpus[:i]))}
        self.tiers = self._apply(tiers, spans, corpus)

    def _apply(
        self, tiers: Mapping[str, Tier], spans: Mapping[str, tuple[Any, Any, Bools]], anew: Iterable[str]
    ) -> dict[str, _Tier]:
        known = {
            (name, result.gate): result
            for tier in self.tiers.values()
            for name, result in tier.gates.items()
            if name not in anew
        }
        # This object is thrown away, since `ClipScores` keeps each result and a drag makes hundreds.
        scores = ClipScores(
            self.scores.table, self.scores.filters, _spans=dict(spans), _ok=self._scanned, _errors=self._errors
        )
        new: dict[str, _Tier] = {}
        for tier, gates in tiers.items():
            results = {name: known.get((name, gate)) or scores.result(name, gate) for name, gate in gates.items()}
            before = self.tiers.get(tier)
            if before is None:
                before = _Tier({}, Tally.count((), len(self)))
            tally = before.tally
            moved: list[tuple[str, GateResult, GateResult]] = []
            for name in [*results, *(name for name in before.gates if name not in results)]:
                old, now = before.gates.get(name), results.get(name)
                if old is now:
                    continue
                if old is not None and now is not None:
                    moved.append((name, old, now))
                tally = tally if old is None else tally.minus(old)
                tally = tally if now is None else tally.plus(now)
            if tally is before.tally and before.gates and list(results) == list(before.gates):
                new[tier] = before
                continue
            new[tier] = _Tier(results, tally)
            if len(moved) == 1 and list(results) == list(before.gates) and before.shares:
                name, old, now = moved[0]
                # The verdict of the other gates about a clip does not depend on the gate that moved.
                if name in before.others:
                    new[tier].others[name] = before.others[name]
                if name in before.shares:
                    new[tier].shares[name] = before.shares[name]
                rows = np.flatnonzero((old.failed ^ now.failed | old.missing ^ now.missing) & self.counted)
                if rows.size * 4 < len(self):
                    near = rows[before.tally.of(rows).failed_once_at_most | tally.of(rows).failed_once_at_most]
                    new[tier].origin = _Origin(
                        before.gates, before.steps, rows, before.shares, near, before.tally.of(near), tally.of(near)
                    )
        return new

    def _without_orphans(self, name: str, tiers: Mapping[str, _Tier]) -> tuple[Any, Any, Bools]:
        """As `orphans.without_orphans` does it: a clip that repeats one which no tier may keep has no score."""
        repeats = self._repeats[name]
        captions = self.recipe.needing(Needs.CAPTIONS)
        left = np.zeros(len(self), bool)
        for tier in tiers.values():
            tally = tier.tally
            for gate in captions:
                if gate in tier.gates:
                    tally = tally.minus(tier.gates[gate])
            left |= tally.unfailed
        left &= self._scanned
        orphan = (repeats == -2) | ((repeats >= 0) & ~left[np.maximum(repeats, 0)])
        low, high, bound = self._spans[name]
        return np.where(orphan, np.nan, low), np.where(orphan, np.nan, high), bound

    def verdicts(self, tier: str) -> npt.NDArray[np.uint8]:
        """Of every clip [clips], see Verdict."""
        return self.tiers[tier].tally.verdicts(self.scores.ok())

    def result(self, tier: str, rows: Rows) -> TierResult:
        """What `decide` says of a few clips."""
        now = self.tiers[tier]
        gates = {name: gate.of(rows) for name, gate in now.gates.items()}
        tally = now.tally.of(rows)
        return TierResult(gates, tally, tally.verdicts(self.scores.ok()[rows]))

    def kept(self, tier: str) -> Rows:
        """The selected clips that a tier keeps."""
        passing = self.passing(tier)
        return np.asarray(passing[self.tiers[tier].tally.of(passing).measured], np.int64)

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """How long each clip is [clips]."""
        if self._seconds is None:
            self._seconds = clip_seconds(self.scores.table)
        return self._seconds

    @property
    def current(self) -> CurrentClips:
        """The clips, under their scans."""
        if self._current is None:
            self._current = CurrentClips([self.scores.table])
        return self._current

    def kept_seconds(self, tier: str) -> float:
        """How long the selected clips that a tier keeps are together."""
        return float(self.seconds[self.kept(tier)].sum())

    @property
    def follows_others(self) -> bool:
        """Whether a clip's score of one gate depends on what other gates keep: so it is of near-duplicates."""
        return bool(self._repeats)

    def counts(self, tier: str) -> dict[str, Any]:
        """Of the selected clips, as `stats.tier_counts` has them."""
        if self.tiers[tier].counts is None:
            self.tiers[tier].counts = self._count_tier(tier)
        return dict(self.tiers[tier].counts or {})

    def _count_tier(self, tier: str) -> dict[str, Any]:
        now, passing = self.tiers[tier], self.passing(tier)
        everything, kept = _count(self.counted), self.kept(tier).size
        by_one = np.flatnonzero(self.counted & now.tally.by_one)
        gates: dict[str, Any] = {}
        for name, gate in now.gates.items():
            key = name, gate.gate
            if key not in self._alone or self._repeats:
                self._alone[key] = (
                    _count(gate.failed & self.counted),
                    _count(gate.missing & self.counted),
                    _count(gate.unknown & self.counted),
                    _count(gate.uncertain & self.counted) if gate.error is not None else 0,
                )
            failed, missing, unknown, uncertain = self._alone[key]
            # No other gate fails these clips: `_share` also counts the clips that this gate does not fail, and they are taken
            # off.
            alone, not_by_others = _count(gate.failed[by_one]), int(self._share(tier, name).sum())
            gates[name] = {
                "range": str(gate.gate),
                "passed": everything - failed - missing,
                "failed": failed,
                "missing": missing,
                "not_known": unknown,
                "only_failure": alone,
                "only_failure_so_far": not_by_others - passing.size - alone,
                "uncertain": uncertain,
            }
        return {
            "kept": kept,
            "rejected": everything - passing.size,
            "error": _count(self.selected) - everything,
            "undecided": passing.size - kept,
            "gates": gates,
        }

    def funnel(self, tier: str) -> list[dict[str, Any]]:
        """Of the selected clips, as `stats.funnel` has it."""
        now = self.tiers[tier]
        if now.steps is None:
            origin = now.origin
            if origin is not None and origin.steps is not None:
                now.steps = origin.steps + self._steps(now.gates, origin.rows) - self._steps(origin.gates, origin.rows)
            else:
                now.steps = self._steps(now.gates, np.arange(len(self)))
        reach = _count(self.counted)
        rows: list[dict[str, Any]] = []
        for (name, gate), (missing, unknown, stay) in zip(now.gates.items(), now.steps.tolist(), strict=True):
            row = {"gate": name, "range": str(gate.gate), "reach it": reach, "fall at it": reach - stay}
            rows.append({**row, "no score": missing - unknown, "not known": unknown, "left": stay})
            reach = stay
        return rows

    def _steps(self, gates: Mapping[str, GateResult], rows: Rows) -> Counts:
        """Of the counted ones among `rows` [gates, 3]: how many reach each gate without a score, of how many of
        these it cannot be known, and how many it leaves."""
        left = rows[self.counted[rows]]
        steps = np.zeros((len(gates), 3), np.int64)
        for step, gate in zip(steps, gates.values(), strict=True):
            step[0] = _count(gate.missing[left])
            step[1] = _count(gate.unknown[left])
            left = left[~gate.failed[left]]
            step[2] = left.size
        return steps

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def passing(self, tier: str) -> Rows:
        """The selected clips that no gate of the tier rejects."""
        now = self.tiers[tier]
        if now.passing is None:
            now.passing = np.flatnonzero(self.counted & now.tally.unfailed)
        return now.passing

    def others_pass(self, tier: str, name: str) -> Rows:
        """The selected clips that no other gate of the tier rejects: those whose fate this gate decides."""
        now = self.tiers[tier]
        if name not in now.gates:
            return self.passing(tier)
        if name not in now.others:
            now.others[name] = np.flatnonzero(self.counted & now.tally.others_unfailed(now.gates[name].failed))
        return now.others[name]

    def alone(self, tier: str, name: str) -> tuple[Rows, Rows]:
        """The selected clips that this gate alone rejects, and those that it alone rejects as far as they are measured."""
        now = self.tiers[tier]
        failed = now.gates[name].failed & self.counted
        return np.flatnonzero(failed & now.tally.by_one), np.flatnonzero(failed & now.tally.by_one_so_far)

    def histogram_of_others(self, tier: str, name: str) -> list[int]:
        """How many of `others_pass` have their score in each bin of its scale."""
        return [int(n) for n in self._share(tier, name)[:BINS]]

    def _share(self, tier: str, name: str) -> Counts:
        """`others_pass` by bins. Where one other gate was moved, by the clips that this concerns."""
        now = self.tiers[tier]
        if name not in now.shares:
            if now.origin is not None and name in now.origin.shares:
                rows, bins = now.origin.near, self._bins[name][now.origin.near]
                failed = now.gates[name].failed[rows] if name in now.gates else None
                came, gone = now.origin.now.others_unfailed(failed), now.origin.before.others_unfailed(failed)
                now.shares[name] = now.origin.shares[name] + _binned(bins[came]) - _binned(bins[gone])
            else:
                now.shares[name] = _binned(self._bins[name][self.others_pass(tier, name)])
        return now.shares[name]

    def histogram(self, name: str) -> list[int]:
        """How many of all that are counted have their score in each bin of its scale."""
        if name not in self._whole:
            self._whole[name] = [int(n) for n in _binned(self._bins[name][self.counted])[:BINS]]
        return self._whole[name]

    def near(self, name: str, threshold: float, above: bool, rows: Rows, most: int) -> Rows:
        """Of `rows`, those whose score lies nearest to a threshold, on one of its sides; one on it is above."""
        off = self.values(name, rows) - threshold
        side = np.flatnonzero(off >= 0 if above else off < 0)  # A score that is nan lies on neither side.
        distance = np.abs(off[side])
        if side.size > most:
            few = np.argpartition(distance, most - 1)[:most]
            side, distance = side[few], distance[few]
        return np.asarray(rows[side][np.lexsort((rows[side], distance))], np.int64)

    def everything(self) -> Rows:
        """All clips that are counted."""
        return np.flatnonzero(self.counted)

    def near_end(self, tier: str, name: str, end: str, rows: Rows, most: int) -> tuple[Rows, Rows]:
        """Of `rows`, the clips nearest to an end (`low` or `high`) of a gate of a tier, inside and outside of it. First
        those that every gate of the tier has a score of, and of them first those that can be seen."""
        gate = self.tiers[tier].gates[name].gate
        # A clip whose score is the high end itself is inside of the gate.
        threshold = gate.low if end == "low" else float(np.nextafter(gate.high, np.inf))
        measured, seen = self.tiers[tier].tally.of(rows).measured, self._seen[rows]
        best_first = [rows[part] for part in (measured & seen, measured & ~seen, ~measured & seen, ~measured & ~seen)]

        def side(above: bool) -> Rows:
            near = np.zeros(0, np.int64)
            for some in best_first:
                if near.size < most:
                    near = np.concatenate([near, self.near(name, threshold, above, some, most - near.size)])
            return near

        return side(end == "low"), side(end != "low")

    def to_show(self, rows: Rows, most: int) -> Rows:
        """A few of `rows`, first those that can be seen."""
        seen = self._seen[rows]
        chosen = self.some(rows[seen], most)
        return np.concatenate([chosen, self.some(rows[~seen], most - chosen.size)])

    def seen_first(self, rows: Rows) -> Rows:
        """`rows`, first those that can be seen."""
        seen = self._seen[rows]
        return np.concatenate([rows[seen], rows[~seen]])

    def some(self, rows: Rows, most: int) -> Rows:
        """A few of `rows`, spread evenly over them, always the same ones."""
        return rows if rows.size <= most else rows[np.linspace(0, rows.size - 1, most).astype(np.int64)]

    def clips(self, rows: Iterable[int], names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A few rows of the table, of the columns `names`. (Arrow's `take` would copy all of a column in pieces first.)"""
        table = self.scores.table if names is None else self.scores.table.select(list(names))
        return [table.slice(int(row), 1).to_pylist()[0] for row in rows]

    def row(self, clip_id: str) -> int:
        """Where a clip is. Raises KeyError."""
        at = pc.index(self.scores.table["clip_id"], pa.scalar(clip_id, pa.string())).as_py()
        if at < 0:
            raise KeyError(clip_id)
        return int(at)


def crop_words(clip: Mapping[str, Any]) -> str:
    """What became of a clip's borders; "" if nothing did. clip: OF_A_CROP of its row, where they were read."""
    if clip.get("crop_width") is not None:
        return f"cropped to {clip['crop_width']}×{clip['crop_height']}"
    return f"not cropped: {clip['not_cropped']}" if clip.get("not_cropped") else ""


# A unit says in brackets which values its score can have at all: (0-1), (-1 to 1), (0-255), (from 0).
_RANGE = re.compile(r"\((-?\d+)(?:-| to )(\d+)\)")
_FROM_ZERO = ("px", "frames/s", "s", "dB", "bits per pixel", "grey levels", "squared", "of 255", "1 (HDR)", "no 0")


def limits(unit: str) -> tuple[float, float]:
    """The least and the greatest value that a score of a unit can have; infinite where it has none."""
    if match := _RANGE.search(unit):
        return float(match[1]), float(match[2])
    if unit.startswith(("share", "probability")):
        return 0.0, 1.0
    if unit.startswith("cosine"):
        return (0.0 if "(0" in unit else -1.0), 1.0
    if "(from 0)" in unit or unit.startswith(_FROM_ZERO):
        return 0.0, math.inf
    return -math.inf, math.inf


def _scale(values: npt.NDArray[np.float64], gates: Sequence[Gate], within: tuple[float, float]) -> Scale:
    """Of a share all of it, from 0 to 1. Of others from the 0.5 % to the 99.5 % quantile, and on to every end of a gate, to round
    numbers; an axis shows no value that the score cannot have (within)."""
    if within == (0.0, 1.0):
        return Scale(*within)
    known = values[:: max(1, values.size // 200_000)]  # The ends of an axis need not be exact.
    known = known[~np.isnan(known)]
    ends = [end for gate in gates for end in (gate.low, gate.high) if np.isfinite(end)]
    ends += [float(q) for q in np.quantile(known, (0.005, 0.995)) if np.isfinite(q)] if known.size else []
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    if low == high:
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    if known.size and known.min() >= 0:
        low = max(low, 0.0)
    fine = step / 10
    low, high = np.round(np.floor(low / fine) * fine, 12), np.round(np.ceil(high / fine) * fine, 12)
    inside = max(float(low), within[0]), min(float(high), within[1])
    return Scale(*inside) if inside[0] < inside[1] else Scale(float(low), float(high))


def _binned(bins: npt.NDArray[np.uint8]) -> Counts:
    return np.bincount(bins, minlength=_NONE + 1)


def _count(mask: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
