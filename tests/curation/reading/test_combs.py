"""Fields that nothing marks: a pan woven of them gives whole pictures in keyframe and export, and other film stays as it is."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.reading.combs import Fields, uncombed
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import ClipScan
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from longtake.curation.recipe import parse_recipe
from longtake.filters.base import Sample
from tests.curation.reading.test_progressive import comb

Picture = npt.NDArray[np.uint8]
SIZE = (640, 480)
FRAMES = 12


@cache
def scene() -> Picture:
    """A wide picture [lines, columns, 3] in YUV, with soft blobs and sharp edges."""
    noise = np.random.default_rng(4).integers(0, 255, (SIZE[1], SIZE[0] + 400, 3), np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 6).astype(float)
    wide = np.clip((soft - soft.mean()) * (9, 1, 1) + 128, 30, 220).astype(np.uint8)
    for place in range(20, wide.shape[1] - 60, 130):
        cv2.rectangle(wide, (place, 60 + place % 200), (place + 50, 260 + place % 200), (225, 128, 128), -1)
    wide.setflags(write=False)
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


# ── a film of fields ─────────────────────────────────────────────────────────────────────────────────────────────────


def small_mover(moment: float, ground: Picture) -> Picture:
    """Something small, light on one side and dark on the other, that flies between the bands which a first look takes."""
    picture = ground.copy()
    x, y = round(60 + 7 * moment) % 540, 90 + round(8 * np.sin(moment / 3))
    cv2.rectangle(picture, (x, y), (x + 16, y + 24), (230, 128, 128), -1)
    cv2.rectangle(picture, (x + 17, y), (x + 32, y + 24), (25, 128, 128), -1)
    return picture


def mostly_still(seconds: float, passing: tuple[float, float] = (3.0, 4.0)) -> list[Picture]:
    """25 frames a second, woven: over a still scene something small moves, and in some seconds all of it does."""
    ground, pictures = at(0), list[Picture]()
    for number in range(round(25 * seconds)):
        fields = (2 * number, 2 * number + 1)
        if passing[0] <= number / 25 < passing[1]:
            pictures.append(woven(*(np.roll(at(0), 6 * moment, axis=1) for moment in fields)))
        else:
            pictures.append(woven(*(small_mover(moment, ground) for moment in fields)))
    return pictures


def combed_lines(grey: npt.NDArray[Any]) -> int:
    """Pixels that stand out from those above and below, by much and in turns, as those of two fields do."""
    lines = grey.astype(int)
    out = 2 * lines[1:-1] - lines[:-2] - lines[2:]
    out[::2] *= -1
    runs = np.minimum.reduce([out[k : len(out) - 3 + k] for k in range(4)])
    under = np.maximum.reduce([out[k : len(out) - 3 + k] for k in range(4)])
    return int(((runs > 60) | (under < -60)).sum())


def scanned(path: Path, spans: tuple[Span, ...] = ()) -> tuple[list[ClipScan], list[Sample]]:
    recipe = parse_recipe(
        {
            "name": "x",
            "splitting": {"detector": "none", "min_seconds": 3, "window_seconds": 6},
            "filters": {"width": {}},
            "tiers": {"all": {"width": ">= 1"}},
        },
        source="a test",
    )
    samples: list[Sample] = []
    found = scan_video(str(path), recipe, lambda span, sample: samples.append(sample), spans=spans)
    return found.clips, samples


@pytest.mark.parametrize("listed", [False, True])
def test_in_a_film_of_fields_what_is_small_is_made_whole_too(tmp_path: Path, listed: bool) -> None:
    """The first look at a frame misses what is small; the film tells, though what tells it comes late."""
    path = film(tmp_path / "film.avi", mostly_still(6.0), "huffyuv", "yuv422p")
    clips, samples = scanned(path, (Span(0.0, 6.0),) if listed else ())
    assert [clip.fields_since for clip in clips] == [0.0]
    for picture in (*samples[0].keyframes, *samples[0].partners):
        assert combed_lines(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) < 20
    settings = EncodeSettings(fps=None, frames=None, crf=4, preset="ultrafast")
    combed = []
    for since in (clips[0].fields_since, np.inf):
        cut_clip(str(path), 0.0, 6.0, tmp_path / "clip.mp4", settings, fields_since=since)
        with av.open(str(tmp_path / "clip.mp4")) as container:
            greys = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        combed.append(sum(combed_lines(grey) >= 20 for grey in greys))
    assert combed[0] == 0
    assert combed[1] > 100  # Judged one by one, most frames stay combs.


def test_a_film_that_turns_to_fields_is_whole_from_there_on(tmp_path: Path) -> None:
    """Its first clips are given out by then, and stay as they are."""
    whole = [small_mover(2 * number, at(0)) for number in range(8 * 25)]
    path = film(tmp_path / "film.avi", whole + mostly_still(10.0, (0.0, 3.0)), "huffyuv", "yuv422p")
    clips, samples = scanned(path)
    assert [clip.span.start for clip in clips] == [0.0, 6.0, 12.0]
    assert np.isinf(clips[0].fields_since)
    assert 8.0 <= clips[1].fields_since == clips[2].fields_since < 11.0
    for picture in (*samples[2].keyframes, *samples[2].partners):
        assert combed_lines(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) < 20


def blinds(moment: int, pitch: float = 4.0, slant: float = 0.02) -> Picture:
    """Slats, some of them at a slant, that stand: in places each line differs from the next."""
    lines, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    wave = 128 + 100 * np.sin(2 * np.pi * (lines * (2 / pitch) + columns * slant))
    picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    picture[..., 0] = np.clip(wave, 16, 235)
    cv2.circle(picture, (100 + 5 * moment, 240), 60, (200, 128, 128), -1)
    return picture


def test_stripes_that_stand_are_no_fields() -> None:
    fields = Fields()
    for moment in range(60):
        fields.whole(moment / 2, frame_of(blinds(moment), "yuv420p"))
    assert np.isinf(fields.since)


@pytest.mark.parametrize("name", ["print", "noise"])
def test_fine_print_that_moves_and_noise_are_no_fields(name: str) -> None:
    """Lines alternate in them as well, but over a few at a time."""
    wide = np.full((SIZE[1] + 200, SIZE[0] + 400), 235, np.uint8)
    for line in range(12, len(wide), 13):
        cv2.putText(wide, "the quick == brown fox --- jumps E F H 8 over " * 3, (5, line), 0, 0.38, 20, 1)
    fields, rng = Fields(), np.random.default_rng(0)
    for number in range(40):
        grey = wide[3 * number : 3 * number + SIZE[1], 7 * number : 7 * number + SIZE[0]]
        if name == "noise":
            grey = np.clip(120 + rng.normal(0, 20, SIZE[::-1]), 16, 235).astype(np.uint8)
        picture = np.full((*SIZE[::-1], 3), 128, np.uint8)
        picture[..., 0] = grey
        frame = frame_of(picture, "yuv420p")
        assert fields.whole(number / 2.7, frame) is frame
    assert np.isinf(fields.since)


def test_film_with_its_pulldown_holds_fields() -> None:
    """Two frames of five are combs, and the others stay themselves."""
    told = [woven(at(n % 25), at(n % 25 + (n % 5 in (2, 3)))) for n in range(40)]
    fields = Fields()
    for number, picture in enumerate(told):
        fields.whole(number / 2.7, frame_of(picture, "yuv420p"))
    assert fields.since < 40 / 2.7
    made = fields.whole(99.0, frame_of(at(3), "yuv420p")).to_ndarray().astype(float)
    assert np.abs(made - frame_of(at(3), "yuv420p").to_ndarray()).mean() < 0.05


def test_one_frame_makes_no_film_of_fields() -> None:
    fields = Fields()
    for number in range(200):
        picture = woven(at(0), at(1)) if number % 50 == 20 else at(number % 25)
        fields.whole(number / 2.7, frame_of(picture, "yuv420p"))
    assert np.isinf(fields.since)
