"""How well each filter of the picture tells what it is named for, on real takes: `python -m benchmarks.gates [FOLDER]`.

Of every clip of the corpus one sample is taken. Each is degraded by a known amount, and the filter's scores of the degraded ones
are held against those of the clips as they are: the area under the curve (AUC) is the chance that a degraded clip scores worse
than another, whole one. It also prints the CPU time of each filter for one clip.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from longtake.curation.reading.opening import open_video
from longtake.filters.base import Image, Motion, Sample, Score
from longtake.filters.flow_dis import work_size
from longtake.filters.grayscale import grey
from longtake.filters.registry import build

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "videos"
FOLDERS = ("short", "ai", "long", "multi", "gray", "static")
# Films without takes: plain colours that fade, and slides on white.
NO_TAKES = ("pyscenedetect_fades.mp4", "video2dataset_slides_1080p.mp4")
PAIRS = 15
SIDE = 960  # Px. The scan analyses pictures at this long side.

Degrade = Callable[[Image], Image]


def blurred(sigma: float) -> Degrade:
    """By a Gaussian of `sigma` px at 960."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def exposed(stops: float) -> Degrade:
    """`stops` more light, clipped."""

    def of(image: Image) -> Image:
        return np.rint(255 * np.clip((image / 255.0) ** 2.2 * 2**stops, 0, 1) ** (1 / 2.2)).astype(np.uint8)

    return of


def flat(share: float) -> Degrade:
    """With `share` of its contrast left."""
    return lambda image: np.rint(image.mean() + share * (image - image.mean())).astype(np.uint8)


def black_and_white(image: Image) -> Image:
    """Without colour."""
    return np.repeat(grey(image)[..., None], 3, axis=2)


def lost(image: Image) -> Image:
    """All but the brightest third is lost in the dark."""
    return np.where(grey(image)[..., None] < np.quantile(grey(image), 0.66), 0, image).astype(np.uint8)


# Name → what is done, the filter, and whether the degraded ones score higher.
KINDS: Mapping[str, tuple[Degrade, str, bool]] = {
    "blur of 2 px": (blurred(2), "blur", False),
    "blur of 4 px": (blurred(4), "blur", False),
    "blur of 8 px": (blurred(8), "blur", False),
    "two stops over": (exposed(2), "burnt", True),
    "three stops over": (exposed(3), "burnt", True),
    "lost in the dark": (lost, "black", True),
    "a fifth of the contrast": (flat(1 / 5), "contrast", False),
    "no colour": (black_and_white, "saturation", False),
    "no colour ": (black_and_white, "colour_variance", False),
}


def takes(folder: Path) -> dict[str, Sample]:
    """A sample with pairs of each film: five pictures, and 15 pairs half a second apart as far as it is long."""
    found = {}
    for path in sorted(path for name in FOLDERS for path in (folder / name).iterdir()):
        if path.name in NO_TAKES:
            continue
        try:
            frames = _frames(path)
        except Exception as error:  # The folder may hold any film, and one that fails ends no measurement.
            print(f"{path.name}: {error}")
            continue
        if len(frames) >= 10:
            found[path.name] = _sample(frames)
    return found


def _frames(path: Path) -> list[tuple[float, Image]]:
    """Up to 15 seconds of a film, ten pictures a second, at analysis size."""
    kept: list[tuple[float, Image]] = []
    with open_video(str(path)) as video:
        for frame in video.container.decode(video.stream):
            at = float(frame.time or 0.0)
            if at > 15:
                break
            if kept and at < kept[-1][0] + 0.099:
                continue
            scale = min(1.0, SIDE / max(frame.width, frame.height))
            size = round(frame.width * scale), round(frame.height * scale)
            image = np.asarray(
                cv2.resize(frame.to_ndarray(format="rgb24"), size, interpolation=cv2.INTER_AREA), np.uint8
            )
            kept.append((at, image))
    return kept


