"""Fixtures for tests of whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.filters import registry
from tests.curation.reading.scans import numbered_film
from tests.curation.workbench import PLUGIN, Bench


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process knows the plug-in, as the processes that a bench starts do."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


@pytest.fixture
def bench(tmp_path: Path, plugin: None) -> Bench:
    """A bench whose plug-in this process knows too."""
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of five minutes whose frames say which ones they are."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    numbered_film(path)
    return path
