"""score: clips → clips. The filters that need a model, in batches across clips, on the stored frames; no video is opened."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from curation.clip_table import dump_protocols, rows_table, score_columns, with_embeddings
from curation.errors import RowError, SetupError
from curation.models import check_filters
from curation.recipe import Recipe, parse_recipe
from curation.running import Job, Report, split
from curation.samples import load_sample
from curation.workspace import Workspace
from filters.base import Filter, FilterUnavailable, MeasureError, Needs, Sample, Score
from filters.gates import ClipScores, alive, rejecting
from manifests import schemas
from manifests.frames import StoredFrames, read_frames

_BATCH_MS = 15_000  # of CPU, by the filters' own cost
_AT_MOST = 32


def plan(workspace: Workspace, recipe: Recipe, *, all_scores: bool) -> Job | None:
    """The clips that some tier may still keep and that lack a score of this stage. Raises SetupError if a filter cannot
    work on this machine: a package or a weight is missing, or a weight is not the right file."""
    filters = recipe.needing(Needs.FRAMES)
    clips = workspace.clips.read()
    if not filters or not clips.num_rows:
        return None
    for filter_ in filters.values():
        try:
            _ = filter_.protocol
        except FilterUnavailable as error:
            raise SetupError(f"recipe {recipe.name}: {error}") from error
    scores = ClipScores(clips, recipe.built)
    lacking = np.any([scores.missing(name) for name in filters], axis=0)
    usable = (clips["has_frames"].to_numpy(zero_copy_only=False)) & (
        clips["status"].to_numpy(zero_copy_only=False) == "ok"
    )
    wanted = usable & lacking & (True if all_scores else alive(scores, recipe.tiers))
    todo = clips.filter(pa.array(wanted)).sort_by("video_id")
    if not todo.num_rows:
        return None
    check_filters(recipe, filters)
    if any(todo[name].null_count < todo.num_rows for name in filters if name in todo.column_names):
        todo = with_embeddings(workspace, todo)
    cost = sum(filter_.cost for filter_ in filters.values())
    batches = split(todo, [cost] * todo.num_rows, per_batch=_BATCH_MS, at_most=_AT_MOST)
    args = (workspace.path, recipe.model_dump(mode="json"), all_scores)
    on_gpu = any(getattr(filter_, "weights", ()) for filter_ in filters.values())
    return Job("score", batches, ScoreWorker, args, memory_mib=3072, on_gpu=on_gpu, hang_seconds=1800)


class ScoreWorker:
    """Holds the models; measures batches of clips and appends their rows."""

    def __init__(self, workspace: str, recipe: Mapping[str, Any], all_scores: bool) -> None:
        self.workspace = workspace
        self.manifest = schemas.clips(workspace)
        self.recipe = parse_recipe(dict(recipe), source="the recipe of this run")
        self.filters = self.recipe.needing(Needs.FRAMES)
        self.all_scores = all_scores

    def __call__(self, batch: pa.Table) -> Report:
        started, cpu = time.monotonic(), time.process_time()
        rows = batch.to_pylist()
        samples = self._load(rows)
        for filter_ in self.filters.values():
            self._measure(filter_, rows, samples)
        names = dict.fromkeys([*score_columns(batch), *self.filters])
        self.manifest.append(rows_table(rows, schemas.CLIPS, names))
        return Report(
            rows=len(rows),
            errors=sum(row["status"] == "error" for row in rows),
            seconds=time.monotonic() - started,
            cpu_seconds=time.process_time() - cpu,
            video_seconds=sum(row["end"] - row["start"] for row in rows),
        )

    def _load(self, rows: list[dict[str, Any]]) -> dict[str, Sample]:
        samples: dict[str, Sample] = {}
        by_video: dict[str, list[str]] = {}
        for row in rows:
            by_video.setdefault(row["video_id"], []).append(row["clip_id"])
        stored: dict[str, StoredFrames] = {}
        faults: dict[str, str] = {}
        for video, clips in by_video.items():
            try:
                stored |= read_frames(self.workspace, video, clips)
            except (OSError, pa.ArrowException) as error:
                faults[video] = str(error)
        for row in rows:
            try:
                if row["clip_id"] not in stored:
                    reason = faults.get(row["video_id"], "they are not in the file of its video")
                    raise RowError("frames", f"the frames of this clip cannot be read: {reason}; scan it again")
                samples[row["clip_id"]] = load_sample(stored[row["clip_id"]])
            except RowError as error:
                _fail(row, error)
        return samples

    def _measure(self, filter_: Filter[Sample], rows: list[dict[str, Any]], samples: Mapping[str, Sample]) -> None:
        todo = [row for row in rows if row["status"] == "ok" and self._needed(row, filter_)]
        try:
            scores = filter_.measure([samples[row["clip_id"]] for row in todo])
        except FilterUnavailable as error:  # a device that is not there, or too small
            raise SetupError(f"filter {filter_.name}: {error}") from error
        for row, score in zip(todo, scores, strict=True):
            if isinstance(score, MeasureError):
                _fail(row, RowError("measure", f"{filter_.name}: {score}"))
            else:
                row[filter_.name], row[f"{filter_.name}_detail"] = score.value, list(score.detail)
                if score.embedding is not None:
                    row["embedding"] = score.embedding
                protocols = json.loads(row["protocols"] or "{}")
                row["protocols"] = dump_protocols({**protocols, filter_.name: filter_.protocol})

    def _needed(self, row: Mapping[str, Any], wanted: Filter[Sample]) -> bool:
        """Whether a clip lacks this score, and some tier may still keep it by those it has."""
        protocols = json.loads(row["protocols"] or "{}")
        if protocols.get(wanted.name) == wanted.protocol:
            return False
        left = set(self.recipe.tiers)
        for name, filter_ in self.recipe.built.items():
            if row.get(name) is not None and name in protocols:
                bound = filter_.lower_bound is not None and protocols[name] == filter_.lower_bound.protocol
                if bound or protocols[name] == filter_.protocol:
                    score = Score(row[name], tuple(row[f"{name}_detail"] or ()))
                    left -= rejecting(filter_, score, self.recipe.tiers, bound=bound)
        return bool(left) or self.all_scores


def _fail(row: dict[str, Any], error: RowError) -> None:
    row["status"], row["error_kind"], row["error"] = "error", error.kind, str(error)
