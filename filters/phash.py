"""A perceptual hash of each keyframe, by which `copies` finds the same film again under another name or in another encoding.

Formula: the keyframe's grey levels, reduced to 32×32 by area means (by halves first, rounded each time, as long as that goes),
go through the two-dimensional cosine transform (DCT-II, orthonormal). Of its 8×8 lowest frequencies each gives one bit:
whether it lies above the median of all 64. The first of them is the mean of the picture, which brightness moves: the others
stay, and so does the hash under another size or encoding. Two hashes are as far apart as the number of bits in which they
differ; those of different pictures differ in 32 of 64 on average. Where the 63 frequencies besides the mean have a root mean
square under 8 (2 grey levels, as a root mean square over the pixels: black, fog, a plain card), the bits are noise, and the
keyframe has no hash. Unit: share of the keyframes that have one, from 0 to 1; no gate on it is of use. Detail: the upper and
the lower 32 bits of each keyframe's hash in turn, row by row from the lowest frequency on; −1 and −1 where it has none.
Source: pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) in the form that the package
ImageHash has.

Protocol: `dct/halved,32x32,8x8>median,flat8/mean`. Cost: 1.6 ms per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import Filter, FilterSettings, Image, MeasureError, Needs, Sample, Score
from longtake.filters.grayscale import grey, grey_keyframes

SIDE = 32  # Px. The picture that is transformed has sides of this length.
LOW = 8  # Frequencies along each side. A hash has LOW² bits.
FLAT = 8.0  # Root mean square of the coefficients. A ramp of 10 grey levels over the picture is above.

HALF = 1 << 32


def hash_of(image: Image) -> int | None:
    """The 64 bits of a picture uint8 [h, w, 3] RGB or [h, w] grey, the lowest frequency first; None for a flat one."""
    import cv2

    shades = grey(image) if image.ndim == 3 else image
    # Halving is fast. Its rounding is noise of a twentieth of a grey level in what is compared.
    while min(shades.shape) >= 4 * SIDE and not (shades.shape[0] % 2 or shades.shape[1] % 2):
        half = shades.shape[1] // 2, shades.shape[0] // 2
        shades = np.asarray(cv2.resize(shades, half, interpolation=cv2.INTER_AREA), np.uint8)
    small = cv2.resize(np.asarray(shades, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small))[:LOW, :LOW].ravel()
    if float(np.sqrt(np.mean(low[1:] ** 2))) < FLAT:
        return None
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def pack(hashes: Sequence[int | None]) -> list[float]:
    """As a detail: two whole numbers of 32 bits to a hash, −1 and −1 for none. A float64 holds 53 bits, and so not a hash."""
    return [float(part) for value in hashes for part in ((-1, -1) if value is None else divmod(value, HALF))]


def unpack(details: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Hashes uint64 [n, keyframes], and which there are, out of details [n, 2 · keyframes]."""
    upper, lower = details[:, ::2], details[:, 1::2]
    known = upper >= 0
    parts = [np.where(known, part, 0).astype(np.uint64) for part in (upper, lower)]
    return parts[0] << np.uint64(32) | parts[1], known


class PhashSettings(FilterSettings):
    """None: hashes cannot be reduced."""

    reduce: Literal["mean"] = Field("mean", description="nothing else: hashes cannot be reduced")


class Phash(Filter[Sample]):
    """Share of the keyframes that have a hash. Detail: the hashes, two numbers to a keyframe."""

    name: ClassVar[str] = "phash"
    backend: ClassVar[str] = "dct"
    unit: ClassVar[str] = "share (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 0.8
    settings_model: ClassVar[type[FilterSettings]] = PhashSettings

    @property
    def method(self) -> str:
        return f"halved,{SIDE}x{SIDE},{LOW}x{LOW}>median,flat{FLAT:g}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, in order."""
        return [self._of([hash_of(shades) for shades in grey_keyframes(item)]) for item in items]

    def _of(self, hashes: Sequence[int | None]) -> Score:
        return Score(sum(value is not None for value in hashes) / len(hashes), tuple(pack(hashes)))
