"""Pale letters and logos of a known area over photographs that stand still or pan, and what looks like them in a scene."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, reduced, seen, with_lines
from longtake.filters.overlaid_text import judged
from longtake.filters.translucent import coloured, darkened, translucent
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, pan, world

Ink = npt.NDArray[np.float32]  # The share of each px that letters cover, [h, w].
Mask = npt.NDArray[np.bool_]


def letters(*lines: str, scale: float = 5.0, thick: int = 20) -> tuple[Ink, Mask]:
    """Lines of bold letters in the middle of a frame, and the boxes around them."""
    ink = np.zeros((HEIGHT, WIDTH), np.uint8)
    boxes = np.zeros((HEIGHT, WIDTH), np.bool_)
    for i, line in enumerate(lines):
        (width, height), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        one = np.zeros_like(ink)
        at = ((WIDTH - width) // 2, HEIGHT // 2 + height // 2 + round((i - (len(lines) - 1) / 2) * 1.7 * height))
        cv2.putText(one, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
        rows, columns = np.nonzero(one)
        boxes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        ink |= one
    return ink.astype(np.float32) / 255, boxes


def under(
    frames: Sequence[Image], ink: Ink, opacity: float, colour: float | tuple[int, int, int] = 255.0
) -> list[Image]:
    """Frames under a mark, after noise and coding."""
    share = (opacity * ink)[..., None]
    mixed = [np.rint(frame * (1 - share) + np.array(colour, np.float32) * share).astype(np.uint8) for frame in frames]
    return [as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(mixed)]


def tripod(x: int = 1164) -> list[Image]:
    return [soft(crop(x, 110))] * 10


def soft(image: Image) -> Image:
    """As sharp as film is: the photographs are enlarged, and their grain with them."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.5), np.uint8)


def found(frames: Sequence[Image]) -> Mask:
    return translucent([reduced(grey(frame)) for frame in frames])


PLACES = [970, 1164]  # A cup on a table, and a spoon and a cat.


@pytest.mark.parametrize(
    ("x", "lines"),
    [(970, ("SAMPLE",)), (1164, ("SAMPLE",)), (1164, ("STOCK", "VIDEO"))],
    ids=["cup", "spoon", "two lines"],
)
@pytest.mark.parametrize("opacity", [0.25, 0.33])
def test_pale_letters_over_a_scene_that_stands_still_count_by_the_boxes_around_their_lines(
    x: int, lines: tuple[str, ...], opacity: float
) -> None:
    ink, boxes = letters(*lines)
    frames = under(tripod(x), ink, opacity)
    mask = seen([grey(frame) for frame in frames])
    assert mask.mask.mean() == pytest.approx(boxes.mean(), abs=0.025)
    assert (mask.mask & boxes).sum() >= 0.8 * boxes.sum()
    assert not mask.known  # Other marks may be there that do not show.


@pytest.mark.parametrize(
    ("x", "word", "scale", "opacity"),
    [(776, "COPY", 4.0, 0.25), (970, "COPY", 4.0, 0.2), (1649, "DEMO", 5.0, 0.33)],
)
def test_edges_of_neighbouring_jumps_count_for_one_mark(x: int, word: str, scale: float, opacity: float) -> None:
    """The ground makes the jump of some letters a little larger than that of others; those of either jump are too few."""
    ink, boxes = letters(word, scale=scale, thick=round(4 * scale))
    mask = found(under(tripod(x), ink, opacity))
    assert mask.mean() == pytest.approx(boxes.mean(), abs=0.02)


@pytest.mark.parametrize("opacity", [0.25, 0.33])
def test_pale_letters_over_a_pan(opacity: float) -> None:
    ink, boxes = letters("SAMPLE")
    mask = found(under([soft(frame) for frame in pan()], ink, opacity))
    assert mask.mean() == pytest.approx(boxes.mean(), abs=0.02)


def test_dark_letters_over_a_pan() -> None:
    ink, boxes = letters("SAMPLE")
    frames = under([soft(frame) for frame in pan()], ink, 0.33, 0)
    mask = translucent([reduced(grey(frame)) for frame in frames], still=False)
    assert mask.mean() == pytest.approx(boxes.mean(), abs=0.02)


RED, BLUE, YELLOW = (230, 20, 20), (20, 60, 220), (255, 215, 0)


@pytest.mark.parametrize("colour", [RED, BLUE, YELLOW], ids=["red", "blue", "yellow"])
@pytest.mark.parametrize("opacity", [0.25, 0.4])
def test_coloured_letters_over_a_pan(colour: tuple[int, int, int], opacity: float) -> None:
    ink, boxes = letters("SAMPLE")
    frames = under([soft(frame) for frame in pan()], ink, opacity, colour)
    assert tinted(frames, still=False).mean() == pytest.approx(boxes.mean(), abs=0.02)


def tinted(frames: Sequence[Image], still: bool) -> Mask:
    return coloured([reduced(frame) for frame in frames], still=still)


