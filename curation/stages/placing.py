"""Copies of clips into a dataset in a bucket: workers of the run ask for each copy, and the store makes it by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa

from longtake.curation.running.jobs import Job, Report, split
from longtake.manifests.folder import Folder

_BATCH = 500  # Clips of a batch: some seconds of waiting for the store.
_AT_ONCE = 16  # Copies that a worker asks for at the same moment.
_COPY_SECONDS = 0.002  # Seconds of CPU that a worker takes to ask for one copy.


class PlaceWorker:
    """Copies files of one folder of a store into another."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __call__(self, batch: pa.Table) -> Report:
        started, cpu = time.monotonic(), time.process_time()
        # The clients of both sides are made in one thread: those of two threads count as two stores, and no store copies between.
        place = Folder(self.place)
        sources = {uri: Folder(uri) for uri in batch["source"].unique().to_pylist()}

        def copy(row: Mapping[str, str]) -> None:
            with suppress(FileNotFoundError):  # The driver looks which clips are missing.
                place.link(sources[row["source"]], row["name"], row["target"])

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(copy, batch.to_pylist()):
                pass
        return Report(rows=batch.num_rows, seconds=time.monotonic() - started, cpu_seconds=time.process_time() - cpu)


def by_workers(perform: Callable[[Job], None]) -> Callable[[Folder, Mapping[str, tuple[Folder, str]]], None]:
    """A function that copies clips into a folder with the run's workers. perform: does a job."""

    def copy(place: Folder, clips: Mapping[str, tuple[Folder, str]]) -> None:
        if clips:
            perform(job(place, clips))

    return copy


def job(place: Folder, clips: Mapping[str, tuple[Folder, str]]) -> Job:
    """The job of copying clips. clips: the path of each clip in `place` → the folder and name of its file."""
    table = pa.table(
        {
            "source": pa.array([folder.uri for folder, _ in clips.values()], pa.string()),
            "name": pa.array([name for _, name in clips.values()], pa.string()),
            "target": pa.array(list(clips), pa.string()),
        }
    )
    batches = split(table, [1.0] * table.num_rows, per_batch=_BATCH, at_most=_BATCH)
    return Job("export", batches, PlaceWorker, (place.uri,), clip_seconds=_COPY_SECONDS)
