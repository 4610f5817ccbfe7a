import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.filters.base import Image, Score
from longtake.filters.grayscale import Grayscale, grey, grey_level
from tests.filters.pictures import crop, sample


def plain(red: int, green: int, blue: int) -> Image:
    return np.full((36, 64, 3), (red, green, blue), dtype=np.uint8)


@pytest.mark.parametrize(
    ("colour", "level"),
    [((0, 0, 0), 0.0), ((255, 255, 255), 255.0), ((255, 0, 0), 76.245), ((0, 255, 0), 149.685), ((0, 0, 255), 29.07)],
)
def test_bt601_of_plain_colours(colour: tuple[int, int, int], level: float) -> None:
    assert grey_level(plain(*colour)) == pytest.approx(level, abs=1e-9)
    assert (grey(plain(*colour)) == round(level)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_level_lies_between_the_channels_and_near_the_rounded_grey(red: int, green: int, blue: int) -> None:
    image = plain(red, green, blue)
    level = grey_level(image)
    assert min(red, green, blue) - 1e-9 <= level <= max(red, green, blue) + 1e-9
    assert abs(level - float(grey(image).mean())) <= 0.51  # OpenCV rounds its weights to 15 bits.


def test_a_value_per_keyframe_and_partner() -> None:
    levels = [0, 10, 100, 140, 250, 255]
    (score,) = Grayscale().measure([sample([plain(level, level, level) for level in levels])])
    assert isinstance(score, Score)
    assert score.detail == pytest.approx((5.0, 120.0, 252.5))
    assert score.value == pytest.approx((5.0 + 120.0 + 252.5) / 3)


def test_against_numpy_on_a_photograph() -> None:
    photo = crop(300)
    expected = float((photo.astype(np.float64) @ np.array([0.299, 0.587, 0.114])).mean())
    assert grey_level(photo) == pytest.approx(expected, abs=1e-6)
    assert grey_level(photo[:, ::-1]) == pytest.approx(expected, abs=1e-6)  # The array is a view, and not contiguous.
