"""Several recipes on one table of scores, against verdicts worked out clip by clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.clip_table import clip_scores
from longtake.curation.looking.compare import MARKS, OWN, Comparison, Named, compare, named_recipes
from longtake.curation.looking.studio.marks import Marks
from longtake.curation.recipe import PUBLISHED, Recipe, RecipeError
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import TierResult, Verdict, decide
from tests.curation.tables import clip_id, fill, recipe

WIDE = recipe(name="wide", tiers={"big": {"width": ">= 1280"}, "sharp": {"psnr": ">= 10", "artifacts": "<= 0.05"}})
# Its scores are stored under other protocols, but for the width.
OTHER = recipe(
    name="other",
    filters={"width": {}, "psnr": {"reduce": "every"}, "artifacts": {"backend": "borders", "not_known": "ignore"}},
    tiers={"every": {"psnr": "[7, 30]"}, "bars": {"artifacts": "<= 0.05", "width": ">= 700"}},
    not_applied={"aesthetic": "no weights", "motion": "another scale"},
)
MARKED = {"a": True, "b": True, "c": True, "d": False, "g": False, "i": True}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = fill(tmp_path_factory.mktemp("compare") / "workspace")
    one, other = Marks(made, "one"), Marks(made, "other")
    for letter, good in MARKED.items():
        one.add(clip_id(letter), "good" if good else "bad", {})
    one.add(clip_id("e"), "good", {})
    other.add(clip_id("e"), "bad", {})  # The two raters disagree about e.
    other.add(clip_id("a"), "good", {})
    return made


@pytest.fixture(scope="module")
def found(workspace: Workspace) -> Comparison:
    return compare(workspace, [Named(OWN, recipe(), own=True), Named("wide", WIDE), Named("other", OTHER)])


def by_hand(workspace: Workspace, chosen: Recipe, tier: str) -> TierResult:
    return decide(clip_scores(workspace, chosen, ["start", "end"]), chosen.tiers[tier])


SETS: list[tuple[str, Recipe, str]] = [
    (name, chosen, tier)
    for name, chosen in ((OWN, recipe()), ("wide", WIDE), ("other", OTHER))
    for tier in chosen.tiers
]


def test_each_set_is_counted_as_the_engine_decides(workspace: Workspace, found: Comparison) -> None:
    assert (found.clips, found.errors) == (10, 2)  # The errors are f and i, whose captions were refused.
    assert [(one.recipe, one.tier, one.leading) for one in found.sets] == [
        (OWN, "pretrain", True), (OWN, "finetune", False), ("wide", "big", True),
        ("wide", "sharp", False), ("other", "every", True), ("other", "bars", False),
    ]  # fmt: skip
    table = clip_scores(workspace, recipe(), ["start", "end"]).table
    seconds = table["end"].to_numpy() - table["start"].to_numpy()
    assert found.hours == pytest.approx(seconds.sum() / 3600)
    for one, (_, chosen, tier) in zip(found.sets, SETS, strict=True):
        result = by_hand(workspace, chosen, tier)
        verdicts = result.verdicts
        assert (one.kept, one.rejected, one.undecided) == tuple(
            np.count_nonzero(verdicts == v) for v in (Verdict.KEPT, Verdict.REJECTED, Verdict.UNDECIDED)
        )
        assert one.hours == pytest.approx(seconds[result.kept].sum() / 3600)
        assert one.undecided_hours == pytest.approx(seconds[verdicts == Verdict.UNDECIDED].sum() / 3600)
        assert (one.gates, one.not_applied) == (len(chosen.tiers[tier]), len(chosen.not_applied))
    assert any(one.undecided for one in found.sets)


def test_a_score_that_is_missing_never_keeps_a_clip(found: Comparison) -> None:
    borders = next(one for one in found.sets if one.name == "other/bars")
    # Stored by `rapidocr` for most clips, which is no score of `borders`: g and h alone have that.
    assert (borders.kept, borders.undecided) == (1, 4)


def test_overlaps_and_losses_are_those_of_pairs_of_clips(workspace: Workspace, found: Comparison) -> None:
    results = [by_hand(workspace, chosen, tier) for _, chosen, tier in SETS]
    assert found.overlap == [[np.count_nonzero(a.kept & b.kept) for b in results] for a in results]
    names = [f"{name}/{tier}" for name, _, tier in SETS]
    for i, a in enumerate(results):
        for j, b in enumerate(results):
            if i == j:
                continue
            loss = found.loss(names[i], names[j])
            assert loss.clips == np.count_nonzero(a.kept)
            assert loss.rejected == np.count_nonzero(a.kept & (b.verdicts == Verdict.REJECTED))
            assert loss.undecided == np.count_nonzero(a.kept & (b.verdicts == Verdict.UNDECIDED))
            told = {gate.gate: (gate.failed, gate.alone, gate.no_score) for gate in loss.gates}
            expected = {}
            for name, gate in b.gates.items():
                alone = gate.failed & b.tally.by_one
                waits = gate.missing & (b.verdicts == Verdict.UNDECIDED)
                counts = tuple(int(np.count_nonzero(a.kept & each)) for each in (gate.failed, alone, waits))
                if any(counts):
                    expected[name] = counts
            assert told == expected
            assert [gate.failed for gate in loss.gates] == sorted((g.failed for g in loss.gates), reverse=True)


def test_what_the_marks_like_is_looked_for_in_each_set(found: Comparison) -> None:
    assert found.marks == {MARKS[0]: 4, MARKS[1]: 2}  # One rater marked e good and another bad.
    own = found.sets[0]
    # Good: a is kept, b and c are rejected, i is an error. Bad: d is rejected, g is undecided.
    assert own.marked["marked good"] == {"kept": 1, "rejected": 2, "error": 1, "undecided": 0}
    assert own.marked["marked bad"] == {"kept": 0, "rejected": 1, "error": 0, "undecided": 1}
    lost = found.loss("marked good", own.name)
    assert (lost.clips, lost.rejected) == (4, 2)
    assert {gate.gate: gate.failed for gate in lost.gates if gate.failed} == {"text_similarity": 1, "width": 1}


def test_what_lacks_a_score_is_told_with_its_protocol(workspace: Workspace, found: Comparison) -> None:
    borders = next(one for one in found.to_measure if one.filter == "artifacts" and one.recipes == ["other"])
    assert borders.wanted == OTHER.built["artifacts"].protocol
    assert any(protocol.startswith("rapidocr/") for protocol in borders.here)
    scores = clip_scores(workspace, OTHER, [])
    assert borders.clips == np.count_nonzero(scores.missing("artifacts") & scores.ok())
    assert borders.undecided == 4
    assert not any(one.filter == "width" and one.undecided for one in found.to_measure)


def test_details_are_read_where_a_verdict_looks_at_them(workspace: Workspace) -> None:
    every = next(one for one in compare(workspace, [Named("other", OTHER)]).sets if one.tier == "every")
    result = by_hand(workspace, OTHER, "every")
    assert every.kept == np.count_nonzero(result.kept) > 0


def test_an_empty_workspace_compares_to_nothing(tmp_path: Path) -> None:
    empty = Workspace(str(tmp_path / "empty"))
    empty.save_recipe(recipe())
    nothing = compare(empty, named_recipes(empty, []))
    assert (nothing.clips, nothing.hours, {one.kept for one in nothing.sets}) == (0, 0.0, {0})
    json.dumps(nothing.as_json(), allow_nan=False)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_recipes_are_named_as_they_are_typed(workspace: Workspace, tmp_path: Path) -> None:
    assert [each.name for each in named_recipes(workspace, [])] == [OWN, *PUBLISHED]
    file = tmp_path / "mine.yaml"
    file.write_text(WIDE.to_yaml(), encoding="utf-8")
    chosen = named_recipes(workspace, ["allegro:finetune", str(file), f"{file}:sharp", "cosmos", "cosmos"])
    assert [(each.name, each.tier) for each in chosen] == [
        (OWN, None), ("allegro", "finetune"), ("mine", None), ("mine", "sharp"), ("cosmos", None),
    ]  # fmt: skip
    with pytest.raises(RecipeError, match=r"has no tier 'finetun'; did you mean 'finetune'\?"):
        named_recipes(workspace, ["allegro:finetun"])
    with pytest.raises(RecipeError, match=r"no recipe 'alegro': .* Did you mean 'allegro'"):
        named_recipes(workspace, ["alegro"])


def test_a_tier_that_is_named_leads(workspace: Workspace) -> None:
    sets = compare(workspace, named_recipes(workspace, ["allegro:finetune", "koala"])).sets
    assert [(one.name, one.leading) for one in sets] == [
        (f"{OWN}/pretrain", True), (f"{OWN}/finetune", False), ("allegro/finetune", True), ("koala/vtss", False),
    ]  # fmt: skip


# ── on a terminal ────────────────────────────────────────────────────────────────────────────────────────────────────


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_tables_fit_eighty_columns(workspace: Workspace) -> None:
    said = call(workspace.path)
    assert max(len(line.rstrip()) for line in said.splitlines() if workspace.path not in line) <= 80
    for name in PUBLISHED:
        assert f": {name}/" in said
    assert "of 4 clips marked good" in said
    told = " ".join(said.split())
    assert "under left out, how many gates of the publication are not" in told
    assert "Here by is what measured the scores of this name that the workspace has" in told
    assert "allegro: dover, CLIP similarity" in " ".join(said.split())
    assert "koala/vtss: none of its gates can be applied" in said


def test_the_json_holds_every_pair(workspace: Workspace) -> None:
    told: dict[str, Any] = json.loads(call(workspace.path, "allegro", "open-sora-2", "--json"))
    sets = [f"{one['recipe']}/{one['tier']}" for one in told["sets"]]
    pairs = {(loss["kept_by"], loss["by"]) for loss in told["losses"]}
    assert pairs == {(a, b) for a in [*sets, *MARKS] for b in sets if a != b}
    assert told["not_applied"]["open-sora-2"]["motion"].startswith("VMAF")
    assert {one["filter"] for one in told["to_measure"]} >= {"aesthetic", "flow", "fps"}


def test_an_unknown_recipe_is_a_fault_of_the_call(workspace: Workspace) -> None:
    done = CliRunner().invoke(app, ["compare", workspace.path, "alegro"])
    assert done.exit_code == 2
    assert "Did you mean 'allegro'" in done.output
