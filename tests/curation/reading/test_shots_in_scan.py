"""Shots as a scan cuts them: what is left out, how sure it is, and real film."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from longtake.curation.reading.judge import VideoScan
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.filters.gates import Gate
from tests.corpus import Encoding, film
from tests.curation.reading.takes import JOINTS, SIZE, Pictures, flash, joined, take

SHARED = Path(__file__).parents[4] / "shared"
# Labelled by eye; short, and of each kind: hard cuts, dissolves, none at all in a film that moves and one that hardly does.
REAL = ("multi/pyscenedetect_testvideo.mp4", "short/torchcodec_nasa.mp4", "short/sam2_dog.mp4", "short/mdn_flower.mp4")


def scanned(path: Path, **splitting: Any) -> VideoScan:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": 3, "window_seconds": 15, **splitting}
    data["tiers"] = {tier: {"shot_confidence": Gate(low=0.5), "fps": Gate(low=0)} for tier in ("pretrain", "finetune")}
    return scan_video(str(path), parse_recipe(data, source="a test"), lambda span, sample: None)


def filmed(path: Path, pictures: Pictures) -> Path:
    film(path, (np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2YUV_I420), np.uint8) for p in pictures), Encoding(size=SIZE))
    return path


@pytest.mark.parametrize("joint", ["wipe", "iris", "dissolve"])
def test_no_clip_holds_any_of_a_transition(tmp_path: Path, joint: str) -> None:
    scan = scanned(filmed(tmp_path / "two.mp4", joined(JOINTS[joint], 1.0, seed=3, rate=24)))
    (cut,) = scan.cuts
    first, second = scan.clips
    assert 5.5 <= cut < 6.5
    assert 3 < first.span.end <= 4.5
    assert 5.5 <= second.span.start < 6.6
    for clip in scan.clips:
        assert clip.certainty == clip.scores["shot_confidence"].score.value > 0.5


def test_a_flashed_take_is_one_clip(tmp_path: Path) -> None:
    scan = scanned(filmed(tmp_path / "one.mp4", flash(flash(take("chelsea", 8, 5, 24), 60, 2), 130, 4)))
    assert scan.cuts == []
    (clip,) = scan.clips
    assert clip.has_frames


def test_where_nobody_looks_nothing_is_known(tmp_path: Path) -> None:
    path = filmed(tmp_path / "one.mp4", take("chelsea", 4, 5, 24))
    for splitting in ({"detector": "none"}, {"detector": "content", "dissolves": False}):
        (clip,) = scanned(path, **splitting).clips
        assert "shot_confidence" not in clip.scores
        assert clip.has_frames  # A score that is not known does not reject the clip.


@pytest.mark.campaign
@pytest.mark.slow  # The test decodes four real films.
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared corpus")
@pytest.mark.parametrize("name", REAL)
def test_real_film(name: str) -> None:
    """A coarse bar; `make bench-shots` measures it on all films."""
    with open(SHARED / "cases" / "cuts.tsv", encoding="utf-8") as file:
        known = {
            row["file"]: [float(cut) for cut in (row["cuts"] or "").split()]
            for row in csv.DictReader(file, delimiter="\t")
        }
    found = scanned(SHARED / "corpus" / "videos" / name, min_seconds=1).cuts
    missed = [moment for moment in known[name] if not any(abs(cut - moment) < 1 for cut in found)]
    assert len(missed) <= 1
    assert len(found) - (len(known[name]) - len(missed)) <= 1
