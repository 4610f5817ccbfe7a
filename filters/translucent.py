"""Translucent marks: pale, dark and coloured letters and logos through which the scene shows, also over a still scene.

A white mark of opacity a makes of the scene's brightness s the picture p = (1 - a) s + a · 255, so the darkness 255 - p is that
of the scene times 1 - a: over the whole outline its logarithm jumps by the same log 1 / (1 - a), whatever lies behind. An edge of
the scene is one of paint or light; what lies behind it changes, and its jump with it. The relation holds for the mean of all
frames, too, in which what moves is blurred.

The edges of that mean (long side 480) are sorted by their jump and by cells of 8 px. A mark is a group of neighbouring cells in
which edges of one jump are many, those of jumps 1.4 times smaller and larger few, and whose outlines are closed: edges follow
one another along rows and columns, and there are all directions. Along its rows a line of letters goes on where edges of that
jump remain more frequent than others, so that letters over grass and leaves belong to it.

A black mark does to brightness what a white one does to darkness. Paint and crisp shadows do the same, so that black marks are
looked for only where the scene moves, or where red, green and blue are dimmed by one share (`darkened`). Before a ground that
is the same everywhere, paint looks like a white mark, too, so that edges are none that agree as well if they are taken for
those of paint.

A mark of a strong colour is to chroma (Cr, Cb) what a white or a black one is to brightness. Where the scene stands still, its
ground has to show through, and its colour must not follow the light, as that of paint does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.int32]
Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

# Levels of a mark's own colour: three above the highest or below the lowest, so that the logarithm of the distance stays finite.
WHITE, BLACK = 258.0, -3.0
LEAST_LEVELS = 6.0  # Grey levels of a jump: coding makes smaller ones.
SHARP = 0.6  # Share of the jump over 4 px that lies within 2 px: letters are drawn with crisp edges.
FIRST, LAST = 0.14, 0.6  # Jumps of the logarithm that are looked for: opacities of 0.13 to 0.45.
BINS = 18  # Jumps are counted in as many bins, each 1.084 times the one before.
SAME = 0.13  # Relative difference up to which two jumps are the same; a mean of ten frames and its coding vary by 0.08.
OTHER = 4  # Bins from a jump to those with which it is compared.
OTHER_JUMP = (FIRST / LAST) ** (OTHER / BINS)  # Factor to these jumps: 0.72, and 1.38 the other way.
CELL = 8  # Px: the side of the cells.
IN_CELL = 4  # Edges of one jump in a cell of a mark.
# Edges of a mark: the outlines of three letters 30 px high. In made film with stripes, 131 agree by chance.
FEWEST = 150
LEAST = 45  # Edges of a part of a mark, such as one letter, where others have the same jump.
FEW_OTHERS = 0.2  # Share of them that may have the other jumps, in the same cells.
ALWAYS = 0.9  # Share of the frames in which a mark must be.
WEAK = 0.5  # Share of its jump that it must have there.
PAIRS = 0.25  # Pairs of neighbouring edges along rows and columns, for each edge: letters have 0.5 and more, parts of one 0.26.
ROUND = 0.35  # Smaller / larger eigenvalue of the structure tensor of the edges; planks of a floor run one way.
DENSE = 0.005  # Share of the pixels where a mark's line goes on by which edges of its jump outnumber others.
LARGE = 0.1  # Share of the frame's short side: the least height of a box in which letters are large.
# Share of a change in the ground's brightness that shows within a coloured mark: paint that covers has 0, a shadow's rim 1.
SHOWS = (0.3, 0.9)
# Share of a coloured mark's edges whose jump may be the same share of the ground's brightness: of marks 0.55 at most, where the
# ground varies, of paint 0.65 and more.
AS_PAINT = 0.6
NEUTRAL = 0.12  # Share of a black mark's jump by which that of red or blue may differ, in the median.
KNOWN = 0.5  # Share of a box under marks from which on nothing is looked for in it.
OUTNUMBER = 2.0  # Factor by which outlines of the letters' jump outnumber those of others in a box.
SURE = 8.0  # The difference of these numbers in standard deviations; letters and large boxes of the scene have 6.5 at most.
# Factor by which outlines of a mark's jump outnumber others on its rows: beyond them chance makes some more.
BETWEEN = 1.3
THIN = 0.05  # Share of the mean number of outlines on a mark's rows, below which a row at its end is none of them.
EMPTY = 0.5  # The same share, which such a row takes away: what lies beyond a few of them has to be more than that.
FILLS = 0.85  # Share of the box around a line of letters that their convex hull takes; a disc takes 0.79.
BESIDE = 3  # Edges of one jump within 7 px that are taken for an outline there.


@dataclass(frozen=True, slots=True)
class Edges:
    """The crisp edges of a picture, taken for those of a mark of one colour.

    colour: the level of that colour. y, x: rows and columns int [n]. jump: of the logarithm of the distance to that colour, > 0.
    before, after: levels on both sides, and aside: how far these lie from the edge in the flat picture. right, down: how much
    that logarithm falls to the right and down. float32 [n].
    """

    colour: float
    y: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]
    jump: Field
    before: Field
    after: Field
    aside: npt.NDArray[np.int64]
    right: Field
    down: Field


def translucent(frames: Sequence[Grey], *, still: bool = True, within: Mask | None = None) -> Mask:
    """What lies under translucent light marks, and dark ones where the scene moves: bool [h, w].

    frames: grey [h, w], of a long side of 480 at most. still: the scene stands still. within: bool [h, w], where edges are
    sought.
    """
    import cv2

    mask = np.zeros(frames[0].shape, np.uint8)
    mean = mean_of(frames)
    for colour in (WHITE,) if still else (WHITE, BLACK):
        edges = _edges(mean, colour, within)
        for jump, part in _marks(edges, mask.shape):
            if _stays(frames, edges, jump, part):
                cv2.fillConvexPoly(mask, _around(_line(edges, jump, part, mask.shape)), 1)
    return mask > 0


def translucent_lines(frames: Sequence[Grey], boxes: Sequence[Boxes], known: Mask, *, still: bool) -> Mask:
    """What lies under lines of large translucent letters, of which a detector has seen a part: bool [h, w].

    frames: as above. boxes: those of each keyframe, int32 [n, 4, 2], in px of the frames. known: bool [h, w], where marks
    are known already. still: the scene stands still, so that dark ones might be shadows or paint.
    """
    import cv2

    mask = known.astype(np.uint8)
    large = [box for found in boxes for box in found if np.ptp(box, axis=0).min() >= LARGE * min(known.shape)]
    for colour in ((WHITE,) if still else (WHITE, BLACK)) if large else ():
        edges = _edges(mean_of(frames), colour)
        for box in large:
            left, top, width, height = cv2.boundingRect(box)
            window = mask[max(0, top) : top + height, max(0, left) : left + width]
            if window.mean() > KNOWN:
                continue
            within = (edges.x >= left) & (edges.x < left + width) & (edges.y >= top) & (edges.y < top + height)
            seen = _one_jump(edges, np.flatnonzero(within), mask.shape)
            if seen is not None and _stays(frames, edges, *seen) and not _is_paint(edges, *seen):
                cv2.fillConvexPoly(mask, _around(_line(edges, *seen, mask.shape)), 1)
    return (mask > 0) & ~known


def coloured(pictures: Sequence[Image], *, still: bool, within: Mask | None = None) -> Mask:
    """What lies under translucent marks of a strong colour: bool [h, w].

    pictures: all frames of a clip, RGB uint8 [h, w, 3], of a long side of 480 at most. still: the scene does not move, so that
    paint may look like a mark. within: bool [h, w], where edges are sought.
    """
    import cv2

    split = [cv2.cvtColor(one, cv2.COLOR_RGB2YCrCb) for one in pictures]
    luma, *chroma = ([np.asarray(one[..., plane].copy(), np.uint8) for one in split] for plane in range(3))
    mask = np.zeros(luma[0].shape, np.uint8)
    brightness = mean_of(luma)
    for frames in chroma:
        mean = mean_of(frames)
        for colour in (WHITE, BLACK):
            edges = _edges(mean, colour, within)
            for jump, part in _marks(edges, mask.shape):
                if _stays(frames, edges, jump, part) and not (still and not _is_tint(edges, part, brightness)):
                    cv2.fillConvexPoly(mask, _around(_line(edges, jump, part, mask.shape)), 1)
    return mask > 0


def darkened(pictures: Sequence[Image], within: Mask | None = None) -> Mask:
    """What lies under translucent black marks in a scene that stands still: bool [h, w]. Arguments as of `coloured`.

    A shadow dims red and blue by different shares, as the light of the sky or of another lamp is left in it.
    """
    import cv2

    red, green, blue = ([np.asarray(one[..., channel].copy(), np.uint8) for one in pictures] for channel in range(3))
    mask = np.zeros(green[0].shape, np.uint8)
    edges = _edges(mean_of(green), BLACK, within)
    for jump, part in _marks(edges, mask.shape):
        if _stays(green, edges, jump, part) and _is_neutral(edges, jump, part, (mean_of(red), mean_of(blue))):
            cv2.fillConvexPoly(mask, _around(_line(edges, jump, part, mask.shape)), 1)
    return mask > 0


def _is_neutral(edges: Edges, jump: float, part: npt.NDArray[np.int64], channels: tuple[Field, Field]) -> bool:
    """Whether the means [h, w] of red and of blue jump at a part's edges as green does, most of them and in the median."""
    at, aside = edges.y[part] * channels[0].shape[1] + edges.x[part], edges.aside[part]
    for mean in channels:
        sides = np.stack([mean.ravel()[at - aside], mean.ravel()[at + aside]])
        jumps = _signed(edges, part, sides)
        if abs(float(np.median(jumps)) - jump) > NEUTRAL * jump:
            return False
    return True


