"""`longtake recipe` and `longtake doctor`: what a recipe says, and whether this machine can do it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from longtake.curation.cli.app import allow_all, app, command, console, examples, outside
from longtake.curation.cli.options import AllowEndpoints, RecipeArgument, RecipeName
from longtake.terminal import ENVIRONMENT, write_data

recipe_app = typer.Typer(help="Print, validate and compare recipes, or print their JSON Schema.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")


@app.command(epilog=examples("longtake doctor", "longtake doctor -r longtake-hd -o workspace --ray"))
@command
def doctor(
    workspace: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Look at this workspace, too.")
    ] = None,
    recipe: RecipeName = None,
    start_ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Start Ray to check that it starts, which takes some 15 s.")
    ] = False,
    allow_endpoints: AllowEndpoints = None,
) -> None:
    """Check what this machine can do: codecs, weights, Ray, GPU, disk. The command looks at the recipe's filters and captioner,
    too, and says where a run would send pictures and a key. It sends no key. Exit code 3 means that the recipe cannot run."""
    from longtake.curation.cli.show import show_findings
    from longtake.curation.doctor import examine
    from longtake.curation.recipe import load_recipe
    from longtake.curation.workspace import Workspace

    allow_all(allow_endpoints)
    chosen = Workspace(workspace).recipe(recipe) if workspace else load_recipe(recipe or "embedded")
    findings = examine(chosen, workspace, start_ray)
    show_findings(console, findings)
    if any(not finding.good and finding.needed for finding in findings):
        raise typer.Exit(ENVIRONMENT)


@recipe_app.command("list", epilog=examples("longtake recipe list"))
@command
def recipe_list() -> None:
    """List the recipes that ship."""
    from longtake.curation.recipe import load_recipe, shipped

    for name in shipped():
        console.print(f"{name}: {outside(load_recipe(name).description)}")


@recipe_app.command("print", epilog=examples("longtake recipe print embedded > mine.yaml"))
@command
def recipe_print(recipe: RecipeArgument = "embedded") -> None:
    """Print a whole recipe with every default written out."""
    from longtake.curation.recipe import load_recipe

    write_data(load_recipe(recipe).to_yaml())


@recipe_app.command("validate", epilog=examples("longtake recipe validate mine.yaml"))
@command
def recipe_validate(recipe: RecipeArgument) -> None:
    """Check a recipe and print each fault with its line. Exit code 2 means that there is a fault."""
    from longtake.captioning.registry import make_captioner
    from longtake.curation.recipe import RecipeError, load_recipe

    valid = load_recipe(recipe)
    try:  # Another package's captioner may find a fault only when it is made.
        make_captioner(valid.captioning.captioner, valid.captioning.settings)
    except ValueError as error:
        raise RecipeError(f"{recipe}: captioning: {error}") from error
    console.print(f"{outside(valid.name)}: good ({len(valid.filters)} filters, tiers {', '.join(valid.tiers)})")


@recipe_app.command("diff", epilog=examples("longtake recipe diff embedded mine.yaml"))
@command
def recipe_diff(old: RecipeArgument, new: RecipeArgument) -> None:
    """Print how two recipes differ, and which scores the change makes stale."""
    from longtake.curation.cli.show import show_differences
    from longtake.curation.recipe import differences, load_recipe, stale_scores

    a, b = load_recipe(old), load_recipe(new)
    show_differences(console, differences(a, b), stale_scores(a, b))


@recipe_app.command("schema", epilog=examples("longtake recipe schema > recipe.schema.json"))
@command
def recipe_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from longtake.curation.recipe import Recipe

    json.dump(Recipe.model_json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
