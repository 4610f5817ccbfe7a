"""Static marks: what stands still in all frames while the picture moves. Logos, watermarks, drawn frames, plates, and the
panels of panels.py, two_films.py and discs.py.

For each pixel, with g the gradient (Sobel, long side 480): how much of its energy n frames have in common, |Σ g|² / (n Σ |g|²)
(after the median of gradients in Dekel et al., "On the effectiveness of visible watermarks", CVPR 2017). Strong edges of which
85 % are common, and weaker ones (a watermark of a quarter's opacity) of which half is, where edges near them are such, too.
Edges nearer than 4 px belong together; letters in a line count by their hull. Marks with edges in one direction only are
dropped: a horizon in a level pan stands still too. An opaque ground is added: an area that never changes, with a rim that is an
edge of one direction in most frames (a flat sky never changes either, but things pass along its rim). So is what lies within a
pale outline, see outlines.py.

The lines of a scene that repeats itself (`panels.made_of_lines`) are its own, and belong to no mark.

Of a scene that does not move (see stillness.py) it is not known what was put over it: nothing but the joints of
joints.py, lines between films (dividers.py), blurred pillars and translucent letters (translucent.py) is found then, and `known`
is False; if it repeats itself, nothing but blurred pillars and films that move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from longtake.filters.bars import TOLERANCE, bars, extremes
from longtake.filters.blurred_grounds import WIDE, blurred_ground
from longtake.filters.copied_grounds import copied_ground
from longtake.filters.discs import disc
from longtake.filters.dividers import divided
from longtake.filters.joints import joined
from longtake.filters.outlined_boxes import outlined_boxes
from longtake.filters.outlines import MOST, NOISE, outlined
from longtake.filters.panels import (
    HELD,
    SAME,
    Panel,
    Panels,
    bands,
    chosen,
    made_of_lines,
    moving_edges,
    panels,
    seam_maps,
    strips,
)
from longtake.filters.rectangles import rectangles
from longtake.filters.stillness import moves, still_side
from longtake.filters.tiles import tiled
from longtake.filters.translucent import mean_of, translucent, translucent_lines
from longtake.filters.two_films import begins, still_and_moving

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
Gradients = npt.NDArray[np.float32]

WORK_SIDE = 480  # Px. Gradients are compared on frames of this long side.
STRONG = 8.0  # Grey levels per px of an edge.
CONSTANT = 0.85  # Share of an edge's energy that all frames have in common: from it on the edge stands still.
FAINT = 3.0  # Grey levels per px, in the mean of all frames, of an edge of a pale mark.
FAINT_CONSTANT = 0.6
FAINT_OFTEN = 0.9  # Share of the frames whose gradient points the same way and has FAINT_LEAST of the mean's length.
FAINT_LEAST = 0.4  # Share of the mean's length.
CLOSE = 4  # Px (at 480). Edges that are this near belong to one mark.
SMALLEST = 0.0003  # Share of the frame. A smaller area is no mark.
FAINT_AROUND = 15  # Px (at 480). A pale mark's edge is compared with the mean over a square of this side.
FAINT_SHARP = 2.0  # Factor by which that edge stands out: lights and shades of the scene have broad edges.
WEAK = 2.0  # Grey levels per px, in the mean of all frames, of weak edges, which count beside surer ones.
WEAK_CONSTANT = 0.35  # Share of a weak edge's energy that all frames have in common.
WEAK_WITHIN = 15  # Px (at 480): the side of the square around a weak edge in which a surer one must lie.
SURE = 0.3  # Share of a mark's edges that must be surer ones.
# Share of its convex hull. A mark that fills so much of it is a line of letters, which count with the ground between
# them.
FILLS = 0.7
ROUND = 0.08  # Smaller / larger eigenvalue of a mark's structure tensor: a mark has edges in all directions.
OFTEN = 0.7  # Share of the frames in which a rim is an edge.
STRAIGHT = 0.8  # Coherence over time of a rim's direction: 1 is always the same, 0 any.
HOLE = 0.15  # Share of the frame. An area of up to this size within a mark belongs to the mark.
LEAST_PART = 0.3  # Share of the frame. Where panels over as much are known, joints are not looked for.
ENCLOSED = 0.7  # Share of the edge of an unchanging area that must be a rim.


@dataclass(frozen=True, slots=True)
class Seen:
    """mask: bool [h, w], what is under borders, panels and marks. known: whether marks could be distinguished from the scene.
    copies: bool [h, w], which of it is under a tiled watermark, if there is one."""

    mask: Mask
    known: bool
    copies: Mask | None = None


def seen(frames: Sequence[Grey]) -> Seen:
    """What is under borders, panels and marks in grey frames [h, w] of one clip."""
    widths = bars(frames)
    found = _within(frames, widths)
    if found.known or not any(widths):
        return found
    sure = bars(frames, still=True)
    return found if sure == widths else _within(frames, sure)


def with_lines(frames: Sequence[Grey], boxes: Sequence[npt.NDArray[np.int32]], found: Seen) -> Seen:
    """The same with lines of large translucent letters that a detector of text has boxes of: int32 [n, 4, 2] per keyframe."""
    small = [reduced(frame) for frame in frames]
    scale = small[0].shape[1] / frames[0].shape[1]
    scaled = [np.rint(of_one * scale).astype(np.int32) for of_one in boxes]
    lines = translucent_lines(small, scaled, reduced(found.mask.astype(np.uint8) * 255) > 127, still=not found.known)
    return replace(found, mask=found.mask | enlarged(lines, *frames[0].shape)) if lines.any() else found


def _within(frames: Sequence[Grey], widths: tuple[int, int, int, int]) -> Seen:
    """What is under borders of these widths, and under panels and marks of the picture within."""
    top, bottom, left, right = widths
    height, width = frames[0].shape
    mask = np.ones((height, width), dtype=np.bool_)
    picture = (slice(top, height - bottom), slice(left, width - right))
    found = static_marks([frame[picture] for frame in frames])
    mask[picture] = found.mask
    if found.copies is None:
        return Seen(mask, found.known)
    copies = np.zeros_like(mask)
    copies[picture] = found.copies
    return Seen(mask, found.known, copies)


def gradients(frames: Sequence[Grey]) -> Gradients:
    """Gradients of grey frames [h, w]: float32 [n, 2, h, w] (right, down), grey levels per px."""
    import cv2

    fields = np.empty((len(frames), 2, *frames[0].shape), dtype=np.float32)
    for field, frame in zip(fields, frames, strict=True):
        cv2.Sobel(frame, cv2.CV_32F, 1, 0, dst=field[0], scale=1 / 8)
        cv2.Sobel(frame, cv2.CV_32F, 0, 1, dst=field[1], scale=1 / 8)
    return fields


def static_marks(frames: Sequence[Grey]) -> Seen:
    """Panels and marks in a picture without borders."""
    height, width = frames[0].shape
    n = len(frames)
    small = [reduced(frame) for frame in frames]
    nothing = np.zeros((height, width), dtype=np.bool_)
    if n < 2 or min(small[0].shape) < 32:
        return Seen(nothing, False)
    fields = gradients(small)
    mean = mean_of(small)
    sums = _sums(fields)
    copies = _copies(small, mean, _common(sums, n), sums[2])
    whole_copies = enlarged(copies, height, width) if copies.any() else None
    maps = seam_maps(fields)
    drawn = copies
    if not made_of_lines(maps):  # Bricks and windows have outlines, too.
        boxes = reduced(outlined_boxes(frames).astype(np.uint8) * 255) > 127
        drawn = copies | (_not_within(boxes, bands(panels(maps), *boxes.shape)) if boxes.any() else boxes)
    others = apart_from(drawn)
    if drawn.any():  # Their edges are known, and belong to nothing else.
        fields *= others
        sums, maps = _sums(fields), (maps[0] & others, maps[1] & others.T)
    grounds = blurred_ground(small, sums[3], sums[2] - sums[3]) or copied_ground(fields, maps)
    ground = _filled(grounds, others.shape)
    if made_of_lines(maps):
        common = _common(sums, n)
        if not moves(common, sums[2], n, np.ones_like(others)):
            films = still_and_moving(panels(maps, begins(moving_edges(fields))), common, sums[2], n)
            under = ground | drawn | _filled([films] if films else [], others.shape)
            return Seen(enlarged(under, height, width), False, whole_copies)
        others &= apart_from(maps[0] | maps[1].T)
        fields *= others
        sums, maps = _sums(fields), (maps[0] & others, maps[1] & others.T)
    energy, common = sums[2], _common(sums, n)
    found = panels(maps)
    parts = chosen(found, fields, maps, twins_only=False)
    panelled = under = _filled(parts, energy.shape)
    if any(_ends_at(_filled([end], under.shape), _filled(_apart(parts, end), under.shape), WIDE) for end in grounds):
        ground[:] = False  # A plate's side is sharp, and beyond it there may be little to see.
    films = still_and_moving(found, common, energy, n)
    # The letters of a band stand still while the picture moves, as a film does.
    if films is not None and not any(films.overlap(part) > HELD for part in parts if strips(part, *energy.shape)):
        under = _filled([films], energy.shape)
    half = still_side(common, energy, n)
    if half is not None:
        under = half
    under = ground if ground.sum() > under.sum() else under
    lines = divided(small, fields, still=False)
    outside = [np.ones_like(under), *(~part for part in (under, lines) if part.any())]
    known = any(moves(common, energy, n, where) for where in outside)
    pale = translucent(small, still=not known, within=others) | drawn
    if not known:
        cards = rectangles(mean, found)
        if not (drawn.any() and _ends_at(cards, drawn)):  # Both sides of an outline are exact lines.
            pale |= cards
            if cards.any():
                off = apart_from(cards)
                maps = maps[0] & off, maps[1] & off.T
                found = panels(maps)
                films = still_and_moving(found, common, energy, n)
        lines = divided(small, fields, still=True) if lines.any() else lines
        if lines.any() or ground.any():
            return Seen(enlarged(lines | ground | pale, height, width), False, whole_copies)
        if films is None:
            # A scene that stands still is full of lines. The sides of a film that moves are those at which movement begins.
            films = still_and_moving(panels(maps, begins(moving_edges(fields))), common, energy, n)
        if films is not None:
            return Seen(enlarged(_filled([films], energy.shape) | pale, height, width), False, whole_copies)
        twins = _filled(chosen(found, fields, maps, twins_only=True), energy.shape)
        joint = joined(frames)
        if pale.any() and _ends_at(joint, enlarged(pale, height, width)):  # Letters have level edges, too.
            joint[:] = False
        return Seen(enlarged(twins | pale, height, width) | joint, False, whole_copies)
    # The lines settle which part is the picture: panels might take another one for it.
    under = lines if lines.any() else under
    under, marks = _marked(frames, fields, sums, pale, under, parts if under is panelled else [])
    whole = enlarged(marks, height, width)
    if under.mean() < LEAST_PART:
        beside = joined(frames, moving=True)
        whole |= beside & (not _ends_at(beside, whole))
    return Seen(whole, True, whole_copies)


def _marked(
    frames: Sequence[Grey],
    fields: Gradients,
    sums: npt.NDArray[np.float32],
    pale: Mask,
    under: Mask,
    parts: Sequence[Panel],
) -> tuple[Mask, Mask]:
    """What is under panels, and what is under panels or marks, each bool [h, w] at the size of the fields. sums: of the fields.
    pale, under: what is known to be under marks, and under panels. parts: the panels that `under` consists of, if of any."""
    import cv2

    n = len(frames)
    right, down, energy, across, both, often = sums
    common = _common(sums, n)
    edges = (energy > n * STRONG**2) & (common > CONSTANT)
    faint = _faint(fields, right, down) & (common > FAINT_CONSTANT)
    # The rim of an opaque ground: its strength and sign change with the scene behind it, its direction does not.
    tensor = np.stack([across, energy - across, both])
    rims = edges | ((often >= OFTEN * n) & (np.hypot(tensor[0] - tensor[1], 2 * both) > STRAIGHT * energy))
    low, high = extremes(frames)
    unchanged = reduced(np.asarray(cv2.subtract(high, low), dtype=np.uint8)) <= TOLERANCE
    clipped = _clipped(fields)
    weak = _weak(clipped, n)
    marks = _marks_from_edges(edges | faint, weak, rims, unchanged, tensor, under)
    ends = [part for part in parts if part.inner(*under.shape) == 1]
    if ends:
        # The rows of letters, and the sides of a plate, are no sides of what lies beyond them. A line of few px is.
        broad = cv2.morphologyEx(marks.astype(np.uint8), cv2.MORPH_OPEN, np.ones((CLOSE + 1, CLOSE + 1), np.uint8)) > 0
        beyond = [part for part in ends if _ends_at(_filled([part], under.shape), broad)]
        under = _filled([part for part in parts if part not in beyond], under.shape)
    marks |= under | outlined(clipped, n) | pale
    marks |= disc(rims & ~under, tensor)
    return under, marks


def _copies(
    small: Sequence[Grey],
    mean: npt.NDArray[np.float32],
    common: npt.NDArray[np.float32],
    energy: npt.NDArray[np.float32],
) -> Mask:
    """What is under a tiled watermark: bool [h, w]. Where the scene stands still, the pattern of a wall may look like one."""
    tiles = tiled(small, mean)
    if tiles is None or not (tiles.is_sure or moves(common, energy, len(small), apart_from(tiles.mask))):
        return np.zeros(mean.shape, np.bool_)
    return tiles.mask


def apart_from(marks: Mask, px: int = CLOSE) -> Mask:
    """What is farther from marks than so many px, by default than one edge of theirs from another: bool [h, w]. marks: at the
    size to which pictures are `reduced`."""
    import cv2

    return np.asarray(cv2.dilate(marks.astype(np.uint8), np.ones((2 * px + 1, 2 * px + 1), np.uint8)) == 0)


def _not_within(boxes: Mask, found: Panels) -> Mask:
    """Those parts of a mask [h, w] that do not lie in one of these panels: the margins around a line of letters are thin lines
    of the colour of its plate."""
    out = boxes.copy()
    for window, part in _areas(boxes.astype(np.uint8), 0):
        rows, columns = window
        box = Panel(rows.start, rows.stop, columns.start, columns.stop, 1.0)
        if any(box.area < panel.area and box.overlap(panel) > HELD for panel in found):
            out[window] &= ~part
    return out


def _apart(found: Sequence[Panel], part: Panel) -> list[Panel]:
    """The panels that do not lie in a part of the frame."""
    return [panel for panel in found if panel.overlap(part) <= SAME]


def _ends_at(part: Mask, panels: Mask, px: int = CLOSE) -> bool:
    """Whether a part of the frame [h, w] ends at panels: then its edge is theirs, and no joint of two pictures."""
    import cv2

    edge = (cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~part
    return bool((edge & ~apart_from(panels, px)).sum() > 0.5 * edge.sum())


def _faint(fields: Gradients, right: npt.NDArray[np.float32], down: npt.NDArray[np.float32]) -> Mask:
    """Edges that are weak, and in most frames: what passes by adds more to a mean, but in few of them."""
    import cv2

    n = len(fields)
    length = cv2.magnitude(right, down)
    around = cv2.blur(length, (FAINT_AROUND, FAINT_AROUND))
    mask = (length > n * FAINT) & (length > FAINT_SHARP * around)
    at = np.flatnonzero(mask)  # These pixels are few, and only they are looked at in every frame.
    x, y = fields.reshape(n, 2, -1)[:, :, at].swapaxes(0, 1)
    long = length.ravel()[at]
    pointing = x * (right.ravel()[at] / long) + y * (down.ravel()[at] / long)
    mask.ravel()[at] = (pointing > long * np.float32(FAINT_LEAST / n)).sum(axis=0) >= FAINT_OFTEN * n
    return np.asarray(mask)


def _filled(found: Sequence[Panel], shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, dtype=np.bool_)
    for panel in found:
        mask[panel.window] = True
    return mask


def enlarged(mask: Mask, height: int, width: int) -> Mask:
    """A mask of pictures that were `reduced`, bool [h, w], at their own size."""
    import cv2

    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _sums(fields: Gradients) -> npt.NDArray[np.float32]:
    """Sums over the frames of gradients (x, y): of x, y, x² + y², x², xy, and in how many there is an edge: float32 [6, h, w]."""
    sums = np.zeros((6, *fields.shape[2:]), np.float32)
    for x, y in fields:  # One frame follows the other, as the arrays of one fit into a core's cache.
        xx = x * x
        strength = xx + y * y
        for total, term in zip(sums, (x, y, strength, xx, x * y, strength > (STRONG / 2) ** 2), strict=True):
            total += term
    return sums


def _common(sums: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    """The share of the energy of each px that n frames have in common: float32 [h, w]. sums: see `_sums`."""
    return np.asarray((sums[0] * sums[0] + sums[1] * sums[1]) / np.maximum(n * sums[2], 1e-9), np.float32)


def _clipped(fields: Gradients) -> npt.NDArray[np.float32]:
    """Sums over the frames of clipped gradients (x, y), and of their squared lengths: float32 [3, h, w]."""
    sums = np.zeros((3, *fields.shape[2:]), np.float32)
    for field in fields:
        clipped = np.clip(field, -MOST, MOST)
        sums[:2] += clipped
        clipped *= clipped
        sums[2] += clipped[0]
        sums[2] += clipped[1]
    return sums


def _weak(sums: npt.NDArray[np.float32], n: int) -> Mask:
    """Edges that may be a pale mark's where surer ones are beside them. sums: see `outlined`."""
    import cv2

    right, down, energy = (cv2.blur(field, (3, 3)) for field in sums)
    common = (right * right + down * down) / (n * energy + (n * NOISE) ** 2)
    return np.asarray((common > WEAK_CONSTANT) & (cv2.magnitude(sums[0], sums[1]) > n * WEAK))


