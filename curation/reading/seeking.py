"""Going to a moment of an open film by the index of its container."""

from __future__ import annotations

import av
import av.error

from longtake.curation.reading.opening import OpenVideo

CLOCK = 1e-6  # Seconds. Two times nearer than this are one, apart from the noise of adding up floats.
# Seconds before a moment at which a keyframe is looked for, until one is found from which the moment can be decoded. An index may
# lead behind it (transport streams, leading pictures).
LEADS = (0.0, 5.0, 60.0)


def seek(video: OpenVideo, seconds: float) -> bool:
    """Go to the last keyframe at or before a moment, as far as the index knows. False if this file cannot be sought in."""
    clock, first = video.clock, video.stream.start_time
    if not clock.base or first is None:
        return False
    try:
        video.container.seek(max(clock.ticks(seconds + CLOCK), first), stream=video.stream, backward=True)
    except (av.error.FFmpegError, ValueError):
        return False
    return True
