"""Takes for the films on which the shot networks are trained, and what a camera shows of them.

Takes are stretches of real film, pans over photographs and plain cards. A camera shows all of one, or a part of it that wanders.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]
Generator = np.random.Generator
WIDTH, HEIGHT = 96, 54
WIDE = (2 * WIDTH, 2 * HEIGHT)  # Pixels. The size of a take's own pictures, of which a view shows all or a quarter.
STILL = 0.2  # Share of views.


@dataclass(frozen=True)
class Take:
    """Pictures without a cut. times: seconds from 0 on. pictures: uint8 [n, 2 * HEIGHT, 2 * WIDTH, 3], BGR."""

    times: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.uint8]

    @property
    def seconds(self) -> float:
        return float(self.times[-1])

    def wide(self, moment: float) -> npt.NDArray[np.uint8]:
        index = min(int(np.searchsorted(self.times, moment - 1e-3)), len(self.times) - 1)
        return self.pictures[index]

    def at(self, moment: float) -> Picture:
        small = cv2.resize(self.wide(moment), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)


class View:
    """What a camera shows of a take: all of it, or a quarter, that tilts and pans from rest to rest, held by hand or not; or one
    picture of it, still, or slowly enlarged, as in a show of slides."""

    def __init__(self, rng: Generator, take: Take) -> None:
        self.take, self.roams = take, bool(rng.random() < 0.35)
        self.still = float(rng.uniform(0, take.seconds)) if rng.random() < STILL else None
        self.roams &= self.still is None
        self.growth = float(rng.choice([0, 0, 0.02, 0.05, -0.03]))  # A share of a still picture's size, each second.
        time, place = 0.0, rng.random(2)
        self.times, self.places = [time], [place]
        held = bool(rng.random() < 0.6)
        while time < take.seconds:
            time += float(rng.uniform(0.1, 2.5))
            self.times.append(time)
            self.places.append(place)
            seconds = float(rng.uniform(0.5, 4))
            # A move by a whole picture in a short time looks like a push.
            most = 1.0 if seconds > 2.5 and held else 0.75
            way = rng.uniform(0.2, most) if rng.random() < 0.5 else most
            step = way * rng.choice([-1, 1], 2) * np.array([(0, 1), (0, 1), (1, 0), (0.7, 0.7)][rng.integers(4)])
            place = np.clip(place + np.where((place + step < 0) | (place + step > 1), -step, step), 0, 1)
            time += seconds
            self.times.append(time)
            self.places.append(place)
        self.eased = bool(rng.random() < 0.7)
        self.tremor = held * rng.uniform(0, 1.5, (2, 2))
        self.waves, self.phase = rng.uniform(3, 30, (2, 2)), rng.uniform(0, 6, (2, 2))

    def at(self, moment: float) -> Picture:
        if self.still is not None:
            return moved(self.take.at(self.still), 0, 0, 1.3 + self.growth * min(moment, 8.0))
        if not self.roams:
            return self.take.at(moment)
        k = min(max(int(np.searchsorted(self.times, moment)), 1), len(self.times) - 1)
        share = min(1.0, (moment - self.times[k - 1]) / (self.times[k] - self.times[k - 1]))
        share = share * share * (3 - 2 * share) if self.eased else share
        x, y = self.places[k - 1] + share * (self.places[k] - self.places[k - 1])
        dx, dy = (self.tremor * np.sin(self.waves * moment + self.phase)).sum(1)
        where = np.array([[1, 0, -x * WIDTH - dx], [0, 1, -y * HEIGHT - dy]], np.float32)
        shown = cv2.warpAffine(self.take.wide(moment), where, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(shown, np.float32)


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
        takes.append(Take(np.arange(0, 6, 0.1), np.repeat(cv2.resize(picture, WIDE)[None], 60, 0)))
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
        takes.append(Take(np.arange(144) / 24, np.stack([cv2.resize(picture, WIDE) for picture in pictures])))
    return takes


def moved(picture: Picture, dx: float, dy: float, zoom: float = 1.0) -> Picture:
    where = np.array([[zoom, 0, WIDTH / 2 * (1 - zoom) + dx], [0, zoom, HEIGHT / 2 * (1 - zoom) + dy]], np.float32)
    return np.asarray(cv2.warpAffine(picture, where, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE), np.float32)
