"""Gates decide: a score and a range. Tiers are named sets of gates; verdicts are computed, never stored with scores.

Everything here works on arrays of clips, so that moving a threshold is one pass over columns. `decide` is the only
place where a clip is kept or rejected.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.filters.base import Filter, FilterUnavailable, Score

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPARE = re.compile(rf"^\s*(>=|<=|≥|≤)\s*({_NUMBER})\s*$")
_RANGE = re.compile(rf"^\s*\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]\s*$")


@dataclass(frozen=True, slots=True)
class Gate:
    """A closed range. A score passes if it lies in it; with `reduce: every`, if each value of its detail does."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        # written so that nan is refused too
        if not (self.low <= self.high and self.low < math.inf and self.high > -math.inf):
            raise ValueError(f"an empty range: [{self.low}, {self.high}]")

    @classmethod
    def parse(cls, text: object) -> Gate:
        """'>= 40', '<= 0.05', '[20, 180]' or a list [20, 180] (null for an open end). Raises ValueError."""
        if isinstance(text, Gate):
            return text
        if isinstance(text, list | tuple) and len(text) == 2 and any(end is not None for end in text):
            low, high = text
            if all(end is None or (isinstance(end, int | float) and not isinstance(end, bool)) for end in text):
                return cls(-math.inf if low is None else float(low), math.inf if high is None else float(high))
        if isinstance(text, str):
            if compare := _COMPARE.match(text):
                bound = float(compare[2])
                return cls(low=bound) if compare[1] in (">=", "≥") else cls(high=bound)
            if both := _RANGE.match(text):
                return cls(float(both[1]), float(both[2]))
        raise ValueError(f"not a gate: {text!r}; write '>= 40', '<= 0.05' or '[20, 180]'")

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f">= {_digits(self.low)}"
        return f"<= {_digits(self.high)}" if math.isinf(self.low) else f"[{_digits(self.low)}, {_digits(self.high)}]"

    def passes(self, low: Floats, high: Floats) -> Bools:
        """Whether each span of values [low, high] lies within the gate; nan never does."""
        if low is high and math.isinf(self.high):
            return np.asarray(low >= self.low)
        if low is high and math.isinf(self.low):
            return np.asarray(high <= self.high)
        return np.asarray((low >= self.low) & (high <= self.high))

    def excess(self, low: Floats, high: Floats) -> Floats:
        """How far outside: positive above the gate, negative below it, 0 inside."""
        over = np.where(high > self.high, high - self.high, 0.0)
        return np.where(low < self.low, low - self.low, over)


def _digits(value: float) -> str:
    value += 0.0  # equal gates are called the same: -0 is 0
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


Tier = Mapping[str, Gate]


