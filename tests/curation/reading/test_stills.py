"""Changes of a still picture, on films that are made here."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from longtake.curation.reading.cuts import Cut
from longtake.curation.reading.network_cuts import NetworkCuts
from longtake.curation.reading.shot_network import Matrix
from longtake.curation.reading.stills import (
    again,
    another,
    changes,
    comes_back,
    exposed,
    goes_on,
    kept,
    parted,
    relit,
    still_changes,
    toned,
)
from longtake.filters.base import Image
from tests.curation.reading.takes import RATE, SIZE, Pictures, cuts_of, photo, seen, small, take, with_person


def slide(seed: int, lines: int = 6, paper: Image | None = None) -> Image:
    """A page in a frame, with a heading and lines; each seed has its own lines."""
    rng = np.random.default_rng(seed)
    page = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    page[4:68, 16:112] = 245
    page[9:13, 50:78] = 40
    page = page if paper is None else paper.copy()
    for line in range(lines):
        left, width, height = int(rng.integers(22, 40)), int(rng.integers(20, 66)), int(rng.integers(2, 7))
        page[18 + 8 * line : 18 + 8 * line + height, left : left + width] = rng.integers(0, 190, 3)
    return page


def changed(pictures: Pictures) -> list[int]:
    greys = small(pictures)
    by = [0.0, *changes(np.stack(greys))]
    return np.nonzero(still_changes([i / RATE for i in range(len(greys))], greys, by))[0].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_another_slide_in_the_same_frame_is_a_cut(seed: int) -> None:
    pictures = [slide(seed)] * 30 + [slide(seed + 100)] * 30
    assert cuts_of(pictures) == [Cut(29 / RATE, 30 / RATE)]
    noise = np.random.default_rng(seed).normal(0, 2, (60, *pictures[0].shape))
    assert changed([np.clip(p + n, 0, 255).astype(np.uint8) for p, n in zip(pictures, noise, strict=True)]) == [30]


def test_what_is_added_to_a_slide_or_taken_away_is_no_cut() -> None:
    lines = [slide(1, count) for count in (2, 4, 6)]
    pictures = [page for page in (*lines, *lines[::-1]) for _ in range(20)]
    assert changed(pictures) == []


def test_a_picture_over_less_than_half_of_a_still_scene_is_no_cut() -> None:
    scene = take("coffee", 0.1)[0]
    covered = scene.copy()
    covered[42:] = photo("astronaut")[100:130, 100:228]
    assert changed([scene] * 30 + [covered] * 30 + [scene] * 30) == []


def test_light_and_a_jerk_are_no_cuts() -> None:
    scene = photo("motorcycle_left")
    here, there = scene[50:122, 100:228], scene[58:130, 112:240]
    dimmed = np.asarray(cv2.convertScaleAbs(here, alpha=0.6), np.uint8)
    assert changed([here] * 30 + [dimmed] * 30) == []
    assert changed([here] * 30 + [there] * 30) == []


def test_a_film_of_few_pictures_shown_often_has_no_cuts() -> None:
    """A pan at two pictures a second."""
    pictures = [picture for picture in take("coffee", 8, rate=2) for _ in range(6)]
    assert changed(pictures) == []


def test_moving_takes_are_left_to_the_network() -> None:
    assert changed(take("coffee", 3) + take("chelsea", 3)) == []


def test_next_to_nothing_in_the_picture() -> None:
    black = np.zeros((36, 64), np.uint8)
    assert not another(black, black)
    (page,) = small([slide(1)])
    assert not another(black, page)
    assert kept(black, page) is None
    assert goes_on([black, black + 2])
    assert not goes_on([black, page])
    assert not still_changes([0.0, 1.0, 2.0], [black, black + 90, black], [0.0, 90.0, 90.0]).any()


def passed(pictures: Pictures, start: int, count: int, width: int) -> Pictures:
    """Something large passes from left to right."""
    out = [picture.copy() for picture in pictures]
    for i in range(count):
        left = round(-width + (i + 1) / (count + 1) * (SIZE[0] + width))
        out[start + i][16:60, max(left, 0) : max(left + width, 0)] = (200, 220, 210)
    return out


def test_a_scene_goes_on_behind_what_passes_or_pops_up_or_shakes_it() -> None:
    still = [photo("motorcycle_left")[50:122, 100:228]] * 20
    covered = still[0].copy()
    covered[44:] = photo("astronaut")[100:128, 100:228]
    moved = photo("motorcycle_left")[54:126, 110:238]
    assert goes_on(small([still[0], covered]))
    assert goes_on(small([still[0], moved]))
    assert goes_on(small(passed(still, 2, 16, 40)[::4]))


def test_a_scene_does_not_go_on_where_another_one_stands_between() -> None:
    a, b = (photo(name)[50:122, 100:228] for name in ("motorcycle_left", "astronaut"))
    assert not goes_on(small([a, b, a]))
    assert not goes_on(small([a, b]))


class Suspicious(NetworkCuts):
    """As if the networks found a cut, or a transition, at some pictures; second: what the second one found, if not the same."""

    def __init__(
        self, cuts: dict[int, float], transitions: dict[int, float], second: dict[int, float] | None = None
    ) -> None:
        super().__init__()
        self.answers = cuts, transitions, transitions if second is None else second

    def _likely(self, numbers: Matrix) -> Matrix:
        found = np.zeros((len(numbers), 3), np.float32)
        for column, known in enumerate(self.answers):
            for i, likely in known.items():
                found[i, column] = likely
        return found


@pytest.mark.parametrize(("likely", "count"), [(0.9, 0), (0.96, 1)])
def test_where_the_scene_goes_on_the_network_has_to_be_sure(likely: float, count: int) -> None:
    scene = photo("motorcycle_left")[50:122, 100:228]
    covered = scene.copy()
    covered[44:] = photo("astronaut")[100:128, 100:228]
    detector = Suspicious({20: likely}, {})
    assert len(cuts_of([scene] * 20 + [covered] * 20, detector)) == count
    assert detector.doubt(0, 4) == pytest.approx(likely if count else NetworkCuts.LEFT)


def test_what_passes_is_no_transition_however_sure_the_network_is() -> None:
    pictures = passed([photo("motorcycle_left")[50:122, 100:228]] * 40, 10, 20, 40)
    detector = Suspicious({}, dict.fromkeys(range(10, 30), 0.99))
    assert cuts_of(pictures, detector) == []


def suspected(pictures: Pictures, cuts: dict[int, float], transition: range) -> list[Cut]:
    """The cuts that are left of what the network suspects."""
    detector = Suspicious(cuts, dict.fromkeys(transition, 0.99))
    return cuts_of(pictures, detector)


def test_what_the_first_network_says_alone_counts_where_a_still_scene_is_gone() -> None:
    still, other = [photo("chelsea")[50:122, 100:228]] * 72, take("astronaut", 6, seed=2)
    said = dict.fromkeys(range(28, 38), 0.99)
    for pictures, by_first in ((still[:33] + other[33:], 1), (still, 0)):
        for transitions, second, count in ((said, {}, by_first), (dict.fromkeys(said, 0.15), said, 0)):
            detector = Suspicious({}, transitions, second)
            assert len(cuts_of(pictures, detector)) == count
            left = NetworkCuts.LEFT if transitions is said else (0.99 + 0.15) / 2
            assert detector.doubt(0, 6) == pytest.approx(0.99 if count else left)
    moving = take("chelsea", 6, seed=4)
    assert cuts_of(moving[:33] + other[33:], Suspicious({}, said, {})) == []


def slowly(pictures: Pictures, detector: NetworkCuts) -> list[Cut]:
    """The cuts of eight pictures a second."""
    return [cut for i, picture in enumerate(pictures) for cut in detector.push(i / 8, picture)] + detector.finish()


@pytest.mark.parametrize(("pictures", "count"), [(46, 1), (50, 0), (58, 0)])
def test_what_lasts_longer_than_a_transition_is_none(pictures: int, count: int) -> None:
    """A dissolve into another scene, so that nothing else says so; the longest one lasts for 48 pictures."""
    shares = np.clip((np.arange(72) - 6) / pictures, 0, 1)
    scenes = zip(take("chelsea", 6, seed=4), take("astronaut", 6, seed=2), shares, strict=True)
    film = [np.asarray(cv2.addWeighted(a, 1 - share, b, share, 0), np.uint8) for a, b, share in scenes]
    detector = Suspicious({}, dict.fromkeys(range(6, 6 + pictures), 0.99))
    assert len(slowly(film, detector)) == count
    assert detector.doubt(0, 20) == pytest.approx(0.99 if count else NetworkCuts.LEFT)


def test_a_hard_cut_counts_within_what_lasts_too_long() -> None:
    film = take("chelsea", 5, seed=4) + take("astronaut", 1, seed=2)
    cuts = slowly(film, Suspicious({60: 0.99}, dict.fromkeys(range(2, 70), 0.99)))
    assert [(cut.start, cut.end) for cut in cuts] == [(59 / 8, 60 / 8)]


def test_in_black_and_where_a_fade_is_known_the_second_network_is_not_heard() -> None:
    black = [np.zeros_like(take("coffee", 0.1)[0])] * 30
    shares = np.clip(np.arange(60) / 12, 0, 1)
    risen = [np.asarray(p * share, np.uint8) for p, share in zip(take("coffee", 5, seed=2), shares, strict=True)]
    silent, loud = (Suspicious({}, {}, dict.fromkeys(said, 0.99)) for said in (range(0), range(60)))
    assert cuts_of(black + risen, loud)[0].start == cuts_of(black + risen, silent)[0].start


def stepped(pictures: Pictures, start: int, levels: float) -> Pictures:
    """The exposure changes within four pictures; what is too light is white."""
    shares = [min(1.0, max(0.0, (i - start) / 4)) for i in range(len(pictures))]
    return [np.clip(p + levels * share, 0, 255).astype(np.uint8) for p, share in zip(pictures, shares, strict=True)]


@pytest.mark.parametrize("name", ["coffee", "chelsea", "motorcycle_left"])
@pytest.mark.parametrize("levels", [115, -90])
def test_a_step_of_exposure_in_a_take_that_moves_is_no_transition(name: str, levels: float) -> None:
    pictures = stepped(take(name, 6, seed=5), 16, levels)
    assert suspected(pictures, {}, range(15, 24)) == []
    other = stepped(take("astronaut", 6, seed=2), 16, levels)
    shares = np.clip((np.arange(72) - 15) / 9, 0, 1)
    mixed = [
        np.asarray(cv2.addWeighted(a, 1 - share, b, share, 0), np.uint8)
        for a, b, share in zip(pictures, other, shares, strict=True)
    ]
    assert suspected(mixed, {}, range(15, 24))


def test_the_same_in_another_exposure() -> None:
    before, after = take("coffee", 3, seed=5)[8:20:11]
    lighter = np.clip(after + 115.0, 0, 255).astype(np.uint8)
    assert exposed(*small([before, lighter]))
    assert not exposed(*small([before, after]))
    assert not exposed(*small([before, np.clip(take("astronaut", 1)[0] + 115.0, 0, 255).astype(np.uint8)]))
    for level in (0, 120, 255):
        assert not exposed(*small([before, np.full_like(before, level)]))
        assert not exposed(*small([np.full_like(before, level), before]))


def test_what_comes_back_after_a_moment_is_no_transition_but_another_take_between_is_one() -> None:
    pictures = take("chelsea", 6, seed=4)
    grey = [cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for p in pictures]
    gone = pictures[:30] + [np.asarray(g // 2 + 100, np.uint8) for g in grey[30:]]
    assert suspected(gone, {}, range(30, 36)) == []
    passing = passed(pictures, 28, 10, 60)
    assert comes_back(small(passing[26:40:3]))
    assert suspected(passing, {}, range(28, 39)) == []
    other = take("astronaut", 6, seed=2)
    shares = np.clip(np.minimum(np.arange(72) - 27, 44 - np.arange(72)) / 5, 0, 1)
    between = [
        np.asarray(cv2.addWeighted(a, 1 - share, b, share, 0), np.uint8)
        for a, b, share in zip(pictures, other, shares, strict=True)
    ]
    assert not comes_back(small(between[26:46:3]))
    assert suspected(between, {}, range(28, 44))


def test_a_jump_within_a_take_is_a_cut_though_the_scene_comes_back() -> None:
    # A jump differs from a jerk of the camera by what moved in the scene meanwhile.
    pictures = [with_person(picture, 4 + i) for i, picture in enumerate(take("coffee", 8, seed=7))]
    jumped = pictures[:30] + pictures[43:80]
    assert comes_back(small([jumped[29], jumped[30]]))
    assert not goes_on(small([jumped[29], jumped[30]]))
    assert suspected(jumped, {30: 0.7}, range(0)) == [Cut(29 / RATE, 30 / RATE)]


def lit(picture: Image) -> Image:
    """With a lamp on, at the left of the scene."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    lamp = np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / (2 * 35**2))[..., None]
    return np.asarray(np.clip(picture * (0.5 + 0.8 * lamp) + 40 * lamp, 0, 255), np.uint8)