def mean_of(frames: Sequence[Grey]) -> Field:
    import cv2

    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        cv2.accumulate(frame, total)
    return np.asarray(total / np.float32(len(frames)), np.float32)


def _edges(mean: Field, colour: float, within: Mask | None = None) -> Edges:
    """The crisp edges of the mean of all frames [h, w], taken for those of a mark of one colour. within: where they
    are sought."""
    import cv2

    distance = np.asarray(cv2.log(np.abs(mean - np.float32(colour))), np.float32)
    steep = np.zeros((2, *mean.shape), np.float32)  # Across, down.
    cv2.absdiff(distance[:, 2:], distance[:, :-2], dst=steep[0, :, 1:-1])
    cv2.absdiff(distance[2:], distance[:-2], dst=steep[1, 1:-1])
    most = cv2.max(steep[0], steep[1])
    most[:3] = most[-3:] = most[:, :3] = most[:, -3:] = 0
    is_level = cv2.compare(steep[0], steep[1], cv2.CMP_GE)
    crest = cv2.dilate(most, np.ones((3, 1), np.uint8))
    cv2.copyTo(cv2.dilate(most, np.ones((1, 3), np.uint8)), is_level, crest)
    on = cv2.compare(most, cv2.max(crest, SHARP * FIRST * OTHER_JUMP), cv2.CMP_GE)
    at = np.flatnonzero(on if within is None else (on > 0) & within)
    aside = np.where(is_level.ravel()[at] > 0, 2, 2 * mean.shape[1])
    before, after = mean.ravel()[at - aside], mean.ravel()[at + aside]
    jump = np.abs(distance.ravel()[at + aside] - distance.ravel()[at - aside])
    keep = (most.ravel()[at] > SHARP * jump) & (np.abs(after - before) > LEAST_LEVELS)
    at = at[keep]
    y, x = np.divmod(at, mean.shape[1])
    right, down = (distance.ravel()[at - one] - distance.ravel()[at + one] for one in (1, mean.shape[1]))
    return Edges(colour, y, x, jump[keep], before[keep], after[keep], aside[keep], right, down)


