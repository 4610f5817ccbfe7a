"""Opening video: by URI or from an open file, one way, one clock and one table of errors for scan and export.

Everything here runs on one thread (FRAME and AUTO threading deadlock at close on corrupt H.264, PyAV 18.1) and with
PyAV's log callback off (it deadlocks too).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import av.container
import av.error
import av.stream
import av.video.stream
import fsspec
from av.codec.context import Flags
from av.video.reformatter import ColorRange

from longtake.curation.access import Source, is_plain_file, open_source, tags_of
from longtake.curation.errors import VideoError
from longtake.curation.reading.aspects import FROM_STREAM, Aspects
from longtake.curation.reading.cut_off import cut_off
from longtake.curation.reading.damage import Damages
from longtake.curation.reading.faults import Watched, is_away, is_away_remotely, kind_of, waiting, watched, words
from longtake.curation.reading.fragments import Layout, layout
from longtake.curation.reading.gaps import Gaps
from longtake.curation.reading.holes import Holes
from longtake.curation.reading.matroska import first_times, video_tracks
from longtake.curation.reading.turns import Turns, prefix_of
from longtake.manifests.folder import local_path
from longtake.manifests.members import MemberError, file_of

# These containers hold their own frames. A playlist or a concat script would make the decoder open the files that it names.
CONTAINER_OPTIONS: dict[str, str] = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,h264,hevc,vvc,av1,obu,"
    "ivf,m4v,mxf,nut,rm,dv,y4m,yuv4mpegpipe,wav,mp3,flac,aac,gif,apng,image2,png_pipe,jpeg_pipe"
}
# Microseconds and bytes. So far ahead is looked for the first pictures of a film of which the demuxer has met none: sound may
# begin long before them, and a recording within a long group of pictures.
_FARTHER = {"analyzeduration": "60000000", "probesize": "50000000"}
_UNSPECIFIED = 2  # The number of ITU-T H.273 for a tag that is not given.
# Decoders that name BT.601 for every film, since the format has no other matrix; encoders put any film into it as it is.
_ONE_MATRIX = ("vp8", "libvpx")
_MOMENT = "00:00:00.1"  # Hours, minutes and seconds. A stream that ends before holds one frame, or a few.
UNKNOWN_FPS = 25.0  # Frames per second. A raw stream without timing is played at this rate (ffmpeg's default).


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
    """A video that is open for reading. tags: primaries, transfer and matrix by its container, numbers of ITU-T H.273. full: its
    container says that the whole range of numbers is used. aspects, turns, gaps: its sample aspect ratios, how its pictures are
    turned, and where it has no new frame, as far as it was read. early: place of a packet in the file → its time in ticks, of
    those whose time the demuxer does not tell. damages: what of it does not decode, as far as the newest run of a decoder has met
    it. store_tags: see `access.tags_of`."""

    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    clock: Clock
    file: BinaryIO
    size: int
    tags: tuple[int, int, int]
    full: bool
    aspects: Aspects
    turns: Turns
    gaps: Gaps
    early: dict[int, int]
    layout: Layout
    damages: Damages = field(default_factory=Damages)
    store_tags: tuple[str, ...] = ()

    def tag(self, frame: av.VideoFrame) -> None:
        """Add what the container says of the colours of a decoded frame, where the frame itself says nothing. The full range
        counts in any case: the decoders of HEVC and VP9 take a silent stream for one of the limited range, and of two words the
        container's is the last (ISO/IEC 14496-12, 12.1.5)."""
        if self.full:
            frame.color_range = ColorRange.JPEG
        if self.stream.codec_context.name in _ONE_MATRIX:
            frame.colorspace = _UNSPECIFIED
        for name, tag in zip(("color_primaries", "color_trc", "colorspace"), self.tags, strict=True):
            if getattr(frame, name) == _UNSPECIFIED:
                setattr(frame, name, tag)


@contextmanager
def open_video(source: str | Source | BinaryIO) -> Iterator[OpenVideo]:
    """Open the best video stream of `source`, set to decode on one thread. source: a URI, alone or with its access, or an
    open, seekable binary file, which stays open. Raises VideoError: input, what is wrong with the source (`kind_of`), empty,
    not_video, no_video, truncated, unsupported.

    If a read of the source fails within the block, that is what the block raises at its end, whatever the decoder made of
    it.
    """
    av.logging.set_level(None)  # The log callback deadlocks.
    source = Source(source) if isinstance(source, str) else source
    with ExitStack() as stack:
        if isinstance(source, Source):
            remote = local_path(source.uri) is None
            opened = stack.enter_context(source_file(source))
        else:
            remote = not isinstance(source, io.BufferedReader | io.FileIO)
            opened = source
        file, watch = watched(opened, remote)
        try:
            video = _opened(stack, file, watch, remote)
            video.store_tags = tags_of(opened)
            yield video
        except Exception:
            watch.raise_fault()
            raise
        watch.raise_fault()


