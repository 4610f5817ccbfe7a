"""What is told where next to nothing is kept: of made scores, whose nearest clips and changes can be worked out on paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longtake.curation.clip_table import rows_table
from longtake.curation.looking.nearest import Nearest, nearest
from longtake.curation.recipe import parse_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas

CLIPS = 300


def told(folder: Path, gate: str) -> Nearest | None:
    """Of 300 clips of 15 s: clip n has a flow of n, and every second one a width that is too small."""
    recipe = parse_recipe(
        {
            "name": "made",
            "filters": {"width": {}, "flow": {"backend": "dis"}},
            "tiers": {"pretrain": {"width": ">= 1280", "flow": gate}, "finetune": {"flow": ">= 9000"}},
        },
        source="test_nearest",
    )
    protocols = json.dumps({name: filter_.protocol for name, filter_ in recipe.built.items()})
    rows = [
        {
            "clip_id": f"{n:032x}", "video_id": "v", "uri": "/v.mp4", "start": 0.0, "end": 15.0, "status": "ok",
            "has_frames": False, "scan_id": "scan", "protocols": protocols, "clip_protocol": "c",
            "width": 640.0 if n % 2 else 1920.0, "width_detail": [0.0], "flow": float(n), "flow_detail": [float(n)],
        }
        for n in range(CLIPS)
    ]  # fmt: skip
    workspace = Workspace(str(folder))
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width", "flow"]))
    return nearest(workspace, recipe)


def test_one_per_cent_is_enough_and_less_is_not(tmp_path: Path) -> None:
    assert told(tmp_path / "three", ">= 294") is None, "294, 296 and 298 of 300"
    found = told(tmp_path / "two", ">= 296")
    assert found is not None
    assert (found.tier, found.kept, found.clips) == ("pretrain", 2, CLIPS)
    assert (found.kept_seconds, found.seconds) == (2 * 15, CLIPS * 15)


def test_the_gate_at_which_most_fall_and_the_clips_that_come_nearest(tmp_path: Path) -> None:
    found = told(tmp_path, ">= 1000")
    assert found is not None
    assert found.kept == 0
    # In the order of the funnel: 150 at the width, and the 150 that are left at the flow.
    assert found.decisive is not None
    assert found.decisive[2:] == (150, 150 * 15)
    assert [int(clip.clip_id, 16) for clip in found.near] == [298, 296, 294], "those that fail one gate, and by least"
    assert found.near[0].failed == {"flow": (298.0, pytest.approx(-702.0))}
    assert found.exact


def test_the_changes_keep_the_best_ten_and_no_more_than_they_must(tmp_path: Path) -> None:
    found = told(tmp_path, ">= 1000")
    assert found is not None
    assert found.changes == {"pretrain.flow": ">= 280"}
    assert (found.would_keep, found.would_keep_seconds) == (10, 150)
