"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus import build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos with known answers by name; LONGTAKE_TEST_CORPUS names a folder that keeps them between runs."""
    kept = os.environ.get("LONGTAKE_TEST_CORPUS")
    return build(Path(kept) if kept else tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def a_user_who_allowed_nothing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the configuration of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.delenv("LONGTAKE_ALLOW_ENDPOINTS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def one_name_per_module() -> Iterator[None]:
    """At the end of the session, no file of ours was loaded as two modules (`filters.base` beside `longtake.filters.base`)."""
    yield
    names: dict[str, list[str]] = {}
    root = str(Path(__file__).parents[1])
    for name, module in sys.modules.items():
        real = os.path.realpath(getattr(module, "__file__", None) or os.devnull)
        if real.startswith(root + os.sep) and f"{os.sep}site-packages{os.sep}" not in real and name != "__main__":
            names.setdefault(real, []).append(name)
    assert names, "no module of the project was seen"
    assert not {file: loaded for file, loaded in names.items() if len(loaded) > 1}
