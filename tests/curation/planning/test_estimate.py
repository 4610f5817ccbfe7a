"""Totals from a sample, on made corpora whose totals are known: the interval holds them, and ends where the corpus ends."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.curation.planning.estimate import draw, draws, estimate, money


def corpus(videos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes in bytes, and per video: CPU seconds, kept seconds. A third of the videos are rejected before they are decoded."""
    rng = np.random.default_rng(seed)
    seconds = rng.lognormal(3, 0.7, videos)
    cpu = seconds * rng.lognormal(-1, 0.8, videos) * (rng.random(videos) < 0.7) + 0.05
    kept = 15.0 * np.maximum(1, seconds // 15) * (rng.random(videos) < 0.3)
    return rng.lognormal(0, 1.2, videos) * 1e6, np.stack([cpu, kept], axis=1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 100 corpora of 400 videos, 80 looked at: at least 8 of 10, and seldom more than three times as wide."""
    held, wide = np.zeros(2), np.zeros(2)
    for seed in range(100):
        sizes, values = corpus(400, seed)
        sampled = draw(sizes.tolist(), 80, seed)
        totals = draws(values[sampled.chosen], sampled, seed)
        for i, truth in enumerate(values.sum(axis=0)):
            found = estimate(totals[:, i])
            held[i] += found.low <= truth <= found.high
            wide[i] += found.high > 3 * found.low
    assert (held >= 80).all(), held
    assert (wide <= 20).all(), wide


def test_a_sample_of_all_is_no_estimate() -> None:
    sizes, values = corpus(30, 1)
    sampled = draw(sizes.tolist(), 30)
    assert sampled.chosen.tolist() == list(range(30))
    for column, truth in zip(draws(values, sampled).T, values.sum(axis=0), strict=True):
        found = estimate(column)
        assert found.low == pytest.approx(truth) == pytest.approx(found.high)


def test_the_largest_files_are_always_looked_at() -> None:
    sizes = [1.0] * 200
    sizes[17] = 1e6
    assert all(17 in draw(sizes, 20, seed).chosen for seed in range(10))


@pytest.mark.parametrize("count", [1, 5, 20, 33])
def test_a_sample_has_as_many_different_videos_as_asked(count: int) -> None:
    rng = np.random.default_rng(0)
    for sizes in ([0.0] * 50, rng.lognormal(0, 2, 50).tolist()):
        chosen = draw(sizes, count, 3).chosen
        assert len(set(chosen.tolist())) == len(chosen) == count


def test_money_goes_together_with_what_it_is_paid_for() -> None:
    hours, tokens = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])
    found = money({"CPU": hours, "tokens": tokens}, {"CPU": 2.0, "tokens": 0.1})
    assert found.expected == pytest.approx(6.0)
    assert found.times(2).expected == pytest.approx(12.0)