def _sample(frames: Sequence[tuple[float, Image]]) -> Sample:
    at = np.array([time for time, _ in frames])
    starts = np.linspace(at[0], max(at[0], at[-1] - 0.5), PAIRS)
    first = [int(np.abs(at - start).argmin()) for start in starts]
    second = [int(np.abs(at - at[i] - 0.5).argmin()) for i in first]
    pairs = sorted({(i, j) for i, j in zip(first, second, strict=True) if j > i})
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    images = [image for _, image in frames]
    small = [work_size(grey(image)) for image in images]
    motion = Motion(np.stack([small[i] for i in first]), np.stack([small[j] for j in second]), at[first], at[second])
    keys = np.linspace(0, len(pairs) - 1, 5).astype(int)
    a, b = [first[k] for k in keys], [second[k] for k in keys]
    return Sample(np.stack([images[i] for i in a]), np.stack([images[j] for j in b]), at[a], at[b], motion=motion)


def score(name: str, sample: Sample) -> float:
    (measured,) = build(name, {}).measure([sample])
    return measured.value if isinstance(measured, Score) else float("nan")


def auc(worse: Sequence[float], good: Sequence[float]) -> float:
    """The chance that one of `worse` is above one of `good`; equal ones count half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in worse for b in good if np.isfinite(a) and np.isfinite(b)]
    return float(np.mean(pairs))


def report(label: str, name: str, bad: Sequence[float], good: Sequence[float], higher: bool) -> None:
    """One line: against all takes, and the share of takes that score worse than they do themselves when left as they are."""
    sign = 1 if higher else -1
    worse = [sign * a > sign * b for a, b in zip(bad, good, strict=True) if np.isfinite(a) and np.isfinite(b)]
    print(
        f"{label:25} {name:16} {auc(bad, good) if higher else 1 - auc(bad, good):5.3f} {np.mean(worse):7.2f}",
        flush=True,
    )


def degraded(sample: Sample, degrade: Degrade) -> Sample:
    return Sample(
        np.stack([degrade(image) for image in sample.keyframes]), sample.partners, sample.times, sample.partner_times
    )


def shaken(sample: Sample, amplitude: float, seed: int) -> Sample:
    """With a camera that is thrown off its course by a normal error of so many px at 960 along each axis."""
    assert sample.motion is not None
    random = np.random.default_rng(seed)

    def thrown(image: Image) -> Image:
        x, y = random.normal(0, amplitude * max(image.shape) / SIDE, 2)
        move = np.array([[1, 0, x], [0, 1, y]])
        return np.asarray(cv2.warpAffine(image, move, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101), np.uint8)

    motion = sample.motion
    first, second = (np.stack([thrown(image) for image in images]) for images in (motion.first, motion.second))
    return Sample(
        sample.keyframes, sample.partners, sample.times, sample.partner_times,
        motion=Motion(first, second, motion.times, motion.partner_times),
    )  # fmt: skip


def costs(samples: Mapping[str, Sample]) -> None:
    """CPU ms a clip of each filter, one after the other as in a scan, so that those of motion share the flow."""
    names = (
        "burnt",
        "black",
        "contrast",
        "colour_variance",
        "saturation",
        "blur",
        "blurred",
        "flow",
        "jitter",
        "camera",
    )
    spent = dict.fromkeys(names, 0.0)
    for sample in samples.values():
        for name in names:
            start = time.process_time()
            build(name, {}).measure([sample])
            spent[name] += time.process_time() - start
    print("\nfilter              ms a clip")
    for name, seconds in spent.items():
        print(f"{name:18} {1000 * seconds / len(samples):10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    samples = takes(parser.parse_args().folder)
    print(f"{len(samples)} takes\n\nwhat was done             filter            AUC  than itself")
    for label, (degrade, name, higher) in KINDS.items():
        of = [
            sample for sample in samples.values() if degrade is not black_and_white or score("saturation", sample) > 1
        ]
        good = [score(name, sample) for sample in of]
        bad = [score(name, degraded(sample, degrade)) for sample in of]
        report(label, name, bad, good, higher)
    good = [score("jitter", sample) for sample in samples.values()]
    for amplitude in (4, 8, 16):
        bad = [score("jitter", shaken(sample, amplitude, seed)) for seed, sample in enumerate(samples.values())]
        report(f"a shake of {amplitude} px", "jitter", bad, good, True)
    costs(samples)


if __name__ == "__main__":
    main()
