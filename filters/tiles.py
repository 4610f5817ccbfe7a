"""Tiled watermarks: a word or a logo that is repeated over the whole picture, level or leaning, as stock agencies do it.

One copy is fainter than the scene behind it. All copies together are not: where the picture repeats itself on a lattice (see
lattices.py), it is folded there. The median of all copies shows the mark, and of the scene next to nothing. Each copy that is
seen counts by the box around its line of letters, or by its convex hull where it is none.

A scene repeats itself as well: windows, seats, the pattern of a wall. What tells a mark that lets the scene through is how the
brighter side of its edges follows the darker one, from copy to copy:

- As well as two points of the scene follow one another that are as far apart. What is in a window does not follow the wall.
- A white mark of opacity a makes of the scene's brightness s the picture (1 - a) s + a · 255, so that the brighter side varies
  1 - a times as much as the darker one. Paint that reflects r times as much light varies r times as much, and r is above 1. A
  dark mark looks like paint.
- A camera sees no wall exactly from the front, and bends lines: tilted by 0.3°, or through a lens that is off by half a percent
  at its rim, the copies are a quarter of a px from a lattice. Those of a mark are not.
- What lies behind a mark goes on within each copy, alike on both sides of its edges, and nothing hides a copy. Behind the pattern
  of a wall is the wall, and things stand in front of it. Shadows on a wall look like a scene, so that dark marks need all of
  this; light ones, which are no paint, need the lattice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.lattices import Basis, lattice, places

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

MOST = 5.0  # Grey levels per px that an edge counts for, at most: that of a pale mark over a light ground.
NEAR = 7  # Px: the side of the square over which the evidence for a mark is averaged, the height of a small letter.
# Factor by which the copies' median is stronger than chance would make it, in the mean of that square. Of clean places on
# a right lattice 99 % have 1.2 at most over a still scene.
CHANCE = 1.2
# Share of the strongest such evidence that all of a mark must have: where a scene moves, chance leaves next to nothing.
THIRD = 0.33
FAINT = 0.35  # Share of the strongest edges that an edge of a mark must have.
CLOSING = 2  # Px. Letters that are more than twice as far apart are of two marks.
FEWEST = 30  # Px of a mark.
BACKGROUND = 1.5  # Factor by which a row of a mark has more edges than the ground.
LEAST = 0.1  # Share of the mean number of edges in a mark that its first and last row must have: those of p and l do.
BLUR = 0.5  # Px by which an edge is smeared to both sides when copies are shifted by parts of a px.
LINE = 2.0  # A mark that is so many times as long as it is high is a line of letters, and counts by the box around it.
FILLS = 0.85  # Share of its box that the convex hull of such a line, or of another word, takes; a disc takes 0.79.
ASIDE = 2.0  # Px from an edge to the levels on its sides.
FOLLOWS = 0.75  # Share of the correlation of two points of the scene that the sides of an edge must have.
# Factor by which the brighter side varies, up to which it is no paint. A mark of opacity 0.15 in letters 2 px wide has 0.94.
LIGHT = 0.97
# Share of the frames in which a mark must be, and of the copies of a dark one: things hide those of a wall.
ALWAYS = 0.9
WEAK = 0.5  # Share of its mean jump that it must have there: the first frame of a zoom may have more than all others.
AWAY = 2.0  # Px to other places at which its jumps must be smaller.
SEEN = 0.2  # Share of the jump to be expected in a place that a copy must have there.
VISIBLE = 8.0  # Grey levels of that jump, from which on a copy that is not seen is not there.
EXACT = 0.25  # Px from a lattice that copies may be, in the mean square over the picture: marks have 0.05 mostly.
# Share of a mark's jump by which what is behind it varies within a copy; plain walls in even light have 0.2.
THROUGH = 0.3


@dataclass(frozen=True, slots=True)
class Tiles:
    """mask: bool [h, w], what is under the marks. is_sure: they are no part of the scene, be it one that stands still."""

    mask: Mask
    is_sure: bool


@dataclass(frozen=True, slots=True)
class Folded:
    """The median of all copies around the middle of the picture. right, down: its gradient, and noise: the square of what chance
    would make it, float32 [h, w]. corner: the place of its first px in the picture, (x, y)."""

    right: Field
    down: Field
    noise: Field
    corner: Points


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a cell. outline: corners (x, y) [n, 2]. edges: (x, y) [m, 2]. ways: unit vectors to their brighter sides; all
    float64."""

    outline: Points
    edges: Points
    ways: Points


