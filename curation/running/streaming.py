"""One streaming execution of Ray Data: a pool of workers for each stage, CPU and GPU side by side.

Only items flow (`at_work.ITEM`). Workers commit rows by themselves: if Ray loses, repeats or duplicates an item, that costs
time and no row. Reports go to the ledger, and not through the pools of later stages. Each pool has at least one worker and
grows where there is work and room. A union before each stage adds the rows that earlier runs left for it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.data
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.exceptions import OutOfDiskError, OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from longtake.curation.errors import SetupError
from longtake.curation.running.at_work import AtWork, Follow, Post, item
from longtake.curation.running.jobs import Job, Lost, NoRoom, Report, See
from longtake.curation.running.ledger import Ledger, News
from longtake.filters.weights import FOLDER_VARIABLE
from longtake.manifests.uris import redact

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # Seconds between two looks at which nodes are about to leave.
_SAY_SECONDS = 15.0  # Seconds of waiting after which the reason is printed.
_SAY_AGAIN_SECONDS = 60.0
# Seconds. With no batch at work and a stage without a place for so long, the pools block each other.
_STALLED_SECONDS = 60.0
_CLOSE_SECONDS = 150.0  # Seconds that workers have to end their batches; longer than a captioner gives its answers.
_END_SECONDS = 30.0  # Seconds that Ray Data's own threads have to end.
_AT_ONCE = 100_000  # Calls of the ledger at once: two calls of each worker wait in it.
_MANY = 1000  # Workers of a stage, at most: a cluster may grow.


@dataclass(frozen=True, slots=True)
class Share:
    """The resources of a worker of a job."""

    cpus: float
    gpus: float
    memory: int | None  # Bytes. None: not requested, on a Ray that this run started.

    def is_asked_for_by(self, request: dict[str, float]) -> bool:
        """Whether a request for resources of the cluster is probably one for such a worker."""
        ours = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory or 0)}
        return all(abs(request.get(name, 0.0) - amount) <= 1e-3 * max(1.0, amount) for name, amount in ours.items())

    def words(self, stage: str) -> str:
        """A worker's needs, in words."""
        parts = [f"{self.cpus:g} CPU"]
        parts += [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"{self.memory / 2**30:g} GiB"] if self.memory else []
        return f"a {stage} worker needs {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}"


def shares(jobs: Sequence[Job], ours: bool) -> list[Share]:
    """The resources of a worker of each job: less than a core where the pools would otherwise block each other."""
    total = resources()
    cpus, gpus = total.get("CPU", 1.0), total.get("GPU", 0.0)
    part = 1.0 if cpus >= 2 * len(jobs) or len(jobs) == 1 else max(0.05, int(cpus / (2 * len(jobs)) * 100) / 100)
    on_gpu = sum(job.on_gpu for job in jobs) if gpus else 0
    share = []
    for job in jobs:
        gpu = (
            min(job.gpus, int(gpus / on_gpu * 100) / 100 if gpus < on_gpu else job.gpus) if gpus and job.on_gpu else 0.0
        )
        share.append(Share(job.cpus * part, gpu, None if ours else job.memory_mib * 2**20))
    return share


def fits(jobs: Sequence[Job], ours: bool) -> bool:
    """Whether a worker of each job finds a place at once, on what the nodes have now."""
    if ours:  # No other run uses the cluster, and the shares are made to fit.
        return True
    free = [dict(node) for node in _free()]
    for share in sorted(shares(jobs, ours), key=lambda one: (-one.gpus, -(one.memory or 0))):
        for node in free:
            if _has_room(node, share):
                node["CPU"] = node.get("CPU", 0) - share.cpus
                node["GPU"] = node.get("GPU", 0) - share.gpus
                node["memory"] = node.get("memory", 0) - (share.memory or 0)
                break
        else:
            return False
    return True


def _has_room(node: dict[str, float], share: Share) -> bool:
    slack = 1e-6
    return (
        node.get("CPU", 0) + slack >= share.cpus
        and node.get("GPU", 0) + slack >= share.gpus
        and node.get("memory", 0) + slack >= (share.memory or 0)
    )


