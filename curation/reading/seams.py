"""Where a long film is cut into pieces, what is found in each, and how the pieces are joined.

A film that is longer than half an hour has seams: the keyframes last before equal parts of at most half an hour. The scan of a
piece begins at its seam with nothing remembered, and so with new detectors of cuts. Its clips are those of the shots that begin
between two handovers, which lie some seconds behind the seams, where detectors that begin at the seam know enough:

    seam k ── handover k ── … ── seam k+1 ── handover k+1 ── first cut behind it
    │          └── shots that begin here are of piece k; the last one may go on to the cut ──┘
    └── piece k reads from here on to that cut

From seam k + 1 on piece k asks detectors that begin there, as piece k + 1 does, so both see the same first cut behind the
handover: there piece k ends and piece k + 1 begins. A take that goes on for minutes behind a handover is cut there
(`Piece.ends_by`), and gives windows anew from there on. This is what the scan of a film is, be it read in one go or in pieces.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import av
import av.error

from longtake.curation.access import Source
from longtake.curation.errors import RowError
from longtake.curation.reading.acceptance import counted_fps, ends_early, require_all, require_sound, settle
from longtake.curation.reading.decoding import DecodeCount
from longtake.curation.reading.judge import ClipScan, Judge, VideoScan
from longtake.curation.reading.opening import OpenVideo, open_video, packets_of
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.seeking import LEADS, seek
from longtake.curation.reading.video import VideoInfo
from longtake.curation.recipe import Splitting
from longtake.filters.base import Sample, Score
from longtake.manifests.frames import StoredStrip

PIECE_SECONDS = 1800.0  # Seconds. A piece has so many at most, and a film that is no longer is one piece.
# Seconds from a seam to its handover. Detectors of cuts look back 1 s and ahead 2 s, and a transition lasts up to 6 s.
HANDOVER_SECONDS = 10.0
TAKE_SECONDS = 300.0  # Seconds. A take may go on so long behind a handover, before it is cut there.
_SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # These containers have an index and presentation times.
_EARLY = 1 / 8  # A share of a piece. A keyframe that lies farther before the place of a seam is no seam.


class SeamError(Exception):
    """Pieces do not fit together: the file was changed between them, or does not decode alike from where its index says."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a film, by its number from 0 on. seams: all seams of the film, in seconds, rising. take: seconds for which a
    take may go on behind a handover."""

    seams: tuple[float, ...]
    number: int
    take: float

    @property
    def of(self) -> int:
        return len(self.seams) + 1

    @property
    def is_last(self) -> bool:
        return self.number == len(self.seams)

    @property
    def start(self) -> float:
        """The seam at which this piece begins, seconds; 0 for the first piece."""
        return self.seams[self.number - 1] if self.number else 0.0

    @property
    def until(self) -> float:
        """The next seam, seconds."""
        return math.inf if self.is_last else self.seams[self.number]

    @property
    def begins(self) -> float:
        """The handover behind the first seam of this piece, seconds: cuts before it belong to the piece before."""
        return self.start + HANDOVER_SECONDS if self.number else -math.inf

    @property
    def begins_by(self) -> float:
        """The time at which its first shot begins, if no cut comes before, seconds."""
        return self.begins + self.take

    @property
    def ends(self) -> float:
        """The handover behind the next seam, seconds."""
        return self.until + HANDOVER_SECONDS

    @property
    def ends_by(self) -> float:
        """The time at which its last shot ends, if no cut comes before, seconds."""
        return self.ends + self.take

    def seconds(self, duration: float) -> float:
        """How much of a film of `duration` seconds it has to read, about."""
        return min(self.ends_by, duration) - self.start


def take_seconds(splitting: Splitting) -> float:
    """The seconds for which a take may go on behind a handover, at least as long as three windows."""
    return max(TAKE_SECONDS, 3 * splitting.window_seconds)


def find_seams(source: str | Source, info: VideoInfo, splitting: Splitting) -> tuple[float, ...]:
    """The seams of a film, seconds; none, if it is not longer than a piece, or if reading cannot begin in its middle. Opens the
    film anew."""
    if not (math.isfinite(info.duration) and info.duration > PIECE_SECONDS) or info.container not in _SEEKABLE:
        return ()
    count = math.ceil(info.duration / PIECE_SECONDS)
    length = info.duration / count
    if HANDOVER_SECONDS + take_seconds(splitting) + 2 * splitting.window_seconds > (1 - _EARLY) * length:
        return ()  # The next seam would come before it is known where the piece begins.
    seams: list[float] = []
    try:
        with open_video(source) as video:
            if not len(video.stream.index_entries):
                return ()
            for number in range(1, count):
                seam = _keyframe_before(video, number * length)
                if seam is not None and 0 <= number * length - seam <= _EARLY * length:
                    seams.append(seam)
    except (RowError, av.error.FFmpegError, OSError, ValueError):
        return ()  # The pass meets the same fault, and reports it.
    return tuple(seams)


def _keyframe_before(video: OpenVideo, moment: float) -> float | None:
    """The time at which the last keyframe before a moment is shown, seconds; None if the index does not lead to one."""
    for lead in LEADS:
        if not seek(video, moment - lead):
            return None
        packet = next(packets_of(video, video.stream), None)
        if packet is None or packet.pts is None or not packet.is_keyframe:
            return None
        if (shown := video.clock.seconds(packet.pts)) <= moment:
            return shown
    return None


def by_stretch(seams: Sequence[float], counts: Sequence[DecodeCount]) -> Callable[[float], DecodeCount]:
    """A function from a moment to the count of its stretch; there is one count for each stretch between seams."""
    return lambda time: counts[bisect_right(seams, time)]


@dataclass(slots=True)
class PieceScan:
    """What was found in one piece; times are in seconds.

    info: the film's, as its first frame shows it. count: packets and frames between the seams of the piece. time: when the last
    frame that was read is shown. end: where the film ends, if the piece met the end. short: the longest shot, where no shot was
    long enough for a clip; its sample or its strip, if any (short_sample, short_strip), is not stored with the piece. head: a
    hash of the thumbnails between the first seam and its handover. tail: likewise for the next seam. begun, ended: the cuts that
    the piece has in common with its neighbours.
    """

    number: int
    info: VideoInfo
    clips: list[ClipScan]
    cuts: list[float]
    count: DecodeCount
    time: float = 0.0
    end: float | None = None
    left_out: float = 0.0
    head: str = ""
    tail: str = ""
    begun: tuple[float, float] | None = None
    ended: tuple[float, float] | None = None
    short: ClipScan | None = None
    short_sample: Sample | None = field(default=None, compare=False, repr=False)
    short_strip: StoredStrip | None = field(default=None, compare=False, repr=False)

    def hand_over_short(self, judge: Judge) -> None:
        """Give the sample and the strip of the longest shot to a judge, which stores them, if this scan holds them."""
        if self.short is not None and self.short_sample is not None:
            judge.keep(self.short.span, self.short_sample)
        if self.short is not None and self.short_strip is not None:
            judge.show(self.short.span, self.short_strip)

    def dumped(self) -> str:
        """The scan as JSON, from which floats come back unchanged."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("short_")}
        return json.dumps(told, default=_plain)

    @classmethod
    def loaded(cls, text: str) -> PieceScan:
        """The scan out of the text that `dumped` made."""
        made: PieceScan = _made(cls, json.loads(text))
        return made


