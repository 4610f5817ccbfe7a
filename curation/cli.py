"""The command line, `longtake`. Commands are thin: check the arguments, call one function, show the result."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from longtake.curation.cli_calibrate import add_calibrate
from longtake.curation.cli_inspect import add_inspect
from longtake.curation.cli_models import models_app
from longtake.curation.errors import SetupError

DONE, ROW_ERRORS, USAGE, ENVIRONMENT = 0, 1, 2, 3


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    name="longtake",
    help="Curate raw video into captioned training shards: scan → score → caption → export.",
    epilog=_examples("longtake curate videos/ -o workspace", "longtake stats workspace"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(help="Recipes: print, validate, compare, JSON Schema.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class StageName(StrEnum):
    """The four stages, in order."""

    SCAN = "scan"
    SCORE = "score"
    CAPTION = "caption"
    EXPORT = "export"


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


def main() -> None:
    """Entry point of `longtake`."""
    gc.set_threshold(50_000, 20, 20)  # late imports make 10⁵ objects; to look through them every 700 takes 0.2 s
    app()


def _fail(message: str, code: int) -> NoReturn:
    errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def _faults() -> Iterator[None]:
    """Faults of the set-up, in words, as exit codes."""
    from longtake.curation.recipe import RecipeError
    from longtake.filters.base import FilterUnavailable
    from longtake.manifests.lock import WorkspaceBusy
    from longtake.manifests.shards import DatasetError
    from longtake.manifests.store import StoreError

    try:
        yield
    except RecipeError as error:
        _fail(str(error), USAGE)
    except (SetupError, StoreError, WorkspaceBusy, FilterUnavailable, DatasetError) as error:
        _fail(str(error), ENVIRONMENT)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        kept = "what is done is kept, and the same command goes on from here"
        _fail(f"{error.filename}: {error.strerror}; {kept}", ENVIRONMENT)
    except KeyboardInterrupt:
        errors.print("stopped; what is done is kept, and the same command goes on from here")
        raise typer.Exit(130) from None


def _command(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with _faults():
            function(*args, **kwargs)

    return guarded


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(
    stages: tuple[str, ...],
    workspace: str,
    videos: list[str] | None,
    recipe: str | None,
    *,
    uri_column: str | None = None,
    all_scores: bool = False,
    retry_errors: bool = False,
    inline: bool = False,
    address: str | None = None,
    workers: int | None = None,
    strict: bool = False,
    sample: int | None = None,
    preview: bool = False,
    formats: list[str] | None = None,
) -> None:
    from longtake.curation.pipeline import Options, run
    from longtake.curation.progress import Progress
    from longtake.curation.show import show_summary
    from longtake.curation.workspace import Workspace

    target = Workspace(workspace)
    chosen = target.recipe(recipe)
    if formats:
        chosen = chosen.with_formats(formats)
    options = Options(stages, all_scores, retry_errors, inline, address, workers, sample)
    with Progress(console) as progress:
        result = run(target, chosen, videos or [], options, progress, uri_column)
    show_summary(console, target, chosen, result)
    if preview:
        from longtake.curation.caption_page import write_page
        from longtake.curation.stages.caption import sampled

        page = write_page(target, chosen, sampled(target, chosen, sample or 20))
        console.print(f"preview: {escape(page)}", soft_wrap=True)
    if strict and result.errors:
        raise typer.Exit(ROW_ERRORS)


def _one(argument: str | None, option: str | None) -> str:
    if (argument is None) == (option is None):
        raise typer.BadParameter("give the workspace once: as an argument, or with -o")
    return argument or option or ""


@app.command(
    epilog=_examples(
        "longtake curate videos/ -o workspace",
        "longtake curate 's3://corpus/**/*.mp4' -r longtake-hd -o s3://me/workspace --address auto",
        "longtake curate list.csv -o workspace --until score",
        "longtake curate -o workspace --retry-errors",
    )
)
@_command
def curate(
    videos: Videos = None,
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    until: Annotated[StageName, typer.Option(help="Stop after this stage.")] = StageName.EXPORT,
    uri_column: UriColumn = None,
    all_scores: AllScores = False,
    retry_errors: RetryErrors = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
    strict: Strict = False,
) -> None:
    """All stages in order. Run it again to go on after a stop, to add videos, or after changing the recipe: only what
    is missing is computed."""
    names = tuple(StageName)
    stages = tuple(str(s) for s in names[: names.index(until) + 1])
    _run(
        stages, output, videos, recipe, uri_column=uri_column, all_scores=all_scores, retry_errors=retry_errors,
        inline=inline, address=address, workers=workers, strict=strict,
    )  # fmt: skip


@app.command(epilog=_examples("longtake scan videos/ -o workspace --workers 8"))
@_command
def scan(
    videos: Videos = None,
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    uri_column: UriColumn = None,
    all_scores: AllScores = False,
    retry_errors: RetryErrors = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
    strict: Strict = False,
) -> None:
    """Read videos. Finds shots, cuts them into clips, keeps samples, measures what pixels tell. One row per video."""
    _run(
        ("scan",), output, videos, recipe, uri_column=uri_column, all_scores=all_scores, retry_errors=retry_errors,
        inline=inline, address=address, workers=workers, strict=strict,
    )  # fmt: skip


@app.command(epilog=_examples("longtake score workspace"))
@_command
def score(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    all_scores: AllScores = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
    strict: Strict = False,
) -> None:
    """Measure what needs a model. On the stored frames: opens no video."""
    _run(
        ("score",), _one(workspace, output), None, recipe, all_scores=all_scores, inline=inline, address=address,
        workers=workers, strict=strict,
    )  # fmt: skip


@app.command(
    epilog=_examples("longtake caption workspace --retry-errors", "longtake caption workspace --sample 20 --preview")
)
@_command
def caption(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    retry_errors: RetryErrors = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
    strict: Strict = False,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only N of the clips, always the same ones.", show_default=False),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Write captions.html into the workspace: the clips of the sample (20, if none is given), keyframes over "
            "sub-captions.",
        ),
    ] = False,
) -> None:
    """Write captions. Five sub-captions and an overall one for each clip that a tier may keep."""
    _run(
        ("caption",), _one(workspace, output), None, recipe, retry_errors=retry_errors, inline=inline, address=address,
        workers=workers, strict=strict, sample=sample, preview=preview,
    )  # fmt: skip


@app.command(
    epilog=_examples("longtake export workspace", "longtake export workspace --format huggingface --format fiftyone")
)
@_command
def export(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    retry_errors: RetryErrors = False,
    inline: Inline = False,
    address: Address = None,
    workers: Workers = None,
    strict: Strict = False,
    formats: Formats = None,
) -> None:
    """Write the datasets. Cuts, encodes and checks the kept clips; dataset/TIER gets shards, a card and checksums."""
    _run(
        ("export",), _one(workspace, output), None, recipe, retry_errors=retry_errors, inline=inline, address=address,
        workers=workers, strict=strict, formats=formats,
    )  # fmt: skip


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command(
    epilog=_examples(
        "longtake stats workspace",
        "longtake stats workspace --json | jq .tiers.pretrain",
        "longtake stats workspace -r longtake-hd",
    )
)
@_command
def stats(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV: tier, gate and counts.")] = False,
    near: Annotated[int, typer.Option(min=0, metavar="N", help="How many nearly kept clips to name.")] = 10,
) -> None:
    """Count and explain. The funnel of each tier, quantiles of every score, error kinds, nearly kept clips, and where
    the time went."""
    from longtake.curation.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.show import show_statistics, statistics_csv
    from longtake.curation.stats import statistics
    from longtake.curation.workspace import Workspace

    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv, not both")
    target = Workspace(_one(workspace, output))
    target.must_exist()
    found = statistics(target, target.recipe(recipe), near)
    if as_json:
        json.dump(found.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    elif as_csv:
        sys.stdout.write(statistics_csv(found))
    else:
        show_statistics(console, found)


@app.command(
    epilog=_examples(
        "longtake tiers workspace --set 'pretrain.flow=>= 30'",
        "longtake tiers workspace --set pretrain.artifacts=off --write",
        "longtake tiers workspace -r longtake-hd --save mine.yaml",
    )
)
@_command
def tiers(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    changes: Gates = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the changed recipe to this file.", show_default=False)
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Make it the workspace's recipe.")] = False,
) -> None:
    """Decide again with another recipe or other gates, in seconds. Nothing is written unless told."""
    from longtake.curation.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.show import show_changes
    from longtake.curation.tiering import parse_changes, retier
    from longtake.curation.workspace import Workspace
    from longtake.manifests.lock import WorkspaceLock

    target = Workspace(_one(workspace, output))
    target.must_exist()
    before = target.recipe(None)
    after = target.recipe(recipe).with_gates(parse_changes(changes or []))
    show_changes(console, retier(target, before, after))
    if save:
        try:
            save.write_text(after.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"cannot write {save}: {error.strerror}") from error
        console.print(f"recipe written: {escape(str(save))}")
    if write:
        with WorkspaceLock(target.path):
            target.save_recipe(after)
        console.print("the workspace has this recipe now; `longtake curate` computes what it lacks")


@app.command(epilog=_examples("longtake show 4c8280 -o workspace"))
@_command
def show(
    clip_id: Annotated[str, typer.Argument(metavar="CLIP_ID", help="A clip's id, or its first digits.")],
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Everything that is known of one clip. Scores, protocols, gates, captions, files."""
    from longtake.curation.startup import leave_pandas_out

    leave_pandas_out()
    from longtake.curation.show import show_clip
    from longtake.curation.tiering import describe_clip
    from longtake.curation.workspace import Workspace

    target = Workspace(output)
    target.must_exist()
    known = describe_clip(target, target.recipe(recipe), clip_id)
    if as_json:
        json.dump(known, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    else:
        show_clip(console, known)


@app.command(epilog=_examples("longtake doctor", "longtake doctor -r longtake-hd -o workspace --ray"))
@_command
def doctor(
    workspace: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Also look at this workspace.")
    ] = None,
    recipe: RecipeName = None,
    start_ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Start Ray, to see that it does (some 15 s).")
    ] = False,
) -> None:
    """What this machine can do: codecs, weights, Ray, GPU, disk. Looks at the recipe's filters and captioner, too; exit
    code 3 if it cannot run here."""
    from longtake.curation.doctor import examine
    from longtake.curation.recipe import load_recipe
    from longtake.curation.show import show_findings
    from longtake.curation.workspace import Workspace

    chosen = Workspace(workspace).recipe(recipe) if workspace else load_recipe(recipe or "embedded")
    findings = examine(chosen, workspace, start_ray)
    show_findings(console, findings)
    if any(not finding.good and finding.needed for finding in findings):
        raise typer.Exit(ENVIRONMENT)


