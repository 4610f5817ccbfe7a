import math

import pytest

from longtake.filters.base import MeasureError, Probe, Score
from longtake.filters.duration import Duration


def test_the_length_is_the_score() -> None:
    assert Duration().measure([Probe(1280, 720, 24.0, 15.25)]) == [Score(15.25, (15.25,))]
    assert Duration().protocol == "probe/clip/mean"


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_no_length_is_an_error(seconds: float) -> None:
    (error,) = Duration().measure([Probe(1280, 720, 24.0, seconds)])
    assert isinstance(error, MeasureError)
    assert "length" in str(error)
