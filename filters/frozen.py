"""Share of the clip in which the picture does not change: frozen stretches, and frames that repeat the one before.

Formula: the seconds without change over the seconds looked at. The scan's thumbnails are compared, in grey: two of them differ
by the mean difference within the block of 8×8 pixels that differs most, so that something small that moves anywhere is a change.
The time between two looks is without change if the second differs from the first by at most 0.2 grey levels, or by at most 1.5
and 3 % of the largest such step within half a second around it (it repeats the frame); or if it lies in a stretch of at least
half a second none of whose looks differs from the first of the stretch by more than 1.5 grey levels (a freeze, under the noise
that encoders add). So is the time in which a film has no new frame for half a second or longer, since the one before stands
there (recordings of a screen). A picture that creeps, as in a slow zoom over a photograph, differs from its first look within
half a second, so that it is not frozen. Unit: share, from 0 to 1; a slide show has nearly 1. Detail: the
share of each of five equal parts of the clip that was looked at. No gate in the paper, and none in the recipes that ship: a film
of a still scene by a fixed camera may have a high share and be whole.

Protocol: `thumbs/block8,repeat0.2or3%,hold1.5for0.5s,gaps/mean`: thumbnails of at least 128 px, at most 16 a second; where
reference frames are fewer, those. In a long clip of a list only the groups of pictures around its sample are looked at.

Cost: 0.03 ms per look, so 8 ms per clip of 15 s. Looks are compared as they come, and no picture is kept.

Known to go wrong: repeats between looks are not seen (a film of 12 pictures a second, each shown twice at 24, has a new one at
nearly every look); grain that is laid over a frozen picture hides the freeze, and so does a clock or a ticker over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Changes, Filter, Image, MeasureError, Needs, Sample

BLOCK = 8  # Px of a thumbnail. Smaller blocks see noise, larger ones miss a mouth that speaks.
# Grey levels. A frame that is shown again differs by at most so much in a good encoding; the noise of a sensor is
# above.
REPEAT = 0.2
# Share of the steps around it. In a worse encoding a repeated frame differs by up to a grey level, where the film moves
# on by 40 to 100 at once: 1 %. The steps of a steady pan or zoom, seen unevenly, are never under a fifth of each other.
REPEAT_SHARE = 0.03
# Grey levels, and seconds. Re-encoding changes a still picture by less over a group of pictures; a creeping zoom of 1 %
# a second changes it by more within the half second, and cameras hold still for less.
HOLD = 1.5
HOLD_SECONDS = 0.5
PARTS = 5
GRID = 16  # Fields to a side of the picture. A look is remembered by their means, for `repeats`.
_CLOCK = 1e-6  # Seconds. Times that differ by less are equal, up to the noise of adding floats.


class ChangeMeter:
    """Pushed a thumbnail for each look, in order; remembers a few numbers of each look, for as long as a clip may need them."""

    def __init__(self, stood: Callable[[float, float], float] = lambda start, end: 0.0) -> None:
        """stood: how long the film had no new frame between two moments, all in seconds."""
        self._stood = stood
        self._before: tuple[float, Image] | None = None
        # The time and the picture at which the stretch without a change began.
        self._first: tuple[float, Image] | None = None
        self._rows: list[tuple[float, float, float, float]] = []  # The columns of Changes.
        self._grids: list[npt.NDArray[np.float16]] = []

    def push(self, time: float, thumb: Image) -> None:
        """The next look. thumb: uint8 [h, w, 3] BGR or [h, w] grey, of one size with those before, or a new film begins."""
        import cv2

        image = np.asarray(cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY) if thumb.ndim == 3 else thumb, np.uint8)
        if self._before is None or self._first is None or self._before[1].shape != image.shape:
            self._before = self._first = time, image
            return
        step = most_changed(self._before[1], image)
        left = step if self._first[0] == self._before[0] else most_changed(self._first[1], image)
        if step > HOLD or left > HOLD:
            self._first = time, image
        self._rows.append((self._before[0], time, step, self._first[0]))
        self._grids.append(grid_of(image))
        self._before = time, image

    def skip(self) -> None:
        """The next look does not follow the one before: the time between is not looked at."""
        self._before = self._first = None

    def within(self, start: float, end: float) -> Changes:
        """What was seen between two moments, seconds. Of looks on both sides of a moment nothing is taken, unless the film had no
        new frame between them: then the picture of the first stood there."""
        rows: list[tuple[float, float, float, float, float]] = []
        grids: list[npt.NDArray[np.float16]] = []
        for i, (before, now, step, since) in enumerate(self._rows):
            first, last = max(before, start), min(now, end)
            if first >= last:
                continue
            stood = self._stood(first, last)
            inside = before >= start - _CLOCK and now < end + _CLOCK
            if inside or stood > 0:
                ends_behind = now >= end + _CLOCK
                rows.append((first, last, 0.0 if ends_behind else step, since, stood))
                grids.append(self._grids[i - 1 if ends_behind and i else i])
        table = np.array(rows, np.float64).reshape(-1, 5)
        looked = np.array(grids, np.float16).reshape(-1, GRID * GRID)
        return Changes(table[:, 0], table[:, 1], table[:, 2], table[:, 3], looked, table[:, 4])

    def drop_before(self, time: float) -> None:
        """Forget what was seen before `time`."""
        gone = next((i for i, row in enumerate(self._rows) if row[1] > time), len(self._rows))
        del self._rows[:gone], self._grids[:gone]


def grid_of(image: Image) -> npt.NDArray[np.float16]:
    """Mean grey levels of GRID × GRID equal fields of a grey image uint8 [h, w], row by row, float16 [GRID²]."""
    import cv2

    return np.asarray(
        cv2.resize(image.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA), np.float16
    ).ravel()


def most_changed(a: Image, b: Image) -> float:
    """Mean difference of two grey images uint8 [h, w] in the block of 8×8 px in which they differ most, grey levels."""
    import cv2

    apart = cv2.absdiff(a, b)
    height, width = (max(1, side // BLOCK) for side in a.shape)
    # The resize spreads rows and columns beyond the last whole block over all blocks.
    blocks = cv2.resize(apart.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return float(blocks.max())


def unchanged(changes: Changes) -> npt.NDArray[np.bool_]:
    """Which of the times between two looks are without change [n]."""
    low = np.searchsorted(changes.ends, changes.ends - HOLD_SECONDS)
    high = np.searchsorted(changes.ends, changes.ends + HOLD_SECONDS, side="right")
    around = np.array([changes.steps[a:b].max() for a, b in zip(low, high, strict=True)])
    still = changes.steps <= np.maximum(REPEAT, np.minimum(HOLD, REPEAT_SHARE * around))
    held = changes.since <= changes.starts + _CLOCK  # The look still shows the picture with which the stretch began.
    for first in np.unique(changes.since[held]):
        stretch = held & (changes.since == first)
        if changes.ends[stretch].max() - max(first, changes.starts[0]) >= HOLD_SECONDS - _CLOCK:
            still |= stretch
    return np.asarray(still, np.bool_)


class Frozen(Filter[Sample]):
    """Share of the clip without change. Detail: one value per fifth of it. Raises MeasureError for a sample that the scan did
    not bring its looks with."""

    name: ClassVar[str] = "frozen"
    backend: ClassVar[str] = "thumbs"
    unit: ClassVar[str] = "share (0-1)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 0.5

    @property
    def method(self) -> str:
        return f"block{BLOCK},repeat{REPEAT:g}or{100 * REPEAT_SHARE:g}%,hold{HOLD:g}for{HOLD_SECONDS:g}s,gaps"

    def measure_one(self, item: Sample) -> Sequence[float]:
        changes = item.changes
        if changes is None or not len(changes.ends):
            raise MeasureError("frozen stretches are seen in the scan only, and this clip brings no two looks")
        seconds = changes.ends - changes.starts
        without = np.where(unchanged(changes), seconds, np.minimum(changes.stood, seconds))
        still = np.concatenate([[0.0], np.cumsum(without)])
        looked = np.concatenate([[0.0], np.cumsum(seconds)])
        edges = np.linspace(0.0, looked[-1], PARTS + 1)
        return [float(part) for part in np.diff(np.interp(edges, looked, still)) / (looked[-1] / PARTS)]
