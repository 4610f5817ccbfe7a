from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from longtake.filters.base import MeasureError, Score
from longtake.filters.grayscale import grey
from longtake.filters.ssim import Ssim, ssim
from tests.filters.pictures import crop, noisy, sample

peer: Callable[..., float] = structural_similarity
Grey = npt.NDArray[np.uint8]


def photographs() -> dict[str, tuple[Grey, Grey]]:
    a, b = crop(0), crop(900)
    flat = np.full(a.shape[:2], 128, dtype=np.uint8)
    white = np.full_like(flat, 250)
    black = np.zeros_like(flat)
    rng = np.random.default_rng(0)
    return {
        "unlike": (grey(a), grey(b)),
        "noise": (grey(a), grey(noisy(a, 5, 1))),
        "shifted": (grey(a), grey(crop(2))),
        "flat": (flat, flat + np.uint8(1)),
        "picture against black": (grey(a), black),
        # The hardest for float32: large means, tiny variances.
        "almost white": (
            white + rng.integers(0, 4, white.shape, dtype=np.uint8),
            white + rng.integers(0, 4, white.shape, dtype=np.uint8),
        ),
        "almost black": (
            rng.integers(0, 3, white.shape, dtype=np.uint8),
            rng.integers(0, 3, white.shape, dtype=np.uint8),
        ),
    }


@pytest.mark.parametrize("name", list(photographs()))
def test_equals_scikit_image(name: str) -> None:
    a, b = photographs()[name]
    assert ssim(a, b) == pytest.approx(peer(a, b, data_range=255), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(7, 40), st.integers(7, 40), st.integers(0, 2**32 - 1))
def test_equals_scikit_image_at_any_size(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    assert ssim(a, b) == pytest.approx(peer(a, b, data_range=255), abs=1e-6)
    assert ssim(a, b) == ssim(b, a)


def test_equal_frames_are_one_and_partners_do_not_count() -> None:
    photo, other = crop(0), crop(900)
    (score,) = Ssim().measure([sample([photo, other, photo, other, photo, other])])
    assert isinstance(score, Score)
    assert score.detail == pytest.approx((1.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("shape", [(6, 100), (100, 6)])
def test_too_small_is_an_error(shape: tuple[int, int]) -> None:
    tiny = np.zeros((*shape, 3), dtype=np.uint8)
    (error,) = Ssim().measure([sample([tiny] * 4)])
    assert isinstance(error, MeasureError)
    assert "7×7" in str(error)


def test_one_keyframe_is_an_error() -> None:
    photo = crop(0)
    (error,) = Ssim().measure([sample([photo, photo])])
    assert isinstance(error, MeasureError)
