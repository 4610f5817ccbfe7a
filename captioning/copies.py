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
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from captioning.checks import normalised

WORDS = 3  # in a row
BANDS, ROWS = 8, 4
BLOCK = 20_000  # texts whose hashes are worked out together
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Indices = npt.NDArray[np.int64]


def copies(texts: Sequence[str], threshold: float = 0.8) -> tuple[Indices, Indices]:
    """For each text the size of its group, and the index of the first text of it.

    Texts that differ only in case, punctuation and spacing are the same text.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is above 0 and up to 1, not {threshold!r}")
    if not len(texts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    plain = np.array([normalised(text) for text in texts], dtype=object)
    different, first, inverse, counts = np.unique(plain, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort(
        (np.arange(len(different)), -counts)
    )  # np.unique sorts: alphabetical among equally frequent ones
    leader = _leaders([different[i] for i in order], threshold)
    of_text = np.empty(len(different), np.int64)
    of_text[order] = order[leader]
    sizes = np.zeros(len(different), np.int64)
    np.add.at(sizes, of_text, counts)
    group = of_text[inverse]
    return sizes[group], first[group]


def _leaders(texts: Sequence[str], threshold: float) -> Indices:
    """For each text the index of the one that it belongs to; its own, if it is the first of its kind."""
    leader = np.arange(len(texts))
    buckets: list[dict[int, list[int]]] = [{} for _ in range(BANDS)]
    pieces: dict[int, npt.NDArray[np.uint64]] = {}  # of leaders
    for start in range(0, len(texts), BLOCK):
        sets = [_sequences(text) for text in texts[start : start + BLOCK]]
        for offset, (own, keys) in enumerate(zip(sets, _bands(sets), strict=True)):
            i = start + offset
            near = sorted({j for band, key in zip(buckets, keys, strict=True) for j in band.get(key, ())})
            for j in near:
                common = len(np.intersect1d(own, pieces[j], assume_unique=True))
                if common >= threshold * (len(own) + len(pieces[j]) - common):
                    leader[i] = j
                    break
            else:
                pieces[i] = own
                for band, key in zip(buckets, keys, strict=True):
                    band.setdefault(key, []).append(i)
    return leader


def _sequences(text: str) -> npt.NDArray[np.uint64]:
    """The distinct sequences of words of a normalised text, as sorted 64-bit hashes; of a short text, all of it."""
    words = text.split()
    runs = {" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))}
    return np.unique(
        np.frombuffer(b"".join(hashlib.blake2b(run.encode(), digest_size=8).digest() for run in runs), np.uint64)
    )


def _bands(sets: Sequence[npt.NDArray[np.uint64]]) -> list[list[int]]:
    """BANDS numbers per set; sets that are much alike have one in common."""
    edges = np.concatenate([[0], np.cumsum([len(s) for s in sets])])[:-1]
    everything = np.concatenate(sets)
    bands = []
    for band in range(BANDS):
        key = np.zeros(len(sets), np.uint64)
        for row in range(ROWS):
            mixed = _mixed(everything ^ np.uint64((band * ROWS + row + 1) * 0x2545F4914F6CDD1D & (2**64 - 1)))
            key = _mixed(key * _PRIME + np.minimum.reduceat(mixed, edges))
        bands.append(key)
    keys: list[list[int]] = np.stack(bands, axis=1).tolist()
    return keys


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A permutation of 64-bit numbers that leaves no trace of their order (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
