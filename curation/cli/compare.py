"""`longtake compare`: what several recipes keep of the same clips."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from longtake.curation.cli import completing
from longtake.curation.cli.app import app, command, console, examples, outside
from longtake.curation.cli.options import AsJson, RequiredWorkspace
from longtake.curation.cli.tables import print_table

if TYPE_CHECKING:
    from longtake.curation.looking.compare import Comparison


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
            help="Shipped recipes or YAML files. RECIPE:TIER takes one tier of a recipe. Default: all published recipes.",
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
    comparison = compared(target, named_recipes(target, recipes or ()))
    if as_json:
        json.dump(comparison.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show_comparison(console, comparison)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Tables of what each set keeps, what they have in common, what one removes that another keeps, and what lacks a score."""
    from longtake.curation.looking.compare_tables import headline, notes, tables

    console.print(outside(f"{headline(comparison)}, of {comparison.workspace}"), "", soft_wrap=True)
    for table in tables(comparison):
        print_table(console, table.title, table.heads, table.rows, left=table.left)
        if table.legend:
            console.print(table.legend, "")
    for note in notes(comparison):
        console.print(outside(note))