def _opened(stack: ExitStack, file: BinaryIO, watch: Watched, remote: bool) -> OpenVideo:
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError) as error:
        raise VideoError(kind_of(error, remote), f"its size is not known: {words(error)}") from error
    if size == 0:
        raise VideoError("empty", "the file has zero bytes")
    known = layout(file, size, by_index=remote)
    watch.end, watch.instead = known.end, known.instead
    file.seek(0)
    try:
        # A path is opened as a file as well: libav would find protocols and patterns in its name.
        container = stack.enter_context(av.open(file, "r", options=CONTAINER_OPTIONS))
    except (av.error.FFmpegError, ValueError) as error:
        _require_end(file)
        raise VideoError("not_video", f"no container that this project reads: {words(error)}") from error
    except OSError as error:
        raise VideoError(kind_of(error, remote), words(error)) from error
    if not films(container):
        _require_end(file)
    stream = _video_stream(container)
    if stream.codec_context.pix_fmt is None:
        container.close()
        file.seek(0)
        container = stack.enter_context(av.open(file, "r", options=CONTAINER_OPTIONS | _FARTHER))
        stream = _video_stream(container)
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    # Without this flag, a picture that is cropped on its left keeps more of its width than its header says.
    stream.codec_context.flags |= Flags.unaligned
    base = float(stream.time_base) if stream.time_base else 0.0
    early = _early(container, stream, file)
    clock = Clock(base, min(early.values(), default=stream.start_time or 0) * base)
    context = stream.codec_context  # Some decoders forget these tags with the first frame (HEVC).
    tags = int(context.color_primaries), int(context.color_trc), int(context.colorspace)
    full, aspects = int(context.color_range) == ColorRange.JPEG, Aspects(stream.sample_aspect_ratio)
    return OpenVideo(
        container,
        stream,
        clock,
        file,
        size,
        tags,
        full,
        aspects,
        Turns(context.name, container.format.name in FROM_STREAM, prefix_of(context.name, context.extradata)),
        Gaps(),
        early,
        known,
    )


def _early(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, file: BinaryIO
) -> dict[int, int]:
    """See `OpenVideo.early`."""
    if "matroska" not in container.format.name:
        return {}
    position = file.tell()
    at = [one.index for one in container.streams.video].index(stream.index)
    early = [first_times(file, track.number) for track in video_tracks(file)[at : at + 1]]
    file.seek(position)
    return early[0] if early else {}


def packets_of(video: OpenVideo, *streams: av.stream.Stream) -> Iterator[av.Packet[Any]]:
    """The packets of some streams of a film, or of all. Where zeros stand in a transport stream, as on a disk with a fault, the
    demuxer gives up after some kilobytes, and goes on if it is asked again."""
    holes = Holes(video.container.format.name, video.stream, bool(video.layout.instead))
    while True:
        try:
            for packet in video.container.demux():
                if holes.before(packet):
                    video.damages.hole(behind_whole=True)
                if not streams or packet.stream in streams:
                    yield packet
            return
        except av.error.BlockingIOError:
            # The demuxer had begun the packet that it gives next.
            video.damages.hole(behind_whole=False)
        except IndexError:
            # The film is over: PyAV then asks for what is left of streams, too, that began in its middle, and knows none of them.
            return
        except av.error.FFmpegError:
            # Nothing more can be read, but decoders hold back frames of what was.
            for stream in streams or video.container.streams:
                end: av.Packet[Any] = av.Packet()
                end.stream = stream
                yield end
            raise


def _require_end(file: BinaryIO) -> None:
    """Raises VideoError (truncated) if a file in which no film is found was cut off."""
    if told := cut_off(file):
        raise VideoError("truncated", told)


@contextmanager
def source_file(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a source, seekable: of a member of an archive, its own. Raises VideoError: input, missing, not_a_file,
    not_video (no archive or table), truncated, and all faults of the world."""
    uri = source.uri if is_plain_file(source.uri) else file_of(source.uri)
    path = local_path(uri)
    try:
        if path is not None and os.path.exists(path) and not os.path.isfile(path):
            # Opening a pipe would wait for its writer, and reading a device may never end.
            raise VideoError("not_a_file", "it is no file, but a folder, a pipe, a socket or a device")
        with waiting():
            opened = open_source(source)
    except VideoError:
        raise
    except MemberError as error:
        raise VideoError(kind_of(error, remote=path is None), words(error)) from error
    except Exception as error:
        # Clients of object stores raise errors of their own.
        kind = kind_of(error, remote=path is None)
        if kind == "missing" and _is_away(uri, path):
            raise VideoError("away", f"its folder is not there, or lists nothing; {_not_found(path, error)}") from error
        raise VideoError(kind, _not_found(path, error) if kind == "missing" else words(error)) from error
    with cast(Any, opened) as file:
        yield file


def _not_found(path: Path | None, error: Exception) -> str:
    return "no such file" if path is not None else f"not found: {words(error)}"


def _is_away(uri: str, path: Path | None) -> bool:
    if path is not None:
        return is_away(path)
    filesystem, inside = fsspec.core.url_to_fs(uri)
    return is_away_remotely(filesystem, str(inside))


def films(container: av.container.InputContainer) -> list[av.video.stream.VideoStream]:
    """The video streams in a container that are no pictures beside the film: covers, and streams of a single frame, such as the
    thumbnails of cameras, if there are others. A player takes the stream that is marked as the default one, even if it is one
    of these."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    return [stream for stream in streams if not _is_picture(stream)] or streams


def _is_picture(stream: av.video.stream.VideoStream) -> bool:
    """Whether a stream holds a single frame, as far as its container says: MP4 by its index, Matroska by its tags."""
    told = stream.metadata.get("NUMBER_OF_FRAMES", ""), stream.metadata.get("DURATION", "")
    return stream.frames == 1 or told[0] == "1" or (not told[0] and "" < told[1] < _MOMENT)


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The video in a container: the best stream that is not a cover picture. Raises VideoError (no_video, unsupported)."""
    streams = films(container)
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
