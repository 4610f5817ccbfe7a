"""How often the interval of `longtake plan` holds the truth: `python -m benchmarks.plan WORKSPACE --kept-in WORD`.

A workspace that is scanned tells what each of its videos cost and gave. Ten samples are drawn of it as `plan` draws them, and
grown as it grows them; each interval is held against the total of all videos. Only headers are read. Once for the videos whose
path has the word, since a corpus has to keep clips for this to say anything; once for all; and for larger corpora that are drawn
from these with replacement, so many of them from the first ones, the CPU time of each video scattered by a fifth.
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


# Videos of a drawn corpus, and the share of those that are drawn from videos with the word.
DRAWN = ((500, 1.0), (1000, 1.0), (600, 0.5), (1000, 0.5), (1000, 0.2), (1000, 0.1), (4500, 0.5))


def values_of(workspace: Workspace, word: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expected work of each video, what it cost and gave [videos, NAMES], and whether its path has the word."""
    recipe = workspace.recipe(None)
    videos = workspace.videos.read(["video_id", "uri", "cpu_seconds"]).to_pylist()
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
    has = np.array([word in row["uri"] for row in videos])
    return np.array(expected_work(rows, recipe, Access.load())), values, has


def drawn(has: np.ndarray, count: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of a corpus of `count` videos, a share of which have the word."""
    some = round(share * count)
    return np.concatenate([rng.choice(np.flatnonzero(has), some), rng.choice(np.flatnonzero(~has), count - some)])


def told(name: str, sizes: np.ndarray, values: np.ndarray, samples: int) -> str:
    """One row of a table in Markdown."""
    truth = values.sum(axis=0)
    held, widths, looked = np.zeros(2), [], []
    for seed in range(samples):
        count = max(math.ceil(SHARE * len(sizes)), min(FIRST, len(sizes)))
        while True:
            sampled = draw(sizes.tolist(), count, seed)
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
    cells = [f"{name} | {len(sizes)} | {np.median(looked):.0f}"]
    for i in range(2):
        wide_by = [width[i] for width in widths]
        cells.append(f"{held[i]:.0f}; {np.median(wide_by):.2f}, {max(wide_by):.2f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row per corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace")
    parser.add_argument("--kept-in", required=True, help="a word in the path of the videos that keep clips")
    parser.add_argument("--samples", type=int, default=10)
    arguments = parser.parse_args()
    sizes, values, has = values_of(Workspace(arguments.workspace), arguments.kept_in)
    print(
        "| corpus | videos | sample | CPU: intervals that hold it; upper by lower end (median, most) | kept: the same |"
    )
    print("|---|---|---|---|---|")
    print(told("with the word", sizes[has], values[has], arguments.samples))
    print(told("all", sizes, values, arguments.samples))
    rng = np.random.default_rng(0)
    for count, share in DRAWN:
        rows = drawn(has, count, share, rng)
        scattered = values[rows]
        scattered[:, 0] *= rng.lognormal(0.0, 0.2, count)
        print(told(f"drawn, {share:.0%} with the word", sizes[rows], scattered, arguments.samples), flush=True)


if __name__ == "__main__":
    main()
