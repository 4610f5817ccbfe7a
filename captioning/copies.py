"""Captions that come again and again: near-duplicate texts over a whole corpus, exact ones included.

Two texts are near-duplicates if the shares of their three-word sequences that they have in common (Jaccard) reach a
threshold. Texts are taken most frequent first, then in alphabetical order; each joins the first text before it that it is
a near-duplicate of, and is compared with that one only (no chains). So the groups depend on the texts alone, and not on
when they came. Candidates are found by MinHash (Broder, 1997) with banding: 8 bands of 4 hashes find a pair of Jaccard
0.9 with a chance of 99.99 %, one of 0.8 with 98.5 %; each candidate is then compared exactly. Hashes are fixed, so
every run finds the same. Plain numpy: the libraries for this hash a million texts one by one, in Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from longtake.captioning.checks import normalised

WORDS = 3  # Words in a row that make one sequence.
BANDS, ROWS = 8, 4
BLOCK = 20_000  # Texts whose hashes are worked out together: it bounds memory.
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def copies(texts: Sequence[str], threshold: float = 0.8) -> tuple[Indices, Indices]:
    """For each text the size of its group, and the index of the first text of it.

    Texts that differ only in case, punctuation and spacing are the same text.
    """
    gathered = Gathered(threshold)
    gathered.add(texts)
    return gathered.groups(np.arange(len(texts)), lambda rows: [texts[i] for i in rows.tolist()])


class Gathered:
    """Many texts as a few numbers each, some 40 bytes, so that those of a whole corpus can be compared."""

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"a threshold is above 0 and up to 1, not {threshold!r}")
        self._threshold = threshold
        self._words = _Words()
        self._hashes: list[Hashes] = []
        self._bands: list[npt.NDArray[np.uint32]] = []

    def add(self, texts: Sequence[str]) -> None:
        """The next texts."""
        for start in range(0, len(texts), BLOCK):
            plain = [normalised(text) for text in texts[start : start + BLOCK]]
            digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in plain)
            self._hashes.append(np.frombuffer(digests, "<u8").astype(np.uint64))
            self._bands.append(_bands(_block(plain, self._words)).astype(np.uint32))

    def groups(self, order: Indices, texts_of: Callable[[Indices], list[str]]) -> tuple[Indices, Indices]:
        """What `copies` gives. order: of the texts, by which one is the first of its group. texts_of: gives the texts of some
        rows; asked only for those that have something in common with another."""
        if not len(order):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        hashes = np.concatenate(self._hashes)[order]
        _, first, inverse, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        rows = order[first]
        met = _met(np.concatenate(self._bands)[rows])
        texts = [normalised(text) for text in texts_of(rows[met])]
        # The most frequent first, and alphabetical among equally frequent ones.
        sequence = sorted(range(len(met)), key=lambda i: (-int(counts[met[i]]), texts[i]))
        leader = _leaders([texts[i] for i in sequence], self._threshold)
        of_text = np.arange(len(counts))
        of_text[met[sequence]] = met[sequence][leader]
        sizes = np.zeros(len(counts), np.int64)
        np.add.at(sizes, of_text, counts)
        group = of_text[inverse]
        size, begins = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        size[order], begins[order] = sizes[group], rows[group]
        return size, begins


def _met(bands: npt.NDArray[np.uint32]) -> Indices:
    """Which texts have the same number as another in some band. bands: uint32 [texts, BANDS]; some are equal by chance."""
    shared = np.zeros(len(bands), np.bool_)
    for band in range(BANDS):
        _, inverse, counts = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        shared |= counts[inverse] > 1
    return np.flatnonzero(shared)


def _leaders(texts: Sequence[str], threshold: float) -> Indices:
    """For each text the index of the one that it belongs to; its own, if it is the first of its kind."""
    leader = np.arange(len(texts))
    if not len(texts):
        return leader
    words = _Words()
    keys = [_bands(_block(texts[start : start + BLOCK], words)) for start in range(0, len(texts), BLOCK)]
    bucket, met = _buckets(np.concatenate(keys))
    del keys
    members: dict[int, list[int]] = {}  # Bucket → leaders.
    pieces: dict[int, Hashes] = {}  # Leader → the hashes of its sequences.
    for start in range(0, len(met), BLOCK):
        block = met[start : start + BLOCK].tolist()
        hashes, edges = _block([texts[i] for i in block], words)
        for i, run in zip(block, np.split(hashes, edges[1:]), strict=True):
            own, own_buckets = np.unique(run), bucket[i].tolist()
            near = sorted({j for b in own_buckets for j in members.get(b, ())})
            if near and (like := _alike(own, [pieces[j] for j in near], threshold)) is not None:
                leader[i] = near[like]
                continue
            pieces[i] = own
            for b in own_buckets:
                if b >= 0:
                    members.setdefault(b, []).append(i)
    return leader


def _alike(own: Hashes, others: Sequence[Hashes], threshold: float) -> int | None:
    """The first of the sets that has so much in common with `own`."""
    sizes = np.array([len(other) for other in others])
    everything = np.concatenate(others)
    at = np.searchsorted(own, everything)
    at[at == len(own)] = 0
    common = np.add.reduceat((own[at] == everything).astype(np.int64), np.cumsum(sizes) - sizes)
    alike = common >= threshold * (len(own) + sizes - common)
    return int(alike.argmax()) if alike.any() else None


class _Words(dict[str, int]):
    """A 64-bit hash for each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        number = self[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return number


def _block(texts: Sequence[str], words: _Words) -> tuple[Hashes, Indices]:
    """The sequences of words of normalised texts as 64-bit hashes, one text after the other, and where each begins. Of a
    text shorter than a sequence, all of it."""
    split = [text.split() or [""] for text in texts]
    lengths = np.array([len(one) for one in split], np.int64)
    hashes = np.fromiter((words[word] for one in split for word in one), np.uint64, int(lengths.sum()))
    begins = np.cumsum(lengths) - lengths
    counts = np.maximum(1, lengths - WORDS + 1)
    edges = np.cumsum(counts) - counts
    at = np.arange(int(counts.sum())) + np.repeat(begins - edges, counts)  # The first word of each sequence.
    last = np.repeat(begins + lengths - 1, counts)
    mixed = np.zeros(len(at), np.uint64)
    for step in range(WORDS):
        inside = at + step <= last
        word = np.where(inside, hashes[np.minimum(at + step, last)], np.uint64(0))
        mixed = _mixed(mixed * _PRIME + word)
    return mixed, edges


def _bands(block: tuple[Hashes, Indices]) -> Hashes:
    """uint64 [texts, BANDS]; texts that are much alike have a number in common."""
    hashes, edges = block
    bands = np.zeros((len(edges), BANDS), np.uint64)
    for band in range(BANDS):
        for row in range(ROWS):
            mixed = _mixed(hashes ^ np.uint64((band * ROWS + row + 1) * 0x2545F4914F6CDD1D & (2**64 - 1)))
            bands[:, band] = _mixed(bands[:, band] * _PRIME + np.minimum.reduceat(mixed, edges))
    return bands


def _buckets(bands: Hashes) -> tuple[Indices, Indices]:
    """int64 [texts, BANDS]: who has the same number in a band, and -1 for those that nobody shares it with; and the texts
    that share any, in order. Most texts of a good corpus do not, and need no further look."""
    buckets = np.full(bands.shape, -1, np.int64)
    for band in range(BANDS):
        _, inverse, counts = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        buckets[:, band] = np.where(counts[inverse] > 1, inverse * BANDS + band, -1)
    return buckets, np.flatnonzero((buckets >= 0).any(axis=1))


def _mixed(values: Hashes) -> Hashes:
    """A permutation of 64-bit numbers that leaves no trace of their order (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
