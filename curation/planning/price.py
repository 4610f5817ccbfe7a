"""The price of a run, before it: a sample of the videos goes through the same stages, and its cost is held up to all of them."""

from __future__ import annotations

import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from longtake.captioning.registry import make_captioner
from longtake.curation.access import Access
from longtake.curation.clip_table import clip_scores
from longtake.curation.errors import SetupError
from longtake.curation.gathered import Gathered
from longtake.curation.growth import add_inputs
from longtake.curation.pipeline import RunResult, Watcher, run
from longtake.curation.planning import work
from longtake.curation.planning.estimate import Estimate, Floats, draw, draws, estimate, money
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import decide
from longtake.manifests.folder import local_path
from longtake.manifests.frames import frames_name

SHARE, CLIPS = 0.01, 30  # A sample has so large a share of the videos, and so many clips, at least.
FIRST = 20  # Videos. How many clips a video gives is not known before; most give more than one.
MOST_VIDEOS = 400  # The sample grows no further for its interval's sake, however wide that is.
WIDE = 3.0  # An interval is wide whose upper end is more than so many times its lower one: then the sample grows.
GROWS = 1.5
_NONE_SEEN = 3.0  # If none of n clips is kept, then with 95 % certainty fewer than 3 / n of all clips are.

# Quantity → its unit, and the size of a measured unit in it. The quantities are printed in this order.
QUANTITIES: dict[str, tuple[str, float]] = {
    "CPU": ("hours", 1 / 3600),
    "GPU": ("hours", 1 / 3600),
    "requests": ("", 1.0),
    "prompt tokens": ("thousand", 1e-3),
    "completion tokens": ("thousand", 1e-3),
    "written": ("GB", 1e-9),
    "kept": ("hours", 1 / 3600),
    "kept clips": ("", 1.0),
}
# Name of a price → its quantity, and how many measured units of it the price is for.
PRICED: dict[str, tuple[str, float]] = {
    "cpu-hour": ("CPU", 3600.0),
    "gpu-hour": ("GPU", 3600.0),
    "request": ("requests", 1.0),
    "million-prompt-tokens": ("prompt tokens", 1e6),
    "million-completion-tokens": ("completion tokens", 1e6),
    "gb": ("written", 1e9),
}


@dataclass(frozen=True, slots=True)
class Price:
    """What a run will take. videos, sampled: how many there are, and were looked at; clips, kept: of the sample. quantities:
    name → its estimate, in the unit of QUANTITIES; None where it was not measured. money: None without prices. unit_costs,
    notes: sentences."""

    videos: int
    sampled: int
    clips: int
    kept: int
    quantities: dict[str, Estimate | None]
    money: Estimate | None
    unit_costs: list[str]
    notes: list[str]


