"""What runs in an actor of Ray Data: a worker, its minder, and what it tells the ledger of each batch.

Through the stream flow items: a batch of a stage. A pool works on those of its own stage, hands others on, and gives out the
items that follow for later stages. What went wrong with the worker itself is told to the ledger, and stops the run; Ray would
otherwise make the actor again for ever.
"""

from __future__ import annotations

import io
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from longtake import __version__
from longtake.curation.errors import SetupError
from longtake.curation.running.faults import this_host
from longtake.curation.running.jobs import Report, Worker, parts_of
from longtake.curation.running.ledger import Orders, Place
from longtake.curation.running.minder import Minder
from longtake.filters.weights import FOLDER_VARIABLE
from longtake.manifests.uris import redact

ITEM = pa.schema([("stage", pa.string()), ("key", pa.string()), ("batch", pa.large_binary())])
_START_SECONDS = 1800.0  # Seconds to load models from a slow disk.
# Seconds between the end of a worker's last batch and its own end, on a node that leaves: Ray fetches the result of the
# batch.
_LEAVE_SECONDS = 2.0

Follow = Callable[[str, pa.Table], list[tuple[str, pa.Table]]]


def item(stage: str, batch: pa.Table) -> pa.Table:
    """A batch of a stage as it flows: one row."""
    target = io.BytesIO()
    with pa.ipc.new_stream(target, batch.schema) as writer:
        writer.write_table(batch)
    return pa.table([[stage], [uuid.uuid4().hex], [target.getvalue()]], schema=ITEM)


@dataclass(frozen=True, slots=True)
class Post:
    """A place in a pool. worker, args: as in a Job. follow: from a stage and the clips that it did to the batches that follow;
    None: no stage follows. version: of the driver's longtake. models: where the driver has its weights; a node that says nothing
    else has them there, too."""

    stage: str
    worker: Callable[..., Worker]
    args: tuple[Any, ...]
    patience: float
    follow: Follow | None
    version: str = __version__
    models: str | None = None


