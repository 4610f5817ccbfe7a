"""The distance of keyframes: in the protocol of what compares them, clip by clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.filters.base import Filter, Score
from longtake.filters.psnr import Psnr
from longtake.filters.ssim import Ssim
from tests.filters.pictures import crop, sample

FILTERS: list[type[Filter[Any]]] = [Psnr, Ssim]


def at(seconds: float, jitter: float = 0.0) -> Any:
    item = sample([crop(40 * i) for i in range(10)])
    return replace(item, times=np.arange(5) * seconds + jitter * np.array([0, 1, -1, 1, 1]))


@pytest.mark.parametrize("cls", FILTERS)
def test_each_score_is_stored_under_the_distance_it_was_measured_at(cls: type[Filter[Any]]) -> None:
    plain, long, nearly = cls().measure([at(3.0), at(5.8), at(3.0, jitter=0.1)])
    assert isinstance(plain, Score)
    assert isinstance(long, Score)
    assert isinstance(nearly, Score)
    assert plain.protocol is nearly.protocol is None  # The score has the protocol of the filter itself.
    assert "@3s" in cls().protocol
    assert long.protocol == cls().protocol.replace("@3s", "@5.8s")
    assert long.protocol == cls(spacing=5.8).protocol
    assert plain.value == long.value
    assert plain.standard_error is not None
    (anywhere,) = cls(spacing="any").measure([at(3.0)])
    assert isinstance(anywhere, Score)
    assert anywhere.protocol == cls().protocol


@pytest.mark.parametrize(
    ("splitting", "distance"),
    [
        ({}, "@3s"),
        ({"window_seconds": 10, "min_seconds": 10}, "@2s"),
        ({"longer": "trim"}, "@3s"),
        ({"longer": "faster"}, "@any"),
        ({"min_seconds": 5}, "@any"),
    ],
)
def test_a_recipe_knows_the_distance_in_its_windows(splitting: dict[str, Any], distance: str) -> None:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= splitting
    by = parse_recipe(data, source="a test")
    assert distance in by.built["psnr"].protocol
    assert distance in by.built["ssim"].protocol
    data["filters"]["psnr"] = {"spacing": 2.5}
    assert "@2.5s" in parse_recipe(data, source="a test").built["psnr"].protocol


def test_methods_that_differ_in_the_distance_only() -> None:
    settled = Psnr().settles
    assert settled("grey/x,neighbouring-keyframes@3s", "grey/x,neighbouring-keyframes@any")
    assert not settled("grey/y,neighbouring-keyframes@3s", "grey/x,neighbouring-keyframes@3s")
    assert not settled("grey/x,neighbouring-keyframes", "grey/x,neighbouring-keyframes@3s")
