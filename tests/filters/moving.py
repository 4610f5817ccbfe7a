"""Clips with a known motion of the camera, as the pairs of pictures that the scan hands to filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from longtake.filters.base import Image, Motion, Sample
from longtake.filters.flow_dis import work_size
from longtake.filters.grayscale import grey
from tests.filters.pictures import noisy, sample, world

PAIRS, APART, GAP = 15, 1.0, 0.5  # The numbers are those of a clip of 15 s.

# Where the camera looks at a time: x and y of its centre in the world (px at 960), zoom and roll (degrees).
View = tuple[float, float, float, float]


def picture(view: View, size: tuple[int, int] = (960, 540), of: Image | None = None) -> Image:
    """What the camera sees, RGB uint8 [540, 960, 3]."""
    x, y, zoom, roll = view
    turn = cv2.getRotationMatrix2D((x, y), roll, zoom)
    turn[:, 2] += np.array(size) / 2 - (x, y)
    shown = cv2.warpAffine(world(1100) if of is None else of, turn, size, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(shown, np.uint8)


def clip(seen: Callable[[float], Image], pairs: int = PAIRS) -> Sample:
    """A sample of what is seen at each time (seconds), with the pairs of pictures that the scan brings."""
    times = np.arange(pairs) * APART + 0.25
    first, second = (
        np.stack([work_size(grey(noisy(seen(float(t)), 2, i + 100 * k))) for i, t in enumerate(times + k * GAP)])
        for k in (0, 1)
    )
    still = sample([seen(0.0)] * 10)
    return Sample(
        still.keyframes,
        still.partners,
        still.times,
        still.partner_times,
        motion=Motion(first, second, times, times + GAP),
    )


def moving(view: Callable[[float], View]) -> Sample:
    """A sample of a camera that moves over the photographs as `view` says."""
    return clip(lambda time: picture(view(time)))


def shaken(amplitude: float, seed: int, speed: float = 0.0) -> Callable[[float], View]:
    """A camera that is thrown off its course by a normal error of `amplitude` px along each axis at each moment; it pans by
    `speed` px a second."""
    errors: dict[float, Sequence[float]] = {}
    random = np.random.default_rng(seed)

    def view(time: float) -> View:
        if time not in errors:
            errors[time] = random.normal(0, amplitude, 2) if amplitude else (0.0, 0.0)
        x, y = errors[time]
        return 700 + speed * time + x, 520 + y, 1.0, 0.0

    return view
