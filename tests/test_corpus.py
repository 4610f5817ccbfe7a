"""The corpus against its own claims: PyAV decodes, OpenCV and scikit-image measure, nothing of the project does."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import metrics as untyped

from tests.corpus import BADGE, CASES, Case, Corpus, Truth, build, cache_folder, canvas, planes

Grey = NDArray[Any]  # The dtype is uint8.
Range = tuple[float, float]

cv: Any = cv2  # The stubs of cv2 lack DIS.
metrics: Any = untyped

LARGEST = 960  # Pixels: the long side of a picture that is analysed.
GAP = 0.5  # Seconds from a keyframe to its partner.
GATES: dict[str, Range] = {
    "width": (1280, np.inf),
    "height": (720, np.inf),
    "fps": (24, 60),
    "duration": (15, np.inf),
    "grayscale": (20, 180),
    "artifacts": (0, 0.05),
    "flow": (40, np.inf),
    "psnr": (4, 20),
    "ssim": (0, 0.7),
}
MARGIN: dict[str, float] = {"grayscale": 2, "artifacts": 0.01, "flow": 5, "psnr": 0.5, "ssim": 0.05}

DECODABLE = [name for name, case in CASES.items() if not case.truth.error]
SCORED = [name for name in DECODABLE if CASES[name].truth.clips or len(CASES[name].truth.fails) == 1]
EDITED = [name for name in DECODABLE if CASES[name].truth.cuts or CASES[name].truth.transitions]
STEADY = [name for name in SCORED if CASES[name].truth.flow and CASES[name].truth.velocity]
BROKEN = [name for name, case in CASES.items() if case.truth.error]


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def first_time(stream: Any) -> float:
    """Time of a stream's first frame in s."""
    return float((stream.start_time or 0) * stream.time_base)


def grey_frames(path: Path, times: Sequence[float]) -> list[Grey]:
    """The frame on screen at each of `times` (s from the first frame, ascending), full-range grey, encoded size."""
    found: list[Grey] = []
    with av.open(str(path)) as source:
        stream: Any = source.streams.video[0]
        stream.codec_context.thread_count = 1
        half = 0.5 / float(stream.average_rate)
        start, last = first_time(stream), -np.inf
        decoded: Any = iter(())
        for t in times:
            if not last < t < last + 1:
                source.seek(int((t + start) / stream.time_base), stream=stream)
                decoded = source.decode(stream)
            for frame in decoded:
                last = frame.time - start
                if last >= t - half:
                    found.append(frame.to_ndarray(format="gray"))
                    break
    assert len(found) == len(times)
    return found


def small(frame: Grey, truth: Truth) -> Grey:
    """A frame at the shape that its pixels have on screen (not turned), long side at most LARGEST."""
    wide, high = truth.encoded[0] * float(truth.sar), truth.encoded[1]
    shrink = min(1.0, LARGEST / max(wide, high))
    size = (round(wide * shrink), round(high * shrink))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def sample_times(span: Range) -> list[float]:
    """Five keyframes at the centres of five equal segments, each followed by its partner."""
    segment = (span[1] - span[0]) / 5
    return [span[0] + segment * (i + 0.5) + gap for i in range(5) for gap in (0, GAP)]


def flow_field(one: Grey, two: Grey) -> NDArray[Any]:
    """Dense optical flow at long side LARGEST."""
    field: NDArray[Any] = cv.DISOpticalFlow_create(cv.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(one, two, None)
    scaled: NDArray[Any] = field * (LARGEST / max(one.shape))
    return scaled


def dark_share(frames: Sequence[Grey]) -> float:
    """Share of the area in rows and columns at the edges that are dark in all of `frames`."""
    most = np.max(frames, axis=0)
    height, width = most.shape
    rows, columns = most.max(axis=1) >= 40, most.max(axis=0) >= 40
    inside = (height - edge(rows) - edge(rows[::-1])) * (width - edge(columns) - edge(columns[::-1]))
    return float(1 - inside / (height * width))


def limited(grey: Grey) -> Grey:
    """Full-range grey as limited-range luma."""
    return np.rint(grey * (219 / 255) + 16).astype(np.uint8)


def edge(lit: NDArray[np.bool_]) -> int:
    """How many are False before the first True."""
    return int(np.argmax(lit))


def still_mask(frames: Sequence[Grey]) -> NDArray[Any]:
    """1 where neither a pixel nor its surroundings change from keyframe to keyframe."""
    near = [cv2.blur(frame, (15, 15)) for frame in frames]
    still = (np.ptp(frames, axis=0) <= 16) & (np.ptp(near, axis=0) <= 24)
    return cv2.morphologyEx(still.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))


