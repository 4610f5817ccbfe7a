"""Looking at an encoded clip: it is decoded, and compared with what went in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av.error
import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.errors import VideoError, is_of_the_world
from longtake.curation.reading.encoding import SOUND_FRAME
from longtake.curation.reading.faults import words
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.painting import Planes, planes_of

# Grey levels, the mean over a thumbnail of 16×9. Compression makes 0.2 at crf 18 and 2.4 at crf 45.
_MAX_DIFFERENCE = 5.0


@dataclass(slots=True)
class Wanted:
    """What must come out: frames at `fps`, their size, and thumbnails of some of them by frame number; sound of so many samples a
    second, 0: none."""

    frames: int
    fps: Fraction
    sound_rate: int = 0
    width: int = 0
    height: int = 0
    thumbnails: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)


def thumbnail(planes: Planes) -> npt.NDArray[np.float32]:
    """float32 [3, 9, 16]: Y, U and V, each averaged over areas."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    three = (planes[:height], *chroma)
    return np.stack([cv2.resize(p.astype(np.float32), (16, 9), interpolation=cv2.INTER_AREA) for p in three])


def check(path: Path, wanted: Wanted) -> None:
    """Decode the clip that was written to `path`. Raises VideoError (export) unless it is what went in."""

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
                    apart = float(np.abs(thumbnail(planes_of(frame)) - wanted.thumbnails[count]).mean((1, 2)).max())
                    require(apart <= _MAX_DIFFERENCE, f"frame {count} differs by {apart:.1f} grey levels")
                count += 1
    except (av.error.FFmpegError, VideoError) as error:
        if isinstance(error, VideoError) and (error.kind == "export" or is_of_the_world(error.kind)):
            raise
        raise VideoError("export", f"the encoded clip does not decode: {words(error)}") from error
    require(count == wanted.frames, f"{count} frames, not {wanted.frames}")
    if wanted.sound_rate:
        _check_sound(path, wanted, require)


def _check_sound(path: Path, wanted: Wanted, require: Callable[[bool, str], None]) -> None:
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
    slack = 1.5 * SOUND_FRAME / wanted.sound_rate
    require(abs(first) <= 0.001, f"its sound begins at {first:.4f} s")
    require(abs(count / wanted.sound_rate - seconds) <= slack, f"{count / wanted.sound_rate:.3f} s of sound")
