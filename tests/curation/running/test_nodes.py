"""A cluster of several nodes on this machine, one of which is killed, frozen or added in the middle of a run: it ends by itself,
with the rows of an undisturbed one, and the stages run at once."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.curation.workbench import (
    Bench,
    RunningRay,
    add_node,
    assert_whole,
    begun,
    command_line,
    kill_tree,
    ray_cluster,
    videos,
    wait_for,
)

COUNT = 32

pytestmark = [pytest.mark.cluster, pytest.mark.slow]  # raylets take seconds to start and to be missed

# Nodes are missed after some twelve seconds, and not after a minute.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    videos(folder, COUNT)
    return folder


@pytest.fixture
def head() -> Iterator[RunningRay]:
    with ray_cluster(1, **IMPATIENT) as started:
        yield started


def everyone(members: list[psutil.Process]) -> list[psutil.Process]:
    """Processes and all that they started, the eldest first."""
    found = []
    for member in members:
        with suppress(psutil.NoSuchProcess):
            found += [member, *member.children(recursive=True)]
    return found


def stop(members: list[psutil.Process], how: signal.Signals) -> None:
    """A node is gone: all its processes are killed, or frozen."""
    for process in everyone(members):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_node_is_lost_and_another_one_added(
    films: Path, head: RunningRay, tmp_path: Path, how: signal.Signals
) -> None:
    bench = Bench(tmp_path)
    slow = {"pause": 0.2}
    bench.recipe(filters={"seen": slow, "looked": slow}, captioning={"settings": slow})
    node = add_node(head, 2)
    assert len(node) >= 1
    process = bench.start("curate", films, "--address", head.address)
    added: list[psutil.Process] = []
    try:
        wait_for(lambda: begun(bench, "scan") > 4, "the scan to work", 240, process)
        stop(node, how)
        added = add_node(head, 2)
        wait_for(lambda: any("MapWorker" in command_line(p) for p in living(added)), "work there", 240, process)
        output, _ = process.communicate(timeout=400)
    except BaseException:
        kill_tree(process)
        raise
    finally:
        stop([*node, *added], signal.SIGKILL)
    assert process.returncode == 0, output
    assert_whole(bench, COUNT)
    assert "with errors" not in output
    print(output)
    print(re.findall(r".*begun more than once.*", output))


def living(members: list[psutil.Process]) -> list[psutil.Process]:
    return [
        process for process in everyone(members) if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_clip_is_encoded_before_the_last_video_is_scanned(films: Path, head: RunningRay, tmp_path: Path) -> None:
    """By the times in the names of the manifests' parts."""
    bench = Bench(tmp_path)
    slow = {"pause": 0.5}
    bench.recipe(filters={"seen": slow})
    process = bench.start("curate", films, "--address", head.address)
    first: dict[str, int] = {}
    try:

        def watch() -> bool:
            for name in ("videos", "clips", "captions", "exports"):
                if name not in first and any((bench.workspace / name).glob("[0-9]*.parquet")):
                    first[name] = len(bench.rows("videos"))
            return process.poll() is not None

        wait_for(watch, "the run to end", 500)
        output, _ = process.communicate()
    except BaseException:
        kill_tree(process)
        raise
    assert process.returncode == 0, output
    assert_whole(bench, COUNT)
    assert first["captions"] < COUNT
    assert first["exports"] < COUNT
