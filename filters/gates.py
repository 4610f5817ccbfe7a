"""A gate is a range that a score must lie in; a tier is a named set of gates.

What follows from them for a clip is said in one place, `longtake.filters.verdicts`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
        # The comparisons are written so that nan is refused, too.
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
    value += 0.0  # -0 becomes 0, so that equal gates have the same text.
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


Tier = Mapping[str, Gate]
