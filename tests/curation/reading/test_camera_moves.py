"""Fast moves of the camera, on films that are made here, against pushes and other transitions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest

from longtake.curation.reading.camera_moves import moved, moves_on
from longtake.curation.reading.pushes import pushed
from longtake.curation.reading.stills import Grey
from longtake.filters.base import Image
from tests.curation.reading.takes import (
    JOINTS,
    PHOTOS,
    RATE,
    SIZE,
    Pictures,
    cuts_of,
    following,
    joined,
    photo,
    seen,
    small,
)

START, LASTS = (
    36,
    5,
)  # Pictures: a move begins at the first number and takes as many as the second, under half a second.


Move = Callable[
    [float], tuple[float, float, float, float]
]  # From the share of the move that is done to place, zoom and turn.
MOVES: dict[str, Move] = {
    "turn": lambda share: (192, 108, 0.7 + 0.5 * np.sin(np.pi / 2 * share), 90 * share),
    "whip": lambda share: (90 + 170 * share, 108 + 25 * share, 1, 0),
    "swing": lambda share: (250 - 140 * share, 130 - 40 * share, 1, 8 * share),
    "zoom": lambda share: (192, 108, 0.5 * 2.6**share, 0),
    "zoom out": lambda share: (192, 108, 1.2 / 2.4**share, 0),
}


def filmed(name: str, move: Move, seconds: float = 7, seed: int = 4) -> Pictures:
    """A hand-held take with a fast move from `START` on, which begins and ends softly."""
    tremor, pictures = np.random.default_rng(seed).uniform(0, 6.28, 2), []
    for i in range(round(seconds * RATE)):
        share = min(1.0, max(0.0, (i - START) / LASTS))
        x, y, zoom, turn = move(share * share * (3 - 2 * share))
        pictures.append(seen(photo(name), x + 2 * np.sin(i / 3 + tremor[0]), y + np.sin(i / 2 + tremor[1]), zoom, turn))
    return pictures


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("move", MOVES)
def test_a_fast_move_of_the_camera_is_no_cut(name: str, move: str) -> None:
    assert cuts_of(filmed(name, MOVES[move])) == []


@pytest.mark.parametrize("name", [name for name in PHOTOS if name != "chelsea"])
@pytest.mark.parametrize("seconds", [2, 4])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_camera_that_walks_on_is_no_push(name: str, seconds: float, side: int) -> None:
    """It comes nearer, and to one side by as much as the picture is wide, as a push does; from rest to rest. Fur
    shows too little from near to be followed."""
    pictures, wall = [], cv2.resize(photo(name), None, fx=1.6, fy=1.6)
    for i in range(round((seconds + 4) * RATE)):
        share = min(1.0, max(0.0, (i / RATE - 2) / seconds))
        share = share * share * (3 - 2 * share)
        x = wall.shape[1] / 2 + side * 60 * share + np.sin(i / 3)
        pictures.append(seen(wall, x, wall.shape[0] / 2 + np.sin(i / 2.3), 1 + 2 * share, 0))
    assert cuts_of(pictures) == []


def test_a_camera_that_walks_along_with_somebody_makes_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these films have a cut where the ground is not told from who is followed; else they would show nothing."""
    films = [following(PHOTOS, speed, 8, seed) for speed in (0.5, 0.7, -1.2) for seed in range(5)]
    assert sum(bool(cuts_of(film)) for film in films) <= 1
    monkeypatch.setattr("longtake.curation.reading.camera_moves.ground_of", lambda _: None)
    assert sum(bool(cuts_of(film)) for film in films) >= 8


@pytest.mark.parametrize("joint", [joint for joint in JOINTS if joint != "slide"])
def test_a_transition_from_one_followed_person_to_another_is_a_cut(joint: str) -> None:
    """But a push, which is one more move of the ground among others."""
    a, b, start = following(PHOTOS[:2], 0.3, 8, 1), following(PHOTOS[2:], -0.2, 8, 51), 42
    mixed = [JOINTS[joint](a[start + i], b[start + i], (i + 0.5) / RATE) for i in range(RATE)]
    found = cuts_of(a[:start] + mixed + b[start + RATE :])
    assert any(cut.start < (start + RATE) / RATE and cut.end > start / RATE for cut in found)


