"""The verdict: what a tier says of a clip. The only place where a score is held against a gate.

The cascade of the scan, the score stage, captioning, export, statistics, `tiers`, `show`, the report and the studio all
ask here. They bring the columns of a manifest, or rows in memory (one clip that is being scanned, a batch that is being
scored): the same code decides. Verdicts are computed, never stored with scores.

A gate has passed a clip, failed it, or has no score of it. What has no score is never taken as passed: a clip that one
gate fails and another has not seen yet is rejected, but it is not known whether the first gate alone rejects it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.filters.base import Filter, FilterUnavailable, Score
from longtake.filters.gates import Bools, Floats, Gate, Tier

Counts8 = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64] | slice
_Made = TypeVar("_Made")


def standard_error_of(name: str) -> str:
    """The column that holds the standard errors of a score."""
    return f"{name}_standard_error"


class Verdict(IntEnum):
    """undecided: no gate failed, but one has no score yet (a stage that has not run), or none that can be known."""

    KEPT = 0
    REJECTED = 1
    ERROR = 2
    UNDECIDED = 3


class Alone(StrEnum):
    """Whether it takes one gate alone to reject a clip."""

    YES = "alone"  # One gate failed, and every other gate of the tier passed.
    # One gate failed and no other one did, but another gate has no score of the clip.
    SO_FAR = "alone as far as measured"
    UNKNOWN = "not known"  # No gate failed, but one has no score of the clip.


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate of one tier over all clips. Of an errored clip, none of passed, failed, missing is set.

    low, high: the least and the greatest value that the gate looked at, nan where there is none. unknown: of those that are
    missing, the clips that were measured, and of which the score cannot be known. error: the standard error of the score, nan
    where it has none or the score does not count; None: of all clips.
    """

    gate: Gate
    low: Floats
    high: Floats
    passed: Bools
    failed: Bools
    missing: Bools
    unknown: Bools
    error: Floats | None = None

    def of(self, rows: Rows) -> GateResult:
        """Of some clips only."""
        low, high = self.low[rows], self.high[rows]
        error = None if self.error is None else self.error[rows]
        passed, failed, missing, unknown = (s[rows] for s in (self.passed, self.failed, self.missing, self.unknown))
        return GateResult(self.gate, low, high, passed, failed, missing, unknown, error)

    @property
    def uncertain(self) -> Bools:
        """Clips that the gate passed or failed by less than the standard error of their score: other moments of the same clip
        might have said the opposite."""
        if self.error is None:
            return np.zeros(len(self.low), bool)
        with np.errstate(invalid="ignore"):  # The subtraction may be inf - inf, for an end that the gate does not have.
            near = np.minimum(np.abs(self.low - self.gate.low), np.abs(self.high - self.gate.high))
        return np.asarray((self.passed | self.failed) & (near < self.error))

    def outside(self, rows: Rows) -> tuple[Floats, Floats]:
        """Of some clips, the value that lies farthest outside of the gate on the side where the gate fails it, and how
        far outside that is: positive above the gate, negative below it, 0 inside."""
        low, high = self.low[rows], self.high[rows]
        excess = self.gate.excess(low, high)
        return np.where(excess < 0, low, high), excess


