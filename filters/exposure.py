"""Exposure of the keyframes: rejects clips that are burnt out, lost in the dark, or flat.

Formula, on the grey keyframe (BT.601, full range): `burnt` is the share of pixels of 250 grey levels and more, `black` the
share of 5 and less, `contrast` the standard deviation of all pixels (RMS contrast). Unit: share, share, grey levels. Range:
0 to 1, 0 to 1, 0 to 127.5. Source: for `contrast` Peli, "Contrast in complex images" (JOSA A 1990); the two limits are this
project's: the last two per cent of the range at each end, where JPEG and video encoders leave no detail. Protocol:
`luma/bt601>=250,keyframes/REDUCE`, `luma/bt601<=5,keyframes/REDUCE` and `luma/bt601-deviation,keyframes/REDUCE`, one value
per keyframe, reduced by their mean unless set. Cost: 1 ms per clip of five 960×540 keyframes, for each.

Known to go wrong: bars at the frame's edges count as black, which `artifacts` sees as what they are; titles on white and snow
count as burnt; one colour that is burnt in a single channel is not seen in the luma.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, Image, Needs, Sample
from longtake.filters.grayscale import grey_keyframes

BURNT = 250  # Grey levels. A pixel at or above it is burnt.
BLACK = 5  # Grey levels. A pixel at or below it is black.


def share_from(grey: Image, level: int) -> float:
    """Share of pixels of at least `level`, of a grey uint8 [h, w] image."""
    import cv2

    return cv2.countNonZero(cv2.threshold(grey, level - 1, 255, cv2.THRESH_BINARY)[1]) / grey.size


class _Luma(Filter[Sample]):
    """A measure of each grey keyframe. Detail: one value per keyframe."""

    backend: ClassVar[str] = "luma"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 1.0

    def measure_one(self, item: Sample) -> Sequence[float]:
        return [self.of(grey) for grey in grey_keyframes(item)]

    @abstractmethod
    def of(self, grey: Image) -> float:
        """The value of a grey uint8 [h, w] keyframe."""


class Burnt(_Luma):
    """Share of burnt pixels. Detail: one value per keyframe."""

    name: ClassVar[str] = "burnt"
    unit: ClassVar[str] = "share (0-1)"

    @property
    def method(self) -> str:
        return f"bt601>={BURNT},keyframes"

    def of(self, grey: Image) -> float:
        return share_from(grey, BURNT)


class Black(_Luma):
    """Share of black pixels. Detail: one value per keyframe."""

    name: ClassVar[str] = "black"
    unit: ClassVar[str] = "share (0-1)"

    @property
    def method(self) -> str:
        return f"bt601<={BLACK},keyframes"

    def of(self, grey: Image) -> float:
        return 1 - share_from(grey, BLACK + 1)


class Contrast(_Luma):
    """Standard deviation of the grey levels. Detail: one value per keyframe."""

    name: ClassVar[str] = "contrast"
    unit: ClassVar[str] = "grey levels"

    @property
    def method(self) -> str:
        return "bt601-deviation,keyframes"

    def of(self, grey: Image) -> float:
        import cv2

        return float(cv2.meanStdDev(grey)[1][0, 0])
