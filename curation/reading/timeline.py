"""When frames are shown: by presentation, whatever order their packets come in, on one clock that only rises.

Three things lie about time. Some containers have times of decoding only, by their format (AVI) or since their muxer gave no
others (ASF, MXF, MP4 without `ctts`): what a demuxer makes of them is wrong as soon as frames are reordered. A stream may start
its clock anew, where recordings were joined: the clock goes on, and that is counted. And a pass that stops early has met
reference frames of a moment to come, but not the frames between.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import av
import av.error
import av.video.stream

from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, packets_of

# The value of AVFMT_TS_DISCONT in ffmpeg: containers of broadcasts have it, whose clock may leap either way.
_MAY_LEAP = 0x200
# Seconds. Decoding times that fall by more are a clock that starts anew (ffmpeg's own limit); less is a muxer's slip.
_BACK = 0.1
# Seconds. In a container whose clock may leap, a gap that is longer is a leap (ffmpeg's own limit), not a frame that stands.
_AHEAD = 10.0
# Seconds. In no container does a frame stand for longer: it is a number that is damaged, or a clock that fell, for which ffmpeg
# takes one that has run through all of its numbers (FLV: 49 days).
_NEVER = 1e6


def may_leap(video: OpenVideo) -> bool:
    """Whether the clock of such a container may start anew in its middle: joined broadcasts."""
    return bool(video.container.format.flags & _MAY_LEAP)


# Frames. A decoder that reorders gives out at most so many before it has met the first that is not shown in the order of packets.
MOST_IN_DOUBT = 16


class Timeline:
    """The clock of one stretch of reading: make a new one after each seek. restarts: times that the clock was set anew.
    by_decoding: the container has decoding times only. in_doubt: it may turn out to: the decoder reorders frames, and no packet
    was shown before one that came earlier. needs_all: in both cases, and where frames share a time, every frame must be decoded
    to know when each is shown."""

    def __init__(self, video: OpenVideo, fps: float) -> None:
        base = video.clock.base
        self._early = video.early
        self.restarts = 0
        self.by_decoding = video.container.format.name == "avi"
        reorders = bool(video.stream.codec_context.has_b_frames)
        self.needs_all = reorders
        self._in_order = self.in_doubt = reorders and not self.by_decoding
        self._latest: int | None = None  # Ticks: the presentation time of the packet before.
        self._clock = video.clock
        self._back = _BACK / base if base else math.inf
        self._ahead = (_AHEAD if may_leap(video) else _NEVER) / base if base else math.inf
        step = 1.0 / (fps if math.isfinite(fps) and fps > 0 else UNKNOWN_FPS)
        self._gap = max(1, round(step / base)) if base else 1  # Ticks between two frames.
        self._offset = 0
        self._last: int | None = None  # The decoding time of the last packet on this clock, in ticks.
        # Whether several frames share a time, as in a program stream those do that begin in one of its packets. Their own times
        # follow from their number.
        self._shares_times = False
        self._shown: int | None = None  # The greatest time at which a packet is shown on this clock, in ticks.
        # By decoding: the times of the packets from the one at whose time the next frame may be shown, in ticks.
        self._decoding: deque[int] = deque(maxlen=None if self.by_decoding else 2 * MOST_IN_DOUBT)
        self._context = video.stream.codec_context
        self._frame: int | None = None  # The time at which the last frame was shown, in ticks.

    def place(self, packet: av.Packet[av.video.stream.VideoStream]) -> float | None:
        """Put a packet's times on this clock, before it is decoded. When it is shown, seconds, as far as is
        known; None for one without any time."""
        if packet.pts is None and packet.pos in self._early:
            packet.pts = self._early[packet.pos]
        if not packet.size:
            ticks = packet.dts if packet.pts is None else packet.pts
            return None if ticks is None else self._clock.seconds(ticks + self._offset)
        if packet.pts is not None and packet.dts is not None and packet.pts - packet.dts > self._ahead:
            # The demuxer took this presentation time from beyond a leap of the clock.
            packet.pts = None
        if packet.dts is not None:
            if packet.is_discard:
                # An edit list goes back to the keyframe that its next part needs. What is shown goes on.
                self._last = None
            else:
                self._keep_rising(packet.dts, packet.dts if packet.pts is None else packet.pts)
            packet.dts += self._offset
        elif packet.pts is None:
            self._shares_times = self.needs_all = True
            self._in_order = self.in_doubt = False
        if packet.pts is not None:
            packet.pts += self._offset
            if self._in_order and self._latest is not None and packet.pts < self._latest:
                self._in_order = False
                self.settle([])
            self._latest = packet.pts
            if self._in_order:
                # A demuxer that looks into frames makes other decoding times of these. A frame brings along that of its packet.
                packet.dts = packet.pts
        if packet.dts is not None and (self.by_decoding or self._in_order):
            self._decoding.append(packet.dts)
        ticks = packet.dts if self.by_decoding else packet.pts
        if ticks is None and packet.dts is not None:
            # Such a packet is the last before others that are decoded later, and its frame is shown no sooner than this.
            ticks = packet.dts + self._gap
        if ticks is None:
            return None
        self._shown = ticks if self._shown is None else max(self._shown, ticks)
        return self._clock.seconds(ticks)

    def settle(self, frames: Sequence[av.VideoFrame]) -> None:
        """Decide what the packets' times mean, as far as these first frames tell: if frames come out of the decoder in another
        order than their times, and those of all packets rose, they are times of decoding."""
        self.by_decoding = not rise(frames)
        self.in_doubt, self.needs_all = False, self.by_decoding or self._shares_times

    def time(self, frame: av.VideoFrame) -> float | None:
        """When a decoded frame is shown, seconds. None for one before the first that has a time."""
        ticks = frame.pts
        if self._in_order and ticks is not None and self._frame is not None and ticks < self._frame:
            self.by_decoding = self.needs_all = True
        if self.by_decoding:
            ticks = self._shown_by_order(frame.dts)
        if ticks is None and self._frame is not None:
            ticks = self._frame + self._gap
        if ticks is None:
            return None
        self._frame = ticks
        return self._clock.seconds(ticks)

    def _shown_by_order(self, given: int | None) -> int | None:
        """When a frame is shown that came out with the packet whose decoding time is `given`, None after the last one; in ticks.
        A decoder that reorders gives out each frame a fixed number of packets after the one at whose time it is shown: also
        where it left out the first few behind a seek, since they refer to pictures before it."""
        depth, times = self._context.reorder_depth, self._decoding
        if given is None:
            if len(times) < 2:
                return None
            times.popleft()
            return times[0]
        while len(times) > depth and times[depth] < given:
            times.popleft()
        return times[0] if len(times) > depth and times[depth] == given else given - depth * self._gap

    @property
    def offset(self) -> float:
        """Seconds that are added to what the container's clock shows, since it was set anew."""
        return self._offset * self._clock.base

    def _keep_rising(self, dts: int, pts: int) -> None:
        """A packet comes: if its decoding time falls, or leaps, let it be shown after all that came before."""
        here = dts + self._offset
        if self._last is None:
            self._last = here
        if here < self._last - self._back or here - self._last > self._ahead:
            last = self._last if self._shown is None else self._shown
            here += last + self._gap - (pts + self._offset)
            self._offset = here - dts
            self.restarts += 1
        elif here > self._last and not self._shares_times:
            self._gap = here - self._last
        self._last = here


