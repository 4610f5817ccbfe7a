"""Writes docs/funnels.md from the recipes that hold published funnels: `python -m docs.funnel_pages`.

The source of a number is the comment behind its gate in the recipe's file, or else what the recipe names as its `source`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from longtake.curation.recipe import PUBLISHED, Recipe, load_recipe, shipped
from longtake.curation.yaml_lines import Lines, read_yaml

PAGE = Path(__file__).with_name("funnels.md")
_COMMENT = re.compile(r"\s#\s+(.*)$")
_HEAD = """\
# Published funnels

Data sets for video generation publish the gates that their clips passed. These recipes hold them, each number with its source,
so that `longtake compare` can say what each would keep of your clips: [guide.md](guide.md#compare-funnels). This page is made by
`make docs` from the recipes in `curation/recipes/`: change those, not this file.

- A number that could not be read in a source is not there. What a funnel has and cannot be measured here, or whose number is not
  known, is listed below it, and in the recipe under `not_applied`.
- A gate is on the scale of the filter here ([filters.md](filters.md)). Where the publication measured otherwise, the words behind
  the number say how. What lies on another scale altogether is not applied.
- Who reads a number in a survey or in a review, and not in the paper, says so at the top of the recipe's file.
- HunyuanVideo (arXiv 2412.03603), Wan (arXiv 2503.20314) and Step-Video (arXiv 2502.10248) name their filters and publish no
  thresholds for them: there is nothing to ship."""


def page() -> str:
    """The whole page, GitHub-flavoured Markdown."""
    recipes = {name: load_recipe(name) for name in PUBLISHED}
    parts = [_HEAD, "## All gates", _overview(recipes)]
    for name, recipe in recipes.items():
        parts += _section(name, recipe)
    return "\n\n".join(parts) + "\n"


def sources(name: str) -> dict[tuple[str, str], str]:
    """(tier, gate) → where a shipped recipe has the number from."""
    content = shipped()[name].read_bytes()
    _, lines = read_yaml(content)
    text = content.decode("utf-8").splitlines()
    recipe = load_recipe(name)
    return {
        (tier, gate): _comment(text, lines, tier, gate) or recipe.source
        for tier, gates in recipe.tiers.items()
        for gate in gates
    }


def _comment(text: Sequence[str], lines: Lines, tier: str, gate: str) -> str:
    at = lines.line(("tiers", tier, gate))
    found = _COMMENT.search(text[at - 1]) if at else None
    return found[1] if found else ""


def _overview(recipes: dict[str, Recipe]) -> str:
    """A row for each filter, a column for each funnel: the ranges of its tiers, each once."""
    gates = {gate: None for recipe in recipes.values() for tier in recipe.tiers.values() for gate in tier}
    rows = []
    for gate in gates:
        cells = []
        for recipe in recipes.values():
            ranges = dict.fromkeys(str(tier[gate]) for tier in recipe.tiers.values() if gate in tier)
            cells.append("<br>".join(f"`{range_}`" for range_ in ranges))
        rows.append([f"`{gate}`", *cells])
    left_out = [str(len(recipe.not_applied) or "") for recipe in recipes.values()]
    return _table(["gate", *(f"`{name}`" for name in recipes)], [*rows, ["not applied", *left_out]])


def _section(name: str, recipe: Recipe) -> Iterator[str]:
    yield f"## {name}"
    yield f"{recipe.description} Source: {recipe.source}. Tiers: {', '.join(f'`{tier}`' for tier in recipe.tiers)}."
    told: dict[tuple[str, str, str], list[str]] = {}
    for (tier, gate), source in sources(name).items():
        told.setdefault((gate, str(recipe.tiers[tier][gate]), source), []).append(tier)
    rows = []
    for (gate, range_, source), tiers in sorted(told.items(), key=lambda pair: list(recipe.filters).index(pair[0][0])):
        whose = "all" if len(tiers) == len(recipe.tiers) else ", ".join(tiers)
        rows.append([f"`{gate}`", f"`{recipe.built[gate].backend}`", f"`{range_}`", whose, source])
    yield _table(["gate", "backend", "range", "tiers", "source"], rows) if rows else "No gate of it can be applied."
    if recipe.not_applied:
        yield "Not applied:\n\n" + "\n".join(f"- {what}: {why}" for what, why in recipe.not_applied.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
