"""Nested clips become rows, and the clips manifest follows the videos manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.curation.clip_table import clip_scores, dump_protocols, explode, score_columns, sync_clips
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import standard_error
from longtake.filters.registry import samples_time
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from tests.curation.tables import CLIPS, fill, recipe

FRAMES_FILTER = "artifacts"  # The score stage measures this filter.


@st.composite
def video_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for v in range(draw(st.integers(0, 4))):
        clips = []
        for c in range(draw(st.integers(0, 3))):
            names = draw(st.lists(st.sampled_from(["width", "psnr", "flow", "new_one"]), unique=True))
            scores = [
                {
                    "name": name,
                    "value": draw(st.none() | st.floats(-5, 5)),
                    "detail": draw(st.none() | st.lists(st.floats(-5, 5), max_size=3)),
                    "protocol": draw(st.sampled_from(["x/1/mean", 'q"uote/é/max'])),
                }
                for name in names
            ]
            failed = draw(st.booleans())
            clips.append(
                {
                    "clip_id": f"v{v}c{c}",
                    "start": float(c),
                    "end": c + 0.5,
                    "status": "error" if failed else "ok",
                    "error_kind": "measure" if failed else None,
                    "error": "why" if failed else None,
                    "has_frames": draw(st.booleans()),
                    "has_strip": draw(st.none() | st.booleans()),
                    "caption": draw(st.none() | st.text(max_size=3)),
                    "sub_captions": draw(st.none() | st.lists(st.text(max_size=2), max_size=2)),
                    "scores": scores,
                }
            )
        rows.append(
            {
                "video_id": f"v{v}",
                "uri": f"/{v}.mp4",
                "status": "ok",
                "scan_id": f"s{v}",
                "clip_protocol": draw(st.none() | st.just("split+5")),
                "licence": draw(st.none() | st.just("CC0")),
                "host": draw(st.none() | st.just("node-3")),
                "origin": draw(st.none() | st.floats(-1, 1)),
                "clock_restarts": draw(st.none() | st.integers(0, 3)),
                "fps": draw(st.none() | st.floats(1, 240)),
                "clips": draw(st.just(clips)) if clips else draw(st.sampled_from([[], None])),
            }
        )
    return rows


def one_by_one(videos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `explode` should give, row by row."""
    names = dict.fromkeys(s["name"] for v in videos for c in v["clips"] or [] for s in c["scores"])
    rows = []
    for video in videos:
        for clip in video["clips"] or []:
            of_video = ("video_id", "uri", "host", "scan_id", "clip_protocol", "licence", "origin", "clock_restarts")
            row = {key: video[key] for key in of_video} | {"film_fps": video["fps"]}
            row |= {key: clip[key] for key in clip if key not in ("scores", "caption", "sub_captions", "captions")}
            row |= {f"source_{key}": clip.get(key) for key in ("caption", "sub_captions", "captions")}
            row |= {key: clip.get(key) for key in schemas.SHOWN}
            row |= {"protocols": dump_protocols({s["name"]: s["protocol"] for s in clip["scores"]})}
            for name in names:
                score = next((s for s in clip["scores"] if s["name"] == name), None)
                row[name], row[f"{name}_detail"] = (score["value"], score["detail"]) if score else (None, None)
                if samples_time(name):
                    by_mean = score is not None and score["protocol"].endswith("/mean")
                    row[f"{name}_standard_error"] = (
                        pytest.approx(standard_error(score["detail"] or []), abs=1e-9) if by_mean else None
                    )
            rows.append(row)
    return rows


