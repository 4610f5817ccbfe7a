"""What a filter is: reductions, protocols, and that one bad input leaves the others alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.filters.base import Filter, MeasureError, Needs, Reduce, Score, reduce_detail, standard_error


class Lengths(Filter[Sequence[float]]):
    name: ClassVar[str] = "lengths"
    backend: ClassVar[str] = "ruler"
    unit: ClassVar[str] = "m"
    needs: ClassVar[Needs] = Needs.SAMPLE

    @property
    def method(self) -> str:
        return "by-hand/twice"

    def measure_one(self, item: Sequence[float]) -> Sequence[float]:
        if any(v < 0 for v in item):
            raise MeasureError("no length is negative")
        return item


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 4.0), ("every", 4.0), ("min", 1.0), ("max", 9.0)])
def test_reductions_of_known_values(reduce: Reduce, expected: float) -> None:
    assert reduce_detail([1, 2, 9], reduce) == expected


@pytest.mark.parametrize("detail", [[], [1.0, math.nan], [math.inf], [-math.inf, 0.0]])
@pytest.mark.parametrize("reduce", ["mean", "min", "max", "every"])
def test_what_is_not_finite_is_an_error_and_no_score(detail: list[float], reduce: Reduce) -> None:
    with pytest.raises(MeasureError):
        reduce_detail(detail, reduce)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_the_mean_lies_between_the_ends(detail: list[float]) -> None:
    low, mean, high = (reduce_detail(detail, how) for how in ("min", "mean", "max"))
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    assert low - slack <= mean <= high + slack


def test_the_protocol_names_backend_method_and_reduction() -> None:
    assert Lengths().protocol == "ruler/by-hand/twice/mean"
    assert Lengths(reduce="max").protocol == "ruler/by-hand/twice/max"
    assert Lengths().lower_bound is None


def test_one_bad_input_leaves_the_others_alone() -> None:
    first, second, third, fourth = Lengths(reduce="max").measure([[1.0, 3.0], [-1.0], [math.nan], [2.0]])
    assert first == Score(3.0, (1.0, 3.0))
    assert isinstance(second, MeasureError)
    assert str(second) == "no length is negative"
    assert isinstance(third, MeasureError)
    assert fourth == Score(2.0, (2.0,))
    assert Lengths().measure([]) == []


def test_a_filter_without_measure_one_says_so() -> None:
    class InBatches(Lengths):
        measure_one = Filter.measure_one

    with pytest.raises(NotImplementedError, match="InBatches measures in batches only"):
        InBatches().measure([[1.0]])


def test_a_standard_error_is_that_of_other_moments() -> None:
    """Of even moments in a smooth signal with noise: as far as the means of other draws scatter, whatever the trend."""
    rng = np.random.default_rng(1)
    for slope in (0.0, 10.0):
        draws = slope * np.arange(15) + rng.normal(0, 3, (2000, 15))
        errors = [standard_error(row.tolist()) for row in draws]
        assert float(np.mean([error for error in errors if error is not None])) == pytest.approx(
            float(draws.mean(axis=1).std()) if slope == 0 else np.sqrt(9 / 15 + slope**2 / 30), rel=0.1
        )
    assert standard_error([1.0, 2.0]) is None
    assert standard_error([5.0] * 4) == 0
