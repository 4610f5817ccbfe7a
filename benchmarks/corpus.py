"""What is measured over the whole corpus: copies and concepts, on simulated clips: `python -m benchmarks.corpus`.

Copies: hashes of five keyframes, one clip in twenty a copy whose hashes have each bit flipped with a known probability. Printed
are CPU seconds and how many of the copies that lie within the bound were found. Concepts: a workspace of clips with embeddings
of 768 values about 500 directions, the end of the stage as it runs there; and again after a tenth of clips came.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time

import numpy as np
import pyarrow as pa

from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages import concepts
from longtake.curation.workspace import Workspace
from longtake.filters.copies import Copies
from longtake.manifests import schemas

KEYFRAMES, SHARE = 5, 0.05
WIDTH, DIRECTIONS = 768, 500
PART = 50_000  # Clips that are made at a time.


def simulated(clips: int, flips: float) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, best clip first, and of which clip each of the last ones is a copy. flips: bits of 64, on average."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, (clips, KEYFRAMES), dtype=np.uint64)
    copies = int(SHARE * clips)
    hashes[-copies:] = hashes[:copies]
    for bit in range(64):
        flipped = random.random((copies, KEYFRAMES)) < flips / 64
        hashes[-copies:] ^= flipped.astype(np.uint64) << np.uint64(bit)
    return hashes, np.arange(copies)


def bench_copies(clips: int, flips: float) -> None:
    hashes, of = simulated(clips, flips)
    known, filter_ = np.ones(hashes.shape, bool), Copies()
    started = time.process_time()
    owner, _ = filter_.kept_instead(hashes, known, np.arange(clips), np.full(clips, -1))
    seconds = time.process_time() - started
    near = np.bitwise_count(hashes[-len(of) :] ^ hashes[of]).mean(axis=1) <= filter_.settings.bits
    found = (owner[-len(of) :] == of) & near
    wrong = int((owner >= 0).sum() - (owner[-len(of) :] == of).sum())
    print(
        f"copies    {clips:9,} clips, {flips:g} bits flipped: {seconds:6.1f} CPU s, found {found.sum():,} of {near.sum():,}, "
        f"wrong {wrong}, peak {peak():,} MiB",
        flush=True,
    )


def recipe(clusters: int) -> Recipe:
    filters = {"aesthetic": {}, "concept": {"clusters": clusters}}
    return parse_recipe({"name": "bench", "filters": filters, "tiers": {"pretrain": {}}}, "the benchmark")


def fill(workspace: Workspace, by: Recipe, start: int, clips: int) -> None:
    """Append clips with embeddings."""
    directions = np.random.default_rng(0).normal(size=(DIRECTIONS, WIDTH))
    protocols = json.dumps({"aesthetic": by.built["aesthetic"].protocol})
    for begin in range(start, start + clips, PART):
        count = min(PART, start + clips - begin)
        random = np.random.default_rng(begin + 1)
        rows = directions[random.integers(DIRECTIONS, size=count)] + random.normal(size=(count, WIDTH))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        flat = pa.array(rows.astype(np.float16).ravel())
        embeddings = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * WIDTH), flat)
        ids = [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in range(begin, begin + count)]
        columns = {
            "clip_id": ids, "video_id": ids, "uri": ids, "start": np.zeros(count), "end": np.full(count, 15.0),
            "status": ["ok"] * count, "has_frames": np.ones(count, bool), "scan_id": ids, "protocols": [protocols] * count,
            "aesthetic": np.full(count, 5.0),
        }  # fmt: skip
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        workspace.clips.append(table.append_column(schemas.EMBEDDING, embeddings))


def bench_concepts(clips: int, clusters: int) -> None:
    by = recipe(clusters)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        fill(workspace, by, 0, clips)
        for what, more in (("all", 0), ("a tenth more", clips // 10), ("nothing new", 0)):
            if more:
                fill(workspace, by, clips, more)
            wall, cpu = time.monotonic(), time.process_time()
            changed = concepts.finish(workspace, by)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            print(
                f"concepts  {clips:9,} clips, {clusters} clusters, {what}: {changed:,} rows, {cpu:.1f} CPU s, {wall:.1f} s, "
                f"peak {peak():,} MiB",
                flush=True,
            )


def peak() -> int:
    """MiB: the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=1_000_000, help="clips for copies; 0: none")
    parser.add_argument("--concepts", type=int, default=200_000, help="clips for concepts; 0: none")
    parser.add_argument("--clusters", type=int, default=256)
    asked = parser.parse_args()
    if asked.concepts:
        bench_concepts(asked.concepts, asked.clusters)
    if asked.copies:
        for flips in (2, 4, 6, 8):
            bench_copies(asked.copies // 10, flips)
        bench_copies(asked.copies, 4)


if __name__ == "__main__":
    main()
