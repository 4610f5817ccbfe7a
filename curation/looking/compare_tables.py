"""A comparison of recipes as tables and sentences: what the terminal, the report and the studio show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from longtake.curation.looking.compare import Comparison, Kept, Loss
from longtake.curation.looking.stats import hours

_KEPT = (
    "Under gates stands how many gates of the tier are applied; under left out, how many gates of the publication are not, since "
    "no filter measures them or its number is not known. A clip is undecided where no gate rejects it and a score is missing."
)
_LACKING = (
    "Wanted by is the backend that the recipes ask for. Here by is what measured the scores of this name that the workspace has; "
    "those do not count for these recipes. Undecided are the clips that some tier leaves undecided for want of this score."
)
MOST_LOSSES = 12  # Rows of the table of losses; the JSON has all of them.


@dataclass(frozen=True, slots=True)
class Told:
    """A table. left: how many columns are text, from the left. legend: what its heads mean, shown below."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[object, ...]]
    left: int = 1
    legend: str = ""


def headline(comparison: Comparison) -> str:
    """How many clips there are."""
    errors = f", {comparison.errors:,} of them errors" if comparison.errors else ""
    return f"{comparison.clips:,} clips, {hours(3600 * comparison.hours)}{errors}"


def tables(comparison: Comparison) -> Iterator[Told]:
    """What each set keeps; what becomes of marked clips; what sets have in common; what one removes that another keeps; what
    lacks a score. In the tables below the first, a letter stands for a set."""
    letters = dict(zip((one.name for one in comparison.sets), _letters(), strict=False))
    named = {name: f"{letter}: {name}" for name, letter in letters.items()}
    leading = [one for one in comparison.sets if one.leading]
    yield Told(
        "what each tier keeps of these clips",
        ("recipe/tier", "gates", "left out", "kept", "hours", "undecided", "rejected"),
        [
            (named[one.name], one.gates, one.not_applied, one.kept, f"{one.hours:.2f}", one.undecided, one.rejected)
            for one in comparison.sets
        ],
        legend=_KEPT,
    )
    yield from _of_marks(comparison, named)
    if len(leading) > 1:
        yield _overlap(comparison, leading, letters)
    yield from _losses(comparison, leading, letters)
    yield from _to_measure(comparison, letters)


def _letters() -> Iterator[str]:
    """a to z, then aa, ab, …"""
    yield from ascii_lowercase
    for first in ascii_lowercase:
        yield from (first + second for second in ascii_lowercase)


def _of_marks(comparison: Comparison, named: dict[str, str]) -> Iterator[Told]:
    for mark, clips in comparison.marks.items():
        if clips:
            rows = [
                (
                    named[one.name],
                    *(one.marked[mark][verdict] for verdict in ("kept", "undecided", "rejected")),
                    _first_gates(comparison.loss(mark, one.name)),
                )
                for one in comparison.sets
            ]
            yield Told(
                f"of {clips:,} clips {mark}", ("recipe/tier", "kept", "undecided", "rejected", "mostly by"), rows
            )


def _first_gates(loss: Loss) -> str:
    return ", ".join(f"{gate.gate} {gate.failed}" for gate in loss.gates[:2] if gate.failed) or "–"


def _overlap(comparison: Comparison, leading: Sequence[Kept], letters: dict[str, str]) -> Told:
    at = {one.name: i for i, one in enumerate(comparison.sets)}
    rows: list[tuple[object, ...]] = []
    for one in leading:
        both = [comparison.overlap[at[one.name]][at[other.name]] for other in leading]
        shares = [f"{100 * clips / one.kept:.0f}%" if one.kept else "–" for clips in both]
        rows.append((f"{letters[one.name]}: {one.recipe}", *shares))
    heads = ("", *(letters[one.name] for one in leading))
    return Told("share of a row that a column keeps", heads, rows)


def _losses(comparison: Comparison, leading: Sequence[Kept], letters: dict[str, str]) -> Iterator[Told]:
    losses = _between(comparison, leading)
    rows: list[tuple[object, ...]] = [
        (letters[loss.kept_by], letters[loss.by], loss.rejected, gate.gate, gate.range, gate.failed, gate.alone)
        for loss in losses[:MOST_LOSSES]
        for gate in loss.gates[:1]
    ]
    if rows:
        heads = ("kept by", "rejected by", "clips", "first gate", "range", "by it", "alone")
        yield Told("what one keeps and another rejects, and by which gate mostly", heads, rows, 2)


def _between(comparison: Comparison, leading: Sequence[Kept]) -> list[Loss]:
    names = {one.name for one in leading}
    losses = [loss for loss in comparison.losses if loss.kept_by in names and loss.by in names and loss.rejected]
    return sorted(losses, key=lambda loss: -loss.rejected)


def _to_measure(comparison: Comparison, letters: dict[str, str]) -> Iterator[Told]:
    first = {one.recipe: letters[one.name] for one in reversed(comparison.sets)}
    rows: list[tuple[object, ...]] = [
        (
            one.filter,
            one.backend,
            ", ".join(dict.fromkeys(protocol.partition("/")[0] for protocol in one.here)) or "–",
            one.clips,
            one.undecided,
            " ".join(first[recipe] for recipe in one.recipes),
        )
        for one in comparison.to_measure
    ]
    if rows:
        heads = ("score", "wanted by", "here by", "clips lack it", "undecided", "of")
        yield Told("what would have to be measured", heads, rows, 3, _LACKING)


def notes(comparison: Comparison) -> Iterator[str]:
    """What must be known beside the tables, a sentence or two each."""
    for name in (one.name for one in comparison.sets if not (one.gates or one.leading)):
        yield f"{name}: none of its gates can be applied, so that it keeps every clip without an error; it is left out below."
    (_, own), *others = comparison.windows.items()
    if other := [f"{name} {seconds:g} s" for name, seconds in others if seconds != own]:
        yield f"Of these windows, of at most {own:g} s. Cut by itself, a video would give other clips: {', '.join(other)}."
    for what, why in comparison.unchecked.items():
        yield f"Scores of {what} are taken as they are, by any method: {why.splitlines()[0]}"
    more = len(_between(comparison, [one for one in comparison.sets if one.leading])) - MOST_LOSSES
    if more > 0:
        yield f"{more} more pairs of recipes, and all gates of each: `longtake compare --json`."
    if missing := dict.fromkeys(one.filter for one in comparison.to_measure if one.why):
        yield f"This machine cannot measure {', '.join(missing)}: `longtake doctor -r RECIPE` says why."
    left = [
        f"{name}: {', '.join(reasons)}"
        for name, reasons in comparison.not_applied.items()
        if reasons and name != comparison.sets[0].recipe
    ]
    if left:
        yield f"Left out, with the reason under not_applied (`longtake recipe print NAME`). {'; '.join(left)}."
