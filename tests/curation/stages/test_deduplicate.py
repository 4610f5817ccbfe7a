"""Near-duplicates: the groups against a plain loop over all pairs, and what becomes of the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.curation.clip_table import clip_scores, rows_table
from longtake.curation.looking.stats import statistics
from longtake.curation.looking.tiering import describe_clip, retier
from longtake.curation.recipe import Recipe, RecipeError, parse_recipe
from longtake.curation.stages.deduplicate import finish
from longtake.curation.workspace import Workspace
from longtake.filters import duplicates
from longtake.filters.duplicates import Duplicates
from longtake.filters.verdicts import Verdict, decide
from longtake.manifests import schemas
from longtake.manifests.store import StoreError

RECIPE: dict[str, Any] = {
    "name": "apart",
    "filters": {"aesthetic": {}, "flow": {"backend": "dis"}, "duplicates": {"threshold": 0.9}},
    "tiers": {
        "pretrain": {"aesthetic": ">= 4", "duplicates": "<= 0"},
        "finetune": {"aesthetic": ">= 4", "flow": ">= 50", "duplicates": "<= 0"},
    },
}
Vectors = npt.NDArray[np.float16]


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**RECIPE, **changes}, "the test")


def by_the_book(embeddings: Vectors, threshold: float) -> list[int]:
    """For each clip the first kept one that is as alike as that, else −1."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows @ rows.T >= threshold
    owner: list[int] = []
    for i in range(len(rows)):
        owner.append(next((int(k) for k in np.flatnonzero(alike[i, :i]) if owner[k] < 0), -1))
    return owner


def clusters(rng: np.random.Generator, count: int, centres: int, spread: float, dim: int) -> Vectors:
    """Directions scattered about some centres: alike, nearly alike, and not."""
    middle = rng.normal(size=(centres, dim))
    points = middle[rng.integers(centres, size=count)] + spread * rng.normal(size=(count, dim))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float16)


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 120), st.integers(1, 12), st.floats(0.05, 1.0), st.integers(2, 130),
    st.floats(0.3, 1.0),
)  # fmt: skip
def test_groups_are_those_of_a_loop_over_all_pairs(
    seed: int, count: int, centres: int, spread: float, dim: int, threshold: float
) -> None:
    embeddings = clusters(np.random.default_rng(seed), count, centres, spread, dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", 16)
        owner, cosine = Duplicates(threshold=threshold).kept_instead(embeddings)
    assert owner.tolist() == by_the_book(embeddings, threshold)
    assert (cosine[owner < 0] == 0).all()
    assert (cosine[owner >= 0] >= threshold - 1e-9).all()
    assert (owner[owner[owner >= 0]] == -1).all()  # A clip that is named was kept.


def test_blocks_as_they_are_with_little_and_with_much_alike() -> None:
    rng = np.random.default_rng(1)
    few = clusters(rng, 5000, 5000, 0.3, 256)
    few[3000:3050] = few[:50]
    many = clusters(rng, 5000, 40, 0.02, 256)
    for embeddings, alike in ((few, 50), (many, 4960)):
        owner, _ = Duplicates().kept_instead(embeddings)
        assert (owner >= 0).sum() == alike
        assert owner.tolist() == by_the_book(embeddings, 0.95)


def test_in_cells_nothing_is_found_that_is_not_there_and_hardly_anything_missed() -> None:
    rng = np.random.default_rng(3)
    embeddings = clusters(rng, 6000, 6000, 0.3, 128)
    copies = embeddings[:3000].astype(np.float64) + rng.normal(size=(3000, 128)) * 0.3 / np.sqrt(128)
    embeddings[3000:] = copies / np.linalg.norm(copies, axis=1, keepdims=True)  # The cosines are about 0.958.
    expected = np.array(by_the_book(embeddings, 0.95))
    assert 2000 < (expected >= 0).sum() < 3000
    owner, cosine = Duplicates(exact_up_to=0).kept_instead(embeddings)
    found = owner >= 0
    assert (owner[owner[found]] == -1).all()
    assert (cosine[found] >= 0.95).all()
    assert (owner[found] == expected[found]).all()
    assert found.sum() > 0.97 * (expected >= 0).sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "PROBES", 10_000)  # The search looks in all cells.
        owner, _ = Duplicates(exact_up_to=0).kept_instead(embeddings)
    assert (owner == expected).all()


def test_a_chain_is_no_group() -> None:
    angles = np.radians([0, 20, 40, 60])
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    owner, cosine = Duplicates(threshold=0.9).kept_instead(chain)  # A cosine of 0.9 is 25.8 degrees.
    assert owner.tolist() == [-1, 0, -1, 2]
    assert cosine == pytest.approx([0, np.cos(np.radians(20)), 0, np.cos(np.radians(20))], abs=1e-3)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_what_is_no_direction_is_refused(bad: float) -> None:
    embeddings = np.ones((3, 8), np.float16)
    embeddings[1] = bad
    with pytest.raises(ValueError, match="zero, or not finite"):
        Duplicates().kept_instead(embeddings)
    assert Duplicates().kept_instead(np.ones((0, 8), np.float16))[0].size == 0


