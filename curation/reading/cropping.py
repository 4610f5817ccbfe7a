"""Borders, and bands of subtitles at an edge, cut away from a clip before it is measured (`crop: borders` of a recipe).

Borders are what the filter `artifacts` takes for them: flat bars (`longtake.filters.bars`), and those panels from side to side
(`longtake.filters.panels`) that are a blurred ground: of one width at both sides, and without a sharp edge. The other parts of a
split screen are pictures, and are left. Borders are found in the sample of a clip, at analysis size, and their inner edges then
in the rows and columns of full size that the pass has kept (`native.py`): in a frame that is reduced to a fourth, the edge of a
border is known to four px only.

A dark scene must not lose what is dark in it. Where a dark bar has no twin of its width at the opposite side, its inner edge has
to be seen in most frames, or no more is cut than at the opposite side. Where a scene is black up to its border, the border is as
wide as its twin, or as that of an earlier clip of the film. A clip whose border changes, as the 30 pictures of its motion show,
is left as it is.

A band of subtitles is an edge of the picture with lines of text that were put over the scene (`longtake.filters.overlaid_text`),
up to the uppermost of them. It is looked for where the recipe's `artifacts` looks for text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.box import NONE, Box, Widths, as_coded, as_upright, window
from longtake.curation.reading.orientation import Orientation
from longtake.filters.bars import DARK, RAMP, TOLERANCE, bars
from longtake.filters.base import Image, Motion, Native, Sample
from longtake.filters.gates import Gate
from longtake.filters.grayscale import grey
from longtake.filters.marks import Seen, seen
from longtake.filters.overlaid_text import filled, judged
from longtake.filters.plates import on_plates
from longtake.filters.text_boxes import Boxes, text_boxes

# A share of the picture's area. Where less would be left, nothing is cut away.
LEAST_LEFT = 0.6
# A row or a column is cut away if this share of it lies under borders and panels; coding leaves a few stray pixels.
COVERED = 0.98
# Where a dark bar has no twin, this share of its edge must be visible in the median frame.
SUPPORT = 0.6
# Pixels at a long side of 480. The border of a part of the clip may be wider by less than this.
CHANGED = 3
# A part of the clip holds this number of pictures of its motion: three pairs.
TOGETHER = 6
# An edge at full size must be this many times as large a step as the median step near it.
PROMINENT = 2.0
# The outermost edge at full size must have this share of the largest step near it.
FIRST = 0.3
# The row behind an edge belongs to a blurred border if its step is this share of the step at the edge.
SOFT = 0.5
# A share of the height. Subtitles are looked for in so much of the picture above and below.
ZONE = 0.25
# Pixels. The edge of a blurred ground, half as wide to both sides, belongs neither to it nor to the picture.
BESIDE = 12
# A blurred ground must be soft in this share of the frames: else it comes or goes within the clip.
NEARLY_ALL = 0.8
# Pixels of the analysis size. A blurred ground is as wide as at the opposite side, but for so many.
TWINS = 6
# A share of a strip's pixels. The sharpest edges are the others.
SHARPEST = 0.98
# A share. A blurred ground bends by no more than this share of how far the picture beside it does.
SOFT_GROUND = 0.4
# A share. A border whose edge a dark scene hides is as wide as at the opposite side, but for this share.
NEAR_TWIN = 0.15
# A lone step must be this many times as large as the median step around, and so many grey levels.
LONE, LEAST_STEP = 8.0, 1.0
# Grey levels. A border without a visible inner edge must have at most this mean in every frame.
BLACK = 4.0
# Grey levels. A border without a visible inner edge must have at most this standard deviation: the dark of a camera has more.
EVEN = 1.0
# A share of the area, in the keyframe with the most text. Less is not taken for a band of subtitles.
LEAST_TEXT = 0.005
# A share of a line's height. So much is cut away beyond the line, for outlines and shadows.
MARGIN = 0.25
Steps = npt.NDArray[np.float32]
# Pixels. Both zones are shown to the network in one picture, with this distance between them.
_GAP = 32


@dataclass(frozen=True, slots=True)
class Found:
    """The crop of a sample. box: the part of the picture that is to be kept; None: all of it. why: the reason why borders stay,
    or "". seen: the pixels of the whole picture that lie under borders and marks. borders: the widths of the borders that are cut
    away, as shares, without bands of subtitles."""

    box: Box | None
    why: str
    seen: Seen
    borders: Widths = NONE


def find_crop(
    sample: Sample,
    width: int,
    height: int,
    shown: Orientation,
    tiers: Sequence[Mapping[str, Gate]],
    *,
    text: bool,
    known: Widths = NONE,
) -> Found:
    """Find the part of a clip's picture that is to be kept. width, height: px of the displayed picture. shown: how decoded frames
    become upright. tiers: the gates of each tier of the recipe; at least one tier must take the size that is left. text: whether
    subtitles are looked for. known: the borders of an earlier clip of the same film, as shares, since a dark scene may not show
    where they end."""
    frames = [grey(picture) for picture in (*sample.keyframes, *sample.partners)]
    marks = seen(frames)
    borders = _framed(frames, _borders(frames, marks))
    if any(borders) and _changes(sample, borders, shown):
        return Found(None, "its border is not the same from its beginning to its end", marks)
    exact = _refined(borders, frames[0].shape, sample.native or (), shown)
    exact = _unseen(frames, exact, known, _from_sides(sample.native or (), shown))
    plain = Box.within(_pixels(exact, width, height), width, height) if any(exact) else None
    kept, why = None, ""
    if plain is not None:
        why = _refused(plain, width, height, tiers)
        if why:
            return Found(None, why, marks)
        kept = plain
    if text:
        shares = kept.widths(width, height) if kept else NONE
        above, below = _bands(sample, frames, marks, shares)
        if above or below:
            top, right, bottom, left = shares
            within = (max(top, above), right, max(bottom, below), left)
            banded = Box.within(_pixels(within, width, height), width, height)
            why = _refused(banded, width, height, tiers)
            kept = kept if why else banded
    return Found(kept, why, marks, exact)


def cropped(sample: Sample, box: Box, width: int, height: int, shown: Orientation) -> Sample:
    """The sample without what lies outside a box of its picture, which has `width` × `height` px."""
    shares = box.widths(width, height)
    rows, columns = window(shares, sample.keyframes.shape[2], sample.keyframes.shape[1])
    coded = as_coded(shares, shown)
    return replace(
        sample,
        keyframes=np.ascontiguousarray(sample.keyframes[:, rows, columns]),
        partners=np.ascontiguousarray(sample.partners[:, rows, columns]),
        marks=None,
        motion=_motion_within(sample.motion, coded) if sample.motion else None,
        native=tuple(_native_within(native, coded) for native in sample.native) if sample.native else None,
    )


def _refused(box: Box, width: int, height: int, tiers: Sequence[Mapping[str, Gate]]) -> str:
    """Why a picture of `width` × `height` px is not cut to a box; "" if it is."""
    left = box.area / (width * height)
    if left < LEAST_LEFT:
        return f"{left:.0%} of its picture would be left within its borders, {LEAST_LEFT:.0%} have to be"
    sizes = {"width": np.array([float(box.width)]), "height": np.array([float(box.height)])}
    lost = [
        [
            f"{name} {gates[name]}"
            for name, value in sizes.items()
            if name in gates and not gates[name].passes(value, value)
        ]
        for gates in tiers
    ]
    if lost and all(lost):
        return f"{box.width}×{box.height} px would be left within its borders, and no tier takes that ({lost[0][0]})"
    return ""


# Borders ------------------------------------------------------------------------------------------------------------


def _borders(frames: Sequence[Image], marks: Seen) -> Widths:
    """The widths of the borders of grey frames [h, w], in px of the frames."""
    covered = _covered(marks.mask)
    above, below, before, behind = bars(frames)
    flat = (above, behind, below, before)
    sides = []
    for side in range(4):
        wide = covered[side]
        if abs(wide - flat[side]) <= RAMP:
            sides.append(_believed(frames, side, min(wide, flat[side]), flat[(side + 2) % 4]))
        else:
            # The wider border is a panel: a blurred ground, if it has a twin and nothing in it is sharp.
            twin = abs(wide - covered[(side + 2) % 4]) <= TWINS
            sides.append(wide if twin and _is_soft(frames, side, wide) else flat[side])
    return float(sides[0]), float(sides[1]), float(sides[2]), float(sides[3])


def _framed(frames: Sequence[Image], borders: Widths) -> Widths:
    """The borders, with those that lie inside of them: of a blurred frame on all sides, the seams above and below reach from
    pillar to pillar only."""
    top, right, bottom, left = (round(side) for side in borders)
    if not any(borders) or (top + bottom and left + right):
        return borders
    height, width = frames[0].shape
    inner = [np.ascontiguousarray(frame[top : height - bottom, left : width - right]) for frame in frames]
    more = _borders(inner, seen(inner))
    # In the direction that had a border already, more of it would be part of the picture.
    return (borders[0], more[1], borders[2], more[3]) if top + bottom else (more[0], borders[1], more[2], borders[3])


def _is_soft(frames: Sequence[Image], side: int, wide: int) -> bool:
    """Whether the strip at one side (0: above, then clockwise) has no edges as sharp as those of the picture beside it, in nearly
    all frames: a ground that comes or goes within the clip has them."""
    soft = []
    for frame in np.rot90(np.stack(frames), side, (1, 2)):
        bends = np.abs(cv2.Laplacian(np.ascontiguousarray(frame), cv2.CV_16S))
        strip = np.quantile(bends[: max(1, wide - BESIDE // 2)], SHARPEST)
        inside = np.quantile(bends[wide + BESIDE // 2 : len(bends) // 2 + 1], SHARPEST)
        soft.append(bool(strip <= SOFT_GROUND * inside))
    return float(np.mean(soft)) >= NEARLY_ALL


def _covered(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """How many rows and columns at each side are under borders and panels: above, to the right, below, to the left."""
    height, width = mask.shape
    top, right, bottom, left = 0, width, height, 0
    for _ in range(2):  # A corner belongs to two sides: the second round leaves out what the first has found.
        rows = mask[:, left:right].mean(axis=1) >= COVERED
        top, bottom = _ends(rows)
        columns = mask[top:bottom].mean(axis=0) >= COVERED
        left, right = _ends(columns)
    return top, width - right, height - bottom, left


def _ends(lines: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The first line that is not covered, and the one after the last; the whole, if all are covered."""
    free = np.flatnonzero(~lines)
    return (int(free[0]), int(free[-1]) + 1) if free.size else (0, len(lines))


