"""Fixtures that every test may use."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.corpus import Corpus, cache_folder

if TYPE_CHECKING:
    from tests.curation.workbench import RunningRay

# Every Ray that a test starts, here or in a process of its own, asks for this token: no other Ray of this user gets in the
# way. Ray reads both variables once per process.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))

# A shell without job control starts what runs in the background deaf to Ctrl-C, and so would be each run that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For pytest-xdist: a file's tests stay together, since they share what is dear to make; those on Ray are one group, so
    that there is one Ray. That group is the longest: it comes
    first."""
    for item in items:
        on_ray = item.get_closest_marker("cluster") is not None
        item.add_marker(pytest.mark.xdist_group("cluster" if on_ray else item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("cluster") is None)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Videos with known answers by name; each is made when a test first asks for it, and kept for later runs."""
    return Corpus(cache_folder())


@pytest.fixture(scope="session")
def running_ray() -> Iterator[RunningRay]:
    """The suite's Ray, of two CPUs. A test may kill its workers; one that kills Ray itself, or proves that a run starts
    and ends one, starts its own."""
    from tests.curation.workbench import ray_cluster

    with ray_cluster() as started:
        yield started


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
