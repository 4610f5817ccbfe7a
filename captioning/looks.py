"""How a frame looks, in numbers and in words: light, contrast, detail and colours, all in CIE Lab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

SIZE = 96, 54  # Pixels. Colours are counted at this size.
COARSE = 16, 9  # Pixels. Two pictures are compared at this size.
MIN_SHARE = 0.12  # Share of the picture. A colour with a smaller share is not named.
MAX_COLOURS = 3

# Anchors in sRGB. A pixel has the name of the nearest anchor in Lab, and several anchors may share a name.
COLOURS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("black", (0, 0, 0)),
    ("black", (24, 24, 24)),
    ("dark grey", (70, 70, 70)),
    ("grey", (128, 128, 128)),
    ("light grey", (195, 195, 195)),
    ("white", (250, 250, 250)),
    ("red", (215, 25, 30)),
    ("dark red", (110, 20, 25)),
    ("orange", (240, 130, 20)),
    ("brown", (120, 75, 40)),
    ("dark brown", (65, 42, 28)),
    ("beige", (228, 212, 182)),
    ("tan", (185, 153, 115)),
    ("yellow", (245, 220, 40)),
    ("olive", (110, 110, 40)),
    ("green", (50, 160, 60)),
    ("light green", (160, 220, 140)),
    ("dark green", (30, 75, 40)),
    ("dark green", (0, 100, 0)),
    ("teal", (20, 130, 130)),
    ("cyan", (60, 220, 230)),
    ("light blue", (145, 190, 235)),
    ("blue", (35, 85, 210)),
    ("blue", (0, 0, 255)),
    ("slate blue", (90, 115, 150)),
    ("dark blue", (20, 35, 95)),
    ("dark blue", (0, 0, 130)),
    ("purple", (120, 45, 150)),
    ("lilac", (195, 160, 215)),
    ("pink", (240, 150, 180)),
    ("magenta", (220, 30, 160)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was measured on one frame.

    light: mean L* (0 black to 100 white). contrast: standard deviation of L*. detail: mean slope of L* between
    neighbouring pixels at 96 x 54. colours: (name, share of the picture), largest first, all names that occur. coarse:
    float32 [9, 16, 3], the frame in Lab.
    """

    light: float
    contrast: float
    detail: float
    colours: tuple[tuple[str, float], ...]
    coarse: npt.NDArray[np.float32]

    @property
    def main_colours(self) -> tuple[str, ...]:
        """Names of one to three colours that make up the picture, largest first."""
        first, *others = self.colours
        return (first[0], *(name for name, share in others[: MAX_COLOURS - 1] if share >= MIN_SHARE))


def look_at(frame: npt.NDArray[np.uint8]) -> Look:
    """frame: RGB uint8 [height, width, 3]."""
    import cv2

    lab = _to_lab(np.asarray(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    names, anchors = _anchors()
    nearest = np.linalg.norm(lab[:, :, None, :] - anchors, axis=-1).argmin(axis=-1)
    counts: dict[str, float] = {}
    for index, count in enumerate(np.bincount(nearest.ravel(), minlength=len(names))):
        if count:
            counts[names[index]] = counts.get(names[index], 0.0) + float(count) / nearest.size
    light = lab[..., 0]
    slope = (float(np.abs(np.diff(light, axis=0)).mean()) + float(np.abs(np.diff(light, axis=1)).mean())) / 2
    return Look(
        light=float(light.mean()),
        contrast=float(light.std()),
        detail=slope,
        colours=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        coarse=np.asarray(cv2.resize(lab, COARSE, interpolation=cv2.INTER_AREA), dtype=np.float32),
    )


def difference(a: Look, b: Look) -> float:
    """How differently two frames look: mean distance in Lab over a coarse picture (about 2 is barely visible)."""
    return float(np.linalg.norm(a.coarse - b.coarse, axis=-1).mean())


def light_word(light: float) -> str:
    """An adjective for a mean L*; none for what is neither bright nor dark."""
    steps = ((12, "very dark"), (30, "dark"), (45, "dim"), (65, ""), (85, "bright"))
    return next((word for limit, word in steps if light < limit), "very bright")


def detail_word(look: Look) -> str:
    """An adjective for how much there is to see; none for what lies in between."""
    return "plain" if look.detail < 2.5 else "" if look.detail < 6 else "busy"


def contrast_word(look: Look) -> str:
    """An adjective for contrast; none for what lies in between."""
    return "low" if look.contrast < 12 else "" if look.contrast < 25 else "strong"


def shades(names: tuple[str, ...]) -> str:
    """Colours as they are said: `brown and tan`; several of one family together: `shades of grey and black`."""
    families = [name.rpartition(" ")[2] for name in names]
    said = [
        f"shades of {family}" if families.count(family) > 1 else name
        for name, family in zip(names, families, strict=True)
    ]
    return listed(tuple(dict.fromkeys(said)))


def listed(names: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _to_lab(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32 [..., 3]: L* in 0-100, a* and b* around 0."""
    import cv2

    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), dtype=np.float32)


@cache
def _anchors() -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    rgb = np.array([[rgb for _, rgb in COLOURS]], dtype=np.uint8)
    return tuple(name for name, _ in COLOURS), _to_lab(rgb)[0]
