"""Concepts: which of k clusters of the corpus a clip lies in, so that a sampler can draw rare ones as well as common ones.

Formula: k-means on the clips' embeddings (those that the aesthetic filter leaves behind, each of length 1), with cosines in
place of distances and centres of length 1. It begins with k-means++ under `seed` (the next centre is drawn with a probability
that grows with the squared distance to the nearest one that is there, of some the best, as in scikit-learn; Arthur and
Vassilvitskii, SODA 2007) and goes on with Lloyd's steps (faiss: Douze et al., arXiv 2401.08281). Of many clips a sample is
fitted, `fit_on` for each cluster, chosen by the numbers of their ids; then all are assigned, a slice of the manifest at a time.
Unit: the number of a cluster, from 0 on; numbers mean nothing but themselves. No gate.

A dataset gets two more columns. `concept_weight` is 1/√n for a clip of a cluster with n clips in this dataset, so that a
cluster is drawn in proportion to √n, between each clip alike (n) and each concept alike (1). `concept_quota` is how many clips
of the cluster are drawn so in one pass of as many draws as the dataset has clips: N · √n / Σ √n. Source: this project's own;
the square root is the usual middle between the two.

Centres are kept in the workspace (`.concepts.npz`): clips that come later are only assigned. They are fitted anew, and all
clips assigned anew, where settings or embeddings change, or when there are twice as many clips as at the last time. The
protocol that is stored ends in the first digits of the centres' SHA-256: compare numbers of equal protocols only.

Protocol: `kmeans/256,spherical,fit100,seed0/mean`. With fewer than ten clips for each cluster there are fewer clusters. Cost:
see `python -m benchmarks.corpus`. Known to go wrong: another number of threads or another faiss may give other clusters.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Needs
from longtake.filters.duplicates import faiss_or_why_not

STEPS = 20  # Steps of Lloyd's algorithm: after 20, the centres of a million CLIP embeddings hardly move.
SEEDED_ON = 10  # Clips for each cluster: among them k-means++ looks for the first centres.
SEEDED_AT_LEAST = 20_000  # Clips: the fewest among which k-means++ looks, if the dataset has as many.
LEAST = 10  # Clips for each cluster: a dataset with fewer clips has fewer clusters.
# Columns of a dataset besides the number of the concept; longtake.manifests.dataset.shards describes them.
CONCEPT_COLUMNS = ("concept_weight", "concept_quota")
BLOCK = 16_384  # Clips that are assigned at once, which bounds the memory.

Embeddings = npt.NDArray[np.float16]
Centres = npt.NDArray[np.float32]


class ConceptSettings(FilterSettings):
    """How many clusters there are, and how they are found."""

    reduce: Literal["mean"] = Field("mean", description="nothing else: there is one value")
    clusters: int = Field(
        256, ge=1, le=65_536, description="how many clusters there are, where there are ten clips for each"
    )
    fit_on: int = Field(100, ge=10, description="clips for each cluster that the centres are fitted to")
    seed: int = Field(0, ge=0, description="of the beginning")


class Concept(Filter[Any]):
    """The cluster of a clip. Detail: that number."""

    name: ClassVar[str] = "concept"
    backend: ClassVar[str] = "kmeans"
    unit: ClassVar[str] = "number of a cluster"
    needs: ClassVar[Needs] = Needs.CORPUS
    settings_model: ClassVar[type[FilterSettings]] = ConceptSettings

    settings: ConceptSettings

    @property
    def method(self) -> str:
        by = self.settings
        return f"{by.clusters},spherical,fit{by.fit_on},seed{by.seed}"

    def counts(self, stored: str, wanted: str) -> bool:
        """A number of whatever centres counts, as long as they were found in this way."""
        return stored.partition("@")[0] == wanted

    def wanted(self, clips: int) -> tuple[int, int]:
        """How many clusters so many clips get, and how many clips are fitted."""
        clusters = max(1, min(self.settings.clusters, clips // LEAST))
        return clusters, min(clips, clusters * self.settings.fit_on)

    def fit(self, embeddings: Embeddings, clusters: int) -> Centres:
        """The centres, each of length 1, float32 [clusters, dim], of embeddings float16 [n, dim], n at least as many."""
        rows = _unit(embeddings)
        random = np.random.default_rng(self.settings.seed)
        some = random.permutation(len(rows))[: max(SEEDED_ON * clusters, SEEDED_AT_LEAST)]
        begin = _plus_plus(rows[np.sort(some)], clusters, random)
        means = faiss_or_why_not().Kmeans(
            rows.shape[1], clusters, niter=STEPS, seed=self.settings.seed, spherical=True, verbose=False,
            min_points_per_centroid=1, max_points_per_centroid=len(rows),
        )  # fmt: skip
        means.train(rows, init_centroids=begin)
        return _unit(means.centroids.reshape(clusters, -1))


def assign(embeddings: Embeddings, centres: Centres) -> npt.NDArray[np.int64]:
    """The nearest centre of each embedding, [n]."""
    nearest = np.empty(len(embeddings), np.int64)
    for start in range(0, len(embeddings), BLOCK):
        block = slice(start, start + BLOCK)
        nearest[block] = (_unit(embeddings[block]) @ centres.T).argmax(axis=1)
    return nearest


def weights_and_quotas(
    concepts: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`concept_weight` and `concept_quota` of the clips of a dataset, [n]; nan where a clip has no concept."""
    weights, quotas = np.full(len(concepts), np.nan), np.full(len(concepts), np.nan)
    known = np.flatnonzero(~np.isnan(concepts))
    _, inverse, counts = np.unique(concepts[known], return_inverse=True, return_counts=True)
    roots = np.sqrt(counts)
    weights[known] = (1 / roots)[inverse]
    quotas[known] = (len(known) * roots / roots.sum())[inverse]
    return weights, quotas


def _unit(rows: npt.NDArray[Any]) -> Centres:
    """Each row divided by its length; one of length 0 stays."""
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), np.float32)


def _plus_plus(rows: Centres, clusters: int, random: np.random.Generator) -> Centres:
    """The beginnings of k-means++: rows of length 1, [clusters, dim]. Of a few that are drawn for a next one, that which brings
    the distances down most is taken."""
    tries = 2 + int(math.log(clusters))
    chosen = [int(random.integers(len(rows)))]
    distance = np.maximum(2 - 2 * (rows @ rows[chosen[0]]), 0).astype(np.float64)
    while len(chosen) < clusters:
        total = np.cumsum(distance)
        drawn = np.searchsorted(total, random.random(tries) * total[-1], side="right").clip(max=len(rows) - 1)
        after = np.minimum(distance[:, None], np.maximum(2 - 2 * (rows @ rows[drawn].T), 0))
        best = int(after.sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        distance = after[:, best]
    return rows[chosen]
