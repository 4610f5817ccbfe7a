"""Opening video: by URI or from an open file, one way, one clock and one table of errors for scan and export.

Everything here runs on one thread (FRAME and AUTO threading deadlock at close on corrupt H.264, PyAV 18.1) and with
PyAV's log callback off (it deadlocks too).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import av
import av.container
import av.error
import av.video.stream

from longtake.curation.access import Source, open_source
from longtake.curation.errors import VideoError
from longtake.manifests.folder import local_path

# Only containers that hold their own frames: a playlist or a concat script would make the decoder open what it names.
CONTAINER_OPTIONS: dict[str, str] = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,h264,hevc,vvc,av1,obu,"
    "ivf,m4v,mxf,nut,rm,dv,y4m,yuv4mpegpipe,wav,mp3,flac,aac,gif,image2,png_pipe,jpeg_pipe"
}
UNKNOWN_FPS = 25.0  # what a raw stream without timing is played at (ffmpeg's default)


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of a video: seconds since the start of its stream. base: seconds to a tick of the container's clock, 0 where
    it has none. origin: what the container's clock shows at the start, in seconds."""

    base: float
    origin: float

    def seconds(self, ticks: int) -> float:
        """What a timestamp of the stream is on this clock."""
        return ticks * self.base - self.origin

    def ticks(self, seconds: float) -> int:
        """The last tick at or before a moment of this clock; needs a base."""
        return math.floor((seconds + self.origin) / self.base)


@dataclass(slots=True)
class OpenVideo:
    """A video that is open for reading."""

    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    clock: Clock
    file: BinaryIO
    size: int


@contextmanager
def open_video(source: str | Source | BinaryIO) -> Iterator[OpenVideo]:
    """Open the best video stream of `source`, set to decode on one thread. source: a URI, alone or with its access, or an
    open, seekable binary file, which stays open. Raises VideoError: input, missing, unreadable, unreachable, empty,
    not_video, no_video, unsupported."""
    av.logging.set_level(None)  # the log callback deadlocks
    source = Source(source) if isinstance(source, str) else source
    remote = isinstance(source, Source) and local_path(source.uri) is None
    with ExitStack() as stack:
        file = stack.enter_context(_open_file(source)) if isinstance(source, Source) else source
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size == 0:
            raise VideoError("empty", "the file has zero bytes")
        try:
            # A path goes through a file as well: libav would find protocols and patterns in its name.
            container = stack.enter_context(av.open(file, "r", options=CONTAINER_OPTIONS))
        except OSError as error:
            raise VideoError("unreachable" if remote else "unreadable", words(error)) from error
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError("not_video", f"no container that this project reads: {words(error)}") from error
        stream = _video_stream(container)
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = 1
        base = float(stream.time_base) if stream.time_base else 0.0
        clock = Clock(base, stream.start_time * base if stream.start_time is not None else 0.0)
        yield OpenVideo(container, stream, clock, file, size)


@contextmanager
def _open_file(source: Source) -> Iterator[BinaryIO]:
    path = local_path(source.uri)
    remote = path is None
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        # to open a pipe would wait for its writer, and a device may never end
        raise VideoError("unreadable", "it is no file, but a folder, a pipe, a socket or a device")
    try:
        opened = open_source(source)
    except VideoError:
        raise
    except FileNotFoundError as error:
        if remote and isinstance(error.__cause__, OSError):  # so fsspec says that it cannot connect
            raise VideoError("unreachable", words(error.__cause__)) from error
        raise VideoError("missing", "no such file" if not remote else f"not found: {words(error)}") from error
    except (OSError, TimeoutError) as error:
        raise VideoError("unreachable" if remote else "unreadable", words(error)) from error
    except Exception as error:  # clients of object stores have errors of their own
        raise VideoError("unreachable" if remote else "unreadable", words(error)) from error
    with cast(Any, opened) as file:
        yield file


def words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, av.error.FFmpegError):
        return os.strerror(error.errno)
    return str(error).split(": '")[0].split("; last error log")[0][:300] or type(error).__name__


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
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


def displayed_size(width: int, height: int, rotation: int, aspect: Any) -> tuple[int, int]:
    """Size on a screen with square pixels: the sample aspect ratio stretches the width, then the picture is turned."""
    if aspect and aspect > 0:
        width = max(1, round(width * float(aspect)))
    return (height, width) if rotation % 180 else (width, height)
