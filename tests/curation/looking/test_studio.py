"""The studio over HTTP, as a page asks it: against `longtake tiers`, and against those who should not get in."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from longtake.curation.errors import SetupError
from longtake.curation.looking.stats import statistics
from longtake.curation.looking.studio.asked import StudioError
from longtake.curation.looking.studio.marks import FEWEST, Marks, agreement, propose, this_user
from longtake.curation.looking.studio.session import Session
from longtake.curation.looking.studio.writing import save
from longtake.curation.looking.tiering import retier
from longtake.curation.recipe import load_recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.manifests.folder import Folder
from tests.curation.looking.studio_server import Studio, studio
from tests.curation.looking.test_report import HOSTILE, cut_away, hostile
from tests.curation.tables import clip_id, fill, recipe

TIERS: dict[str, dict[str, list[float | None]]] = {
    "pretrain": {"width": [1280, None], "psnr": [4, 20], "artifacts": [None, 0.05], "text_similarity": [None, 0.98]},
    "finetune": {"width": [1280, None], "psnr": [4, 10]},
}
MOVED = {
    "pretrain": {"width": [600, None], "psnr": [4, 30], "artifacts": [None, 0.05]},
    "finetune": {"psnr": [9.5, None]},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return hostile(tmp_path_factory.mktemp("studio") / "workspace")


@pytest.fixture(scope="module")
def served(workspace: Workspace) -> Iterator[Studio]:
    with studio(workspace.path) as running:
        yield running


def decide(served: Studio, tiers: Any = TIERS, **more: Any) -> Any:
    return served.ask("/api/decide", {"tiers": tiers, "tier": "pretrain", **more}).data


def look(served: Studio, letter: str) -> Any:
    return served.ask("/api/clip", {"tiers": TIERS, "tier": "pretrain", "clip": clip_id(letter)})


def files(workspace: Workspace) -> dict[str, str]:
    """Everything in a workspace, by content."""
    found = sorted(path for path in Path(workspace.path).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_counts_are_those_of_stats(served: Studio, workspace: Workspace) -> None:
    expected = statistics(workspace, recipe())
    answer = decide(served)
    for tier, counts in answer["counts"].items():
        moved = {"entering", "leaving", "entering_seconds", "leaving_seconds"}
        assert {key: value for key, value in counts.items() if key not in moved} == expected.summary["tiers"][tier]
        assert (counts["entering"], counts["leaving"]) == (0, 0)
    assert answer["funnel"] == expected.funnels["pretrain"]


def test_a_moved_gate_tells_what_tiers_tells(served: Studio, workspace: Workspace) -> None:
    changed = recipe(tiers={t: {g: list(ends) for g, ends in gates.items()} for t, gates in MOVED.items()})
    counts = decide(served, MOVED)["counts"]
    for change in retier(workspace, recipe(), changed).tiers:
        now = counts[change.tier]
        assert (now["kept"], now["entering"], now["leaving"], now["undecided"]) == (
            change.after, change.entering, change.leaving, change.undecided,
        )  # fmt: skip


def test_the_film_of_a_gate_is_sorted_and_has_a_line(served: Studio) -> None:
    question = {"tiers": TIERS, "tier": "pretrain", "gate": "psnr"}
    film = served.ask("/api/film", question).data
    shown = [(clip["id"][0], clip["score"], clip["verdict"], clip["measured"]) for clip in film["clips"]]
    scores = [score for _, score, _, _ in shown]
    assert scores == sorted(scores)
    # Another gate rejects e and h; c has no score, and j an old one; g lacks its similarity.
    assert {letter for letter, *_ in shown} == set("abdg1") - {"b"}
    assert shown[-1] == ("d", 25, "rejected", False)
    assert ("g", 8, "undecided", False) in shown
    assert film["of"] == len(shown)
    line = decide(served, gate="psnr")["line"]
    assert line == [0, len(shown) - 1]  # Only d lies outside.
    pages = [served.ask("/api/film", {**question, "start": at, "count": 1}).data["clips"] for at in range(len(shown))]
    assert [clip["id"] for page in pages for clip in page] == [clip["id"] for clip in film["clips"]]
    assert served.ask("/api/film", {**question, "start": 99}).data["clips"] == []


def test_what_a_place_of_an_end_keeps_is_what_the_gate_set_there_keeps(served: Studio) -> None:
    for tier, gates in TIERS.items():
        for name, ends in gates.items():
            for i, end in enumerate(("low", "high")):
                question = {"tiers": TIERS, "tier": tier, "gate": name, "end": end}
                found = served.ask("/api/focus", question).data
                assert found["places"] == sorted(found["places"])
                for at in {0, len(found["places"]) // 2, len(found["places"]) - 1}:
                    moved = list(ends)
                    moved[i] = found["places"][at]
                    if None not in moved and moved[0] > moved[1]:
                        continue
                    there = decide(served, {**TIERS, tier: {**gates, name: moved}}, tier=tier, gate=name)
                    counts = there["counts"][tier]
                    sweep = found["sweep"]
                    for key in ("kept", "undecided", "rejected"):
                        assert sweep[key][at] == counts[key], (tier, name, end, moved)
                    assert sweep["seconds"][at] == pytest.approx(there["kept_seconds"][tier])
                    assert [left[at] for left in sweep["left"]] == [row["left"] for row in there["funnel"]]
                    assert found["ranks"][at] == there["line"][i]


def test_an_empty_film_says_why(served: Studio) -> None:
    tiers = {**TIERS, "pretrain": {"width": [9000, None], "psnr": [4, 20]}}
    found = served.ask("/api/focus", {"tiers": tiers, "tier": "pretrain", "gate": "psnr", "end": "low"}).data
    assert (found["clips"], found["empty"]["gates"]) == (0, [["width", found["empty"]["scored"]]])


def test_filters_by_source_address_and_caption(served: Studio) -> None:
    assert dict(served.ask("/api/sources").data)["/videos/[red]v1["] == 10
    assert decide(served, selection={"source": "/videos/[red]v1["})["selected"] == 10
    assert decide(served, selection={"uri": "[RED]V1"})["selected"] == 10
    assert decide(served, selection={"caption": "HERRING"})["counts"]["pretrain"]["kept"] == 1
    assert decide(served, selection={"caption": "no such words"})["selected"] == 0
    assert decide(served, selection={"uri": ".*"})["selected"] == 0  # The selection is a text, not a pattern.
    assert decide(served)["selected"] == 12


def test_another_recipe_to_hold_against(served: Studio) -> None:
    counts = decide(served, against={"recipe": "embedded"})["counts"]
    # The flow of every clip is missing under the other recipe.
    assert counts["pretrain"]["entering"] == counts["pretrain"]["kept"]
    question = {"tiers": TIERS, "tier": "pretrain", "against": {"recipe": "../../recipe"}}
    assert served.ask("/api/decide", question).status == 400
    assert decide(served)["counts"]["pretrain"]["entering"] == 0


def test_two_settings_side_by_side(served: Studio, workspace: Workspace) -> None:
    """A is TIERS and B is MOVED, whoever else asks about something else meanwhile."""
    changed = recipe(tiers={t: {g: list(ends) for g, ends in gates.items()} for t, gates in MOVED.items()})
    decide(served, {**TIERS, "finetune": {}})
    found = served.ask("/api/beside", {"tiers": MOVED, "tier": "finetune", "against": {"tiers": TIERS}}).data
    for change in retier(workspace, recipe(), changed).tiers:
        told = found["tiers"][change.tier]
        assert (told["a"]["clips"], told["b"]["clips"]) == (change.before, change.after)
        assert (told["entering"], told["leaving"]) == (change.entering, change.leaving)
        assert told["b"]["seconds"] - told["a"]["seconds"] == told["entering_seconds"] - told["leaving_seconds"]
    for which in ("entering", "leaving"):
        assert len(found["cards"][which]) == found["tiers"]["finetune"][which]


def test_all_of_one_clip(served: Studio) -> None:
    told = look(served, "b").data
    assert told["alone"] == {"pretrain": "alone", "finetune": "alone"}
    assert look(served, "d").data["alone"] == {
        "pretrain": "alone as far as measured", "finetune": "alone",
    }  # fmt: skip
    assert told["reasons"]["pretrain"] == ["text_similarity 0.99 is outside <= 0.98 by 0.01"]
    assert told["failures"]["finetune"] == [{"gate": "psnr", "range": "[4, 10]", "score": 15.0, "excess": 5.0}]
    assert served.ask("/api/clip", {"tier": "pretrain", "clip": "nonsense"}).status == 404
    shown = look(served, "1").data
    assert shown["uri"].startswith("/videos/<script>alert(1)</script>")
    # The server gives the whole text; the page puts it in as text.
    assert len(shown["sub_captions"][0]) == len(HOSTILE)
    picture = served.ask(f"/clips/{clip_id('1')}/2.jpg")
    assert (picture.headers["content-type"], picture.body[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    assert served.ask(f"/clips/{clip_id('1')}/7.jpg").status == 404
    gone = served.ask(f"/clips/{clip_id('a')}/0.jpg")
    assert gone.status == 404
    assert gone.body == b"No picture of this clip is stored, and its source is not there."


def test_a_clip_says_what_was_cropped(tmp_path: Path) -> None:
    """What the page puts beside the clip's place in its film."""
    session = Session(cut_away(tmp_path / "workspace"), recipe(crop="borders"))
    session.load()
    assert session.clip({"tier": "pretrain", "clip": clip_id("a")})["crop"] == "cropped to 1280×536"
    assert session.clip({"tier": "pretrain", "clip": clip_id("d")})["crop"] == ""


