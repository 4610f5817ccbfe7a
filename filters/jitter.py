"""Jitter of the camera: rejects shaking film.

Formula: the camera's shift is fitted to the flow of each pair of pictures of the clip, half a second apart: that of the texture,
of the area, of the picture's rim or none at all, whichever moves the most of the first picture to where it is in the second
(`filters/global_motion.py`). What three pairs that follow each other differ from an even course, d = s₁ − 2 s₂ + s₃, holds
the shake and little of a pan, even of one that speeds up. Each three give |d| / √(6π): its mean is the standard deviation,
along one axis, by which a camera that is thrown to and fro at random leaves its course (a shift is the difference of two such
errors, so that each axis of d has 12 times their variance, and the length of a vector of two normal errors has the mean
√(π/2)). Unit: px of a frame whose long side is 960. Range: from 0. Source: this project's own. Protocol:
`global/15pairs,agreed/16px,second-difference,per0.5s@960,v2/REDUCE`. One value per three pairs that tell how the camera moves,
reduced by their mean unless set. Cost: 14 ms per clip where `flow` was measured before, which shares its flow fields, else 70 ms.

Accuracy: of takes of a steady camera, shaken by a known course, the score is the one of that course to within a tenth (median;
the figures are in docs/measured.md). A clip of 15 s holds some 13 such threes: by so few, the standard deviation of a
camera is known to some 13 % only.

Known to go wrong: a shake of just two (or four, six …) swings a second is the same at both pictures of a pair and is not
seen, so only shakes of more than one frequency, as hands and vehicles make, have their true size; a camera that stops at once
counts. Not known is a scene without texture, one that moves by itself over most of the picture, and one with so much depth
before a travelling camera that no one motion explains three tenths of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Sample, Score
from longtake.filters.flow_dis import GAP_SECONDS, LEAST_PAIRS, REPORT_SIDE
from longtake.filters.global_motion import STEP, Fit, global_motion

# Fewer than so many threes of pairs tell nothing: one of them may follow a thing that moves.
LEAST_TRIPLES = 2


class Jitter(Filter[Sample]):
    """How far the camera shakes, px at 960. Not known with fewer than two threes of pairs that tell how the camera moves.

    Raises MeasureError for a sample without pairs of the pass.
    """

    name: ClassVar[str] = "jitter"
    backend: ClassVar[str] = "global"
    unit: ClassVar[str] = "px at 960"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 100.0
    version: ClassVar[int] = 2

    @property
    def method(self) -> str:
        return f"{LEAST_PAIRS}pairs,agreed/{STEP}px,second-difference,per{GAP_SECONDS:g}s@{REPORT_SIDE}"

    def measure_one(self, item: Sample) -> Sequence[float]:
        if item.motion is None:
            raise MeasureError("the pairs that jitter is measured on are seen in the scan only")
        return [
            math.hypot(a.shift_x - 2 * b.shift_x + c.shift_x, a.shift_y - 2 * b.shift_y + c.shift_y)
            * (REPORT_SIDE * GAP_SECONDS / math.sqrt(6 * math.pi))
            for a, b, c in _followed(global_motion(item.motion))
        ]

    def _score(self, item: Sample) -> Score | MeasureError:
        try:
            detail = self.measure_one(item)
        except MeasureError as error:
            return error
        return self.reduced(detail) if len(detail) >= LEAST_TRIPLES else Score(math.nan, (0.0,))


def _followed(fits: Sequence[Fit]) -> list[tuple[Fit, Fit, Fit]]:
    """Each three pairs that follow each other and that tell how the camera moves."""
    triples = zip(fits, fits[1:], fits[2:], strict=False)
    return [triple for triple in triples if all(fit.seen for fit in triple)]