@pytest.mark.parametrize("frames", [2, 6, 20])
def test_a_lamp_or_a_flash_on_a_part_of_the_scene_is_no_cut_however_sure_the_network_is(frames: int) -> None:
    scene = photo("motorcycle_left")[50:122, 100:228]
    pictures = [lit(scene) if 20 <= i < 20 + frames else np.asarray(scene * 0.5, np.uint8) for i in range(60)]
    detector = Suspicious({20: 0.99, 20 + frames: 0.99}, {})
    assert cuts_of(pictures, detector) == []


def test_another_light_on_another_scene_and_a_jump_under_one_light_are_no_light_that_is_switched_on() -> None:
    scene, another_one = (photo(name)[50:122, 100:228] for name in ("motorcycle_left", "astronaut"))
    jump = scene.copy()
    jump[20:60, 60:100] = scene[24:64, 40:80]
    assert relit(*small([np.asarray(scene * 0.5, np.uint8), lit(scene)]))
    assert not relit(*small([np.asarray(scene * 0.5, np.uint8), lit(another_one)]))
    assert not relit(*small([scene, jump]))
    assert not relit(*small([scene, scene]))
    assert not relit(*small([np.zeros_like(scene), lit(scene)]))


def blacked(pictures: Pictures, start: int, count: int) -> Pictures:
    return [np.zeros_like(p) if start <= i < start + count else p for i, p in enumerate(pictures)]