def _believed(frames: Sequence[Image], side: int, wide: int, opposite: int) -> int:
    """The width in px of a flat bar at one side (0: above, then clockwise), as far as the frames show its inner edge."""
    if wide == 0 or abs(wide - opposite) <= RAMP:
        return wide
    stack = np.rot90(np.stack(frames), side, (1, 2))  # This side is now the upper one.
    colour = float(np.median(stack[:, :2]))
    if colour > DARK:
        # A bar that is not dark was found by `bars`, which asks for more evidence there.
        return wide
    first = np.abs(stack[:, wide : wide + RAMP].astype(np.int16) - colour).max(axis=1) > TOLERANCE
    support = float(np.median(first.mean(axis=1)))
    return wide if support >= SUPPORT else min(wide, opposite)


def _unseen(frames: Sequence[Image], borders: Widths, known: Widths, steps: Sequence[Steps]) -> Widths:
    """The borders, as shares, made wider where a dark scene hides their inner edge: if the picture is black to that width, a
    border is as wide as at the opposite side, or as in another clip of the film; if the picture is dark to that width and one
    line at full size is a step from side to side, it ends there. steps: of each side, see `_from_sides`; empty if not known."""
    wider = list(borders)
    for side in range(4):
        for share in (borders[(side + 2) % 4], known[side]):
            lines = frames[0].shape[side % 2]
            if (share - wider[side]) * lines <= RAMP:
                continue
            if _is_black(frames, side, share):
                wider[side] = share
            elif steps and _is_dark(frames, side, share):
                wider[side] = max(wider[side], _lone_step(steps[side], share))
    return wider[0], wider[1], wider[2], wider[3]


