"""Whole scans of films with known answers: clips, samples, scores; and of real files that nobody would wish for."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading import scan_video as module
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import ClipScan, VideoScan
from longtake.curation.reading.listed import ListedPass
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.curation.reading.sampling import FrameBuffer, Span, centres
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.filters.base import Image, Sample
from longtake.filters.gates import Gate
from longtake.manifests.frames import StoredFrames
from tests.corpus import (
    ANALYSIS,
    BADGE,
    CASES,
    GAP,
    HD,
    SMALL,
    Case,
    Corpus,
    Encoding,
    add_video,
    feed,
    film,
    pan,
    planes,
)

REAL = Path(__file__).parents[4] / "shared" / "corpus" / "videos"
WHOLE = [name for name, case in CASES.items() if not case.truth.error]
SINGLE = [name for name in WHOLE if len(CASES[name].truth.clips) == 1]  # One take gives one clip.
SLOW_CUTS = ["dissolve", "fade"]
TRIM = 3  # Frames.
KINDS = {  # Kinds of error of the corpus' files that are no video.
    "empty": "empty",
    "garbage": "not_video",
    "text": "not_video",
    "no_index": "truncated",
    "cut_off": "truncated",
    "one_frame": "too_short",
    "enormous": "too_large",
    "impossible_size": "unsupported",
    "sound_only": "no_video",
    "sound_with_cover": "no_video",
}


def recipe(**changes: Any) -> Recipe:
    """The embedded recipe with other `splitting`, `scan` or `tiers`."""
    data = load_recipe("embedded").model_dump()
    for section, values in changes.items():
        data[section] = {**data[section], **values}
    return parse_recipe(data, source="a test")


EMBEDDED = load_recipe("embedded")
ANY = {"pretrain": {"fps": Gate(low=0)}, "finetune": {"fps": Gate(low=0)}}
NO_CUTS = {"detector": "none", "min_seconds": 2, "window_seconds": 15}


@dataclass
class Scanned:
    """A scan, and the samples that it kept: as JPEG, or they would fill the memory."""

    scan: VideoScan
    kept: list[tuple[Span, StoredFrames]]

    def samples(self) -> list[tuple[Span, Sample]]:
        return [(span, load_sample(stored)) for span, stored in self.kept]


def scanned(path: Path, by: Recipe = EMBEDDED, **options: Any) -> Scanned:
    kept: list[tuple[Span, StoredFrames]] = []
    scan = scan_video(str(path), by, lambda span, sample: kept.append((span, store_sample("", sample, 95))), **options)
    return Scanned(scan, kept)


@pytest.fixture(scope="module")
def full(corpus: Corpus) -> Callable[[str], Scanned]:
    """Scans with all scores, by the embedded recipe; each video once."""
    done: dict[str, Scanned] = {}

    def get(name: str) -> Scanned:
        if name not in done:
            done[name] = scanned(corpus[name], all_scores=True)
        return done[name]

    return get


def failing(clip: ClipScan, by: Recipe = EMBEDDED) -> set[str]:
    """The gates of `pretrain` that a clip's own scores fail."""
    gates = by.tiers["pretrain"]
    return {n for n, m in clip.scores.items() if n in gates and not gates[n].low <= m.score.value <= gates[n].high}


def value(clip: ClipScan, name: str) -> float:
    return clip.scores[name].score.value


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
# Spans that the source list gives


def test_given_spans(corpus: Corpus) -> None:
    """Overlapping, unsorted, twice; each with the frames of its own five segments."""
    spans = [Span(4, 12), Span(0, 16), Span(1, 7.5), Span(4, 12), Span(2.5, 9.25)]
    result = scanned(corpus["pan_right"], all_scores=True, spans=spans)
    assert sorted((c.span.start, c.span.end) for c in result.scan.clips) == sorted((s.start, s.end) for s in spans)
    assert [c.span.end for c in result.scan.clips] == sorted(s.end for s in spans)
    assert result.scan.cuts == []
    for span, stored in result.kept:
        for i, (time, later) in enumerate(zip(stored.times, stored.partner_times, strict=True)):
            assert time == pytest.approx(span.start + span.seconds * (i + 0.5) / 5, abs=1.01 / 24)
            assert span.start <= time < later < span.end
    for clip in result.scan.clips:
        assert clip.error is None
        assert value(clip, "duration") == pytest.approx(clip.span.seconds)


