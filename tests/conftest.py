"""Fixtures that every test may use."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.corpus import Corpus, cache_folder
from tests.decoders import lent_decoders
from tests.s3_server import s3_server

if TYPE_CHECKING:
    from tests.curation.workbench import RunningRay

# An example has no time limit of its own: on a busy machine, any may take longer than 0.2 s.
# A busy machine may draw examples slowly, too, which says nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# A test draws the same examples each time, so that a change is judged by what it changes. `make properties` draws others.
hypothesis.settings.register_profile("same", hypothesis.settings.get_profile("any machine"), derandomize=True)
hypothesis.settings.load_profile("same")

ROOT = Path(__file__).parents[1]

# Every Ray that a test starts, in this process or in one of its own, asks for this token: no other Ray of this user
# gets in the way. Ray reads both variables once per process.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16), RAY_ENABLE_AUTO_CONNECT="0")

# GNU readline, which pytest loads, writes a terminal's size into the environment of pytest-xdist's workers: output that tests
# look at would be broken into lines of that width.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A shell without job control starts what runs in the background deaf to Ctrl-C, and so would be each run that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def on_ray(file: str) -> bool:
    """Whether tests of this file run on Ray."""
    return "mark.cluster" in (ROOT / file).read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on Ray comes first: it takes longest, and there is one Ray."""
    items.sort(key=lambda item: not on_ray(item.nodeid.partition("::")[0]))


class ByFile(LoadScopeScheduling):
    """How tests are dealt to the workers: by file, since a file's tests share what is dear to make; all files with tests on
    Ray go to one worker. (`--dist loadgroup` would do it by marks, but pytest-xdist 3.8 has no groups under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "on Ray" if on_ray(file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Called where there are workers."""
    config.option.loadscopereorder = False  # The order is that of ByFile, not that of the number of tests.
    return ByFile(config, log)


# Tests serve from this machine, and their plug-ins bring schemes of their own.
os.environ.setdefault("LONGTAKE_ALLOW_PRIVATE", "1")
os.environ.setdefault("LONGTAKE_ALLOW_SCHEME", "poison,nosuch")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server on loopback, with the bucket `place`."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with s3_server() as address:
        yield address


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
def decoders() -> Iterator[None]:
    """Runs in this process share their decoders."""
    with lent_decoders():
        yield


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
    root = str(ROOT) + os.sep
    for name, module in sys.modules.items():
        file = os.path.realpath(getattr(module, "__file__", None) or os.devnull)  # Built-in modules have no file.
        if file.startswith(root) and f"{os.sep}site-packages{os.sep}" not in file and name != "__main__":
            names.setdefault(file, []).append(name)
    assert names, "no module of the project was seen"
    assert not {file: loaded for file, loaded in names.items() if len(loaded) > 1}
