"""Rectangles over a scene that stands still: cards, boxes of subtitles, plates, opaque or translucent, and drawn frames.

A camera sees no line that is level or upright to a twentieth of a pixel: it leans by a tenth of a degree at least, and the lens
bends it. What an editor draws is exact. In the mean of all frames (long side 480) a line is looked for at which the picture jumps
the same way over 15 px, at the same place, to a fraction of a px, as 7 px further on. Of such lines rectangles are made, as of
the seams of panels.py. Bands from border to border are taken from those seams themselves: their sides are long enough to be
measured where parts of them hardly show, as each part counts for as much as the picture jumps there.

Filmed screens and windows may have such outlines. What is drawn over a scene is in one relation to it as well: the picture within
is the one beyond it, dimmed and shifted, p = k · s + m, with one k (0 where it is opaque) and one m for the whole outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longtake.filters.panels import LARGEST, Panel, Panels, panels

Mask = npt.NDArray[np.bool_]
Field = npt.NDArray[np.float32]

ALONG = 15  # Px along a line over which its jump is averaged.
LEAST = 3.0  # Grey levels: the jump of a line, over 3 px across it.
ONE_WAY = 0.7  # Share of the steps along a line that go one way, by their size.
STANDS_OUT = 1.5  # Factor by which its jump is larger than steps 3 px beside it.
EXACT = 0.15  # Px by which the place of a line may change over FURTHER px.
FURTHER = 7  # Px.
SHORTEST = 0.05  # Share of the frame's short side: a side of a box for one line of text.
MOST = 48  # Lines in one direction: a level box has short sides, and lines of the scene are longer.
SMALLEST = 0.015  # Share of the frame. On real film, what looks like a smaller one was a filmed screen, or a label.
COVERED = 0.85  # Share of its sides that lies on exact lines.
SIDES = 3  # Sides that must lie within the frame.
TRIED = 100  # Rectangles that are looked at: those whose sides are best covered.
BEYOND = 3  # Px from the line to what is beyond the rectangle, and one less to what is within.
SPREAD = (
    0.12  # Px by which the places of a side in its parts may scatter; one side may be invisible for want of contrast.
)
PART = 12  # Px of a side whose places are compared.
SHARES = tuple(k / 10 for k in range(10))  # The k that are tried.
FITS = 0.8  # Share of the outline that p = k · s + m must explain.
OFF = 0.35  # Share of the jump by which it may be off there.
JUMP = 6.0  # Grey levels between what is within and what is beyond, in the median. A line of a grid has none.
AGREES = 0.25  # OFF for a px that speaks for a rectangle; one that is off by more speaks against it, and counts twice.
FLAT = 12.0  # Grey levels by which an opaque card may differ from its colour.
CARD = 0.4  # Share of an opaque card that has its colour: letters take the rest. Less, and it is a drawn frame.
LINE = 8  # Px: the thickest line of a drawn frame.
OVERLAP = 0.3  # Share of the smaller of two rectangles, above which they are readings of one.


@dataclass(frozen=True, slots=True)
class Blend:
    """How what is within a rectangle follows from what is beyond it: k · s + m. agreeing: px of the outline for it, less twice
    those against."""

    k: float
    m: float
    agreeing: int


def rectangles(mean: Field, seamed: Panels) -> Mask:
    """What is under exact rectangles in the mean float32 [h, w] of all frames of a scene that stands still: bool [h, w].

    seamed: rectangles on seams, of which the bands from border to border are looked at, too: two sides are long enough to tell.
    """
    import cv2

    height, width = mean.shape
    upright, level = exact_lines(mean), exact_lines(np.asarray(cv2.transpose(mean), np.float32))
    found = panels((upright, level), shortest=SHORTEST, most=MOST)
    inner = found.inner(height, width)
    fits = (inner >= SIDES) & (found.covered >= COVERED)
    fits &= (found.areas >= SMALLEST * mean.size) & (found.areas <= LARGEST * mean.size)
    order = np.flatnonzero(fits)
    order = order[np.lexsort((-found.covered[order], -inner[order]))][:TRIED]
    bands = seamed.those(seamed.across(height, width) & (seamed.areas <= LARGEST * mean.size))
    tried = (*found.those(order), *bands)
    blends = [(panel, blend) for panel in tried if (blend := _blend(mean, panel)) is not None]
    mask = np.zeros(mean.shape, np.bool_)
    kept: list[Panel] = []
    # Bands come first: letters on them may divide them.
    for panel, blend in sorted(blends, key=lambda pair: (pair[0].inner(height, width) > 2, -pair[1].agreeing)):
        if all(panel.overlap(other) <= OVERLAP for other in kept):
            kept.append(panel)
            mask[panel.window] |= _drawn(mean[panel.window], blend)
    return mask


def exact_lines(mean: Field) -> Mask:
    """Pixels to the right of exact upright lines: bool [h, w]. mean: float32 [h, w]."""
    import cv2

    steps = np.zeros_like(mean)
    np.subtract(mean[:, 1:], mean[:, :-1], out=steps[:, 1:])
    jump = np.abs(_along(steps))
    before, after = np.roll(jump, 1, axis=1), np.roll(jump, -1, axis=1)
    across = jump + before + after
    on = (jump >= before) & (jump > after) & (across > LEAST) & (jump > ONE_WAY * _along(np.abs(steps)))
    on &= jump > STANDS_OUT * cv2.max(np.roll(jump, BEYOND, axis=1), np.roll(jump, -BEYOND, axis=1))
    on[:, :BEYOND] = on[:, -BEYOND:] = False
    y, x = np.nonzero(on)
    place = np.full(mean.shape, np.float32(-9))
    place[y, x] = x + ((after - before)[y, x] / across[y, x])
    exact = np.zeros(len(y), np.bool_)
    for further in (FURTHER, -FURTHER):
        there = np.clip(y + further, 0, len(mean) - 1)
        for aside in (-1, 0, 1):
            exact |= (np.abs(place[there, x + aside] - place[y, x]) < EXACT) & (there == y + further)
    on[y, x] = exact
    return np.asarray(on)


def _along(field: Field) -> Field:
    import cv2

    return np.asarray(cv2.blur(field, (1, ALONG), borderType=cv2.BORDER_REPLICATE), np.float32)


def _blend(mean: Field, panel: Panel) -> Blend | None:
    """The relation of what is within a rectangle to what is beyond it, if there is one on exact sides."""
    read = [side for side in _sides(mean, panel) if side is not None]
    needed = min(SIDES, panel.inner(*mean.shape))
    if len(read) < needed or sorted(spread for _, _, spread in read)[needed - 1] > SPREAD:
        return None
    beyond, within = (np.concatenate([side[n] for side in read]) for n in (0, 1))
    jump = float(np.median(np.abs(within - beyond)))
    if jump <= JUMP:
        return None
    rests = within - np.array(SHARES, np.float32)[:, None] * beyond
    middles = np.median(rests, axis=1)
    offs = np.quantile(np.abs(rests - middles[:, None]), FITS, axis=1)
    best = int(np.argmin(offs))
    if offs[best] > OFF * jump:
        return None
    k, m = SHARES[best], float(middles[best])
    agree = int((np.abs(within - k * beyond - m) < max(LEAST, AGREES * jump)).sum())
    return Blend(k, m, agree - 2 * (len(within) - agree))


def _sides(mean: Field, panel: Panel) -> list[tuple[Field, Field, float] | None]:
    """Of each side within the frame: the levels beyond it and within, float32 [n], and how far its places scatter, in px."""
    height, width = mean.shape
    rows, columns = panel.window
    views = (
        (mean[rows], panel.left),
        (mean[rows, ::-1], width - panel.right),
        (mean.T[columns], panel.top),
        (mean.T[columns, ::-1], height - panel.bottom),
    )
    return [_side(strip, place) for strip, place in views if place > 0]


def _side(strip: Field, place: int) -> tuple[Field, Field, float] | None:
    """One side: see `_sides`. strip: float32 [n, w]; place: the first column within."""
    strip = strip[2:-2]  # Corners may be round.
    near = 2 * BEYOND
    if not near < place < strip.shape[1] - near:
        return None
    steps = np.abs(np.diff(strip[:, place - 3 : place + 3], axis=1)).mean(axis=0)
    place += int(np.argmax(steps)) - 2
    across = np.diff(strip[:, place - 2 : place + 2], axis=1)
    parts = [part.mean(axis=0) for part in np.array_split(across, max(3, len(strip) // PART))]
    jumps = np.abs(np.stack(parts))
    # A part counts for as much as the picture jumps there.
    weights = np.maximum(jumps.sum(axis=1), 1e-6)
    places = (jumps * np.arange(3)).sum(axis=1) / weights
    off = places - np.average(places, weights=weights)
    spread = float(np.sqrt(np.average(np.square(off), weights=weights)))
    return strip[:, place - BEYOND], strip[:, place + BEYOND - 1], spread


def _drawn(inside: Field, blend: Blend) -> Mask:
    """What of a rectangle is drawn: all of it, or the line of a frame. inside: the mean within it, float32 [h, w]."""
    own = np.abs(inside - blend.m) <= FLAT
    if blend.k > 0 or own.mean() >= CARD:
        return np.ones(inside.shape, np.bool_)
    line = np.ones(inside.shape, np.bool_)
    line[LINE:-LINE, LINE:-LINE] = False
    return np.asarray(line & own)