@given(video_rows(), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_nested_clips_become_rows(videos: list[dict[str, Any]], cut: int) -> None:
    whole = pa.Table.from_pylist(videos, schema=schemas.VIDEOS)
    chunked = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    table = explode(chunked)
    assert table.to_pylist() == one_by_one(videos)
    assert table.schema.names[: len(schemas.CLIPS)] == schemas.CLIPS.names
    # A part of a table gives the same rows.
    assert explode(whole.slice(cut)).to_pylist() == one_by_one(videos[cut:])


# ── following the videos manifest ────────────────────────────────────────────────────────────────────────────────────


def scanned(video: str, scan: str, starts: list[float], chosen: Recipe) -> dict[str, Any]:
    protocol = chosen.built["width"].protocol
    clips = [
        {
            "clip_id": f"{video}@{start}", "start": start, "end": start + 15, "status": "ok", "has_frames": True,
            "scores": [{"name": "width", "value": 1920.0, "detail": [1920.0], "protocol": protocol}],
        }
        for start in starts
    ]  # fmt: skip
    return {"video_id": video, "uri": f"/{video}.mp4", "status": "ok", "scan_id": scan, "clips": clips}


def scan(workspace: Workspace, *rows: dict[str, Any]) -> None:
    workspace.videos.append(pa.Table.from_pylist(list(rows), schema=schemas.VIDEOS))
    workspace.videos.compact()


def clips_of(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in workspace.clips.read().to_pylist()}


def give_score(workspace: Workspace, chosen: Recipe, value: float, protocol: str | None = None) -> None:
    """What the score stage does to all clips."""
    table = workspace.clips.read()
    rows = []
    for row in table.to_pylist():
        protocols = {**json.loads(row["protocols"]), FRAMES_FILTER: protocol or chosen.built[FRAMES_FILTER].protocol}
        rows.append(
            row | {FRAMES_FILTER: value, f"{FRAMES_FILTER}_detail": [value], "protocols": dump_protocols(protocols)}
        )
    fields = [*schemas.CLIPS, *schemas.score_fields("width"), *schemas.score_fields(FRAMES_FILTER)]
    workspace.clips.append(pa.Table.from_pylist(rows, schema=pa.schema(fields)))


def test_clips_come_stay_and_go_with_their_videos(tmp_path: Path) -> None:
    workspace, chosen = Workspace(str(tmp_path)), recipe()
    sync_clips(workspace, chosen)  # A workspace with nothing to do is no fault.
    assert workspace.clips.rows() == 0
    scan(workspace, scanned("v1", "s1", [0, 15], chosen), scanned("v2", "s2", [0], chosen))
    sync_clips(workspace, chosen)
    assert set(clips_of(workspace)) == {"v1@0", "v1@15", "v2@0"}
    assert score_columns(workspace.clips.read()) == ["width"]

    before = [part.name for part in workspace.clips.parts()]
    sync_clips(workspace, chosen)
    assert [part.name for part in workspace.clips.parts()] == before  # A second call writes nothing.

    give_score(workspace, chosen, 0.02)
    # The video v1 is scanned again: one clip has the same span, one is gone, and one is new.
    scan(workspace, scanned("v1", "s3", [15, 30], chosen))
    sync_clips(workspace, chosen)
    clips = clips_of(workspace)
    assert {name: (row["scan_id"], row[FRAMES_FILTER]) for name, row in clips.items()} == {
        "v1@15": ("s3", 0.02),  # The clip has the same frames, so its score stays.
        "v1@30": ("s3", None),
        "v2@0": ("s2", 0.02),
    }
    assert json.loads(clips["v1@15"]["protocols"]) == {
        "width": chosen.built["width"].protocol,
        FRAMES_FILTER: chosen.built[FRAMES_FILTER].protocol,
    }
    assert clips["v1@15"][f"{FRAMES_FILTER}_detail"] == [0.02]
    assert workspace.clips.rows() == 3  # The files, too, have one row per clip.


def test_a_score_of_another_reduction_stays(tmp_path: Path) -> None:
    """It is worked out from the detail, so nobody has to measure it again."""
    workspace, chosen = Workspace(str(tmp_path)), recipe()
    scan(workspace, scanned("v1", "s1", [0], chosen))
    sync_clips(workspace, chosen)
    stored = chosen.built[FRAMES_FILTER].protocol.rpartition("/")[0] + "/min"
    give_score(workspace, chosen, 0.02, protocol=stored)
    scan(workspace, scanned("v1", "s2", [0], chosen))
    sync_clips(workspace, chosen)
    row = clips_of(workspace)["v1@0"]
    assert (row["scan_id"], row[FRAMES_FILTER], json.loads(row["protocols"])[FRAMES_FILTER]) == ("s2", 0.02, stored)
    assert not ClipScores(workspace.clips.read(), chosen.built).missing(FRAMES_FILTER).any()


def test_a_score_under_another_protocol_does_not_stay(tmp_path: Path) -> None:
    workspace, chosen = Workspace(str(tmp_path)), recipe()
    scan(workspace, scanned("v1", "s1", [0], chosen))
    sync_clips(workspace, chosen)
    give_score(workspace, chosen, 0.02, protocol="rapidocr/as-it-was/max")
    scan(workspace, scanned("v1", "s2", [0], chosen))
    sync_clips(workspace, chosen)
    row = clips_of(workspace)["v1@0"]
    assert row[FRAMES_FILTER] is None
    assert FRAMES_FILTER not in json.loads(row["protocols"])


def test_a_kill_between_the_two_steps_is_made_good(tmp_path: Path) -> None:
    """New clips are appended before old ones are dropped: killed between, the next sync ends the work."""
    workspace, chosen = Workspace(str(tmp_path)), recipe()
    scan(workspace, scanned("v1", "s1", [0, 15], chosen))
    sync_clips(workspace, chosen)
    scan(workspace, scanned("v1", "s2", [15, 30], chosen))
    workspace.clips.append(explode(workspace.videos.read()))  # The run was killed at this point.
    sync_clips(workspace, chosen)
    assert {name: row["scan_id"] for name, row in clips_of(workspace).items()} == {"v1@15": "s2", "v1@30": "s2"}


# ── what gates are applied to ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("clips") / "workspace")


@pytest.mark.parametrize("columns", [None, [], ["uri"]])
def test_captions_are_joined_to_their_clips(workspace: Workspace, columns: list[str] | None) -> None:
    table = clip_scores(workspace, recipe(), columns).table
    rows = {row["clip_id"][0]: row for row in table.to_pylist()}
    assert list(rows) == list(CLIPS)
    for letter, (_, _, _, similarity, _) in CLIPS.items():
        assert rows[letter]["text_similarity"] == similarity
        assert ("text_similarity" in json.loads(rows[letter]["protocols"])) == (letter in "abij")
    status = {letter: (row["status"], row["error_kind"], row["error"]) for letter, row in rows.items()}
    assert status.pop("f") == ("error", "frames", "[bold]gone[/bold]")
    assert status.pop("i") == ("error", "caption", "the model would not")
    # The status holds for g, too, whose captions are of an older scan.
    assert set(status.values()) == {("ok", None, None)}
    if columns is not None:
        assert "uri" in table.column_names or not columns
        assert "psnr_detail" not in table.column_names


def test_captions_of_another_captioner_are_not_there(workspace: Workspace) -> None:
    """Nor do its refusals count. One that cannot be made here is believed, and named."""
    other = parse_recipe(recipe().model_dump(mode="json") | {"captioning": {"captioner": "sidecar"}}, source="x")
    scores = clip_scores(workspace, other, [])
    assert scores.missing("text_similarity").all()
    assert "caption" not in scores.table["error_kind"].to_pylist()
    absent = parse_recipe(
        recipe().model_dump(mode="json")
        | {"captioning": {"captioner": "transformers", "settings": {"path": "/nowhere/a-model"}}},
        source="x",
    )
    scores = clip_scores(workspace, absent, [])
    found = dict(zip(CLIPS, scores.missing("text_similarity").tolist(), strict=True))
    assert {letter for letter, missing in found.items() if not missing} == {
        letter for letter in "abij" if CLIPS[letter][3] is not None
    }
    assert "text_similarity" in scores.unchecked


def test_only_what_is_asked_for_is_read_and_verdicts_are_the_same(workspace: Workspace) -> None:
    for reduce in ("mean", "every", "min"):
        chosen = parse_recipe(
            recipe().model_dump(mode="json") | {"filters": {**recipe().filters, "psnr": {"reduce": reduce}}}, source="x"
        )
        whole, lean = clip_scores(workspace, chosen), clip_scores(workspace, chosen, [])
        assert ("psnr_detail" in lean.table.column_names) == (reduce != "mean")
        for gates in chosen.tiers.values():
            assert np.array_equal(decide(whole, gates).verdicts, decide(lean, gates).verdicts)


def test_without_captions_or_clips(tmp_path: Path) -> None:
    workspace, chosen = Workspace(str(tmp_path)), recipe()
    assert clip_scores(workspace, chosen).table.num_rows == 0
    scan(workspace, scanned("v1", "s1", [0], chosen))
    sync_clips(workspace, chosen)
    assert clip_scores(workspace, chosen, []).table["clip_id"].to_pylist() == ["v1@0"]
