"""How far apart neighbouring keyframes are: part of the protocol of every score that compares them.

The farther apart two frames are, the less alike they look, in any film: a clip of 29 s passes gates that its first 15 s
fail. So scores of clips of unlike length are not comparable, and each is stored under the distance that it was measured at.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, MeasureError, Sample, Score

# Share of the distance. Keyframes are the decoded frames nearest to where they should be, up to 0.1 s off: 3 % of 3 s.
_TOLERANCE = 0.05
_DISTANCE = re.compile(r"@(?:any|[\d.]+s)")

Spacing = Annotated[
    Annotated[float, Field(gt=0)] | Literal["any"],
    Field(
        description="seconds between neighbouring keyframes, at which scores count; `any`: at any distance. By default it is "
        "the distance in the recipe's windows, or `any` where these differ in length"
    ),
]


class SpacedSettings(FilterSettings):
    """Which clips its scores are comparable of."""

    spacing: Spacing = 3.0


class Spaced(Filter[Sample]):
    """A filter that compares neighbouring keyframes. Its method ends in how far these are apart."""

    settings_model: ClassVar[type[FilterSettings]] = SpacedSettings

    settings: SpacedSettings

    @property
    def compared(self) -> str:
        """The part of its method that says which frames are compared."""
        spacing = self.settings.spacing
        return f"neighbouring-keyframes@{spacing if spacing == 'any' else f'{spacing:g}s'}"

    def counts(self, stored: str, wanted: str) -> bool:
        return (
            _but_for_distance(stored) == _but_for_distance(wanted)
            if self.settings.spacing == "any"
            else stored == wanted
        )

    def settles(self, stored: str, wanted: str) -> bool:
        return _but_for_distance(stored) == _but_for_distance(wanted)

    def at_its_distance(self, score: Score | MeasureError, item: Sample) -> Score | MeasureError:
        """`score` of `item`, with a protocol of its own where its keyframes are not `spacing` seconds apart."""
        if isinstance(score, MeasureError):
            return score
        spacing, apart = self.settings.spacing, float(np.diff(item.times).mean())
        if spacing != "any" and abs(apart - spacing) <= _TOLERANCE * spacing:
            return score
        return replace(score, protocol=_DISTANCE.sub(f"@{round(apart, 1):g}s", self.protocol, count=1))

    def _score(self, item: Sample) -> Score | MeasureError:
        return self.at_its_distance(super()._score(item), item)


def _but_for_distance(method: str) -> str:
    return _DISTANCE.sub("@", method, count=1)
