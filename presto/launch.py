"""The trainer's two launchers on Ray: `encode` on the engine that curates (longtake.curation.running), `fit` under Ray Train.

What is committed does not depend on Ray: encode's workers append their own rows, and a training worker that is lost is
replaced and goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from longtake.presto.encode import EncodeSettings, EncodeWorker, Todo, left
from longtake.presto.errors import PrestoError
from longtake.presto.prepare import Run, prepare

if TYPE_CHECKING:
    from longtake.curation.running.jobs import Report

_MEMORY_MIB = 4096  # MiB of memory that a worker on a cluster takes.
_PATIENCE_SECONDS = 1800.0  # Seconds for a batch of clips. On a CPU the VAE takes minutes for a clip.
_TRIES = 5  # Times in a row that Ray may stop without a finished batch.


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """The cluster at an address, or one of this machine's, which ends with the block; one that is joined already stays."""
    import ray

    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's core warns of actors that might not be restored. Ours hold nothing that could be lost.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        options: dict[str, Any] = {} if address else {"include_dashboard": False}
        # An address of None would join the cluster that this machine was last in.
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def encode_on_ray(
    todo: Todo,
    address: str | None = None,
    workers: int | None = None,
    done: Callable[[int, int], None] = lambda rows, errors: None,
) -> tuple[int, int]:
    """Encode on a Ray cluster (None: one is started here), one worker per GPU, or per CPU where there is none: (rows, of them
    errors). done: is told of each batch. A worker or a node that is lost costs the batch in hand; a clip that ends whoever
    takes it ends as an error. Raises PrestoError if a worker cannot do its work; what is done is kept."""
    from longtake.curation.errors import SetupError
    from longtake.curation.running.jobs import Job, Lost
    from longtake.curation.running.on_ray import AGAIN, Cluster

    rows = errors = tries = 0
    cluster = Cluster(address, workers)
    try:
        while todo.batches:
            job = Job(
                "encode",
                todo.batches,
                _Encode,
                (todo.settings,),
                on_gpu=True,
                memory_mib=_MEMORY_MIB,
                workers=workers,
                patience=_PATIENCE_SECONDS,
            )
            before = rows
            try:
                for report in cluster.run(job, say=print):
                    rows, errors = rows + report.rows, errors + report.errors
                    done(report.rows, report.errors)
                break
            except Lost as error:
                tries = tries + 1 if rows == before else 0
                if tries == _TRIES:
                    raise PrestoError(f"encode: Ray stopped: {error}; {AGAIN}") from error
            todo = left(todo)
    except SetupError as error:
        raise PrestoError(str(error)) from error
    finally:
        cluster.close()
    return rows, errors


class _Encode:
    """EncodeWorker as the engine calls it (longtake.curation.running.jobs.Worker)."""

    def __init__(self, settings: EncodeSettings) -> None:
        self._worker = EncodeWorker(settings)

    def __call__(self, batch: pa.Table) -> Report:
        return _report(self._worker(batch))

    def give_up(self, batch: pa.Table, message: str) -> Report:
        """Errors in place of clips that nobody survives."""
        return _report(self._worker.give_up(batch, message))


def _report(counts: tuple[int, int]) -> Report:
    from longtake.curation.running.jobs import Report

    return Report(rows=counts[0], errors=counts[1])


def fit_on_ray(run: Run, workers: int, *, gpus: bool, retries: int = 3, address: str | None = None) -> Path:
    """`longtake.presto.train.fit` under Ray Train (TorchTrainer): `workers` ranks, one GPU each if `gpus`. A lost worker or node
    ends the group, which is made anew, up to `retries` times, and goes on from the newest checkpoint. The folders of
    `run` must be reachable under the same names on all nodes. Raises PrestoError."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # The check on the driver saves four tries of every worker.
    prepare(run).require_world(run.config.parallel, workers)
    with _cluster(address):
        trainer = TorchTrainer(
            _fit,
            train_loop_config={"run": run},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
            run_config=RunConfig(
                name="ray",
                storage_path=str(run.output.resolve()),
                failure_config=FailureConfig(max_failures=retries),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            raise PrestoError(f"Ray Train stopped: {error}") from error
    return run.output / "export"


def _fit(given: dict[str, Any]) -> None:
    import ray.train

    from longtake.presto.train import fit

    # Every rank calls `report`, which is a barrier, as `fit` promises.
    fit(given["run"], report=ray.train.report)
