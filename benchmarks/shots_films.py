"""Films of thumbnails with known joints, out of real takes: what the shot network is trained on (`benchmarks/shots_train.py`).

Pieces of takes are joined by hard cuts, by jumps within a take and by twenty kinds of transitions, and troubled by what is no
cut: flashes, strobe, exposure steps, shaking, pop-ups, large things that pass, torn pans, noise, darkness, bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from longtake.curation.reading.likeness import REMEMBERED, Looks, compare, look_at

Picture = npt.NDArray[np.float32]
Generator = np.random.Generator
WIDTH, HEIGHT = 96, 54
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / np.array([HEIGHT - 1, WIDTH - 1], np.float32)[:, None, None]
LOOK_SECONDS = 1 / 16  # Seconds between two looks of a scan.
KINDS = (
    "fade",
    "black",
    "white",
    "greys",
    "crop",
    "zoom",
    "pixels",
    "blur",
    "squeeze",
    "cover",
    "reveal",
    "page",
    *["push"] * 2,
)
KINDS += ("mask",) * 4


@dataclass(frozen=True)
class Take:
    """Pictures without a cut. times: seconds from 0 on. pictures: uint8 [n, HEIGHT, WIDTH, 3], BGR."""

    times: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.uint8]

    @property
    def seconds(self) -> float:
        return float(self.times[-1])

    def at(self, moment: float) -> Picture:
        index = min(int(np.searchsorted(self.times, moment - 1e-3)), len(self.times) - 1)
        return self.pictures[index].astype(np.float32)


@dataclass(frozen=True)
class Film:
    """times: seconds. numbers: float32 [n, NUMBERS], of `compare`. truth: float32 [n, 2]: a cut lies before the picture (0.6: a
    jump within a take), the picture belongs to a transition (−1: not known)."""

    times: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]


def described(times: npt.NDArray[np.float64], pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    looks: Looks | None = None
    numbers = []
    for at in range(0, len(pictures), 16):
        new = look_at(times[at : at + 16].tolist(), pictures[at : at + 16])
        looks = new if looks is None else looks.since(-REMEMBERED).before(new)
        numbers.append(compare(looks, len(looks) - len(new)))
    return np.concatenate(numbers)


def cards(rng: Generator, count: int) -> list[Take]:
    """Black, white, titles and slides."""
    takes = []
    for k in range(count):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        if k % 3 == 0:
            picture[:] = 0 if rng.random() < 0.7 else 255
        elif k % 3 == 1:
            picture[:] = rng.integers(200, 256)
            for _ in range(rng.integers(3, 12)):
                x, y = int(rng.integers(4, 80)), int(rng.integers(4, 46))
                end = (x + int(rng.integers(3, 30)), y + int(rng.integers(1, 10)))
                cv2.rectangle(picture, (x, y), end, rng.integers(0, 255, 3).tolist(), -1)
        else:
            at, size = (int(rng.integers(2, 30)), int(rng.integers(15, 50))), float(rng.uniform(0.25, 0.6))
            cv2.putText(picture, "Title card", at, 0, size, rng.integers(120, 255, 3).tolist(), 1, cv2.LINE_AA)
        takes.append(Take(np.arange(0, 6, 0.1), np.repeat(picture[None], 60, 0)))
    return takes


def pans(rng: Generator, photos: list[npt.NDArray[np.uint8]], count: int) -> list[Take]:
    """Walks over photographs, or over several side by side. photos: uint8 [256, 384, 3]."""
    takes = []
    for _ in range(count):
        board = photos[rng.integers(len(photos))]
        if rng.random() < 0.5:
            board = cv2.resize(np.hstack([*(photos[rng.integers(len(photos))] for _ in range(2)), board]), (768, 256))
        if rng.random() < 0.3:
            board = cv2.GaussianBlur(board, (0, 0), sigmaX=6, sigmaY=2)
        where, speed = rng.uniform(0, 1, 3), rng.normal(0, [0.25, 0.25, 0.15]) * (1 if rng.random() < 0.6 else 0.1)
        tremor, pictures = rng.uniform(0, 0.4), []
        for _ in range(144):
            where = where + speed / 24
            x, y, z = 1 - np.abs(where % 2 - 1)  # A triangle wave moves the point to and fro.
            width, height = board.shape[1] / len(board[0]) * 384 * (0.3 + 0.5 * z), 215 * (0.3 + 0.5 * z)
            left, top = x * (board.shape[1] - width), y * (256 - height)
            scale = np.array([[WIDTH / width, 0, 0], [0, HEIGHT / height, 0]], np.float32)
            scale[:, 2] = np.array([-left * scale[0, 0], -top * scale[1, 1]]) + rng.normal(0, tremor, 2)
            pictures.append(cv2.warpAffine(board, scale, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))
        takes.append(Take(np.arange(144) / 24, np.stack(pictures)))
    return takes


# Transitions --------------------------------------------------------------------------------------------------------


def _order(rng: Generator) -> Picture:
    """When each pixel changes, 0 to 1: wipes, irises, clocks, blinds, dissolves of pixels and blocks."""
    kind = rng.integers(12)
    x, y = (_X, 1 - _X)[rng.integers(2)], (_Y, 1 - _Y)[rng.integers(2)]
    side = (x, y)[rng.integers(2)]
    if kind < 3:
        order = side
    elif kind < 5:
        order = (x + y) / 2
    elif kind < 7:
        centre = (0.5, 0.5) if rng.random() < 0.7 else rng.uniform(0.2, 0.8, 2)
        order = np.hypot((_X - centre[0]) * 16 / 9, _Y - centre[1])
        order = order / order.max()
        order = order if rng.random() < 0.5 else 1 - order
    elif kind == 7:
        order = (np.arctan2(_Y - 0.5, _X - 0.5) / (2 * np.pi) + rng.random()) % 1
    elif kind == 8:
        order = np.abs(side - 0.5) * 2
        order = order if rng.random() < 0.5 else 1 - order
    elif kind == 9:
        slices = side * rng.integers(4, 12) % 1
        order = slices if rng.random() < 0.5 else 0.4 * slices + 0.6 * side
    elif kind == 10:
        order = rng.random((HEIGHT, WIDTH))
    else:
        order = cv2.resize(rng.random((6, 10)), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return np.asarray(order, np.float32)


def _moved(picture: Picture, dx: float, dy: float, zoom: float = 1.0) -> Picture:
    where = np.array([[zoom, 0, WIDTH / 2 * (1 - zoom) + dx], [0, zoom, HEIGHT / 2 * (1 - zoom) + dy]], np.float32)
    return np.asarray(cv2.warpAffine(picture, where, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE), np.float32)


class Transition:
    """One kind, direction, softness and pace, drawn anew for each."""

    def __init__(self, rng: Generator) -> None:
        self.kind = str(rng.choice(KINDS))
        self.order, self.soft = _order(rng), float(rng.choice([0.02, 0.02, 0.15, 0.5]))
        self.step = ((1, 0), (-1, 0), (0, 1), (0, -1))[rng.integers(4)]
        self.eased, self.other = bool(rng.random() < 0.3), bool(rng.integers(2))

    def __call__(self, a: Picture, b: Picture, share: float) -> Picture:
        """The picture when `share` of the transition from a to b has passed."""
        share = share * share * (3 - 2 * share) if self.eased else share
        return np.clip(self._drawn(a, b, share), 0, 255)

    def _drawn(self, a: Picture, b: Picture, share: float) -> Picture:
        kind, mixed, apart = self.kind, a * (1 - share) + b * share, 2 * min(share, 1 - share)
        if kind == "fade":
            return mixed
        if kind in ("black", "white"):
            side, colour = (a, 0) if share < 0.5 else (b, 0)
            return side * (1 - apart) + (255 if kind == "white" else colour) * apart
        if kind == "greys":
            return mixed * (1 - apart) + mixed.mean(2, keepdims=True) * apart
        if kind == "mask":
            weight = np.clip((share * (1 + self.soft) - self.order) / self.soft, 0, 1)[..., None]
            return a * (1 - weight) + b * weight
        if kind == "crop":
            far = np.hypot(_X - 0.5, _Y - 0.5) / 0.7072 if self.other else np.maximum(abs(_X - 0.5), abs(_Y - 0.5)) * 2
            return np.where((far < 1 - apart)[..., None], a if share < 0.5 else b, 0)
        if kind == "zoom":
            late = max(2 * share - 1, 0)
            return _moved(a, 0, 0, 1 + 6 * min(2 * share, 1) ** 2) * (1 - late) + b * late
        if kind == "pixels":
            size = (max(2, int(WIDTH * (1 - 0.94 * apart))), max(2, int(HEIGHT * (1 - 0.94 * apart))))
            return cv2.resize(cv2.resize(mixed, size, interpolation=cv2.INTER_AREA), (WIDTH, HEIGHT), interpolation=0)
        if kind == "blur":
            return cv2.blur(mixed, (max(1, int(apart * WIDTH)), 1))
        if kind == "squeeze":
            return self._squeezed(a, b, share)
        if kind == "page":
            order = 1 - ((_X + 1 - _Y) / 2 if self.other else _X)
            turned = np.where((order < share * 1.15 - 0.15)[..., None], b, a[:, ::-1] * 0.5 + 110)
            return np.where((order < share * 1.15)[..., None], turned, a)
        dx, dy = self.step[0] * WIDTH, self.step[1] * HEIGHT
        come = {(1, 0): share > _X, (-1, 0): 1 - share < _X, (0, 1): share > _Y, (0, -1): 1 - share < _Y}[self.step]
        new = b if kind == "reveal" else _moved(b, dx * (share - 1), dy * (share - 1))
        old = a if kind == "cover" else _moved(a, dx * share, dy * share)
        return np.where(come[..., None], new, old)

    def _squeezed(self, a: Picture, b: Picture, share: float) -> Picture:
        out = b.copy()
        if self.other:
            size = max(1, int(HEIGHT * (1 - share)))
            at = (HEIGHT - size) // 2
            out[at : at + size] = cv2.resize(a, (WIDTH, size), interpolation=cv2.INTER_AREA)
        else:
            size = max(1, int(WIDTH * (1 - share)))
            at = (WIDTH - size) // 2
            out[:, at : at + size] = cv2.resize(a, (size, HEIGHT), interpolation=cv2.INTER_AREA)
        return out


# Troubles that are no cuts ------------------------------------------------------------------------------------------------


def _trouble(rng: Generator, pictures: list[Picture], fps: float, other: Take) -> None:
    """Something happens in the middle of a piece; in place."""
    count, start = len(pictures), int(rng.integers(0, max(1, len(pictures) - int(fps / 2))))
    kind = rng.choice(["flash", "strobe", "light", "light", "gain", "shake", "pop-up", "pop-up", "pass", "pass", "pan"])
    steps = max(1, int(rng.uniform(0, 1.2) * fps))
    amount, factor, waves = rng.uniform(-110, 130), rng.uniform(0.3, 2), rng.uniform(0.3, 3, 2)
    period, zoom, strong = int(rng.integers(2, 7)), rng.uniform(1.5, 2.5), rng.uniform(2, 10)
    shown, corner = _overlay(rng, other)
    lasts = {"flash": int(rng.integers(1, 7 if fps > 40 else 5)), "strobe": int(fps * rng.uniform(0.4, 1.5))}
    lasts |= {
        "shake": int(1.5 * fps),
        "pop-up": int(rng.uniform(0.3, 4) * fps),
        "pass": int(rng.uniform(0.6, 3.5) * fps),
    }
    for i in range(start, min(count, start + lasts.get(str(kind), count))):
        share, picture = min(1.0, (i - start + 1) / steps), pictures[i]
        if kind == "flash" or (kind == "strobe" and (i - start) % period == 0):
            pictures[i] = picture * rng.uniform(1, 1.4) + abs(amount) + 60
        elif kind == "light":
            pictures[i] = picture + amount * share
        elif kind == "gain":
            pictures[i] = picture * (1 + (factor - 1) * share)
        elif kind == "shake":
            pictures[i] = _moved(picture, strong * np.sin(i * waves[0]), 0.6 * strong * np.cos(i * waves[1]), 1.2)
        elif kind == "pop-up":
            _put(picture, shown, *corner)
        elif kind == "pass":
            way = (i - start) / lasts["pass"]
            _put(picture, shown, round(-shown.shape[1] + way * (WIDTH + shown.shape[1])), corner[1])
        elif kind == "pan":
            eased = share * share * (3 - 2 * share)
            pictures[i] = _moved(picture, (eased - 0.5) * WIDTH * (zoom - 1), 0, zoom)
    if kind == "pan":
        for i in range(start):
            pictures[i] = _moved(pictures[i], -0.5 * WIDTH * (zoom - 1), 0, zoom)


def _overlay(rng: Generator, other: Take) -> tuple[Picture, tuple[int, int]]:
    width, height = int(WIDTH * rng.uniform(0.1, 0.7)), int(HEIGHT * rng.uniform(0.1, 0.8))
    plain = np.full((height, width, 3), rng.uniform(0, 255, 3), np.float32)
    shown = cv2.resize(other.at(1.0), (width, height)) if rng.random() < 0.6 else plain
    return shown, (int(rng.integers(0, WIDTH - width + 1)), int(rng.integers(0, HEIGHT - height + 1)))


def _put(picture: Picture, shown: Picture, x: int, y: int) -> None:
    left, right = max(x, 0), min(x + shown.shape[1], WIDTH)
    if left < right:
        picture[y : y + shown.shape[0], left:right] = shown[:, left - x : right - x]


# Films --------------------------------------------------------------------------------------------------------------


def film(rng: Generator, takes: list[Take], seconds: float = 45.0) -> Film:
    """A film of pieces of `takes`, as a scan would see it."""
    fps = float(rng.choice([24, 24, 25, 30, 30, 50, 60]))
    frames: list[Picture] = []
    truth: list[tuple[float, float]] = []

    def other(than: int | None = None) -> int:
        return int(rng.choice([k for k in range(len(takes)) if k != than]))

    def somewhere(k: int) -> float:
        return float(rng.uniform(0, max(0.01, takes[k].seconds - 1.5)))

    now, joint = other(), 0.0
    position = somewhere(now)
    while len(frames) < seconds * fps:
        room = max(0.4, takes[now].seconds - position - 0.3)
        count = max(1, int(min(float(rng.choice([0.17, 0.3, 0.6, 1.2, 2, 3, 5, 8])), room) * fps))
        piece = [takes[now].at(position + i / fps) for i in range(count)]
        if rng.random() < 0.5 and count > 0.6 * fps:
            _trouble(rng, piece, fps, takes[other()])
        frames += piece
        truth += [(joint, 0.0)] + [(0.0, 0.0)] * (count - 1)
        position, joint = position + count / fps, 0.0
        room, chance, leap = (
            takes[now].seconds - position,
            rng.random(),
            position + rng.uniform(0.8, 3.2) * rng.choice([1, 1, 1, -1]),
        )
        if chance < 0.25 and room > 1.2:
            continue
        if chance < 0.6 and room > 0.8 and 0 <= leap < takes[now].seconds - 0.8:
            position, joint = leap, 0.6
        elif chance < 0.75 or room < 1.2:
            now = other(now)
            position, joint = somewhere(now), 1.0
        else:
            new, transition = other(now), Transition(rng)
            count, begin = int(float(rng.choice([0.3, 0.5, 0.7, 1, 1, 1.3, 1.7, 2.2])) * fps), somewhere(new)
            for i in range(count):
                pair = takes[now].at(position + i / fps), takes[new].at(begin + i / fps)
                frames.append(transition(*pair, (i + 0.5) / count))
                truth.append((0.0, 1.0))
            now, position = new, begin + count / fps
    return _seen(rng, _filmed(rng, frames), np.array(truth, np.float32), fps)


def _filmed(rng: Generator, frames: list[Picture]) -> list[npt.NDArray[np.uint8]]:
    """By one camera: mirrored, grey, dark, noisy, with bars."""
    mirrored, grey, gain = (
        rng.random() < 0.5,
        rng.random() < 0.15,
        rng.uniform(0.05, 1.2) if rng.random() < 0.4 else 1.0,
    )
    noise, bar = rng.uniform(0, 6) * (rng.random() < 0.3), int(rng.uniform(4, 9) * (rng.random() < 0.25))
    out = []
    for frame in frames:
        picture = np.clip(frame, 0, 255) * gain
        picture = np.repeat(picture.mean(2, keepdims=True), 3, 2) if grey else picture
        picture = np.clip(picture + rng.normal(0, noise, picture.shape) if noise else picture, 0, 255)
        picture[:bar] = picture[HEIGHT - bar :] = 0
        out.append(np.ascontiguousarray(picture[:, :: -1 if mirrored else 1], np.uint8))
    return out


def _seen(rng: Generator, frames: list[npt.NDArray[np.uint8]], truth: npt.NDArray[np.float32], fps: float) -> Film:
    """Only reference frames are decoded, and at most 16 a second looked at. A cut counts for the next picture that is seen."""
    steps = ([1], [2] if fps < 40 else [1], [1, 2, 3], [2, 2, 2, 1, 3, 4])[rng.integers(4)]
    seen, i = [0], 0
    while (i := i + int(rng.choice(steps))) < len(frames):
        if (i - seen[-1]) / fps >= LOOK_SECONDS:
            seen.append(i)
    rows = [truth[max(a + 1, 0) : b + 1].max(0) for a, b in zip([-1, *seen], seen, strict=False)]
    times = np.array(seen) / fps
    return Film(times, described(times, [frames[k] for k in seen]), np.stack(rows))