def _lone_step(steps: Steps, share: float) -> float:
    """Where near a share of the lines of full size the picture makes one step that stands out of all lines around, as a share; 0
    if it makes none."""
    about = share * len(steps)
    low, high = max(1, int((1 - NEAR_TWIN) * about)), int((1 + NEAR_TWIN) * about) + 1
    near = steps[low:high]
    around = steps[max(1, low // 2) : 2 * high]
    if not near.size or float(near.max()) < max(LONE * float(np.median(around)), LEAST_STEP):
        return 0.0
    return (low + int(near.argmax())) / len(steps)


def _is_dark(frames: Sequence[Image], side: int, share: float) -> bool:
    """Whether nearly all of the picture to a share at one side (0: above, then clockwise) is dark in every frame."""
    stack = np.rot90(np.stack(frames), side, (1, 2))
    zone = stack[:, : max(1, int(share * stack.shape[1]))]
    return bool((zone <= DARK).mean(axis=(1, 2)).min() >= COVERED)


def _from_sides(natives: Sequence[Native], shown: Orientation) -> tuple[Steps, ...]:
    """The change from line to line at full size, in the mean over the frames, from the upper, the right, the lower and the left
    side of the upright picture; empty where it was not kept."""
    rows = [native.rows for native in natives if native.rows is not None]
    columns = [native.columns for native in natives if native.columns is not None]
    if not rows or not columns:
        return ()
    down, across = np.mean(rows, axis=0), np.mean(columns, axis=0)
    coded = (down, _backwards(across), _backwards(down), across)
    return tuple(coded[int(number)] for number in as_upright((0.0, 1.0, 2.0, 3.0), shown))


def _is_black(frames: Sequence[Image], side: int, share: float) -> bool:
    """Whether a share of the picture at one side (0: above, then clockwise) is of one even black in every frame."""
    stack = np.rot90(np.stack(frames), side, (1, 2))
    zone = stack[:, : max(1, int(share * stack.shape[1]))].astype(np.float32)
    return bool(zone.mean(axis=(1, 2)).max() <= BLACK and zone.std(axis=(1, 2)).max() <= EVEN)


def _changes(sample: Sample, borders: Widths, shown: Orientation) -> bool:
    """Whether the border of a clip changes: some part of the clip then has wider borders than the whole."""
    if sample.motion is None:
        return False
    height, width = sample.keyframes.shape[1:3]
    shares = (borders[0] / height, borders[1] / width, borders[2] / height, borders[3] / width)
    motion = _motion_within(sample.motion, as_coded(shares, shown))
    pictures = [each for pair in zip(motion.first, motion.second, strict=True) for each in pair]
    steps = range(0, max(1, len(pictures) - TOGETHER + 1), TOGETHER // 2)
    return any(max(bars(pictures[at : at + TOGETHER])) >= CHANGED for at in steps)


def _refined(borders: Widths, size: tuple[int, ...], natives: Sequence[Native], shown: Orientation) -> Widths:
    """The borders as shares of the picture, with the inner edges that full size shows. borders: px of a picture of the analysis
    size [h, w]."""
    height, width = size
    coarse = as_coded((borders[0] / height, borders[1] / width, borders[2] / height, borders[3] / width), shown)
    rows = [native.rows for native in natives if native.rows is not None]
    columns = [native.columns for native in natives if native.columns is not None]
    if not rows or not columns:
        return as_upright(coarse, shown)
    down, across = np.mean(rows, axis=0), np.mean(columns, axis=0)
    turned = (width, height) if shown.rotation % 180 else (height, width)
    top, bottom = (
        _edge(steps, share, turned[0]) for steps, share in ((down, coarse[0]), (_backwards(down), coarse[2]))
    )
    left, right = (
        _edge(steps, share, turned[1]) for steps, share in ((across, coarse[3]), (_backwards(across), coarse[1]))
    )
    return as_upright((top, right, bottom, left), shown)


def _backwards(steps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The steps in the order in which they are met from the opposite side."""
    return np.concatenate([steps[:1], steps[:0:-1]])


def _edge(steps: npt.NDArray[np.float32], share: float, side: int) -> float:
    """Where a border ends, as a share of the picture. share: about as much, known to two px of the reduced picture. steps: the
    change from line to line at full size, from the side of the border on. side: px of the reduced picture."""
    if share <= 0:
        return 0.0
    scale = len(steps) / side
    about = share * len(steps)
    low = max(1, int(about - 2 * scale) - 2)
    near = steps[low : int(about + 3 * scale) + 3]
    if near.size < 3 or float(near.max()) < PROMINENT * float(np.median(near)):
        return (about + scale / 2) / len(steps)
    # If several edges stand out, the border ends at the outermost one: what lies behind that edge belongs to the picture.
    high = np.flatnonzero(near >= FIRST * near.max()).tolist()
    outer = [at for at in high if near[at] >= near[max(0, at - 1)] and near[at] >= near[min(len(near) - 1, at + 1)]]
    at = int(outer[0]) if outer else int(near.argmax())
    if at + 1 < len(near) and near[at + 1] >= SOFT * near[at]:
        at += 1
    return (low + at) / len(steps)


# Subtitles ----------------------------------------------------------------------------------------------------------


def _bands(sample: Sample, frames: Sequence[Image], marks: Seen, shares: Widths) -> tuple[float, float]:
    """How far bands of subtitles reach from the upper and the lower edge of the whole picture, as shares of its height; 0 without
    a band. shares: the widths of the borders, which are cut away in any case."""
    height, width = frames[0].shape
    rows, columns = window(shares, width, height)
    within = [frame[rows, columns] for frame in frames]
    pictures = sample.keyframes[:, rows, columns]
    zone = round(ZONE * within[0].shape[0])
    if zone < 16:
        return 0.0, 0.0
    lines = [_lines(picture, zone) for picture in pictures]
    if not any(len(boxes) for boxes in lines):
        return 0.0, 0.0
    verdicts = judged(within, lines, Seen(marks.mask[rows, columns], marks.known))
    over = [np.concatenate([each.overlaid, each.unknown]) for each in verdicts]
    plates = [on_plates(picture, boxes) for picture, boxes in zip(pictures, over, strict=True)]
    inside = within[0].shape
    above, below = _reach(plates, zone, inside, upper=True), _reach(plates, zone, inside, upper=False)
    top, bottom = rows.start / height, 1 - rows.stop / height
    return top + above / height if above else 0.0, bottom + below / height if below else 0.0


def _lines(picture: Image, zone: int) -> Boxes:
    """Boxes of text in the upper and the lower zone of an RGB picture, in its px: both are shown to the network at once."""
    height, width = picture.shape[:2]
    gap = np.full((_GAP, width, 3), 128, np.uint8)
    boxes = text_boxes(np.concatenate([picture[:zone], gap, picture[height - zone :]]))
    lower = boxes[:, :, 1].mean(axis=1) > zone + _GAP / 2
    boxes[lower, :, 1] += height - 2 * zone - _GAP
    flat = np.ptp(boxes[:, :, 0], axis=1) > np.ptp(boxes[:, :, 1], axis=1)
    return np.asarray(boxes[flat], np.int32)


def _reach(plates: Sequence[Boxes], zone: int, shape: tuple[int, ...], *, upper: bool) -> float:
    """The rows that lines of text within the zone take at the upper, or the lower, edge of a picture [h, w]; 0 if there are no
    lines, or too few."""
    height = shape[0]
    ours = [_of_the_edge(boxes, zone, height, upper) for boxes in plates]
    if max(float(filled(boxes, shape).mean()) for boxes in ours) < LEAST_TEXT:
        return 0.0
    reach = 0.0
    for boxes in ours:
        for box in boxes:
            first, last = float(box[:, 1].min()), float(box[:, 1].max()) + 1
            more = MARGIN * (last - first)
            reach = max(reach, last + more if upper else height - first + more)
    return reach


def _of_the_edge(boxes: Boxes, zone: int, height: int, upper: bool) -> Boxes:
    last = boxes[:, :, 1].max(axis=1)
    first = boxes[:, :, 1].min(axis=1)
    return np.asarray(boxes[last < zone] if upper else boxes[first >= height - zone], np.int32)


# What else the sample holds ------------------------------------------------------------------------------------------


def _motion_within(motion: Motion, coded: Widths) -> Motion:
    """The motion without shares at the sides of its pictures, which are as coded, not turned."""
    rows, columns = window(coded, motion.first.shape[2], motion.first.shape[1])
    first, second = (np.ascontiguousarray(each[:, rows, columns]) for each in (motion.first, motion.second))
    return Motion(first, second, motion.times, motion.partner_times)


def _native_within(native: Native, coded: Widths) -> Native:
    """The tiles that lie wholly inside the picture without shares at its sides."""
    if native.tiles is None or native.places is None:
        return native
    rows, columns = window(coded, native.width, native.height)
    side = native.tiles.shape[1]
    left, top = native.places.T
    whole = (left >= columns.start) & (left + side <= columns.stop) & (top >= rows.start) & (top + side <= rows.stop)
    return replace(native, tiles=native.tiles[whole], places=native.places[whole])


def _pixels(shares: Widths, width: int, height: int) -> Widths:
    return shares[0] * height, shares[1] * width, shares[2] * height, shares[3] * width
