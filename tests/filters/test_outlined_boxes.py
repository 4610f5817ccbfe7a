"""Boxes with an outline: films set in count whole, empty ones by their line; scenes that have outlines of their own."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, seen
from longtake.filters.outlined_boxes import outlined_boxes
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, resized
from tests.filters.test_panels import other, shaken
from tests.filters.test_repeating_scenes import Wall, bricks, chess, facade, filmed

Frames = list[Image]
POINTS = 0.02  # Share of the area.
TOP, LEFT, TALL, WIDE = 330, 620, 170, 300


def look(frames: Frames) -> Seen:
    return seen([grey(as_jpeg(noisy(frame, 1, i), 85)) for i, frame in enumerate(frames)])


def tripod() -> Frames:
    return [crop(900) for _ in range(10)]


def shape(tall: int, wide: int, radius: int) -> npt.NDArray[np.float32]:
    """A rectangle with round corners, 0 to 1, float32 [tall, wide]."""
    whole = np.zeros((4 * tall, 4 * wide), np.uint8)
    r = 4 * radius
    whole[r : 4 * tall - r] = whole[:, r : 4 * wide - r] = 255
    for y in (r, 4 * tall - r - 1):
        for x in (r, 4 * wide - r - 1):
            cv2.circle(whole, (x, y), r, 255, -1)
    return np.asarray(cv2.resize(whole, (wide, tall), interpolation=cv2.INTER_AREA) / np.float32(255), np.float32)


def put(frame: Image, picture: Image, top: int, left: int, radius: int) -> None:
    tall, wide = picture.shape[:2]
    alpha = shape(tall, wide, radius)[..., None]
    window = (slice(top, top + tall), slice(left, left + wide))
    frame[window] = np.rint(alpha * picture + (1 - alpha) * frame[window])


def with_a_film(frames: Frames, line: int, colour: int, radius: int, *, shadow: bool = False) -> Frames:
    """Another film in a box of 300 × 170 px with an outline."""
    for i, frame in enumerate(frames):
        if shadow:
            dark = np.zeros(frame.shape[:2], np.float32)
            dark[TOP + 8 : TOP + TALL + 8, LEFT + 8 : LEFT + WIDE + 8] = shape(TALL, WIDE, radius)
            frame[:] = frame * (1 - 0.6 * cv2.GaussianBlur(dark, (0, 0), 8))[..., None]
        put(frame, np.full((TALL, WIDE, 3), colour, np.uint8), TOP, LEFT, radius)
        small = resized(other(i), WIDE - 2 * line, TALL - 2 * line)
        put(frame, small, TOP + line, LEFT + line, max(0, radius - line))
    return frames


@pytest.mark.parametrize("take", [shaken, tripod])
@pytest.mark.parametrize(
    ("line", "colour", "radius", "shadow"),
    [(2, 255, 0, False), (5, 255, 0, False), (3, 250, 16, False), (3, 255, 20, True), (4, 4, 0, False)],
)
def test_a_film_in_an_outline(take: Callable[[], Frames], line: int, colour: int, radius: int, shadow: bool) -> None:
    found = look(with_a_film(take(), line, colour, radius, shadow=shadow)).mask
    assert found.mean() == pytest.approx(TALL * WIDE / (HEIGHT * WIDTH), abs=POINTS / 2)
    assert found[TOP + 20 : TOP + TALL - 20, LEFT + 20 : LEFT + WIDE - 20].all()


@pytest.mark.parametrize("take", [shaken, tripod])
@pytest.mark.parametrize("line", [2, 5])
@pytest.mark.parametrize("box", [(54, 96, 432, 768), (120, 300, 300, 360)], ids=["guide", "box"])
def test_an_empty_outline_counts_by_its_line(take: Callable[[], Frames], line: int, box: tuple[int, ...]) -> None:
    top, left, tall, wide = box
    frames = take()
    for frame in frames:
        for window in (
            (slice(top, top + line), slice(left, left + wide)),
            (slice(top + tall - line, top + tall), slice(left, left + wide)),
            (slice(top, top + tall), slice(left, left + line)),
            (slice(top, top + tall), slice(left + wide - line, left + wide)),
        ):
            frame[window] = 255
    assert look(frames).mask.mean() == pytest.approx(2 * (tall + wide) * line / (HEIGHT * WIDTH), abs=POINTS / 2)


def test_a_speaker_who_hardly_moves_in_a_tripod_shot() -> None:
    frames = tripod()
    for i, frame in enumerate(frames):
        speaker = other(0)
        speaker[200:300, 400 + 5 * i : 500 + 5 * i] = 90
        frame[TOP : TOP + TALL, LEFT : LEFT + WIDE] = 255
        frame[TOP + 3 : TOP + TALL - 3, LEFT + 3 : LEFT + WIDE - 3] = resized(speaker, WIDE - 6, TALL - 6)
    assert look(frames).mask.mean() == pytest.approx(TALL * WIDE / (HEIGHT * WIDTH), abs=POINTS / 2)


@pytest.mark.parametrize("wall", [facade, chess, bricks], ids=lambda wall: wall.__name__)
@pytest.mark.parametrize("view", [(0.0, 0.0, 0.0, False), (0.7, 0.0, 0.0, True), (0.0, 0.05, 3.0, False)])
def test_scenes_of_lines_have_no_outlined_boxes(
    wall: Callable[[], Wall], view: tuple[float, float, float, bool]
) -> None:
    assert seen([grey(frame) for frame in filmed(wall(), *view)]).mask.mean() < 0.01


def test_a_window_with_a_frame_of_light_and_shade_is_none() -> None:
    """Light falls on it from one side, as on all that a camera sees."""
    frames = tripod()
    shade = np.linspace(120, 245, WIDE)
    for frame in frames:
        inside = frame[TOP + 4 : TOP + TALL - 4, LEFT + 4 : LEFT + WIDE - 4].copy()
        frame[TOP : TOP + TALL, LEFT : LEFT + WIDE] = shade[None, :, None]
        frame[TOP + 4 : TOP + TALL - 4, LEFT + 4 : LEFT + WIDE - 4] = 255 - inside
    assert not outlined_boxes([grey(frame) for frame in frames]).any()