class AtWork:
    """A worker as Ray Data calls it."""

    def __init__(self, post: Post, ledger: Any) -> None:
        # The minder is there before anything that may stand still: Ray waits without limit for an actor that is being made.
        self._minder = Minder()
        self._post, self._ledger = post, ledger
        self._here = Place(uuid.uuid4().hex, ray.get_runtime_context().get_node_id(), this_host(), post.stage)
        self._turns = _Turns()
        self._worker: Any = None
        began = time.monotonic()
        ray.get(ledger.starts.remote(post.stage))
        try:
            _check_place(post)
            with self._minder.within(_START_SECONDS, "start"):
                self._worker = post.worker(*post.args)
        except Exception as error:
            self._fail(error)
            return
        ray.get(ledger.ready.remote(post.stage, self._here.worker, time.monotonic() - began))
        threading.Thread(target=self._leave, daemon=True).start()
        if hasattr(self._worker, "close"):
            threading.Thread(target=self._close, daemon=True).start()

    def __call__(self, items: pa.Table) -> Iterator[pa.Table]:
        for i, one in enumerate(items.to_pylist()):
            if one["stage"] == self._post.stage:
                yield from self._done(one["key"], pa.ipc.open_stream(one["batch"]).read_all())
            else:
                yield items.slice(i, 1)

    def _done(self, key: str, batch: pa.Table) -> list[pa.Table]:
        """Work on a batch; the items that follow from it."""
        try:
            with self._turns.together():
                orders: Orders = ray.get(self._ledger.begin.remote(key, self._here, _first(batch)))
                if orders.stop or self._worker is None:
                    return []
                if not orders.alone:
                    return self._in_parts(key, batch)
            return self._one_by_one(key, batch)
        except Exception as error:
            self._fail(error)
            return []

    def _in_parts(self, key: str, batch: pa.Table) -> list[pa.Table]:
        """A batch as this worker takes it. Parts that another worker has done before it died are not done again."""
        items: list[pa.Table] = []
        at, parts = 0, parts_of(self._worker, batch)
        for part in parts:
            name, at = f"{key}:{at}-{at + part.num_rows}", at + part.num_rows
            if len(parts) > 1:
                orders: Orders = ray.get(self._ledger.begin.remote(name, self._here, _first(part)))
                if orders.stop:
                    return items
                if orders.done:
                    continue
            with self._minder.within(self._post.patience, key):
                report = self._worker(part)
            items += self._ended(name if len(parts) > 1 else key, report)
        if len(parts) > 1:
            ray.get(self._ledger.end.remote(key, Report(stage=self._post.stage)))
        return items

    def _one_by_one(self, key: str, batch: pa.Table) -> list[pa.Table]:
        """The rows of a batch that has killed its workers. One that kills another one, alone, ends as an error."""
        items: list[pa.Table] = []
        with self._turns.alone():
            for i in range(batch.num_rows):
                row, name = batch.slice(i, 1), f"{key}-{i}"
                orders: Orders = ray.get(self._ledger.begin.remote(name, self._here, _first(row)))
                if orders.stop:
                    return items
                if orders.done:
                    continue
                with self._minder.within(self._post.patience, name):
                    report = self._given_up(row, orders.killed) if orders.killed else self._worker(row)
                items += self._ended(name, report)
        ray.get(self._ledger.end.remote(key, Report(stage=self._post.stage)))
        return items

    def _given_up(self, row: pa.Table, killed: tuple[str, ...]) -> Report:
        message = f"its batch ended two workers, and it alone ended another one on {', '.join(killed)}"
        if not hasattr(self._worker, "give_up"):
            raise SetupError(f"a row cannot be worked on: {message}")
        report: Report = self._worker.give_up(row, message)
        return report

    def _ended(self, key: str, report: Report) -> list[pa.Table]:
        follow, clips = self._post.follow, report.clips
        batches = follow(self._post.stage, clips) if follow is not None and clips is not None and clips.num_rows else []
        more: dict[str, int] = {}
        for stage, batch in batches:
            more[stage] = more.get(stage, 0) + batch.num_rows
        told = replace(report, stage=self._post.stage, more=more, clips=None, host=self._here.host)
        ray.get(self._ledger.end.remote(key, told))
        return [item(stage, batch) for stage, batch in batches]

    def _fail(self, error: Exception) -> None:
        self._worker = None
        ray.get(self._ledger.fail.remote(self._post.stage, f"{told(error)} (on {self._here.host})"))

    def _leave(self) -> None:
        """Once this node is to go, end the batches in hand and then this process. Ray makes its actor anew on a node that stays,
        and a node without workers ends by itself."""
        with suppress(RayError):  # The run is over, and the ledger with it.
            ray.get(self._ledger.leaves.remote(self._here.node))
            with self._turns.alone():
                time.sleep(_LEAVE_SECONDS)
                ray.get(self._ledger.left.remote(self._here))
                os._exit(1)

    def _close(self) -> None:
        """Once the run stops, end what is under way."""
        with suppress(RayError):  # The run is over, and the ledger with it.
            ray.get(self._ledger.stopped.remote(self._here.worker))
            if self._worker is not None:
                self._worker.close()
            ray.get(self._ledger.closed.remote(self._here.worker))


def _first(batch: pa.Table) -> str:
    """What a batch is called by those who watch: the identity of its first row's video, its clip, or nothing."""
    name = next((name for name in ("uri", "clip_id", "video_id") if name in batch.column_names), None)
    return redact(str(batch[name][0].as_py())) if name and batch.num_rows else ""


def _check_place(post: Post) -> None:
    """Raises SetupError if this node has another longtake than the driver. Says where weights are, if nobody else does."""
    if post.version != __version__:
        raise SetupError(f"this node has longtake {__version__}, and the command is of longtake {post.version}")
    if post.models is not None:
        os.environ.setdefault(FOLDER_VARIABLE, post.models)


def told(error: Exception) -> str:
    """A fault of a worker in words."""
    return redact(str(error) if isinstance(error, SetupError) else f"{type(error).__name__}: {error}")


class _Turns:
    """Threads that work side by side, or one that must be alone in its process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._here = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._here += 1
        try:
            yield
        finally:
            with self._changed:
                self._here -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._here)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