def price(
    gathered: Gathered,
    recipe: Recipe,
    options: Options,
    watcher: Watcher,
    prices: Mapping[str, float] | None = None,
    *,
    ask: bool = False,
    seed: int = 0,
    access: Access | None = None,
) -> Price:
    """Sample, run, estimate. options: how to run; its stages do not count. prices: of one of PRICED. ask: send the requests of
    the sample's captions, too, where the captioner sends any. access: what lets this command read the videos. Raises
    SetupError, also where nothing can be sampled."""
    table = gathered.table
    if not table.num_rows:
        raise SetupError("nothing to plan: no videos were given")
    each, costs = _requests(recipe), False
    if not ask and sum(each) > 0:
        recipe, costs = _without_questions(recipe), True
    stages = ("scan", "score") if costs and each[1] else ("scan", "score", "caption", "export")
    notes = []
    if table.num_rows <= work.MOST:
        sizes = work.expected_work(table, recipe, access or Access())
    else:
        sizes = [_bytes(uri) for uri in table["uri"].to_pylist()]
        notes.append(
            f"There are more than {work.MOST:,} videos, so no header is read: the sample is drawn by the sizes of the files."
        )
    with tempfile.TemporaryDirectory(prefix="longtake-plan-") as folder:
        workspace = Workspace(folder, remembers=True)
        looked = _Looked(workspace, recipe, replace(options, stages=stages), watcher, access)
        count = max(math.ceil(SHARE * table.num_rows), min(FIRST, table.num_rows))
        while True:
            sampled = draw(sizes, count, seed)
            values = looked.at(table.take(pa.array(sampled.chosen)))
            totals = draws(values, sampled, seed)
            clips = int(values[:, _CLIPS].sum())
            if count >= min(table.num_rows, MOST_VIDEOS) or (clips >= CLIPS and not _too_wide(totals)):
                break
            count = min(table.num_rows, math.ceil(count * GROWS))
    by_name = {name: totals[:, i] for i, name in enumerate(QUANTITIES)}
    quantities: dict[str, Estimate | None] = {
        name: estimate(by_name[name]).times(unit) for name, (_, unit) in QUANTITIES.items()
    }
    if costs:
        living = float(values[:, _CLIPS + 1].sum())
        by_name["requests"] = sum(each) * by_name["kept clips"]
        quantities |= {"requests": estimate(by_name["requests"]), "prompt tokens": None, "completion tokens": None}
        notes.append(
            f"No model was asked. Each clip that the scores let through takes at least {sum(each)} requests ({each[0]} for "
            f"questions, {each[1]} for captions). Tokens and encoding were not measured, and gates on answers and captions "
            f"keep fewer clips. `--ask` sends the requests of the sample's {living:.0f} clips, and measures them."
        )
    if not values[:, _KEPT].any() and len(sampled.chosen) < table.num_rows:
        hours = float(totals[:, _CLIPS + 2].mean()) / 3600
        most = min(1.0, _NONE_SEEN / max(clips, 1))
        quantities["kept"] = Estimate(0.0, 0.0, most * hours)
        quantities["kept clips"] = Estimate(0.0, 0.0, most * float(totals[:, _CLIPS].mean()))
        notes.append(f"No clip of the sample is kept: with 95 % certainty, fewer than {most:.1%} of all are.")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        notes.append("This machine has no GPU: what models cost is in the CPU-hours.")
    counted = {name: amount / PRICED[name][1] for name, amount in (prices or {}).items()}
    totalled = money(by_name, _summed(counted)) if counted else None
    return Price(
        table.num_rows,
        len(sampled.chosen),
        clips,
        int(values[:, list(QUANTITIES).index("kept clips")].sum()),
        quantities,
        totalled,
        looked.unit_costs(),
        notes,
    )


def _requests(recipe: Recipe) -> tuple[int, int]:
    """Requests that a clip takes at least: for the questions of the recipe's filters, and for its captions."""
    captioner = make_captioner(recipe.captioning.captioner, recipe.captioning.settings)
    return int(any(filter_.asks for filter_ in recipe.built.values())), captioner.least_requests


def _without_questions(recipe: Recipe) -> Recipe:
    """The recipe without filters that ask a model, and without their gates."""
    asks = {name for name, filter_ in recipe.built.items() if filter_.asks}
    plain = recipe.model_dump(mode="json")
    plain["filters"] = {name: settings for name, settings in plain["filters"].items() if name not in asks}
    plain["tiers"] = {
        tier: {name: gate for name, gate in gates.items() if name not in asks} for tier, gates in plain["tiers"].items()
    }
    return parse_recipe(plain, source="the recipe of this plan", check_captioner=False)


def _summed(prices: Mapping[str, float]) -> dict[str, float]:
    """Quantity → the price of one measured unit."""
    sums: dict[str, float] = {}
    for name, amount in prices.items():
        quantity = PRICED[name][0]
        sums[quantity] = sums.get(quantity, 0.0) + amount
    return sums


_CLIPS = len(QUANTITIES)  # Columns of values beyond QUANTITIES: clips, living ones, and their seconds.
_KEPT = list(QUANTITIES).index("kept")


def _too_wide(totals: Floats) -> bool:
    """Whether the sample says too little of what the CPU does, or of what is kept, if any is."""
    for column in (0, _KEPT):
        estimated = estimate(totals[:, column])
        if estimated.expected > 0 and estimated.high > WIDE * estimated.low:
            return True
    return False


