"""The report, and the columns that it and the studio look at: against `decide`, scipy, and counting by hand."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from typer.testing import CliRunner

import longtake
from longtake.curation.cli.main import app
from longtake.curation.clip_table import clip_scores, rows_table
from longtake.curation.looking.compare import named_recipes
from longtake.curation.looking.report import findings
from longtake.curation.looking.report.clips import ClipView, Looker
from longtake.curation.looking.report.columns import BINS, Columns, Scale, _scale, limits
from longtake.curation.looking.report.page import _errors, write_report
from longtake.curation.looking.stats import funnel, tier_counts
from longtake.curation.looking.studio.strip import sweep
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate, Tier
from longtake.filters.registry import available, filter_class
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from longtake.manifests.frames import StoredFrames, StoredStrip, frames_writer
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.tables import CLIPS, clip_id, fill, recipe
from tests.curation.test_layout import HEAVY, loaded

HOSTILE = "<script>alert(1)</script>\"'>&amp;<img src=x onerror=alert(2)> \u202eמימין 🎞️\x00 \ud800 " + "x" * 10_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("report") / "workspace")


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MADE = parse_recipe(
    {
        "name": "made",
        "filters": {
            "width": {}, "psnr": {"reduce": "every"}, "artifacts": {"backend": "rapidocr"}, "flow": {"backend": "dis"},
        },
        "tiers": {"one": {"width": ">= 5", "psnr": "[2, 8]", "artifacts": "<= 5", "flow": ">= 3"}, "two": {"psnr": ">= 4"}},
    },
    source="test_report",
)  # fmt: skip


def made_scores(clips: int = 400) -> ClipScores:
    """Small whole numbers, so that scores lie on thresholds; some of each missing, not to be known, old, of another reduction,
    a bound."""
    rng = np.random.default_rng(6)
    rows = []
    for i in range(clips):
        protocols, row = {}, {"clip_id": f"{i:032x}", "status": "ok", "error_kind": None, "has_frames": bool(i % 3)}
        if rng.random() < 0.1:
            row |= {"status": "error", "error_kind": "caption" if i % 2 else "measure"}
        for name, filter_ in MADE.built.items():
            kind = rng.choice(["fresh", "fresh", "fresh", "none", "unknown", "old", "bound", "other"])
            detail = [float(v) for v in rng.integers(0, 10, 3)]
            row |= {
                name: None if kind in ("none", "unknown") else float(np.mean(detail).round()),
                f"{name}_detail": detail,
            }
            protocols[name] = filter_.protocol if kind in ("fresh", "unknown") else "x/old/mean"
            if kind == "other":
                protocols[name] = filter_.protocol.rpartition("/")[0] + "/min"
            if kind == "bound" and filter_.lower_bound:
                protocols[name] = filter_.lower_bound.protocol
        rows.append(row | {"protocols": json.dumps(protocols)})
    return ClipScores(pa.Table.from_pylist(rows), MADE.built)


SCORES = made_scores()
ENDS = st.one_of(st.none(), st.integers(-1, 11).map(float), st.floats(-1, 11))


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    low, high = draw(ENDS), draw(ENDS)
    if low is None and high is None:
        low = 0.0
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    return Gate.parse([low, high])


TIERS = st.fixed_dictionaries(
    {tier: st.dictionaries(st.sampled_from(list(MADE.filters)), gates()) for tier in MADE.tiers}
)


def binned(columns: Columns, name: str, rows: np.ndarray) -> list[int]:
    bins = columns.scales[name].bins(columns.values(name, np.flatnonzero(rows)))
    return [int(np.sum(bins == i)) for i in range(BINS)]


def assert_as_decide(columns: Columns, scores: ClipScores, tiers: dict[str, Tier]) -> None:
    for tier, now in tiers.items():
        expected = decide(scores, now)
        assert columns.counts(tier) == tier_counts(expected)
        assert columns.funnel(tier) == funnel(expected)
        np.testing.assert_array_equal(columns.verdicts(tier), expected.verdicts)
        for name in columns.scales:  # The facts of the step before must not show.
            others = [result for other, result in expected.gates.items() if other != name]
            rows = np.all([scores.ok(), *(~result.failed for result in others)], axis=0)
            np.testing.assert_array_equal(columns.others_pass(tier, name), np.flatnonzero(rows))
            assert columns.histogram_of_others(tier, name) == binned(columns, name, rows)
            if name in now:
                passed = np.all([rows, *(result.passed for result in others)], axis=0)
                failed = expected.gates[name].failed
                alone, so_far = columns.alone(tier, name)
                np.testing.assert_array_equal(alone, np.flatnonzero(failed & passed))
                np.testing.assert_array_equal(so_far, np.flatnonzero(failed & rows & ~passed))
        few = np.arange(0, len(columns), 7)
        few = few[scores.ok()[few]]
        told = columns.result(tier, few)
        assert [told.alone(i) for i in range(len(few))] == [expected.alone(row) for row in few.tolist()]
        assert [told.missing(i) for i in range(len(few))] == [expected.missing(row) for row in few.tolist()]


@pytest.mark.parametrize("name", list(available()))
def test_an_axis_shows_no_value_that_a_score_cannot_have(name: str) -> None:
    """Zeros alone, under a gate at 0.05 as of artifacts: the axis of a share went from -0.48 to 0.59."""
    for backend in available()[name]:
        unit = filter_class(name, backend).unit
        low, high = limits(unit)
        scale = _scale(np.zeros(9), [Gate(high=0.05)], (low, high))
        assert scale.low < scale.high
        assert name == "aesthetic" or scale.low >= low
        assert scale.high <= high
        if "share" in unit or unit == "probability":
            assert scale == Scale(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(tiers=TIERS, tier=st.sampled_from(list(MADE.tiers)), end=st.sampled_from(["low", "high"]))
def test_every_place_of_an_end_keeps_what_the_gate_set_there_keeps(tiers: dict[str, Tier], tier: str, end: str) -> None:
    """Scores on the places, bounds, scores between two values, clips without a score: what `sweep` counts at once."""
    grid = np.array([-0.5, 0, 1, 2.5, 3, 7, 8.0, 9.5])
    seconds = np.arange(len(SCORES.table)) / 7
    columns, there = Columns.of(SCORES, MADE), Columns.of(SCORES, MADE)
    columns._seconds = there._seconds = seconds
    columns.set(tiers)
    for name, gate in tiers[tier].items():
        found = sweep(columns, tier, name, end, list(tiers[tier]), grid)
        assert found is not None
        for at, place in enumerate([*grid.tolist(), -np.inf if end == "low" else np.inf]):
            ends = (place, gate.high) if end == "low" else (gate.low, place)
            if ends[0] > ends[1] or np.isinf(ends).all():
                continue
            there.set({**tiers, tier: {**tiers[tier], name: Gate(*ends)}})
            counts = there.counts(tier)
            of_gate = counts["gates"][name]
            told = [found[key][at] for key in ("kept", "undecided", "rejected", "failed", "alone", "so_far")]
            assert told == [
                counts["kept"], counts["undecided"], counts["rejected"], of_gate["failed"], of_gate["only_failure"],
                of_gate["only_failure_so_far"],
            ]  # fmt: skip
            assert [left[at] for left in found["left"]] == [row["left"] for row in there.funnel(tier)]
            assert found["seconds"][at] == pytest.approx(there.kept_seconds(tier), abs=0.01)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(TIERS, min_size=1, max_size=6))
def test_moved_gates_decide_as_decide_does(steps: list[dict[str, Tier]]) -> None:
    columns = Columns.of(SCORES, MADE)
    for tiers in steps:
        columns.set(tiers)
        assert_as_decide(columns, ClipScores(SCORES.table, MADE.built), tiers)


@settings(max_examples=40, deadline=None)
@given(start=TIERS, moves=st.lists(st.tuples(st.sampled_from(list(MADE.filters)), gates()), min_size=1, max_size=8))
def test_a_drag_of_small_steps_decides_as_decide_does(start: dict[str, Tier], moves: list[tuple[str, Gate]]) -> None:
    columns = Columns.of(SCORES, MADE)
    for name, gate in moves:  # A hand moves one gate at a time.
        start = {**start, "one": {**start["one"], name: gate}}
        columns.set(start)
        assert_as_decide(columns, ClipScores(SCORES.table, MADE.built), start)


@settings(max_examples=30, deadline=None)
@given(tiers=TIERS, seed=st.integers(0, 9))
def test_what_is_selected_is_counted_alone(tiers: dict[str, Tier], seed: int) -> None:
    rows = np.random.default_rng(seed).random(SCORES.table.num_rows) < 0.3
    columns = Columns.of(SCORES, MADE)
    columns.set(tiers)
    columns.counts("one")  # Counts that are remembered of all clips must not be taken for those of a few.
    columns.select(rows)
    few = ClipScores(SCORES.table.filter(pa.array(rows)), MADE.built)
    for tier, now in tiers.items():
        assert columns.counts(tier) == tier_counts(decide(few, now))
        assert columns.funnel(tier) == funnel(decide(few, now))


def duplicates(folder: Path) -> tuple[Workspace, Recipe]:
    """Clips of which some repeat others: three groups, whose first clips have the widths 1, 2 and 3."""
    workspace = Workspace(str(folder))
    chosen = parse_recipe(
        {
            "name": "copies",
            "filters": {"width": {}, "aesthetic": {}, "duplicates": {}, "text_similarity": {}},
            "tiers": {"one": {"width": ">= 0", "duplicates": "<= 0.9", "text_similarity": "<= 0.5"}, "two": {"width": ">= 3"}},
        },
        source="test_report",
    )  # fmt: skip
    rows = []
    for i in range(9):
        first = clip_id(str(i % 3)) if i >= 3 else None
        protocols = {"width": chosen.built["width"].protocol, "duplicates": chosen.built["duplicates"].protocol}
        rows.append(
            {"clip_id": clip_id(str(i)), "video_id": "v", "uri": "/v.mp4", "start": 0.0, "end": 1.0, "has_frames": True}
            | {"status": "ok", "scan_id": "s", "protocols": json.dumps(protocols), "width": float(1 + i % 3)}
            | {"duplicates": 0.95 if first else 0.0, "duplicate_of": first}
        )  # fmt: skip
    rows[8]["duplicate_of"] = clip_id("gone")
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width", "duplicates"]))
    told = [{"clip_id": clip_id("1"), "scan_id": "s", "status": "refused", "protocols": "{}"}]
    told[0]["caption_protocol"] = "descriptors/3"
    workspace.captions.append(rows_table(told, schemas.CAPTIONS, ["text_similarity"]))
    return workspace, chosen


@pytest.mark.parametrize("least", [0, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("other", [0, 2.5, 9])
def test_near_duplicates_follow_the_other_gates(tmp_path: Path, least: float, other: float) -> None:
    """A clip that repeats one which all tiers reject now is no repeat: as `longtake tiers` has it."""
    workspace, chosen = duplicates(tmp_path / "workspace")
    columns = Columns.load(workspace, chosen)
    for width in (other, least):  # The second movement begins from columns that were moved before.
        changed = chosen.with_gates({"one.width": Gate(low=width), "two.width": Gate(low=other)})
        columns.set(changed.tiers)
        assert_as_decide(columns, clip_scores(workspace, changed), dict(changed.tiers))


def test_a_histogram_counts_as_numpy_does() -> None:
    columns = Columns.of(SCORES, MADE)
    columns.set(MADE.tiers)
    for name, scale in columns.scales.items():
        rows = columns.others_pass("one", name)
        values = columns.values(name, rows)
        inside = np.clip(values[~np.isnan(values)], scale.low, np.nextafter(scale.high, -np.inf))
        expected, _ = np.histogram(inside, BINS, (scale.low, scale.high))
        got = np.array(columns.histogram_of_others("one", name))
        assert got.sum() == expected.sum() == inside.size
        # A value on the edge of a bin may be counted in either bin.
        assert np.abs(np.cumsum(got) - np.cumsum(expected)).max() <= 0.01 * inside.size + 1


@pytest.mark.parametrize("end", ["low", "high"])
def test_the_clips_next_to_a_threshold_are_the_nearest_of_each_side(end: str) -> None:
    columns = Columns.of(SCORES, MADE)
    gate = Gate(3, 6)
    columns.set({"one": {"width": gate}, "two": {}})
    rows = columns.others_pass("one", "width")
    inside, outside = columns.near_end("one", "width", end, rows, 5)
    scores = columns.values("width", columns.everything())
    known = {row: score for row, score in zip(columns.everything(), scores, strict=True) if not np.isnan(score)}
    seen = SCORES.table["has_frames"].to_pylist()
    at = gate.low if end == "low" else gate.high
    for chosen, side in ((inside, True), (outside, False)):
        fits = [r for r, v in known.items() if ((v >= at) if end == "low" else (v <= at)) == side and seen[r]]
        nearest = sorted(abs(known[row] - at) for row in fits)[:5]
        assert [abs(known[row] - at) for row in chosen.tolist()] == pytest.approx(nearest)
        assert set(chosen.tolist()) <= set(fits)


def test_clips_that_every_gate_has_a_score_of_come_first() -> None:
    """Though others lie nearer to the threshold."""
    columns = Columns.of(SCORES, MADE)
    columns.set({"one": {"width": Gate(low=5), "psnr": Gate(0, 9), "flow": Gate(low=0)}, "two": {}})
    rows = columns.others_pass("one", "width")
    alone, so_far = columns.alone("one", "width")
    for seen in (True, False):
        columns._seen[:] = seen
        _, near = columns.near_end("one", "width", "low", rows, len(columns))
        assert set(near.tolist()) == {*alone.tolist(), *so_far.tolist()}
        assert set(near[: alone.size].tolist()) == set(alone.tolist())
        scores = columns.values("width", near)
        assert scores[: alone.size].tolist() == sorted(scores[: alone.size], reverse=True)
        assert scores[alone.size - 1] < scores[alone.size]


# ── findings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=60))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, float) for column in zip(*pairs, strict=True))
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert findings.spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic)
    else:
        assert np.isnan(findings.spearman(a, b))


def test_phrases_are_counted_once_per_clip() -> None:
    texts = [
        "The camera pans slowly right. The camera pans slowly.",
        "a the camera PANS slowly!",
        "something else entirely, yes",
    ]
    captions = pa.table(
        {"status": ["ok"] * 3 + ["refused"], "caption": [*texts, texts[0]], "sub_captions": [["x"], [], None, ["y"]]},
        schema=pa.schema([("status", pa.string()), ("caption", pa.string()), ("sub_captions", pa.list_(pa.string()))]),
    )
    found = findings.wording(captions)
    assert found.phrases == [("the camera pans slowly", 2)]
    assert found.repeats == []
    assert found.words["words of a caption"].tolist() == [9, 5, 4]


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Page(html.parser.HTMLParser):
    """Tags with their attributes, ids, links and the text."""

    def __init__(self, source: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(folder: Path) -> Workspace:
    """A workspace whose every text means harm, with pictures."""
    chosen = recipe()
    workspace = fill(folder)
    words = HOSTILE.encode("utf-8", "replace").decode()
    protocols = {name: chosen.built[name].protocol for name in ("width", "psnr", "artifacts")}
    picture = bytes(cv2.imencode(".jpg", np.full((360, 640, 3), 90, np.uint8))[1])
    rows = [
        {"clip_id": clip_id(letter), "video_id": clip_id(letter), "uri": f"/videos/{words}.mp4", "start": 0.0, "end": 15.0}
        | {"status": status, "error_kind": kind, "error": words if kind else None, "has_frames": True, "scan_id": "scan"}
        | {"protocols": json.dumps(protocols), "width": 1920.0, "psnr": 9.0, "artifacts": 0.01}
        for letter, status, kind in (("1", "ok", None), ("2", "error", "frames"))
    ]  # fmt: skip
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width", "psnr", "artifacts"]))
    with frames_writer(workspace.path, clip_id("1")) as writer:
        writer.write(StoredFrames(clip_id("1"), [picture] * 5, [], [1.0, 4.0, 7.0, 10.0, 13.0], [], None))
    told = {"clip_id": clip_id("1"), "status": "ok", "caption": words, "sub_captions": [words] * 5, "scan_id": "scan"}
    told |= {
        "caption_protocol": "descriptors/3",
        "protocols": json.dumps({"text_similarity": chosen.built["text_similarity"].protocol}),
        "text_similarity": 0.1,
    }
    workspace.captions.append(rows_table([told], schemas.CAPTIONS, ["text_similarity"]))
    video = {"video_id": "v9", "uri": f"/{words}", "status": "error", "error_kind": words, "error": words}
    workspace.videos.append(pa.Table.from_pylist([video], schema=schemas.VIDEOS))
    return workspace


def test_the_page_says_what_stats_says(workspace: Workspace) -> None:
    page = Page(write_report(workspace, recipe()))
    assert "pretrain: 1 of 10 clips are kept" in page.text
    assert "finetune: 3 of 10 clips are kept" in page.text
    assert (
        "width >= 1280 (pretrain, finetune): 2 rejected, in pretrain 0 by it alone, 1 by it alone as far as"
        in page.text
    )
    assert "text_similarity <= 0.98 (pretrain): 1 rejected, in pretrain 1 by it alone, 0 by it" in page.text
    assert "pretrain: rejected by one gate alone. text_similarity 0.99" in page.text
    assert "rejected by one gate alone as far as measured. width 640" in page.text
    for reason in ("psnr 25 is outside [4, 20] by 5", "width 640 is outside >= 1280 by 640"):
        assert reason in page.text
    assert "not_video" in page.text
    assert "not applied: aesthetic (no weights)" in page.text


def test_the_page_compares_with_other_recipes(workspace: Workspace) -> None:
    page = Page(write_report(workspace, recipe(), named_recipes(workspace, ["open-sora-2", "allegro:finetune"])[1:]))
    for row in ("a: this workspace/pretrain", "c: open-sora-2/preprocessing", "d: allegro/finetune"):
        assert row in page.text
    assert "what would have to be measured" in page.text
    assert "allegro: dover, CLIP similarity" in page.text


def test_the_page_needs_nothing_else(workspace: Workspace) -> None:
    page = Page(write_report(workspace, recipe()))
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(names)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action"):
            address = attributes.get(name)
            assert (
                address is None or address.startswith("data:image/jpeg;base64,") or address.removeprefix("#") in ids
            ), tag


def test_strangers_words_stay_text(tmp_path: Path) -> None:
    workspace = hostile(tmp_path / "workspace")
    source = write_report(workspace, recipe())
    page = Page(source)
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags
    assert not [a for tag, a in page.tags if tag == "img" and not str(a.get("src")).startswith("data:image/jpeg")]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    # The page shows the text of a hostile name in every place where the name stands.
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert b"\x00" not in source
    assert max(map(len, re.findall(r"x+", page.text))) < 700


def test_a_clip_has_five_pictures_over_its_sub_captions(tmp_path: Path) -> None:
    workspace = hostile(tmp_path / "workspace")
    view: ClipView = longtake.open(workspace.path).clip("11")
    assert view.verdicts == {"pretrain": "kept", "finetune": "kept"}
    assert view.times == [1.0, 4.0, 7.0, 10.0, 13.0]
    shapes = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape for jpeg in view.pictures]
    assert shapes == [(180, 320, 3)] * 5
    shown = Page(view._repr_html_().encode())
    assert [tag for tag, _ in shown.tags].count("img") == 5
    # The text stands in the address, the caption and the sub-captions.
    assert shown.text.count("<img src=x onerror=alert(2)>") == 7


def test_a_clip_without_frames_captions_or_scores_is_shown_all_the_same(tmp_path: Path) -> None:
    workspace = hostile(tmp_path / "workspace")
    (stored,) = (tmp_path / "workspace" / "frames").rglob("*.parquet")
    stored.write_bytes(stored.read_bytes()[:-40])
    damaged = Page(longtake.open(workspace.path).clip("11")._repr_html_().encode())
    assert "img" not in {tag for tag, _ in damaged.tags}
    assert damaged.text.count("<img src=x onerror=alert(2)>") == 7
    shutil.rmtree(tmp_path / "workspace" / "captions")
    shutil.rmtree(tmp_path / "workspace" / "frames")
    for letter in "12":  # The second clip has nothing but an error.
        shown = Page(longtake.open(workspace.path).clip(2 * letter)._repr_html_().encode())
        assert not {"img", "script"} & {tag for tag, _ in shown.tags}
        assert "No picture of this clip is stored, and its source is not there." in shown.text
        assert "<script>alert(1)</script>" in shown.text


def cut_away(folder: Path) -> Workspace:
    """Of the ten clips, two are cropped and one keeps a border."""
    workspace = fill(folder)
    rows = {row["clip_id"][0]: row for row in workspace.clips.read().to_pylist()}
    rows["a"] |= {"crop_x": 0, "crop_y": 92, "crop_width": 1280, "crop_height": 536}
    rows["b"] |= {"crop_x": 0, "crop_y": 92, "crop_width": 1280, "crop_height": 536}
    rows["c"] |= {"not_cropped": "its border is not the same from its beginning to its end"}
    workspace.clips.append(
        rows_table([rows[letter] for letter in "abc"], schemas.CLIPS, ["width", "psnr", "artifacts"])
    )
    videos = [row | {"width": 1280, "height": 720} for row in workspace.videos.read().to_pylist()]
    workspace.videos.append(pa.Table.from_pylist(videos, schema=schemas.VIDEOS))
    return workspace


def test_a_clip_says_what_was_cut_away(tmp_path: Path) -> None:
    workspace = cut_away(tmp_path / "workspace")
    columns = Columns.load(workspace, recipe(crop="borders"))
    rows = [columns.row(clip_id(letter)) for letter in "acd"]
    told = [view.crop for view in Looker(workspace, columns).look(rows)]
    assert told == ["cropped to 1280×536", "not cropped: its border is not the same from its beginning to its end", ""]


def test_the_report_tells_what_was_cut_away_and_only_where_the_recipe_cuts(tmp_path: Path) -> None:
    workspace = cut_away(tmp_path / "workspace")
    page = Page(write_report(workspace, recipe(crop="borders")))
    assert "0.00 to 15.00 s, cropped to 1280×536" in page.text
    assert findings.crops(workspace) == [
        ("the whole picture", 7, 0.0),
        ("cropped to 1280×536", 2, pytest.approx(1 - 536 / 720)),
        ("not cropped: its border is not the same from its beginning to its end", 1, 0.0),
    ]
    assert "25.6%" in page.text
    assert "crop" not in Page(write_report(workspace, recipe())).text


def test_why_a_clip_is_rejected_and_by_how_much(workspace: Workspace) -> None:
    columns = Columns.load(workspace, recipe())
    rows = {letter: columns.row(clip_id(letter)) for letter in CLIPS}
    views = dict(zip(rows, Looker(workspace, columns).look(list(rows.values())), strict=True))
    assert views["b"].reasons("pretrain") == ["text_similarity 0.99 is outside <= 0.98 by 0.01"]
    assert views["g"].reasons("pretrain") == ["no score yet: artifacts, text_similarity"]
    assert "artifacts" not in views["g"].scores  # A lower bound is no score.
    assert views["h"].reasons("pretrain") == [
        "artifacts 0.3 is outside <= 0.05 by 0.25", "no score yet: text_similarity",
    ]  # fmt: skip
    assert {letter: views[letter].alone["pretrain"] for letter in "abceghi"} == {
        "a": None, "b": "alone", "c": "alone as far as measured", "e": None, "g": "not known",
        "h": "alone as far as measured", "i": None,
    }  # fmt: skip
    assert views["f"].reasons("pretrain") == ["frames: [bold]gone[/bold]"]
    assert views["i"].error == "caption: the model would not"
    assert (views["a"].caption, views["a"].sub_captions) == ("A [red]herring[/red].", list("12345"))
    assert views["g"].caption is None  # Its captions are of an older scan.


def crowd(folder: Path, count: int, gates: int, strips: bool = False) -> tuple[Workspace, Recipe]:
    """Clips of noise, the worst picture, whose widths are even numbers; a recipe with thresholds of 0, 10, 20 and so on."""
    rng = np.random.default_rng(0)
    noise = [bytes(cv2.imencode(".jpg", rng.integers(0, 255, (180, 320, 3), np.uint8))[1]) for _ in range(5)]
    strip = bytes(cv2.imencode(".jpg", rng.integers(0, 255, (90, 800, 3), np.uint8))[1])
    chosen = recipe(tiers={f"tier{i}": {"width": f">= {i * 10}"} for i in range(gates)})
    workspace = Workspace(str(folder))
    with frames_writer(workspace.path, "video") as writer:
        for i in range(count):
            if strips:
                writer.write_strip(f"{i:032x}", StoredStrip(strip, [1.0, 4.0, 7.0, 10.0, 13.0]))
            else:
                writer.write(StoredFrames(f"{i:032x}", noise, [], [1.0] * 5, [], None))
    rows = [
        {"clip_id": f"{i:032x}", "video_id": "video", "uri": "/v.mp4", "start": 0.0, "end": 15.0, "status": "ok"}
        | {"has_frames": not strips, "has_strip": strips, "scan_id": "s", "width": float(2 * i)}
        | {"protocols": json.dumps({"width": chosen.built["width"].protocol})}
        for i in range(count)
    ]
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width"]))
    return workspace, chosen


def test_many_clips_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of pictures holds, and so does the number of clips; the page says that it shows fewer."""
    from longtake.curation.looking.report import page

    workspace, chosen = crowd(tmp_path / "workspace", 120, 24)
    monkeypatch.setattr(page, "MOST_CLIPS", 60)
    monkeypatch.setattr(page, "MOST_BYTES", 3_000_000)
    source = write_report(workspace, chosen)
    assert source.count(b'<article class="clip"') <= 60
    pictures = sum(map(len, re.findall(rb'src="data:[^"]*"', source)))
    assert 2_600_000 < pictures < 3_400_000
    said = Page(source).text
    assert "of the clips on this page show fewer than five pictures, so that it stays under 15 MB" in said
    # The fuller the page, the fewer pictures a clip has: five, three, one, none.
    counts = [shown.partition(b"</ul>")[0].count(b"<img") for shown in source.split(b'<ul class="frames')[1:]]
    assert set(counts) == {5, 3, 1}
    assert b"No picture of it is shown." in source


