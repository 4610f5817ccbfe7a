"""Whole scans of films with known answers: clips, samples, scores, and what is left out or held."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from longtake.curation.reading import one_pass
from longtake.curation.reading.sampling import FrameBuffer
from longtake.filters.base import Image
from longtake.filters.gates import Gate
from tests.corpus import ANALYSIS, BADGE, CASES, GAP, HD, SMALL, Case, Corpus, Encoding, film, pan, planes
from tests.curation.reading.scans import ANY, NO_CUTS, Scanned, failing, recipe, scanned, value

WHOLE = [name for name, case in CASES.items() if not case.truth.error]
SINGLE = [name for name in WHOLE if len(CASES[name].truth.clips) == 1]  # One take gives one clip.
SLOW_CUTS = ["dissolve", "fade"]
TRIM = 3  # Frames.


@pytest.fixture(scope="module")
def full(corpus: Corpus) -> Callable[[str], Scanned]:
    """Scans with all scores, by the embedded recipe; each video once."""
    done: dict[str, Scanned] = {}

    def get(name: str) -> Scanned:
        if name not in done:
            done[name] = scanned(corpus[name], all_scores=True)
        return done[name]

    return get


def psnr(a: Image, b: Image) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-9)))


def turned(picture: Image, case: Case) -> Image:
    return np.ascontiguousarray(np.rot90(picture, case.truth.rotation // 90))


# ---------------------------------------------------------------------------------------------------------------------
# The corpus: clips and scores


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in SLOW_CUTS])
def test_clips(full: Callable[[str], Scanned], name: str) -> None:
    """Where the corpus says; next to a cut, trimmed by what the recipe says and a decoded frame."""
    truth, scan = CASES[name].truth, full(name).scan
    assert scan.cuts == pytest.approx(truth.cuts, abs=2 / truth.fps)
    if not truth.clips:  # The whole film is one row with its reason.
        (clip,) = scan.clips
        assert (clip.span.start, clip.span.end) == pytest.approx((0, truth.duration), abs=0.02)
        return
    assert len(scan.clips) == len(truth.clips)
    for clip, (start, end) in zip(scan.clips, truth.clips, strict=True):
        assert clip.error is None
        assert clip.has_frames
        assert clip.span.start - start == pytest.approx(
            TRIM / truth.fps if start in truth.cuts else 0, abs=1.01 / truth.fps
        )
        assert clip.span.start >= start - 0.02
        assert clip.span.seconds == end - start == 15
        assert clip.span.end <= truth.duration + 0.02


@pytest.mark.parametrize("name", ["dissolve", "fade"])
def test_clips_around_dissolves_and_fades(full: Callable[[str], Scanned], name: str) -> None:
    """One cut, somewhere in the transition; the clips hold none of its middle half, and lose little of their shots."""
    truth, scan = CASES[name].truth, full(name).scan
    ((start, end),) = truth.transitions
    (cut,) = scan.cuts
    assert start < cut < end + 0.8
    first, second = (clip.span for clip in scan.clips)
    assert (first.start, first.seconds, second.seconds) == (0, 15, 15)
    assert end - (end - start) / 4 <= second.start < end + 1
    assert second.end <= truth.duration + 0.02
    # The missing seconds lie in both shots, and in neither the transition nor its surroundings.
    lost = truth.duration - 30 - (end - start)
    assert lost - 2 < scan.left_out < lost + (end - start) / 4
    assert all(not failing(clip) for clip in scan.clips)


@pytest.mark.parametrize("name", WHOLE)
def test_what_the_scan_knows_of_the_video(full: Callable[[str], Scanned], name: str) -> None:
    truth, scan = CASES[name].truth, full(name).scan
    assert (scan.info.width, scan.info.height) == (truth.width, truth.height)
    assert scan.info.fps == pytest.approx(truth.fps, rel=2e-3)
    assert scan.info.duration == pytest.approx(truth.duration, abs=0.02)
    assert scan.count.corrupt == 0
    assert scan.count.packets == round(truth.duration * truth.fps)
    ends = scan.clips[-1].span.end if truth.clips else truth.duration  # The rest may be too short for a clip.
    assert ends - 2.5 / truth.fps <= scan.decoded_seconds <= truth.duration


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in SLOW_CUTS])
def test_gates(full: Callable[[str], Scanned], name: str) -> None:
    fails = set(CASES[name].truth.fails)
    for clip in full(name).scan.clips:
        found = failing(clip)
        assert found == fails if len(fails) < 2 else found >= fails


@pytest.mark.parametrize("name", [n for n in WHOLE if CASES[n].truth.flow is not None and CASES[n].truth.clips])
def test_flow(full: Callable[[str], Scanned], name: str) -> None:
    flow = CASES[name].truth.flow
    assert flow is not None
    # One of the 15 pairs of the dark film is too faint for its shift to be found: a fifteenth is lost.
    off = 0.07 if name == "dark" else 0.05
    for clip in full(name).scan.clips:
        assert value(clip, "flow") == pytest.approx(flow, rel=off, abs=0.5)


@pytest.mark.parametrize("name", [n for n in WHOLE if CASES[n].truth.grey is not None])
def test_grey(full: Callable[[str], Scanned], name: str) -> None:
    grey = CASES[name].truth.grey
    assert grey is not None
    assert value(full(name).scan.clips[0], "grayscale") == pytest.approx(grey, abs=1.5)


@pytest.mark.parametrize("name", SINGLE)
def test_borders_and_marks(full: Callable[[str], Scanned], name: str) -> None:
    truth = CASES[name].truth
    found = value(full(name).scan.clips[0], "artifacts")
    side = truth.width if name == "pillarbox" else truth.height
    if truth.marks:
        _, _, wide, high = BADGE
        rim = 5 / HD[0] * high / HD[1] * 2 + 5 / HD[1] * wide / HD[0] * 2  # The rim is five pixels on each side.
        assert truth.marks - rim <= found <= truth.marks + rim
    elif truth.text:
        assert found > 0.05  # Letters that stay in their place count as marks in the lower bound of the scan.
    else:
        assert found == pytest.approx(truth.borders, abs=2 / side)


@pytest.mark.parametrize("name", [n for n in WHOLE if CASES[n].truth.width >= 1280])
def test_scores_are_complete_with_all_scores(full: Callable[[str], Scanned], name: str) -> None:
    expected = {
        "width",
        "height",
        "fps",
        "duration",
        "shot_confidence",
        "grayscale",
        "artifacts",
        "psnr",
        "ssim",
        "frozen",
        "repeats",
        "flow",
    }
    for clip in full(name).scan.clips:
        assert set(clip.scores) == expected
        assert clip.has_frames
        for measured in clip.scores.values():
            assert np.isfinite(measured.score.value)
            assert measured.protocol


# ---------------------------------------------------------------------------------------------------------------------
# The corpus: samples


@pytest.mark.parametrize("name", SINGLE)
def test_sample_times_of_single_takes(full: Callable[[str], Scanned], name: str) -> None:
    """Centres of five equal segments, to half a decoded frame: of these files, at least every other one is decoded."""
    truth = CASES[name].truth
    ((span, stored),) = full(name).kept
    half = 1 / truth.fps + 1e-3
    if name == "vfr":
        half = 1 / 24 + 1e-3  # Two of the longer frames last this long.
    for i, (time, later) in enumerate(zip(stored.times, stored.partner_times, strict=True)):
        assert time == pytest.approx(span.start + span.seconds * (i + 0.5) / 5, abs=half)
        assert later == pytest.approx(time + GAP, abs=2 * half)
        assert span.start <= time < later < span.end


@pytest.mark.parametrize("name", ["long_take", "three_shots"])
def test_sample_times_of_several_clips(full: Callable[[str], Scanned], name: str) -> None:
    """Exact where the end of the clip could be foreseen, and on the grid (half a step off at most) elsewhere."""
    fps = CASES[name].truth.fps
    kept = full(name).kept
    assert len(kept) == len(CASES[name].truth.clips)
    for span, stored in kept:
        foreseen = span.end - span.start == 15 or span.end == pytest.approx(CASES[name].truth.duration)
        tolerance = 1 / fps if foreseen else 0.25 + 1 / fps
        for i, (time, later) in enumerate(zip(stored.times, stored.partner_times, strict=True)):
            assert time == pytest.approx(span.start + span.seconds * (i + 0.5) / 5, abs=tolerance + 1e-3)
            assert later == pytest.approx(time + GAP, abs=2 / fps + 1e-3)
            assert span.start <= time < later < span.end


def pictures_at(path: Path, times: Sequence[float], case: Case) -> dict[float, Image]:
    """The frames with exactly these times, by a whole decode: RGB, upright, square pixels, at the analysis size."""
    width, height = case.truth.width, case.truth.height
    scale = min(1, ANALYSIS / max(width, height))
    size = (round(width * scale), round(height * scale))
    wanted, found = sorted(times), {}
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        first: float | None = None
        for frame in container.decode(stream):
            assert isinstance(frame, av.VideoFrame)
            assert frame.time is not None
            first = frame.time if first is None else first
            time = frame.time - first
            if wanted and abs(time - wanted[0]) < 1e-6:
                matrix = "ITU601" if frame.colorspace == 6 else None
                rgb = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray().astype(np.uint8)
                small = cv2.resize(turned(rgb, case), size, interpolation=cv2.INTER_AREA)
                found[wanted.pop(0)] = np.asarray(small, np.uint8)
    assert not wanted, f"no frame has the time {wanted[:1]}"
    return found


@pytest.mark.parametrize("name", ["pan_diagonal", "rotated", "anamorphic", "vfr", "pan_1080p", "three_shots"])
def test_samples_show_the_frames_of_their_times(full: Callable[[str], Scanned], corpus: Corpus, name: str) -> None:
    samples = full(name).samples()
    times = sorted({float(t) for _, s in samples for t in (*s.times, *s.partner_times)})
    truth = pictures_at(corpus[name], times, CASES[name])
    for _, sample in samples:
        assert sample.keyframes.shape == sample.partners.shape
        for frames, moments in ((sample.keyframes, sample.times), (sample.partners, sample.partner_times)):
            for picture, time in zip(frames, moments, strict=True):
                assert psnr(picture, truth[float(time)]) > 30


def test_samples_of_other_containers(corpus: Corpus) -> None:
    """Against the pictures that were encoded. Also where the first timestamp is not 0."""
    lax = recipe(splitting=NO_CUTS)
    for name in ("transport_stream", "vp9", "hevc_10bit", "mpeg4", "quicktime"):
        ((span, sample),) = scanned(corpus[name], lax, all_scores=True).samples()
        assert (span.start, span.end) == pytest.approx((0, 3), abs=1e-3)
        drawn = list(pan("street", (2, 0), (600, 60), SMALL, 72))
        for picture, time in zip(sample.keyframes, sample.times, strict=True):
            expected = planes(drawn[round(float(time) * 24)])[0]
            limited = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)[:180], np.uint8)
            assert psnr(limited, expected) > 26, name


def test_a_matroska_that_is_turned(tmp_path: Path) -> None:
    """Its probe does not say so; the first frame does."""
    path = tmp_path / "turned.mkv"
    film(path, pan("street", (2, 0), (600, 60), SMALL, 72), Encoding(size=SMALL, rotation=90))
    result = scanned(path, recipe(splitting=NO_CUTS), all_scores=True)
    info, ((_, sample),) = result.scan.info, result.samples()
    assert (info.width, info.height, info.rotation) == (180, 320, 270)
    assert value(result.scan.clips[0], "width") == 180
    drawn = next(iter(pan("street", (2, 0), (600 + 2 * round(24 * float(sample.times[0])), 60), SMALL, 1)))
    expected = np.rot90(planes(drawn)[0])
    grey = cv2.cvtColor(sample.keyframes[0], cv2.COLOR_RGB2GRAY)
    assert np.corrcoef(grey.ravel(), expected.ravel())[0, 1] > 0.98


# ---------------------------------------------------------------------------------------------------------------------
# The cascade


@pytest.mark.parametrize(
    "name", ["too_narrow", "too_low", "too_slow_rate", "too_fast_rate", "too_short", "rotated_narrow"]
)
def test_metadata_gates_come_before_any_decoding(corpus: Corpus, name: str) -> None:
    told: list[float] = []
    result = scanned(corpus[name], on_duration=told.append)
    assert result.scan.count.frames == result.scan.count.packets == 0
    assert result.kept == []
    assert told == []
    (clip,) = result.scan.clips
    assert not clip.has_frames
    assert set(clip.scores) == {"width", "height", "fps", "duration"}
    assert failing(clip) == set(CASES[name].truth.fails)


@pytest.mark.parametrize("name", ["dark", "faint", "letterbox", "too_still"])
def test_nothing_is_measured_after_the_last_tier_is_lost(
    corpus: Corpus, full: Callable[[str], Scanned], name: str
) -> None:
    result = scanned(corpus[name])
    (clip,), (complete,) = result.scan.clips, full(name).scan.clips
    (gate,) = CASES[name].truth.fails
    assert failing(clip) == {gate}
    assert list(clip.scores)[-1] == gate
    assert not clip.has_frames
    assert result.kept == []
    assert len(clip.scores) < len(complete.scores) or gate == "flow"
    for key, measured in clip.scores.items():
        assert measured.protocol == complete.scores[key].protocol
        # The threads of OpenCV add up in any order, so the last digits of DIS flow differ.
        assert measured.score.detail == pytest.approx(complete.scores[key].score.detail, rel=1e-6)


def test_a_tier_that_is_left_keeps_the_clip_alive(corpus: Corpus) -> None:
    """It fails finetune by its flow, and not pretrain."""
    both = recipe(tiers={"finetune": {"flow": Gate(low=1000)}})
    result = scanned(corpus["pan_right"], both)
    assert len(result.kept) == 1
    assert result.scan.clips[0].has_frames


def test_a_lower_bound_rejects_but_its_lack_does_not(corpus: Corpus) -> None:
    """The borders are measured in the scan; text, which adds to them, later: a gate from below cannot be judged yet."""
    upward = recipe(tiers={tier: {"artifacts": Gate(low=0.5)} for tier in ("pretrain", "finetune")})
    assert scanned(corpus["pan_right"], upward).scan.clips[0].has_frames


# ---------------------------------------------------------------------------------------------------------------------
# Splitting


def test_the_longest_shot_stands_for_a_video_without_long_ones(corpus: Corpus) -> None:
    """Shots of 16, 6 and 16 s, and clips of 20 s wanted: one row that says why there are none."""
    strict = recipe(
        splitting={"min_seconds": 20, "window_seconds": 20, "dissolves": False},
        tiers={tier: {"duration": Gate(low=20)} for tier in ("pretrain", "finetune")},
    )
    result = scanned(corpus["three_shots"], strict)
    (clip,) = result.scan.clips
    assert 15.6 < clip.span.seconds <= 16
    assert clip.span.start == 0 or clip.span.start == pytest.approx(22 + TRIM / 24, abs=1 / 24)
    assert failing(clip, strict) == {"duration"}
    assert not clip.has_frames
    assert result.kept == []
    assert len(result.scan.cuts) == 2


@pytest.mark.parametrize("all_scores", [False, True])
def test_without_a_gate_on_its_length_a_short_film_is_no_clip(corpus: Corpus, all_scores: bool) -> None:
    """A film of 10 s where clips have 15: no gate says that it is too short, so the error does."""
    (clip,) = scanned(corpus["too_short"], recipe(tiers=ANY), all_scores=all_scores).scan.clips
    assert clip.error is not None
    assert clip.error.kind == "too_short"
    assert "splitting.min_seconds" in str(clip.error)
    assert not clip.has_frames
    # The gate is looser than min_seconds.
    loose = {tier: {"duration": Gate(low=5)} for tier in ("pretrain", "finetune")}
    (clip,) = scanned(corpus["too_short"], recipe(tiers=loose), all_scores=all_scores).scan.clips
    assert clip.error is not None


def test_windows_of_another_length(corpus: Corpus) -> None:
    other = recipe(splitting={"detector": "none", "min_seconds": 5, "window_seconds": 6}, tiers=ANY)
    clips = scanned(corpus["pan_right"], other).scan.clips
    assert [(c.span.start, c.span.end) for c in clips] == [(0, 6), (6, 12)]
    joined = recipe(
        splitting={"detector": "none", "min_seconds": 5, "window_seconds": 6, "longer": "faster"}, tiers=ANY
    )
    clips = scanned(corpus["pan_right"], joined).scan.clips
    assert [(c.span.start, c.span.end) for c in clips] == [(0, 6), (6, pytest.approx(16))]


def test_trim(corpus: Corpus) -> None:
    spans = {}
    for trim in (0, 12):
        by = recipe(splitting={"trim_frames": trim, "dissolves": False, "longer": "faster"})
        spans[trim] = [clip.span for clip in scanned(corpus["three_shots"], by).scan.clips]
    assert spans[0][0].end - spans[12][0].end == pytest.approx(12 / 24)
    assert spans[12][1].start - spans[0][1].start == pytest.approx(12 / 24)
    assert spans[0][0].end < 16
    assert spans[0][1].start >= 22 - 1e-6


# ---------------------------------------------------------------------------------------------------------------------
# What is held


def long_film(path: Path, seconds: int) -> Path:
    """A take of any length."""

    def pictures() -> Iterator[Any]:
        still = next(iter(pan("street", (0, 0), (600, 60), SMALL, 1)))
        return itertools.repeat(still, seconds * 12)

    film(path, pictures(), Encoding(size=SMALL, fps=12))
    return path


@pytest.mark.parametrize("detector", ["none", "adaptive"])
def test_what_is_held_does_not_grow_with_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    most = 0

    class Watched(FrameBuffer[Any, Any]):
        def push(self, time: float, frame: Any) -> None:
            nonlocal most
            super().push(time, frame)
            most = max(most, len(self))

    monkeypatch.setattr(one_pass, "FrameBuffer", Watched)
    peaks = []
    by = recipe(splitting={"detector": detector}, tiers=ANY | {"finetune": {"flow": Gate(low=1000)}})
    for seconds in (60, 180):
        most = 0
        scan = scanned(long_film(tmp_path / f"{seconds}.mp4", seconds), by).scan
        assert len(scan.clips) == seconds // 15
        peaks.append(most)
    # Pictures are described 16 at once and judged 32 at once, so the place in a window differs by some frames.
    assert peaks[1] <= peaks[0] + 16
    # Moments lie half a second apart: 15 s of a window, and some seconds by which detectors are late or clips are trimmed.
    assert peaks[1] <= (15 + 8) / 0.5 + 16, peaks