@dataclass(frozen=True, slots=True)
class Tally:
    """Of each clip [clips], how many gates of a tier failed it, and how many have no score of it.

    All that is said of a clip and a tier follows from these two numbers. They are kept apart from the gates because a
    moved gate changes only its own share of them (see the studio).
    """

    failures: Counts8
    missings: Counts8

    @classmethod
    def count(cls, gates: Iterable[GateResult], clips: int) -> Tally:
        """Of the gates of a tier."""
        failures, missings = np.zeros(clips, np.uint8), np.zeros(clips, np.uint8)
        for gate in gates:
            failures += gate.failed.view(np.uint8)
            missings += gate.missing.view(np.uint8)
        return cls(failures, missings)

    def plus(self, gate: GateResult) -> Tally:
        """With one gate more."""
        return Tally(self.failures + gate.failed.view(np.uint8), self.missings + gate.missing.view(np.uint8))

    def minus(self, gate: GateResult) -> Tally:
        """With one of its gates less."""
        return Tally(self.failures - gate.failed.view(np.uint8), self.missings - gate.missing.view(np.uint8))

    def of(self, rows: Rows) -> Tally:
        """Of some clips only."""
        return Tally(self.failures[rows], self.missings[rows])

    def verdicts(self, ok: Bools) -> npt.NDArray[np.uint8]:
        """See Verdict [clips]. ok: clips that did not end in an error."""
        verdicts = np.where(self.missings > 0, np.uint8(Verdict.UNDECIDED), np.uint8(Verdict.KEPT))
        verdicts[self.failures > 0] = Verdict.REJECTED
        verdicts[~ok] = Verdict.ERROR
        return verdicts

    @property
    def measured(self) -> Bools:
        """Clips that every gate has a score of."""
        return np.asarray(self.missings == 0)

    @property
    def unfailed(self) -> Bools:
        """Clips that no gate failed: kept, or undecided."""
        return np.asarray(self.failures == 0)

    @property
    def failed_once_at_most(self) -> Bools:
        """Clips that no gate failed, or one."""
        return np.asarray(self.failures <= 1)

    def others_unfailed(self, failed: Bools | None) -> Bools:
        """Clips that no gate failed, save one that `failed` is of: that gate decides their fate, as far as is measured.
        None: of a gate that is not in the tier."""
        return self.unfailed if failed is None else np.asarray(self.failures == failed.view(np.uint8))

    @property
    def by_one(self) -> Bools:
        """Clips that one gate failed and every other passed (Alone.YES): `failed` says which gate it was."""
        return np.asarray((self.failures == 1) & (self.missings == 0))

    @property
    def by_one_so_far(self) -> Bools:
        """Clips that one gate failed and none besides, while some gate has no score of them (Alone.SO_FAR)."""
        return np.asarray((self.failures == 1) & (self.missings > 0))

    def alone(self, row: int) -> Alone | None:
        """Of one clip. None: it is kept, or several gates failed it."""
        one = self.of(slice(row, row + 1))
        if one.by_one[0]:
            return Alone.YES
        if one.by_one_so_far[0]:
            return Alone.SO_FAR
        return Alone.UNKNOWN if one.unfailed[0] and not one.measured[0] else None


@dataclass(frozen=True, slots=True)
class TierResult:
    """One tier over all clips: gate by gate, their tally, and the verdicts (uint8 [clips], see Verdict)."""

    gates: dict[str, GateResult]
    tally: Tally
    verdicts: npt.NDArray[np.uint8]

    @property
    def kept(self) -> Bools:
        """Every gate has a score of the clip, and passed it."""
        return np.asarray(self.verdicts == Verdict.KEPT)

    @property
    def may_keep(self) -> Bools:
        """Kept, or undecided."""
        return np.asarray((self.verdicts == Verdict.KEPT) | (self.verdicts == Verdict.UNDECIDED))

    def alone(self, row: int) -> Alone | None:
        """Of one clip. None: it is kept or an error, or several gates failed it."""
        return None if self.verdicts[row] == Verdict.ERROR else self.tally.alone(row)

    def missing(self, row: int) -> tuple[str, ...]:
        """The gates that have no score of one clip yet."""
        return tuple(name for name, gate in self.gates.items() if gate.missing[row] and not gate.unknown[row])

    def unknown(self, row: int) -> tuple[str, ...]:
        """The gates that stay undecided for one clip: their filter looked, and its score cannot be known."""
        return tuple(name for name, gate in self.gates.items() if gate.unknown[row])