def test_fast_moves_are_told_by_this_rule_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the films above have a cut without it; else they would show nothing."""
    monkeypatch.setattr("longtake.curation.reading.network_cuts.moves_on", lambda *_: False)
    assert sum(bool(cuts_of(filmed(name, move))) for name in PHOTOS for move in MOVES.values()) >= 8


@pytest.mark.parametrize("joint", JOINTS)
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.5])
def test_a_transition_between_two_takes_is_no_move(joint: str, seconds: float) -> None:
    pictures = small(joined(JOINTS[joint], seconds, seed=3))
    first = round(4.5 * RATE)
    assert not moves_on(pictures, first - 2, first + round(seconds * RATE) + 1, may_be_push=True)


def push(a: Image, b: Image, share: float, side: int, back: bool) -> Image:
    """b comes in behind a, from the right or from below, or from the other side."""
    first, second = (b, a) if back else (a, b)
    at = round((1 - share if back else share) * SIZE[side])
    both = np.concatenate([first, second], axis=1 - side)
    return both[:, at : at + SIZE[0]] if side == 0 else both[at : at + SIZE[1]]


@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("eased", [False, True])
def test_a_push_is_a_cut(seconds: float, side: int, back: bool, eased: bool) -> None:
    def drawn(a: Image, b: Image, share: float) -> Image:
        return push(a, b, share * share * (3 - 2 * share) if eased else share, side, back)

    pictures = joined(drawn, seconds, seed=3)
    first = round(4.5 * RATE)
    assert not moves_on(small(pictures), first - 2, first + round(seconds * RATE) + 2, may_be_push=True)
    assert len(cuts_of(pictures)) == 1


def panned(name: str, by: float) -> list[Grey]:
    """A pan by a share of the width of the picture, with some pictures before and after it."""
    pictures = filmed(name, lambda share: (100 + by * SIZE[0] * share, 108, 1, 0))
    return small(pictures)[START - 6 : START + LASTS + 6]


def test_a_pan_by_one_picture_has_no_seam_and_another_one_is_no_push() -> None:
    """By one picture it is a push in all but the seam; where an edge of the scene looks like one, it counts as a push."""
    found = {}
    for by in (0.6, 1.0):
        films = [panned(name, by) for name in PHOTOS]
        found[by] = [pushed(film, [moved(a, b).shift for a, b in pairwise(film)]) for film in films]
    assert sum(found[0.6]) == 0
    assert sum(found[1.0]) <= 1


def test_a_fade_to_a_plain_picture_is_no_move() -> None:
    scene = small([photo("coffee")[50:122, 100:228]])[0]
    faded = [np.asarray(np.clip(128 + (scene - 128.0) * share, 0, 255), np.uint8) for share in np.linspace(1, 0.1, 12)]
    assert not moves_on(faded, 0, 11, may_be_push=False)
    assert not moves_on([scene, np.full_like(scene, 128)], 0, 1, may_be_push=False)


@pytest.mark.parametrize(
    ("right", "below", "zoom", "turn"),
    [(0, 0, 1, 0), (22, 0, 1, 0), (-9, 14, 1, 0), (4, 2, 1.25, 0), (3, 0, 1, -20), (0, 5, 0.8, 15)],
)
def test_how_a_picture_is_found_in_the_next_one(right: float, below: float, zoom: float, turn: float) -> None:
    board = photo("coffee")
    before, after = small([seen(board, 180, 100, 1, 0), seen(board, 180 + 2 * right, 100 + 2 * below, zoom, turn)])
    found = moved(before, after)
    assert found.alike > 0.85
    np.testing.assert_allclose(found.shift, (right, below), atol=2.5)
    size = float(np.sqrt(np.linalg.det(found.where[:2, :2])))
    assert size == pytest.approx(1 / zoom, abs=0.08)
    assert np.degrees(np.arctan2(found.where[1, 0], found.where[0, 0])) == pytest.approx(turn, abs=4)
