"""How long `longtake compare` takes on a workspace of one million clips, with every published recipe, and what memory.

    python -m benchmarks.compare_million [--clips 1000000] [--runs 3] [--keep FOLDER]

The workspace is that of benchmarks.stats_million. The command runs as a user does, each time in a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.stats_million import make
from longtake.curation.recipe import PUBLISHED
from longtake.curation.workspace import Workspace


def measure(folder: str) -> tuple[float, float, float, dict[str, object]]:
    """Seconds of wall clock and of CPU, and MiB at the peak, of `longtake compare FOLDER … --json`; what it says."""
    command = [sys.executable, "-m", "longtake", "compare", folder, *PUBLISHED, "--json"]
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"`{' '.join(command)}` failed")
        output.seek(0)
        found = json.load(output)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `longtake compare` on many clips.")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the workspace here, and use it again if it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(options.keep or scratch)
        if not Workspace(folder).clips.parts():
            make(folder, options.clips)
        runs = [measure(folder) for _ in range(options.runs + 1)]
    found = runs[-1][3]
    print(f"{found['clips']} clips; {len(PUBLISHED)} recipes and the workspace's own; first run apart")
    print(f"{'longtake compare --json':24} {'first':>8} {'median':>8} {'best':>8} {'worst':>8}")
    for i, what in enumerate(("seconds", "CPU seconds", "MiB at the peak")):
        first, *rest = [run[i] for run in runs]
        assert isinstance(first, float)
        print(f"{what:24} {first:8.2f} {statistics.median(rest):8.2f} {min(rest):8.2f} {max(rest):8.2f}")


if __name__ == "__main__":
    main()
