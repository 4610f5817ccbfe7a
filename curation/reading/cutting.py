"""Cutting a clip out of its video: decode the span, bring it to a constant rate, encode H.264, and look at the result.

The encoded clip has square pixels, is upright, 8 bit, 4:2:0, BT.709, limited range, and carries nothing of its source
but the pictures, and its sound where that is asked for: no metadata, no subtitles. All on one thread; memory does not grow
with the length of the clip or of the video.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import av
import av.container
import av.error
import av.video.stream
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, VideoReformatter

from longtake.curation.errors import VideoError, is_of_the_world
from longtake.curation.reading.aspects import Aspects
from longtake.curation.reading.box import Box
from longtake.curation.reading.colour import KNOWN, Colour, Mapper, colour_of, with_chroma
from longtake.curation.reading.combs import uncombed
from longtake.curation.reading.faults import words
from longtake.curation.reading.opening import UNKNOWN_FPS, OpenVideo, displayed_size, open_video
from longtake.curation.reading.orientation import UPRIGHT, Orientation, orientation_of
from longtake.curation.reading.sizes import Size, changes, size_of
from longtake.curation.reading.sound import Sound, read_sound
from longtake.curation.reading.video import DecodeCount, decode, probe
from longtake.manifests.folder import whole_file

T = TypeVar("T")
Planes = npt.NDArray[np.uint8]  # A picture in I420, of the shape [height * 3 / 2, width].

_CLOCK = 1e-6  # Seconds. Two times nearer than this are one, apart from the noise of adding up floats.
# Seconds. Two frames are equally near within this: Matroska rounds times to milliseconds, and such a tie must always fall the
# same way, or the clip would judder.
_TIE = 1e-3
# Seconds before the span at which a keyframe is looked for. None is the beginning of the video.
_LEADS = (0.0, 5.0, 60.0, None)
_WITNESSES = 9  # Frames. The pictures of this many frames are compared after encoding.
_SOUND_FRAME = 1024  # Samples in a frame of AAC.
# Bits per second and channel: with so many, AAC is nearly the same as its source.
_SOUND_BITS = 96_000
# Grey levels, the mean over a thumbnail of 16×9. Compression makes 0.2 at crf 18 and 2.4 at crf 45.
_MAX_DIFFERENCE = 5.0


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """What a clip is encoded to.

    fps: constant frames per second; None keeps the source's average rate. frames: exactly so many, from the start of
    the span; None: as many as the span holds. max_height: pixels; taller clips are shrunk, none is enlarged. crf: 0
    (lossless) to 51. keyframe_interval: at most so many frames from one keyframe to the next; a reader that fetches
    frames by index decodes half of that for nothing. keep_audio: the sound is carried along, as AAC. Raises ValueError.
    """

    fps: float | None = 30.0
    frames: int | None = 450
    max_height: int | None = None
    preset: str = "veryfast"
    crf: float = 18.0
    keyframe_interval: int = 30
    keep_audio: bool = False

    def __post_init__(self) -> None:
        if self.fps is not None and not 1 <= self.fps <= 240:
            raise ValueError(f"fps must be from 1 to 240, not {self.fps}")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames must be at least 1, not {self.frames}")
        if self.max_height is not None and self.max_height < 16:
            raise ValueError(f"max_height must be at least 16, not {self.max_height}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be from 0 to 51, not {self.crf}")
        if self.keyframe_interval < 1:
            raise ValueError(f"keyframe_interval must be at least 1, not {self.keyframe_interval}")


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip as it lies on disk. width, height: pixels. fps: constant. bytes: size of the file. sha256: of the file. sound: what
    became of the video's, None: nobody asked for it."""

    frames: int
    width: int
    height: int
    fps: float
    bytes: int
    sha256: str
    sound: Sound | None = None