app.add_typer(models_app(_command, console), name="models")
add_calibrate(app, _command, console)
add_inspect(app, _command, console)

# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe or a YAML file.")]


@recipe_app.command("list", epilog=_examples("longtake recipe list"))
@_command
def recipe_list() -> None:
    """The recipes that ship."""
    from longtake.curation.recipe import load_recipe, shipped

    for name in shipped():
        console.print(f"{name}: {escape(load_recipe(name).description)}")


@recipe_app.command("print", epilog=_examples("longtake recipe print embedded > mine.yaml"))
@_command
def recipe_print(recipe: RecipeArgument = "embedded") -> None:
    """The whole recipe, every default written out."""
    from longtake.curation.recipe import load_recipe

    sys.stdout.write(load_recipe(recipe).to_yaml())


@recipe_app.command("validate", epilog=_examples("longtake recipe validate mine.yaml"))
@_command
def recipe_validate(recipe: RecipeArgument) -> None:
    """Say what is wrong with a recipe. Exit code 2 if anything is."""
    from longtake.captioning.registry import make_captioner
    from longtake.curation.recipe import RecipeError, load_recipe

    found = load_recipe(recipe)
    try:
        make_captioner(found.captioning.captioner, found.captioning.settings)
    except ValueError as error:
        raise RecipeError(f"{recipe}: captioning: {error}") from error
    console.print(f"{escape(found.name)}: good ({len(found.filters)} filters, tiers {', '.join(found.tiers)})")


@recipe_app.command("diff", epilog=_examples("longtake recipe diff embedded mine.yaml"))
@_command
def recipe_diff(old: RecipeArgument, new: RecipeArgument) -> None:
    """What differs, and which scores a change makes stale."""
    from longtake.curation.recipe import differences, load_recipe, stale_scores
    from longtake.curation.show import show_differences

    a, b = load_recipe(old), load_recipe(new)
    show_differences(console, differences(a, b), stale_scores(a, b))


@recipe_app.command("schema", epilog=_examples("longtake recipe schema > recipe.schema.json"))
@_command
def recipe_schema() -> None:
    """The JSON Schema of recipes, for editors."""
    from longtake.curation.recipe import Recipe

    json.dump(Recipe.model_json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
