"""Batches through a pool of workers on Ray, which is imported here only.

The pool is of plain Ray actors. Ray Data would carry nothing but counts here, and costs 8 to 15 s more until the first of
them (docs/architecture.md): each of its actors imports `ray.data`, next to two actors of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from longtake.curation.errors import SetupError
from longtake.curation.running.inline import in_this_process
from longtake.curation.running.jobs import Job, Report, Worker
from longtake.manifests.uris import redact

_KNOCK_SECONDS = 10.0
_AGAIN = "what is done is kept, and the same command goes on from here"
_IN_HAND = 2  # batches handed to a worker: one that it works on, and one that waits, so that it never idles
_RETRIES = 3  # of a batch whose worker died; a batch that kills every worker must not go round for ever
_CLOSE_SECONDS = 150.0  # that workers have to end what is under way; longer than a captioner gives its answers
_RESTARTS = 50  # of one worker: nodes come and go; one that dies at its start must not be made again for ever


class Cluster:
    """Ray: an existing cluster by its address, or a local one that ends with this object.

    workers: how many at once (None: as many as the cluster's resources carry).
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self.address = address
        self._asked = workers
        self._thread: threading.Thread | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self.started_seconds = 0.0

    def start(self) -> None:
        """Begin to start Ray, which takes seconds, while this process reads lists and plans."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._start, daemon=True)
            self._thread.start()

    def _start(self) -> None:
        started = time.monotonic()
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # its core tells of actors that might not come back; ours need nothing that could get lost
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            _knock(self.address)
            import ray

            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self.address is None:
                options |= {"num_cpus": self._asked or os.cpu_count(), "include_dashboard": False}
            ray.init(address=self.address or "local", **options)
        except BaseException as error:
            self._failure = error
        self.started_seconds = time.monotonic() - started
        self._ready.set()
        # Ray's processes are set to die with the thread that started them
        self._over.wait()

    def _wait(self) -> None:
        self.start()
        self._ready.wait()
        if self._failure is not None:
            where = f"the Ray cluster at {self.address}" if self.address else "a local Ray"
            raise SetupError(f"{where} does not start: {self._failure}") from self._failure

    @property
    def workers(self) -> int:
        """Of one CPU each, as many as there is room for."""
        self._wait()
        return self._asked or max(1, int(_resources().get("CPU", 1)))

    def run(self, job: Job) -> Iterator[Report]:
        """The reports of a job's batches, as they end. Raises SetupError if a worker cannot be made."""
        self._wait()
        if job.on_driver:
            yield from in_this_process(job)
            return
        import ray
        from ray.exceptions import RayActorError, RayError

        options = {
            "num_cpus": job.cpus,
            "num_gpus": 1 if self._gpus(job) else 0,
            "memory": job.memory_mib * 2**20 if self.address else None,
            "max_concurrency": job.at_once,
            "max_restarts": _RESTARTS,
            "max_task_retries": _RETRIES,
        }
        size = min(self._size(job), len(job.batches))
        # closing must not queue behind the batches
        groups: dict[str, Any] = {"concurrency_groups": {"close": 1}} if _closes(job) else {}
        actor: Any = ray.remote(**groups)(StageActor) if groups else ray.remote(StageActor)
        pool: list[Any] = [actor.options(**options).remote(job.worker, job.args) for _ in range(size)]
        made = [worker.__ray_ready__.remote() for worker in pool] if _closes(job) else []
        batches, waiting = iter(job.batches), {}
        suspects: list[pa.Table] = []  # batches whose worker died every time
        lost = 0

        def hand(worker: Any) -> None:
            if (batch := next(batches, None)) is not None:
                waiting[worker.work.remote(batch)] = worker, batch

        try:
            with _interrupts() as interrupted:
                for worker in pool * (job.at_once - 1 + _IN_HAND):
                    hand(worker)
                while waiting or suspects:
                    alone = not waiting
                    if alone:  # a suspect is blamed only if its worker dies with no other batch in hand
                        suspect = suspects.pop()
                        waiting[pool[0].work.remote(suspect)] = pool[0], suspect
                    done, _ = ray.wait(list(waiting), timeout=job.hang_seconds)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
                    if not done:
                        raise SetupError(f"{job.stage}: no batch ended within {job.hang_seconds:g} s; {_AGAIN}")
                    for ended in done:
                        worker, batch = waiting.pop(ended)
                        hand(worker)
                        try:
                            report = ray.get(ended)
                        except RayActorError:
                            if alone:
                                lost += 1
                            else:
                                suspects.append(batch)
                            continue
                        if isinstance(report, str):
                            raise SetupError(f"{job.stage}: {report}")
                        yield report
        except RayError as error:
            raise SetupError(f"{job.stage}: Ray stopped: {error}; {_AGAIN}") from error
        finally:
            try:
                if waiting and _closes(job):  # it ended before its time
                    there, _ = ray.wait(made, num_returns=len(made), timeout=1)  # some may wait for room still
                    closing = [
                        worker.close.options(concurrency_group="close").remote()
                        for worker, one in zip(pool, made, strict=True)
                        if one in there
                    ]
                    if closing:
                        ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
            finally:
                for worker in pool:
                    ray.kill(worker)
        if lost:
            raise SetupError(f"{job.stage}: {lost} batches ended their worker {_RETRIES + 1} times over; {_AGAIN}")

    def _gpus(self, job: Job) -> int:
        """The GPUs that workers of this job take: none, or one each."""
        return int(_resources().get("GPU", 0)) if job.on_gpu else 0

    def _size(self, job: Job) -> int:
        cpus = _resources().get("CPU", 1.0)
        size = self._gpus(job) or int(cpus / job.cpus)
        if size < 1:
            raise SetupError(f"{job.stage}: a worker needs {job.cpus:g} CPU, and the cluster has {cpus:g}")
        return min(size, self._asked or size, job.workers or size)

    def close(self) -> None:
        """Leave the cluster; end it if it is ours."""
        if self._thread is not None:
            self._ready.wait()
            import ray

            ray.shutdown()
            self._over.set()
            self._thread.join()


def run_llm(engine: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows through vLLM in actors of the cluster that this process is in: each row's `number`, and what became of it, in
    any order. engine: arguments of `ray.data.llm.vLLMEngineProcessorConfig`; rows: with `messages` and `sampling_params`.
    Raises SetupError if the engine cannot run."""
    import ray

    if not ray.is_initialized():
        raise SetupError("the captioner vllm runs on a Ray cluster: leave --inline out")
    if "placement_group_config" not in engine:
        needed = engine["engine_kwargs"].get("tensor_parallel_size", 1)
        if (there := _resources().get("GPU", 0)) < needed:  # Ray would wait for them, and say nothing
            raise SetupError(f"vLLM needs {needed} GPUs for an engine, and the cluster has {there:g}")
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its progress is that of a step of many
    ray.data.DataContext.get_current().enable_progress_bars = False
    # by default, each of the four steps around the engine takes a core, or waits for it for ever
    light = {"num_cpus": 0.25}
    config = vLLMEngineProcessorConfig(
        **engine,
        prepare_multimodal_stage=light,
        chat_template_stage=light,
        # vLLM does both itself
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,  # needs packages that ray[data] does not bring
    )
    try:
        through = build_processor(config, preprocess_map_kwargs=light, postprocess_map_kwargs=light)
        # by default, an engine that dies of a question is started anew and asked again for ever
        retries = {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}
        through.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(retries)
        for row in through(ray.data.from_items(rows)).iter_rows():
            yield int(row["number"]), row
    except ray.exceptions.RayError as error:
        # the traces of all actors; what happened stands in the last line
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise SetupError(f"vLLM on the cluster: {lines[-1]}; {_AGAIN}") from error


def _closes(job: Job) -> bool:
    return hasattr(job.worker, "close")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by Ctrl-C, beside the KeyboardInterrupt: raised within a call, Ray's core loses it now and then."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # there Python takes no signals
        yield event
        return

    def interrupt(number: int, frame: Any) -> None:
        event.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _knock(address: str | None) -> None:
    """Raises OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS):
            pass


def _told(error: Exception) -> str:
    return redact(str(error) if isinstance(error, SetupError) else f"{type(error).__name__}: {error}")


class StageActor:
    """A worker as Ray calls it. A set-up fault is an answer too: Ray would otherwise make the actor again."""

    def __init__(self, worker: Callable[..., Worker], args: tuple[Any, ...]) -> None:
        self._failure: str | None = None
        try:
            self._worker = worker(*args)
        except Exception as error:
            self._failure = _told(error)

    def work(self, batch: pa.Table) -> Report | str:
        """The report of a batch, or why none can be worked on."""
        if self._failure is None:
            try:
                return self._worker(batch)
            except Exception as error:
                self._failure = _told(error)
        return self._failure

    def close(self) -> None:
        """End what is under way."""
        if worker := getattr(self, "_worker", None):
            worker.close()
