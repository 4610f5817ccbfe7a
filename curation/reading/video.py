"""Reading an open video: probe without decoding, decode forward. Times are seconds since the start of the video stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeAlias

import av
import av.error
import av.video.stream

from longtake.curation.errors import VideoError
from longtake.curation.reading.aperture import Aperture, of_matroska, of_mp4, within
from longtake.curation.reading.aspects import FROM_STREAM
from longtake.curation.reading.colour import colour_of, hdr, primaries_name, transfer_name
from longtake.curation.reading.cut_off import missing_end
from longtake.curation.reading.damage import Damage, Damages, is_end
from longtake.curation.reading.dolby_vision import is_without_base, without_base
from longtake.curation.reading.faults import words
from longtake.curation.reading.matroska import video_tracks
from longtake.curation.reading.mp4 import encrypted, odd_edits
from longtake.curation.reading.opening import OpenVideo, displayed_size, films
from longtake.curation.reading.orientation import UPRIGHT, Orientation, orientation_of, track_orientations
from longtake.curation.reading.progressive import Timed, whole_pictures
from longtake.curation.reading.spherical import projection_of, stereo_of
from longtake.curation.reading.timeline import MOST_IN_DOUBT, Rate, Timeline, rise
from longtake.curation.reading.turns import prefix_of

# Bytes. Packets are held back where nothing is wanted of them; they may take this much memory.
_HELD_BYTES = 64 * 2**20
# Frames per second. Such a rate, and any above, is that of the clock's ticks: recorders in browsers write no other.
_TICKS = 1000
_LEAST_CHUNK = 8  # Bytes. A frame in an AVI file has so many before its own: its kind and its size.
_NO_TIMESTAMPS = 0x80  # The value of AVFMT_NOTIMESTAMPS in ffmpeg: raw streams have it.
_TIMELESS = (
    "its frames have no timestamps (a raw stream?), so no clip could be cut out of it: put it into a container first, as with "
    "`ffmpeg -i FILE -c copy FILE.mkv`"
)
# The demuxer of ffmpeg passes over speeds, and fills a gap with frames that come elsewhere.
_EDITED = (
    "its edit list changes the speed of a part, or has a gap behind one, which is not read as players show it: "
    "`ffmpeg -ignore_editlist 1 -i FILE -c copy OTHER.mp4` makes a film of all its frames"
)


MOST_DAMAGES = 10_000  # A film with more of them is not read to its end.


_Packet: TypeAlias = "av.Packet[av.video.stream.VideoStream]"


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
    picture holds a sphere, and how two views, by ffmpeg's names; "" for a plain one, and before a frame was decoded.
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

    @property
    def bits_per_pixel(self) -> float:
        """Bits for each pixel of a coded frame; nan if rate or length are unknown."""
        pixels = self.coded_width * self.coded_height * self.fps
        return self.bit_rate / pixels if pixels > 0 else math.nan


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
    if not stream.duration and "matroska" in container.format.name:
        # Matroska counts its length from zero, wherever the film begins.
        duration = max(duration - max(video.clock.origin, 0.0), 0.0)
    if "mp4" in container.format.name and not stream.frames:
        # No header promises what the last fragment lacks.
        duration -= _missing_seconds(video)
    width, height = displayed_size(*shown, orientation.rotation, stream.sample_aspect_ratio)
    rate: Fraction | float | None = stream.average_rate
    if rate is not None and rate >= _TICKS:
        rate = stream.guessed_rate
    if container.format.name == "avi" and duration:
        duration, rate = _of_avi(video, duration)
    if container.format.flags & _NO_TIMESTAMPS:
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
        duration=duration or math.nan,
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
        streams_left_out=len(films(container)) - 1,
        cut_off=_missing_end(video),
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


def _told_by_container(video: OpenVideo) -> tuple[Orientation, Aperture | None]:
    """How pictures are turned, and what is shown of them, as far as the container says it and PyAV does not. Raises VideoError
    (unsupported) for film that is none."""
    stream, context, name = video.stream, video.stream.codec_context, video.container.format.name
    orientation, box, bare, locked, edited = UPRIGHT, None, False, False, False
    position = video.file.tell()
    if "mp4" in name:
        orientation = track_orientations(video.file).get(stream.id, UPRIGHT)
        box = of_mp4(video.file, stream.id, context.width, context.height)
        bare = stream.id in without_base(video.file)
        locked = stream.id in encrypted(video.file)
        edited = stream.id in odd_edits(video.file)
    elif "matroska" in name:
        # Its streams have no ids of their own, but the order of the tracks.
        at = [one.index for one in video.container.streams.video].index(stream.index)
        for track in video_tracks(video.file)[at : at + 1]:
            box = of_matroska(track, context.width, context.height)
            bare, locked = is_without_base(track), track.encrypted
    video.file.seek(position)
    if locked:
        raise VideoError("unsupported", "it is encrypted, and cannot be read without its key")
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
    position = video.file.tell()
    told = missing_end(video.file, known)
    video.file.seek(position)
    return told


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
    have no times.
    """
    counted = (lambda time: count) if isinstance(count, DecodeCount) else count
    context = video.stream.codec_context
    codec = context.codec.canonical_name
    video.damages.stop()
    video.damages = damages = Damages(codec, prefix_of(codec, context.extradata))
    frames = within(
        _decoded(video, info, counted, damages, all_frames, since, enough),
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


def _decoded(
    video: OpenVideo,
    info: VideoInfo,
    counted: Callable[[float], DecodeCount],
    damages: Damages,
    all_frames: bool,
    since: float,
    enough: Callable[[float], bool],
) -> Iterator[tuple[float, av.VideoFrame]]:
    context = video.stream.codec_context
    timeline = Timeline(video, info.fps)
    context.skip_frame = "DEFAULT"
    skips = False
    restarts, last, time = 0, -math.inf, -math.inf
    count = counted(time)
    count.rate.skip()
    video.gaps.skip()
    packets = video.turns.reading(damages.reading(video.container.demux(video.stream)))
    raw = bool(video.container.format.flags & _NO_TIMESTAMPS)
    streamed = video.container.format.name in FROM_STREAM
    held: list[_Packet] = []  # Nothing is wanted of these packets, if the film ends where its header says.
    held_bytes = 0
    waiting: deque[_Packet] = deque()
    early: list[av.VideoFrame] = []  # The first frames, until it is known what the times of their packets mean.
    before: av.VideoFrame | None = None  # The frame that was given last.
    lost_at = math.nan  # The time of the packet last counted as damaged because a part of it was lost.
    while True:
        try:
            if not waiting:
                packet = next(packets)
                if raw and packet.size and packet.pts is None and packet.dts is None:
                    raise VideoError("unsupported", _TIMELESS)
                raw = False
                aside = video.turns.is_aside(packet)
                shown = None if aside else timeline.place(packet)
                if shown is not None:
                    count = counted(shown)
                count.restarts += timeline.restarts - restarts
                restarts = timeline.restarts
                # A packet that an edit list leaves out is decoded, but never shown.
                if shown is not None and not packet.is_discard:
                    time = shown
                    video.turns.coming(time, packet)
                    count.last = max(count.last, time)
                    video.gaps.coming(time)
                    damages.coming(time, packet.is_keyframe)
                    count.rate.add(time, video.clock.seconds(packet.dts) if packet.dts is not None else time)
                count.packets += bool(packet.size) and not aside
                if count.digest is not None and packet.size:
                    count.digest.update(packet)
                if held and is_end(packet):
                    # This is the end of the video, so the packets in `held` are not decoded.
                    count.passed_over = len(held)
                    count.rate.finish()
                    return
                held.append(packet)
                held_bytes += packet.size
                if held_bytes < _HELD_BYTES and enough(count.last):
                    continue
                waiting.extend(held)
                held.clear()
                held_bytes = 0
            packet = waiting.popleft()
            if not packet.size and not is_end(packet):
                # The picture before is shown once more (Theora).
                moment = timeline.place(packet)
                if before is not None and moment is not None and moment > last:
                    time = last = moment
                    count = counted(time)
                    count.frames += 1
                    video.gaps.reached(time)
                    damages.shown(time, before)
                    yield time, before
                continue
            if skips == (all_frames or timeline.needs_all or (streamed and damages.is_final(packet))):
                skips = not skips
                context.skip_frame = "NONREF" if skips else "DEFAULT"
            if lost := damages.is_lost(packet):
                count.spoil(damages.met(time))
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if not video.turns.is_aside(packet):
                    raise
                # The decoder of H.264 finds an error in a packet without a picture, once it has read the parameter sets.
                continue
            if lost and time >= since:
                lost_at = time
                count.damage(time, "a part of the film is missing")
            if streamed and packet.pts is not None:
                video.aspects.note(video.clock.seconds(packet.pts), context.sample_aspect_ratio)
        except (StopIteration, av.error.EOFError):
            count.rate.finish()
            return
        except (av.error.FFmpegError, ValueError) as error:
            count = counted(time)
            count.spoil(damages.met(time))
            if time >= since:
                count.damage(time, f"does not decode ({words(error)})")
            if isinstance(error, av.error.PermissionError | av.error.OSError) and not isinstance(
                error, av.error.InvalidDataError | av.error.ArgumentError
            ):
                return
            if count.damaged > MOST_DAMAGES:
                return
            continue
        if timeline.in_doubt or early:
            early += frames
            if timeline.in_doubt and rise(early) and len(early) < MOST_IN_DOUBT and not is_end(packet):
                continue
            frames, early = early, []
            if timeline.in_doubt:
                timeline.settle(frames)
        for frame in frames:
            video.tag(frame)
            moment = timeline.time(frame)
            if moment is None:
                continue
            time = moment
            count = counted(time)
            if frame.is_corrupt:
                count.spoil(damages.met(time))
                if time >= since and time != lost_at:
                    count.damage(time, "a damaged frame")
            if time > last:
                damages.shown(time, frame)
                count.frames += 1
                video.gaps.reached(time)
                video.turns.see(time, frame)
                last, before = time, frame
                yield time, frame
            elif time < last:  # A second picture of the same moment is not shown, and is no damage.
                count.disordered += 1
