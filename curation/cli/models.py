"""`longtake models`: the weights on this machine."""

from __future__ import annotations

import difflib
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.curation.cli.app import app, command, console, outside
from longtake.curation.cli.options import AsJson
from longtake.curation.errors import SetupError

if TYPE_CHECKING:
    from longtake.curation.models import Known

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Name weights.", show_default=False)]
OfRecipe = Annotated[
    str | None,
    typer.Option("--recipe", "-r", help="Take all weights that this recipe needs: one that ships, or a YAML file."),
]
All = Annotated[bool, typer.Option("--all", help="Take every weight.")]
Mirror = Annotated[
    str | None,
    typer.Option(help="Take the files from this folder or URI, which is laid out as the models folder is."),
]

models_app = typer.Typer(help="List, fetch and check the weights of models.", no_args_is_help=True)
app.add_typer(models_app, name="models")


@models_app.command("list")
@command
def list_(as_json: AsJson = False) -> None:
    """List every weight: its source, licence, size, SHA-256 and place, and the recipes that need it."""
    from longtake.curation.models import listed
    from longtake.filters.weights import models_folder

    weights = listed()
    if as_json:
        json.dump([_plain(known) for known in weights], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for known in weights:
        _show(known)
    here = sum(known.path is not None for known in weights)
    console.print(f"{here} of {len(weights)} are in {outside(str(models_folder()))}", soft_wrap=True)
    console.print("MiniLM, RapidOCR, TransNetV2 and LPIPS's heads come inside their Python packages.")


@models_app.command()
@command
def pull(names: Names = None, recipe: OfRecipe = None, everything: All = False, mirror: Mirror = None) -> None:
    """Fetch weights into the models folder (LONGTAKE_MODELS) and check them. A fetch that was stopped goes on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from longtake.curation import models
    from longtake.filters.weights import WEIGHTS, models_folder, models_uri
    from longtake.manifests.folder import is_uri
    from longtake.manifests.uris import redact

    wanted = _chosen(names, recipe, everything)
    if not wanted:
        console.print(f"recipe {recipe} needs no weights")
    if (uri := models_uri()) and not mirror and wanted:
        console.print(f"copying from {outside(redact(uri))} (LONGTAKE_MODELS) into {outside(str(models_folder()))}")
    faults = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name in wanted:
            if everything and not is_uri(WEIGHTS[name].source) and not (mirror or uri):
                console.print(f"{name}: left out, since it comes only inside {outside(WEIGHTS[name].source)}")
                continue
            task = progress.add_task(name, total=None)

            def advance(have: int, total: int | None, task: int = task) -> None:
                progress.update(task, completed=have, total=total)  # type: ignore[arg-type]

            try:
                pulled = models.pull(name, mirror, advance)
            except SetupError as error:
                faults.append(str(error))
                console.print(f"{name}: failed")
            else:
                if pulled.set_aside:
                    console.print(
                        f"{name}: the file was a wrong one, and is called {outside(str(pulled.set_aside))} now"
                    )
                how = "fetched" if pulled.fetched else "was here"
                console.print(f"{name}: {how}, {outside(str(pulled.path))}", soft_wrap=True)
            progress.remove_task(task)
    if faults:
        raise SetupError("\n".join(faults))


@models_app.command()
@command
def verify(names: Names = None, recipe: OfRecipe = None) -> None:
    """Check size and SHA-256 of the weights on this machine. A weight that was named has to be there. Exit code 3 means that
    a weight is wrong."""
    from longtake.curation import models
    from longtake.filters.weights import WEIGHTS, missing

    wanted = _chosen(names, recipe, not names and recipe is None)
    if not names and recipe is None:
        absent = missing(WEIGHTS)
        wanted = [name for name in wanted if name not in absent]
        if not wanted:
            console.print("this machine has no weights; `longtake models pull` fetches them")
    faults = models.verified(wanted)
    for name, fault in faults.items():
        good = "good" if fault is None and models.known_hash(name) else "present; its publisher states no hash"
        console.print(f"{name}: {outside(fault) if fault else good}", soft_wrap=True)
    if wrong := [name for name, fault in faults.items() if fault]:
        raise SetupError(f"{len(wrong)} of {len(faults)} weights cannot be used: {', '.join(wrong)}")


def _chosen(names: list[str] | None, recipe: str | None, everything: bool) -> list[str]:
    from longtake.curation.models import needed
    from longtake.curation.recipe import load_recipe
    from longtake.filters.weights import WEIGHTS

    if sum((bool(names), recipe is not None, everything)) != 1:
        raise typer.BadParameter("say which: names, --recipe or --all")
    if everything:
        return list(WEIGHTS)
    if recipe is not None:
        return list(needed(load_recipe(recipe)))
    for name in names or []:
        if name not in WEIGHTS:
            close = difflib.get_close_matches(name, list(WEIGHTS), 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(WEIGHTS)}"
            raise typer.BadParameter(f"no weight is called {name!r}; {hint}")
    return list(dict.fromkeys(names or []))


def _plain(known: Known) -> dict[str, object]:
    weight = known.weight
    return {
        "name": weight.name,
        "filename": weight.filename,
        "source": weight.source,
        "licence": weight.licence,
        "size": weight.size if weight.size is not None or known.path is None else known.path.stat().st_size,
        "sha256": weight.sha256,
        "path": None if known.path is None else str(known.path),
        "needed_by": known.needed_by,
    }


def _show(weight: Known) -> None:
    plain, sha256 = _plain(weight), weight.weight.sha256
    size = f"{plain['size']:,} bytes" if plain["size"] else "size unknown"
    state = "here" if weight.path else "missing"
    console.print(f"[bold]{weight.weight.name}[/]: {state}; {size}; {weight.weight.licence}")
    if not sha256:
        digest = "not published; recorded at the first pull"
    else:
        digest = sha256 if len(sha256) == 64 else f"{sha256}… (its first 8 digits are published)"
    for what, text in (
        ("file", plain["path"] or weight.weight.filename),
        ("source", weight.weight.source),
        ("SHA-256", digest),
        ("needed by", ", ".join(weight.needed_by) or "no shipped recipe"),
    ):
        console.print(f"    {what}: {outside(str(text))}", soft_wrap=True)
