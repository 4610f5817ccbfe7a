"""Fields that nothing marks: a pan woven of them gives whole pictures in keyframe and export, and other film stays as it is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.reading.combs import uncombed
from longtake.curation.reading.cutting import EncodeSettings, cut_clip
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.video import DecodeCount, decode, probe
from tests.curation.reading.test_progressive import comb

Picture = npt.NDArray[np.uint8]
SIZE = (640, 480)
FRAMES = 12


def scene(seed: int = 4) -> Picture:
    """A wide picture [lines, columns, 3] in YUV, with soft blobs and sharp edges."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0] + 400, 3), np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 6).astype(float)
    wide = np.clip((soft - soft.mean()) * (9, 1, 1) + 128, 30, 220).astype(np.uint8)
    for place in range(20, wide.shape[1] - 60, 130):
        cv2.rectangle(wide, (place, 60 + place % 200), (place + 50, 260 + place % 200), (225, 128, 128), -1)
    return wide


def at(moment: int) -> Picture:
    """The scene 8 px farther with each field."""
    return scene()[:, 8 * moment : 8 * moment + SIZE[0]]


def woven(first: Picture, second: Picture, top_first: bool = True) -> Picture:
    whole = (first if top_first else second).copy()
    whole[1::2] = (second if top_first else first)[1::2]
    return whole


def frame_of(picture: Picture, pixel: str = "yuv444p") -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture.transpose(2, 0, 1)), format="yuv444p")
    return frame if pixel == "yuv444p" else frame.reformat(format=pixel)


def film(path: Path, pictures: list[Picture], codec: str, pixel: str) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(
            codec, rate=25, options={"libx264": {"crf": "4"}, "mjpeg": {"qmin": "1", "qmax": "2"}}.get(codec, {})
        )
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel
        for number, picture in enumerate(pictures):
            frame = frame_of(picture, pixel)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def keyframe(path: Path, number: int) -> Picture:
    with open_video(str(path)) as video:
        info = probe(video)
        for decoded in decode(video, info, DecodeCount(), all_frames=True):
            if round(decoded.time * 25) == number:
                assert not decoded.frame.interlaced_frame
                analysis = AnalysisFrames(info)
                return analysis.rgb(analysis.shrink(decoded.frame))
    raise AssertionError(f"there is no frame {number}")


def exported(path: Path, folder: Path, number: int) -> Picture:
    settings = EncodeSettings(fps=None, frames=None, crf=4, preset="ultrafast")
    cut_clip(str(path), 0.0, FRAMES / 25, folder / "clip.mp4", settings)
    with av.open(str(folder / "clip.mp4")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][number]


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize(
    ("codec", "pixel", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("huffyuv", "yuv422p", "avi"),
        ("mjpeg", "yuvj422p", "avi"),
        ("prores_ks", "yuv422p10le", "mov"),
        ("rawvideo", "uyvy422", "mov"),
        ("rawvideo", "yuyv422", "avi"),
    ],
)
def test_fields_that_nothing_marks_become_whole_pictures(
    tmp_path: Path, codec: str, pixel: str, suffix: str, top_first: bool
) -> None:
    """Those of the upper field, at its own moment."""
    pictures = [woven(at(2 * n), at(2 * n + 1), top_first) for n in range(FRAMES)]
    path = film(tmp_path / f"film.{suffix}", pictures, codec, pixel)
    moment = 2 * 5 + (not top_first)
    truth = frame_of(at(moment)).reformat(format="rgb24", src_colorspace="ITU601").to_ndarray().astype(float)
    assert comb(pictures[5][..., 0]) > 8
    for picture in (keyframe(path, 5), exported(path, tmp_path, 5)):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        assert comb(grey) < 2.5
        assert np.abs(picture - truth).mean() < 4


def test_a_frame_of_one_moment_stays_itself_beside_those_of_two() -> None:
    """Film with its pulldown woven in: two frames of five hold two moments."""
    told = [woven(at(2 * n), at(2 * n + (n % 5 in (2, 3)))) for n in range(10)]
    for number, picture in enumerate(told):
        frame = frame_of(picture, "yuv420p")
        assert (uncombed(frame) is frame) == (number % 5 not in (2, 3)), number


@pytest.mark.parametrize("name", ["still", "detail", "text", "scan lines", "low", "tall", "narrow", "720 lines"])
def test_other_film_stays_as_it_is(name: str) -> None:
    picture = at(0)
    if name == "detail":
        noise = np.random.default_rng(1).normal(0, 12, picture.shape[:2])
        picture = np.clip(picture + noise[..., None], 16, 235).astype(np.uint8)
    if name == "text":
        picture = picture.copy()
        for line in range(20, SIZE[1], 14):
            cv2.putText(picture, "FINE PRINT = in every line ===", (0, line), 0, 0.4, (235, 128, 128), 1)
    if name == "scan lines":
        picture = picture.copy()
        picture[1::2, :, 0] = picture[1::2, :, 0] // 2
    if name == "low":
        picture = woven(at(0), at(1))[:400]
    if name == "720 lines":
        picture = np.concatenate([woven(at(0), at(1))] * 2)[:720]
    if name == "narrow":
        picture = woven(at(0), at(1))[:, :24]
    if name == "tall":
        picture = np.concatenate([woven(at(0), at(1))] * 3)
    frame = frame_of(picture, "yuv420p")
    assert uncombed(frame) is frame


def test_what_stands_still_keeps_its_lines_where_something_else_moves() -> None:
    """Only the left half moves; the right half is fine detail, most of which a filter over all of it would lose."""
    first, second = at(0).copy(), at(1).copy()
    for picture in (first, second):
        picture[:, 320:] = np.random.default_rng(2).integers(90, 110, (SIZE[1], 320, 3))
    frame = frame_of(woven(first, second))
    made = uncombed(frame)
    assert made is not frame
    luma = made.to_ndarray()[0]
    assert (luma[:, 340:] == first[:, 340:, 0]).mean() > 0.9
    assert comb(luma[:, :300]) < 3 < comb(frame.to_ndarray()[0][:, :300])


def test_what_is_known_of_a_frame_is_kept() -> None:
    frame = frame_of(woven(at(0), at(1)), "yuv420p")
    frame.pts, frame.time_base = 7, Fraction(1, 25)
    frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc = 2, 1, 9, 16
    before = frame.to_ndarray().copy()
    made = uncombed(frame)
    assert (made.pts, made.time_base, made.width, made.height) == (7, Fraction(1, 25), *SIZE)
    assert (made.color_range, made.colorspace, made.color_primaries, made.color_trc) == (2, 1, 9, 16)
    # The decoder still refers to the frame, which must not change.
    assert (frame.to_ndarray() == before).all()
