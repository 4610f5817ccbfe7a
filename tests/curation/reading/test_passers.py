"""What passes before a scene, on films that are made here, against other takes that come and go."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from longtake.curation.reading.passers import passes
from longtake.curation.reading.stills import again, found_among
from longtake.filters.base import Image
from tests.curation.reading.takes import RATE, SIZE, Pictures, cuts_of, photo, small, take

START = 42  # The first picture in which something else is to be seen.
# From a share of the time to the part of the way that a passer has gone.
Way = Callable[[float], float]


def even(share: float) -> float:
    return share


def passed(
    scene: Pictures,
    thing: Image,
    count: int,
    *,
    soft: int = 0,
    body: bool = False,
    way: Way = even,
    behind: Pictures = (),
) -> Pictures:
    """`thing`, as high as the picture, passes from left to right in `count` pictures, with borders that are `soft` pixels wide
    and the outline of a body or a rectangle's; another scene `behind` it, if there is one."""
    high, wide = thing.shape[:2]
    y, x = np.mgrid[0:high, 0:wide] / np.array([high, wide])[:, None, None]
    shape = (np.abs(x - 0.5) < 0.3 + 0.2 * np.minimum(1.6 * y, 1)) if body else np.ones((high, wide))
    outline = np.pad(shape.astype(np.float32), ((0, 0), (2 * soft, 2 * soft)))
    outline = cv2.GaussianBlur(outline, (0, 0), soft) if soft else outline
    shown = cv2.copyMakeBorder(thing, 0, 0, 2 * soft, 2 * soft, cv2.BORDER_REPLICATE)
    out = [picture.copy() for picture in scene]
    for i in range(count):
        left = -shown.shape[1] + way((i + 0.5) / count) * (SIZE[0] + shown.shape[1])
        place = np.array([[1, 0, left], [0, 1, 0]], np.float32)
        share = cv2.warpAffine(outline, place, SIZE)[..., None]
        if behind:
            middle = max(0, round(left + shown.shape[1] / 2))
            out[START + i][:, :middle] = behind[START + i][:, :middle]
        there = out[START + i] * (1 - share) + cv2.warpAffine(shown, place, SIZE) * share
        out[START + i] = np.asarray(there, np.uint8)
    return out[: START + count] + list((behind or out)[START + count :])


