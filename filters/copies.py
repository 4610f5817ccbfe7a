"""Copies: which clips show the same film as a better one, under another name, in another size or encoding, over all videos.

Formula: clips are taken best first. One is a copy if it comes from another video than a clip already kept, and either its
hashes (`phash`) differ from that one's in at most `bits` of 64 bits on average over the keyframes that have one in both (at
least three, or all where a clip has fewer), or their streams hold the same packets and both lie at the same time in them; and
then of the best such clip. Else it is kept. So each group has one kept clip to which all others really are as near as stated,
and the result depends on the clips alone. Clips of one video are never copies of each other: how alike two moments of a film
are is for `duplicates` to say. Unit: the share of equal bits with the kept clip, from 1 − `bits`/64 to 1; 0 for a kept one. A
gate is therefore `copies: '<= 0'`. Source: this project's own, with the hash of `phash`; the packets are compared by the
SHA-256 that the scan makes of all of a video stream in their order (`stream_sha256` in `videos`), so that MP4 and Matroska of
one encoding are the same, and a transport stream, which writes packets otherwise, is not.

Best first: passing more tiers, then the larger picture, then the longer clip, then the lower clip id.

On 28 real takes: a JPEG of quality 20, a quarter of the size, a sixth of the size in a JPEG of quality 30, 20 grey levels more,
gains of 1.2 and gammas of 0.8 and 1.3 move a clip's keyframes by 0 to 4 bits on average, and at most by 8; different takes lie
at 23 or more.

Candidates: of each hash the bits 1 to 63 go by turns into BANDS bands, and two clips are compared where two bands of one
keyframe agree: within a group of clips that agree, each with the STARS best. So the cost grows with the number of clips. Of a
hundred thousand simulated clips, whose copies differed in 2, 4, 6 and 8 bits of each hash on average, 100, 100, 99.9 and 99.3 %
of those within 8 bits were found (2026-11-26, `python -m benchmarks.corpus`); what is missed stays a kept clip. Cost: a million
clips 19 s of CPU and 0.4 GiB.

Protocol: `phash/bits<=8,best-first/mean`. Known to go wrong: a copy that begins at another moment has other windows, and so
other keyframes, unless the scene stands still: `duplicates` finds some of these; a large mark, wide borders, a crop of more
than 3 % and a mirrored picture move more than `bits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Needs

BITS = 64
BANDS = 6  # Bands of a hash, each of 10 or 11 bits: the bits of two bands distinguish a million clips.
STARS = 32  # Clips of a group of candidates with which each other clip of the group is compared.
LEAST_KNOWN = 3  # Keyframes that must have a hash in both clips.
BLOCK = 1 << 20  # Pairs that are compared at once, which bounds the memory.

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class CopiesSettings(FilterSettings):
    """What counts as the same picture."""

    reduce: Literal["mean"] = Field("mean", description="nothing else: there is one value")
    bits: float = Field(
        8.0, ge=0, le=20, description="bits of 64 in which the hashes of a copy differ at most, on average"
    )


class Copies(Filter[Any]):
    """The share of equal bits with the kept clip that this one is a copy of; 0 for a kept one."""

    name: ClassVar[str] = "copies"
    backend: ClassVar[str] = "phash"
    unit: ClassVar[str] = "share of equal bits (0: kept)"
    needs: ClassVar[Needs] = Needs.CORPUS
    reads_scores_of: ClassVar[str | None] = "phash"
    settings_model: ClassVar[type[FilterSettings]] = CopiesSettings

    settings: CopiesSettings

    @property
    def method(self) -> str:
        return f"bits<={self.settings.bits:g},best-first"

    def kept_instead(self, hashes: Hashes, known: Flags, videos: Ints, streams: Ints) -> tuple[Ints, Floats]:
        """For each clip the row of the one kept instead, or −1, and the share of equal bits with it, or 0.

        Best clip first. hashes: uint64 [n, keyframes]; known: bool of that shape, which of them there are. videos: int64 [n],
        equal numbers for clips of one video. streams: int64 [n], equal numbers for clips at the same time of the same
        packets, −1 for none.
        """
        count = len(hashes)
        owner, share = np.full(count, -1), np.zeros(count)
        least = min(LEAST_KNOWN, hashes.shape[1])
        whole = np.flatnonzero(known.sum(axis=1) >= least)
        # The best of the clips with the very same hashes stands for all others but those of its own video.
        twin = np.arange(count)
        twin[whole] = _best_of_each(_mixed(hashes[whole], known[whole]), whole)
        twin = np.where(videos[twin] == videos, np.arange(count), twin)
        alone = whole[twin[whole] == whole]
        parts = [_in_groups(streams, np.flatnonzero(streams >= 0), videos)]
        parts += list(self._alike(hashes, known, videos, alone, least))
        rows, others, equal = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((-equal, others, rows))
        others, equal = others[order], equal[order]
        edges = np.searchsorted(rows[order], np.arange(count + 1))
        for row in np.flatnonzero((np.diff(edges) > 0) | (twin != np.arange(count))).tolist():
            like = int(twin[row])
            near = {other: value for at in {row, like} for other, value in _of(at, edges, others, equal)}
            if like != row:
                near[like] = 1.0
            kept = [other for other in near if owner[other] < 0 and videos[other] != videos[row]]
            if kept:
                owner[row] = min(kept)
                share[row] = near[min(kept)]
        return owner, share

    def _alike(
        self, hashes: Hashes, known: Flags, videos: Ints, apart: Ints, least: int
    ) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Pairs of clips out of `apart` whose hashes are near each other, the better one second, and the share of equal bits."""
        for keyframe in range(hashes.shape[1]):
            here = apart[known[apart, keyframe]]
            bands = _bands(hashes[here, keyframe])
            for a, b in combinations(bands, 2):
                for rows, others in _candidates(a << np.uint64(11) | b, here):
                    different = videos[rows] != videos[others]
                    rows, others = rows[different], others[different]
                    yield self._near(hashes, known, rows, others, least)

    def _near(self, hashes: Hashes, known: Flags, rows: Ints, others: Ints, least: int) -> tuple[Ints, Ints, Floats]:
        both = known[rows] & known[others]
        apart = np.bitwise_count(hashes[rows] ^ hashes[others]) * both
        seen = both.sum(axis=1)
        mean = apart.sum(axis=1) / np.maximum(seen, 1)
        near = (seen >= least) & (mean <= self.settings.bits)
        return rows[near], others[near], 1 - mean[near] / BITS


