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

Cost: 10 ms per clip of five keyframes, and 0.4 MB for each frame that the pass holds. Its figures on real takes, enlarged and
not, are in docs/measured.md.

Known to go wrong: a defocused or heavily compressed original has no more detail than an enlargement, and scores like one; sharp
letters and logos over an enlarged picture raise the parts that they lie in; an enlargement by a model invents detail, and passes;
one by less than a third is hardly seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import cv2
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
# The power is averaged on this number of circles, from 0.04 of the Nyquist frequency to half of it.
BINS = 23
# This power is added before the logarithm: about what rounding to whole grey levels makes.
FLOOR = 30.0

_EDGES = np.linspace(0.04, 0.5, BINS + 1)

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
    window, places, circle, count = _circles_of(len(tile))
    signal = cv2.subtract(tile, np.array(cv2.mean(tile)[:1]), dtype=cv2.CV_32F) * window
    parts = cv2.dft(signal).ravel()[places]
    return np.asarray(np.bincount(circle, parts * parts, BINS) / count)


def circles() -> npt.NDArray[np.float64]:
    """The middle of each circle, as a share of the Nyquist frequency."""
    return np.asarray((_EDGES[1:] + _EDGES[:-1]) / 2)


@cache
def _circles_of(
    side: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """For parts of a size: the Hann window; where in the transform of a real picture, which `cv2.dft` packs into side × side
    numbers, the real and imaginary parts that lie on a circle are; which circle each lies on; and how many frequencies each
    circle has, at least 1."""
    hann = np.hanning(side).astype(np.float32)
    # The first column of the packed transform, whose frequency across is 0, holds the real and imaginary parts of each frequency
    # down under each other, once for both signs. Any other frequency across has two columns.
    halves = (np.arange(side) + 1) // 2
    across = np.tile(halves, (side, 1))
    down = np.tile(np.abs(np.fft.fftfreq(side, 1 / side))[:, None], (1, side))
    down[:, 0] = halves
    circle = (np.digitize(np.hypot(down, across) * (2 / side), _EDGES) - 1).ravel()
    places = np.flatnonzero((circle >= 0) & (circle < BINS))
    places = np.concatenate([places, places[places % side == 0]])
    count = np.maximum(np.bincount(circle[places], minlength=BINS) / 2, 1)
    return np.outer(hann, hann), places, circle[places], count


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
