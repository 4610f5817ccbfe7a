"""Straight-edged parts of a frame that an editor put there: split screens, pictures in pictures, banners, plates, blurred
pillars.

A panel is a rectangle whose sides lie on seams or on the frame's border. A **seam** is a straight level or upright line at
which the picture jumps in the mean over all frames, with any content on both sides of it: for each pixel, the mean of |g| over
the frames (g: the gradient across the line, long side 480) minus the larger of its neighbours 3 px to both sides, averaged
over 15 px along the line. The edges of a scene that moves are smeared out by that mean; those of a panel are not.

A scene that repeats itself (a facade, bricks, shelves of books) has more lines from border to border than an editor sets: there
none of them is evidence.

A scene that stands still is full of such lines: there they are evidence only where two of them, from border to border, lie
as a mirror image of one another (pillars, banners above and below), or where the picture moves all along the inside of a
rectangle and nowhere beside it. What else is found there is not known to be a panel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]  # Px.

STEP = 1.5  # Grey levels per px by which a seam stands out of its surroundings.
STEP_SHARE = 0.25  # The same as a share of the mean gradient on it: in busy pictures chance makes larger steps.
OFTEN = 0.6  # Share of the frames in which a pixel must stand out.
STEP_OF_MEAN = 3.0  # Grey levels per px by which a seam stands out in the mean of the gradients with their signs.
MOST_STEP = 8.0  # Grey levels per px that one frame counts for in that mean, at most.
BESIDE = 3  # Px from a seam to the surroundings that it is compared with.
ALONG = 15  # Px along a seam over which it is averaged.
ROWS = 3  # Px of ALONG that are first taken together.
SHORTEST = 0.08  # Share of the frame's short side. A shorter seam is no side of a panel.
GAP = 0.04  # Share of the frame's short side. A longer gap ends a seam.
COVERED = 0.6  # Share of each side that must lie on seams.
OPEN = 0.3  # Share of a side that may be missing at a corner, as where both pictures are dark there.
COVERED_ALL = 0.75  # Share of all sides within the frame together that must lie on seams.
THICKEST = 8  # Px. A broader strip is no line.
CORNER = 5  # Px by which the ends of sides may miss one another.
SMALLEST = 0.005  # Share of the frame's area. A smaller rectangle is a mark: see marks.py.
LARGEST = 0.51  # Share of the frame's area. A larger part is the picture, and not a panel.
WHOLE = 0.97  # Share of the frame's area. A larger rectangle is the frame.
MOST = 24  # Seams that are looked at in one direction: the longest ones.
TWIN = 2.0  # Px by which two seams may differ from mirroring one another.
TWIN_COVERED = 0.8
MIRRORED = 0.6  # COVERED for two sides that mirror one another, beside a ground with few edges.
RISEN = 1.5  # Px up or down within half a second from which on a horizon would have left its place.
SURE = 0.3  # Response of the phase correlation from which on its shift is believed.
BEYOND = 12  # Px beyond a level seam in which the picture goes on if they have EDGES.
EDGES = 2.0  # Mean squared gradient.
BLURRED = 0.3  # Mean squared gradient of a blurred ground, as a share of that of the picture on it, at most.
# Share of the frame's area. A band of this size is the picture, and the areas on both sides of it are not.
MIDDLE = 0.3
NARROWEST = 0.15  # The same share of a picture between pillars that mirror one another. A line in the middle is none.
FULL = 0.75  # Share of the frame's area. Panels over more leave no room for the picture, so that one of them is it.
NEXT = 10  # Px to both sides of a panel's side in which it is compared what moves.
TRIED = 100  # Rectangles that are looked at so: those whose sides are best covered by seams.
PARTS = 8  # Parts of a side that are compared one by one.
# A factor: within a film in a tripod shot so much more moves than beyond its side. Real ones have 30 and more.
MORE = 3.0
# A share: in so many parts of each side more must move. In real tripod shots 0.62 at most do on all sides of a rectangle.
LIVELY = 0.75
# `covered` of a column or band that holds other panels, and of a band from border to border that comes before others.
HOLDS = 0.95
HELD = 0.95  # Share of a panel that lies in it.
SAME = 0.5  # Share of the smaller of two panels that overlaps: from it on they are two readings of one panel.
# Lines from border to border in one direction: an editor sets so many at most, and a scene that repeats itself has more.
MOST_LINES = 4


@dataclass(frozen=True, slots=True)
class Seam:
    """A straight line at `place` (a column, or a row) that reaches from `start` to `stop` along it, in px."""

    place: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle [top, bottom) × [left, right) in px, and the share of its sides within the frame that lies on seams."""

    top: int
    bottom: int
    left: int
    right: int
    covered: float

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def inner(self, height: int, width: int) -> int:
        """How many of its sides lie within a frame of this size."""
        return (self.top > 0) + (self.bottom < height) + (self.left > 0) + (self.right < width)

    def overlap(self, other: Panel) -> float:
        """Share of the smaller one's area that both have in common."""
        rows = min(self.bottom, other.bottom) - max(self.top, other.top)
        columns = min(self.right, other.right) - max(self.left, other.left)
        return max(0, rows) * max(0, columns) / max(1, min(self.area, other.area))

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """Many panels at once: a busy picture has thousands. sides: top, bottom, left, right, int64 [4, n]. covered: float64 [n]."""

    sides: Places
    covered: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.covered)

    def __getitem__(self, number: int) -> Panel:
        top, bottom, left, right = self.sides[:, number].tolist()
        return Panel(top, bottom, left, right, float(self.covered[number]))

    def __iter__(self) -> Iterator[Panel]:
        return (self[number] for number in range(len(self)))

    def those(self, which: npt.NDArray[np.bool_] | Places) -> Panels:
        """Some of them: bool [n], or their numbers."""
        return Panels(self.sides[:, which], self.covered[which])

    @property
    def areas(self) -> Places:
        top, bottom, left, right = self.sides
        return np.asarray((bottom - top) * (right - left), np.int64)

    def inner(self, height: int, width: int) -> Places:
        """How many sides of each lie within a frame of this size: [n]."""
        top, bottom, left, right = self.sides
        sides = (top > 0, bottom < height, left > 0, right < width)
        return np.asarray(np.sum(sides, axis=0, dtype=np.int64), np.int64)

    def across(self, height: int, width: int) -> Mask:
        """Which reach from border to border of a frame of this size, within it on their two other sides: [n]."""
        top, bottom, left, right = self.sides
        level = (left == 0) & (right == width) & (top > 0) & (bottom < height)
        return np.asarray(level | ((top == 0) & (bottom == height) & (left > 0) & (right < width)))