def _bands(hashes: Hashes) -> list[Hashes]:
    """The bits of each hash but the highest, which says that the mean is above the median, by turns in BANDS numbers."""
    bands = [np.zeros(len(hashes), np.uint64) for _ in range(BANDS)]
    for bit in range(BITS - 1):
        bands[bit % BANDS] = bands[bit % BANDS] << np.uint64(1) | (hashes >> np.uint64(bit)) & np.uint64(1)
    return bands


def _candidates(keys: Hashes, rows: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of rows with equal keys, the better (lower) one second: each row with the STARS best of its group."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    begins = (
        np.flatnonzero(np.append(True, sorted_keys[1:] != sorted_keys[:-1])) if len(keys) else np.zeros(0, np.int64)
    )
    lengths = np.diff(np.append(begins, len(keys)))
    begin = np.repeat(begins, lengths)
    rank = np.arange(len(keys)) - begin
    for star in range(min(STARS, int(lengths.max(initial=1)) - 1)):
        at = np.flatnonzero(rank > star)
        for start in range(0, len(at), BLOCK):
            some = at[start : start + BLOCK]
            yield rows[order[some]], rows[order[begin[some] + star]]


def _in_groups(codes: Ints, rows: Ints, videos: Ints) -> tuple[Ints, Ints, Floats]:
    """Each of `rows` with the best one of those with its code, if that is another video's; they are equal in all bits."""
    best = _best_of_each(codes[rows], rows)
    copied = videos[best] != videos[rows]
    return rows[copied], best[copied], np.ones(int(copied.sum()))


def _of(row: int, edges: Ints, others: Ints, equal: Floats) -> Iterable[tuple[int, float]]:
    """The clips that are near a row, and the share of equal bits; of two shares the larger one comes last."""
    at = slice(edges[row], edges[row + 1])
    return zip(others[at].tolist()[::-1], equal[at].tolist()[::-1], strict=True)


def _best_of_each(codes: Ints | Hashes, rows: Ints) -> Ints:
    """For each row the lowest row with the same code; `rows` rise."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.asarray(rows[first][inverse], np.int64) if len(rows) else rows


def _mixed(hashes: Hashes, known: Flags) -> Hashes:
    """One number for all hashes of a clip, equal for equal ones, and by chance with a probability of 2⁻⁶⁴ (splitmix64)."""
    mixed = np.zeros(len(hashes), np.uint64)
    with np.errstate(over="ignore"):
        for column in range(hashes.shape[1]):
            z = mixed ^ np.where(known[:, column], hashes[:, column], np.uint64(column + 1))
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            mixed = z ^ z >> np.uint64(31)
    return mixed