def test_lists_of_clips(served: Studio) -> None:
    decide(served)

    def listed(which: str, **more: str) -> str:
        found = served.ask("/api/clips", {"tiers": TIERS, "tier": "pretrain", "which": which, **more}).data
        clips = found["clips"]
        assert found["of"] == len(clips)
        return "".join(sorted(clip["id"][0] for clip in clips))

    assert listed("kept") == "1a"
    first = served.ask("/api/clips", {"tiers": TIERS, "tier": "pretrain", "which": "kept"}).data["clips"][0]
    assert (first["id"], first["frames"]) == (clip_id("1"), True)  # A clip with frames comes first.
    assert listed("undecided") == "gj"
    assert listed("error") == "2fi"
    assert (listed("alone", gate="psnr"), listed("alone so far", gate="psnr")) == ("", "d")
    assert (listed("alone", gate="text_similarity"), listed("alone so far", gate="text_similarity")) == ("b", "")
    assert served.ask("/api/clips", {"tier": "pretrain", "which": "__class__"}).status == 400


@pytest.mark.parametrize(
    "tiers",
    [
        None,
        {},
        {"pretrain": {}},
        {**TIERS, "third": {}},
        {**TIERS, "finetune": {"nonsense": [1, 2]}},
        {**TIERS, "finetune": {"psnr": [2, 1]}},
        {**TIERS, "finetune": {"psnr": [None, None]}},
        {**TIERS, "finetune": {"psnr": [True, None]}},
        {**TIERS, "finetune": {"psnr": ["1", None]}},
        {**TIERS, "finetune": {"psnr": 3}},
        {**TIERS, "finetune": [1]},
    ],
)
def test_senseless_gates_are_refused(served: Studio, tiers: Any) -> None:
    answer = served.ask("/api/decide", {"tiers": tiers, "tier": "pretrain"})
    assert (answer.status, len(answer.body) > 5) == (400, True)


