"""Decoding an open film forward, damaged as it may be. Times are seconds since the start of the video stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import av
import av.error
import av.video.stream

from longtake.curation.errors import VideoError
from longtake.curation.reading.aperture import within
from longtake.curation.reading.aspects import FROM_STREAM
from longtake.curation.reading.damage import Damage, Damages, is_end
from longtake.curation.reading.faults import words
from longtake.curation.reading.graphs import top_down
from longtake.curation.reading.opening import OpenVideo, packets_of
from longtake.curation.reading.paff import FieldPairs
from longtake.curation.reading.progressive import Timed, require_frame, whole_pictures
from longtake.curation.reading.timeline import MOST_IN_DOUBT, Rate, Timeline, rise
from longtake.curation.reading.turns import prefix_of
from longtake.curation.reading.video import NO_TIMESTAMPS, VideoInfo

# Bytes. Packets are held back where nothing is wanted of them; they may take this much memory.
_HELD_BYTES = 64 * 2**20
_TIMELESS = (
    "its frames have no timestamps (a raw stream?), so no clip could be cut out of it: put it into a container first, as with "
    "`ffmpeg -i FILE -c copy FILE.mkv`"
)
MOST_DAMAGES = 10_000  # A film with more of them is not read to its end.

_Packet: TypeAlias = "av.Packet[av.video.stream.VideoStream]"


@dataclass(slots=True)
class DecodedFrame:
    """A frame and its presentation time (seconds since the start of the video stream). spoilt: something before it that it may
    refer to does not decode, or it does not itself."""

    time: float
    frame: av.VideoFrame
    spoilt: bool = False


@dataclass(slots=True)
class DecodeCount:
    """What a pass met: packets read, frames decoded, packets and frames that were damaged (fault: what was wrong with the first;
    damages: what they spoil, at most MOST_DAMAGES), frames of a time that had passed, times that the clock started anew,
    packets at the end that were read and not decoded (passed_over), the greatest time of a packet. digest: takes in what all
    packets hold, where somebody wants to know it."""

    packets: int = 0
    frames: int = 0
    damaged: int = 0
    fault: str = ""
    disordered: int = 0
    restarts: int = 0
    passed_over: int = 0
    last: float = -math.inf
    damages: list[Damage] = field(default_factory=list)
    rate: Rate = field(default_factory=Rate)
    digest: Any = None

    @property
    def corrupt(self) -> int:
        """Packets and frames that are not as they should be. A clock that starts anew is no damage."""
        return self.damaged + self.disordered

    @property
    def fps(self) -> float:
        """Average rate by the packets' own timestamps; nan with fewer than two."""
        return self.rate.fps

    def damage(self, time: float, what: str) -> None:
        """Count a damaged packet or frame. time: seconds, where it is known."""
        if not self.damaged:
            self.fault = f"{what} at {time:.3f} s" if math.isfinite(time) else what
        self.damaged += 1

    def spoil(self, damage: Damage) -> None:
        """Note what a damaged packet or frame spoils."""
        if damage not in self.damages[-1:] and len(self.damages) < MOST_DAMAGES:
            self.damages.append(damage)

    def damaged_seconds(self, end: float) -> float:
        """How much is spoilt of a film that ends at `end` seconds, seconds."""
        seconds, known = 0.0, 0.0
        # A stretch may be read again, and by several pieces of a film.
        for damage in sorted(self.damages, key=lambda damage: damage.start):
            seconds += max(min(damage.end, end) - max(damage.start, known), 0.0)
            known = max(known, min(damage.end, end))
        return seconds

    def damage_within(self, start: float, end: float) -> Damage | None:
        """The first damage of which a part lies in [start, end), seconds; None: there is none."""
        touching = (damage for damage in self.damages if damage.touches(start, end))
        return min(touching, key=lambda damage: damage.start, default=None)