@dataclass
class _Looked:
    """The videos that were looked at so far, in a workspace of their own."""

    workspace: Workspace
    recipe: Recipe
    options: Options
    watcher: Watcher
    access: Access | None = None

    def __post_init__(self) -> None:
        # CPU seconds, busy seconds, rows, requests, prompt tokens, completion tokens.
        self.stages: dict[str, list[float]] = defaultdict(lambda: [0.0] * 6)

    def at(self, videos: pa.Table) -> Floats:
        """What each of these videos costs and gives [videos, quantities], those that are known looked up."""
        add_inputs(self.workspace, [videos])
        self._add(run(self.workspace, self.recipe, [], self.options, self.watcher, access=self.access))
        return self._values(videos["video_id"].to_pylist())

    def _add(self, result: RunResult) -> None:
        for name, report in result.stages.items():
            spent = self.stages[name]
            spent[0] += report.cpu_seconds
            spent[1] += report.busy_seconds
            spent[2] += report.rows
            spent[3] += report.requests
            spent[4] += report.prompt_tokens
            spent[5] += report.completion_tokens

    def _each(self, stage: str, which: int = 0) -> float:
        """CPU seconds of one row of a stage, or another of what is counted of stages."""
        return self.stages[stage][which] / self.stages[stage][2] if self.stages[stage][2] else 0.0

    def _values(self, ids: Sequence[str]) -> Floats:
        at = {video: i for i, video in enumerate(ids)}
        values = np.zeros((len(ids), _CLIPS + 3))
        column = {name: i for i, name in enumerate(QUANTITIES)}
        for row in self.workspace.videos.read(["video_id", "cpu_seconds"]).to_pylist():
            values[at[row["video_id"]], column["CPU"]] += row["cpu_seconds"] or 0.0
        on_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
        scores = clip_scores(self.workspace, self.recipe, ["video_id", "start", "end", "has_frames"])
        living = np.zeros(scores.table.num_rows, bool)
        for gates in self.recipe.tiers.values():
            living |= decide(scores, gates).may_keep
        of_clip: dict[str, int] = {}
        scored = "score" in self.stages and self.stages["score"][2] > 0
        answered = [column["requests"], column["prompt tokens"], column["completion tokens"]]
        for row, lives in zip(scores.table.to_pylist(), living.tolist(), strict=True):
            i = of_clip[row["clip_id"]] = at[row["video_id"]]
            seconds = row["end"] - row["start"]
            values[i, _CLIPS:] += (1.0, lives, seconds)
            if scored and row["has_frames"]:
                values[i, column["CPU"]] += self._each("score")
                values[i, column["GPU"]] += self._each("score", 1) if on_gpu else 0.0
                values[i, answered] += [self._each("score", which) for which in (3, 4, 5)]
            if lives and "export" not in self.options.stages:
                values[i, [_KEPT, column["kept clips"]]] += (seconds, 1.0)
        tokens = ["requests", "prompt_tokens", "completion_tokens"]
        for row in self.workspace.captions.read(["clip_id", *tokens]).to_pylist():
            i = of_clip[row["clip_id"]]
            values[i, column["CPU"]] += self._each("caption")
            for name in tokens:
                values[i, column[name.replace("_", " ")]] += row[name] or 0
        for row in self.workspace.exports.read(["clip_id", "status", "bytes", "num_frames", "fps"]).to_pylist():
            i = of_clip[row["clip_id"]]
            values[i, column["CPU"]] += self._each("export")
            if row["status"] == "ok":
                values[i, column["written"]] += row["bytes"]
                values[i, [_KEPT, column["kept clips"]]] += (row["num_frames"] / row["fps"], 1.0)
        for video, i in at.items():
            values[i, column["written"]] += _size(self.workspace.folder.path / frames_name(video))
        rows = sum(_size(path) for path in self.workspace.folder.path.glob("*/*.parquet"))
        values[:, column["written"]] += rows / max(len(ids), 1)
        return values

    def unit_costs(self) -> list[str]:
        """What one row of each stage cost, in sentences."""
        what = {"scan": "a video", "score": "a clip", "caption": "a clip", "export": "a clip"}
        return [
            f"{name}: {self._each(name):.3g} CPU-s for {what.get(name, 'a row')} ({spent[2]:.0f} measured)"
            for name, spent in self.stages.items()
            if spent[2]
        ]


def _bytes(uri: str) -> int:
    path = local_path(uri)
    try:
        return os.stat(path).st_size if path else 0
    except (OSError, ValueError):
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def parse_prices(texts: Sequence[str], fail: Callable[[str], Exception]) -> dict[str, float]:
    """`cpu-hour=0.04` → what it is of, and how much. fail: makes the exception that is raised for what is no price."""
    prices = {}
    for text in texts:
        name, _, amount = text.partition("=")
        try:
            prices[name] = float(amount)
        except ValueError:
            prices[name] = math.nan
        if name not in PRICED or not (math.isfinite(prices[name]) and prices[name] >= 0):
            raise fail(f"--price {text!r}: write NAME=AMOUNT, NAME one of {', '.join(PRICED)}")
    return prices
