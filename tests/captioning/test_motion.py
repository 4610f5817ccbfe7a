"""Camera motion on photographs moved by known amounts: the right name, and the known speed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data

from longtake.captioning.descriptors import OWN_SHARE
from longtake.captioning.motion import STILL, Move, camera_motion
from longtake.filters.similarities import Points, fit_similarities

Image = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 640, 360


def photo(name: str) -> Image:
    """A photograph at 1280 wide, so that a window of 640 x 360 has room to move."""
    picture = getattr(skimage.data, name)()
    scale = 1280 / picture.shape[1]
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def window(picture: Image, x: float = 0, y: float = 0, zoom: float = 1, turn: float = 0) -> Image:
    """What a camera sees that looks `x` right and `y` down of the centre (in pixels of its picture), with its picture
    magnified by `zoom` and its body rolled clockwise by `turn` degrees."""
    height, width = picture.shape[:2]
    # A clockwise roll of the camera turns the content counter-clockwise, which is what a positive angle does in OpenCV.
    matrix = cv2.getRotationMatrix2D((width / 2 + x, height / 2 + y), turn, zoom)
    matrix[:, 2] += WIDTH / 2 - width / 2 - x, HEIGHT / 2 - height / 2 - y
    moved = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    return np.asarray(moved, dtype=np.uint8)


PHOTOS = ("astronaut", "coffee", "chelsea")


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(
    ("camera", "move"),
    [
        ({"x": 60}, "pan right"),
        ({"x": -60}, "pan left"),
        ({"y": -50}, "tilt up"),
        ({"y": 50}, "tilt down"),
        ({"zoom": 1.12}, "zoom in"),
        ({"zoom": 1 / 1.12}, "zoom out"),
        ({"turn": 6}, "roll right"),
        ({"turn": -6}, "roll left"),
        ({}, "static"),
    ],
)
def test_the_camera_is_named_by_the_way_it_moves(name: str, camera: dict[str, float], move: Move) -> None:
    picture = photo(name)
    motion = camera_motion(window(picture), window(picture, **camera), 0.5)
    assert motion.moves == (move,)
    assert motion.own_motion < OWN_SHARE


@pytest.mark.parametrize(("pixels", "seconds"), [(16, 0.5), (40, 0.5), (100, 0.5), (40, 0.25)])
def test_the_speed_of_a_pan_is_in_picture_widths_per_second(pixels: int, seconds: float) -> None:
    picture = photo("coffee")
    motion = camera_motion(window(picture), window(picture, x=pixels), seconds)
    assert motion.speed == pytest.approx(pixels / WIDTH / seconds, rel=0.05)


def test_paces_follow_the_speed() -> None:
    picture = photo("coffee")
    paces = [camera_motion(window(picture), window(picture, x=x), 0.5).pace for x in (0, 12, 60, 140)]
    assert paces == ["still", "slow", "medium", "fast"]


def test_two_movements_at_once_are_both_named_the_stronger_first() -> None:
    picture = photo("astronaut")
    motion = camera_motion(window(picture), window(picture, x=60, y=-40), 0.5)
    assert motion.moves == ("pan right", "tilt up")


def test_a_thing_that_moves_before_a_still_camera_is_not_the_camera() -> None:
    back, thing = window(photo("coffee")), window(photo("chelsea"))[:200, :220]
    first, second = back.copy(), back.copy()
    first[80:280, 100:320] = thing
    second[80:280, 160:380] = thing
    motion = camera_motion(first, second, 0.5)
    assert motion.moves == ("static",)
    assert motion.speed < STILL
    assert 0.1 < motion.own_motion < 0.5


def test_bars_that_stand_still_do_not_stop_a_pan() -> None:
    picture = photo("coffee")
    first, second = window(picture), window(picture, x=60)
    for frame in (first, second):
        frame[:45] = frame[-45:] = 0
    assert camera_motion(first, second, 0.5).moves == ("pan right",)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_is_said_of_a_flat_picture(level: int) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    assert camera_motion(flat, flat, 0.5).moves == ("unclear",)


def test_noise_is_unclear_and_not_a_movement() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    assert camera_motion(a, b, 0.5).moves == ("unclear",)


def test_upright_and_small_pictures_are_measured_too() -> None:
    picture = photo("astronaut")
    a, b = (window(picture, x=x)[:, 220:420] for x in (0, 20))
    assert camera_motion(a, b, 0.5).moves == ("pan right",)


def test_the_fit_finds_known_parameters_under_a_third_of_outliers() -> None:
    rng = np.random.default_rng(1)
    px, py = rng.uniform(-0.5, 0.5, (2, 1500))
    u = 0.2 + 0.1 * px + 0.05 * py
    v = -0.1 - 0.05 * px + 0.1 * py
    u[:500], v[:500] = rng.normal(-0.6, 0.05, 500), rng.normal(0.5, 0.05, 500)
    found, squares = fit_similarities(Points.at(px, py), u[None], v[None], np.ones((1, 1500)))
    assert found[0] == pytest.approx([0.2, -0.1, 0.1, -0.05], abs=2e-3)
    assert np.all(squares[0, 500:] < 5e-3**2)
    assert np.all(squares[0, :500] > 0.5**2)
