"""How the camera moves over a clip: one class of seven, so that static or shaking film can be left out and moves can be
counted.

Formula: the global motion of each pair of pictures of the clip, half a second apart (`filters/global_motion.py`), is named by
its strongest part: static (under 0.012 long sides per second), pan, tilt, zoom, roll, or orbit-like: the middle of the
picture moves against its sides or stands still while they move, as when a camera circles or follows something. The class of
the clip is the one that most pairs have. But where motions turn round again and again, and what they undo is larger than what
remains, the camera is handheld. Unit: a class, 0 static, 1 pan, 2 tilt, 3 zoom, 4 roll, 5 orbit-like, 6 handheld. Range: 0 to
6; `camera: '>= 1'` as a gate leaves out static film, `camera: '<= 5'` handheld film. Where fewer than half of the pairs tell
how the camera moves, it is not known. `camera_confidence` is the share of all pairs that have the clip's class (for handheld:
that have a class at all), 0 to 1. Source: this project's own. Protocol: `global/15pairs,agreed/16px,similarity@480,v2/mean`,
one value per clip. Cost: as of `jitter`, shared with it.

Known to go wrong: a camera that travels sideways is a pan; water, crowds and leaves that fill the picture are taken for the
camera's motion or are not known; a clip that pans first and zooms then has the class of its longer part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from longtake.filters.base import Filter, MeasureError, Needs, Sample, Score
from longtake.filters.flow_dis import LEAST_PAIRS, WORK_SIDE
from longtake.filters.global_motion import STEP, Fit, global_motion

CLASSES = ("static", "pan", "tilt", "zoom", "roll", "orbit-like", "handheld")
STATIC, PAN, TILT, ZOOM, ROLL, ORBIT, HANDHELD = range(7)

STILL = 0.012  # Long sides per second. The noise of the fit on a tripod's picture is a fifth of it.
MIDDLE = 0.1  # Long sides. The middle of the picture reaches this far around its centre, and its sides twice as far.
AGAINST = 0.25  # Share. A middle that moves by less than this share of its sides stands still, or moves the other way.
OWN_MOTION = 0.04  # Long sides per second. A point that is this far from the camera's own motion moves by itself.
UNCLEAR_SHARE = 0.6  # Share of the picture. If more of it moves by itself, the fitted motion need not be the camera's.
KNOWN_SHARE = 0.5  # Share of the pairs that must have a class.


def class_of(fit: Fit) -> int | None:
    """The class of one pair, never `handheld`; None if it is not known."""
    if not fit.seen:
        return None
    if _turns_about_something(fit):
        return ORBIT
    own = float(fit.weight[fit.residual > max(OWN_MOTION, 0.35 * fit.speed)].sum() / fit.weight.sum())
    if own > UNCLEAR_SHARE:
        return None
    if fit.speed < STILL:
        return STATIC
    parts = abs(fit.shift_x), abs(fit.shift_y), abs(fit.grow) * fit.reach, abs(fit.turn) * fit.reach
    return (PAN, TILT, ZOOM, ROLL)[int(np.argmax(parts))]


def camera_of(fits: Sequence[Fit]) -> tuple[int, float] | None:
    """The class of a clip and the share of its pairs that have it; None if it is not known."""
    classes = [class_of(fit) for fit in fits]
    told = [number for number in classes if number is not None]
    if len(told) < KNOWN_SHARE * len(fits) or not told:
        return None
    if _to_and_fro([fit for fit, number in zip(fits, classes, strict=True) if number is not None]):
        return HANDHELD, len(told) / len(fits)
    most, count = Counter(told).most_common(1)[0]
    return most, count / len(fits)


def _turns_about_something(fit: Fit) -> bool:
    """Whether the middle stands still, or moves against its two sides, which move alike."""
    middle = np.hypot(fit.px, fit.py) < MIDDLE
    speeds = [_mean(fit, mask) for mask in (fit.px <= -2 * MIDDLE, middle, fit.px >= 2 * MIDDLE)]
    if any(math.isnan(speed) for speed in speeds):
        return False
    left, centre, right = speeds
    if left * right <= 0 or min(abs(left), abs(right)) < 2 * STILL:
        return False
    return centre * left < AGAINST * min(abs(left), abs(right)) * abs(left)


def _mean(fit: Fit, mask: np.ndarray) -> float:
    """How fast what is under `mask` moves to the right; nan where it has too little texture."""
    weight = fit.weight * mask
    total = float(weight.sum())
    return float((weight * fit.u).sum() / total) if total > 0.05 * mask.sum() else math.nan


def _to_and_fro(fits: Sequence[Fit]) -> bool:
    """Whether motions mostly undo one another and are no rest of a static camera. An even zoom or turn does not undo itself, and
    small shifts beside it are none of a hand."""
    parts = np.array([(fit.shift_x, fit.shift_y, fit.grow * fit.reach, fit.turn * fit.reach) for fit in fits])
    typical = float(np.median(np.sqrt((parts * parts).sum(axis=1))))
    course = float(np.sqrt((parts.mean(axis=0) ** 2).sum()))
    return len(fits) >= 3 and typical >= STILL / 2 and course < typical / 2


class Camera(Filter[Sample]):
    """The camera's class, 0 to 6. Detail: that one value. Raises MeasureError for a sample without pairs of the pass."""

    name: ClassVar[str] = "camera"
    backend: ClassVar[str] = "global"
    unit: ClassVar[str] = "class (0-6)"
    needs: ClassVar[Needs] = Needs.SAMPLE
    cost: ClassVar[float] = 100.0
    version: ClassVar[int] = 2

    at: ClassVar[int] = 0  # The position of the score in the result of `camera_of`.

    @property
    def method(self) -> str:
        return f"{LEAST_PAIRS}pairs,agreed/{STEP}px,similarity@{WORK_SIDE}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        return [self._of(item) for item in items]

    def _of(self, item: Sample) -> Score | MeasureError:
        if item.motion is None:
            return MeasureError("the pairs that the camera is judged by are seen in the scan only")
        try:
            known = camera_of(global_motion(item.motion))
        except MeasureError as error:
            return error
        return self.reduced([known[self.at]]) if known else Score(math.nan, (0.0,))


class CameraConfidence(Camera):
    """Share of the clip's pairs that have its camera's class. Detail: that one value."""

    name: ClassVar[str] = "camera_confidence"
    unit: ClassVar[str] = "share (0-1)"
    at: ClassVar[int] = 1
