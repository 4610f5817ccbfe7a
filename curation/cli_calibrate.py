"""`longtake calibrate`: how the scales of two backends relate."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from longtake.curation.calibrate import Calibration

FilterName = Annotated[str, typer.Argument(metavar="FILTER", help="A filter that is measured on frames, such as flow.")]
Output = Annotated[str, typer.Option("--output", "-o", help="The workspace: a folder or a URI.")]
Backends = Annotated[
    str, typer.Option(help="Two, and their settings: dis,unimatch or dis,raft:variant=small:source=princeton.")
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", "-r", help="Whose gates are looked at. Default: the workspace's own.")
]
At = Annotated[list[float] | None, typer.Option(help="A threshold '>= AT' instead of the recipe's gates.")]
Clips = Annotated[int, typer.Option(min=10, help="How many clips at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


def add_calibrate(
    app: typer.Typer, command: Callable[[Callable[..., None]], Callable[..., None]], console: Console
) -> None:
    """Add the command. command: turns faults of the set-up into exit codes."""

    @app.command()
    @command
    def calibrate(
        name: FilterName,
        output: Output,
        backends: Backends,
        recipe: RecipeName = None,
        at: At = None,
        clips: Clips = 200,
        as_json: AsJson = False,
    ) -> None:
        """Measure a filter by two backends on the same stored clips: rank correlation, quantiles, matching thresholds.
        Nothing is written."""
        from longtake.curation.calibrate import calibrate as compare
        from longtake.curation.calibrate import parse_backend
        from longtake.curation.workspace import Workspace

        texts = [text for text in backends.split(",") if text.strip()]
        if len(texts) != 2:
            raise typer.BadParameter(f"--backends names two, parted by a comma; not {backends!r}")
        target = Workspace(output)
        target.must_exist()
        found = compare(
            target, target.recipe(recipe), name, (parse_backend(texts[0]), parse_backend(texts[1])), at or (), clips
        )
        if as_json:
            json.dump(asdict(found), sys.stdout, indent=2)
            sys.stdout.write("\n")
        else:
            _show(console, found)


def _show(console: Console, found: Calibration) -> None:
    from rich.table import Table

    left, right = (escape(protocol.partition("/")[0]) for protocol in found.protocols)
    for protocol in found.protocols:
        console.print(escape(protocol), soft_wrap=True)
    console.print(f"{found.clips} clips" + (f"; {found.failed} could not be measured by both" if found.failed else ""))
    console.print(f"rank correlation (Spearman): {found.rank_correlation:.3f}")
    table = Table("share below", left, right, box=None, pad_edge=False)
    for share, a, b in found.quantiles:
        table.add_row(f"{share:.0%}", f"{a:.4g}", f"{b:.4g}")
    console.print(table)
    for match in found.matches:
        kept = f"{match.of} {match.gate} keeps {match.kept:.1%}"
        if match.match is None:
            console.print(f"{kept}: no clip tells what that is on {match.on}'s scale", soft_wrap=True)
        else:
            agree = f"they agree on {match.agree:.1%} of the clips"
            console.print(f"{kept}, as {match.on} {match.match} does; {agree}", soft_wrap=True)
