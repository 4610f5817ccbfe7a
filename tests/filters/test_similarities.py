"""The fits of similarities, against known motions and against numpy's own least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.filters.similarities import Points, fit_similarities, squares_left, weighted_medians


def displaced(points: Points, motion: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    shift_x, shift_y, growth, turn = motion
    return shift_x + growth * points.x - turn * points.y, shift_y + turn * points.x + growth * points.y


@given(st.lists(st.tuples(*[st.floats(-2, 2)] * 4), min_size=1, max_size=4), st.integers(0, 99))
def test_each_fit_finds_its_own_motion(motions: list[tuple[float, float, float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = Points.at(*rng.uniform(-0.5, 0.5, (2, 60)))
    u, v = (np.stack(part) for part in zip(*(displaced(points, motion) for motion in motions), strict=True))
    found, squares = fit_similarities(points, u, v, rng.uniform(0.1, 1, (len(motions), 60)))
    assert found == pytest.approx(np.array(motions), abs=1e-9)
    assert squares == pytest.approx(0, abs=1e-15)
    # The points need not lie about the origin.
    aside = Points.at(points.x + 3, points.y - 7)
    assert fit_similarities(aside, u, v, np.ones(u.shape))[0][:, 2:] == pytest.approx(
        np.array(motions)[:, 2:], abs=1e-9
    )


def test_one_round_is_least_squares_under_the_weights_of_the_start() -> None:
    rng = np.random.default_rng(3)
    points = Points.at(*rng.uniform(-0.5, 0.5, (2, 200)))
    u, v, weight = (rng.normal(size=(1, 200)) for _ in range(3))
    weight = np.abs(weight)
    found, _ = fit_similarities(points, u, v, weight, rounds=1)
    start = np.array([[weighted_medians(part, weight)[0] for part in (u, v)] + [0.0, 0.0]])
    squares = squares_left(points, start, u, v)
    root = np.sqrt(weight / (1 + squares / (2.25 * weighted_medians(squares, weight)[:, None])))[0]
    one, none = np.ones(200), np.zeros(200)
    rows = [np.stack([one, none, points.x, -points.y], 1), np.stack([none, one, points.y, points.x], 1)]
    left = np.concatenate([row * root[:, None] for row in rows])
    expected = np.linalg.lstsq(left, np.concatenate([u[0] * root, v[0] * root]), rcond=None)[0]
    assert found[0] == pytest.approx(expected, abs=1e-9)


def test_points_on_one_spot_and_points_without_weight() -> None:
    u, v = np.full((2, 9), 0.3), np.full((2, 9), -0.1)
    spot = Points.at(np.full(9, 0.2), np.full(9, 0.4))
    weight = np.stack([np.ones(9), np.zeros(9)])
    found, _ = fit_similarities(spot, u, v, weight)
    assert found[0] == pytest.approx([0.3, -0.1, 0, 0])
    assert found[1].tolist() == [0, 0, 0, 0]


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(1, 5)), min_size=1, max_size=30))
def test_the_weighted_median_is_the_median_of_each_value_as_often_as_it_weighs(items: list[tuple[float, int]]) -> None:
    values, weights = np.array([v for v, _ in items])[None], np.array([float(w) for _, w in items])[None]
    repeated = sorted(v for v, w in items for _ in range(w))
    assert weighted_medians(values, weights)[0] == repeated[(len(repeated) + 1) // 2 - 1]
