"""Scenes that repeat themselves and stand still, with nothing over them: no line in them is an editor's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, gradients, reduced, seen
from longtake.filters.panels import made_of_lines, seam_maps
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, resized

Wall = npt.NDArray[np.float32]  # The share of light that each px reflects, [h, w], larger than a picture.
ROWS, COLUMNS = HEIGHT + 120, WIDTH + 120


def facade() -> Wall:
    """Windows in a wall, and what they mirror: each something else."""
    rng = np.random.default_rng(2)
    wall = np.full((ROWS, COLUMNS), 0.75, np.float32)
    for y in range(20, ROWS - 60, 90):
        for x in range(15, COLUMNS - 44, 76):
            wall[y : y + 56, x : x + 40] = rng.uniform(0.05, 0.4)
            wall[y + 26 : y + 28, x : x + 40] = wall[y : y + 56, x + 19 : x + 21] = 0.9
    return wall


def chess() -> Wall:
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    return np.asarray(np.where((y // 68 + x // 68) % 2, 0.8, 0.2), np.float32)


def keys() -> Wall:
    wall = np.full((ROWS, COLUMNS), 0.9, np.float32)
    for key, x in enumerate(range(0, COLUMNS, 44)):
        wall[:, x : x + 2] = 0.25
        if key % 7 not in (2, 6):
            wall[: ROWS // 2, x + 30 : x + 58] = 0.06
    return wall


def bricks() -> Wall:
    rng = np.random.default_rng(4)
    wall = np.full((ROWS, COLUMNS), 0.95, np.float32)
    for row, y in enumerate(range(0, ROWS, 54)):
        for x in range(-(row % 2) * 70, COLUMNS, 140):
            wall[y + 4 : y + 50, max(0, x + 4) : x + 136] = rng.uniform(0.35, 0.55)
    return wall


def books() -> Wall:
    rng = np.random.default_rng(5)
    wall = np.full((ROWS, COLUMNS), 0.2, np.float32)
    for bottom in range(150, ROWS, 165):
        x = 0
        while x < COLUMNS:
            width, height = int(rng.integers(12, 36)), int(rng.integers(110, 140))
            wall[bottom - height : bottom, x : x + width] = rng.uniform(0.1, 0.9)
            x += width
    return wall


def filmed(wall: Wall, degrees: float, bent: float, shake: float, passes: bool) -> list[Image]:
    """A wall under uneven light that flickers a little, by a camera that leans, whose lens bends lines, in a hand that shakes by
    so many px; or with somebody who passes in front."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    right, down = x - WIDTH / 2, y - HEIGHT / 2
    turn, far = np.radians(degrees), 1 + bent * (right**2 + down**2) / (WIDTH / 2) ** 2
    right, down = (right * np.cos(turn) - down * np.sin(turn)) * far, (right * np.sin(turn) + down * np.cos(turn)) * far
    light = 80 + 100 * x / WIDTH + 50 * y / HEIGHT
    soft = cv2.GaussianBlur(wall, (0, 0), 0.8)
    frames = []
    for i in range(10):
        aside, up = rng.normal(0, shake, 2)
        at = [np.asarray(one, np.float32) for one in (right + COLUMNS / 2 + aside, down + ROWS / 2 + up)]
        picture = light * cv2.remap(soft, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        if passes:
            cv2.ellipse(picture, (60 + 90 * i, HEIGHT - 120), (50, 170), 0, 0, 360, 55.0, -1, cv2.LINE_AA)
        picture *= 1 + 0.01 * float(rng.normal())
        level = np.clip(picture, 0, 255).astype(np.uint8)
        frames.append(as_jpeg(noisy(np.repeat(level[..., None], 3, axis=2), 1.5, i), 88))
    return frames


def look(frames: list[Image]) -> Seen:
    return seen([grey(frame) for frame in frames])


@pytest.mark.parametrize("wall", [facade, chess, keys, bricks, books], ids=lambda wall: wall.__name__)
@pytest.mark.parametrize(
    "view",
    [(0.0, 0.0, 0.0, False), (0.7, 0.0, 0.0, True), (0.0, 0.05, 0.0, True), (0.0, 0.0, 3.0, False)],
    ids=["tripod", "leaning", "lens", "hand-held"],
)
def test_a_scene_that_repeats_itself_has_no_panels(
    wall: Callable[[], Wall], view: tuple[float, float, float, bool]
) -> None:
    found = look(filmed(wall(), *view))
    assert found.mask.mean() <= 0.02
    assert not found.known


@pytest.mark.parametrize("pictures", [2, 3, 4])
def test_a_split_screen_is_not_made_of_lines(pictures: int) -> None:
    """So many pictures beside one another and below, without lines between them, over scenes of tripods."""
    frames = []
    for i in range(10):
        rows = []
        for row in range(pictures):
            parts = [
                resized(crop(180 * (3 * row + k), 100), WIDTH // pictures, HEIGHT // pictures) for k in range(pictures)
            ]
            rows.append(np.concatenate(parts, axis=1))
        frames.append(as_jpeg(noisy(np.concatenate(rows), 1.5, i), 88))
    assert not made_of_lines(seam_maps(gradients([reduced(grey(frame)) for frame in frames])))


@pytest.mark.parametrize(
    ("rows", "repeats"), [(range(30, 450, 60), True), (range(330, 480, 24), False), ((60, 200, 340), False)]
)
def test_lines_within_a_panel_are_not_those_of_a_scene(rows: Sequence[int], repeats: bool) -> None:
    """A picture that an editor set below another one may show lines from border to border, too."""
    level = np.zeros((272, 480), bool)
    level[:, list(rows)] = True
    assert made_of_lines((np.zeros((480, 272), bool), level)) == repeats


def test_blurred_pillars_beside_a_scene_that_repeats_itself_count() -> None:
    frames = filmed(bricks(), 0.7, 0.0, 0.0, True)
    for frame in frames:
        picture = frame[:, 310:650].copy()
        frame[:] = cv2.GaussianBlur(frame, (0, 0), 14)
        frame[:, 310:650] = picture
    assert look(frames).mask.mean() == pytest.approx(1 - 340 / WIDTH, abs=0.02)
