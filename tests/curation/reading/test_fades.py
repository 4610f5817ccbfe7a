"""Fades from and to black or white, on films that are made here. Their number and places on real film: `make bench-shots`."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.reading.fades import Fades
from tests.curation.reading.takes import RATE, SIZE, Pictures, cuts_of, take


def plain(seconds: float, level: int = 0) -> Pictures:
    return [np.full((SIZE[1], SIZE[0], 3), level, np.uint8)] * round(seconds * RATE)


def mixed(pictures: Pictures, shares: np.ndarray, level: int = 0) -> Pictures:
    """Each picture with its share over one of `level`."""
    return [
        np.asarray(cv2.addWeighted(picture, float(share), np.full_like(picture, level), 1 - float(share), 0), np.uint8)
        for picture, share in zip(pictures, shares, strict=True)
    ]


def risen(name: str, fade: float, seconds: float, level: int = 0) -> Pictures:
    """A take that comes up within `fade` seconds."""
    pictures = take(name, seconds)
    return mixed(pictures, np.clip((np.arange(len(pictures)) + 0.5) / (fade * RATE), 0, 1), level)


def reduced(pictures: Pictures) -> npt.NDArray[np.uint8]:
    """In grey, as `Fades` gets them."""
    return np.stack([cv2.resize(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), (32, 18)) for p in pictures]).astype(np.uint8)


@pytest.mark.parametrize("fade", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("waits", [0.5, 4.0])
def test_a_take_that_comes_up(fade: float, level: int, waits: float) -> None:
    """It is a cut, however long the black lasted, and however slow the fade is; all of the fade is left out, and
    of the take hardly more."""
    (cut,) = cuts_of(plain(waits, level) + risen("coffee", fade, fade + 4, level))
    assert waits - 0.8 <= cut.start <= waits + 0.1
    assert waits + fade - 0.15 <= cut.end <= waits + fade + 0.45


@pytest.mark.parametrize("fade", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("level", [0, 255])
def test_a_take_that_goes_down(fade: float, level: int) -> None:
    (cut,) = cuts_of(risen("astronaut", fade, fade + 4, level)[::-1] + plain(4, level))
    assert 3.6 <= cut.start <= 4.15
    assert 4 + fade - 0.15 <= cut.end <= 4 + fade + 0.95


def test_a_title_in_the_black_changes_nothing() -> None:
    pictures = [picture.copy() for picture in plain(3) + risen("coffee", 1.0, 5)]
    for picture in pictures:
        cv2.putText(picture, "a title", (10, 66), 0, 0.3, (200, 200, 200))
    (cut,) = cuts_of(pictures)
    assert 2.2 <= cut.start <= 3.1
    assert 3.85 <= cut.end <= 4.45


def test_what_is_no_fade() -> None:
    titled = plain(3)[0].copy()
    cv2.putText(titled, "A TITLE", (20, 40), 0, 0.7, (255, 255, 255))
    title = plain(2) + mixed([titled] * 12, np.linspace(0, 1, 12)) + [titled] * 24
    lamp = plain(2) + mixed(take("coffee", 3), np.clip(np.arange(36) / 2, 0, 1))
    for pictures in (title, lamp, plain(5), take("coffee", 5)):
        fades = Fades()
        fades.push(np.arange(len(pictures)) / RATE, reduced(pictures))
        assert not fades.verdicts(len(pictures)).any()


def test_verdicts_do_not_depend_on_how_the_film_is_dealt_out() -> None:
    pictures = plain(2) + risen("coffee", 3.0, 5) + risen("chelsea", 1.0, 3)[::-1] + plain(2)
    tiny = reduced(pictures)
    found = []
    for each in (7, 48, len(pictures)):
        fades, verdicts = Fades(), []
        for i, picture in enumerate(tiny):
            fades.push(np.array([i / RATE]), picture[None])
            known = len(verdicts) + each + 26
            if i + 1 == known:
                verdicts += fades.verdicts(each).tolist()
        verdicts += fades.verdicts(len(tiny) - len(verdicts)).tolist() if len(verdicts) < len(tiny) else []
        found.append(verdicts)
    assert found[0] == found[1] == found[2]
    assert sum(found[0]) >= 40


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.5, 4.0])
def test_black_that_ends_with_the_last_picture_that_is_known(seconds: float) -> None:
    """There is nothing yet, or never will be, that a fade could be told by."""
    pictures = plain(seconds) + take("coffee", 1)[:1]
    fades = Fades()
    fades.push(np.arange(len(pictures)) / RATE, reduced(pictures))
    assert not fades.verdicts(len(pictures)).any()
    cuts_of(pictures)


def test_cuts_that_touch_are_one() -> None:
    """A take goes down to black, and before the black is over, the next one is there at once."""
    pictures = risen("astronaut", 1.0, 4)[::-1] + plain(0.25) + take("coffee", 4)
    cuts = cuts_of(pictures)
    assert all(a.end < b.start for a, b in pairwise(cuts))
    assert cuts[0].start == pytest.approx(3.0, abs=0.2)
    assert cuts[-1].end == pytest.approx(4.25, abs=0.35)