def cut_clip(
    source: str | BinaryIO,
    start: float,
    end: float,
    target: Path,
    settings: EncodeSettings,
    pace: float = 1.0,
    *,
    seek: bool = True,
    crop: Box | None = None,
    fields_since: float = math.inf,
) -> EncodedClip:
    """Cut [start, end) out of `source`, encode it to `target` (MP4), check it by decoding it, and only then name it so.

    source: an absolute local path, or an open, seekable binary file. start, end: seconds
    since the start of the video stream, the clock of the scan. Output frame k shows
    the source frame nearest to start + k · pace / fps, the earlier of two equally near; no frame outside of [start,
    end) is used. pace: seconds of the source per second of the clip, above 1 to show a long
    span in fewer frames. The span may lack up to half an output frame at its end. seek: False for a video whose clock starts
    anew, where one time is in several places: it is then read from its beginning. crop: what is kept of the upright picture at
    its displayed size; the clip shows nothing else. fields_since: the second from which on the film holds fields, as the scan has
    found it.

    Raises VideoError for what is wrong with the video or the span, OSError (disk full, no permission) for what is
    wrong with `target`, ValueError for arguments that make no sense. A `target` that exists is replaced, or, after an
    error, left as it is.
    """
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"a span must have a start before its end, not [{start}, {end})")
    if isinstance(source, str) and not os.path.isabs(source):
        raise ValueError(f"the source must be an absolute local path, not {source!r}")
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    sound = _sound(source, start, end, settings, pace, seek) if settings.keep_audio else None
    with whole_file(target) as part, closing(sound.samples) if sound and sound.samples else nullcontext():
        wanted = _encode_span(source, start, end, part, settings, pace, seek, crop, sound, fields_since)
        _check(part, wanted)
        size, digest = _settle(part)
    return EncodedClip(wanted.frames, wanted.width, wanted.height, float(wanted.fps), size, digest, sound)


def _sound(
    source: str | BinaryIO, start: float, end: float, settings: EncodeSettings, pace: float, seek: bool
) -> Sound:
    """The sound of a clip, as long as its pictures are shown; without any where it would not be in step with them."""
    if pace != 1.0:
        return Sound("left out: the clip is faster")
    if not seek:
        return Sound("left out: the video's clock starts anew")
    if settings.fps is None:
        with open_video(source) as video:
            fps = _source_fps(video)
    else:
        fps = Fraction(settings.fps).limit_denominator(1001)
    count = settings.frames or max(1, round((end - start) * fps))
    return read_sound(source, start, float(count / fps))


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Span:
    """What reading a span has shown so far. Times in seconds.

    source_fps: average rate of the video. aspects: of its samples. earlier: a frame before the span was seen. ended: the
    video has no further frame, and none after the span was seen. first: time of the first frame. stop: when the last
    one ends, as far as is known.
    """

    source_fps: Fraction
    aspects: Aspects
    earlier: bool = False
    ended: bool = False
    first: float = math.nan
    stop: float = -math.inf


@contextmanager
def _open_span(
    source: str | BinaryIO, start: float, end: float, seek: bool
) -> Iterator[tuple[_Span, Iterator[tuple[float, av.VideoFrame]]]]:
    """The frames of [start, end) in order, with their times; the `_Span` is filled in as they are read.

    Decoding begins at a keyframe before the span. Where a container's index leads behind it (transport streams, leading
    pictures), the file is opened again and read from farther back, in the end from its beginning.
    """
    for lead in _LEADS if seek else (None,):
        with open_video(source) as video:
            if not _go_to(video, start, lead):
                continue
            span = _Span(_source_fps(video), video.aspects)
            frames = _frames(video, start)
            try:
                ahead = next(frames, None)
            except VideoError:
                if lead is None:
                    raise
                continue
            if lead is not None and (ahead is None or ahead[0] > start + _CLOCK):
                continue
            yield span, _within(span, frames, ahead, start, end)
            return


def _source_fps(video: OpenVideo) -> Fraction:
    fps = probe(video).fps
    return Fraction(fps).limit_denominator(1001) if 1 <= fps <= 240 else Fraction(UNKNOWN_FPS)


def _go_to(video: OpenVideo, start: float, lead: float | None) -> bool:
    """Whether decoding may begin: at a keyframe `lead` before `start`, or at the beginning."""
    first = video.stream.start_time
    if lead is None or not video.clock.base or first is None:
        return lead is None
    ticks = video.clock.ticks(start - lead + _CLOCK)
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
    enters in the middle of a good file meets that too. From there on it is an error."""
    count = DecodeCount()
    for decoded in decode(video, probe(video), count, all_frames=True, since=start - _CLOCK):
        _require_undamaged(count)
        yield decoded.time, decoded.frame
    _require_undamaged(count)


def _require_undamaged(count: DecodeCount) -> None:
    if count.damaged:
        raise VideoError("corrupt", count.fault)


def _within(
    span: _Span,
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
        if time >= end - _CLOCK:
            return
        if time < start - _CLOCK:
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
    earlier of two that are equally near (to a millisecond). Holds two items; gives nothing if there are no frames."""
    wanted = iter(times)
    time = next(wanted, None)
    held: tuple[float, T] | None = None
    for late, item in frames:
        if held is not None:
            middle = (held[0] + late) / 2 + _TIE
            while time is not None and time <= middle:
                yield held[1]
                time = next(wanted, None)
        if time is None:
            return
        held = late, item
    while held is not None and time is not None:
        yield held[1]
        time = next(wanted, None)