def _marks(edges: Edges, shape: tuple[int, ...]) -> Iterator[tuple[float, npt.NDArray[np.int64]]]:
    """The jump of each mark, and which edges are its own."""
    import cv2

    rows, columns = shape[0] // CELL + 2, shape[1] // CELL + 1  # The last row is empty, and parts the bins.
    depth = BINS + 2 * OTHER
    bins = np.floor(
        np.log(edges.jump) * (BINS / np.log(LAST / FIRST)) + (OTHER - BINS * np.log(FIRST) / np.log(LAST / FIRST))
    )
    bins = bins.astype(np.int64)
    cells = edges.y // CELL * columns + edges.x // CELL
    fits = (bins >= 0) & (bins < depth)
    counts = np.bincount(bins[fits] * (rows * columns) + cells[fits], minlength=depth * rows * columns)
    single = counts.astype(np.float32).reshape(depth, rows * columns)
    bands = single.copy()  # Each bin with its two neighbours.
    bands[1:] += single[:-1]
    bands[:-1] += single[1:]
    dense = (bands[OTHER:-OTHER] >= IN_CELL).reshape(BINS * rows, columns)
    _, labels = cv2.connectedComponents(dense.view(np.uint8), connectivity=8)
    labels = np.asarray(labels, np.int32).reshape(BINS, rows * columns)
    on = np.flatnonzero(labels)
    own, less, more = (
        np.bincount(labels.ravel()[on], bands[start : start + BINS].ravel()[on]) for start in (OTHER, 0, 2 * OTHER)
    )
    found: list[tuple[float, npt.NDArray[np.int64]]] = []
    for label in np.flatnonzero((own >= LEAST) & (np.maximum(less, more) <= 2 * FEW_OTHERS * own)):
        k = int(on[labels.ravel()[on] == label][0]) // (rows * columns)
        near = np.flatnonzero(labels[k][cells] == label)
        jump = float(np.median(edges.jump[near][np.abs(bins[near] - OTHER - k) <= 1]))
        part = _part(edges, near, jump)
        if part is not None and not _is_paint(edges, jump, part):
            found.append((jump, part))
    yield from _in_lines(edges, found)


