"""Several recipes on one table of scores: what each keeps of the same clips, what they have in common, and what one removes that
another keeps. Nothing is measured: a score that is missing leaves a clip undecided.

A tier of a recipe is a *set* here. In the matrix and among the losses a recipe stands for its first tier, the loosest, unless
another one was named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import slices_of_each
from longtake.curation.looking.stats import clip_seconds
from longtake.curation.looking.truth import agreed
from longtake.curation.recipe import PUBLISHED, Recipe, RecipeError, load_recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import FilterUnavailable
from longtake.filters.gates import Bools, Tier
from longtake.filters.verdicts import ClipScores, TierResult, Verdict, decide
from longtake.manifests.parts import steadily
from longtake.settings import near

OWN = "this workspace"  # The name of the workspace's own recipe.
MARKS = ("marked good", "marked bad")

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Named:
    """A recipe to compare, as the user calls it. tier: the only one that is wanted; None: all of them. own: it is the one that
    the others are compared with."""

    name: str
    recipe: Recipe
    tier: str | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """What a tier of a recipe makes of the clips. leading: it stands for its recipe in the matrix, which a tier does not whose
    recipe can apply no gate of it. not_applied: gates that the recipe names and cannot apply. marked: of each kind of mark,
    verdict → clips."""

    recipe: str
    tier: str
    leading: bool
    gates: int
    not_applied: int
    kept: int
    hours: float
    undecided: int
    undecided_hours: float
    rejected: int
    marked: dict[str, dict[str, int]]

    @property
    def name(self) -> str:
        """Recipe and tier."""
        return f"{self.recipe}/{self.tier}"


@dataclass(frozen=True, slots=True)
class Lost:
    """Clips that one set keeps (or that bear a mark), by gate of another set. failed: rejected by this gate, whatever the others
    say. alone: by this gate and no other, each of which passed them. no_score: the other set is undecided for want of this
    score."""

    gate: str
    range: str
    failed: int
    alone: int
    no_score: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What `by` does to the clips that `kept_by` keeps: the names of two sets, or MARKS for `kept_by`. gates: those that fail
    most come first."""

    kept_by: str
    by: str
    clips: int
    rejected: int
    undecided: int
    gates: list[Lost]


