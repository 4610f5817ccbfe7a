"""Samples to bytes and back: JPEG for frames, PNG for the mask of marks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa

from longtake.curation.errors import RowError, is_of_the_world
from longtake.curation.reading.faults import kind_of, words
from longtake.filters.base import Image, Sample
from longtake.manifests.folder import local_path
from longtake.manifests.frames import StoredFrames


def store_sample(clip_id: str, sample: Sample, quality: int) -> StoredFrames:
    """Encode a sample. quality: JPEG, 1 to 100."""

    def jpeg(frame: Image) -> bytes:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        return bytes(cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1])

    marks = None
    if sample.marks is not None:
        marks = bytes(cv2.imencode(".png", sample.marks.astype(np.uint8) * 255)[1])
    return StoredFrames(
        clip_id,
        [jpeg(frame) for frame in sample.keyframes],
        [jpeg(frame) for frame in sample.partners],
        sample.times.tolist(),
        sample.partner_times.tolist(),
        marks,
    )


def unread_frames(error: Exception | None, workspace: str) -> RowError:
    """Why stored frames cannot be read. error: that their file gave; None: the clip is not in it. A file that is gone or
    damaged is a fact; what else a disk or a store says is a fault of the world."""
    remote = local_path(workspace) is None
    damaged = isinstance(error, pa.ArrowException) or (
        isinstance(error, OSError) and error.errno is None and not remote
    )
    if error is None or damaged or isinstance(error, FileNotFoundError):
        reason = str(error) if error is not None else "they are not in the file of its video"
        return RowError("frames", f"the frames of this clip cannot be read: {reason}; scan it again")
    kind = kind_of(error, remote)
    return RowError(
        kind if is_of_the_world(kind) else "frames", f"the frames of this clip cannot be read: {words(error)}"
    )


def load_sample(stored: StoredFrames) -> Sample:
    """Decode a sample. Raises RowError (frames) if a picture of it is damaged."""

    def pictures(encoded: Sequence[bytes]) -> Image:
        frames = [_decoded(data, cv2.IMREAD_COLOR) for data in encoded]
        good = [frame for frame in frames if frame is not None]
        if not good or len(good) < len(frames) or any(frame.shape != good[0].shape for frame in good):
            raise RowError("frames", f"a stored frame of clip {stored.clip_id} does not decode; scan its video again")
        return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in good])

    keyframes, partners = pictures(stored.keyframes), pictures(stored.partners)
    marks = None
    if stored.marks is not None:
        mask = _decoded(stored.marks, cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != keyframes.shape[1:3]:
            raise RowError("frames", f"the stored mask of clip {stored.clip_id} does not decode; scan its video again")
        marks = mask > 127
    return Sample(keyframes, partners, np.array(stored.times), np.array(stored.partner_times), marks)


def _decoded(data: bytes, flags: int) -> Image | None:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        # OpenCV raises an error for no bytes at all, and for pictures that are too large.
        return None
    return None if picture is None else np.asarray(picture, np.uint8)
