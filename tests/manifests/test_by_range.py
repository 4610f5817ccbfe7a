"""What is fetched of a store that serves ranges: counted by a filesystem whose files go through fsspec's own caches."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from longtake.manifests.folder import Folder
from longtake.manifests.frames import StoredFrames, frames_writer, read_frames
from longtake.manifests.ids import video_id
from longtake.manifests.ranges import Fetched
from longtake.manifests.store import Manifest

VIDEO = video_id("a long film.mp4")


class RangedFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data = self.fs.store[self.path].getvalue()[start:end]
        Ranged.fetched.append(len(data))
        Ranged.threads.add(type(threading.current_thread()).__name__)
        return bytes(data)


class Ranged(MemoryFileSystem):  # type: ignore[misc]
    """An object store: whole puts, and reads by range, of which it keeps a log."""

    protocol = "ranged"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    fetched: list[int] = []  # noqa: RUF012
    threads: set[str] = set()  # noqa: RUF012

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
    Ranged.threads.clear()
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
    # A thread that Python did not start is one of Arrow's: it lets go of the file a moment after the read, and where the
    # interpreter ends meanwhile, the process aborts.
    assert "_DummyThread" not in Ranged.threads


def test_frames_are_read_on_no_thread_that_may_outlive_the_interpreter(fetched: list[int]) -> None:
    with frames_writer("ranged://films", VIDEO) as writer:
        for i in range(4):
            writer.write(StoredFrames(f"{i:032d}", [bytes(20_000)], [bytes(20_000)], [0.0], [0.5], None))
    assert len(read_frames("ranged://films", VIDEO, [f"{i:032d}" for i in (0, 2)])) == 2
    assert Ranged.threads == {"_MainThread"}


def test_a_small_file_is_one_request(fetched: list[int]) -> None:
    """Its end, where the index is, holds all of it."""
    manifest = Manifest("ranged://workspace", "clips", "clip_id", pa.schema([("clip_id", pa.string())]))
    manifest.append(pa.table({"clip_id": ["a", "b"]}))
    fetched.clear()
    assert manifest.read(["clip_id"]).num_rows == 2
    assert len(fetched) == 1


class Served(Ranged):
    """A store whose client asks for several ranges at the same time."""

    protocol = "served"
    async_impl = True
    asked: list[tuple[list[int], list[int]]] = []  # noqa: RUF012

    def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int], **more: Any) -> list[bytes]:
        self.asked.append((starts, ends))
        return [bytes(self.store[path].getvalue()[a:b]) for path, a, b in zip(paths, starts, ends, strict=True)]


def test_ranges_far_apart_are_asked_for_together_and_near_ones_as_one() -> None:
    fsspec.register_implementation("served", Served, clobber=True)
    folder = Folder("served://place")
    data = noise(np.random.default_rng(1), 2_000_000)
    folder.filesystem.pipe_file(f"{folder.root}/file", data)
    Served.asked.clear()
    with Fetched(folder, "file") as file:
        file.fetch([(900_000, 950_000), (0, 100), (50_000, 60_000), (960_000, 1_000_000)])
        assert Served.asked == [([0, 900_000], [60_000, 1_000_000])]
        asked = len(Ranged.fetched)
        for start, end in ((920_000, 940_000), (0, 60_000), (999_999, 1_000_000)):
            file.seek(start)
            assert file.read(end - start) == data[start:end]
        assert len(Ranged.fetched) == asked
        file.seek(-10, 2)
        assert (file.read(), file.read(5), file.tell()) == (data[-10:], b"", len(data))
    Ranged.store.clear()
