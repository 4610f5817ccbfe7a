"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.corpus import build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos with known answers by name; LONGTAKE_TEST_CORPUS names a folder that keeps them between runs."""
    kept = os.environ.get("LONGTAKE_TEST_CORPUS")
    return build(Path(kept) if kept else tmp_path_factory.mktemp("corpus"))
