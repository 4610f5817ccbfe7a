"""Pictures whose spectrum is known: they fall as film does, up to where they end."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import parse_recipe
from longtake.filters.base import Image, MeasureError, Native, Sample, Score
from longtake.filters.registry import build
from longtake.filters.true_resolution import circles, profile, sharpness
from tests.corpus import Encoding, film, i420

KERNELS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


def natural(size: int = 512, slope: float = 2.2, seed: int = 0, contrast: float = 45.0) -> Image:
    """Noise whose power falls by `slope` decades in a decade of frequency, as that of natural pictures does."""
    random = np.random.default_rng(seed)
    down, right = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(down, right)
    radius[0, 0] = 1
    shape = (*radius.shape, 2)
    wave = (random.normal(size=shape) @ np.array([1, 1j])) * radius ** (-slope / 2)
    wave[0, 0] = 0
    picture = np.fft.irfft2(wave, (size, size))
    return np.clip(128 + contrast * picture / picture.std(), 0, 255).astype(np.uint8)


def enlarged(picture: Image, factor: float, kernel: int) -> Image:
    size = round(len(picture) / factor)
    smooth = cv2.GaussianBlur(picture, (0, 0), 0.35 * factor)  # Without it, finer detail would fold back into the band.
    small = cv2.resize(smooth, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, picture.shape[::-1], interpolation=kernel), np.uint8)


def tiles(picture: Image) -> Image:
    return np.stack([picture[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)])


def detail(picture: Image) -> float:
    (value,) = sharpness([tiles(picture)])
    return value


@pytest.mark.parametrize("slope", [1.8, 2.2, 2.8])
def test_a_picture_of_its_own_size_lies_on_the_line(slope: float) -> None:
    assert detail(natural(slope=slope)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [2, 3])
def test_an_enlarged_one_falls_off_it(kernel: str, factor: int) -> None:
    values = [detail(enlarged(natural(seed=seed), factor, KERNELS[kernel])) for seed in range(3)]
    assert max(values) < -0.2


def test_brightness_and_contrast_do_not_count() -> None:
    plain, pale = detail(natural()), detail(natural(contrast=15))
    assert plain == pytest.approx(pale, abs=0.05)


@pytest.mark.parametrize("side", [256, 200, 181, 97])
def test_the_power_on_circles_is_that_of_the_whole_transform(side: int) -> None:
    part = natural()[:side, :side]
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((part - part.mean()) * np.outer(window, window))) ** 2
    across = np.fft.fftfreq(side) * 2
    far = np.hypot(across[:, None], across)
    # Each frequency counts once with its opposite; of those at no frequency across, both are counted.
    half = np.broadcast_to(across >= 0, far.shape)
    edges = np.linspace(0.04, 0.5, 24)
    expected = [power[half & (far >= a) & (far < b)].mean() for a, b in pairwise(edges)]
    assert profile(part) == pytest.approx(expected, rel=1e-5)
    assert circles() == pytest.approx((edges[1:] + edges[:-1]) / 2)


def test_what_has_no_texture_is_not_known() -> None:
    flat = np.full((512, 512), 90, np.uint8)
    assert sharpness([tiles(flat)]) == []
    noise = np.random.default_rng(1).normal(90, 1, (512, 512)).astype(np.uint8)
    assert sharpness([tiles(noise)]) == []
    assert sharpness([np.zeros((0, 256, 256), np.uint8)]) == []


def test_parts_without_texture_do_not_count_beside_others() -> None:
    half = natural()
    half[:256] = 90
    assert detail(half) == pytest.approx(detail(natural()), abs=0.15)


def test_a_sample_without_full_size_is_an_error() -> None:
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    filter_ = build("true_resolution", {})
    stored = Sample(picture, picture, np.zeros(1), np.ones(1))
    bare = Sample(picture, picture, np.zeros(1), np.ones(1), native=(Native(512, 512), Native(512, 512)))
    error, unknown = filter_.measure([stored, bare])
    assert isinstance(error, MeasureError)
    assert isinstance(unknown, Score)
    assert unknown.known is None


def test_the_scan_takes_it_from_the_decoded_frames(tmp_path: Path) -> None:
    """1280×720: the analysis size is smaller, so that nothing of the band would be left of reduced frames."""
    world = natural(1600)
    recipe: dict[str, Any] = {
        "name": "true",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
        "filters": {"width": {}, "true_resolution": {}},
        "tiers": {"pretrain": {"width": ">= 1"}},
    }
    values = []
    for name in ("true", "enlarged"):
        board = world if name == "true" else enlarged(world, 2, cv2.INTER_CUBIC)
        views = (board[2 * i : 720 + 2 * i, 4 * i : 1280 + 4 * i] for i in range(20))
        pictures = (i420(np.repeat(view[..., None], 3, axis=2)) for view in views)
        how = Encoding(fps=10, options=(("preset", "ultrafast"), ("crf", "18")))
        film(tmp_path / f"{name}.mp4", pictures, how)
        found = scan_video(str(tmp_path / f"{name}.mp4"), parse_recipe(recipe, "a test"), lambda *_: None)
        values.append(found.clips[0].scores["true_resolution"].score)
    assert len(values[0].detail) == 5
    assert values[0].value == pytest.approx(0, abs=0.1)
    assert values[1].value < -0.2