def decode(
    video: OpenVideo,
    info: VideoInfo,
    count: DecodeCount | Callable[[float], DecodeCount],
    *,
    all_frames: bool = False,
    since: float = -math.inf,
    enough: Callable[[float], bool] = lambda last: False,
    seams: Sequence[float] = (),
) -> Iterator[DecodedFrame]:
    """Decode forward, one thread, to whole pictures; times strictly increase. Frames no other frame refers to are skipped,
    unless `all_frames`: the pixels of the others are exact, at about half the time (design, section 6).

    Damaged packets, damaged frames and frames out of order are counted in `count`; the first and last are left out. since:
    seconds; damage before it does not count, since a decoder that enters in the middle of a good file meets some. enough: whether
    nothing more is wanted of a film whose packets go on to `last` seconds, as far as is known. From then on packets are held
    back, and are decoded only if more come than the header promised. count: instead of one, what counts at a moment (seconds).
    seams: moments from which on pictures depend on no frame before. Raises VideoError (unsupported) for a stream whose frames
    have no times, or are fields.
    """
    counted = (lambda time: count) if isinstance(count, DecodeCount) else count
    context = video.stream.codec_context
    codec = context.codec.canonical_name
    video.damages.stop()
    video.damages = damages = Damages(codec, prefix_of(codec, context.extradata))
    frames = within(
        _Run(video, info, counted, all_frames, since, enough).frames(),
        info.aperture,
        context.width,
        context.height,
    )
    return (DecodedFrame(time, frame, damages.spoils(time)) for time, frame in _in_stretches(frames, seams))


def _in_stretches(frames: Iterator[Timed], seams: Sequence[float]) -> Iterator[Timed]:
    """Whole pictures, made of the frames from one seam to the next."""
    if not seams:
        yield from whole_pictures(frames)
        return
    coming = next(frames, None)

    def until(seam: float) -> Iterator[Timed]:
        nonlocal coming
        while coming is not None and coming[0] < seam:
            yield coming
            coming = next(frames, None)

    for seam in (*seams, math.inf):
        yield from whole_pictures(until(seam))


