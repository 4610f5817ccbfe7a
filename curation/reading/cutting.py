"""Cutting a clip out of its video: decode the span, bring it to a constant rate, encode H.264, and look at the result.

The encoded clip has square pixels, is upright, 8 bit, 4:2:0, BT.709, limited range, and carries nothing of its source
but the pictures, and its sound where that is asked for: no metadata, no subtitles. All on one thread; memory does not grow
with the length of the clip or of the video.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import closing, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from longtake.curation.errors import VideoError
from longtake.curation.reading.box import Box
from longtake.curation.reading.checking import Wanted, check, thumbnail
from longtake.curation.reading.encoding import Encoder, EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.painting import Painter
from longtake.curation.reading.seeking import CLOCK
from longtake.curation.reading.sizes import size_of
from longtake.curation.reading.sound import Sound, read_sound
from longtake.curation.reading.spans import nearest_in_time, of_one_size, open_span, require_whole, source_fps
from longtake.manifests.folder import whole_file

_WITNESSES = 9  # Frames. The pictures of this many frames are compared after encoding.


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
    film_fps: float | None = None,
) -> EncodedClip:
    """Cut [start, end) out of `source`, encode it to `target` (MP4), check it by decoding it, and only then name it so.

    source: an absolute local path, or an open, seekable binary file. start, end: seconds since the start of the video stream, the
    clock of the scan. Output frame k shows the source frame nearest to start + k · pace / fps, the earlier of two equally near,
    or, where the film has no new frame for half a second, the one before; no frame outside of [start, end) is used. pace: seconds
    of the source per second of the clip, above 1 to show a long span in fewer frames. The span may lack up to half an output
    frame at its end. seek: False for a video whose clock starts anew, where one time is in several places: it is then read from
    its beginning. crop: what is kept of the upright picture at its displayed size; the clip shows nothing else. fields_since: the
    second from which on the film holds fields, and film_fps: its average frames per second, both as the scan has found them;
    without film_fps, the rate is what the container says.

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
    sound = _sound(source, start, end, settings, pace, seek, film_fps) if settings.keep_audio else None
    with whole_file(target) as part, closing(sound.samples) if sound and sound.samples else nullcontext():
        wanted = _encode_span(source, start, end, part, settings, pace, seek, crop, sound, fields_since, film_fps)
        check(part, wanted)
        size, digest = _settle(part)
    return EncodedClip(wanted.frames, wanted.width, wanted.height, float(wanted.fps), size, digest, sound)


def _sound(
    source: str | BinaryIO,
    start: float,
    end: float,
    settings: EncodeSettings,
    pace: float,
    seek: bool,
    film_fps: float | None,
) -> Sound:
    """The sound of a clip, as long as its pictures are shown; without any where it would not be in step with them."""
    if pace != 1.0:
        return Sound("left out: the clip is faster")
    if not seek:
        return Sound("left out: the video's clock starts anew")
    if settings.fps is None:
        with open_video(source) as video:
            fps = source_fps(video, film_fps)
    else:
        fps = Fraction(settings.fps).limit_denominator(1001)
    count = settings.frames or max(1, round((end - start) * fps))
    return read_sound(source, start, float(count / fps))


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
    film_fps: float | None = None,
) -> Wanted:
    with open_span(source, start, end, seek, film_fps) as (span, frames):
        fps = span.source_fps if settings.fps is None else Fraction(settings.fps).limit_denominator(1001)
        step = pace / float(fps)  # Seconds of the source from one frame to the next.
        held = (end - start) / step
        count = max(1, round(held)) if settings.frames is None else settings.frames
        if held < count - 0.5 - CLOCK:
            reason = f"{end - start:.3f} s at {float(fps):g} fps are {held:.1f} frames, not {count}"
            raise VideoError("too_short", reason)
        wanted = Wanted(count, fps, sound_rate=sound.rate if sound and sound.audible else 0)
        witnesses = set(np.linspace(0, count - 1, _WITNESSES).round().astype(int).tolist())
        timed = ((time, (time, frame)) for time, frame in of_one_size(frames, span.aspects, span.turns))
        chosen = nearest_in_time(timed, (start + k * step for k in range(count)))
        shown = next(chosen, None)
        if shown is None:
            raise VideoError("too_short", f"there is no frame from {start:.3f} s to {end:.3f} s")
        size = size_of(*shown, span.aspects, span.turns)
        painter = Painter(size, settings.max_height, crop, fields_since)
        wanted.width, wanted.height = painter.size
        planes = painter.paint(*shown)
        with Encoder(part, painter.size, fps, settings, sound) as encoder:
            for k, each in enumerate(chain([shown], chosen)):
                if each is not shown:
                    planes, shown = painter.paint(*each), each
                if k in witnesses:
                    wanted.thumbnails[k] = thumbnail(planes)
                encoder.write(planes)
            require_whole(span, start, count, step)
        return wanted


def _settle(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of the file, once it is on the disk and not only in its cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
