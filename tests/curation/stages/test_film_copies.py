"""Copies in a workspace: which clip of a group is kept, what a later video changes, and that no group is lost as a whole."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longtake.curation.clip_table import clip_scores, rows_table
from longtake.curation.recipe import Recipe, RecipeError, parse_recipe
from longtake.curation.stages.deduplicate import finish
from longtake.curation.stages.scan import scan_row
from longtake.curation.workspace import Workspace
from longtake.filters.phash import pack
from longtake.filters.verdicts import Verdict, decide
from longtake.manifests import schemas
from tests.corpus import Encoding, film, line, track

FILTERS = {"grayscale": {}, "phash": {}, "copies": {}}
TIERS = {"pretrain": {"grayscale": "[20, 180]", "copies": "<= 0"}}


def recipe(filters: dict[str, Any] = FILTERS, tiers: dict[str, Any] = TIERS) -> Recipe:
    return parse_recipe({"name": "copies", "filters": filters, "tiers": tiers}, "the test")


def add(workspace: Workspace, number: int, film_: int, **changes: Any) -> None:
    """A video of one clip: number in its names, film_ in what it shows."""
    hashes = [int(h) for h in np.random.default_rng(film_).integers(0, 2**63, 5)]
    video = {
        "video_id": f"{number:032x}", "uri": f"{number}.mp4", "status": "ok", "width": 1280, "height": 720,
        "stream_sha256": None,
    } | {name: changes.pop(name) for name in ("width", "height", "stream_sha256") if name in changes}  # fmt: skip
    workspace.videos.append(pa.Table.from_pylist([video], schema=schemas.VIDEOS))
    made = recipe()
    clip = {
        "clip_id": f"{number:032x}", "video_id": video["video_id"], "uri": video["uri"], "start": 0.0, "end": 15.0,
        "status": "ok", "has_frames": True, "scan_id": f"scan {number}", "grayscale": 90.0, "grayscale_detail": [90.0],
        "phash": 1.0, "phash_detail": pack(changes.pop("hashes", hashes)),
        "protocols": json.dumps({name: made.built[name].protocol for name in ("grayscale", "phash")}),
    } | changes  # fmt: skip
    columns = ["grayscale", "phash", *(["aesthetic"] if "aesthetic" in clip else [])]
    workspace.clips.append(rows_table([clip], schemas.CLIPS, columns))


def kept(workspace: Workspace, by: Recipe) -> list[int]:
    scores = clip_scores(workspace, by)
    verdicts = decide(scores, by.tiers["pretrain"]).verdicts
    ids = scores.table["clip_id"].to_pylist()
    return sorted(int(clip_id, 16) for clip_id, v in zip(ids, verdicts, strict=True) if v == Verdict.KEPT)


def named(workspace: Workspace) -> dict[int, int | None]:
    rows = workspace.clips.read().to_pylist()
    return {int(row["clip_id"], 16): int(row["copied_from"], 16) if row["copied_from"] else None for row in rows}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "ws"))


def test_the_largest_then_the_longest_then_the_first_is_kept(workspace: Workspace) -> None:
    for number, (film_, changes) in enumerate(
        [(1, {}), (1, {"width": 1920, "height": 1080}), (2, {}), (2, {"end": 20.0}), (3, {}), (3, {}), (4, {})]
    ):
        add(workspace, number, film_, **changes)
    assert finish(workspace, recipe()) == 7
    assert named(workspace) == {0: 1, 1: None, 2: 3, 3: None, 4: None, 5: 4, 6: None}
    assert kept(workspace, recipe()) == [1, 3, 4, 6]
    assert finish(workspace, recipe()) == 0


def test_a_video_that_comes_later_changes_what_it_must(workspace: Workspace) -> None:
    add(workspace, 1, 1)
    add(workspace, 2, 2)
    assert finish(workspace, recipe()) == 2
    add(workspace, 3, 1)
    assert finish(workspace, recipe()) == 1
    add(workspace, 4, 1, width=1920, height=1080)
    assert finish(workspace, recipe()) == 3
    assert named(workspace) == {1: 4, 2: None, 3: 4, 4: None}


def test_the_best_of_a_group_that_another_gate_rejects_takes_nobody_along(workspace: Workspace) -> None:
    add(workspace, 1, 1)
    add(workspace, 2, 1, width=1920, height=1080, grayscale=190.0, grayscale_detail=[190.0])
    finish(workspace, recipe())
    assert kept(workspace, recipe()) == [1]
    wider = recipe(tiers={"pretrain": {"copies": "<= 0"}})
    finish(workspace, wider)
    assert kept(workspace, wider) == [2]
    assert kept(workspace, recipe()) == []  # Clip 1 is not known until copies are looked for again; it is not rejected.
    scores = clip_scores(workspace, recipe())
    assert Verdict.UNDECIDED in decide(scores, recipe().tiers["pretrain"]).verdicts
    finish(workspace, recipe())
    assert kept(workspace, recipe()) == [1]


def test_near_duplicates_and_copies_do_not_lose_a_group_between_them(workspace: Workspace) -> None:
    """The larger of two is the copies' best, the more beautiful one the near-duplicates': one of them stays."""
    filters = {**FILTERS, "aesthetic": {}, "duplicates": {}}
    both = recipe(filters, {"pretrain": {"copies": "<= 0", "duplicates": "<= 0"}})
    protocols = {name: both.built[name].protocol for name in ("grayscale", "phash", "aesthetic")}
    more = {"embedding": np.array([1.0, 0.0], np.float16), "protocols": json.dumps(protocols)}
    add(workspace, 1, 1, width=1920, height=1080, aesthetic=4.0, aesthetic_detail=[4.0], **more)
    add(workspace, 2, 1, aesthetic=6.0, aesthetic_detail=[6.0], **more)
    finish(workspace, both)
    assert kept(workspace, both) == [1]
    assert named(workspace) == {1: None, 2: 1}
    assert finish(workspace, both) == 0


def test_what_lacks_hashes_has_no_part_but_equal_streams_do(workspace: Workspace) -> None:
    black = [None] * 5
    add(workspace, 1, 1, hashes=black, stream_sha256="ab")
    add(workspace, 2, 1, hashes=black, stream_sha256="ab")
    add(workspace, 3, 1, hashes=black, stream_sha256="cd")
    add(workspace, 4, 1, hashes=black)
    finish(workspace, recipe())
    assert named(workspace) == {1: None, 2: 1, 3: None, 4: None}


def test_a_recipe_needs_the_hashes() -> None:
    with pytest.raises(RecipeError, match="phash"):
        recipe({"copies": {}}, {"pretrain": {"copies": "<= 0"}})


def test_a_remuxed_film_has_the_same_stream_and_hashes(tmp_path: Path) -> None:
    """From MP4 to Matroska; encoded anew its hashes are near, and its packets are others."""
    size = (320, 180)
    how = Encoding(size=size, fps=25)
    film(tmp_path / "a.mp4", track("street", size, line((0, 40), (2, 0), 400)), how)
    for name, codec in (("b.mkv", ["-c", "copy"]), ("c.mp4", ["-crf", "35", "-vf", "scale=240:-2"])):
        command = ["ffmpeg", "-v", "error", "-i", "a.mp4", *codec, name]
        try:
            subprocess.run(command, cwd=tmp_path, check=True)
        except FileNotFoundError:
            pytest.skip("no ffmpeg")
    by = recipe().model_dump(mode="json")
    rows = []
    for name in ("a.mp4", "b.mkv", "c.mp4"):
        given = {"video_id": name, "uri": str(tmp_path / name), "licence": None, "spans": []}
        rows.append(scan_row(given, str(tmp_path / "ws"), by, all_scores=True))
    streams = [row["stream_sha256"] for row in rows]
    assert streams[0] == streams[1]
    assert streams[0] != streams[2]
    assert all(len(stream) == 64 for stream in streams)
    details = [next(s["detail"] for s in row["clips"][0]["scores"] if s["name"] == "phash") for row in rows]
    assert details[0] == details[1]
    bits = [int(a) ^ int(b) for a, b in zip(details[0], details[2], strict=True)]
    assert sum(value.bit_count() for value in bits) <= 5 * 8
