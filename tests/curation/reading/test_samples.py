"""Samples to bytes and back, against bounds on what JPEG may lose."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import RowError
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.filters.base import Image, Sample
from longtake.filters.grayscale import grey
from tests.corpus import photograph


def pictures(count: int, size: tuple[int, int] = (480, 270)) -> Image:
    """Different crops of a photograph, uint8 [count, h, w, 3]."""
    width, height = size
    photo = cv2.resize(photograph("coffee"), (width + 20 * count, height))
    return np.stack([photo[:, 20 * i : 20 * i + width] for i in range(count)])


def sample(marks: bool = True) -> Sample:
    frames = pictures(10)
    times = np.array([1.6, 4.8, 8.0, 11.2, 14.4]) + 1 / 3
    mask = np.random.default_rng(0).random(frames.shape[1:3]) < 0.3 if marks else None
    return Sample(frames[:5], frames[5:], times, times + 0.5, mask)


def psnr(a: Image, b: Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("marks", [True, False])
def test_round_trip(marks: bool) -> None:
    before = sample(marks)
    stored = store_sample("a clip", before, quality=92)
    after = load_sample(stored)
    assert stored.clip_id == "a clip"
    for a, b in zip([*after.keyframes, *after.partners], [*before.keyframes, *before.partners], strict=True):
        assert psnr(a, b) > 32  # Colour is stored at half the size.
        assert psnr(grey(a), grey(b)) > 38
    assert after.keyframes.dtype == np.uint8
    np.testing.assert_array_equal(after.times, before.times)
    np.testing.assert_array_equal(after.partner_times, before.partner_times)
    if before.marks is None:
        assert after.marks is None
    else:
        assert after.marks is not None
        assert after.marks.dtype == np.bool_
        np.testing.assert_array_equal(after.marks, before.marks)


def test_quality_is_what_it_says() -> None:
    stored = {quality: store_sample("a", sample(), quality) for quality in (30, 92)}
    size = {quality: sum(map(len, frames.keyframes)) for quality, frames in stored.items()}
    assert size[30] < size[92] / 2


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=2))
def test_times_are_exact(times: list[float]) -> None:
    tiny = np.zeros((2, 8, 8, 3), np.uint8)
    after = load_sample(store_sample("a", Sample(tiny, tiny, np.array(times), np.array(times)), 50))
    assert after.times.tolist() == after.partner_times.tolist() == times


def test_damage_is_an_error_that_says_what_to_do() -> None:
    stored = store_sample("0123abcd", sample(), 92)
    small, times = pictures(5, (240, 136)), np.arange(5.0)
    good, other_size = stored.keyframes, store_sample("b", Sample(small, small, times, times + 0.5), 92)
    damaged = [
        replace(stored, keyframes=[b"", *good[1:]]),
        replace(stored, keyframes=[b"no picture", *good[1:]]),
        replace(stored, keyframes=[*good[:4], other_size.keyframes[0]]),
        replace(stored, partners=[]),
        replace(stored, keyframes=[]),
        replace(stored, marks=b""),
        replace(stored, marks=b"no picture"),
        replace(stored, marks=other_size.keyframes[0]),
    ]
    for frames in damaged:
        with pytest.raises(RowError, match=r"0123abcd.*scan its video again") as caught:
            load_sample(frames)
        assert caught.value.kind == "frames"
