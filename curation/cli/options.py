"""The arguments and options of the commands, each written once."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.curation.cli import completing
from longtake.curation.stages.stage import STAGES

if TYPE_CHECKING:
    StageName = str
    EngineName = str
else:
    EngineName = StrEnum("EngineName", {"INLINE": "inline", "RAY": "ray"})
    StageName = StrEnum("StageName", {listed.name.upper(): listed.name for listed in STAGES})
LAST_STAGE: StageName = StageName(STAGES[-1].name)


def _part(text: str | tuple[int, int] | None) -> tuple[int, int] | None:
    if text is None or isinstance(text, tuple):
        return text
    which, slash, parts = text.partition("/")
    if not (slash and which.isdecimal() and parts.isdecimal() and 1 <= int(which) <= int(parts)):
        raise typer.BadParameter(f"{text!r} is no part: write I/N, such as 2/5, with I from 1 to N")
    return int(which), int(parts)


Videos = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VIDEOS",
        help="Name files, folders, globs, URIs, or lists of them: .txt, .csv, .tsv, .jsonl or .parquet. Paths in a list are "
        "relative to the list's folder; its columns start, end and caption name clips. Tar archives of videos (WebDataset) and "
        "datasets of Hugging Face (Parquet with a column of videos, metadata.csv) are read without unpacking.",
        show_default=False,
    ),
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="PATH", help="Use this workspace, a folder or a URI.", show_default=False),
]
WorkspaceArgument = Annotated[
    str | None, typer.Argument(metavar="WORKSPACE", help="Use this workspace, a folder or a URI.", show_default=False)
]
RequiredWorkspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="Use this workspace, a folder or a URI.")]
OptionalOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Use this workspace; the argument WORKSPACE does the same.",
        show_default=False,
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME_OR_FILE",
        help="Use this recipe: one that ships, or a YAML file. Default: the workspace's recipe, else embedded.",
        autocompletion=completing.recipes,
    ),
]
UriColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Take URIs from this column of lists. Default: uri, url, path, …")
]
ListFps = Annotated[
    float | None,
    typer.Option(
        "--list-fps",
        min=0.001,
        metavar="N",
        help="Read frame numbers and time codes (HH:MM:SS:FF) of lists at this rate. Default: the list's column fps.",
    ),
]
AccessFile = Annotated[
    str | None,
    typer.Option(
        "--access",
        metavar="FILE",
        help="Take the secrets that open videos from this file: a JSON object or CSV lines, each with an identity or a host, "
        "and a URI, user:password or ?query. The file has to be readable by its owner alone (mode 0600). "
        "Default: the file in LONGTAKE_ACCESS.",
        show_default=False,
    ),
]
SecretQuery = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Keep the values of this query key of URIs secret, besides those of the known signers. Repeat the option for "
        "several keys.",
        show_default=False,
    ),
]
AllowScheme = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Read URIs of this scheme in lists, besides file, https, http, s3, gs and az. Repeat the option for several "
        "schemes.",
        show_default=False,
    ),
]
AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private", help="Let web addresses lead into this machine or its network. By default they are refused."
    ),
]
AllScores = Annotated[
    bool,
    typer.Option(
        "--all-scores", help="Measure every score of every clip, also of clips that a gate has rejected already."
    ),
]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Try rows again that ended in an error.")]
Hashes = Annotated[
    bool,
    typer.Option(
        "--hash",
        help="Find changed files of this machine by the SHA-256 of their content, which reads them whole. By default their size "
        "and time decide.",
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Work on the I-th of N parts of the videos only. All parts may run at once, on any machines. A run without --part "
        "then finishes what needs the whole corpus, and what a part did not finish.",
        callback=_part,
        show_default=False,
    ),
]
Engine = Annotated[
    EngineName | None,
    typer.Option(
        help="Do the work in this process (inline), or on Ray. Default: inline if the work takes less than a minute of CPU and "
        "no --address is given.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Join this Ray cluster (auto, or HOST:PORT) instead of starting a local one."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Let this many workers run at once. Default: one per CPU.")
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0.01,
        metavar="PART",
        help="Give each worker with a model this part of a GPU: with 0.25, four workers share a GPU. Default: a whole GPU, or "
        "a part of one if there are too few GPUs.",
        show_default=False,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Stop before any work if some input cannot be used, naming each. Exit with 1 if a row ended in an error.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Write this format, too: webdataset, huggingface, fiftyone or lance. Parquet is always written. Repeat the option "
        "for several formats; the workspace's recipe keeps them. Default: the recipe's.",
        autocompletion=completing.formats,
        show_default=False,
    ),
]
OnlyFormats = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="Write only this format beside Parquet, and remove the others from the datasets and the workspace's recipe. Repeat "
        "the option for several formats; `--only parquet` leaves none of them.",
        autocompletion=completing.formats,
        show_default=False,
    ),
]
Gates = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TIER.GATE=RANGE",
        help="Use another gate: pretrain.flow='>= 30', pretrain.fps='[23.9, 60]', or pretrain.flow=off. Repeat the option for "
        "several gates.",
        autocompletion=completing.gates,
        show_default=False,
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="Take this recipe: one that ships, or a YAML file.", autocompletion=completing.recipes
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
AllowEndpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-endpoint",
        metavar="HOST[:PORT]",
        help="Allow captioners to send pictures and the key to this host, although only a recipe names it. The permission is "
        "remembered for this user. Repeat the option for several hosts.",
    ),
]
Rater = Annotated[
    str | None,
    typer.Option(
        "--rater", metavar="NAME", help="Store marks under this name. Default: the name of this machine's user."
    ),
]
