"""Whether a picture has the detail that its size promises: rejects film that was enlarged, as 360p sold for 720p.

Formula: on square parts of the luma at full size (six of 256×256 px of each keyframe, spread evenly, taken from the decoded frame
before it is reduced), under a Hann window, the power spectrum is averaged over circles. In film that was filmed at its size, the
power falls along a straight line of the logarithm of the frequency; what was enlarged falls off a cliff where the smaller
picture ended. A line is fitted from 0.06 to 0.26 of the Nyquist frequency; the score is the mean of log10 of the power from
0.34 to 0.5, less the line. It is taken on the half of a clip's parts that has the most texture: the median of those of a
keyframe. Unit: decades of power. Range: about −1.2 to 0.2; true 720p has −0.2 to 0.1, a 360p enlarged to 720p or 1080p −1.2 to
−0.2. Not known (null) of a clip without texture, and of one whose parts all lie under borders that are cut away. Source: the
gates of published funnels on resolution ask for a size only; the fall of natural spectra is that of Field, "Relations between
the statistics of natural images and the response properties of cortical cells" (1987). Protocol:
`spectrum/6x256,0.06-0.26>0.34-0.5,textured-half,keyframes/REDUCE`, a value per keyframe that has parts with texture, reduced by
their mean unless set.

Cost: 21 ms per clip of five keyframes, and 0.4 MB for each frame that the pass holds. Its figures on
real takes, enlarged and not, are in docs/measured.md.

Known to go wrong: a defocused or heavily compressed original has no more detail than an enlargement, and scores like one; sharp
letters and logos over an enlarged picture raise the parts that they lie in; an enlargement by a model invents detail, and passes;
one by less than a third is hardly seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Filter, Image, MeasureError, Needs, Sample, Score

# Shares of the Nyquist frequency. The line is fitted to the power between them.
FIT = (0.06, 0.26)
# Shares of the Nyquist frequency. The power between them is compared with the line.
BAND = (0.34, 0.5)
# Shares of the Nyquist frequency. The mean power between them is the texture of a part.
TEXTURE = (0.05, 0.25)
# A part must have this much texture: an even sky, or noise alone, has less.
LEAST_TEXTURE = 10**5.3
# The power is averaged on this number of circles, from 0.04 of the Nyquist frequency to all of it.
BINS = 48
# This power is added before the logarithm: about what rounding to whole grey levels makes.
FLOOR = 30.0

Profile = npt.NDArray[np.float64]  # The mean power on each circle.


class TrueResolution(Filter[Sample]):
    """Detail at full size. Detail: one value per keyframe with texture; none where it is not known."""

    name: ClassVar[str] = "true_resolution"
    backend: ClassVar[str] = "spectrum"
    unit: ClassVar[str] = "decades of power"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 50.0
    of_tiles: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"6x256,{FIT[0]:g}-{FIT[1]:g}>{BAND[0]:g}-{BAND[1]:g},textured-half,keyframes"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._measured(item) for item in items]

    def _measured(self, item: Sample) -> Score | MeasureError:
        if item.native is None:
            return MeasureError("the pictures of this clip are not there at full size: only the scan sees them")
        tiles = [native.tiles for native in item.native[: len(item.keyframes)] if native.tiles is not None]
        detail = sharpness(tiles)
        return self.reduced(detail) if detail else Score(math.nan)


def sharpness(tiles: Sequence[Image]) -> list[float]:
    """The detail of each keyframe, of those that have texture. tiles: uint8 [n, side, side] of each."""
    profiles = [np.array([profile(tile) for tile in each]).reshape(len(each), BINS) for each in tiles]
    if not any(len(each) for each in profiles):
        return []
    middle = circles()
    textures = [each[:, _within(middle, TEXTURE)].mean(axis=1) for each in profiles]
    least = max(float(np.median(np.concatenate(textures))), LEAST_TEXTURE)
    kept = [each[texture >= least] for each, texture in zip(profiles, textures, strict=True)]
    return [float(np.median(_off_the_line(each))) for each in kept if len(each)]


def profile(tile: Image) -> Profile:
    """Mean power of a square part uint8 [side, side] on each circle."""
    side = len(tile)
    window = np.hanning(side).astype(np.float32)
    signal = (tile - np.float32(tile.mean())) * np.outer(window, window)
    power = np.square(np.abs(np.fft.rfft2(signal)))
    circle, count = _rings(side)
    sums = np.bincount(circle.ravel(), power.ravel(), BINS + 1)[:BINS]
    return np.asarray(sums / count)


def circles() -> npt.NDArray[np.float64]:
    """The middle of each circle, as a share of the Nyquist frequency."""
    edges = np.linspace(0.04, 1.0, BINS + 1)
    return np.asarray((edges[1:] + edges[:-1]) / 2)


@cache
def _rings(side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The circle of each frequency of a spectrum [side, side // 2 + 1], BINS for those on none; and how many each one has."""
    down, right = np.abs(np.fft.fftfreq(side)) * 2, np.fft.rfftfreq(side) * 2
    edges = np.linspace(0.04, 1.0, BINS + 1)
    circle = np.digitize(np.hypot(down[:, None], right[None]), edges) - 1
    circle[(circle < 0) | (circle >= BINS)] = BINS
    return circle, np.maximum(np.bincount(circle.ravel(), minlength=BINS + 1)[:BINS], 1).astype(np.float64)


def _within(middle: npt.NDArray[np.float64], band: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return np.asarray((middle >= band[0]) & (middle <= band[1]))


def _off_the_line(profiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By how many decades the power in BAND is off the line through that in FIT, of each profile [n, BINS]."""
    middle = circles()
    fit, band = _within(middle, FIT), _within(middle, BAND)
    levels, place = np.log10(profiles + FLOOR), np.log10(middle)
    slope, height = np.polyfit(place[fit], levels[:, fit].T, 1)
    line = slope[:, None] * place[band] + height[:, None]
    return np.asarray((levels[:, band] - line).mean(axis=1))
