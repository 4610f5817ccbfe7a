"""Bits that the file spends on a pixel of a frame: rejects film that was encoded until little was left.

Formula: the video stream's bits per second by its container, divided by coded width × coded height × frames per second. Unit:
bits per pixel and frame. Range: from 0. Where the container does not say what the stream has (Matroska mostly), the whole
file counts, sound and all. Source: gate ≥ 0.02 of Open-Sora 2.0 (arXiv 2503.09642), "bits per pixel". Protocol:
`probe/stream-or-file/mean`; one value per clip, that of its film. Cost: none.

Known to go wrong: codecs differ by a factor of two and more at one quality (AV1 and HEVC need half of the bits of H.264); a
still scene needs few bits by right; a file that was encoded twice may have many bits and little picture. A film without a
length or a rate in its header cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, MeasureError, Needs, Probe


class Bits(Filter[Probe]):
    """Bits per pixel and frame. Detail: that one value. Raises MeasureError where the container does not tell."""

    name: ClassVar[str] = "bits"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "bits per pixel"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "stream-or-file"

    def measure_one(self, item: Probe) -> Sequence[float]:
        if not math.isfinite(item.bits_per_pixel):
            raise MeasureError("the container does not say how long the film is, or how many frames a second it has")
        return [item.bits_per_pixel]
