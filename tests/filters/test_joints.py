"""Split screens of two pictures that stand still, and edges of a scene that are no joint."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.filters.base import Image
from longtake.filters.grayscale import grey
from longtake.filters.joints import joined
from longtake.filters.marks import seen
from tests.filters.pictures import as_jpeg, crop, noisy, photograph, resized

WIDTH, HEIGHT = 640, 360


def take() -> Image:
    return crop(1500, 200, WIDTH, HEIGHT)


def other() -> Image:
    return resized(photograph("immunohistochemistry"), WIDTH, HEIGHT)


def filmed(picture: Image) -> list[Image]:
    return [as_jpeg(noisy(picture, 1.5, i), 90) for i in range(10)]


@pytest.mark.parametrize(("axis", "place"), [(0, 250), (0, 120), (1, 320), (1, 250)])
def test_a_split_screen_of_two_tripod_shots_counts_by_its_smaller_part(axis: int, place: int) -> None:
    picture = take()
    side = (slice(place, None), slice(None)) if axis == 0 else (slice(None), slice(place, None))
    picture[side] = other()[side]
    found = seen([grey(frame) for frame in filmed(picture)])
    whole = picture.shape[axis]
    assert not found.known
    assert found.mask.mean() == pytest.approx(min(place, whole - place) / whole, abs=0.01)


@pytest.mark.parametrize("degrees", [0.1, 0.3, 1.0])
def test_an_edge_of_the_scene_that_leans_is_no_joint(degrees: float) -> None:
    table = 220 + np.arange(WIDTH) * np.tan(np.radians(degrees))
    cover = np.clip(np.arange(HEIGHT)[:, None] - table[None], 0, 1)[..., None]
    picture = np.rint(take() * (1 - cover) + (other() * 0.4 + 90) * cover).astype(np.uint8)
    assert not joined([grey(frame) for frame in filmed(picture)]).any()


def test_an_edge_that_something_stands_before_and_a_plain_ground_are_no_joints() -> None:
    picture = take()
    picture[250:, :] = other()[250:, :]
    picture[200:300, 80:280] = take()[200:300, 80:280]
    assert not joined([grey(frame) for frame in filmed(picture)]).any()
    plain = take()
    plain[250:] = 90
    assert not joined([grey(frame) for frame in filmed(plain)]).any()
    assert not joined([grey(frame) for frame in filmed(take())]).any()


@pytest.mark.parametrize("thick", [1, 2, 3])
def test_a_thin_line_of_the_scene_is_no_joint(thick: int) -> None:
    """A cutting mat has exact lines, and a camera above it sees them level."""
    picture = take()
    picture[:, 250 : 250 + thick] = 225
    assert not joined([grey(frame) for frame in filmed(picture)]).any()


def test_a_line_across_which_edges_go_on_is_no_joint() -> None:
    """A lens bends all lines of a chess board but those in its middle; there every square ends where the next one begins."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    right, down = x - WIDTH / 2 + 0.5, y - HEIGHT / 2 + 0.5
    bent = 1 + 0.05 * (right**2 + down**2) / (WIDTH / 2) ** 2
    squares = (np.floor(right * bent / 60) + np.floor(down * bent / 60)) % 2
    picture = np.repeat((40 + 120 * squares + take()[..., 0] * 0.5)[..., None], 3, axis=2)
    assert not joined([grey(frame) for frame in filmed(picture.astype(np.uint8))]).any()


def test_in_a_scene_that_moves_a_joint_stands_out_in_most_frames() -> None:
    """In their mean a strong edge of a single frame would do."""
    upper = [crop(1480 + 13 * i, 200 + i % 3, WIDTH, HEIGHT) for i in range(10)]
    below = resized(other(), WIDTH + 40, HEIGHT + 40)
    split, once = [], []
    for i, picture in enumerate(upper):
        lower = below[2 * i : 2 * i + HEIGHT, 3 * i : 3 * i + WIDTH]
        lighter = np.asarray(lower[180:] * 0.4 + 140, np.uint8)
        split.append(np.concatenate([picture[:180], lighter]))
        once.append(split[i] if i < 3 else picture)
    found = joined([grey(frame) for frame in split], moving=True)
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    assert not joined([grey(frame) for frame in once], moving=True).any()
