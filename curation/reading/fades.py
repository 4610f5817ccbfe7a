"""Fades: pictures that come up out of black or white, or go down into it, however long it stood there.

The shot network sees two seconds. It tells a dip to black between two takes, but not a take that comes up after a long stretch
of black, nor where a slow fade begins. Both are plain to see: each picture is the next one, only paler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from longtake.curation.reading.shot_network import REACH

_BLACK, _WHITE = 8.0, 247.0  # Grey levels. The middle of a picture of black is darker, of one of white lighter.
# Pictures. What becomes visible within fewer is a light that goes on, or a cut.
_LEAST = 4
_STEP = 2  # Pictures. A picture is compared with the one so far after it.
# A share of the mean speed so far. A fade is over where the picture grows no faster than this.
_SLOW = 0.3
# A share of the most that was to be seen so far. A fade never goes back; in a strobe of black the picture is black again.
_BACK = 0.5
# Correlation of a picture with the one `_STEP` later. In a fade these are one picture; in a pan they are not.
_ALIKE = 0.8
_FAINT = 2.0  # Grey levels. A picture that differs less from black is too faint to be compared.
# Grey levels, and shares of the picture that differ by more. In a picture of black there may be a title, and titles come and go
# over black; in a fade most of the picture becomes visible.
_VISIBLE, _LITTLE, _MOST = 3.0, 0.1, 0.35
LONGEST = 6.0  # Seconds. No fade that lasts longer is followed.

Matrix = npt.NDArray[np.float32]


class Fades:
    """Pushed some small pictures after others, it tells which ones belong to a fade."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._pictures: list[npt.NDArray[np.uint8]] = []
        self._plain: list[bool] = []
        self._next = 0  # The number of the first picture in the lists that had no verdict.

    def push(self, times: npt.NDArray[np.float64], pictures: npt.NDArray[np.uint8]) -> None:
        """times: seconds, float64 [n]. pictures: uint8 [n, h, w], grey, a few hundred pixels each."""
        self._times += times.tolist()
        self._pictures += list(pictures)
        self._plain += plain(pictures).tolist()

    def verdicts(self, count: int) -> npt.NDArray[np.bool_]:
        """Whether the next `count` pictures belong to a fade, bool [count]. A verdict rests on `LONGEST` seconds before the
        picture and, as that of the network, on `REACH` pictures after it."""
        first, until = self._next, self._next + count
        found = np.zeros(count, bool)
        if any(self._plain):
            pictures = np.stack(self._pictures).reshape(len(self._times), -1).astype(np.float32)
            found = fading(np.array(self._times), pictures, np.array(self._plain))[first:until]
        last = self._times[until - 1]
        gone = 0
        while self._times[gone] < last - LONGEST - 1:
            gone += 1
        del self._times[:gone], self._pictures[:gone], self._plain[:gone]
        self._next = until - gone
        return found


def plain(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which pictures, uint8 [n, h, w], are black or white all over, but for a title: bool [n]."""
    little = _LITTLE * pictures[0].size
    dark, light = pictures <= _BLACK + _VISIBLE, pictures >= _WHITE - _VISIBLE
    black, white = (np.count_nonzero(~alike, axis=(1, 2)) < little for alike in (dark, light))
    return np.asarray(black | white)


def fading(times: npt.NDArray[np.float64], pictures: Matrix, plain: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """times: seconds, float64 [n]. pictures: float32 [n, pixels], grey levels. plain: which of them are, bool [n]. Which of them
    belong to a fade, bool [n]."""
    found = np.zeros(len(times), bool)
    for start in np.nonzero(plain[:-1] & ~plain[1:])[0].tolist():
        end, visible = _risen(times, pictures, start)
        # Only what comes within REACH pictures of a picture is known when its verdict is asked for.
        for i in range(start + 1, end):
            found[i] |= visible(min(end, i + REACH))
    back, turned, last = times[-1] - times[::-1], pictures[::-1], len(times) - 1
    for start in np.nonzero(plain[1:] & ~plain[:-1])[0].tolist():
        end, visible = _risen(back, turned, last - start - 1)
        if visible(end):
            found[max(last - end + 1, start + 1 - REACH) : start + 1] = True
    return found


def _risen(times: npt.NDArray[np.float64], pictures: Matrix, start: int) -> tuple[int, Callable[[int], bool]]:
    """The first picture after the plain one at `start` that grows no more, and whether the one of a number is visible enough for
    the pictures up to it to be a fade."""
    ground, last = float(np.median(pictures[start])), len(times) - 1

    def seen(i: int) -> float:
        return float(np.abs(pictures[i] - ground).mean())

    def visible(i: int) -> bool:
        return i - start >= _LEAST and float((np.abs(pictures[i] - ground) > _VISIBLE).mean()) >= _MOST

    i, highest = start + 1, 0.0
    while i < last and times[i] - times[start] < LONGEST:
        highest = max(highest, seen(i))
        if seen(i) < _BACK * highest:
            break
        later = min(i + _STEP, last)
        speed = seen(i) / (times[i] - times[start])
        grows = seen(later) - seen(i) >= _SLOW * speed * (times[later] - times[i])
        if i > start + 1 and not (grows and (seen(i) < _FAINT or _alike(pictures[i], pictures[later]))):
            break
        i += 1
    return i, visible


def _alike(a: Matrix, b: Matrix) -> bool:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b) >= _ALIKE * float(np.sqrt((a @ a) * (b @ b)) + 1e-6)
