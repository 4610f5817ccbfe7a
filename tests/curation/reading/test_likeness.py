"""What the shot network is shown of pictures, against OpenCV's own search for a template."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.reading.likeness import Looks, found_again, look_at
from tests.curation.reading.takes import PHOTOS, RATE, take

Grey = npt.NDArray[np.uint8]


def looks_of(greys: list[Grey]) -> Looks:
    times = [i / RATE for i in range(len(greys))]
    return look_at(times, [cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8) for grey in greys])


def searched(looks: Looks, old: int, new: int) -> tuple[float, float]:
    """The mean and the lower quartile, block by block by `matchTemplate`."""
    before = looks.grey[old]
    wide = cv2.copyMakeBorder(looks.grey[new], 6, 6, 8, 8, cv2.BORDER_REPLICATE)
    best, weights = [], []
    for number, spread in enumerate(looks.blocks[old].tolist()):
        y, x = 12 * (number // 4), 16 * (number % 4)
        block, place = before[y : y + 12, x : x + 16], wide[y : y + 24, x : x + 32]
        flat = spread < 1
        best.append(1.0 if flat else float(cv2.matchTemplate(place, block, cv2.TM_CCOEFF_NORMED).max()))
        weights.append(min(spread, 12.0) + 0.1)
    return float(np.average(best, weights=weights)), sorted(best)[3]


@pytest.mark.parametrize("name", PHOTOS)
def test_blocks_are_found_as_by_a_search_of_each(name: str) -> None:
    pictures = [*take(name, 0.5, seed=1), *take(PHOTOS[0], 0.5, seed=2)]
    looks = look_at([i / RATE for i in range(len(pictures))], pictures)
    here = np.arange(4, len(looks))
    found = found_again(looks, here, (here - 1, here - 4))
    for lag, each in zip((1, 4), found, strict=True):
        expected = [searched(looks, i - lag, i) for i in here.tolist()]
        assert each == pytest.approx(np.array(expected), abs=1e-4)


def test_blocks_in_and_before_even_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (36, 64)).astype(np.uint8)
    even = [np.full((36, 64), level, np.uint8) for level in (0, 90, 255)]
    half = noise.copy()
    half[:, :32] = 200
    looks = looks_of([noise, *even, half, noise])
    here = np.arange(1, 6)
    (found,) = found_again(looks, here, (here - 1,))
    # A block is nowhere in an even picture; a block that is even itself cannot be recognised, and counts as found.
    assert found[0] == pytest.approx([0, 0], abs=1e-6)
    assert found[1:4] == pytest.approx(np.ones((3, 2)))
    assert found[4] == pytest.approx(searched(looks, 4, 5), abs=1e-4)
