"""Events in a take that are no cuts, for the films on which the shot networks are trained: flashes, strobe, exposure steps,
pop-ups, large things that pass, black for a moment, blocks out of place, cameras that are moved, turned, zoomed or shaken."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.shots_takes import HEIGHT, WIDTH, Generator, Picture, Take, moved

TROUBLES = ("flash", "strobe", "light", "light", "light", "gain", "pop-up", "pop-up", "pass", "pass", "pass")
TROUBLES += ("blackout", "blackout", "dip", "blocks", "colour")
MOVES = ("pan", "pan", "zoom", "turn", "shake")


def trouble(rng: Generator, pictures: list[Picture], fps: float, other: Take, begins: bool) -> bool:
    """Something happens in the middle of a piece; in place. begins: whether the piece begins with a cut, so that its first
    picture may be changed. Whether its last picture is changed, so that a cut must follow."""
    count, start = len(pictures), int(rng.integers(0, max(1, len(pictures) - int(fps / 2))))
    kind, last = str(rng.choice([*TROUBLES, *MOVES] if begins else TROUBLES)), pictures[-1].copy()
    if kind in MOVES:
        _move(rng, kind, pictures, fps, start)
        return True
    steps = max(1, int(rng.uniform(0, 1.2) * fps))
    amount, factor = rng.uniform(-110, 130), rng.uniform(0.3, 2)
    period, level, blinks = int(rng.integers(2, 7)), float(rng.choice([0, 0, 255])), bool(rng.random() < 0.4)
    places, tint = rng.permutation(36), rng.uniform(0.2, 1.2, 3)
    size, corner, plain, outline = _overlay(rng, kind == "pass")
    seconds = {
        "flash": rng.uniform(0.04, 0.2),
        "strobe": rng.uniform(0.4, 1.5),
        "pop-up": rng.uniform(0.3, 4),
        "pass": rng.uniform(0.6, 3.5),
        "blackout": rng.uniform(0.04, 0.6),
        "dip": rng.uniform(0.4, 1.2),
        "blocks": rng.uniform(0.04, 0.3),
    }
    lasts = max(1, int(seconds[kind] * fps)) if kind in seconds else count
    for i in range(start, min(count, start + lasts)):
        share, picture = min(1.0, (i - start + 1) / steps), pictures[i]
        if kind == "flash" or (kind == "strobe" and (i - start) % period == 0):
            pictures[i] = picture * rng.uniform(1, 1.4) + abs(amount) + 60
        elif kind == "light":
            pictures[i] = picture + amount * share
        elif kind == "gain":
            pictures[i] = picture * (1 + (factor - 1) * share)
        elif kind in ("pop-up", "pass"):
            way = (i - start + 0.5) / lasts
            x = corner[0] if kind == "pop-up" else round(-size[0] + way * (WIDTH + size[0]))
            shown = np.full((size[1], size[0], 3), tint * 200, np.float32)
            shown = shown if plain else cv2.resize(other.at(1 + (i - start) / fps), size)
            _put(picture, shown, x, corner[1], outline)
        elif kind == "blackout":
            pictures[i] = picture if blinks and (i - start) // period % 2 else picture * 0.02 + level * 0.98
        elif kind == "dip":
            apart = abs(2 * (i - start + 0.5) / lasts - 1)
            pictures[i] = picture * apart + level * (1 - apart)
        elif kind == "blocks":
            pictures[i] = _shuffled(picture, places)
        elif kind == "colour":
            pictures[i] = picture * (1 - share) + picture.mean(2, keepdims=True) * tint * share
    return not np.array_equal(last, pictures[-1])


def _move(rng: Generator, kind: str, pictures: list[Picture], fps: float, start: int) -> None:
    """The camera is moved, turned or zoomed, in a quarter of a second at the fastest; in place. A change of what is seen in less
    time is a jump."""
    steps, zoom, way_back = fps * rng.uniform(0.25, 1.5), rng.uniform(1.4, 2.5), bool(rng.random() < 0.4)
    degrees, waves, strong = rng.choice([-90, 90]) * rng.uniform(0.3, 1), rng.uniform(0.3, 3, 2), rng.uniform(2, 10)
    blurred, shaken = bool(rng.random() < 0.5), range(start, start + int(1.5 * fps))
    before = 0.0
    for i, picture in enumerate(pictures):
        share = min(1.0, max(0.0, (i - start + 1) / steps))
        if way_back:
            share -= min(1.0, max(0.0, (i - start + 1 - 1.5 * steps) / steps))
        share = share * share * (3 - 2 * share)
        if kind == "pan":
            panned = moved(picture, (share - 0.5) * WIDTH * (zoom - 1), 0, zoom)
            width = int(abs(share - before) * WIDTH * (zoom - 1))
            pictures[i] = cv2.blur(panned, (width, 1)) if blurred and width > 1 else panned
        elif kind == "zoom":
            pictures[i] = moved(picture, 0, 0, 1 + (zoom - 1) * share)
        elif kind == "turn":
            pictures[i] = _turned(picture, degrees * share)
        else:
            far = strong * (i in shaken)
            pictures[i] = moved(picture, far * np.sin(i * waves[0]), 0.6 * far * np.cos(i * waves[1]), 1.2)
        before = share


def _turned(picture: Picture, degrees: float) -> Picture:
    """About its middle, and so much larger that its corners are filled."""
    larger = 1 + (WIDTH / HEIGHT - 1) * abs(np.sin(np.radians(degrees)))
    where = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, larger)
    return np.asarray(cv2.warpAffine(picture, where, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.float32)


def _shuffled(picture: Picture, places: npt.NDArray[np.int64]) -> Picture:
    """Blocks out of place, as where data were lost; some stay."""
    out, height, width = picture.copy(), HEIGHT // 6, WIDTH // 6
    for k, place in enumerate(places.tolist()):
        if place % 5 < 3:
            (y, x), (v, u) = divmod(k, 6), divmod(place, 6)
            block = picture[v * height : (v + 1) * height, u * width : (u + 1) * width]
            out[y * height : (y + 1) * height, x * width : (x + 1) * width] = block
    return out


def _overlay(
    rng: Generator, passes: bool
) -> tuple[tuple[int, int], tuple[int, int], bool, npt.NDArray[np.bool_] | None]:
    """Width and height of something in front of the scene, where its corner lies, whether it is plain, and its outline (None: a
    rectangle). passes: it may be larger than the picture."""
    width = int(WIDTH * rng.uniform(0.1, 1.3 if passes else 0.8))
    height = HEIGHT if passes and rng.random() < 0.5 else int(HEIGHT * rng.uniform(0.1, 0.9))
    corner = int(rng.integers(0, max(WIDTH - width, 0) + 1)), int(rng.integers(0, HEIGHT - height + 1))
    outline = None
    if passes and rng.random() < 0.5:
        y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
        top, bottom = rng.uniform(0.15, 0.5, 2)
        outline = np.abs(x - 0.5) < top + (bottom - top) * np.minimum(y * rng.uniform(1, 3), 1)
    through = passes and outline is None and height == HEIGHT and width > 0.7 * WIDTH
    return (width, height), corner, bool(through or rng.random() < 0.4), outline


def _put(picture: Picture, shown: Picture, x: int, y: int, outline: npt.NDArray[np.bool_] | None) -> None:
    left, right = max(x, 0), min(x + shown.shape[1], WIDTH)
    if left < right:
        part, behind = shown[:, left - x : right - x], picture[y : y + shown.shape[0], left:right]
        behind[...] = part if outline is None else np.where(outline[:, left - x : right - x, None], part, behind)
