"""The commands that compute: `curate`, and its four stages one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtake.curation.cli.app import (
    ROW_ERRORS,
    allow_all,
    app,
    command,
    console,
    errors,
    examples,
    one_workspace,
    outside,
)
from longtake.curation.cli.options import (
    LAST_STAGE,
    AccessFile,
    Address,
    AllowEndpoints,
    AllowPrivate,
    AllowScheme,
    AllScores,
    Engine,
    Formats,
    Gates,
    GpusPerWorker,
    Hashes,
    ListFps,
    OnlyFormats,
    OptionalOutput,
    Output,
    Part,
    RecipeName,
    RequiredWorkspace,
    RetryErrors,
    SecretQuery,
    StageName,
    Strict,
    UriColumn,
    Videos,
    Workers,
    WorkspaceArgument,
)
from longtake.curation.errors import SetupError
from longtake.curation.stages.stage import STAGES
from longtake.manifests.folder import in_words


def _run(
    stages: tuple[str, ...],
    workspace: str,
    videos: list[str] | None,
    recipe: str | None,
    *,
    uri_column: str | None = None,
    all_scores: bool = False,
    retry_errors: bool = False,
    engine: str | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    strict: bool = False,
    sample: int | None = None,
    preview: bool = False,
    formats: list[str] | None = None,
    only: list[str] | None = None,
    gates: list[str] | None = None,
    list_fps: float | None = None,
    access: str | None = None,
    secret_query: list[str] | None = None,
    allow_scheme: list[str] | None = None,
    allow_private: bool = False,
    allow_endpoints: list[str] | None = None,
    part: str | None = None,
    hashes: bool = False,
) -> None:
    from longtake.curation.access import Access, Reach
    from longtake.curation.cli.progress import Progress
    from longtake.curation.cli.show import show_summary
    from longtake.curation.lists import ListRules
    from longtake.curation.pipeline import run
    from longtake.curation.stages.stage import Options
    from longtake.curation.workspace import Workspace

    allow_all(allow_endpoints)
    target = Workspace(workspace, remembers=True)
    chosen = target.recipe(recipe)
    if formats or only:
        chosen = chosen.with_formats(
            [*(only or chosen.export.formats), *(formats or [])], "--only" if only else "--format"
        )
    if gates:
        from longtake.curation.looking.tiering import parse_changes

        chosen = chosen.with_gates(parse_changes(gates))
    options = Options(stages, all_scores, retry_errors, engine, address, workers, gpus_per_worker, sample, part)  # type: ignore[arg-type]
    reads = Access.load(access, Reach.of(allow_scheme, allow_private, secret_query))
    rules = ListRules(uri_column, list_fps)
    with Progress(console) as progress:
        result = run(
            target, chosen, videos or [], options, progress, rules=rules, access=reads, strict=strict, hashes=hashes
        )
    statistics = show_summary(console, target, chosen, result)
    if preview:
        from longtake.curation.looking.preview import write_page
        from longtake.curation.stages.caption import sampled

        page = write_page(target, chosen, sampled(target, chosen, sample or 20))
        console.print(f"preview: {outside(page)}", soft_wrap=True)
    counts = statistics.summary["videos"]
    if counts["total"] and not counts["ok"]:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(counts["error_kinds"].items()))
        errors.print(
            f"[bold red]error:[/] every video ended in an error ({kinds}); nothing was curated", soft_wrap=True
        )
        raise typer.Exit(ROW_ERRORS)
    if result.incomplete or (strict and result.errors):
        raise typer.Exit(ROW_ERRORS)


@app.command(
    epilog=examples(
        "longtake curate videos/ -o workspace",
        "longtake curate 's3://corpus/**/*.mp4' -r longtake-hd -o s3://me/workspace --address auto",
        "longtake curate list.csv -o workspace --until score",
        "longtake curate -o workspace --set 'pretrain.flow=>= 20'",
        "longtake curate -o workspace --retry-errors",
    )
)
@command
def curate(
    videos: Videos = None,
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    changes: Gates = None,
    until: Annotated[StageName, typer.Option(help="Stop after this stage.")] = LAST_STAGE,
    uri_column: UriColumn = None,
    all_scores: AllScores = False,
    retry_errors: RetryErrors = False,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    part: Part = None,
    strict: Strict = False,
    hashes: Hashes = False,
    list_fps: ListFps = None,
    access: AccessFile = None,
    secret_query: SecretQuery = None,
    allow_scheme: AllowScheme = None,
    allow_private: AllowPrivate = False,
    allow_endpoints: AllowEndpoints = None,
) -> None:
    """Run all stages. Run it again to go on after a stop, to add videos, or after a change of the recipe: only missing
    results are computed."""
    names = [listed.name for listed in STAGES]
    stages = tuple(names[: names.index(str(until)) + 1])
    _run(
        stages, output, videos, recipe, gates=changes, uri_column=uri_column, all_scores=all_scores, retry_errors=retry_errors,
        engine=engine, address=address, workers=workers, gpus_per_worker=gpus_per_worker, part=part, strict=strict, hashes=hashes,
        list_fps=list_fps, access=access, secret_query=secret_query, allow_scheme=allow_scheme,
        allow_private=allow_private, allow_endpoints=allow_endpoints,
    )  # fmt: skip


@app.command(epilog=examples("longtake scan videos/ -o workspace --workers 8"))
@command
def scan(
    videos: Videos = None,
    output: Output = ...,  # type: ignore[assignment]
    recipe: RecipeName = None,
    uri_column: UriColumn = None,
    all_scores: AllScores = False,
    retry_errors: RetryErrors = False,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    part: Part = None,
    strict: Strict = False,
    hashes: Hashes = False,
    list_fps: ListFps = None,
    access: AccessFile = None,
    secret_query: SecretQuery = None,
    allow_scheme: AllowScheme = None,
    allow_private: AllowPrivate = False,
) -> None:
    """Read videos. The stage finds shots, cuts them into clips, keeps samples and measures pixels. Each video gets one row."""
    _run(
        ("scan",), output, videos, recipe, uri_column=uri_column, all_scores=all_scores, retry_errors=retry_errors,
        engine=engine, address=address, workers=workers, part=part, strict=strict, hashes=hashes,
        list_fps=list_fps, access=access, secret_query=secret_query, allow_scheme=allow_scheme,
        allow_private=allow_private,
    )  # fmt: skip


@app.command(epilog=examples("longtake score workspace"))
@command
def score(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    all_scores: AllScores = False,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    part: Part = None,
    strict: Strict = False,
    allow_endpoints: AllowEndpoints = None,
) -> None:
    """Measure scores that need a model. The stage works on stored frames and opens no video."""
    _run(
        ("score",), one_workspace(workspace, output), None, recipe, all_scores=all_scores, engine=engine, address=address,
        workers=workers, gpus_per_worker=gpus_per_worker, part=part, strict=strict, allow_endpoints=allow_endpoints,
    )  # fmt: skip


@app.command(
    epilog=examples("longtake caption workspace --retry-errors", "longtake caption workspace --sample 20 --preview")
)
@command
def caption(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    retry_errors: RetryErrors = False,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    part: Part = None,
    strict: Strict = False,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Caption N of the clips only, the same ones each time.", show_default=False
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Write captions.html into the workspace: a page of the sample's clips (20 clips without --sample) that shows "
            "keyframes over sub-captions.",
        ),
    ] = False,
    allow_endpoints: AllowEndpoints = None,
) -> None:
    """Write captions. Each clip that a tier may keep gets five sub-captions and an overall caption."""
    _run(
        ("caption",), one_workspace(workspace, output), None, recipe, retry_errors=retry_errors, engine=engine, address=address,
        workers=workers, gpus_per_worker=gpus_per_worker, part=part, strict=strict, sample=sample, preview=preview,
        allow_endpoints=allow_endpoints,
    )  # fmt: skip


@app.command(
    epilog=examples("longtake export workspace", "longtake export workspace --format huggingface --format fiftyone")
)
@command
def export(
    workspace: WorkspaceArgument = None,
    output: OptionalOutput = None,
    recipe: RecipeName = None,
    retry_errors: RetryErrors = False,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    part: Part = None,
    strict: Strict = False,
    formats: Formats = None,
    only: OnlyFormats = None,
    access: AccessFile = None,
    allow_private: AllowPrivate = False,
) -> None:
    """Write the datasets. The stage cuts, encodes and checks the kept clips; dataset/TIER gets shards, a card and checksums."""
    _run(
        ("export",), one_workspace(workspace, output), None, recipe, retry_errors=retry_errors, engine=engine, address=address,
        workers=workers, part=part, strict=strict, formats=formats, only=only, access=access, allow_private=allow_private,
    )  # fmt: skip


def _add_command(name: str, about: str) -> None:
    @app.command(name, help=about, epilog=examples(f"longtake {name} workspace"))
    @command
    def run_stage(
        workspace: WorkspaceArgument = None,
        output: OptionalOutput = None,
        recipe: RecipeName = None,
        all_scores: AllScores = False,
        retry_errors: RetryErrors = False,
        engine: Engine = None,
        address: Address = None,
        workers: Workers = None,
        gpus_per_worker: GpusPerWorker = None,
        part: Part = None,
        strict: Strict = False,
    ) -> None:
        _run(
            (name,), one_workspace(workspace, output), None, recipe, all_scores=all_scores, retry_errors=retry_errors,
            engine=engine, address=address, workers=workers, gpus_per_worker=gpus_per_worker, part=part, strict=strict,
        )  # fmt: skip


for _listed in STAGES:
    if _listed.name not in ("scan", "score", "caption", "export"):  # These have commands of their own above.
        _add_command(_listed.name, _listed.about)


@app.command(
    epilog=examples(
        "longtake forget workspace videos/0042.mp4",
        "longtake forget s3://me/workspace s3://corpus/0042.mp4 --yes",
        "longtake forget workspace --file takedowns.txt",
    )
)
@command
def forget(
    workspace: RequiredWorkspace,
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO...",
            help="Name paths, URIs or ids of videos. An archive or a table stands for all videos in it.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Read more paths, URIs or ids from this file, one on each line.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Erase without asking.")] = False,
) -> None:
    """Erase videos on request: their frames, clips, captions, encoded files and rows, their marks, and their place in exported
    datasets. A note of the request remains; a video with such a note is never curated again. Copies elsewhere
    (pages that were written, datasets that were copied, latents of the trainer) are not found: erase them yourself."""
    from longtake.curation import forgetting
    from longtake.curation.cli.show import show_forgotten
    from longtake.curation.workspace import Workspace

    names = [*(videos or []), *(_lines(file) if file else [])]
    if not names:
        raise typer.BadParameter("name at least one video, or a file of them by --file")
    target = Workspace(workspace)
    target.must_exist()
    if not yes:
        chosen = forgetting.named(target, names)
        question = (
            f"Erase {chosen.known} videos with {chosen.clips} clips from {outside(workspace)}? This cannot be undone."
        )
        typer.confirm(question, abort=True)
    show_forgotten(console, forgetting.forget(target, names))


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} cannot be read: {in_words(error)}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
