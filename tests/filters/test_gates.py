"""Gates: what is a gate, and what lies in its range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.filters.gates import Gate

# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (">= 40", 40, math.inf),
        ("  >=40 ", 40, math.inf),
        ("≥ 4.8", 4.8, math.inf),
        ("<= 0.05", -math.inf, 0.05),
        ("≤.75", -math.inf, 0.75),
        ("<= -1.5e-3", -math.inf, -0.0015),
        ("[20, 180]", 20, 180),
        ("[ 0 ,0.7 ]", 0, 0.7),
        ("[-1,+1]", -1, 1),
        ("[5, 5]", 5, 5),
        ([20, 180], 20, 180),
        ((0.5, 0.8), 0.5, 0.8),
        ([None, 4], -math.inf, 4),
        ([4, None], 4, math.inf),
        (Gate(1, 2), 1, 2),
    ],
)
def test_every_way_to_write_a_gate(text: object, low: float, high: float) -> None:
    assert Gate.parse(text) == Gate(low, high)


@pytest.mark.parametrize(
    "text",
    [
        "", "40", "> 40", "< 3", "== 3", ">= ", ">= nan", ">= inf", "<= 1, 2", ">= 1 <= 2", "[1]", "[1, 2, 3]",
        "[1; 2]",
        "(1, 2]", "[2, 1]", "[1, nan]", ">= 1\n>= 2", ">= 1_000", ">= ４x", ">= 1e", "[[1, 2]]", ">= __import__('os')",
        None, 3, 3.0, True, [1], [1, 2, 3], [True, 2], ["1", "2"], [2, 1], [math.nan, 1], [1, math.nan],
        [None, None], ">= 1e999", "<= -1e999", {}, {"low": 1},
        b">= 4", ">= " + "9" * 10_000 + "x",
    ],
)  # fmt: skip
def test_what_is_no_gate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"not a gate|an empty range"):
        Gate.parse(text)


@given(st.text(max_size=40) | st.text("[]<>=≥≤ ,.0123456789e+-naif", max_size=12))
def test_text_is_a_gate_or_a_value_error(text: str) -> None:
    try:
        gate = Gate.parse(text)
    except ValueError:
        return
    assert gate.low <= gate.high


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers, st.sampled_from(["low", "high", "both"]))
def test_a_gate_reads_back_what_it_writes(a: float, b: float, kind: str) -> None:
    low, high = sorted((a, b))
    gate = {"low": Gate(low=low), "high": Gate(high=high), "both": Gate(low, high)}[kind]
    assert Gate.parse(str(gate)) == gate


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ranges_are_closed_and_nan_never_passes() -> None:
    values = np.array([19.999, 20, 100, 180, 180.001, math.nan, math.inf, -math.inf])
    assert Gate(20, 180).passes(values, values).tolist() == [False, True, True, True, False, False, False, False]
    assert not Gate().passes(np.array([math.nan]), np.array([math.nan])).any()
    assert not Gate(low=0).passes(np.array([1.0, math.nan]), np.array([math.nan, 1.0])).any()


def test_excess_says_how_far_outside_and_on_which_side() -> None:
    values = np.array([10.0, 20.0, 50.0, 180.0, 190.0])
    assert Gate(20, 180).excess(values, values).tolist() == [-10, 0, 0, 0, 10]
