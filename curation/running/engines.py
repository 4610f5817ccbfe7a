"""Which engine does a job: this process, or Ray. Ray takes ten seconds to start, so what is little is done without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longtake.curation.errors import SetupError
from longtake.curation.running.inline import Inline
from longtake.curation.running.jobs import Job, cpu_seconds
from longtake.curation.running.on_ray import Cluster

INLINE, RAY = "inline", "ray"
ENGINES = (INLINE, RAY)
# Seconds of CPU. A smaller job is done in this process: the start of a local Ray would take a good part of it.
LITTLE_SECONDS = 60.0


class Engines:
    """The engines of one run. asked: one of ENGINES; None: by what there is to do. address: of a cluster, which is Ray in any
    case. workers, gpus_per_worker: see `on_ray.Cluster`. say: told when Ray is started or joined."""

    def __init__(
        self,
        asked: str | None,
        address: str | None = None,
        workers: int | None = None,
        gpus_per_worker: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if asked not in (None, *ENGINES):
            raise SetupError(f"there is no engine {asked!r}: it is {' or '.join(ENGINES)}")
        if asked == INLINE and address is not None:
            raise SetupError(
                "the engine inline runs in this process, and joins no cluster: leave the address out, or the engine"
            )
        self._asked = RAY if address is not None else asked
        self._inline = Inline()
        self._cluster = Cluster(address, workers, gpus_per_worker, say)
        self._used: Inline | Cluster | None = None

    def start(self) -> None:
        """Begin to start what takes long to start, if it is certain to be used."""
        if self._asked == RAY:
            self._cluster.start()

    def choose(self, jobs: Sequence[Job], say: Callable[[str], None]) -> Inline | Cluster:
        """The engine for jobs that follow one another. A run that has begun to use Ray stays with it. say: told what was
        chosen, and why, where nobody asked for it."""
        if self._asked is not None:
            chosen: Inline | Cluster = self._inline if self._asked == INLINE else self._cluster
        elif isinstance(self._used, Cluster):
            chosen = self._used
        else:
            chosen, why = self._by_size(jobs)
            if chosen is not self._used:
                say(why)
        self._used = chosen
        chosen.start()
        return chosen

    def _by_size(self, jobs: Sequence[Job]) -> tuple[Inline | Cluster, str]:
        if any(job.on_driver for job in jobs):
            return self._cluster, "engine: a local Ray, since the captioner needs one"
        seconds = cpu_seconds(jobs)
        if seconds < LITTLE_SECONDS:
            return (
                self._inline,
                f"engine: this process, since there is about {seconds:.0f} s of CPU to do (--engine ray: a local Ray)",
            )
        minutes = f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
        return (
            self._cluster,
            f"engine: a local Ray, since there is about {minutes} of CPU to do (--engine inline: this process)",
        )

    def close(self) -> None:
        """Leave the cluster, if there is one."""
        self._cluster.close()
