"""Videos in and out of files, for samples and for evaluation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from longtake.manifests.folder import whole_file
from longtake.presto.errors import PrestoError

Frames = npt.NDArray[np.uint8]  # (F, H, W, 3), RGB


def write_video(path: Path, frames: Frames, fps: float) -> None:
    """H.264 in mp4, whole or not at all; height and width must be even."""
    with whole_file(path) as part, av.open(str(part), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "16"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(stream.encode(None))


def video_shape(path: Path) -> tuple[int, int, float]:
    """(height, width, frames per second) of a video, without decoding it. Raises PrestoError."""
    try:
        with av.open(str(path)) as source:
            stream = source.streams.video[0]
            return stream.height, stream.width, float(stream.average_rate or stream.guessed_rate or 0) or 1.0
    except (av.FFmpegError, IndexError, OSError) as error:
        raise PrestoError(f"{path} cannot be read: {error}") from error


def read_video(path: Path, rate: float | None = None, most: int = 2000) -> tuple[Frames, float]:
    """(frames, frames per second) of a short video. rate: keep every k-th frame, k = round(fps / rate), as VBench does;
    the rate given back is then that of the frames kept. Raises PrestoError."""
    try:
        with av.open(str(path)) as source:
            stream = source.streams.video[0]
            fps = float(stream.average_rate or stream.guessed_rate or 0) or 1.0
            step = max(1, round(fps / rate)) if rate else 1
            kept = []
            for i, frame in enumerate(source.decode(stream)):
                if i % step == 0:
                    kept.append(frame.to_ndarray(format="rgb24"))
                if len(kept) >= most:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise PrestoError(f"{path} cannot be decoded: {error}") from error
    if not kept:
        raise PrestoError(f"{path} has no frame")
    return np.stack(kept), fps / step
