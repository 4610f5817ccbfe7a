"""Pictures with known answers, from the photographs in scikit-image's wheel."""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

from longtake.filters.base import Image, Sample

WIDTH, HEIGHT = 960, 540


def photograph(name: str) -> Image:
    """One of the photographs in scikit-image's wheel, RGB uint8 [h, w, 3]."""
    return np.asarray(getattr(data, name)(), dtype=np.uint8)


def resized(image: Image, width: int, height: int) -> Image:
    """At another size, by area means where it is reduced and by cubics where it is enlarged."""
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


@cache
def world(height: int = 760) -> Image:
    """A wide photographic picture: four photographs side by side, each `height` px high (2,900 px wide at 760)."""
    parts = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        photo = photograph(name)
        parts.append(resized(photo, round(photo.shape[1] * height / photo.shape[0]), height))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def crop(x: int, y: int = 100, width: int = WIDTH, height: int = HEIGHT, picture: Image | None = None) -> Image:
    """The window of the world (or of another picture) whose top left corner is at (x, y)."""
    whole = world() if picture is None else picture
    window = whole[y : y + height, x : x + width]
    assert window.shape[:2] == (height, width), "the window leaves the picture"
    return window.copy()


@lru_cache(
    maxsize=32
)  # A clip of `moving` has 30 pictures, and the next one the same noise: drawing it takes most of the time.
def noise(shape: tuple[int, ...], sigma: float, seed: int) -> npt.NDArray[np.int16]:
    """Gaussian noise in whole grey levels, of one shape with a picture."""
    return np.rint(np.random.default_rng(seed).normal(0, sigma, shape)).astype(np.int16)


def noisy(image: Image, sigma: float, seed: int) -> Image:
    """With Gaussian noise."""
    return np.clip(image + noise(image.shape, sigma, seed), 0, 255).astype(np.uint8)


def as_jpeg(image: Image, quality: int = 80) -> Image:
    """After a round of lossy compression."""
    ok, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)


def sample(frames: list[Image], gap: float = 0.5, marks: npt.NDArray[np.bool_] | None = None) -> Sample:
    """A sample of frames in their order of time: keyframe, partner, keyframe, partner, ..., keyframes 3 s apart."""
    times = np.arange(len(frames) // 2, dtype=np.float64) * 3
    partner_times = np.asarray(times + gap, dtype=np.float64)
    return Sample(np.stack(frames[0::2]), np.stack(frames[1::2]), times, partner_times, marks)


def pan(step: int = 90) -> list[Image]:
    """Ten windows of the world, each `step` px further to the right."""
    return [crop(20 + step * i) for i in range(10)]
