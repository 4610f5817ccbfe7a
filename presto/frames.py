"""The frames of a clip, through decord, by time: any frame rate gives the same moments."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt

from longtake.presto.errors import ClipError
from longtake.presto.files import Place, is_remote, read


def read_frames(path: Place, count: int, height: int, width: int, stated: int | None = None) -> npt.NDArray[np.uint8]:
    """`count` frames of a clip, evenly spaced in time from its first to its last: uint8 (count, height, width, 3), RGB.

    They are resized to cover the size and cut around the middle. Of 450 frames at an even rate they are those numbered
    linspace(0, 449, count) without its fractions, as the released trainer takes them.
    stated: the frames that its row promises. Raises ClipError: missing, unreadable, or short.
    """
    import decord

    try:
        source = io.BytesIO(read(str(path))) if is_remote(path) else str(path)
        video = decord.VideoReader(source, ctx=decord.cpu(0), num_threads=1)
        there = len(video)
        if there < count or (stated is not None and there < stated):
            promised = f", {stated} promised" if stated is not None else ""
            raise ClipError("short", f"{path} has {there} frames{promised}, and {count} are wanted")
        starts = video.get_frame_timestamp(range(there))[:, 0]
        picture = video.get_batch(shown(starts, count)).asnumpy()
    except FileNotFoundError as error:
        raise ClipError("missing", f"{path} is not there") from error
    except (decord.DECORDError, RuntimeError, ValueError, IndexError, OSError) as error:
        raise ClipError("unreadable", f"{path} cannot be decoded: {str(error).splitlines()[0][:300]}") from error
    if picture.shape[0] != count:
        raise ClipError("unreadable", f"{path}: {picture.shape[0]} of {count} frames were decoded")
    return fit(picture, height, width)


# Share of a frame's time by which its start may be late and the frame still counts as shown: times of files are rounded.
# The moments of 88 out of 450 frames lie at least 1/87 of a frame from a frame's start, unless they are that start.
_LATE = 0.005


def shown(starts: npt.NDArray[np.floating], count: int) -> list[int]:
    """Of frames that begin at `starts` (seconds, rising), those that are on the screen at `count` evenly spaced moments
    from the first frame's start to the last one's."""
    starts = starts.astype(np.float64)
    wanted = np.linspace(starts[0], starts[-1], count)
    late = _LATE * (starts[-1] - starts[0]) / max(1, len(starts) - 1)
    return [int(i) for i in np.searchsorted(starts, wanted + late, side="right") - 1]


def fit(frames: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Frames (F, H, W, 3) resized to cover height × width, then cut around the middle."""
    _, tall, wide, _ = frames.shape
    scale = max(height / tall, width / wide)
    size = (max(width, round(wide * scale)), max(height, round(tall * scale)))
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        big = frame if (wide, tall) == size else cv2.resize(frame, size, interpolation=how)
        out[i] = big[top : top + height, left : left + width]
    return out
