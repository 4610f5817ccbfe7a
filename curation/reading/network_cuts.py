"""Our own detector of cuts: two networks on how like the pictures are, and rules about what they cannot tell."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from longtake.curation.reading import camera_moves, passers
from longtake.curation.reading.bars import without_bars
from longtake.curation.reading.camera_moves import moves_on
from longtake.curation.reading.cuts import Cut
from longtake.curation.reading.fades import LONGEST, Fades, plain
from longtake.curation.reading.jerks import jerks
from longtake.curation.reading.likeness import REMEMBERED, Looks, compare, look_at
from longtake.curation.reading.passers import passes
from longtake.curation.reading.shot_network import REACH, Matrix, judge
from longtake.curation.reading.stills import (
    NOISE,
    Grey,
    again,
    blinks,
    changes,
    comes_back,
    exposed,
    goes_on,
    parted,
    relit,
    still_changes,
)
from longtake.filters.base import Image

# Pictures. So many before a stretch are kept, for the questions that are asked where it ends.
_BESIDE = max(camera_moves.BESIDE, passers.BESIDE)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Probabilities above which there is a cut. hard: that of a hard cut. transition: that of a transition, by both networks;
    alone: by the first one alone, where the scene before stands still and nothing of it is behind. low: down to this a
    transition reaches."""

    hard: float = 0.55
    transition: float = 0.65
    alone: float = 0.6
    low: float = 0.2


@dataclass(frozen=True, slots=True)
class _Said:
    """What the networks and the rules say of a picture. cut: the probability of a hard cut before it. one, other: that of a
    transition, by each network. changed: by a rule there is a cut before it. fades: it belongs to a fade. plain: it is black or
    white."""

    cut: float
    one: float
    other: float
    changed: bool
    fades: bool
    plain: bool


@dataclass(slots=True)
class _Stretch:
    """What is known of the pictures since the last one that is in no transition. before: the time of that one, seconds.
    pictures: itself and every `EACH`th since. surest: the highest probability of a hard cut; likeliest: that of a transition,
    by both networks; alone: by the first one. changed: a rule says that there is a cut. fades, fades_first, fades_last: whether
    one of the pictures, the first and the last one belong to a fade, whose place is known. still: nothing moves
    before it. endless: it lasts too long for a transition, or follows, without a rest, what does."""

    EACH: ClassVar[int] = 4
    # Mean correlation of blocks. No picture is found better in another take (`stills.again`).
    ELSEWHERE: ClassVar[float] = 0.67
    limits: _Limits
    before: float
    pictures: list[Grey] = field(default_factory=list)
    count: int = 0
    surest: float = 0.0
    likeliest: float = 0.0
    alone: float = 0.0
    changed: bool = False
    fades: bool = False
    fades_first: bool = False
    fades_last: bool = False
    still: bool = False
    endless: bool = False

    @property
    def ruled(self) -> bool:
        """Whether a rule says that there is a cut."""
        return self.fades or self.changed

    @property
    def heard(self) -> bool:
        """Whether there may be a cut, by the first network or by what has changed."""
        return self.changed or max(self.alone, self.surest) > self.limits.low

    @property
    def likely(self) -> bool:
        """Whether the networks say that there is a cut or a transition."""
        return self.surest > self.limits.hard or self.likeliest > self.limits.transition

    @property
    def suspected(self) -> bool:
        """Whether it has to be found out if there is a cut."""
        return self.likely or self.ruled or (self.still and self.alone > self.limits.alone)

    def hear(self, said: _Said) -> float:
        """Take in what is said of the next picture, and give the probability that it is in a transition."""
        self.fades |= said.fades
        self.changed |= said.changed
        both = said.one if self.fades or said.plain else (said.one + said.other) / 2
        self.surest, self.likeliest = max(self.surest, said.cut), max(self.likeliest, both)
        self.alone = max(self.alone, said.one)
        return max(said.one, both)

    def add(self, picture: Grey, fades: bool) -> None:
        self.count += 1
        self.fades_first |= fades and self.count == 1
        self.fades_last = fades
        if self.count % self.EACH == 0:
            self.pictures.append(picture)

    def is_cut(self, after: Grey, sure: float) -> bool:
        """after: the first picture that is in no transition again. Where the scene goes on behind it, or is there in another
        exposure, the network has to be `sure` of a hard cut; where within a moment it is the same picture under another light,
        there is none. A scene that has moved, and is found again, is in no transition, but may jump within the take: then the
        probability of a hard cut has to be above its limit. What the first network says alone counts where the scene is gone,
        since what only passes uncovers it again. What lasts too long is no transition: a camera that follows a car or flies
        along a road looks like one."""
        if self.ruled or not self.pictures:
            return self.ruled or self.heard
        if self.endless and self.surest <= self.limits.hard:
            return False
        if not self.likely and again(self.pictures[0], after) > self.ELSEWHERE:
            return False
        if self.count < 2 * self.EACH and relit(self.pictures[0], after):
            return False
        if self.surest >= sure:
            return True
        pictures = [*self.pictures, after]
        if goes_on(pictures) or exposed(self.pictures[0], after):
            return False
        return self.surest > self.limits.hard or not comes_back(pictures)


