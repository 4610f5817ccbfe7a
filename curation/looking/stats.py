"""What a workspace holds, in numbers: the funnel of each tier, quantiles, errors, near misses, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_scores, written_captions
from longtake.curation.recipe import Recipe
from longtake.curation.stages.stage import STAGES
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import Alone, ClipScores, TierResult, Verdict, decide
from longtake.manifests.arrow import from_numpy
from longtake.manifests.store import rows_in

Floats = npt.NDArray[np.float64]
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A clip that one gate fails and no other. excess: how far outside of the gate its score is. alone: whether every other
    gate passed it, or only those did that have a score of it; no_score: the gates that have none."""

    clip_id: str
    tiers: tuple[str, ...]
    gate: str
    score: float
    excess: float
    alone: Alone
    no_score: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything `longtake stats` shows. summary: the contract of its JSON (design, section 12), and some more.
    funnels: by tier, see `funnel`. quantiles: by score, at QUANTILES, None where no clip has it."""

    summary: dict[str, Any]
    funnels: dict[str, list[dict[str, Any]]]
    quantiles: dict[str, list[float | None]]
    near_misses: list[NearMiss]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            **self.summary,
            "funnels": self.funnels,
            "quantiles": {"at": QUANTILES, "scores": self.quantiles},
            "near_misses": [asdict(miss) for miss in self.near_misses],
        }


def statistics(workspace: Workspace, recipe: Recipe, near: int = 10) -> Statistics:
    """Read the manifests and count. near: how many near misses to name, see `near_misses`."""
    encoded = ["status", "error_kind", "host"]
    videos = workspace.videos.read([*encoded, "tone_mapped", "duration"], encoded=encoded)
    scores = clip_scores(workspace, recipe, ["host", "start", "end"])
    clips = scores.table
    seconds = clip_seconds(clips)
    with ThreadPoolExecutor() as threads:  # Arrow leaves the lock to others meanwhile
        spread = dict(zip(recipe.filters, threads.map(partial(quantiles, scores), recipe.filters), strict=True))
    results = {tier: decide(scores, gates) for tier, gates in recipe.tiers.items()}
    clip_status = counted(clips["status"])
    summary = {
        "recipe": recipe.name,
        "videos": {
            "total": videos.num_rows,
            "ok": counted(videos["status"]).get("ok", 0),
            "error": counted(videos["status"]).get("error", 0),
            "error_kinds": counted(videos["error_kind"].drop_null()),
            "tone_mapped": pc.sum(videos["tone_mapped"]).as_py() or 0,
        },
        "clips": {
            "total": clips.num_rows,
            "ok": clip_status.get("ok", 0),
            "error": clip_status.get("error", 0),
            "error_kinds": counted(clips["error_kind"].drop_null()),
        },
        "error_hosts": {"videos": _hosts_of_errors(videos), "clips": _hosts_of_errors(clips)},
        "captions": caption_counts(workspace, recipe),
        "tiers": {tier: tier_counts(result) for tier, result in results.items()},
        "hours": {
            "videos": (pc.sum(videos["duration"]).as_py() or 0.0) / 3600,
            "clips": float(seconds.sum()) / 3600,
            "tiers": {tier: hours_by_verdict(result, seconds) for tier, result in results.items()},
            "left": {tier: [row["hours left"] for row in funnel(result, seconds)] for tier, result in results.items()},
        },
        "stages": stage_runs(workspace),
        "seconds_left_out": seconds_left_out(workspace),
        "lengths": length_notes(recipe, seconds_left_out(workspace), encoded_clips(workspace, recipe)),
        "other_spacing": {name: _count(scores.settled(name)) for name in recipe.filters if scores.settled(name).any()},
        "not_applied": recipe.not_applied,
        "unchecked": scores.unchecked,
    }
    return Statistics(
        summary,
        {tier: funnel(result) for tier, result in results.items()},
        spread,
        near_misses(clips, results, near),
    )


def seconds_left_out(workspace: Workspace) -> float:
    """Seconds at the ends of shots that gave clips and were longer than these, over all videos."""
    return float(pc.sum(workspace.videos.read(["seconds_left_out"])["seconds_left_out"]).as_py() or 0.0)


def encoded_clips(workspace: Workspace, recipe: Recipe) -> pa.Table:
    """Rows of the exports manifest of clips that are encoded as the recipe says: clip_id, pace, seconds_left_out, sha256."""
    names = ["clip_id", "status", "export_protocol", "pace", "seconds_left_out", "sha256"]
    table = workspace.exports.read(names)
    ours = pc.and_(pc.equal(table["status"], "ok"), pc.equal(table["export_protocol"], recipe.export_protocol))
    return table.filter(ours)


def length_notes(recipe: Recipe, left_out: float, encoded: pa.Table) -> list[str]:
    """What became of the rest of long shots and clips, in sentences; none where nothing is left out or sped up. left_out: see
    `seconds_left_out`. encoded: with the columns pace and seconds_left_out."""
    notes = []
    if left_out >= 0.05:
        notes.append(
            f"Left out at the ends of shots that are longer than their clips: {_clock(left_out)} (splitting.longer: "
            f"{recipe.splitting.longer}; by video in the column seconds_left_out)."
        )
    fast = encoded.filter(pc.greater(encoded["pace"], 1.0))
    if fast.num_rows:
        notes.append(
            f"Shown faster than they were filmed: {fast.num_rows} of {encoded.num_rows} clips, up to "
            f"{pc.max(fast['pace']).as_py():.3g} times (splitting.longer: faster; by clip in the column pace)."
        )
    cut = encoded.filter(pc.greater(encoded["seconds_left_out"], 0.05))
    if cut.num_rows:
        frames = recipe.export.frames
        notes.append(
            f"Longer than {frames} frames, so that their end is left out: {cut.num_rows} of {encoded.num_rows} clips, "
            f"{_clock(pc.sum(cut['seconds_left_out']).as_py())} together, though their captions tell of all of it "
            "(`splitting.longer: faster` shows them whole, faster)."
        )
    return notes


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _hosts_of_errors(table: pa.Table) -> dict[str, int]:
    """Machine → how many rows ended in an error there, of those that tell."""
    return counted(table["host"].filter(pc.equal(table["status"], "error")).drop_null())


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """Value → how often."""
    return {str(row["values"]): int(row["counts"]) for row in pc.value_counts(column).to_pylist()}


def caption_counts(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    """Captions by the recipe's captioner: their status, their cost, and how many have faults (`captioning.quality`)."""
    numbers = ["requests", "prompt_tokens", "completion_tokens"]
    faults = ["outside_band", "other_language", "lead_ins", "list_markers", "echoes", "speculations", "moves_wrong"]
    table, _ = written_captions(workspace, recipe, ["status", *numbers, *faults])
    return {
        "total": table.num_rows,
        "status": counted(table["status"]),
        **{name: pc.sum(table[name].cast("int64"), min_count=0).as_py() for name in numbers},
        "faults": {name: pc.sum(pc.greater(table[name].cast("int64"), 0), min_count=0).as_py() for name in faults},
    }


