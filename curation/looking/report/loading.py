"""The scores of all clips for the report and the studio: read a slice at a time, and held in some 200 bytes a clip.

Gates are held against the 64-bit numbers that are stored, or a clip on a threshold would be counted otherwise than by the other
commands. What else a table of clips has is made small: strings that the clips of a video share are codes, and of a score, which
its span holds already, only is left whether there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_scores, slices_of_each
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores, standard_error_of
from longtake.manifests.arrow import from_numpy
from longtake.manifests.parts import steadily

_SHARED = ("video_id", "uri", "scan_id", "host")  # Strings that the clips of a video have in common.


def all_scores(workspace: Workspace, recipe: Recipe, columns: Sequence[str]) -> ClipScores:
    """What `clip_scores` gives, with columns of scores that only tell which clips have one: their spans and standard errors are
    known already."""
    return steadily(lambda: _all_scores(workspace, recipe, columns))


def _all_scores(workspace: Workspace, recipe: Recipe, columns: Sequence[str]) -> ClipScores:
    details: list[str] = []
    while workspace.clips.rows():
        found, missing = _Found(recipe), dict[str, None]()
        for (scores,) in slices_of_each(workspace, [recipe], columns, details):
            missing |= dict.fromkeys(name for name in scores.details_needed() if name not in details)
            if not missing:
                found.add(scores)
        if missing:  # Some verdict looks at the details of these scores, which only the protocols tell.
            details += missing
        elif found.tables:
            return found.whole()
        else:
            break
    return clip_scores(workspace, recipe, columns)


@dataclass(slots=True)
class _Found:
    """What is held of the slices that went by."""

    recipe: Recipe
    tables: list[pa.Table] = field(default_factory=list)
    spans: dict[str, list[tuple[Any, Any, Any]]] = field(default_factory=dict)
    errors: dict[str, list[npt.NDArray[np.float64] | None]] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    def add(self, scores: ClipScores) -> None:
        table = scores.table
        for name in self.recipe.filters:
            low, high, bound = scores.span(name)
            self.spans.setdefault(name, []).append((low, None if high is low else high, bound if bound.any() else None))
            self.errors.setdefault(name, []).append(scores.errors(name))
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

    def whole(self) -> ClipScores:
        """All slices together."""
        table = pa.concat_tables(self.tables, promote_options="default")
        spans, errors = {}, {}
        for name in self.recipe.filters:
            spans[name] = _joined(self.spans.pop(name))
            some = self.errors.pop(name)
            errors[name] = None if all(one is None for one in some) else _filled(some, self.tables)
        return ClipScores(table, self.recipe.built, self.unchecked, _spans=spans, _errors=errors)


def _joined(parts: Sequence[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    """The spans of slices as those of all clips: of one array, where low and high are the same."""
    low = np.concatenate([low for low, _, _ in parts])
    same = all(high is None for _, high, _ in parts)
    high = low if same else np.concatenate([low if high is None else high for low, high, _ in parts])
    # An array of zeros takes no memory until it is written to.
    bounds = np.zeros(len(low), bool)
    start = 0
    for one, _, bound in parts:
        if bound is not None:
            bounds[start : start + len(one)] = bound
        start += len(one)
    return low, high, bounds


def _filled(parts: Sequence[npt.NDArray[np.float64] | None], tables: Sequence[pa.Table]) -> npt.NDArray[np.float64]:
    whole = [
        np.full(table.num_rows, np.nan) if part is None else part for part, table in zip(parts, tables, strict=True)
    ]
    return np.concatenate(whole)