class NetworkCuts:
    """Our own networks on how like the pictures are: hard cuts, jumps within a take, dissolves, wipes, slides and their kin.

    There is a cut where the probability of a hard cut passes 0.55, or that of a transition 0.65 (`threshold` takes their place),
    where a still picture changes (`stills`), and in a fade from or to black or white (`fades`). Where the scene goes on behind
    it, a hard cut needs a probability of `SURE`, and a transition is none. The probability of a transition is the mean of two
    networks. Where the scene before stands still and nothing of it is left, the first one alone will do (0.6); in fades, and
    where the picture is black or white, only the first one is heard. A transition reaches down to a probability of 0.2. Cuts
    that touch are one. Reports some two seconds late. hard: whether to report hard cuts too, or transitions only. since:
    where it begins, seconds.
    """

    SURE = 0.95
    # The mean of the probabilities of a transition. Where each picture is found in the next one, moved, there may be a push, or
    # the camera moves by one picture: 51 of 53 pushes have more, and 15 of 46 such moves.
    PUSH = 0.65
    LEFT = 0.3  # The probability of a cut that is left where the scene goes on.
    # A share of a transition, and seconds. The first and the last pictures of a transition can hardly be seen: an iris or a wipe
    # from a corner has covered one part in twenty after a fifth of its time, a quarter of what is left. SLOPE of its visible
    # length is added on both sides, but at most MOST seconds, a seventh of one that lasts 3 s; half of that where a fade is part
    # of it, and nothing at the fade's own end. A change that takes less than SUDDEN seconds gets no margin.
    SLOPE, MOST, SUDDEN = 0.25, 0.4, 0.2
    BATCH = 16  # Pictures. This number is described and compared at once.
    # Pictures. At least this number is judged at once: another 2 * REACH have to be looked at anew each time.
    AT_ONCE = 48
    # Seconds. Nothing that lasts longer is a transition. Until a doubt ends, the open window is not closed, and its frames stay
    # in memory.
    LONGEST = LONGEST

    def __init__(self, threshold: float | None = None, hard: bool = True, since: float = 0.0) -> None:
        chosen = _Limits()
        if threshold is not None:
            chosen = _Limits(hard=threshold, transition=threshold, alone=threshold, low=min(chosen.low, threshold))
        self._limits, self._hard = chosen, hard
        self._waiting: list[Image] = []  # The pictures that are not described yet.
        # The last pictures that are described, as far as the next ones are compared with them.
        self._looks: Looks | None = None
        self._numbers: list[npt.NDArray[np.float32]] = []
        self._greys: list[Grey] = []
        self._changes: list[float] = []
        self._fades = Fades()
        self._times: list[float] = []
        self._judged = 0  # Pictures among `_times` that have their verdict.
        self._open = _Stretch(self._limits, since)
        # The time of the picture before and that of the picture, in seconds, and the probabilities of a cut and of a transition.
        self._doubts: deque[tuple[float, float, float, float]] = deque()
        self._held: Cut | None = None  # The last cut, while another one may touch it.
        self.settled = since

    def push(self, time: float, thumb: Image) -> list[Cut]:
        self._waiting.append(thumb)
        self._times.append(time)
        if len(self._waiting) < self.BATCH:
            return []
        self._describe()
        if len(self._times) - self._judged < REACH + self.AT_ONCE:
            return []
        return self._apart(self._judge(len(self._times) - REACH), self._open.before - self.MOST)

    def finish(self) -> list[Cut]:
        if self._waiting:
            self._describe()
        cuts = self._judge(len(self._times)) if len(self._times) > self._judged else []
        if self._times:
            cuts += self._ended(self._times[-1], self._greys[-1])
        return self._apart(cuts, math.inf)

    def doubt(self, start: float, end: float) -> float:
        """The highest probability of a cut or a transition among the pictures in [start, end)."""
        highest = 0.0
        for before, time, cut, transition in self._doubts:
            if start <= time < end:
                highest = max(highest, transition, cut if before >= start else 0.0)
        return highest

    def forget(self, time: float) -> None:
        # A cut that is still to come may begin at any picture from `settled` on.
        while self._doubts and self._doubts[0][1] < min(time, self.settled):
            self._doubts.popleft()

    def _describe(self) -> None:
        new = look_at(self._times[-len(self._waiting) :], self._waiting)
        known = self._looks
        looks = new if known is None else known.before(new)
        self._numbers += list(compare(looks, len(looks) - len(new)))
        self._changes += [0.0] * (known is None) + changes(looks.grey[-len(new) - (known is not None) :]).tolist()
        self._greys += list(new.grey)
        self._fades.push(new.times, new.tiny)
        self._looks, self._waiting = looks.since(-REMEMBERED), []

    def _likely(self, numbers: Matrix) -> Matrix:
        return judge(numbers)

    def _judge(self, until: int) -> list[Cut]:
        """Verdicts on the pictures before number `until`."""
        likely = self._likely(np.stack(self._numbers))
        fading = self._fades.verdicts(until - self._judged)
        empty = plain(np.stack(self._greys))
        changed = still_changes(self._times, self._greys, self._changes) | parted(self._times, self._greys, empty)
        changed &= self._hard
        cuts: list[Cut] = []
        for i in range(self._judged, until):
            time, fades = self._times[i], bool(fading[i - self._judged])
            cut, one, other = likely[i].tolist()
            if i and fades and not self._open.fades and not self._open.heard:
                # Where a fade begins is known better than by the second network.
                self._open = _Stretch(self._limits, self._times[i - 1], [self._greys[i - 1]])
            said = _Said(cut * self._hard, one, other, bool(changed[i]), fades, bool(empty[i]))
            transition = self._open.hear(said)
            self._doubts.append((self._times[max(i - 1, 0)], time, said.cut, transition))
            over = transition <= self._limits.low and not fades
            self._open.endless |= time - self._open.before > self.LONGEST
            if over or self._open.endless:
                cuts += self._ended(time, self._greys[i])
                still, endless = self._changes[i] <= NOISE, self._open.endless and not over
                self._open = _Stretch(self._limits, time, [self._greys[i]], still=still, endless=endless)
            else:
                self._open.add(self._greys[i], fades)
        # The whole of an open stretch is looked at once more where it ends, with the pictures beside it.
        gone = max(min(until - REACH, bisect_left(self._times, self._open.before) - _BESIDE), 0)
        self._judged = until - gone
        del self._numbers[:gone], self._greys[:gone], self._changes[:gone], self._times[:gone]
        return cuts

    def _ended(self, time: float, after: Grey) -> list[Cut]:
        """The cut that the open stretch is, if it is one, now that a picture is in no transition any more."""
        known = self._open
        if time <= known.before or not known.suspected:
            return []
        if known.is_cut(after, self.SURE) and not self._goes_on(time):
            return [self._widened(time)]
        for i, (before, at, cut, transition) in enumerate(self._doubts):
            if at > known.before:
                self._doubts[i] = before, at, min(cut, self.LEFT), min(transition, self.LEFT)
        return []

    def _goes_on(self, time: float) -> bool:
        """Whether the scene is only hidden around the open stretch, which ends before the picture at `time`, for a moment or by
        something that passes, or the camera jerks, or moves to another part of it. The network calls a hard cut in nothing that
        passes and in no such move, so that there jerks alone are looked for."""
        known = self._open
        first, last = (bisect_left(self._times, moment) for moment in (known.before, time))
        if self._times[first] != known.before:
            return False
        greys = without_bars(self._greys)
        if not known.ruled and blinks(self._times, greys, first, last):
            return True
        if known.fades:
            return False
        hard = known.surest > self._limits.hard
        if not hard and passes(self._times, greys, first, last):
            return True
        if hard or known.ruled:
            return jerks(greys, first, last, known.surest)
        return moves_on(greys, first, last, known.likeliest > self.PUSH)

    def _apart(self, cuts: list[Cut], until: float) -> list[Cut]:
        """`cuts` with the one that was held back; those that touch are one. until: no cut to come starts before this time."""
        found = [*([self._held] if self._held else []), *cuts]
        joined: list[Cut] = []
        for cut in found:
            if joined and cut.start <= joined[-1].end:
                cut = Cut(min(joined[-1].start, cut.start), max(joined.pop().end, cut.end))
            joined.append(cut)
        self._held = joined.pop() if joined and joined[-1].end >= until else None
        self.settled = max(self.settled, min(until, self._held.start if self._held else until))
        return joined

    def _widened(self, after: float) -> Cut:
        """The cut from the last picture before it to the one at `after`, which is behind it."""
        known = self._open
        width = after - known.before
        if width <= self.SUDDEN:
            return Cut(known.before, after)
        more = min(self.SLOPE * width, self.MOST) / (2 if known.ruled else 1)
        earliest = known.before if known.fades_first else max(known.before - more, self.settled)
        start = min((time for _, time, _, _ in self._doubts if earliest <= time <= known.before), default=known.before)
        latest = after if known.fades_last else after + more
        return Cut(start, max((time for time in self._times if time <= latest), default=after))