class _Run:
    """One run of a decoder, from where an open film was sought to on. The arguments are those of `decode`; counted: what counts
    at a moment, seconds."""

    def __init__(
        self,
        video: OpenVideo,
        info: VideoInfo,
        counted: Callable[[float], DecodeCount],
        all_frames: bool,
        since: float,
        enough: Callable[[float], bool],
    ) -> None:
        self._video, self._damages, self._timeline = video, video.damages, Timeline(video, info.fps)
        self._counted, self._all_frames, self._since, self._enough = counted, all_frames, since, enough
        self._packets = video.turns.reading(video.damages.reading(packets_of(video, video.stream)))
        context = video.stream.codec_context
        self._codec = context.name
        self._pairs = FieldPairs(context.name, context.extradata, prefix_of(context.name, context.extradata))
        self._streamed = video.container.format.name in FROM_STREAM
        self._is_raw = bool(video.container.format.flags & NO_TIMESTAMPS)  # Until a packet has a time.
        self._time = -math.inf  # Seconds. When what was read or decoded last is shown.
        self._count = counted(self._time)
        self._restarts = 0
        self._held: list[_Packet] = []  # Nothing is wanted of these packets, if the film ends where its header says.
        self._held_bytes = 0
        self._waiting: deque[_Packet] = deque()  # These packets are decoded next.
        self._early: list[
            av.VideoFrame
        ] = []  # The first frames, until it is known what the times of their packets mean.
        self._last = -math.inf  # Seconds. When the frame that was given last is shown.
        self._before: av.VideoFrame | None = None  # The frame that was given last.
        self._lost_at = (
            math.nan
        )  # Seconds. When the packet is shown that was last counted because a part of it was lost.
        self._skips = self._over = False
        video.stream.codec_context.skip_frame = "DEFAULT"
        self._count.rate.skip()
        video.gaps.skip()

    def frames(self) -> Iterator[Timed]:
        """The frames, in the order in which they are shown. Raises VideoError (unsupported)."""
        while not self._over:
            try:
                packet = self._next()
                shown: Iterable[Timed] = ()
                if packet is not None:
                    empty = not packet.size and not is_end(packet)
                    shown = self._again(packet) if empty else self._shown(self._decode(packet), is_end(packet))
            except av.error.EOFError:
                self._end()
            except (av.error.FFmpegError, ValueError) as error:
                self._fail(error)
            else:
                yield from shown

    # ── packets ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> _Packet | None:
        """The packet that is decoded next; None where the film ends."""
        while not self._waiting:
            packet = next(self._packets, None)
            if packet is None:
                self._end()
                return None
            self._read(packet)
            if self._held and is_end(packet):
                # This is the end of the film, so what was held back is not decoded.
                self._count.passed_over = len(self._held)
                next(self._packets, None)  # This raises the error at which it ends, if there is one.
                self._end()
                return None
            self._held.append(packet)
            self._held_bytes += packet.size
            if self._held_bytes >= _HELD_BYTES or not self._enough(self._count.last):
                self._waiting.extend(self._held)
                self._held.clear()
                self._held_bytes = 0
        return self._waiting.popleft()

    def _read(self, packet: _Packet) -> None:
        """Take down what a packet tells before it is decoded. Raises VideoError (unsupported)."""
        if self._is_raw and packet.size and packet.pts is None and packet.dts is None:
            raise VideoError("unsupported", _TIMELESS)
        self._is_raw = False
        video, aside = self._video, self._video.turns.is_aside(packet)
        shown = None if aside else self._timeline.place(packet)
        if shown is not None:
            self._count = self._counted(shown)
        count = self._count
        count.restarts += self._timeline.restarts - self._restarts
        self._restarts = self._timeline.restarts
        if shown is None and packet.size and not aside:
            count.rate.add_untimed()
        # A packet that an edit list leaves out is decoded, but never shown.
        if shown is not None and not packet.is_discard:
            self._time = shown
            video.turns.coming(shown, packet)
            second = self._pairs.is_second(memoryview(packet))
            count.last = max(count.last, shown if not second else -math.inf)
            video.gaps.coming(shown)
            self._damages.coming(shown, packet.is_keyframe)
            if not second:
                count.rate.add(shown, video.clock.seconds(packet.dts) if packet.dts is not None else shown)
        count.packets += bool(packet.size) and not aside
        if count.digest is not None and packet.size:
            count.digest.update(packet)

    def _end(self) -> None:
        count = self._count
        count.rate.finish()
        self._over = True
        if self._streamed and not self._held and (damage := self._damages.ended()) is not None:
            count.spoil(damage)
            count.damage(damage.start, "nothing is shown of it")

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _decode(self, packet: _Packet) -> list[av.VideoFrame]:
        """The frames that a decoder gives for a packet. Raises FFmpegError or ValueError if it is damaged."""
        video, context, final = self._video, self._video.stream.codec_context, self._damages.is_final(packet)
        all_frames = self._all_frames or self._timeline.needs_all or (self._streamed and final)
        if self._skips == all_frames:
            self._skips = not all_frames
            context.skip_frame = "NONREF" if self._skips else "DEFAULT"
        if lost := self._damages.is_lost(packet):
            self._count.spoil(self._damages.met(self._time))
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if not video.turns.is_aside(packet):
                raise
            # The decoder of H.264 finds an error in a packet without a picture, once it has read the parameter sets.
            return []
        if lost and self._time >= self._since:
            self._lost_at = self._time
            self._count.damage(self._time, "a part of the film is missing")
        if self._streamed and packet.pts is not None:
            video.aspects.note(video.clock.seconds(packet.pts), context.sample_aspect_ratio)
        return frames

    def _shown(self, frames: list[av.VideoFrame], at_end: bool) -> Iterator[Timed]:
        """Those of the frames out of a decoder that are shown. at_end: no more will come."""
        timeline = self._timeline
        if timeline.in_doubt or self._early:
            frames = self._early + frames
            if timeline.in_doubt and rise(frames) and len(frames) < MOST_IN_DOUBT and not at_end:
                self._early = frames
                return
            self._early = []
            if timeline.in_doubt:
                timeline.settle(frames)
        for frame in frames:
            self._video.tag(frame)
            time = timeline.time(frame)
            if time is None:
                continue
            self._time, self._count = time, self._counted(time)
            if frame.is_corrupt:
                self._count.spoil(self._damages.met(time))
                if time >= self._since and time != self._lost_at:
                    self._count.damage(time, "a damaged frame")
            require_frame(frame, self._codec)
            if time > self._last:
                self._give(time, frame)
                self._video.turns.see(time, frame)
                yield time, top_down(frame)
            elif time < self._last:  # A second picture of the same moment is not shown, and is no damage.
                self._count.disordered += 1

    def _again(self, packet: _Packet) -> Iterator[Timed]:
        """The frame before, where an empty packet shows it once more (Theora)."""
        time = self._timeline.place(packet)
        if self._before is not None and time is not None and time > self._last:
            self._time, self._count = time, self._counted(time)
            self._give(time, self._before)
            yield time, self._before

    def _give(self, time: float, frame: av.VideoFrame) -> None:
        self._damages.shown(time, frame)
        self._count.frames += 1
        self._video.gaps.reached(time)
        self._last, self._before = time, frame

    def _fail(self, error: Exception) -> None:
        """What was read last does not decode, or cannot be read: then nothing comes behind it."""
        count = self._count = self._counted(self._time)
        count.spoil(self._damages.met(self._time))
        if self._time >= self._since:
            count.damage(self._time, f"does not decode ({words(error)})")
        self._over = count.damaged > MOST_DAMAGES
