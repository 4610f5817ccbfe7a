"""Clusters that were planted, and the weights of a dataset with known counts."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.filters.concept import Concept, assign, weights_and_quotas

pytest.importorskip("faiss")


def planted(sizes: list[int], dim: int = 64, spread: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Directions about some centres, float16 [n, dim], mixed, and whose each is."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.normal(size=(len(sizes), dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[labels] + spread * rng.normal(size=(len(labels), dim)) / np.sqrt(dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16), labels


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found(seed: int) -> None:
    rows, labels = planted([200] * 8, seed=seed)
    concept = Concept(clusters=8, seed=seed)
    found = assign(rows, concept.fit(rows, 8))
    assert len(set(zip(labels.tolist(), found.tolist(), strict=True))) == 8  # Labels and clusters match one to one.


@pytest.mark.parametrize("seed", range(5))
def test_hardly_a_clip_is_put_with_others_where_clusters_differ_in_size(seed: int) -> None:
    rows, labels = planted([1000, 300, 100, 50, 20, 20], spread=0.15, seed=seed)
    found = assign(rows, Concept(clusters=6, seed=seed).fit(rows, 6))
    counts = np.zeros((6, 6), int)
    np.add.at(counts, (found, labels), 1)
    assert counts.max(axis=1).sum() >= 0.98 * len(labels)


def test_the_same_seed_gives_the_same_centres_and_another_order_of_steps_none_worse() -> None:
    rows, _ = planted([200] * 8)
    concept = Concept(clusters=8, seed=3)
    first, again = concept.fit(rows, 8), concept.fit(rows, 8)
    assert np.array_equal(first, again)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    nearest = assign(rows, first)
    exact = (rows.astype(np.float64) @ first.astype(np.float64).T).argmax(axis=1)
    assert np.array_equal(nearest, exact)


def test_few_clips_get_few_clusters() -> None:
    concept = Concept(clusters=256, fit_on=50)
    assert concept.wanted(7) == (1, 7)
    assert concept.wanted(100) == (10, 100)
    assert concept.wanted(1_000_000) == (256, 12_800)
    same = np.ones((30, 8), np.float16)
    assert set(assign(same, concept.fit(same, 3))) <= {0, 1, 2}


def test_weights_and_quotas_of_known_counts() -> None:
    concepts = np.array([4.0] * 16 + [7.0] * 4 + [np.nan] + [9.0])
    weights, quotas = weights_and_quotas(concepts)
    assert weights[:16] == pytest.approx(1 / 4)
    assert weights[16:20] == pytest.approx(1 / 2)
    assert weights[21] == 1.0
    assert np.isnan([weights[20], quotas[20]]).all()
    assert quotas[:16] == pytest.approx(21 * 4 / 7)  # There are 21 draws.
    assert quotas[16:20] == pytest.approx(21 * 2 / 7)
    assert quotas[21] == pytest.approx(21 * 1 / 7)
    # Drawn by their weights, clips of a concept come as often as its quota says.
    known = ~np.isnan(concepts)
    share = weights[known] / weights[known].sum()
    for number in (4.0, 7.0, 9.0):
        of = concepts[known] == number
        assert share[of].sum() * known.sum() == pytest.approx(quotas[known][of][0])


def test_what_is_stored_names_the_centres_and_counts_all_the_same() -> None:
    concept = Concept()
    assert concept.protocol == "kmeans/256,spherical,fit100,seed0/mean"
    wanted = concept.protocol.rpartition("/")[0]
    assert concept.counts(f"{wanted}@12345678", wanted)
    assert not concept.counts("kmeans/64,spherical,fit100,seed0@12345678", wanted)