def seam_map(across: Field) -> Mask:
    """Pixels on upright seams: bool [h, w]. across: gradient to the right of each frame, float32 [n, h, w].

    Rows are looked at in threes: what is averaged along a seam need not be known more finely.
    """
    _, height, width = across.shape
    often = np.zeros((height // ROWS, width - 2 * BESIDE), np.uint8)
    mean = np.zeros((height // ROWS, width), np.float32)
    for frame in across:
        strength = np.abs(frame)
        above = _along(strength[:, BESIDE:-BESIDE] - _beside(strength))
        often += above > np.maximum(STEP, STEP_SHARE * _along(strength[:, BESIDE:-BESIDE]))
        mean += np.clip(_along(frame), -MOST_STEP, MOST_STEP)
    # A plate is lighter than the scene behind it in all frames, or darker: in their mean the scene fades away. No frame
    # counts for more than its share, since the edge of a house that passes by is strong.
    mean = np.abs(mean / len(across))
    found = (often >= OFTEN * len(across)) | (mean[:, BESIDE:-BESIDE] - _beside(mean) > STEP_OF_MEAN)
    on = np.zeros((height, width), np.bool_)
    on[: height // ROWS * ROWS, BESIDE:-BESIDE] = np.repeat(found, ROWS, axis=0)
    on[height // ROWS * ROWS :] = on[height // ROWS * ROWS - 1]
    return on


def _along(field: Field) -> Field:
    """A field averaged along its columns, at every third row: float32 [h // 3, w]."""
    import cv2

    rows = len(field) // ROWS * ROWS
    thirds = field[0:rows:ROWS] + field[1:rows:ROWS]
    thirds += field[2:rows:ROWS]
    thirds *= np.float32(1 / ROWS)
    return np.asarray(cv2.blur(thirds, (1, ALONG // ROWS), borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def _beside(strength: Field) -> Field:
    """The larger of what is to the left and to the right of each pixel that has both: [h, w - 2 · BESIDE]."""
    return np.maximum(strength[:, : -2 * BESIDE], strength[:, 2 * BESIDE :])


def seams(on: Mask, shortest: int, gap: int, first: Mask | None = None, most: int = MOST) -> list[Seam]:
    """Upright seams in a map bool [h, w]; columns beside each other are one. The longest ones (`most`), by their column.

    first: bool [h, w]: those are taken that are the longest in these pixels.
    """
    import cv2

    wide = cv2.dilate(on.astype(np.uint8), np.ones((1, 3), np.uint8))
    closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((gap, 1), np.uint8))
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((shortest, 1), np.uint8))
    # Most columns are empty. Only the others are labelled, and the one after each group of them, which keeps groups apart.
    used = cv2.reduce(opened, 0, cv2.REDUCE_MAX)[0]
    columns = np.flatnonzero(cv2.dilate(used[None], np.ones((1, 2), np.uint8)))
    if not len(columns):
        return []
    found: list[Seam] = []
    count, _, stats, centres = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(opened[:, columns]), connectivity=4
    )
    for label in range(1, count):
        left, top, width, length, _ = (int(value) for value in stats[label])
        if width <= THICKEST:
            place = round(float(centres[label][0]) + int(columns[left]) - left)
            found.append(Seam(place, top, top + length))
    found += _joined(found)
    if first is None:
        found.sort(key=lambda seam: seam.start - seam.stop)
    else:
        sums = _seam_sums(first, np.array([seam.place for seam in found], np.int64))
        found.sort(key=lambda seam: int(sums[seam.place, seam.start] - sums[seam.place, seam.stop]))
    return sorted(found[:most], key=lambda seam: seam.place)


def _joined(pieces: list[Seam]) -> list[Seam]:
    """Seams from the first to the last of pieces on one line: where the picture and the panel are of one brightness, a side of
    the panel has a gap. How much of the side is covered is seen later."""
    found: list[Seam] = []
    at = defaultdict(list)
    for piece in sorted(pieces, key=lambda piece: piece.start):
        at[piece.place].append(piece)
    for first in pieces:
        near = (piece for place in (-1, 0, 1) for piece in at.get(first.place + place, ()))
        line = sorted((piece for piece in near if piece.start >= first.start), key=lambda piece: piece.start)
        covered = first.stop - first.start
        for other in line[1:]:
            covered += other.stop - other.start
            if COVERED * (other.stop - first.start) <= covered and other.start >= first.stop:
                found.append(Seam(first.place, first.start, other.stop))
    return found


def seam_maps(fields: Field) -> tuple[Mask, Mask]:
    """Pixels on upright seams, bool [h, w], and on level ones, bool [w, h]. fields: gradients, float32 [n, 2, h, w] (right,
    down)."""
    return seam_map(fields[:, 0]), seam_map(np.ascontiguousarray(fields[:, 1].transpose(0, 2, 1)))


def made_of_lines(maps: tuple[Mask, Mask]) -> bool:
    """Whether a scene repeats itself in lines from border to border, as a facade, bricks or a chess board do: then no line is
    evidence of an editor. They lie all over it, and not within one panel. maps: see `seam_maps`."""
    for on in maps:
        share, lines = on_seams(on), list[int]()
        while float(share.max()) >= COVERED:
            lines.append(int(np.argmax(share)))
            share[max(0, lines[-1] - CORNER) : lines[-1] + CORNER + 1] = 0
        if len(lines) > MOST_LINES and max(lines) - min(lines) >= COVERED * len(share):
            return True
    return False


def on_seams(on: Mask) -> npt.NDArray[np.float64]:
    """Of each column of a map bool [h, w], the share that has a seam on it or beside it: float64 [w]."""
    near = on.copy()
    near[:, 1:] |= on[:, :-1]
    near[:, :-1] |= on[:, 1:]
    return np.asarray(near.mean(axis=0), np.float64)


def panels(
    maps: tuple[Mask, Mask],
    first: tuple[Mask, Mask] | None = None,
    *,
    shortest: float = SHORTEST,
    most: int = MOST,
) -> Panels:
    """The rectangles on seams, the best covered first. maps: see `seam_maps`. first: in maps like these, the pixels whose seams
    are preferred where there are many. shortest, most: see SHORTEST and MOST."""
    upright_map, level_map = maps
    height, width = upright_map.shape
    short = min(height, width)
    least, gap = max(8, round(shortest * short)), max(3, round(GAP * short))
    upright = [Seam(0, 0, height), *seams(upright_map, least, gap, first and first[0], most), Seam(width, 0, height)]
    level = [Seam(0, 0, width), *seams(level_map, least, gap, first and first[1], most), Seam(height, 0, width)]
    found = _rectangles(upright, level, upright_map, level_map.T, shortest * short)
    return found.those(np.lexsort((found.areas, -found.covered)))


def _rectangles(upright: list[Seam], level: list[Seam], upright_map: Mask, level_map: Mask, short: float) -> Panels:
    """The boxes between these seams whose sides are covered by seams. short: px of a short side."""
    height, width = upright_map.shape
    top, bottom, left, right = boxes = _boxes(upright, level, height, width, short)
    shares, lengths = np.ones((4, len(top))), np.zeros((4, len(top)), np.int64)
    for k, (on, places, end, start, stop) in enumerate(
        (
            (upright_map, left, width, top, bottom),
            (upright_map, right, width, top, bottom),
            (level_map.T, top, height, left, right),
            (level_map.T, bottom, height, left, right),
        )
    ):
        within = (places > 0) & (places < end)
        sums = _seam_sums(on, places[within])
        lengths[k, within] = length = (stop - start)[within]
        shares[k, within] = (sums[places[within], stop[within]] - sums[places[within], start[within]]) / length
    together = lengths.sum(axis=0)
    covered = (shares * lengths).sum(axis=0) / np.maximum(together, 1)
    good = (together > 0) & (shares.min(axis=0) >= COVERED) & (covered >= COVERED_ALL)
    return Panels(np.stack(boxes)[:, good], covered[good])


def _boxes(
    upright: list[Seam], level: list[Seam], height: int, width: int, short: float
) -> tuple[Places, Places, Places, Places]:
    """The boxes between two upright and two level seams that reach from one another to the other, but for `slack` px at an end
    on the frame's border, and some more at a corner within: top, bottom, left, right of each."""
    slack = CORNER + round(GAP * min(height, width))
    columns, tops, stops = (np.array([getattr(seam, name) for seam in upright]) for name in ("place", "start", "stop"))
    rows, lefts, rights = (np.array([getattr(seam, name) for seam in level]) for name in ("place", "start", "stop"))
    first, second = np.triu_indices(len(upright), 1)
    begin, end = columns[first], columns[second]
    corner = np.maximum(slack, np.rint(OPEN * (end - begin)).astype(np.int64))
    latest, earliest = begin + np.where(begin == 0, slack, corner), end - np.where(end == width, slack, corner)
    spans = (lefts <= latest[:, None]) & (rights >= earliest[:, None])
    reached = (tops[:, None] - CORNER <= rows) & (rows <= stops[:, None] + CORNER)
    sides = spans & reached[first] & reached[second]  # Level seams that may be a side between two upright ones.
    above, below = np.triu_indices(len(level), 1)
    pair, sort = np.nonzero(sides[:, above] & sides[:, below])
    top, bottom, left, right = rows[above[sort]], rows[below[sort]], begin[pair], end[pair]
    tall, wide = bottom - top, right - left
    good = (tall >= 4) & (wide >= 4)
    good &= (tall >= short) | ((left == 0) & (right == width))
    good &= (wide >= short) | ((top == 0) & (bottom == height))
    good &= (tall * wide >= SMALLEST * height * width) & (tall * wide <= WHOLE * height * width)
    return top[good], bottom[good], left[good], right[good]


def _seam_sums(on: Mask, places: Places) -> npt.NDArray[np.int64]:
    """At the columns `places` of a map bool [length, across]: on how many of the px before each one a seam lies within 2 px of
    the column, [across, length + 1]."""
    sums = np.zeros((on.shape[1] + 1, len(on) + 1), np.int64)
    for place in set(places.tolist()):
        sums[place, 1:] = np.cumsum(on[:, max(0, place - 2) : place + 2].any(axis=1))
    return sums


def strips(panel: Panel, height: int, width: int) -> tuple[Panel, Panel] | None:
    """What lies on both sides of a panel that reaches from border to border, within the frame on its two other sides."""
    if (panel.left, panel.right) == (0, width) and panel.top > 0 and panel.bottom < height:
        above = Panel(0, panel.top, 0, width, panel.covered)
        return above, Panel(panel.bottom, height, 0, width, panel.covered)
    if (panel.top, panel.bottom) == (0, height) and panel.left > 0 and panel.right < width:
        before = Panel(0, height, 0, panel.left, panel.covered)
        return before, Panel(0, height, panel.right, width, panel.covered)
    return None


def is_twin(panel: Panel, height: int, width: int) -> bool:
    """Whether a panel from border to border has as much on one side as on the other."""
    beside = strips(panel, height, width)
    if beside is None or panel.covered < TWIN_COVERED:
        return False
    first, second = beside
    taller = (first.bottom - first.top) - (second.bottom - second.top)
    wider = (first.right - first.left) - (second.right - second.left)
    return abs(taller) <= TWIN and abs(wider) <= TWIN


def mirrored(fields: Field, maps: tuple[Mask, Mask]) -> list[Panel]:
    """Pillars, or banners, of one width at two opposite sides, on a ground with fewer edges than the picture between them.

    Their seams may be missing where the picture and the ground are of one brightness: in a scene that stands still they stay so.
    """
    height, width = fields.shape[2:]
    for axis, on in enumerate(maps):
        share = on_seams(on)
        half = len(share) // 2
        least = np.minimum(share[:half], share[::-1][:half])
        place = int(np.argmax(least))
        if least[place] < MIRRORED or not SHORTEST * half <= place <= (1 - MIDDLE) * half:
            continue
        beside = np.square(fields).sum(axis=(0, 1)).mean(axis=axis)
        outside = float(np.concatenate([beside[: place - BESIDE], beside[len(beside) - place + BESIDE :]]).mean())
        if outside < BLURRED * float(beside[place + BESIDE : len(beside) - place - BESIDE].mean()):
            box = (0, height, place, width - place) if axis == 0 else (place, height - place, 0, width)
            return list(strips(Panel(*box, float(least[place])), height, width) or ())
    return []


def is_inset(panel: Panel, fields: Field) -> bool:
    """Whether a panel is the picture, in the middle of a ground with fewer edges: its own blurred enlargement, mostly."""
    height, width = fields.shape[2:]
    if panel.inner(height, width) < 4 or panel.area < MIDDLE * height * width or panel.covered < TWIN_COVERED:
        return False
    middle = abs(panel.top - (height - panel.bottom)) <= TWIN and abs(panel.left - (width - panel.right)) <= TWIN
    if not middle:
        return False
    every, inside = (float(np.square(part).sum()) for part in (fields, fields[:, :, *panel.window]))
    return bool((every - inside) / (height * width - panel.area) < BLURRED * inside / panel.area)


def surround(panel: Panel, height: int, width: int) -> list[Panel]:
    """What is around a panel: above, below, and on both sides."""
    top, bottom, left, right, covered = panel.top, panel.bottom, panel.left, panel.right, panel.covered
    boxes = ((0, top, 0, width), (bottom, height, 0, width), (top, bottom, 0, left), (top, bottom, right, width))
    return [Panel(*box, covered) for box in boxes]


def bands(found: Panels, height: int, width: int) -> Panels:
    """Those that reach from border to border of a frame of this size and are no larger than a part of it: plates of titles."""
    fits = found.across(height, width) & (found.covered >= HOLDS) & (found.areas < MIDDLE * height * width)
    return found.those(fits)


def chosen(found: Panels, fields: Field, maps: tuple[Mask, Mask], *, twins_only: bool) -> list[Panel]:
    """Of overlapping rectangles the ones that an editor put there: the others are the picture, or made of its neighbours.

    found, fields, maps: see `panels` and `seam_maps`. Of panels that fill the frame, the one in which most edges move is the
    picture. twins_only: in a scene that stands still, other seams are no evidence.
    """
    height, width = fields.shape[2:]
    frame = height * width
    areas, inner = found.areas, found.inner(height, width)
    middle = _middle(found, height, width, twins_only=twins_only)
    may_be = (inner == 4) & (areas >= MIDDLE * frame) & (found.covered >= TWIN_COVERED)
    inset = next((panel for panel in found.those(may_be) if is_inset(panel, fields)), None)
    if inset and not middle:
        return surround(inset, height, width)
    kept = list(strips(middle, height, width) or ()) if middle else mirrored(fields, maps)
    if twins_only:
        return kept or _lively(found.those(areas <= LARGEST * frame), fields)
    # A band from border to border comes before what it holds: letters have straight sides, too.
    order = np.lexsort((areas, -found.covered, -inner, ~((found.covered >= HOLDS) & found.across(height, width))))
    small = found.those(order[areas[order] <= LARGEST * frame])
    new = np.ones(len(small), np.bool_)  # Panels that are no other reading of a part that is known.
    for part in (*kept, middle) if middle else kept:
        new &= _overlaps(small.sides, part) <= SAME
    for number in np.flatnonzero(new).tolist():
        if not new[number]:
            continue
        panel = small[number]
        if any(_remains_of(panel, other, height, width) for other in kept):
            continue
        if not _may_be_a_horizon(panel, fields):
            kept.append(panel)
            new &= _overlaps(small.sides, panel) <= SAME
    if not middle:
        kept = _around(kept, small.those((small.covered >= HOLDS) & (small.inner(height, width) == 1)), height, width)
    full = not middle and sum(panel.area for panel in kept) > FULL * frame
    if full or any(panel.area >= (WHOLE - LARGEST) * frame for panel in kept):
        moving = moving_edges(fields)
        if full:
            kept.remove(max(kept, key=lambda panel: float(moving[panel.window].sum())))
        halves = list(small.those(small.areas >= (WHOLE - LARGEST) * frame))
        kept = [_stiller(panel, halves, moving) for panel in kept]
    return kept


def _middle(found: Panels, height: int, width: int, *, twins_only: bool) -> Panel | None:
    """The first panel from border to border that is the picture, with others on both sides of it; see `chosen`."""
    least = NARROWEST if twins_only else MIDDLE
    large = found.those(found.across(height, width) & (found.areas >= least * height * width))
    return next((panel for panel in large if not twins_only or is_twin(panel, height, width)), None)


def moving_edges(fields: Field) -> Field:
    """How much the edges of each pixel change over the frames: the sum of squared distances from their mean, float32 [h, w].

    fields: gradients, float32 [n, 2, h, w].
    """
    mean = fields.mean(axis=0)
    total = np.zeros(fields.shape[2:], np.float32)
    for field in fields:  # One frame follows the other, as the arrays of one fit into a core's cache.
        off = field - mean
        off *= off
        total += off[0]
        total += off[1]
    return total


def _around(kept: list[Panel], sides: Panels, height: int, width: int) -> list[Panel]:
    """`kept`, and in place of those that are its lines or pictures the column or band that holds them: nearly all of its side is
    seen. sides: columns and bands at the border of a frame of this size. One that holds a band from border to border is none: on
    the other side of the band lies the picture."""
    for panel in sides:
        held = [other for other in kept if other.area < SAME * panel.area and panel.overlap(other) > HELD]
        if any(other.covered >= HOLDS and strips(other, height, width) for other in held):
            continue
        if held and all(panel.overlap(other) <= SAME for other in kept if other not in held):
            kept = [*(other for other in kept if other not in held), panel]
    return kept


def _lively(small: Panels, fields: Field) -> list[Panel]:
    """Panels in which the picture moves all along their sides while it stands still beyond them: a film in a tripod shot."""
    height, width = fields.shape[2:]
    kept: list[Panel] = []
    tried = small.those(np.flatnonzero(small.covered >= TWIN_COVERED)[:TRIED])
    moving = moving_edges(fields) if len(tried) else np.zeros((height, width), np.float32)
    for panel in tried:
        rows, columns = panel.window
        sides = [
            (moving[rows], panel.left),
            (moving[rows, ::-1], width - panel.right),
            (moving.T[columns], panel.top),
            (moving.T[columns, ::-1], height - panel.bottom),
        ]
        inner = [(strip, place) for strip, place in sides if place > NEXT]
        lively = len(inner) >= 2 and all(_more_beyond(strip, place) >= LIVELY for strip, place in inner)
        if lively and all(panel.overlap(other) <= SAME for other in kept):
            kept.append(panel)
    return kept


def _more_beyond(strip: Field, place: int) -> float:
    """The share of the parts of a side in which more moves to the right of it than to the left.

    strip: how much the edges move, in the rows that the side takes, [rows, w]. place: the side's column.
    """
    left, right = strip[:, max(0, place - NEXT) : place - BESIDE], strip[:, place + BESIDE : place + NEXT]
    rows = len(strip) // PARTS * PARTS
    less, more = (side[:rows].reshape(PARTS, -1).mean(axis=1) for side in (left, right))
    return float((more > MORE * less).mean())


def _stiller(half: Panel, halves: list[Panel], moving: Field) -> Panel:
    """The other half of a split screen where it moves less: what moves is the picture. Any other panel as it is.

    halves: all panels that are about half of the frame. moving: how much the edges move, [h, w].
    """
    frame = moving.size
    beside = [other for other in halves if half.area + other.area >= WHOLE * frame and half.overlap(other) == 0]
    return min([half, *beside], key=lambda panel: float(moving[panel.window].sum()))


def _overlaps(sides: Places, other: Panel) -> npt.NDArray[np.float64]:
    """`Panel.overlap` of many with another. sides: top, bottom, left, right, [4, n]."""
    top, bottom, left, right = sides
    rows = np.minimum(bottom, other.bottom) - np.maximum(top, other.top)
    columns = np.minimum(right, other.right) - np.maximum(left, other.left)
    areas = np.minimum((bottom - top) * (right - left), other.area)
    return np.asarray(np.maximum(rows, 0) * np.maximum(columns, 0) / np.maximum(areas, 1))


def _remains_of(panel: Panel, band: Panel, height: int, width: int) -> bool:
    """Whether a panel is the picture on the far side of a band."""
    return any(
        panel.overlap(side) > 1 - SAME and side.area <= 1.2 * panel.area for side in strips(band, height, width) or ()
    )


def _may_be_a_horizon(panel: Panel, fields: Field) -> bool:
    """Whether nothing distinguishes the level seams of a panel, from border to border, from the horizon of a level pan.

    What would tell is a second seam, where the picture has edges beyond both; or that the picture goes up and down, which a
    horizon would, too: within half a second, keyframe to partner.
    """
    import cv2

    height, width = fields.shape[2:]
    if (panel.left, panel.right) != (0, width):
        return False
    if panel.inner(height, width) == 2:
        above = fields[:, :, max(0, panel.top - BEYOND) : max(1, panel.top - BESIDE)]
        below = fields[:, :, min(height - 1, panel.bottom + BESIDE) : panel.bottom + BEYOND]
        if min(float(np.square(part).sum(axis=1).mean()) for part in (above, below)) > EDGES:
            return False
    parts = (slice(0, panel.top), slice(panel.top, panel.bottom), slice(panel.bottom, height))
    rows = max(parts, key=lambda part: part.stop - part.start)
    part = fields[:, 1, rows]
    window = cv2.createHanningWindow((width, part.shape[1]), cv2.CV_32F)
    half, risen = len(part) // 2, 0
    for first, second in zip(part[:half], part[half:], strict=False):
        (_, down), sure = cv2.phaseCorrelate(first.copy(), second.copy(), window)
        risen += sure > SURE and RISEN <= abs(down) <= part.shape[1] / 4
    return risen < 2
