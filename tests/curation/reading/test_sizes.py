"""Film whose picture changes its size: calls whose bandwidth changes, joined recordings, a telephone that is turned."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import VideoScan
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.filters.base import Sample

Size = tuple[int, int]
FPS = 20
CODECS = {"webm": "libvpx-vp9", "mpegts": "libx264"}


def recipe(**splitting: Any) -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": 2, "window_seconds": 2, **splitting}
    data["tiers"] = {"any": {"fps": ">= 0"}}
    data["filters"] = {
        name: data["filters"][name] for name in ("fps", "width", "height", "duration", "shot_confidence")
    }
    return parse_recipe(data, source="a test")


def pictures(size: Size, frames: int, start: int, chroma: tuple[int, int]) -> Any:
    """A texture that moves on, the same one at every size, with a square (as long as wide) of white in it."""
    ground = cv2.GaussianBlur(np.random.default_rng(3).integers(40, 200, (180, 640), np.uint8), (0, 0), 3)
    for number in range(start, start + frames):
        whole = np.roll(ground, -3 * number, axis=1)[:, :320]
        grey = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        side = min(size) // 3
        grey[side : 2 * side, side : 2 * side] = 235
        planes = [np.full((size[1] // 4, size[0]), level, np.uint8) for level in chroma]
        yield np.concatenate([grey, *planes])


def sized(
    path: Path,
    container: str,
    parts: Sequence[tuple[Size, float]],
    chroma: tuple[int, int] = (128, 128),
    aspects: Sequence[Fraction] = (),
    codec: str = "",
) -> Path:
    """A film of parts of different sizes in one stream, each with the seconds that it lasts. aspects: of a sample in each part;
    then frames are reordered, too."""
    number, codec = 0, codec or CODECS[container]
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=FPS)
        stream.width, stream.height = parts[0][0]
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
        for (size, seconds), aspect in zip_longest(parts, aspects):
            coder: Any = av.CodecContext.create(codec, "w")
            coder.width, coder.height = size
            coder.pix_fmt, coder.time_base, coder.framerate = "yuv420p", Fraction(1, FPS), Fraction(FPS)
            coder.gop_size, coder.max_b_frames = 20, 2 if aspects else 0
            if aspect is not None:
                coder.sample_aspect_ratio = aspect
            coder.options = (
                {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "0"} if container == "webm" else {}
            )
            for picture in [*pictures(size, round(seconds * FPS), number, chroma), None]:
                frame = None
                if picture is not None:
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="yuv420p")
                    frame.pts, frame.time_base = number, Fraction(1, FPS)
                    number += 1
                for packet in coder.encode(frame):
                    packet.stream = stream
                    packet.dts = packet.dts - 4 if aspects else packet.dts
                    out.mux(packet)
    return path


def scanned(path: Path, by: Recipe, **how: Any) -> tuple[VideoScan, list[Sample]]:
    samples: list[Sample] = []
    return scan_video(str(path), by, lambda span, sample: samples.append(sample), all_scores=True, **how), samples


def ratio(picture: Any) -> float:
    """How wide the white square is, of its height."""
    white = np.asarray(picture)[..., 0] > 220
    rows, columns = white.mean(axis=1) > 0.1, white.mean(axis=0) > 0.1
    return float(columns.sum() / rows.sum())


PARTS = [((320, 180), 3.0), ((640, 360), 3.0), ((180, 320), 3.0)]


@pytest.mark.parametrize("container", CODECS)
@pytest.mark.parametrize("detector", ["network", "content", "adaptive", "none"])
def test_each_clip_has_the_size_of_its_own_pictures(tmp_path: Path, container: str, detector: str) -> None:
    path = sized(tmp_path / "film", container, PARTS)
    scan, samples = scanned(path, recipe(detector=detector))
    assert scan.cuts == [pytest.approx(3.0), pytest.approx(6.0)]
    assert (scan.info.width, scan.info.height) == (320, 180)
    sizes = [size for size, _ in PARTS]
    assert [(int(c.scores["width"].score.value), int(c.scores["height"].score.value)) for c in scan.clips] == sizes
    for number, (clip, sample, size) in enumerate(zip(scan.clips, samples, sizes, strict=True)):
        assert sample.keyframes.shape[1:3] == size[::-1]
        assert [ratio(picture) for picture in sample.keyframes] == pytest.approx(
            [1.0] * len(sample.keyframes), abs=0.05
        )
        made = cut_clip(
            str(path), clip.span.start, clip.span.end, tmp_path / f"{number}.mp4", EncodeSettings(fps=None, frames=None)
        )
        assert (made.width, made.height) == size


def test_a_clip_of_a_list_may_not_hold_two_sizes(tmp_path: Path) -> None:
    path = sized(tmp_path / "film", "webm", PARTS)
    scan, samples = scanned(path, recipe(), spans=[Span(0.5, 2.5), Span(1.0, 5.0), Span(3.5, 5.5)])
    by_start = {clip.span.start: clip for clip in scan.clips}
    assert [clip.span.start for clip in scan.clips if clip.error] == [1.0]
    error = by_start[1.0].error
    assert error is not None
    assert error.kind == "unsupported"
    assert "from 320×180 to 640×360 px at 3.000 s" in str(error)
    assert by_start[3.5].scores["width"].score.value == 640
    assert [sample.keyframes.shape[2] for sample in samples] == [320, 640]
    with pytest.raises(VideoError, match="320×180 to 640×360") as caught:
        cut_clip(str(path), 1.0, 5.0, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None))
    assert caught.value.kind == "unsupported"


def test_the_matrix_is_that_of_each_size(tmp_path: Path) -> None:
    """Where the stream names none, SD has BT.601 and HD has BT.709, in the scan as in the export."""
    path = sized(tmp_path / "film", "mpegts", [((640, 360), 3.0), ((1280, 720), 3.0)], chroma=(90, 200))
    scan, samples = scanned(path, recipe())
    first, second = (sample.keyframes[0].mean(axis=(0, 1)) for sample in samples)
    assert abs(first - second).max() > 8
    for clip, keyframe in zip(scan.clips, (first, second), strict=True):
        target = tmp_path / "clip.mp4"
        cut_clip(str(path), clip.span.start, clip.span.end, target, EncodeSettings(fps=None, frames=None, crf=10))
        with av.open(str(target)) as made:
            shown = next(made.decode(video=0)).to_ndarray(format="rgb24", src_colorspace="ITU709").mean(axis=(0, 1))
        assert shown == pytest.approx(keyframe, abs=2)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_pixels_that_change_their_shape(tmp_path: Path, codec: str) -> None:
    """A broadcast of 4:3, then of 16:9, then of 4:3 again, all of them 720×576 px as coded."""
    narrow, wide = Fraction(16, 15), Fraction(64, 45)
    parts = [((720, 576), 3.0)] * 3
    path = sized(tmp_path / "film", "mpegts", parts, aspects=(narrow, wide, narrow), codec=codec)
    scan, samples = scanned(path, recipe())
    assert scan.cuts == pytest.approx([3.0, 6.0], abs=0.11)
    assert [clip.scores["width"].score.value for clip in scan.clips] == [768, 1024, 768]
    for number, (clip, sample, aspect) in enumerate(zip(scan.clips, samples, (narrow, wide, narrow), strict=True)):
        assert sample.keyframes.shape[1:3] == ((576, 768) if aspect == narrow else (540, 960))
        assert [ratio(p) for p in sample.keyframes] == pytest.approx([float(aspect)] * len(sample.keyframes), abs=0.05)
        target = tmp_path / f"{number}.mp4"
        made = cut_clip(str(path), clip.span.start, clip.span.end, target, EncodeSettings(fps=None, frames=None))
        assert (made.width, made.height) == ((768, 576) if aspect == narrow else (1024, 576))
    with pytest.raises(VideoError, match="768×576 to 1024×576"):
        cut_clip(str(path), 2.0, 4.0, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None))
