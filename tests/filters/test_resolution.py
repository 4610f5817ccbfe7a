import pytest

from longtake.filters.base import MeasureError, Probe, Score
from longtake.filters.resolution import Height, Width

PROBE = Probe(width=1280, height=720, fps=24.0, duration=15.0)


def test_the_displayed_size_is_the_score() -> None:
    assert Width().measure([PROBE]) == [Score(1280.0, (1280.0,))]
    assert Height().measure([PROBE]) == [Score(720.0, (720.0,))]


def test_protocols() -> None:
    assert Width().protocol == "probe/displayed/mean"
    assert Height().protocol == "probe/displayed/mean"


@pytest.mark.parametrize("size", [0, -1])
def test_no_size_is_an_error_that_leaves_the_others_alone(size: int) -> None:
    bad = Probe(width=size, height=size, fps=24.0, duration=15.0)
    for metric in (Width(), Height()):
        error, score = metric.measure([bad, PROBE])
        assert isinstance(error, MeasureError)
        assert str(size) in str(error)
        assert isinstance(score, Score)