def test_a_page_that_is_too_large_is_made_again_with_fewer_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longtake.curation.looking.report import page

    workspace, chosen = crowd(tmp_path / "workspace", 60, 12)
    monkeypatch.setattr(page, "MOST_PAGE", 500_000)
    monkeypatch.setattr(page, "MOST_BYTES", 1_000_000)
    source = write_report(workspace, chosen)
    assert len(source) <= 500_000
    assert b"<img" in source


def test_both_sides_of_a_threshold_have_pictures_whatever_rejected_the_clips(tmp_path: Path) -> None:
    workspace, chosen = crowd(tmp_path / "workspace", 40, 9, strips=True)
    source = write_report(workspace, chosen)
    near = source.partition(b'<section id="near">')[2].partition(b"</section>")[0]
    assert near.count(b"<h3>") == 9  # The widths go from 0 to 78, and the thresholds from 0 to 80.
    for end in near.split(b"<h3>")[1:]:
        for side in end.split(b"<h4>")[1:]:
            told = side.partition(b"</h4>")[2]
            assert (b"<img" in told) != (b"No clip is on this side." in told)
    text = Page(source).text
    assert "width 20, on the threshold" in text
    assert "width 18, 2 outside" in text


def test_a_clip_that_was_not_decoded_shows_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.curation.looking.report import page

    path = tmp_path / "film.mp4"
    film(path, pan("table", (2, 0), (200, 60), SMALL, 96), Encoding(size=SMALL))
    workspace = fill(tmp_path / "workspace")
    row = {"clip_id": clip_id("d"), "video_id": "v1", "uri": str(path), "start": 0.0, "end": 4.0, "status": "ok"}
    row |= {"has_frames": False, "scan_id": "s", "width": 640.0}
    row["protocols"] = json.dumps({"width": recipe().built["width"].protocol})
    workspace.clips.append(rows_table([row], schemas.CLIPS, ["width"]))
    assert len(re.findall(rb"<img", write_report(workspace, recipe()))) >= 5
    monkeypatch.setattr(page, "SOURCES_SECONDS", 0.0)
    source = write_report(workspace, recipe())
    assert b"<img" not in source
    assert (
        "that were rejected without being decoded have no picture here: their sources are read for 0 s"
        in Page(source).text
    )


