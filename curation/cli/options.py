"""The arguments and options of the commands, each written once."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.curation.stages.stage import STAGES

if TYPE_CHECKING:
    StageName = str
else:
    StageName = StrEnum("StageName", {listed.name.upper(): listed.name for listed in STAGES})
LAST_STAGE: StageName = StageName(STAGES[-1].name)


Videos = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VIDEOS",
        help="Files, folders, globs, URIs, or lists of them: .txt, .csv, .tsv, .jsonl, .parquet, relative to the "
        "list's own folder; columns start, end and caption name clips.",
        show_default=False,
    ),
]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="PATH", help="The workspace: a folder or a URI.", show_default=False)
]
WorkspaceArgument = Annotated[
    str | None, typer.Argument(metavar="WORKSPACE", help="The workspace.", show_default=False)
]
RequiredWorkspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace: a folder or a URI.")]
OptionalOutput = Annotated[
    str | None, typer.Option("--output", "-o", metavar="PATH", help="The workspace, as an option.", show_default=False)
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME_OR_FILE",
        help="A shipped recipe or a YAML file. Default: the workspace's own, else embedded.",
    ),
]
UriColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of URIs in lists. Default: uri, url, path, …")
]
AllScores = Annotated[
    bool, typer.Option("--all-scores", help="Measure everything, also of clips that are rejected already.")
]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Try again what ended in an error.")]
Inline = Annotated[
    bool, typer.Option("--inline", help="In this process, without Ray and without protection from bad codecs.")
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Join this Ray cluster (auto, or HOST:PORT) instead of starting a local one."),
]
Workers = Annotated[int | None, typer.Option(min=1, metavar="N", help="Workers at once. Default: one per CPU.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if a row ended in an error.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="webdataset, huggingface, fiftyone or lance, beside Parquet, which always is; again for another one. Those "
        "not named go. The workspace's recipe keeps it. Default: the recipe's.",
    ),
]
Gates = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TIER.GATE=RANGE",
        help="Another gate: pretrain.flow='>= 30', pretrain.fps='[23.9, 60]', or pretrain.flow=off.",
    ),
]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe or a YAML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]
AllowEndpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-endpoint",
        metavar="HOST[:PORT]",
        help="Allow captioners to send pictures and the key to this host, although only a recipe names it; remembered for "
        "this user. Repeat the option for several hosts.",
    ),
]
Rater = Annotated[
    str | None,
    typer.Option(
        "--rater", metavar="NAME", help="Whose marks are made here. Default: the name of this machine's user."
    ),
]