def text_share(frames: Sequence[Grey]) -> float:
    """Share of the boxes around what is always white: strokes closed to lines."""
    white = (np.min(frames, axis=0) >= 200).astype(np.uint8)
    lines = cv2.morphologyEx(white, cv2.MORPH_CLOSE, np.ones((5, 61), np.uint8))
    _, _, found, _ = cv.connectedComponentsWithStats(lines)
    boxes = found[1:, cv2.CC_STAT_WIDTH].astype(int) * found[1:, cv2.CC_STAT_HEIGHT]
    covered = int(boxes[boxes >= 0.01 * white.size].sum())
    return covered / int(white.size)


@cache
def scores(path: Path, truth: Truth, span: Range) -> dict[str, float]:
    """What every gate looks at, for one clip; and the mean flow vector as x and y."""
    full = grey_frames(path, sample_times(span))
    frames = [small(frame, truth) for frame in full]
    keys, partners = frames[::2], frames[1::2]
    fields = [flow_field(a, b) for a, b in zip(keys, partners, strict=True)]
    neighbours = list(itertools.pairwise(keys))
    mean_flow = np.mean([field.mean(axis=(0, 1)) for field in fields], axis=0)
    written = text_share(keys) if np.mean(keys) < 180 else 0.0  # An area that is white in every frame is no text.
    return {
        "width": truth.width,
        "height": truth.height,
        "fps": truth.fps,
        "duration": span[1] - span[0],
        "grayscale": float(np.mean(frames)),
        "artifacts": max(dark_share(keys), float(still_mask(keys).mean()), written),
        "flow": float(np.mean([np.linalg.norm(field, axis=2).mean() for field in fields])),
        "psnr": float(np.mean([metrics.peak_signal_noise_ratio(a, b, data_range=255) for a, b in neighbours])),
        "ssim": float(np.mean([metrics.structural_similarity(a, b) for a, b in neighbours])),
        "x": float(mean_flow[0]),
        "y": float(mean_flow[1]),
    }


def failures(measured: dict[str, float]) -> set[str]:
    """The gates that these scores fail."""
    return {gate for gate, (low, high) in GATES.items() if not low <= measured[gate] <= high}


def clips_of(case: Case) -> tuple[Range, ...]:
    """The spans to score: the expected clips, or all of a film that is too short for one."""
    return case.truth.clips or ((0.0, case.truth.duration),)


# ---------------------------------------------------------------------------------------------------------------------
# The table


def test_names_are_unique_and_every_gate_has_its_clip() -> None:
    assert len({case.filename for case in CASES.values()}) == len(CASES)
    assert {case.fails_alone for case in CASES.values()} >= set(GATES)
    assert sum(case.passes for case in CASES.values()) >= 6


# ---------------------------------------------------------------------------------------------------------------------
# What the container says


@pytest.mark.parametrize("name", DECODABLE)
def test_metadata(corpus: Corpus, name: str) -> None:
    truth = CASES[name].truth
    with av.open(str(corpus[name])) as source:
        # The attached picture is left out.
        stream: Any = next(s for s in source.streams.video if not int(s.disposition) & 1024)
        context = stream.codec_context
        frame = next(source.decode(stream))
        sar = stream.sample_aspect_ratio or 1
        wide, high = round(context.width * sar), context.height
        assert (context.width, context.height) == truth.encoded
        assert ((high, wide) if frame.rotation % 180 else (wide, high)) == (truth.width, truth.height)
        assert frame.rotation == truth.rotation
        assert context.name.startswith(truth.codec) or context.codec.canonical_name == truth.codec
        # PyAV miscounts the last frame of `vfr`.
        assert float(stream.average_rate) == pytest.approx(truth.fps, rel=2e-3)
        assert (source.duration or 0) / 1e6 == pytest.approx(truth.duration, abs=0.1)


def test_average_rate_of_a_variable_rate_is_exact(corpus: Corpus) -> None:
    truth = CASES["vfr"].truth
    with av.open(str(corpus["vfr"])) as source:
        stream: Any = source.streams.video[0]
        times = sorted(packet.pts * stream.time_base for packet in source.demux(stream) if packet.pts is not None)
        gaps = {round(float(b - a) * 48) for a, b in itertools.pairwise(times)}
        assert gaps == {1, 2}
        assert len(times) / truth.duration == truth.fps == 30
        assert float(stream.duration * stream.time_base) == pytest.approx(truth.duration)


