"""A workspace filled by hand: ten clips whose verdicts were worked out on paper."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from longtake.curation.clip_table import rows_table
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas

RECIPE: dict[str, Any] = {
    "name": "paper",
    "filters": {"width": {}, "psnr": {}, "artifacts": {"backend": "rapidocr"}, "text_similarity": {}},
    "tiers": {
        "pretrain": {"width": ">= 1280", "psnr": "[4, 20]", "artifacts": "<= 0.05", "text_similarity": "<= 0.98"},
        "finetune": {"width": ">= 1280", "psnr": "[4, 10]"},
    },
    "not_applied": {"aesthetic": "no weights"},
}
# By clip: width, psnr, artifacts, text similarity, and the kind of its row.
CLIPS: dict[str, tuple[float | None, float | None, float | None, float | None, str]] = {
    "a": (1920, 8, 0.01, 0.5, ""),
    "b": (1920, 15, 0.01, 0.99, ""),
    "c": (640, None, None, None, ""),
    "d": (1280, 25, None, None, ""),
    "e": (640, 25, 0.2, None, ""),
    "f": (None, None, None, None, "error"),
    "g": (1920, 8, 0.01, None, "only borders"),
    "h": (1920, 8, 0.3, None, "only borders"),
    "i": (1920, 8, 0.01, None, "refused"),
    "j": (1920, 20.5, 0.01, 0.5, "old psnr"),
}
VERDICTS = {
    "pretrain": dict(zip("abcdefghij", "krrrreureu", strict=True)),
    "finetune": dict(zip("abcdefghij", "krrrrekkeu", strict=True)),
}  # The letters stand for kept, rejected, error and undecided.


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**RECIPE, **changes}, source="by hand")


def clip_id(letter: str) -> str:
    return letter * 32


def fill(folder: Path) -> Workspace:
    """Videos, clips, captions and runs of the ten clips in a new workspace, with its recipe."""
    workspace, chosen = Workspace(str(folder)), recipe()
    workspace.save_recipe(chosen)
    clips = [_clip(letter, chosen) for letter in CLIPS]
    half = len(clips) // 2  # Two workers write two parts.
    for rows in (clips[:half], clips[half:]):
        workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width", "psnr", "artifacts"]))
    captions = [_caption(letter, chosen) for letter in "abij"]
    stale = _caption("g", chosen) | {"scan_id": "an older scan", "status": "refused"}
    workspace.captions.append(rows_table([*captions, stale], schemas.CAPTIONS, ["text_similarity"]))
    videos = [
        {"video_id": name, "uri": f"/videos/{name}.mp4", "status": "ok", "scan_id": "scan"}
        for name in ("v1", "v2", "v3")
    ]
    broken = {"video_id": "v4", "uri": "/videos/v4.mp4", "status": "error", "error_kind": "not_video", "error": "junk"}
    workspace.videos.append(pa.Table.from_pylist([*videos, broken], schema=schemas.VIDEOS))
    runs = [
        ("scan", 1, 3, 1, 10.0, 36.0, 3600.0, None),
        ("scan", 2, 1, 0, 5.0, 2.0, 1800.0, None),
        ("score", 3, 6, 0, 20.0, 30.0, 90.0, 0.75),
    ]
    log = [
        {"run_id": f"{stage}{minute}", "stage": stage, "started": datetime(2026, 1, 1, 0, minute, tzinfo=UTC)}
        | {"computed": computed, "errors": errors, "seconds": seconds, "cpu_seconds": cpu, "video_seconds": video}
        | {"workers": 2, "recipe": "paper", "busy_share": busy}
        for stage, minute, computed, errors, seconds, cpu, video, busy in runs
    ]
    workspace.runs.append(pa.Table.from_pylist(log, schema=schemas.RUNS))
    return workspace


def _clip(letter: str, chosen: Recipe) -> dict[str, Any]:
    width, psnr, artifacts, _, special = CLIPS[letter]
    scores = {"width": width, "psnr": psnr, "artifacts": artifacts}
    protocols = {name: chosen.built[name].protocol for name, value in scores.items() if value is not None}
    if special == "only borders":
        bound = chosen.built["artifacts"].lower_bound
        assert bound is not None
        protocols["artifacts"] = bound.protocol
    if special == "old psnr":
        protocols["psnr"] = "grey/as-it-was-once/mean"
    row: dict[str, Any] = {
        "clip_id": clip_id(letter),
        "video_id": "v1",
        "uri": "/videos/[red]v1[/red].mp4",
        "start": 0.0,
        "end": 15.0,
        "status": "ok",
        "has_frames": False,
        "scan_id": "scan",
        "protocols": json.dumps(protocols, sort_keys=True, separators=(",", ":")),
    }
    if special == "error":
        row |= {"status": "error", "error_kind": "frames", "error": "[bold]gone[/bold]"}
    for name, value in scores.items():
        row |= {name: value, f"{name}_detail": None if value is None else [value - 0.5, value + 0.5]}
    return row


def _caption(letter: str, chosen: Recipe) -> dict[str, Any]:
    similarity, refused = CLIPS[letter][3], CLIPS[letter][4] == "refused"
    return {
        "clip_id": clip_id(letter),
        "status": "refused" if refused else "ok",
        "reason": "the model would not" if refused else None,
        "caption": None if refused else "A [red]herring[/red].",
        "sub_captions": None if refused else list("12345"),
        "scan_id": "scan",
        "caption_protocol": "descriptors/3",
        "protocols": json.dumps({"text_similarity": chosen.built["text_similarity"].protocol}),
        "text_similarity": similarity,
        "text_similarity_detail": None if similarity is None else [similarity] * 4,
    }
