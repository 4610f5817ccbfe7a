"""Videos with known answers, encoded from the photographs that scikit-image's wheel carries.

Each `Case` of `CASES` says how one file is made and what is true of it: its size, its cuts, how fast its picture moves,
how much of it lies under borders, which gates of the `pretrain` tier it fails. Tests compare what the pipeline measures
with these numbers; `make demo` uses the files as its corpus.

    from tests.corpus import CASES, Corpus, build, cache_folder
    files = Corpus(cache_folder())                # {name: path}; a file is made when its path is asked for
    files = build(folder)                         # {name: path}, makes what is not there yet

    python -m tests.corpus FOLDER [--only NAME ...]

Pictures are kept as packed I420 arrays (height * 3 / 2 rows, 8 bits, limited range): what the encoder takes, so that a
frame costs one copy. Cameras move by whole even pixels per frame, so speeds are exact in luma and in chroma.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from math import pi
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Picture = NDArray[Any]  # The type is uint8; in time always packed I420: (height * 3 / 2, width).
Pictures = Iterable[Picture]
Size = tuple[int, int]  # Width and height in pixels.
Maker = Callable[[Path], None]

HD: Size = (1280, 720)
SMALL: Size = (320, 180)
FPS = 24
FRAMES = 384  # 16 s at 24 fps: one window of 15 s with something to spare
ANALYSIS = 960  # Long side in px that flow is reported at.
GAP = 0.5  # Seconds from a keyframe to its partner.


# ---------------------------------------------------------------------------------------------------------------------
# What is true of a file


@dataclass(frozen=True)
class Truth:
    """The known answers of one file. Times in s from its first frame, lengths in px, shares of the area in 0..1."""

    width: int = 0  # Displayed: rotation and sample aspect ratio applied.
    height: int = 0
    encoded: Size = (0, 0)
    fps: float = 0.0  # Average rate.
    duration: float = 0.0
    codec: str = "h264"
    rotation: int = 0  # Degrees counter-clockwise from encoded to displayed, as PyAV's `VideoFrame.rotation`.
    sar: Fraction = Fraction(1)  # Sample aspect ratio.
    # The motion of the content, px/s in the encoded frame, x to the right, y down.
    velocity: tuple[float, float] | None = None
    zoom: float | None = None  # The picture grows (and shrinks, in turn) by this factor per second.
    flow: float | None = None  # Mean flow length over the frame, keyframe to partner, px at long side 960.
    grey: float | None = None  # Mean grey level 0..255, full range.
    borders: float = 0.0  # Share under letterbox or pillarbox.
    text: float = 0.0  # Share of the bounding boxes of burnt-in text.
    marks: float = 0.0  # Share under an opaque static mark.
    cuts: tuple[float, ...] = ()  # Times of the first frame after each hard cut.
    transitions: tuple[tuple[float, float], ...] = ()  # Start and end of dissolves and fades.
    clips: tuple[tuple[float, float], ...] = ()  # The windows of 15 s and more that a scan should find.
    fails: tuple[str, ...] = ()  # The gates of `pretrain` that it fails; two or more mean "at least these".
    error: str | None = None  # Why it is no video at all, in a word of this module; the pipeline has others.
    caption: str = ""  # Sidecar captions, where there are any.
    sub_captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One file of the corpus: `make` writes it, `truth` says what is in it."""

    name: str
    filename: str
    about: str
    make: Maker
    truth: Truth

    @property
    def passes(self) -> bool:
        """Every clip of it passes every gate of `pretrain` that needs no downloaded weights."""
        return not self.truth.fails and not self.truth.error

    @property
    def fails_alone(self) -> str | None:
        """The one gate that rejects it, if there is exactly one."""
        return self.truth.fails[0] if len(self.truth.fails) == 1 else None


# ---------------------------------------------------------------------------------------------------------------------
# Canvases: large still pictures that a camera moves over


