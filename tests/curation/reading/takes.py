"""Thumbnails of films with known joints, made without encoding: moving takes of photographs, and what joins or troubles them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from longtake.curation.reading.cuts import Cut
from longtake.curation.reading.network_cuts import NetworkCuts
from longtake.curation.reading.stills import Grey
from longtake.filters.base import Image
from tests.corpus import photograph

RATE = 12  # Pictures a second: the number that a scan sees of 24 frames a second.
SIZE = (128, 72)
Pictures = list[Image]


@cache
def photo(name: str) -> Image:
    """uint8 [216, 384, 3], BGR."""
    return np.asarray(cv2.resize(photograph(name)[..., ::-1], (384, 216), interpolation=cv2.INTER_AREA), np.uint8)


def take(name: str, seconds: float, seed: int = 0, rate: int = RATE) -> Pictures:
    """A hand-held take: a slow pan with a tremor, the same at the same moments for one seed."""
    rng = np.random.default_rng(seed)
    speed, tremor = rng.uniform(5, 14, 2) * rng.choice([-1, 1], 2), rng.uniform(0, 6.28, 4)
    pictures = []
    for i in range(round(seconds * rate)):
        t = i / rate
        x = 128 + speed[0] * (t - 3) + 2 * np.sin(3 * t + tremor[0]) + np.sin(7 * t + tremor[1])
        y = 72 + speed[1] / 2 * (t - 3) + 2 * np.sin(2 * t + tremor[2]) + np.sin(5 * t + tremor[3])
        where = np.array([[1, 0, -np.clip(x, 0, 255)], [0, 1, -np.clip(y, 0, 143)]], np.float32)
        pictures.append(np.asarray(cv2.warpAffine(photo(name), where, SIZE, borderMode=cv2.BORDER_REFLECT), np.uint8))
    return pictures


def seen(board: Image, x: float, y: float, zoom: float, turn: float) -> Image:
    """A part of a picture, about the point (x, y), as a camera sees it that is held by hand."""
    where = cv2.getRotationMatrix2D((x, y), turn, zoom)
    where[:, 2] += (SIZE[0] / 2 - x, SIZE[1] / 2 - y)
    return np.asarray(cv2.warpAffine(board, where, SIZE, borderMode=cv2.BORDER_REFLECT), np.uint8)


def with_person(picture: Image, x: int) -> Image:
    """The picture with somebody in front of it who is a fifth as wide."""
    there = picture.copy()
    there[20:, x : x + 26] = cv2.convertScaleAbs(photo("motorcycle_left")[90:142, 200:226], alpha=0.8)
    return there


@dataclass(frozen=True)
class Walker:
    """Somebody who walks. place: the column about which they sway. coat, legs, face: BGR."""

    place: float
    coat: list[float]
    legs: list[float]
    face: list[float]


def walker(seed: int) -> Walker:
    rng = np.random.default_rng(seed)
    return Walker(rng.uniform(45, 80), *(rng.uniform(20, 230, 3).tolist() for _ in range(3)))


def following(names: Sequence[str], speed: float, seconds: float, seed: int = 0) -> Pictures:
    """A camera that walks along with somebody, past photographs. speed: widths of a picture a second."""
    wall, pictures = np.concatenate([photo(name) for name in names], axis=1), list[Image]()
    who = walker(seed)
    for i in range(round(seconds * RATE)):
        t = i / RATE
        x = wall.shape[1] / 2 + speed * SIZE[0] * (t - seconds / 2) + np.sin(3 * t)
        picture = seen(wall, x, 108 + 6 * np.sin(t / 2) + np.sin(4 * t), 0.6, 0)
        middle, step = who.place + 5 * np.sin(t / 2), np.sin(6 * t)
        for side in (1, -1):
            _limb(picture, (middle, 48), (middle + 9 * side * step, 72), 5, who.legs)
            _limb(picture, (middle, 34), (middle + 8 * side * step, 50), 4, who.coat)
        _limb(picture, (middle, 32), (middle, 48), 13, who.coat)
        _limb(picture, (middle, 23), (middle, 25), 9, who.face)
        pictures.append(picture)
    return pictures


def _limb(
    picture: Image, begin: tuple[float, float], end: tuple[float, float], width: int, colour: list[float]
) -> None:
    """A line, to a sixteenth of a pixel."""
    a, b = ((round(16 * x), round(16 * y)) for x, y in (begin, end))
    cv2.line(picture, a, b, colour, width, cv2.LINE_AA, 4)


def small(pictures: Pictures) -> list[Grey]:
    greys = (cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures)
    return [np.asarray(cv2.resize(grey, (64, 36), interpolation=cv2.INTER_AREA), np.uint8) for grey in greys]


def cuts_of(pictures: Pictures, detector: NetworkCuts | None = None) -> list[Cut]:
    """What a detector finds, by itself if none is given."""
    detector = detector or NetworkCuts()
    found = [cut for i, picture in enumerate(pictures) for cut in detector.push(i / RATE, picture)]
    return found + detector.finish()


Joint = Callable[[Image, Image, float], Image]


def _masked(covered: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> Joint:
    """B where `covered` of x, y in [0, 1] and the share of the transition that has passed."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / np.array([SIZE[1] - 1, SIZE[0] - 1])[:, None, None]
    return lambda a, b, share: np.where(covered(x, y, share)[..., None], b, a).astype(np.uint8)


