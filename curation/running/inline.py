"""Batches through one worker in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pyarrow as pa

from longtake.curation.running.jobs import Hands, Job, Report, See, Worker, parts_of


class Inline:
    """Everything in this process, one batch after the other."""

    workers = 1

    def start(self) -> None:
        """Nothing to wait for."""

    def run(self, job: Job, say: Callable[[str], None] | None = None, see: See | None = None) -> Generator[Report]:
        """The reports of a job's batches, as they end. see: told once that this process is at work."""
        if see is not None:
            gpus = 1.0 if job.on_gpu and any(Path("/dev").glob("nvidia[0-9]*")) else 0.0
            see({job.stage: Hands(workers=1, batches=min(job.at_once, len(job.batches)), gpus=gpus)})
        yield from in_this_process(job)

    def close(self) -> None:
        """Nothing to end."""


def in_this_process(job: Job) -> Generator[Report]:
    worker = job.worker(*job.args)
    try:
        if job.at_once == 1:
            for batch in job.batches:
                yield from map(worker, parts_of(worker, batch))
        else:
            yield from _side_by_side(worker, job.batches, job.at_once)
    finally:
        if close := getattr(worker, "close", None):
            close()


def _side_by_side(worker: Worker, batches: Sequence[pa.Table], at_once: int) -> Generator[Report]:
    """The reports of batches as they end. Raises what a batch raises; the others are then left to themselves."""
    left, lock, over = iter(batches), threading.Lock(), threading.Event()
    ended: queue.SimpleQueue[Report | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not over.is_set():
                with lock:
                    batch = next(left, None)
                if batch is None:
                    break
                for part in parts_of(worker, batch):
                    ended.put(worker(part))
        except BaseException as error:
            ended.put(error)
        ended.put(None)

    threads = min(at_once, len(batches))
    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    try:
        while threads:
            report = ended.get()
            if report is None:
                threads -= 1
            elif isinstance(report, BaseException):
                raise report
            else:
                yield report
    finally:
        over.set()