def photograph(name: str) -> Picture:
    """A photograph out of scikit-image's wheel (never one that it would download), RGB."""
    data = np.frombuffer(files("skimage.data").joinpath(f"{name}.png").read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def mosaic(names: Sequence[str], size: Size, seed: int, tile: int = 400, feather: int = 48) -> Picture:
    """Random crops of photographs, laid in shifted rows with soft seams: textured everywhere, the same nowhere. RGB."""
    rng = np.random.default_rng(seed)
    photos = [photograph(name) for name in names]
    width, height = size
    side = tile + feather
    board = np.zeros((height + 2 * side, width + 2 * side, 3), np.uint8)  # A margin, so that no tile needs clipping.
    ramp = np.minimum(np.arange(1, side + 1, dtype=np.float32) / feather, 1)
    alpha = np.minimum.outer(ramp, ramp)[..., None]
    last = -1
    for top in range(0, height + side, tile):
        for left in range(int(rng.integers(tile)), width + side, tile):
            last = (last + 1 + int(rng.integers(len(photos) - 1))) % len(photos) if len(photos) > 1 else 0
            patch = crop_at_random(photos[last], side, rng)
            under = board[top : top + side, left : left + side]
            under[:] = under + alpha * (patch.astype(np.float32) - under)
    return board[side : side + height, side : side + width].copy()


def crop_at_random(photo: Picture, side: int, rng: np.random.Generator) -> Picture:
    """A square of `side` px out of a photograph, enlarged at random (at least so that it fits), perhaps mirrored."""
    scale = max(side / min(photo.shape[:2]), 1.0) * rng.uniform(1.0, 1.3)
    big = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    top = int(rng.integers(big.shape[0] - side + 1))
    left = int(rng.integers(big.shape[1] - side + 1))
    patch = big[top : top + side, left : left + side]
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def graded(rgb: Picture, curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Picture:
    """Grey picture whose level at rank u (0 darkest, 1 brightest of all pixels) is `curve(u)`: the mean is known."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    counts = np.bincount(grey.ravel(), minlength=256)
    rank = (np.cumsum(counts) - counts / 2) / grey.size
    levels = np.clip(np.rint(curve(rank)), 0, 255).astype(np.uint8)
    toned: Picture = levels[grey]
    return cv2.cvtColor(toned, cv2.COLOR_GRAY2RGB)


def i420(rgb: Picture) -> Picture:
    """RGB to packed I420 (BT.601, limited range)."""
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YUV_I420)


def planes(picture: Picture) -> tuple[Picture, Picture, Picture]:
    """Views of the Y, U and V planes of a packed I420 picture."""
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    flat = picture.reshape(-1)
    luma, chroma = height * width, height * width // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma :].reshape(half),
    )


DARK_POWER = 14  # The mean of 255 * u**p over ranks u is 255 / (p + 1).
BRIGHT_POWER = 6
RECUR = 450  # Pixels after which the recurring canvas repeats: 75 frames of 6 px, one segment of a 15 s clip at 25 fps.


def faint(rgb: Picture) -> Picture:
    """Grey levels 100..150, all equally frequent: any two keyframes are closer than 20 dB, whatever they show."""
    return graded(rgb, lambda u: 100 + 50 * u)


def dark(rgb: Picture) -> Picture:
    """Nearly black with bright grains: mean 255 / (DARK_POWER + 1)."""
    return graded(rgb, lambda u: 255 * u**DARK_POWER)


def bright(rgb: Picture) -> Picture:
    """Nearly white with dark grains: mean 255 - 255 / (BRIGHT_POWER + 1)."""
    return graded(rgb, lambda u: 255 - 255 * u**BRIGHT_POWER)


def recurring(rgb: Picture) -> Picture:
    """The first RECUR columns again and again, smeared sideways, so that a frame more or less changes little."""
    strip = np.tile(rgb[:, :RECUR], (1, rgb.shape[1] // RECUR, 1))
    return cv2.convertScaleAbs(cv2.GaussianBlur(strip, (0, 0), sigmaX=20, sigmaY=5), alpha=1.5, beta=-60)


@dataclass(frozen=True)
class Board:
    """How a canvas is made; `size` in px."""

    photographs: tuple[str, ...]
    size: Size
    seed: int
    finish: Callable[[Picture], Picture] | None = None
    feather: int = 48  # Pixels. A wide seam of fine texture would be a stripe of less contrast.


BOARDS: dict[str, Board] = {
    "street": Board(("motorcycle_left", "coins", "motorcycle_right", "camera"), (6400, 900), 0),
    "table": Board(("coffee", "chelsea", "astronaut", "coins"), (6400, 900), 1),
    "tower": Board(("astronaut", "motorcycle_right", "coffee", "camera"), (2600, 4800), 2),
    "wide": Board(("motorcycle_left", "coffee", "ihc", "astronaut"), (5800, 1100), 3),
    "road": Board(("motorcycle_right", "chelsea", "coffee", "camera", "coins"), (8200, 720), 4),
    "faint": Board(("gravel", "grass"), (4400, 720), 5, faint, feather=8),
    "dark": Board(("gravel", "grass"), (4400, 720), 5, dark, feather=8),
    "bright": Board(("gravel", "grass"), (4400, 720), 5, bright, feather=8),
    "recurring": Board(("brick", "grass", "chelsea"), (4050, 720), 8, recurring),
}
_painting = threading.Lock()


@cache
def _painted(name: str) -> Picture:
    board = BOARDS[name]
    rgb = mosaic(board.photographs, board.size, board.seed, feather=board.feather)
    return i420(board.finish(rgb) if board.finish else rgb)


def canvas(name: str) -> Picture:
    """A canvas by its name, painted once (builders run in threads)."""
    with _painting:
        return _painted(name)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures over time


def view(board: Picture, left: int, top: int, size: Size) -> Picture:
    """The part of a canvas that the camera sees; all numbers even, in px."""
    width, height = size
    seen = np.empty((height * 3 // 2, width), np.uint8)
    for part, (whole, out) in enumerate(zip(planes(board), planes(seen), strict=True)):
        shrink = 1 if part == 0 else 2
        y, x = top // shrink, left // shrink
        if y < 0 or x < 0 or y + out.shape[0] > whole.shape[0] or x + out.shape[1] > whole.shape[1]:
            raise ValueError(f"camera at {left}, {top} leaves the canvas")
        out[:] = whole[y : y + out.shape[0], x : x + out.shape[1]]
    return seen


def track(name: str, size: Size, places: Iterable[tuple[int, int]]) -> Iterator[Picture]:
    """What a camera sees whose top left corner is at each of `places` (px on the canvas) in turn."""
    board = canvas(name)
    for left, top in places:
        yield view(board, left, top, size)


def line(start: tuple[int, int], step: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """`count` places on a straight line, `step` px apart."""
    return [(start[0] + step[0] * i, start[1] + step[1] * i) for i in range(count)]


def pan(
    name: str, step: tuple[int, int], start: tuple[int, int] = (0, 0), size: Size = HD, count: int = FRAMES
) -> Pictures:
    """A camera that moves `step` px per frame over a canvas."""
    return track(name, size, line(start, step, count))


@dataclass(frozen=True)
class Zoom:
    """A camera that closes in and draws back in turn, by `rate` per s, `leg` frames each way, and moves sideways."""

    name: str = "wide"
    rate: float = 1.35
    speed: float = 120.0  # Pixels a second on the canvas.
    fps: int = 25
    leg: int = 80  # A segment of a 16 s clip: keyframes lie in the middle of a leg.
    count: int = 400
    size: Size = HD

    def at(self, seconds: float) -> tuple[float, float, float]:
        """Magnification, and the canvas point (px) in the middle of the picture."""
        phase = seconds * self.fps / self.leg % 2
        grown = (phase if phase < 1 else 2 - phase) * self.leg / self.fps
        return 0.7 * self.rate**grown, 930 + self.speed * seconds, 550.0

    def pictures(self) -> Iterator[Picture]:
        """The frames, in order."""
        board = canvas(self.name)
        for i in range(self.count):
            scale, x, y = self.at(i / self.fps)
            seen = np.empty((self.size[1] * 3 // 2, self.size[0]), np.uint8)
            for part, (whole, out) in enumerate(zip(planes(board), planes(seen), strict=True)):
                shrink = 1 if part == 0 else 2
                height, width = out.shape
                shift = (x / shrink - (width - 1) / 2 / scale, y / shrink - (height - 1) / 2 / scale)
                matrix = np.array([[1 / scale, 0, shift[0]], [0, 1 / scale, shift[1]]])
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                out[:] = cv2.warpAffine(whole, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
            yield seen

    def flow(self, times: Sequence[float]) -> float:
        """Mean length (px at long side 960) of the motion field from each of `times` (s) to its partner."""
        width, height = self.size
        grid_x, grid_y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
        lengths = []
        for t in times:
            scale, x, _ = self.at(t)
            later, later_x, _ = self.at(t + GAP)
            grow = later / scale - 1
            lengths.append(np.hypot(grid_x * grow - later * (later_x - x), grid_y * grow).mean())
        return float(np.mean(lengths)) * ANALYSIS / max(width, height)


def halting(frames: int, segment: int, slow: int, fast: int) -> list[tuple[int, int]]:
    """Places of a camera that goes `slow` px per frame at each keyframe and its partner, and `fast` between."""
    before, after = segment // 8, segment // 4
    left, places = 0, []
    for i in range(frames):
        places.append((left, 60))
        from_key = i % segment - segment // 2
        left += slow if -before <= from_key < after else fast
    return places


def breathing(pictures: Pictures, amplitude: float, half_period: int) -> Iterator[Picture]:
    """Brightness up and down by `amplitude` luma levels, extremes `half_period` frames apart: too slow for a cut."""
    for i, picture in enumerate(pictures):
        luma = planes(picture)[0]
        offset = round(amplitude * np.cos(pi * (i / half_period - 0.5)))
        luma[:] = np.clip(luma.astype(np.int16) + offset, 16, 235)
        yield picture


def dissolve(first: Pictures, second: Pictures, before: int, overlap: int) -> Iterator[Picture]:
    """`before` frames of `first` alone, `overlap` frames of both, then `second` alone."""
    one, two = iter(first), iter(second)
    yield from itertools.islice(one, before)
    for i, (old, new) in enumerate(zip(itertools.islice(one, overlap), two, strict=False)):
        share = (i + 1) / (overlap + 1)
        yield cv2.addWeighted(old, 1 - share, new, share, 0)
        if i == overlap - 1:
            break
    yield from two


def through_black(first: Pictures, second: Pictures, before: int, fade: int) -> Iterator[Picture]:
    """`before` frames of `first`, a fade of `fade` frames to black, one of `fade` frames from black, then `second`."""
    black = plain(HD, 16)
    one, two = iter(first), iter(second)
    yield from itertools.islice(one, before)
    for i, picture in enumerate(itertools.islice(one, fade)):
        yield cv2.addWeighted(black, (i + 1) / fade, picture, 1 - (i + 1) / fade, 0)
    for i, picture in enumerate(itertools.islice(two, fade)):
        yield cv2.addWeighted(black, 1 - i / fade, picture, i / fade, 0)
    yield from two


def turned(pictures: Pictures) -> Iterator[Picture]:
    """Pictures a quarter turn clockwise, as a camera held on its side stores them."""
    for picture in pictures:
        yield np.concatenate([cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE).ravel() for p in planes(picture)]).reshape(
            picture.shape[1] * 3 // 2, -1
        )


def woven(pictures: Pictures) -> Iterator[Picture]:
    """Interlaced frames: even lines of each picture, odd lines of the next one."""
    source = iter(pictures)
    for now, then in zip(source, source, strict=False):
        for old, new in zip(planes(now), planes(then), strict=True):
            old[1::2] = new[1::2]
        yield now


def plain(size: Size, luma: int) -> Picture:
    """A grey picture without any structure; `luma` in limited range."""
    picture = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
    planes(picture)[0][:] = luma
    return picture


# ---------------------------------------------------------------------------------------------------------------------
# What lies on top of the picture and does not move


@dataclass(frozen=True)
class Overlay:
    """Something opaque at a fixed place, and the share (0..1) of the frame's area that counts as covered by it."""

    paint: Picture  # Packed I420.
    mask: NDArray[np.bool_]  # The shape is that of `paint`.
    share: float

    def over(self, pictures: Pictures) -> Iterator[Picture]:
        """The pictures with it on top."""
        for picture in pictures:
            np.copyto(picture, self.paint, where=self.mask)
            yield picture


def overlay(rgb: Picture, mask: NDArray[np.bool_], share: float) -> Overlay:
    """An overlay of an RGB picture, visible where `mask` (one value per px) is set."""
    half = mask[::2, ::2] | mask[1::2, ::2] | mask[::2, 1::2] | mask[1::2, 1::2]
    packed = np.concatenate([mask.ravel(), half.ravel(), half.ravel()]).reshape(-1, mask.shape[1])
    return Overlay(i420(rgb), packed, share)


def bars(top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, size: Size = HD) -> Overlay:
    """Black bars, heights and widths in px."""
    width, height = size
    mask = np.ones((height, width), np.bool_)
    mask[top : height - bottom, left : width - right] = False
    return overlay(np.zeros((height, width, 3), np.uint8), mask, float(mask.mean()))


def words(lines: Sequence[tuple[str, int]], size: Size = HD, scale: float = 1.9) -> Overlay:
    """White letters with a black outline, each line (text, baseline in px) in the middle; the share is of its boxes."""
    width, height = size
    paint = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    boxes = 0
    for text, baseline in lines:
        here = np.zeros_like(mask)
        font = cv2.FONT_HERSHEY_SIMPLEX
        (wide, _), _ = cv2.getTextSize(text, font, scale, 6)
        at = ((width - wide) // 2, baseline)
        cv2.putText(here, text, at, font, scale, 255, 14)
        cv2.putText(paint, text, at, font, scale, (255, 255, 255), 6)
        _, _, w, h = cv2.boundingRect(here)
        boxes += w * h
        mask |= here
    return overlay(paint, mask > 0, boxes / (width * height))


def badge(box: tuple[int, int, int, int], size: Size = HD) -> Overlay:
    """An opaque textured mark: a piece of a photograph in a white frame; `box` is left, top, width, height in px."""
    left, top, wide, high = box
    width, height = size
    paint = np.zeros((height, width, 3), np.uint8)
    inner = cv2.resize(photograph("ihc"), (wide, high), interpolation=cv2.INTER_AREA)
    paint[top : top + high, left : left + wide] = cv2.copyMakeBorder(
        inner[8:-8, 8:-8], 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + high, left : left + wide] = True
    return overlay(paint, mask, wide * high / (width * height))


# ---------------------------------------------------------------------------------------------------------------------
# Files

# The preset ultrafast alone has no B-frames, and then a scan that skips non-reference frames would have none to skip.
X264 = {"preset": "ultrafast", "crf": "30", "bf": "3", "b_strategy": "0"}
COARSE = (*X264.items(), ("crf", "33"))  # For pictures that are dear to encode.


@dataclass(frozen=True)
class Encoding:
    """How pictures become a stream."""

    size: Size = HD
    fps: int | Fraction = FPS
    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = tuple(X264.items())
    pix_fmt: str = "yuv420p"
    gop: int = 96  # Frames.
    sar: Fraction = Fraction(1)
    rotation: int = 0  # Degrees counter-clockwise.
    ticks: tuple[int, ...] = ()  # Pattern of frame lengths in 1/fps s; empty: every frame lasts one.


def add_video(out: Any, how: Encoding) -> Any:
    """A new video stream in an open output."""
    stream = out.add_stream(how.codec, rate=how.fps, options=dict(how.options))
    context = stream.codec_context
    stream.width, stream.height = how.size
    stream.pix_fmt = how.pix_fmt
    context.gop_size = how.gop
    context.sample_aspect_ratio = how.sar
    context.time_base = 1 / Fraction(how.fps)
    context.thread_count = 1  # The same bytes on every machine; `build` makes two files at a time.
    context.color_range, context.colorspace = 1, 6  # Limited range, BT.601: as `i420` makes it.
    if how.rotation:
        stream.set_display_rotation(how.rotation)
    return stream


def feed(out: Any, stream: Any, pictures: Pictures, how: Encoding) -> None:
    """Encode pictures into a stream, to its end."""
    lengths = itertools.cycle(how.ticks or (1,))
    now = 0
    for picture in pictures:
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = now, 1 / Fraction(how.fps)
        frame.color_range, frame.colorspace = 1, 6
        frame.duration = next(lengths)
        now += frame.duration
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def film(path: Path, pictures: Pictures, how: Encoding, **container_options: str) -> None:
    """A file with one video stream; the container is told by the name."""
    with av.open(str(path), "w", options=container_options) as out:
        feed(out, add_video(out, how), pictures, how)


def displayed(how: Encoding) -> Size:
    """Size in px as a viewer sees it."""
    width, height = round(how.size[0] * how.sar), how.size[1]
    return (height, width) if how.rotation % 180 else (width, height)


def truth_of(how: Encoding, frames: int, **more: Any) -> Truth:
    """What follows from the encoding alone, and whatever else is known."""
    width, height = displayed(how)
    fps = Fraction(how.fps)
    if how.ticks:
        fps *= Fraction(len(how.ticks), sum(how.ticks))
    seconds = float(frames / fps)
    codec = {"libx264": "h264", "libvpx-vp9": "vp9", "libx265": "hevc"}.get(how.codec, how.codec)
    more.setdefault("clips", tuple((start, start + 15.0) for start in 15.0 * np.arange(int(seconds // 15))))
    return Truth(width, height, how.size, float(fps), seconds, codec, rotation=how.rotation, sar=how.sar, **more)


def panning(
    name: str,
    about: str,
    board: str,
    step: tuple[int, int],
    *,
    how: Encoding | None = None,
    frames: int = FRAMES,
    start: tuple[int, int] = (0, 60),
    on_top: Callable[[], Overlay] | None = None,
    filename: str = "",
    change: Callable[[Pictures], Pictures] | None = None,
    **more: Any,
) -> Case:
    """A camera at constant speed, `step` canvas px per frame (per tick where frames differ in length)."""
    how = how or Encoding()
    seen = how.size[::-1] if how.rotation and change is turned else how.size  # Before it is turned.

    def make(path: Path) -> None:
        places = line(start, step, frames * sum(how.ticks or (1,)) // len(how.ticks or (1,)) + 1)
        shown = list(itertools.accumulate(itertools.islice(itertools.cycle(how.ticks or (1,)), frames - 1), initial=0))
        pictures: Pictures = track(board, seen, (places[tick] for tick in shown))
        pictures = change(pictures) if change else pictures
        film(path, on_top().over(pictures) if on_top else pictures, how)

    x, y = float(-step[0] * how.fps), float(-step[1] * how.fps)  # The content moves against the camera.
    if change is turned:
        x, y = -y, x
    flow = (x * x + y * y) ** 0.5 * GAP * ANALYSIS / max(how.size)
    truth = truth_of(how, frames, velocity=(x, y), **{"flow": None if on_top else flow, **more})
    return Case(name, filename or f"{name}.mp4", about, make, truth)


def custom(name: str, about: str, pictures: Callable[[], Pictures], how: Encoding, frames: int, **more: Any) -> Case:
    """A film whose truth is stated by hand."""
    return Case(name, f"{name}.mp4", about, lambda path: film(path, pictures(), how), truth_of(how, frames, **more))


# ---------------------------------------------------------------------------------------------------------------------
# The cases

AT_25 = Encoding(fps=25)
TEXT = (("LATE NIGHT BREAKING NEWS", 610), ("WEATHER, SPORT AND TRAFFIC", 700))
BADGE = (880, 60, 320, 240)  # Left, top, width, height in px: a twelfth of the frame.

# Captions as a person might have written them, one per segment; and five that say the same.
STORY = (
    "The camera glides past a row of red motorcycles standing on a wooden floor.",
    "Grey antique coins laid out on dark cloth come into view.",
    "A photographer in a black coat bends over his tripod in an open field.",
    "Shelves with tools and boxes appear behind polished chrome engines.",
    "At last the view settles on a helmeted rider beside the garage door.",
)
STUTTER = tuple(f"A camera moves slowly down over a wall of colourful photographs{end}" for end in ".!,;?")


def passing() -> list[Case]:
    """Every clip passes every gate."""
    zoom = Zoom()
    return [
        panning(
            "pan_right", "camera to the right", "street", (8, 0),
            caption="A long sideways move over motorcycles, coins and a photographer.", sub_captions=STORY,
        ),
        panning("pan_left", "camera to the left, faster", "table", (-10, 0), start=(5000, 120)),
        panning(
            "pan_down", "camera downwards", "tower", (0, 8), start=(200, 200),
            caption="A camera moves down over photographs.", sub_captions=STUTTER,
        ),
        panning("pan_diagonal", "camera down and to the right, 30000/1001 fps", "tower", (2, 8),
                start=(0, 100), frames=480, how=Encoding(fps=Fraction(30000, 1001))),
        panning("pan_1080p", "1920x1080 at 30 fps", "wide", (8, 0), start=(0, 10), frames=480,
                how=Encoding(size=(1920, 1080), fps=30, options=COARSE)),
        custom("zoom", "in and out in turn, by a known factor, moving sideways", zoom.pictures,
               Encoding(fps=25, options=COARSE), 400, zoom=zoom.rate,
               flow=zoom.flow([*(0.5 + i for i in range(14)), 14.4])),
        panning("letterbox_thin", "bars so thin that they do no harm", "street", (10, 0), start=(200, 100),
                on_top=partial(bars, 8, 8), borders=16 / 720),
        panning("rotated", "stored 720x1280, a quarter turn clockwise", "table", (8, 0),
                how=Encoding(size=(720, 1280), rotation=90), change=turned),
        panning("anamorphic", "stored 960x720, pixels 4:3", "street", (8, 0), start=(1000, 0),
                how=Encoding(size=(960, 720), sar=Fraction(4, 3))),
        panning("vfr", "frames of 1/24 and 1/48 s, 30 fps on average", "street", (4, 0), frames=480,
                how=Encoding(fps=48, ticks=(2, 2, 2, 1, 1))),
        panning("long_take", "47 s without a cut: three windows of 15 s", "road", (6, 0), frames=1128, start=(0, 0)),
    ]  # fmt: skip


def failing() -> list[Case]:
    """Each fails one gate, and no other."""
    return [
        panning("too_narrow", "960x720", "street", (8, 0), how=Encoding(size=(960, 720)), fails=("width",)),
        panning("too_low", "1280x640", "table", (8, 0), how=Encoding(size=(1280, 640)), fails=("height",)),
        panning("too_slow_rate", "12 fps", "street", (16, 0), how=Encoding(fps=12), frames=192, fails=("fps",)),
        panning("too_fast_rate", "64 fps", "street", (4, 0), how=Encoding(fps=64), frames=976, fails=("fps",)),
        panning("too_short", "10 s", "table", (10, 0), frames=240, fails=("duration",)),
        panning("dark", "bright grains on black", "dark", (8, 0), start=(0, 0),
                grey=255 / (DARK_POWER + 1), fails=("grayscale",)),
        panning("bright", "dark grains on white", "bright", (8, 0), start=(0, 0),
                grey=255 - 255 / (BRIGHT_POWER + 1), fails=("grayscale",)),
        panning("letterbox", "bars of 92 px above and below", "street", (10, 0), on_top=partial(bars, 92, 92),
                borders=184 / 720, fails=("artifacts",)),
        panning("pillarbox", "bars of 160 px left and right", "tower", (0, 10), start=(0, 40),
                on_top=partial(bars, left=160, right=160), borders=320 / 1280, fails=("artifacts",)),
        panning("burnt_in_text", "two lines of subtitles that stay", "street", (8, 0), on_top=partial(words, TEXT),
                how=Encoding(options=COARSE), text=words(TEXT).share, fails=("artifacts",)),
        panning("logo", "an opaque mark in the corner", "table", (10, 0), on_top=partial(badge, BADGE),
                marks=BADGE[2] * BADGE[3] / (HD[0] * HD[1]), fails=("artifacts",)),
        panning("too_still", "creeps", "street", (2, 0), how=AT_25, frames=400, fails=("flow",)),
        panning("faint", "keyframes alike in value, not in structure", "faint", (8, 0), start=(0, 0), grey=125.0,
                fails=("psnr",)),
        custom("recurring", "the same picture in every segment, darker and brighter", recurring_pictures,
               AT_25, 400, velocity=(-150.0, 0.0), flow=56.25, fails=("ssim",)),
        panning("rotated_narrow", "stored 1280x720, displayed 720x1280", "street", (8, 0),
                how=Encoding(rotation=90), fails=("width",)),
    ]  # fmt: skip


def recurring_pictures() -> Pictures:
    """A pan over what repeats every segment, darker at every other keyframe."""
    return breathing(pan("recurring", (6, 0), count=400), 17, 75)


def edited() -> list[Case]:
    """Several shots in one file."""
    short = 144  # 6 s

    def shots() -> Iterator[Picture]:
        yield from pan("street", (8, 0), (0, 100))
        yield from pan("table", (0, 0), (800, 40), count=short)
        yield from pan("tower", (0, -8), (600, 3800))

    def crossing() -> Pictures:
        return dissolve(pan("table", (8, 0), (0, 100), count=408), pan("tower", (0, 8), count=408), FRAMES, FPS)

    def dipping() -> Pictures:
        first, second = pan("tower", (0, 8), (900, 0), count=396), pan("street", (-8, 0), (4000, 0), count=396)
        return through_black(first, second, FRAMES, 12)

    return [
        custom("three_shots", "16 s, a static one of 6 s, 16 s; hard cuts", shots, Encoding(), 2 * FRAMES + short,
               cuts=(16.0, 22.0), clips=((0.0, 15.0), (22.0, 37.0))),
        custom("dissolve", "one second of cross-dissolve between two shots", crossing, Encoding(), 2 * FRAMES + FPS,
               transitions=((16.0, 17.0),), clips=((0.0, 15.0), (17.0, 32.0))),
        custom("fade", "half a second to black and half a second from it", dipping, Encoding(), 2 * FRAMES + FPS,
               transitions=((16.0, 17.0),), clips=((0.0, 15.0), (17.0, 32.0))),
        custom("static", "nothing moves", lambda: pan("street", (0, 0), (600, 60)), Encoding(), FRAMES,
               velocity=(0.0, 0.0), flow=0.0, fails=("flow", "psnr", "ssim")),
    ]  # fmt: skip


def small(
    name: str, suffix: str, about: str, how: Encoding, change: Callable[[Pictures], Pictures] | None = None
) -> Case:
    """Three seconds, small, in some other container or codec."""
    frames = 3 * int(how.fps)

    def make(path: Path) -> None:
        pictures = pan("street", (2, 0), (600, 60), how.size, frames if change is None else 2 * frames)
        film(path, change(pictures) if change else pictures, how)

    return Case(name, f"{name}{suffix}", about, make, truth_of(how, frames, fails=("width", "height", "duration")))


RATE = 48000  # Hz


def add_tone(out: Any) -> Any:
    """A new AAC stream in an open output."""
    return out.add_stream("aac", rate=RATE, layout="mono")


def sing(out: Any, stream: Any, seconds: int = 3) -> None:
    """440 Hz into the audio stream."""
    wave = (np.sin(np.arange(seconds * RATE) * 2 * pi * 440 / RATE) * 0.2).astype(np.float32)
    for at in range(0, wave.size, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def add_cover(out: Any) -> Any:
    """A stream for an attached picture in an open output."""
    cover = out.add_mux_stream("mjpeg", width=451, height=300)
    cover.disposition = Disposition.attached_pic
    return cover


def paste(out: Any, cover: Any) -> None:
    """A photograph into the attached picture's stream."""
    _, jpeg = cv2.imencode(".jpg", photograph("chelsea")[:, :, ::-1])
    out.mux(raw_packet(cover, jpeg.tobytes()))


def raw_packet(stream: Any, data: bytes) -> Any:
    """A packet that is muxed as it is, at time 0."""
    packet = av.Packet(data)
    packet.stream, packet.time_base, packet.pts, packet.dts, packet.is_keyframe = stream, Fraction(1, FPS), 0, 0, True
    return packet


def sound_only(path: Path) -> None:
    """A tone and nothing to see."""
    with av.open(str(path), "w") as out:
        sing(out, add_tone(out))


def sound_with_cover(path: Path) -> None:
    """A tone with an attached picture: its one video stream is no video."""
    with av.open(str(path), "w") as out:
        stream, cover = add_tone(out), add_cover(out)
        paste(out, cover)
        sing(out, stream)


SMALL_FILM = Encoding(size=SMALL)


def small_pan(size: Size = SMALL) -> Pictures:
    """Three seconds for a small file."""
    return pan("table", (2, 0), (600, 60), size, 3 * FPS)


def film_with_cover(path: Path) -> None:
    """The attached picture is larger than the film."""
    with av.open(str(path), "w") as out:
        cover, stream, tone = add_cover(out), add_video(out, SMALL_FILM), add_tone(out)
        paste(out, cover)
        feed(out, stream, small_pan(), SMALL_FILM)
        sing(out, tone)


TWO_STREAMS = Encoding(size=(640, 360))


def two_films(path: Path) -> None:
    """The first stream is the larger one and the default."""
    with av.open(str(path), "w") as out:
        first, second = add_video(out, TWO_STREAMS), add_video(out, SMALL_FILM)
        first.disposition = Disposition.default
        feed(out, first, small_pan(TWO_STREAMS.size), TWO_STREAMS)
        feed(out, second, pan("street", (2, 0), (600, 60), SMALL, 3 * FPS), SMALL_FILM)


def formats() -> list[Case]:
    """Other containers, codecs and contents; all of them small."""
    vp9 = (("deadline", "realtime"), ("cpu-used", "8"), ("crf", "36"), ("b", "0"))
    x265 = (("preset", "ultrafast"), ("crf", "30"), ("x265-params", "log-level=none"))
    weave = (*X264.items(), ("flags", "+ildct+ilme"), ("x264-params", "tff=1"))
    little = ("width", "height", "duration")
    return [
        small("vp9", ".webm", "VP9 in WebM", Encoding(size=SMALL, codec="libvpx-vp9", options=vp9)),
        small("hevc_10bit", ".mkv", "HEVC, 10 bits, in Matroska",
              Encoding(size=SMALL, codec="libx265", pix_fmt="yuv420p10le", options=x265)),
        small("transport_stream", ".ts", "MPEG-TS: its first timestamp is not 0", Encoding(size=SMALL)),
        small("mpeg4", ".avi", "MPEG-4 part 2 in AVI",
              Encoding(size=SMALL, codec="mpeg4", options=(("qscale", "5"), ("bf", "0")))),
        small("quicktime", ".mov", "H.264 in QuickTime", Encoding(size=SMALL)),
        small("interlaced", ".mp4", "top field first, 25 frames per s",
              Encoding(size=(720, 576), fps=25, options=weave, sar=Fraction(16, 15)), woven),
        Case("film_with_cover", "film_with_cover.mp4", "a cover picture, a film and sound", film_with_cover,
             truth_of(SMALL_FILM, 3 * FPS, fails=little)),
        Case("two_films", "two_films.mp4", "two video streams", two_films,
             truth_of(TWO_STREAMS, 3 * FPS, fails=little)),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Files that are no video


def cut_off(path: Path, share: float, **container_options: str) -> None:
    """The first part of a good film; the index is at its end unless `container_options` say otherwise."""
    film(path, pan("street", (8, 0)), Encoding(), **container_options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def enormous(path: Path, side: int) -> None:
    """A PNG frame of `side` x `side` px in QuickTime: 3 KB on disk, 3 * side**2 bytes decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(9)
    row = bytes(1 + side * 3)
    packed = b"".join(squeeze.compress(row) for _ in range(40)) + squeeze.flush()  # A bomb need not be whole to go off.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    with av.open(str(path), "w") as out:
        stream = out.add_mux_stream("png", rate=FPS, width=side, height=side)
        out.mux(raw_packet(stream, png))


def broken() -> list[Case]:
    """Inputs that must end as an error, never as a rejection."""

    def noise(path: Path) -> None:
        path.write_bytes(np.random.default_rng(0).bytes(64 * 1024))

    def prose(path: Path) -> None:
        path.write_text("This is no video.\n" * 99)

    def case(filename: str, about: str, error: str, make: Maker, truth: Truth | None = None) -> Case:
        return Case(filename.partition(".")[0], filename, about, make, truth or Truth(error=error))

    one = truth_of(Encoding(), 1, error="one_frame", fails=("duration",))
    half = truth_of(Encoding(), FRAMES, error="truncated", clips=())
    return [
        case("empty.mp4", "no bytes", "empty", Path.touch),
        case("garbage.mp4", "64 KiB of noise", "not_a_video", noise),
        case("text.mp4", "a text file", "not_a_video", prose),
        case("no_index.mp4", "the first 60 % of a file that has its index at the end", "truncated",
             partial(cut_off, share=0.6)),
        case("cut_off.mp4", "the first 60 % of a file that has its index at the front: it promises 16 s",
             "truncated", partial(cut_off, share=0.6, movflags="faststart"), half),
        case("one_frame.mp4", "a single frame", "one_frame",
             lambda path: film(path, pan("street", (0, 0), count=1), Encoding()), one),
        case("enormous.mov", "16000x16000 px: merely opening it takes 768 MB", "too_large",
             partial(enormous, side=16000),
             Truth(16000, 16000, (16000, 16000), FPS, 1 / FPS, "png", error="too_large")),
        case("impossible_size.mov", "30000x30000 px: more than the decoder takes", "too_large",
             partial(enormous, side=30000)),
        case("sound_only.m4a", "AAC alone", "no_video", sound_only),
        case("sound_with_cover.mp4", "AAC and a cover picture", "no_video", sound_with_cover),
    ]  # fmt: skip


CASES: dict[str, Case] = {case.name: case for case in (*passing(), *failing(), *edited(), *formats(), *broken())}


# ---------------------------------------------------------------------------------------------------------------------
# Making them


def make(case: Case, folder: Path) -> Path:
    """One file, if it is not there yet; it gets its name only when it is whole."""
    path = folder / case.filename
    if not path.exists():
        unfinished = folder / f".{os.getpid()}-{case.filename}"
        try:
            case.make(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def build(folder: str | Path, names: Iterable[str] | None = None) -> dict[str, Path]:
    """Make what is not there yet of the cases called `names` (all of them if None); the path of each.

    A file that is there is taken as it is: use a fresh folder after a change to this module.
    """
    cases = [CASES[name] for name in (CASES if names is None else names)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:  # Encoders let go of the interpreter's lock.
        paths = pool.map(lambda case: make(case, folder), cases)
        return {case.name: path for case, path in zip(cases, paths, strict=True)}


class Corpus(Mapping[str, Path]):
    """The path of every case by its name; a file is made when its path is first asked for.

    Several processes may share the folder: each writes to a name of its own, and renames what is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: str) -> Path:
        return make(CASES[name], self.folder)

    def __iter__(self) -> Iterator[str]:
        return iter(CASES)

    def __len__(self) -> int:
        return len(CASES)


MAKERS = ("av", "numpy", "opencv-python-headless", "scikit-image")  # Packages that shape the bytes of a file.


def cache_folder() -> Path:
    """Where files of this very corpus are kept between runs: another source of this module, or another version of a
    package that shapes the files, has another folder. LONGTAKE_TEST_CORPUS names a folder to use instead."""
    if given := os.environ.get("LONGTAKE_TEST_CORPUS"):
        return Path(given)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(" ".join(f"{name} {version(name)}" for name in MAKERS).encode())
    return caches / "longtake" / "corpus" / digest.hexdigest()[:16]


def main() -> None:
    """Make the corpus in a folder and say what is in it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(CASES), help="these cases, not all")
    given = parser.parse_args()
    for name, path in build(given.folder, given.only).items():
        truth = CASES[name].truth
        verdict = truth.error or ("fails " + ", ".join(truth.fails) if truth.fails else "passes")
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  {verdict}: {CASES[name].about}")


if __name__ == "__main__":
    main()
