"""Writes docs/filters.md from the filters' docstrings, the registry and the recipes: `python -m docs.filter_pages`.

Nothing on the page depends on the machine: other packages' filters are left out, and so are the hashes in protocols.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longtake.curation.recipe import Recipe, load_recipe
from longtake.filters.base import Filter, Needs
from longtake.filters.registry import BUILT_IN, filter_class
from longtake.settings import described

PAGE = Path(__file__).with_name("filters.md")
RECIPES = ("longtake-hd", "embedded")
STAGES = {
    Needs.PROBE: "scan, before anything is decoded",
    Needs.SAMPLE: "scan, in the decode pass",
    Needs.FRAMES: "score, on the stored frames",
    Needs.CORPUS: "end of score, over all clips at once",
    Needs.CAPTIONS: "caption, on the five sub-captions",
}
_HEAD = """\
# Filters

A filter measures and never decides; gates, in a recipe, decide. This page is made by `make docs` from the docstrings in
`filters/`, the registry and the shipped recipes: change those, not this file.

A filter's name is the name of its gate and of its column in the clips manifest (`text_similarity`: in the captions manifest).
`<name>_detail` beside it holds the value of each frame or pair that the score was reduced from, `<name>_standard_error` (of
`flow`, `psnr`, `ssim` and `lpips`, whose score is a mean over pairs of the clip's moments) how far other moments would have
moved the score, and `protocols` says how each score was measured. A protocol is `backend/method/reduce`; scores are
comparable when their protocols are equal.

Every filter takes the settings `backend` (the first one below unless set) and `reduce` (with `every` each value of the
detail must pass the gate, and the score is their mean). Each setting is checked when the recipe is read. Those that have no
effect on a score are in no protocol: to change them makes no score stale. The cost is relative, about milliseconds of CPU
per clip: cheap filters go first, and batches are made by it."""


def page() -> str:
    """The whole page, GitHub-flavoured Markdown."""
    recipes = [load_recipe(name) for name in RECIPES]
    parts = [_HEAD, _overview(recipes)]
    told: set[str] = set()
    for name in BUILT_IN:
        parts += _section(name, recipes, told)
    return "\n\n".join(parts) + "\n"


def documented_modules(cls: type[Filter[Any]]) -> list[str]:
    """Modules whose docstrings together describe a filter: its own, then those of the classes that it extends."""
    found = [base.__module__ for base in cls.__mro__ if issubclass(base, Filter) and base is not Filter]
    return list(dict.fromkeys(found))


def _overview(recipes: Sequence[Recipe]) -> str:
    rows = []
    for name, backends in BUILT_IN.items():
        cls = filter_class(name)
        gates = [_gates(recipe, name) for recipe in recipes]
        rows.append([f"[{name}](#{name})", ", ".join(f"`{b}`" for b in backends), cls.unit, *gates])
    return _table(["filter", "backends", "unit", *(f"gate in `{recipe.name}`" for recipe in recipes)], rows)


def _gates(recipe: Recipe, name: str) -> str:
    """The gates of the tiers, in order; once where they are alike."""
    gates = [str(tier[name]) if name in tier else "–" for tier in recipe.tiers.values()]
    text = gates[0] if len(set(gates)) == 1 else ", ".join(f"{t} {g}" for t, g in zip(recipe.tiers, gates, strict=True))
    return f"not applied: {recipe.not_applied[name]}" if name in recipe.not_applied else text


def _section(name: str, recipes: Sequence[Recipe], told: set[str]) -> Iterator[str]:
    yield f"## {name}"
    classes = {backend: filter_class(name, backend) for backend in BUILT_IN[name]}
    rows = [
        [f"`{backend}`", STAGES[cls.needs], cls.unit, f"{cls.cost:g}", _users(name, backend, recipes)]
        for backend, cls in classes.items()
    ]
    yield _table(["backend", "measured in", "unit", "cost", "used by"], rows)
    for backend, cls in classes.items():
        yield f"### {name}: {backend}"
        yield f"`{cls.__module__}.{cls.__name__}`. {_doc(cls)}"
        yield _settings(cls)
        for module in documented_modules(cls):
            if module in told:
                yield f"Formula, protocol and cost: see `{module}` above."
            else:
                told.add(module)
                yield _doc(importlib.import_module(module))


def _users(name: str, backend: str, recipes: Sequence[Recipe]) -> str:
    cls = filter_class(name, backend)
    users = [r.name for r in recipes if name in r.filters and type(r.built[name]) is cls]
    return ", ".join(f"`{user}`" for user in users) or "–"


def _settings(cls: type[Filter[Any]]) -> str:
    """The settings that a filter takes beside its backend."""
    model = cls.settings_model
    rows = [
        [
            f"`{setting.name}`",
            setting.allowed,
            f"`{setting.default}`",
            setting.meaning,
            "none" if setting.name in model.without_effect else "in the protocol",
        ]
        for setting in described(model)
    ]
    return _table(["setting", "allowed", "default", "meaning", "effect on scores"], rows)


def _doc(thing: object) -> str:
    text = inspect.getdoc(thing)
    assert text, f"{thing} has no docstring"
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> None:
    """Entry point of `make docs`."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