def tier_counts(result: TierResult) -> dict[str, Any]:
    """Verdicts, and each gate by itself. An errored clip counts in none of the gates. uncertain: of those passed or failed, the
    clips whose score lies nearer to an end of the gate than its standard error. only_failure: clips that this gate
    failed and every other passed; only_failure_so_far: that it failed and no other did, but some other has no score."""
    by_one, so_far = result.tally.by_one, result.tally.by_one_so_far
    return {
        "kept": _count(result.verdicts == Verdict.KEPT),
        "rejected": _count(result.verdicts == Verdict.REJECTED),
        "error": _count(result.verdicts == Verdict.ERROR),
        "undecided": _count(result.verdicts == Verdict.UNDECIDED),
        "gates": {
            name: {
                "range": str(gate.gate),
                "passed": _count(gate.passed),
                "failed": _count(gate.failed),
                "missing": _count(gate.missing),
                "only_failure": _count(gate.failed & by_one),
                "only_failure_so_far": _count(gate.failed & so_far),
                "uncertain": _count(gate.uncertain),
            }
            for name, gate in result.gates.items()
        },
    }


def clip_seconds(clips: pa.Table) -> Floats:
    """The length of each clip [clips], seconds. clips: with start and end."""
    return np.asarray(pc.subtract(clips["end"], clips["start"]).to_numpy(), np.float64)


def hours_by_verdict(result: TierResult, seconds: Floats) -> dict[str, float]:
    """Hours of the clips of each verdict; by its name as `tier_counts` has it."""
    return {
        verdict.name.lower(): float(seconds[result.verdicts == verdict].sum()) / 3600
        for verdict in (Verdict.KEPT, Verdict.REJECTED, Verdict.ERROR, Verdict.UNDECIDED)
    }


def hours(seconds: float) -> str:
    """A length as hours, in words: with two decimals, or two digits where there is less than a hundredth."""
    many = seconds / 3600
    return f"{many:,.0f} h" if many >= 100 else f"{many:.2f} h" if many >= 0.01 or not many else f"{many:.2g} h"


