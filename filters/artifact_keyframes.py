"""In how many of its keyframes a clip has something over its picture.

`artifacts` says how much of the worst keyframe is covered; this filter says how often: a title that stands for two seconds of
fifteen is in one keyframe of five. Formula: of the areas per keyframe that `artifacts` measures, the share that is greater than
`area`. Unit: share of the keyframes. Range: 0 to 1, in steps of one keyframe. Source: our own; the Presto paper (arXiv
2412.01316) gates the area only. Settings: those of `artifacts`, and `area`. What `artifacts` does not know is not known by this
filter.

Protocol: as that of `artifacts`, with `,over` and the area. Cost: as `artifacts`; where a recipe measures both, text is looked
for once (see `longtake.filters.text_boxes`).

Known to go wrong: what `artifacts` gets wrong. Borders and marks stand in all keyframes, so backend `borders` gives 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from longtake.filters.artifacts import Artifacts, ArtifactsSettings, Borders
from longtake.filters.base import Filter, FilterSettings, MeasureError, Reduce, Sample, Score, reduce_detail


class KeyframesSettings(ArtifactsSettings):
    """As those of `artifacts`, but that the mean is the score, and from which area on a keyframe counts."""

    reduce: Reduce = Field("mean", description="as everywhere; the mean of ones and zeros is the share of keyframes")
    area: float = Field(
        0.02, ge=0, lt=1, description="a keyframe counts if more than this share of its area is under something"
    )


class BordersKeyframes(Borders):
    """Share of the keyframes under borders, panels or static marks. Detail: 1 for each keyframe that counts, else 0."""

    name: ClassVar[str] = "artifact_keyframes"
    unit: ClassVar[str] = "share of the keyframes (0-1)"
    settings_model: ClassVar[type[FilterSettings]] = KeyframesSettings
    settings: KeyframesSettings

    @property
    def method(self) -> str:
        return f"{super().method},over{self.settings.area:g}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [_counted(score, self.settings) for score in super().measure(items)]


class ArtifactKeyframes(Artifacts):
    """Share of the keyframes under borders, panels, static marks or overlaid text. Detail: 1 for each that counts, else 0."""

    name: ClassVar[str] = "artifact_keyframes"
    unit: ClassVar[str] = "share of the keyframes (0-1)"
    cost: ClassVar[float] = Artifacts.cost + 100  # It comes after `artifacts`, which has then looked for text.
    settings_model: ClassVar[type[FilterSettings]] = KeyframesSettings
    settings: KeyframesSettings

    @property
    def method(self) -> str:
        return f"{super().method},over{self.settings.area:g}"

    @property
    def lower_bound(self) -> Filter[Sample]:
        return BordersKeyframes(reduce=self.reduce, not_known="ignore", area=self.settings.area)

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [_counted(score, self.settings) for score in super().measure(items)]


def _counted(score: Score | MeasureError, settings: KeyframesSettings) -> Score | MeasureError:
    """A score of `artifacts` as one of how many of its keyframes are concerned."""
    if isinstance(score, MeasureError):
        return score
    detail = tuple(float(area > settings.area) for area in score.detail)
    return Score(math.nan if math.isnan(score.value) else reduce_detail(detail, settings.reduce), detail)