def test_there_are_frames_to_skip(corpus: Corpus) -> None:
    with av.open(str(corpus["pan_right"])) as source:
        source.streams.video[0].codec_context.skip_frame = "NONREF"
        assert sum(1 for _ in source.decode(video=0)) < 0.6 * 384


def test_a_turned_film_stands_upright(corpus: Corpus) -> None:
    """The camera of `rotated` goes to the right, so upright content moves to the left."""
    early, late = grey_frames(corpus["rotated"], [1.0, 1.25])
    one, two = (np.ascontiguousarray(np.rot90(frame)) for frame in (early, late))
    assert one.shape == (720, 1280)
    assert flow_field(one, two)[..., 0].mean() == pytest.approx(-8 * 6 * LARGEST / 1280, rel=0.1)
    board = planes(canvas("table"))[0][60 : 60 + 720, 24 * 8 : 24 * 8 + 1280]
    assert metrics.peak_signal_noise_ratio(limited(one), board) > 25


# ---------------------------------------------------------------------------------------------------------------------
# What the pictures say


@pytest.mark.parametrize("name", SCORED)
def test_gates(corpus: Corpus, name: str) -> None:
    case = CASES[name]
    for span in clips_of(case):
        measured = scores(corpus[name], case.truth, span)
        print(name, span, {key: round(value, 3) for key, value in measured.items()})
        failed = failures(measured)
        assert failed >= set(case.truth.fails)
        if len(case.truth.fails) < 2:
            assert failed == set(case.truth.fails)
            for gate, margin in MARGIN.items():
                low, high = GATES[gate]
                edges = [bound for bound in (low, high) if np.isfinite(bound) and bound != 0]
                assert min(abs(measured[gate] - bound) for bound in edges) >= margin, gate


@pytest.mark.parametrize("name", STEADY)
def test_flow_is_the_known_speed(corpus: Corpus, name: str) -> None:
    truth = CASES[name].truth
    assert truth.flow is not None
    assert truth.velocity is not None
    # A picture that repeats sideways every six shifts is matched with its neighbour in some places.
    off = 0.08 if name == "recurring" else 0.05
    for span in clips_of(CASES[name]):
        measured = scores(corpus[name], truth, span)
        assert measured["flow"] == pytest.approx(truth.flow, rel=off)
        direction = np.array(truth.velocity) / np.hypot(*truth.velocity)
        assert measured["x"] * direction[0] + measured["y"] * direction[1] == pytest.approx(truth.flow, rel=off)


@pytest.mark.parametrize("name", [name for name in SCORED if CASES[name].truth.grey])
def test_grey_level(corpus: Corpus, name: str) -> None:
    truth = CASES[name].truth
    assert scores(corpus[name], truth, (0.0, truth.duration))["grayscale"] == pytest.approx(truth.grey, abs=2)


def keyframes(corpus: Corpus, name: str) -> list[Grey]:
    """The keyframes of a film that is one clip, at encoded size."""
    return grey_frames(corpus[name], sample_times((0.0, CASES[name].truth.duration))[::2])


@pytest.mark.parametrize("name", ["pan_right", "letterbox_thin", "letterbox", "pillarbox"])
def test_borders(corpus: Corpus, name: str) -> None:
    assert dark_share(keyframes(corpus, name)) == pytest.approx(CASES[name].truth.borders, abs=0.005)


def test_logo(corpus: Corpus) -> None:
    left, top, width, height = BADGE
    mask = still_mask(keyframes(corpus, "logo"))
    assert mask.mean() == pytest.approx(CASES["logo"].truth.marks, abs=0.006)
    assert mask[top : top + height, left : left + width].mean() > 0.9


def test_burnt_in_text(corpus: Corpus) -> None:
    assert text_share(keyframes(corpus, "burnt_in_text")) == pytest.approx(CASES["burnt_in_text"].truth.text, abs=0.02)
    assert text_share(keyframes(corpus, "pan_right")) < 0.005


@pytest.mark.parametrize("name", EDITED)
def test_cuts(corpus: Corpus, name: str) -> None:
    """The largest changes from frame to frame are the cuts; slow transitions have none, and end in another picture."""
    truth = CASES[name].truth
    times, thumbs = [], []
    with av.open(str(corpus[name])) as source:
        for frame in source.decode(video=0):
            times.append(frame.time)
            thumbs.append(frame.reformat(64, 36, "gray").to_ndarray().astype(np.int16))
    change = np.abs(np.diff(np.array(thumbs), axis=0)).mean(axis=(1, 2))
    found = [times[i + 1] for i in np.flatnonzero(change > 30)]
    assert found == pytest.approx(list(truth.cuts), abs=0.01)
    at = dict(zip((round(t * 24) for t in times), thumbs, strict=True))
    for start, end in truth.transitions:
        assert np.abs(at[round(start * 24)] - at[round(end * 24)]).mean() > 30
        middle = at[round((start + end) * 12)]
        assert (middle.mean() < 20) == (name == "fade")