def test_numbers_that_are_none_are_refused(served: Studio) -> None:
    text = json.dumps({"tiers": {**TIERS, "finetune": {"psnr": [math.nan, 1]}}, "tier": "pretrain"}).encode()
    assert served.ask("/api/decide", text).status == 400
    assert served.ask("/api/decide", b"[1]").status == 400
    assert served.ask("/api/decide", b"no json").status == 400
    assert served.ask("/api/decide", b" " * 1_100_000).status == 413


ASKED = [
    "decide", "focus", "film", "beside", "clips", "clip", "mark", "agreement", "audit", "cost", "funnels", "save",
]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"tiers": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"tiers": ' * 50_000,
        b'{"tier": ' + b"9" * 400 + b"}",
        b'{"tier": ' + b"9" * 5000 + b"}",
        b'{"tiers": {"pretrain": {"psnr": [' + b"9" * 400 + b', null]}, "finetune": {}}, "tier": "pretrain"}',
        b'{"tiers": {"pretrain": {"psnr": [1e999, null]}, "finetune": {}}, "tier": "pretrain"}',
        b'{"tiers": {"pretrain": {"psnr": [Infinity, null]}, "finetune": {}}, "tier": "pretrain"}',
        b'{"tier": NaN}', b'{"tier": "\\ud800"}', b'{"clip": "\\ud800"}', b"\xff\xfe", b"", b"null", b"7", b'"a"', b"{",
        '{"tier": "pretrain"}'.encode("utf-16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("what", ASKED)
def test_what_is_no_question_is_refused(served: Studio, what: str, body: bytes) -> None:
    answer = served.ask(f"/api/{what}", body)
    assert (answer.status, len(answer.body) < 1000) == (400, True), answer.body[:500]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# The keys that a question may hold, so that arbitrary values stand at places where they are read.
KEYS = (
    "tiers", "tier", "gate", "end", "selection", "whole", "which", "clip", "mark", "recipe", "recipes", "name", "replace",
    "against", "start", "count", "seed", "who", "note",
)  # fmt: skip
SENSIBLE = st.sampled_from(
    [
        TIERS,
        "pretrain",
        "psnr",
        "low",
        {"uri": "v"},
        True,
        "alone",
        "good",
        clip_id("a"),
        "as it began",
        ["base"],
        {"uri": [1]},
    ]
)
TIERS_GONE_WRONG = st.fixed_dictionaries(
    {"pretrain": st.dictionaries(st.sampled_from(["psnr", "x"]), VALUES), "finetune": VALUES}
)
QUESTIONS = st.dictionaries(st.sampled_from(KEYS), SENSIBLE | VALUES | TIERS_GONE_WRONG)


@pytest.mark.parametrize("what", ASKED)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=QUESTIONS | VALUES)
def test_no_question_is_a_fault_of_the_server(played: Studio, what: str, question: Any) -> None:
    body = json.dumps(question).encode()  # Python also writes NaN and Infinity.
    assert played.ask(f"/api/{what}", body).status in (200, 400, 404), body


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of its own: some of the questions are answered, and mark or save something."""
    with studio(fill(tmp_path_factory.mktemp("played") / "workspace").path) as running:
        yield running


@pytest.mark.parametrize("number", ["9" * 400, "9" * 6000, "-1", "²", "1.5"])
def test_no_number_in_an_address_is_a_fault_of_the_server(served: Studio, number: str) -> None:
    path = quote(number)
    assert served.ask(f"/clips/{clip_id('1')}/{path}.jpg").status == 404
    for wanted in (f"bytes={number}-", f"bytes=-{number}", f"bytes=0-{number}"):
        answer = served.ask(f"/clips/{clip_id('1')}/source.video", range=wanted.encode().decode("latin-1"))
        assert answer.status in (400, 404, 416)


# ── saving ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_studios_that_save_under_one_name_one_is_told_that_it_is_there(tmp_path: Path) -> None:
    """Both were told that it is saved, and the tiers of one were lost."""
    target = fill(tmp_path / "workspace")
    sessions = [Session(target, recipe()) for _ in range(8)]
    with ThreadPoolExecutor(len(sessions)) as pool:
        for number in range(5):
            told = list(pool.map(lambda one: save(one, {"tiers": TIERS, "name": f"a{number}"}), sessions))  # noqa: B023
            assert sum("saved" in one for one in told) == 1


def test_only_marks_are_written_before_save(tmp_path: Path) -> None:
    target = fill(tmp_path / "workspace")
    before = files(target)
    with studio(target.path) as running:
        decide(running, MOVED, gate="psnr", end="low")
        running.ask("/api/agreement", {"tier": "pretrain"})
        running.ask("/api/clips", {"tier": "pretrain", "which": "kept"})
        look(running, "a")
        running.ask("/api/focus", {"tier": "pretrain", "gate": "psnr", "end": "low"})
        running.ask("/api/cost", {"tier": "pretrain"})
        assert files(target) == before
        running.ask("/api/mark", {"clip": clip_id("a"), "mark": "good"})
        running.ask("/api/mark", {"clip": clip_id("b"), "mark": "bad"})
        running.ask("/api/mark", {"clip": clip_id("b"), "mark": None})
        (marks,) = set(files(target)) - set(before)
        assert Path(marks).parent == Path(target.path, "studio", "marks")
        saved = running.ask("/api/save", {"tiers": MOVED, "name": "mine"}).data
        assert set(files(target)) - set(before) == {marks, f"{target.path}/studio/mine.yaml"}
        assert {path: digest for path, digest in files(target).items() if path in before} == before
        assert running.ask("/api/save", {"tiers": TIERS, "name": "mine"}).data == {"exists": "studio/mine.yaml"}
        assert "studio/mine.yaml" in running.ask("/api/state").data["recipes"]
    made = load_recipe(saved["saved"])
    assert made.name == "mine"
    expected = {tier: {gate: Gate.parse(ends) for gate, ends in gates.items()} for tier, gates in MOVED.items()}
    assert {tier: dict(gates) for tier, gates in made.tiers.items()} == expected
    assert yaml.safe_load(saved["yaml"])["filters"] == recipe().model_dump(mode="json")["filters"]
    done = CliRunner().invoke(app, ["tiers", target.path, "-r", saved["saved"]])
    assert done.exit_code == 0, done.output
    with studio(target.path) as running:  # A new studio has the marks again.
        assert running.ask("/api/marks", {}).data["marks"] == {clip_id("a"): "good"}


@pytest.mark.parametrize(
    "name", ["../mine", "a/b", "/tmp/x", ".hidden", "", "x" * 65, "mine.yaml", "a\x00b", "..", 3, None]
)
def test_a_name_cannot_lead_out_of_the_folder(served: Studio, workspace: Workspace, name: Any) -> None:
    before = files(workspace)
    assert served.ask("/api/save", {"tiers": TIERS, "name": name}).status == 400
    assert files(workspace) == before


def test_an_exact_threshold_survives_the_file(tmp_path: Path) -> None:
    session = Session(fill(tmp_path / "workspace"), recipe())
    session.load()
    ends = [0.1 + 0.2, 1e7 + 1 / 3]
    saved = save(session, {"tiers": {**TIERS, "finetune": {"psnr": ends}}, "name": "exact"})
    gate = load_recipe(saved["saved"]).tiers["finetune"]["psnr"]
    assert [gate.low, gate.high] == ends


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_precision_and_recall_by_hand() -> None:
    passed = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    failed = np.array([0, 0, 0, 1, 1, 1, 0], bool)  # The last clip has no score.
    good = np.array([1, 1, 0, 1, 0, 0, 1], bool)
    found = agreement(passed, failed, good)
    assert (found.good_passed, found.bad_passed, found.good_failed, found.bad_failed) == (2, 1, 1, 2)
    assert (found.precision, found.recall) == (2 / 3, 2 / 3)
    none = np.zeros(0, bool)
    assert agreement(none, none, none).precision is None


def quality(gate: Gate, values: np.ndarray, good: np.ndarray) -> float:
    through = gate.passes(values, values)
    return float((through[good].mean() + (~through)[~good].mean()) / 2)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12).map(lambda i: i / 4), st.booleans()), min_size=1, max_size=30),
    st.sampled_from(["low", "high", "both"]),
)
def test_no_threshold_agrees_better_than_the_proposed_one(marked: list[tuple[float, bool]], ends: str) -> None:
    values, good = (np.array(column) for column in zip(*marked, strict=True))
    gate = {"low": Gate(low=1), "high": Gate(high=1), "both": Gate(0.3, 2)}[ends]
    found = propose(gate, values, good)
    if good.sum() < FEWEST or (~good).sum() < FEWEST:
        assert found is None
        return
    assert found is not None
    assert (math.isinf(found.low), math.isinf(found.high)) == (math.isinf(gate.low), math.isinf(gate.high))
    cuts = np.arange(-0.125, 3.3, 0.25)  # A cut lies between each two neighbouring values.
    lows = [-math.inf] if math.isinf(gate.low) else cuts
    highs = [math.inf] if math.isinf(gate.high) else cuts
    best = max(quality(Gate(a, b), values, good) for a, b in itertools.product(lows, highs) if a <= b)
    assert quality(found, values, good) >= best - 1e-9


def test_a_proposal_is_a_round_number_between_good_and_bad() -> None:
    values = np.array([10.1, 12.3, 31.7, 41.234, 52.1, 60.0])
    good = np.array([0, 0, 0, 1, 1, 1], bool)
    assert propose(Gate(low=20), values, good) == Gate(low=40)
    assert propose(Gate(low=35), values, good) == Gate(low=35)  # A moved end would gain nothing.
    assert propose(Gate(high=20), -values, good) == Gate(high=-40)


def test_marks_over_http(served: Studio, workspace: Workspace) -> None:
    for letter, mark in zip("abcdg1", ["good", "bad", "bad", "bad", "good", "good"], strict=True):
        marks = served.ask("/api/mark", {"clip": clip_id(letter), "mark": mark}).data["marks"]
    assert marks[clip_id("b")] == "bad"
    found = served.ask("/api/agreement", {"tiers": TIERS, "tier": "pretrain"}).data
    assert (found["good"], found["bad"]) == (3, 3)
    psnr = found["gates"]["psnr"]  # The clip c has no psnr; d alone is stopped.
    assert [psnr[k] for k in ("good_passed", "good_failed", "bad_passed", "bad_failed")] == [3, 0, 1, 1]
    assert (psnr["precision"], psnr["recall"]) == (3 / 4, 1)
    low, high = psnr["precision_interval"]
    assert (round(low, 2), round(high, 2)) == (0.30, 0.95)  # Wilson's interval for 3 of 4 has these ends.
    assert psnr["silent"] == "too few marks: 3 good, 2 bad, of each 3 are needed"
    assert found["gates"]["width"]["for_precision"] is None  # The clip b is as wide as the good ones.
    assert [found["tier"][k] for k in ("good_passed", "good_failed", "bad_passed", "bad_failed")] == [2, 0, 0, 3]
    assert served.ask("/api/mark", {"clip": "nonsense", "mark": "good"}).status == 404
    assert served.ask("/api/mark", {"clip": clip_id("a"), "mark": "<b>"}).status == 400


def test_other_recipes_over_http(served: Studio) -> None:
    decide(served)
    tiers = served.ask("/api/state").data["tiers"]
    tiers["finetune"] = {"width": [1900, None]}  # These gates are set in the studio only, and saved nowhere.
    found = served.ask("/api/funnels", {"tiers": tiers, "recipes": ["open-sora-2", "cosmos"]}).data
    kept = found["tables"][0]
    rows = {row[0]: dict(zip(kept["heads"][1:], row[1:], strict=True)) for row in kept["rows"]}
    assert list(rows) == [
        "a: as set here/pretrain", "b: as set here/finetune", "c: open-sora-2/preprocessing", "d: cosmos/pretrain",
    ]  # fmt: skip
    # The clips a, b, g, h, j and 1 are 1920 wide, and i is an error.
    assert rows["b: as set here/finetune"]["kept"] == 6
    assert served.ask("/api/funnels", {"tiers": tiers, "recipes": ["nonsense"]}).status == 400
    assert served.ask("/api/funnels", {"tiers": tiers, "recipes": "cosmos"}).status == 400
    assert served.ask("/api/funnels", {"recipes": ["cosmos"]}).status == 400


def marked(workspace: Workspace) -> dict[str, dict[str, bool]]:
    return Marks(workspace, "a reader").by_rater()


def test_a_mark_is_on_the_disk_when_it_is_answered(tmp_path: Path) -> None:
    """With who, when, and what was seen; a studio that is killed at once has lost nothing."""
    workspace = fill(tmp_path / "workspace")
    began = datetime.now(UTC)
    with studio(workspace.path, "--rater", "Ada L.") as running:
        running.ask("/api/mark", {"clip": clip_id("b"), "mark": "bad", "tiers": MOVED})
        (file,) = Path(workspace.path, "studio", "marks").glob("*.jsonl")
        (line,) = map(json.loads, file.read_text().splitlines())
        running.kill()
    assert file.name.startswith("Ada_L.-")
    assert (line["who"], line["clip"], line["mark"]) == ("Ada L.", clip_id("b"), "bad")
    assert began <= datetime.fromisoformat(line["when"]) <= datetime.now(UTC)
    assert line["gates"] == MOVED
    assert line["scores"]["text_similarity"] == 0.99
    assert set(line["scores"]) == set(recipe().filters)
    assert marked(workspace) == {"Ada L.": {clip_id("b"): False}}


def test_two_studios_on_one_workspace_lose_nothing(tmp_path: Path) -> None:
    """Two real servers, each asked by several threads at once: every mark is there, and each studio shows those of both."""
    workspace = fill(tmp_path / "workspace")
    letters = "abcdefghij"
    with (
        studio(workspace.path) as one,
        studio(workspace.path) as two,
        studio(workspace.path, "--rater", "bob") as other,
    ):
        asked = [
            (running, letter, mark)
            for running, mine in ((one, letters[::2]), (two, letters[1::2]), (other, letters[:3]))
            for letter in mine
            for mark in ("bad", None, "good")
        ]
        by_clip: dict[tuple[str, str], list[tuple[Any, str, str | None]]] = {}
        # The marks of one clip are sent in order, and those of different clips at the same time.
        for running, letter, mark in asked:
            by_clip.setdefault((running.url, letter), []).append((running, letter, mark))

        def ask(marks: list[tuple[Any, str, str | None]]) -> None:
            for running, letter, mark in marks:
                assert running.ask("/api/mark", {"clip": clip_id(letter), "mark": mark}).status == 200

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, by_clip.values()))
        both = {clip_id(letter): "good" for letter in letters}
        for running in (one, two):
            state = running.ask("/api/marks", {}).data
            assert (state["who"], state["marks"], state["others"]) == (this_user(), both, {"bob": 3})
        assert other.ask("/api/marks", {}).data["marks"] == {clip_id(letter): "good" for letter in letters[:3]}
        assert one.ask("/api/agreement", {"tier": "pretrain"}).data["good"] == 10
    assert marked(workspace) == {
        this_user(): {clip_id(letter): True for letter in letters},
        "bob": {clip_id(letter): True for letter in letters[:3]},
    }
    lines = [
        line for file in Path(workspace.path, "studio", "marks").iterdir() for line in file.read_text().splitlines()
    ]
    assert len(lines) == len(asked), "nothing was overwritten"


def test_the_newest_mark_of_a_rater_counts_whichever_file_holds_it(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace")
    first, second = Marks(workspace, "ada"), Marks(workspace, "ada")
    first.add("x", "good", {})
    second.add("x", "bad", {})
    second.add("y", "good", {})
    assert first.own() == second.own() == {"x": False, "y": True}
    first.add("x", None, {})
    assert second.own() == {"y": True}
    with pytest.raises(SetupError, match="a rater's name is a text of 1 to 64"):
        Marks(workspace, "a\x1b]0;b\x07")


def test_marks_in_an_object_store() -> None:
    workspace = Workspace("memory://marks/workspace")
    one, two = Marks(workspace, "ada"), Marks(workspace, "bob")
    for clip in "abc":
        one.add(clip, "good", {})
        two.add(clip, "bad", {})
    assert one.by_rater() == {"ada": dict.fromkeys("abc", True), "bob": dict.fromkeys("abc", False)}


def test_half_a_line_is_no_mark_and_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of a line: the mark is refused, and the next one goes to another file."""
    workspace = fill(tmp_path / "workspace")
    marks = Marks(workspace, "ada")
    marks.add("a", "good", {})
    append = Folder.append

    def full(self: Folder, name: str, data: bytes) -> None:
        append(self, name, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Folder, "append", full)
    with pytest.raises(SetupError, match=r"cannot write .*jsonl: No space left"):
        marks.add("b", "good", {})
    monkeypatch.setattr(Folder, "append", append)
    assert marks.own() == {"a": True}
    marks.add("b", "bad", {})
    assert Marks(workspace, "ada").own() == {"a": True, "b": False}


