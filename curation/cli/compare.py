"""`longtake compare`: what several recipes keep of the same clips."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from longtake.curation.cli import completing
from longtake.curation.cli.app import app, command, console, examples, outside
from longtake.curation.cli.options import AsJson, RequiredWorkspace
from longtake.curation.cli.tables import print_table

if TYPE_CHECKING:
    from longtake.curation.looking.compare import Comparison, Kept, Loss

MOST_LOSSES = 12  # lines of the table of losses; --json has all of them


@app.command(
    epilog=examples(
        "longtake compare workspace",
        "longtake compare workspace allegro:finetune cosmos mine.yaml",
        "longtake compare workspace allegro --json | jq '.losses[] | select(.kept_by == \"marked good\")'",
    )
)
@command
def compare(
    workspace: RequiredWorkspace,
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE",
            help="Shipped recipes or YAML files, each with :TIER for one tier only. Default: all that were published.",
            show_default=False,
            autocompletion=completing.recipes,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what several recipes keep of the same clips, beside the workspace's own. Nothing is measured: a clip that lacks
    a score stays undecided, and what would have to be measured is said."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.looking.compare import compare as compared
    from longtake.curation.looking.compare import named_recipes
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    found = compared(target, named_recipes(target, recipes or ()))
    if as_json:
        json.dump(found.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show_comparison(console, found)


def show_comparison(console: Console, found: Comparison) -> None:
    """Tables of what each set keeps, what they have in common, what one removes that another keeps, and what lacks a score."""
    from longtake.curation.looking.stats import hours

    letters = dict(zip((one.name for one in found.sets), _letters(), strict=False))
    named = {name: f"{letter}  {name}" for name, letter in letters.items()}
    errors = f", {found.errors} of them errors" if found.errors else ""
    console.print(
        f"{found.clips} clips, {hours(3600 * found.hours)}{errors}, of {outside(found.workspace)}", "", soft_wrap=True
    )
    print_table(
        console,
        "what each tier keeps of these clips",
        ("recipe/tier", "gates", "left out", "kept", "hours", "undecided", "rejected"),
        [
            (named[one.name], one.gates, one.not_applied, one.kept, f"{one.hours:.2f}", one.undecided, one.rejected)
            for one in found.sets
        ],
    )
    _show_notes(console, found)
    leading = [one for one in found.sets if one.leading]
    _show_marks(console, found, named)
    _show_overlap(console, found, leading, letters)
    _show_losses(console, found, leading, letters)
    _show_to_measure(console, found, letters)
    for name, reasons in found.not_applied.items():
        if reasons:
            console.print(outside(f"{name} leaves out: {', '.join(reasons)}"))
    if any(found.not_applied.values()):
        console.print("`longtake recipe print NAME` says why, under not_applied.")


def _letters() -> Iterator[str]:
    """a to z, then aa, ab, …"""
    yield from ascii_lowercase
    for first in ascii_lowercase:
        yield from (first + second for second in ascii_lowercase)


def _show_notes(console: Console, found: Comparison) -> None:
    empty = [one.name for one in found.sets if not (one.gates or one.leading) and one.not_applied]
    if empty:
        console.print(
            outside(f"{' and '.join(empty)}: none of its gates can be applied, so that it keeps whatever is no error.")
        )
    own, *others = found.windows.items()
    other = [f"{name} {seconds:g} s" for name, seconds in others if seconds != own[1]]
    if other:
        console.print(
            outside(
                f"Of these windows, of at most {own[1]:g} s. Cut by itself, a video would give other clips: {', '.join(other)}."
            )
        )
    for what, why in found.unchecked.items():
        console.print(outside(f"Scores of {what} are taken as they are, whatever made them: {why.splitlines()[0]}"))
    console.print()


def _show_marks(console: Console, found: Comparison, named: dict[str, str]) -> None:
    for mark, clips in found.marks.items():
        if not clips:
            continue
        rows = []
        for one in found.sets:
            loss, counts = found.loss(mark, one.name), one.marked[mark]
            rows.append((named[one.name], counts["kept"], counts["undecided"], counts["rejected"], _gates(loss)))
        title = f"of {clips} clips {mark}"
        print_table(console, title, ("recipe/tier", "kept", "undecided", "rejected", "mostly by"), rows)


def _gates(loss: Loss) -> str:
    return ", ".join(f"{gate.gate} {gate.failed}" for gate in loss.gates[:2] if gate.failed) or "–"


def _show_overlap(console: Console, found: Comparison, leading: Sequence[Kept], letters: dict[str, str]) -> None:
    at = {one.name: i for i, one in enumerate(found.sets)}
    rows = []
    for one in leading:
        both = [found.overlap[at[one.name]][at[other.name]] for other in leading]
        shares = [f"{100 * clips / one.kept:.0f}%" if one.kept else "–" for clips in both]
        rows.append((f"{letters[one.name]}  {one.recipe}", *shares))
    if len(leading) > 1:
        print_table(
            console,
            "of what a row keeps, the share that a column keeps, too",
            ("", *(letters[one.name] for one in leading)),
            rows,
        )


def _show_losses(console: Console, found: Comparison, leading: Sequence[Kept], letters: dict[str, str]) -> None:
    names = {one.name for one in leading}
    losses = [loss for loss in found.losses if loss.kept_by in names and loss.by in names and loss.rejected]
    losses.sort(key=lambda loss: loss.rejected, reverse=True)
    rows = [
        (letters[loss.kept_by], letters[loss.by], loss.rejected, gate.gate, gate.range, gate.failed, gate.alone)
        for loss in losses[:MOST_LOSSES]
        for gate in loss.gates[:1]
    ]
    if rows:
        columns = ("kept by", "rejected by", "clips", "first gate", "range", "by it", "alone")
        print_table(console, "what one keeps and another rejects, and by which gate mostly", columns, rows, left=2)
        if len(losses) > MOST_LOSSES:
            console.print(f"{len(losses) - MOST_LOSSES} more pairs, and all gates: --json", "")


def _show_to_measure(console: Console, found: Comparison, letters: dict[str, str]) -> None:
    first = {one.recipe: letters[one.name] for one in reversed(found.sets)}
    rows = [
        (
            one.filter,
            one.backend,
            ", ".join(dict.fromkeys(protocol.partition("/")[0] for protocol in one.here)) or "–",
            one.clips,
            one.undecided,
            " ".join(first[recipe] for recipe in one.recipes),
        )
        for one in found.to_measure
    ]
    if rows:
        columns = ("score", "wanted by", "here by", "clips lack it", "undecided", "of")
        print_table(console, "what would have to be measured", columns, rows, left=3)
        missing = dict.fromkeys(one.filter for one in found.to_measure if one.why)
        if missing:
            console.print(
                outside(f"This machine cannot measure {', '.join(missing)}: `longtake doctor -r RECIPE` says why."), ""
            )
