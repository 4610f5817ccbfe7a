"""Which lines of text were put over a scene: evidence for it, evidence against it, or neither.

Of each box that the detector finds in a keyframe, every other frame of the sample is asked: does the content of the box stand
still between the two (gradients correlate by more than 0.6), and does the scene around it move (by less than 0.3: in a ring as
wide as the line is high, if there is something to see in it, else everywhere outside of boxes and marks)?

- **Overlay**: it stood still while the scene around it moved, once at least; or its letters are static marks (pale ones hardly
  correlate).
- **Overlay**, too, if it drifts: half a second later it is found again elsewhere, what is around it has not gone there with
  it, and lines in two more keyframes went the same way. Tickers and credits do so.
- **Overlay**, too, if it wanders: the very same line is in two more keyframes at other places, and what is around it there is
  something else. A sign takes its wall along.
- **Scene**: half a second later it is gone from its place and found again beside it, or the scene moves and it was seen nowhere
  twice.
- **Not known**: the scene never moved while it was there. A line that leans, or is taller than a seventh of the frame, is taken
  for the scene's all the same: editors set their lines level or upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.marks import Gradients, Grey, Mask, Seen, gradients, reduced
from longtake.filters.text_boxes import Boxes

STRONG = 8.0  # Grey levels per px that soften gradients, so that every clear edge counts about the same.
MOVING = 0.3  # Correlation of gradients below which a scene moves (real film: 0.24, tripod shots 0.34).
UNMOVED = 0.6  # Correlation within a box above which its content stands still.
NOISE = 0.01  # Mean squared soft gradient up to which a picture shows noise only.
RING_TEXTURE = 4.0  # Mean squared gradient from which on a ring shows more than noise.
MARKED = 0.2  # Share of a box that static marks cover if they are its letters.
# Share of a box that is under copies of a tiled watermark if it is around one: 95 % of 7399 boxes have below 0.2 or above 0.4.
TILED = 0.3
LETTERED = 0.6  # Share of the columns of a line's box in which there are marks if these show how high the line is.
THIN = 0.2  # Share of the box's width that marks must take in its first and last row of letters.
# Share of the frame's short side. A taller line must be shown by the frames, since the detector errs in large boxes.
TALLEST = 0.15
LINE = 2.0  # Heights: the least length of a line.
LEANS = 4.0  # Degrees by which a line may lean.
FOUND = 0.7  # Correlation of a box's content with another place, from which on it has moved to that place.
SEARCH = 0.08  # Share of the long side: how far the content is looked for.
AWAY = 3  # Px from which on a place is another one.
FOLLOWS = 0.4  # Correlation of what is around a line with the place where it would be if it had moved with it.
SURELY_FOUND = 0.7  # FOUND for a line that drifts: nothing about it changes.
DRIFTS = 3  # Keyframes in which lines must drift the same way.
ALIKE = 3  # Px by which the drifts of these keyframes may differ.
SAME_LINE = 0.65  # Correlation of a line's content with that of another keyframe, from which on it is the same line.
SAME_SIZE = (
    1.3  # Factor by which the boxes of one line may differ in length and height: the detector cuts them differently.
)
WANDERS = 2  # Other keyframes in which a line that wanders must be found.
AWAY_LINES = 0.5  # Line heights by which it must be away there.
OTHER_GROUND = 0.3  # Correlation up to which the surroundings of a line are other ones than elsewhere.
GROUND = 3.0  # Grey levels (deviation): what is around a line must show so much to be compared.


@dataclass(frozen=True, slots=True)
class Judged:
    """Boxes int32 [n, 4, 2] of one keyframe: those put over the scene, and those that may be either."""

    overlaid: Boxes
    unknown: Boxes


@dataclass(frozen=True, slots=True)
class Drift:
    """right, down: px by which a line has moved. apart: whether what is around it has not gone with it. carried: whether it has;
    where there is nothing to see around a line, it is neither."""

    right: int
    down: int
    apart: bool
    carried: bool


def judged(frames: Sequence[Grey], boxes: Sequence[Boxes], seen: Seen) -> list[Judged]:
    """The text boxes of each of the first frames.

    frames: keyframes, then partners, grey [h, w]. boxes: [n, 4, 2] for each keyframe. seen: what is under marks.
    """
    if not any(len(found) for found in boxes):
        return [Judged(found, found) for found in boxes]
    moving = _moving(frames, boxes, seen.mask)
    away = ~seen.mask
    for found in boxes:
        away &= ~filled(found, away.shape)
    of_all = [
        [_verdict(frames, box, index, index + len(boxes), moving[index], away, seen) for box in found]
        for index, found in enumerate(boxes)
    ]
    drifts = [
        [
            _drift(frames[index], frames[index + len(boxes)], box) if v is not True else None
            for box, v in zip(found, known, strict=True)
        ]
        for index, (found, known) in enumerate(zip(boxes, of_all, strict=True))
    ]
    wandering = _wandering(frames, boxes, of_all, drifts)
    out = []
    for index, found in enumerate(boxes):
        verdicts = [
            True if wanders or (drift is not None and _together(drift, drifts) >= DRIFTS) else verdict
            for verdict, drift, wanders in zip(of_all[index], drifts[index], wandering[index], strict=True)
        ]
        overlaid, unknown = (found[np.array([v == want for v in verdicts], np.bool_)] for want in (True, None))
        out.append(
            Judged(np.array([_as_high_as(seen.mask, box) for box in overlaid], np.int32).reshape(-1, 4, 2), unknown)
        )
    return out


def beside(boxes: Boxes, copies: Mask | None) -> Boxes:
    """The boxes [n, 4, 2] of a keyframe without those of the words of a tiled watermark, of which bool [h, w] is known."""
    if copies is None:
        return boxes
    shares = [float(copies[filled(box[None], copies.shape)].mean()) if len(box) else 0.0 for box in boxes]
    return boxes[np.array(shares, np.float64) <= TILED]


def _as_high_as(marks: Mask, box: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """A level line's box, no higher than the marks in it if these are its letters: the detector's boxes of large letters are up
    to twice as high. A box that is none of a line, such as one around a logo, is no larger than the marks in it."""
    height, width = marks.shape
    (left, top), (right, bottom) = np.maximum(box.min(axis=0), 0), np.minimum(box.max(axis=0) + 1, (width, height))
    inside = marks[top:bottom, left:right]
    short, long = sorted((right - left, bottom - top))
    if short > TALLEST * min(height, width) and long < LINE * short and inside.mean() > MARKED / 2:
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        (left, right), (top, bottom) = (left + columns[[0, -1]], top + rows[[0, -1]])
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.int32)
    if right - left < bottom - top or _leans(box) or inside.any(axis=0).mean() < LETTERED:
        return box
    rows = np.flatnonzero(inside.mean(axis=1) >= THIN)
    if not len(rows) or not rows[0] <= len(inside) // 2 <= rows[-1]:  # Another mark reaches into the box from aside.
        return box
    out = box.copy()
    out[:, 1] = np.clip(box[:, 1], top + rows[0], top + rows[-1])
    return out


def _verdict(
    frames: Sequence[Grey],
    box: npt.NDArray[np.int32],
    index: int,
    partner: int,
    moving: npt.NDArray[np.bool_],
    away: Mask,
    seen: Seen,
) -> bool | None:
    """True: put over the scene. False: of the scene. None: not known."""
    import cv2

    x, y, width, height = cv2.boundingRect(box)
    margin = max(6, min(width, height))
    rows = slice(max(0, y - margin), y + height + margin)
    columns = slice(max(0, x - margin), x + width + margin)
    window = (rows, columns)
    fields = gradients([frame[window] for frame in frames])
    inside = filled(box[None] - np.array([columns.start, rows.start], np.int32), fields.shape[2:])
    ring = away[window] & ~inside
    stays = correlation(fields * inside, index) > UNMOVED
    around = fields * ring
    to_see = np.einsum("ncyx,ncyx->n", around, around) > RING_TEXTURE * max(1, int(ring.sum()))
    textured = to_see & to_see[index] & (ring.mean() > 0.15)
    moves = np.where(textured, correlation(around, index) < MOVING, moving)
    moves[index] = False
    under = float(seen.mask[window][inside].mean()) if inside.any() else 0.0
    if (stays & moves).any() or under > MARKED:
        return True
    if not stays[partner] and _found_beside(frames[index], frames[partner], (x, y, width, height)):
        return False
    stays[index] = False
    if (
        _leans(box)
        or min(width, height) > TALLEST * min(frames[0].shape)
        or ((seen.known or moves.any()) and not stays.any())
    ):
        return False
    return None


def correlation(fields: Gradients, index: int) -> npt.NDArray[np.float64]:
    """Correlation of the gradients of one frame with those of each: float64 [n]; 1 for equal frames, about 0 for unlike ones."""
    flat = fields.reshape(len(fields), -1)
    energy = np.einsum("nk,nk->n", flat, flat).astype(np.float64)
    return np.asarray(2 * (flat @ flat[index]) / np.maximum(energy + energy[index], 1e-9), dtype=np.float64)


def _moving(frames: Sequence[Grey], boxes: Sequence[Boxes], marks: Mask) -> npt.NDArray[np.bool_]:
    """Between which two frames the scene outside of boxes and marks moves: bool [n, n]."""
    import cv2

    scene = ~marks
    for found in boxes:
        scene &= ~filled(found, scene.shape)
    small = reduced(scene.astype(np.uint8) * 255) == 255
    fields = gradients([reduced(frame) for frame in frames])
    for field in fields:
        field /= cv2.magnitude(field[0], field[1]) + STRONG
        field *= small
    # In a picture of noise only, no movement can be seen.
    energy = np.einsum("ncyx,ncyx->n", fields, fields) / max(1, int(small.sum()))
    alike = np.stack([correlation(fields, index) for index in range(len(frames))])
    return np.asarray((alike < MOVING) & (np.minimum.outer(energy, energy) > NOISE))


def _found_beside(frame: Grey, later: Grey, box: tuple[int, int, int, int]) -> bool:
    """Whether the content of a box (x, y, width, height) is found at another place of a later frame."""
    import cv2

    x, y, width, height = box
    x, y, width, height = max(0, x), max(0, y), width + min(0, x), height + min(0, y)
    content = frame[y : y + height, x : x + width]
    reach = round(SEARCH * max(frame.shape))
    top, left = max(0, y - reach), max(0, x - reach)
    around = later[top : y + height + reach, left : x + width + reach]
    if min(content.shape) < 4 or float(content.std()) < 4:
        return False
    alike = cv2.matchTemplate(around, content, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    return best > FOUND and max(abs(left + column - x), abs(top + row - y)) >= AWAY


def _drift(frame: Grey, later: Grey, box: npt.NDArray[np.int32]) -> Drift | None:
    """How a level line has moved, if it is found in the later frame at another place."""
    import cv2

    height, width = frame.shape
    reach = round(SEARCH * max(frame.shape))
    (left, top), (right, bottom) = np.maximum(box.min(axis=0), 0), np.minimum(box.max(axis=0) + 1, (width, height))
    if _leans(box) or min(right - left, bottom - top) < 8:
        return None
    # The ends of a long line, as of a ticker, may have left the picture.
    if right - left > 4 * reach:
        left, right = left + reach, right - reach
    up, beside = max(0, top - reach), max(0, left - reach)
    around = later[up : bottom + reach, beside : right + reach]
    content = frame[top:bottom, left:right]
    if float(content.std()) < 4:
        return None
    alike = cv2.matchTemplate(around, content, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(alike)
    x, y = int(beside + column - left), int(up + row - top)
    if best < SURELY_FOUND or max(abs(x), abs(y)) < AWAY:
        return None
    high = 2 * int(bottom - top)  # A plate's margin around its line is less.
    followed = []
    for start, stop in ((top - high, top - 2), (bottom + 2, bottom + high)):
        rows = slice(max(0, start, -y), min(height, stop, height - y))
        columns = slice(max(0, left, -x), min(width, right, width - x))
        was, now = frame[rows, columns], later[rows.start + y : rows.stop + y, columns.start + x : columns.stop + x]
        if was.shape != now.shape or 0 in was.shape:
            continue
        pair = [_across(part, axis=int(abs(x) > abs(y))) for part in (was, now)]
        if len(was) < 4 or min(float(part.std()) for part in pair) < 2:
            continue
        followed.append(float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1]))
    most = max(followed, default=None)
    return Drift(x, y, most is not None and most < FOLLOWS, most is not None and most >= FOLLOWS)


def _across(part: Grey, axis: int) -> npt.NDArray[np.float32]:
    """What of a part of a frame [h, w] would show a shift along an axis: lines along it, as the edge of a plate, do not."""
    return np.asarray(part - part.mean(axis=axis, keepdims=True, dtype=np.float32), np.float32)


def _together(way: Drift, drifts: Sequence[Sequence[Drift | None]]) -> int:
    """In how many keyframes a line went this way, apart from what is around it."""
    return sum(
        any(
            one is not None and one.apart and max(abs(one.right - way.right), abs(one.down - way.down)) <= ALIKE
            for one in of_one
        )
        for of_one in drifts
    )


def _wandering(
    frames: Sequence[Grey],
    boxes: Sequence[Boxes],
    verdicts: Sequence[Sequence[bool | None]],
    drifts: Sequence[Sequence[Drift | None]],
) -> list[list[bool]]:
    """Which lines are in WANDERS more keyframes elsewhere, on another ground, and are not carried by the scene.

    verdicts, drifts: those of `_verdict` and `_drift`, for each box.
    """
    wanders = []
    for index, found in enumerate(boxes):
        of_frame = []
        for box, verdict, drift in zip(found, verdicts[index], drifts[index], strict=True):
            may = verdict is not True and not _leans(box) and not (drift is not None and drift.carried)
            others = [lines for other, lines in enumerate(boxes) if other != index]
            later = [frame for other, frame in enumerate(frames[: len(boxes)]) if other != index]
            elsewhere = 0
            for frame, lines in zip(later, others, strict=True) if may else ():
                elsewhere += any(_is_elsewhere(frames[index], box, frame, line) for line in lines)
            of_frame.append(elsewhere >= WANDERS)
        wanders.append(of_frame)
    return wanders


def _is_elsewhere(frame: Grey, box: npt.NDArray[np.int32], later: Grey, other: npt.NDArray[np.int32]) -> bool:
    """Whether the line in a box of one frame is that in another box of another frame, on another ground."""
    import cv2

    (left, top, width, height), (beside, down, long, high) = cv2.boundingRect(box), cv2.boundingRect(other)
    away = max(abs(2 * (beside - left) + long - width), abs(2 * (down - top) + high - height)) / 2
    alike = max(width, long) <= SAME_SIZE * min(width, long) and max(height, high) <= SAME_SIZE * min(height, high)
    if not alike or away < AWAY_LINES * height or min(left, top) < 0:
        return False
    room = max(abs(width - long), abs(height - high), AWAY) + AWAY
    up, aside = max(0, down - room), max(0, beside - room)
    around = later[up : down + high + room, aside : beside + long + room]
    content = frame[top : top + height, left : left + width]
    if min(content.shape) < 8 or around.shape[0] < content.shape[0] or around.shape[1] < content.shape[1]:
        return False
    _, best, _, (column, row) = cv2.minMaxLoc(cv2.matchTemplate(around, content, cv2.TM_CCOEFF_NORMED))
    if best < SAME_LINE:
        return False
    grounds = []
    for window in _beside_line(left, top, width, height):
        moved = _clipped_pair(frame, later, window, aside + column - left, up + row - top)
        if moved is not None and min(float(part.std()) for part in moved) >= GROUND:
            grounds.append(float(np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1]))
    return bool(grounds) and float(np.median(grounds)) < OTHER_GROUND


def _beside_line(left: int, top: int, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Windows (top, bottom, left, right) above, below, to the left and to the right of a line, some px away from its letters."""
    gap = max(AWAY, height // 3)
    right, bottom = left + width, top + height
    return [
        (top - gap - height, top - gap, left, right),
        (bottom + gap, bottom + gap + height, left, right),
        (top, bottom, left - gap - 2 * height, left - gap),
        (top, bottom, right + gap, right + gap + 2 * height),
    ]


def _clipped_pair(
    frame: Grey, later: Grey, window: tuple[int, int, int, int], right: int, down: int
) -> tuple[Grey, Grey] | None:
    """A window of a frame, and the same in a later one moved by so many px, as far as both are within; None if hardly any is."""
    height, width = frame.shape
    top, bottom = max(0, window[0], -down), min(height, window[1], height - down)
    first, last = max(0, window[2], -right), min(width, window[3], width - right)
    if min(bottom - top, last - first) < 2 * AWAY:
        return None
    return frame[top:bottom, first:last], later[top + down : bottom + down, first + right : last + right]


def _leans(box: npt.NDArray[np.int32]) -> bool:
    """Whether a line of text is neither level nor upright."""
    across, down = box[1] - box[0], box[2] - box[1]
    along = across if np.hypot(*across) >= np.hypot(*down) else down
    angle = float(np.degrees(np.arctan2(along[1], along[0]))) % 90
    return min(angle, 90 - angle) > LEANS


def filled(boxes: Boxes, shape: tuple[int, ...]) -> Mask:
    """Mask bool of the given shape [h, w] of what is in the boxes [n, 4, 2]."""
    import cv2

    mask = np.zeros(shape, dtype=np.uint8)
    for box in boxes:
        cv2.fillConvexPoly(mask, box, 1)
    return mask > 0
