"""Translucent plates under lines of text in a scene that stands still: lower thirds, tickers, boxes of captions.

A plate of opacity a and colour c makes of the scene s the picture p = k · s + m, with k = 1 - a and m = a · c. So what is within
its sides is k times what is beyond them, plus m: one k for red, green and blue and one m for each, on all sides. Of the rows
above a line of text and of those below it, in the columns of the text, the pair is taken across which this explains most of the
change. The plate goes on to the left and to the right as long as it explains more there than that nothing changes, and then the
rows are chosen again, its upright sides being heard, too. It is a plate if k and m explain the sides well, and if the scene's
own texture shows through: a board in the scene has one colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image
from longtake.filters.overlaid_text import LINE
from longtake.filters.plates import ABOVE, Sides
from longtake.filters.text_boxes import Boxes
from longtake.filters.translucent import LARGE, best_end, mean_of

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float64]
Pair = tuple[Field, Field]  # Levels beyond a side and within it, RGB [..., 3].

ALONG = 5  # Px along a side over which levels are averaged.
BESIDE = 2  # Px from a side to what is compared, on both sides of it.
BORDER = 3  # Px from the frame's border within which no side is seen.
K = (0.2, 0.85)  # The least and the largest k.
NOISE = 2.0  # Grey levels that coding adds.
# Logarithm of how much (in squared levels) changes across the upper and the lower side, each, as a multiple of what k and m leave
# unexplained.
SURE = 0.8
SHOWS = 1.3  # How much is unexplained if the plate has one colour only, as a multiple of what k and m leave.


@dataclass(frozen=True, slots=True)
class _Fit:
    """The rows, k and m [3] of a plate. sure, shows: see SURE and SHOWS."""

    top: int
    bottom: int
    k: float
    m: Field
    sure: float
    shows: float


def seen_through(pictures: Sequence[Image], boxes: Sequence[Boxes]) -> Mask:
    """What is under translucent plates in most keyframes of a scene that stands still: bool [h, w].

    pictures: all frames of a clip, RGB uint8 [h, w, 3], of a long side of 480 at most. boxes: of lines of text in each keyframe,
    int32 [n, 4, 2], in px of the pictures.
    """
    import cv2

    if 2 * sum(len(found) > 0 for found in boxes) <= len(boxes):
        return np.zeros(pictures[0].shape[:2], np.bool_)
    mean = mean_of(pictures)
    level, upright = (cv2.blur(mean, size).astype(np.float64) for size in ((ALONG, 1), (1, ALONG)))
    votes = np.zeros(mean.shape[:2], np.int64)
    for found in boxes:
        mask = np.zeros(mean.shape[:2], np.bool_)
        lines = [_sides(box, *mean.shape[:2]) for box in found]
        for index, line in enumerate(lines):
            plate = _plate(level, upright, line, lines[:index] + lines[index + 1 :])
            if plate is not None:
                mask[plate[0] : plate[1], plate[2] : plate[3]] = True
        votes += mask
    return 2 * votes > len(boxes)


def _sides(box: npt.NDArray[np.int32], height: int, width: int) -> Sides:
    (left, top), (right, bottom) = np.maximum(box.min(axis=0), 0), np.minimum(box.max(axis=0) + 1, (width, height))
    return int(top), int(bottom), int(left), int(right)


def _plate(level: Field, upright: Field, line: Sides, others: Sequence[Sides]) -> Sides | None:
    """The plate under a line of text, if there is one. level, upright: the mean averaged along rows and along columns [h, w, 3].
    others: the other lines."""
    height, width, _ = level.shape
    top, bottom, left, right = line
    if bottom - top > LARGE * min(height, width) or right - left < LINE * (bottom - top):
        return None
    tops, bottoms = _rows(line, others, height)
    if not len(tops) or not len(bottoms):
        return None
    fit = _fitted(level[:, left:right], tops, bottoms, [])
    gain = np.zeros(width)
    for beyond, within in _across(level, fit.top, fit.bottom):
        gain += (np.abs(within - beyond) - np.abs(within - fit.k * beyond - fit.m)).sum(axis=-1)
    start, stop = left - best_end(gain[:left][::-1]), right + best_end(gain[right:])
    start, stop = start if start > BORDER else 0, stop if stop < width - BORDER else width
    fit = _fitted(level[:, start:stop], tops, bottoms, _across(upright.swapaxes(0, 1), start, stop))
    return (fit.top, fit.bottom, start, stop) if fit.sure >= SURE and fit.shows >= SHOWS else None


def _rows(line: Sides, others: Sequence[Sides], height: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows at which a plate may begin and end: none that other lines are at, and the frame's border where it is near."""
    top, bottom, left, right = line
    reach = round(ABOVE * (bottom - top))
    rows = np.arange(height + 1)
    free = (rows == 0) | (rows == height) | ((rows > BORDER) & (rows < height - BORDER))
    for first, last, start, stop in others:
        if start < right and stop > left:
            free &= (rows < first - 1) | (rows > last + 1)
    return rows[free & (rows >= top - reach) & (rows <= top)], rows[free & (rows >= bottom) & (rows <= bottom + reach)]


