"""Clips that repeat one which the gates, as they are now, reject: their score over the corpus does not count until groups are
looked for again, for else a group would be lost with its best clip.

Several filters look for groups (`schemas.KEPT_INSTEAD`), one after the other: who is rejected by an earlier one has no part in
the groups of a later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import Needs
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Index, hashed


def tiers_left(scores: ClipScores, recipe: Recipe, before: str | None = None) -> npt.NDArray[np.int64]:
    """How many tiers may still keep each clip [clips], captions aside and what is measured over the corpus. before: a filter that
    looks for groups, with which those that look earlier count."""
    order = list(schemas.KEPT_INSTEAD)
    earlier = order[: order.index(before)] if before in order else []
    without = {*recipe.needing(Needs.CORPUS), *recipe.needing(Needs.CAPTIONS)} - {*earlier}
    tiers = np.zeros(scores.table.num_rows, np.int64)
    for tier in recipe.tiers.values():
        tiers += decide(scores, {name: gate for name, gate in tier.items() if name not in without}).may_keep
    return tiers


def looking(recipe: Recipe) -> list[str]:
    """The filters of a recipe that look for groups, in their order."""
    return [name for name in schemas.KEPT_INSTEAD if name in recipe.built]


class Orphans:
    """Those of a workspace, under a recipe; what is held of them is a number for each clip that others repeat."""

    def __init__(self, workspace: Workspace, recipe: Recipe) -> None:
        self.left: dict[str, Index] = {}  # Filter → those of the repeated clips that some tier may keep.
        for name in looking(recipe):
            column = schemas.KEPT_INSTEAD[name].name
            named = [np.zeros((2, 0), np.uint64)]
            for clips in workspace.clips.scan(["clip_id"], optional=[column]):
                if column in clips.column_names:
                    named.append(hashed(clips[column].drop_null()))
            wanted = Index(np.concatenate(named, axis=1))
            if len(wanted):
                self.left[name] = Index(np.concatenate(list(self._alive(workspace, recipe, name, wanted)), axis=1))

    def _alive(
        self, workspace: Workspace, recipe: Recipe, name: str, wanted: Index
    ) -> Iterable[npt.NDArray[np.uint64]]:
        yield np.zeros((2, 0), np.uint64)
        for clips in workspace.clips.scan():
            clips = self.removed(clips.filter(from_numpy(wanted.has(clips["clip_id"]))))
            alive = tiers_left(ClipScores(clips, recipe.built), recipe, name) > 0
            yield hashed(clips["clip_id"].filter(pa.array(alive)))

    def removed(self, clips: pa.Table) -> pa.Table:
        """`clips` without the scores of orphans."""
        for name, left in self.left.items():
            named = clips[schemas.KEPT_INSTEAD[name].name]
            clips = _unscored(clips, name, pc.and_(named.is_valid(), from_numpy(~left.has(named))))
        return clips


def without_orphans(clips: pa.Table, recipe: Recipe) -> pa.Table:
    """All `clips` of a workspace without the score of those that repeat a clip which the gates, as they are now, reject."""
    for name in looking(recipe):
        column = schemas.KEPT_INSTEAD[name].name
        if name in clips.column_names and column in clips.column_names:
            left = pa.array(tiers_left(ClipScores(clips, recipe.built), recipe, name) > 0)
            named = clips[column]
            orphans = pc.and_(named.is_valid(), pc.invert(pc.is_in(named, value_set=clips["clip_id"].filter(left))))
            clips = _unscored(clips, name, orphans)
    return clips


def _unscored(clips: pa.Table, name: str, orphans: pa.ChunkedArray) -> pa.Table:
    if not pc.any(orphans).as_py():
        return clips
    # The detail goes too: a score that is null beside a detail was measured, and cannot be known.
    for column in (name, f"{name}_detail"):
        if column in clips.column_names:
            at = clips.column_names.index(column)
            clips = clips.set_column(
                at, column, pc.if_else(orphans, pa.scalar(None, clips[column].type), clips[column])
            )
    return clips


def owner_columns(recipe: Recipe) -> Sequence[str]:
    """The columns that name the clip kept instead, of the filters of a recipe."""
    return [schemas.KEPT_INSTEAD[name].name for name in looking(recipe)]