def resources() -> dict[str, float]:
    """The resources of the whole cluster."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return total


def _free() -> list[dict[str, float]]:
    """The free resources of each node."""
    from ray._private.state import available_resources_per_node

    free: list[dict[str, float]] = list(available_resources_per_node().values())  # type: ignore[no-untyped-call]
    return free


def _nodes() -> int:
    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]


def stream(
    jobs: Sequence[Job],
    follow: Follow | None,
    say: Callable[[str], None] | None,
    asked: int | None,
    *,
    ours: bool,
    see: See | None = None,
) -> Generator[Report]:
    """The reports of the batches of all jobs, each as soon as it ends. asked: the largest number of workers of a stage.
    ours: this Ray was started for this run. see: called with the batches that workers have. Raises SetupError if a worker
    cannot do its work, Lost if the stream broke."""
    _be_quiet()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    ledger: Any = ray.remote(Ledger).options(num_cpus=0, max_concurrency=_AT_ONCE, scheduling_strategy=here).remote()
    share = shares(jobs, ours)
    over, faults = threading.Event(), list[BaseException]()
    data = _chain(jobs, share, follow, ledger, asked, ours)

    def flow() -> None:
        try:
            for _ in data.iter_internal_ref_bundles():
                pass
        except BaseException as error:
            faults.append(error)
        over.set()

    whole = False
    flowing = threading.Thread(target=flow, daemon=True)
    try:
        with _interrupts() as interrupted:
            flowing.start()
            waits, leaving = _Waits(jobs, share, say), _Leaving(say)
            while True:
                ended = over.wait(_POLL_SECONDS)
                news: News = ray.get(ledger.news.remote(_nodes(), leaving.see()))
                if interrupted.is_set():
                    raise KeyboardInterrupt
                if see is not None:
                    takes = {job.stage: one.gpus for job, one in zip(jobs, share, strict=True)}
                    see({stage: replace(hands, gpus=takes.get(stage, 0.0)) for stage, hands in news.hands.items()})
                yield from news.reports
                if news.failure is not None:
                    raise SetupError(news.failure)
                if ended:
                    break
                waits.see(news)
        if faults:
            raise Lost(_last_line(faults[0])) from faults[0]
        whole = True
    except RayError as error:
        raise Lost(_last_line(error)) from error
    finally:
        with suppress(RayError):
            if not whole:
                _end_early(ledger, over)
            ray.kill(ledger)
        _end_threads(flowing)


def _chain(
    jobs: Sequence[Job], share: Sequence[Share], follow: Follow | None, ledger: Any, asked: int | None, ours: bool
) -> Any:
    """The jobs as operators of Ray Data, one after the other, each after a union with the batches that are its own."""
    data: Any = None
    for job, takes in zip(jobs, share, strict=True):
        if job.batches:
            own = ray.data.from_arrow([item(job.stage, batch) for batch in job.batches])
            data = own if data is None else data.union(own)
        onwards = follow if job is not jobs[-1] else None
        post = Post(job.stage, job.worker, job.args, job.patience, onwards, models=_models())
        limits = [asked or _MANY, job.workers or _MANY]
        if ours:
            limits.append(max(1, int(resources().get("CPU", 1))))
        if len(jobs) == 1:
            limits.append(len(job.batches))
        data = data.map_batches(
            type(job.stage, (AtWork,), {}),  # Ray's dashboard shows a class by its name.
            fn_constructor_args=(post, ledger),
            batch_size=1,  # An item.
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=min(limits),
                max_tasks_in_flight_per_actor=2 * job.at_once,
                max_concurrent_calls_per_actor=job.at_once,
                enable_true_multi_threading=job.at_once > 1,
            ),
            num_cpus=takes.cpus,
            num_gpus=takes.gpus or None,
            memory=takes.memory,
        )
    return data


def _models() -> str | None:
    """The folder of weights from this machine's environment, if it is set; None if the value holds a secret, which must not
    be in arguments."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return folder if folder and redact(folder) == folder else None


