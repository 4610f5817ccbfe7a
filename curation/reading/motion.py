"""The motion of a clip as its sample brings it: pairs of small grey pictures out of analysis frames, for `filters.base.Motion`.

DIS looks at a long side of 480 px in grey, so that the 30 pictures of a clip are 4 MB, where analysis frames are 23 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import cv2
import numpy as np

from longtake.curation.reading.pictures import AnalysisFrames
from longtake.filters.base import Image, Motion
from longtake.filters.flow_dis import work_size
from longtake.filters.grayscale import grey

_LUMA_FIRST = ("yuv420p", "yuvj420p")
_FULL_RANGE = 2  # The value of AVCOL_RANGE_JPEG in ffmpeg.
# A table from the luma of the limited range, 16 to 235, to grey levels from 0 to 255.
_WIDENED = np.clip(np.rint((np.arange(256) - 16.0) * 255 / 219), 0, 255).astype(np.uint8)

# A time in seconds and a picture, then the time and the picture of its partner.
Pair = tuple[float, Image, float, Image]


def small_grey(frame: av.VideoFrame, analysis: AnalysisFrames) -> Image:
    """uint8 [h, w], full range, as DIS looks at it, of what `analysis` shrank; not turned, since a length is the same however.

    The luma of a planar frame of 8 bits is its grey already, at a fifth of the cost; all others become RGB first.
    """
    if frame.format.name not in _LUMA_FIRST:
        return work_size(grey(analysis.rgb(frame)))
    plane = frame.planes[0]
    luma: Image = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    small = work_size(luma)
    if frame.color_range == _FULL_RANGE:
        # The picture is copied, since the memory of the frame belongs to the decoder.
        return small.copy()
    return np.asarray(cv2.LUT(small, _WIDENED), np.uint8)


def motion_of(pairs: Sequence[Pair]) -> Motion | None:
    """The pairs of a clip, in order of time; equal ones count once. None if there are none."""
    different = {(pair[0], pair[2]): pair for pair in pairs if pair[2] > pair[0]}
    if not different:
        return None
    times, first, partner_times, second = zip(*(different[key] for key in sorted(different)), strict=True)
    return Motion(np.stack(first), np.stack(second), np.array(times), np.array(partner_times))
