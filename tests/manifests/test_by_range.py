"""What is fetched of a store that serves ranges: counted by a filesystem whose files go through fsspec's own caches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from longtake.manifests.frames import StoredFrames, frames_writer, read_frames
from longtake.manifests.ids import video_id
from longtake.manifests.store import Manifest

VIDEO = video_id("a long film.mp4")


class RangedFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data = self.fs.store[self.path].getvalue()[start:end]
        Ranged.fetched.append(len(data))
        return bytes(data)


class Ranged(MemoryFileSystem):  # type: ignore[misc]
    """An object store: whole puts, and reads by range, of which it keeps a log."""

    protocol = "ranged"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    fetched: list[int] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("ranged://").strip("/")

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **more)
        if path not in self.store:
            raise FileNotFoundError(path)
        more.pop("block_size", None)
        return RangedFile(self, path, mode, 5 * 2**20, cache_type=more.get("cache_type", "readahead"))

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        with open(lpath, "rb") as file:
            self.pipe_file(self._strip_protocol(rpath), file.read())


@pytest.fixture
def fetched() -> Iterator[list[int]]:
    fsspec.register_implementation("ranged", Ranged, clobber=True)
    Ranged.store.clear()
    Ranged.fetched.clear()
    yield Ranged.fetched
    Ranged.store.clear()


def noise(rng: np.random.Generator, size: int) -> bytes:
    return rng.bytes(size)


def test_eight_clips_of_240_fetch_little_more_than_their_frames(fetched: list[int]) -> None:
    rng = np.random.default_rng(0)
    size = 20_000
    times = [float(i) for i in range(5)]
    with frames_writer("ranged://films", VIDEO) as writer:
        for i in range(240):
            pictures = [noise(rng, size) for _ in range(10)]
            writer.write(StoredFrames(f"{i:032d}", pictures[:5], pictures[5:], times, times, b"mask"))
    wanted = [f"{i:032d}" for i in range(3, 240, 30)]
    fetched.clear()
    found = read_frames("ranged://films", VIDEO, wanted)
    assert sorted(found) == wanted
    assert {len(picture) for frames in found.values() for picture in frames.keyframes} == {size}
    assert sum(fetched) <= 1.3 * 8 * 10 * size
    assert len(fetched) <= 3 + 8  # The index is read, and then the frames of each clip.


def test_two_columns_fetch_little_more_than_their_bytes(fetched: list[int]) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("clip_id", pa.string()), ("flow", pa.float64()), ("wide", pa.binary())])
    manifest = Manifest("ranged://workspace", "clips", "clip_id", schema)
    rows = 20_000
    for part in range(3):
        ids = [f"{part}{i:08d}" for i in range(rows)]
        wide = pa.array([noise(rng, 500) for _ in range(rows)], pa.binary())
        manifest.append(pa.table({"clip_id": ids, "flow": rng.random(rows), "wide": wide}))
    theirs = footers = 0
    for name, data in Ranged.store.items():
        if name.endswith(".parquet"):
            metadata = pq.ParquetFile(io.BytesIO(data.getvalue())).metadata
            footers += max(64 * 1024, metadata.serialized_size + 8)  # Arrow asks for the last 64 KiB first.
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            theirs += sum(group.column(i).total_compressed_size for group in groups for i in (0, 1))
    fetched.clear()
    table = manifest.read(["clip_id", "flow"])
    assert table.num_rows == 3 * rows
    assert sum(fetched) <= 1.2 * theirs + footers
    fetched.clear()
    assert sum(table.num_rows for table in manifest.scan(["clip_id", "flow"])) == 3 * rows
    assert sum(fetched) <= 2.2 * theirs + 2 * footers  # The keys are read once more, to know which rows count.