def _across(picture: Field, first: int, last: int) -> list[Pair]:
    """What is beyond and within the first and the last row [w, 3] of a plate, where they are no border."""
    pairs = ((first, first - BESIDE, first + BESIDE - 1), (last, last + BESIDE - 1, last - BESIDE))
    return [(picture[beyond], picture[within]) for side, beyond, within in pairs if 0 < side < len(picture)]


def _fitted(
    level: Field, tops: npt.NDArray[np.int64], bottoms: npt.NDArray[np.int64], uprights: Sequence[Pair]
) -> _Fit:
    """The best of the rows at which a plate may begin and end. level: columns of the plate; uprights: along all rows of its
    other sides, [h, 3] each."""
    above = _sums(level[np.maximum(tops - BESIDE, 0)], level[np.minimum(tops + BESIDE, len(level)) - 1]).sum(axis=2)
    below = _sums(level[np.minimum(bottoms + BESIDE, len(level)) - 1], level[bottoms - BESIDE]).sum(axis=2)
    parts = [(above * (tops > 0)[:, None])[:, :, None], (below * (bottoms < len(level))[:, None])[:, None]]
    corner = (bottoms - tops[:, None]) // 4  # It may be round.
    for pair in uprights:
        sums = np.cumsum(np.pad(_sums(*pair), ((0, 0), (1, 0), (0, 0))), axis=1)
        parts.append(sums[:, bottoms - corner] - sums[:, tops[:, None] + corner])
    n, o, i, oo, oi, ii = sum(parts[1:], parts[0])
    n = np.maximum(n, 1)
    varies, together, own = ((oo - o * o / n).sum(-1), (oi - o * i / n).sum(-1), (ii - i * i / n).sum(-1))
    k = np.clip(together / np.maximum(varies, 1e-9), *K)
    m = (i - k[..., None] * o) / n
    logs = [np.log(_change(part, 1.0, np.zeros(3)) / _change(part, k[..., None], m)) for part in parts]
    evidence = np.asarray(sum(part[0, ..., 0] * log for part, log in zip(parts, logs, strict=True)))
    at = np.unravel_index(int(np.argmax(evidence)), k.shape)
    top, bottom = int(tops[at[0]]), int(bottoms[at[1]])
    sure = [float(log[at]) for log, inside in zip(logs, (top > 0, bottom < len(level)), strict=False) if inside]
    shows = own[at] / (own - 2 * k * together + k * k * varies)[at]
    return _Fit(top, bottom, float(k[at]), m[at], min(sure, default=0.0), float(shows))


def _sums(beyond: Field, within: Field) -> Field:
    """What a fit to pairs of levels [..., 3] needs of them: float64 [6, ..., 3]."""
    return np.stack([np.ones_like(beyond), beyond, within, beyond * beyond, beyond * within, within * within])


def _change(sums: Field, k: Field | float, m: Field) -> Field:
    """The squared change of which k and m leave so much unexplained, and the noise of coding."""
    n, o, i, oo, oi, ii = sums
    rest = ii - 2 * k * oi + k * k * oo - 2 * m * (i - k * o) + n * (m * m + NOISE**2)
    return np.asarray(np.maximum(rest.sum(axis=-1), 1e-6))
