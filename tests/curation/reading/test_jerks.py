"""Jerks of the camera, on films that are made here, against jumps within a take and cuts to another one."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from longtake.curation.reading.jerks import jerks
from longtake.curation.reading.stills import Grey
from longtake.filters.base import Image
from tests.curation.reading.takes import PHOTOS, RATE, SIZE, Pictures, cuts_of, photo, seen, small, with_person

START = 30  # Pictures. The camera jerks before the one with this number.
# Pixels to the right and down, of 128 and 72, and degrees.
JERKS = [(40, 0, 0), (30, -12, 0), (-25, 20, 0), (45, 15, 3), (-20, 10, 8), (0, 25, 0), (10, 5, 12)]
UNSURE, SURE = 0.7, 0.99  # Probabilities of a hard cut.


def filmed(name: str, jerk: tuple[float, float, float], tremor: float, seconds: float = 5) -> Pictures:
    """A take that jerks once and stays there, held by hand or, without a tremor, on a tripod."""
    pictures = []
    for i in range(round(seconds * RATE)):
        x, y, turn = (float(by) * (i >= START) for by in jerk)
        hand = tremor * np.array([2 * np.sin(i / 3 + 1), np.sin(i / 2 + 4)])
        pictures.append(seen(photo(name), 150 + x + hand[0], 90 + y + hand[1], 1, turn))
    return pictures


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("jerk", JERKS)
def test_a_jerk_of_a_camera_is_no_cut(name: str, jerk: tuple[float, float, float]) -> None:
    assert cuts_of(filmed(name, jerk, tremor=1)) == []


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("jerk", JERKS)
def test_a_tripod_that_is_kicked_is_no_cut(name: str, jerk: tuple[float, float, float]) -> None:
    assert cuts_of(filmed(name, jerk, tremor=0)) == []


def test_a_jump_within_a_take_is_a_cut_though_the_scene_has_moved_as_by_a_jerk() -> None:
    film = filmed("coffee", (12, 6, 0), tremor=1)
    jumped = [with_person(picture, 20 if i < START else 66) for i, picture in enumerate(film)]
    (cut,) = cuts_of(jumped)
    assert (cut.start, cut.end) == ((START - 1) / RATE, START / RATE)


WORDS = np.zeros((720, 1280), np.uint8)
for place in range(12):
    cv2.putText(WORDS, "preview", (place % 4 * 320 + 20, place // 4 * 240 + 150), cv2.FONT_HERSHEY_SIMPLEX, 2.0, 255, 6)


def subtitled(picture: Image) -> Image:
    under = picture.copy()
    for left in range(24, 104, 4):
        under[60:65, left : left + 1] = 255
    return under


def watermarked(picture: Image) -> Image:
    """White words all over, through which a little of the scene is to be seen."""
    share = cv2.resize(WORDS, SIZE, interpolation=cv2.INTER_AREA)[..., None] / 255 * 0.3
    return np.asarray(picture * (1 - share) + 255 * share, np.uint8)


def in_bars(picture: Image) -> Image:
    barred = picture.copy()
    barred[:4] = barred[-10:] = 0
    return barred


def in_blue_bars(picture: Image) -> Image:
    barred = picture.copy()
    barred[:, :9] = barred[:, -9:] = (140, 50, 20)
    return barred


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("over", [subtitled, watermarked, in_bars, in_blue_bars])
def test_what_lies_over_the_film_makes_no_cut_of_a_jerk(over: Callable[[Image], Image], name: str) -> None:
    for jerk in ((9, -4, 0), (-8, 3, 1)):
        assert cuts_of([over(picture) for picture in filmed(name, jerk, tremor=1)]) == []


@pytest.mark.parametrize("over", [subtitled, watermarked, in_bars, in_blue_bars])
def test_another_take_and_a_jump_are_cuts_under_it(over: Callable[[Image], Image]) -> None:
    film, other = (filmed(name, (14, -6, 0), tremor=1) for name in ("coffee", "chelsea"))
    assert len(cuts_of([over(picture) for picture in film[:START] + other[START:]])) == 1
    jumped = [with_person(picture, 20 if i < START else 66) for i, picture in enumerate(film)]
    assert len(cuts_of([over(picture) for picture in jumped])) == 1


def pair(jerk: tuple[float, float, float], name: str = "chelsea") -> list[Grey]:
    return small(filmed(name, jerk, tremor=1)[START - 1 : START + 2])


def test_what_is_a_jerk() -> None:
    for jerk in JERKS:
        assert jerks(pair(jerk), 0, 1, UNSURE)
        assert jerks(pair(jerk), 0, 1, SURE)


def test_a_picture_that_is_smeared_by_the_jerk_is_not_the_only_one_that_is_looked_at() -> None:
    before, after, later = pair((30, -12, 0))
    smeared = np.asarray(cv2.blur(after, (11, 1)), np.uint8)
    assert jerks([before, smeared, later], 0, 1, SURE)
    assert not jerks([before, smeared, smeared], 0, 1, SURE)


def test_rows_that_are_skewed_by_a_rolling_shutter_are_found_again() -> None:
    before, after, _ = pair((30, 0, 0))
    skew = np.array([[1, 0.12, -2.2], [0, 1, 0]], np.float32)
    skewed = np.asarray(cv2.warpAffine(after, skew, (64, 36), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    assert jerks([before, skewed], 0, 1, UNSURE)


def test_another_take_is_no_jerk() -> None:
    for first in PHOTOS:
        for second in PHOTOS:
            if first != second:
                assert not jerks([pair(JERKS[0], first)[0], *pair(JERKS[0], second)[1:]], 0, 1, UNSURE)


def test_a_picture_that_stays_in_its_place_has_not_jerked() -> None:
    still, other = pair((0, 0, 0))[0], pair((0, 0, 0))[0].copy()
    other[10:20, 20:30] = 255 - other[10:20, 20:30]
    assert not jerks([still, still], 0, 1, UNSURE)
    assert not jerks([still, other], 0, 1, UNSURE)


def test_a_thing_of_another_brightness_in_a_scene_that_moved_is_no_jerk() -> None:
    before, after, _ = pair((12, 6, 0), "coffee")
    put = after.copy()
    put[12:24, 24:40] = np.clip(put[12:24, 24:40].astype(int) + (70 if put[12:24, 24:40].mean() < 128 else -70), 0, 255)
    assert jerks([before, after], 0, 1, UNSURE)
    assert not jerks([before, put], 0, 1, UNSURE)


def test_what_comes_nearer_at_once_is_no_jerk() -> None:
    near = small([seen(photo("chelsea"), 150, 90, zoom, 0) for zoom in (1.0, 1.25)])
    assert not jerks(near, 0, 1, UNSURE)


def test_another_take_for_a_moment_hides_in_no_jerk() -> None:
    before, after, _ = pair((30, -12, 0))
    for other in PHOTOS[1:]:
        pictures = [before, pair(JERKS[0], other)[0], after]
        assert not jerks(pictures, 0, 1, UNSURE)
        assert not jerks(pictures, 0, 2, UNSURE)


def test_next_to_nothing_in_the_picture() -> None:
    black = np.zeros((36, 64), np.uint8)
    assert not jerks([black, black], 0, 1, UNSURE)
    assert not jerks([black, pair(JERKS[0])[0]], 0, 1, UNSURE)