def tiled(frames: Sequence[Grey], mean: Field) -> Tiles | None:
    """The marks that are repeated over a picture, if there are any.

    frames: grey [h, w], of a long side of 480 at most. mean: of all of them, float32 [h, w].
    """
    import cv2

    steps = _steps(mean)
    basis = lattice(steps)
    if basis is None:
        return None
    marks = list(_marks(_folded(steps, basis), basis, np.array(mean.shape[::-1]) / 2))
    if not marks:
        return None
    copies = places(basis, *mean.shape)
    edges, ways = np.concatenate([mark.edges for mark in marks]), np.concatenate([mark.ways for mark in marks])
    of_mean = _sides([mean], edges, ways, copies)
    there, in_picture = _are_there(*of_mean), ~np.isnan(of_mean[0]).all(axis=1)
    copies = copies[there]
    if not len(copies):
        return None
    brighter, darker = _sides(frames, edges, ways, copies)
    follows, factor = _relation(brighter, darker)
    halves = [basis @ half for half in ((0.5, 0.5), (0.5, 0), (0, 0.5))]
    of_scene = [_relation(*_sides(frames, edges + half, ways, copies))[0] for half in halves]
    if follows < FOLLOWS * float(np.median(of_scene)) or not _stay(frames, edges, ways, copies):
        return None
    mask = np.zeros(mean.shape, np.uint8)
    for copy in copies:
        for mark in marks:
            cv2.fillConvexPoly(mask, np.rint(16 * (mark.outline + copy)).astype(np.int32), 1, shift=4)
    of_mean = _sides([mean], edges, ways, copies)
    shows_through = there[in_picture].mean() >= ALWAYS and _varies(*of_mean) >= THROUGH
    is_sure = (factor <= LIGHT or shows_through) and _bend(mean, edges, ways, copies) <= EXACT
    return Tiles(mask > 0, bool(is_sure))


def _varies(brighter: Field, darker: Field) -> float:
    """How much what is behind marks varies within a copy, as far as both sides of their edges do, as a share of their jump.
    Arguments as of `_relation`."""
    known = ~np.isnan(brighter)
    both = []
    for levels in (brighter, darker):
        rest = np.where(known, levels, 0).astype(np.float64)
        for axis in (0, 1):
            rest = np.where(
                known, rest - rest.sum(axis=axis, keepdims=True) / np.maximum(known.sum(axis=axis, keepdims=True), 1), 0
            )
        both.append(rest.ravel())
    shared = float(both[0] @ both[1]) / max(1, int(known.sum()))
    return float(np.sqrt(max(0.0, shared)) / max(float(np.nanmean(brighter - darker)), 1e-6))


def _bend(mean: Field, edges: Points, ways: Points, copies: Points) -> float:
    """How far copies are from a lattice, as those of a wall are that a camera sees in perspective and through a lens: px, in the
    mean square over the picture.

    An edge is off by where the parabola through its jumps 1 px before, at and behind its place has its top. To the places of all
    edges of all copies the bend of a perspective and of a lens is fitted, beside what another lattice would explain.
    """
    before, jump, behind = (
        np.asarray(np.subtract(*_sides([mean], edges + step * ways, ways, copies)), np.float64) for step in (-1, 0, 1)
    )
    known = np.isfinite(before + jump + behind)
    before, jump, behind = (np.where(known, one, 0) for one in (before, jump, behind))
    count = np.maximum(known.sum(axis=0), 1)
    # A copy over a dark ground has less of each edge.
    share = jump.sum(axis=1) / np.maximum((known * (jump.sum(axis=0) / count)).sum(axis=1), 1e-6)
    curve = (2 * jump - before - behind).sum(axis=0) / count
    weight = known * np.maximum(share, 0)[:, None] * np.maximum(curve, 0)
    size = np.array(mean.shape[::-1]) / 2
    at = (edges + copies[:, None] - size) / size.max()
    x, y = np.moveaxis(at, -1, 0)
    along = (at * ways).sum(axis=-1)
    right, down = ways.T
    terms = np.stack([x * right, y * right, x * down, y * down, x * along, y * along, (x * x + y * y) * along]) * weight
    off = (behind - before) / 2
    squares = np.maximum((weight * weight).sum(axis=0), 1e-9)
    off -= weight * (off * weight).sum(axis=0) / squares
    terms -= weight * (terms * weight).sum(axis=1, keepdims=True) / squares
    flat = terms.reshape(len(terms), -1)
    fitted = np.linalg.lstsq(flat @ flat.T, flat @ off.ravel(), rcond=None)[0]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 21) * side / size.max() for side in size)), axis=-1).reshape(-1, 2)
    bend = grid * (grid @ fitted[4:6] + fitted[6] * (grid * grid).sum(axis=1))[:, None]
    flat_part = np.column_stack([np.ones(len(grid)), grid])
    bend -= flat_part @ np.linalg.lstsq(flat_part, bend, rcond=None)[0]
    return float(np.sqrt((bend * bend).sum(axis=1).mean()))


