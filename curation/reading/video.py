"""Reading video: open by URI, probe without decoding, decode forward.

Everything here runs on one thread (FRAME and AUTO threading deadlock at close on corrupt H.264, PyAV 18.1) and with
PyAV's log callback off (it deadlocks too). Times are seconds since the start of the video stream.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import av
import av.container
import av.error
import av.video.stream
import fsspec

from longtake.curation.errors import VideoError
from longtake.curation.reading.orientation import track_rotations
from longtake.curation.uris import local_path

# Only containers that hold their own frames: a playlist or a concat script would make the decoder open what it names.
CONTAINER_OPTIONS: dict[str, str] = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,h264,hevc,vvc,av1,obu,"
    "ivf,m4v,mxf,nut,rm,dv,y4m,yuv4mpegpipe,wav,mp3,flac,aac,gif,image2,png_pipe,jpeg_pipe"
}
UNKNOWN_FPS = 25.0  # what a raw stream without timing is played at (ffmpeg's default)
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
class OpenVideo:
    """A video that is open for reading: hand it to `probe` and `decode`."""

    uri: str
    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    file: BinaryIO
    size: int


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


@contextmanager
def open_video(uri: str) -> Iterator[OpenVideo]:
    """Open the best video stream at `uri`. Raises VideoError: missing, unreadable, unreachable, empty, not_video,
    no_video, unsupported."""
    av.logging.set_level(None)  # the log callback deadlocks
    with _open_file(uri) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            raise VideoError("empty", "the file has zero bytes")
        try:
            container = av.open(file, "r", options=CONTAINER_OPTIONS)
        except OSError as error:
            raise VideoError("unreachable" if local_path(uri) is None else "unreadable", _words(error)) from error
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError("not_video", f"no known container: {_words(error)}") from error
        with container:
            yield OpenVideo(uri, container, video_stream(container), file, size)


@contextmanager
def _open_file(uri: str) -> Iterator[BinaryIO]:
    path = local_path(uri)
    remote = path is None
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        # to open a pipe would wait for its writer, and a device may never end
        raise VideoError("unreadable", "it is no file, but a folder, a pipe, a socket or a device")
    try:
        opened = fsspec.open(uri, "rb").open() if path is None else open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        if remote and isinstance(error.__cause__, OSError):  # so fsspec says that it cannot connect
            raise VideoError("unreachable", _words(error.__cause__)) from error
        raise VideoError("missing", "no such file" if not remote else f"not found: {_words(error)}") from error
    except (OSError, TimeoutError) as error:
        raise VideoError("unreachable" if remote else "unreadable", _words(error)) from error
    except Exception as error:  # clients of object stores have errors of their own
        raise VideoError("unreachable" if remote else "unreadable", _words(error)) from error
    with cast(Any, opened) as file:
        yield file


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, av.error.FFmpegError):
        return os.strerror(error.errno)
    return str(error).split(": '")[0].split("; last error log")[0][:300] or type(error).__name__


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The video in a container: the best stream that is not a cover picture. Raises VideoError (no_video, unsupported)."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise VideoError("no_video", "there is no video stream in it (audio only, or a cover picture)")
    best = container.streams.best("video")
    stream = best if best in streams and isinstance(best, av.video.stream.VideoStream) else streams[0]
    if stream.codec_context is None:
        raise VideoError("unsupported", "there is no decoder for its video stream")
    return stream


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
    base = float(stream.time_base) if stream.time_base else 0.0
    duration = stream.duration * base if stream.duration else (container.duration or 0) / 1e6
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
        origin=stream.start_time * base if stream.start_time is not None else 0.0,
        frames=stream.frames,
        size=video.size,
        codec=context.codec.canonical_name,
        pixel_format=context.pix_fmt or "",
        container=container.format.name,
        has_audio=bool(container.streams.audio),
    )


def displayed_size(width: int, height: int, rotation: int, aspect: Any) -> tuple[int, int]:
    """Size on a screen with square pixels: the sample aspect ratio stretches the width, then the picture is turned."""
    if aspect and aspect > 0:
        width = max(1, round(width * float(aspect)))
    return (height, width) if rotation % 180 else (width, height)


def missing_tail(video: OpenVideo) -> bool:
    """Whether the container's index names bytes that lie behind the end of the file: a file that was cut short."""
    entries = video.stream.index_entries
    if not len(entries) or not video.stream.frames:
        return False
    return any(e.pos + e.size > video.size for e in (entries[0], entries[len(entries) - 1]))


def decode(
    video: OpenVideo, info: VideoInfo, count: DecodeCount, *, all_frames: bool = False
) -> Iterator[DecodedFrame]:
    """Decode forward, one thread; times strictly increase. Frames no other frame refers to are skipped, unless
    `all_frames`: the pixels of the others are exact, at about half the time (design, section 6).

    Damaged packets, damaged frames and frames out of order are counted in `count`; the first and last are left out.
    """
    stream = video.stream
    context = stream.codec_context
    context.thread_type = "SLICE"
    context.thread_count = 1
    context.skip_frame = "DEFAULT" if all_frames else "NONREF"
    step = 1.0 / (info.fps if math.isfinite(info.fps) and info.fps > 0 else UNKNOWN_FPS)
    base = float(stream.time_base) if stream.time_base else step
    last = -math.inf
    packets = video.container.demux(stream)
    while True:
        try:
            packet = next(packets)
            if packet.pts is not None and packet.size:
                time = packet.pts * base - info.origin
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
            count.corrupt += 1
            if isinstance(error, av.error.PermissionError | av.error.OSError) and not isinstance(
                error, av.error.InvalidDataError | av.error.ArgumentError
            ):
                return
            if count.corrupt > 10_000:
                return
            continue
        for frame in frames:
            time = frame.pts * base - info.origin if frame.pts is not None else last + step if count.frames else 0.0
            count.corrupt += bool(frame.is_corrupt)
            if time > last:
                count.frames += 1
                last = time
                yield DecodedFrame(time, frame)
            else:
                count.corrupt += 1
