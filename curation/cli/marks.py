"""`longtake marks`: marks to and from other tools. `longtake rerun`: one clip as a recording."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from longtake.curation.cli import completing
from longtake.curation.cli.app import app, command, console, examples, outside
from longtake.curation.cli.options import Rater, RecipeName, RequiredWorkspace

marks_app = typer.Typer(help="Bring marks to and from FiftyOne, Label Studio and tables.", no_args_is_help=True)
app.add_typer(marks_app, name="marks")


class Format(StrEnum):
    """The formats of `longtake.curation.looking.studio.exchange`, whose import takes a second."""

    CSV = "csv"
    LABEL_STUDIO = "label-studio"
    FIFTYONE = "fiftyone"


How = Annotated[
    Format, typer.Option("--format", help="The format: csv, label-studio (its JSON) or fiftyone (a folder).")
]


@marks_app.command(
    "export",
    epilog=examples(
        "longtake marks export workspace -o marks.csv",
        "longtake marks export workspace --format label-studio --tier pretrain -o tasks.json",
        "longtake marks export workspace --format fiftyone -o marked",
    ),
)
@command
def export(
    workspace: RequiredWorkspace,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write this file, or with fiftyone this folder.", show_default=False)
    ],
    how: How = Format.CSV,
    tier: Annotated[
        str | None,
        typer.Option(
            "--tier",
            metavar="TIER",
            help="Export the clips that this tier keeps, too, also unmarked ones.",
            show_default=False,
            autocompletion=completing.tiers,
        ),
    ] = None,
    recipe: RecipeName = None,
) -> None:
    """Write all marks with their raters, times and notes, and the clips that they are of."""
    from longtake.curation.looking.studio.exchange import items, kept_clips, write_marks
    from longtake.curation.looking.studio.marks import Marks, this_user
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    further = kept_clips(target, target.recipe(recipe), tier) if tier else ()
    exported = items(target, Marks(target, this_user()).newest(), further)
    write_marks(target, exported, how.value, output)
    count = sum(len(item.marks) for item in exported)
    console.print(f"{outside(str(output))}: {count} marks, {len(exported)} clips", soft_wrap=True)


@marks_app.command(
    "import",
    epilog=examples(
        "longtake marks import workspace marks.csv --rater Ada",
        "longtake marks import workspace project-1.json --format label-studio",
    ),
)
@command
def import_(
    workspace: RequiredWorkspace,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="Read marks from this file, or with fiftyone from this folder.")
    ],
    how: How = Format.CSV,
    rater: Rater = None,
) -> None:
    """Store the marks of a file. Marks that name no rater are stored under --rater. If a clip of the file is not in the
    workspace, or a choice is neither good nor bad, nothing is stored."""
    from longtake.curation.looking.studio.exchange import read_marks
    from longtake.curation.looking.studio.marks import this_user
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    done = read_marks(target, how.value, source, rater or this_user())
    console.print(f"{done.new} marks stored, {done.known} were there already", soft_wrap=True)


@app.command(epilog=examples("longtake rerun workspace 4c8280 -o clip.rrd", "rerun clip.rrd"))
@command
def rerun(
    workspace: RequiredWorkspace,
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="Record the clip with this id, or whose id begins so.",
            autocompletion=completing.clips,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write this file. Default: CLIP.rrd.", show_default=False)
    ] = None,
    recipe: RecipeName = None,
) -> None:
    """Write one clip for the Rerun viewer: its frames, scores and captions over the time of its video."""
    from longtake.curation.looking.recording import write_recording
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    target.must_exist()
    path = output or Path(f"{clip}.rrd")
    clip_id = write_recording(target, target.recipe(recipe), clip, path)
    console.print(f"{outside(str(path))}: clip {clip_id}; `rerun {outside(str(path))}` shows it", soft_wrap=True)
