"""Blur, exposure, contrast, saturation and bits against answers that are known without the filters."""

from __future__ import annotations

import colorsys
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from longtake.curation.reading.opening import open_video
from longtake.curation.reading.video import probe
from longtake.filters.base import Image, MeasureError, Probe, Score
from longtake.filters.blur import SIDE, bends, edge_sharpness, sharpness
from longtake.filters.registry import build
from tests.corpus import SMALL, Encoding, film, pan
from tests.filters.pictures import crop, resized, sample


def score(name: str, *frames: Image, **settings: object) -> Score:
    (measured,) = build(name, settings).measure([sample([frame for frame in frames for _ in range(2)])])
    assert isinstance(measured, Score), measured
    return measured


def grey_of(level: int) -> Image:
    return np.full((90, 160, 3), level, np.uint8)


# ── blur ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sharpness_by_hand_and_by_scipy() -> None:
    spot = np.zeros((360, 640), np.uint8)
    spot[100, 100] = 100
    # The mean of the Laplacian is 0.
    assert sharpness(bends(spot)) == pytest.approx((400**2 + 4 * 100**2) / spot.size, rel=1e-6)
    photo = np.asarray(cv2.cvtColor(crop(300, 100, 640, 360), cv2.COLOR_RGB2GRAY), np.uint8)
    inner = ndimage.laplace(photo.astype(np.int32))[1:-1, 1:-1]
    assert sharpness(bends(photo)) == pytest.approx(inner.var(), rel=0.02)  # OpenCV treats the border otherwise.


def test_more_blur_is_less_and_size_does_not_matter() -> None:
    photo = crop(0)
    values = [score("blur", np.asarray(cv2.GaussianBlur(photo, (0, 0), s), np.uint8)).value for s in (0.5, 1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 20 * values[-1]
    large = cv2.resize(photo, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    assert score("blur", np.asarray(large, np.uint8)).value == pytest.approx(score("blur", photo).value, rel=0.25)
    small = resized(photo, 320, 180)  # A trainer enlarges a small picture.
    assert score("blur", small).value < 0.5 * score("blur", photo).value
    assert f"@{SIDE}" in build("blur", {}).protocol


def test_the_share_of_blurred_keyframes() -> None:
    photo = crop(0)
    blurred = np.asarray(cv2.GaussianBlur(photo, (0, 0), 3), np.uint8)
    assert score("blurred", photo, blurred, blurred, photo, blurred).value == pytest.approx(0.6)
    assert build("blurred", {"below": 2.0}).protocol == "edges/bt601@640linear,top2%<2,keyframes,v2/mean"


@pytest.mark.parametrize("contrast", [1.0, 0.4, 0.15])
def test_what_is_blurred_does_not_depend_on_what_is_shown(contrast: float) -> None:
    """The variance of the Laplacian of a sharp picture of low contrast is below that of a blurred one of high contrast."""
    photo = np.rint(120 + contrast * (crop(0).astype(np.float32) - 120)).astype(np.uint8)
    assert score("blurred", photo).value == 0
    assert score("blurred", np.asarray(cv2.GaussianBlur(photo, (0, 0), 2.5), np.uint8)).value == 1


@pytest.mark.parametrize("width", [0.0, 1.0, 2.0, 3.0])
def test_the_sharpness_of_an_edge_of_known_width(width: float) -> None:
    """Stripes with so many edges that the strongest 2 % are their middles, blurred by a Gaussian of `width` px. The greatest
    Laplacian of a step of height 1 behind a Gaussian s is 1 / (s² √(2πe)); its slope behind a Gaussian that adds 1.5 px is
    1 / √(2π (s² + 1.5²))."""
    step = np.where(np.arange(640) // 24 % 2, 40.0, 200.0)
    line = ndimage.gaussian_filter1d(step, width) if width else step
    picture = np.rint(np.tile(line, (360, 1))).astype(np.uint8)
    slope = 1 / np.sqrt(2 * np.pi * (width**2 + 1.5**2))
    peak = 1 / (width**2 * np.sqrt(2 * np.pi * np.e)) if width else 1.0
    assert edge_sharpness(bends(picture)) == pytest.approx(peak / slope, rel=0.2)


def test_a_picture_without_edges_is_neither_sharp_nor_blurred() -> None:
    assert math.isnan(score("blurred", grey_of(90)).value)
    photo = crop(0)
    assert score("blurred", photo, np.full_like(photo, 60)).value == 0


# ── exposure ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("level", "burnt", "black"), [(0, 0, 1), (5, 0, 1), (6, 0, 0), (128, 0, 0), (249, 0, 0), (250, 1, 0), (255, 1, 0)]
)
def test_what_is_burnt_and_what_is_black(level: int, burnt: float, black: float) -> None:
    assert score("burnt", grey_of(level)).value == burnt
    assert score("black", grey_of(level)).value == black


def test_known_shares_and_contrast() -> None:
    picture = np.full((100, 200, 3), 128, np.uint8)
    picture[:12], picture[12:42] = 255, 0
    assert score("burnt", picture).value == pytest.approx(0.12)
    assert score("black", picture).value == pytest.approx(0.30)
    half = np.zeros((100, 200, 3), np.uint8)
    half[:50] = 200
    assert score("contrast", half).value == pytest.approx(100)
    assert score("contrast", grey_of(77)).value == 0


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_each_stop_of_overexposure_burns_what_it_has_to(stops: int) -> None:
    photo = crop(400)
    light = (photo / 255.0) ** 2.2 * 2**stops
    exposed = np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    grey = exposed @ np.array([0.299, 0.587, 0.114])
    assert score("burnt", exposed).value == pytest.approx((grey >= 249.5).mean(), abs=0.002)


# ── colour ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("colour", [(255, 0, 0), (10, 20, 30), (200, 180, 160), (0, 0, 0), (90, 90, 90)])
def test_saturation_as_in_the_standard_library(colour: tuple[int, int, int]) -> None:
    picture = np.full((90, 160, 3), colour, np.uint8)
    expected = 255 * colorsys.rgb_to_hsv(*(value / 255 for value in colour))[1]
    assert score("saturation", picture).value == pytest.approx(expected, abs=0.5)
    assert score("colour_variance", picture).value == pytest.approx(np.var(colour), abs=1e-6)


def test_black_and_white_film_has_no_colour() -> None:
    photo = crop(0)
    grey = np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert score("saturation", grey).value == 0
    assert score("colour_variance", grey).value == pytest.approx(0, abs=1e-9)
    assert score("saturation", photo).value > 60
    assert score("colour_variance", photo).value > 1.2


# ── bits ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bits_by_the_size_of_the_packets(tmp_path: Path) -> None:
    import av

    path = tmp_path / "film.mp4"
    film(path, pan("table", (2, 0), (200, 60), SMALL, 96), Encoding(size=SMALL))
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    with open_video(str(path)) as video:
        info = probe(video)
    expected = 8 * sum(sizes) / (96 * SMALL[0] * SMALL[1])
    assert info.bits_per_pixel == pytest.approx(expected, rel=0.02)
    (measured,) = build("bits", {}).measure([Probe(1280, 720, 25.0, 4.0, bits_per_pixel=info.bits_per_pixel)])
    assert isinstance(measured, Score)
    assert measured.value == info.bits_per_pixel


def test_unknown_bits_are_no_score() -> None:
    (error,) = build("bits", {}).measure([Probe(1280, 720, 25.0, 4.0)])
    assert isinstance(error, MeasureError)
