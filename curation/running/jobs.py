"""What is run, and what comes of it: a job is batches of a todo table and a worker for them; a batch comes to a report.

A worker measures a batch, appends its rows to the output manifest (atomically: `longtake.manifests.store`) and returns a
report. So what is committed does not depend on who runs it: a driver or a worker may be killed at any moment and loses the
batch in hand. What is left to do is an anti-join over manifests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import pyarrow as pa

from longtake.curation.running.faults import Outcome

AT_A_TIME = 200_000  # Rows of a job. At any moment a thousandth of them is being worked on.


@dataclass(slots=True)
class Report:
    """What one batch came to. errors: rows that ended as an error. seconds: wall clock. video_seconds: their length.
    busy_seconds: wall clock in which a model had something in hand; the rest of `seconds` it waited. requests and tokens:
    that a language model answered, read and wrote. repeated: rows of batches that were begun more than once, since a worker
    or a machine was lost. outcomes: of the rows, in order; a sum of reports has none, but counts those that met a fault of
    the world (`faults`), and of them those whose older result stays (`left`). stage: whose batch it was. more: stage → rows that
    follow from it there. clips: as they are after the batch, for the stages that follow; they reach no driver. error_kinds: kind
    → rows that ended so; host: the machine that the batch was done on (empty: the driver's). A sum of reports has neither."""

    rows: int = 0
    errors: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    video_seconds: float = 0.0
    busy_seconds: float = 0.0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    outcomes: tuple[Outcome, ...] = ()
    faults: int = 0
    left: int = 0
    repeated: int = 0
    more: Mapping[str, int] = field(default_factory=dict)
    stage: str = ""
    error_kinds: Mapping[str, int] = field(default_factory=dict)
    host: str = ""
    clips: pa.Table | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.faults = self.faults or sum(one.kind is not None for one in self.outcomes)
        self.left = self.left or sum(one.left_as_it_was for one in self.outcomes)

    @property
    def busy_share(self) -> float | None:
        """Of the workers' time, 0 to 1; None where no model ran."""
        return min(1.0, self.busy_seconds / self.seconds) if self.busy_seconds else None

    def __iadd__(self, other: Report) -> Report:
        for name in (one.name for one in fields(self) if one.name not in _NOT_ADDED):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


_NOT_ADDED = {"outcomes", "stage", "error_kinds", "host", "clips", "more"}


@dataclass(frozen=True, slots=True)
class Late:
    """A batch that is in hand for much longer than others of its stage were. what: its first row."""

    host: str
    seconds: float
    what: str


@dataclass(frozen=True, slots=True)
class Hands:
    """The workers of a stage at one moment. workers: that are there; batches: that they have in hand; worker_seconds: that they
    were there so far; gpus: that each of them takes; oldest_seconds: since the batch was begun that is in hand longest;
    usual_seconds: a batch's median (None: none has ended); late: those in hand for much longer."""

    workers: int = 0
    batches: int = 0
    worker_seconds: float = 0.0
    gpus: float = 0.0
    oldest_seconds: float = 0.0
    usual_seconds: float | None = None
    late: tuple[Late, ...] = ()


# Called with the batches that the workers of each stage have.
See = Callable[[Mapping[str, Hands]], None]


class Lost(Exception):
    """The engine broke or stands still. What is done is committed; what is left has to be planned anew."""


class NoRoom(Lost):
    """The pools of several stages are in each other's way: they have to follow one another."""


def parts_of(worker: Worker, batch: pa.Table) -> list[pa.Table]:
    """What a worker makes of a batch: its own rows, in order, in one table or in several."""
    cut = getattr(worker, "parts", None)
    return cut(batch) if cut is not None else [batch]


class Worker(Protocol):
    """Made once per process, called with one batch after another (or several at once, see Job). If it has a method
    `close`, that ends what is under way, once no more batches come or the run has to stop. If it has a method
    `give_up(batch, message) -> Report`, that stores the rows of a batch that nobody survives as errors of kind `crash`. If it
    has a method `parts(batch) -> list[Table]`, those are worked on one after another, each with a report of its own: how
    much is done at a time is decided where it is done."""

    def __call__(self, batch: pa.Table) -> Report: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A stage's work: batches in the order in which they are handed out.

    worker, args: pickled, and called on the cluster. cpus, memory_mib: of one worker. on_gpu: each worker takes a GPU,
    where the cluster has any; gpus: how much of one. workers: how many at most (None: as many as there is room for). at_once:
    batches that a worker is given at a time, each in a thread of its own: for those that wait for others, not for a core.
    on_driver: in this process also on a cluster, since the worker has workers of its own there. patience: seconds after which
    a worker that is at a batch, and did not say that it needs more (`allow`), is taken to hang, and is killed. clip_seconds:
    of CPU that a clip takes here, as a rule; clips: guesses how many the batches come to (None: each row is one). partial:
    there is more to do than these batches, which is planned when they are done: so a plan takes no more memory than that of
    AT_A_TIME rows.
    """

    stage: str
    batches: Sequence[pa.Table] = field(repr=False)  # A batch may hold passwords of sources, so it is not printed.
    worker: Callable[..., Worker]
    args: tuple[Any, ...]
    cpus: float = 1.0
    on_gpu: bool = False
    gpus: float = 1.0
    memory_mib: int = 1024
    workers: int | None = None
    at_once: int = 1
    on_driver: bool = False
    patience: float = 1800.0
    clip_seconds: float = 0.0
    clips: Callable[[], float] | None = None
    partial: bool = False

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


_patient = threading.local()


def allow(seconds: float) -> None:
    """Called by a worker that is at a batch: counted from now, it may take so many seconds until it is taken to hang."""
    if (heard := getattr(_patient, "heard", None)) is not None:
        heard(seconds)


def hears_allow(heard: Callable[[float], None] | None) -> None:
    """Who is told by `allow` in this thread."""
    _patient.heard = heard


def cpu_seconds(jobs: Sequence[Job]) -> float:
    """A guess of what stages that follow one another will take, in seconds of CPU: each has its own clips and those of the
    stages before it."""
    clips = total = 0.0
    for job in jobs:
        clips += job.rows if job.clips is None else job.clips()
        total += clips * job.clip_seconds
    return total


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
