"""How sure the scan is that the clip is one take.

Formula: 1 − the highest probability of a cut or a transition at any picture of the clip, as the detector that split the
video gives it. Unit: probability. Range: 0 to 1; from 1 − `splitting.threshold` (0.6, of `transnetv2` 0.5) up, since a clip
ends where the threshold is passed. Protocol: `probe/splitter/mean`; one value per clip; which detector it was is part of
the splitting, and a change of it means another scan. Cost: none, the probabilities are those that the shots were found with.

Not known, and no score: for clips that a source list names (the scan looks for no cuts in them), with `detector: none`, and for
the hard cuts of PySceneDetect's detectors, which measure differences and no probabilities (with `dissolves` the
probability of a transition counts alone).

Known to go wrong: low where something large appears at once, where the camera is torn round, and in films of a few frames
per second; jumps within a still take can hardly be seen, and leave it high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Probe


class ShotConfidence(Filter[Probe]):
    """Certainty that the clip is one take. Detail: that one value. Raises MeasureError where it is not known."""

    name: ClassVar[str] = "shot_confidence"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "probability"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "splitter"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if math.isnan(item.shot_confidence):
            raise MeasureError("no scan has looked for cuts in this clip")
        return [item.shot_confidence]
