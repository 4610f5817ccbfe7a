"""caption: clips → captions. Five sub-captions and an overall caption, then the filters on them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.base import Captions, ClipFrames, failed
from captioning.checks import Status
from captioning.registry import make_captioner
from curation.clip_table import clip_scores, dump_protocols, rows_table
from curation.errors import RowError, SetupError
from curation.recipe import Recipe, parse_recipe
from curation.running import Job, Report, split
from curation.samples import load_sample
from curation.workspace import Workspace
from filters.base import FilterUnavailable, MeasureError, Needs
from filters.gates import ClipScores, Verdict, decide
from manifests import schemas
from manifests.frames import read_frames

_AT_MOST = 16


def plan(workspace: Workspace, recipe: Recipe, *, retry_errors: bool) -> Job | None:
    """The clips that pass every other gate of some tier, and are not captioned by this captioner yet."""
    try:
        captioner = make_captioner(recipe.captioning.captioner, recipe.captioning.settings)
    except ValueError as error:
        raise SetupError(f"recipe {recipe.name}: captioning: {error}") from error
    on_captions = recipe.needing(Needs.CAPTIONS)
    try:
        protocols = dump_protocols({name: filter_.protocol for name, filter_ in on_captions.items()})
    except FilterUnavailable as error:
        raise SetupError(f"recipe {recipe.name}: {error}") from error
    scores = clip_scores(workspace, recipe)
    if not scores.table.num_rows:
        return None
    todo = workspace.clips.read().filter(pa.array(_ready(workspace, recipe)))
    old = workspace.captions.read()
    if old.num_rows:
        at = pc.index_in(todo["clip_id"], value_set=old["clip_id"].combine_chunks())
        same = pc.and_(
            pc.equal(old["scan_id"].take(at), todo["scan_id"]),
            pc.equal(old["caption_protocol"].take(at), captioner.protocol),
        )
        written = pc.equal(old["status"].take(at), "ok")
        measured = pc.equal(old["protocols"].take(at), protocols)
        given_up = pc.and_(pc.invert(written), pa.scalar(not retry_errors))
        done = pc.fill_null(pc.and_(same, pc.or_(pc.and_(written, measured), given_up)), False)
        # captions that stay, and only need another measurement, travel along
        keep = pc.fill_null(pc.and_(same, written), False)
        for name in ("caption", "sub_captions"):
            todo = todo.append_column(name, pc.if_else(keep, old[name].take(at), pa.scalar(None, old[name].type)))
        todo = todo.filter(pc.invert(done))
    if not todo.num_rows:
        return None
    todo = todo.sort_by("video_id")
    batches = split(todo, [1.0] * todo.num_rows, per_batch=_AT_MOST, at_most=_AT_MOST)
    return Job(
        "caption",
        batches,
        CaptionWorker,
        (workspace.path, recipe.model_dump(mode="json")),
        memory_mib=3072,
        hang_seconds=1800,
    )


def _ready(workspace: Workspace, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Clips that some tier keeps, captions aside."""
    clips = workspace.clips.read()
    scores = ClipScores(clips, recipe.built)
    on_captions = recipe.needing(Needs.CAPTIONS)
    ready = np.zeros(clips.num_rows, bool)
    for tier in recipe.tiers.values():
        rest = {name: gate for name, gate in tier.items() if name not in on_captions}
        ready |= decide(scores, rest).verdicts == Verdict.KEPT
    return np.asarray(ready & clips["has_frames"].to_numpy(zero_copy_only=False))


class CaptionWorker:
    """Holds the captioner and the filters on captions; captions batches of clips and appends their rows."""

    def __init__(self, workspace: str, recipe: Mapping[str, Any]) -> None:
        self.workspace = workspace
        self.manifest = schemas.captions(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.captioner = make_captioner(self.recipe.captioning.captioner, self.recipe.captioning.settings)
        self.filters = self.recipe.needing(Needs.CAPTIONS)

    def __call__(self, batch: pa.Table) -> Report:
        started, cpu = time.monotonic(), time.process_time()
        clips = batch.to_pylist()
        results = self._captions(clips)
        rows = [_row(clip, results[clip["clip_id"]], self.captioner.protocol) for clip in clips]
        self._measure(rows)
        self.manifest.append(rows_table(rows, schemas.CAPTIONS, self.filters))
        return Report(
            rows=len(rows),
            errors=sum(row["status"] != "ok" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=time.process_time() - cpu,
            video_seconds=sum(clip["end"] - clip["start"] for clip in clips),
        )

    def _captions(self, clips: list[dict[str, Any]]) -> dict[str, Captions]:
        results: dict[str, Captions] = {}
        frames: list[ClipFrames] = []
        for clip in clips:
            if clip.get("caption") is not None:
                old = tuple(clip["sub_captions"])
                results[clip["clip_id"]] = Captions(
                    clip["clip_id"], Status.OK, caption=clip["caption"], sub_captions=old, model=self.captioner.model
                )
                continue
            try:
                frames.append(self._frames(clip))
            except (RowError, OSError, pa.ArrowException) as error:
                results[clip["clip_id"]] = failed(clip["clip_id"], f"its frames cannot be read: {error}")
        for result in self.captioner.caption(frames):
            results[result.clip_id] = result
        return results

    def _frames(self, clip: Mapping[str, Any]) -> ClipFrames:
        stored = read_frames(self.workspace, clip["video_id"], [clip["clip_id"]])
        if clip["clip_id"] not in stored:
            raise RowError("frames", "they are not in the file of its video; scan it again")
        sample = load_sample(stored[clip["clip_id"]])
        names = [key.removesuffix("_detail") for key in clip if key.endswith("_detail")]
        measured = {name: clip[name] for name in names if clip[name] is not None}
        sidecar = None
        if clip["source_caption"] is not None or clip["source_sub_captions"] is not None:
            sidecar = {"caption": clip["source_caption"], "sub_captions": clip["source_sub_captions"]}
        return ClipFrames(
            clip["clip_id"], sample.keyframes, sample.partners, sample.times, sample.partner_times, measured, sidecar
        )

    def _measure(self, rows: list[dict[str, Any]]) -> None:
        good = [row for row in rows if row["status"] == Status.OK]
        for name, filter_ in self.filters.items():
            for row, score in zip(good, filter_.measure([row["sub_captions"] for row in good]), strict=True):
                if isinstance(score, MeasureError):
                    row["status"], row["reason"] = "error", f"{name}: {score}"
                    row["caption"] = row["sub_captions"] = None
                else:
                    row[name], row[f"{name}_detail"] = score.value, list(score.detail)
        protocols = dump_protocols({name: filter_.protocol for name, filter_ in self.filters.items()})
        for row in rows:
            row["protocols"] = protocols


def _row(clip: Mapping[str, Any], result: Captions, protocol: str) -> dict[str, Any]:
    return {
        "clip_id": clip["clip_id"],
        "status": str(result.status),
        "reason": result.reason,
        "caption": result.caption,
        "sub_captions": list(result.sub_captions) if result.sub_captions else None,
        "model": result.model,
        "attempts": result.attempts,
        "scan_id": clip["scan_id"],
        "caption_protocol": protocol,
    }
