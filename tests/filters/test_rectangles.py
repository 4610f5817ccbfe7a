"""Cards, boxes and frames of a known area over photographs that stand still, and what looks like them in a scene."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.marks import gradients, reduced, seen
from longtake.filters.panels import panels, seam_maps
from longtake.filters.rectangles import rectangles
from longtake.filters.translucent import mean_of
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy

Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # Top, bottom, left, right, in px.

SUBTITLE: Box = (440, 506, 250, 710)
CARD: Box = (61, 251, 503, 781)


def tripod(x: int) -> list[Image]:
    return [np.asarray(cv2.GaussianBlur(crop(x, 110), (0, 0), 1.5), np.uint8)] * 10


def drawn(frames: list[Image], box: Box, level: int, opacity: float, words: str = "") -> list[Image]:
    """Frames with a box of one grey level, and a line of text in it, after noise and coding."""
    top, bottom, left, right = box
    out = []
    for i, frame in enumerate(frames):
        image = frame.copy()
        part = image[top:bottom, left:right].astype(np.float32)
        image[top:bottom, left:right] = np.rint(part * (1 - opacity) + opacity * level).astype(np.uint8)
        ink = (255 - level,) * 3
        cv2.putText(image, words, (left + 25, (top + bottom) // 2 + 10), cv2.FONT_HERSHEY_SIMPLEX, 1.1, ink, 3)
        out.append(as_jpeg(noisy(image, 1.0, i), 88))
    return out


def found(frames: list[Image]) -> Mask:
    small = [reduced(grey(frame)) for frame in frames]
    return rectangles(mean_of(small), panels(seam_maps(gradients(small))))


def area(box: Box) -> float:
    top, bottom, left, right = box
    return (bottom - top) * (right - left) / (HEIGHT * WIDTH)


@pytest.mark.parametrize("x", [970, 1164, 1358])
@pytest.mark.parametrize(
    ("box", "level", "opacity"),
    [(CARD, 235, 1.0), (CARD, 20, 1.0), (SUBTITLE, 0, 0.6), (SUBTITLE, 255, 0.7)],
    ids=["white card", "dark card", "subtitle", "pale subtitle"],
)
def test_a_box_over_a_scene_that_stands_still(x: int, box: Box, level: int, opacity: float) -> None:
    frames = drawn(tripod(x), box, level, opacity, "and that is why")
    mask = seen([grey(frame) for frame in frames])
    assert mask.mask.mean() == pytest.approx(area(box), abs=0.015)
    assert not mask.known  # Other marks may be there that do not show.


@pytest.mark.parametrize("x", [970, 1164, 1358])
@pytest.mark.parametrize(("level", "opacity"), [(20, 1.0), (230, 0.7), (0, 0.6)])
@pytest.mark.parametrize("words", ["", "a day above the station roof"])
def test_a_band_from_border_to_border_over_a_scene_that_stands_still(
    x: int, level: int, opacity: float, words: str
) -> None:
    """Two of its sides lie within the frame, and neither the picture beyond it nor its letters belong to it."""
    band = (400, 455, 0, WIDTH)
    mask = seen([grey(frame) for frame in drawn(tripod(x), band, level, opacity, words)])
    assert mask.mask.mean() == pytest.approx(area(band), abs=0.015)


@pytest.mark.parametrize(("top", "bottom"), [(400, 455), (180, 460)])
def test_a_band_that_leans_is_of_the_scene(top: int, bottom: int) -> None:
    frames = [frame.copy() for frame in tripod(1164)]
    corners = np.array([(0, top), (WIDTH, top + 4), (WIDTH, bottom + 2), (0, bottom)], np.int32)
    for frame in frames:
        cv2.fillPoly(frame, [corners * 16], (90, 100, 110), cv2.LINE_AA, 4)
    assert not found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)]).any()


def test_of_a_drawn_frame_its_line_alone_counts() -> None:
    top, bottom, left, right = 80, 460, 200, 760
    frames = [frame.copy() for frame in tripod(1164)]
    for frame in frames:
        cv2.rectangle(frame, (left, top), (right, bottom), (255, 220, 40), 8)
    line = 8 * 2 * (bottom - top + right - left) / (HEIGHT * WIDTH)
    mask = found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)])
    assert mask.mean() == pytest.approx(line, abs=0.012)


def test_a_card_that_leans_or_lies_in_perspective_is_of_the_scene() -> None:
    top, bottom, left, right = CARD
    corners = np.array([(left, top), (right, top + 3), (right - 4, bottom), (left - 3, bottom - 2)], np.int32)
    frames = [frame.copy() for frame in tripod(1164)]
    for frame in frames:
        cv2.fillPoly(frame, [corners * 16], (235, 235, 235), cv2.LINE_AA, 4)
    assert not found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)]).any()


def test_a_picture_within_exact_lines_may_be_a_filmed_screen() -> None:
    top, bottom, left, right = CARD
    frames = [frame.copy() for frame in tripod(1164)]
    for frame in frames:
        frame[top:bottom, left:right] = crop(300, 110)[top:bottom, left:right]
    assert not found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)]).any()


def test_lines_of_a_grid_are_no_boxes() -> None:
    frames = [frame.copy() for frame in tripod(1164)]
    for frame in frames:
        frame[::90] = frame[1::90] = 255
        frame[:, ::120] = frame[:, 1::120] = 255
    assert not found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(frames)]).any()


@pytest.mark.parametrize("x", range(0, 1941, 97))
def test_a_scene_without_a_box_has_none(x: int) -> None:
    assert not found([noisy(frame, 1.0, i) for i, frame in enumerate(tripod(x))]).any()
