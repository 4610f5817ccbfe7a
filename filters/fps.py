"""Average frame rate, from the container.

Source: the container's frame index or header (`Probe`); nothing is decoded. Formula: frames / duration. Unit: frames
per second. Range: above 0; 24 to 60 in ordinary film and video. Protocol: `probe/average/mean`; one value per clip.
Cost: none.

Known to go wrong: a variable frame rate has an average that no single second of it has; a container without a frame
index may claim a rate that the stream does not keep; a film that repeats each frame claims twice its real rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Probe


class Fps(Filter[Probe]):
    """Average frames per second. Detail: that one value. Raises MeasureError where the container gives none."""

    name: ClassVar[str] = "fps"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "frames/s"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "average"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if not (math.isfinite(item.fps) and item.fps > 0):
            raise MeasureError(f"the container gives no usable frame rate ({item.fps} frames/s)")
        return [item.fps]
