"""The camera's class and its jitter on clips that were made with a known motion."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from longtake.filters.base import Image, MeasureError, Score
from longtake.filters.camera import CLASSES
from longtake.filters.registry import build
from tests.filters.moving import View, clip, moving, picture, shaken
from tests.filters.pictures import crop, world

MOVES: dict[str, Callable[[float], View]] = {
    "static": lambda t: (700, 520, 1.0, 0.0),
    "pan": lambda t: (500 + 60 * t, 520, 1.0, 0.0),
    "tilt": lambda t: (900, 350 + 25 * t, 1.0, 0.0),
    "zoom": lambda t: (900, 520, 1.0 * 1.05**t, 0.0),
    "roll": lambda t: (900, 520, 1.3, 6 * t),
    "handheld": shaken(14, 3),
}


def score(name: str, of: object) -> Score:
    (measured,) = build(name, {}).measure([of])
    assert isinstance(measured, Score), measured
    return measured


@pytest.mark.parametrize("move", MOVES)
def test_each_move_has_its_class(move: str) -> None:
    sample = moving(MOVES[move])
    assert CLASSES[int(score("camera", sample).value)] == move
    assert score("camera_confidence", sample).value > 0.7


@pytest.mark.parametrize(("move", "zoom", "roll"), [("zoom", 1.08, 0.0), ("roll", 1.0, 7.0)])
def test_small_swings_beside_an_even_zoom_or_turn_are_no_hand(move: str, zoom: float, roll: float) -> None:
    swing = shaken(4, 3)

    def view(time: float) -> View:
        x, y, _, _ = swing(time)
        return x, y, zoom**time, roll * time

    assert CLASSES[int(score("camera", moving(view)).value)] == move
    alone = moving(lambda time: (*swing(time)[:2], 1.0, 0.0))
    assert CLASSES[int(score("camera", alone).value)] == "handheld"


def test_a_camera_that_circles_a_thing() -> None:
    """What stands in the middle stays there, while what is behind it goes by."""
    thing = crop(1700, 150, 300, 400)

    def seen(time: float) -> Image:
        shown = picture((500 + 60 * time, 520, 1.0, 0.0))
        shown[80:480, 330:630] = thing
        return shown

    assert CLASSES[int(score("camera", clip(seen)).value)] == "orbit-like"


def test_a_scene_without_texture_is_not_known() -> None:
    even = clip(lambda time: np.full((540, 960, 3), 40, np.uint8))
    assert math.isnan(score("camera", even).value)
    assert math.isnan(score("camera_confidence", even).value)
    assert math.isnan(score("jitter", even).value)


@pytest.mark.parametrize("amplitude", [2.0, 5.0, 12.0])
@pytest.mark.parametrize("speed", [0.0, 40.0])
def test_a_shake_has_its_amplitude(amplitude: float, speed: float) -> None:
    values = [score("jitter", moving(shaken(amplitude, seed, speed))).value for seed in range(3)]
    # 13 draws a clip, of which neighbours share two pairs: the mean of three clips has an error of some 12 %.
    assert np.mean(values) == pytest.approx(amplitude, rel=0.3)


def test_a_smooth_camera_does_not_shake() -> None:
    assert score("jitter", moving(MOVES["static"])).value < 0.1
    assert score("jitter", moving(MOVES["pan"])).value < 0.5
    assert (
        score("jitter", moving(lambda t: (300 + 6 * t * t, 520, 1.0, 0.0))).value < 0.6
    )  # The camera speeds up to 190 px a second.


def test_a_thing_that_moves_is_no_camera() -> None:
    thing = cv2.resize(world(), (400, 200))

    def seen(time: float) -> Image:
        shown = picture((700, 520, 1.0, 0.0))
        x = int(40 * time)
        shown[300:500, x : x + 300] = thing[:, :300]
        return shown

    assert CLASSES[int(score("camera", clip(seen)).value)] == "static"
    assert score("jitter", clip(seen)).value < 0.3


def faint(view: View, contrast: float = 0.2) -> Image:
    """A ground with little contrast, such as a wall or asphalt, seen by a camera."""
    return np.rint(110 + contrast * (picture(view).astype(np.float32) - 110)).astype(np.uint8)


def busy(time: float, of: Image) -> Image:
    """A thing that has most of the picture's edges, and moves to and fro over the middle of it."""
    shown = of.copy()
    x, y = 260 + round(90 * math.sin(2.3 * time)), 90 + round(60 * math.sin(3.1 * time + 1))
    shown[y : y + 260, x : x + 380] = world()[300:560, 400:780]
    return shown


@pytest.mark.parametrize("contrast", [0.18, 0.2])
def test_the_ground_is_the_cameras_and_not_what_has_the_most_edges(contrast: float) -> None:
    still = clip(lambda time: busy(time, faint((700, 520, 1.0, 0.0), contrast)))
    assert score("jitter", still).value < 0.5
    assert CLASSES[int(score("camera", still).value)] == "static"


def test_light_that_changes_is_no_motion() -> None:
    """An exposure that follows a bright thing makes all of the ground darker."""

    def seen(time: float) -> Image:
        shown = busy(time, faint((700, 520, 1.0, 0.0)))
        return np.clip(shown * (1 - 0.25 * (1 + math.sin(1.7 * time)) / 2), 0, 255).astype(np.uint8)

    assert score("jitter", clip(seen)).value < 0.5


@pytest.mark.parametrize("amplitude", [4.0, 12.0])
@pytest.mark.parametrize("over", [False, True], ids=["nothing else moves", "a busy thing moves"])
def test_the_shake_is_the_one_that_was_put_in(amplitude: float, over: bool) -> None:
    """Against the very errors that the camera was thrown by, and not against their expectation."""
    view = shaken(amplitude, 7)

    def seen(time: float) -> Image:
        ground = faint(view(time)) if over else picture(view(time))
        return busy(time, ground) if over else ground

    times = np.arange(15) + 0.25
    moved = np.array([np.subtract(view(t + 0.5)[:2], view(t)[:2]) for t in times])
    apart = moved[:-2] - 2 * moved[1:-1] + moved[2:]
    true = float(np.hypot(*apart.T).mean()) / math.sqrt(6 * math.pi)
    assert score("jitter", clip(seen)).value == pytest.approx(true, rel=0.25 if over else 0.05)


@pytest.mark.parametrize("name", ["camera", "camera_confidence", "jitter"])
def test_stored_samples_are_refused(name: str) -> None:
    (error,) = build(name, {}).measure([replace(moving(MOVES["static"]), motion=None)])
    assert isinstance(error, MeasureError)
    assert "scan only" in str(error)