def test_nothing_is_decoded_behind_the_last_span(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], all_scores=True, spans=[Span(1, 4)])
    assert result.scan.decoded_seconds == pytest.approx(4, abs=2.1 / 24)
    assert result.scan.count.frames < 60
    assert result.scan.info.duration == pytest.approx(16)


def test_spans_beyond_the_end(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], all_scores=True, spans=[Span(20, 36), Span(0, 15.5), Span(0, 400)])
    clips = {(c.span.start, c.span.end): c for c in result.scan.clips}
    assert len(clips) == 3
    assert clips[0, 15.5].error is None
    beyond, longer = clips[20, 36].error, clips[0, 400].error
    assert beyond is not None
    assert beyond.kind == "missing"
    assert "before this clip" in str(beyond)
    assert longer is not None  # Most moments of this span do not exist.
    assert [span for span, _ in result.kept] == [Span(0, 15.5)]


def test_spans_that_the_metadata_gates_reject_are_rows_all_the_same(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], spans=[Span(0, 3), Span(5, 6)])
    assert result.scan.count.frames == 0
    assert [failing(c) for c in result.scan.clips] == [{"duration"}, {"duration"}]


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
# What the pass finds out


def test_a_header_that_lies_about_the_rate_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "lie.mkv"
    how = Encoding(size=SMALL, fps=48, ticks=(2,))  # The header says 48 frames a second, and the film shows 24.
    with av.open(str(path), "w") as out:
        feed(out, add_video(out, how), pan("table", (2, 0), (600, 60), SMALL, 96), how)
    with open_video(str(path)) as video:
        assert probe(video).fps == 48
    scan = scanned(path, recipe(splitting=NO_CUTS), all_scores=True).scan
    assert scan.info.fps == pytest.approx(24, rel=1e-2)
    assert value(scan.clips[0], "fps") == pytest.approx(24, rel=1e-2)
    assert scan.info.duration == pytest.approx(4, abs=0.05)


def test_origin_of_files_that_do_not_start_at_zero(corpus: Corpus) -> None:
    """Times are of the picture; the file's own clock is kept beside them, for whoever cuts it."""
    lax = recipe(splitting=NO_CUTS)
    with av.open(str(corpus["transport_stream"])) as container:
        first = next(container.decode(video=0))
        assert first.time
    scan = scanned(corpus["transport_stream"], lax, all_scores=True).scan
    assert scan.info.origin == pytest.approx(first.time, abs=1e-6)
    assert scan.clips[0].span.start == 0
    assert scan.info.duration == pytest.approx(3, abs=1e-3)


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

    monkeypatch.setattr(module, "FrameBuffer", Watched)
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


# ---------------------------------------------------------------------------------------------------------------------
# What is no video, each in the sandbox with a limit


def scan_in_child(path: str) -> tuple[VideoScan, int]:
    """All scores of one file; runs in the sandbox."""
    kept: list[Span] = []
    scan = scan_video(path, load_recipe("embedded"), lambda span, sample: kept.append(span), all_scores=True)
    return scan, len(kept)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def outcome(sandbox: Sandbox, path: Path, seconds: float = 120) -> str | VideoScan:
    try:
        scan, _ = sandbox.run(scan_in_child, (str(path),), Limits(seconds, 3072))
    except RowError as error:
        assert str(error)  # noqa: PT017
        return error.kind
    assert isinstance(scan, VideoScan)
    return scan


@pytest.mark.parametrize("name", KINDS)
def test_broken_files_end_as_an_error(sandbox: Sandbox, corpus: Corpus, name: str) -> None:
    assert outcome(sandbox, corpus[name]) == KINDS[name]


def test_every_broken_case_is_looked_at() -> None:
    assert set(KINDS) == {name for name, case in CASES.items() if case.truth.error}


def test_a_bomb_ends_at_the_memory_limit(sandbox: Sandbox, corpus: Corpus) -> None:
    """Merely opening it takes 768 MB."""
    with pytest.raises(VideoError) as caught:
        sandbox.run(scan_in_child, (str(corpus["enormous"]),), Limits(120, 400))
    assert caught.value.kind in ("memory", "too_large")  # Either limit may be seen first.
    assert isinstance(outcome(sandbox, corpus["quicktime"]), VideoScan)