def _part(edges: Edges, near: npt.NDArray[np.int64], jump: float) -> npt.NDArray[np.int64] | None:
    """The edges of some cells that have a jump, if they are those of a mark."""
    jumps = edges.jump[near]
    same, less, more = (np.abs(jumps - j) < SAME * j for j in (jump, jump * OTHER_JUMP, jump / OTHER_JUMP))
    agree, others = int(same.sum()), max(int(less.sum()), int(more.sum()))
    if agree < LEAST or others > FEW_OTHERS * agree:
        return None
    part = near[same]
    return part if _closed(edges, part) else None


def _in_lines(
    edges: Edges, found: list[tuple[float, npt.NDArray[np.int64]]]
) -> Iterator[tuple[float, npt.NDArray[np.int64]]]:
    """Marks where enough edges agree; where one is, others of its jump are surer. Those of one jump on the same rows are one: the
    letters of a line, or the same letters twice, whose edges lie in two bins that are neighbours."""
    lines: list[tuple[float, int, int, list[npt.NDArray[np.int64]]]] = []
    for jump, part in sorted(found, key=lambda one: -len(one[1])):
        top, bottom = int(edges.y[part].min()), int(edges.y[part].max())
        for like, first, last, parts in lines:
            both = min(bottom, last) - max(top, first)
            if abs(jump - like) < SAME / 2 * like and both > 0.5 * max(bottom - top, last - first):
                parts.append(part)
                break
        else:
            lines.append((jump, top, bottom, [part]))
    merged = [(jump, np.unique(np.concatenate(parts))) for jump, _, _, parts in lines]
    sure = [jump for jump, part in merged if len(part) >= FEWEST]
    for jump, part in merged:
        if any(abs(jump - like) < SAME / 2 * like for like in sure):
            yield jump, part


