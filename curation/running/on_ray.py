"""Running a stage: batches of a todo table through a pool of workers, on Ray or in this process. Ray is imported here only.

A worker measures a batch, appends its rows to the output manifest (atomically: `longtake.manifests.store`) and returns a report.
So what is committed does not depend on Ray: a driver or a worker may be killed at any moment and loses the batch in
hand. A batch is never filtered nor fanned out, and what is left to do is an anti-join over manifests, not a checkpoint.

The pool is of plain Ray actors. Ray Data would carry nothing but counts here, and costs 8 to 15 s more until the first of
them (docs/architecture.md): each of its actors imports `ray.data`, next to two actors of its own.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa

from longtake.curation.errors import SetupError

_KNOCK_SECONDS = 10.0
_AGAIN = "what is done is kept, and the same command goes on from here"
_IN_HAND = 2  # batches handed to a worker: one that it works on, and one that waits, so that it never idles
_RETRIES = 3  # of a batch whose worker died; a batch that kills every worker must not go round for ever
_CLOSE_SECONDS = 150.0  # that workers have to end what is under way; longer than a captioner gives its answers
_RESTARTS = 50  # of one worker: nodes come and go; one that dies at its start must not be made again for ever


@dataclass(slots=True)
class Report:
    """What one batch came to. errors: rows that ended as an error. seconds: wall clock. video_seconds: their length.
    busy_seconds: wall clock in which a model had something in hand; the rest of `seconds` it waited. requests and tokens:
    that a language model answered, read and wrote."""

    rows: int = 0
    errors: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    video_seconds: float = 0.0
    busy_seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def busy_share(self) -> float | None:
        """Of the workers' time, 0 to 1; None where no model ran."""
        return self.busy_seconds / self.seconds if self.busy_seconds else None

    def __iadd__(self, other: Report) -> Report:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


class Worker(Protocol):
    """Made once per process, called with one batch after another (or several at once, see Job). If it has a method
    `close`, that ends what is under way, once no more batches come or the run has to stop."""

    def __call__(self, batch: pa.Table) -> Report: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A stage's work: batches in the order in which they are handed out.

    worker, args: pickled, and called on the cluster. cpus, memory_mib: of one worker. on_gpu: each worker takes a GPU,
    where the cluster has any. workers: how many at most (None: as many as there is room for). at_once: batches that a
    worker is given at a time, each in a thread of its own: for those that wait for others, not for a core. on_driver: in
    this process also on a cluster, since the worker has workers of its own there. hang_seconds: without a finished batch
    for so long, the run stops with an error (None: the workers have limits of their own).
    """

    stage: str
    batches: Sequence[pa.Table]
    worker: Callable[..., Worker]
    args: tuple[Any, ...]
    cpus: float = 1.0
    on_gpu: bool = False
    memory_mib: int = 1024
    workers: int | None = None
    at_once: int = 1
    on_driver: bool = False
    hang_seconds: float | None = None

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


def split(table: pa.Table, cost: Sequence[float], per_batch: float, at_most: int) -> list[pa.Table]:
    """Batches of rows in order, each of at most `at_most` rows and (if it has more than one) a total cost of at most
    `per_batch`: a kill then loses little."""
    starts, rows, total = [0], 0, 0.0
    for i, one in enumerate(cost):
        if rows and (rows == at_most or total + one > per_batch):
            starts.append(i)
            rows, total = 0, 0.0
        rows, total = rows + 1, total + one
    ends = [*starts[1:], table.num_rows]
    return [table.slice(a, b - a) for a, b in zip(starts, ends, strict=True) if b > a]


class Inline:
    """Everything in this process, one batch after the other."""

    workers = 1

    def start(self) -> None:
        """Nothing to wait for."""

    def run(self, job: Job) -> Iterator[Report]:
        yield from _in_this_process(job)

    def close(self) -> None:
        """Nothing to end."""


def _in_this_process(job: Job) -> Iterator[Report]:
    worker = job.worker(*job.args)
    try:
        if job.at_once == 1:
            for batch in job.batches:
                yield worker(batch)
        else:
            yield from _side_by_side(worker, job.batches, job.at_once)
    finally:
        if close := getattr(worker, "close", None):
            close()


def _side_by_side(worker: Worker, batches: Sequence[pa.Table], at_once: int) -> Iterator[Report]:
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
                ended.put(worker(batch))
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
            yield from _in_this_process(job)
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
        batches, waiting, lost = iter(job.batches), {}, 0

        def hand(worker: Any) -> None:
            if (batch := next(batches, None)) is not None:
                waiting[worker.work.remote(batch)] = worker

        try:
            with _interrupts() as interrupted:
                for worker in pool * (job.at_once - 1 + _IN_HAND):
                    hand(worker)
                while waiting:
                    done, _ = ray.wait(list(waiting), timeout=job.hang_seconds)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
                    if not done:
                        raise SetupError(f"{job.stage}: no batch ended within {job.hang_seconds:g} s; {_AGAIN}")
                    for ended in done:
                        hand(waiting.pop(ended))
                        try:
                            report = ray.get(ended)
                        except RayActorError:
                            lost += 1
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
    return str(error) if isinstance(error, SetupError) else f"{type(error).__name__}: {error}"


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