def reduced(image: Grey) -> Grey:
    """A picture, uint8 [h, w] or [h, w, 3], with its long side at most 480."""
    import cv2

    scale = min(1.0, WORK_SIDE / max(image.shape))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _marks_from_edges(
    edges: Mask, weak: Mask, rims: Mask, unchanged: Mask, tensor: npt.NDArray[np.float32], under: Mask
) -> Mask:
    """Marks bool [h, w], from still edges, likely rims, pixels that never change, structure tensors [3, h, w], and what is under
    panels, whose extent is known."""
    import cv2

    smallest = SMALLEST * edges.size
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CLOSE + 1, 2 * CLOSE + 1))
    marks = np.zeros(edges.shape, dtype=np.bool_)
    beside = cv2.dilate(edges.astype(np.uint8), np.ones((WEAK_WITHIN, WEAK_WITHIN), np.uint8)) > 0
    every = edges | (weak & beside)
    closed = np.asarray(cv2.morphologyEx(every.astype(np.uint8), cv2.MORPH_CLOSE, kernel), dtype=np.uint8)
    for window, part in _areas(closed, smallest):
        if (part & edges[window]).sum() < SURE * (part & every[window]).sum():
            continue
        if _has_all_directions(tensor[(slice(None), *window)][:, part & every[window]]):
            whole = _without_holes(part, HOLE * edges.size)
            marks[window] |= whole if (whole & under[window]).any() else _in_lines(whole)
    near = cv2.dilate((rims | marks).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    for window, part in _areas((unchanged & ~marks).astype(np.uint8), smallest):
        rows, columns = (slice(max(0, side.start - 1), side.stop + 1) for side in window)
        inside = np.zeros(edges.shape, dtype=np.uint8)
        # Digits or letters that move on an opaque ground make holes in it.
        inside[window] = _without_holes(part, HOLE * edges.size)
        grown = cv2.dilate(inside[rows, columns], np.ones((3, 3), np.uint8)) > 0
        rim = grown & (inside[rows, columns] == 0)
        enclosed = rim.any() and near[rows, columns][rim].mean() >= ENCLOSED
        if enclosed and _has_all_directions(tensor[:, rows, columns][:, rim]):
            marks[rows, columns] |= grown
    return marks


def _in_lines(part: Mask) -> Mask:
    """A mark that fills a good part of its convex hull, letters in a line, grown to that hull."""
    import cv2

    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = np.zeros(part.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(contours)), 1)
    if part.sum() < FILLS * hull.sum():
        return part
    # An edge is seen one px to both sides of its place.
    return np.asarray(cv2.erode(hull, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0)


def _areas(mask: npt.NDArray[np.uint8], smallest: float) -> Iterator[tuple[tuple[slice, slice], Mask]]:
    """The connected areas of a mask of at least `smallest` pixels: the window around each, and its pixels therein."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= smallest:
            window = (slice(y, y + height), slice(x, x + width))
            yield window, labels[window] == label


def _without_holes(part: Mask, largest: float) -> Mask:
    """A mask with its holes of up to `largest` pixels filled."""
    import cv2

    outside = np.pad(~part, 1, constant_values=True).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    small = [label for label in range(1, count) if label != labels[0, 0] and stats[label][4] <= largest]
    return np.asarray(part | np.isin(labels, small)[1:-1, 1:-1]) if small else part


def _has_all_directions(tensors: npt.NDArray[np.float32]) -> bool:
    """Whether structure tensors [3, n] have more than one direction; those of a level horizon in a level pan do not."""
    xx, yy, xy = (float(part) for part in tensors.sum(axis=1, dtype=np.float64))
    smaller, larger = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return bool(smaller > ROUND * larger)
