"""A cluster of several nodes on this machine, one of which is killed, frozen or added in the middle of a run: it ends by itself,
with the rows of an undisturbed one, and the stages run at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import ray

from longtake.curation.running.jobs import Job, Report
from longtake.curation.running.on_ray import Cluster
from tests.curation.workbench import (
    IMPATIENT,
    PLAIN,
    RAY,
    ROOT,
    Bench,
    RunningRay,
    add_node,
    assert_whole,
    begun,
    command_line,
    drain,
    everyone,
    kill_tree,
    ray_cluster,
    signal_all,
    videos,
    wait_for,
)

COUNT = 32

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.campaign,
]  # Raylets take seconds to start and to be missed.


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    videos(folder, COUNT)
    return folder


@pytest.fixture
def head() -> Iterator[RunningRay]:
    with ray_cluster(1, **IMPATIENT) as started:
        yield started


@pytest.fixture
def calm_head() -> Iterator[RunningRay]:
    """One that does not take a node for dead which is only slow: no node is lost without a word in these tests."""
    with ray_cluster(1, RAY_health_check_failure_threshold="30") as started:
        yield started


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
        signal_all(node, how)
        added = add_node(head, 2)
        wait_for(lambda: any("MapWorker" in command_line(p) for p in living(added)), "work there", 240, process)
        output, _ = process.communicate(timeout=400)
    except BaseException:
        kill_tree(process)
        raise
    finally:
        signal_all([*node, *added], signal.SIGKILL)
    assert process.returncode == 0, output
    assert_whole(bench, COUNT)
    assert "with errors" not in output
    assert "raylet" not in output, "Ray's own words are not for whoever runs this"


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


class Noting:
    """Notes when it had each batch, and with which GPU; gives its clips on."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, batch: pa.Table) -> Report:
        began = time.time_ns()
        time.sleep(0.3)
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        (self.folder / str(batch["row"][0].as_py())).write_text(f"{began} {time.time_ns()} {gpu or '-'}")
        return Report(rows=batch.num_rows, clips=batch)


def on_to_the_gpu(after: str, clips: pa.Table) -> list[tuple[str, pa.Table]]:
    return [("second", clips)]


def test_cpu_and_gpu_are_busy_side_by_side(head: RunningRay, tmp_path: Path) -> None:
    node = add_node(head, 1, gpus=1)
    cluster = Cluster(head.address)
    try:
        jobs = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            batches = [pa.table({"row": [i]}) for i in range(40)] if name == "first" else []
            jobs.append(Job(name, batches, Noting, (str(tmp_path / name),), on_gpu=name == "second"))
        reports = list(cluster.stream(jobs, on_to_the_gpu))
    finally:
        cluster.close()
        signal_all(node, signal.SIGKILL)
    assert sum(report.rows for report in reports) == 80
    seen = {name: [path.read_text().split() for path in (tmp_path / name).iterdir()] for name in ("first", "second")}
    assert {gpu for _, _, gpu in seen["second"]} == {"0"}
    first, second = ([(int(a), int(b)) for a, b, _ in seen[name]] for name in ("first", "second"))
    overlaps = [(a, b) for a, b in second if any(c < b and a < d for c, d in first)]
    assert len(overlaps) >= 5


class Sharing:
    """Notes which process it is and which GPU it has; keeps its first batch until there are four like it, or for two minutes."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, batch: pa.Table) -> Report:
        (self.folder / f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}").touch()
        end = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < 4 and time.monotonic() < end:
            time.sleep(0.2)
        return Report(rows=batch.num_rows)


def test_four_workers_share_a_gpu(calm_head: RunningRay, tmp_path: Path) -> None:
    """There are cores for seven of them."""
    node = add_node(calm_head, 6, gpus=1)
    cluster = Cluster(calm_head.address, gpus_per_worker=0.25)
    try:
        batches = [pa.table({"row": [i]}) for i in range(16)]
        reports = list(cluster.run(Job("test", batches, Sharing, (str(tmp_path),), on_gpu=True, memory_mib=256)))
    finally:
        cluster.close()
        signal_all(node, signal.SIGKILL)
    assert sum(report.rows for report in reports) == 16
    assert [path.name.split()[1] for path in tmp_path.iterdir()] == ["0"] * 4, "no fewer, and no more"


class Lasting:
    """Notes who had each batch, and on which node; takes a second."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, batch: pa.Table) -> Report:
        began = time.time_ns()
        time.sleep(1.0)
        node = ray.get_runtime_context().get_node_id()
        name = f"{batch['row'][0].as_py()} {began}"
        (self.folder / name).write_text(node)
        return Report(rows=batch.num_rows)


@pytest.mark.parametrize("how", ["a notice", "SIGTERM"])
def test_a_node_that_is_to_go_ends_its_batches_and_begins_no_more(
    calm_head: RunningRay, tmp_path: Path, how: str
) -> None:
    """By `ray drain-node`, as an autoscaler does it, and by a SIGTERM to `ray start --block`, as Kubernetes does. The node ends
    by itself once its workers have left it."""
    cluster, said, told = Cluster(calm_head.address), list[str](), 0
    blocking, node = None, list[psutil.Process]()
    reports = []
    try:
        assert cluster.workers == 1
        if how == "SIGTERM":
            blocking = subprocess.Popen(
                [*RAY, "start", "--block", f"--address={calm_head.address}", "--num-cpus=1", *PLAIN], cwd=ROOT,
                env=calm_head.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        else:
            node = add_node(calm_head, 1)
        (there,) = wait_for(others, "the node to come up", 300)
        job = Job("test", [pa.table({"row": [i]}) for i in range(80)], Lasting, (str(tmp_path),))
        for report in cluster.run(job, said.append):
            reports.append(report)
            if not told and any(path.read_text() == there for path in tmp_path.iterdir()):
                if blocking is not None:
                    blocking.send_signal(signal.SIGTERM)
                else:
                    drain(calm_head, there)
                told = time.time_ns()
        wait_for(lambda: there not in others(), "the node to end", 120)
    finally:
        cluster.close()
        node += [psutil.Process(blocking.pid)] if blocking is not None and blocking.poll() is None else []
        signal_all(node, signal.SIGKILL)
    assert sum(report.rows for report in reports) == 80
    assert sum(report.repeated for report in reports) == 0, "no batch was cut off"
    assert len(list(tmp_path.iterdir())) == 80
    assert [text for text in said if "is to go within" in text and "begin nothing more" in text]
    late = [path for path in tmp_path.iterdir() if path.read_text() == there and int(path.name.split()[1]) > told + 8e9]
    assert not late, "a few seconds until it is seen, and the batches that were in hand then"


def others() -> list[str]:
    """The nodes that live beside the head."""
    return [
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and "node:__internal_head__" not in node["Resources"]
    ]


def test_plug_ins_are_brought_to_nodes_that_have_none(films: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with ray_cluster(2, PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{ROOT}") as running:
        output = bench.run("curate", films / "000.mp4", "--address", running.address, seconds=600)
    assert_whole(bench, 1)
    assert "with errors" not in output
