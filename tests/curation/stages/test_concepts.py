"""Concepts in a workspace: what is assigned when, and that centres stay until there are twice as many clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.curation.clip_table import rows_table
from longtake.curation.recipe import Recipe, RecipeError, parse_recipe
from longtake.curation.stages import concepts
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import ClipScores
from longtake.manifests import schemas
from longtake.manifests.store import StoreError

pytest.importorskip("faiss")

TIERS = {"pretrain": {"aesthetic": ">= 4"}}


def recipe(**settings: Any) -> Recipe:
    filters = {"aesthetic": {}, "concept": {"clusters": 3, **settings}}
    return parse_recipe({"name": "concepts", "filters": filters, "tiers": TIERS}, "the test")


def clips(begin: int, count: int, **changes: Any) -> list[dict[str, Any]]:
    """Clips whose directions lie about three axes, by the rest of their number."""
    made = []
    for number in range(begin, begin + count):
        random = np.random.default_rng(number)
        vector = np.eye(8)[number % 3] + 0.05 * random.normal(size=8)
        protocols = {"aesthetic": recipe().built["aesthetic"].protocol}
        made.append(
            {
                "clip_id": f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}",
                "video_id": f"{number:032x}",
                "uri": f"{number}",
                "start": 0.0,
                "end": 15.0,
                "status": "ok",
                "has_frames": True,
                "scan_id": f"scan {number}",
                "aesthetic": 5.0,
                "aesthetic_detail": [5.0],
                "protocols": json.dumps(protocols),
                "embedding": (vector / np.linalg.norm(vector)).astype(np.float16),
                "keyframe_embeddings": np.ones(16, np.float16),
            }
            | changes
        )
    return made


def fill(workspace: Workspace, rows: list[dict[str, Any]]) -> None:
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["aesthetic"]))


def stored(workspace: Workspace) -> dict[int, tuple[float | None, str]]:
    rows = workspace.clips.read().to_pylist()
    return {int(row["video_id"], 16): (row["concept"], json.loads(row["protocols"]).get("concept", "")) for row in rows}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "ws"))


def test_planted_concepts_are_found_and_nothing_else_changes(workspace: Workspace) -> None:
    fill(workspace, clips(0, 90))
    names = [*schemas.CLIPS.names, "aesthetic", "aesthetic_detail", "embedding", "keyframe_embeddings"]
    before = workspace.clips.read(names).sort_by("clip_id").drop_columns("protocols")
    assert concepts.finish(workspace, recipe()) == 90
    found = stored(workspace)
    assert len({(number % 3, concept) for number, (concept, _) in found.items()}) == 3
    assert workspace.clips.read(names).sort_by("clip_id").drop_columns("protocols").equals(before)
    assert not ClipScores(workspace.clips.read(), recipe().built).missing("concept").any()
    assert concepts.finish(workspace, recipe()) == 0


def test_later_clips_are_assigned_and_fitted_anew_when_there_are_twice_as_many(workspace: Workspace) -> None:
    fill(workspace, clips(0, 60))
    concepts.finish(workspace, recipe())
    before = stored(workspace)
    fill(workspace, clips(60, 30))
    assert concepts.finish(workspace, recipe()) == 30
    after = stored(workspace)
    assert {number: after[number] for number in before} == before
    assert after[60][0] == after[0][0]
    fill(workspace, clips(90, 60))
    assert concepts.finish(workspace, recipe()) == 150
    assert {protocol for _, protocol in stored(workspace).values()}.isdisjoint({p for _, p in before.values()})


def test_other_settings_are_another_fit(workspace: Workspace) -> None:
    fill(workspace, clips(0, 60))
    concepts.finish(workspace, recipe())
    assert ClipScores(workspace.clips.read(), recipe(seed=1).built).missing("concept").all()
    assert concepts.finish(workspace, recipe(seed=1)) == 60
    whole = workspace.folder.read(concepts.CENTRES)
    for torn in (b"", b"torn", whole[: len(whole) // 2]):
        workspace.folder.write_whole(concepts.CENTRES, torn)
        assert concepts.finish(workspace, recipe(seed=1)) == 0  # The same centres are found again.


def test_centres_that_cannot_be_read_now_are_not_fitted_anew(workspace: Workspace) -> None:
    """Other clips than those that they were fitted to may be there by now, and each would get another number."""
    fill(workspace, clips(0, 60))
    concepts.finish(workspace, recipe())
    before = stored(workspace)
    workspace.folder.remove(concepts.CENTRES)
    (workspace.folder.path / concepts.CENTRES).mkdir()
    fill(workspace, clips(60, 30))
    with pytest.raises(StoreError, match=r"cannot read .*\.concepts\.npz: Is a directory"):
        concepts.finish(workspace, recipe())
    assert {number: stored(workspace)[number] for number in before} == before


def test_of_many_clips_a_sample_is_fitted(workspace: Workspace) -> None:
    fill(workspace, clips(0, 300))
    assert concepts.finish(workspace, recipe(fit_on=10)) == 300
    assert len({(number % 3, concept) for number, (concept, _) in stored(workspace).items()}) == 3


def test_clips_without_an_embedding_or_with_an_error_have_no_concept(workspace: Workspace) -> None:
    fill(workspace, [*clips(0, 40), *clips(40, 1, embedding=None), *clips(41, 1, status="error")])
    assert concepts.finish(workspace, recipe()) == 40
    assert [stored(workspace)[number][0] for number in (40, 41)] == [None, None]


def test_it_needs_the_filter_that_embeds() -> None:
    with pytest.raises(RecipeError, match="aesthetic"):
        parse_recipe({"name": "x", "filters": {"concept": {}}, "tiers": {"pretrain": {}}}, "the test")


def test_a_workspace_without_clips_has_none(workspace: Workspace) -> None:
    assert concepts.finish(workspace, recipe()) == 0
