"""Borders: letterbox, pillarbox, both. Rows or columns at the frame's edge of one colour, up to a straight inner edge.

The inner edge distinguishes a border from a dark scene, a sky or a blown-out wall. Under it, at the same row in all frames, the
picture begins at once: in three frames or more, half of its first three rows differ from the border (of a border that is not
dark nine tenths, and in most frames). A border that is not dark is of one colour besides, as nothing that a camera sees is,
unless it is burnt out. A logo or a line of text on a border (up to 35 % of its length) does not end it, where it does not reach
the inner edge. A frame that is all flat has no border; none is wider than 45 % of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

# Grey levels. A border may differ from its colour by so much in any frame, from compression and scan noise.
TOLERANCE = 10
STRAY = 0.02  # Share of a border's row that may differ by more than TOLERANCE.
ON_BAR = 0.35  # The same share where a logo or a line of text stands on the border.
DARK = 40  # Grey levels. A darker border is the usual one; a lighter one may be a sky or a wall.
# Share of the columns in which the picture's first rows must differ from a dark border, in SHARP_FRAMES frames.
SHARP = 0.5
SHARP_FRAMES = 3  # Frames, at least, with a sharp edge: the picture may be dark in the others.
SHARP_TWIN = 0.3  # SHARP where the opposite border is as wide.
SHARP_LIGHT = 0.9  # SHARP for a border that is not dark.
SHARP_LIGHT_TWIN = 0.5
LIGHT_FRAMES = 0.6  # Share of the frames in which the edge of a border that is not dark must be seen.
UNEVEN = 2.5  # Grey levels between the lighter and the darker parts of a border that is not dark: skies differ by more.
GRAIN = 1.7  # Grey levels between a pixel of such a border and its own mean: coding makes ±1, a sensor's noise more.
PART = 8  # Px: the size of the parts of a border that are compared.
RAMP = 3  # Px over which scaling may spread a border's inner edge.
FILLED = 0.4  # Share of the picture that must differ from the border in some frame: a title on black has none.
WIDEST = 0.45  # Share of the frame's side. A wider flat zone is no border.

SIDES = ("top", "right", "bottom", "left")  # Quarter turns to the left bring the sides to the top in this order.


def bars(frames: Sequence[Grey], *, still: bool = False) -> tuple[int, int, int, int]:
    """Widths in pixels (top, bottom, left, right) of the flat, unchanging borders around the picture.

    still: the scene is known to stand still. What is not dark, and on one side alone, may then be a wall or a sky. Above, it may
    always be a sky over a level horizon: panels.py looks for the difference between the two.
    """
    stack = np.stack(frames)
    low, high = extremes(frames)
    # Each side is looked at as the top of a turned frame.
    turned = {side: (np.rot90(stack, k, (1, 2)), _turned(low, k), _turned(high, k)) for k, side in enumerate(SIDES)}
    found = {side: _flat_zones(*views) for side, views in turned.items()}
    widths = dict.fromkeys(SIDES, 0)
    for k, side in enumerate(SIDES):
        opposite = [width for width, _, _ in found[SIDES[(k + 2) % 4]]]
        for width, sharpness, needed in found[side]:
            twin = any(abs(width - other) <= RAMP for other in opposite)
            dark = needed[0] == SHARP
            maybe_sky = not dark and not twin and (still or (side == "top" and not opposite))
            if sharpness >= (needed[1] if twin else needed[0]) and not maybe_sky:
                widths[side] = width
                break
    return widths["top"], widths["bottom"], widths["left"], widths["right"]


def _flat_zones(stack: Grey, low: Grey, high: Grey) -> list[tuple[int, float, tuple[float, float]]]:
    """What may be a border at the top: rows of the flat zone, the step (0 to 1) in which the picture begins below, and the step
    that it takes, alone and with a twin.

    stack [n, h, w]; low, high [h, w]: extremes over its frames.
    """
    # The colour of the outermost rows, in half of the frames: noise moves extremes, and not this.
    colour = round(median(stack[:, :2]))
    lowest, highest = max(0, colour - TOLERANCE), min(255, colour + TOLERANCE)
    differs = (high > highest) | (low < lowest)
    columns = np.flatnonzero(_shares(differs, 0) > STRAY)
    if columns.size == 0:  # The whole frame is flat: an empty picture without a border.
        return []
    breadth = slice(int(columns[0]), int(columns[-1]) + 1)  # The columns without the borders at the left and the right.
    shares = _shares(differs[:, breadth], 1)
    dark = colour <= DARK
    count = len(stack)
    zones = []
    for stray in (STRAY, ON_BAR):
        rows = int(np.argmax(shares > stray))
        if shares[rows] <= stray or rows > WIDEST * len(shares):
            continue
        above = float(shares[max(0, rows - RAMP) : rows].max(initial=0.0))
        if not dark and (above > STRAY or rows < RAMP or _uneven(stack[:, :rows, breadth], colour)):
            continue
        if differs[rows : len(shares) - rows, breadth].mean() < FILLED:
            continue
        first = stack[:, rows : rows + RAMP, breadth]
        # Each frame is looked at by itself: roofs that pass by would add up to a straight edge. Some frames may be
        # dark.
        below = np.sort(((first > highest) | (first < lowest)).any(axis=1).mean(axis=1))
        frames = min(SHARP_FRAMES, count) if dark else max(1, round(LIGHT_FRAMES * count))
        needed = (SHARP, SHARP_TWIN) if dark else (SHARP_LIGHT, SHARP_LIGHT_TWIN)
        zones.append((rows, float(below[-frames]) - above, needed))
    return zones


def _uneven(zone: Grey, colour: int) -> bool:
    """Whether a flat zone [n, rows, columns] has lighter and darker parts; those that text stands on do not count."""
    import cv2

    mean = zone.mean(axis=0, dtype=np.float32)
    size = (max(1, mean.shape[1] // PART), max(1, mean.shape[0] // PART))
    parts = cv2.resize(mean, size, interpolation=cv2.INTER_AREA)
    plain = parts[np.abs(parts - colour) <= TOLERANCE]
    if plain.size == 0 or np.quantile(plain, 0.95) - np.quantile(plain, 0.05) > UNEVEN:
        return True
    grain = zone.astype(np.float32) - mean
    return bool(np.sqrt(np.median(np.square(grain).mean(axis=(1, 2)))) > GRAIN)


def _turned(image: Grey, quarters: int) -> Grey:
    """An image turned to the left by so many quarters."""
    import cv2

    turns = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
    return np.asarray(cv2.rotate(image, turns[quarters - 1]), np.uint8) if quarters else image


def _shares(mask: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.float64]:
    """`mask.mean(axis)`, ten times as fast."""
    import cv2

    sums = cv2.reduce(mask.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return np.asarray(sums.ravel() / mask.shape[axis], np.float64)


def median(levels: Grey) -> float:
    """The median of levels, as `np.median` has it; of bytes it is counted faster."""
    return median_of(np.bincount(levels.ravel(), minlength=256))


def median_of(counts: npt.NDArray[np.int64]) -> float:
    """The median of levels of which there are so many of each: int64 [256]."""
    below = np.cumsum(counts)
    middle = int(below[-1] - 1) // 2, int(below[-1]) // 2
    return float(sum(np.searchsorted(below, middle, side="right").tolist()) / 2)


def extremes(frames: Sequence[Grey]) -> tuple[Grey, Grey]:
    """The lowest and the highest level of each pixel over all frames."""
    low, high = frames[0], frames[0]
    for frame in frames[1:]:
        low, high = np.minimum(low, frame), np.maximum(high, frame)
    return low, high
