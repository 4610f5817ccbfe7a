import math
from collections.abc import Callable

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from longtake.filters.base import MeasureError, Score
from longtake.filters.grayscale import grey
from longtake.filters.psnr import CAP_DB, Psnr, psnr
from tests.filters.pictures import crop, sample

peer: Callable[..., float] = peak_signal_noise_ratio


def test_by_hand() -> None:
    black = np.zeros((20, 30), dtype=np.uint8)
    one_row = black.copy()
    one_row[0] = 10  # The mean square error is 100 / 20 = 5.
    assert psnr(black, one_row) == pytest.approx(10 * math.log10(255**2 / 5), abs=1e-9)
    assert psnr(black, np.full_like(black, 255)) == pytest.approx(0.0, abs=1e-9)


def test_against_scikit_image_on_photographs() -> None:
    a, b = grey(crop(0)), grey(crop(500))
    assert psnr(a, b) == pytest.approx(peer(a, b, data_range=255), abs=1e-9)


def test_equal_frames_are_capped_so_that_the_mean_is_finite() -> None:
    photo = crop(0)
    (score,) = Psnr().measure([sample([photo] * 6)])
    assert score == Score(CAP_DB, (CAP_DB, CAP_DB))
    almost = np.zeros((2000, 1000), dtype=np.uint8)
    almost[0, 0] = 1  # The PSNR without the cap would be 111 dB.
    assert psnr(almost, np.zeros_like(almost)) == CAP_DB


def test_neighbouring_keyframes_and_no_partners() -> None:
    levels = [0, 90, 10, 91, 30, 92]  # The keyframes are 0, 10 and 30.
    frames = [np.full((16, 16, 3), level, dtype=np.uint8) for level in levels]
    (score,) = Psnr().measure([sample(frames)])
    assert isinstance(score, Score)
    assert score.detail == pytest.approx((20 * math.log10(255 / 10), 20 * math.log10(255 / 20)))


def test_one_keyframe_is_an_error() -> None:
    photo = crop(0)
    (error,) = Psnr().measure([sample([photo, photo])])
    assert isinstance(error, MeasureError)
    assert "two keyframes" in str(error)
