"""How far apart neighbouring keyframes are: part of the protocol of every score that compares them.

The farther apart two frames are, the less alike they look, in any film: a clip of 29 s passes gates that its first 15 s
fail. So scores of clips of unlike length are not comparable, and each is stored under the distance that it was measured at.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from longtake.filters.base import Sample, Score

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


def keyframes_apart(spacing: float | Literal["any"]) -> str:
    """The part of a method that says which frames are compared."""
    return f"neighbouring-keyframes@{spacing if spacing == 'any' else f'{spacing:g}s'}"


def at_its_distance(score: Score, item: Sample, spacing: float | Literal["any"], protocol: str) -> Score:
    """`score` of `item`, with its own protocol where its keyframes are not `spacing` seconds apart."""
    apart = float(np.diff(item.times).mean())
    if spacing != "any" and abs(apart - spacing) <= _TOLERANCE * spacing:
        return score
    return Score(
        score.value,
        score.detail,
        score.embedding,
        score.standard_error,
        _DISTANCE.sub(f"@{round(apart, 1):g}s", protocol, count=1),
    )


def same_but_for_distance(stored: str, method: str) -> bool:
    """Whether two methods differ in the distance of the keyframes only, or not at all."""
    return _DISTANCE.sub("@", stored, count=1) == _DISTANCE.sub("@", method, count=1)
