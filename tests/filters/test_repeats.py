"""Films of thumbnails whose repeated share is known: a camera over a photograph that loops, runs back, stands still or sways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from longtake.filters.base import Image, MeasureError, Score
from longtake.filters.frozen import ChangeMeter
from longtake.filters.repeats import Repeats
from tests.filters.pictures import crop, noisy, sample
from tests.filters.test_frozen import RATE, seen

STILL = replace(sample([crop(0)] * 4))


def measured(meter: ChangeMeter, start: float = 0.0, end: float = 1e9) -> tuple[float, tuple[float, ...]]:
    (score,) = Repeats().measure([replace(STILL, changes=meter.within(start, end))])
    assert isinstance(score, Score)
    return score.value, score.detail


def share(picture: Callable[[float], Image], seconds: float = 15.0, noise: float = 0.0) -> float:
    """Of a film whose looks do not fall on its period."""
    meter = ChangeMeter()
    for i in range(round(seconds * RATE) + 1):
        shown = picture(i / RATE)
        meter.push(i / RATE, noisy(shown, noise, i) if noise else shown)
    return measured(meter)[0]


def path(t: float) -> Image:
    """A hand that leads the camera over the photograph, never twice the same way."""
    return seen(30 * t + 40 * np.sin(1.7 * t), 100 + 60 * np.sin(0.9 * t) + 25 * np.sin(2.3 * t))


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize(
    ("when", "repeated"),
    [
        (lambda t: t, 0.0),
        (lambda t: t % 5.03, 9.97 / 15),  # The film is a loop.
        (lambda t: t % 1.52, 13.48 / 15),
        (lambda t: t if t < 9 else t - 9, 6 / 15),  # The beginning is shown once more.
        # The film runs back from the middle; the second around the middle does not count.
        (lambda t: 7.5 - abs(t - 7.5), 7 / 15),
    ],
)
def test_known_shares(when: Callable[[float], float], repeated: float, noise: float) -> None:
    assert share(lambda t: path(when(t)), noise=noise) == pytest.approx(repeated, abs=0.04)


def test_where_it_repeats() -> None:
    meter = ChangeMeter()
    for i in range(15 * RATE + 1):
        t = i / RATE
        meter.push(t, path(t if t < 9 else t - 9))
    value, detail = measured(meter)
    assert detail == pytest.approx((0, 0, 0, 1, 1), abs=0.05)
    assert np.mean(detail) == pytest.approx(value)
    assert measured(meter, 0.0, 9.0)[0] == 0.0


def test_what_stands_still_repeats_nothing() -> None:
    assert share(lambda t: seen(0)) == 0.0
    assert share(lambda t: seen(0), noise=4.0) == 0.0


def test_a_background_before_and_after_somebody_passes_is_no_repeat() -> None:
    def passing(t: float) -> Image:
        picture = seen(0)
        if 5 < t < 8:
            picture[20:70, round(30 * (t - 5)) : round(30 * (t - 5)) + 20] = 20
        return picture

    assert share(passing, noise=1.0) == 0.0


def test_a_slide_show_repeats_nothing() -> None:
    assert share(lambda t: seen(150.0 * (t // 3 % 2)), noise=0.5) == 0.0


def test_something_that_sways_is_no_repeat() -> None:
    """As boughs and hands do: to and fro, each time a little otherwise, and not all of it in one rhythm."""
    wander = np.cumsum(np.random.default_rng(0).normal(0, 0.25, (2, 400)), axis=1)

    def swaying(t: float) -> Image:
        x, y = (np.interp(t * 20, np.arange(400), row) for row in wander)
        return seen(200 + 60 * np.sin(2 * np.pi * t / 1.4 + x), 150 + 40 * np.sin(2 * np.pi * t / 1.9 + y))

    assert share(swaying) < 0.1


def test_a_stretch_does_not_go_over_what_was_not_looked_at() -> None:
    meter = ChangeMeter()
    for begin in (0.0, 100.0):
        meter.skip()
        for i in range(2 * RATE + 1):
            meter.push(begin + i / RATE, path(i / RATE))
    assert measured(meter)[0] == pytest.approx(0.5, abs=0.04)  # The second part is the first one once more.
    meter = ChangeMeter()
    for n in range(6):  # Six known looks in a row are too few.
        meter.skip()
        for i in range(7):
            meter.push(100.0 * n + i / RATE, path(i / RATE))
    assert measured(meter)[0] == 0.0


def test_without_looks_there_is_no_score() -> None:
    for changes in (None, ChangeMeter().within(0, 1)):
        (error,) = Repeats().measure([replace(STILL, changes=changes)])
        assert isinstance(error, MeasureError)
    assert Repeats().protocol == "thumbs/grid16,within20%,atleast2,for1s,gaps/mean"
