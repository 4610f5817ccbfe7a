"""The ground behind a figure that the camera follows, on films in which its place is known."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.curation.reading.grounds import ground_of
from tests.curation.reading.takes import PHOTOS, following, photo, seen, small, take, walker


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("speed", [0.3, -0.8])
def test_who_is_followed_does_not_belong_to_the_ground(seed: int, speed: float) -> None:
    """The coat is 13 columns of 128 wide and in rows 26 to 54 of 72; it sways by 5 columns."""
    ground = ground_of(small(following(PHOTOS, speed, 5, seed)))
    assert ground is not None
    middle = round(walker(seed).place / 2)
    assert ground[13:26, middle - 2 : middle + 3].mean() < 0.5
    away = np.delete(ground, np.arange(max(middle - 16, 0), middle + 17), axis=1)
    assert away.mean() >= 0.75


def test_all_of_a_picture_that_goes_by_is_ground() -> None:
    wall = np.concatenate([photo(name) for name in PHOTOS], axis=1)
    ground = ground_of(small([seen(wall, 100 + 6 * i, 108, 0.6, 0) for i in range(60)]))
    assert ground is not None
    assert ground.mean() > 0.85


def test_where_all_stays_there_is_no_ground() -> None:
    assert ground_of(small([take("coffee", 1)[0]] * 30)) is None


def test_half_a_second_is_too_little_to_say() -> None:
    assert ground_of(small(take("coffee", 0.5))) is None