@dataclass(slots=True)
class ClipScores:
    """The scores of a table of clips as the filters at hand read them: stale ones are nan.

    table: a clips manifest, with columns status, protocols (JSON object: name → protocol) and, per filter, `<name>` and
    `<name>_detail` (which may be left out where `details_needed` does not name it) and, for some, `<name>_standard_error`.
    unchecked: filters that this machine lacks a package or a weight for, and why: scores of the same backend are taken for
    theirs, with any method. It fills up as scores are asked for. Rows in memory: see `of_rows`.
    """

    table: pa.Table
    filters: Mapping[str, Filter[Any]]
    unchecked: dict[str, str] = field(default_factory=dict)
    _spans: dict[str, tuple[Floats, Floats, Bools]] = field(default_factory=dict)
    _kinds: dict[str, tuple[Bools, Bools, Bools, Bools, Bools]] = field(default_factory=dict)
    _results: dict[tuple[str, Gate], GateResult] = field(default_factory=dict)
    _ok: Bools | None = None
    _errors: dict[str, Floats | None] = field(default_factory=dict)
    _protocols: tuple[list[dict[str, str]], npt.NDArray[np.int32]] | None = None
    # Columns that filters share: (kind, identity of the filter) → the columns that it reads of this table. None: not
    # shared.
    _shared: dict[tuple[Any, ...], Any] | None = None

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], filters: Mapping[str, Filter[Any]]) -> ClipScores:
        """Of clips in memory, with the keys that a clips manifest has columns of; the key of a score may be left out."""
        columns: dict[str, pa.Array] = {
            key: pa.array([row[key] for row in rows], pa.string()) for key in ("status", "protocols")
        }
        for name in filters:
            values = [row.get(name) for row in rows]
            details = [row.get(f"{name}_detail") for row in rows]
            if any(value is not None for value in (*values, *details)):
                columns[name] = pa.array(values, pa.float64())
                columns[f"{name}_detail"] = pa.array(details, pa.list_(pa.float64()))
                error = standard_error_of(name)
                if any(row.get(error) is not None for row in rows):
                    columns[error] = pa.array([row.get(error) for row in rows], pa.float64())
        return cls(pa.table(columns), filters)

    def under(self, filters: Mapping[str, Filter[Any]]) -> ClipScores:
        """The same clips, read by other filters. What both read by one filter (the same object) is worked out once."""
        if self._shared is None:
            self._shared = {}
        stored = self._stored()
        return ClipScores(
            self.table, filters, dict(self.unchecked), _ok=self.ok(), _protocols=stored, _shared=self._shared
        )

    def _once(self, what: str, name: str, make: Callable[[], _Made], *further: object) -> _Made:
        """What `make` gives, or has given to others that read by the same filter."""
        if self._shared is None:
            return make()
        key = (what, id(self.filters[name]), *further)
        if key not in self._shared:
            self._shared[key] = make()
        made: _Made = self._shared[key]
        return made

    def stored_protocols(self) -> list[tuple[dict[str, str], int]]:
        """The different protocols there are (filter → protocol), and how many clips have them."""
        unique, codes = self._stored()
        counts = np.bincount(codes, minlength=len(unique)).tolist()
        return [(protocols, clips) for protocols, clips in zip(unique, counts, strict=True) if clips]

    def span(self, name: str) -> tuple[Floats, Floats, Bools]:
        """(low, high, bound): the values a gate must hold for each clip, equal unless `reduce: every`; nan where there
        is no score under the wanted protocol. bound: the value is only a lower bound of the score, or the score lies somewhere
        between the two."""
        if name not in self._spans:
            self._spans[name] = self._once("span", name, lambda: self._span(name))
        return self._spans[name]

    def result(self, name: str, gate: Gate) -> GateResult:
        """One gate over all clips; computed once, since tiers share most of their gates."""
        if (name, gate) not in self._results:
            self._results[name, gate] = self._once("result", name, lambda: self._result(name, gate), gate)
        return self._results[name, gate]

    def _result(self, name: str, gate: Gate) -> GateResult:
        low, high, bound = self.span(name)
        ok = self.ok()
        passed = gate.passes(low, high) & ok
        failed = ~np.isnan(low) & ok & ~passed
        if bound.any():
            # A lower bound only says that the score is not lower. Within the gate or below it, the bound decides
            # nothing yet; above the gate, the clip fails.
            passed &= ~bound
            between = self._compare(name)[4]
            above, below = low > gate.high, high < gate.low
            failed = np.where(bound, ok & (high > gate.high), failed)
            failed = np.where(between, ok & (above | below), failed)
            # The report shows the end that lies nearest to the gate, which is missed by at least that much.
            low = np.where(bound & ~(between & above), high, low)
            high = np.where(between & above, low, high)
        missing = ok & ~(passed | failed)
        unknown = missing & self.unknown(name)
        return GateResult(gate, low, high, passed, failed, missing, unknown, self.errors(name))

    def forget(self) -> None:
        """Keep only what cannot be worked out anew from the protocols: of many clips the rest takes much memory."""
        self._kinds.clear()

    def errors(self, name: str) -> Floats | None:
        """The standard error of each clip's score, nan where it has none; None where no clip has one."""
        if name not in self._errors:
            column = standard_error_of(name)
            standard_errors = None
            if column in self.table.column_names and self.filters[name].reduce == "mean":
                fresh = self._compare(name)[0]
                standard_errors = np.where(fresh, self.table[column].to_numpy().astype(np.float64, copy=False), np.nan)
            self._errors[name] = standard_errors
        return self._errors[name]

    def ok(self) -> Bools:
        """Clips that did not end in an error."""
        if self._ok is None:
            self._ok = pc.equal(self.table["status"], "ok").to_numpy().astype(bool)
        return self._ok

    def missing(self, name: str) -> Bools:
        """Clips without a score under the wanted protocol. One that was measured, and cannot be known, is not among them."""
        low, _, bound = self.span(name)
        return (np.isnan(low) | bound) & ~self.unknown(name)

    def between(self, name: str) -> Bools:
        """Clips whose score lies somewhere between the two values of its span."""
        return self._compare(name)[4]

    def unknown(self, name: str) -> Bools:
        """Clips that were measured under the wanted protocol, and of which this score cannot be known: null, with a detail."""
        if name not in self.table.column_names:
            return np.zeros(self.table.num_rows, bool)
        fresh, other, *_ = self._compare(name)
        return np.asarray((fresh | other) & self._null(name))

    def _null(self, name: str) -> Bools:
        """Clips whose score is null and has a detail: it was measured."""
        null = np.asarray(pc.is_null(self.table[name]).to_numpy())
        if not null.any() or f"{name}_detail" not in self.table.column_names:
            return np.zeros(len(null), bool)
        lengths = pc.fill_null(pc.list_value_length(self.table[f"{name}_detail"]), 0)
        return np.asarray(null & (lengths.to_numpy() > 0))

    def _span(self, name: str) -> tuple[Floats, Floats, Bools]:
        every = self.filters[name].reduce == "every"
        if name not in self.table.column_names:
            none = np.full(self.table.num_rows, np.nan)
            return none, none, np.zeros(self.table.num_rows, bool)
        fresh, other, bound, _, between = self._compare(name)
        value = self.table[name].to_numpy().astype(np.float64, copy=False)
        low = high = np.where(fresh | bound, value, np.nan)
        # The detail of a score that cannot be known is a lower bound.
        unknown = (fresh | other | bound) & self._null(name)
        bound = bound | unknown
        from_detail = fresh | other | bound if every else other | unknown
        if from_detail.any():
            how = self.filters[name].reduce
            least, most, known = self._ends(name, "min" if every else how, "max" if every else how)
            low, high = np.where(from_detail & known, least, low), np.where(from_detail & known, most, high)
        if between.any():
            least, most, known = self._ends(name, "min", "max")
            low, high = np.where(between & known, least, low), np.where(between & known, most, high)
        return low, high, bound | between

    def details_needed(self) -> list[str]:
        """The filters whose `<name>_detail` a verdict looks at: without that column it cannot be right."""
        needed = []
        for name, filter_ in self.filters.items():
            if name in self.table.column_names:
                fresh, other, bound, _, between = self._compare(name)
                every = filter_.reduce == "every"
                null = pc.is_null(self.table[name]).to_numpy()
                if between.any() or (fresh | other | bound if every else other | ((fresh | bound) & null)).any():
                    needed.append(name)
        return needed

    def settled(self, name: str) -> Bools:
        """Clips whose score does not count, and of which a new one would not, either: see `Filter.settles`."""
        if name not in self.table.column_names:
            return np.zeros(self.table.num_rows, bool)
        return self._compare(name)[3]

    def _compare(self, name: str) -> tuple[Bools, Bools, Bools, Bools, Bools]:
        """Which clips' protocol of `name` is the wanted one, the wanted one but for `reduce`, its lower bound's; which is none of
        these, but settled; and which is that of its early look."""
        if name not in self._kinds:
            self._kinds[name] = self._once("kinds", name, lambda: self._compared(name))
        return self._kinds[name]

    def _compared(self, name: str) -> tuple[Bools, Bools, Bools, Bools, Bools]:
        wanted = self.filters[name]
        lower = wanted.lower_bound.protocol if wanted.lower_bound else None
        early = wanted.early.protocol if wanted.early else None
        try:
            method = wanted.protocol.rpartition("/")[0]
        except FilterUnavailable as error:
            # A filter that this machine cannot measure with still decides: scores of any method of its backend count.
            method, self.unchecked[name] = None, str(error)
        unique, codes = self._stored()
        kinds = np.zeros((5, len(unique)), bool)
        for i, protocols in enumerate(unique):
            stored, _, reduce = protocols.get(name, "").rpartition("/")
            same = wanted.counts(stored, method) if method is not None else stored.partition("/")[0] == wanted.backend
            kinds[:, i] = (
                same and reduce == wanted.reduce,
                same and reduce != wanted.reduce,
                lower is not None and protocols.get(name) == lower,
                not same and method is not None and wanted.settles(stored, method),
                early is not None and protocols.get(name) == early,
            )
        fresh, other, bound, settled, between = (
            kind[codes] if kind.any() else np.zeros(len(codes), bool) for kind in kinds
        )
        return fresh, other, bound, settled, between

    def _stored(self) -> tuple[list[dict[str, str]], npt.NDArray[np.int32]]:
        """The different protocols there are, and which one each clip has."""
        if self._protocols is None:
            column = self.table["protocols"]
            if not pa.types.is_dictionary(column.type):
                column = pc.dictionary_encode(column)
            chunks = column.unify_dictionaries().chunks
            texts = chunks[0].dictionary.to_pylist() if chunks else []
            codes = [chunk.indices.fill_null(len(texts)).to_numpy() for chunk in chunks]
            self._protocols = (
                [*(json.loads(text) for text in texts), {}],
                np.concatenate([np.zeros(0, np.int32), *codes]).astype(np.int32, copy=False),
            )
        return self._protocols

    def _ends(self, name: str, *hows: str) -> tuple[Floats, Floats, Bools]:
        """Two reductions of the detail (of every clip), and which clips have any."""
        column = self.table[f"{name}_detail"].combine_chunks()
        flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        owner = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        count = np.bincount(owner, minlength=len(column))
        known = count > 0
        ends = []
        for how in hows:
            if how == "mean":
                ends.append(np.bincount(owner, flat, len(column)) / np.maximum(count, 1))
            else:
                end = np.full(len(column), math.inf if how == "min" else -math.inf)
                with np.errstate(invalid="ignore"):  # A nan stays nan.
                    (np.minimum if how == "min" else np.maximum).at(end, owner, flat)
                ends.append(end)
        return ends[0], ends[1], known


