"""Near-duplicates: which clips look like a better one, within a video and across all of them.

Formula: clips are taken best first. One is a duplicate if the cosine between its embedding and that of a clip already
kept is at least `threshold`, and then of the best such clip; else it is kept. So each group has one kept clip, to which
all others of it really are as alike as stated (no chains: being like a duplicate of a clip is not being like it), and
the result depends on the clips alone, not on when they came. Unit: the cosine to the kept clip, from `threshold` to 1;
0 for a kept one. A gate is therefore `duplicates: '<= 0'`. Source: SemDeDup (Abbas et al., arXiv 2303.09540), which
compares CLIP embeddings too, but only within clusters; here every pair counts.

Best first: passing more tiers, then the higher aesthetic score, then the higher flow, then the lower clip id. The
embeddings are those that the aesthetic filter leaves behind, the mean over a clip's keyframes.

Protocol: `clip/cosine>=0.95,best-first,exact<=100000/mean`. The threshold is a matter of taste, and of the embedding:
successive windows of one still shot lie above 0.95, and so may two shots of one place. Look at some groups before using
it.

Up to `exact_up_to` clips every pair counts: faiss's flat index (Douze et al., arXiv 2401.08281) compares each clip with
each kept one in float32, and what comes near the threshold is computed in float64. Beyond, faiss shards the kept clips into
cells by k-means, and a clip is compared with those in the PROBES cells nearest to it, much as SemDeDup does within one. What
it finds is computed in full like everything else; what it misses stays a kept clip.

Cost: random directions of 768 values, on one core: every pair of 30,000 clips, nearly one in three a duplicate, 10 s of CPU
(2026-11-25); it grows with the square. In cells, 200,000 clips, one in twenty a duplicate, 93 s, which found 9,998 of 10,000
(2026-11-22). Memory: the embeddings themselves (1.5 KiB a clip) and a copy of the kept ones, 3 KiB a clip where every pair
counts.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, FilterUnavailable, Needs

BLOCK = 2048  # Clips that are compared at once.
PROBES = 24  # Cells in which a clip is looked for.
SLACK = 1e-4  # Tolerance for float32: a pair that passes by so little is computed again in float64.

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class DuplicatesSettings(FilterSettings):
    """What counts as a repetition, and how it is looked for."""

    threshold: float = Field(0.95, gt=0, le=1, description="the cosine from which on two clips are near-duplicates")
    exact_up_to: int = Field(
        100_000, ge=0, description="clips of which every pair is compared; of more, some pairs may be missed"
    )


class Duplicates(Filter[Any]):
    """The cosine to the kept clip that this one repeats; 0 for a kept one."""

    name: ClassVar[str] = "duplicates"
    backend: ClassVar[str] = "clip"
    unit: ClassVar[str] = "cosine (0: kept)"
    needs: ClassVar[Needs] = Needs.CORPUS
    settings_model: ClassVar[type[FilterSettings]] = DuplicatesSettings

    settings: DuplicatesSettings

    @property
    def method(self) -> str:
        return f"cosine>={self.settings.threshold:g},best-first,exact<={self.settings.exact_up_to}"

    def kept_instead(self, embeddings: npt.NDArray[np.float16]) -> tuple[Indices, Floats]:
        """For each clip the row of the one kept instead, or −1, and the cosine to it, or 0.

        embeddings: float16 [n, dim], best clip first. Raises ValueError if one is zero or not finite.
        """
        count = len(embeddings)
        owner, cosine = np.full(count, -1), np.zeros(count)
        if not count:
            return owner, cosine
        for start in range(0, count, BLOCK):
            lengths = np.linalg.norm(embeddings[start : start + BLOCK].astype(np.float64), axis=1)
            if not (np.isfinite(lengths).all() and (lengths > 0).all()):
                raise ValueError("an embedding is zero, or not finite")
        search = _EveryPair if count <= self.settings.exact_up_to else _Cells
        kept = search(embeddings, self.settings.threshold - SLACK)
        for start in range(0, count, BLOCK):
            block = np.arange(start, min(start + BLOCK, count))
            self._settle(embeddings, *kept.near(block), owner, cosine)
            self._within(embeddings, block[owner[block] < 0], owner, cosine)
            kept.add(block[owner[block] < 0])
        return owner, cosine

    def _settle(
        self, embeddings: npt.NDArray[np.float16], rows: Indices, others: Indices, owner: Indices, cosine: Floats
    ) -> None:
        """Give each row of `rows` the first of `others` beside it that it is a duplicate of. Candidates, both rising."""
        while len(rows):
            going_on = owner[rows] < 0
            rows, others = rows[going_on], others[going_on]
            _, at = np.unique(rows, return_index=True)  # The first candidate of each row.
            a, b = rows[at], others[at]
            exact = _cosines(embeddings, a, b)
            alike = exact >= self.settings.threshold
            owner[a[alike]], cosine[a[alike]] = b[alike], exact[alike]
            rows, others = np.delete(rows, at), np.delete(others, at)

    def _within(self, embeddings: npt.NDArray[np.float16], block: Indices, owner: Indices, cosine: Floats) -> None:
        """The same among the rows of one block, which are no duplicates of anything before it."""
        normal = _normal(embeddings, block, np.float32)
        rows, others = _where(np.tril(normal @ normal.T, -1) >= self.settings.threshold - SLACK)
        edges = np.searchsorted(rows, np.arange(len(block) + 1))
        for row in np.unique(rows):
            candidates = block[others[edges[row] : edges[row + 1]]]
            candidates = candidates[owner[candidates] < 0]
            exact = _cosines(embeddings, candidates, block[[row]])
            alike = np.flatnonzero(exact >= self.settings.threshold)
            if alike.size:
                owner[block[row]], cosine[block[row]] = candidates[alike[0]], exact[alike[0]]


class _EveryPair:
    """All kept clips, in the order in which they were added: faiss's flat index compares each with each."""

    def __init__(self, embeddings: npt.NDArray[np.float16], least: float) -> None:
        self._embeddings, self._least = embeddings, least
        self._index = faiss_or_why_not().IndexFlatIP(embeddings.shape[1])
        self._kept = np.zeros(0, np.int64)

    def add(self, rows: Indices) -> None:
        self._index.add(_normal(self._embeddings, rows, np.float32))
        self._kept = np.concatenate([self._kept, rows])

    def near(self, block: Indices) -> tuple[Indices, Indices]:
        """Rows of the block and the kept clips that they may be duplicates of."""
        edges, _, neighbours = self._index.range_search(_normal(self._embeddings, block, np.float32), self._least)
        return _sorted(block, edges, self._kept[neighbours])