def barred(pictures: Pictures) -> Pictures:
    """With the bars of a wide film."""
    out = [picture.copy() for picture in pictures]
    for picture in out:
        picture[:9] = picture[-9:] = 0
    return out


@pytest.mark.parametrize("name", ["coffee", "chelsea", "motorcycle_left"])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_moment_of_black_in_a_moving_take_is_no_cut(name: str, count: int) -> None:
    pictures = take(name, 8, seed=3)
    assert cuts_of(blacked(pictures, 48, count)) == []
    assert cuts_of(blacked(barred(pictures), 48, count)) == []


def strobed(pictures: Pictures, start: int, count: int, plain: int, period: int, level: int) -> Pictures:
    """Of each `period` pictures the first `plain` ones are black or white."""
    hidden = [start <= i < start + count and (i - start) % period < plain for i in range(len(pictures))]
    return [np.full_like(p, level) if hides else p for p, hides in zip(pictures, hidden, strict=True)]


@pytest.mark.parametrize("name", ["coffee", "chelsea", "motorcycle_left"])
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize(("plain", "period"), [(1, 2), (1, 3), (2, 3), (3, 6), (5, 8)])
def test_a_strobe_of_black_or_white_is_no_cut_unless_there_is_another_take_behind_it(
    name: str, level: int, plain: int, period: int
) -> None:
    one, other = take(name, 10, seed=3), take("astronaut", 10, seed=2)
    assert cuts_of(strobed(one, 48, 26, plain, period, level)) == []
    assert cuts_of(strobed(one[:60] + other[60:], 48, 26, plain, period, level))


