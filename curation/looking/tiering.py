"""Deciding again, without computing anything: other gates on the same scores, and all that is known of one clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import clip_row, clip_scores, score_columns, score_slices
from longtake.curation.looking.stats import clip_seconds
from longtake.curation.recipe import Recipe, RecipeError, differences, stale_scores
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.filters.verdicts import ClipScores, TierResult, Verdict, decide, standard_error_of
from longtake.manifests.arrow import from_numpy
from longtake.manifests.frames import frames_name
from longtake.manifests.parts import steadily


@dataclass(frozen=True, slots=True)
class TierChange:
    """What another recipe does to one tier. undecided: clips that need scores which are not there yet. seconds: of the clips that
    are kept after it."""

    tier: str
    before: int
    after: int
    entering: int
    leaving: int
    undecided: int
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Retiering:
    """A comparison of two recipes over one workspace. stale: filters whose scores have to be measured again."""

    tiers: list[TierChange]
    settings: list[tuple[str, Any, Any]]
    stale: list[str]


def parse_changes(texts: Sequence[str]) -> dict[str, Gate | None]:
    """`pretrain.flow=>=30` → gates by key; `off` drops one. Raises RecipeError."""
    changes: dict[str, Gate | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key.count(".") != 1:
            raise RecipeError(f"--set {text!r}: write TIER.GATE='>= 30', '[20, 180]' or off")
        try:
            changes[key.strip()] = parse_gate(value.strip())
        except ValueError as error:
            raise RecipeError(f"--set {text!r}: {error}") from error
    return changes


def parse_gate(range_: object) -> Gate | None:
    """A gate from its range as `Gate.parse` reads it; None for `off`, which drops a gate. Raises ValueError."""
    if isinstance(range_, str) and range_.strip() == "off":
        return None
    return Gate.parse(range_)


def verdict_table(scores: ClipScores, result: TierResult) -> pa.Table:
    """A row per clip: clip_id, verdict, the gates that failed and by how much, the gates without a score, the error.

    failed, excess, missing: lists in the order of the tier's gates; excess as `Gate.excess` gives it, parallel to failed.
    """
    names = pa.array(list(result.gates), pa.string())
    gates = list(result.gates.values())
    none = np.zeros((scores.table.num_rows, 0), bool)  # A tier may have no gates.
    failed = np.column_stack([none, *(gate.failed for gate in gates)])
    missing = np.column_stack([none, *(gate.missing for gate in gates)])
    rows, at = np.nonzero(failed)
    excess = np.zeros(rows.size)
    for i, gate in enumerate(gates):
        excess[at == i] = gate.outside(rows[at == i])[1]
    words = pa.array([verdict.name.lower() for verdict in sorted(Verdict)])
    error = from_numpy(result.verdicts == Verdict.ERROR)
    null = pa.scalar(None, pa.string())
    return pa.table(
        {
            "clip_id": scores.table["clip_id"],
            "verdict": words.take(from_numpy(result.verdicts)),
            "failed": _lists(failed, names.take(from_numpy(at))),
            "excess": _lists(failed, from_numpy(excess)),
            "missing": _lists(missing, names.take(from_numpy(np.nonzero(missing)[1]))),
            **{name: pc.if_else(error, scores.table[name].cast(pa.string()), null) for name in ("error_kind", "error")},
        }
    )


def _lists(members: npt.NDArray[np.bool_], values: pa.Array) -> pa.Array:
    """`values` as a list per row of `members` [clips, gates], which tells how many each row has."""
    offsets = np.concatenate([[0], np.cumsum(members.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(from_numpy(offsets), values)


def retier(workspace: Workspace, before: Recipe, after: Recipe) -> Retiering:
    """Apply both recipes' tiers to the scores that are there."""
    tiers = list(dict.fromkeys([*before.tiers, *after.tiers]))
    counts = steadily(lambda: _retiered(workspace, before, after, tiers))
    changes = [_change(tier, row) for tier, row in zip(tiers, counts, strict=True)]
    return Retiering(changes, differences(before, after), stale_scores(before, after))


def _change(tier: str, row: npt.NDArray[np.float64]) -> TierChange:
    kept_before, kept_after, enter, leave, undecided = map(int, row[:-1])
    return TierChange(tier, kept_before, kept_after, enter, leave, undecided, float(row[-1]))


