"""Whether a published dataset stays as it is, since clips would drop out of the new one only because of faults of the world.

A clip that a gate rejects, that a new scan does not have any more or that ended in a fact drops out by right. It does not if it
is kept and its file could not be made, if it ended in a fault of the world, or if a score or caption of it is missing while
the last run of the stage that gives it met such faults; nor if its video was cut into other clips that could not be encoded.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import is_of_the_world
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores, TierResult, Verdict


def reason(
    workspace: Workspace,
    recipe: Recipe,
    tier: str,
    scores: ClipScores,
    result: TierResult,
    new: pa.Table,
    old: pa.Table,
) -> str | None:
    """Why the dataset of a tier stays as it is, in a sentence; None if the new one may take its place. new: what would be
    published; old: what is, with the columns clip_id, video_id and caption."""
    dropped = old.filter(pc.invert(pc.is_in(old["clip_id"], value_set=new["clip_id"])))
    mute = _lost_captions(workspace, new, old)
    if not dropped.num_rows and not mute:
        return None
    blamed = _blamed(workspace, recipe, scores, result)
    videos = dict(zip(scores.table["clip_id"].to_pylist(), scores.table["video_id"].to_pylist(), strict=True))
    of_videos: dict[str, str] = {videos[clip_id]: kind for clip_id, kind in blamed.items()}
    why: Counter[str] = Counter()
    for clip_id, video_id in zip(dropped["clip_id"].to_pylist(), dropped["video_id"].to_pylist(), strict=True):
        # Clips that another scan has replaced are lost with the clips that replaced them.
        kind = blamed.get(clip_id) if clip_id in videos else of_videos.get(video_id)
        if kind is not None:
            why[kind] += 1
    if mute:
        why["caption missing"] += mute
    if not why:
        return None
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(why.items()))
    return (
        f"{why.total()} of its {old.num_rows} clips would drop out only because of faults of the world ({kinds}); the same "
        f"command makes it anew once they are over"
    )


def _blamed(workspace: Workspace, recipe: Recipe, scores: ClipScores, result: TierResult) -> dict[str, str]:
    """Clip id → the fault of the world that keeps the clip out of the dataset, of those where it is one."""
    clips = scores.table
    ids, scans = clips["clip_id"].to_pylist(), clips["scan_id"].to_pylist()
    exports = {row["clip_id"]: row for row in workspace.exports.read().to_pylist()}
    blamed: dict[str, str] = {}
    for at in np.flatnonzero(result.kept).tolist():
        row = exports.get(ids[at])
        current = row is not None and row["scan_id"] == scans[at] and row["export_protocol"] == recipe.export_protocol
        if row is None or not current:
            blamed[ids[at]] = "not encoded"
        elif is_of_the_world(row["error_kind"]):
            blamed[ids[at]] = str(row["error_kind"])
    for at in np.flatnonzero(result.verdicts == Verdict.ERROR).tolist():
        kind = clips["error_kind"][at].as_py()
        if is_of_the_world(kind):
            blamed[ids[at]] = str(kind)
    if _faults_of(workspace, "score") or _faults_of(workspace, "caption"):
        for at in np.flatnonzero(result.verdicts == Verdict.UNDECIDED).tolist():
            blamed[ids[at]] = "score missing"
    return blamed


def _lost_captions(workspace: Workspace, new: pa.Table, old: pa.Table) -> int:
    """Clips that were published with a caption and would be without one, while the captioner met faults."""
    if not _faults_of(workspace, "caption"):
        return 0
    told = old.filter(old["caption"].is_valid())["clip_id"]
    silent = new.filter(pc.is_null(new["caption"]))["clip_id"]
    return int(pc.sum(pc.is_in(silent, value_set=told)).as_py() or 0)


def _faults_of(workspace: Workspace, stage: str) -> int:
    """The faults of the world that the last run of a stage with work to do met."""
    runs = workspace.runs.read(["stage", "started", "computed", "faults"])
    runs = runs.filter(pc.and_(pc.equal(runs["stage"], stage), pc.greater(runs["computed"], 0))).sort_by("started")
    return int(runs["faults"][-1].as_py() or 0) if runs.num_rows else 0
