"""The frames of a span of a video, with their times, and which of them a constant rate shows.

Decoding begins at a keyframe before the span; memory does not grow with its length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, TypeVar

import av
import av.error

from longtake.curation.errors import VideoError
from longtake.curation.reading.aspects import Aspects
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.gaps import is_gap
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, open_video
from longtake.curation.reading.seeking import CLOCK, LEADS
from longtake.curation.reading.sizes import Size, changes, size_of
from longtake.curation.reading.turns import Turns
from longtake.curation.reading.video import probe

T = TypeVar("T")

# Seconds. Two frames are equally near within this: Matroska rounds times to milliseconds, and such a tie must always fall the
# same way, or the clip would judder.
_TIE = 1e-3


@dataclass(slots=True)
class SpanRead:
    """What reading a span has shown so far. Times in seconds.

    source_fps: average rate of the video. aspects: of its samples. turns: of its pictures. earlier: a frame before the span was
    seen. ended: the video has no further frame, and none after the span was seen. first: time of the first frame. stop: when the
    last one ends, as far as is known.
    """

    source_fps: Fraction
    aspects: Aspects
    turns: Turns
    earlier: bool = False
    ended: bool = False
    first: float = math.nan
    stop: float = -math.inf


@contextmanager
def open_span(
    source: str | BinaryIO, start: float, end: float, seek: bool, film_fps: float | None
) -> Iterator[tuple[SpanRead, Iterator[tuple[float, av.VideoFrame]]]]:
    """The frames of [start, end) (s) in order, with their times (s); the `SpanRead` is filled in as they are read. seek: False
    for a video whose clock starts anew, which is read from its beginning. film_fps: as for `source_fps`. Raises VideoError.

    Decoding begins at a keyframe before the span. Where a container's index leads behind it (transport streams, leading
    pictures), the file is opened again and read from farther back, in the end from its beginning.
    """
    for lead in (*LEADS, None) if seek else (None,):
        with open_video(source) as video:
            if not _go_to(video, start, lead):
                continue
            span = SpanRead(source_fps(video, film_fps), video.aspects, video.turns)
            frames = _frames(video, start)
            try:
                ahead = next(frames, None)
            except VideoError:
                if lead is None:
                    raise
                continue
            if lead is not None and (ahead is None or ahead[0] > start + CLOCK):
                continue
            yield span, _within(span, frames, ahead, start, end)
            return


def source_fps(video: OpenVideo, film_fps: float | None) -> Fraction:
    """Average frames per second of a video. film_fps: as its scan has counted them; None: as its container says, which may
    count fields, or tell the rate of a longer film."""
    fps = probe(video).fps if film_fps is None else film_fps
    return Fraction(fps).limit_denominator(1001) if 1 <= fps <= 240 else Fraction(UNKNOWN_FPS)


def _go_to(video: OpenVideo, start: float, lead: float | None) -> bool:
    """Whether decoding may begin: at a keyframe `lead` before `start`, or at the beginning."""
    first = video.stream.start_time
    if lead is None or not video.clock.base or first is None:
        return lead is None
    ticks = video.clock.ticks(start - lead + CLOCK)
    if ticks <= first:
        # Nothing has been read yet, so the file already stands at its beginning.
        return True
    try:
        video.container.seek(ticks, stream=video.stream, backward=True)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _frames(video: OpenVideo, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame), times strictly increasing. What does not decode before `start` is passed over: a decoder that
    enters in the middle of a good file meets that too. From there on it is an error, as are pictures that it spoils."""
    count = DecodeCount()
    for decoded in decode(video, probe(video), count, all_frames=True, since=start - CLOCK):
        _require_undamaged(count)
        if decoded.spoilt and decoded.time >= start - CLOCK:
            raise VideoError(
                "corrupt", f"the picture at {decoded.time:.3f} s refers to one before that does not decode"
            )
        yield decoded.time, decoded.frame
    _require_undamaged(count)


def _require_undamaged(count: DecodeCount) -> None:
    if count.damaged:
        raise VideoError("corrupt", count.fault)


def _within(
    span: SpanRead,
    frames: Iterator[tuple[float, av.VideoFrame]],
    ahead: tuple[float, av.VideoFrame] | None,
    start: float,
    end: float,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Of `ahead` and then `frames`, those in [start, end)."""
    gap = float(1 / span.source_fps)
    last = math.nan
    while ahead is not None:
        time, frame = ahead
        if time >= end - CLOCK:
            return
        if time < start - CLOCK:
            span.earlier = True
        else:
            if math.isnan(last):
                span.first = time
            else:
                gap = time - last
            last = time
            duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            span.stop = time + (duration or gap)
            yield ahead
        ahead = next(frames, None)
    span.ended = True


def nearest_in_time(frames: Iterable[tuple[float, T]], times: Iterable[float]) -> Iterator[T]:
    """For each of `times` (s, rising) the nearest item of `frames` (pairs of a time in s, rising, and an item), the
    earlier of two that are equally near (to a millisecond). In a gap (`gaps.is_gap`) the one before stands until there is
    a new one, as a player shows it. Holds two items; gives nothing if there are no frames."""
    wanted = iter(times)
    time = next(wanted, None)
    held: tuple[float, T] | None = None
    for late, item in frames:
        if held is not None:
            last = late - _TIE if is_gap(late - held[0]) else (held[0] + late) / 2 + _TIE
            while time is not None and time <= last:
                yield held[1]
                time = next(wanted, None)
        if time is None:
            return
        held = late, item
    while held is not None and time is not None:
        yield held[1]
        time = next(wanted, None)


def of_one_size(
    frames: Iterable[tuple[float, av.VideoFrame]], aspects: Aspects, turns: Turns
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The same frames with their times. Raises VideoError (unsupported) where their size changes."""
    first: Size | None = None
    for time, frame in frames:
        size = size_of(time, frame, aspects, turns)
        first = first or size
        if size != first:
            raise VideoError("unsupported", changes(first, size, time))
        yield time, frame


def require_whole(span: SpanRead, start: float, count: int, step: float) -> None:
    """Raises VideoError if the first or last of `count` frames, `step` seconds apart from `start` on, had to stand for a time
    that the video does not have. span: all of whose frames were read."""
    frame = 1 / float(span.source_fps)
    if not span.earlier and span.first > start + max(frame, step) + _TIE:
        raise VideoError("too_short", f"the span begins at {start:.3f} s, but the video only at {span.first:.3f} s")
    # The scan takes the last frame of a film to be shown as long as they are on average.
    if span.ended and span.stop < start + count * step - max(frame, step / 2) - _TIE:
        reason = f"the video ends at {span.stop:.3f} s, {start + count * step:.3f} s would be needed"
        raise VideoError("too_short", reason)
