"""`longtake submit`: a command of ours as a job of a Ray cluster."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from longtake.curation.cli.app import ROW_ERRORS, app, command, console, errors, examples, outside
from longtake.curation.errors import SetupError

_RECIPE = "recipe.yaml"  # The name of the recipe among the files of a job.

# The commands that have something to compute; the others look, and need no cluster.
_COMMANDS = ("curate", "scan", "score", "caption", "export")


@app.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    epilog=examples(
        "longtake submit --address http://head:8265 curate 's3://corpus/**/*.mp4' -r mine.yaml -o s3://me/workspace",
        "longtake submit --address http://head:8265 --follow score s3://me/workspace --gpus-per-worker 0.5",
        "longtake submit --installed curate /mnt/films -o /mnt/workspace",
    ),
)
@command
def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND...",
            help="The command: curate, scan, score, caption or export, followed by its own arguments and options.",
            show_default=False,
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="http://HOST:8265",
            help="The cluster's dashboard. Default: RAY_API_SERVER_ADDRESS, else this machine's.",
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME=VALUE",
            help="A variable of the job's environment, such as LONGTAKE_MODELS; no secret, for the dashboard shows it. Repeat "
            "the option for several.",
            show_default=False,
        ),
    ] = None,
    installed: Annotated[
        bool,
        typer.Option(
            "--installed",
            help="Run the longtake that the cluster's nodes have. Default: this machine's goes along, with its plug-ins; what "
            "they import has to be on the nodes.",
        ),
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Show what the job writes until it is over, and exit with 1 unless it succeeded; Ctrl-C leaves it.",
        ),
    ] = False,
) -> None:
    """Run a command on a Ray cluster as a job, which outlives this machine. The command's options are checked first, and that the
    cluster can see its paths. Recipe files are sent along. Secrets belong in the environment of each node, and are refused in
    the command. Use `longtake status WORKSPACE` to watch the run."""
    from longtake.curation.running import submitting

    arguments, files, workspace = prepared(words)
    submission = submitting.Submission(arguments, files, _variables(env or []), package=not installed)
    job = submitting.submit(submission, address)
    at = f" --address {outside(shlex.quote(address))}" if address else ""
    console.print(f"submitted: {outside(job)}", soft_wrap=True)
    console.print(f"  longtake status {outside(shlex.quote(workspace))} --watch", soft_wrap=True)
    console.print(f"  ray job logs{at} --follow {outside(job)}", soft_wrap=True)
    console.print(f"  ray job stop{at} {outside(job)}  # what is done is kept", soft_wrap=True)
    if follow:
        try:
            status = submitting.follow(
                job, address, lambda text: console.print(outside_lines(text), end="", soft_wrap=True)
            )
        except KeyboardInterrupt:
            errors.print("the job goes on; `ray job stop` ends it")
            raise typer.Exit(130) from None
        if status != "SUCCEEDED":
            errors.print(f"[bold red]error:[/] the job {outside(job)} ended as {status}", soft_wrap=True)
            raise typer.Exit(ROW_ERRORS)


def outside_lines(text: str) -> str:
    """What a job wrote: no markup of ours, but its own lines."""
    from rich.markup import escape

    return escape(text)


def prepared(words: list[str]) -> tuple[list[str], dict[str, Path], str]:
    """The arguments of `longtake` as the cluster gets them, the files that go along, and the workspace. Raises
    typer.BadParameter for what the command line does not know, and SetupError for what the cluster cannot see."""
    name, *arguments = words[1:] if words[0] == "longtake" else words
    if name not in _COMMANDS:
        raise typer.BadParameter(f"{name!r} is no command that computes: submit one of {', '.join(_COMMANDS)}")
    values, parameters = _parsed(name, arguments)
    for word in arguments:
        _refuse_secrets(word)
    if values.get("access"):
        raise SetupError(
            "--access names a file of secrets, and a job's files are no place for one: put it on the nodes, and name it by "
            "LONGTAKE_ACCESS in the environment in which Ray is started there"
        )
    if str(values.get("engine")) == "inline":
        raise SetupError(
            "--engine inline runs in one process, on the head alone: leave it out, and the cluster is used"
        )
    for video in values.get("videos") or []:
        _refuse_relative(video, "videos")
    workspace = values.get("output") or values.get("workspace")
    if not workspace:
        raise typer.BadParameter("give the workspace")
    _refuse_relative(workspace, "workspace")
    files: dict[str, Path] = {}
    if (recipe := values.get("recipe")) and (sent := _recipe_file(recipe)):
        files[_RECIPE] = sent
        arguments = _with_recipe(arguments, parameters["recipe"], recipe)
    if not values.get("address") and "address" in parameters:
        arguments = [*arguments, "--address", "auto"]
    return [name, *arguments], files, str(workspace)


def _parsed(name: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, click.Parameter]]:
    """What a command of ours makes of its arguments, without being run."""
    root = typer.main.get_command(app)
    chosen: click.Command = root.commands[name]  # type: ignore[attr-defined]
    context = chosen.make_context(f"longtake {name}", list(arguments))
    return context.params, {str(one.name): one for one in chosen.params}


def _recipe_file(recipe: str) -> Path | None:
    """The file of a recipe, checked; None for one that ships. Raises RecipeError."""
    from longtake.curation.recipe import load_recipe

    load_recipe(recipe)
    return Path(recipe) if Path(recipe).is_file() else None


def _with_recipe(arguments: list[str], parameter: click.Parameter, old: str) -> list[str]:
    """The arguments with the recipe as the job has it, however its option was written."""
    replaced = list(arguments)
    for i, word in enumerate(arguments):
        option, _, value = word.partition("=")
        if word in parameter.opts and arguments[i + 1 : i + 2] == [old]:
            replaced[i + 1] = _RECIPE
        elif option in parameter.opts and value == old:
            replaced[i] = f"{option}={_RECIPE}"
        elif word in {f"{short}{old}" for short in parameter.opts if not short.startswith("--")}:
            replaced[i] = f"{word[:2]}{_RECIPE}"
    return replaced


def _refuse_relative(place: str, what: str) -> None:
    from longtake.manifests.folder import is_uri

    if is_uri(place) or os.path.isabs(place):
        return
    raise SetupError(
        f"{what}: {place} is relative to the folder that you are in, which a cluster does not know: give a URI "
        f"(s3://bucket/{what}), or the absolute path of a filesystem that every node has mounted"
    )


def _refuse_secrets(word: str) -> None:
    from longtake.manifests.uris import redact

    if redact(word) != word:
        raise SetupError(
            f"{redact(word)}: a job's command is shown to everybody who sees the cluster's dashboard, so it may hold no user, "
            "password or signature: give them in the environment in which Ray is started on each node (LONGTAKE_ACCESS, "
            "AWS_ACCESS_KEY_ID, …)"
        )


def _variables(given: list[str]) -> dict[str, str]:
    variables = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise typer.BadParameter(f"--env {name}: write NAME=VALUE")
        _refuse_secrets(value)
        variables[name] = value
    return variables