def _plain(value: Any) -> Any:
    if isinstance(value, RowError):
        return [value.kind, str(value)]
    if isinstance(value, Score):
        return [value.value, list(value.detail), value.standard_error, value.protocol]
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _made(kind: Any, value: Any) -> Any:
    """The value of a type, out of what `_plain` made of it."""
    given = get_args(kind)
    if value is None or kind is Any:
        return value
    if get_origin(kind) in (Union, UnionType):
        return _made(next(one for one in given if one is not type(None)), value)
    if kind is RowError:
        return RowError(*value)
    if kind is Score:
        number, detail, error, protocol = value
        return Score(number, tuple(detail), standard_error=error, protocol=protocol)
    if get_origin(kind) is tuple:
        return tuple(value)
    if get_origin(kind) is list:
        return [_made(given[0], one) for one in value]
    if get_origin(kind) is dict:
        return {key: _made(given[1], one) for key, one in value.items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return cast(Any, kind)(**{name: _made(hints[name], one) for name, one in value.items()})
    return value


def join(scans: Sequence[PieceScan], judge: Judge, *, apart: bool) -> VideoScan:
    """The scan of a film out of the scans of all its pieces, in order. judge: where no piece has a clip, the judge stores the
    sample or the strip of the longest shot, if a piece holds it. apart: whether each piece was read by itself. Raises SeamError
    if they do not fit together, and VideoError as a scan of the whole does."""
    if apart:
        _require_fit(scans)
    count = _summed([one.count for one in scans])
    require_sound(count, judge.recipe.scan.max_corrupt)
    info = scans[0].info
    end = max((one.end for one in scans if one.end is not None), default=max(one.time for one in scans))
    if apart and ends_early(info, end):
        raise SeamError("its frames end before its header says, which a scan in one go looks into")
    require_all(info, end, judge.source)
    clips = [clip for one in scans for clip in one.clips]
    none_long_enough = not clips
    if none_long_enough:
        shorts = [one for one in scans if one.short is not None]
        chosen = max(shorts, key=lambda one: one.short.span.seconds if one.short else 0.0, default=None)
        clip = chosen.short if chosen is not None and chosen.short is not None else ClipScan(Span(0.0, end))
        if chosen is not None:
            chosen.hand_over_short(judge)
        clips = [clip]
    info = replace(info, fps=counted_fps(info, count), duration=end)
    settle(clips, info, judge, count, none_long_enough)
    return VideoScan(
        info,
        clips,
        [cut for one in scans for cut in one.cuts],
        count,
        max(one.time for one in scans),
        left_out=sum(one.left_out for one in scans),
        pieces=len(scans),
    )


def _require_fit(scans: Sequence[PieceScan]) -> None:
    for one, other in pairwise(scans):
        if repr(one.info) != repr(other.info):
            # Numbers of a header may be nan, which is not equal to itself.
            raise SeamError("the file is another one than it was")
        if (one.tail, one.ended) != (other.head, other.begun):
            raise SeamError(f"piece {other.number} does not begin as piece {one.number} ends")
    if any(one.count.restarts for one in scans):
        raise SeamError("its clock starts anew")


def _summed(counts: Sequence[DecodeCount]) -> DecodeCount:
    total = DecodeCount()
    for one in counts:
        for name in ("packets", "frames", "damaged", "disordered", "restarts", "passed_over"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.fault = total.fault or one.fault
        total.damages += one.damages
        total.last = max(total.last, one.last)
        one.rate.finish()
        total.rate.count += one.rate.count
        total.rate.first = min(total.rate.first, one.rate.first)
        total.rate.last = max(total.rate.last, one.rate.last)
    return total
