import math

import pytest

from longtake.filters.base import MeasureError, Probe, Score
from longtake.filters.fps import Fps, nominal_rate


def probe(fps: float) -> Probe:
    return Probe(width=1280, height=720, fps=fps, duration=15.0)


def test_the_nominal_rate_is_the_score() -> None:
    assert Fps().measure([probe(24000 / 1001)]) == [Score(24.0, (24.0,))]
    assert Fps().protocol == "probe/nominal/mean"


def test_the_average_rate_is_the_score_where_a_recipe_says_so() -> None:
    plain = Fps(nominal=False)
    assert plain.measure([probe(24000 / 1001)]) == [Score(24000 / 1001, (24000 / 1001,))]
    assert plain.protocol == "probe/average/mean"


@pytest.mark.parametrize(
    ("fps", "nominal"),
    [
        *((k * 1000 / 1001, k) for k in (12, 15, 24, 25, 30, 48, 50, 60, 120, 240)),
        (23.976, 24),
        (23.98, 24),  # Some containers round the rate like this.
        (29.97, 30),
        (59.94, 60),
        (60.0024, 60),  # The rate is measured over 25 s of whole milliseconds.
        (23.998, 24),
    ],
)
def test_rates_of_ntsc_and_rounded_ones_count_as_the_whole_number(fps: float, nominal: float) -> None:
    assert nominal_rate(fps) == nominal


@pytest.mark.parametrize("fps", [0.999, 5.994, 12.5, 22.7, 23.94, 23.5, 24.05, 59.9, 60.1, 17.3])
def test_any_other_rate_is_itself(fps: float) -> None:
    assert nominal_rate(fps) == fps


@pytest.mark.parametrize("fps", [0.0, -25.0, math.nan, math.inf])
def test_no_rate_is_an_error(fps: float) -> None:
    (error,) = Fps().measure([probe(fps)])
    assert isinstance(error, MeasureError)
    assert "frame rate" in str(error)