class _Cells:
    """Kept clips in the cells of a k-means; looked for in the nearest cells only."""

    def __init__(self, embeddings: npt.NDArray[np.float16], least: float) -> None:
        faiss = faiss_or_why_not()
        count, dim = embeddings.shape
        cells = max(1, round(4 * math.sqrt(count)))
        some = np.random.default_rng(0).choice(count, min(count, 40 * cells), replace=False)
        self._embeddings, self._least = embeddings, least
        # The embeddings are stored as float16, so that float16 loses nothing.
        self._index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim), dim, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        self._index.train(_normal(embeddings, np.sort(some), np.float32))
        self._index.nprobe = min(PROBES, cells)

    def add(self, rows: Indices) -> None:
        self._index.add_with_ids(_normal(self._embeddings, rows, np.float32), rows)

    def near(self, block: Indices) -> tuple[Indices, Indices]:
        """What the index finds; a wider slack covers its rounding."""
        edges, _, neighbours = self._index.range_search(
            _normal(self._embeddings, block, np.float32), self._least - 10 * SLACK
        )
        return _sorted(block, edges, neighbours)


def faiss_or_why_not() -> Any:
    """The package faiss. Raises FilterUnavailable."""
    try:
        import faiss
    except ImportError as error:
        raise FilterUnavailable(
            "faiss is missing, which compares the embeddings of clips: pip install 'longtake[models]'"
        ) from error
    return faiss


def _sorted(block: Indices, edges: npt.NDArray[Any], columns: Indices) -> tuple[Indices, Indices]:
    """What a range search gives, as pairs of rows, both rising."""
    ends = edges.astype(np.int64)
    rows = np.repeat(block, ends[1:] - ends[:-1])
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]


def _where(mask: npt.NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """np.nonzero of a matrix that is nearly all False, ten times as fast."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return rows, columns


def _normal(embeddings: npt.NDArray[np.float16], rows: Indices, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    wide = embeddings[rows].astype(np.float64)
    return np.asarray((wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(dtype))


def _cosines(embeddings: npt.NDArray[np.float16], a: Indices, b: Indices) -> Floats:
    """Of rows a with rows b, the same to the last bit, with any other rows computed along with them."""
    pairs = _normal(embeddings, a, np.float64) * _normal(embeddings, b, np.float64)
    return np.asarray(np.round(pairs.sum(axis=1), 9))
