"""What the pass sees of a clip's motion: films whose camera moves only at keyframes, or only between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.reading.judge import ClipScan, VideoScan
from longtake.curation.reading.motion import motion_of, small_grey
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import VideoInfo
from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.filters.base import Image, Sample
from longtake.filters.flow_dis import FlowDis, work_size
from longtake.filters.grayscale import grey
from tests.corpus import Encoding, film, halting, track
from tests.filters.pictures import crop

RATE = 25
SIZE = (480, 270)
SECONDS = 20  # Seconds: a window of 15 s, and a rest.
PLACES = {
    "moves at its keyframes only": halting(SECONDS * RATE, 3 * RATE, slow=3, fast=0),
    "moves between its keyframes only": halting(SECONDS * RATE, 3 * RATE, slow=0, fast=4),
}


def make(path: Path, places: list[tuple[int, int]]) -> Path:
    film(path, track("street", SIZE, iter(places)), Encoding(size=SIZE, fps=RATE))
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("halting")
    return {name: make(folder / f"{i}.mp4", places) for i, (name, places) in enumerate(PLACES.items())}


def scanned(path: Path, spans: list[Span] | None = None, **splitting: Any) -> tuple[VideoScan, list[Sample]]:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"detector": "none", **splitting}
    kept: list[Sample] = []
    by = parse_recipe(data, source="a test")
    return scan_video(str(path), by, lambda _, sample: kept.append(sample), all_scores=True, spans=spans or ()), kept


def value(clip: ClipScan, name: str) -> float:
    return clip.scores[name].score.value


def truth(places: list[tuple[int, int]]) -> tuple[float, float]:
    """Of the first 15 s: the mean flow of all pairs half a second apart, and the share of frames like the one before."""
    x = np.array([place[0] for place in places[: 15 * RATE]], float)
    half = round(0.5 * RATE)
    return float(np.abs(x[half:] - x[:-half]).mean()) * 960 / SIZE[0], float((np.diff(x) == 0).mean())


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("listed", [False, True])
def test_a_clip_that_halts(films: dict[str, Path], name: str, listed: bool) -> None:
    """The 5 stored pairs say the contrary of the truth: 15 do not."""
    flow, still = truth(PLACES[name])
    scan, samples = scanned(films[name], [Span(0, 15)] if listed else None)
    (clip,) = scan.clips
    assert clip.span == Span(0, 15)
    assert value(clip, "flow") == pytest.approx(flow, rel=0.15)
    error = clip.scores["flow"].score.standard_error
    assert error is not None
    assert abs(value(clip, "flow") - flow) < 2 * error
    assert value(clip, "frozen") == pytest.approx(still, abs=0.08)
    (stored,) = FlowDis(pairs="stored").measure(samples)
    passes = flow >= 40
    assert passes == (name == "moves between its keyframes only")
    assert (value(clip, "flow") >= 40) == passes
    assert (stored.value >= 40) != passes  # type: ignore[union-attr]


@pytest.mark.parametrize("listed", [False, True])
def test_pairs_lie_half_a_second_apart_all_over_the_clip(films: dict[str, Path], listed: bool) -> None:
    _, (sample,) = scanned(next(iter(films.values())), [Span(0, 15)] if listed else None)
    motion = sample.motion
    assert motion is not None
    assert motion.times == pytest.approx([*(0.5 + i for i in range(14)), 14.4], abs=0.08)
    assert motion.partner_times - motion.times == pytest.approx(np.full(15, 0.5), abs=0.041)
    assert motion.first.shape == motion.second.shape == (15, SIZE[1], SIZE[0])
    for keyframe, time in zip(sample.keyframes, sample.times, strict=True):
        (at,) = np.flatnonzero(np.abs(motion.times - time) < 1e-6)  # The stored pairs are among the times.
        assert np.abs(motion.first[at].astype(int) - grey(keyframe)).mean() < 1.5


@pytest.mark.parametrize(
    ("longer", "ends", "left_out"), [("windows", [6, 12, 18], 2), ("trim", [6], 14), ("faster", [6, 12, 20], 0)]
)
def test_what_becomes_of_the_rest_of_a_shot(
    films: dict[str, Path], longer: str, ends: list[float], left_out: float
) -> None:
    path = next(iter(films.values()))
    scan, _ = scanned(path, min_seconds=6, window_seconds=6, longer=longer)
    assert [clip.span.end for clip in scan.clips] == pytest.approx(ends)
    assert scan.left_out == pytest.approx(left_out, abs=0.001)
    protocols = {clip.scores["psnr"].protocol for clip in scan.clips}
    distances = {"faster": {"@1.2s", "@1.6s"}}.get(longer, {"@1.2s"})
    assert protocols == {f"grey/bt601,neighbouring-keyframes{distance},cap100/mean" for distance in distances}


@pytest.mark.parametrize(
    ("splitting", "seconds"),
    [
        # Two seconds are left, which is too short for any clip.
        ({"min_seconds": 6, "window_seconds": 6}, (17.9, 18.5)),
        # A cut could begin a clip until a second before the end.
        ({"min_seconds": 1, "window_seconds": 6}, (18.9, 20)),
        ({"min_seconds": 6, "window_seconds": 6, "longer": "trim"}, (13.9, 14.5)),
        ({"min_seconds": 6, "window_seconds": 6, "longer": "faster"}, (19.8, 20)),  # The last clip takes the rest.
        # The film has no clip at all: one row of the whole film stands for it.
        ({"min_seconds": 30, "window_seconds": 30}, (19.8, 20)),
    ],
)
def test_no_more_is_decoded_than_can_become_clips(
    films: dict[str, Path], splitting: dict[str, Any], seconds: tuple[float, float]
) -> None:
    least, most = seconds
    scan, _ = scanned(next(iter(films.values())), **splitting)
    assert least <= scan.decoded_seconds <= most
    assert scan.info.duration == pytest.approx(20)
    assert scan.count.packets == 20 * RATE
    assert scan.info.fps == pytest.approx(RATE)


def test_a_shot_that_is_too_short_leaves_nothing_out(films: dict[str, Path]) -> None:
    scan, _ = scanned(next(iter(films.values())), min_seconds=30, window_seconds=30)
    assert len(scan.clips) == 1
    assert scan.left_out == 0


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv444p", "rgb24"])
def test_small_grey_is_the_grey_of_the_picture(kind: str) -> None:
    """Straight from the luma where that is what it is, whatever its range; else by way of the picture."""
    picture: Image = crop(0)
    info = VideoInfo(960, 540, 960, 540, 0, 25.0, 1.0, 0.0, 25, 1, "h264", kind, "mp4", False)
    frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
    small = frame.reformat(format=kind)
    small.color_range = 2 if kind in ("yuvj420p", "rgb24") else 1
    found = small_grey(small, AnalysisFrames(info))
    assert found.shape == (270, 480)
    assert np.abs(found.astype(int) - work_size(grey(picture))).mean() < 1.5


def test_equal_pairs_count_once_and_those_without_a_gap_not_at_all() -> None:
    picture = grey(crop(0))[:64, :64]
    motion = motion_of(
        [
            (1.0, picture, 1.5, picture),
            (0.0, picture, 0.5, picture),
            (1.0, picture, 1.5, picture),
            (2.0, picture, 2.0, picture),
        ]
    )
    assert motion is not None
    assert motion.times.tolist() == [0.0, 1.0]
    assert motion_of([]) is None
