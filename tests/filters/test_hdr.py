"""HDR is what the probe says; nothing is measured."""

from __future__ import annotations

from longtake.filters.base import Probe, Score
from longtake.filters.hdr import Hdr


def test_one_for_hdr_and_nought_for_sdr() -> None:
    told = Hdr().measure([Probe(1920, 1080, 24.0, 15.0), Probe(1920, 1080, 24.0, 15.0, hdr=True)])
    assert told == [Score(0.0, (0.0,)), Score(1.0, (1.0,))]


def test_its_protocol() -> None:
    assert Hdr().protocol == "probe/transfer/mean"
