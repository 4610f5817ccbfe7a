"""The shot network on thumbnails of films whose joints are known. Its measured quality on real film: `make bench-shots`."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.curation.reading.cuts import Cut
from longtake.curation.reading.likeness import NUMBERS
from longtake.curation.reading.network_cuts import NetworkCuts
from longtake.curation.reading.shot_network import REACH, judge
from tests.curation.reading import takes
from tests.curation.reading.takes import JOINTS, PHOTOS, RATE, SIZE, Pictures, cuts_of, joined, take


@pytest.mark.parametrize("seed", range(3))
def test_hard_cuts(seed: int) -> None:
    pieces = [take(name, 2.5, seed + i) for i, name in enumerate(PHOTOS)]
    pictures = [picture for piece in pieces for picture in piece]
    starts = [2.5 * i for i in (1, 2, 3)]
    assert cuts_of(pictures) == [Cut(start - 1 / RATE, start) for start in starts]
    assert len(cuts_of(takes.grey(pictures))) == 3


@pytest.mark.parametrize("joint", JOINTS)
@pytest.mark.parametrize("seconds", [0.5, 1.0])
def test_a_transition_is_left_out_whole(joint: str, seconds: float) -> None:
    (cut,) = cuts_of(joined(JOINTS[joint], seconds, seed=3))
    margin = 3 / 24  # Seconds that `trim_frames` leaves out, too.
    assert cut.start > 3.1
    assert cut.start - margin <= 4.5
    assert 4.5 + seconds <= cut.end + margin < 6.3 + seconds


@pytest.mark.parametrize("joint", sorted(set(JOINTS) - {"squeeze"}))
@pytest.mark.parametrize("seconds", [2.5, 3.5])
def test_a_slow_transition_is_left_out_whole(joint: str, seconds: float) -> None:
    """A squeeze of three seconds is not: in its first one the picture is only a little narrower."""
    (cut,) = cuts_of(joined(JOINTS[joint], seconds, seed=3))
    margin = 3 / 24
    assert 3.1 < cut.start - margin <= 4.5
    assert 4.5 + seconds <= cut.end + margin < 6.1 + seconds


def crossed(pictures: Pictures, other: Pictures, width: int, seconds: float) -> Pictures:
    """Something as high as the picture, that shows `other`, passes from the left to the right, from second 4 on."""
    out, count = [picture.copy() for picture in pictures], round(seconds * RATE)
    for i in range(count):
        left = round(-width + (i + 0.5) / count * (SIZE[0] + width))
        inside = slice(max(left, 0), min(left + width, SIZE[0]))
        out[48 + i][:, inside] = other[48 + i][:, inside.start - left : inside.stop - left]
    return out


@pytest.mark.parametrize(
    ("name", "width", "seconds"), [("chelsea", 90, 0.8), ("chelsea", 90, 1.5), ("coffee", 128, 1.5)]
)
def test_what_passes_in_front_of_the_camera_is_no_cut(name: str, width: int, seconds: float) -> None:
    pictures, other = take(name, 10, seed=3), take("astronaut", 10, seed=7)
    assert cuts_of(crossed(pictures, other, width, seconds)) == []


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(
    "trouble",
    ["nothing", "flash 1", "flash 2", "flash 4", "strobe", "exposure", "shake", "pop-up", "dark"],
)
def test_what_is_no_cut(name: str, trouble: str) -> None:
    pictures, at = take(name, 8, seed=5), 48
    kind, _, count = trouble.partition(" ")
    if kind == "flash":
        pictures = takes.flash(pictures, at, int(count))
    elif kind == "strobe":
        pictures = takes.strobe(pictures, at, 12)
    elif kind == "exposure":
        pictures = takes.exposure(pictures, at)
    elif kind == "shake":
        pictures = takes.shake(pictures, at, 18)
    elif kind == "pop-up":
        pictures = takes.pop_up(pictures, at)
    elif kind == "dark":
        pictures = takes.dark(pictures, 1)
    assert cuts_of(pictures) == []


def test_doubt_is_high_around_a_cut_and_low_elsewhere() -> None:
    detector = NetworkCuts()
    cuts_of(take("chelsea", 5, 1) + take("coffee", 5, 2), detector)
    assert detector.doubt(4, 6) > 0.7
    assert detector.doubt(0, 4.9) < 0.5
    assert detector.doubt(5, 10) < 0.5  # The cut lies between two pictures, one of which is not within the span.
    detector.forget(5)
    assert detector.doubt(0, 5) == 0


def test_verdicts_do_not_depend_on_how_the_film_is_dealt_out() -> None:
    """A window with `REACH` pictures to both sides is judged as the whole is."""
    numbers = np.random.default_rng(0).normal(0.3, 0.3, (3 * REACH, NUMBERS)).astype(np.float32)
    whole = judge(numbers)
    assert whole.shape == (3 * REACH, 3)
    np.testing.assert_allclose(judge(numbers[REACH // 2 :])[REACH:], whole[REACH // 2 + REACH :], atol=1e-5)