def test_what_shows_nothing_is_no_other_scene_behind_black() -> None:
    one, other = (small(take(name, 1, seed=2))[0] for name in ("coffee", "astronaut"))
    black, dark = np.zeros_like(one), np.asarray(one // 24, np.uint8)
    for behind, expected in ((other, True), (one, False), (dark, False)):
        greys = [one, black, one, black, behind]
        empty = np.array([False, True, False, True, False])
        assert parted([0, 0.1, 0.2, 0.3, 0.4], greys, empty).tolist() == [False] * 4 + [expected]
        # The black lasts too long, another blink is too far away, or there is none.
        assert not parted([0, 0.1, 0.2, 0.8, 0.9], greys, empty).any()
        assert not parted([0, 0.1, 0.2, 0.3, 0.4], greys, empty & [False, False, False, True, False]).any()
        assert not parted(
            [0, 0.1, 0.2, 0.9, 1.0, 1.1], [one, black, one, one, black, behind], np.arange(6) % 3 == 1
        ).any()
        assert not parted([0, 0.1], [one, behind], np.zeros(2, bool)).any()


def test_a_flash_that_hides_a_rush_of_the_camera_is_no_cut() -> None:
    pictures = take("motorcycle_left", 6, seed=3)
    rushed = [seen(one, SIZE[0] / 2, SIZE[1] / 2, 1.8, 0) for one in pictures]
    assert cuts_of(strobed(pictures[:60] + rushed[60:], 59, 2, 2, 2, 255)) == []


@pytest.mark.parametrize("prepared", [list, barred])
def test_black_between_two_takes_is_a_cut_however_short(prepared: Callable[[Pictures], Pictures]) -> None:
    for first, second in (("coffee", "astronaut"), ("chelsea", "coffee"), ("astronaut", "motorcycle_left")):
        pictures = prepared(take(first, 4, seed=1) + take(second, 4, seed=2))
        assert cuts_of(blacked(pictures, 48, 3))


def test_a_second_of_black_is_a_cut() -> None:
    assert cuts_of(blacked(take("coffee", 8, seed=3), 48, 12))


def test_another_take_for_a_moment_is_a_cut() -> None:
    pictures = take("coffee", 8, seed=3)
    pictures[48:51] = take("astronaut", 1, seed=1)[:3]
    assert cuts_of(pictures)


def test_blocks_out_of_place_for_a_moment_are_no_cut() -> None:
    pictures = take("coffee", 8, seed=3)
    for i in (48, 49):
        high, wide = SIZE[1] // 6, SIZE[0] // 8
        blocks = pictures[i].reshape(6, high, 8, wide, 3).transpose(0, 2, 1, 3, 4).reshape(48, high, wide, 3)
        moved = blocks[np.random.default_rng(1).permutation(48)].reshape(6, 8, high, wide, 3)
        pictures[i] = np.ascontiguousarray(moved.transpose(0, 2, 1, 3, 4).reshape(SIZE[1], SIZE[0], 3))
    assert cuts_of(pictures) == []


def test_what_is_found_again() -> None:
    a, b = (small(take(name, 1, seed=2)) for name in ("coffee", "astronaut"))
    assert again(a[0], a[6]) > 0.75
    assert again(a[0], b[0]) < 0.6
    dark = np.zeros((36, 64), np.uint8)
    assert again(dark, dark) == 0
    (c,), (d,) = small(barred(take("coffee", 0.1))), small(barred(take("astronaut", 0.1)))
    assert again(c, d) < 0.6


def test_a_curve_leads_from_a_scene_to_the_same_in_another_light_only() -> None:
    scene, other = (photo(name)[50:122, 100:228] for name in ("motorcycle_left", "astronaut"))
    lighter, other_lighter = (
        np.asarray(cv2.add(picture, np.full_like(picture, 70)), np.uint8) for picture in (scene, other)
    )
    assert toned(*small([scene, lighter]))
    assert not toned(*small([scene, other_lighter]))
    assert not toned(*small([scene, scene]))
    assert not toned(*small([scene, np.full_like(scene, 255)]))
