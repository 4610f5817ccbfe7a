"""Reading an open video: probe without decoding, decode forward. Times are seconds since the start of the video stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.error

from longtake.curation.errors import VideoError
from longtake.curation.reading.opening import UNKNOWN_FPS, Clock, OpenVideo, displayed_size
from longtake.curation.reading.orientation import track_rotations

_NO_TIMESTAMPS = 0x80  # ffmpeg's AVFMT_NOTIMESTAMPS, of raw streams


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a container says of its video, nothing decoded.

    width, height: displayed size, rotation and sample aspect ratio applied. coded_width, coded_height: of a decoded
    frame. rotation: clockwise, degrees. fps: average frames per second (nan if unknown). duration: seconds (nan if
    unknown). origin: the stream's first timestamp in the container, in seconds. frames: by the container's index, 0 if it
    has none. size: bytes of the file.
    """

    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    fps: float
    duration: float
    origin: float
    frames: int
    size: int
    codec: str
    pixel_format: str
    container: str
    has_audio: bool


@dataclass(slots=True)
class DecodedFrame:
    """A frame and its presentation time (seconds since the start of the video stream)."""

    time: float
    frame: av.VideoFrame


@dataclass(slots=True)
class DecodeCount:
    """What a pass met: packets read, frames decoded, packets and frames that were damaged, span of the timestamps."""

    packets: int = 0
    frames: int = 0
    corrupt: int = 0
    first: float = math.inf
    last: float = -math.inf

    @property
    def fps(self) -> float:
        """Average rate by the packets' own timestamps; nan with fewer than two."""
        return (self.packets - 1) / (self.last - self.first) if self.last > self.first else math.nan


def probe(video: OpenVideo) -> VideoInfo:
    """What the container says of `video`; decodes nothing. Raises VideoError if the stream has no size."""
    stream, container = video.stream, video.container
    context = stream.codec_context
    if not context.width or not context.height:
        raise VideoError("unsupported", "the video stream has no size: damaged, encrypted or not a real video stream")
    rotation = 0
    if "mp4" in container.format.name:
        position = video.file.tell()
        rotation = track_rotations(video.file).get(stream.id, 0)
        video.file.seek(position)
    duration = stream.duration * video.clock.base if stream.duration else (container.duration or 0) / 1e6
    width, height = displayed_size(context.width, context.height, rotation, stream.sample_aspect_ratio)
    rate = stream.average_rate or stream.guessed_rate
    if container.format.flags & _NO_TIMESTAMPS:  # a raw stream: the average is a mere default
        rate = stream.guessed_rate or rate
    return VideoInfo(
        width=width,
        height=height,
        coded_width=context.width,
        coded_height=context.height,
        rotation=rotation,
        fps=float(rate) if rate else math.nan,
        duration=duration or math.nan,
        origin=video.clock.origin,
        frames=stream.frames,
        size=video.size,
        codec=context.codec.canonical_name,
        pixel_format=context.pix_fmt or "",
        container=container.format.name,
        has_audio=bool(container.streams.audio),
    )


def missing_tail(video: OpenVideo) -> bool:
    """Whether the container's index names bytes that lie behind the end of the file: a file that was cut short."""
    entries = video.stream.index_entries
    if not len(entries) or not video.stream.frames:
        return False
    return any(e.pos + e.size > video.size for e in (entries[0], entries[len(entries) - 1]))


def decode(
    video: OpenVideo, info: VideoInfo, count: DecodeCount, *, all_frames: bool = False, since: float = -math.inf
) -> Iterator[DecodedFrame]:
    """Decode forward, one thread; times strictly increase. Frames no other frame refers to are skipped, unless
    `all_frames`: the pixels of the others are exact, at about half the time (design, section 6).

    Damaged packets, damaged frames and frames out of order are counted in `count`; the first and last are left out. since:
    seconds; damage before it does not count, since a decoder that enters in the middle of a good file meets some.
    """
    stream = video.stream
    context = stream.codec_context
    context.skip_frame = "DEFAULT" if all_frames else "NONREF"
    step = 1.0 / (info.fps if math.isfinite(info.fps) and info.fps > 0 else UNKNOWN_FPS)
    clock = Clock(video.clock.base or step, video.clock.origin)
    last = time = -math.inf
    packets = video.container.demux(stream)
    while True:
        try:
            packet = next(packets)
            if packet.pts is not None and packet.size:
                time = clock.seconds(packet.pts)
                count.first, count.last = min(count.first, time), max(count.last, time)
            if packet.pts is None and packet.dts is None and packet.size and not count.packets:
                context.skip_frame = "DEFAULT"  # a raw stream: only counting its frames tells the time
            count.packets += bool(packet.size)
            frames = packet.decode()
        except StopIteration:
            return
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError) as error:
            count.corrupt += time >= since
            if isinstance(error, av.error.PermissionError | av.error.OSError) and not isinstance(
                error, av.error.InvalidDataError | av.error.ArgumentError
            ):
                return
            if count.corrupt > 10_000:
                return
            continue
        for frame in frames:
            time = clock.seconds(frame.pts) if frame.pts is not None else last + step if count.frames else 0.0
            count.corrupt += bool(frame.is_corrupt) and time >= since
            if time > last:
                count.frames += 1
                last = time
                yield DecodedFrame(time, frame)
            else:
                count.corrupt += 1
