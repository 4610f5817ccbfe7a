"""What the shell offers at the Tab key: recipes, formats, gates, filters, and the clips of the workspace that was named.

A shell waits for each answer, so imports are late; and whatever goes wrong, it gets none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import typer

_MOST_CLIPS = 200  # Lines. A shell shows no more without asking, and the first digits of an id narrow them down.


def _quietly(complete: Callable[[typer.Context, str], Iterator[str]]) -> Callable[[typer.Context, str], list[str]]:
    """The answers that begin as what is typed; none where they cannot be found."""

    @wraps(complete)
    def answers(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [text for text in complete(ctx, incomplete) if text.startswith(incomplete)]
        except Exception:
            return []

    return answers


def _given(ctx: typer.Context, name: str) -> Any:
    return ctx.params.get(name)


@_quietly
def recipes(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Shipped recipes, and YAML files here."""
    from glob import escape, glob

    from longtake.curation.recipe import shipped

    yield from shipped()
    yield from sorted(glob(f"{escape(incomplete)}*.yaml"))


@_quietly
def filters(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Filters."""
    from longtake.filters.registry import available

    yield from available()


@_quietly
def formats(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Formats of datasets."""
    from typing import get_args

    from longtake.curation.recipe import Export

    (named,) = get_args(Export.model_fields["formats"].annotation)
    yield from get_args(named)


@_quietly
def gates(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Tiers with their gates, as `--set` wants them."""
    from longtake.curation.workspace import Workspace

    place = _given(ctx, "workspace") or _given(ctx, "output") or os.curdir
    recipe = Workspace(place).recipe(_given(ctx, "recipe"))
    for tier in recipe.tiers:
        yield from (f"{tier}.{name}=" for name in recipe.filters)


@_quietly
def tiers(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Tiers of the workspace that stands before."""
    from longtake.curation.workspace import Workspace

    yield from Workspace(_given(ctx, "workspace")).recipe(None).tiers


@_quietly
def clips(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Ids of clips of the workspace that stands before, or behind -o."""
    import pyarrow.compute as pc

    from longtake.curation.workspace import Workspace

    place = _given(ctx, "output") or _given(ctx, "first")
    ids = Workspace(place).clips.read(["clip_id"])["clip_id"]
    yield from ids.filter(pc.starts_with(ids, incomplete)).slice(0, _MOST_CLIPS).to_pylist()
