"""Bars, on pictures in which their place is known."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.curation.reading.bars import inside_bars, without_bars

RNG = np.random.default_rng(3)


def picture(top: int = 0, bottom: int = 36, left: int = 0, right: int = 64) -> np.ndarray:
    """Noise from 30 to 255 within those rows and columns, and what compression leaves of black around it."""
    shown = RNG.integers(0, 20, (36, 64)).astype(np.uint8)
    shown[top:bottom, left:right] = RNG.integers(30, 256, (bottom - top, right - left))
    return shown


def within(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    """Where no bar reaches: the row or column beside each may belong to it in part."""
    return slice(top + (top > 0), bottom - (bottom < 36)), slice(left + (left > 0), right - (right < 64))


@pytest.mark.parametrize("box", [(0, 36, 0, 64), (5, 31, 0, 64), (0, 36, 12, 50), (3, 30, 7, 60)])
def test_where_bars_end(box: tuple[int, int, int, int]) -> None:
    pictures = [picture(*box) for _ in range(3)]
    assert inside_bars(pictures) == within(*box)
    # A picture that shows something there has no bars, and so none are in common.
    assert inside_bars([*pictures, picture()]) == (slice(0, 36), slice(0, 64))


def test_a_row_that_is_half_a_bar_belongs_to_it() -> None:
    """The end of a bar shows film and stays in its place."""
    shown = picture(5, 31)
    shown[5] = shown[5] // 2
    shown[30] = shown[30] // 2
    assert inside_bars([shown]) == (slice(6, 30), slice(0, 64))


@pytest.mark.parametrize("box", [(5, 31, 0, 64), (0, 36, 12, 50), (3, 30, 7, 60)])
@pytest.mark.parametrize("level", [60, 128, 250])
def test_where_bars_of_another_colour_end(box: tuple[int, int, int, int], level: int) -> None:
    top, bottom, left, right = box
    pictures = [picture() for _ in range(3)]
    for shown in pictures:
        bars = RNG.integers(level - 2, level + 3, shown.shape)
        bars[top:bottom, left:right] = shown[top:bottom, left:right]
        shown[:] = bars
    assert inside_bars(pictures) == within(*box)
    # A bar does not become lighter.
    lighter = np.clip(pictures[0].astype(int) + 30, 0, 255).astype(np.uint8)
    assert level == 250 or inside_bars([*pictures, lighter]) == (slice(0, 36), slice(0, 64))


def test_a_picture_that_is_black_in_a_half_has_no_bar_of_that_size() -> None:
    assert inside_bars([picture(bottom=16)]) == (slice(0, 24), slice(0, 64))


def test_black_pictures_have_no_bars() -> None:
    black = [np.zeros((36, 64), np.uint8)] * 2
    assert inside_bars(black) is None
    assert without_bars(black) is black


def test_what_is_within_the_bars_fills_the_picture() -> None:
    row = np.linspace(30, 255, 32).astype(np.uint8)
    barred = np.zeros((36, 64), np.uint8)
    barred[:, 15:49] = np.pad(row, 1, "edge")
    (filled,) = without_bars([barred])
    assert filled.shape == (36, 64)
    # Twice as wide: each pixel lies in the middle of two.
    assert np.abs((filled[0, ::2].astype(int) + filled[0, 1::2]) / 2 - row).max() <= 2
    whole = [picture()]
    assert without_bars(whole) is whole
