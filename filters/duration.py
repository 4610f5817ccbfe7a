"""Length of the clip in seconds.

Source: a `Probe` whose duration is the clip's: the caller puts the clip's own length there, not the video's. Formula:
end − start. Unit: s. Range: above 0. Protocol: `probe/clip/mean`; one value per clip. Cost: none.

Known to go wrong: nothing here, but the length is only as true as the cuts that were found: a missed cut makes a clip
too long, a false one too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Probe


class Duration(Filter[Probe]):
    """Clip length in seconds. Detail: that one value. Raises MeasureError where it is not known."""

    name: ClassVar[str] = "duration"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "s"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "clip"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if not (math.isfinite(item.duration) and item.duration > 0):
            raise MeasureError(f"the length of the clip is not known ({item.duration} s)")
        return [item.duration]
