"""The scores of all clips for the report and the studio: read a slice at a time, and held in some 200 bytes a clip.

Gates are held against the 64-bit numbers that are stored, or a clip on a threshold would be counted otherwise than by the other
commands. What else a table of clips has is made small: strings that the clips of a video share are codes, and of a score, which
its span holds already, only is left whether there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_scores, slices_of_each
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores, standard_error_of
from longtake.manifests.arrow import from_numpy
from longtake.manifests.parts import Overtaken, steadily

Floats = npt.NDArray[np.float64]
_SHARED = ("video_id", "uri", "scan_id", "host")  # Strings that the clips of a video have in common.


def all_scores(workspace: Workspace, recipe: Recipe, columns: Sequence[str]) -> ClipScores:
    """What `clip_scores` gives, with columns of scores that only tell which clips have one: their spans and standard errors are
    known already."""
    return steadily(lambda: _all_scores(workspace, recipe, columns))


def _all_scores(workspace: Workspace, recipe: Recipe, columns: Sequence[str]) -> ClipScores:
    details: list[str] = []
    while rows := workspace.clips.rows():
        gathered, missing = _Found(recipe, rows), dict[str, None]()
        for (scores,) in slices_of_each(workspace, [recipe], columns, details):
            missing |= dict.fromkeys(name for name in scores.details_needed() if name not in details)
            if not missing:
                gathered.add(scores)
        if missing:  # Some verdict looks at the details of these scores, which only the protocols tell.
            details += missing
        elif gathered.tables:
            return gathered.whole()
        else:
            break
    return clip_scores(workspace, recipe, columns)


class _Found:
    """What is held of the slices that went by: arrays for all clips, which are filled from their beginning."""

    def __init__(self, recipe: Recipe, most: int) -> None:
        """most: clips there are, at most. Memory that is not written to is not taken."""
        self.recipe = recipe
        self.tables: list[pa.Table] = []
        self.unchecked: dict[str, str] = {}
        self._most, self._count = most, 0
        self._low = {name: np.empty(most) for name in recipe.filters}
        self._high: dict[str, Floats] = {}  # These scores have a least and a greatest value that differ.
        self._bound = {name: np.zeros(most, bool) for name in recipe.filters}
        self._errors: dict[str, Floats] = {}

    def add(self, scores: ClipScores) -> None:
        table = scores.table
        at = slice(self._count, self._count + table.num_rows)
        if at.stop > self._most:
            raise Overtaken("another run appends clips: read them again")
        for name in self.recipe.filters:
            low, high, bound = scores.span(name)
            self._low[name][at] = low
            if high is not low and name not in self._high:
                self._high[name] = self._low[name].copy()
            if name in self._high:
                self._high[name][at] = high
            if bound.any():
                self._bound[name][at] = bound
            if (errors := scores.errors(name)) is not None:
                self._errors.setdefault(name, np.full(self._most, np.nan))[at] = errors
            if standard_error_of(name) in table.column_names:
                table = table.drop_columns([standard_error_of(name)])
            if name in table.column_names:
                there = from_numpy(np.ones(table.num_rows, bool), table[name].is_valid().to_numpy().astype(bool))
                table = table.set_column(table.column_names.index(name), name, there)
        for name in _SHARED:
            if name in table.column_names and pa.types.is_string(table[name].type):
                table = table.set_column(table.column_names.index(name), name, pc.dictionary_encode(table[name]))
        self.tables.append(table.combine_chunks())
        self.unchecked |= scores.unchecked
        self._count = at.stop

    def whole(self) -> ClipScores:
        """All slices together."""
        table, n = pa.concat_tables(self.tables, promote_options="default"), self._count
        spans, errors = {}, dict[str, Floats | None]()
        for name in self.recipe.filters:
            low = self._low[name][:n]
            high = self._high[name][:n] if name in self._high else low
            spans[name] = low, high, self._bound[name][:n]
            errors[name] = self._errors[name][:n] if name in self._errors else None
        return ClipScores(table, self.recipe.built, self.unchecked, _spans=spans, _errors=errors)