@pytest.mark.parametrize(
    "line", ['{"who": "a", "when": "x", "clip": "b", "mark": "good"}', "[" * 100_000, "7", "\\xff"]
)
def test_marks_that_cannot_be_read_stop_the_start(tmp_path: Path, line: str) -> None:
    workspace = fill(tmp_path / "workspace")
    Marks(workspace, "ada").add("a", "good", {})
    (file,) = Path(workspace.path, "studio", "marks").iterdir()
    file.write_text(file.read_text() + line + "\n")
    done = CliRunner().invoke(app, ["studio", workspace.path, "--port", "0"])
    assert (done.exit_code, f"line 2 of {file}" in done.output.replace("\n", "")) == (3, True)


def test_several_raters_by_name_with_notes(tmp_path: Path) -> None:
    """One studio, several people at it: each mark is its rater's, and what they say of the same clips is compared."""
    with studio(fill(tmp_path / "workspace").path) as running:
        said = {"ada": "ggbgb", "bob": "ggbbb"}
        for who, marks in said.items():
            for letter, mark in zip("abcde", marks, strict=True):
                word = {"g": "good", "b": "bad"}[mark]
                question = {"clip": clip_id(letter), "mark": word, "who": who, "note": f"{letter} by {who}"}
                assert running.ask("/api/mark", question).data["who"] == who
        found = running.ask("/api/marks", {"who": "bob"}).data
        assert (found["who"], len(found["marks"]), found["others"]) == ("bob", 5, {"ada": 5})
        assert found["notes"][clip_id("a")] == "a by bob"
        (pair,) = found["raters"]["pairs"]
        assert (pair["clips"], pair["same"], round(pair["kappa"], 2)) == (5, 4, 0.62)  # (4/5 - 12/25) / (13/25)
        assert found["raters"]["disputed"] == [clip_id("d")]
        told = running.ask("/api/agreement", {"tier": "pretrain", "who": "bob"}).data
        assert (told["good"], told["bad"]) == (2, 3)
        assert [clip["id"] for clip in told["lost"]["clips"]] == [clip_id("b")]
        assert told["lost"]["clips"][0]["by"] == ["text_similarity"]
        for name in ("", " ", "a\nb", "x" * 65):
            assert running.ask("/api/mark", {"clip": clip_id("a"), "mark": "good", "who": name}).status == 400
        assert running.ask("/api/mark", {"clip": clip_id("a"), "mark": "good", "note": "x" * 2001}).status == 400