# Encoding -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Wanted:
    """What must come out: frames at `fps`, their size, and thumbnails of some of them by frame number; sound of so many samples a
    second, 0: none."""

    frames: int
    fps: Fraction
    sound_rate: int = 0
    width: int = 0
    height: int = 0
    thumbnails: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)


def _encode_span(
    source: str | BinaryIO,
    start: float,
    end: float,
    part: Path,
    settings: EncodeSettings,
    pace: float,
    seek: bool = True,
    crop: Box | None = None,
    sound: Sound | None = None,
    fields_since: float = math.inf,
) -> _Wanted:
    with _open_span(source, start, end, seek) as (span, frames):
        fps = span.source_fps if settings.fps is None else Fraction(settings.fps).limit_denominator(1001)
        step = pace / float(fps)  # Seconds of the source from one frame to the next.
        held = (end - start) / step
        count = max(1, round(held)) if settings.frames is None else settings.frames
        if held < count - 0.5 - _CLOCK:
            reason = f"{end - start:.3f} s at {float(fps):g} fps are {held:.1f} frames, not {count}"
            raise VideoError("too_short", reason)
        wanted = _Wanted(count, fps, sound_rate=sound.rate if sound and sound.audible else 0)
        witnesses = set(np.linspace(0, count - 1, _WITNESSES).round().astype(int).tolist())
        timed = ((time, (time, frame)) for time, frame in _of_one_size(frames, span.aspects))
        chosen = nearest_in_time(timed, (start + k * step for k in range(count)))
        shown = next(chosen, None)
        if shown is None:
            raise VideoError("too_short", f"there is no frame from {start:.3f} s to {end:.3f} s")
        painter = _Painter(shown[1], span.aspects.at(shown[0]), settings.max_height, crop, fields_since)
        wanted.width, wanted.height = painter.size
        planes = painter.paint(*shown)
        with _Encoder(part, painter.size, fps, settings, sound) as encoder:
            for k, each in enumerate(chain([shown], chosen)):
                if each is not shown:
                    planes, shown = painter.paint(*each), each
                if k in witnesses:
                    wanted.thumbnails[k] = _thumbnail(planes)
                encoder.write(planes)
            _require_whole(span, start, count, step)
        return wanted