def _stay(frames: Sequence[Grey], edges: Points, ways: Points, copies: Points) -> bool:
    """Whether marks are in nearly all frames, and at their places: a pattern of the scene moves with it, be it by little."""
    jumps = []
    for right, down in ((0, 0), (AWAY, 0), (-AWAY, 0), (0, AWAY), (0, -AWAY)):
        brighter, darker = _sides(frames, edges + np.array([right, down]), ways, copies)
        jumps.append(_average((brighter - darker).reshape(len(frames), -1)))
    there, *aside = jumps
    return bool(((there > WEAK * there.mean()) & (there >= np.max(aside, axis=0))).mean() >= ALWAYS)


def _steps(mean: Field) -> Field:
    """The gradients of a picture, clipped: float32 [h, w, 2] (right, down)."""
    steps = np.zeros((*mean.shape, 2), np.float32)
    steps[:, 1:-1, 0] = (mean[:, 2:] - mean[:, :-2]) / 2
    steps[1:-1, :, 1] = (mean[2:] - mean[:-2]) / 2
    length = np.hypot(steps[..., 0], steps[..., 1])
    steps *= np.minimum(1, MOST / np.maximum(length, 1e-6))[..., None]
    return steps


def _folded(steps: Field, basis: Basis) -> Folded:
    """The median of all copies of a cell, unfolded again over three cells in each direction."""
    import cv2

    height, width = steps.shape[:2]
    middle = np.array([width, height]) / 2
    reach = np.ceil(np.abs(basis).sum(axis=1) / 2) + 1
    size = (2 * reach + 1).astype(int)
    copies = []
    for x, y in places(basis, height, width) + middle - reach:
        if -size[0] < x < width and -size[1] < y < height:
            shift = np.array([[1, 0, -x], [0, 1, -y]])
            copies.append(cv2.warpAffine(steps, shift, size.tolist(), borderValue=(2 * MOST * width, 2 * MOST * width)))
    stack = np.stack(copies, axis=-1)
    stack[np.abs(stack) > MOST] = np.inf  # Copies that lie outside of the picture, even by a part of a px.
    stack.sort(axis=-1)
    count = np.isfinite(stack).sum(axis=-1, keepdims=True)
    inner = [
        np.take_along_axis(stack, np.maximum(index, 0), axis=-1)[..., 0]
        for index in ((count - 1) // 2, count // 2 - (count == 0))
    ]
    median = np.where(count[..., 0] > 0, (inner[0] + inner[1]) / 2, 0)
    stack[~np.isfinite(stack)] = 0
    noise = np.einsum("yxcn,yxcn->yx", stack, stack) / np.maximum(count.mean(axis=(2, 3)), 1) ** 2
    rows, columns = np.mgrid[: 6 * reach[1] + 1, : 6 * reach[0] + 1]
    steps_in = np.linalg.inv(basis) @ np.stack([columns.ravel() - 3 * reach[0], rows.ravel() - 3 * reach[1]])
    at = basis @ (steps_in - np.floor(steps_in + 0.5)) + reach[:, None]
    x, y = np.asarray(at.reshape(2, *rows.shape), np.float32)
    whole = cv2.remap(np.dstack([median, noise]).astype(np.float32), x, y, cv2.INTER_LINEAR)
    right, down, noise_there = (np.asarray(whole[..., plane], np.float32) for plane in range(3))
    return Folded(right, down, noise_there, middle - 3 * reach)


def _marks(folded: Folded, basis: Basis, middle: Points) -> Iterator[Mark]:
    """The marks of the cell around the middle of the picture."""
    import cv2

    right, down = (np.asarray(cv2.GaussianBlur(field, (3, 3), 0), np.float32) for field in (folded.right, folded.down))
    length = np.asarray(cv2.magnitude(right, down), np.float32)
    strongest = float(np.quantile(length, 0.98))
    dense = cv2.blur(length * length, (NEAR, NEAR))
    evidence = dense / np.maximum(cv2.blur(folded.noise, (NEAR, NEAR)), 1e-9)
    there = evidence > max(CHANCE, THIRD * float(np.quantile(evidence, 0.98)))
    clear = length > FAINT * strongest
    crest, off = _crests(right, down, length)
    likely = length**2 / np.maximum(folded.noise, 1e-6) * (clear & crest)
    ground = float(likely[~there].mean()) if not there.all() else 0.0
    labels, own = parts(there & clear, basis, middle - folded.corner)
    for label in own:
        near = cv2.dilate((labels == label).astype(np.uint8), np.ones((NEAR, NEAR), np.uint8)) > 0
        rows, columns = np.nonzero(near & (likely > 0) & ((labels == label) | (labels == 0)))
        points = np.asarray(np.stack([columns, rows], axis=1) + off[:, rows, columns].T, np.float64)
        inside = labels[rows, columns] == label
        found = _outline(points, likely[rows, columns], inside, BACKGROUND * ground)
        if found is not None:
            outline, edges = found
            rows, columns = rows[edges], columns[edges]
            ways = np.stack([right[rows, columns], down[rows, columns]], axis=1) / length[rows, columns, None]
            yield Mark(outline + folded.corner, points[edges] + folded.corner, ways.astype(np.float64))


def _crests(right: Field, down: Field, length: Field) -> tuple[Mask, Field]:
    """Where a gradient's length is the largest across its edge: bool [h, w], and how far from the px's middle: [2, h, w], px."""
    is_level = np.abs(right) >= np.abs(down)
    padded = np.pad(length, 1, mode="edge")
    before = np.where(is_level, padded[1:-1, :-2], padded[:-2, 1:-1])
    after = np.where(is_level, padded[1:-1, 2:], padded[2:, 1:-1])
    off = np.clip((after - before) / np.maximum(2 * (2 * length - before - after), 1e-6), -0.5, 0.5)
    return (length >= before) & (length >= after), np.asarray(np.stack([off * is_level, off * ~is_level]), np.float32)


def parts(on: Mask, basis: Basis, middle: Points) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Labels int32 [h, w] of what hangs together, and those that show each part of a mark once, as near to the middle as can be;
    none where a mark is one with its copies.

    on: bool [h, w], the px of marks. basis: float64 [2, 2], the steps of their lattice. middle: (x, y) float64, px.
    """
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CLOSING + 1, 2 * CLOSING + 1))
    closed = cv2.morphologyEx(on.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, found, stats, centres = cv2.connectedComponentsWithStats(closed, connectivity=8)
    cells = np.abs(np.linalg.inv(basis) @ (centres - middle).T).max(axis=0)
    labels = np.asarray(found, np.int32)
    own: list[int] = []
    taken = np.zeros(on.shape, np.bool_)
    # Words may hang together in one copy and not in the next, so that the parts of one cell are not all of the mark.
    for label in np.argsort(cells):
        if label == 0 or cells[label] >= 1 or stats[label, 4] < FEWEST or taken[labels == label].mean() > 0.5:
            continue
        own.append(int(label))
        for rows, columns, is_own in _copies(labels == label, places(basis, *on.shape)):
            if not is_own and (labels[rows, columns] == label).any():
                return np.zeros(on.shape, np.int32), []
            taken[rows, columns] = True
    return labels, own


def _copies(part: Mask, steps: Points) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], bool]]:
    """The rows and columns of a part after each step of a lattice, as far as they are in the picture, and whether it stays."""
    rows, columns = np.nonzero(part)
    for right, down in np.rint(steps).astype(np.int64):
        x, y = columns + right, rows + down
        inside = (x >= 0) & (y >= 0) & (x < part.shape[1]) & (y < part.shape[0])
        yield y[inside], x[inside], right == down == 0


def _outline(
    points: Points, weights: npt.NDArray[np.floating], inside: Mask, ground: float
) -> tuple[Points, Mask] | None:
    """The box around a line of letters, or the convex hull of another mark, (x, y) float64 [n, 2], and which edges are in it.

    points: edges in and near the mark, (x, y) [m, 2]. weights: how sure they are. inside: those of which the mark consists.
    ground: the sum of such weights that a px of the ground has.
    """
    import cv2

    angle = _angle(points[inside], weights[inside])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = points @ turn.T
    spans = np.stack([turned[inside].min(axis=0), turned[inside].max(axis=0)], axis=1)
    for axis in (1, 0, 1, 0):
        first, last = spans[1 - axis]
        beside = (turned[:, 1 - axis] >= first) & (turned[:, 1 - axis] <= last)
        if not beside.any():
            return None
        start = float(turned[:, axis].min())
        sums = np.bincount(np.floor(2 * (turned[beside, axis] - start)).astype(np.int64), weights[beside])
        usual = float(sums.sum()) / max(1.0, float(np.ptp(spans[axis])) * float(last - first))
        gain = sums - max(ground, LEAST * usual) * float(last - first) / 2
        middle = int(np.clip(2 * (spans[axis].mean() - start), 0, len(gain)))
        spans[axis] = start + (middle - _best(gain[:middle][::-1])) / 2, start + (middle + _best(gain[middle:])) / 2
    (left, right), (top, bottom) = spans + np.array([BLUR, -BLUR])
    short, long = sorted((right - left, bottom - top))
    edges = ((turned >= spans[:, 0]) & (turned <= spans[:, 1])).all(axis=1) & (weights > 1)
    if short < 2 or edges.sum() < FEWEST:
        return None
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) @ turn
    hull = cv2.convexHull(points[edges].astype(np.float32))
    if long > LINE * short or cv2.contourArea(hull) > FILLS * short * long:
        return box, edges
    return hull[:, 0].astype(np.float64), edges


def _angle(points: Points, weights: npt.NDArray[np.floating]) -> float:
    """The direction of a line of letters, in radians: along it and across it, edges lie in the fewest rows."""
    coarse = max(np.radians(np.arange(0, 90, 3)), key=lambda angle: _in_rows(points, weights, float(angle)))
    return float(
        max(coarse + np.radians(np.arange(-3, 3.1, 0.5)), key=lambda angle: _in_rows(points, weights, float(angle)))
    )


def _in_rows(points: Points, weights: npt.NDArray[np.floating], angle: float) -> float:
    """How closely edges lie in rows along an angle and across it: the sum of the squares of the rows' sums."""
    total = 0.0
    for x, y in ((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))):
        at = points @ [x, y]
        at -= at.min()
        row = np.floor(at).astype(np.int64)
        part, rows = at - row, int(row.max()) + 2
        sums = np.bincount(row, weights * (1 - part), rows) + np.bincount(row + 1, weights * part, rows)
        total += float(sums @ sums)
    return total


