"""The early look: films that begin as no clip may be are rejected by their keyframes, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.judge import VideoScan
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.filters.gates import Gate
from longtake.filters.verdicts import ClipScores, Verdict, decide
from tests.corpus import Encoding, Pictures, film

RATE = 10
HOW = Encoding(size=(96, 64), fps=RATE, gop=2 * RATE)
BLACK, GREY, WHITE = 16, 126, 235  # Luma in the limited range.


def recipe(grayscale: str = "[20, 180]", window: float = 6.0) -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"detector": "none", "min_seconds": window, "window_seconds": window}
    data["tiers"] = {tier: {"grayscale": Gate.parse(grayscale)} for tier in ("pretrain", "finetune")}
    return parse_recipe(data, source="a test")


def plain(*stretches: tuple[int, int]) -> Pictures:
    """Pictures of one luma, for so many seconds each; a little uneven, so that encoders have something to do."""
    for luma, seconds in stretches:
        for number in range(seconds * RATE):
            picture = np.full((96, 96), 128, np.uint8)
            picture[:64] = luma
            picture[number % 32 : number % 32 + 8, :8] = luma - 2 if luma > BLACK else luma
            yield picture


def scanned(path: Path, pictures: Iterable[Any], by: Recipe, how: Encoding = HOW, **more: Any) -> VideoScan:
    film(path, pictures, how)
    return scan_video(str(path), by, lambda span, sample: None, **more)


def verdict(scan: VideoScan, by: Recipe) -> tuple[Verdict, list[str]]:
    """Of the first clip in the strictest tier, and the gates that failed it."""
    scores = scan.clips[0].scores
    row: dict[str, Any] = {"status": "ok", "protocols": json.dumps({n: m.protocol for n, m in scores.items()})}
    for name, measured in scores.items():
        row |= {name: measured.score.known, f"{name}_detail": measured.score.detail}
    result = decide(ClipScores.of_rows([row], by.built), by.tiers["finetune"])
    return Verdict(result.verdicts[0]), [name for name, gate in result.gates.items() if gate.failed[0]]


@pytest.mark.parametrize(("luma", "level"), [(BLACK, 0), (WHITE, 255)])
def test_a_film_of_one_dull_picture_is_one_rejected_row(tmp_path: Path, luma: int, level: float) -> None:
    scan = scanned(tmp_path / "dull.mp4", plain((luma, 14)), recipe())
    assert scan.count.frames == 1  # The pass decodes one frame and no more.
    (clip,) = scan.clips
    assert (clip.span.start, clip.span.end) == pytest.approx((0, 14))
    assert clip.error is None
    assert not clip.has_frames
    score = clip.scores["grayscale"].score
    assert score.value == pytest.approx(level, abs=2)
    assert score.detail == pytest.approx((level - 5, level + 5), abs=2)
    assert verdict(scan, recipe()) == (Verdict.REJECTED, ["grayscale"])
    # Under a gate that lets black and white pass nothing is known: an early look never lets a clip pass.
    assert verdict(scan, recipe("[0, 255]")) == (Verdict.UNDECIDED, [])


def test_all_scores_are_of_clips(tmp_path: Path) -> None:
    scan = scanned(tmp_path / "dull.mp4", plain((BLACK, 14)), recipe(), all_scores=True)
    assert [clip.span.end for clip in scan.clips] == pytest.approx([6, 12])
    assert scan.clips[0].scores["grayscale"].protocol == recipe().built["grayscale"].protocol


@pytest.mark.parametrize(
    ("stretches", "ends"),
    [
        ([(BLACK, 4), (GREY, 10)], [6, 12]),  # A film may begin in the dark.
        ([(BLACK, 8), (WHITE, 6)], [6, 12]),  # A clip may be half black and half white.
        ([(BLACK + 17, 14)], [6, 12]),  # A grey level of 20 is too near to the gate for keyframes to decide.
    ],
)
def test_what_some_clip_may_pass_is_read(tmp_path: Path, stretches: list[tuple[int, int]], ends: list[float]) -> None:
    scan = scanned(tmp_path / "film.mp4", plain(*stretches), recipe())
    assert [clip.span.end for clip in scan.clips] == pytest.approx(ends)
    assert scan.count.frames > 50


def test_a_window_without_a_keyframe_is_read(tmp_path: Path) -> None:
    sparse = replace(HOW, gop=9 * RATE)
    scan = scanned(tmp_path / "sparse.mp4", plain((BLACK, 14)), recipe(), sparse)
    assert len(scan.clips) == 2
    assert scan.clips[0].scores["grayscale"].protocol == recipe().built["grayscale"].protocol


def test_what_cannot_be_read_is_for_the_pass_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    scanned(path, plain((BLACK, 14)), recipe())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(VideoError, match=r"ends? at"):
        scan_video(str(path), recipe(), lambda span, sample: None)
