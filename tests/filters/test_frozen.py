"""Films of thumbnails whose frozen share is known: a camera over a photograph that halts, stutters or creeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from longtake.filters.base import Image, MeasureError, Score
from longtake.filters.frozen import ChangeMeter, Frozen, most_changed
from tests.filters.pictures import crop, noisy, photograph, resized, sample

RATE = 15  # Looks a second.
SIZE = (128, 72)
BOARD = np.asarray(cv2.blur(resized(photograph("coffee"), 1200, 800), (5, 5)), np.uint8)


def seen(x: float, y: float = 100.0, zoom: float = 1.0) -> Image:
    """The thumbnail of a camera at (x, y) over the photograph, in its pixels; a thumbnail's pixel is five of them."""
    step = 5.0 / zoom
    matrix = np.array([[step, 0, x + 320 * (1 - 1 / zoom)], [0, step, y + 180 * (1 - 1 / zoom)]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(BOARD, matrix, SIZE, flags=flags), np.uint8)


def share(thumbs: Iterable[Image], rate: float = RATE) -> tuple[float, tuple[float, ...]]:
    meter = ChangeMeter()
    for i, thumb in enumerate(thumbs):
        meter.push(i / rate, thumb)
    (score,) = Frozen().measure([replace(sample([crop(0)] * 4), changes=meter.within(0.0, 1e9))])
    assert isinstance(score, Score)
    return score.value, score.detail


def film(place: Callable[[float], float], seconds: float = 15.0) -> Iterable[Image]:
    return (seen(place(i / RATE)) for i in range(round(seconds * RATE) + 1))


@pytest.mark.parametrize(
    ("place", "frozen"),
    [
        (lambda t: 20 * t, 0.0),  # The picture is always moving.
        (lambda t: 0.0, 1.0),  # The picture is still.
        (lambda t: 20 * (min(t, 6) + max(0.0, t - 9)), 0.2),  # The picture is frozen for 3 of 15 s.
        (lambda t: 20 * (min(t, 6) + max(0.0, t - 6.8)), 0.8 / 15),
        (lambda t: 20 * (t // 0.2) * 0.2, 2 / 3),  # The film shows 5 pictures a second.
        (lambda t: 0.75 * t, 0.0),  # The picture creeps by a seventh of a thumbnail's pixel a second.
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_known_shares(place: Callable[[float], float], frozen: float, noise: float) -> None:
    """Also with what an encoder leaves of its noise in a thumbnail, which no frozen stretch is free of."""
    thumbs = [noisy(thumb, noise, i) if noise else thumb for i, thumb in enumerate(film(place))]
    value, detail = share(thumbs)
    assert value == pytest.approx(frozen, abs=0.02)
    assert len(detail) == 5
    assert np.mean(detail) == pytest.approx(value)


def test_where_it_is_frozen() -> None:
    _, detail = share(film(lambda t: 20 * (min(t, 6) + max(0.0, t - 9))))
    assert detail == pytest.approx((0, 0, 1, 0, 0), abs=0.05)


def test_a_slow_zoom_over_a_photograph_is_no_freeze() -> None:
    value, _ = share(seen(0, zoom=1 + 0.01 * i / RATE) for i in range(15 * RATE))
    assert value < 0.05


def test_something_small_that_moves_is_a_change() -> None:
    def talking(i: int) -> Image:
        picture = seen(0)
        picture[30:34, 60:66] = 255 * (i % 2)  # The mouth has 24 of 9,216 px.
        return picture

    value, _ = share(talking(i) for i in range(15 * RATE))
    assert value == 0.0


def test_a_freeze_that_drifts_by_less_than_an_encoder_adds() -> None:
    """The rest after a key picture is coded anew: all of it changes by half a grey level, and stays."""
    still = seen(0)
    value, _ = share(
        np.asarray(np.clip(still.astype(int) + (i // (2 * RATE)) % 2, 0, 255), np.uint8) for i in range(15 * RATE)
    )
    assert value > 0.95


def test_only_what_lies_in_the_clip_counts() -> None:
    meter = ChangeMeter()
    for i, thumb in enumerate(film(lambda t: 20 * min(t, 10), seconds=20)):
        meter.push(i / RATE, thumb)
    for span, expected in (((0, 10), 0.0), ((5, 15), 0.5), ((11, 20), 1.0)):
        (score,) = Frozen().measure([replace(sample([crop(0)] * 4), changes=meter.within(*span))])
        assert isinstance(score, Score)
        assert score.value == pytest.approx(expected, abs=0.02)
    meter.drop_before(12)
    assert meter.within(0, 20).starts[0] >= 12


def test_a_gap_is_not_looked_at() -> None:
    meter = ChangeMeter()
    for i, thumb in enumerate(film(lambda t: 20 * t, seconds=2)):
        meter.push(i / RATE, thumb)
    meter.skip()
    for i in range(2 * RATE + 1):
        meter.push(100 + i / RATE, seen(0))
    changes = meter.within(0, 200)
    assert (changes.ends - changes.starts).max() < 0.1
    (score,) = Frozen().measure([replace(sample([crop(0)] * 4), changes=changes)])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(0.5, abs=0.02)


def test_difference_of_the_most_changed_block() -> None:
    a = np.zeros((72, 128), np.uint8)
    b = a.copy()
    b[8:16, 16:24] = 10
    b[40, 40] = 100
    assert most_changed(a, b) == pytest.approx(10)


def test_without_looks_there_is_no_score() -> None:
    for changes in (None, ChangeMeter().within(0, 1)):
        (error,) = Frozen().measure([replace(sample([crop(0)] * 4), changes=changes)])
        assert isinstance(error, MeasureError)
    assert Frozen().protocol == "thumbs/block8,repeat0.2or3%,hold1.5for0.5s,gaps/mean"
