"""Drawings of known area that move over photographs; and what has their colours, but is none."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.filters.base import Image
from longtake.filters.drawings import TEXTURE, drawn, spread
from longtake.filters.marks import Seen
from tests.filters.pictures import HEIGHT, WIDTH, as_jpeg, crop, noisy, pan

Mask = npt.NDArray[np.bool_]

LANE = np.array([(-0.05, 0.1), (0.05, 0.1), (0.28, 0.45), (-0.28, 0.45)])
ARROW = np.array([(-1, -0.25), (0.2, -0.25), (0.2, -0.6), (1, 0), (0.2, 0.6), (0.2, 0.25), (-1, 0.25)]) * (0.16, 0.25)


def film(step: int = 40) -> list[Image]:
    """A pan over photographs, ten frames [540, 960, 3]."""
    return [crop(900 + step * i, 150) for i in range(10)]


def pale_film() -> list[Image]:
    """The same with a quarter of its colour, as streets have it."""
    out = []
    for frame in film():
        grey = frame.mean(axis=2, keepdims=True)
        out.append(np.rint(grey + 0.25 * (frame - grey)).astype(np.uint8))
    return out


def shape(outline: npt.NDArray[np.float64], i: int, speed: float = 0.02) -> Mask:
    """An outline (shares of the frame, from its middle) in frame i of its way to the right."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    points = (outline + np.array([0.45 + speed * i, 0.45])) * (WIDTH, HEIGHT)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask > 0


def blended(frame: Image, mask: Mask, colour: tuple[int, int, int], alpha: float) -> Image:
    out = frame.astype(np.float32)
    out[mask] = (1 - alpha) * out[mask] + alpha * np.array(colour, np.float32)
    return np.rint(out).astype(np.uint8)


def painted(
    frames: list[Image],
    outline: npt.NDArray[np.float64],
    colour: tuple[int, int, int],
    alpha: float,
    speed: float = 0.02,
) -> list[Image]:
    return [as_jpeg(blended(frame, shape(outline, i, speed), colour, alpha), 88) for i, frame in enumerate(frames)]


def areas(frames: list[Image], *, known: bool = True, under: Mask | None = None) -> list[float]:
    mask = np.zeros(frames[0].shape[:2], np.bool_) if under is None else under
    return [float(found.mean()) for found in drawn(frames[:5], frames[5:], Seen(mask, known))]


@pytest.mark.parametrize("outline", [LANE, ARROW], ids=["lane", "arrow"])
@pytest.mark.parametrize("alpha", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 0, 255), (30, 144, 255)])
def test_a_drawing_that_moves_counts_with_its_area(
    outline: npt.NDArray[np.float64], alpha: float, colour: tuple[int, int, int]
) -> None:
    frames = painted(pale_film(), outline, colour, alpha)
    for i, area in enumerate(areas(frames)):
        assert area == pytest.approx(float(shape(outline, i).mean()), abs=0.02)


def test_photographs_have_no_drawings() -> None:
    for frames in (pan(), film(12), [noisy(frame, 3, i) for i, frame in enumerate(film())]):
        assert max(areas(frames)) == 0
    dimmed = [np.rint(frame * (1 - 0.05 * i)).astype(np.uint8) for i, frame in enumerate(film())]
    assert max(areas(dimmed)) == 0


@pytest.mark.parametrize("colour", [(220, 30, 30), (30, 60, 200), (230, 200, 20)])
def test_a_surface_of_one_colour_in_changing_light_is_no_drawing(colour: tuple[int, int, int]) -> None:
    """Its chroma follows the light: a ball with a lit and a dark side, and with the texture of cloth."""
    x = np.arange(WIDTH)[None] / WIDTH * np.ones((HEIGHT, 1))
    texture = np.random.default_rng(4).normal(0, 0.06, (HEIGHT, WIDTH))
    frames = []
    for i, frame in enumerate(film()):
        light = np.clip(1.1 - abs(x - 0.4 - 0.02 * i) * 2 + cv2.blur(texture, (3, 3)) * 2, 0, 1)[..., None]
        surface = np.rint(light * np.array(colour)).astype(np.uint8)
        frames.append(as_jpeg(np.where(shape(ARROW, i)[..., None], surface, frame).astype(np.uint8), 88))
    assert max(areas(frames)) == 0


def test_what_stands_still_in_a_scene_that_stands_still_is_not_known_to_be_drawn() -> None:
    tripod = [noisy(film()[0], 1.5, i) for i in range(10)]
    still, moving = (painted(tripod, ARROW, (0, 255, 0), 1.0, speed) for speed in (0.0, 0.02))
    assert max(areas(still, known=False)) == 0
    assert max(areas(moving, known=False)) == pytest.approx(float(shape(ARROW, 0).mean()), abs=0.02)


def test_a_coloured_sky_that_ends_at_a_border_is_no_drawing() -> None:
    frames = []
    for i in range(10):
        frame = np.full((HEIGHT, WIDTH, 3), (230, 140, 40), np.uint8)
        frame[HEIGHT // 2 :] = film()[i][HEIGHT // 2 :]
        frame[:80] = 0
        frames.append(as_jpeg(noisy(frame, 1, i), 88))
    under = np.zeros((HEIGHT, WIDTH), np.bool_)
    under[:80] = True
    assert max(areas(frames, under=under)) == 0


def test_letters_before_a_sky_are_not_its_texture() -> None:
    """They are few: a sky over which a white line moves was taken for a drawing of half the frame."""
    rng = np.random.default_rng(2)
    sky = rng.normal(0, 0.7, 20_000).astype(np.float32)
    sky[:700] += 60
    assert sky.std() > TEXTURE > spread(sky)
    assert spread(rng.normal(0, 4, 20_000).astype(np.float32)) > TEXTURE


def test_a_film_of_flat_areas_has_no_drawings_of_its_own() -> None:
    frames = []
    for i in range(10):
        frame = np.full((HEIGHT, WIDTH, 3), (120, 180, 240), np.uint8)
        frame[360:] = (90, 160, 60)
        frame[shape(ARROW, i)] = (250, 60, 40)
        frames.append(frame)
    assert max(areas(frames)) == 0


def test_small_and_few_frames() -> None:
    assert areas([np.zeros((16, 16, 3), np.uint8)] * 10) == [0.0] * 5
    (mask,) = drawn(film()[:1], [], Seen(np.zeros((HEIGHT, WIDTH), np.bool_), False))
    assert not mask.any()
