"""What a page sends, read: texts, counts, ends of gates. And numbers as JSON has them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from longtake.filters.gates import Gate


class StudioError(ValueError):
    """A question that makes no sense: what was wrong with it."""


def word(question: Mapping[str, Any], key: str) -> str | None:
    """A text of a question; None where it has none. Raises StudioError if it is anything else."""
    value = question.get(key)
    if value is not None and not isinstance(value, str):
        raise StudioError(f"{key} is a text, or null")
    return value


def numbers(ends: object) -> list[float | None]:
    """A gate of a question. Raises ValueError if it is none."""
    if not isinstance(ends, list) or len(ends) != 2:
        raise ValueError("a gate is [low, high], null for an open end")
    for end in ends:
        if end is not None and (isinstance(end, bool) or not isinstance(end, int | float)):
            raise ValueError(f"{str(end)[:40]!r} is no end of a gate")
        if end is not None and not abs(end) <= sys.float_info.max:  # A comparison with nan is false.
            raise ValueError("an end of a gate is a finite number")
    return [None if end is None else float(end) for end in ends]


def whole_number(question: Mapping[str, Any], key: str, default: int) -> int:
    """A count of a question. Raises StudioError if it is none."""
    value = question.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise StudioError(f"{key} is a whole number from 0 on")
    return value


def ends_of(gate: Gate) -> list[float | None]:
    """A gate as a page has it: null for an open end."""
    return [None if math.isinf(end) else end for end in (gate.low, gate.high)]


def shown(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else f"{value}"