@dataclass(frozen=True, slots=True)
class ToMeasure:
    """A score that gates look at and clips lack. wanted: its protocol, None where this machine cannot tell (why). backend: with
    how its values are reduced, and how far apart keyframes are. here: the protocols that clips have it under. clips: that lack
    it; undecided: of some set for want of it. recipes: whose gates want it."""

    filter: str
    backend: str
    wanted: str | None
    why: str | None
    here: list[str]
    clips: int
    undecided: int
    recipes: list[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` finds. overlap: clips that two sets both keep [sets, sets]. not_applied, windows, sources: by recipe;
    windows is how long, in seconds, the recipe's own clips would be. unchecked: filters whose scores are taken as they are, and
    why."""

    workspace: str
    clips: int
    hours: float
    errors: int
    marks: dict[str, int]
    sets: list[Kept]
    overlap: list[list[int]]
    losses: list[Loss]
    to_measure: list[ToMeasure]
    not_applied: dict[str, dict[str, str]]
    windows: dict[str, float]
    sources: dict[str, str]
    unchecked: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self)

    def loss(self, kept_by: str, by: str) -> Loss:
        """The loss between two sets."""
        return next(loss for loss in self.losses if (loss.kept_by, loss.by) == (kept_by, by))


def named_recipes(workspace: Workspace, texts: Sequence[str]) -> list[Named]:
    """The recipes to compare: the workspace's own, and NAME_OR_FILE or NAME_OR_FILE:TIER for each text; without any, those that
    were published. Raises RecipeError."""
    recipes = [Named(OWN, workspace.recipe(None), own=True)]
    for text in texts or PUBLISHED:
        name, tier = text, None
        try:
            recipe = load_recipe(text)
        except RecipeError:
            head, colon, tail = text.rpartition(":")
            if not colon or not head or not tail:
                raise
            name, tier, recipe = head, tail, load_recipe(head)
            if tier not in recipe.tiers:
                raise RecipeError(
                    f"{text!r}: recipe {recipe.name} has no tier {tier!r}{near(tier, recipe.tiers)}"
                ) from None
        short = Path(name).stem if name.endswith((".yaml", ".yml")) else name
        same = [each for each in recipes if each.name.partition(" (")[0] == short and each.recipe != recipe]
        recipes.append(Named(f"{short} ({len(same) + 1})" if same else short, recipe, tier))
    return list({(each.name, each.tier): each for each in recipes}.values())


def compare(workspace: Workspace, recipes: Sequence[Named]) -> Comparison:
    """Read the clips once, a slice at a time, and decide each of them by every tier of every recipe."""
    return steadily(lambda: _compared(workspace, recipes))


def _compared(workspace: Workspace, recipes: Sequence[Named]) -> Comparison:
    each = list({named.name: named.recipe for named in recipes}.items())
    marks = agreed(workspace)
    details: dict[str, None] = {}
    while True:
        # Details are long and seldom needed. Which clips need theirs shows only after the other columns are read.
        counts = _Counts([_Set(*chosen) for chosen in _sets(recipes)], dict(each), marks)
        further: dict[str, None] = {}
        slices = slices_of_each(workspace, [recipe for _, recipe in each], ["start", "end"], list(details))
        for scores in slices if workspace.clips.rows() else ():
            further |= {name: None for one in scores for name in one.details_needed() if name not in details}
            if not further:
                counts.add({name: one for (name, _), one in zip(each, scores, strict=True)})
        if not further:
            return counts.told(workspace)
        details |= further


def _sets(recipes: Sequence[Named]) -> Iterator[tuple[str, str, Recipe, bool]]:
    """Name, tier, recipe, leading. A recipe that was named whole and by a tier has each of its tiers once."""
    chosen: dict[tuple[str, str], tuple[Recipe, bool]] = {}
    for named in recipes:
        for i, tier in enumerate(named.recipe.tiers if named.tier is None else [named.tier]):
            _, leads = chosen.get((named.name, tier), (None, False))
            chosen[named.name, tier] = named.recipe, leads or (i == 0 and _says_something(named, tier))
    for (name, tier), (recipe, leads) in chosen.items():
        yield name, tier, recipe, leads


def _says_something(named: Named, tier: str) -> bool:
    return named.own or bool(named.recipe.tiers[tier]) or not named.recipe.not_applied


@dataclass(slots=True)
class _Set:
    """A tier of a recipe, and what was counted of it so far: clips by verdict, seconds by verdict."""

    recipe_name: str
    tier: str
    recipe: Recipe
    leading: bool
    clips: Counts = field(default_factory=lambda: np.zeros(len(Verdict), np.int64))
    seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(Verdict)))

    @property
    def gates(self) -> Tier:
        return self.recipe.tiers[self.tier]


class _Counts:
    """Counts over slices. A *keeper* is a set, or the clips that bear one of MARKS."""

    def __init__(self, sets: Sequence[_Set], recipes: Mapping[str, Recipe], marks: Mapping[str, bool]) -> None:
        self.sets = list(sets)
        self.recipes = recipes
        self.marks = pa.array(list(marks), pa.string()), np.array(list(marks.values()), bool)
        self.clips = self.errors = 0
        self.seconds = 0.0
        keepers, gates = len(self.sets) + len(MARKS), sum(len(one.gates) for one in self.sets)
        self.verdicts = {verdict: np.zeros((keepers, len(self.sets)), np.int64) for verdict in Verdict}
        self.failed, self.alone, self.missing = (np.zeros((keepers, gates), np.int64) for _ in range(3))
        self.marked = np.zeros(len(MARKS), np.int64)
        self.lacking: dict[
            tuple[str, str], Counts
        ] = {}  # (Recipe, filter) → clips that lack its score, and clips that are undecided for that reason only.
        self.here: dict[str, Counter[str]] = {}
        self.unchecked: dict[str, str] = {}  # Filter → why scores of any method count.

    def add(self, scores: Mapping[str, ClipScores]) -> None:
        """Count a slice of the clips, as each recipe reads it."""
        some = next(iter(scores.values()))
        seconds = clip_seconds(some.table)
        results = [decide(scores[one.recipe_name], one.gates) for one in self.sets]
        self.clips += some.table.num_rows
        self.errors += int(np.count_nonzero(~some.ok()))
        self.seconds += float(seconds.sum())
        for one, result in zip(self.sets, results, strict=True):
            one.clips += np.bincount(result.verdicts, minlength=len(Verdict))
            one.seconds += np.bincount(result.verdicts, seconds, len(Verdict))
        self._add_losses(results, self._marked(some.table["clip_id"]))
        self._add_lacking(scores, results)

    def _marked(self, ids: pa.ChunkedArray) -> list[Bools]:
        """The clips that bear each of MARKS."""
        known, good = self.marks
        if not len(known):
            return [np.zeros(len(ids), bool) for _ in MARKS]
        at = pc.index_in(ids, value_set=known)
        bears = at.is_valid().to_numpy().astype(bool)
        is_good = good[at.fill_null(0).to_numpy()]
        masks = [bears & is_good, bears & ~is_good]
        self.marked += [np.count_nonzero(each) for each in masks]
        return masks

    def _add_losses(self, results: Sequence[TierResult], marked: Sequence[Bools]) -> None:
        keepers = _packed([*(result.kept for result in results), *marked])
        for verdict, counts in self.verdicts.items():
            counts += _common(keepers, [result.verdicts == verdict for result in results])
        gates = [(result, gate) for result in results for gate in result.gates.values()]
        if gates:
            self.failed += _common(keepers, [gate.failed for _, gate in gates])
            self.alone += _common(keepers, [gate.failed & result.tally.by_one for result, gate in gates])
            self.missing += _common(keepers, [gate.missing & result.tally.unfailed for result, gate in gates])

    def _add_lacking(self, scores: Mapping[str, ClipScores], results: Sequence[TierResult]) -> None:
        undecided: dict[tuple[str, str], Bools] = {}
        for one, result in zip(self.sets, results, strict=True):
            for name, gate in result.gates.items():
                key = one.recipe_name, name
                wanting = gate.missing & ~gate.unknown & result.tally.unfailed
                undecided[key] = undecided[key] | wanting if key in undecided else wanting
        for (recipe, name), wanting in undecided.items():
            read = scores[recipe]
            counts = self.lacking.setdefault((recipe, name), np.zeros(2, np.int64))
            wants = read.missing(name) & read.ok() & ~read.settled(name)
            counts += [np.count_nonzero(wants), np.count_nonzero(wanting & wants)]
        some = next(iter(scores.values()))
        for protocols, clips in some.stored_protocols():
            for name, protocol in protocols.items():
                self.here.setdefault(name, Counter())[protocol] += clips

    def told(self, workspace: Workspace) -> Comparison:
        """What was counted."""
        return Comparison(
            workspace=workspace.path,
            clips=self.clips,
            hours=self.seconds / 3600,
            errors=self.errors,
            marks=dict(zip(MARKS, self.marked.tolist(), strict=True)),
            sets=[self._kept(i) for i in range(len(self.sets))],
            overlap=self.verdicts[Verdict.KEPT][: len(self.sets)].tolist(),
            losses=list(self._losses()),
            to_measure=self._to_measure(),
            not_applied={name: recipe.not_applied for name, recipe in self.recipes.items()},
            windows={name: recipe.splitting.window_seconds for name, recipe in self.recipes.items()},
            sources={name: recipe.source for name, recipe in self.recipes.items()},
            unchecked=self.unchecked,
        )

    def _kept(self, at: int) -> Kept:
        one = self.sets[at]
        marked = {
            mark: {v.name.lower(): int(counts[len(self.sets) + i, at]) for v, counts in self.verdicts.items()}
            for i, mark in enumerate(MARKS)
        }
        return Kept(
            one.recipe_name,
            one.tier,
            one.leading,
            len(one.gates),
            len(one.recipe.not_applied),
            int(one.clips[Verdict.KEPT]),
            float(one.seconds[Verdict.KEPT]) / 3600,
            int(one.clips[Verdict.UNDECIDED]),
            float(one.seconds[Verdict.UNDECIDED]) / 3600,
            int(one.clips[Verdict.REJECTED]),
            marked,
        )

    def _losses(self) -> Iterator[Loss]:
        names = [f"{one.recipe_name}/{one.tier}" for one in self.sets]
        whole = [*(int(one.clips[Verdict.KEPT]) for one in self.sets), *self.marked.tolist()]
        for row, keeper in enumerate([*names, *MARKS]):
            first = 0
            for column, one in enumerate(self.sets):
                columns = slice(first, first + len(one.gates))
                first = columns.stop
                if row == column:
                    continue
                by_gate = zip(
                    one.gates.items(),
                    *(counts[row, columns].tolist() for counts in (self.failed, self.alone, self.missing)),
                    strict=True,
                )
                gates = [Lost(name, str(gate), *counts) for (name, gate), *counts in by_gate if any(counts)]
                gates.sort(key=lambda lost: (lost.failed, lost.alone, lost.no_score), reverse=True)
                rejected, undecided = (
                    int(self.verdicts[verdict][row, column]) for verdict in (Verdict.REJECTED, Verdict.UNDECIDED)
                )
                yield Loss(keeper, names[column], whole[row], rejected, undecided, gates)

    def _to_measure(self) -> list[ToMeasure]:
        measurements: dict[tuple[str, str, str | None, str | None], ToMeasure] = {}
        for (recipe, name), (clips, undecided) in self.lacking.items():
            filter_ = self.recipes[recipe].built[name]
            wanted, why = None, None
            try:
                wanted = filter_.protocol
            except FilterUnavailable as error:
                why = str(error)
                if clips < self.clips - self.errors:  # Some clips have a score of the backend, by some method.
                    self.unchecked[name] = why
            if not clips:
                continue
            apart = getattr(filter_.settings, "spacing", None)  # Seconds between keyframes, or `any`.
            backend = " ".join(
                [
                    filter_.backend,
                    *([] if filter_.reduce == "mean" else [filter_.reduce]),
                    *([] if apart is None else [f"@{apart if apart == 'any' else f'{apart:g}s'}"]),
                ]
            )
            here = [protocol for protocol, _ in self.here.get(name, Counter()).most_common()]
            key = name, backend, wanted, why
            old = measurements.get(key, ToMeasure(*key[:2], wanted, why, here, 0, 0, []))
            most = max(old.clips, int(clips)), max(old.undecided, int(undecided))
            measurements[key] = ToMeasure(name, backend, wanted, why, here, *most, [*old.recipes, recipe])
        return sorted(measurements.values(), key=lambda one: (-one.undecided, -one.clips))


def _packed(members: Sequence[Bools]) -> npt.NDArray[np.uint64]:
    """[rows, clips] as bits, 64 to a number."""
    if not members:
        return np.zeros((0, 1), np.uint64)
    bits = np.packbits(np.stack(members), axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def _common(keepers: npt.NDArray[np.uint64], others: Sequence[Bools]) -> Counts:
    """[keepers, others]: clips that are of both. keepers: as `_packed` gives them."""
    bits = _packed(others)
    both = [np.bitwise_count(bits & keeper).sum(axis=1, dtype=np.int64) for keeper in keepers]
    return np.array(both).reshape(len(keepers), len(bits))