def test_zoom_by_its_scale(corpus: Corpus) -> None:
    """The divergence of the flow gives the factor per second."""
    truth = CASES["zoom"].truth
    assert truth.zoom is not None
    one, two = (small(frame, truth) for frame in grey_frames(corpus["zoom"], [1.6, 1.6 + GAP]))
    field = flow_field(one, two)[60:-60, 100:-200]
    across = np.polyfit(np.arange(field.shape[1]), np.median(field[..., 0], axis=0), 1)[0]
    assert (1 + across) ** (1 / GAP) == pytest.approx(truth.zoom, rel=0.03)
    assert scores(corpus["zoom"], truth, (0.0, 16.0))["flow"] == pytest.approx(truth.flow, rel=0.07)


# ---------------------------------------------------------------------------------------------------------------------
# Files that are no video


def complaint(path: Path) -> str:
    """What is wrong with a file, as a plain reader finds out."""
    if path.stat().st_size == 0:
        return "empty"
    try:
        with av.open(str(path)) as source:
            films = [s for s in source.streams.video if not int(s.disposition) & 1024]
            if not films:
                return "no_video"
            if films[0].codec_context.width == 0:
                return "unreadable"
            if films[0].codec_context.width * films[0].codec_context.height > 8192 * 8192:
                return "too_large"
            promised, last = films[0].frames, 0
            # Nothing is decoded: an index that promises more frames than the file has is enough.
            for packet in source.demux(films[0]):
                last += packet.size > 0
            if promised == 1:
                return "one_frame"
            return "truncated" if last < promised else "nothing"
    except av.error.FFmpegError:
        return "unreadable"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_broken(corpus: Corpus, name: str) -> None:
    said = complaint(corpus[name])
    expected = CASES[name].truth.error
    unreadable = {"garbage", "text", "no_index", "impossible_size"}
    assert said == ("unreadable" if name in unreadable else expected)


def test_half_of_the_cut_off_film_can_be_decoded(corpus: Corpus) -> None:
    last = 0.0
    with av.open(str(corpus["cut_off"])) as source:
        source.streams.video[0].codec_context.thread_count = 1
        try:
            for frame in source.decode(video=0):
                last = frame.time
        except av.error.FFmpegError:
            pass
    assert 6 < last < 13


# ---------------------------------------------------------------------------------------------------------------------
# Making them


def test_building_is_repeatable_and_repeats_nothing(tmp_path: Path) -> None:
    digests = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        path = build(folder, ["quicktime"])["quicktime"]
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        made = path.stat().st_mtime_ns
        assert build(folder, ["quicktime"]) == {"quicktime": path}
        assert path.stat().st_mtime_ns == made
        assert [p.name for p in folder.iterdir()] == [path.name]  # No unfinished file is left.
    assert digests[0] == digests[1]


def test_only_what_is_asked_for_is_made(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    assert list(corpus) == list(CASES)
    assert list(corpus.folder.iterdir()) == []
    assert corpus["quicktime"].stat().st_size > 0
    assert list(corpus.folder.iterdir()) == [corpus["quicktime"]]
    with pytest.raises(KeyError):
        corpus["no such film"]


def test_the_cache_is_of_this_maker_and_these_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGTAKE_TEST_CORPUS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = [cache_folder()]
    monkeypatch.setattr("tests.corpus.version", lambda name: f"0.{len(name)}")
    folders.append(cache_folder())
    (tmp_path / "corpus.py").write_text("# another maker")
    monkeypatch.setattr("tests.corpus.__file__", str(tmp_path / "corpus.py"))
    folders.append(cache_folder())
    assert len({*folders}) == 3
    assert {folder.parent for folder in folders} == {tmp_path / "longtake" / "corpus"}
    monkeypatch.setenv("LONGTAKE_TEST_CORPUS", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_sidecar_captions() -> None:
    told = [case.truth for case in CASES.values() if case.truth.sub_captions]
    assert len(told) == 2
    assert all(len(truth.sub_captions) == 5 and truth.caption for truth in told)
    assert [len({text.rstrip(".!,;?") for text in truth.sub_captions}) for truth in told] == [5, 1]
