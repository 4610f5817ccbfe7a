"""How clips go from stage to stage while a run is under way, and where they have to wait for the whole corpus.

Only clips that were not there before the run flow: what a later stage knows of a clip already (an older scan's captions, an
encoded file) is looked up once for all of them, when the stages before it are over.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from longtake.curation.recipe import parse_recipe
from longtake.curation.stages.stage import STAGES, Options, Run, stage
from longtake.curation.workspace import Workspace


def groups(run: Run) -> list[list[str]]:
    """The stages of a run, cut where one waits for the end of those before it."""
    order = [listed.name for listed in STAGES]
    together: list[list[str]] = []
    for name in run.options.stages:
        follows = together and order.index(name) == order.index(together[-1][-1]) + 1
        if follows and not stage(name).waits(run):
            together[-1].append(name)
        else:
            together.append([name])
    return together


@dataclass
class Flow:
    """From clips that a stage has done to the batches that follow from them; called where the stage works. names: of the
    stages, in order. recipe: as plain data."""

    names: Sequence[str]
    workspace: str
    recipe: Mapping[str, Any]
    all_scores: bool
    _run: Run | None = field(default=None, repr=False, compare=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, names: Sequence[str], run: Run) -> Flow:
        return cls(names, run.workspace.path, run.recipe.model_dump(mode="json"), run.options.all_scores)

    def __call__(self, after: str, clips: pa.Table) -> list[tuple[str, pa.Table]]:
        with self._turn:
            if self._run is None:
                recipe = parse_recipe(dict(self.recipe), source="the recipe of this run")
                options = Options(tuple(self.names), self.all_scores)
                self._run = Run(Workspace(self.workspace), recipe, options)
        following: list[tuple[str, pa.Table]] = []
        for name in self.names[self.names.index(after) + 1 :]:
            batches, clips = stage(name).take(self._run, clips)
            following += [(name, batch) for batch in batches]
            if not clips.num_rows:
                break
        return following

    def __getstate__(self) -> tuple[Any, ...]:
        return self.names, self.workspace, self.recipe, self.all_scores

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]
