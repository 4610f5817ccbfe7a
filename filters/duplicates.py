"""Near-duplicates: which clips look like a better one, within a video and across all of them.

Formula: clips are taken best first. One is a duplicate if the cosine between its embedding and that of a clip already
kept is at least `threshold`, and then of the best such clip; else it is kept. So each group has one kept clip, to which
all others of it really are as alike as stated (no chains: being like a duplicate of a clip is not being like it), and
the result depends on the clips alone, not on when they came. Unit: the cosine to the kept clip, from `threshold` to 1;
0 for a kept one. A gate is therefore `duplicates: '<= 0'`. Source: SemDeDup (Abbas et al., arXiv 2303.09540), which
compares CLIP embeddings too, but only within clusters; here every pair counts.

Best first: passing more tiers, then the higher aesthetic score, then the higher flow, then the lower clip id. The
embeddings are those that the aesthetic filter leaves behind, the mean over a clip's keyframes.

Protocol: `clip/cosine>=0.95,best-first/mean`. The threshold is a matter of taste, and of the embedding: successive
windows of one still shot lie above 0.95, and so may two shots of one place. Look at some groups before using it.

Exact, with plain matrix products and no index library: approximate indices (faiss, hnswlib, usearch) miss some pairs,
differ from one machine to the next, and are not needed here. After a rotation to principal axes the first 64 values
and the length of the rest bound each cosine from above, which settles nearly all pairs at a tenth of the cost; the
others are computed in full. Cost: pairs of kept clips; on two cores 20,000 clips take 2 s, and ten times as many a
hundred times as long at most.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from filters.base import Filter, Needs, Reduce

HEAD = 64  # principal axes that the bound looks at
BLOCK = 2048  # clips at once,
OTHERS = 16_384  # against so many kept ones
SLACK = 1e-4  # for float32; what passes by that little is computed in float64

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Duplicates(Filter[Any]):
    """The cosine to the kept clip that this one repeats; 0 for a kept one. threshold: the cosine from which on two
    clips are near-duplicates."""

    name: ClassVar[str] = "duplicates"
    backend: ClassVar[str] = "clip"
    unit: ClassVar[str] = "cosine (0: kept)"
    needs: ClassVar[Needs] = Needs.CORPUS

    def __init__(self, *, reduce: Reduce = "mean", threshold: float = 0.95) -> None:
        super().__init__(reduce=reduce)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is a cosine above 0 and up to 1, not {threshold!r}")
        self.threshold = threshold

    @property
    def method(self) -> str:
        return f"cosine>={self.threshold:g},best-first"

    def kept_instead(self, embeddings: npt.NDArray[np.float16]) -> tuple[Indices, Floats]:
        """For each clip the row of the one kept instead, or −1, and the cosine to it, or 0.

        embeddings: float16 [n, dim], best clip first. Raises ValueError if one is zero or not finite.
        """
        count, dim = embeddings.shape
        owner, cosine = np.full(count, -1), np.zeros(count)
        if not count:
            return owner, cosine
        for start in range(0, count, BLOCK):
            lengths = np.linalg.norm(embeddings[start : start + BLOCK].astype(np.float64), axis=1)
            if not (np.isfinite(lengths).all() and (lengths > 0).all()):
                raise ValueError("an embedding is zero, or not finite")
        heads = _heads(embeddings, min(HEAD, dim))
        kept = np.zeros(0, np.int64)
        for start in range(0, count, BLOCK):
            block = np.arange(start, min(start + BLOCK, count))
            for first in range(0, len(kept), OTHERS):
                left = block[owner[block] < 0]
                self._against(embeddings, heads, left, kept[first : first + OTHERS], owner, cosine)
            self._within(embeddings, block[owner[block] < 0], owner, cosine)
            kept = np.concatenate([kept, block[owner[block] < 0]])
        return owner, cosine

    def _against(
        self,
        embeddings: npt.NDArray[np.float16],
        heads: npt.NDArray[np.float32],
        left: Indices,
        kept: Indices,
        owner: Indices,
        cosine: Floats,
    ) -> None:
        """Give each row of `left` the first of `kept` that it is a duplicate of."""
        bound = heads[left] @ heads[kept].T
        rows, others = np.nonzero(bound >= self.threshold - SLACK)
        if len(rows) > bound.size // 512:
            whole = _normal(embeddings, left, np.float32) @ _normal(embeddings, kept, np.float32).T
            rows, others = np.nonzero(whole >= self.threshold - SLACK)
        while len(rows):
            _, at = np.unique(rows, return_index=True)  # the first candidate of each row
            a, b = left[rows[at]], kept[others[at]]
            exact = _cosines(embeddings, a, b)
            alike = exact >= self.threshold
            owner[a[alike]], cosine[a[alike]] = b[alike], exact[alike]
            going_on = owner[left[rows]] < 0
            going_on[at] = False
            rows, others = rows[going_on], others[going_on]

    def _within(self, embeddings: npt.NDArray[np.float16], block: Indices, owner: Indices, cosine: Floats) -> None:
        """The same among the rows of one block, which are no duplicates of anything before it."""
        normal = _normal(embeddings, block, np.float32)
        rows, others = np.nonzero(np.tril(normal @ normal.T, -1) >= self.threshold - SLACK)
        edges = np.searchsorted(rows, np.arange(len(block) + 1))
        for row in np.unique(rows):
            candidates = block[others[edges[row] : edges[row + 1]]]
            candidates = candidates[owner[candidates] < 0]
            exact = _cosines(embeddings, candidates, block[[row]])
            alike = np.flatnonzero(exact >= self.threshold)
            if alike.size:
                owner[block[row]], cosine[block[row]] = candidates[alike[0]], exact[alike[0]]


def _normal(embeddings: npt.NDArray[np.float16], rows: Indices, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    wide = embeddings[rows].astype(np.float64)
    return np.asarray((wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(dtype))


def _cosines(embeddings: npt.NDArray[np.float16], a: Indices, b: Indices) -> Floats:
    """Of rows a with rows b, the same to the last bit whatever else is computed along with them."""
    pairs = _normal(embeddings, a, np.float64) * _normal(embeddings, b, np.float64)
    return np.asarray(np.round(pairs.sum(axis=1), 9))


def _heads(embeddings: npt.NDArray[np.float16], size: int) -> npt.NDArray[np.float32]:
    """float32 [n, size + 1] whose products are never below the cosines (but for rounding): coordinates on the axes that
    hold most, and the length of what is left (Cauchy-Schwarz)."""
    count = len(embeddings)
    some = _normal(embeddings, np.unique(np.linspace(0, count - 1, 20_000).astype(np.int64)), np.float64)
    axes = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :size]
    heads = np.empty((count, size + 1), np.float32)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        head = _normal(embeddings, rows, np.float64) @ axes
        heads[rows, :size] = head
        heads[rows, size] = np.sqrt(np.maximum(0, 1 - np.square(head).sum(axis=1)))
    return heads
