"""Where a film has no new frame: known gaps, in any order of packets, and what the scan makes of them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.reading.gaps import Gaps
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import parse_recipe
from tests.curation.reading.test_cutting import make


@given(st.lists(st.integers(1, 40), min_size=2, max_size=40), st.integers(0, 6), st.data())
def test_gaps_of_any_order(steps: list[int], depth: int, data: st.DataObject) -> None:
    # Twelve of 24 frames a second are half a second, but for the last digit of a float, on either side of it.
    times = [0.1 + sum(steps[: i + 1]) / 24 for i in range(len(steps))]
    order = sorted(range(len(times)), key=lambda i: i + data.draw(st.integers(0, depth)))
    gaps = Gaps()
    for twice in range(2):  # A stretch that is read again adds nothing.
        gaps.skip()
        for place, packet in enumerate(order):
            gaps.coming(times[packet])
            if place >= depth:
                gaps.reached(times[place - depth])
        gaps.reached(times[-1])
        start, end = sorted((data.draw(st.floats(0, 20)), data.draw(st.floats(0, 20))))
        long = [both for both, step in zip(pairwise(times), steps[1:], strict=True) if step >= 12]
        truth = sum(max(0.0, min(b, end) - max(a, start)) for a, b in long)
        assert gaps.within(start, end) == pytest.approx(truth), twice


@pytest.mark.parametrize("spans", [(), (Span(0.0, 3.0), Span(3.0, 6.0))], ids=["shots", "list"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_picture_that_stands_since_there_is_no_other_is_frozen(
    tmp_path: Path, suffix: str, spans: tuple[Span, ...]
) -> None:
    """A recording of a screen: 25 frames a second while something moves, and none for 2 s; one second of them is in each clip."""
    times = [i / 25 for i in range(50)] + [4 + i / 25 for i in range(60)]
    options = {"preset": "ultrafast", "bf": "2", "b_strategy": "0"}
    path = make(tmp_path / f"film{suffix}", times, rate=25, base=Fraction(1, 1000), gop=12, options=options)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 3, "window_seconds": 3}}
    recipe = parse_recipe(asked | {"filters": {"frozen": {}}, "tiers": {"all": {"frozen": "<= 1"}}}, source="test")
    scan = scan_video(str(path), recipe, lambda span, sample: None, spans=spans)
    assert not [clip.error for clip in scan.clips if clip.error]
    shares = {clip.span.start: clip.scores["frozen"].score.value for clip in scan.clips}
    assert shares == {0.0: pytest.approx(1.04 / 3, abs=0.05), 3.0: pytest.approx(1 / 3, abs=0.05)}
