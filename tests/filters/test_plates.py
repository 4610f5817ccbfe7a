"""Lines of text on plates of known size, and without one; pictures that pop up in a tripod shot, and what moves in it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from longtake.filters.base import Image
from longtake.filters.plates import on_lasting_plates, on_plates, without_known
from longtake.filters.pop_ups import pop_ups
from tests.filters.pictures import as_jpeg, crop, noisy, photograph, resized

WIDTH, HEIGHT = 480, 270
LINE = (60, 200, 360, 236)  # Left, top, right and bottom: about the extent of the letters.


def tripod(frames: int = 10) -> list[Image]:
    return [noisy(crop(900, 250, WIDTH, HEIGHT), 1.5, i) for i in range(frames)]


def written(image: Image, colour: tuple[int, int, int]) -> Image:
    out = image.copy()
    cv2.putText(out, "NEVER SAY GOODBYE", (60, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.98, colour, 3, cv2.LINE_AA)
    return out


def box() -> np.ndarray:
    left, top, right, bottom = LINE
    return np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.int32)


def area(boxes: np.ndarray) -> float:
    return float(cv2.contourArea(boxes[0]))


@pytest.mark.parametrize("colour", [(250, 240, 20), (20, 20, 20), (235, 235, 235), (30, 60, 190)])
@pytest.mark.parametrize("plate", [(40, 190, 390, 246), (50, 194, 440, 240)])
def test_a_line_counts_with_its_plate(colour: tuple[int, int, int], plate: tuple[int, int, int, int]) -> None:
    image = tripod(1)[0]
    left, top, right, bottom = plate
    image[top:bottom, left:right] = colour
    ink = (0, 0, 0) if sum(colour) > 400 else (255, 255, 255)
    found = on_plates(as_jpeg(written(image, ink)), box())
    assert area(found) == pytest.approx((right - left) * (bottom - top), rel=0.06)


@pytest.mark.parametrize("radius", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("plate", [(40, 190, 470, 246), (24, 184, 440, 250)])
def test_a_long_plate_counts_whole_though_its_corners_are_round(
    radius: float, plate: tuple[int, int, int, int]
) -> None:
    """One word stands at the beginning of a plate that is up to five times as long."""
    image = tripod(1)[0]
    left, top, right, bottom = plate
    round_ = round(radius * (bottom - top))
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(shape, (left + round_, top), (right - 1 - round_, bottom - 1), 1, -1)
    cv2.rectangle(shape, (left, top + round_), (right - 1, bottom - 1 - round_), 1, -1)
    for x in (left + round_, right - 1 - round_):
        for y in (top + round_, bottom - 1 - round_):
            cv2.circle(shape, (x, y), round_, 1, -1)
    image[shape > 0] = (20, 90, 60)
    cv2.putText(image, "NEVER", (60, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.98, (255, 255, 255), 3, cv2.LINE_AA)
    word = np.array([[(58, 202), (156, 202), (156, 236), (58, 236)]], np.int32)
    assert area(on_plates(as_jpeg(image), word)) == pytest.approx((right - left) * (bottom - top), rel=0.06)


def slabs(x: int) -> Image:
    """A pavement, in which one slab lies so many px to the right."""
    image = tripod(1)[0]
    image[190:HEIGHT, max(0, x) : x + 340] = (150, 140, 120)
    return image


def test_a_slab_behind_a_line_is_no_plate_since_it_goes_on_with_the_scene() -> None:
    """The line is on it in two keyframes, at two places of the slab, and each picture by itself shows a plate."""
    keyframes = np.stack([as_jpeg(written(slabs(x), (255, 255, 255))) for x in (40, 30, 300)])
    partners = np.stack([as_jpeg(written(slabs(x), (255, 255, 255))) for x in (20, 45, 310)])
    boxes = [box()] * 3
    assert area(on_plates(keyframes[0], box())) > 2 * area(box())
    for found in on_lasting_plates(keyframes, partners, boxes):
        assert np.array_equal(found, box())


@pytest.mark.parametrize("seen_in", [(0, 1, 2), (0,), (0, 2)])
def test_a_plate_lasts_in_other_keyframes_or_half_a_second(seen_in: tuple[int, ...]) -> None:
    """Where the line is in one keyframe, the next picture shows its plate; else it may be gone by then."""
    plate, pictures = (40, 190, 390, 246), []
    for shown in [
        *(index in seen_in for index in range(3)),
        *(index in seen_in and len(seen_in) == 1 for index in range(3)),
    ]:
        image = crop(900 + 60 * len(pictures), 250, WIDTH, HEIGHT)
        if shown:
            image[plate[1] : plate[3], plate[0] : plate[2]] = (20, 20, 20)
            image = written(image, (255, 255, 255))
        pictures.append(as_jpeg(image))
    boxes = [box() if index in seen_in else box()[:0] for index in range(3)]
    found = on_lasting_plates(np.stack(pictures[:3]), np.stack(pictures[3:]), boxes)
    for index in seen_in:
        assert area(found[index]) == pytest.approx(350 * 56, rel=0.06)


def test_the_first_word_of_a_ticker_counts_with_all_of_its_band() -> None:
    word = np.array([[(410, 204), (478, 204), (478, 232), (410, 232)]], np.int32)
    image = tripod(1)[0]
    image[196:240] = 18
    cv2.putText(image, "NOW", (410, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.98, (255, 255, 255), 3, cv2.LINE_AA)
    assert area(on_plates(as_jpeg(image), word)) == pytest.approx(44 * WIDTH, rel=0.06)
    # A dark ground that goes on below is none.
    image[240:] = 18
    cut = image.copy()
    cut[:196] = 18
    assert np.array_equal(on_plates(as_jpeg(cut), word), word)


@pytest.mark.parametrize("size", [0.7, 1.0])
def test_both_parts_of_a_lower_third_count_though_other_words_follow(size: float) -> None:
    """Bold letters take more of their box than the plate, and the detector reads a line in pieces."""
    image = tripod(1)[0]
    image[150:196], image[196:240] = (170, 20, 30), (20, 30, 90)
    for bottom, text in ((186, "PROTEST HERE"), (230, "ONE WORD AND MANY MORE THAT FOLLOW")):
        cv2.putText(image, text, (60, bottom), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 6, cv2.LINE_AA)
    height = round(22 * size) + 6
    for bottom, part in ((186, 46), (230, 44)):
        top, below = bottom + 3 - height, bottom + 4
        line = np.array([[(57, top), (210, top), (210, below), (57, below)]], np.int32)
        assert area(on_plates(as_jpeg(image), line)) == pytest.approx(part * WIDTH, rel=0.06)


def test_a_line_that_leans_stands_on_no_plate() -> None:
    """The pale sky behind a leaning watermark is not its plate, though it ends level within the upright bounding box."""
    image = np.asarray(tripod(1)[0])
    image[60:240] = 225
    leaning = np.array([[(70, 180), (330, 90), (345, 130), (85, 220)]], np.int32)
    assert np.array_equal(on_plates(image, leaning), leaning)


def test_a_line_on_a_plate_that_is_known_is_not_looked_at() -> None:
    known = np.zeros((HEIGHT, WIDTH), np.bool_)
    known[196:240, 56:364] = True  # The plate reaches beyond the line on all sides.
    assert len(without_known(box(), known)) == 0
    known[196:201] = False  # Marks that end with the letters.
    assert np.array_equal(without_known(box(), known), box())
    assert len(without_known(np.zeros((0, 4, 2), np.int32), known)) == 0


def test_a_line_without_a_plate_stays_as_it_is() -> None:
    wall = (
        np.repeat((120 + np.linspace(0, 60, WIDTH))[None, :, None], HEIGHT, axis=0).repeat(3, axis=2).astype(np.uint8)
    )
    for ground in (tripod(1)[0], wall, np.full_like(wall, 200)):
        assert np.array_equal(on_plates(written(ground, (255, 255, 255)), box()), box())
    assert len(on_plates(wall, np.zeros((0, 4, 2), np.int32))) == 0


def masks(frames: list[Image]) -> list[float]:
    return [float(mask.mean()) for mask in pop_ups(frames[:5], frames[5:])]


def test_a_picture_that_pops_up_in_a_tripod_shot_counts_where_it_is_shown() -> None:
    frames = tripod()
    picture = resized(photograph("coffee"), 130, 90)
    for i in (1, 6, 2, 7):
        frames[i][100:190, 250:380] = picture
    found = masks([as_jpeg(frame) for frame in frames])
    assert [value > 0 for value in found] == [False, True, True, False, False]
    assert found[1] == pytest.approx(130 * 90 / (WIDTH * HEIGHT), abs=0.006)


@pytest.mark.parametrize("lightness", [16, -16])
def test_a_card_whose_rim_is_faint_in_parts_counts_whole(lightness: int) -> None:
    """Half of it lies on a table of nearly its own lightness, and half on what is darker."""
    frames, (rows, columns) = tripod(), (slice(100, 190), slice(250, 380))
    for frame in frames:
        frame[140:] = np.clip(frame[140:] // 16 + 200, 0, 255)
    colour = np.median(frames[0][rows.stop - 40 : rows.stop, columns].reshape(-1, 3), axis=0) + lightness
    for i in (1, 6):
        frames[i][rows, columns] = colour
    found = masks([as_jpeg(frame, 92) for frame in frames])
    assert [value > 0 for value in found] == [False, True, False, False, False]
    assert found[1] == pytest.approx(130 * 90 / (WIDTH * HEIGHT), abs=0.006)


def test_a_person_before_a_wall_is_no_card() -> None:
    """Lines between clothes look like the sides of a card; much of what is within has the wall's own colour."""
    frames = [noisy(np.full((HEIGHT, WIDTH, 3), 190, np.uint8), 1.5, i) for i in range(10)]
    for i, frame in enumerate(frames):
        left = 60 + 30 * i
        frame[60:150, left : left + 30] = (90, 90, 95)
        frame[150:, left + 4 : left + 26] = (40, 45, 70)
        cv2.circle(frame, (left + 15, 45), 18, (200, 150, 130), -1)
    assert masks([as_jpeg(frame) for frame in frames]) == [0.0] * 5


def test_what_moves_in_a_tripod_shot_does_not_pop_up() -> None:
    frames = tripod()
    for i, frame in enumerate(frames):
        cv2.circle(frame, (60 + 40 * i, 150), 45, (200, 30, 30), -1)
        cv2.ellipse(frame, (420 - 30 * i, 180), (25, 80), 8, 0, 360, (40, 40, 160), -1)
    assert masks(frames) == [0.0] * 5
    assert masks(tripod()) == [0.0] * 5
    lighter = [np.clip(frame.astype(np.int16) + 8 * i, 0, 255).astype(np.uint8) for i, frame in enumerate(tripod())]
    assert masks(lighter) == [0.0] * 5