class _Waits:
    """Prints the reason for which a stream waits, and finds out when the wait cannot end."""

    def __init__(self, jobs: Sequence[Job], share: Sequence[Share], say: Callable[[str], None] | None) -> None:
        self._needs = {job.stage: takes for job, takes in zip(jobs, share, strict=True)}
        self._say = say or (lambda text: None)
        self._moved = self._looked = time.monotonic()
        self._said = -_SAY_AGAIN_SECONDS

    def see(self, news: News) -> None:
        """Raises NoRoom if the pools block each other."""
        now = time.monotonic()
        if news.reports or news.open:
            self._moved = now
        if now - self._looked < _SAY_SECONDS:
            return
        self._looked = now
        still = now - self._moved >= _SAY_SECONDS
        pending = _pending()
        without = [
            stage
            for stage, takes in self._needs.items()
            if (still or not news.ready.get(stage)) and any(map(takes.is_asked_for_by, pending))
        ]
        if not without:
            return
        if now - self._said > _SAY_AGAIN_SECONDS:
            self._said = now
            self._say(f"waiting for room: {self._needs[without[0]].words(without[0])}")
        if len(self._needs) > 1 and now - self._moved > _STALLED_SECONDS:
            raise NoRoom(f"no room for a {without[0]} worker beside the others")


class _Leaving:
    """Watches for nodes that are about to leave, because Ray drains them (`ray drain-node`, an autoscaler, a SIGTERM to
    `ray start --block`)."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say or (lambda text: None)
        self._known: list[str] = []
        self._looked = 0.0

    def see(self) -> list[str]:
        """The nodes that are about to leave or have left. Prints a sentence on each, once."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            for node, until in _draining().items():
                if node not in self._known:
                    self._known.append(node)
                    when = f" within {max(0.0, until / 1000 - time.time()):.0f} s" if until else ""
                    self._say(
                        f"the node {_host(node)} is to go{when}: its workers end what they have in hand and begin nothing more"
                    )
        return self._known


def _draining() -> dict[str, int]:
    """Nodes that are drained → until when, in milliseconds since 1970; 0: not known."""
    nodes: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return nodes


def _host(node: str) -> str:
    """The name and the address of a node, for messages."""
    for one in ray.nodes():  # type: ignore[no-untyped-call]
        if one["NodeID"] == node:
            return f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})"
    return node


def _pending() -> list[dict[str, float]]:
    """The requests for resources, of all users of the cluster, that have no place yet."""
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    state: Any = None
    with suppress(Exception):  # The call only fetches a sentence for a message; its failure ends no run.
        state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)  # type: ignore[attr-defined]
    return [dict(one.request.resources_bundle) for one in state.pending_resource_requests] if state else []


def _end_early(ledger: Any, over: threading.Event) -> None:
    """Let no worker begin another batch, and wait for the workers that finish theirs."""
    ray.get(ledger.stop.remote())
    end = time.monotonic() + _CLOSE_SECONDS
    time.sleep(_POLL_SECONDS)
    while time.monotonic() < end and ray.get(ledger.news.remote(1)).closing:
        time.sleep(_POLL_SECONDS)
    over.wait(5)


def _end_threads(flowing: threading.Thread) -> None:
    """End the threads of Ray Data, also of a stream that waits for room: a thread that still calls Ray's core while Ray
    shuts down ends the whole process."""
    for thread in threading.enumerate():
        if isinstance(thread, StreamingExecutor):
            with suppress(Exception):  # The stream is over, so an error at its end is no news.
                thread.shutdown(force=True)
            thread.join(_END_SECONDS)
    if flowing.ident is not None:
        flowing.join(_END_SECONDS)


def _be_quiet() -> None:
    """Ray Data's progress is that of blocks, and its log tells of its own plans."""
    for name in ("ray.data", "ray.data.dataset"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # Each item is a block of its own: it is the unit of work.


def _last_line(error: BaseException) -> str:
    """The cause of an error in one line: the last line of the actors' traces, unless that is advice by Ray."""
    if isinstance(error, OutOfMemoryError):
        return "a machine had no memory left, so Ray ended a process on it"
    if isinstance(error, OutOfDiskError):
        return (
            "the disk of Ray's scratch folder on a machine is too full for what does not fit into Ray's memory there: free "
            "some, or start Ray with another folder (RAY_TMPDIR, ray start --temp-dir)"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, besides the KeyboardInterrupt, which Ray's core sometimes loses when it is raised
    within a call. Ray takes SIGTERM for itself when it starts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python takes signals in the main thread only.
        yield event
        return

    def interrupt(number: int, frame: Any) -> None:
        event.set()
        signal.default_int_handler(number, frame)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