def _stays(frames: Sequence[Grey], edges: Edges, jump: float, part: npt.NDArray[np.int64]) -> bool:
    """Whether a mark is in nearly all frames: an opaque title is as pale in their mean if it is in some of them."""
    at, aside = edges.y[part] * frames[0].shape[1] + edges.x[part], edges.aside[part]
    jumps = []
    for frame in frames:
        sides = np.stack([frame.ravel()[at - aside], frame.ravel()[at + aside]]).astype(np.float32)
        jumps.append(float(np.median(_signed(edges, part, sides))))
    return bool((np.array(jumps) > WEAK * jump).mean() >= ALWAYS)


def _signed(edges: Edges, part: npt.NDArray[np.int64], sides: Field) -> Field:
    """The jumps of a part's edges in another picture, > 0 where they go the same way: float32 [n]. sides: [2, n], the levels on
    both sides there."""
    way = np.sign(edges.after[part] - edges.before[part]) * np.sign(edges.colour - edges.before[part])
    distance = np.log(np.abs(edges.colour - sides))
    return np.asarray(way * (distance[0] - distance[1]), np.float32)


def _is_tint(edges: Edges, part: npt.NDArray[np.int64], brightness: Field) -> bool:
    """Whether a part's edges in chroma are those of a tint: the brightness of the ground shows through, and the colour is as
    strong over a dark ground as over a light one. Light makes the colour of paint stronger.

    brightness: the mean of all frames [h, w].
    """
    at, aside = edges.y[part] * brightness.shape[1] + edges.x[part], edges.aside[part]
    sides = np.stack([brightness.ravel()[at - aside], brightness.ravel()[at + aside]])
    first = np.abs(edges.before[part] - edges.colour) > np.abs(edges.after[part] - edges.colour)
    ground, mark = np.where(first, sides, sides[::-1]).astype(np.float64)
    varies = float(ground.var())
    shows = float(((ground - ground.mean()) * (mark - mark.mean())).mean()) / max(varies, 1.0)
    of_light = np.abs(edges.after[part] - edges.before[part]) / (ground - BLACK)
    tried = np.quantile(of_light, np.linspace(0.05, 0.95, 10))
    as_paint = max(float((np.abs(of_light - one) < SAME * one).mean()) for one in tried)
    return SHOWS[0] <= shows <= SHOWS[1] and as_paint <= AS_PAINT


def _is_paint(edges: Edges, jump: float, part: npt.NDArray[np.int64]) -> bool:
    """Whether more edges agree if they are taken for those of paint, by the ratio of their brightness: edges on the rows of a
    part that agree by their jump, and as far beside it as it is high."""
    top, bottom = int(edges.y[part].min()), int(edges.y[part].max())
    left, right = int(edges.x[part].min()), int(edges.x[part].max())
    near = (edges.y >= top) & (edges.y <= bottom)
    near &= (edges.x >= left - (bottom - top)) & (edges.x <= right + (bottom - top))
    opposite = WHITE + BLACK - edges.colour
    ratios = np.abs(np.log((edges.before - opposite) / (edges.after - opposite)))
    tried = np.quantile(ratios[part], np.linspace(0.05, 0.95, 10))
    paint = max(int((np.abs(ratios[near] - one) < SAME * one).sum()) for one in tried)
    return paint > int((np.abs(edges.jump[near] - jump) < SAME * jump).sum())


def _closed(edges: Edges, part: npt.NDArray[np.int64]) -> bool:
    """Whether edges make closed outlines: others follow along rows and columns, and they have all directions."""
    x, y = edges.right[part].astype(np.float64), edges.down[part].astype(np.float64)
    length = np.maximum(np.hypot(x, y), 1e-9)
    x, y = x / length, y / length
    smaller, larger = np.linalg.eigvalsh([[float(x @ x), float(x @ y)], [float(x @ y), float(y @ y)]])
    if smaller < ROUND * larger:
        return False
    pairs = 0
    for along, across, way in ((edges.x[part], edges.y[part], x), (edges.y[part], edges.x[part], y)):
        steep = np.abs(way) >= 0.7
        order = np.lexsort((along[steep], across[steep]))
        pairs += int(((np.diff(across[steep][order]) == 0) & (np.diff(along[steep][order]) > 2)).sum())
    return pairs >= PAIRS * len(part)


