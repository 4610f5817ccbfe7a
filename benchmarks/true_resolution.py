"""How well `true_resolution` tells real takes of at least 720 lines from themselves after they were reduced to 360 lines and
enlarged again: `python -m benchmarks.true_resolution [FOLDER]`; part of `make bench-gates`.

Of each take two seconds are decoded from a third of its length on. They are reduced to 360 lines by a bicubic filter, enlarged to
their size by three filters, and encoded again by x264 at crf 23, as such film comes. The area under the curve is given over all
takes (pooled), and as the share of takes that score worse than they do themselves (paired).
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.takes import by_file
from longtake.curation.reading.native import NativeLook
from longtake.curation.reading.opening import open_video
from longtake.filters.base import Image
from longtake.filters.true_resolution import sharpness

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "videos"
FOLDERS = ("short", "ai", "long", "multi", "rot", "hdr", "codec")
# Slides; fades between plain colours; eight frames of 8K; the same film again, turned, or at another rate.
NO_TAKES = (
    "video2dataset_slides_1080p.mp4", "pyscenedetect_fades.mp4", "media_8k_hevc.mp4", "media_720p_rot270.mp4", "bbb_1080p60.mp4",
)  # fmt: skip
ENLARGED = ("BICUBIC", "LANCZOS", "BILINEAR")
LINES = 360
SECONDS, KEYFRAMES = 2.0, 5


def stretch(path: Path) -> list[av.VideoFrame]:
    """The frames of two seconds of a take; none if it is too small."""
    with open_video(str(path)) as video:
        context = video.stream.codec_context
        if min(context.width, context.height) < 720:
            return []
        length = (video.container.duration or 0) / 1e6
        begin = length * 0.3 if length > 4 else 0.0
        if begin:
            video.container.seek(round((begin + video.clock.origin) * 1e6))
        frames = []
        for frame in video.container.decode(video.stream):
            at = video.clock.seconds(frame.pts) if frame.pts is not None else 0.0
            if at >= begin - 0.01:
                frames.append(frame)
            if at > begin + SECONDS:
                break
        return frames


def enlarged(frames: Sequence[av.VideoFrame], kernel: str) -> list[av.VideoFrame]:
    """The same after 360 lines, encoded again."""
    width, height = frames[0].width // 2 * 2, frames[0].height // 2 * 2
    scale = LINES / min(width, height)
    small = round(width * scale / 2) * 2, round(height * scale / 2) * 2
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "superfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(frames):
            less = frame.reformat(*small, format="yuv420p", interpolation="BICUBIC")
            again = less.reformat(width, height, format="yuv420p", interpolation=kernel)
            again.pts, again.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(again))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return list(container.decode(video=0))


def tiles_of(frames: Sequence[av.VideoFrame]) -> list[Image]:
    """Parts at full size of five keyframes."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, KEYFRAMES).astype(int))
    kept = [NativeLook(tiles=True).of(frames[at]).tiles for at in chosen]
    return [tiles for tiles in kept if tiles is not None]


def score(frames: Sequence[av.VideoFrame]) -> float:
    detail = sharpness(tiles_of(frames))
    return float(np.mean(detail)) if detail else float("nan")


def auc(worse: Sequence[float], good: Sequence[float]) -> float:
    """The chance that one of `worse` is below one of `good`; equal ones count half."""
    return float(np.mean([(a < b) + 0.5 * (a == b) for a in worse for b in good if np.isfinite(a) and np.isfinite(b)]))


def bench(folder: Path) -> None:
    """Print the scores of each take, and both areas."""
    scores: dict[str, list[float]] = {}
    spent = 0.0
    print(
        f"\ntrue_resolution: takes of at least 720 lines, and after {LINES} lines\n{'take':34}as it is  "
        + "  ".join(ENLARGED)
    )
    for path in sorted(path for name in FOLDERS for path in (folder / name).iterdir()):
        if path.name in NO_TAKES:
            continue
        try:
            frames = stretch(path)
        except Exception as error:  # The folder may hold any file.
            print(f"{path.name}: {error}")
            continue
        if frames:
            begin = time.process_time()
            own = score(frames)
            spent += time.process_time() - begin
            scores[path.name] = [own, *(score(enlarged(frames, kernel)) for kernel in ENLARGED)]
            print(f"{path.name:34}" + "  ".join(f"{value:7.2f}" for value in scores[path.name]), flush=True)
    # By eye these are no sharper than their own enlargement: soft, smeared by their codec, or an even ground of blocks.
    soft = {Path(file).name for file, label in by_file(folder).items() if label.full == "soft"}
    for told, names in {
        "all takes": list(scores),
        "without those that are soft by eye": [name for name in scores if name not in soft],
    }.items():
        print(f"{told} ({len(names)}):")
        for column, kernel in enumerate(ENLARGED, 1):
            good, worse = [scores[name][0] for name in names], [scores[name][column] for name in names]
            paired = np.mean([b < a for a, b in zip(good, worse, strict=True) if np.isfinite(a) and np.isfinite(b)])
            print(f"  {kernel:9} AUC pooled {auc(worse, good):.3f}, paired {paired:.2f}")
    print(f"{1000 * spent / max(1, len(scores)):.0f} ms of CPU a clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    bench(parser.parse_args().folder)


if __name__ == "__main__":
    main()
