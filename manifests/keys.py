"""Keys as numbers: 128 bits for each string, so that ten million keys take 160 MB and are compared without a hash table.

Two different keys have the same 128 bits with a probability of 1e-24 among ten million keys; they are taken for equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]  # [2, keys]
Bools = npt.NDArray[np.bool_]

# An odd factor and a shift for each half of the 128 bits.
_LANES = ((0x9E3779B97F4A7C15, 29), (0xD6E8FEB86659FD93, 32))
_NULL = "\0null"  # Replaces a key that is null: no id has this name.


def hashed(keys: pa.Array | pa.ChunkedArray) -> Hashes:
    """128 bits for each key; equal keys have equal ones, in whatever array they stand."""
    chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    hashes = [_hashed(chunk) for chunk in chunks if len(chunk)]
    return np.concatenate(hashes, axis=1) if hashes else np.zeros((2, 0), np.uint64)


def _hashed(keys: pa.Array) -> Hashes:
    if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)):
        keys = keys.cast(pa.large_string())
    if keys.null_count:
        keys = pc.fill_null(keys, _NULL)
    _, offsets, data = keys.buffers()
    width = np.int64 if pa.types.is_large_string(keys.type) else np.int32
    edges = np.frombuffer(offsets, width)[keys.offset : keys.offset + len(keys) + 1].astype(np.int64)
    starts, lengths = edges[:-1] - edges[0], np.diff(edges)
    text = b"" if data is None else memoryview(data)[int(edges[0]) : int(edges[-1])]
    padded = np.zeros(len(text) + 8, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    words = np.ndarray((len(text) + 1,), np.uint64, padded, strides=(1,))  # Row i is the eight bytes from byte i on.
    hashes = np.empty((2, len(keys)), np.uint64)
    hashes[:] = lengths.astype(np.uint64)
    shortest = int(lengths.min())
    for start in range(0, int(lengths.max()), 8):
        if start + 8 <= shortest:
            _mix(hashes, words[starts + start])
            continue
        here = np.flatnonzero(lengths > start)
        left = np.minimum(lengths[here] - start, 8).astype(np.uint64)
        mixed = hashes[:, here]
        # The bytes after the end of a key belong to its neighbour and are shifted out.
        _mix(mixed, words[starts[here] + start] << (np.uint64(64) - np.uint64(8) * left))
        hashes[:, here] = mixed
    return hashes


def _mix(hashes: Hashes, words: npt.NDArray[np.uint64]) -> None:
    for half, (factor, shift) in zip(hashes, _LANES, strict=True):
        half ^= words
        half *= np.uint64(factor)
        half ^= half >> np.uint64(shift)


def in_part(keys: pa.Array | pa.ChunkedArray, part: tuple[int, int]) -> Bools:
    """Which keys belong to the I-th of N parts (I from 1): each to one of them, always the same, and about as many to each."""
    which, parts = part
    return np.asarray(hashed(keys)[0] % np.uint64(parts) == np.uint64(which - 1))


def newest(keys: Sequence[pa.ChunkedArray]) -> list[Bools] | None:
    """For the keys of each part, oldest first: a mask of the rows that no later row replaces. None: of all rows."""
    return newest_of([hashed(part) for part in keys])


def newest_of(parts: Sequence[Hashes]) -> list[Bools] | None:
    """As `newest`, of the hashes of each part."""
    first = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.uint64)
    if _distinct(first):
        return None
    second = np.concatenate([part[1] for part in parts])
    order = np.argsort(first, kind="stable")
    same = first[order[1:]] == first[order[:-1]]
    if (second[order[1:]][same] != second[order[:-1]][same]).any():
        order = np.lexsort((second, first))
        same = (first[order[1:]] == first[order[:-1]]) & (second[order[1:]] == second[order[:-1]])
    if not same.any():
        return None
    mask = np.ones(len(first), bool)
    mask[order[:-1][same]] = False  # The next one in order is the same key, and comes later.
    return np.split(mask, np.cumsum([part.shape[1] for part in parts])[:-1])


def _distinct(numbers: npt.NDArray[np.uint64]) -> bool:
    ordered = np.sort(numbers)
    return not bool((ordered[1:] == ordered[:-1]).any())


class Index:
    """Finds keys among many. hashes: of distinct keys, or of repeated ones where any of their rows will do."""

    def __init__(self, hashes: Hashes) -> None:
        self._order = np.argsort(hashes[0], kind="stable")
        self._first, self._second = hashes[0][self._order], hashes[1][self._order]

    @classmethod
    def of(cls, keys: pa.Array | pa.ChunkedArray) -> Index:
        """Of keys themselves."""
        return cls(hashed(keys))

    def __len__(self) -> int:
        return len(self._order)

    def find(self, keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The row of each key; −1 where it is not there."""
        return self.find_hashed(hashed(keys))

    def find_hashed(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """As `find`, by the hashes of the keys."""
        positions = np.full(hashes.shape[1], -1)
        if not len(self._order):
            return positions
        by_size = np.argsort(hashes[0])  # Sorted by hash, neighbours are looked up in the same part of memory.
        first, second = hashes[0][by_size], hashes[1][by_size]
        at = np.searchsorted(self._first, first)
        open_ = np.arange(len(at))
        while open_.size:
            inside = at[open_] < len(self._order)
            open_ = open_[inside]
            open_ = open_[self._first[at[open_]] == first[open_]]
            right = self._second[at[open_]] == second[open_]
            positions[by_size[open_[right]]] = self._order[at[open_[right]]]
            open_ = open_[~right]
            at[open_] += 1
        return positions

    def has(self, keys: pa.Array | pa.ChunkedArray) -> Bools:
        """Which keys are there."""
        return np.asarray(self.find(keys) >= 0)


class Seen:
    """A growing set of keys, of 16 bytes each."""

    def __init__(self) -> None:
        self._index = Index(np.zeros((2, 0), np.uint64))
        self._hashes = np.zeros((2, 0), np.uint64)
        self._new: list[str] = []

    def __len__(self) -> int:
        """How many keys were added; one that was added twice counts twice."""
        return self._hashes.shape[1] + len(self._new)

    def update(self, keys: Sequence[str]) -> None:
        self._new += keys
        if len(self._new) > 10_000 + self._hashes.shape[1] // 4:
            self._settle()

    def has(self, keys: pa.Array | pa.ChunkedArray) -> Bools:
        """Which keys were added."""
        self._settle()
        return self._index.has(keys)

    def _settle(self) -> None:
        if self._new:
            more = hashed(pa.array(self._new, pa.large_string()))
            self._hashes = np.concatenate([self._hashes, more], axis=1)
            self._index, self._new = Index(self._hashes), []
