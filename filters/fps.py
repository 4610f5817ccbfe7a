"""Nominal frame rate of the video.

Source: the container's frame index or header (`Probe`); nothing is decoded. Formula: frames / duration, and with `nominal` a
rate that is k · 1000/1001 for a whole number k counts as k: 23.976 is 24, 29.97 is 30, 59.94 is 60, as people who write
"[24, 60]" mean them. Such a rate is known to one part in 5,000, since containers round times to the millisecond. Unit:
frames per second. Range: above 0; 24 to 60 in ordinary film and video. Protocol: `probe/nominal/mean`, with `nominal: false`
`probe/average/mean`; one value per clip. Cost: none.

Known to go wrong: a variable frame rate has an average that no single second of it has; a container without a frame
index may claim a rate that the stream does not keep; a film that repeats each frame claims twice its real rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, MeasureError, Needs, Probe

# Share of the rate. A time that is rounded to a millisecond moves the average over 2.5 s by so much; 24 and 23.976 are 1 in
# 1,000 apart, and whole rates 1 in 60 and more.
_TOLERANCE = 4e-4
# Frames per second. Below, neighbouring whole numbers times 1000/1001 are no rates of NTSC, but averages of slide shows.
_SLOWEST = 10.0


class FpsSettings(FilterSettings):
    """How a rate is given."""

    nominal: bool = Field(
        True, description="k · 1000/1001 frames per second (NTSC) count as k; false: the average as it is"
    )


class Fps(Filter[Probe]):
    """Frames per second. Detail: that one value. Raises MeasureError where the container gives none."""

    name: ClassVar[str] = "fps"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "frames/s"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0
    settings_model: ClassVar[type[FilterSettings]] = FpsSettings

    settings: FpsSettings

    @property
    def method(self) -> str:
        return "nominal" if self.settings.nominal else "average"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if not (math.isfinite(item.fps) and item.fps > 0):
            raise MeasureError(f"the container gives no usable frame rate ({item.fps} frames/s)")
        return [nominal_rate(item.fps) if self.settings.nominal else item.fps]


def nominal_rate(fps: float) -> float:
    """k, if `fps` is k or k · 1000/1001 for a whole number k, as nearly as it is known; else `fps`. Frames per second."""
    for factor in (1.0, 1001 / 1000):
        k = round(fps * factor)
        if fps >= _SLOWEST and abs(fps * factor - k) <= _TOLERANCE * k:
            return float(k)
    return fps