def lit() -> list[Image]:
    """A scene that stands still, in light and shade."""
    shade = np.where(np.arange(WIDTH) // 60 % 2, 0.55, 1.15)[None, :, None]
    shade = cv2.GaussianBlur(np.repeat(np.repeat(shade, HEIGHT, axis=0), 3, axis=2), (0, 0), 12)
    grey_one = np.repeat(grey(soft(crop(1164, 110)))[..., None], 3, axis=2)
    return [np.clip(np.rint(grey_one * shade), 0, 255).astype(np.uint8)] * 10


def test_coloured_letters_over_a_scene_that_stands_still() -> None:
    ink, boxes = letters("SAMPLE")
    mask = tinted(under(lit(), ink, 0.3, RED), still=True)
    assert mask.mean() == pytest.approx(boxes.mean(), abs=0.02)


def test_coloured_paint_is_of_the_scene_whether_it_covers_the_ground_or_not() -> None:
    ink, _ = letters("SAMPLE")
    shares = 1 - np.array([0.0, 0.3, 0.3]) * ink[..., None]
    glazed = [as_jpeg(noisy(np.rint(frame * shares).astype(np.uint8), 1.0, i), 88) for i, frame in enumerate(lit())]
    assert not tinted(glazed, still=True).any()
    covered = under(lit(), ink, 1.0, (150, 100, 95))
    assert tinted(covered, still=False).any()  # Where the scene moves, what stands still is a mark.
    assert not tinted(covered, still=True).any()


@pytest.mark.parametrize(("x", "opacity"), [(970, 0.4), (1164, 0.33), (1164, 0.4)])
def test_black_letters_over_a_scene_that_stands_still(x: int, opacity: float) -> None:
    ink, boxes = letters("SAMPLE")
    frames = under(tripod(x), ink, opacity, 0)
    assert not found(frames).any()  # Without colour they may be a shadow.
    assert darkened([reduced(frame) for frame in frames]).mean() == pytest.approx(boxes.mean(), abs=0.025)


@pytest.mark.parametrize("x", PLACES)
def test_a_shadow_leaves_more_of_the_blue_of_the_sky(x: int) -> None:
    """Of light that is dimmed to a third in red and to a half in blue, the square root, about, is what a picture holds."""
    ink, _ = letters("SAMPLE")
    shares = 1 - (1 - np.array([0.58, 0.64, 0.71])) * ink[..., None]
    shaded = [as_jpeg(noisy(np.rint(frame * shares).astype(np.uint8), 1.0, i), 88) for i, frame in enumerate(tripod(x))]
    assert not darkened([reduced(frame) for frame in shaded]).any()


@pytest.mark.parametrize("x", range(0, 1941, 97))
def test_a_scene_without_a_mark_has_none(x: int) -> None:
    frames = [noisy(frame, 1.0, i) for i, frame in enumerate(tripod(x))]
    assert not found(frames).any()
    assert not tinted(frames, still=True).any()
    assert not darkened([reduced(frame) for frame in frames]).any()


@pytest.mark.parametrize("x", PLACES)
@pytest.mark.parametrize("factor", [1.35, 0.7], ids=["paint", "shadow"])
def test_paint_and_shadow_are_of_the_scene(x: int, factor: float) -> None:
    """They multiply the light; a white mark takes a share of the darkness."""
    ink, _ = letters("SAMPLE")
    painted = [
        np.clip(np.rint(frame * (1 + (factor - 1) * ink[..., None])), 0, 255).astype(np.uint8) for frame in tripod(x)
    ]
    assert not found([as_jpeg(noisy(frame, 1.0, i), 88) for i, frame in enumerate(painted)]).any()


def test_letters_that_the_camera_passes_are_of_the_scene() -> None:
    ink, _ = letters("SAMPLE")
    frames = []
    for i, frame in enumerate(pan(30)):
        moved = np.roll(ink, 150 - 30 * i, axis=1)[..., None]
        frames.append(np.rint(frame * (1 - 0.25 * moved) + 255 * 0.25 * moved).astype(np.uint8))
    assert not found(frames).any()


def test_a_line_goes_on_over_leaves() -> None:
    """Half of the letters lie over texture as fine and as strong as they are."""
    ink, boxes = letters("SAMPLE")
    leaves = cv2.resize(np.random.default_rng(3).normal(0, 10, (HEIGHT // 3, WIDTH // 3)), (WIDTH, HEIGHT))
    scene = soft(crop(1164, 110)).astype(np.float64)
    scene[:, : WIDTH // 2] += leaves[:, : WIDTH // 2, None]
    frames = under([np.clip(np.rint(scene), 0, 255).astype(np.uint8)] * 10, ink, 0.25)
    mask = found(frames)
    assert (mask & boxes_at_480(boxes)).sum() >= 0.7 * boxes_at_480(boxes).sum()
    assert mask.mean() == pytest.approx(boxes.mean(), abs=0.03)


def boxes_at_480(boxes: Mask) -> Mask:
    return cv2.resize(boxes.astype(np.uint8), (480, 270), interpolation=cv2.INTER_AREA) > 0


def test_a_mark_stays_found_under_noise_of_one_level_and_without_a_pair() -> None:
    ink, boxes = letters("SAMPLE")
    frames = [grey(frame) for frame in under(tripod(1358), ink, 0.25)]
    random = np.random.default_rng(0)
    for draw in range(12):
        some = [np.clip(f.astype(np.int16) + random.integers(-1, 2, f.shape), 0, 255).astype(np.uint8) for f in frames]
        if draw >= 10:
            del some[draw - 8 :: 5]
        assert translucent([reduced(f) for f in some]).mean() == pytest.approx(boxes.mean(), abs=0.02)


def box(boxes: Mask, grown: int = 0) -> npt.NDArray[np.int32]:
    rows, columns = np.nonzero(boxes)
    left, right, top, bottom = columns.min(), columns.max(), rows.min() - grown, rows.max() + grown
    return np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.int32)


def test_letters_all_over_leaves_are_found_by_the_box_of_a_detector() -> None:
    ink, boxes = letters("SAMPLE")
    leaves = cv2.resize(np.random.default_rng(3).normal(0, 12, (HEIGHT // 3, WIDTH // 3)), (WIDTH, HEIGHT))
    lit = np.linspace(0.4, 1.3, WIDTH)[None, :, None]  # Where the light is the same everywhere, they might be paint.
    scene = np.clip(np.rint(soft(crop(1164, 110)) * lit + leaves[..., None]), 0, 255).astype(np.uint8)
    none = Seen(np.zeros((HEIGHT, WIDTH), np.bool_), known=False)
    frames = [grey(frame) for frame in under([scene] * 10, ink, 0.25)]
    assert not translucent([reduced(frame) for frame in frames]).any()
    lines = with_lines(frames, [box(boxes)] * 5, none)
    assert lines.mask.mean() == pytest.approx(boxes.mean(), abs=0.02)
    # There is nothing in the same box where no letters are.
    bare = [grey(frame) for frame in under([scene] * 10, ink * 0, 0.25)]
    assert with_lines(bare, [box(boxes)] * 5, none) is none


def test_a_box_is_no_higher_than_the_marks_that_are_its_letters() -> None:
    _, boxes = letters("SAMPLE")
    frames = [grey(frame) for frame in tripod()]
    high = box(boxes, 30)
    (kept, *_) = judged(frames, [high] * 5, Seen(boxes, known=False))
    top, bottom = kept.overlaid[0][:, 1].min(), kept.overlaid[0][:, 1].max()
    assert (top, bottom) == (high[0, 0, 1] + 30, high[0, 2, 1] - 30)
    # Where the marks are a part of the line only, they do not say how high the line is.
    part = boxes.copy()
    part[:, : WIDTH // 2] = False
    (kept, *_) = judged(frames, [high] * 5, Seen(part, known=False))
    assert np.array_equal(kept.overlaid[0], high[0])
    # Nor do those of a card that reaches into the box from below.
    card = np.zeros_like(boxes)
    card[(high[0, 0, 1] + 2 * high[0, 2, 1]) // 3 :] = True
    (kept, *_) = judged(frames, [high] * 5, Seen(card, known=False))
    assert np.array_equal(kept.overlaid[0], high[0])


@pytest.mark.parametrize("leans", [0, 30])
def test_a_box_too_tall_for_a_line_is_no_larger_than_the_mark_in_it(leans: int) -> None:
    """A detector of text puts boxes around logos, and around what lies beside them."""
    marks = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(marks, (500, 250), 90, 1, -1)
    around = np.array([[(300, 130), (620, 130 - leans), (620, 370 - leans), (300, 370)]], np.int32)
    (kept, *_) = judged([grey(frame) for frame in tripod()], [around] * 5, Seen(marks > 0, known=False))
    counted = np.zeros_like(marks)
    cv2.fillConvexPoly(counted, kept.overlaid[0], 1)
    assert int(counted.sum()) == pytest.approx(180 * 180, rel=0.03)


def test_level_edges_of_pale_letters_are_no_joint_of_two_pictures() -> None:
    """Over black, the upper edges of wide letters lie on one row, as a joint does."""
    ink = np.zeros((HEIGHT, WIDTH), np.uint8)
    for left in range(15, WIDTH - 60, 68):
        cv2.rectangle(ink, (left, 180), (left + 50, 260), 255, -1)
        cv2.rectangle(ink, (left + 15, 200), (left + 35, 240), 0, -1)
    scene = np.rint(soft(crop(1164, 110)) * 0.5 + noisy(np.full((HEIGHT, WIDTH, 3), 10, np.uint8), 1, 5)).astype(
        np.uint8
    )
    mask = seen([grey(frame) for frame in under([scene] * 10, ink.astype(np.float32) / 255, 0.2)]).mask
    assert mask.mean() == pytest.approx(80 * (WIDTH - 30) / (HEIGHT * WIDTH), abs=0.03)


def test_the_world_is_wide_enough() -> None:
    assert world().shape[1] >= 1940 + WIDTH