def _one_jump(
    edges: Edges, within: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[float, npt.NDArray[np.int64]] | None:
    """The jump that letters in a box have in common, if they have one, and the edges that have it. within: the edges in the
    box."""
    best: tuple[float, float] | None = None
    if len(within) < FEWEST:
        return None
    for jump in np.geomspace(FIRST, LAST, BINS).tolist():
        own, others = _outlines(edges, within, jump, shape, axis=1)
        count, rest = float(own.sum()), float(others.sum())
        sure = (count - rest) / (count + rest / 2 + 1) ** 0.5
        if count >= FEWEST and count >= OUTNUMBER * rest and sure >= max(SURE, best[0] if best else 0.0):
            best = sure, jump
    if best is None:
        return None
    jump = best[1]
    part = within[np.abs(edges.jump[within] - jump) < SAME * jump]
    return jump, part


def _line(edges: Edges, jump: float, part: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """The points (x, y) int32 [n, 2] of a mark's edges, and of those with which its line of letters goes on."""
    left, right = int(edges.x[part].min()), int(edges.x[part].max()) + 1
    top, bottom = int(edges.y[part].min()), int(edges.y[part].max()) + 1
    within = np.flatnonzero((edges.y >= top) & (edges.y < bottom) & (edges.x >= left) & (edges.x < right))
    own, others = _outlines(edges, within, jump, shape, axis=1)
    gain = (own - BETWEEN * others)[top:bottom]
    usual = max(0.0, float(gain.mean()))
    gain[gain < THIN * usual] = -EMPTY * usual
    end = best_end(gain)
    top, bottom = top + end - best_end(gain[:end][::-1]), top + end
    within = np.flatnonzero((edges.y >= top) & (edges.y < bottom))
    own, others = _outlines(edges, within, jump, shape, axis=0)
    gain = own - others - DENSE * (bottom - top)
    right += best_end(gain[right:])
    left -= best_end(gain[:left][::-1])
    if not end:  # These edges are no line of letters, so that none beside them belong to it.
        within = part
    line = within[(edges.x[within] >= left) & (edges.x[within] < right)]
    line = line[np.abs(edges.jump[line] - jump) < SAME * jump]
    return np.stack([edges.x[line], edges.y[line]], axis=1).astype(np.int32)


def _around(points: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The corners (x, y) int32 [n, 2] of the box around a line of letters, or of the convex hull of another mark. points: its
    edges."""
    import cv2

    hull = cv2.convexHull(points)
    corners = cv2.boxPoints(cv2.minAreaRect(points))
    if cv2.contourArea(hull) >= FILLS * cv2.contourArea(corners):
        return np.rint(corners).astype(np.int32)
    return np.asarray(hull[:, 0], np.int32)


def _outlines(
    edges: Edges, within: npt.NDArray[np.int64], jump: float, shape: tuple[int, ...], axis: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How many edges of a jump have others of theirs beside them, as outlines do, summed along an axis, and how many edges of the
    smaller and the larger jump have so on average: float64 [w] or [h] each."""
    import cv2

    sums = []
    for one in (jump, jump * OTHER_JUMP, jump / OTHER_JUMP):
        part = within[np.abs(edges.jump[within] - one) < SAME * one]
        on = np.zeros(shape, np.uint8)
        on[edges.y[part], edges.x[part]] = 1
        near = cv2.boxFilter(on, cv2.CV_8U, (CELL - 1, CELL - 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
        sums.append(np.asarray(((near >= BESIDE) & (on > 0)).sum(axis=axis), np.float64))
    return sums[0], (sums[1] + sums[2]) / 2


def best_end(gain: npt.NDArray[np.float64]) -> int:
    """How many values from the first on have the largest sum; 0 if none has one above 0."""
    sums = np.concatenate([[0.0], np.cumsum(gain)])
    return int(np.argmax(sums))
