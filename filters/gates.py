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

from filters.base import Filter, Score

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
        if math.isnan(self.low) or math.isnan(self.high) or self.low > self.high:
            raise ValueError(f"an empty range: [{self.low}, {self.high}]")

    @classmethod
    def parse(cls, text: object) -> Gate:
        """'>= 40', '<= 0.05', '[20, 180]' or a list [20, 180] (null for an open end). Raises ValueError."""
        if isinstance(text, Gate):
            return text
        if isinstance(text, list | tuple) and len(text) == 2:
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
            return f">= {self.low:g}"
        return f"<= {self.high:g}" if math.isinf(self.low) else f"[{self.low:g}, {self.high:g}]"

    def passes(self, low: Floats, high: Floats) -> Bools:
        """Whether each span of values [low, high] lies within the gate; nan never does."""
        return np.asarray((low >= self.low) & (high <= self.high))

    def excess(self, low: Floats, high: Floats) -> Floats:
        """How far outside: positive above the gate, negative below it, 0 inside."""
        over = np.where(high > self.high, high - self.high, 0.0)
        return np.where(low < self.low, low - self.low, over)


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
        failures = np.sum([result.failed for result in self.gates.values()], axis=0)
        return {name: result.failed & (failures == 1) for name, result in self.gates.items()}


@dataclass(slots=True)
class ClipScores:
    """The scores of a table of clips as the filters at hand read them: stale ones are nan.

    table: a clips manifest, with columns status, protocols (JSON object: name → protocol) and, per filter, `<name>` and
    `<name>_detail`.
    """

    table: pa.Table
    filters: Mapping[str, Filter[Any]]
    _cache: dict[str, tuple[Floats, Floats, Bools]] = field(default_factory=dict)
    _protocols: tuple[list[dict[str, str]], npt.NDArray[np.int64]] | None = None

    def span(self, name: str) -> tuple[Floats, Floats, Bools]:
        """(low, high, bound): the values a gate must hold for each clip, equal unless `reduce: every`; nan where there
        is no score under the wanted protocol. bound: the value is only a lower bound of the score."""
        if name not in self._cache:
            self._cache[name] = self._span(name)
        return self._cache[name]

    def missing(self, name: str) -> Bools:
        """Clips without a score under the wanted protocol."""
        low, _, bound = self.span(name)
        return np.isnan(low) | bound

    def _span(self, name: str) -> tuple[Floats, Floats, Bools]:
        wanted = self.filters[name]
        n = self.table.num_rows
        none = np.full(n, np.nan)
        if name not in self.table.column_names:
            return none, none, np.zeros(n, bool)
        fresh, other_reduce, bound = self._compare(name, wanted)
        value = self.table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        low = np.where(fresh | bound, value, np.nan)
        high = low
        detail_counts = fresh if wanted.reduce == "every" else other_reduce
        if detail_counts.any():
            ends = {how: self._detail(name, how) for how in ("min", "max", "mean")}
            first, second = ("min", "max") if wanted.reduce == "every" else (wanted.reduce, wanted.reduce)
            either = fresh | other_reduce if wanted.reduce == "every" else other_reduce
            low, high = np.where(either, ends[first], low), np.where(either, ends[second], high)
        return low, high, bound

    def _compare(self, name: str, wanted: Filter[Any]) -> tuple[Bools, Bools, Bools]:
        """Which clips' protocol of `name` is the wanted one, the wanted one but for `reduce`, its lower bound's."""
        unique, codes = self._stored()
        lower = wanted.lower_bound
        lower_protocol = lower.protocol if lower else None
        protocol = wanted.protocol
        method = protocol.rpartition("/")[0]
        kinds = np.zeros((3, len(unique)), bool)
        for i, stored in enumerate(unique):
            have = stored.get(name)
            kinds[:, i] = (
                have == protocol,
                have is not None and have != protocol and have.rpartition("/")[0] == method,
                have is not None and have == lower_protocol,
            )
        fresh, other, bound = kinds[:, codes] if len(unique) else np.zeros((3, self.table.num_rows), bool)
        return fresh, other, bound

    def _stored(self) -> tuple[list[dict[str, str]], npt.NDArray[np.int64]]:
        if self._protocols is None:
            encoded = pc.dictionary_encode(self.table["protocols"].combine_chunks().fill_null("{}"))
            if isinstance(encoded, pa.ChunkedArray):
                encoded = encoded.combine_chunks()
            self._protocols = (
                [json.loads(text) for text in encoded.dictionary.to_pylist()],
                encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64),
            )
        return self._protocols

    def _detail(self, name: str, how: str) -> Floats:
        column = self.table[f"{name}_detail"].combine_chunks()
        flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        owner = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        n = len(column)
        if how == "mean":
            with np.errstate(invalid="ignore"):
                return np.bincount(owner, flat, n) / np.bincount(owner, minlength=n)
        out = np.full(n, np.nan)
        (np.fmin if how == "min" else np.fmax).at(out, owner, flat)
        return out


def decide(scores: ClipScores, tier: Tier) -> TierResult:
    """Apply every gate of `tier` to every clip, each alone."""
    table = scores.table
    n = table.num_rows
    errored = ~pc.equal(table["status"], "ok").to_numpy(zero_copy_only=False).astype(bool)
    rejected, incomplete = np.zeros(n, bool), np.zeros(n, bool)
    gates: dict[str, GateResult] = {}
    for name, gate in tier.items():
        low, high, bound = scores.span(name)
        passed = gate.passes(low, high) & ~bound & ~errored
        # of a score that can only be higher, falling short says nothing
        failed = np.where(bound, high > gate.high, ~np.isnan(low) & ~gate.passes(low, high)) & ~errored
        missing = ~passed & ~failed & ~errored
        gates[name] = GateResult(gate, low, high, passed, failed, missing)
        rejected |= failed
        incomplete |= missing
    verdicts = np.select(
        [errored, rejected, incomplete], [Verdict.ERROR, Verdict.REJECTED, Verdict.UNDECIDED], Verdict.KEPT
    ).astype(np.uint8)
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