def _retiered(workspace: Workspace, before: Recipe, after: Recipe, tiers: Sequence[str]) -> npt.NDArray[np.float64]:
    """[tiers, 6]: clips kept before and after, entering, leaving, undecided, and the seconds of those kept after; added up over
    slices of the clips."""
    counts = np.zeros((len(tiers), 6))
    for old, new in zip(
        score_slices(workspace, before, ()), score_slices(workspace, after, ["start", "end"]), strict=True
    ):
        seconds = clip_seconds(new.table)
        none = np.zeros(old.table.num_rows, bool)
        for row, tier in enumerate(tiers):
            was = decide(old, before.tiers[tier]) if tier in before.tiers else None
            now = decide(new, after.tiers[tier]) if tier in after.tiers else None
            kept, keeps = was.kept if was else none, now.kept if now else none
            undecided = now.verdicts == Verdict.UNDECIDED if now else none
            counts[row, :-1] += [
                np.count_nonzero(one) for one in (kept, keeps, keeps & ~kept, kept & ~keeps, undecided)
            ]
            counts[row, -1] += seconds[keeps].sum()
    return counts


_OF_VIDEO = ["codec", "pixel_format", "transfer", "primaries", "tone_mapped", "projection", "stereo"]


def describe_clip(workspace: Workspace, recipe: Recipe, clip_id: str) -> dict[str, Any]:
    """All that the manifests say of one clip, and each tier's verdict with its reasons. Raises SetupError."""
    scores = clip_scores(workspace, recipe)
    row = scores.table.slice(clip_row(workspace, scores.table, clip_id), 1)
    clip = row.to_pylist()[0]
    names = score_columns(scores.table)
    protocols = json.loads(clip["protocols"] or "{}")
    one = ClipScores(pa.table(row), recipe.built)
    verdicts = {tier: _verdict(decide(one, gates)) for tier, gates in recipe.tiers.items()}
    captions = _row_of(workspace.captions.read(), clip["clip_id"])
    exported = _row_of(workspace.exports.read(), clip["clip_id"])
    skipped = {*names, *(f"{name}_detail" for name in names), *map(standard_error_of, names), "protocols"}
    video = workspace.videos.read(["video_id", *_OF_VIDEO])
    video = video.filter(pc.equal(video["video_id"], clip["video_id"])).select(_OF_VIDEO)
    return {
        **{key: value for key, value in clip.items() if key not in skipped},
        **(video.to_pylist()[0] if video.num_rows else {}),
        "scores": {
            name: {
                "value": clip[name],
                "standard error": clip.get(standard_error_of(name)),
                "detail": clip[f"{name}_detail"],
                "protocol": protocols.get(name),
            }
            for name in names
            if clip[name] is not None or name in protocols
        },
        "tiers": verdicts,
        "captions": captions,
        "exported": exported,
        "frames": workspace.folder.file(frames_name(clip["video_id"])) if clip["has_frames"] else None,
    }


def _verdict(result: TierResult) -> dict[str, Any]:
    """Of a table of one clip. alone: see `Alone`; null where the clip is kept, or where several gates fail it. uncertain: the
    gates that pass or fail it by less than the standard error of its score."""
    failed: dict[str, Any] = {}
    uncertain: dict[str, Any] = {}
    for name, gate in result.gates.items():
        if gate.error is not None and gate.uncertain[0]:
            uncertain[name] = {
                "score": float(gate.low[0]),
                "range": str(gate.gate),
                "standard error": float(gate.error[0]),
                "passed": bool(gate.passed[0]),
            }
        if gate.failed[0]:
            (score,), (excess,) = gate.outside(slice(0, 1))
            failed[name] = {"score": float(score), "range": str(gate.gate), "outside by": abs(float(excess))}
    return {
        "verdict": Verdict(result.verdicts[0]).name.lower(),
        "alone": result.alone(0),
        "failed": failed,
        "uncertain": uncertain,
        "no score": list(result.missing(0)),
        "not knowable": list(result.unknown(0)),
    }


def _row_of(table: pa.Table, clip_id: str) -> dict[str, Any] | None:
    rows = table.filter(pc.equal(table["clip_id"], clip_id)).to_pylist()
    return rows[0] if rows else None
