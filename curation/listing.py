"""Listings of folders and buckets, of any length: in the order of names, and only some of them in memory at a time."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from longtake.curation.workspace import MANIFESTS, RECIPE_FILE

HELD = 100_000  # Texts that are held in memory, at some 100 bytes each. Of more, some are put aside in files.
_BLOCK = 1000  # Texts that are written and read together.
_BITS = 28  # The bits of `Inodes` are 2 to this power: 32 MiB, with which 10 million files are looked for in vain 4 times of 100.

_One = TypeVar("_One")


def in_order(texts: Iterable[str]) -> Iterator[str]:
    """Texts, sorted. All are drawn before the first is given; of many, sorted runs are put aside in files and merged."""
    coming = iter(texts)
    run = sorted(islice(coming, HELD))
    if len(run) < HELD:
        yield from run
        return
    with tempfile.TemporaryDirectory(prefix="longtake-names-") as folder:
        runs: list[Path] = []
        while run:
            runs.append(Path(folder) / str(len(runs)))
            with open(runs[-1], "xb") as file:
                _write(file, run)
            run = sorted(islice(coming, HELD))
        yield from heapq.merge(*map(_read, runs))


def _write(file: BinaryIO, texts: Sequence[str]) -> None:
    for start in range(0, len(texts), _BLOCK):
        pickle.dump(texts[start : start + _BLOCK], file)


def _read(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        while file.peek(1):
            yield from pickle.load(file)


class Waiting:
    """Texts that wait for their turn, first in, first out. They are taken by one iteration, during which more may be added."""

    def __init__(self) -> None:
        self._new: list[str] = []
        self._file: Any = None
        self._at = self._end = 0

    def append(self, text: str) -> None:
        self._new.append(text)
        if len(self._new) >= HELD:
            self._file = self._file or tempfile.TemporaryFile(prefix="longtake-names-")  # noqa: SIM115 (it ends with this object)
            self._file.seek(self._end)
            _write(self._file, self._new)
            self._new, self._end = [], self._file.tell()

    def __iter__(self) -> Iterator[str]:
        while self._at < self._end or self._new:
            if self._at < self._end:
                self._file.seek(self._at)
                texts = pickle.load(self._file)
                self._at = self._file.tell()
            else:
                texts, self._new = self._new, []
            yield from texts


class Inodes:
    """The files of one device that were seen, and a number for the name under which each came first: 16 bytes a file."""

    def __init__(self) -> None:
        self._new: dict[int, int] = {}
        self._settled: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []  # Inodes in order, their names.
        self._bits: npt.NDArray[np.uint8] | None = None  # A bit for each inode that is settled. Several may share one.

    def first(self, inode: int, name: int) -> int:
        """The name under which a file came first: this one, if it is new."""
        known = self._new.get(inode)
        if known is None and self._bits is not None:
            known = self._find(inode)
        if known is not None:
            return known
        self._new[inode] = name
        if len(self._new) >= HELD:
            self._settle()
        return name

    def _find(self, inode: int) -> int | None:
        assert self._bits is not None
        bit = (inode * _FACTOR & _ALL) >> (64 - _BITS)
        if self._bits[bit >> 3] >> (bit & 7) & 1:
            for inodes, names in self._settled:
                at = int(np.searchsorted(inodes, np.uint64(inode)))
                if at < len(inodes) and int(inodes[at]) == inode:
                    return int(names[at])
        return None

    def _settle(self) -> None:
        inodes = np.fromiter(self._new.keys(), np.uint64, len(self._new))
        names = np.fromiter(self._new.values(), np.int64, len(self._new))
        self._new = {}
        if self._bits is None:
            self._bits = np.zeros(1 << (_BITS - 3), np.uint8)
        bits = inodes * np.uint64(_FACTOR) >> np.uint64(64 - _BITS)
        np.bitwise_or.at(self._bits, bits >> np.uint64(3), np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8))
        # Each is four times as long as the next, at least: there are few, and a file is moved a few times.
        while self._settled and len(self._settled[-1][0]) < 4 * len(inodes):
            older = self._settled.pop()
            inodes, names = np.concatenate([older[0], inodes]), np.concatenate([older[1], names])
        order = np.argsort(inodes)
        self._settled.append((inodes[order], names[order]))


_FACTOR = 0x9E3779B97F4A7C15
_ALL = 2**64 - 1


def files_below(filesystem: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The files below a folder of an fsspec filesystem, in the order of names, each with what the listing tells of it (at least
    `size`). A listing of S3 is read page by page; of other stores the client holds it whole."""
    if hasattr(filesystem, "call_s3"):
        return _pages_of_s3(filesystem, path)
    return iter(sorted(filesystem.find(path, detail=True).items()))


def _pages_of_s3(filesystem: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    bucket, key, _ = filesystem.split_path(path)
    asked = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key.strip("/") else "", **filesystem.req_kw}
    more: dict[str, str] = {}
    while True:
        page = filesystem.call_s3("list_objects_v2", **asked, **more)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):  # Some programs make an object for a folder.
                yield f"{bucket}/{entry['Key']}", {"size": entry["Size"], "LastModified": entry["LastModified"]}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def looked_through(listing: Callable[[], Iterator[_One]], look: Callable[[_One], None]) -> Iterator[_One]:
    """A listing, after `look` has seen all of it. A short one is kept meanwhile, and a long one is asked for again."""
    kept: list[_One] = []
    count = 0
    for one in listing():
        look(one)
        count += 1
        if count <= HELD:
            kept.append(one)
    return iter(kept) if count <= HELD else listing()


class WorkspacesPassing:
    """Finds the workspaces in a listing that goes by: folders with a recipe beside a manifest. target: the one that is written
    to, which is a workspace before it has either."""

    def __init__(self, target: str | None) -> None:
        self._target, self._entered = target, False
        self._recipes: set[str] = set()
        self._manifests: set[str] = set()

    def look(self, entry: tuple[str, Mapping[str, Any]]) -> None:
        """One file of the listing."""
        name, _ = entry
        self._entered = self._entered or (self._target is not None and name.startswith(f"{self._target}/"))
        folder, _, file = name.rpartition("/")
        if file == RECIPE_FILE:
            self._recipes.add(folder)
        elif file.endswith(".parquet") and folder.rpartition("/")[2] in MANIFESTS:
            self._manifests.add(folder.rpartition("/")[0])

    def found(self) -> list[str]:
        """The workspaces, in order."""
        return sorted((self._recipes & self._manifests) | ({self._target} if self._entered and self._target else set()))
