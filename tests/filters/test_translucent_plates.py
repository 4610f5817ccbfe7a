"""Plates of known size under words, through which a scene that stands still shows, and what looks like them in a scene."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.artifacts import Artifacts
from longtake.filters.base import Image, Score
from longtake.filters.translucent_plates import seen_through
from tests.filters.pictures import as_jpeg, crop, noisy, sample

WIDTH, HEIGHT = 480, 270
Box = tuple[int, int, int, int]  # Top, bottom, left, right, in px.

WORDS = (208, 222, 60, 200)  # The extent of the letters.
LOWER_THIRD: Box = (200, 230, 50, 290)
BAND: Box = (200, 232, 0, 480)
CAPTION: Box = (203, 227, 55, 206)
BLACK, WHITE, NAVY, GREY = (0, 0, 0), (255, 255, 255), (12, 28, 90), (110, 110, 110)


def tripod(x: int) -> list[Image]:
    return [crop(x, 250, WIDTH, HEIGHT)] * 10


def written(frames: list[Image], ink: tuple[int, int, int], seed: int = 0) -> list[Image]:
    """Frames with a line of words on them, after noise and coding."""
    out = []
    for i, frame in enumerate(frames):
        image = frame.copy()
        cv2.putText(image, "Dr. Jane Okafor", (60, 220), cv2.FONT_HERSHEY_SIMPLEX, 0.55, ink, 1, cv2.LINE_AA)
        out.append(as_jpeg(noisy(image, 1.5, seed + i), 88))
    return out


def plated(frames: list[Image], plate: Box, colour: tuple[int, int, int], opacity: float) -> list[Image]:
    top, bottom, left, right = plate
    out = [frame.copy() for frame in frames]
    for image in out:
        part = image[top:bottom, left:right].astype(np.float32)
        image[top:bottom, left:right] = np.rint(part * (1 - opacity) + opacity * np.float32(colour))
    return out


def boxes(keyframes: int = 5) -> list[npt.NDArray[np.int32]]:
    """The box of the words in some of five keyframes."""
    top, bottom, left, right = WORDS
    box = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.int32)
    return [box] * keyframes + [box[:0]] * (5 - keyframes)


def ink_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return BLACK if colour == WHITE else WHITE


def area(box: Box) -> float:
    top, bottom, left, right = box
    return (bottom - top) * (right - left) / (HEIGHT * WIDTH)


@pytest.mark.parametrize("plate", [LOWER_THIRD, BAND, CAPTION])
def test_nearly_all_plates_count_where_they_are(plate: Box) -> None:
    top, bottom, left, right = plate
    right_ones = 0
    for x in range(0, 2400, 240):
        for colour, opacity in ((BLACK, 0.25), (BLACK, 0.6), (WHITE, 0.4), (NAVY, 0.5)):
            mask = seen_through(written(plated(tripod(x), plate, colour, opacity), ink_on(colour)), boxes())
            beyond = mask.sum() - mask[top:bottom, left:right].sum()
            right_ones += abs(float(mask.mean()) - area(plate)) < 0.02 and beyond < 0.02 * mask.size
    assert right_ones >= 36  # There are 40.


def test_a_plate_at_the_lower_border_has_no_side_there() -> None:
    frames = [frame[:240] for frame in tripod(1560)]
    mask = seen_through(written(plated(frames, (200, 240, 0, 480), NAVY, 0.5), WHITE), boxes())
    assert float(mask.mean()) == pytest.approx(1 / 6, abs=0.01)
    assert mask[200:].mean() > 0.95


def test_round_corners_take_nothing_from_a_plate() -> None:
    frames = tripod(1560)
    top, bottom, left, right = LOWER_THIRD
    radius = (bottom - top) // 2
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(shape, (left + radius, top), (right - radius, bottom - 1), 255, -1)
    for x in (left + radius, right - radius):
        cv2.circle(shape, (x, top + radius), radius, 255, -1, cv2.LINE_AA)
    part = np.float32(0.5 / 255) * shape[..., None]
    round_ = [np.rint(frame * (1 - part)).astype(np.uint8) for frame in frames]
    mask = seen_through(written(round_, WHITE), boxes())
    assert float(mask.mean()) == pytest.approx(float((shape > 127).mean()), abs=0.01)


@pytest.mark.parametrize("x", [60, 380, 700, 1500, 1900])
def test_words_without_a_plate_have_none(x: int) -> None:
    for seed in range(3):
        assert not seen_through(written(tripod(x), WHITE, 10 * seed), boxes()).any()


@pytest.mark.parametrize("x", [60, 700, 1500])
@pytest.mark.parametrize("colour", [(60, 70, 90), (200, 190, 170)])
def test_a_board_that_is_lit_as_the_scene_is_no_plate(x: int, colour: tuple[int, int, int]) -> None:
    top, bottom, left, right = LOWER_THIRD
    light = np.linspace(0.8, 1.2, right - left, dtype=np.float32)[:, None]
    frames = [frame.copy() for frame in tripod(x)]
    for image in frames:
        image[top:bottom, left:right] = np.rint(light * np.float32(colour))
    assert not seen_through(written(frames, WHITE), boxes()).any()


@pytest.mark.parametrize(("keyframes", "counts"), [(2, False), (3, True)])
def test_a_plate_counts_if_its_words_are_in_most_keyframes(keyframes: int, counts: bool) -> None:
    frames = written(plated(tripod(1560), LOWER_THIRD, BLACK, 0.5), WHITE)
    assert seen_through(frames, boxes(keyframes)).any() == counts


def test_a_lower_third_counts_whole_in_a_tripod_shot() -> None:
    pytest.importorskip("rapidocr")
    top, bottom, left, right = 392, 462, 60, 560
    frames = plated([crop(1500, 150)] * 10, (top, bottom, left, right), GREY, 0.5)
    for i, image in enumerate(frames):
        cv2.putText(image, "Dr. Jane Okafor", (85, 438), cv2.FONT_HERSHEY_SIMPLEX, 1.1, WHITE, 3, cv2.LINE_AA)
        frames[i] = as_jpeg(noisy(image, 1.5, i), 88)
    (score,) = Artifacts().measure([sample(frames)])
    assert isinstance(score, Score)
    assert score.value == pytest.approx((bottom - top) * (right - left) / frames[0][..., 0].size, abs=0.01)