def _of_one_size(
    frames: Iterable[tuple[float, av.VideoFrame]], aspects: Aspects
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The same frames with their times. Raises VideoError (unsupported) where their size changes."""
    first: Size | None = None
    for time, frame in frames:
        size = size_of(time, frame, aspects)
        first = first or size
        if size != first:
            raise VideoError("unsupported", changes(first, size, time))
        yield time, frame


def _require_whole(span: _Span, start: float, count: int, step: float) -> None:
    """Raises VideoError if the first or last frame had to stand for a time that the video does not have."""
    frame = 1 / float(span.source_fps)
    if not span.earlier and span.first > start + max(frame, step) + _TIE:
        raise VideoError("too_short", f"the span begins at {start:.3f} s, but the video only at {span.first:.3f} s")
    # The scan takes the last frame of a film to be shown as long as they are on average.
    if span.ended and span.stop < start + count * step - max(frame, step / 2) - _TIE:
        reason = f"the video ends at {span.stop:.3f} s, {start + count * step:.3f} s would be needed"
        raise VideoError("too_short", reason)


class _Painter:
    """Brings decoded frames to one size, upright, I420, SDR, BT.709, limited range."""

    def __init__(
        self,
        first: av.VideoFrame,
        aspect: float,
        max_height: int | None,
        crop: Box | None = None,
        fields_since: float = math.inf,
    ) -> None:
        # To look at a frame's side data makes a cycle of references in PyAV, so that the frame stays in memory until Python looks
        # for cycles. Only a frame that says another rotation than the one before is looked at.
        self._turned, self._orientation = first.rotation, orientation_of(first)
        width, height = displayed_size(first.width, first.height, self._orientation.rotation, aspect)
        if crop and (crop.x + crop.width > _even(width) or crop.y + crop.height > _even(height)):
            raise VideoError("export", f"{crop} does not lie within its pictures of {width}×{height} px: scan it again")
        shown = (crop.width, crop.height) if crop else (width, height)
        scale = min(1.0, max_height // 2 * 2 / shown[1]) if max_height else 1.0
        self.size = _even(shown[0] * scale), _even(shown[1] * scale)
        # Borders are cut away at full size, and only then is the rest made smaller, so that nothing of a border gets into the
        # clip.
        self._full = (_even(width), _even(height)) if crop else self.size
        self._crop, self._fields_since = crop, fields_since
        self._reformatter = VideoReformatter()
        self._mappers: dict[tuple[Colour, int], Mapper] = {}

    def paint(self, time: float, frame: av.VideoFrame) -> Planes:
        """A frame as it is shown. time: of the film, seconds."""
        if frame.rotation != self._turned:
            self._turned, self._orientation = frame.rotation, orientation_of(frame)
        shown = self._orientation
        width, height = self._full[::-1] if shown.rotation % 180 else self._full
        try:
            frame = with_chroma(uncombed(frame, known=time >= self._fields_since))
            colour = colour_of(frame)
            mapped = frame if colour.plain else self._mapper(colour, width, height).map(frame)
            small = self._reformatter.reformat(
                mapped,
                width=width,
                height=height,
                format="yuv420p",
                src_colorspace=None if mapped is not frame or frame.colorspace in KNOWN else colour.matrix,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation="BICUBIC",
                threads=1,
            )
        except (av.error.FFmpegError, ValueError) as error:
            reason = f"its pictures ({frame.format.name}) cannot be converted: {words(error)}"
            raise VideoError("unsupported", reason) from error
        upright = _upright(_planes(small), width, height, shown)
        return self._within(upright, self._crop) if self._crop else upright

    def _within(self, planes: Planes, crop: Box) -> Planes:
        """What is kept of an upright picture, at the size of the clip."""
        height, width = planes.shape[0] * 2 // 3, planes.shape[1]
        luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
        half = Box(crop.x // 2, crop.y // 2, crop.width // 2, crop.height // 2)
        parts = [
            luma[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width],
            *chroma[:, half.y : half.y + half.height, half.x : half.x + half.width],
        ]
        kept = np.concatenate([part.ravel() for part in parts]).reshape(-1, crop.width)
        if (crop.width, crop.height) == self.size:
            return kept
        frame = av.VideoFrame.from_ndarray(kept, format="yuv420p")
        width, height = self.size
        return _planes(self._reformatter.reformat(frame, width, height, interpolation="BICUBIC", threads=1))

    def _mapper(self, colour: Colour, width: int, height: int) -> Mapper:
        if (colour, width) not in self._mappers:
            self._mappers[colour, width] = Mapper(colour, width, height)
        return self._mappers[colour, width]


def _planes(frame: av.VideoFrame) -> Planes:
    """I420 of a yuv420p frame."""
    return cast(Planes, frame.to_ndarray())


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)  # A picture in 4:2:0 has no odd sides.


def _upright(planes: Planes, width: int, height: int, shown: Orientation) -> Planes:
    if shown == UPRIGHT:
        return planes
    half = (height // 2, width // 2)
    luma, chroma = planes[:height], planes[height:].reshape(2, *half)
    parts = [shown.upright(part) for part in (luma, *chroma)]
    return np.concatenate([p.ravel() for p in parts]).reshape(-1, parts[0].shape[1])


class _Encoder:
    """Writes I420 pictures at a constant rate. Its errors are the disk's, not the clip's: OSError naming the file."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        settings: EncodeSettings,
        sound: Sound | None = None,
    ) -> None:
        self._path = path
        self._base = 1 / fps
        self._count = 0
        # The flag bitexact leaves ffmpeg's version and the date out of the file.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = self._guard(lambda: av.open(str(path), "w", format="mp4", options=options))
        stream = self._container.add_stream(
            "libx264", rate=fps, options={"preset": settings.preset, "crf": f"{settings.crf:g}", "a53cc": "0"}
        )
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = settings.keyframe_interval
        context.time_base = self._base
        context.colorspace = context.color_primaries = context.color_trc = ColorPrimaries.BT709
        context.color_range = ColorRange.MPEG
        self._stream = stream
        self._sound = _SoundEncoder(self._container, sound) if sound and sound.samples else None

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            if self._sound is not None:
                self._guard(partial(self._sound.write, math.inf))
            self._guard(lambda: self._container.mux(self._stream.encode(None)))
            self._guard(self._container.close)
            return
        with suppress(av.error.FFmpegError):
            # The first error is the one that counts.
            self._container.close()

    def write(self, planes: Planes) -> None:
        # A frame that is made anew carries none of the source's side data or picture types.
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self._count, self._base
        frame.colorspace = frame.color_primaries = frame.color_trc = ColorPrimaries.BT709
        frame.color_range = ColorRange.MPEG
        self._count += 1
        self._guard(lambda: self._container.mux(self._stream.encode(frame)))
        if self._sound is not None:
            self._guard(partial(self._sound.write, self._count * float(self._base)))

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except av.error.FFmpegError as error:
            raise OSError(error.errno, f"cannot write the clip: {words(error)}", str(self._path)) from error


