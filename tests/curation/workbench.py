"""What tests of whole runs share: small distinct videos, a recipe that notes each measurement, runs to be killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil
import yaml
from click.testing import Result
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from tests.corpus import SMALL, Encoding, film, pan

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "plugin"
MANIFESTS = {"videos": "video_id", "clips": "clip_id", "captions": "clip_id", "exports": "clip_id"}
CLIPS_EACH = 2  # Clips of each video of `videos`.
NOTHING = {"scan": 0, "score": 0, "caption": 0, "export": 0}  # The rows that a run computes which has nothing to do.


def videos(folder: Path, count: int, frames: int = 98) -> list[Path]:
    """Small films, no two alike: of 4.08 s at 24 fps, two windows of the recipe below."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        start = (200 + 20 * (i % 50), 60 + 20 * (i // 50))
        film(path, pan("table", (2, 0), start, SMALL, frames), Encoding(size=SMALL))
    return paths


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old`, mapping by mapping."""
    both = dict(old)
    for key, value in new.items():
        both[key] = merged(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
    return both


@dataclass
class Bench:
    """A workspace with a recipe of its own, and a log of everything that was measured in it."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def recipe(self, **changes: Any) -> Path:
        """The recipe's file, written anew with `changes` (mappings are merged); they stay for the next call."""
        self.changes = merged(self.changes, changes)
        tally = {"log": str(self.log)}
        plain: dict[str, Any] = {
            "name": "tally",
            "scan": {"min_time_limit": 30.0},
            "splitting": {
                "detector": "none", "dissolves": False, "min_seconds": 2, "window_seconds": 2, "trim_frames": 0,
            },
            "sampling": {"partner_seconds": 0.1},
            "filters": {
                "width": {}, "height": {}, "fps": {}, "duration": {}, "grayscale": {},
                "seen": tally, "looked": tally, "heard": tally,
            },
            "tiers": {"pretrain": {"width": ">= 64", "seen": ">= 0", "looked": ">= 0", "heard": ">= 0"}},
            "captioning": {"captioner": "teller", "settings": tally},
            "export": {"frames": 60, "preset": "ultrafast", "crf": 30},
        }  # fmt: skip
        path = self.folder / "recipe.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(merged(plain, self.changes)))
        return path

    def lines(self, who: str | None = None) -> Counter[str]:
        """What was measured, how often."""
        text = self.log.read_text() if self.log.exists() else ""
        return Counter(line for line in text.splitlines() if who is None or line.startswith(f"{who} "))

    def plain(self, manifest: str) -> pd.DataFrame:
        """A manifest as any stranger reads it."""
        folder = self.workspace / manifest
        if not any(folder.glob("[!.]*.parquet")):
            return pd.DataFrame({MANIFESTS[manifest]: []})
        return pd.read_parquet(folder)

    def rows(self, manifest: str) -> pd.DataFrame:
        """A manifest as the store reads it: the newest row of each id."""
        from longtake.manifests import schemas

        return getattr(schemas, manifest)(str(self.workspace)).read().to_pandas()

    def command(self, *arguments: str | Path, recipe: Path | None = None) -> list[str]:
        """`longtake …` on this workspace; the stage's name comes first."""
        stage, *rest = map(str, arguments)
        chosen = str(recipe or self.recipe())
        return [sys.executable, "-m", "longtake", stage, *rest, "-o", str(self.workspace), "-r", chosen]

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A run in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments), cwd=ROOT, env=environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *arguments: str | Path, code: int = 0, seconds: float = 240) -> str:
        """A run to its end; its output."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            kill_tree(process)
            raise
        assert process.returncode == code, output
        return output


def longtake(*arguments: str | Path, code: int = 0, columns: int = 200) -> str:
    """`longtake …` in this process; its output."""
    result: Result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def call(bench: Bench, *arguments: str | Path, code: int = 0) -> str:
    """`longtake …` on the workspace of a bench, in this process, inline; its output."""
    return longtake(*bench.command(*arguments)[3:], "--engine", "inline", code=code)


def stats(bench: Bench) -> dict[str, Any]:
    """What `longtake stats --json` prints of the workspace."""
    found: dict[str, Any] = json.loads(longtake("stats", bench.workspace, "--json"))
    return found


def computed(output: str) -> dict[str, int]:
    """Rows computed by stage, as the progress lines tell."""
    found = re.findall(r"^(scan|score|caption|export): (?:(\d+) computed|nothing to compute)", output, re.MULTILINE)
    return {stage: int(rows or 0) for stage, rows in found}


def environment() -> dict[str, str]:
    """Of the runs, and of their Ray: with this checkout's `longtake` and the plug-in."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(PLUGIN)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120, process: Any = None) -> Any:
    """The first true value of `condition()`; an AssertionError naming `what` after so long, or once `process` ended."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the run ended before {what}:\n{process.communicate()[0]}")
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A process and everything it started."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def kill_driver(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """SIGKILL to the driver and to nobody else; everything it had started."""
    members = family(process)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return members


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the driver and all it started, one by one."""
    for member in reversed(family(process)):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()


def processes(parents: list[psutil.Process], mark: str) -> list[psutil.Process]:
    """Descendants of `parents` with `mark` in their command line."""
    found = {}
    for parent in parents:
        with suppress(psutil.NoSuchProcess):
            for child in parent.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if mark in " ".join(child.cmdline()):
                        found[child.pid] = child
    return list(found.values())


def actors(members: list[psutil.Process], stage: str = "") -> list[psutil.Process]:
    """Ray's processes that work for a stage, or for any."""
    return [p for p in processes(members, "ray::") if re.search(rf"MapWorker\(.*{stage}", command_line(p))]


def command_line(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def begun(bench: Bench, stage: str) -> int:
    """How much a stage has begun to work on."""
    if stage == "export":
        return len(list((bench.workspace / "encoded").rglob("*.mp4")))
    return sum(bench.lines({"scan": "seen", "score": "looked", "caption": "teller"}[stage]).values())


# Nodes are missed after some twelve seconds, and not after a minute.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


# Each process that a node is spared takes seconds to start.
PLAIN = ["--include-log-monitor=false", "--disable-usage-stats"]
RAY = [sys.executable, "-m", "tests.curation.patient_ray"]
# On a machine that is busy with other jobs, a node must not take what it starts for dead.
PATIENT = {"RAY_worker_register_timeout_seconds": "300", "RAY_agent_register_timeout_ms": "600000"}


class RunningRay(NamedTuple):
    """A Ray cluster on this machine; members: the processes that it began with; environment: of its nodes."""

    address: str  # HOST:PORT.
    members: list[psutil.Process]
    environment: dict[str, str]


def everyone(members: list[psutil.Process]) -> list[psutil.Process]:
    """Processes and all that they started, the eldest first."""
    found = []
    for member in members:
        with suppress(psutil.NoSuchProcess):
            found += [member, *member.children(recursive=True)]
    return found


def signal_all(members: list[psutil.Process], how: signal.Signals) -> None:
    """A node is gone: all its processes are killed, or frozen."""
    for process in everyone(members):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


def node_id(members: list[psutil.Process]) -> str:
    """What Ray calls a node, by its processes."""
    (found,) = {match[1] for process in members if (match := re.search(r"--node_id=(\w+)", command_line(process)))}
    return str(found)


def drain(ray: RunningRay, node: str, seconds: int = 300) -> None:
    """Tell Ray that a node is to go, as an autoscaler does."""
    command = [
        *RAY, "drain-node", f"--address={ray.address}", f"--node-id={node}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=a spot notice", f"--deadline-remaining-seconds={seconds}",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=ray.environment, check=True, capture_output=True, timeout=300)


def add_node(ray: RunningRay, cpus: int = 1, gpus: int = 0) -> list[psutil.Process]:
    """Another node of a cluster, on this machine; its raylet."""
    before = {process.pid for process in psutil.process_iter()}
    command = [
        *RAY, "start", f"--address={ray.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}", *PLAIN,
    ]  # fmt: skip
    port = ray.address.rpartition(":")[2]
    marks = re.compile(rf"[:=]{port}\b")
    _ray_start(command, ray.environment)
    # All else on the node is a child of its raylet. Other nodes of the cluster may have started workers in the meantime.
    return [
        process
        for process in _members(marks)
        if process.pid not in before and Path(process.cmdline()[0]).name == "raylet"
    ]


@contextmanager
def ray_cluster(cpus: int = 2, dashboard: int | None = None, **settings: str) -> Iterator[RunningRay]:
    """A Ray cluster on this machine, ended by process id. dashboard: the port of one, where `ray[default]` is installed.
    settings: of its environment."""
    port = free_port()
    # The folder is short, since paths of sockets have 107 characters at most.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    marks = re.compile(rf"[:=]{port}\b|{re.escape(folder)}\b")
    command = [
        *RAY, "start", "--head", f"--port={port}", f"--num-cpus={cpus}",
        "--no-monitor", f"--temp-dir={folder}", *PLAIN,
    ]  # fmt: skip
    if dashboard is None:
        command.append("--include-dashboard=false")
    else:
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"]
    try:
        around = {**environment(), **PATIENT, **settings}
        _ray_start(command, around)
        yield RunningRay(f"127.0.0.1:{port}", _members(marks), around)
    finally:
        _kill(_members(marks))
        shutil.rmtree(folder, ignore_errors=True)


class NodeNotStarted(AssertionError):
    """`ray start` gave up."""


def _ray_start(command: list[str], around: dict[str, str]) -> None:
    """`ray start`, until the node is there."""
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeNotStarted(done.stdout + done.stderr)


def _kill(members: list[psutil.Process]) -> None:
    ended = everyone(members)
    for process in ended:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ended, timeout=10)


def _members(marks: re.Pattern[str]) -> list[psutil.Process]:
    """The processes of a cluster: all of them name its port or its folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "ray" in " ".join(words[:3]) and any(map(marks.search, words)):
                found.append(process)
    return found


def free_port() -> int:
    """A TCP port nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_whole(bench: Bench, count: int) -> None:
    """After a finished run over `count` good videos: nothing lost, nothing twice, captions where they belong."""
    for manifest, key in MANIFESTS.items():
        table = bench.plain(manifest)
        assert table[key].is_unique, f"{manifest}: rows twice"
        assert len(table) == (count if manifest == "videos" else CLIPS_EACH * count), manifest
        assert (table["status"] == "ok").all(), manifest
    assert bench.plain("videos")["uri"].is_unique
    captions = bench.plain("captions")
    assert all(clip in text for clip, text in zip(captions["clip_id"], captions["caption"], strict=True))
    index = pd.read_parquet(bench.workspace / "dataset" / "pretrain" / "index.parquet")
    assert sorted(index["clip_id"]) == sorted(bench.plain("clips")["clip_id"])


@dataclass(frozen=True)
class Committed:
    """What a workspace held at one moment, errors aside: ids of scans, scores, captions and encoded files."""

    scans: dict[str, str]
    looked: dict[str, float]
    told: dict[str, str]
    files: dict[str, tuple[int, int]]
    lines: Counter[str]

    @classmethod
    def of(cls, bench: Bench) -> Committed:
        tables = [bench.rows(name) for name in ("videos", "clips", "captions", "exports")]
        videos, clips, captions, exports = (table[table["status"] == "ok"] for table in tables)
        looked = clips[clips["looked"].notna()] if "looked" in clips else clips[:0].assign(looked=[])
        files = [(path, (bench.workspace / path).stat()) for path in exports["path"]]
        return cls(
            dict(zip(videos["video_id"], videos["scan_id"], strict=True)),
            dict(zip(looked["clip_id"], looked["looked"], strict=True)),
            dict(zip(captions["clip_id"], captions["caption"], strict=True)),
            {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in files},
            bench.lines(),
        )


def assert_kept(before: Committed, bench: Bench) -> None:
    """What was committed is there as it was, and was not measured again."""
    now = Committed.of(bench)
    for name in ("scans", "looked", "told", "files"):
        old, new = getattr(before, name), getattr(now, name)
        assert {key: new.get(key) for key in old} == old, name
    rows = bench.rows("clips")
    scanned = rows[rows["scan_id"].isin(before.scans.values())]
    committed = [f"seen {number:.0f}" for number in scanned["seen"]]
    committed += [f"looked {number:.0f}" for number in before.looked.values()]
    for line in committed:
        assert now.lines[line] == before.lines[line], f"measured again: {line}"
    from zlib import crc32

    for clip in before.told:
        line = f"teller {crc32(clip.encode())}"
        assert now.lines[line] == before.lines[line], f"captioned again: {clip}"
