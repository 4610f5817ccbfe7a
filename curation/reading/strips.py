"""Strips: a clip's keyframes as one small JPEG, side by side, for people to look at. Nothing is measured on them.

`Glimpses` chooses the keyframes out of frames that a pass decodes for another purpose; `strip_of_source` reads them out of a film
that was not decoded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence

import av
import av.error
import cv2
import numpy as np

from longtake.curation.access import Source
from longtake.curation.errors import VideoError
from longtake.curation.reading.decoding import DecodeCount, DecodedFrame, decode
from longtake.curation.reading.opening import OpenVideo, open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.sampling import Span, centres
from longtake.curation.reading.seeking import seek
from longtake.curation.reading.video import VideoInfo, as_shown, probe
from longtake.filters.base import Image
from longtake.manifests.frames import StoredStrip

# Pixels. One picture of a strip has this area, in any shape: 160×90 if it is wide. Five pictures take 9 kB on average
# (2026-11-26, real corpus).
PIXELS = 160 * 90
QUALITY = 60  # The quality of the JPEG, from 1 to 100.
# Seconds of film. The reader seeks a moment that is farther ahead, and reads on to a nearer one, since a seek goes back to a
# keyframe.
_SKIP = 4.0
_NARROWEST = 4  # A picture that is more than 4 times as wide as high, or as high as wide, is squeezed.


def strip_of_pictures(pictures: Iterable[Image], times: Iterable[float]) -> StoredStrip:
    """The strip of pictures, uint8 [h, w, 3] each, RGB, at least one; each gets the first one's shape. times: of each,
    seconds."""
    pictures = list(pictures)
    height, width = _size(*pictures[0].shape[:2])
    small = [_shrunk(picture, height, width) for picture in pictures]
    side_by_side = cv2.cvtColor(np.concatenate(small, axis=1), cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", side_by_side, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return StoredStrip(bytes(jpeg), [float(time) for time in times])


class Glimpses:
    """The frames nearest to the centres of a span's equal segments, chosen while frames come. Each is made small at once, and no
    other frame is held."""

    def __init__(self, span: Span, count: int) -> None:
        self._moments = centres(span, count)
        self._nearest: list[tuple[float, Image] | None] = [None] * count

    def push(self, time: float, picture: Image) -> None:
        """A frame: its time, seconds, and its picture, uint8 [h, w, 3], RGB."""
        small: Image | None = None
        for at, moment in enumerate(self._moments):
            known = self._nearest[at]
            if known is None or abs(time - moment) < abs(known[0] - moment):
                small = _shrunk(picture, *_size(*picture.shape[:2])) if small is None else small
                self._nearest[at] = time, small

    def strip(self) -> StoredStrip | None:
        """The strip of the chosen frames, each once; None without any."""
        chosen = dict(one for one in self._nearest if one is not None)
        return strip_of_pictures(chosen.values(), chosen) if chosen else None


def strip_of_source(source: str | Source, span: Span, count: int, seconds: float) -> StoredStrip:
    """The strip of a span of a film: the frames nearest to the centres of its segments among those that can be read in `seconds`
    seconds. Raises VideoError, also if no frame was read in that time. Runs in the sandbox."""
    end = time.monotonic() + seconds
    seen: Glimpses | None = None
    with open_video(source) as video:
        info = probe(video)
        analysis: AnalysisFrames | None = None
        for moment, frame in _nearest(video, info, centres(span, count), end):
            if analysis is None:
                info = as_shown(video, info, frame)
                analysis = AnalysisFrames(info, aspects=video.aspects, turns=video.turns)
                seen = Glimpses(span, count)
            assert seen is not None
            seen.push(moment, analysis.rgb(analysis.shrink(frame, moment)))
            analysis.forget()
        strip = seen.strip() if seen else None
    if strip is None:
        raise VideoError("corrupt", f"no frame of it was decoded in {seconds:g} s")
    return strip


def _nearest(
    video: OpenVideo, info: VideoInfo, moments: Sequence[float], end: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames around each moment (rising, seconds), until the time `end` of the monotonic clock. Each moment has an equal
    share of the time that is left; after it, the last frame that came is given."""
    frames: Iterator[DecodedFrame] | None = None
    here = -math.inf  # The time of the last frame, in seconds.
    for at, moment in enumerate(moments):
        if here >= moment:
            continue
        far = frames is None or moment - here > _SKIP
        if (far and seek(video, moment)) or frames is None:
            frames = decode(video, info, DecodeCount())
        share = (end - time.monotonic()) / (len(moments) - at)
        until = time.monotonic() + share
        last: DecodedFrame | None = None
        for decoded in frames:
            before, last, here = last, decoded, decoded.time
            if decoded.time >= moment:
                if before is not None:
                    yield before.time, before.frame
                break
            if time.monotonic() > until:
                break
        if last is not None:
            yield last.time, last.frame


def _size(height: int, width: int) -> tuple[int, int]:
    shape = min(max(width / height, 1 / _NARROWEST), _NARROWEST)
    return max(2, round(math.sqrt(PIXELS / shape))), max(2, round(math.sqrt(PIXELS * shape)))


def _shrunk(picture: Image, height: int, width: int) -> Image:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
