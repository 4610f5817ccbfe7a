"""What a stage is: a plan of what is left to do, a worker for it, and an end over the whole corpus.

A stage says which manifest it writes and what it measures. Its work is plain data and a function on a batch, with no engine in
it, so that this process, Ray and a simulation can each drive it step by step. A new stage is one file and one line of
`STAGES`: docs/add-a-stage.md.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

if TYPE_CHECKING:
    import pyarrow as pa

    from longtake.curation.access import Access
    from longtake.curation.recipe import Recipe
    from longtake.curation.running.jobs import Job
    from longtake.curation.workspace import Workspace
    from longtake.filters.base import Needs
    from longtake.manifests.keys import Seen
    from longtake.manifests.store import Manifest


@dataclass(frozen=True, slots=True)
class Listed:
    """A stage as `STAGES` lists it. writes: the manifest that its workers append to. where: `module:Class`, loaded when the
    stage is needed. about: for the command's help."""

    name: str
    writes: str
    where: str
    about: str


# The stages, in the order in which they run. A stage in this list has a command, a place in `--until` and in the
# statistics.
STAGES: tuple[Listed, ...] = (
    Listed(
        "scan", "videos", "longtake.curation.stages.scan:Scan", "Read videos. One row per video, its clips and samples."
    ),
    Listed(
        "score", "clips", "longtake.curation.stages.score:Score", "Measure what needs a model, on the stored frames."
    ),
    Listed("caption", "captions", "longtake.curation.stages.caption:Caption", "Write captions."),
    Listed("export", "exports", "longtake.curation.stages.export:Export", "Write the datasets."),
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. stages: their names, in order. engine: one of `engines.ENGINES`; None: by what there is to do. workers: at
    once; None: as many as there are CPUs. gpus_per_worker: the part of a GPU that a worker with a model takes; None: one, or
    less where there are too few. sample: caption only so many clips, always the same ones. part: (I, N): the I-th of N
    parts of the videos, while others may be at work on other parts; what needs the whole corpus is left to a run without."""

    stages: Sequence[str] = tuple(listed.name for listed in STAGES)
    all_scores: bool = False
    retry_errors: bool = False
    engine: str | None = None
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    sample: int | None = None
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Run:
    """One run over a workspace: the workspace (whose manifests remember what was read of them, until something changes), the
    recipe, the options, and what lets this command read its videos (None: what the environment gives)."""

    workspace: Workspace
    recipe: Recipe
    options: Options
    access: Access | None = None

    @cached_property
    def id(self) -> str:
        """A name of its own, by which its workers know each other."""
        return uuid4().hex

    @cached_property
    def tried(self) -> dict[str, Seen]:
        """Stage → the rows that it tried in this run, by `key_of`: what met a fault of the world is not tried twice."""
        from longtake.manifests.keys import Seen

        return {name: Seen() for name in self.options.stages}

    @cached_property
    def datasets(self) -> dict[str, int]:
        """The clips in each dataset that the run wrote; export fills it in."""
        return {}

    @cached_property
    def kept_back(self) -> dict[str, str]:
        """Tier → why its dataset stays as it was; export fills it in."""
        return {}

    @cached_property
    def notes(self) -> list[str]:
        """What stages have to say at the end, in sentences."""
        return []


def of_part(table: pa.Table, part: tuple[int, int] | None) -> pa.Table:
    """The rows whose video is of a part; None: all of them. table: with the column video_id."""
    from longtake.manifests.arrow import from_numpy
    from longtake.manifests.keys import in_part

    return table if part is None else table.filter(from_numpy(in_part(table["video_id"], part)))


class Stage(ABC):
    """One step from manifest to manifest."""

    name: ClassVar[str]
    measures: ClassVar[frozenset[Needs]] = frozenset()  # Filters with these needs are measured by this stage.

    @abstractmethod
    def output(self, workspace: Workspace) -> Manifest:
        """The manifest that the workers append to."""

    @abstractmethod
    def plan(self, run: Run) -> Job | None:
        """What is left to do: the rows of what it reads less those its output holds under the same protocols. None if nothing
        is. Raises SetupError if it cannot work on this machine."""

    def waits(self, run: Run) -> bool:
        """Whether it begins only when the stages before it are over. If not, clips come to it one by one, by `take`."""
        return True

    def take(self, run: Run, clips: pa.Table) -> tuple[list[pa.Table], pa.Table]:
        """Of clips that come from the stage before, and were not there before this run: the batches that have work to do
        here, and the clips that go on to the next stage without. Reads no manifest."""
        raise NotImplementedError(self.name)

    def job(self, run: Run, batches: Sequence[pa.Table]) -> Job:
        """The job of these batches; of none: what those that come by `take` are worked on by."""
        raise NotImplementedError(self.name)

    def validate(self, recipe: Recipe) -> None:  # noqa: B027
        """Raises SetupError if the recipe asks this stage for what it cannot do anywhere; costs nothing."""

    def check(self, run: Run) -> None:
        """Raises SetupError if the stage cannot work on this machine, before any work begins."""
        from longtake.curation.models import check_filters

        recipe = run.recipe
        check_filters(recipe, {name: f for name, f in recipe.built.items() if f.needs in self.measures})

    def settle(self, run: Run) -> None:  # noqa: B027
        """What is done after the workers, if there was work: the output is compacted already."""

    def finish(self, run: Run) -> None:  # noqa: B027
        """What is done at the end of each run of the stage, also if there was no work: what needs the whole corpus."""


@cache
def stage(name: str) -> Stage:
    """A stage by its name. Raises KeyError."""
    where = {listed.name: listed.where for listed in STAGES}[name]
    module, _, attribute = where.partition(":")
    made: Stage = getattr(importlib.import_module(module), attribute)()
    return made
