"""How far keyframes and exported frames are from the true picture, for one film in many encodings.

    python -m benchmarks.colour FOLDER [--hdr FOLDER] [--stills FOLDER]

FOLDER holds `ref.mkv`, the film in RGB, and the same film in other encodings. Prints the mean distance in grey levels and the
mean error of red, green and blue, over three moments. hdr: of each film there, the share of pixels that are burnt (a
channel at 254 or more) in keyframes and in exported frames. stills: where to put the pictures that were compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.video import VideoInfo, as_shown, probe

Picture = npt.NDArray[np.uint8]
Timed = list[tuple[float, Picture]]

MOMENTS = (0.5, 1.5, 2.5)  # Seconds.
BURNT = 254  # Level of a channel, of 255, from which a pixel counts as burnt.


def keyframes(path: Path, moments: Sequence[float]) -> tuple[VideoInfo, Timed]:
    """What the scan makes of a film: the first frames at or after `moments`."""
    found: Timed = []
    with open_video(str(path)) as video:
        info = probe(video)
        analysis: AnalysisFrames | None = None
        for decoded in decode(video, info, DecodeCount(), all_frames=True):
            if analysis is None:
                info = as_shown(video, info, decoded.frame)
                analysis = AnalysisFrames(info)
            if len(found) < len(moments) and decoded.time >= moments[len(found)] - 1e-3:
                found.append((decoded.time, analysis.rgb(analysis.shrink(decoded.frame))))
    return info, found


def exported(path: Path, end: float, moments: Sequence[float]) -> Timed:
    """The same of the exported clip [0, end)."""
    found: Timed = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        cut_clip(str(path), 0.0, end, clip, EncodeSettings(fps=None, frames=None, crf=6))
        with av.open(str(clip)) as container:
            for frame in container.decode(video=0):
                time = float(frame.time or 0)
                if len(found) < len(moments) and time >= moments[len(found)] - 1e-3:
                    found.append((time, rgb(frame)))
    return found


def rgb(frame: av.VideoFrame) -> Picture:
    """A frame of limited-range BT.709 as RGB, by the formulas: swscale rounds down."""
    packed = frame.to_ndarray().astype(np.float32)
    luma = (packed[: frame.height] - 16) / 219
    chroma = packed[frame.height :].reshape(2, frame.height // 2, -1)
    size = frame.width, frame.height
    u, v = ((cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) - 128) / 224 for part in chroma)
    three = np.stack([luma + 1.5748 * v, luma - 0.18732427 * u - 0.46812427 * v, luma + 1.8556 * u], -1)
    return np.asarray(np.clip(np.round(255 * three), 0, 255), np.uint8)


def apart(pictures: Timed, truth: Timed) -> tuple[float, npt.NDArray[np.float64]]:
    """Mean distance in grey levels, and the mean error of each channel."""
    errors: list[npt.NDArray[Any]] = []
    for time, picture in pictures:
        true = min(truth, key=lambda pair: abs(pair[0] - time))[1].astype(np.float32)
        if true.shape != picture.shape:
            true = cv2.resize(true, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
        errors.append(picture - true)
    return float(np.mean([np.abs(e).mean() for e in errors])), np.mean([e.mean((0, 1)) for e in errors], axis=0)


def burnt(pictures: Timed) -> float:
    """The share of pixels of which a channel is at the end of its range."""
    return float(np.mean([(picture.max(-1) >= BURNT).mean() for _, picture in pictures]))


def keep(folder: Path | None, name: str, pictures: Timed) -> None:
    """Put the middle one of the pictures where it can be looked at."""
    if folder is not None and pictures:
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(pictures[len(pictures) // 2][1], cv2.COLOR_RGB2BGR))


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hdr", type=Path)
    parser.add_argument("--stills", type=Path)
    given = parser.parse_args(arguments)
    with av.open(str(given.folder / "ref.mkv")) as container:
        truth = [(float(f.time or 0), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    print(f"{'film':28}{'keyframe':>10}  {'by channel':22}{'export':>8}  {'by channel':22}transfer, primaries")
    for path in sorted(given.folder.iterdir()):
        if path.name == "ref.mkv":
            continue
        try:
            info, keys = keyframes(path, MOMENTS)
            clips = exported(path, min(info.duration, 2.9), MOMENTS)
        except VideoError as error:
            print(f"{path.name:28}{error.kind}: {error}")
            continue
        (key, by_key), (out, by_out) = apart(keys, truth), apart(clips, truth)
        print(
            f"{path.name:28}{key:10.2f}  {by_key.round(1)!s:22}{out:8.2f}  {by_out.round(1)!s:22}"
            f"{info.transfer or '-'}, {info.primaries or '-'}"
        )
        keep(given.stills, f"{path.name}.keyframe", keys)
        keep(given.stills, f"{path.name}.export", clips)
    for path in sorted(given.hdr.iterdir()) if given.hdr else []:
        moments = (0.0, 0.2, 1.0, 3.0)
        info, keys = keyframes(path, moments)
        clips = exported(path, min(info.duration, 3.5), moments)
        print(f"{path.name:34}burnt: keyframes {burnt(keys):.2%}, export {burnt(clips):.2%} ({info.transfer})")
        keep(given.stills, f"{path.name}.keyframe", keys)
        keep(given.stills, f"{path.name}.export", clips)


if __name__ == "__main__":
    main(sys.argv[1:])
