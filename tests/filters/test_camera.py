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


@pytest.mark.parametrize("name", ["camera", "camera_confidence", "jitter"])
def test_stored_samples_are_refused(name: str) -> None:
    (error,) = build(name, {}).measure([replace(moving(MOVES["static"]), motion=None)])
    assert isinstance(error, MeasureError)
    assert "scan only" in str(error)