REAL_KINDS = {
    "edge/decord_corrupted.mp4": {"corrupt"},
    "edge/dj_audio_only_mp4.mp4": {"no_video"},
    "edge/hls_encrypted_ts.ts": {"not_video"},
    "edge/media_dovi_av1_nodec.mp4": {"unsupported"},
    "edge/media_ts_0x0.ts": {"unsupported", "no_video"},
    "derived/bitflip400_sam2_cups.mp4": {"corrupt"},
    "derived/garbage64k.mp4": {"not_video"},
    "derived/kvs_c.h265": {"unsupported"},
    "derived/kvs_java.h264": {"unsupported", "corrupt", "not_video"},
    "derived/trunc60_bbb_vp8.webm": {"truncated"},
    "derived/trunc60_mpeg2.ts": {"truncated", "corrupt"},
    "derived/trunc60_sam2_dog.mp4": {"truncated"},
    "derived/zero_bytes.mp4": {"empty"},
}


@pytest.mark.parametrize("name", REAL_KINDS)
def test_real_files_that_are_damaged(sandbox: Sandbox, name: str) -> None:
    if not (REAL / name).exists():
        pytest.skip("no ../shared/corpus")
    assert outcome(sandbox, REAL / name) in REAL_KINDS[name]


def test_a_decode_bomb_ends_at_the_time_limit(sandbox: Sandbox) -> None:
    """1 MB, and six minutes of 4K in AV1."""
    path = REAL / "edge" / "media_long_4k_av1.mp4"
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    assert outcome(sandbox, path, seconds=3) == "timeout"


READ = {  # Width, height, seconds, packets.
    "edge/decord_rot0.mov": (568, 320, 0.1, 3),
    "edge/decord_rot90.mov": (320, 568, 0.1, 3),
    "edge/decord_rot180.mov": (568, 320, 0.1, 3),
    "edge/psd_delayed_start.mp4": (480, 320, 0.96, 24),
    "edge/vide_ogv_partial.ogv": (320, 240, 10, 249),
    "edge/vide_ogv_sendpacket.ogv": (800, 450, 10, 238),
    "edge/kvs_equal_timecode.mkv": (1280, 674, 9.96, 239),  # Two recordings are joined, and each starts its clock anew.
    "edge/kvs_noninc_timecode.mkv": (960, 720, 11.95, 358),
}


@pytest.mark.parametrize("name", READ)
def test_real_files_that_only_look_bad(sandbox: Sandbox, name: str) -> None:
    if not (REAL / name).exists():
        pytest.skip("no ../shared/corpus")
    scan = outcome(sandbox, REAL / name)
    assert isinstance(scan, VideoScan)
    width, height, seconds, packets = READ[name]
    assert (scan.info.width, scan.info.height) == (width, height)
    assert scan.info.duration == pytest.approx(seconds, abs=0.1)
    assert scan.count.packets == packets
    assert len(scan.clips) >= 1
    assert all(0 <= clip.span.start < clip.span.end <= seconds + 0.1 for clip in scan.clips)


def test_a_stream_of_one_picture_is_no_clip(sandbox: Sandbox) -> None:
    path = REAL / "edge" / "media_ts_no_frames.ts"
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    scan = outcome(sandbox, path)
    if isinstance(scan, VideoScan):
        assert scan.count.frames <= 1
        assert all(clip.error for clip in scan.clips)
    else:
        assert scan in ("corrupt", "too_short", "truncated")


