"""Hashes of photographs that are encoded, resized and brightened again, and of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.fft

from longtake.filters.base import Image, Score
from longtake.filters.phash import Phash, hash_of, pack, unpack
from tests.filters.pictures import as_jpeg, crop, noisy, photograph, resized, sample

NAMES = ("astronaut", "coffee", "chelsea", "rocket")
PICTURES = [resized(photograph(name), 960, 540) for name in NAMES] + [crop(200 + 350 * i) for i in range(5)]
BOUND = 8  # Bits. The filter `copies` counts hashes within this distance as equal by default.


def apart(a: Image, b: Image) -> int:
    one, other = hash_of(a), hash_of(b)
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: as_jpeg(p, 20),
        lambda p: resized(p, 240, 135),
        lambda p: as_jpeg(resized(p, 320, 180), 40),
        lambda p: np.clip(p.astype(int) + 20, 0, 255).astype(np.uint8),
        lambda p: np.clip(p * 1.2, 0, 255).astype(np.uint8),
        lambda p: np.rint(255 * (p / 255.0) ** 0.8).astype(np.uint8),
        lambda p: noisy(p, 8, 0),
        lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), 3), np.uint8),
    ],
)
def test_the_same_picture_is_within_the_bound(change: Callable[[Image], Image]) -> None:
    assert max(apart(picture, change(picture)) for picture in PICTURES) <= BOUND


def test_other_pictures_are_beyond_it() -> None:
    others = [apart(a, b) for i, a in enumerate(PICTURES[:4]) for b in PICTURES[:i]]
    assert min(others) > 2 * BOUND
    # The second picture is the first one mirrored.
    assert apart(PICTURES[0], np.ascontiguousarray(PICTURES[0][:, ::-1])) > 2 * BOUND


def test_bits_are_those_of_the_formula() -> None:
    """By SciPy's transform and a plain loop, on a picture that needs no reducing."""
    shades = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    low = scipy.fft.dctn(shades.astype(float), norm="ortho")[:8, :8]
    middle = np.median(low)
    expected = 0
    for row in range(8):
        for column in range(8):
            expected = expected << 1 | int(low[row, column] > middle)
    assert hash_of(shades) == expected


def test_a_flat_picture_has_no_hash() -> None:
    assert hash_of(np.full((540, 960, 3), 16, np.uint8)) is None
    assert hash_of(noisy(np.full((540, 960, 3), 128, np.uint8), 2, 0)) is None
    assert hash_of(np.tile(np.linspace(100, 110, 960), (540, 1)).astype(np.uint8)) is not None


def test_hashes_go_through_a_detail_whole() -> None:
    hashes = [0, 2**64 - 1, None, 0xDEADBEEF_00000001]
    packed = np.array([pack(hashes)])
    found, known = unpack(packed)
    assert known.tolist() == [[True, True, False, True]]
    assert [int(value) for value in found[0][known[0]]] == [0, 2**64 - 1, 0xDEADBEEF_00000001]


def test_the_score_is_the_share_that_has_a_hash() -> None:
    frames = [crop(100 * i) for i in range(8)]
    black = np.zeros_like(frames[0])
    (score,) = Phash().measure([replace(sample([*frames, black, black]))])
    assert isinstance(score, Score)
    assert score.value == 0.8
    hashes, known = unpack(np.array([score.detail]))
    assert known[0].tolist() == [True] * 4 + [False]
    assert int(hashes[0, 1]) == hash_of(frames[2])
    assert Phash().protocol == "dct/halved,32x32,8x8>median,flat8/mean"
