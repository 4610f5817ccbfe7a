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

    They are resized to cover the size and cut around the middle. For 450 frames at 30 per second these are the frames
    nearest to linspace(0, 449, count), as the released trainer has it.
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
        picture = video.get_batch(nearest(starts, count)).asnumpy()
    except FileNotFoundError as error:
        raise ClipError("missing", f"{path} is not there") from error
    except (RuntimeError, ValueError, IndexError, OSError) as error:  # DECORDError is a RuntimeError
        raise ClipError("unreadable", f"{path} cannot be decoded: {str(error).splitlines()[0][:300]}") from error
    if picture.shape[0] != count:
        raise ClipError("unreadable", f"{path}: {picture.shape[0]} of {count} frames were decoded")
    return fit(picture, height, width)


def nearest(starts: npt.NDArray[np.floating], count: int) -> list[int]:
    """Of frames that begin at `starts` (seconds, rising), the `count` nearest to evenly spaced moments between the first
    and the last."""
    wanted = np.linspace(starts[0], starts[-1], count)
    after = np.searchsorted(starts, wanted).clip(1, len(starts) - 1) if len(starts) > 1 else np.zeros(count, int)
    before = np.maximum(after - 1, 0)
    closer = np.where(wanted - starts[before] <= starts[after] - wanted, before, after)
    return [int(i) for i in closer]


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