# ── clips of a list are sought ───────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """A file that counts the bytes that are read from it."""

    def __init__(self, path: Path) -> None:
        self.file, self.bytes = path.open("rb"), 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bytes += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five minutes, whose frame k shows k in ten bars; a keyframe each two seconds."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "bf": "2", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 20
        stream.codec_context.thread_count = 1
        noise = np.random.default_rng(0).integers(0, 40, (48, 160, 3), dtype=np.uint8)
        for number in range(3000):
            image = np.concatenate([np.zeros((48, 160, 3), np.uint8), np.roll(noise, number, 1)])
            for bit in range(13):
                image[:48, bit * 12 : bit * 12 + 12] = 255 * (number >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def shown(picture: Any) -> int:
    return sum(int(picture[24, bit * 12 + 6].mean() > 127) << bit for bit in range(13))


def test_a_clip_of_a_list_is_sought_and_no_more_read_than_its_own(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Counted] = []

    def opened(source: Any) -> Any:
        files.append(Counted(Path(source.uri)))
        return files[-1]

    monkeypatch.setattr("longtake.curation.reading.opening.open_source", opened)
    monkeypatch.setattr(Counted, "__enter__", lambda self: self, raising=False)
    monkeypatch.setattr(Counted, "__exit__", lambda self, *_: self.file.close(), raising=False)
    spans = [Span(260, 275), Span(100, 102), Span(265, 280)]
    result = scanned(numbered, all_scores=True, spans=spans)
    assert [clip.span for clip in result.scan.clips] == sorted(spans, key=lambda span: span.end)
    assert not [clip.error for clip in result.scan.clips if clip.error]
    for span, stored in result.kept:
        sample = load_sample(stored)
        for time, picture in zip(sample.times, sample.keyframes, strict=True):
            assert shown(picture) == round(time * 10)
        for time, picture in zip(sample.partner_times, sample.partners, strict=True):
            assert shown(picture) == round(time * 10)
        assert np.abs(sample.times - np.array(centres(span, 5))).max() <= 0.15
        assert (sample.partner_times > sample.times).all()
    # The packets are those of the spans, and of some groups of pictures beside them.
    assert result.scan.count.packets < 10 * (20 + 2) + 3 * 4 * 20
    with av.open(str(numbered)) as container:
        packets = sorted((p.pts * float(p.time_base), p.size) for p in container.demux(video=0) if p.pts is not None)
    own = sum(size for time, size in packets if 98 <= time < 104 or 258 <= time < 282)
    index = numbered.stat().st_size - sum(size for _, size in packets)
    assert files[0].bytes < own + 3 * index + 20 * 32_768


def test_a_clip_of_nearly_an_hour_holds_ten_frames(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    settle = ListedPass._settle

    def counted(self: ListedPass, *arguments: Any) -> None:
        settle(self, *arguments)
        kept.append(sum(len(listed.frames) for listed in self.listed))

    monkeypatch.setattr(ListedPass, "_settle", counted)
    result = scanned(numbered, all_scores=True, spans=[Span(0, 290), Span(50, 65), Span(200, 215)])
    assert not [clip.error for clip in result.scan.clips if clip.error]
    assert max(kept) <= 30
    assert result.scan.count.packets < 2000
    (longest,) = [load_sample(stored) for span, stored in result.kept if span.end == 290]
    assert [shown(picture) for picture in longest.keyframes] == [round(time * 10) for time in longest.times]


@pytest.mark.parametrize("b_frames", [2, 8, 16])
def test_the_rate_of_a_film_whose_clips_end_early_is_its_own(tmp_path: Path, b_frames: int) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "x264-params": f"bframes={b_frames}:b-adapt=0:threads=1"}
        stream: Any = container.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(24 * 12):
            image = np.full((96, 160, 3), number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    result = scanned(path, all_scores=True, spans=[Span(0, 2)])
    assert result.scan.info.fps == pytest.approx(24.0)


@pytest.mark.parametrize("listed", [False, True])
def test_a_clip_in_which_something_does_not_decode_is_an_error_of_its_own(tmp_path: Path, listed: bool) -> None:
    """The export refuses it, so that nothing more is paid for it; the film's other clips go on."""
    path = tmp_path / "damaged.mp4"
    film(path, pan("table", (2, 0), (100, 60), SMALL, 96), Encoding(size=SMALL, gop=12))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[30:34]:  # From 1.25 s on.
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    how = parse_recipe(
        {
            "name": "damaged",
            "splitting": {"detector": "none", "min_seconds": 1, "window_seconds": 1},
            "scan": {"max_corrupt": 0.1},
            "filters": {"width": {}},
            "tiers": {"all": {"width": ">= 1"}},
        },
        source="test",
    )
    spans = [Span(float(k), float(k + 1)) for k in range(4)] if listed else []
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    assert [clip.error.kind if clip.error else None for clip in clips] == [None, "corrupt", None, None]
    assert [clip.has_frames for clip in clips] == [True, False, True, True]
    settings = EncodeSettings(fps=None, frames=None, preset="ultrafast")
    for clip in clips:
        with pytest.raises(VideoError) if clip.error else nullcontext() as caught:
            cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", settings)
        assert caught is None or caught.value.kind == "corrupt"


def test_clips_of_a_list_far_behind_the_only_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seek leads to the beginning of the film: what lies between is decoded, and not sought again and again."""
    path = tmp_path / "one_keyframe.mp4"
    film(path, pan("table", (1, 0), (100, 60), SMALL, 24 * 34), Encoding(size=SMALL, gop=10_000))
    sought: list[float] = []
    seek = ListedPass._seek

    def counted(self: ListedPass, seconds: float) -> bool:
        sought.append(seconds)
        assert len(sought) < 10
        return seek(self, seconds)

    monkeypatch.setattr(ListedPass, "_seek", counted)
    how = parse_recipe({"name": "far", "filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    spans = [Span(0.0, 2.0), Span(20.0, 22.0), Span(31.0, 33.0)]
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    assert [(clip.span, clip.error, clip.has_frames) for clip in clips] == [(span, None, True) for span in spans]
    assert sought


@pytest.mark.parametrize("listed", [False, True])
def test_a_recording_that_begins_within_a_group_of_pictures(tmp_path: Path, listed: bool) -> None:
    """Its first packets do not decode: clips begin where it can be shown, so that an export finds all of them."""
    whole, path = tmp_path / "whole.ts", tmp_path / "film.ts"
    film(whole, pan("table", (2, 0), (100, 60), SMALL, 96), Encoding(size=SMALL, gop=24))
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    position = packets[12].pos
    assert position is not None
    path.write_bytes(whole.read_bytes()[position // 188 * 188 :])
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 1, "window_seconds": 1}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    spans = [Span(0.0, 1.0), Span(1.0, 2.0)] if listed else []
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    if listed:
        assert [clip.error.kind if clip.error else None for clip in clips] == ["missing", None]
    else:
        assert [clip.error for clip in clips] == [None] * len(clips)
        assert clips[0].span.start > 0.3
    for clip in clips:
        if clip.error is None:
            settings = EncodeSettings(fps=30, frames=None, preset="ultrafast")
            cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", settings)


def as_a_browser_records(path: Path, frames: int) -> None:
    """Thirty pictures a second, more or less, in WebM that knows of no rate, no length and no index."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream: Any = container.add_stream("libvpx", rate=30, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 60
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 30) + number * 7 % 11, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"\x23\xe3\x83\x84")  # The default duration of a frame becomes a void of the same length.
    data[at : at + 8] = b"\xec\x86" + bytes(6)
    path.write_bytes(data)