class Verdict(IntEnum):
    """undecided: no gate failed, but one has no score yet (a stage that has not run)."""

    KEPT = 0
    REJECTED = 1
    ERROR = 2
    UNDECIDED = 3


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate of one tier over all clips. Of an errored clip, none of passed, failed, missing is set."""

    gate: Gate
    low: Floats
    high: Floats
    passed: Bools
    failed: Bools
    missing: Bools


@dataclass(frozen=True, slots=True)
class TierResult:
    """One tier over all clips: gate by gate, and the verdicts (uint8 [clips], see Verdict)."""

    gates: dict[str, GateResult]
    verdicts: npt.NDArray[np.uint8]

    @property
    def only_failure(self) -> dict[str, Bools]:
        """Per gate: the clips that it alone rejects."""
        if not self.gates:
            return {}
        failures = np.zeros(len(self.verdicts), np.uint8)
        for result in self.gates.values():
            failures += result.failed
        return {name: result.failed & (failures == 1) for name, result in self.gates.items()}


@dataclass(slots=True)
class ClipScores:
    """The scores of a table of clips as the filters at hand read them: stale ones are nan.

    table: a clips manifest, with columns status, protocols (JSON object: name → protocol) and, per filter, `<name>` and
    `<name>_detail` (which may be left out where `details_needed` does not name it). unchecked: filters that this
    machine lacks a package or a weight for, and why: scores of the same backend are taken for theirs, whatever the
    method. It fills up as scores are asked for.
    """

    table: pa.Table
    filters: Mapping[str, Filter[Any]]
    unchecked: dict[str, str] = field(default_factory=dict)
    _spans: dict[str, tuple[Floats, Floats, Bools]] = field(default_factory=dict)
    _kinds: dict[str, tuple[Bools, Bools, Bools]] = field(default_factory=dict)
    _results: dict[tuple[str, Gate], GateResult] = field(default_factory=dict)
    _ok: Bools | None = None
    _protocols: tuple[list[dict[str, str]], npt.NDArray[np.int32]] | None = None

    def span(self, name: str) -> tuple[Floats, Floats, Bools]:
        """(low, high, bound): the values a gate must hold for each clip, equal unless `reduce: every`; nan where there
        is no score under the wanted protocol. bound: the value is only a lower bound of the score."""
        if name not in self._spans:
            self._spans[name] = self._span(name)
        return self._spans[name]

    def result(self, name: str, gate: Gate) -> GateResult:
        """One gate over all clips; computed once, since tiers share most of their gates."""
        if (name, gate) not in self._results:
            low, high, bound = self.span(name)
            ok = self.ok()
            passed = gate.passes(low, high) & ok
            failed = ~np.isnan(low) & ok & ~passed
            if bound.any():
                passed &= ~bound
                # of a score that can only be higher, falling short says nothing
                failed = np.where(bound, ok & (high > gate.high), failed)
            self._results[name, gate] = GateResult(gate, low, high, passed, failed, ok & ~(passed | failed))
        return self._results[name, gate]

    def ok(self) -> Bools:
        """Clips that did not end in an error."""
        if self._ok is None:
            self._ok = pc.equal(self.table["status"], "ok").to_numpy().astype(bool)
        return self._ok

    def missing(self, name: str) -> Bools:
        """Clips without a score under the wanted protocol."""
        low, _, bound = self.span(name)
        return np.isnan(low) | bound

    def _span(self, name: str) -> tuple[Floats, Floats, Bools]:
        every = self.filters[name].reduce == "every"
        if name not in self.table.column_names:
            none = np.full(self.table.num_rows, np.nan)
            return none, none, np.zeros(self.table.num_rows, bool)
        fresh, other, bound = self._compare(name)
        value = self.table[name].to_numpy().astype(np.float64, copy=False)
        low = high = np.where(fresh | bound, value, np.nan)
        from_detail = fresh | other | bound if every else other
        if from_detail.any():
            how = self.filters[name].reduce
            least, most, known = self._ends(name, "min" if every else how, "max" if every else how)
            low, high = np.where(from_detail & known, least, low), np.where(from_detail & known, most, high)
        return low, high, bound

    def details_needed(self) -> list[str]:
        """The filters whose `<name>_detail` a verdict looks at: without that column it cannot be right."""
        needed = []
        for name, filter_ in self.filters.items():
            if name in self.table.column_names:
                fresh, other, bound = self._compare(name)
                if (fresh | other | bound if filter_.reduce == "every" else other).any():
                    needed.append(name)
        return needed

    def _compare(self, name: str) -> tuple[Bools, Bools, Bools]:
        """Which clips' protocol of `name` is the wanted one, the wanted one but for `reduce`, its lower bound's."""
        if name in self._kinds:
            return self._kinds[name]
        wanted = self.filters[name]
        lower = wanted.lower_bound.protocol if wanted.lower_bound else None
        try:
            method = wanted.protocol.rpartition("/")[0]
        except FilterUnavailable as error:
            # What cannot be measured here can still be decided on: any method of the same backend is believed.
            method, self.unchecked[name] = None, str(error)
        unique, codes = self._stored()
        kinds = np.zeros((3, len(unique)), bool)
        for i, protocols in enumerate(unique):
            stored, _, reduce = protocols.get(name, "").rpartition("/")
            same = stored == method if method is not None else stored.partition("/")[0] == wanted.backend
            kinds[:, i] = (
                same and reduce == wanted.reduce,
                same and reduce != wanted.reduce,
                lower is not None and protocols.get(name) == lower,
            )
        fresh, other, bound = (kind[codes] if kind.any() else np.zeros(len(codes), bool) for kind in kinds)
        self._kinds[name] = fresh, other, bound
        return fresh, other, bound

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
                with np.errstate(invalid="ignore"):  # nan stays nan
                    (np.minimum if how == "min" else np.maximum).at(end, owner, flat)
                ends.append(end)
        return ends[0], ends[1], known


def decide(scores: ClipScores, tier: Tier) -> TierResult:
    """Apply every gate of `tier` to every clip, each alone."""
    gates = {name: scores.result(name, gate) for name, gate in tier.items()}
    ok = scores.ok()
    verdicts = np.where(ok, np.uint8(Verdict.KEPT), np.uint8(Verdict.ERROR))
    for result in gates.values():
        verdicts[result.missing & (verdicts == Verdict.KEPT)] = Verdict.UNDECIDED
        verdicts[result.failed] = Verdict.REJECTED
    return TierResult(gates, verdicts)


def alive(scores: ClipScores, tiers: Mapping[str, Tier]) -> Bools:
    """Clips that some tier may still keep: they are measured further, the others are not (the cascade)."""
    verdicts = [decide(scores, tier).verdicts for tier in tiers.values()]
    return np.asarray(np.any([(v == Verdict.KEPT) | (v == Verdict.UNDECIDED) for v in verdicts], axis=0))


def rejecting(filter_: Filter[Any], score: Score, tiers: Mapping[str, Tier], *, bound: bool = False) -> set[str]:
    """The tiers that one clip's score rules out, for the cascade while a clip is being measured. bound: the true score
    can only be higher."""
    spread = score.detail if filter_.reduce == "every" and score.detail else (score.value,)
    low, high = min(spread), max(spread)
    gates = {tier: gates[filter_.name] for tier, gates in tiers.items() if filter_.name in gates}
    return {tier for tier, gate in gates.items() if high > gate.high or (low < gate.low and not bound)}
