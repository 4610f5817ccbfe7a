"""Deciding again on the same scores, and all that is known of one clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longtake.curation.errors import SetupError
from longtake.curation.looking.tiering import TierChange, describe_clip, parse_changes, retier
from longtake.curation.recipe import RecipeError
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from tests.curation.tables import clip_id, fill, recipe


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("tiers") / "workspace")


def test_changes_are_read() -> None:
    assert parse_changes(["pretrain.flow=>=30", " a.b = [1, 2] ", "a.c=off", "a.d=<= 0.5"]) == {
        "pretrain.flow": Gate(low=30),
        "a.b": Gate(1, 2),
        "a.c": None,
        "a.d": Gate(high=0.5),
    }
    assert parse_changes([]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flow=>= 30", r"write TIER\.GATE="),
        ("pretrain.flow", r"write TIER\.GATE="),
        ("a.b.c=>= 1", r"write TIER\.GATE="),
        ("pretrain.flow=30", "not a gate: '30'; write '>= 40'"),
        ("pretrain.flow=", "not a gate"),
        ("pretrain.flow>=30", "not a gate: '30'"),
    ],
)
def test_what_is_no_change_says_how_to_write_one(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_changes([text])


def test_other_gates_move_clips_between_the_tiers(workspace: Workspace) -> None:
    before = recipe()
    after = before.with_gates(parse_changes(["pretrain.text_similarity=off", "pretrain.psnr=[10, 30]"]))
    found = retier(workspace, before, after)
    # Before, a was kept. After, b is kept (15 dB), a is rejected (8 dB), and d passes psnr and lacks its artifacts.
    assert found.tiers == [TierChange("pretrain", 1, 1, 1, 1, 2), TierChange("finetune", 3, 3, 0, 0, 1)]
    assert found.settings == [
        ("tiers.pretrain.psnr", "[4, 20]", "[10, 30]"),
        ("tiers.pretrain.text_similarity", "<= 0.98", None),
    ]
    assert found.stale == []


def test_a_tier_that_comes_or_goes_keeps_nothing_on_the_other_side(workspace: Workspace) -> None:
    tiers = {"pretrain": {"width": ">= 1280"}, "new": {"width": "<= 640"}}
    found = retier(workspace, recipe(), recipe(tiers=tiers))
    # The clips a, b, d, g, h and j are wide enough and no errors.
    assert found.tiers == [
        TierChange("pretrain", 1, 6, 5, 0, 0),
        TierChange("finetune", 3, 0, 0, 3, 0),
        TierChange("new", 0, 2, 2, 0, 0),
    ]


def test_one_clip_with_its_reasons(workspace: Workspace) -> None:
    known = describe_clip(workspace, recipe(), "ee")
    json.dumps(known, allow_nan=False, default=str)
    assert known["clip_id"] == clip_id("e")
    assert known["scores"]["psnr"] == {
        "value": 25, "standard error": None, "detail": [24.5, 25.5], "protocol": recipe().built["psnr"].protocol,
    }  # fmt: skip
    pretrain = known["tiers"]["pretrain"]
    assert pretrain["verdict"] == "rejected"
    assert {name: (f["score"], f["range"]) for name, f in pretrain["failed"].items()} == {
        "width": (640, ">= 1280"),
        "psnr": (25, "[4, 20]"),
        "artifacts": (0.2, "<= 0.05"),
    }
    assert [f["outside by"] for f in pretrain["failed"].values()] == pytest.approx([640, 5, 0.15])
    assert pretrain["no score"] == ["text_similarity"]
    assert pretrain["alone"] is None  # Three gates reject the clip.
    assert known["captions"] is None
    assert describe_clip(workspace, recipe(), "g")["tiers"]["pretrain"]["verdict"] == "undecided"
    assert describe_clip(workspace, recipe(), "i")["tiers"]["finetune"]["verdict"] == "error"
    assert describe_clip(workspace, recipe(), "a")["captions"]["caption"] == "A [red]herring[/red]."


@pytest.mark.parametrize(
    ("letter", "tier", "verdict", "alone", "no_score"),
    [
        ("a", "pretrain", "kept", None, []),
        ("b", "pretrain", "rejected", "alone", []),
        ("c", "pretrain", "rejected", "alone as far as measured", ["psnr", "artifacts", "text_similarity"]),
        ("d", "pretrain", "rejected", "alone as far as measured", ["artifacts", "text_similarity"]),
        ("d", "finetune", "rejected", "alone", []),
        ("e", "finetune", "rejected", None, []),
        ("g", "pretrain", "undecided", "not known", ["artifacts", "text_similarity"]),
        ("i", "finetune", "error", None, []),
    ],
)
def test_whether_one_gate_alone_rejects_a_clip(
    workspace: Workspace, letter: str, tier: str, verdict: str, alone: str | None, no_score: list[str]
) -> None:
    told = describe_clip(workspace, recipe(), letter)["tiers"][tier]
    assert (told["verdict"], told["alone"], told["no score"]) == (verdict, alone, no_score)


def test_of_a_score_above_its_gate_the_greatest_value_is_told(workspace: Workspace) -> None:
    """With `reduce: every`, the value that lies outside is shown, not the least one."""
    chosen = recipe(filters={**recipe().filters, "psnr": {"reduce": "every"}}, tiers={"t": {"psnr": "[4, 15.2]"}})
    # The detail of the score is 14.5 and 15.5.
    failed = describe_clip(workspace, chosen, "b")["tiers"]["t"]["failed"]["psnr"]
    assert (failed["score"], failed["outside by"]) == (15.5, pytest.approx(0.3))


def test_a_name_must_be_one_clips(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no clip is called 'zz' in .*workspace"):
        describe_clip(workspace, recipe(), "zz")
    with pytest.raises(SetupError, match="10 clips begin with ''"):
        describe_clip(workspace, recipe(), "")
    with pytest.raises(SetupError, match="no clip is called"):
        describe_clip(Workspace(str(tmp_path)), recipe(), "a")
