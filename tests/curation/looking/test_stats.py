"""Statistics against a workspace that was counted by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from longtake.curation.cli.show import show_statistics, statistics_csv
from longtake.curation.clip_table import CurrentClips
from longtake.curation.looking.stats import (
    QUANTILES,
    Statistics,
    funnel,
    near_misses,
    stage_runs,
    statistics,
    tier_counts,
)
from longtake.curation.stages.kept_back import last_faults
from longtake.curation.workspace import Workspace
from longtake.filters.base import reduce_detail
from longtake.filters.gates import Gate
from longtake.filters.verdicts import Alone, ClipScores, Verdict, decide
from longtake.manifests import schemas
from tests.curation.tables import CLIPS, VERDICTS, clip_id, fill, recipe
from tests.filters.test_verdicts import NAMES, Fake, Stored, World, of_tier, table, worlds


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("stats") / "workspace")


@pytest.fixture(scope="module")
def found(workspace: Workspace) -> Statistics:
    return statistics(workspace, recipe(), near=50)


def counts(**gates: str) -> dict[str, dict[str, int]]:
    keys = ("passed", "failed", "missing", "only_failure", "only_failure_so_far")
    return {name: dict(zip(keys, map(int, text.split()), strict=True)) for name, text in gates.items()}


def test_a_row_of_each_kind_of_error_is_named_with_what_happened(found: Statistics) -> None:
    """Whoever met errors on a terminal learnt how many, and had to write a report to learn which and why."""
    named = found.summary["error_examples"]
    assert named["videos"] == {"not_video": {"name": "/videos/v4.mp4", "error": "junk", "host": None}}
    assert named["clips"]["frames"]["name"] == clip_id("f")
    assert named["clips"]["caption"]["error"] == "the model would not"
    console = Console(file=io.StringIO(), width=60)
    show_statistics(console, found)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "    not_video: /videos/v4.mp4: junk\n" in said
    assert f"    frames: {clip_id('f')}: " in said


def test_the_last_run_is_the_last_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """A run before the clock was set back was shown as the last of its stage, and faults of the world that it met kept new
    datasets from taking their place."""
    workspace = Workspace(str(tmp_path / "workspace"))
    for number, (day, faults) in enumerate(((20, 7), (10, 0)), 1):
        run = {
            "run_id": str(number),
            "stage": "scan",
            "started": datetime(2026, 1, day, tzinfo=UTC),
            "computed": number,
        }
        numbers = {"seconds": 1.0, "cpu_seconds": 1.0, "video_seconds": 1.0, "errors": 0, "faults": faults}
        workspace.runs.append(pa.Table.from_pylist([run | numbers], schema=schemas.RUNS))
    for _ in range(2):
        assert stage_runs(workspace, CurrentClips([]))["scan"]["computed"] == 2
        assert last_faults(workspace, "scan") == 0
        workspace.runs.compact()


def test_the_counts_are_those_worked_out_by_hand(found: Statistics) -> None:
    summary = found.summary
    assert summary["videos"] == {"total": 4, "ok": 3, "error": 1, "error_kinds": {"not_video": 1}, "tone_mapped": 0}
    assert summary["clips"] == {"total": 10, "ok": 8, "error": 2, "error_kinds": {"frames": 1, "caption": 1}}
    pretrain, finetune = summary["tiers"]["pretrain"], summary["tiers"]["finetune"]
    assert [pretrain[v] for v in ("kept", "rejected", "error", "undecided")] == [1, 5, 2, 2]
    assert [finetune[v] for v in ("kept", "rejected", "error", "undecided")] == [3, 4, 2, 1]
    for tier, expected in (
        (pretrain, counts(width="6 2 0 0 1", psnr="4 2 2 0 1", artifacts="3 2 3 0 1", text_similarity="2 1 5 1 0")),
        (finetune, counts(width="6 2 0 0 1", psnr="3 3 2 2 0")),
    ):
        got = {name: {key: gate[key] for key in expected[name]} for name, gate in tier["gates"].items()}
        assert got == expected
    assert pretrain["gates"]["psnr"]["range"] == "[4, 20]"
    assert summary["not_applied"] == {"aesthetic": "no weights"}
    captions = summary["captions"]  # The caption of g is of an older scan.
    assert (captions["total"], captions["gone"], captions["status"]) == (4, 1, {"ok": 3, "refused": 1})
    assert summary["unchecked"] == {}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("streams_left_out", pa.array([2, 0, 1], pa.int32()), "Not read: 3 further video streams of the files"),
        ("cut_off", pa.array(["the file ends at byte 5 of 9", None, "…"]), "Cut off: 2 files (a download"),
        ("seconds_damaged", pa.array([2.5, 0.0, 60.0]), "Damaged: 2 videos, 62.5 s"),
        ("stereo", pa.array([None, "side by side"]), "Of all directions, or in stereo: 1 video (columns"),
    ],
)
def test_what_was_not_read_of_files_is_told_of(tmp_path: Path, name: str, values: pa.Array, words: str) -> None:
    workspace = fill(tmp_path / "workspace")
    assert statistics(workspace, recipe()).summary["files"] == []
    rows = workspace.videos.read()
    column = pa.concat_arrays([values, pa.nulls(rows.num_rows - len(values), values.type)])
    workspace.videos.append(rows.set_column(rows.schema.get_field_index(name), name, column))
    (note,) = statistics(workspace, recipe()).summary["files"]
    assert note.startswith(words)
    console = Console(record=True, width=400, emoji=False)
    show_statistics(console, statistics(workspace, recipe()))
    assert note in console.export_text()


def test_each_clip_has_the_verdict_worked_out_by_hand(workspace: Workspace) -> None:
    from longtake.curation.clip_table import clip_scores

    for columns in (None, []):  # None reads all columns, and an empty list only those that verdicts need.
        scores = clip_scores(workspace, recipe(), columns)
        letters = [name[0] for name in scores.table["clip_id"].to_pylist()]
        for tier, gates in recipe().tiers.items():
            verdicts = decide(scores, gates).verdicts
            got = {letter: Verdict(v).name[0].lower() for letter, v in zip(letters, verdicts, strict=True)}
            assert got == VERDICTS[tier]


def test_the_json_keeps_the_contract_of_the_design(found: Statistics) -> None:
    data = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert {"total", "ok", "error", "error_kinds"} <= set(data["videos"])
    assert {"total", "ok", "error"} <= set(data["clips"])
    for tier in data["tiers"].values():
        assert {"kept", "rejected", "error", "gates"} <= set(tier)
        for gate in tier["gates"].values():
            assert {"passed", "failed", "missing", "only_failure", "only_failure_so_far"} <= set(gate)
    for stage in data["stages"].values():
        assert {"rows", "computed", "seconds", "video_hours", "cpu_seconds"} <= set(stage)


def test_counts_add_up(found: Statistics) -> None:
    total = found.summary["clips"]["total"]
    assert found.summary["videos"]["total"] == found.summary["videos"]["ok"] + found.summary["videos"]["error"]
    for tier in found.summary["tiers"].values():
        assert sum(tier[v] for v in ("kept", "rejected", "error", "undecided")) == total
        for gate in tier["gates"].values():
            assert gate["passed"] + gate["failed"] + gate["missing"] == total - tier["error"]
    for tier, rows in found.funnels.items():
        left = total - found.summary["tiers"][tier]["error"]
        for row in rows:
            assert row["reach it"] == left
            left -= row["fall at it"]
            assert row["left"] == left
        assert left == found.summary["tiers"][tier]["kept"] + found.summary["tiers"][tier]["undecided"]


def test_the_funnel_goes_gate_by_gate(found: Statistics) -> None:
    rows = [tuple(row.values()) for row in found.funnels["pretrain"]]
    assert rows == [
        ("width", ">= 1280", 8, 2, 0, 0, 6),
        ("psnr", "[4, 20]", 6, 1, 1, 0, 5),
        ("artifacts", "<= 0.05", 5, 1, 1, 0, 4),
        ("text_similarity", "<= 0.98", 4, 1, 1, 0, 3),
    ]


def test_what_cannot_be_known_is_counted_apart_from_what_was_not_measured() -> None:
    """Of four clips one has a score, two were measured and cannot be known (the least of one fails), one waits."""
    rows: list[dict[str, Stored]] = [
        {"a": (0.01, [0.01], "one/m1/max")},
        {"a": (None, [0.01], "one/m1/max")},
        {"a": (None, [0.3], "one/m1/max")},
        {"a": (None, None, None)},
    ]
    result = decide(ClipScores(table(rows), {"a": Fake("max")}), {"a": Gate(high=0.05)})
    gate = tier_counts(result)["gates"]["a"]
    assert {key: gate[key] for key in ("passed", "failed", "missing", "not_known")} == {
        "passed": 1, "failed": 1, "missing": 2, "not_known": 1,
    }  # fmt: skip
    (step,) = funnel(result)
    assert {key: step[key] for key in ("fall at it", "no score", "not known", "left")} == {
        "fall at it": 1, "no score": 1, "not known": 1, "left": 3,
    }  # fmt: skip


def test_stats_prints_what_cannot_be_known_in_a_column_of_its_own(found: Statistics) -> None:
    gate = {**found.summary["tiers"]["pretrain"]["gates"]["width"], "missing": 7, "not_known": 3}
    tier = {**found.summary["tiers"]["pretrain"], "gates": {"width": gate}}
    console = Console(file=io.StringIO(), width=200)
    show_statistics(console, replace(found, summary={**found.summary, "tiers": {"pretrain": tier}}))
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (line,) = (i for i, text in enumerate(printed) if text.startswith("pretrain: each gate by itself"))
    assert printed[line + 1].split("  ")[-1].strip() == "uncertain"
    assert "no score  not known" in printed[line + 1]
    assert printed[line + 2].split()[5:7] == ["4", "3"]


def test_scores_at_another_distance_than_the_recipes_are_told(workspace: Workspace) -> None:
    """They were measured at 3 s."""
    other = recipe(filters={**recipe().filters, "psnr": {"spacing": 2}})
    summary = statistics(workspace, other).summary
    with_psnr = sum(row[1] is not None and letter != "j" for letter, row in CLIPS.items())
    assert summary["other_spacing"] == {"psnr": with_psnr}
    assert summary["tiers"]["pretrain"]["kept"] == 0
    console = Console(file=io.StringIO(), width=200)
    show_statistics(console, statistics(workspace, other))
    assert f"not comparable: psnr of {with_psnr} clips" in console.file.getvalue()  # type: ignore[attr-defined]
    anywhere = recipe(filters={**recipe().filters, "psnr": {"spacing": "any"}})
    assert statistics(workspace, anywhere).summary["tiers"] == statistics(workspace, recipe()).summary["tiers"]


def test_quantiles_are_numpys_over_the_scores_that_count(found: Statistics) -> None:
    # The score of j has an old protocol.
    psnr = [row[1] for letter, row in CLIPS.items() if row[1] is not None and letter != "j"]
    assert found.quantiles["psnr"] == pytest.approx([float(np.quantile(psnr, q)) for q in QUANTILES])
    artifacts = [0.01, 0.01, 0.2, 0.01, 0.01]  # These are a, b, e, i and j; a lower bound is no score.
    assert found.quantiles["artifacts"] == pytest.approx([float(np.quantile(artifacts, q)) for q in QUANTILES])


def test_near_misses_are_the_clips_that_one_gate_rejects(found: Statistics) -> None:
    got = {(m.clip_id[0], m.gate, m.tiers, m.no_score): (m.score, m.excess) for m in found.near_misses}
    expected = {
        ("b", "text_similarity", ("pretrain",), ()): (0.99, 0.01),
        ("b", "psnr", ("finetune",), ()): (15, 5),
        ("d", "psnr", ("finetune",), ()): (25, 15),
        ("d", "psnr", ("pretrain",), ("artifacts", "text_similarity")): (25, 5),
        ("h", "artifacts", ("pretrain",), ("text_similarity",)): (0.3, 0.25),
        ("c", "width", ("pretrain",), ("psnr", "artifacts", "text_similarity")): (640, -640),
        ("c", "width", ("finetune",), ("psnr",)): (640, -640),
    }
    assert set(got) == set(expected)
    for key, values in expected.items():
        assert got[key] == pytest.approx(values), key


def test_near_misses_that_every_gate_has_a_score_of_come_first(found: Statistics) -> None:
    assert [m.alone for m in found.near_misses] == [Alone.YES] * 3 + [Alone.SO_FAR] * 4
    told = found.as_json()["near_misses"]
    assert [m["alone"] for m in told] == ["alone"] * 3 + ["alone as far as measured"] * 4
    assert [bool(m["no_score"]) for m in told] == [False] * 3 + [True] * 4


def test_near_misses_come_closest_first_and_as_many_as_asked(workspace: Workspace, found: Statistics) -> None:
    assert found.near_misses[0].clip_id == clip_id("b")  # The clip is off by 0.01, at a score that spreads by 0.2.
    for most in (0, 1, 3, 4, 6):
        assert statistics(workspace, recipe(), near=most).near_misses == found.near_misses[:most]


@given(worlds(), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_near_misses_are_those_of_a_plain_rule(world: World, most: int) -> None:
    rows, status, filters, tiers = world
    ids = [f"{i:032x}" for i in range(len(rows))]
    clips = table(rows, status, NAMES).append_column("clip_id", pa.array(ids, pa.string()))
    scores = ClipScores(clips, filters)
    results = {tier: decide(scores, gates) for tier, gates in tiers.items()}
    expected: dict[tuple[Alone, str, str, tuple[str, ...]], tuple[set[str], float]] = {}
    for tier, gates in tiers.items():
        for i, (row, ok) in enumerate(zip(rows, status, strict=True)):
            outcome, _, alone = of_tier(row, ok, filters, gates)
            if alone in (Alone.YES, Alone.SO_FAR):
                (gate,) = [name for name, what in outcome.items() if what == "failed"]
                no_score = tuple(name for name, what in outcome.items() if what == "missing")
                by = outside(row[gate], filters[gate], gates[gate])
                # Two tiers with different ranges of one gate have two near misses of the clip.
                key = alone, ids[i], f"{gate} {by}", no_score
                expected.setdefault(key, (set(), by))[0].add(tier)
    everything = near_misses(clips, results, 10_000)
    got = {(m.alone, m.clip_id, f"{m.gate} {m.excess}", m.no_score): (set(m.tiers), m.excess) for m in everything}
    assert got == expected
    assert len(everything) == len(expected)
    assert [m.alone for m in everything] == sorted((m.alone for m in everything), key=list(Alone).index)
    few = near_misses(clips, results, most)
    assert [m.alone for m in few] == [m.alone for m in everything][:most]
    assert set(few) <= set(everything)
    for alone in (Alone.YES, Alone.SO_FAR):
        for gate in NAMES:
            away = [abs(m.excess) for m in everything if (m.alone, m.gate) == (alone, gate)]
            assert away == sorted(away)


def outside(cell: Stored, filter_: Fake, gate: Gate) -> float:
    """How far the values that a gate looks at lie outside of it; below it counts first."""
    value, detail, protocol = cell
    assert value is not None
    assert detail is not None
    assert protocol is not None
    looked_at = [value] if protocol.endswith(f"/{filter_.reduce}") else [reduce_detail(detail, filter_.reduce)]
    looked_at = list(detail) if filter_.reduce == "every" else looked_at
    if min(looked_at) < gate.low and "bound" not in protocol:
        return min(looked_at) - gate.low
    return max(looked_at) - gate.high


def test_the_last_run_of_each_stage_and_all_of_them(found: Statistics) -> None:
    scan, score = found.summary["stages"]["scan"], found.summary["stages"]["score"]
    assert (scan["rows"], scan["computed"], scan["errors"], scan["seconds"]) == (4, 1, 0, 5.0)
    assert (scan["video_hours"], scan["cpu_seconds"]) == (0.5, 2.0)
    assert scan["total"] == {"runs": 2, "computed": 4, "seconds": 15.0, "cpu_seconds": 38.0}
    assert (score["rows"], score["computed"], score["video_hours"]) == (10, 6, 0.025)
    assert (scan["per_second"], scan["busy_share"]) == (0.2, None)
    assert (score["per_second"], score["busy_share"]) == (0.3, 0.75)
    assert set(found.summary["stages"]) == {"scan", "score"}


def test_csv_has_a_line_per_gate(found: Statistics) -> None:
    rows = list(csv.DictReader(io.StringIO(statistics_csv(found))))
    assert [(row["tier"], row["gate"]) for row in rows] == [
        (tier, gate) for tier, gates in recipe().tiers.items() for gate in gates
    ]
    assert rows[1] == {
        "tier": "pretrain", "gate": "psnr", "range": "[4, 20]",
        "passed": "4", "failed": "2", "missing": "2", "not_known": "0", "only_failure": "0", "only_failure_so_far": "1",
        "uncertain": "0", "left": "5",
    }  # fmt: skip


def test_every_and_another_reduction_look_into_the_details(workspace: Workspace) -> None:
    """psnr 8 has the detail 7.5, 8.5: within [7.6, 20] by its mean, not by each of its values."""
    tiers = {"t": {"psnr": "[7.6, 20]"}}
    filters = {"psnr": {}, "text_similarity": {}}
    kept = {}
    for reduce in ("mean", "every", "min", "max"):
        chosen = recipe(filters=filters | {"psnr": {"reduce": reduce}}, tiers=tiers)
        kept[reduce] = statistics(workspace, chosen).summary["tiers"]["t"]["kept"]
    # The mean keeps a, b, g and h (i has no captions, so it is an error); b alone passes where each value counts.
    assert kept == {"mean": 4, "every": 1, "min": 1, "max": 4}


def test_an_empty_workspace_has_zeros(tmp_path: Path) -> None:
    found = statistics(Workspace(str(tmp_path)), recipe())
    assert found.summary["videos"] == {"total": 0, "ok": 0, "error": 0, "error_kinds": {}, "tone_mapped": 0}
    assert found.summary["tiers"]["pretrain"]["gates"]["psnr"]["passed"] == 0
    assert found.quantiles["psnr"] == [None] * len(QUANTILES)
    assert found.near_misses == []
    json.dumps(found.as_json(), allow_nan=False)
