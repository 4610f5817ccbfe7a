"""What the container says of an open video, and what a frame adds to it. Times are seconds since the start of the stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.error
import av.video.stream

from longtake.curation.errors import VideoError
from longtake.curation.reading.aperture import Aperture, of_matroska, of_mp4
from longtake.curation.reading.aspects import FROM_STREAM
from longtake.curation.reading.colour import colour_of, hdr, primaries_name, transfer_name
from longtake.curation.reading.cut_off import missing_end
from longtake.curation.reading.dolby_vision import is_without_base, without_base
from longtake.curation.reading.gaps import is_gap
from longtake.curation.reading.matroska import video_tracks
from longtake.curation.reading.mp4 import encrypted, odd_edits, several_codecs
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, displayed_size, films
from longtake.curation.reading.orientation import UPRIGHT, Orientation, orientation_of, track_orientations
from longtake.curation.reading.spherical import projection_of, stereo_of

# Frames per second. Such a rate, and any above, is that of the clock's ticks: recorders in browsers write no other.
_TICKS = 1000
_LEAST_CHUNK = 8  # Bytes. A frame in an AVI file has so many before its own: its kind and its size.
NO_TIMESTAMPS = 0x80  # The value of AVFMT_NOTIMESTAMPS in ffmpeg: raw streams have it.
# The demuxer of ffmpeg passes over speeds, and fills a gap with frames that come elsewhere.
_EDITED = (
    "its edit list changes the speed of a part, or has a gap behind one, which is not read as players show it: "
    "`ffmpeg -ignore_editlist 1 -i FILE -c copy OTHER.mp4` makes a film of all its frames"
)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a container says of its video, nothing decoded.

    width, height: displayed size, rotation and sample aspect ratio applied. coded_width, coded_height: of a decoded frame, or of
    the part of it that is to be shown (aperture; None: all of it). rotation: clockwise, degrees. fps: average frames per second
    (nan if unknown). duration: seconds (nan if unknown). origin: the stream's first timestamp in the container, in seconds.
    frames: by the container's index, 0 if it has none. size: bytes of the file. mirrored: left to right, before it is turned.
    transfer, primaries: of its colours, by ffmpeg's names, "" where the file does not say. tone_mapped: it is HDR (PQ or
    HLG), and its pictures are mapped to SDR. bit_rate: of the video stream, bits a second, or of the whole file where the
    container does not tell; nan if unknown. streams_left_out: further video streams of the file, which are not read.
    cut_off: what is known of the end that the file lacks, "" if it is whole, as far as it tells. projection, stereo: how its
    picture holds a sphere, and how two views, by ffmpeg's names; "" for a plain one, and before a frame was decoded. store_tags:
    see `access.tags_of`.
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
    mirrored: bool = False
    transfer: str = ""
    primaries: str = ""
    tone_mapped: bool = False
    bit_rate: float = math.nan
    streams_left_out: int = 0
    cut_off: str = ""
    projection: str = ""
    stereo: str = ""
    aperture: Aperture | None = None
    store_tags: tuple[str, ...] = ()

    @property
    def bits_per_pixel(self) -> float:
        """Bits for each pixel of a coded frame; nan if rate or length are unknown."""
        pixels = self.coded_width * self.coded_height * self.fps
        return self.bit_rate / pixels if pixels > 0 else math.nan

    @property
    def assumed_fps(self) -> float:
        """The rate of its frames, and UNKNOWN_FPS where the container does not tell."""
        return self.fps if math.isfinite(self.fps) and self.fps > 0 else UNKNOWN_FPS


def probe(video: OpenVideo) -> VideoInfo:
    """What the container says of `video`; decodes nothing. Raises VideoError (unsupported) if the stream has no size, or no
    pictures that can be shown."""
    stream, container = video.stream, video.container
    context = stream.codec_context
    if not context.width or not context.height:
        raise VideoError("unsupported", "the video stream has no size: damaged, encrypted or not a real video stream")
    orientation, box = _told_by_container(video)
    shown = (box.width, box.height) if box else (context.width, context.height)
    duration = stream.duration * video.clock.base if stream.duration else (container.duration or 0) / 1e6
    if "matroska" in container.format.name:
        # Matroska counts its length from zero, wherever the film begins.
        duration = max(duration - video.clock.origin, 0.0)
    if container.format.name in FROM_STREAM and container.duration and container.start_time is not None:
        # The demuxer may take the length of the file for that of a stream, and sound may begin before the pictures.
        duration = min(duration, (container.start_time + container.duration) / 1e6 - video.clock.origin)
    if "mp4" in container.format.name and not stream.frames:
        # No header promises what the last fragment lacks. A live stream that was recorded from its middle on goes on with its
        # clock, and the demuxer counts the length from zero.
        entries = video.stream.index_entries
        duration -= _missing_seconds(video) + max(entries[0].timestamp if len(entries) else 0, 0) * video.clock.base
    width, height = displayed_size(*shown, orientation.rotation, stream.sample_aspect_ratio)
    rate: Fraction | float | None = stream.average_rate
    if rate is not None and rate >= _TICKS:
        rate = stream.guessed_rate
    if container.format.name == "avi" and duration:
        duration, rate = _of_avi(video, duration)
    if "mp4" in container.format.name:
        rate = _before_still_end(video, duration) or rate
    if container.format.flags & NO_TIMESTAMPS:
        # The average rate of a raw stream is a mere default.
        rate = stream.guessed_rate or rate
    if rate is not None and rate >= _TICKS:
        rate = None
    return VideoInfo(
        width=width,
        height=height,
        coded_width=shown[0],
        coded_height=shown[1],
        aperture=box,
        rotation=orientation.rotation,
        fps=float(rate) if rate else math.nan,
        duration=duration if duration > 0 else math.nan,
        origin=video.clock.origin,
        frames=stream.frames,
        size=video.size,
        codec=context.codec.canonical_name,
        pixel_format=context.pix_fmt or "",
        container=container.format.name,
        has_audio=bool(container.streams.audio),
        mirrored=orientation.mirrored,
        transfer=transfer_name(context.color_trc),
        primaries=primaries_name(context.color_primaries),
        tone_mapped=hdr(context.color_trc),
        bit_rate=_bit_rate(video, duration),
        streams_left_out=len(films(container)) - 1 + (video.layout.end < video.size),
        cut_off=_missing_end(video),
        store_tags=video.store_tags,
    )


def _of_avi(video: OpenVideo, duration: float) -> tuple[float, Fraction | float | None]:
    """Length in seconds (0 if unknown) and rate of an AVI film. duration: as ffmpeg says it, seconds."""
    stream, entries = video.stream, video.stream.index_entries
    guessed = stream.guessed_rate
    if len(entries) <= 1 and stream.frames != 1:
        # The index stands at the end, so a recording that broke off, or that was written into a pipe, has none. ffmpeg then makes
        # up a length. That of the header counts, unless so many frames, of eight bytes each at least, cannot be in the file.
        known = guessed and stream.frames * _LEAST_CHUNK <= video.size
        return (stream.frames / float(guessed) if known and guessed else 0.0), guessed
    # The index counts places for frames, many of which may be empty. Those behind the last frame are missing.
    count = sum(entry.size > 0 for entry in entries)
    whole = guessed is not None and abs(count - guessed * duration) <= 1
    return duration, guessed if whole else count / duration or stream.average_rate


def _before_still_end(video: OpenVideo, duration: float) -> Fraction | float | None:
    """The rate of the frames before a last one that stands for long, as in a recording of a screen; None for other films, and
    where no index tells of all frames. duration: of the film, seconds."""
    entries = video.stream.index_entries
    if len(entries) < max(video.stream.frames, 3) or not video.stream.frames:
        return None
    seconds = (entries[len(entries) - 1].timestamp - entries[0].timestamp) * video.clock.base
    return (len(entries) - 1) / seconds if seconds > 0 and is_gap(duration - seconds) else None


def _told_by_container(video: OpenVideo) -> tuple[Orientation, Aperture | None]:
    """How pictures are turned, and what is shown of them, as far as the container says it and PyAV does not. Raises VideoError
    (unsupported) for film that is none."""
    stream, context, name = video.stream, video.stream.codec_context, video.container.format.name
    orientation, box, bare, locked, edited = UPRIGHT, None, False, False, False
    kinds: list[str] = []
    position = video.file.tell()
    if "mp4" in name:
        orientation = track_orientations(video.file).get(stream.id, UPRIGHT)
        box = of_mp4(video.file, stream.id, context.width, context.height)
        bare = stream.id in without_base(video.file)
        locked = stream.id in encrypted(video.file)
        edited = stream.id in odd_edits(video.file)
        kinds = several_codecs(video.file).get(stream.id, [])
    elif "matroska" in name:
        # Its streams have no ids of their own, but the order of the tracks.
        at = [one.index for one in video.container.streams.video].index(stream.index)
        for track in video_tracks(video.file)[at : at + 1]:
            box = of_matroska(track, context.width, context.height)
            bare, locked = is_without_base(track), track.encrypted
    video.file.seek(position)
    if locked:
        raise VideoError("unsupported", "it is encrypted, and cannot be read without its key")
    if kinds:
        raise VideoError(
            "unsupported", f"parts of it are of several kinds ({', '.join(kinds)}), of which one only is read"
        )
    if edited:
        raise VideoError("unsupported", _EDITED)
    if bare:
        raise VideoError("unsupported", "Dolby Vision without a base that other players can show (profile 5)")
    return orientation, box


def _bit_rate(video: OpenVideo, seconds: float) -> float:
    """Bits a second of the video stream, or of the file; nan if neither is known."""
    if rate := video.stream.bit_rate:
        return float(rate)
    return 8 * video.size / seconds if video.size and seconds > 0 else math.nan


def as_shown(video: OpenVideo, info: VideoInfo, frame: av.VideoFrame) -> VideoInfo:
    """`info` with what only a decoded frame is sure to tell: how it is turned, its colours, and that it is no plain picture.
    Itself if the container told the same."""
    shown = orientation_of(frame)
    width, height = displayed_size(
        info.coded_width, info.coded_height, shown.rotation, video.stream.sample_aspect_ratio
    )
    colour = colour_of(frame)
    told = replace(
        info,
        width=width,
        height=height,
        rotation=shown.rotation,
        mirrored=shown.mirrored,
        transfer=transfer_name(frame.color_trc),
        primaries=primaries_name(frame.color_primaries),
        tone_mapped=hdr(colour.transfer),
        projection=projection_of(frame),
        stereo=stereo_of(frame),
    )
    return info if told == info else told


def resized(
    info: VideoInfo, width: int, height: int, aspect: float | None = None, turn: Orientation | None = None
) -> VideoInfo:
    """`info` for frames of another size as coded, px. aspect: of a sample; turn: how they are shown; None: as the film."""
    turn = Orientation(info.rotation, info.mirrored) if turn is None else turn
    stretch = (info.height if info.rotation % 180 else info.width) / info.coded_width if aspect is None else aspect
    shown = displayed_size(width, height, turn.rotation, stretch)
    return replace(
        info,
        width=shown[0],
        height=shown[1],
        coded_width=width,
        coded_height=height,
        rotation=turn.rotation,
        mirrored=turn.mirrored,
    )


def missing_tail(video: OpenVideo) -> bool:
    """Whether the container's index names bytes that lie behind the end of the file: a file that was cut short."""
    entries = video.stream.index_entries
    if not len(entries) or not video.stream.frames:
        return False
    return any(e.pos + e.size > video.size for e in (entries[0], entries[len(entries) - 1]))


def has_all_frames(video: OpenVideo) -> bool:
    """Whether the container has an index of all frames of the film, and their bytes are in the file."""
    return 0 < video.stream.frames <= len(video.stream.index_entries) and not missing_tail(video)


def _missing_seconds(video: OpenVideo) -> float:
    """How long the frames are shown whose bytes, by the index, lie behind the end of the file, seconds."""
    entries = video.stream.index_entries
    last = present = len(entries) - 1
    while present > 0 and entries[present].pos + entries[present].size > video.size:
        present -= 1
    return (entries[last].timestamp - entries[present].timestamp) * video.clock.base if present < last else 0.0


def _missing_end(video: OpenVideo) -> str:
    indices = [stream.index_entries for stream in video.container.streams]
    known = max((each[len(each) - 1].pos + each[len(each) - 1].size for each in indices if len(each)), default=0)
    known = max(known, video.layout.boxes)
    position = video.file.tell()
    told = missing_end(video.file, known)
    video.file.seek(position)
    return told
