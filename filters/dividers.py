"""Lines that divide a frame into several pictures: one colour, from border to border, level or upright, in every frame.

An editor sets such lines between the pictures of a split screen. They are too thin for a panel's side (panels.py), which is
compared with what lies a few px beside it. The margins above and below letters are no such lines: there are two of them, of
the colour of their plate, nearer to one another than a part is wide. A frame is divided by the best line, and each part again.
One part is the picture: the largest, or of those that are as large the one in which most edges move. In a scene that stands
still a line is evidence only where something moves on both sides of it: a slide has rules, and a window has bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.bars import extremes, median, median_of
from longtake.filters.panels import moving_edges

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]  # Top, bottom, left, right, in px.

SAME = 12  # Grey levels by which a line may differ from its colour in any frame.
WHOLE = 0.97  # Share of its length on which it must not.
THICKEST = 0.025  # Share of the side that it divides.
ROOM = 0.15  # Share of that side which every part has at least.
BEYOND = 3  # Px beside a line in which the pictures begin.
DIFFERS = 16  # Grey levels by which they differ from its colour, on BESIDE of its length in the mean over the frames.
BESIDE = 0.4
DEEPEST = 3  # How often a part may be divided again.
AS_LARGE = 0.9  # Share of the largest part's area.
MOVES = 1.0  # Squared grey levels per px, in the mean over a part: how much the edges of a film change, at least.


def divided(frames: Sequence[Grey], fields: Field, *, still: bool) -> Mask:
    """All but the picture, where lines divide the frame: bool [h, w]; nothing where none do.

    frames: grey [h, w]. fields: their gradients, float32 [n, 2, h, w]. still: whether the scene is not known to move.
    """
    stack = np.stack(frames)
    height, width = stack.shape[1:]
    mask = np.zeros((height, width), np.bool_)
    low, high = extremes(frames)
    if int(high.max()) - int(low.min()) <= DIFFERS:  # In an even frame nothing differs from a line.
        return mask
    steady = (high - low) <= 2 * SAME
    if _line(stack, steady) is None and _line(stack.swapaxes(1, 2), steady.T) is None:
        return mask
    moving = moving_edges(fields) / np.float32(len(stack))
    parts = _parts(stack, steady, (0, height, 0, width), moving if still else None, DEEPEST)
    if len(parts) < 2:
        return mask
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in parts]
    large = [part for part, area in zip(parts, areas, strict=True) if area >= AS_LARGE * max(areas)]
    top, bottom, left, right = max(large, key=lambda box: float(moving[box[0] : box[1], box[2] : box[3]].mean()))
    mask[:] = True
    mask[top:bottom, left:right] = False
    return mask


def _parts(stack: Grey, steady: Mask, box: Box, moving: Field | None, deep: int) -> list[Box]:
    """The parts into which lines divide a box, the most of them: which line is taken first decides where one is too much like the
    picture beside it to be seen. moving: None: it need not move on both sides."""
    top, bottom, left, right = box
    inside, calm = stack[:, top:bottom, left:right], steady[top:bottom, left:right]
    upright, level = (_line(inside, calm), _line(inside.swapaxes(1, 2), calm.T)) if deep else (None, None)
    found = [box]
    halves: list[tuple[Box, Box]] = []
    if upright:
        halves.append(((top, bottom, left, left + upright[0]), (top, bottom, left + upright[1], right)))
    if level:
        halves.append(((top, top + level[0], left, right), (top + level[1], bottom, left, right)))
    for pair in halves:
        if moving is None or all(float(moving[a:b, c:d].mean()) >= MOVES for a, b, c, d in pair):
            parts = [part for half in pair for part in _parts(stack, steady, half, moving, deep - 1)]
            found = max(found, parts, key=len)
    return found


def _line(stack: Grey, steady: Mask) -> tuple[int, int] | None:
    """The first and the last column (exclusive) of the upright line nearest to the middle of [n, h, w]; None without any."""
    _, height, width = stack.shape
    room, thickest = max(BEYOND + 1, round(ROOM * width)), max(2, round(THICKEST * width))
    if width < 3 * room or height < 4 * BEYOND:
        return None
    found: list[tuple[int, int]] = []
    start = None
    # In a tripod shot all columns are steady: those of many colours are left out by one frame, all at once.
    first = stack[0].astype(np.float32)
    plain = (np.abs(first - first[height // 2]) <= 2 * SAME).mean(axis=0) >= WHOLE / 2
    calm = (plain & (steady.mean(axis=0) >= WHOLE)).tolist()
    for place in range(room, width - room + 1):
        on = calm[place] and _of_one_colour(stack[:, :, place])
        if on and start is None:
            start = place
        if not on and start is not None:
            within = place - start <= thickest and start > room and _ends_on_both_sides(stack, start, place)
            if within and not _is_margin(stack, calm, (start, place), room):
                found.append((start - 1, place + 1))  # The px beside it are mixed with its colour.
            start = None
    return min(found, key=lambda line: abs(line[0] + line[1] - width), default=None)


def _is_margin(stack: Grey, calm: list[bool], line: tuple[int, int], room: int) -> bool:
    """Whether a line has another one of its colour beside it, nearer than a part is wide: letters on a plate lie between two."""
    start, stop = line
    colour = median(stack[:, :, start:stop])
    near = [*range(max(0, start - room), start - BEYOND), *range(stop + BEYOND, min(len(calm), stop + room))]
    return any(
        calm[place] and abs(median(stack[:, :, place]) - colour) <= SAME and _of_one_colour(stack[:, :, place])
        for place in near
    )


def _of_one_colour(line: Grey) -> bool:
    """Whether nearly all levels of a line are near their median. line: uint8 [n, h]."""
    counts = np.bincount(line.ravel(), minlength=256)
    colour = median_of(counts)
    near = counts[max(0, math.ceil(colour - SAME)) : math.floor(colour + SAME) + 1]
    return int(near.sum()) >= WHOLE * line.size


def _ends_on_both_sides(stack: Grey, start: int, stop: int) -> bool:
    colour = median(stack[:, :, start:stop])
    for beside in (stack[:, :, start - BEYOND], stack[:, :, stop + BEYOND - 1]):
        if float((np.abs(beside.astype(np.float32) - colour) > DIFFERS).mean()) < BESIDE:
            return False
    return True
