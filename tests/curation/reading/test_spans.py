"""Which frames of a film a constant rate shows, by their times alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.reading.spans import nearest_in_time


@given(
    st.lists(st.integers(1, 499), min_size=1, max_size=60),
    st.integers(0, 2000),
    st.integers(5, 120),
    st.integers(0, 80),
)
def test_nearest_in_time_is_nearest(gaps: list[int], begin: int, fps: int, count: int) -> None:
    times = np.cumsum(gaps) / 1000
    wanted = [begin / 1000 + k / fps for k in range(count)]
    chosen = list(nearest_in_time(((t, i) for i, t in enumerate(times)), wanted))
    assert len(chosen) == count
    assert chosen == sorted(chosen)
    for time, index in zip(wanted, chosen, strict=True):
        best = float(np.abs(times - time).min())
        # Two frames may be equally near within the same millisecond.
        assert abs(times[index] - time) <= best + 2.001e-3


def test_a_picture_stands_until_the_next_one_where_a_film_has_none_for_long() -> None:
    """As a player shows a recording of a screen; the nearest picture would be there seconds early."""
    frames = [(0.0, "a"), (0.1, "b"), (20.1, "c"), (20.2, "d")]
    wanted = [0.04, 0.06, 0.2, 10.2, 20.05, 20.0995, 20.1, 20.14, 20.16, 30.0]
    assert "".join(nearest_in_time(frames, wanted)) == "abbbbcccdd"


@pytest.mark.parametrize("begin", [0.0, 0.1, 0.2, 0.3])
def test_each_picture_of_a_film_at_two_a_second_stands_as_long(begin: float) -> None:
    """The differences of such times are half a second but for the last digit of a float, on either side of it."""
    frames = [(begin + k / 2, k) for k in range(40)]
    chosen = list(nearest_in_time(frames, [begin + k / 10 for k in range(200)]))
    assert chosen == [k // 5 for k in range(200)]


def test_nearest_in_time_of_nothing() -> None:
    assert list(nearest_in_time(iter(()), [0.0, 1.0])) == []
    assert list(nearest_in_time([(0.0, "a")], [])) == []
