"""Encoding pictures in I420, and sound, to a clip: H.264 and AAC in MP4, at a constant rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import av
import av.container
import av.error
import av.video.stream
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange

from longtake.curation.reading.faults import words
from longtake.curation.reading.painting import Planes
from longtake.curation.reading.sound import Sound

T = TypeVar("T")

SOUND_FRAME = 1024  # Samples in a frame of AAC.
# Bits per second and channel: with so many, AAC is nearly the same as its source.
_SOUND_BITS = 96_000


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


class Encoder:
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

    def __enter__(self) -> Encoder:
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
            block = np.frombuffer(samples.read(SOUND_FRAME * channels * 2), "<i2")
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
