"""A Ray cluster: joined or started, asked for its resources, and left. What flows through it is `running/streaming.py`'s."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from longtake.curation.errors import SetupError
from longtake.curation.running.inline import in_this_process
from longtake.curation.running.jobs import Job, Report, See
from longtake.curation.running.plugins import plugin_paths
from longtake.manifests.folder import in_words

if TYPE_CHECKING:
    from longtake.curation.running.at_work import Follow

_KNOCK_SECONDS = 10.0
_STARTS = 3  # Tries to start a local Ray, since a machine may be too busy to start it in time.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # A job's process finds its runtime_env in this variable of Ray's.
_LINE_OF_THE_CORE = b"Set ray log level from environment variable"
AGAIN = "what is done is kept, and the same command goes on from here"
_FULL = 0.95  # Share of a disk. On a fuller disk Ray writes nothing (its local_fs_capacity_threshold).
_FILES = 128  # With 64, Ray's core ends its process; with 128, a run on two cores goes through.
_RETRIES = 3  # Tries of a wave whose engine died: a question that kills engines must not be asked for ever.


class Cluster:
    """Ray: an existing cluster by its address, or a local one that ends with this object.

    workers: how many at once (None: as many as the cluster's resources carry). gpus_per_worker: what a worker with a model
    takes of a GPU (None: what its job says). say: told when Ray is started or joined.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self._say = say or (lambda text: None)
        self._gpus = gpus_per_worker
        self._asked = workers
        self._thread: threading.Thread | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self.started_seconds = 0.0

    def start(self) -> None:
        """Begin to start Ray, which takes seconds, while this process reads lists and plans."""
        if self._thread is None:
            self._say(f"joining the Ray cluster at {self.address}" if self.address else "starting Ray, some 10 s")
            self._thread = threading.Thread(target=self._start, daemon=True)
            self._thread.start()

    def _start(self) -> None:
        started = time.monotonic()
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # A thread of Ray Data that outlives the run must not start another Ray by itself.
            os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
            # Ray's core warns of actors that might not be restored. Ours hold nothing that could be lost.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            _knock(self.address)
            import ray

            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
            if self.address is None:
                _check_files()
                if (full := full_scratch()) is not None:
                    self._say(full)
                options |= {"num_cpus": self._asked or os.cpu_count(), "include_dashboard": False}
            elif (plugins := plugin_paths()) and not _brought_by_job():
                options["runtime_env"] = {"py_modules": plugins}
            with _quiet_core():
                _init(self.address, options)
            # Ray prints a line for each actor that is made anew, even where its logs are turned off.
            ray._private.worker.print_to_stdstream = lambda *told, **more: None
        except BaseException as error:
            self._failure = error
        self.started_seconds = time.monotonic() - started
        self._ready.set()
        # Ray's processes are set to die with the thread that started them.
        self._over.wait()

    def _wait(self) -> None:
        self.start()
        self._ready.wait()
        if self._failure is not None:
            where = f"the Ray cluster at {self.address}" if self.address else "a local Ray"
            told = why_not(self._failure)
            if self.address is None and (full := full_scratch()) is not None:
                told = f"{full}. Ray says: {told}"
            raise SetupError(f"{where} does not start: {told}") from self._failure

    @property
    def workers(self) -> int:
        """Of one CPU each, as many as there is room for."""
        self._wait()
        return self._asked or max(1, int(_resources().get("CPU", 1)))

    def run(self, job: Job, say: Callable[[str], None] | None = None, see: See | None = None) -> Generator[Report]:
        """The reports of a job's batches, as they end; see `stream`."""
        return self.stream([job], say=say, see=see)

    def stream(
        self,
        jobs: Sequence[Job],
        follow: Follow | None = None,
        say: Callable[[str], None] | None = None,
        see: See | None = None,
    ) -> Generator[Report]:
        """The reports of the batches of all jobs, as they end, each with its stage; what follows from a batch of one job comes
        to the next. say: told what is waited for; see: what workers have in hand. Raises SetupError if a worker cannot do its
        work, and Lost if Ray lost the thread: then what is left has to be planned anew."""
        self._wait()
        if jobs[0].on_driver:
            for report in in_this_process(jobs[0]):
                report.stage = jobs[0].stage
                yield report
            return
        from longtake.curation.running.streaming import stream

        yield from stream(self._sized(jobs), follow, say, self._asked, ours=self.address is None, see=see)

    def fits(self, jobs: Sequence[Job]) -> bool:
        """Whether there is room for a worker of each of these jobs at once."""
        self._wait()
        from longtake.curation.running.streaming import fits

        return fits(self._sized(jobs), ours=self.address is None)

    def _sized(self, jobs: Sequence[Job]) -> list[Job]:
        return [job if self._gpus is None else replace(job, gpus=self._gpus) for job in jobs]

    def close(self) -> None:
        """Leave the cluster; end it if it is ours."""
        if self._thread is not None:
            self._ready.wait()
            import ray

            ray.shutdown()
            self._over.set()
            self._thread.join()


def _brought_by_job() -> bool:
    """Whether this process is a job of the cluster that brought its packages along (`longtake submit`), plug-ins among them."""
    try:
        return "py_modules" in json.loads(os.environ.get(_JOB_VARIABLE, "{}")).get("runtime_env", {})
    except (ValueError, AttributeError):
        return False


def _check_files() -> None:
    """Raises OSError where this process may open so few files that Ray's core would end it without a word."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Ray raises the lower of the two limits to this one.
    if 0 <= most < _FILES:
        raise OSError(f"it needs {_FILES} open files at least, and this command may have {most} (ulimit -n)")


def full_scratch() -> str | None:
    """What to say of the disk on which a local Ray has its scratch folder, if that is so full that Ray writes nothing there."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        disk = shutil.disk_usage(folder)
    except OSError:  # Ray makes the folder, or says why it cannot.
        return None
    share = 1 - disk.free / disk.total
    if share < _FULL:
        return None
    return (
        f"the disk of {folder}, where Ray has its scratch folder, is {share:.0%} full: above {_FULL:.0%} Ray writes nothing "
        "there, and a run that needs more than fits into its memory stops; free some, or name another folder in RAY_TMPDIR"
    )


def _init(address: str | None, options: dict[str, Any]) -> None:
    """Join or start Ray. Its own patience with a node that starts is half a minute, which a busy machine passes."""
    import ray

    for left in range(_STARTS - 1, -1, -1):
        try:
            ray.init(address=address or "local", **options)
            return
        except Exception as error:
            if address is not None or not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Ray's core tells the terminal which level of logs it was set to, before it heeds it. So what is written while it starts,
    which takes milliseconds, is written afterwards, without that line."""
    import ray._raylet

    _raylet: Any = ray._raylet
    core = _raylet.CoreWorker

    def started(*args: Any, **options: Any) -> Any:
        with _later(1), _later(2):
            return core(*args, **options)

    _raylet.CoreWorker = started
    try:
        yield
    finally:
        _raylet.CoreWorker = core


@contextmanager
def _later(number: int) -> Iterator[None]:
    """What is written to a file descriptor in here comes to it at the end, but for the line of Ray's core."""
    with tempfile.TemporaryFile() as aside:
        before = os.dup(number)
        os.dup2(aside.fileno(), number)
        try:
            yield
        finally:
            os.dup2(before, number)
            os.close(before)
            aside.seek(0)
            for line in aside:
                if _LINE_OF_THE_CORE not in line:
                    os.write(number, line)


def run_llm(engine: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows through vLLM in actors of the cluster that this process is in: each row's `number`, and what became of it, in
    any order. engine: arguments of `ray.data.llm.vLLMEngineProcessorConfig`; rows: with `messages` and `sampling_params`.
    Raises SetupError if the engine cannot run."""
    import ray

    if not ray.is_initialized():
        raise SetupError("the captioner vllm runs on a Ray cluster: leave --engine inline out")
    if "placement_group_config" not in engine:
        needed = engine["engine_kwargs"].get("tensor_parallel_size", 1)
        if (there := _resources().get("GPU", 0)) < needed:  # Ray would wait for the GPUs, and say nothing.
            raise SetupError(f"vLLM needs {needed} GPUs for an engine, and the cluster has {there:g}")
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Its progress is that of one step of many.
    ray.data.DataContext.get_current().enable_progress_bars = False
    # By default, each of the four steps around the engine takes a core, or waits for one for ever.
    light = {"num_cpus": 0.25}
    config = vLLMEngineProcessorConfig(
        **engine,
        prepare_multimodal_stage=light,
        chat_template_stage=light,
        # The engine tokenizes and detokenizes by itself.
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,  # The metrics need packages that ray[data] does not bring.
    )
    try:
        through = build_processor(config, preprocess_map_kwargs=light, postprocess_map_kwargs=light)
        # By default, an engine that dies of a question is started anew and asked again for ever.
        retries = {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}
        through.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(retries)
        for row in through(ray.data.from_items(rows)).iter_rows():
            yield int(row["number"]), row
    except ray.exceptions.RayError as error:
        # The text has the traces of all actors; the last line says what happened.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise SetupError(f"vLLM on the cluster: {lines[-1]}; {AGAIN}") from error


def why_not(error: BaseException) -> str:
    """Why a cluster cannot be joined, in one line, with what is to be done about it."""
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename}: {in_words(error)}" if error.filename else in_words(error)
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return f"it has another version of Ray or Python than this machine: {text}"
    if "Failed to connect to Ray cluster" in text or "authentication token" in text.lower():
        # A server answers at the address (`_knock`). Ray says no more about a refused token than this.
        return f"it wants another token than this command has (RAY_AUTH_MODE, RAY_AUTH_TOKEN), or is no Ray of its kind: {text}"
    return text


def _resources() -> dict[str, float]:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def _knock(address: str | None) -> None:
    """Raises OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS):
            pass