# ── in a workspace ───────────────────────────────────────────────────────────────────────────────────────────────────


def clip(number: int, degrees: float, aesthetic: float, flow: float = 60, **changes: Any) -> dict[str, Any]:
    """A scored clip whose embedding points into this direction."""
    protocols = {name: recipe().built[name].protocol for name in ("aesthetic", "flow")}
    angle = np.radians(degrees)
    return {
        "clip_id": f"{number:032x}", "video_id": f"{number:032x}", "uri": f"{number}.mp4", "start": 0.0, "end": 15.0,
        "status": "ok", "has_frames": True, "scan_id": f"scan {number}",
        "aesthetic": aesthetic, "aesthetic_detail": [aesthetic], "flow": flow, "flow_detail": [flow],
        "protocols": json.dumps(protocols), "embedding": np.array([np.cos(angle), np.sin(angle)], np.float16),
    } | changes  # fmt: skip


def fill(workspace: Workspace, rows: list[dict[str, Any]]) -> None:
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["aesthetic", "flow"]))


def found(workspace: Workspace) -> dict[int, tuple[float | None, int | None]]:
    """Clip number → its score, and the number of the clip that it names."""
    rows = workspace.clips.read().to_pylist()
    return {
        int(row["clip_id"], 16): (
            None if row["duplicates"] is None else round(row["duplicates"], 3),
            None if row["duplicate_of"] is None else int(row["duplicate_of"], 16),
        )
        for row in rows
    }


def kept(workspace: Workspace, recipe: Recipe, tier: str = "pretrain") -> list[int]:
    scores = clip_scores(workspace, recipe)
    verdicts = decide(scores, recipe.tiers[tier]).verdicts
    ids = scores.table["clip_id"].to_pylist()
    return sorted(int(clip_id, 16) for clip_id, v in zip(ids, verdicts, strict=True) if v == Verdict.KEPT)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "ws"))


FIVE = [clip(1, 0, 5.0), clip(2, 10, 6.0), clip(3, 90, 5.5), clip(4, 95, 5.5, 70), clip(5, 180, 4.5)]
COS10, COS5 = (round(float(np.cos(np.radians(d))), 3) for d in (10, 5))


