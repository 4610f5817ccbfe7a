"""Mean grey level of the sample: rejects what is almost black or almost white.

Formula: the mean over a frame of 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601 weights on full-range RGB, as in OpenCV's
and Pillow's conversion to grey). Unit: grey levels. Range: 0 (black) to 255 (white). Source: gate [20, 180] in Table 4
of the Presto paper (arXiv 2412.01316), which does not give the formula. Protocol:
`mean/rgb601,keyframes+partners/REDUCE`: each keyframe is averaged with its partner, one value per such pair, and these
are reduced (mean unless set). Cost: a sum over the frames, under 3 ms per clip of ten 960×540 frames.

The scan takes an early look at films that begin almost black or almost white (`--all-scores` switches that off). If all
keyframes of the container, which lie no farther apart than a window is long, are at least 5 grey levels outside of the gate, the
film is rejected without decoding the rest. Then its row holds the mean of these keyframes and, as detail, the least less 5 and
the greatest plus 5, under the protocol `early/rgb601,container-keyframes,within5/mean`: such a score rejects, and never passes.

Known to go wrong: bars at the frame's edges and fades are counted as picture and pull the level down; the level says
nothing of contrast (an even grey passes); despite its name it does not find black-and-white film.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Filter, Image, MeasureError, Needs, Sample, Score

# Grey levels by which a clip may differ from the keyframes of its film: the mean over ten pictures of a window that holds a
# keyframe or more.
EARLY_MARGIN = 5.0


def grey(image: Image) -> Image:
    """RGB uint8 [h, w, 3] -> BT.601 grey uint8 [h, w], rounded: what every pixel filter that needs luma works on."""
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def grey_level(image: Image) -> float:
    """Mean grey level 0–255 of an RGB uint8 [h, w, 3] image, without rounding."""
    import cv2

    red, green, blue, _ = cv2.mean(np.ascontiguousarray(image))
    return 0.299 * red + 0.587 * green + 0.114 * blue


class Grayscale(Filter[Sample]):
    """Mean grey level. Detail: one value per keyframe and its partner."""

    name: ClassVar[str] = "grayscale"
    backend: ClassVar[str] = "mean"
    unit: ClassVar[str] = "grey levels (0-255)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 1.0

    @property
    def method(self) -> str:
        return "rgb601,keyframes+partners"

    @property
    def early(self) -> Filter[Sample]:
        return EarlyGrayscale().seeing(self.crop)

    def measure_one(self, item: Sample) -> Sequence[float]:
        pairs = zip(item.keyframes, item.partners, strict=True)
        return [(grey_level(keyframe) + grey_level(partner)) / 2 for keyframe, partner in pairs]


class EarlyGrayscale(Filter[Sample]):
    """Between which grey levels the clips of a film lie, by keyframes of its container: the value is their mean. Detail: the
    least and the greatest, each farther out by the margin."""

    name: ClassVar[str] = "grayscale"
    backend: ClassVar[str] = "early"
    unit: ClassVar[str] = "grey levels (0-255)"
    needs: ClassVar[Needs] = Needs.SAMPLE

    @property
    def method(self) -> str:
        return f"rgb601,container-keyframes,within{EARLY_MARGIN:g}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._between([grey_level(picture) for picture in item.keyframes]) for item in items]

    def _between(self, levels: Sequence[float]) -> Score | MeasureError:
        if not levels:
            return MeasureError("nothing was measured: the film has no keyframes")
        ends = min(levels) - EARLY_MARGIN, max(levels) + EARLY_MARGIN
        return Score(math.fsum(levels) / len(levels), ends)


@lru_cache(maxsize=1)
def grey_keyframes(sample: Sample) -> tuple[npt.NDArray[np.uint8], ...]:
    """The grey keyframes, uint8 [h, w] each. Those of the sample that was asked for last are remembered, since many filters ask
    for them one after the other."""
    return tuple(grey(frame) for frame in sample.keyframes)
