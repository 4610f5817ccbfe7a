"""Films of thumbnails with known joints, out of real takes: what the shot networks are trained on (`benchmarks/shots_train.py`).

Pieces of takes (`shots_takes.py`) are joined by hard cuts, by jumps within a take and by transitions (`shots_joints.py`), or by
nothing at all, and troubled by events that are no cuts (`shots_troubles.py`), by noise, darkness and bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.shots_joints import Transition
from benchmarks.shots_takes import HEIGHT, Generator, Picture, Take, View
from benchmarks.shots_troubles import trouble
from longtake.curation.reading.likeness import REMEMBERED, Looks, compare, look_at

LOOK_SECONDS = 1 / 16  # Seconds between two looks of a scan.


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


def film(rng: Generator, takes: list[Take], seconds: float = 45.0) -> Film:
    """A film of pieces of `takes`, as a scan would see it."""
    fps, pace = float(rng.choice([24, 24, 25, 30, 30, 50, 60])), float(rng.choice([1, 1, 1, 1.6]))
    takes = [Take(take.times / pace, take.pictures) for take in takes]
    contrast = rng.uniform(0.25, 0.7) if rng.random() < 0.25 else 1.0
    lift = rng.uniform(0, 255 * (1 - contrast))
    frames: list[Picture] = []
    truth: list[tuple[float, float]] = []
    views = [View(rng, take) for take in takes]
    alone = bool(rng.random() < 0.12)  # Whether the film is of one take.

    def other(than: int | None = None) -> int:
        return int(rng.choice([k for k in range(len(takes)) if k != than]))

    def somewhere(k: int) -> float:
        return float(rng.uniform(0, max(0.01, takes[k].seconds - 1.5)))

    def shown(k: int, moment: float) -> Picture:
        return views[k].at(moment) * np.float32(contrast) + np.float32(lift)

    def show(k: int, moment: float, joint: float, count: int) -> list[Picture]:
        truth.extend([(joint, 0.0)] + [(0.0, 0.0)] * (count - 1))
        return [shown(k, moment + i / fps) for i in range(count)]

    now, joint = other(), 0.0
    position = 0.0 if alone else somewhere(now)
    while len(frames) < seconds * fps:
        room = max(0.4, takes[now].seconds - position - 0.3)
        count = max(1, int(min(float(rng.choice([0.17, 0.3, 0.6, 1.2, 2, 3, 5, 8])), room) * fps))
        piece, changed = show(now, position, joint, count), False
        if rng.random() < 0.6 and count > 0.6 * fps:
            changed = trouble(rng, piece, fps, takes[other()], begins=joint > 0 or not frames)
        frames += piece
        position, joint = position + count / fps, 0.0
        room, chance, leap = (
            takes[now].seconds - position,
            rng.uniform(0.25, 0.75) if changed else rng.random(),
            position + rng.uniform(0.8, 3.2) * rng.choice([1, 1, 1, -1]),
        )
        if alone and not changed:
            if room > 1.2:
                continue
            break
        if chance < 0.15 and room > 1.2:
            continue
        if chance < 0.25 and room > 1.2:
            # Another take for a moment; then the first one goes on.
            new, count = other(now), max(1, int(fps * rng.uniform(0.08, 0.6)))
            frames += show(new, somewhere(new), 1.0, count)
            position, joint = position + (count / fps if rng.random() < 0.5 else 0.0), 1.0
        elif chance < 0.6 and room > 0.8 and 0 <= leap < takes[now].seconds - 0.8:
            position, joint = leap, 0.6
        elif chance < 0.75 or room < 1.2:
            now = other(now)
            position, joint = somewhere(now), 1.0
        else:
            new, begin = other(now), None
            for back in (False, True):
                transition = Transition(rng)
                count = int(float(rng.choice([0.25, 0.4, 0.7, 1, 1, 1.3, 1.7, 2.2, 2.7, 3.2])) * fps)
                begin = somewhere(new) if begin is None else begin
                for i in range(count):
                    pair = shown(now, position + i / fps), shown(new, begin + i / fps)
                    frames.append(transition(*pair, (i + 0.5) / count))
                    truth.append((0.0, 1.0))
                gone, now, position = (now, position + count / fps), new, begin + count / fps
                if back or rng.random() < 0.65:
                    break
                # The other take is there for a while, and goes again.
                count = int(fps * rng.uniform(0.2, 2.0))
                frames += show(now, position, 0.0, count)
                position += count / fps
                new, begin = gone
                begin += count / fps * (rng.random() < 0.5)
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