def test_an_audit_draws_kept_clips_and_counts_their_marks(served: Studio) -> None:
    question = {"tiers": TIERS, "tier": "pretrain", "who": "auditor", "seed": 5}
    found = served.ask("/api/audit", question).data
    assert (found["kept"], sorted(clip["id"][0] for clip in found["clips"])) == (2, ["1", "a"])
    assert served.ask("/api/audit", question).data == found
    served.ask("/api/mark", {"clip": clip_id("a"), "mark": "good", "who": "auditor"})
    served.ask("/api/mark", {"clip": clip_id("b"), "mark": "bad", "who": "auditor"})  # The clip b was not drawn.
    told = served.ask("/api/audit", question).data["told"]
    assert (told["drawn"], told["marked"], told["good"], told["share"]) == (2, 1, 1, 1.0)
    assert round(told["low"], 2) == 0.21  # Wilson's interval for 1 of 1 has this low end.


def test_what_a_change_costs(served: Studio) -> None:
    """Nothing has to be measured to keep less. To keep more, d needs what was not measured of it."""

    def rows(tiers: Any) -> dict[str, int]:
        return {row["stage"]: row["rows"] for row in served.ask("/api/cost", {"tiers": tiers, "tier": "pretrain"}).data}

    before = rows(TIERS)
    after = rows({**TIERS, "pretrain": {"width": [1280, None], "psnr": [4, 30], "artifacts": [None, 0.05]}})
    assert after["scan"] > before["scan"] or after["score"] > before["score"]
    cpu = served.ask("/api/cost", {"tiers": TIERS, "tier": "pretrain"}).data[0]["cpu_seconds"]
    assert cpu == pytest.approx(before["scan"] * 38 / 4)  # Two runs of the scan took 38 s of CPU for 4 films.