def rise(frames: Sequence[av.VideoFrame]) -> bool:
    """Whether the times that frames were given by their packets rise, as far as there are any."""
    times = [frame.pts for frame in frames if frame.pts is not None]
    return all(early <= late for early, late in pairwise(times))


@dataclass(slots=True)
class Rate:
    """The average rate of what is read, by the times (s) at which packets are shown. What lies ahead of the decoder, with
    frames missing in between, does not count until they have come. count, first, last: of the present stretch. steps, seconds:
    from frame to frame in the stretches before it."""

    steps: int = 0
    seconds: float = 0.0
    count: int = 0
    first: float = math.inf
    last: float = -math.inf
    _ahead: list[float] = field(default_factory=list)
    _untimed: int = 0  # Packets without a time since the last one that has one.
    _shares_times: bool = False  # Whether there was such a packet.

    def add(self, shown: float, decoded: float) -> None:
        """A packet: when it is shown and when it is decoded. All packets to come are shown no sooner than they are decoded."""
        self.count, self._untimed = self.count + self._untimed, 0
        heapq.heappush(self._ahead, shown)
        while self._ahead and self._ahead[0] <= decoded:
            self._settle(heapq.heappop(self._ahead))

    def add_untimed(self) -> None:
        """A packet of which no time is known: its frame lies between its neighbours."""
        self._shares_times = True
        self._untimed += self.count > 0 or bool(self._ahead)

    def skip(self) -> None:
        """Reading goes on at another place."""
        if self.last > self.first:
            self.steps, self.seconds = self.steps + self.count - 1, self.seconds + self.last - self.first
        self.count, self.first, self.last, self._untimed = 0, math.inf, -math.inf, 0
        self._ahead.clear()

    def finish(self) -> None:
        """After the last packet."""
        while self._ahead:
            self._settle(heapq.heappop(self._ahead))

    @property
    def fps(self) -> float:
        """Frames per second; nan with fewer than two."""
        known = self.last > self.first
        seconds = self.seconds + (self.last - self.first if known else 0.0)
        return (self.steps + (self.count - 1 if known else 0)) / seconds if seconds else math.nan

    def _settle(self, time: float) -> None:
        # A second picture of the same moment is not shown, unless it was given the time of another one.
        self.count += time != self.last or self._shares_times
        self.first, self.last = min(self.first, time), max(self.last, time)


@dataclass(frozen=True, slots=True)
class Recording:
    """A part of a film between two leaps of its clock. first: what the container's clock shows at its first packet of pictures,
    seconds. offset: seconds to add to that clock, so that it goes on from the recording before."""

    first: float
    offset: float


def recordings(video: OpenVideo, fps: float) -> list[Recording]:
    """The recordings that a film is joined of, in order; one, if its clock never leaps. fps: frames per second, as `Timeline`
    wants to know it. Reads the packets of the whole film, and decodes none."""
    timeline, parts = Timeline(video, fps), list[Recording]()
    packets = packets_of(video, video.stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError, ValueError):
            return parts
        if packet.dts is None or not packet.size:
            continue
        first = packet.dts * video.clock.base
        timeline.place(packet)
        if timeline.restarts == len(parts) or not parts:
            parts.append(Recording(first, timeline.offset))


def recording_of(parts: Sequence[Recording], at_work: int, now: float, raw: float) -> Recording:
    """The recording that a packet of another stream is of. at_work: the number of the recording whose pictures are being read.
    now: what the container's clock showed at the last packet of pictures, raw: at this packet, seconds. Near a leap, packets of
    both recordings lie side by side in the file: a packet is of the recording in which it is nearest to the pictures."""
    here = now + parts[at_work].offset
    near = sorted(range(max(0, at_work - 1), min(len(parts), at_work + 2)), key=lambda number: number != at_work)
    return parts[min(near, key=lambda number: abs(raw + parts[number].offset - here))]