def funnel(result: TierResult, seconds: Floats | None = None) -> list[dict[str, Any]]:
    """Gate by gate in order: how many clips come to it (not rejected before), fall at it, and are left. `missing` are
    those left that it has no score for. seconds [clips]: their lengths; then also how many hours are left."""
    left = result.verdicts != Verdict.ERROR
    rows: list[dict[str, Any]] = []
    for name, gate in result.gates.items():
        falls = left & gate.failed
        rows.append(
            {
                "gate": name,
                "range": str(gate.gate),
                "reach it": _count(left),
                "fall at it": _count(falls),
                "no score": _count(left & gate.missing),
                "left": _count(left & ~falls),
            }
            | ({} if seconds is None else {"hours left": float(seconds[left & ~falls].sum()) / 3600})
        )
        left = left & ~falls
    return rows


def quantiles(scores: ClipScores, name: str) -> list[float | None]:
    """QUANTILES of a score over the clips that have it."""
    low, _, bound = scores.span(name)
    known = low[~np.isnan(low) & ~bound]
    if not known.size:
        return [None] * len(QUANTILES)
    found: list[float | None] = pc.quantile(from_numpy(known), q=list(QUANTILES)).to_pylist()  # np.quantile: numpy.ma
    return found


def near_misses(clips: pa.Table, results: Mapping[str, TierResult], most: int) -> list[NearMiss]:
    """Clips that a single gate fails. First those that every other gate passed, then those that some other gate has no
    score of; of each, the closest first, measured by the spread of that gate's scores."""
    found: list[NearMiss] = []
    for alone in (Alone.YES, Alone.SO_FAR):
        found += _near_misses(clips, results, alone, most - len(found))
    return found


_Miss = tuple[int, str, float, tuple[str, ...]]  # row, gate, excess, gates without a score


def _near_misses(clips: pa.Table, results: Mapping[str, TierResult], alone: Alone, most: int) -> list[NearMiss]:
    tiers: dict[_Miss, list[str]] = {}
    found: dict[_Miss, tuple[float, float]] = {}
    spreads: dict[str, float] = {}
    for tier, result in results.items() if most > 0 else ():
        by_one = result.tally.by_one if alone == Alone.YES else result.tally.by_one_so_far
        for name, gate in result.gates.items():
            at = np.flatnonzero(gate.failed & by_one)
            if not at.size:
                continue
            score, excess = gate.outside(at)
            if at.size > most:
                closest = np.argpartition(np.abs(excess), most - 1)[:most]
                at, score, excess = at[closest], score[closest], excess[closest]
            if name not in spreads:
                spreads[name] = float(np.std(gate.low[gate.passed | gate.failed])) or 1.0
            for row, value, over in zip(at.tolist(), score.tolist(), excess.tolist(), strict=True):
                key = row, name, over, result.missing(row)
                tiers.setdefault(key, []).append(tier)
                found[key] = abs(over) / spreads[name], value
    order = sorted(found, key=lambda key: (found[key][0], key))[:most]
    ids = clips["clip_id"].take(pa.array([key[0] for key in order], pa.int64())).to_pylist()
    return [
        NearMiss(clip_id, tuple(tiers[key]), key[1], found[key][1], key[2], alone, key[3])
        for clip_id, key in zip(ids, order, strict=True)
    ]


def stage_runs(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Each stage's last run; `rows`: what its output holds now, `computed`: what that run added."""
    runs = workspace.runs.read().sort_by("started").to_pylist()
    written = {listed.name: rows_in(workspace.folder / listed.writes) for listed in STAGES}
    stages: dict[str, dict[str, Any]] = {}
    for row in runs:
        stages[row["stage"]] = {
            "rows": written.get(row["stage"], 0),
            "computed": row["computed"],
            "errors": row["errors"],
            "seconds": row["seconds"],
            "per_second": row["computed"] / row["seconds"] if row["computed"] else None,
            "busy_share": row["busy_share"],
            "requests": row["requests"],
            "prompt_tokens": row["prompt_tokens"],
            "completion_tokens": row["completion_tokens"],
            "video_hours": row["video_seconds"] / 3600,
            "cpu_seconds": row["cpu_seconds"],
            "workers": row["workers"],
            "total": _totals([r for r in runs if r["stage"] == row["stage"]]),
        }
    return stages


def _totals(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = ("computed", "seconds", "cpu_seconds")
    return {"runs": len(runs), **{key: sum(run[key] for run in runs) for key in keys}}


def _count(mask: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
