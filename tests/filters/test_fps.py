import math

import pytest

from longtake.filters.base import MeasureError, Probe, Score
from longtake.filters.fps import Fps


def test_the_average_rate_is_the_score() -> None:
    probe = Probe(width=1280, height=720, fps=24000 / 1001, duration=15.0)
    assert Fps().measure([probe]) == [Score(24000 / 1001, (24000 / 1001,))]
    assert Fps().protocol == "probe/average/mean"


@pytest.mark.parametrize("fps", [0.0, -25.0, math.nan, math.inf])
def test_no_rate_is_an_error(fps: float) -> None:
    (error,) = Fps().measure([Probe(width=1280, height=720, fps=fps, duration=15.0)])
    assert isinstance(error, MeasureError)
    assert "frame rate" in str(error)
