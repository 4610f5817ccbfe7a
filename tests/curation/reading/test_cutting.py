"""Every source here carries the number of each frame in its pixels, so that a clip tells which frame it shows where."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, VideoReformatter

from longtake.curation.errors import VideoError
from longtake.curation.reading import cutting
from longtake.curation.reading.checking import check
from longtake.curation.reading.cutting import EncodedClip, cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from longtake.curation.recipe import parse_recipe

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "videos"
BITS = 10
SIZE = (320, 180)
FAST = EncodeSettings(frames=None, preset="ultrafast")
Picture = npt.NDArray[np.uint8]


def picture(number: int, size: tuple[int, int] = SIZE) -> Picture:
    """uint8 [h, w, 3], RGB: above, `number` in ten black or white bars; below, red on the left, blue on the right."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        image[: height // 2, edges[bit] : edges[bit + 1]] = 255 * (number >> bit & 1)
    image[height // 2 :, : width // 2] = (200, 30, 30)
    image[height // 2 :, width // 2 :] = (30, 30, 200)
    return image


def origin(stream: Any) -> float:
    """Seconds that the container's clock shows at the start of a stream."""
    return float((stream.start_time or 0) * stream.time_base)


def number_of(image: Picture) -> int:
    height, width = image.shape[:2]
    bars = [image[height // 4, round((bit + 0.5) * width / BITS)].mean() for bit in range(BITS)]
    assert all(b < 60 or b > 195 for b in bars), bars
    return sum(1 << bit for bit, bar in enumerate(bars) if bar > 127)


WHOLE_FILM = {
    "name": "whole",
    "splitting": {"detector": "none", "min_seconds": 1, "window_seconds": 60},
    "filters": {"width": {}},
    "tiers": {"all": {"width": ">= 1"}},
}


def make(
    path: Path,
    times: Sequence[float],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 24,
    rotation: int = 0,
    aspect: Fraction | None = None,
    matrix: Colorspace | None = None,
    full_range: bool = False,
    size: tuple[int, int] = SIZE,
    rate: Fraction | int = 24,
    base: Fraction = Fraction(1, 12000),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video whose frame i is `picture(i)`, shown at times[i] (s)."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            stream.codec_context.colorspace = int(matrix)
        if full_range:
            stream.codec_context.color_range = ColorRange.JPEG
        for number, time in enumerate(times):
            upright = picture(number, size[::-1] if rotation % 180 else size)
            turned = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(turned, "rgb24").reformat(
                format=pix_fmt,
                dst_colorspace=matrix or Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            )
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def steady(fps: float, count: int, begin: float = 0.0) -> list[float]:
    return [begin + i / fps for i in range(count)]


def pictures(path: Path) -> list[Picture]:
    """What PyAV shows of a video: RGB by its own tags, not turned."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        frames = (reformatter.reformat(f, format="rgb24", dst_color_range=2) for f in container.decode(video=0))
        return [cast(Picture, frame.to_ndarray()) for frame in frames]


def numbers(path: Path) -> list[int]:
    return [number_of(image) for image in pictures(path)]


def nearest(times: Sequence[float], start: float, end: float, fps: float, count: int) -> list[int]:
    """The known answer, calculated with exact fractions over all frames of the span at once."""
    inside = [i for i, t in enumerate(times) if start - 1e-6 <= t < end - 1e-6]
    exact = {i: Fraction(times[i]).limit_denominator(12000) for i in inside}
    begin = Fraction(start).limit_denominator(12000)

    def shown(moment: Fraction) -> int:
        before = max((i for i in inside if exact[i] <= moment), default=inside[0])
        after = min(before + 1, inside[-1])
        if exact[after] - exact[before] >= Fraction(1, 2):  # The frame before stands for so long.
            return before
        return min(before, after, key=lambda i: (abs(exact[i] - moment), i))

    return [shown(begin + k / Fraction(fps)) for k in range(count)]


@pytest.fixture(scope="module")
def film24(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("film") / "film24.mp4", steady(24, 120))


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (1.0, 3.0), (23 / 24, 2.5), (1.02, 2.52), (3.0, 5.0)])
def test_24_fps_become_30_by_the_nearest_frame(film24: Path, tmp_path: Path, start: float, end: float) -> None:
    clip = cut_clip(str(film24), start, end, tmp_path / "clip.mp4", FAST)
    count = round((end - start) * 30)
    assert numbers(tmp_path / "clip.mp4") == nearest(steady(24, 120), start, end, 30, count)
    assert (clip.frames, clip.width, clip.height, clip.fps) == (count, 320, 180, 30.0)


def test_the_file_is_what_the_result_says(film24: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "clip.mp4"
    clip = cut_clip(str(film24), 1.0, 3.0, target, FAST)
    assert isinstance(clip, EncodedClip)
    assert clip.bytes == target.stat().st_size
    assert clip.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert os.listdir(target.parent) == ["clip.mp4"]
    with av.open(str(target)) as container:
        assert len(container.streams) == 1
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 30
        assert stream.start_time == 0
        context = stream.codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, ColorRange.MPEG)
        packets: list[Any] = [p for p in container.demux(stream) if p.size and p.is_keyframe]
        assert [p.pts * p.time_base * 30 for p in packets] == [0, 30]
    raw = target.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")


def test_the_same_clip_twice_is_the_same_file(film24: Path, tmp_path: Path) -> None:
    one = cut_clip(str(film24), 1.0, 2.0, tmp_path / "one.mp4", FAST)
    two = cut_clip(str(film24), 1.0, 2.0, tmp_path / "two.mp4", FAST)
    assert one == two


def test_an_open_file_will_do(film24: Path, tmp_path: Path) -> None:
    file = io.BytesIO(film24.read_bytes())
    file.read(100)
    cut_clip(file, 1.0, 2.0, tmp_path / "clip.mp4", FAST)
    assert numbers(tmp_path / "clip.mp4") == nearest(steady(24, 120), 1.0, 2.0, 30, 30)


def test_60_fps_become_every_second_frame(tmp_path: Path) -> None:
    source = make(tmp_path / "source.mp4", steady(60, 180), rate=60)
    cut_clip(str(source), 0.5, 2.5, tmp_path / "clip.mp4", FAST)
    assert numbers(tmp_path / "clip.mp4") == list(range(30, 150, 2))


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25)])
def test_the_source_rate_can_be_kept(tmp_path: Path, rate: Fraction) -> None:
    times = steady(float(rate), 100)
    source = make(tmp_path / "source.mp4", times, base=1 / rate, rate=rate)
    with av.open(str(source)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    clip = cut_clip(str(source), times[10], times[70], tmp_path / "clip.mp4", replace(FAST, fps=None))
    assert numbers(tmp_path / "clip.mp4") == list(range(10, 70))
    assert clip.fps == pytest.approx(float(rate), abs=1e-3)


def test_a_variable_rate_is_followed_by_its_timestamps(tmp_path: Path) -> None:
    gaps = [1 / 24] * 20 + [0.1] * 10 + [1 / 60] * 40 + [0.5] * 2 + [1 / 30] * 30
    times = [round(t * 12000) / 12000 for t in np.cumsum([0.0, *gaps])]
    source = make(tmp_path / "source.mp4", times)
    start, end = times[5], times[-1]
    cut_clip(str(source), start, end, tmp_path / "clip.mp4", FAST)
    shown = numbers(tmp_path / "clip.mp4")
    assert shown == nearest(times, start, end, 30, round((end - start) * 30))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_video_comes_out_upright(tmp_path: Path, rotation: int) -> None:
    source = make(tmp_path / "source.mov", steady(24, 48), rotation=rotation)
    clip = cut_clip(str(source), 0.5, 1.5, tmp_path / "clip.mp4", FAST)
    assert (clip.width, clip.height) == ((320, 180) if rotation == 180 else (180, 320))
    images = pictures(tmp_path / "clip.mp4")
    assert [number_of(i) for i in images] == nearest(steady(24, 48), 0.5, 1.5, 30, 30)
    low, quarter = clip.height * 3 // 4, clip.width // 4
    np.testing.assert_allclose(images[0][low, quarter], (200, 30, 30), atol=8)
    np.testing.assert_allclose(images[0][low, 3 * quarter], (30, 30, 200), atol=8)


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 427), (Fraction(3, 4), 240)])
def test_samples_become_square(tmp_path: Path, aspect: Fraction, width: int) -> None:
    source = make(tmp_path / "source.mp4", steady(24, 30), aspect=aspect)
    clip = cut_clip(str(source), 0.0, 1.0, tmp_path / "clip.mp4", FAST)
    assert (abs(clip.width - width) <= 1, clip.width % 2, clip.height) == (True, 0, 180)
    assert numbers(tmp_path / "clip.mp4")[-1] == 23
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)


@pytest.mark.parametrize(("limit", "size"), [(90, (160, 90)), (101, (178, 100)), (180, SIZE), (1080, SIZE)])
def test_tall_clips_shrink_and_none_grows(film24: Path, tmp_path: Path, limit: int, size: tuple[int, int]) -> None:
    clip = cut_clip(str(film24), 0.0, 0.5, tmp_path / "clip.mp4", replace(FAST, max_height=limit))
    assert (clip.width, clip.height) == size
    assert numbers(tmp_path / "clip.mp4")[0] == 0


def test_odd_sides_become_even(tmp_path: Path) -> None:
    source = make(tmp_path / "source.mp4", steady(24, 24), pix_fmt="yuv444p", size=(321, 181))
    clip = cut_clip(str(source), 0.0, 0.5, tmp_path / "clip.mp4", FAST)
    assert clip.width % 2 == clip.height % 2 == 0
    assert abs(clip.width - 321) == abs(clip.height - 181) == 1


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p", "yuv422p"])
@pytest.mark.parametrize("matrix", [None, Colorspace.ITU601, Colorspace.ITU709, Colorspace.BT2020])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_survive(tmp_path: Path, pix_fmt: str, matrix: Colorspace | None, full_range: bool) -> None:
    tag = {None: None, Colorspace.ITU601: 6, Colorspace.ITU709: 1, Colorspace.BT2020: 9}[matrix]
    source = tmp_path / "source.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "4"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = pix_fmt
        if tag:
            stream.codec_context.colorspace = tag
        if matrix == Colorspace.BT2020:  # The matrix alone would also mean the gamut of BT.2020.
            stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24").reformat(
                format=pix_fmt,
                dst_colorspace=matrix or Colorspace.ITU601,
                dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            )
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    cut_clip(str(source), 0.0, 0.5, tmp_path / "clip.mp4", replace(FAST, fps=24.0, crf=8))
    image = pictures(tmp_path / "clip.mp4")[3]
    np.testing.assert_allclose(image[135, 80], (200, 30, 30), atol=8)
    np.testing.assert_allclose(image[135, 240], (30, 30, 200), atol=8)
    np.testing.assert_allclose(image[45, 16], (255, 255, 255), atol=5)
    np.testing.assert_allclose(image[45, 300], (0, 0, 0), atol=5)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("source.ts", "libx264", {"preset": "ultrafast", "bf": "2", "x264-params": "open-gop=1"}),
        ("source.mkv", "libx264", {"preset": "ultrafast", "bf": "2"}),
        (
            "source.webm",
            "libvpx-vp9",
            {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"},
        ),
        ("source.avi", "mpeg4", {"q": "3"}),
        ("source.mpg", "mpeg2video", {"q": "3", "bf": "2"}),
        ("source.mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:bframes=3"}),
    ],
)
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    source = make(tmp_path / name, steady(24, 96), codec=codec, options=options, base=Fraction(1, 24), gop=20)
    with av.open(str(source)) as container:
        begin = origin(container.streams.video[0])
        times = [frame.time - begin for frame in container.decode(video=0)]
    assert len(times) == 96
    for first in (0, 19, 20, 21, 47, 60):
        last = first + 24
        cut_clip(str(source), times[first], times[last], tmp_path / "clip.mp4", FAST)
        shown = numbers(tmp_path / "clip.mp4")
        assert shown[0] == first
        assert set(shown) <= set(range(first, last))
        assert shown == [first + round(k * 24 / 30 - 1e-9) for k in range(30)], (first, shown)


@pytest.mark.parametrize(("name", "begin"), [("source.mkv", 10.0), ("source.ts", 10.0), ("source.ts", -1.0)])
def test_times_count_from_the_start_of_the_stream_wherever_it_is(tmp_path: Path, name: str, begin: float) -> None:
    source = make(
        tmp_path / name,
        steady(24, 72, begin),
        container_options={"avoid_negative_ts": "disabled"},
        options={"preset": "ultrafast", "bf": "0"},
    )
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(begin)
    cut_clip(str(source), 0.5, 1.5, tmp_path / "clip.mp4", FAST)
    assert numbers(tmp_path / "clip.mp4") == nearest(steady(24, 72), 0.5, 1.5, 30, 30)


def test_interlaced_pictures_come_out_whole(tmp_path: Path) -> None:
    """The lower half holds an edge that moves 12 px from one field to the next: as it is, a comb."""

    def woven(number: int) -> Picture:
        image = picture(number)
        for row in range(SIZE[1] // 2, SIZE[1]):
            edge = 20 + 12 * (2 * number + row % 2)
            image[row, :edge], image[row, edge:] = 220, 40
        return image

    def comb(image: Picture) -> float:
        lower = image[SIZE[1] // 2 + 8 :].astype(float).mean(axis=2)
        return float(np.abs(lower[2:] - 2 * lower[1:-1] + lower[:-2]).mean())

    source = tmp_path / "woven.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "10", "x264-params": "tff=1"})
        stream.width, stream.height = SIZE
        for number in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(woven(number), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(source)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    target = tmp_path / "clip.mp4"
    cut_clip(str(source), 0.08, 0.4, target, replace(FAST, fps=None))
    shown = pictures(target)
    assert [number_of(image) for image in shown] == list(range(2, 10))
    for number, image in enumerate(shown, start=2):
        assert comb(image) < 0.1 * comb(woven(number)), number


def test_exactly_the_frames_asked_for_from_the_start(film24: Path, tmp_path: Path) -> None:
    clip = cut_clip(str(film24), 1.0, 4.5, tmp_path / "clip.mp4", replace(FAST, frames=60))
    assert clip.frames == 60
    assert numbers(tmp_path / "clip.mp4") == nearest(steady(24, 120), 1.0, 3.0, 30, 60)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (1.0, 1.0 + 59.4 / 30),  # The span is too short by more than half a frame.
        (4.0, 6.0),  # The video ends before the span does.
        (-3.0, -1.0),  # The span lies before the beginning of the video.
        (-1.0, 1.0),  # Half of the span lies before the beginning of the video.
        (9.0, 12.0),  # The span lies after the end of the video.
    ],
)
def test_a_span_that_cannot_give_its_frames(film24: Path, tmp_path: Path, start: float, end: float) -> None:
    with pytest.raises(VideoError) as caught:
        cut_clip(str(film24), start, end, tmp_path / "clip.mp4", replace(FAST, frames=60))
    assert caught.value.kind == "too_short"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fps", [None, 30.0, 24.0])
@pytest.mark.parametrize("slow", range(4))
def test_the_last_clip_of_a_film_goes_as_far_as_the_scan_says(tmp_path: Path, fps: float | None, slow: int) -> None:
    """Its last frame is shown for a shorter time than the others, and the scan takes it to be as long as they are on average."""
    gaps = [0.5] * (slow + 1) + [1 / 60] * 30
    times = [round(t * 12000) / 12000 for t in np.cumsum([0.0, *gaps])]
    source = make(tmp_path / "source.mp4", times)
    how = parse_recipe(WHOLE_FILM, source="test")
    (clip,) = scan_video(str(source), how, lambda span, sample: None).clips
    made = cut_clip(str(source), clip.span.start, clip.span.end, tmp_path / "clip.mp4", replace(FAST, fps=fps))
    assert made.frames == round(clip.span.seconds * made.fps)
    if fps:  # At an odd rate a frame may be the second nearest, by less than a millisecond.
        assert numbers(tmp_path / "clip.mp4") == nearest(times, 0.0, clip.span.end, fps, made.frames)


def test_half_a_frame_may_be_missing(film24: Path, tmp_path: Path) -> None:
    cut_clip(str(film24), 1.0, 1.0 + 59.6 / 30, tmp_path / "clip.mp4", replace(FAST, frames=60))
    assert max(numbers(tmp_path / "clip.mp4")) < 24 + 59.6 / 30 * 24
    cut_clip(str(film24), 3.01, 5.0, tmp_path / "clip.mp4", replace(FAST, frames=60))
    assert numbers(tmp_path / "clip.mp4")[-1] == 119


def test_one_frame_is_a_clip(film24: Path, tmp_path: Path) -> None:
    clip = cut_clip(str(film24), 2.0, 2.03, tmp_path / "clip.mp4", replace(FAST, fps=None))
    assert clip.frames == 1
    assert numbers(tmp_path / "clip.mp4") == [48]


def test_decord_fetches_the_right_frame_by_index(film24: Path, tmp_path: Path) -> None:
    decord = pytest.importorskip("decord")
    cut_clip(str(film24), 0.0, 5.0, tmp_path / "clip.mp4", replace(EncodeSettings(), frames=150))
    expected = nearest(steady(24, 120), 0.0, 5.0, 30, 150)
    reader = decord.VideoReader(str(tmp_path / "clip.mp4"), num_threads=1)
    assert len(reader) == 150
    indices = np.random.default_rng(0).permutation(150)[:40]
    for index, image in zip(indices, reader.get_batch(indices).asnumpy(), strict=True):
        assert number_of(image) == expected[index]


# Spans that must be refused.


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"not a video at all" * 100, "not_video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfilm24.mp4\n#EXT-X-ENDLIST\n", "not_video"),
        (b"ffconcat version 1.0\nfile film24.mp4\n", "not_video"),
        (None, "missing"),
    ],
)
def test_what_is_not_a_video(film24: Path, tmp_path: Path, content: bytes | None, kind: str) -> None:
    (tmp_path / "film24.mp4").write_bytes(film24.read_bytes())
    source = tmp_path / "source.mp4"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        cut_clip(str(source), 0.0, 1.0, tmp_path / "out" / "clip.mp4", FAST)
    assert caught.value.kind == kind
    assert os.listdir(tmp_path / "out") == []


def test_sound_alone_is_not_a_video(tmp_path: Path) -> None:
    source = tmp_path / "source.mka"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError) as caught:
        cut_clip(str(source), 0.0, 1.0, tmp_path / "clip.mp4", FAST)
    assert caught.value.kind == "no_video"


def test_a_truncated_video_gives_what_it_has_and_no_more(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.mkv", steady(24, 120))
    source = tmp_path / "source.mkv"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(VideoError) as caught:
        cut_clip(str(source), 0.0, 5.0, tmp_path / "clip.mp4", FAST)
    assert caught.value.kind in ("too_short", "corrupt")
    cut_clip(str(source), 0.0, 1.0, tmp_path / "clip.mp4", FAST)
    assert numbers(tmp_path / "clip.mp4") == nearest(steady(24, 120), 0.0, 1.0, 30, 30)


def test_a_relative_path_and_an_empty_span_are_mistakes_of_the_caller(film24: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute"):
        cut_clip("film24.mp4", 0.0, 1.0, tmp_path / "clip.mp4", FAST)
    for start, end in ((1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="span"):
            cut_clip(str(film24), start, end, tmp_path / "clip.mp4", FAST)


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0.0}, {"fps": float("nan")}, {"frames": 0}, {"max_height": 2}, {"crf": 60.0}, {"keyframe_interval": 0}],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EncodeSettings(**wrong)


def test_frames_are_let_go_as_soon_as_they_are_encoded(film24: Path, tmp_path: Path) -> None:
    """Of 8K each is 50 MB, and the collector of cycles comes after a hundred."""
    gc.collect()
    before = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    gc.disable()
    try:
        cut_clip(str(film24), 0.0, 4.0, tmp_path / "clip.mp4", FAST)
        after = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert after - before < 10


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_not_the_clips_fault_and_leaves_the_old_clip(film24: Path, tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"the clip of an earlier run")
    with largest_file(20_000), pytest.raises(OSError, match="cannot write the clip"):
        cut_clip(str(film24), 0.0, 5.0, target, FAST)
    assert target.read_bytes() == b"the clip of an earlier run"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_clip_that_shows_something_else_is_found_out(film24: Path, tmp_path: Path) -> None:
    """The check is given the clip of another span under this one's name."""
    wanted = cutting._encode_span(str(film24), 0.0, 1.0, tmp_path / "one.mp4", FAST, 1.0)
    check(tmp_path / "one.mp4", wanted)
    cutting._encode_span(str(film24), 2.0, 3.0, tmp_path / "other.mp4", FAST, 1.0)
    cutting._encode_span(str(film24), 0.0, 0.9, tmp_path / "shorter.mp4", FAST, 1.0)
    cutting._encode_span(str(film24), 0.0, 1.0, tmp_path / "slower.mp4", replace(FAST, fps=25.0), 1.0)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "one.mp4").read_bytes()[:-3000])
    for name, words in {"other": "differs", "shorter": "26|27", "slower": "25 fps", "cut": "decode|frames"}.items():
        with pytest.raises(VideoError, match=words) as caught:
            check(tmp_path / f"{name}.mp4", wanted)
        assert caught.value.kind == "export"


def test_a_recording_with_a_gap_is_exported_as_it_is_shown(tmp_path: Path) -> None:
    source = make(tmp_path / "screen.mp4", [*steady(24, 3), *steady(24, 25, begin=4.0)])
    cut_clip(str(source), 0.0, 5.0, tmp_path / "clip.mp4", replace(FAST, fps=10.0, frames=50))
    shown = numbers(tmp_path / "clip.mp4")
    assert shown[1:40] == [2] * 39
    assert shown[40] == 3


# The tests below read real clips.


@pytest.mark.skipif(not CORPUS.is_dir(), reason="no real clips here")
@pytest.mark.parametrize(
    ("name", "start", "end", "size"),
    [
        ("rot/media_720p_rot270.mp4", 1.0, 2.0, (720, 1280)),
        ("codec/media_mpeg2_ts.ts", None, None, (1920, 1080)),
        ("short/torchcodec_nasa.mp4", 6.0, 8.0, (480, 270)),
        ("codec/torchcodec_av1_mkv.mkv", 2.0, 4.0, (640, 360)),
    ],
)
def test_real_clips_show_what_their_sources_show(
    tmp_path: Path, name: str, start: float | None, end: float | None, size: tuple[int, int]
) -> None:
    def thumb(frame: av.VideoFrame) -> npt.NDArray[np.float32]:
        rows = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
        luma = np.rot90(rows[: frame.height, : frame.width], round(frame.rotation / 90))
        # Interpolation 3 is INTER_AREA.
        return cast(npt.NDArray[np.float32], cv2.resize(luma.astype(np.float32), (32, 32), interpolation=3))

    source = CORPUS / name
    with av.open(str(source)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        stream.codec_context.thread_count = 1
        begin = origin(stream)
        originals = [(f.time - begin, thumb(f)) for f in container.decode(stream) if isinstance(f, av.VideoFrame)]
    if start is None or end is None:
        start, end = originals[10][0], originals[40][0]
    clip = cut_clip(str(source), start, end, tmp_path / "clip.mp4", FAST)
    assert (clip.width, clip.height) == size
    assert clip.frames == round((end - start) * 30)
    inside = [(t, image) for t, image in originals if start <= t < end]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        for k, frame in enumerate(container.decode(video=0)):
            near = min(inside, key=lambda pair: abs(pair[0] - start - k / 30))[1]
            assert np.abs(thumb(frame) - near).mean() < 2, k


@pytest.mark.skipif(not CORPUS.is_dir(), reason="no real clips here")
@pytest.mark.parametrize("name", ["edge/decord_corrupted.mp4", "derived/kvs_java.h264", "derived/garbage64k.mp4"])
def test_damaged_videos_give_an_error_and_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError):
        cut_clip(str(CORPUS / name), 0.0, 15.0, tmp_path / "clip.mp4", FAST)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not CORPUS.is_dir(), reason="no real clips here")
def test_high_dynamic_range_is_brought_into_range(tmp_path: Path) -> None:
    """The white squares of a colour chart in HLG: in BT.709 they are white, and not burnt; red is red. Unmapped, they are
    dull."""
    cut_clip(str(CORPUS / "hdr/media_hlg10.mp4"), 0.0, 0.1, tmp_path / "clip.mp4", replace(FAST, max_height=270))
    image = pictures(tmp_path / "clip.mp4")[0]
    chart = {"white": (67, 235), "red": (190, 157), "blue": (72, 170), "green": (130, 165)}
    seen = {name: image[y, x].astype(int) for name, (x, y) in chart.items()}
    assert seen["white"].min() > 225
    assert seen["white"].max() < 250
    assert seen["red"][0] > 200 > 140 > max(seen["red"][1:])
    assert seen["blue"][2] > 180 > 130 > max(seen["blue"][:2])
    assert seen["green"][1] > 200 > 180 > max(seen["green"][0], seen["green"][2])


def test_a_picture_that_is_cropped_on_its_left(tmp_path: Path) -> None:
    """Unless it is told otherwise, ffmpeg crops the left side only by as much as suits its memory."""
    options = {"preset": "ultrafast", "qp": "0", "x264-params": "crop-rect=20,10,30,16"}
    path = make(tmp_path / "film.mp4", steady(24, 12), options=options)
    whole = make(tmp_path / "whole.mp4", steady(24, 12), options={"preset": "ultrafast", "qp": "0"})
    truth = pictures(whole)[0][10:-16, 20:-30]
    with open_video(str(path)) as video:
        info = probe(video)
        frame = next(decode(video, info, DecodeCount())).frame
        analysis = AnalysisFrames(info)
        key = analysis.rgb(analysis.shrink(frame))
    assert (info.height, info.width) == key.shape[:2] == truth.shape[:2]
    assert np.abs(key.astype(int) - truth).mean() < 3
    clip = cut_clip(str(path), 0.0, 0.5, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None, crf=1))
    assert (clip.height, clip.width) == truth.shape[:2]
    assert np.abs(pictures(tmp_path / "clip.mp4")[0].astype(int) - truth).mean() < 3
