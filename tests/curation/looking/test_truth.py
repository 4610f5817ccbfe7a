"""What marks say of gates, on marks whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from longtake.curation.clip_table import clip_scores
from longtake.curation.looking.studio.marks import Marks, propose
from longtake.curation.looking.truth import (
    TRUTH,
    Share,
    TierTruth,
    agreed,
    for_precision,
    gate_truth,
    told,
    truth,
    write_truth,
)
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.filters.verdicts import GateResult
from tests.curation.tables import clip_id, fill, recipe


def result(gate: Gate, values: list[float]) -> GateResult:
    low = np.array(values)
    passed = gate.passes(low, low)
    known = ~np.isnan(low)
    return GateResult(gate, low, low, passed & known, known & ~passed, ~known, np.zeros(len(low), bool))


# Ten clips: the good ones have values above 40, except one.
VALUES = [10.0, 20.0, 30.0, 35.0, 38.0, 45.0, 50.0, 60.0, 70.0, 80.0]
GOOD = np.array([False, False, False, True, False, True, False, True, True, True])


def test_precision_and_recall_with_their_intervals() -> None:
    found = gate_truth("flow", result(Gate(low=40), VALUES), GOOD)
    assert (found.agreement.good_passed, found.agreement.bad_passed) == (4, 1)
    assert found.precision is not None
    assert found.recall is not None
    assert (found.precision.hits, found.precision.of, found.recall.hits, found.recall.of) == (4, 5, 4, 5)
    # Wilson's interval for 4 of 5 stands in any table.
    assert (round(found.precision.low, 3), round(found.precision.high, 3)) == (0.376, 0.964)
    assert found.silent is None
    assert found.clips == 10


def test_the_threshold_for_a_wanted_precision_loses_the_fewest_good_ones() -> None:
    reached = gate_truth("flow", result(Gate(low=40), VALUES), GOOD, wanted=0.9).for_precision
    assert reached is not None
    # Above 50 there are good ones only, and three of five; any lower end lets the bad one at 50 in.
    assert reached.range == ">= 55"
    assert (reached.precision.share, reached.recall.hits) == (1.0, 3)
    lower = gate_truth("flow", result(Gate(low=40), VALUES), GOOD, wanted=0.7).for_precision
    assert lower is not None
    assert (lower.recall.hits, lower.precision.hits, lower.precision.of) == (5, 5, 7)
    assert 30 < Gate.parse(lower.range).low <= 35


def test_no_threshold_reaches_what_no_gate_can_give() -> None:
    mixed = np.array([True, False] * 5)
    assert for_precision(Gate(high=100), np.full(10, 5.0), mixed, 0.9) is None
    assert for_precision(Gate(low=0), np.array(VALUES), np.zeros(10, bool), 0.9) is None


def test_both_ends_of_a_gate_move() -> None:
    values = np.array([1, 2, 3, 10, 11, 12, 13, 20, 21, 22], float)
    good = np.array([False] * 3 + [True] * 4 + [False] * 3)
    reached = for_precision(Gate(0, 100), values, good, 1.0)
    assert reached is not None
    gate = Gate.parse(reached.range)
    assert 3 < gate.low <= 10
    assert 13 <= gate.high < 20
    assert reached.recall.share == 1


@pytest.mark.parametrize(
    ("values", "good", "silent"),
    [
        ([float("nan")] * 6, [True, False] * 3, "no marked clip has its score"),
        ([50.0] * 6, [True] * 5 + [False], "too few marks: 5 good, 1 bad, of each 3 are needed"),
        ([50.0] * 6, [True, False] * 3, "it rejects no marked clip"),
        ([50.0] * 5 + [30.0], [True, False] * 3, None),
    ],
)
def test_a_gate_that_the_marks_say_nothing_about(values: list[float], good: list[bool], silent: str | None) -> None:
    assert gate_truth("flow", result(Gate(low=40), values), np.array(good)).silent == silent


def test_the_same_marks_propose_the_same_gate_as_before() -> None:
    assert propose(Gate(low=40), np.array(VALUES), GOOD) == Gate(low=40)


def test_a_share_of_none_is_none() -> None:
    assert Share.among(0, 0) is None


# ── of a workspace ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return fill(tmp_path / "workspace")


def of(workspace: Workspace) -> TierTruth:
    chosen = recipe()
    scores = clip_scores(workspace, chosen, [])
    return truth(scores, "pretrain", chosen.tiers["pretrain"], agreed(workspace))


def test_raters_who_do_not_agree_do_not_count(workspace: Workspace) -> None:
    one, other = Marks(workspace, "one"), Marks(workspace, "other")
    one.add(clip_id("a"), "good", {})
    one.add(clip_id("b"), "good", {})
    other.add(clip_id("b"), "bad", {})
    other.add(clip_id("c"), "bad", {})
    one.add(clip_id("d"), "good", {})
    one.add(clip_id("d"), None, {})  # The mark is taken back.
    assert agreed(workspace) == {clip_id("a"): True, clip_id("c"): False}


def test_a_tier_beside_marks(workspace: Workspace) -> None:
    marks = Marks(workspace, "one")
    for letter, mark in zip("abcdefg", ["good", "good", "bad", "bad", "good", "good", "bad"], strict=True):
        marks.add(clip_id(letter), mark, {})
    marks.add("0" * 32, "good", {})  # No clip has this id.
    found = of(workspace)
    assert (found.good, found.bad) == (3, 3)  # The clip f is an error.
    # The tier pretrain keeps a and rejects b, c, d and e; g is undecided and counts neither as passed nor as failed.
    agreement = found.whole.agreement
    assert (agreement.good_passed, agreement.good_failed, agreement.bad_passed, agreement.bad_failed) == (1, 2, 0, 2)
    width = next(one for one in found.gates if one.gate == "width")
    assert (width.agreement.good_passed, width.agreement.bad_failed) == (2, 1)
    said, rows, answers = told(found)
    assert "3 clips were marked good by eye and 3 bad" in said
    assert [row["gate"] for row in rows] == ["all gates", "width", "psnr", "artifacts", "text_similarity"]
    assert answers == []


def test_it_is_written_beside_a_dataset(workspace: Workspace, tmp_path: Path) -> None:
    chosen = recipe()
    scores = clip_scores(workspace, chosen, [])
    gates = chosen.tiers["pretrain"]
    assert write_truth(workspace, scores, "pretrain", gates, tmp_path) == {}
    assert not (tmp_path / TRUTH).exists()
    Marks(workspace, "one").add(clip_id("a"), "good", {})
    facts = write_truth(workspace, scores, "pretrain", gates, tmp_path)
    stored = json.loads((tmp_path / TRUTH).read_text())
    assert (stored["tier"], stored["good"], stored["bad"], stored["wanted"]) == ("pretrain", 1, 0, 0.9)
    assert [gate["gate"] for gate in stored["gates"]] == list(gates)
    assert facts["marks"].endswith("All numbers: truth.json.")
    assert {row["silent"] for row in facts["truth"]} != {""}


def test_marks_that_cannot_be_read_cost_no_dataset(workspace: Workspace, tmp_path: Path) -> None:
    place = Path(workspace.path) / "studio" / "marks"
    place.mkdir(parents=True)
    (place / "broken.jsonl").write_text("no mark\n")
    chosen = recipe()
    facts = write_truth(workspace, clip_scores(workspace, chosen, []), "pretrain", chosen.tiers["pretrain"], tmp_path)
    assert facts["marks"].startswith("The result of marking is left out")
    assert str(tmp_path) not in facts["marks"]
    assert not (tmp_path / TRUTH).exists()
