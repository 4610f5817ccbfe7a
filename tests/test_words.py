"""Words that anyone reads are whole plain sentences: helps of commands, arguments and options, comments, and pages.

The rules are those of CONTRIBUTING.md. A fragment is found by how it begins or ends, a metaphor by its word.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from longtake.curation.cli.main import app
from longtake.presto.cli import app as trainer

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")) if path.name != "CHANGELOG.md")
# A sentence of a help does not begin with these, and neither a help nor a comment has the words.
FRAGMENTS = re.compile(r"(?:^|[.;:] )(?:Of|That|What|Which|Where|Whose|So many|As|Only|Also|Into|On the|In the) ")
METAPHORS = re.compile(
    r"\b(?:(?i:in the air|told|tells|nobody|anybody|somebody|whoever|strangers?|here|whatever)|home)\b"
)
# A comment does not begin with these.
BEGINNINGS = re.compile(
    r"(?:of|that|what|which|whose|whoever|so many|as|also|into|in which|by what|else|or|and)\b", re.IGNORECASE
)
# Click writes these two itself.
NOT_OURS = {"--help", "--install-completion", "--show-completion"}
# A mark for a program, or the shape of an array: no words for a person.
MARKS = re.compile(r"noqa|type: ignore|fmt: |isort: |pragma|[\[(]|.*(?:──|--)")
SHIPPED = ("captioning", "curation", "filters", "manifests", "presto", "src/longtake", "benchmarks", "deploy", "docs")


def helps() -> Iterator[tuple[str, str]]:
    """Where a text stands, and the text."""

    def of(command: Any, path: str) -> Iterator[tuple[str, str]]:
        yield path, command.help or ""
        for parameter in command.params:
            name = parameter.opts[0]
            if name not in NOT_OURS and not getattr(parameter, "hidden", False):
                yield f"{path} {name}", getattr(parameter, "help", None) or ""
        for name, inner in getattr(command, "commands", {}).items():
            yield from of(inner, f"{path} {name}")

    yield from of(get_command(app), "longtake")
    yield from of(get_command(trainer), "longtake-presto")


TEXTS = list(helps())


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The line at which each comment of a file begins, and its text; lines of comments below each other are one."""
    text, begin, last = "", 0, (0, 0)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            (line, column), words = token.start, token.string.lstrip("#").strip()
            alone = not token.line[:column].strip()
            if text and alone and last == (line - 1, column):
                text = f"{text} {words}"
            else:
                yield begin, text
                text, begin = words, line
            last = (line, column)
    yield begin, text


@cache
def all_comments() -> list[tuple[str, str]]:
    """The place and the text of each comment that is for a person; what stands in `…` is replaced by X."""
    found = []
    for top in (*SHIPPED, "tests"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for line, text in comments(path):
                if text and not MARKS.match(text):
                    found.append((f"{name}:{line}", re.sub(r"`[^`]*`", "X", text)))
    return found


def test_every_command_is_looked_at() -> None:
    assert len(TEXTS) > 150
    wanted = {"longtake curate", "longtake tiers --set", "longtake models pull", "longtake-presto train --dry-run"}
    assert wanted <= {path for path, _ in TEXTS}


@pytest.mark.parametrize(("path", "text"), TEXTS, ids=[path for path, _ in TEXTS])
def test_a_help_is_whole_sentences(path: str, text: str) -> None:
    plain = " ".join(re.sub(r"`[^`]*`", "X", text).split())
    assert plain, f"{path} has no help"
    assert plain[0].isupper(), plain
    assert plain.endswith((".", ", …")) or re.search(r"Default: .*[^.]$", plain), plain
    assert not FRAGMENTS.search(plain), plain
    assert not METAPHORS.search(plain), plain


def test_every_comment_is_looked_at() -> None:
    places = {place.partition(":")[0] for place, _ in all_comments()}
    assert len(all_comments()) > 1500
    assert {"manifests/store.py", "presto/train.py", "src/longtake/settings.py", "tests/test_words.py"} <= places


def test_a_comment_begins_as_a_sentence_and_has_no_metaphor() -> None:
    wrong = [f"{place}: {text}" for place, text in all_comments() if BEGINNINGS.match(text) or METAPHORS.search(text)]
    assert not wrong, "\n".join(["see CONTRIBUTING.md, Whole sentences:", *wrong])


def test_a_comment_of_a_shipped_file_is_a_whole_sentence() -> None:
    wrong = [
        f"{place}: {text}"
        for place, text in all_comments()
        if place.startswith(SHIPPED) and (text[0].islower() or text[-1] not in ".:?!)…")
    ]
    assert not wrong, "\n".join(["begin with a capital letter and end with a full stop:", *wrong])


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_a_page_has_no_metaphor(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "X", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    wrong = [line for line in text.splitlines() if (word := METAPHORS.search(line)) and word[0].lower() != "here"]
    assert not wrong, "\n".join(wrong)


def test_the_rules_find_what_they_are_for(tmp_path: Path) -> None:
    worst = "Beside Parquet, which always is; again for another one. Of those named. Nobody is told."
    assert FRAGMENTS.search(worst)
    assert METAPHORS.search(worst)
    file = tmp_path / "file.py"
    file.write_text('A = 1  # of bytes\nB = "# no comment"\n# One sentence\n# in two lines.\nC = 2\n', "utf-8")
    assert [one for one in comments(file) if one[1]] == [(1, "of bytes"), (3, "One sentence in two lines.")]
    assert BEGINNINGS.match("of bytes")
    assert not BEGINNINGS.match("Offset of the first byte.")
