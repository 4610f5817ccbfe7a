"""How fast and how small a scan is. `make bench`, or `python -m benchmarks.scan [PART ...]`.

Parts: decode (CPU of a scan, with and without --all-scores, against a full decode by ffmpeg), generated (CPU of a scan of the
tests' corpus, of which over half is kept), reject (cost of a clip that metadata rejects), memory (of the sandbox's process on
clips of 720p, and of one and two hours of 1080p), workers (one against two), start (Ray). Ratios are of one run on one machine;
figures that do not compare are given with it. Needs `ffmpeg` on the PATH.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from longtake.curation.errors import VideoError
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.recipe import Recipe, load_recipe
from longtake.curation.stages.scan import scan_row
from longtake.manifests import ids

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
CACHE = Path("bench")
REPEATS = 3


def full_decode(path: Path) -> float:
    """CPU seconds of `ffmpeg -threads 1 -i X -f null -`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        "ffmpeg",
        "-v",
        "quiet",
        "-nostdin",
        "-threads",
        "1",
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-f",
        "null",
        "-",
    ]
    subprocess.run(command, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


_SANDBOX = Sandbox()
_LIMITS = Limits(seconds=600, memory_mib=4096)


def scan(path: Path, recipe: Recipe, all_scores: bool = True) -> dict[str, Any]:
    """A row of the videos manifest, made in the sandbox as in every run: numpy's own threads would wait there by spinning, which
    costs CPU time. Frames are written to a temporary workspace."""
    uri = str(path.resolve())
    row: dict[str, Any] = {"uri": uri, "video_id": ids.video_id(uri), "licence": None, "spans": []}
    with tempfile.TemporaryDirectory() as workspace:
        made = _SANDBOX.run(scan_row, (row, workspace, recipe.model_dump(mode="json"), all_scores), _LIMITS)
    return cast(dict[str, Any], made)


def close() -> None:
    """End the sandbox."""
    _SANDBOX.close()


def recipe() -> Recipe:
    """What is measured: the recipe of a fresh machine."""
    return load_recipe("embedded")


def films() -> list[Path]:
    """1080p H.264 of 16 to 60 s as x264 makes it by default (preset medium, crf 20): real footage where the corpus is there
    (looped, and enlarged where it is smaller), else a pan over photographs."""
    sources = {
        "animation_20s": ("short/bbb_1080p30.mp4", 20),
        "drone_30s": ("short/efficienttam_car_drone.mp4", 30),
        "indoors_16s": ("rot/media_720p.mp4", 16),
        "hands_60s": ("short/sam2_blocks.mp4", 60),
    }
    made = []
    for name, (source, seconds) in sources.items():
        path = CORPUS / "videos" / source
        if not path.exists():
            path = build_pan()
        target = CACHE / f"{name}.mp4"
        if not target.exists():
            part = target.with_suffix(".part.mp4")
            shape = ["-vf", "scale=1920:1080:flags=lanczos", "-t", str(seconds), "-an"]
            coder = ["-c:v", "libx264", "-preset", "medium", "-crf", "20"]
            loop = ["-stream_loop", "20", "-i", str(path)]
            subprocess.run(["ffmpeg", "-v", "error", "-y", *loop, *shape, *coder, str(part)], check=True)
            part.rename(target)
        made.append(target)
    return made


def build_pan() -> Path:
    """The 1080p pan of the generated corpus."""
    from tests.corpus import build

    return build(CACHE, ["pan_1080p"])["pan_1080p"]


def real_films() -> Iterator[Path]:
    """The clips of the real corpus of at least 720 lines that decode."""
    if not (CORPUS / "corpus.tsv").exists():
        return
    with open(CORPUS / "corpus.tsv", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            width, _, height = row["width_x_height"].partition("x")
            if not width.isdigit() or min(int(width), int(height)) < 720 or "ERR" in " ".join(map(str, row.values())):
                continue
            if not row["file"].startswith(("edge/", "derived/")):
                yield CORPUS / "videos" / row["file"]


def part_decode() -> None:
    table("1080p H.264, 16 to 60 s", films(), recipe())
    short = list(real_films())
    if short:
        table("real clips, ≥ 720p", short, recipe())


def table(title: str, paths: list[Path], with_recipe: Recipe) -> None:
    """Scans with all scores, and with the cascade, against a full decode, file by file, alternating; ratios of the medians."""
    print(
        f"\n{title}: scan with --all-scores, and with the cascade, CPU s, against ffmpeg decoding everything on one thread"
        f" (medians of {REPEATS})"
    )
    print(f"{'file':44} {'ffmpeg':>8} {'scan':>8} {'ratio':>6} {'cascade':>8} {'ratio':>6}  clips")
    scan(paths[0], with_recipe)  # The first scan pays for the imports.
    totals = [0.0, 0.0, 0.0]
    for path in paths:
        runs, clips = [], 0
        try:
            for _ in range(REPEATS):
                decode = full_decode(path)
                row = scan(path, with_recipe)
                cascade = scan(path, with_recipe, all_scores=False)
                runs.append((decode, row["cpu_seconds"], cascade["cpu_seconds"]))
                clips = len(row["clips"])
        except VideoError as error:
            print(f"{path.name:44} {error.kind}: {error}")
            continue
        a, b, c = (statistics.median(column) for column in zip(*runs, strict=True))
        totals = [total + more for total, more in zip(totals, (a, b, c), strict=True)]
        print(f"{path.name:44} {a:8.2f} {b:8.2f} {b / a:6.2f} {c:8.2f} {c / a:6.2f}  {clips}", flush=True)
    a, b, c = totals
    print(f"{'all':44} {a:8.2f} {b:8.2f} {b / a:6.2f} {c:8.2f} {c / a:6.2f}")


def part_generated() -> None:
    """What the tests' corpus costs, to compare two commits with each other: medians, file by file."""
    from tests.corpus import CASES, build

    names = [name for name, case in CASES.items() if not case.truth.error]
    paths = build(CACHE / "generated", names)
    scan(paths[names[0]], recipe(), all_scores=False)
    total, kept = 0.0, 0
    for name in names:
        rows = [scan(paths[name], recipe(), all_scores=False) for _ in range(REPEATS)]
        total += statistics.median(row["cpu_seconds"] for row in rows)
        kept += sum(clip["has_frames"] for clip in rows[0]["clips"])
    print(f"\nthe generated corpus with the cascade: {total:.2f} CPU s, {kept} clips go on")


def part_reject() -> None:
    from tests.corpus import build

    paths = [build(CACHE, [name])[name] for name in ("too_low", "too_short", "too_slow_rate")]
    scan(paths[0], recipe(), all_scores=False)
    print("\nclips that metadata rejects: CPU ms each, the median of 20")
    for path in paths:
        costs = [scan(path, recipe(), all_scores=False)["cpu_seconds"] * 1000 for _ in range(20)]
        print(f"{path.name:44} {statistics.median(costs):8.1f}")


def part_memory() -> None:
    """Real clips of 720p, each in a sandbox of its own; a pan again and again in one file, without encoding it again: a clip
    each time."""
    print("\npeak memory of a scanning process, MiB")
    for path in real_films():
        if "720p" in path.name or path.name.startswith("sam2_"):
            try:
                print(f"{path.name:44} {sandbox_peak(path):8.0f}", flush=True)
            except VideoError as error:
                print(f"{path.name:44} {error.kind}: {error}")
    source = build_pan()
    again = math.ceil(3600 / scan(source, recipe(), all_scores=False)["duration"])
    for hours in (1, 2):
        path = CACHE / f"pan_{hours}h.mp4"
        if not path.exists():
            loop = ["-stream_loop", str(again * hours - 1)]
            subprocess.run(
                ["ffmpeg", "-v", "error", "-y", *loop, "-i", str(source), "-c", "copy", str(path)], check=True
            )
        code = (
            "import resource, sys; from pathlib import Path; from benchmarks.scan import recipe, scan;"
            "row = scan(Path(sys.argv[1]), recipe());"
            "from benchmarks.scan import close; close();"
            "print(len(row['clips']), row['cpu_seconds'], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
        )
        out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
        clips, cpu, peak = out.split()
        print(f"{path.name:44} {float(peak):8.0f}  ({clips} clips, {float(cpu):.0f} CPU s)")


def sandbox_peak(path: Path) -> float:
    """Peak memory of the sandbox's process over one scan, MiB."""
    uri = str(path.resolve())
    row = {"uri": uri, "video_id": ids.video_id(uri), "licence": None, "spans": []}
    sandbox = Sandbox()
    try:
        with tempfile.TemporaryDirectory() as workspace:
            scan_and_peak = (row, workspace, recipe().model_dump(mode="json"))
            return float(sandbox.run(_scan_and_peak, scan_and_peak, _LIMITS))
    finally:
        sandbox.close()


def _scan_and_peak(row: dict[str, Any], workspace: str, recipe_data: dict[str, Any]) -> float:
    scan_row(row, workspace, recipe_data, True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def part_workers() -> None:
    paths = films()
    many = CACHE / "many"
    many.mkdir(exist_ok=True)
    for i in range(16):
        link = many / f"{i:02}.mp4"
        if not link.exists():
            link.symlink_to(paths[1].resolve())
    print("\nworkers: seconds from the first report to the last of 16 clips of 30 s, after a warm-up")
    seconds = {n: statistics.median(_stage_seconds(many, n) for _ in range(REPEATS)) for n in (1, 2)}
    print(f"one {seconds[1]:.1f}, two {seconds[2]:.1f}: {seconds[1] / seconds[2]:.2f} ×")


def _stage_seconds(folder: Path, workers: int) -> float:
    from longtake.curation.growth import add_inputs
    from longtake.curation.inputs import read_inputs
    from longtake.curation.running.on_ray import Cluster
    from longtake.curation.stages import scan as stage
    from longtake.curation.workspace import Workspace

    cluster = Cluster(workers=workers)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            workspace = Workspace(scratch)
            add_inputs(workspace, [read_inputs([str(folder)])])
            job = stage.plan(workspace, recipe(), all_scores=True, retry_errors=False)
            assert job is not None
            warm = [batch for batch in job.batches for _ in range(1)]
            ends = [time.monotonic() for _ in cluster.run(type(job)(**{**_fields(job), "batches": warm}))]
            # Each worker's first batch includes its start.
            return (ends[-1] - ends[workers - 1]) / (len(ends) - workers) * len(ends)
    finally:
        cluster.close()


def _fields(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__dataclass_fields__}


def part_start() -> None:
    # Without 'local', Ray looks for ever for a cluster whose address a killed Ray has left in its temporary folder.
    bare = (
        "import time; t = time.monotonic(); import ray; ray.init('local'); i = time.monotonic() - t;"
        "import ray.data; ray.data.range(2).map(lambda r: r).take_all(); print(i, time.monotonic() - t)"
    )
    ours = (
        "import time; t = time.monotonic(); from longtake.curation.running.on_ray import Cluster, Job, Report;"
        "import pyarrow as pa;"
        "c = Cluster(); c.workers; i = time.monotonic() - t;"
        "j = Job('scan', [pa.table({'a': [1]})] * 2, __import__('benchmarks.scan', fromlist=['Nothing']).Nothing, ());"
        "list(c.run(j)); print(i, time.monotonic() - t); c.close()"
    )
    print("\nstart of Ray, seconds: init, and to the first result")
    figures = {}
    for name, code in (("bare", bare), ("ours", ours)):
        runs = [_numbers(code) for _ in range(REPEATS)]
        figures[name] = [statistics.median(column) for column in zip(*runs, strict=True)]
        print(f"{name:10} {figures[name][0]:6.1f} {figures[name][1]:6.1f}")
    print(f"{'ratio':10} {figures['ours'][0] / figures['bare'][0]:6.2f} {figures['ours'][1] / figures['bare'][1]:6.2f}")


class Nothing:
    """A worker that does nothing."""

    def __call__(self, batch: Any) -> Any:
        from longtake.curation.running.jobs import Report

        return Report(rows=batch.num_rows)


def _numbers(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.strip().splitlines()[-1].split()]


PARTS: dict[str, Callable[[], None]] = {
    "reject": part_reject,
    "decode": part_decode,
    "generated": part_generated,
    "start": part_start,
    "workers": part_workers,
    "memory": part_memory,
}


def main() -> None:
    """Run the parts named on the command line, or all of them."""
    if shutil.which("ffmpeg") is None:
        sys.exit("the benchmark compares with ffmpeg: install it (apt-get install ffmpeg)")
    CACHE.mkdir(exist_ok=True)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    )
    try:
        for name in sys.argv[1:] or PARTS:
            PARTS[name]()
    finally:
        close()


if __name__ == "__main__":
    # The sandbox finds what it runs by the name of its module, which is not the one that this file has as a program.
    from benchmarks.scan import main as by_name

    by_name()
