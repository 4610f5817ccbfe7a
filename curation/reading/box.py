"""A part of an upright picture that is kept where its borders are cut away, and widths at the sides of a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longtake.curation.reading.orientation import Orientation

# Widths above, to the right, below and to the left of a part of a picture, in px or as shares of the picture.
Widths = tuple[float, float, float, float]
NONE: Widths = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a picture that is kept, in px of the upright picture at its displayed size. All four numbers are even, since
    the chroma of 4:2:0 has half the width and half the height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    def columns(self) -> dict[str, int]:
        """The box as columns of the row of a clip."""
        return {"crop_x": self.x, "crop_y": self.y, "crop_width": self.width, "crop_height": self.height}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Box | None:
        """The box of a clip by its row; None if nothing is cut away."""
        if row.get("crop_width") is None:
            return None
        return cls(*(int(row[name]) for name in ("crop_x", "crop_y", "crop_width", "crop_height")))

    @classmethod
    def within(cls, widths: Widths, width: int, height: int) -> Box:
        """The box that is left of a picture of `width` × `height` px without `widths` px at its sides, rounded inwards to even
        px."""
        top, right, bottom, left = widths
        x, y = _up(left), _up(top)
        return cls(x, y, _down(width - right) - x, _down(height - bottom) - y)

    def widths(self, width: int, height: int) -> Widths:
        """The widths at the sides of the box, in a picture of `width` × `height` px, as shares of the picture."""
        right, bottom = width - self.x - self.width, height - self.y - self.height
        return self.y / height, right / width, bottom / height, self.x / width


def window(shares: Widths, width: int, height: int) -> tuple[slice, slice]:
    """The rows and columns of a picture of `width` × `height` px without shares of it at its sides. A pixel that lies partly
    outside is left out."""
    top, right, bottom, left = shares
    rows = slice(_ceil(top * height), height - _ceil(bottom * height))
    return rows, slice(_ceil(left * width), width - _ceil(right * width))


def as_coded(widths: Widths, shown: Orientation) -> Widths:
    """Widths at the sides of the upright picture, as those of the picture as it is decoded."""
    turned = _rotated(widths, -shown.rotation // 90)
    return (turned[0], turned[3], turned[2], turned[1]) if shown.mirrored else turned


def as_upright(widths: Widths, shown: Orientation) -> Widths:
    """Widths at the sides of the picture as it is decoded, as those of the upright one."""
    top, right, bottom, left = widths
    mirrored = (top, left, bottom, right) if shown.mirrored else widths
    return _rotated(mirrored, shown.rotation // 90)


def _rotated(widths: Widths, quarters: int) -> Widths:
    """The widths at the sides of a picture after quarter turns clockwise: after one, the upper side is the right one."""
    k = quarters % 4
    turned = widths[4 - k :] + widths[: 4 - k]
    return turned[0], turned[1], turned[2], turned[3]


def _up(side: float) -> int:
    return math.ceil(round(side, 3) / 2) * 2


def _down(side: float) -> int:
    return math.floor(round(side, 3) / 2) * 2


def _ceil(pixels: float) -> int:
    return math.ceil(round(pixels, 3))
