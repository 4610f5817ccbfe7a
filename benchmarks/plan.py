"""How often the interval of `longtake plan` holds the truth: `python -m benchmarks.plan WORKSPACE [--only WORD]`.

A workspace that is scanned tells what each of its videos cost and gave. Ten samples are drawn of it as `plan` draws them, and
grown as it grows them; each interval is held against the total of all videos. Only headers are read.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import pyarrow as pa

from longtake.curation.access import Access
from longtake.curation.clip_table import clip_scores
from longtake.curation.planning.estimate import draw, draws, estimate
from longtake.curation.planning.price import CLIPS, FIRST, GROWS, MOST_VIDEOS, SHARE, WIDE
from longtake.curation.planning.work import expected_work
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import decide

NAMES = ("scan CPU-s", "kept s", "clips")


def values_of(workspace: Workspace, only: str) -> tuple[list[float], np.ndarray]:
    """The expected work of each video, and what it cost and gave [videos, NAMES]. only: a word in its path."""
    recipe = workspace.recipe(None)
    videos = [
        row for row in workspace.videos.read(["video_id", "uri", "cpu_seconds"]).to_pylist() if only in row["uri"]
    ]
    at = {row["video_id"]: i for i, row in enumerate(videos)}
    values = np.zeros((len(videos), len(NAMES)))
    values[:, 0] = [row["cpu_seconds"] or 0.0 for row in videos]
    scores = clip_scores(workspace, recipe, ["video_id", "start", "end"])
    kept = np.any([decide(scores, gates).kept for gates in recipe.tiers.values()], axis=0)
    for row, keeps in zip(scores.table.to_pylist(), kept.tolist(), strict=True):
        if row["video_id"] in at:
            values[at[row["video_id"]], 1:] += (keeps * (row["end"] - row["start"]), 1.0)
    inputs = workspace.inputs.read()
    at_input = {video: i for i, video in enumerate(inputs["video_id"].to_pylist())}
    rows = inputs.take(pa.array([at_input[row["video_id"]] for row in videos]))
    return expected_work(rows, recipe, Access.load()), values


def main() -> None:
    """Print one line per quantity."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace")
    parser.add_argument("--only", default="", help="videos whose path has this word")
    parser.add_argument("--samples", type=int, default=10)
    arguments = parser.parse_args()
    sizes, values = values_of(Workspace(arguments.workspace), arguments.only)
    truth = values.sum(axis=0)
    held, widths, looked = np.zeros(2), [], []
    for seed in range(arguments.samples):
        count = max(math.ceil(SHARE * len(sizes)), min(FIRST, len(sizes)))
        while True:
            sampled = draw(sizes, count, seed)
            totals = draws(values[sampled.chosen], sampled, seed)
            found = [estimate(totals[:, i]) for i in range(2)]
            clips = values[sampled.chosen, 2].sum()
            wide = any(one.expected > 0 and one.high > WIDE * one.low for one in found)
            if count >= min(len(sizes), MOST_VIDEOS) or (clips >= CLIPS and not wide):
                break
            count = min(len(sizes), math.ceil(count * GROWS))
        held += [one.low <= total <= one.high for one, total in zip(found, truth, strict=False)]
        widths.append([one.high / max(one.low, 1e-9) for one in found])
        looked.append(len(sampled.chosen))
    print(f"{len(sizes)} videos, {int(truth[2])} clips; samples of {min(looked)} to {max(looked)} videos")
    for i, name in enumerate(NAMES[:2]):
        told = [width[i] for width in widths]
        print(
            f"{name}: {truth[i]:.1f}; {held[i]:.0f} of {arguments.samples} intervals hold it; "
            f"upper by lower end {np.median(told):.2f} (at most {max(told):.2f})"
        )


if __name__ == "__main__":
    main()