@pytest.mark.parametrize("listed", [False, True])
def test_the_ticks_of_a_clock_are_no_rate(tmp_path: Path, listed: bool) -> None:
    as_a_browser_records(tmp_path / "film.webm", 1200)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"fps": {}}, "tiers": {"all": {"fps": "[24, 60]"}}}, source="test")
    spans = [Span(0.0, 2.0), Span(30.0, 32.0)] if listed else []
    scan = scan_video(str(tmp_path / "film.webm"), how, lambda span, sample: None, spans=spans)
    assert scan.info.fps == pytest.approx(30, rel=0.01)
    assert all(clip.has_frames for clip in scan.clips)
    assert len(scan.clips) == (2 if listed else 20)
    assert [clip.scores["fps"].score.value for clip in scan.clips] == pytest.approx([30] * len(scan.clips), rel=0.01)


def test_a_matroska_that_is_all_there_is_as_long_as_its_pictures_whatever_its_header_says(tmp_path: Path) -> None:
    """Tools that cut without writing the header anew, and subtitles that go on behind the film. One that lacks its end is
    found out."""
    path = tmp_path / "film.mkv"
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 12
        for number in range(24 * 6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("448988")) + 3
    assert struct.unpack_from(">d", data, at)[0] == pytest.approx(6000, abs=50)
    struct.pack_into(">d", data, at, 3.6e6)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    path.write_bytes(data)
    scan = scan_video(str(path), how, lambda span, sample: None)
    assert (scan.info.duration, len(scan.clips)) == (pytest.approx(6, abs=0.1), 2)
    for kept in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(VideoError) as raised:
            scan_video(str(path), how, lambda span, sample: None)
        assert raised.value.kind == "truncated"


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".asf", ".mp4"])
def test_sound_that_goes_on_is_no_sign_of_a_film_cut_short(tmp_path: Path, suffix: str, late: int) -> None:
    """Some headers tell of the longest stream only. The same file, really cut short, is found out."""
    path = tmp_path / f"film{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4" if suffix != ".flv" else "flv", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 12
        sound: Any = container.add_stream("aac", rate=44100, layout="mono")
        for number in range(24 * 12):
            if number < 24 * 6:
                frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")
                frame.pts, frame.time_base = number + 24 * late, Fraction(1, 24)
                container.mux(stream.encode(frame))
            samples = np.zeros((1, 44100 // 24), np.float32)
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 44100, number * samples.size, Fraction(1, 44100)
            container.mux(sound.encode(heard))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    scan = scan_video(str(path), how, lambda span, sample: None)
    assert not any(clip.error for clip in scan.clips)
    assert scan.info.duration == pytest.approx(6, abs=0.1)
    if suffix == ".asf" and late:
        return  # The demuxer then guesses the length from the size of the file, and is wrong.
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError):
        scan_video(str(path), how, lambda span, sample: None)
