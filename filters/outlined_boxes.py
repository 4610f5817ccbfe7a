"""Boxes with an outline of one colour: pictures in pictures, a speaker's box, an empty frame or guide.

Such an outline is a thin line, level and upright, of one colour all the way round and in all frames, and the picture is of
another one on both sides of it. So lines are looked for in the mean of all frames, for the colours that most px of thin lines
have, and rectangles made of them, as of the seams of panels.py. Corners may be round.

What lies within is part of the scene if the scene goes on in it: if edges, or light and dark, are the same just within the
outline and just beyond it. Then the line alone counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from longtake.filters.bars import extremes
from longtake.filters.panels import Panel, panels

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

BESIDE = 6  # Px from a line to what lies beside it: the thickest outline.
DIFFERS = 8  # Grey levels by which a line differs from both.
EVEN = 6  # Grey levels by which a line may change over 6 px along it.
STEADY = 24  # Grey levels by which it may change over all frames: dividers.py has the same.
COLOUR = 12  # Grey levels by which a line may differ from its colour.
COLOURS = 4  # Colours that are tried.
GAP, SHORT = 9, 19  # Px: gaps that are closed, and the shortest piece of a line.
ROUND = 10  # Px that a round corner may take of a line, and as many again that a rectangle's side may lack.
SHORTEST, MOST = 0.05, 48  # Share of the short side, and lines in one direction: rectangles.py has the same.
COVERED = 0.9  # Share of the sides that lies on lines.
LEAN = 0.4  # Px, as in joints.py: the last third of a side lies no farther beside its first.
OF_COLOUR = 0.7  # Share of each side's line that has the colour of all.
SMALLEST = 0.015  # Share of the frame, as in rectangles.py.
# Correlation of edges, and of light and dark, within a box and beyond it, of which one must be as high where the scene goes on.
# Films set in have 0.08 and 0.54 at most, scenes 0.15 and 0.6 at least, but for one flat scene (0.02 and 0.8).
SAME_EDGES, SAME_LIGHT = 0.12, 0.57


def outlined_boxes(frames: Sequence[Grey]) -> Mask:
    """What is under boxes with outlines, or under the outlines alone, in grey frames [h, w]: bool [h, w]."""
    import cv2

    low, high = extremes(frames)
    steady = np.asarray(cv2.subtract(high, low) <= STEADY)
    total = np.zeros(low.shape, np.float32)
    for frame in frames:
        cv2.accumulate(frame, total)
    mean = np.rint(total / np.float32(len(frames))).astype(np.uint8)
    views = [mean, np.ascontiguousarray(mean.T)]
    thin = [_thin(views[0]) & steady, _thin(views[1]) & steady.T]
    levels = [view[on & _pieces(on)] for view, on in zip(views, thin, strict=True)]
    counts = np.bincount(np.concatenate(levels), minlength=256)
    mask = np.zeros(mean.shape, np.bool_)
    found: list[tuple[Panel, int]] = []
    for _ in range(COLOURS):
        near = np.convolve(counts, np.ones(2 * COLOUR + 1), "same")
        colour = int(np.argmax(near))
        if near[colour] == 0:
            break
        counts[max(0, colour - COLOUR) : colour + COLOUR + 1] = 0
        lines = [_pieces(on & _near(view, colour)) for view, on in zip(views, thin, strict=True)]
        if min(int(on.sum()) for on in lines) >= 2 * SHORT:  # Two sides each.
            found += _boxes(views, lines)
    kept: list[Panel] = []
    for panel, colour_of in sorted(found, key=lambda one: -one[0].area):
        if all(panel.overlap(other) <= 0.5 for other in kept):
            kept.append(panel)
            rows, columns = panel.window
            whole = np.ones((panel.bottom - panel.top, panel.right - panel.left), np.bool_)
            if _goes_on(frames, panel):
                whole[2 * BESIDE : -2 * BESIDE, 2 * BESIDE : -2 * BESIDE] = False
                whole &= _near(mean[rows, columns], colour_of)
            mask[rows, columns] |= whole
    return mask


def _thin(mean: Grey) -> Mask:
    """Px of thin upright lines in a picture [h, w]: lighter than what is on both sides, or darker, and even along the line."""
    import cv2

    on = np.zeros(mean.shape, np.bool_)
    middle, left, right = mean[:, BESIDE:-BESIDE], mean[:, : -2 * BESIDE], mean[:, 2 * BESIDE :]
    lighter = cv2.min(cv2.subtract(middle, left), cv2.subtract(middle, right))
    darker = cv2.min(cv2.subtract(left, middle), cv2.subtract(right, middle))
    on[:, BESIDE:-BESIDE] = cv2.max(lighter, darker) >= DIFFERS
    on[3:-3] &= cv2.absdiff(mean[6:], mean[:-6]) <= EVEN
    return on


def _near(levels: Grey, colour: int) -> Mask:
    """Which levels are those of a colour."""
    return (levels >= max(0, colour - COLOUR)) & (levels <= min(255, colour + COLOUR))


def _pieces(on: Mask) -> Mask:
    """The upright pieces of lines in a map [h, w]."""
    import cv2

    closed = cv2.morphologyEx(on.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((GAP, 1), np.uint8))
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((SHORT, 1), np.uint8)) > 0)


def _boxes(views: Sequence[Grey], lines: Sequence[Mask]) -> Iterator[tuple[Panel, int]]:
    """Rectangles on lines of one colour, from outer edge to outer edge, and their colour.

    views: the mean of all frames, upright and turned. lines: its upright and its level lines, bool [h, w] and [w, h].
    """
    import cv2

    longer = [cv2.dilate(on.astype(np.uint8), np.ones((2 * ROUND + 1, 1), np.uint8)) > 0 for on in lines]
    upright, level = (_halved(on) for on in longer)
    height, width = upright.shape
    found = panels((upright, level), shortest=SHORTEST, most=MOST)
    fits = (found.inner(height, width) == 4) & (found.covered >= COVERED) & (found.areas >= SMALLEST * upright.size)
    for panel in found.those(fits):
        top, bottom, left, right = (2 * side for side in (panel.top, panel.bottom, panel.left, panel.right))
        sides = [
            _side(views[turned], lines[turned], place, start, stop)
            for turned, place, start, stop in (
                (0, left, top, bottom),
                (0, right, top, bottom),
                (1, top, left, right),
                (1, bottom, left, right),
            )
        ]
        levels = [side[0] for side in sides]
        if min(map(len, levels)) < SHORT or max(side[2] for side in sides) > LEAN:
            continue
        colour = round(float(np.median(np.concatenate(levels))))
        if min(float(_near(each, colour).mean()) for each in levels) >= OF_COLOUR:
            (begin, _), (_, end), (above, _), (_, below) = (side[1] for side in sides)
            yield Panel(above, below + 1, begin, end + 1, panel.covered), colour


def _side(view: Grey, line: Mask, place: int, start: int, stop: int) -> tuple[Grey, tuple[int, int], float]:
    """The levels of a line at about this column, uint8 [n], its first and last column, and how many
    px its last third lies beside its first."""
    first = max(0, place - BESIDE)
    window = (slice(start + ROUND, max(start + ROUND, stop - ROUND)), slice(first, place + BESIDE))
    on = line[window]
    share = on.mean(axis=0) if len(on) else np.zeros(on.shape[1])
    columns = np.flatnonzero(share >= 0.5 * share.max(initial=0.0)) if share.any() else np.zeros(1, np.int64)
    rows, across = np.nonzero(on)
    thirds = [across[rows < len(on) / 3], across[rows >= len(on) * 2 / 3]]
    lean = abs(float(thirds[0].mean() - thirds[1].mean())) if all(map(len, thirds)) else 0.0
    return view[window][on], (first + int(columns[0]), first + int(columns[-1])), lean


def _halved(on: Mask) -> Mask:
    """A map [h, w] at half its size."""
    even = on[: len(on) // 2 * 2, : on.shape[1] // 2 * 2]
    rows = even[::2] | even[1::2]
    return rows[:, ::2] | rows[:, 1::2]


def _goes_on(frames: Sequence[Grey], panel: Panel) -> bool:
    """Whether the scene goes on within a box as it is beyond it."""
    pairs: list[list[Field]] = [[], []]
    for frame in frames:
        for view, place, way, start, stop in (
            (frame, panel.left, 1, panel.top, panel.bottom),
            (frame, panel.right - 1, -1, panel.top, panel.bottom),
            (frame.T, panel.top, 1, panel.left, panel.right),
            (frame.T, panel.bottom - 1, -1, panel.left, panel.right),
        ):
            columns = (place + 2 * BESIDE * way, place - BESIDE * way // 2)
            if min(columns) < 1 or max(columns) > view.shape[1] - 2:
                continue
            for read, column in zip(pairs, columns, strict=True):
                row = view[start + ROUND : stop - ROUND, column - 1 : column + 2].astype(np.float32).mean(axis=1)
                read.append(row - row.mean())
    if not pairs[0]:
        return False
    light = _alike(*(np.concatenate(read) for read in pairs))
    edges = _alike(*(np.concatenate([_smooth(np.diff(row)) for row in read]) for read in pairs))
    return edges >= SAME_EDGES or light >= SAME_LIGHT


def _smooth(row: Field) -> Field:
    return np.convolve(row, np.full(3, 1 / 3, np.float32), "same")


def _alike(one: Field, other: Field) -> float:
    """The correlation of two rows whose mean is zero."""
    return float((one * other).sum() / max(1e-6, float(np.sqrt(np.square(one).sum() * np.square(other).sum()))))
