"""What the store and the driver's plans cost on many clips: CPU seconds, peak memory, and bytes.

    python -m benchmarks.store [--rows 200000] [--parts 5000] [--keep FOLDER] [--only NAME ...]

rows: clips; there are a fifth as many videos, a tenth of which is not scanned yet. The workspace holds manifests only, with the
columns, protocols and nulls that a cascade of the recipe `embedded` leaves. Each step runs in a process of its own: the peak is
of the process, with the 150 to 200 MiB that its imports take. Appends are of eight videos with their clips nested, as a scan
worker makes them, and `compact` merges such parts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import stats_million
from longtake.curation.recipe import Recipe, load_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import ids, schemas
from longtake.manifests.store import Manifest

BATCH = 8  # Videos of a scan worker's batch.
PER_VIDEO = stats_million.PER_VIDEO
STEPS: dict[str, Callable[[str, int, int], Any]] = {}
NESTED = ("width", "height", "fps", "duration", "grayscale", "psnr")  # Scores that a scan leaves in a row of videos.


def step(name: str) -> Callable[[Callable[[str, int, int], Any]], Callable[[str, int, int], Any]]:
    """A step by its name: it gets the workspace, the number of clips and the number of small parts."""

    def add(function: Callable[[str, int, int], Any]) -> Callable[[str, int, int], Any]:
        STEPS[name] = function
        return function

    return add


def make(folder: str, rows: int) -> None:
    """The workspace: inputs, videos with nested clips, clips, captions, exports and a log of runs."""
    workspace, recipe = Workspace(folder), load_recipe("embedded")
    workspace.save_recipe(recipe)
    rng = np.random.default_rng(0)
    size = 50_000
    for start in range(0, rows, size):
        table, kept = stats_million._clips(rng, recipe, start, min(size, rows - start))
        protocol = pa.array([recipe.clip_protocol] * table.num_rows)
        table = table.append_column("clip_protocol", protocol)
        stale = pa.array(np.arange(table.num_rows) // PER_VIDEO % 10 == 0)  # Clips that are to be scored anew.
        at = table.column_names.index("protocols")
        other = pc.replace_substring(table["protocols"], '"artifacts":"', '"artifacts":"old-')
        table = table.set_column(at, "protocols", pc.if_else(stale, other, table["protocols"]))
        videos = nested(table, recipe)
        workspace.clips.append(table)
        captions = stats_million._captions(rng, recipe, table, kept)
        workspace.captions.append(captions)
        workspace.videos.append(videos)
        known = videos.select(["video_id", "uri"])
        new = start // PER_VIDEO // 9 + np.arange(videos.num_rows // 9)
        uris = pa.array([f"s3://corpus/more/{i:08d}.mp4" for i in new.tolist()])
        more = pa.table({"video_id": [ids.video_id(uri) for uri in uris.to_pylist()], "uri": uris})
        workspace.inputs.append(pa.concat_tables([known.cast(more.schema), more]))
        workspace.exports.append(exported(captions.slice(0, captions.num_rows // 2), recipe))
    for manifest in (workspace.inputs, workspace.videos, workspace.clips, workspace.captions, workspace.exports):
        manifest.compact()


def nested(clips: pa.Table, recipe: Recipe) -> pa.Table:
    """The videos of clips, these nested in them with the scores of a scan."""
    n = clips.num_rows
    scores = []
    for name in NESTED:
        detail = clips[f"{name}_detail"].combine_chunks()
        protocol = pa.array([recipe.built[name].protocol] * n)
        scores.append((pa.array([name] * n), clips[name].combine_chunks(), detail, protocol))
    order = np.arange(n * len(NESTED)).reshape(len(NESTED), n).T.ravel()
    columns = [pa.concat_arrays([one[i] for one in scores]).take(pa.array(order)) for i in range(4)]
    structs = pa.StructArray.from_arrays(columns, fields=list(schemas.SCORE))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * len(NESTED)), structs)
    inner = []
    for field in schemas.CLIP_IN_VIDEO:
        if field.name == "scores":
            inner.append(lists)
        elif field.name in clips.column_names:
            inner.append(clips[field.name].combine_chunks().cast(field.type))
        else:
            inner.append(pa.nulls(n, field.type))
    rows = pa.StructArray.from_arrays(inner, fields=list(schemas.CLIP_IN_VIDEO))
    starts = np.append(np.arange(0, n, PER_VIDEO), n).astype(np.int32)
    first = clips.take(pa.array(starts[:-1]))
    return pa.table(
        {name: first[name] for name in ("video_id", "uri", "scan_id", "clip_protocol")}
        | {
            "status": pa.array(["ok"] * first.num_rows),
            "duration": pa.array([15.0 * PER_VIDEO] * first.num_rows),
            "clips": pa.ListArray.from_arrays(pa.array(starts), rows),
        }
    )


def exported(captions: pa.Table, recipe: Recipe) -> pa.Table:
    """Rows of the exports manifest for captioned clips."""
    n = captions.num_rows
    paths = pa.array([f"encoded/{clip[:2]}/{clip}.mp4" for clip in captions["clip_id"].to_pylist()])
    return pa.table(
        {
            "clip_id": captions["clip_id"],
            "scan_id": captions["scan_id"],
            "status": pa.array(["ok"] * n),
            "path": paths,
            "num_frames": pa.array([450] * n),
            "width": pa.array([1280] * n),
            "height": pa.array([720] * n),
            "fps": pa.array([30.0] * n),
            "pace": pa.array([1.0] * n),
            "bytes": pa.array([2_000_000] * n),
            "sha256": captions["clip_id"],
            "export_protocol": pa.array([recipe.export_protocol] * n),
        }
    )


def place(folder: str) -> tuple[Workspace, Recipe]:
    """The workspace as a run opens it, and its recipe."""
    return Workspace(folder, remembers=True), load_recipe("embedded")


def small_parts(folder: str, parts: int) -> Manifest:
    """A manifest of videos in parts of one batch each."""
    source = Workspace(folder).videos.read().slice(0, min(parts, 2000) * BATCH)
    manifest = schemas.videos(f"{folder}-parts")
    at = source.column_names.index("video_id")
    for part in range(parts):
        rows = source.slice(part % (source.num_rows // BATCH) * BATCH, BATCH)
        names = pa.array([f"{part:08d}{i:024d}" for i in range(rows.num_rows)])
        manifest.append(rows.set_column(at, source.schema.field("video_id"), names))
    return manifest


@step("append")
def append(folder: str, rows: int, parts: int) -> Any:
    """So many parts of one batch; the time of the first and of the last hundred appends, and the parts left."""
    source = Workspace(folder).videos.read().slice(0, BATCH)
    shutil.rmtree(f"{folder}-parts", ignore_errors=True)
    manifest = small_parts(folder, parts - 100)
    at, took = source.column_names.index("video_id"), []
    for which in range(100):
        names = pa.array([f"{which:04d}last{i:024d}" for i in range(source.num_rows)])
        began = time.process_time()
        manifest.append(source.set_column(at, source.schema.field("video_id"), names))
        took.append(time.process_time() - began)
    return f"an append into {parts} parts: {sorted(took)[50] * 1e3:.1f} ms of CPU"


@step("compact")
def compact(folder: str, rows: int, parts: int) -> Any:
    """The parts that `append` made become few."""
    manifest = schemas.videos(f"{folder}-parts")
    before = len(manifest.parts())
    manifest.compact()
    return f"{before} parts → {len(manifest.parts())}"


@step("plan scan")
def plan_scan(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.stages import scan

    job = scan.plan(*place(folder), all_scores=False, retry_errors=False)
    return job and f"{job.rows} videos in {len(job.batches)} batches"


@step("plan score")
def plan_score(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.stages import score

    job = score.plan(*place(folder), all_scores=False)
    return job and f"{job.rows} clips in {len(job.batches)} batches"


@step("plan caption")
def plan_caption(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.stages import caption

    job = caption.plan(*place(folder), retry_errors=False)
    return job and f"{job.rows} clips in {len(job.batches)} batches"


@step("plan export")
def plan_export(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.stages import export

    job = export.plan(*place(folder), retry_errors=False)
    return job and f"{job.rows} clips in {len(job.batches)} batches"


@step("sync nothing")
def sync_nothing(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.clip_table import sync_clips

    sync_clips(*place(folder))


@step("tiers")
def tiers(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.looking.tiering import retier
    from longtake.curation.recipe import parse_recipe

    recipe = load_recipe("embedded")
    plain = recipe.model_dump(mode="json")
    plain["tiers"]["pretrain"]["flow"] = ">= 30"
    changes = retier(Workspace(folder), recipe, parse_recipe(plain, source="the benchmark")).tiers
    return "; ".join(f"{change.tier} {change.before} → {change.after}" for change in changes)


@step("stats")
def stats(folder: str, rows: int, parts: int) -> Any:
    from longtake.curation.looking.stats import statistics

    found = statistics(Workspace(folder), load_recipe("embedded")).summary
    return f"{found['clips']['total']} clips, {found['tiers']['pretrain']['kept']} kept"


@step("sync all")
def sync_all(folder: str, rows: int, parts: int) -> Any:
    """The whole of clips made anew out of videos, in a copy of the workspace."""
    from longtake.curation.clip_table import sync_clips

    shutil.rmtree(f"{folder}-sync", ignore_errors=True)
    shutil.copytree(f"{folder}/videos", f"{folder}-sync/videos")
    workspace, recipe = place(f"{folder}-sync")
    sync_clips(workspace, recipe)
    return f"{workspace.clips.rows()} clips"


def beside(folder: str, name: str, own: str | None = None) -> str:
    """Another workspace with the same manifests, for a step that writes. own: the manifest that it writes to."""
    other = f"{folder}-{name}"
    shutil.rmtree(other, ignore_errors=True)
    Path(other).mkdir()
    for entry in Path(folder).iterdir():
        if entry.name == own:
            shutil.copytree(entry, Path(other, entry.name))
        elif entry.name != "dataset":
            Path(other, entry.name).symlink_to(entry)
    return other


@step("copies")
def copies(folder: str, rows: int, parts: int) -> Any:
    """All captions compared anew: the end of the stage caption."""
    from longtake.curation.stages import copies as module

    changed = module.finish(*place(beside(folder, "copies", "captions")))
    return f"{changed} captions written anew"


@step("dataset")
def dataset(folder: str, rows: int, parts: int) -> Any:
    """The datasets of all tiers made anew: the end of the stage export. Clips are not linked: none is encoded here."""
    from unittest.mock import patch

    from longtake.curation.stages import datasets
    from longtake.manifests.folder import Folder

    def linked(self: Folder, source: Folder, name: str, target: str) -> None: ...

    # A folder that cannot change places looks for no clip beside it.
    with patch.object(Folder, "link", linked), patch.object(datasets, "changes_at_once", lambda place: False):
        counts = datasets.finish(*place(beside(folder, "dataset")))
    return "; ".join(f"{tier} {count} clips" for tier, count in counts.items())


@step("report")
def report(folder: str, rows: int, parts: int) -> Any:
    """The columns that the report and the studio hold."""
    from longtake.curation.looking.report.columns import Columns

    columns = Columns.load(Workspace(folder), load_recipe("embedded"))
    return f"{columns.scores.table.num_rows} clips"


def of_this_process() -> dict[str, float]:
    """CPU seconds, the peak of memory in MiB, and MiB read and written, of this process so far."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {
        "cpu": time.process_time(),
        "peak": peak / 1024,
        "read": int(io["rchar"]) / 2**20,
        "written": int(io["wchar"]) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds, peak memory and bytes of the store and of each plan.")
    parser.add_argument("--rows", type=int, default=200_000, help="clips")
    parser.add_argument("--parts", type=int, default=0, help="small parts that are appended and compacted; 0: a tenth")
    parser.add_argument("--keep", type=Path, help="make the workspace here, and use it again if it is there")
    parser.add_argument("--only", nargs="*", help="these steps")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    parts = options.parts or max(200, min(20_000, options.rows // 40))
    if options.step:
        said = STEPS[options.step](str(options.keep), options.rows, parts)
        print(json.dumps({**of_this_process(), "said": said or ""}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = str((options.keep or Path(scratch) / "workspace").absolute())
        if not Path(folder, "clips").exists():
            began = time.monotonic()
            make(folder, options.rows)
            print(f"workspace of {options.rows} clips made in {time.monotonic() - began:.0f} s")
        print(f"{'step':14} {'CPU s':>8} {'peak MiB':>9} {'read MiB':>9} {'wrote MiB':>9}")
        for name in options.only or STEPS:
            command = [sys.executable, "-m", "benchmarks.store", "--step", name, "--keep", folder]
            command += ["--rows", str(options.rows), "--parts", str(parts)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
                print(f"{name:14} {lines[-1]}", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            numbers = f"{found['cpu']:8.1f} {found['peak']:9.0f} {found['read']:9.0f} {found['written']:9.0f}"
            print(f"{name:14} {numbers}  {found['said']}", flush=True)


if __name__ == "__main__":
    main()
