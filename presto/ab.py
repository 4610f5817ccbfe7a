"""A blind comparison of two models, as in the paper's user study: a page for judges, and a tally of win, lose and tie.

The page is one file that needs no server. Which model is left and which is right is drawn for each pair and written to
key.json, which stays with the experimenter; videos get names that tell nothing.
"""

from __future__ import annotations

import json
import random
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from longtake.presto.errors import PrestoError
from longtake.presto.evaluate import samples_of

CRITERIA = {
    "diversity": "Which shows the richer scenario, with more happening?",
    "coherence": "Which holds together better from beginning to end?",
    "adherence": "Which follows the texts better?",
}
CHOICES = ("left", "tie", "right")


def write_page(first: Path, second: Path, output: Path, seed: int = 0) -> Path:
    """index.html, videos/ and key.json of all pairs with the same prompts; the page. Raises PrestoError if no prompts are
    in both folders."""
    ones = {subject.captions: subject for subject in samples_of(first)}
    others = {subject.captions: subject for subject in samples_of(second)}
    common = [prompts for prompts in ones if prompts in others]
    if not common:
        raise PrestoError(f"no prompts are in both {first} and {second}: sample both models on the same prompts")
    rng = random.Random(seed)
    rng.shuffle(common)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    key, pairs = {}, []
    for number, prompts in enumerate(common):
        sides = ["first", "second"]
        rng.shuffle(sides)
        names = {}
        for side, model in zip(("left", "right"), sides, strict=True):
            source = ones[prompts] if model == "first" else others[prompts]
            names[side] = f"videos/{secrets.token_hex(8)}.mp4"
            shutil.copyfile(source.path, output / names[side])
        key[str(number)] = {"left": sides[0], "right": sides[1], "prompts": list(prompts)}
        pairs.append({**names, "prompts": prompts})
    page = output / "index.html"
    page.write_text(_html(pairs, secrets.token_hex(8)), encoding="utf-8")
    (output / "key.json").write_text(
        json.dumps({"first": str(first), "second": str(second), "pairs": key}, ensure_ascii=False, indent=1),
        encoding="utf-8",
    )
    return page


def _html(pairs: Sequence[Mapping[str, object]], page: str) -> str:
    """page: an id, under which a browser keeps the votes of this page apart from those of others."""
    pages = Environment(
        loader=PackageLoader("longtake.presto", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("ab.html.jinja").render(pairs=pairs, page=page, criteria=CRITERIA, choices=CHOICES)


def count_votes(key: Path, votes: Sequence[Path]) -> dict[str, dict[str, int]]:
    """Per criterion, how often the first model wins, loses and ties. Raises PrestoError, naming the file, for a vote that
    is none of this page's, or if a judge's file is given twice."""
    pairs = _read(key).get("pairs")
    if not isinstance(pairs, dict):
        raise PrestoError(f"{key} is no key of a blind comparison")
    counts = {criterion: {"win": 0, "lose": 0, "tie": 0} for criterion in CRITERIA}
    judges: dict[str, Path] = {}
    for path in votes:
        given = _read(path)
        judge = str(given.pop("judge", path))
        if judge in judges:
            raise PrestoError(f"{path} and {judges[judge]} are both of the judge {judge!r}")
        judges[judge] = path
        for name, choice in given.items():
            number, _, criterion = name.partition(":")
            if number not in pairs or criterion not in CRITERIA or choice not in CHOICES:
                raise PrestoError(f"{path}: {name!r}: {choice!r} is no vote of this page")
            won = {"tie": "tie"}.get(str(choice)) or ("win" if pairs[number][choice] == "first" else "lose")
            counts[criterion][won] += 1
    return counts


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrestoError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise PrestoError(f"{path} holds no votes")
    return found


def tally_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Counts and shares, of the first model."""
    lines = [f"{'':<12}{'win':>14}{'lose':>14}{'tie':>14}"]
    for criterion, each in counts.items():
        total = max(1, sum(each.values()))
        lines.append(f"{criterion:<12}" + "".join(f"{f'{n} ({n / total:.0%})':>14}" for n in each.values()))
    return "\n".join(lines)