# ── who gets in ──────────────────────────────────────────────────────────────────────────────────────────────────────

QUESTION = {"tiers": TIERS, "tier": "pretrain"}


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "[::2]:80", ""]
)
def test_other_names_of_this_machine_are_refused(served: Studio, host: str) -> None:
    assert served.ask("/api/state", host=host).status == 403
    assert served.ask("/", host=host).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_elsewhere_are_refused(served: Studio, site: str) -> None:
    for path in ("/api/state", f"/clips/{clip_id('1')}/2.jpg", "/static/studio.js"):
        assert served.ask(path, sec_fetch_site=site, sec_fetch_mode="no-cors").status == 403
    assert served.ask("/api/decide", QUESTION, sec_fetch_site=site, sec_fetch_mode="cors").status == 403
    assert served.ask("/", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe").status == 403
    assert served.ask("/", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document").status == 200


def test_questions_of_other_origins_and_forms_are_refused(served: Studio) -> None:
    for origin in ("https://evil.example", "null", served.url.rstrip("/") + ".evil.example"):
        assert served.ask("/api/decide", QUESTION, origin=origin).status == 403
    body = json.dumps(QUESTION).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert served.ask("/api/decide", body, content_type=kind).status == 400
        assert served.ask("/api/decide", body, content_type=kind, sec_fetch_site="cross-site").status == 403
    assert served.ask("/api/decide", QUESTION, origin=served.url.rstrip("/")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../session.py", "/static/..%2fsession.py", "/static/%2e%2e/session.py", "/static/....//x", "/static//etc/passwd",
        "/clips/..%2f..%2f..%2fetc%2fpasswd/source.video", "/clips/%2e%2e/source.video", "/clips/../../../etc/passwd",
        "/api/playing/..%2f..%2frecipe.yaml", f"/clips/{'a' * 32}/..%2f..%2frecipe.video", "//etc/passwd", "/recipe.yaml",
    ],
)  # fmt: skip
def test_no_path_leads_out(served: Studio, path: str) -> None:
    answer = served.ask(path)
    assert answer.status == 404
    assert b"root:" not in answer.body


def test_the_page_may_load_from_here_only(served: Studio) -> None:
    for path in ("/", "/static/studio.js", "/api/state", "/nonsense"):
        headers = served.ask(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_away_from_this_machine_a_token_is_asked_for(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace")
    with studio(workspace.path, "--host", "0.0.0.0") as running:
        token = running.url.partition("?token=")[2]
        assert len(token) >= 24
        for path in ("/", "/api/state", "/?token=", "/?token=wrong", "/static/studio.js"):
            assert running.ask(path).status == 403
        page = running.ask(f"/?token={token}")
        assert page.status == 200
        cookie, *marks = page.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict"} <= set(marks)
        assert running.ask("/api/state", cookie=cookie).status == 200
        assert running.ask("/api/state", cookie="longtake_studio=wrong").status == 403
        assert running.ask("/api/decide", QUESTION, cookie=cookie, origin="http://evil.example").status == 403


# ── video ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_video_comes_in_ranges(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace")
    content = bytes(range(256)) * 40
    encoded = Path(workspace.path, "encoded", "aa", f"{clip_id('a')}.mp4")
    encoded.parent.mkdir(parents=True)
    encoded.write_bytes(content)
    path = f"/clips/{clip_id('a')}/encoded.video"
    with studio(workspace.path) as running:
        whole = running.ask(path)
        assert (whole.status, whole.body, whole.headers["content-type"]) == (200, content, "video/mp4")
        for wanted, first, last in (
            ("0-99", 0, 99),
            ("1000-", 1000, 10239),
            ("-40", 10200, 10239),
            ("10-99999", 10, 10239),
        ):
            part = running.ask(path, range=f"bytes={wanted}")
            assert (part.status, part.body) == (206, content[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/10240"
        assert running.ask(path, range="bytes=20000-").status == 416
        for number in ("9" * 400, "9" * 6000):
            assert running.ask(path, range=f"bytes={number}-").status in (200, 400, 416)
            assert running.ask(path, range=f"bytes=0-{number}").status in (200, 206, 400, 416)
        assert running.ask(f"/clips/{clip_id('b')}/encoded.video").status == 404
        assert running.ask(f"/clips/{clip_id('b')}/source.video").status == 404  # The file of b does not exist.
        assert running.ask(f"/api/playing/{clip_id('a')}").data == {"what": "encoded", "start": 0, "end": None}
        assert running.ask(f"/api/playing/{clip_id('b')}").data == {"what": "source", "start": 0, "end": 15}


def test_a_remote_source_comes_in_ranges_too() -> None:
    import fsspec

    from longtake.curation.access import Source
    from longtake.curation.looking.studio.server import _video

    content = bytes(range(256)) * 40
    fsspec.filesystem("memory").pipe_file("/studio/film.webm", content)

    async def body(answer: Any) -> bytes:
        return b"".join([piece async for piece in answer.body_iterator])

    import asyncio

    for wanted, status, first, last in (
        (None, 200, 0, 10239), ("bytes=5-9", 206, 5, 9), ("bytes=-3", 206, 10237, 10239), ("bytes=100-", 206, 100, 10239),
    ):  # fmt: skip
        answer = _video(Source("memory://studio/film.webm"), wanted)
        assert (answer.status_code, asyncio.run(body(answer))) == (status, content[first : last + 1])
        assert answer.headers["content-length"] == str(last - first + 1)
        assert answer.media_type == "video/webm"
    assert _video(Source("memory://studio/film.webm"), "bytes=99999-").status_code == 416
    assert _video(Source("memory://studio/none.webm"), None).status_code == 404


def test_a_session_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace")
    part = next(Path(workspace.path, "clips").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    session = Session(workspace, recipe())
    session.load()
    with pytest.raises(SetupError, match=r"cannot be read.*damaged"):
        session.state()


def test_the_studio_asks_sensibly(tmp_path: Path) -> None:
    session = Session(fill(tmp_path / "workspace"), recipe())
    session.load()
    with pytest.raises(StudioError, match="no tier"):
        session.decide({"tiers": TIERS, "tier": "third"})
    with pytest.raises(StudioError, match="no end"):
        session.focus({"tiers": TIERS, "tier": "pretrain", "gate": "psnr", "end": "middle"})
