"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus import Corpus, cache_folder


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Videos with known answers by name; each is made when a test first asks for it, and kept for later runs."""
    return Corpus(cache_folder())


@pytest.fixture(scope="session", autouse=True)
def one_name_per_module() -> Iterator[None]:
    """At the end of the session, no file of ours was loaded as two modules (`filters.base` beside `longtake.filters.base`)."""
    yield
    names: dict[str, list[str]] = {}
    root = str(Path(__file__).parents[1]) + os.sep
    for name, module in sys.modules.items():
        file = os.path.realpath(getattr(module, "__file__", None) or os.devnull)  # built-in modules have no file
        if file.startswith(root) and f"{os.sep}site-packages{os.sep}" not in file and name != "__main__":
            names.setdefault(file, []).append(name)
    assert names, "no module of the project was seen"
    assert not {file: loaded for file, loaded in names.items() if len(loaded) > 1}