def decide(scores: ClipScores, tier: Tier) -> TierResult:
    """Apply every gate of `tier` to every clip, independently of the other gates."""
    gates = {name: scores.result(name, gate) for name, gate in tier.items()}
    tally = Tally.count(gates.values(), scores.table.num_rows)
    return TierResult(gates, tally, tally.verdicts(scores.ok()))


def failed_by(filter_: Filter[Any], score: Score, protocol: str, gates: Sequence[Gate]) -> list[bool]:
    """Which of some gates of one filter fail a clip that has only this score, measured under `protocol`.

    A scan asks this of each clip after each filter, and a table of one row costs half a millisecond. A value under the wanted
    protocol needs none: it alone is held against the gate.
    """
    if score.known is not None and filter_.reduce != "every" and protocol == filter_.protocol:
        value = np.asarray(score.value)
        return [not gate.passes(value, value) for gate in gates]
    name = filter_.name
    row = {"status": "ok", "protocols": json.dumps({name: protocol}), name: score.known, f"{name}_detail": score.detail}
    alone = ClipScores.of_rows([row], {name: filter_})
    return [bool(alone.result(name, gate).failed[0]) for gate in gates]


def alive(scores: ClipScores, tiers: Mapping[str, Tier]) -> Bools:
    """Clips that some tier may still keep: they are measured further, the others are not (the cascade)."""
    return np.asarray(np.any([decide(scores, tier).may_keep for tier in tiers.values()], axis=0))


def to_measure(
    scores: ClipScores, names: Iterable[str], tiers: Mapping[str, Tier], *, all_scores: bool = False
) -> Bools:
    """Clips for which one of these filters has work to do: its score is missing under the wanted protocol, and some tier
    may still keep the clip (all_scores: whether or not)."""
    wanted = scores.ok() & np.any([scores.missing(name) & ~scores.settled(name) for name in names], axis=0)
    return np.asarray(wanted if all_scores or not wanted.any() else wanted & alive(scores, tiers))
