"""The sound of a stretch of a video: read beside its pictures, put on their clock, and brought to one or two channels.

The file is opened anew for its sound, and only packets of sound are decoded. Each decoded stretch is placed by its own time, so
that missing sound becomes silence, and sound that comes late or early stays in step with the picture. Damaged sound becomes
silence, too, and the state of the sound says so; no clip is lost for its sound. Where the film's clock starts anew, the file is
read from its beginning, beside its pictures, whose packets tell which recording a packet of sound belongs to.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, cast

import av
import av.audio.stream
import av.error
import numpy as np
import numpy.typing as npt

from longtake.curation.access import Source
from longtake.curation.reading.opening import OpenVideo, open_video, packets_of
from longtake.curation.reading.timeline import Recording, Timeline, recording_of
from longtake.curation.reading.video import probe
from longtake.filters.base import SoundSeen
from longtake.filters.loudness import Meter

Samples = npt.NDArray[np.float32]  # [n, channels]

# The sound is kept, or damaged and kept as far as it decodes, or the file has none for the stretch. The other states say why a
# clip is without its sound.
State = Literal["kept", "damaged", "none", "left out: the clip is faster", "left out: the video's clock starts anew"]

# Samples a second. These rates are kept as they are; sound of any other rate gets the last one.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Seconds before a stretch at which reading begins, until the first sound that comes lies before the stretch: decoders need some
# packets to be whole, and an index of pictures leads to a keyframe of theirs. None is the beginning.
_LEADS = (0.5, 10.0, None)
# Seconds. Decoded sound may be off the clock by this much before it is moved: containers round times to a millisecond, and the
# packets of some are longer than they say.
_SLACK = 0.008
# Seconds. Of a file that is read from its beginning, sound that lies before its stretch by more is not decoded.
_FAR = 10.0
# Bytes. Up to three minutes of sound are held in memory, longer sound in a temporary file.
_IN_MEMORY = 32 * 2**20
# Packets. After so many that do not decode, no more is read.
_MOST_FAULTS = 1000


@dataclass(slots=True)
class Sound:
    """The sound of a stretch. rate: samples a second. channels: 1 or 2. source_channels: channels in the video. covered: the
    share of the stretch for which there is sound. samples: int16, channels side by side, exactly as long as the stretch; the
    caller closes them.
    """

    state: State
    rate: int = 0
    channels: int = 0
    source_channels: int = 0
    covered: float = 0.0
    loudness: float = math.nan
    silence: float = 1.0
    samples: BinaryIO | None = field(default=None, repr=False)

    @property
    def audible(self) -> bool:
        """Whether there is something to carry along."""
        return self.samples is not None

    def seen(self) -> SoundSeen:
        """The facts about the sound that filters measure."""
        return SoundSeen(self.covered, self.loudness, self.silence)


def read_sound(
    source: str | Source | BinaryIO, start: float, seconds: float, *, keep: bool = True, parts: Sequence[Recording] = ()
) -> Sound:
    """The sound of [start, start + seconds) of a video, on the clock of its pictures. keep: whether its samples are kept, beside
    what is measured on them. parts: the recordings that the video is joined of, where its clock may start anew. Raises
    VideoError only for what is wrong with the source itself, such as a fault of the world.
    """
    # One moment of the container's clock may be in several recordings: then nothing can be sought.
    for lead in _LEADS if len(parts) < 2 else (None,):
        with open_video(source) as video:
            streams = video.container.streams.audio
            if not streams:
                return Sound("none")
            stream = cast(av.audio.stream.AudioStream, video.container.streams.best("audio") or streams[0])
            if stream.codec_context is None:
                # FFmpeg has no decoder for this sound.
                return Sound("damaged")
            stream.codec_context.thread_count = 1
            if not _go_to(video, stream, start, lead):
                continue
            reading = _Reading(video, stream, start, seconds, keep, parts)
            if reading.run(must_begin_before=lead is not None and not _begins_later(video, stream, start)):
                return reading.sound()
    raise AssertionError("reading from the beginning always ends")


def _begins_later(video: OpenVideo, stream: av.audio.stream.AudioStream, start: float) -> bool:
    """Whether the stream begins after `start`, by its own header."""
    if stream.start_time is None or stream.time_base is None:
        return False
    return float(stream.start_time * stream.time_base) - video.clock.origin > start


def _go_to(video: OpenVideo, stream: av.audio.stream.AudioStream, start: float, lead: float | None) -> bool:
    """Whether reading may begin: `lead` seconds before `start`, or at the beginning."""
    if lead is None or start - lead <= 0:
        return True
    if stream.time_base is None:
        return False
    ticks = math.floor((start - lead + video.clock.origin) / float(stream.time_base))
    try:
        video.container.seek(ticks, stream=stream, backward=True)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


class _Reading:
    """Decodes a stretch of sound, and puts each decoded part at its own time."""

    def __init__(
        self,
        video: OpenVideo,
        stream: av.audio.stream.AudioStream,
        start: float,
        seconds: float,
        keep: bool,
        parts: Sequence[Recording],
    ) -> None:
        context = stream.codec_context
        self.parts = parts
        self.video, self.stream, self.start = video, stream, start
        self.source_channels = context.channels or 0
        self.rate = context.sample_rate if context.sample_rate in RATES else RATES[-1]
        self.channels = 1 if self.source_channels == 1 else 2
        self.total = round(seconds * self.rate)
        self.end = start + seconds
        self.meter = Meter(self.rate, self.channels)
        self.file = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY)) if keep else None  # noqa: SIM115
        self.written = self.heard = self.faults = 0
        self.resampler: av.AudioResampler | None = None
        self.kind: tuple[object, ...] = ()
        self.base: float | None = None  # The time at which the resampler was given its first sample, in seconds.
        self.given = 0  # Samples that came out of the resampler since then.

    def run(self, must_begin_before: bool) -> bool:
        """Read the stretch. False if no sound before its beginning was decoded, though some had to be."""
        first = True
        for time, samples in self._decoded():
            if first and must_begin_before and time > self.start + _SLACK:
                return False
            first = False
            self._place(time, samples)
            if self.written >= self.total:
                break
        else:
            if first and must_begin_before:
                return False
        self._write(np.zeros((0, self.channels), np.float32), until=self.total)
        self.meter.finish()
        return True

    def sound(self) -> Sound:
        covered = self.heard / max(1, self.total)
        state: State = "damaged" if self.faults else "kept" if self.heard else "none"
        if not self.heard:
            return Sound(state, source_channels=self.source_channels)
        if self.file is not None:
            self.file.seek(0)
        return Sound(
            state,
            self.rate,
            self.channels,
            self.source_channels,
            covered,
            self.meter.loudness,
            self.meter.silence,
            self.file,
        )

    def _decoded(self) -> Iterator[tuple[float, Samples]]:
        """The decoded sound as (time in seconds, samples [n, channels]), at the rate of this reading."""
        packets: Iterator[av.Packet[av.audio.stream.AudioStream]]
        packets = self._packets() if len(self.parts) > 1 else packets_of(self.video, self.stream)
        here = -math.inf
        while self.faults < _MOST_FAULTS:
            try:
                packet = next(packets)
                if packet.pts is not None and self.stream.time_base is not None:
                    here = float(packet.pts * self.stream.time_base) - self.video.clock.origin
                    if len(self.parts) > 1 and here < self.start - _FAR:
                        continue
                frames = packet.decode()
            except (StopIteration, av.error.EOFError):
                yield from self._rest()
                return
            except (av.error.FFmpegError, ValueError) as error:
                # An error before the stretch does not count: a decoder that enters a good file in its middle meets some.
                self.faults += self.start - 0.05 <= here < self.end
                if isinstance(error, av.error.OSError) and not isinstance(error, av.error.InvalidDataError):
                    return
                continue
            for frame in frames:
                yield from self._converted(frame)
            if here > self.end + 1.0:
                yield from self._rest()
                return

    def _packets(self) -> Iterator[av.Packet[av.audio.stream.AudioStream]]:
        """The packets of sound of a file whose clock starts anew, from its beginning on, with times that go on."""
        timeline, now = Timeline(self.video, probe(self.video).fps), self.parts[0].first
        for packet in packets_of(self.video, self.video.stream, self.stream):
            if packet.stream.index == self.video.stream.index:
                if packet.dts is not None and packet.size:
                    now = packet.dts * self.video.clock.base
                    timeline.place(cast("av.Packet[av.video.stream.VideoStream]", packet))
                continue
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None and self.stream.time_base is not None:
                at_work = min(timeline.restarts, len(self.parts) - 1)
                raw = float(time * self.stream.time_base)
                ticks = round(recording_of(self.parts, at_work, now, raw).offset / self.stream.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            yield cast("av.Packet[av.audio.stream.AudioStream]", packet)

    def _converted(self, frame: av.AudioFrame) -> Iterator[tuple[float, Samples]]:
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if frame.pts is None or frame.time_base is None:
            time = None
        else:
            time = float(frame.pts * frame.time_base) - self.video.clock.origin
        if time is not None and (time + frame.samples / max(1, frame.sample_rate) < self.start - 0.2):
            # This sound ends well before the stretch.
            return
        expected = None if self.base is None else self.base + self.given_in / max(1, frame.sample_rate)
        apart = time is not None and expected is not None and abs(time - expected) > _SLACK
        if self.resampler is None or kind != self.kind or apart:
            yield from self._rest()
            if time is None:
                return
            layout = "mono" if self.channels == 1 else "stereo"
            self.resampler, self.kind = av.AudioResampler("fltp", layout, self.rate), kind
            self.base, self.given, self.given_in = time, 0, 0
        self.given_in += frame.samples
        frame.pts = None  # The place of the frame is already known, more exactly than to the container's tick.
        yield from self._out(frame)

    def _rest(self) -> Iterator[tuple[float, Samples]]:
        """The samples that the resampler still holds. A new resampler is made for the next frame."""
        if self.resampler is not None:
            with suppress(av.error.FFmpegError, ValueError):
                yield from self._out(None)
        self.resampler, self.base = None, None

    given_in = 0  # Samples that the resampler was given since `base`.

    def _out(self, frame: av.AudioFrame | None) -> Iterator[tuple[float, Samples]]:
        assert self.resampler is not None
        assert self.base is not None
        try:
            made = self.resampler.resample(frame)
        except (av.error.FFmpegError, ValueError):
            self.faults += 1
            return
        for out in made:
            samples = np.ascontiguousarray(out.to_ndarray().reshape(self.channels, -1).T, np.float32)
            yield self.base + self.given / self.rate, samples
            self.given += len(samples)

    def _place(self, time: float, samples: Samples) -> None:
        """Write samples at their time: after silence, if sound is missing before them, and without their beginning, if sound is
        there already."""
        at = round((time - self.start) * self.rate)
        if at < self.written:
            samples = samples[self.written - at :]
        samples = samples[: max(0, self.total - max(at, self.written))]
        if not len(samples):
            return
        self._write(samples, until=max(at, self.written))

    def _write(self, samples: Samples, until: int) -> None:
        """Silence up to the sample `until`, then samples."""
        while self.written < until:
            gap = np.zeros((min(until - self.written, self.rate), self.channels), np.float32)
            self._add(gap)
        if len(samples):
            self._add(np.nan_to_num(samples))
            self.heard += len(samples)

    def _add(self, samples: Samples) -> None:
        self.meter.push(samples)
        self.written += len(samples)
        if self.file is not None:
            try:
                self.file.write(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
            except OSError as error:
                # The disk is at fault, and not the video.
                raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
