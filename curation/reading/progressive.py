"""Interlaced frames as whole pictures, by ffmpeg's bwdif, for scan and export alike.

As they are, they would be combs, and scaled they would be blurs. The scan passes over frames that no other refers to, so there
the neighbours of a frame may be farther off than in the export: bwdif then takes more lines from the frame's own field, and
what stands still is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import av
import av.error

from longtake.curation.errors import VideoError
from longtake.curation.reading.faults import words
from longtake.curation.reading.graphs import graph_for, kind_of

Timed = tuple[float, av.VideoFrame]

# Lines of interlaced frames. A field has half as many.
_LINES = {480, 486, 576, 1080, 1088}
_IN_FIELDS = (
    "its pictures are fields, of half the lines of a frame each, which are not put together: "
    "`ffmpeg -i FILE -vf weave -flags +ildct -c:v libx264 OTHER.mkv` makes frames of them"
)


def require_frame(frame: av.VideoFrame, codec: str) -> None:
    """Raises VideoError (unsupported) for a picture that is a field. ffmpeg's decoder of HEVC gives out such as they are, and
    marks no others; but ffmpeg's encoder marks whole frames in the same way."""
    if codec == "hevc" and frame.interlaced_frame and 2 * frame.height in _LINES and frame.height not in _LINES:
        raise VideoError("unsupported", _IN_FIELDS)


def whole_pictures(frames: Iterator[Timed]) -> Iterator[Timed]:
    """`frames` with their times (s, rising), those that are interlaced as one picture each. From the first of them on;
    frames that are not marked as interlaced stay as they are. Raises VideoError (unsupported)."""
    weaver: _Weaver | None = None
    for time, frame in frames:
        if weaver is None and not frame.interlaced_frame:
            yield time, frame
            continue
        try:
            done = []
            if weaver is None or not weaver.fits(frame):
                done = weaver.rest() if weaver else []
                weaver = _Weaver(frame)
            done += weaver.push(time, frame)
        except (av.error.FFmpegError, ValueError) as error:
            reason = f"its interlaced pictures ({frame.format.name}) cannot be made whole: {words(error)}"
            raise VideoError("unsupported", reason) from error
        yield from done
    if weaver is not None:
        yield from weaver.rest()


class _Weaver:
    """One graph of bwdif, for frames of one size and format. It gives a frame back when the next one has come."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._kind = kind_of(frame)
        self._times: list[float] = []
        self._graph = graph_for(frame, "bwdif", "send_frame:auto:interlaced")

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is of the size, format, matrix and range that this graph is for."""
        return kind_of(frame) == self._kind

    def push(self, time: float, frame: av.VideoFrame) -> list[Timed]:
        """Take the next frame; what is ready."""
        self._times.append(time)
        self._graph.push(frame)
        return self._pulled()

    def rest(self) -> list[Timed]:
        """After the last frame."""
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> list[Timed]:
        done: list[Timed] = []
        while self._times:
            try:
                frame = cast(av.VideoFrame, self._graph.pull())
            except (BlockingIOError, av.error.EOFError):
                break
            # The graph gives one picture for each frame, in order, so the oldest time belongs to this picture.
            done.append((self._times.pop(0), frame))
        return done