def test_the_best_of_each_group_is_kept_and_named(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    assert finish(workspace, recipe()) == 5
    answer = found(workspace)
    assert answer == {
        1: (pytest.approx(COS10, abs=2e-3), 2),
        2: (0, None),
        3: (pytest.approx(COS5, abs=2e-3), 4),  # The clips are equally beautiful, and this one has less motion.
        4: (0, None),
        5: (0, None),
    }
    assert kept(workspace, recipe()) == [2, 4, 5]
    assert finish(workspace, recipe()) == 0


def test_nothing_else_about_a_clip_changes(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    names = [*schemas.CLIPS.names, "aesthetic", "aesthetic_detail", "flow", "flow_detail", "embedding"]
    before = workspace.clips.read(names).sort_by("clip_id").drop_columns("protocols")
    finish(workspace, recipe())
    after = workspace.clips.read(names).sort_by("clip_id")
    assert after.drop_columns("protocols").equals(before)
    protocols = {name: recipe().built[name].protocol for name in ("aesthetic", "flow", "duplicates")}
    assert [json.loads(text) for text in after["protocols"].to_pylist()] == [protocols] * 5


def test_reading_clips_does_not_read_embeddings(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    assert "embedding" not in workspace.clips.read().column_names
    assert workspace.clips.read(["embedding"])["embedding"].type == pa.list_(pa.float16())
    workspace.clips.compact(without=pa.array([FIVE[0]["clip_id"]]))
    assert workspace.clips.read(["embedding"])["embedding"].null_count == 0


def test_it_does_not_matter_when_a_clip_came(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [clip(i, float(rng.uniform(0, 360)), float(rng.uniform(3.5, 7))) for i in range(60)]
    answers = []
    for number, steps in enumerate((1, 3, 12)):
        workspace = Workspace(str(tmp_path / str(number)))
        for part in np.array_split(rng.permutation(60), steps):
            fill(workspace, [rows[i] for i in part])
            finish(workspace, recipe())
        answers.append(found(workspace))
    assert answers[0] == answers[1] == answers[2]
    assert {a for a, _ in answers[0].values()} > {None, 0.0}  # The gate rejects some clips, and keeps others.


def test_a_clip_that_comes_later_changes_what_it_must(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    finish(workspace, recipe())
    fill(workspace, [clip(6, 185, 4.2), clip(7, 270, 5)])
    assert finish(workspace, recipe()) == 2  # One clip is a duplicate of 5, and one is like no other.
    fill(workspace, [clip(8, 5, 6.5)])
    assert finish(workspace, recipe()) == 3  # The clip is better than 2, of which 1 was a duplicate.
    answer = found(workspace)
    assert [answer[i][1] for i in (1, 2, 8, 6, 5)] == [8, 8, None, 5, None]


def test_who_is_rejected_elsewhere_takes_nobody_along(workspace: Workspace) -> None:
    fill(workspace, [clip(1, 0, 3.0), clip(2, 5, 5.0, 10), clip(3, 6, 4.5, 90), clip(4, 4, 9, status="error")])
    finish(workspace, recipe())
    # Clip 1 fails, and 4 is an error; 2 is more beautiful, but 3 is good for both tiers.
    assert {number: of for number, (_, of) in found(workspace).items()} == {1: None, 2: 3, 3: None, 4: None}
    assert kept(workspace, recipe()) == kept(workspace, recipe(), "finetune") == [3]
    stricter = recipe(tiers={"pretrain": {"flow": "<= 50", "aesthetic": ">= 4", "duplicates": "<= 0"}})
    assert finish(workspace, stricter) == 2
    assert found(workspace)[3] == (None, None)
    assert kept(workspace, stricter) == [2]


def test_gates_that_reject_the_best_of_a_group_do_not_lose_the_group(workspace: Workspace) -> None:
    """Until near-duplicates are looked for again, nothing is known of those that repeated it; never a rejection."""
    fill(workspace, FIVE)
    finish(workspace, recipe())
    # The gate rejects 2, whom 1 repeats.
    stricter = recipe(tiers={"pretrain": {"aesthetic": "[4, 5.6]", "duplicates": "<= 0"}})
    change = retier(workspace, recipe(), stricter).tiers[0]
    assert (change.before, change.after, change.entering, change.leaving, change.undecided) == (3, 2, 0, 1, 1)
    counts = statistics(workspace, stricter).summary["tiers"]["pretrain"]
    assert [counts[verdict] for verdict in ("kept", "rejected", "error", "undecided")] == [2, 2, 0, 1]
    assert counts["gates"]["duplicates"]["missing"] == 1
    shown = describe_clip(workspace, stricter, f"{1:032x}")["tiers"]["pretrain"]
    assert shown == {
        "verdict": "undecided",
        "alone": "not known",
        "failed": {},
        "uncertain": {},
        "no score": ["duplicates"],
        "not knowable": [],
    }
    assert kept(workspace, stricter) == [4, 5]
    finish(workspace, stricter)
    assert kept(workspace, stricter) == [1, 4, 5]
    assert kept(workspace, recipe()) == [1, 4, 5]  # The recipe goes back: 2 has no score yet, and 1 stays until then.
    finish(workspace, recipe())
    assert kept(workspace, recipe()) == [2, 4, 5]


def test_a_clip_whose_captions_fail_is_no_orphans_parent(workspace: Workspace) -> None:
    """Near-duplicates come before captions: what these bring must not make a clip wait for ever."""
    fill(workspace, FIVE)
    finish(workspace, recipe())
    failed = {"clip_id": f"{2:032x}", "status": "error", "reason": "no words", "scan_id": "scan 2"}
    failed["caption_protocol"] = "descriptors/3"
    workspace.captions.append(pa.Table.from_pylist([failed], schema=schemas.CAPTIONS))
    counts = statistics(workspace, recipe()).summary["tiers"]["pretrain"]
    assert [counts[verdict] for verdict in ("kept", "rejected", "error", "undecided")] == [2, 2, 1, 0]


def test_another_threshold_is_another_score(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    finish(workspace, recipe())
    finer = recipe(filters={**RECIPE["filters"], "duplicates": {"threshold": 0.99}})
    assert kept(workspace, finer) == []
    assert finish(workspace, finer) == 5
    # Clips 10 degrees apart are different now, and clips 5 degrees apart are not.
    assert kept(workspace, finer) == [1, 2, 4, 5]


def test_clips_without_an_embedding_have_no_score(workspace: Workspace) -> None:
    fill(workspace, [clip(1, 0, 5.0), clip(2, 0, 6.0, embedding=None)])
    finish(workspace, recipe())
    assert found(workspace) == {1: (0, None), 2: (None, None)}


def test_an_empty_workspace_and_a_recipe_without(workspace: Workspace) -> None:
    assert finish(workspace, recipe()) == 0
    fill(workspace, FIVE)
    plain = {"name": "a", "filters": {"aesthetic": {}}, "tiers": {"t": {"aesthetic": ">= 4"}}}
    assert finish(workspace, parse_recipe(plain, "the test")) == 0


def test_a_note_that_cannot_be_read_is_said_with_its_name(workspace: Workspace) -> None:
    fill(workspace, FIVE)
    (workspace.folder.path / ".duplicates").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*\.duplicates: Is a directory"):
        finish(workspace, recipe())


def test_a_recipe_needs_something_to_compare() -> None:
    with pytest.raises(RecipeError, match="aesthetic makes"):
        recipe(filters={"duplicates": {}, "flow": {}}, tiers={"t": {"duplicates": "<= 0"}})
    with pytest.raises(RecipeError, match="threshold"):
        recipe(filters={**RECIPE["filters"], "duplicates": {"threshold": 1.5}})
