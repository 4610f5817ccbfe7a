"""Small pictures of known colours: colours by the equations of ITU-R BT.601 and BT.709, sizes and turns by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorTrc
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.curation.reading.combs import uncombed
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.native import luma_of
from longtake.curation.reading.opening import displayed_size, open_video
from longtake.curation.reading.pictures import ANALYSIS_SIDE, THUMB_SIDE, AnalysisFrames, thumbnail
from longtake.curation.reading.video import VideoInfo, probe
from longtake.filters.base import Image
from tests.corpus import photograph

COLOURS = {"red": (200, 30, 30), "green": (30, 170, 40), "blue": (20, 40, 210), "sand": (194, 178, 128)}
LUMA = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}  # Kr and Kb of each matrix.
TAGS = {"601": 6, "709": 1, "none": 2}  # The numbers of ITU-T H.273: SMPTE 170M, BT.709, unspecified.
Picture = npt.NDArray[np.uint8]


def yuv(rgb: tuple[int, int, int], matrix: str, full: bool = False) -> tuple[float, float, float]:
    """Y, Cb and Cr in 8 bits, by the definition."""
    r, g, b = (value / 255 for value in rgb)
    kr, kb = LUMA[matrix]
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    return (255 * y, 255 * cb + 128, 255 * cr + 128) if full else (219 * y + 16, 224 * cb + 128, 224 * cr + 128)


def quarters(
    size: tuple[int, int], matrix: str = "709", tag: str | None = None, bits: int = 8, full: bool = False
) -> av.VideoFrame:
    """A frame whose quarters are red, green, blue, sand (in reading order), made without any converter."""
    width, height = size
    frame = av.VideoFrame(width, height, "yuv420p" if bits == 8 else f"yuv420p{bits}le")
    values = [yuv(rgb, matrix, full) for rgb in COLOURS.values()]
    for i, plane in enumerate(frame.planes):
        dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
        picture = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
        middle_y, middle_x = plane.height // 2, plane.width // 2
        for j, value in enumerate(values):
            rows = slice(None, middle_y) if j < 2 else slice(middle_y, None)
            columns = slice(None, middle_x) if j % 2 == 0 else slice(middle_x, None)
            picture[rows, columns] = round(value[i] * 2 ** (bits - 8))
        plane.update(picture.tobytes())
    frame.colorspace, frame.color_range = TAGS[tag or matrix], 2 if full else 1
    return frame


def info_of(frame: av.VideoFrame, rotation: int = 0, aspect: Fraction = Fraction(1)) -> VideoInfo:
    width, height = displayed_size(frame.width, frame.height, rotation, aspect)
    return VideoInfo(
        width,
        height,
        frame.width,
        frame.height,
        rotation,
        24.0,
        1.0,
        0.0,
        24,
        1,
        "h264",
        frame.format.name,
        "mov",
        False,
    )


def in_quarters(picture: Picture) -> list[tuple[int, int, int]]:
    """The colours in the middle of the four quarters."""
    height, width = picture.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(value) for value in picture[place]) for place in places]  # type: ignore[misc]


def assert_colours(found: Any, expected: Any, within: float) -> None:
    np.testing.assert_allclose(np.array(found, float), np.array(expected, float), atol=within)


# ---------------------------------------------------------------------------------------------------------------------
# Thumbnails


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (720, 1280), (854, 480), (853, 481), (320, 180), (64, 48)])
def test_thumbnails_have_the_picture_s_colours(size: tuple[int, int], bits: int) -> None:
    thumb = thumbnail(quarters(size, "601", bits=bits))
    assert thumb.dtype == np.uint8
    assert_colours(in_quarters(thumb[..., ::-1]), list(COLOURS.values()), within=4)


def test_thumbnails_of_other_formats() -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[:240, :320], rgb[:240, 320:], rgb[240:, :320], rgb[240:, 320:] = COLOURS.values()
    for name in ("rgb24", "gbrp", "yuv444p", "yuv422p", "nv12"):
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)
        assert_colours(in_quarters(thumbnail(frame)[..., ::-1]), list(COLOURS.values()), within=5)


@pytest.mark.parametrize(
    "pixel", ["yuv444p", "yuv422p10le", "yuyv422", "yuv420p", "yuv420p16be", "gray10le", "gray16le"]
)
@pytest.mark.parametrize("matrix", [8, 10, 11, 12, 13, 14])
def test_a_matrix_that_the_scaler_does_not_know_stops_nobody(matrix: int, pixel: str) -> None:
    """YCgCo in 4:4:4 was `unreadable`, a fault of the world, and was tried again by each run."""
    frame = av.VideoFrame.from_ndarray(np.full((360, 640, 3), 128, np.uint8), format="rgb24").reformat(format=pixel)
    frame.colorspace, frame.color_range = matrix, 1
    assert np.median(thumbnail(frame)) == pytest.approx(128, abs=3)
    # The scaler takes grey frames for full-range ones. Those of ten bits were read as bytes.
    luma = 128 if pixel.startswith("gray") else 126
    assert np.median(luma_of(frame)) == pytest.approx(luma, abs=2)
    assert uncombed(frame, known=True).format.name == pixel


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4000), st.integers(2, 4000))
def test_thumbnail_sizes(width: int, height: int) -> None:
    thumb = thumbnail(av.VideoFrame(width, height, "yuv420p"))
    long_side, factor = max(thumb.shape[:2]), max(width, height) / max(thumb.shape[:2])
    assert long_side <= 2 * THUMB_SIDE
    assert long_side >= min(THUMB_SIDE - 2, max(width, height) - 1)  # Sizes are even.
    for side, original in zip(thumb.shape[1::-1], (width, height), strict=True):
        assert abs(side - original / factor) <= 3


def test_a_thumbnail_looks_like_the_picture() -> None:
    """Against shrinking all of it by areas; it is made of some rows only, half a pixel off."""
    photo = np.asarray(cv2.resize(photograph("astronaut"), (1920, 1080), interpolation=cv2.INTER_CUBIC), np.uint8)
    frame = av.VideoFrame.from_ndarray(photo, format="rgb24").reformat(format="yuv420p")
    thumb = thumbnail(frame)[..., ::-1]
    expected = cv2.resize(photo, thumb.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.corrcoef(thumb.ravel(), expected.ravel())[0, 1] > 0.95
    assert abs(float(thumb.mean()) - float(expected.mean())) < 1


# ---------------------------------------------------------------------------------------------------------------------
# Analysis frames: sizes


@settings(deadline=None)
@given(
    st.integers(2, 8000), st.integers(2, 8000), st.sampled_from([0, 90, 180, 270]),
    st.sampled_from([Fraction(1), Fraction(4, 3), Fraction(16, 15), Fraction(1, 2)]),
)  # fmt: skip
def test_analysis_size(width: int, height: int, rotation: int, aspect: Fraction) -> None:
    shown = displayed_size(width, height, rotation, aspect)
    info = VideoInfo(*shown, width, height, rotation, 24.0, 1.0, 0.0, 24, 1, "h264", "yuv420p", "mov", False)
    size = AnalysisFrames(info).reduced_size(width, height)
    size = size[::-1] if rotation % 180 else size
    if max(shown) <= ANALYSIS_SIDE:
        assert size == (max(2, shown[0]), max(2, shown[1]))  # A small picture is never enlarged.
    else:
        assert max(size) == ANALYSIS_SIDE
        scale = ANALYSIS_SIDE / max(shown)
        assert all(abs(side - max(2, full * scale)) <= 0.5 for side, full in zip(size, shown, strict=True))


@pytest.mark.parametrize(
    ("coded", "rotation", "aspect", "expected"),
    [
        ((1920, 1080), 0, Fraction(1), (960, 540)),
        ((1280, 720), 90, Fraction(1), (540, 960)),
        ((960, 720), 0, Fraction(4, 3), (960, 540)),
        ((720, 576), 0, Fraction(16, 15), (768, 576)),
        ((720, 576), 270, Fraction(16, 15), (576, 768)),
        ((320, 180), 180, Fraction(1), (320, 180)),
        ((4096, 2160), 0, Fraction(1), (960, 506)),
    ],
)
def test_analysis_frames_are_upright_and_square(
    coded: tuple[int, int], rotation: int, aspect: Fraction, expected: tuple[int, int]
) -> None:
    frame = quarters(coded)
    frames = AnalysisFrames(info_of(frame, rotation, aspect))
    picture = frames.rgb(frames.shrink(frame))
    assert picture.shape == (expected[1], expected[0], 3)
    assert picture.flags.c_contiguous
    corners = np.array(list(COLOURS.values())).reshape(2, 2, 3)
    upright = np.rot90(corners, -rotation // 90)  # The rotation is clockwise, and rot90 turns the other way.
    assert_colours(in_quarters(picture), upright.reshape(4, 3), within=3)


# ---------------------------------------------------------------------------------------------------------------------
# Analysis frames: colours


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["601", "709"])
@pytest.mark.parametrize("size", [(640, 360), (1280, 720)])
def test_tagged_colours(size: tuple[int, int], matrix: str, full: bool, bits: int) -> None:
    frame = quarters(size, matrix, bits=bits, full=full)
    frames = AnalysisFrames(info_of(frame))
    assert_colours(in_quarters(frames.rgb(frames.shrink(frame))), list(COLOURS.values()), within=3)


@pytest.mark.parametrize(("size", "matrix"), [((640, 360), "601"), ((1280, 720), "709"), ((1920, 1080), "709")])
def test_untagged_colours_are_taken_as_players_take_them(size: tuple[int, int], matrix: str) -> None:
    frame = quarters(size, matrix, tag="none")
    frames = AnalysisFrames(info_of(frame))
    assert_colours(in_quarters(frames.rgb(frames.shrink(frame))), list(COLOURS.values()), within=3)


@pytest.mark.parametrize("matrix", ["601", "709"])
def test_colours_of_an_encoded_file(tmp_path: Path, matrix: str) -> None:
    path = tmp_path / "colours.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = TAGS[matrix], 1
        for i in range(3):
            frame = quarters((1280, 720), matrix)
            frame.pts, frame.time_base = i, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with open_video(str(path)) as video:
        info = probe(video)
        frames = AnalysisFrames(info)
        shown = [frames.rgb(frames.shrink(decoded.frame)) for decoded in decode(video, info, DecodeCount())]
    assert shown
    for picture in shown:
        assert_colours(in_quarters(picture), list(COLOURS.values()), within=4)


def test_one_reader_serves_frames_that_change(tmp_path: Path) -> None:
    """A stream may change its size or its tags on the way; each picture has its own."""
    first = quarters((1280, 720), "709")
    frames = AnalysisFrames(info_of(first))
    untagged = quarters((640, 360), "601", tag="none")
    for other in (first, quarters((640, 360), "601"), untagged, quarters((1280, 720), "709", bits=10), first):
        picture = frames.rgb(frames.shrink(other))
        assert picture.shape == ((540, 960, 3) if other.width == 1280 else (360, 640, 3))
        assert_colours(in_quarters(picture), list(COLOURS.values()), within=3)


def test_small_frames_are_yuv_of_eight_bits() -> None:
    frame = quarters((1920, 1080), bits=10)
    small = AnalysisFrames(info_of(frame)).shrink(frame)
    assert (small.format.name, small.width, small.height) == ("yuv420p", 960, 540)
    turned = AnalysisFrames(replace(info_of(frame, 90))).shrink(frame)
    assert (turned.width, turned.height) == (960, 540)  # A frame is turned only when it is chosen.


def test_a_picture_of_hdr_is_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is forgotten, and of as many frames as a clip has; a new frame never gets another's picture."""
    painted: list[av.VideoFrame] = []
    paint = AnalysisFrames._paint

    def counted(self: AnalysisFrames, small: av.VideoFrame) -> Image:
        painted.append(small)
        return paint(self, small)

    def grey(level: int) -> Any:
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
        frame.color_trc = ColorTrc.SMPTE2084
        return frame

    monkeypatch.setattr(AnalysisFrames, "_paint", counted)
    frames = AnalysisFrames(info_of(grey(0)))
    for level in range(50):
        small = frames.shrink(grey(4 * level))
        assert frames.rgb(small) is frames.rgb(small)
        assert np.array_equal(frames.rgb(small), paint(frames, small))
    assert len(painted) == 50
    assert frames.rgbs([small, frames.shrink(grey(0))]).mean(axis=(1, 2, 3)).argmin() == 1
    frames.forget()
    frames.rgb(small)
    assert len(painted) == 52


def test_an_animated_png_is_a_film(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    with av.open(str(path), "w", format="apng") as out:
        stream: Any = out.add_stream("apng", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (60 * number, 90, 200), np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with open_video(str(path)) as video:
        info = probe(video)
        frames = AnalysisFrames(info)
        shown = {
            decoded.time: frames.rgb(frames.shrink(decoded.frame)) for decoded in decode(video, info, DecodeCount())
        }
    assert info.fps == 10
    assert list(shown) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    for number, picture in enumerate(shown.values()):
        assert np.abs(picture.astype(float) - (60 * number, 90, 200)).max() < 4