def test_the_contents_and_the_empty_states(tmp_path: Path, workspace: Workspace) -> None:
    source = write_report(workspace, recipe(tiers={"pretrain": {"width": ">= 9999"}})).decode()
    page = Page(source.encode())
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"] != "#main"]
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [link for link in links if link in sections] == sections
    assert re.search(r"\.report nav \{ position: sticky", source)
    assert "No clip is kept. Most fall at width (>= 9999): 8 of 10." in page.text


def test_a_tier_without_gates_has_no_empty_funnel(workspace: Workspace) -> None:
    """As in the recipe `explore`, whose report is the first one that most people see."""
    text = Page(write_report(workspace, recipe(tiers={"all": {}}))).text
    assert "This tier has no gate: it keeps every clip without an error." in text
    assert "fail this alone" not in text


def test_the_summary_counts_in_words_that_fit() -> None:
    assert [_errors({"ok": 3, "error": count}) for count in (0, 1, 2)] == ["0 errors", "1 error", "2 errors"]
    assert _errors({"ok": 3}) == "0 errors"


def test_the_summary_ends_where_its_words_end(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    row = {
        "clip_id": clip_id("1"),
        "video_id": clip_id("1"),
        "uri": "/a.mp4",
        "start": 0.0,
        "end": 15.0,
        "status": "ok",
    }
    row |= {"has_frames": False, "scan_id": "scan", "protocols": "{}"}
    workspace.clips.append(rows_table([row], schemas.CLIPS, []))
    text = Page(write_report(workspace, recipe(tiers={"all": {}}))).text
    assert "100.0% of all" in text
    assert "of all;" not in text


def test_an_empty_workspace_gives_a_page(tmp_path: Path) -> None:
    text = Page(write_report(Workspace(str(tmp_path)), recipe())).text
    assert "pretrain: 0 of 0 clips are kept" in text


def test_the_command_writes_the_file(workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    done = CliRunner().invoke(app, ["report", workspace.path, "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_bytes().startswith(b"<!doctype html>")
    done = CliRunner().invoke(app, ["report", workspace.path, "-o", str(tmp_path / "no" / "folder.html")])
    assert done.exit_code == 3


def test_the_report_loads_no_model_and_no_ray(workspace: Workspace, tmp_path: Path) -> None:
    unwanted = {*HEAVY, "ray", "av", "pandas", "duckdb", "scipy", "starlette"}
    assert not loaded("report", workspace.path, "-o", str(tmp_path / "report.html")) & unwanted