class _SoundEncoder:
    """Writes the sound of a clip beside its pictures, AAC, as far as these have come."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound) -> None:
        self._container, self._sound, self._written = container, sound, 0
        self._layout = "mono" if sound.channels == 1 else "stereo"
        options = {"flags": "+bitexact"}
        self._stream = container.add_stream("aac", rate=sound.rate, layout=self._layout, options=options)
        self._stream.bit_rate = _SOUND_BITS * sound.channels
        self._stream.codec_context.thread_count = 1

    def write(self, until: float) -> None:
        """What is heard before `until` seconds; all that is left, and the end, with infinity."""
        samples, channels = cast(BinaryIO, self._sound.samples), self._sound.channels
        while self._written < until * self._sound.rate:
            block = np.frombuffer(samples.read(_SOUND_FRAME * channels * 2), "<i2")
            if not block.size:
                break
            planes = np.ascontiguousarray(block.reshape(-1, channels).T, np.float32) / np.float32(32767)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=self._layout)
            frame.sample_rate, frame.pts = self._sound.rate, self._written
            frame.time_base = Fraction(1, self._sound.rate)
            self._written += frame.samples
            self._container.mux(self._stream.encode(frame))
        if math.isinf(until):
            self._container.mux(self._stream.encode(None))


# Looking at the result ----------------------------------------------------------------------------------------------


def _thumbnail(planes: Planes) -> npt.NDArray[np.float32]:
    """float32 [3, 9, 16]: Y, U and V, each averaged over areas."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    three = (planes[:height], *chroma)
    return np.stack([cv2.resize(p.astype(np.float32), (16, 9), interpolation=cv2.INTER_AREA) for p in three])


def _check(path: Path, wanted: _Wanted) -> None:
    """Decode the written clip. Raises VideoError("export") unless it is what went in."""

    def require(fine: bool, fault: str) -> None:
        if not fine:
            raise VideoError("export", f"the encoded clip is not what went in: {fault}")

    count = 0
    try:
        with open_video(str(path)) as video:
            container, stream = video.container, video.stream
            require(stream.average_rate == wanted.fps, f"{stream.average_rate} fps, not {wanted.fps}")
            for frame in container.decode(stream):
                require((frame.width, frame.height) == (wanted.width, wanted.height), f"{frame.width}×{frame.height}")
                require(frame.pts is not None and frame.time_base is not None, f"frame {count} has no time")
                time = cast(int, frame.pts) * cast(Fraction, frame.time_base)
                require(time == count / wanted.fps, f"frame {count} is at {float(time):.4f} s")
                if count in wanted.thumbnails:
                    apart = np.abs(_thumbnail(_planes(frame)) - wanted.thumbnails[count]).mean((1, 2)).max()
                    require(apart <= _MAX_DIFFERENCE, f"frame {count} differs by {apart:.1f} grey levels")
                count += 1
    except (av.error.FFmpegError, VideoError) as error:
        if isinstance(error, VideoError) and (error.kind == "export" or is_of_the_world(error.kind)):
            raise
        raise VideoError("export", f"the encoded clip does not decode: {words(error)}") from error
    require(count == wanted.frames, f"{count} frames, not {wanted.frames}")
    if wanted.sound_rate:
        _check_sound(path, wanted, require)


def _check_sound(path: Path, wanted: _Wanted, require: Callable[[bool, str], None]) -> None:
    """That the sound of a written clip decodes, begins with the pictures and ends with them, to a frame of AAC."""
    seconds, first, count = float(wanted.frames / wanted.fps), math.nan, 0
    try:
        with open_video(str(path)) as video:
            for frame in video.container.decode(audio=0):
                if math.isnan(first):
                    first = float(frame.time or 0.0)
                count += frame.samples
    except (av.error.FFmpegError, IndexError) as error:
        require(False, f"its sound does not decode: {words(error)}")
    slack = 1.5 * _SOUND_FRAME / wanted.sound_rate
    require(abs(first) <= 0.001, f"its sound begins at {first:.4f} s")
    require(abs(count / wanted.sound_rate - seconds) <= slack, f"{count / wanted.sound_rate:.3f} s of sound")


def _settle(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of the file, once it is on the disk and not only in its cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
