"""How exactly `crop: borders` finds borders of a known size around real takes: `python -m benchmarks.borders [FOLDER]`.

Three seconds of each take are put under five borders at two sizes, encoded by x264 at crf 20, and scanned: even bars, odd bars,
bars with the noise of a scan, odd pillars, and the blurred middle of the picture, enlarged, around it. A box is right if each of
its sides is within two px of the true one. Each take is scanned without a border as well, and nothing may be cut away from it
then. The rules were chosen on TUNED; HELD_OUT were looked at only at the end.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from longtake.curation.errors import VideoError
from longtake.curation.reading.box import Box
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.filters.base import Image
from tests.corpus import X264, Encoding, film, i420

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "videos"
TUNED = (
    "short/sam2_cups.mp4", "short/sam2_juggle.mp4", "short/jesse_dance_720p.mp4", "long/carnd_night_1866x638.mp4",
    "short/bbb_1080p30.mp4", "long/chrome_vp9_720p_a.webm",
)  # fmt: skip
HELD_OUT = (
    "short/sam2_dog.mp4", "short/sam2_blocks.mp4", "long/chrome_vp9_720p_b.webm", "long/media_360p_17s.mp4",
    "short/bee_720p.mp4", "codec/media_hevc_1080p_10s.mp4", "dark/planet_1080p_30s.mov", "short/mdn_flower.mp4",
    "rot/media_720p.mp4", "static/intel_bottle_40s.mp4",
)  # fmt: skip
SIZES = ((1280, 720), (1920, 1080))
# Seconds of each film at which its take begins.
BEGIN, SECONDS, FPS = 1.0, 3.0, 12
NEAR = 2  # Px.

Sides = tuple[int, int, int, int]  # Above, to the right, below, to the left, px.
# At 720 lines; at 1080 half as much again. Name → the sides, and what the border is made of.
BORDERS: dict[str, tuple[Sides, str]] = {
    "none": ((0, 0, 0, 0), "black"),
    "even bars": ((92, 0, 92, 0), "black"),
    "odd bars": ((61, 0, 67, 0), "black"),
    "bars with noise": ((88, 0, 92, 0), "noise"),
    "odd pillars": ((0, 121, 0, 120), "black"),
    "blurred frame": ((50, 70, 50, 70), "blur"),
}


def recipe() -> Recipe:
    """What looks at borders, and cuts them away."""
    data: dict[str, Any] = {
        "name": "borders",
        "crop": "borders",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2.5},
        "filters": {"width": {}, "artifacts": {"backend": "borders"}},
        "tiers": {"any": {"width": ">= 1"}},
    }
    return parse_recipe(data, source="this benchmark")


def pictures(path: Path) -> list[Image]:
    """Three seconds of a film, twelve pictures a second, upright as coded: RGB."""
    kept: list[Image] = []
    with open_video(str(path)) as video:
        begin: float | None = None
        for frame in video.container.decode(video.stream):
            at = float(frame.time or 0.0)
            begin = at if begin is None else begin
            if at - begin >= BEGIN + len(kept) / FPS:
                kept.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            if len(kept) >= SECONDS * FPS:
                break
    return kept


def fitted(picture: Image, size: tuple[int, int]) -> Image:
    """A picture that fills a size, its middle."""
    width, height = size
    scale = max(width / picture.shape[1], height / picture.shape[0])
    wide, high = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    large = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (wide - width) // 2, (high - height) // 2
    return np.asarray(large[y : y + height, x : x + width], np.uint8)


def bordered(shown: Sequence[Image], sides: Sides, made_of: str) -> Iterator[Image]:
    """Pictures under a border of these sides. The picture is not made smaller: the border lies over it."""
    top, right, bottom, left = sides
    random = np.random.default_rng(0)
    for picture in shown:
        height, width = picture.shape[:2]
        inner = picture[top : height - bottom, left : width - right]
        ground = np.full_like(picture, 0)
        if made_of == "noise":
            ground = np.clip(random.normal(6, 2.5, (height, width, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)
        if made_of == "blur":
            y, x = inner.shape[0] // 4, inner.shape[1] // 4
            near = cv2.resize(inner[y:-y, x:-x], (width, height), interpolation=cv2.INTER_LINEAR)
            ground = np.asarray(cv2.GaussianBlur(near, (0, 0), 24), np.uint8)
        ground[top : height - bottom, left : width - right] = inner
        yield ground


def cut_from(path: Path, by: Recipe) -> list[tuple[Box | None, str]]:
    """The box of each clip of a film, and why there is none."""
    found = scan_video(str(path), by, lambda *_: None, all_scores=True)
    return [(clip.crop, clip.not_cropped) for clip in found.clips]


def judged(box: Box | None, sides: Sides, size: tuple[int, int]) -> tuple[bool, str]:
    """Whether a box is right, and what was cut away."""
    width, height = size
    cut = (box.y, width - box.x - box.width, height - box.y - box.height, box.x) if box else (0, 0, 0, 0)
    off = max(abs(a - b) for a, b in zip(cut, sides, strict=True))
    return off <= NEAR, f"cut {cut}, true {sides}"


def bench(folder: Path, takes: Sequence[str], title: str) -> None:
    """Print what is wrong, and how many boxes are right."""
    by, counts = recipe(), {name: [0, 0] for name in BORDERS}
    for take in takes:
        shown = pictures(folder / take)
        for size in SIZES:
            scaled = [fitted(picture, size) for picture in shown]
            for name, (of_720, made_of) in BORDERS.items():
                sides: Sides = tuple(side * size[1] // 720 for side in of_720)  # type: ignore[assignment]
                with tempfile.TemporaryDirectory() as scratch:
                    path = Path(scratch) / "film.mp4"
                    how = Encoding(size, FPS, options=(*X264.items(), ("crf", "20")))
                    film(path, (i420(picture) for picture in bordered(scaled, sides, made_of)), how)
                    try:
                        boxes = cut_from(path, by)
                    except VideoError as error:
                        print(f"{take} {name}: {error}")
                        continue
                for box, why in boxes:
                    right, words = judged(box, sides, size)
                    counts[name][0] += right
                    counts[name][1] += 1
                    if not right:
                        print(f"  {take} at {size[1]}, {name}: {words} {why}", flush=True)
    right, of = (sum(pair[k] for name, pair in counts.items() if name != "none") for k in (0, 1))
    whole, films = counts["none"]
    print(f"{title}: {right} of {of} boxes right to ±{NEAR} px; whole without a border: {whole} of {films}")
    print("  " + ", ".join(f"{name} {a}/{b}" for name, (a, b) in counts.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--tuned-only", action="store_true", help="Leave out the takes that are held out.")
    given = parser.parse_args()
    bench(given.folder, TUNED, "takes that the rules were chosen on")
    if not given.tuned_only:
        bench(given.folder, HELD_OUT, "takes that were held out")


if __name__ == "__main__":
    main()
