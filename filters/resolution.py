"""Width and height of the displayed picture, from the container.

Source: the container's header (`Probe`), nothing is decoded. Rotation and sample aspect ratio are applied when
the probe is made: an anamorphic 720×576 film shown at 16:9 is 1024 wide, a phone clip turned by 90° is taller than wide.
Formula: none, the number itself. Unit: px. Range: whole numbers from 1. Protocol: `probe/displayed/mean`; one value
per clip, so every reduction is the same. Cost: none.

Known to go wrong: the container may claim a size that the stream does not have (the decode pass will tell); bars that
are part of the picture count as picture in this filter (see `artifacts`); an enlarged small film is as large as a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Probe


class Width(Filter[Probe]):
    """Displayed width in pixels. Detail: that one value. Raises MeasureError where the container gives none."""

    name: ClassVar[str] = "width"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "px"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "displayed"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if item.width <= 0:
            raise MeasureError(f"the container gives no usable width ({item.width} px): it may hold no video picture")
        return [item.width]


class Height(Filter[Probe]):
    """Displayed height in pixels. Detail: that one value. Raises MeasureError where the container gives none."""

    name: ClassVar[str] = "height"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "px"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "displayed"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if item.height <= 0:
            raise MeasureError(f"the container gives no usable height ({item.height} px): it may hold no video picture")
        return [item.height]
