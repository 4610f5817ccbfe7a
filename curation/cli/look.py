"""The commands that look: `stats`, `tiers`, `show`, `calibrate`, `report` and `studio`."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from longtake.curation.cli import completing
from longtake.curation.cli.app import app, command, console, examples, one_workspace, outside
from longtake.curation.cli.options import (
    AccessFile,
    AllowPrivate,
    AsJson,
    Gates,
    OptionalOutput,
    Output,
    Rater,
    RecipeName,
    RequiredWorkspace,
    WorkspaceArgument,
)
from longtake.curation.errors import SetupError
from longtake.terminal import write_data


@app.command(
    epilog=examples(
        "longtake stats workspace",
        "longtake stats workspace --json | jq .tiers.pretrain",
        "longtake stats workspace -r longtake-hd",
    )
)
@command
def stats(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: tier, gate and counts.")] = False,
    near: Annotated[int, typer.Option(min=0, metavar="N", help="Name this many nearly kept clips.")] = 10,
) -> None:
    """Count and explain. The funnel of each tier, quantiles of every score, error kinds, nearly kept clips, and where
    the time went."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.cli.show import show_statistics, statistics_csv
    from longtake.curation.looking.stats import statistics
    from longtake.curation.workspace import Workspace

    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv, not both")
    target = Workspace(one_workspace(workspace, output))
    target.must_exist()
    figures = statistics(target, target.recipe(recipe), near)
    if as_json:
        json.dump(figures.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif as_csv:
        write_data(statistics_csv(figures))
    else:
        show_statistics(console, figures)


@app.command(
    epilog=examples(
        "longtake tiers workspace --set 'pretrain.flow=>= 30'",
        "longtake tiers workspace --set pretrain.artifacts=off --write",
        "longtake tiers workspace -r longtake-hd --save mine.yaml",
    )
)
@command
def tiers(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    changes: Gates = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the changed recipe to this file.", show_default=False)
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Make the changed recipe the workspace's recipe.")] = False,
) -> None:
    """Decide again with another recipe or other gates. The command writes only with --write or --output."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.cli.show import show_changes
    from longtake.curation.looking.tiering import parse_changes, retier
    from longtake.curation.workspace import Workspace
    from longtake.manifests.lock import WorkspaceLock

    target = Workspace(one_workspace(workspace, output))
    target.must_exist()
    before = target.recipe(None)
    after = target.recipe(recipe).with_gates(parse_changes(changes or []))
    show_changes(console, retier(target, before, after))
    if save:
        try:
            save.write_text(after.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"cannot write {save}: {error.strerror}") from error
        console.print(f"recipe written: {outside(str(save))}")
    if write:
        with WorkspaceLock(target.path):
            target.save_recipe(after)
        console.print("the workspace has this recipe now; `longtake curate` computes what it lacks")


@app.command(epilog=examples("longtake show workspace 4c8280"))
@command
def show(
    first: Annotated[
        str, typer.Argument(metavar="WORKSPACE", help="Use this workspace; leave it out if -o names one.")
    ],
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="CLIP",
            help="Show the clip with this id, or whose id begins so.",
            show_default=False,
            autocompletion=completing.clips,
        ),
    ] = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    as_json: AsJson = False,
) -> None:
    """Show one clip: its scores, protocols, gates, captions and files."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.cli.show import show_clip
    from longtake.curation.looking.tiering import describe_clip
    from longtake.curation.workspace import Workspace

    if second is None and output is None:
        raise typer.BadParameter("give the workspace, and then the clip: longtake show WORKSPACE CLIP")
    workspace, clip_id = (first, second) if second is not None else (None, first)
    target = Workspace(one_workspace(workspace, output))
    target.must_exist()
    known = describe_clip(target, target.recipe(recipe), clip_id)
    if as_json:
        json.dump(known, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    else:
        show_clip(console, known)


@app.command(
    epilog=examples(
        "longtake publish workspace pretrain me/my-clips", "longtake publish workspace pretrain me/my-clips --public"
    )
)
@command
def publish(
    workspace: RequiredWorkspace,
    tier: Annotated[
        str, typer.Argument(metavar="TIER", help="Push the dataset of this tier.", autocompletion=completing.tiers)
    ],
    repo: Annotated[
        str, typer.Argument(metavar="REPO", help="Push to this dataset repository of the Hugging Face Hub: OWNER/NAME.")
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public. By default only you see it.")
    ] = False,
) -> None:
    """Push a tier's dataset to the Hugging Face Hub, as its viewer plays it. Run it again to go on after a stop, or to bring
    the repository up to a new export. The token is HF_TOKEN, or that of `hf auth login`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from longtake.curation.publishing import publish as push
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("clips", total=None)
        done = push(
            target, target.recipe(None), tier, repo, public=public,
            advance=lambda have, total: bars.update(task, completed=have, total=total),
        )  # fmt: skip
    console.print(
        f"published: {outside(done.url)} ({done.sent} clips sent, {done.there} were there, {done.removed} files removed)",
        soft_wrap=True,
    )


FilterName = Annotated[
    str,
    typer.Argument(
        metavar="FILTER",
        help="Compare this filter, which is measured on frames, such as flow.",
        autocompletion=completing.filters,
    ),
]
Backends = Annotated[
    str,
    typer.Option(help="Name two backends and their settings: dis,unimatch or dis,raft:variant=small:source=princeton."),
]
At = Annotated[list[float] | None, typer.Option(help="Compare at the threshold '>= AT' instead of the recipe's gates.")]
Clips = Annotated[int, typer.Option(min=10, help="Measure at most this many clips.")]


@app.command()
@command
def calibrate(
    name: FilterName,
    backends: Backends,
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    at: At = None,
    clips: Clips = 200,
    as_json: AsJson = False,
) -> None:
    """Measure a filter by two backends on the same stored clips: rank correlation, quantiles, matching thresholds.
    Nothing is written."""
    from longtake.curation.cli.show import show_calibration
    from longtake.curation.looking.calibrate import calibrate as compare
    from longtake.curation.looking.calibrate import parse_backend
    from longtake.curation.workspace import Workspace

    texts = [text for text in backends.split(",") if text.strip()]
    if len(texts) != 2:
        raise typer.BadParameter(f"--backends names two, parted by a comma; not {backends!r}")
    target = Workspace(output)
    target.must_exist()
    calibration = compare(
        target, target.recipe(recipe), name, (parse_backend(texts[0]), parse_backend(texts[1])), at or (), clips
    )
    if as_json:
        json.dump(asdict(calibration), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show_calibration(console, calibration)


@app.command(epilog=examples("longtake report workspace -o report.html"))
@command
def report(
    workspace: RequiredWorkspace,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write this file.")] = Path("report.html"),
    recipe: RecipeName = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="RECIPE",
            help="Add what this recipe, or RECIPE:TIER, would keep. Repeat the option for several recipes. Default: all "
            "published recipes.",
            show_default=False,
            autocompletion=completing.recipes,
        ),
    ] = None,
) -> None:
    """Write one HTML file with funnels, scores, clips on both sides of each gate, and errors."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.looking.compare import named_recipes
    from longtake.curation.looking.report.page import write_report
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    page = write_report(target, target.recipe(recipe), named_recipes(target, others or ())[1:])
    try:
        output.write_bytes(page)
    except OSError as error:
        raise SetupError(f"cannot write {output}: {error.strerror}") from error
    console.print(f"report: {outside(str(output))} ({len(page) / 1e6:.1f} MB)", soft_wrap=True)


@app.command(epilog=examples("longtake studio workspace", "longtake studio workspace -r mine.yaml --port 0"))
@command
def studio(
    workspace: RequiredWorkspace,
    recipe: RecipeName = None,
    host: Annotated[
        str,
        typer.Option(
            help="Listen on this address. If it is not this machine's loopback address, the page asks for a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Listen on this port; with 0, on a free one.")] = 8765,
    access: AccessFile = None,
    allow_private: AllowPrivate = False,
    rater: Rater = None,
) -> None:
    """Move thresholds in a browser and see what changes. The command serves a local page. Save writes a recipe; a mark on a
    clip is stored at once."""
    from longtake.curation.cli.startup import leave_pandas_out

    leave_pandas_out()
    import secrets

    from longtake.curation.access import Access, Reach
    from longtake.curation.looking.studio.session import Session
    from longtake.curation.workspace import Workspace

    reads = Access.load(access, Reach.of(private=allow_private))
    target = Workspace(workspace)
    target.must_exist()
    session = Session(target, target.recipe(recipe), rater, reads)
    session.begin()  # The session reads while the server is imported.
    try:
        from longtake.curation.looking.studio.server import LOOPBACK, address, listen, serve
    except ModuleNotFoundError as error:
        raise SetupError(f"the studio needs {error.name}: pip install 'longtake[studio]'") from error
    bound = listen(host, port)
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    console.print(f"studio: {outside(address(bound, host, token))}  (Ctrl-C ends it)", soft_wrap=True)
    console.print(f"marks are kept as those of {outside(session.marks.who)}; --rater names another", soft_wrap=True)
    with suppress(KeyboardInterrupt):  # Ctrl-C is the way to end it.
        serve(
            session,
            bound,
            token,
            reads,
            [*(["--access", access] if access else []), *(["--allow-private"] * allow_private)],
        )
