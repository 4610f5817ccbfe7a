"""How long `longtake stats` takes on a workspace of one million clips.

    python -m benchmarks.stats_million [--clips 1000000] [--runs 5] [--keep FOLDER]

Makes the workspace (manifests only, no video) with the columns, protocols and nulls that a cascade of the recipe
`embedded` leaves: of 1 M clips, about 5 % come to be captioned. Then runs the command as a user does, each time in
a new process, and prints a table. The first run is cold and shown apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from longtake.curation.clip_table import dump_protocols
from longtake.curation.recipe import Recipe, load_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas

PART = 250_000
PER_VIDEO = 5
# Gate of the cascade → (low, high) of its scores, drawn evenly: some pass and some fail, as in a web corpus.
SPREAD = {
    "width": (640.0, 3840.0),
    "height": (360.0, 2160.0),
    "fps": (15.0, 61.0),
    "duration": (10.0, 40.0),
    "grayscale": (0.0, 220.0),
    "psnr": (6.0, 26.0),
    "artifacts": (0.0, 0.12),
    "ssim": (0.1, 0.9),
    "flow": (0.0, 160.0),
}
DETAILS = {"grayscale": 5, "psnr": 4, "artifacts": 5, "ssim": 4, "flow": 5}


def make(folder: str, clips: int) -> None:
    """A workspace with `clips` clips, a fifth as many videos, and captions for those that pass every other gate."""
    workspace, recipe = Workspace(folder), load_recipe("embedded")
    workspace.save_recipe(recipe)
    rng = np.random.default_rng(0)
    for start in range(0, clips, PART):
        rows = min(PART, clips - start)
        table, kept = _clips(rng, recipe, start, rows)
        workspace.clips.append(table)
        workspace.captions.append(_captions(rng, recipe, table, kept))
        workspace.videos.append(_videos(table))
    names = ("scan", "score", "caption", "export")
    log = [
        {"run_id": name, "stage": name, "started": datetime.now(UTC), "seconds": 1.0, "computed": clips, "errors": 0}
        | {"cpu_seconds": 1.0, "video_seconds": 15.0 * clips, "workers": 2, "recipe": recipe.name}
        for name in names
    ]
    workspace.runs.append(pa.Table.from_pylist(log, schema=schemas.RUNS))


def _hex(first: int, rows: int, salt: int) -> pa.Array:
    """32 hex digits each, all different."""
    state = np.arange(first, first + rows, dtype=np.uint64)
    halves = [(state + np.uint64(salt + i)) * np.uint64(0x9E3779B97F4A7C15) for i in range(2)]
    return pa.array([f"{a:016x}{b:016x}" for a, b in zip(*(half.tolist() for half in halves), strict=True)])


def _clips(rng: np.random.Generator, recipe: Recipe, start: int, rows: int) -> tuple[pa.Table, np.ndarray]:
    video = np.arange(rows) // PER_VIDEO
    first, videos = start // PER_VIDEO, rows // PER_VIDEO + 1
    ids, scans = _hex(first, videos, 7), _hex(first, videos, 11)
    uris = pa.array([f"s3://corpus/videos/{i // 1000:05d}/{i:08d}.mp4" for i in range(first, first + videos)])
    status = np.where(rng.random(rows) < 0.01, "error", "ok")
    errored = status == "error"
    columns: dict[str, pa.Array] = {
        "clip_id": _hex(start, rows, 3),
        "video_id": ids.take(pa.array(video)),
        "uri": uris.take(pa.array(video)),
        "start": pa.array(15.0 * (np.arange(rows) % PER_VIDEO)),
        "end": pa.array(15.0 * (np.arange(rows) % PER_VIDEO) + 15.0),
        "status": pa.array(status),
        "error_kind": pa.array(np.where(errored, "measure", ""), mask=~errored),
        "error": pa.array(np.where(errored, "psnr: not a finite number", ""), mask=~errored),
        "origin": pa.array(np.zeros(rows)),
        "scan_id": scans.take(pa.array(video)),
    }
    alive, passing = ~errored, ~errored
    have: dict[str, np.ndarray] = {}
    cheap = ("width", "height", "fps", "duration")
    for name, (low, high) in SPREAD.items():
        value = rng.uniform(low, high, rows)
        have[name] = ~errored if name in cheap else alive
        columns[name] = pa.array(value, mask=~have[name])
        columns[f"{name}_detail"] = _detail(rng, value, have[name], DETAILS.get(name, 1))
        passing = passing & recipe.tiers["pretrain"][name].passes(value, value)
        # A third of the rejected clips have all scores, as if an earlier recipe was looser: more scores, more to read.
        alive = alive & (passing | (rng.random(rows) < 0.35))
    columns["has_frames"] = pa.array(alive)
    columns["protocols"] = _protocols(recipe, have)
    fields = [*schemas.CLIPS, *(field for name in SPREAD for field in schemas.score_fields(name))]
    table = pa.table({f.name: columns[f.name] for f in fields if f.name in columns})
    return table, passing


def _detail(rng: np.random.Generator, value: np.ndarray, have: np.ndarray, length: int) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(np.where(have, length, 0))]).astype(np.int32)
    flat = np.repeat(value[have], length) * rng.uniform(0.9, 1.1, int(have.sum()) * length)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(~have))


def _protocols(recipe: Recipe, have: dict[str, np.ndarray]) -> pa.Array:
    names = list(have)
    codes = np.sum([mask.astype(np.int64) << i for i, mask in enumerate(have.values())], axis=0)
    kinds, at = np.unique(codes, return_inverse=True)
    texts = [
        dump_protocols({name: recipe.built[name].protocol for i, name in enumerate(names) if kind >> i & 1})
        for kind in kinds.tolist()
    ]
    return pa.array(texts).take(pa.array(at))


def _captions(rng: np.random.Generator, recipe: Recipe, clips: pa.Table, kept: np.ndarray) -> pa.Table:
    rows = clips.filter(pa.array(kept)).select(["clip_id", "scan_id"])
    n = rows.num_rows
    text = "The camera pans steadily to the right; the picture is dim, in brown, tan and dark grey, with much detail."
    value = rng.uniform(0.5, 1.0, n)
    protocols = dump_protocols({"text_similarity": recipe.built["text_similarity"].protocol})
    columns = {
        "clip_id": rows["clip_id"],
        "status": pa.array(np.where(rng.random(n) < 0.01, "refused", "ok")),
        "caption": pa.array([text] * n),
        "sub_captions": pa.array([[text] * 5] * n),
        "scan_id": rows["scan_id"],
        "caption_protocol": pa.array(["descriptors/3"] * n),
        "protocols": pa.array([protocols] * n),
        "text_similarity": pa.array(value),
        "text_similarity_detail": _detail(rng, value, np.ones(n, bool), 4),
    }
    return pa.table(columns)


def _videos(clips: pa.Table) -> pa.Table:
    first = clips.select(["video_id", "uri", "scan_id"]).take(pa.array(np.arange(0, clips.num_rows, PER_VIDEO)))
    n = first.num_rows
    columns = {name: first[name] for name in first.column_names}
    return pa.table({**columns, "status": pa.array(["ok"] * n), "duration": pa.array([75.0] * n)})


def measure(folder: str, runs: int) -> list[float]:
    """Seconds of wall clock of `longtake stats FOLDER --json`, run by run."""
    command = [sys.executable, "-m", "longtake", "stats", folder, "--json"]
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
    found = json.loads(done.stdout)
    tiers = "; ".join(f"{tier}: {counts['kept']} kept" for tier, counts in found["tiers"].items())
    print(f"{found['clips']['total']} clips of {found['videos']['total']} videos; {tiers}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `longtake stats` on many clips.")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="make the workspace here, and use it again if it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(options.keep or scratch)
        if not Workspace(folder).clips.parts():
            began = time.perf_counter()
            make(folder, options.clips)
            print(f"workspace made in {time.perf_counter() - began:.0f} s")
        first, *rest = measure(folder, options.runs + 1)
    print(f"{'longtake stats --json':24} {'first':>8} {'median':>8} {'best':>8} {'worst':>8}")
    print(f"{'seconds':24} {first:8.2f} {statistics.median(rest):8.2f} {min(rest):8.2f} {max(rest):8.2f}")


if __name__ == "__main__":
    main()
