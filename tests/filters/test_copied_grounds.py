"""Grounds beside a film that are the film itself: mirrored, repeated, drawn out; and scenes that mirror themselves."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from longtake.filters.base import Image
from longtake.filters.blurred_grounds import blurred_ground
from longtake.filters.copied_grounds import copied_ground
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, gradients, reduced, seen
from longtake.filters.panels import Panel, seam_maps
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, pan, resized
from tests.filters.test_panels import shaken
from tests.filters.test_repeating_scenes import Wall, bricks, chess, facade, filmed, keys

Frames = list[Image]
POINTS = 0.02  # Share of the area.


def look(frames: Frames) -> Seen:
    return seen([grey(as_jpeg(noisy(frame, 1, i), 85)) for i, frame in enumerate(frames)])


def grounds(frames: Frames) -> list[Panel]:
    small = [reduced(grey(as_jpeg(noisy(frame, 1, i), 85))) for i, frame in enumerate(frames)]
    fields = gradients(small)
    right, down = np.square(fields).sum(axis=0)
    return copied_ground(fields, seam_maps(fields)) + blurred_ground(small, right, down)


def in_the_middle(frame: Image, width: int, border: int) -> Image:
    """The middle of a frame, `width` px wide, with one of OpenCV's borders on both sides."""
    left = (WIDTH - width) // 2
    film = frame[:, left : left + width]
    return np.asarray(cv2.copyMakeBorder(film, 0, 0, left, WIDTH - width - left, border), np.uint8)


def turned(frames: Frames) -> Frames:
    return [np.ascontiguousarray(np.rot90(frame)) for frame in frames]


def tripod_with_a_hand() -> Frames:
    """A tripod shot in whose middle something moves, and nothing near its edges."""
    frames = []
    for i in range(10):
        frame = crop(900)
        y = 120 + 30 * i
        frame[y : y + 60, 460:500] = crop(1800, 100)[y : y + 60, 460:500]
        frames.append(frame)
    return frames


def tripod_with_a_passer() -> Frames:
    """A tripod shot in which something comes by, from the left to the right."""
    frames = []
    for i in range(10):
        frame = crop(900)
        x = 60 + 90 * i
        frame[150:500, max(0, x - 80) : x + 80] = crop(1800, 100)[150:500, max(0, x - 80) : x + 80]
        frames.append(frame)
    return frames


# With a film of 300 px the mirror images are mirrored again.
@pytest.mark.parametrize("width", [300, 404, 540, 720])
@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP, cv2.BORDER_REPLICATE])
def test_pillars_that_are_the_film(width: int, border: int) -> None:
    frames = [in_the_middle(frame, width, border) for frame in shaken()]
    assert look(frames).mask.mean() == pytest.approx(1 - width / WIDTH, abs=POINTS)


@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT, cv2.BORDER_WRAP, cv2.BORDER_REPLICATE])
@pytest.mark.parametrize("take", [pan, tripod_with_a_passer, tripod_with_a_hand])
def test_such_pillars_in_a_level_pan_and_in_a_tripod_shot(take: Callable[[], Frames], border: int) -> None:
    frames = [in_the_middle(frame, 540, border) for frame in take()]
    assert look(frames).mask.mean() == pytest.approx(1 - 540 / WIDTH, abs=POINTS)
    assert look(turned(frames)).mask.mean() == pytest.approx(1 - 540 / WIDTH, abs=POINTS)


def test_mirrored_pillars_that_are_darker_and_not_of_one_width() -> None:
    frames = []
    for frame in shaken():
        whole = np.asarray(cv2.copyMakeBorder(frame[:, :540], 0, 0, 204, 216, cv2.BORDER_REFLECT), np.uint8)
        film = whole[:, 204:744].copy()
        whole = np.asarray(whole * 0.5, np.uint8)
        whole[:, 204:744] = film
        frames.append(whole)
    mask = look(frames).mask
    assert mask[:, :200].all()
    assert mask[:, 748:].all()
    assert not mask[:, 208:740].any()


def symmetric(frame: Image) -> Image:
    """A scene whose right half is the mirror image of the left one, wider than a frame."""
    half = resized(frame, 800, 700)
    return np.concatenate([half, half[:, ::-1]], axis=1)


def before_a_building() -> Frames:
    """The camera rises before a building that mirrors itself, and stands exactly before its middle."""
    building = symmetric(crop(900))
    return [building[15 * i : 15 * i + HEIGHT, 320 : 320 + WIDTH].copy() for i in range(10)]


def past_a_building() -> Frames:
    building = symmetric(crop(900))
    return [building[80 : 80 + HEIGHT, 60 * i : 60 * i + WIDTH].copy() for i in range(10)]


def lake(shore: int) -> Callable[[], Frames]:
    """A level pan over a shore that a still lake mirrors, at this row."""

    def frames() -> Frames:
        out = []
        for frame in pan():
            both = np.concatenate([frame, frame[::-1]])
            out.append(both[HEIGHT - shore : 2 * HEIGHT - shore].copy())
        return out

    return frames


def kaleidoscope() -> Frames:
    """Water through two mirrors that cross in the middle."""
    out = []
    for frame in shaken():
        quarter = frame[: HEIGHT // 2, : WIDTH // 2]
        half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
        out.append(np.concatenate([half, half[::-1]]))
    return out


def two_who_dance() -> Frames:
    """A mirror on one side: a third of the frame is the mirror image of the next one."""
    out = []
    for frame in shaken():
        whole = frame.copy()
        whole[:, :320] = frame[:, 320:640][:, ::-1]
        out.append(whole)
    return out


@pytest.mark.parametrize(
    "scene",
    [
        before_a_building,
        past_a_building,
        lake(180),
        lake(270),
        lake(400),
        kaleidoscope,
        two_who_dance,
        tripod_with_a_passer,
    ],
    ids=["rising", "passing", "lake above", "lake", "lake below", "kaleidoscope", "mirror", "tripod"],
)
def test_a_scene_that_mirrors_itself_has_no_pillars(scene: Callable[[], Frames]) -> None:
    assert grounds(scene()) == []


@pytest.mark.parametrize("wall", [facade, chess, keys, bricks], ids=lambda wall: wall.__name__)
@pytest.mark.parametrize(
    "view", [(0.0, 0.0, 0.0, False), (0.0, 0.0, 0.0, True), (0.0, 0.0, 12.0, False), (0.7, 0.05, 3.0, True)]
)
def test_a_scene_that_repeats_itself_has_no_copies(
    wall: Callable[[], Wall], view: tuple[float, float, float, bool]
) -> None:
    assert grounds(filmed(wall(), *view)) == []
