"""Twenty kinds of transitions, for the films on which the shot networks are trained."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.shots_takes import HEIGHT, WIDTH, Generator, Picture, moved

_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) / np.array([HEIGHT - 1, WIDTH - 1], np.float32)[:, None, None]
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
    *["push"] * 4,
)
KINDS += ("mask",) * 4


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
            return moved(a, 0, 0, 1 + 6 * min(2 * share, 1) ** 2) * (1 - late) + b * late
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
        new = b if kind == "reveal" else moved(b, dx * (share - 1), dy * (share - 1))
        old = a if kind == "cover" else moved(a, dx * share, dy * share)
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