def _best(gain: npt.NDArray[np.floating]) -> int:
    """How many values from the first on have the largest sum; 0 if none has one above 0."""
    return int(np.argmax(np.concatenate([[0.0], np.cumsum(gain)])))


def _sides(
    pictures: Sequence[Field] | Sequence[Grey], edges: Points, ways: Points, copies: Points
) -> tuple[Field, Field]:
    """The levels on the brighter and on the darker side of each copy of each edge: float32 [pictures · copies, edges], nan where
    one of them is outside of the picture."""
    import cv2

    height, width = pictures[0].shape
    at = (edges + copies[:, None]).astype(np.float32)
    found = []
    for aside in (ASIDE, -ASIDE):
        x, y = np.moveaxis(at + np.float32(aside) * ways.astype(np.float32), -1, 0)
        outside = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
        levels = np.stack([cv2.remap(picture, x, y, cv2.INTER_LINEAR) for picture in pictures]).astype(np.float32)
        levels[:, outside] = np.nan
        found.append(levels.reshape(-1, len(edges)))
    gone = np.isnan(found[0]) | np.isnan(found[1])
    found[0][gone] = found[1][gone] = np.nan
    return found[0], found[1]


def _relation(brighter: Field, darker: Field) -> tuple[float, float]:
    """How the brighter side follows the darker one from copy to copy: their correlation, and how many times it varies as much."""
    seen = ~np.isnan(brighter)
    count = np.maximum(seen.sum(axis=0), 1)
    both = []
    for levels in (brighter, darker):
        known = np.where(seen, levels, 0)
        both.append(np.where(seen, known - known.sum(axis=0) / count, 0).ravel().astype(np.float64))
    one, other = (float(side @ side) for side in both)
    if min(one, other) <= 0:
        return 0.0, 1.0
    return float(both[0] @ both[1]) / (one * other) ** 0.5, (one / other) ** 0.5


def _are_there(brighter: Field, darker: Field) -> Mask:
    """Which copies are seen, or would not be for want of contrast: bool [copies]. Arguments as of `_relation`."""
    factor = _relation(brighter, darker)[1]
    shift = float(_average((brighter - factor * darker).reshape(1, -1))[0])
    expected = _average(shift + (factor - 1) * darker)
    return np.asarray((_average(brighter - darker) > SEEN * expected) | (expected < VISIBLE))


def _average(levels: Field) -> npt.NDArray[np.float64]:
    """The mean of what is known of each row: float64 [n], 0 if nothing is. levels: [n, m], nan where not known."""
    known = ~np.isnan(levels)
    return np.asarray(np.where(known, levels, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.float64)
