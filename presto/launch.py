"""The trainer's two launchers on Ray: `encode` as a Ray Data job, `fit` under Ray Train. Ray is imported here only.

What is committed does not depend on Ray: encode's workers append their own rows, and a training worker that is lost is
replaced and goes on from the newest checkpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.presto.encode import EncodeSettings, EncodeWorker, Todo
from longtake.presto.errors import PrestoError
from longtake.presto.prepare import Run, prepare


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """The cluster at an address, or one of this machine's, which ends with the block; one that is joined already stays."""
    import ray

    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # its core tells of actors that might not come back; ours need nothing that could get lost
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        options: dict[str, Any] = {} if address else {"include_dashboard": False}
        # not None, which would join whatever cluster this machine was last in
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def encode_on_ray(todo: Todo, address: str | None = None, workers: int | None = None) -> tuple[int, int]:
    """Encode on a Ray cluster (None: one is started here), one worker per GPU, or per two CPUs where there is none:
    (rows, of them errors). Raises PrestoError if a worker cannot be made; what is done is kept."""
    if not todo.batches:
        return 0, 0
    import ray
    import ray.data

    with _cluster(address):
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        have = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = int(have.get("GPU", 0))
        size = min(workers or gpus or max(1, int(have.get("CPU", 1)) // 2), len(todo.batches))
        done = ray.data.from_arrow(todo.batches).map_batches(
            _Encode,
            fn_constructor_args=(todo.settings,),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_gpus=1 if gpus else 0,
            num_cpus=1,
        )
        rows = errors = 0
        blocks: Any = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for block in blocks:
            for report in block.to_pylist():
                if report["failure"]:
                    raise PrestoError(f"encode: {report['failure']}")
                rows, errors = rows + report["rows"], errors + report["errors"]
        return rows, errors


class _Encode:
    """EncodeWorker as Ray Data calls it. A fault of the set-up is a row too: Ray would make the actor again for ever."""

    def __init__(self, settings: EncodeSettings) -> None:
        self._failure = ""
        try:
            self._worker = EncodeWorker(settings)
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = errors = 0
        if not self._failure:
            try:
                rows, errors = self._worker(batch)
            except Exception as error:
                self._failure = f"{type(error).__name__}: {error}"
        return pa.table({"rows": [rows], "errors": [errors], "failure": [self._failure]})


def fit_on_ray(run: Run, workers: int, *, gpus: bool, retries: int = 3, address: str | None = None) -> Path:
    """`longtake.presto.train.fit` under Ray Train (TorchTrainer): `workers` ranks, one GPU each if `gpus`. A lost worker or node
    ends the group, which is made anew, up to `retries` times, and goes on from the newest checkpoint. The folders of
    `run` must be reachable under the same names on all nodes. Raises PrestoError."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    prepare(run).plan.require_world(workers)  # what can be known now need not be found out by every worker, four times
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

    # a barrier: every rank calls it, which `fit` promises
    fit(given["run"], report=ray.train.report)