def cloth(width: int, seed: int = 1) -> Image:
    """Stuff of folds, without anything in it."""
    folds = np.random.default_rng(seed).normal(110, 30, (6, max(3, width // 12), 3)).astype(np.float32)
    return np.clip(cv2.resize(folds, (width, SIZE[1]), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def part(name: str, width: int) -> Image:
    return np.asarray(cv2.resize(photo(name), (width, SIZE[1]), interpolation=cv2.INTER_AREA), np.uint8)


def slowed(share: float) -> float:
    """The way of something that stands for a fifth of the time where it fills the picture."""
    return 1.25 * min(share, 0.4) + 1.25 * max(share - 0.6, 0)


PASSERS: dict[str, Callable[[Pictures], Pictures]] = {
    "something with a pattern": lambda scene: passed(scene, part("coins", 150), 16),
    "something slow, as wide as the picture": lambda scene: passed(scene, part("coins", 128), 22),
    "a body": lambda scene: passed(scene, cloth(150), 18, body=True),
    "out of focus": lambda scene: passed(scene, cloth(150, 2), 16, soft=8),
    "quickly": lambda scene: passed(scene, cloth(150, 3), 9),
    "of one colour": lambda scene: passed(scene, np.full((SIZE[1], 150, 3), (60, 90, 40), np.uint8), 16),
    "faster and faster": lambda scene: passed(scene, cloth(160, 4), 18, way=lambda share: share**1.3),
    "upwards": lambda scene: upright(passed(upright(scene), turned(part("coins", 100)), 16)),
}


def upright(pictures: Pictures) -> Pictures:
    """Columns as rows, and rows as columns, of the same size."""
    return [np.asarray(cv2.resize(np.ascontiguousarray(p.transpose(1, 0, 2)), SIZE), np.uint8) for p in pictures]


def turned(picture: Image) -> Image:
    return np.asarray(cv2.resize(picture, (150, SIZE[1])), np.uint8)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "motorcycle_left"])
@pytest.mark.parametrize("passer", PASSERS)
def test_what_passes_and_hides_all_of_a_scene_is_no_cut(name: str, passer: str) -> None:
    assert cuts_of(PASSERS[passer](take(name, 8, seed=3))) == []


@pytest.mark.parametrize("passer", PASSERS)
def test_behind_what_passes_there_is_the_same_scene(passer: str) -> None:
    greys = small(PASSERS[passer](take("coffee", 8, seed=3)))
    times = [i / RATE for i in range(len(greys))]
    assert passes(times, greys, START - 1, START + 20)
    # The network may call a part of it a transition, from or to a picture that is hidden in part.
    assert passes(times, greys, START + 4, START + 8)


@pytest.mark.parametrize("other", ["astronaut", "chelsea"])
def test_another_scene_behind_what_passes_is_a_cut(other: str) -> None:
    scene = take("coffee", 8, seed=3)
    pictures = passed(scene, part("coins", 150), 16, behind=take(other, 8, seed=2))
    greys = small(pictures)
    assert not passes([i / RATE for i in range(len(greys))], greys, START - 1, START + 16)
    assert cuts_of(pictures)


def inserted(scene: Pictures, other: Pictures, draw: Callable[[Image, Image, int, int], Image], hold: int) -> Pictures:
    """`other` comes in over 8 pictures, is there for `hold`, and goes out over 8. draw: of both pictures and the columns up to
    which it has come and gone."""
    out = list(scene)
    for i in range(16 + hold):
        come, gone = (round(SIZE[0] * min(1, max(0, (i - k + 0.5) / 8))) for k in (0, 8 + hold))
        out[START + i] = draw(scene[START + i], other[i], come, gone)
    return out


def wiped(a: Image, b: Image, come: int, gone: int) -> Image:
    out = a.copy()
    out[:, gone:come] = b[:, gone:come]
    return out


def slid(a: Image, b: Image, come: int, gone: int) -> Image:
    out = a.copy()
    out[:, gone:come] = b[:, SIZE[0] - come :][:, : come - gone] if gone == 0 else b[:, : SIZE[0] - gone]
    return out


def dissolved(a: Image, b: Image, come: int, gone: int) -> Image:
    share = (come - gone) / SIZE[0]
    return np.asarray(cv2.addWeighted(a, 1 - share, b, share, 0), np.uint8)


@pytest.mark.parametrize("draw", [wiped, slid, dissolved])
@pytest.mark.parametrize("hold", [3, 8])
@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_another_take_that_comes_and_goes_the_same_way_is_a_cut(
    draw: Callable[[Image, Image, int, int], Image], hold: int, name: str
) -> None:
    pictures = inserted(take(name, 8, seed=3), take("astronaut", 3, seed=1), draw, hold)
    greys = small(pictures)
    times = [i / RATE for i in range(len(greys))]
    assert not passes(times, greys, START - 1, START + 16 + hold)
    assert cuts_of(pictures)


def test_something_that_stops_before_the_scene_is_not_known_to_be_no_take() -> None:
    greys = small(passed(take("coffee", 8, seed=3), part("coins", 140), 22, way=slowed))
    assert not passes([i / RATE for i in range(len(greys))], greys, START - 1, START + 22)


def test_a_plain_card_that_is_wiped_in_and_out_the_same_way_is_a_cut() -> None:
    card = [np.full((SIZE[1], SIZE[0], 3), (60, 90, 40), np.uint8)] * 40
    greys = small(inserted(take("coffee", 8, seed=3), card, wiped, 14))
    assert not passes([i / RATE for i in range(len(greys))], greys, START - 1, START + 30)


def test_a_scene_that_slides_in_over_an_earlier_moment_of_it_does_not_pass() -> None:
    # It hides the scene first on one side, but is there again everywhere at once.
    scene, later = take("coffee", 8, seed=3), take("coffee", 8, seed=3)
    out = list(scene)
    for i in range(16):
        come = round(SIZE[0] * (i + 0.5) / 16)
        out[START + i] = slid(scene[START + i], later[START + i], come, 0)
    greys = small(out)
    assert again(greys[START - 1], greys[START + 16]) > 0.75
    assert not passes([i / RATE for i in range(len(greys))], greys, START - 1, START + 16)


def test_nothing_before_the_scene_and_little_is_no_passer() -> None:
    scene = take("coffee", 8, seed=3)
    low = passed(scene, part("coins", 100), 16)
    for picture, kept in zip(low, scene, strict=True):
        picture[: SIZE[1] * 3 // 4] = kept[: SIZE[1] * 3 // 4]
    for pictures in (scene, low):
        greys = small(pictures)
        assert not passes([i / RATE for i in range(len(greys))], greys, START - 1, START + 16)
    assert not passes([0.0, 0.1], small(scene[:2]), 0, 1)


def test_the_scene_is_not_looked_for_further_away_than_some_seconds() -> None:
    greys = small(PASSERS["something with a pattern"](take("coffee", 8, seed=3)))
    times = [i / RATE for i in range(len(greys))]
    assert passes(times, greys, START + 4, START + 8)
    assert not passes([8 * time for time in times], greys, START + 4, START + 8)


def test_pictures_are_found_again_as_each_pair_alone_is() -> None:
    greys = small(take("coffee", 2, seed=3) + take("chelsea", 2, seed=1))
    before, after = [greys[0], greys[10], greys[30]], [greys[5], greys[40]]
    expected = [[min(again(a, b), again(b, a)) for b in after] for a in before]
    assert found_among(before, after) == pytest.approx(np.array(expected), abs=1e-5)
    black = np.zeros((36, 64), np.uint8)
    assert found_among([black, black], [black]).tolist() == [[0.0], [0.0]]