def _mix(a: Image, b: Image, share: float) -> Image:
    return np.asarray(cv2.addWeighted(a, 1 - share, b, share, 0), np.uint8)


def _black(a: Image, b: Image, share: float) -> Image:
    return _mix(a, np.zeros_like(a), 2 * share) if share < 0.5 else _mix(np.zeros_like(b), b, 2 * share - 1)


def _slide(a: Image, b: Image, share: float) -> Image:
    at = round(share * SIZE[0])
    return np.concatenate([a[:, at:], b[:, :at]], axis=1)


def _squeeze(a: Image, b: Image, share: float) -> Image:
    height = max(1, round((1 - share) * SIZE[1]))
    top, squeezed = (SIZE[1] - height) // 2, b.copy()
    squeezed[top : top + height] = cv2.resize(a, (SIZE[0], height), interpolation=cv2.INTER_AREA)
    return squeezed


_SPECKS = np.random.default_rng(7).random((SIZE[1], SIZE[0]))
JOINTS: dict[str, Joint] = {
    "dissolve": _mix,
    "fade through black": _black,
    "wipe": _masked(lambda x, y, share: x < share),
    "wipe upwards": _masked(lambda x, y, share: y > 1 - share),
    "diagonal wipe": _masked(lambda x, y, share: x + y < 2 * share),
    "iris": _masked(lambda x, y, share: np.hypot((x - 0.5) * 16 / 9, y - 0.5) < share * 1.02),
    "clock": _masked(lambda x, y, share: (np.arctan2(y - 0.5, x - 0.5) / (2 * np.pi)) % 1 < share),
    "random dissolve": _masked(lambda x, y, share: share > _SPECKS),
    "slide": _slide,
    "squeeze": _squeeze,
}


def joined(joint: Joint, seconds: float, seed: int, rate: int = RATE) -> Pictures:
    """Two takes of 5 s, the second coming in from 4.5 s on, over `seconds`."""
    first, second = sorted(PHOTOS, key=lambda name: hash_of(name, seed))[:2]
    a, b = take(first, 4.5 + seconds, seed, rate), take(second, 5 + seconds, seed + 1, rate)
    before, count = round(4.5 * rate), round(seconds * rate)
    mixed = [joint(a[before + i], b[i], (i + 0.5) / count) for i in range(count)]
    return a[:before] + mixed + b[count:]


def hash_of(name: str, seed: int) -> int:
    """An order of names that differs by seed and by nothing else."""
    return int(np.random.default_rng([seed, *name.encode()]).integers(1 << 30))


PHOTOS = ("chelsea", "coffee", "astronaut", "motorcycle_left")


def flash(pictures: Pictures, at: int, count: int) -> Pictures:
    """White light over `count` pictures."""
    return [_lit(p, 170) if at <= i < at + count else p for i, p in enumerate(pictures)]


def strobe(pictures: Pictures, at: int, count: int) -> Pictures:
    return [_lit(p, 150) if at <= i < at + count and i % 3 == 0 else p for i, p in enumerate(pictures)]


def exposure(pictures: Pictures, at: int) -> Pictures:
    """It becomes brighter within a third of a second, and stays so."""
    return [_lit(p, round(90 * min(1, max(0, (i - at) / 4)))) for i, p in enumerate(pictures)]


def shake(pictures: Pictures, at: int, count: int) -> Pictures:
    """A camera that is shaken by up to a twentieth of the picture."""
    return [
        np.roll(p, (round(3 * np.cos(i * 2.7)), round(6 * np.sin(i * 2.1))), axis=(0, 1)) if at <= i < at + count else p
        for i, p in enumerate(pictures)
    ]


def pop_up(pictures: Pictures, at: int) -> Pictures:
    """A small picture over the corner, from one moment on."""
    shown = cv2.resize(photo("coins"), (36, 20), interpolation=cv2.INTER_AREA)
    out = [p.copy() for p in pictures]
    for p in out[at:]:
        p[46:66, 84:120] = shown
    return out


def dark(pictures: Pictures, seed: int) -> Pictures:
    """Night, and the noise of its sensor."""
    rng = np.random.default_rng(seed)
    return [np.clip(p * 0.06 + rng.normal(0, 3, p.shape), 0, 255).astype(np.uint8) for p in pictures]


def grey(pictures: Pictures) -> Pictures:
    return [np.repeat(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2) for p in pictures]


def _lit(picture: Image, more: int) -> Image:
    return np.asarray(cv2.add(picture, np.full_like(picture, more)), np.uint8)
