"""Samples: out of the frames that were kept of a clip, and to bytes and back (JPEG for frames, PNG for the mask of marks)."""

from __future__ import annotations

from collections.abc import Sequence

import av
import cv2
import numpy as np
import pyarrow as pa

from longtake.curation.errors import RowError, is_of_the_world
from longtake.curation.reading.faults import kind_of, words
from longtake.curation.reading.judge import ClipScan
from longtake.curation.reading.motion import Pair, motion_of
from longtake.curation.reading.pictures import AnalysisFrames, Before
from longtake.filters.base import Image, Native, Sample
from longtake.filters.frozen import ChangeMeter
from longtake.manifests.folder import local_path
from longtake.manifests.frames import StoredFrames


def sample_of(
    clip: ClipScan,
    frames: Sequence[tuple[float, av.VideoFrame]],
    keyframes: int,
    analysis: AnalysisFrames,
    pairs: Sequence[Pair],
    meter: ChangeMeter,
) -> Sample | None:
    """The sample of a clip; None, with the clip's error set, if there are too few frames. frames: a keyframe, its partner, the
    next keyframe and so on, small, each with its time in seconds. pairs: of its motion. meter: what was seen of its changes."""
    if len(frames) < 2 * keyframes:
        where = f"{clip.span.start:.3f}–{clip.span.end:.3f} s"
        clip.error = RowError("measure", f"too few frames for a sample in {where}")
        return None
    smalls, times = [small for _, small in frames], np.array([time for time, _ in frames])
    return Sample(
        analysis.rgbs(smalls[::2]),
        analysis.rgbs(smalls[1::2]),
        times[::2],
        times[1::2],
        motion=motion_of(pairs),
        changes=meter.within(clip.span.start, clip.span.end),
        native=_native(smalls),
    )


def _native(smalls: Sequence[av.VideoFrame]) -> tuple[Native, ...] | None:
    """What was kept of keyframes and partners before they were reduced, the keyframes first."""
    kept = [small.opaque for small in (*smalls[::2], *smalls[1::2])]
    known = [each.native for each in kept if isinstance(each, Before) and each.native is not None]
    return tuple(known) if len(known) == len(kept) else None


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
