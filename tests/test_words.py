"""Words that a user meets: the help of every command, argument and option is whole plain sentences.

The rules are those of CONTRIBUTING.md. A fragment is found by how it begins or ends, a metaphor by its word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from longtake.curation.cli.main import app

# A sentence does not begin with these, and a help has none of the words.
FRAGMENTS = re.compile(r"(?:^|[.;:] )(?:Of|That|What|Which|Where|Whose|So many|As|Only|Also|Into|On the|In the) ")
METAPHORS = re.compile(r"\b(?:in the air|told|tells|nobody|home|strangers|here|whatever)\b", re.IGNORECASE)
# Click writes these two itself.
NOT_OURS = {"--help", "--install-completion", "--show-completion"}


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


TEXTS = list(helps())


def test_every_command_is_looked_at() -> None:
    assert len(TEXTS) > 100
    assert {"longtake curate", "longtake tiers --set", "longtake models pull"} <= {path for path, _ in TEXTS}


@pytest.mark.parametrize(("path", "text"), TEXTS, ids=[path for path, _ in TEXTS])
def test_a_help_is_whole_sentences(path: str, text: str) -> None:
    plain = " ".join(re.sub(r"`[^`]*`", "X", text).split())
    assert plain, f"{path} has no help"
    assert plain[0].isupper(), plain
    assert plain.endswith((".", ", …")) or re.search(r"Default: .*[^.]$", plain), plain
    assert not FRAGMENTS.search(plain), plain
    assert not METAPHORS.search(plain), plain


def test_the_rules_find_what_they_are_for() -> None:
    worst = "Beside Parquet, which always is; again for another one. Of those named. Nobody is told."
    assert FRAGMENTS.search(worst)
    assert METAPHORS.search(worst)
