"""How well each filter of the picture tells what it is named for, on real takes: `python -m benchmarks.gates [FOLDER]`.

Of every clip of the corpus one sample is taken. Each is degraded by a known amount, and the filter's scores of the degraded ones
are held against those of the clips as they are: the area under the curve (AUC) is the chance that a degraded clip scores worse
than another, whole one, and "than itself" the share of clips that score worse than they do themselves when left as they are.
Loops are planted by encoding the beginning of a take again and again. Takes that have a fault by themselves are no
counterexample: for shake and blur the takes are told apart by labels (tests/filters/takes_labels.md), and both are printed. It
also prints the CPU time of each filter for one clip.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks import true_resolution
from benchmarks.takes import Label, by_file
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import thumbnail
from longtake.curation.reading.sampling import LOOK_SECONDS
from longtake.filters.base import Image, Motion, Sample, Score
from longtake.filters.blur import bends, edge_sharpness
from longtake.filters.camera import CLASSES
from longtake.filters.flow_dis import GAP_SECONDS, work_size
from longtake.filters.frozen import ChangeMeter
from longtake.filters.grayscale import grey
from longtake.filters.registry import build

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "videos"
FOLDERS = ("short", "ai", "long", "multi", "gray", "static")
# Films without takes: plain colours that fade, and slides on white.
NO_TAKES = ("pyscenedetect_fades.mp4", "video2dataset_slides_1080p.mp4")
# Their first seconds are still: nothing moves before a fixed camera, or a photograph fades in. A loop of them is a still again.
STILL = (
    "intel_car_12.5fps.mp4",
    "intel_person_10fps_139s.mp4",
    "pyscenedetect_testvideo.mp4",
    "torchcodec_nasa.mp4",
)
# Seconds of a take, and whether every second time it runs backwards.
LOOPS = ((3.1, False), (5.3, False), (7.4, False), (5.3, True))
SECONDS = 15.0  # The length of a clip.
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
    known = by_file(folder)
    return samples_of(paths(folder), {folder / file: label for file, label in known.items()})


def samples_of(films: Sequence[Path], known: Mapping[Path, Label]) -> dict[str, Sample]:
    """The samples by the films' names; of labelled takes within their spans."""
    found = {}
    for path in films:
        label = known.get(path)
        try:
            frames = _frames(path, *((label.start, label.end) if label else (0.0, SECONDS)))
        except Exception as error:  # The folder may hold any film, and one that fails ends no measurement.
            print(f"{path.name}: {error}")
            continue
        if len(frames) >= 10:
            found[path.name] = _sample(frames)
    return found


def _frames(path: Path, start: float, end: float) -> list[tuple[float, Image]]:
    """A stretch of a film, seconds, ten pictures a second, at analysis size."""
    kept: list[tuple[float, Image]] = []
    with open_video(str(path)) as video:
        for frame in video.container.decode(video.stream):
            at = float(frame.time or 0.0)
            if at > end:
                break
            if at < start or (kept and at < kept[-1][0] + 0.099):
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
    return float(np.mean(pairs)) if pairs else float("nan")


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


def shaken(sample: Sample, amplitude: float, seed: int) -> tuple[Sample, float]:
    """With a camera that is thrown off its course by a normal error of so many px at 960 along each axis; and what `jitter` is of
    these very errors."""
    assert sample.motion is not None
    random = np.random.default_rng(seed)

    def thrown(image: Image) -> tuple[Image, np.ndarray]:
        error = random.normal(0, amplitude, 2)
        x, y = error * (max(image.shape) / SIDE)
        move = np.array([[1, 0, x], [0, 1, y]])
        moved = cv2.warpAffine(image, move, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(moved, np.uint8), error

    motion = sample.motion
    first, second = ([thrown(image) for image in images] for images in (motion.first, motion.second))
    gaps = (motion.partner_times - motion.times)[:, None]
    shifts = (np.stack([e for _, e in second]) - np.stack([e for _, e in first])) * GAP_SECONDS / gaps
    apart = shifts[:-2] - 2 * shifts[1:-1] + shifts[2:]
    true = float(np.hypot(*apart.T).mean()) / math.sqrt(6 * math.pi)
    pairs = Motion(
        np.stack([image for image, _ in first]),
        np.stack([image for image, _ in second]),
        motion.times,
        motion.partner_times,
    )
    return replace(sample, motion=pairs), true


def report_shakes(samples: Mapping[str, Sample], known: Mapping[str, Label], half: str) -> None:
    """Of takes of a steady camera: against themselves shaken, and how near the score comes to the shake that was put in. Of takes
    of a camera that is carried: how many score higher when they are shaken more."""
    of = {camera: [n for n in samples if n in known and known[n].camera == camera] for camera in ("steady", "carried")}
    whole = {name: score("jitter", sample) for name, sample in samples.items()}
    steady = [value for name, value in whole.items() if name in of["steady"] and np.isfinite(value)]
    print(
        f"half {half}: {len(of['steady'])} steady takes, {len(steady)} known, at most {max(steady):.2f} px as they are"
    )
    for amplitude in (2, 4, 8, 16):
        found = {name: shaken(sample, amplitude, seed) for seed, (name, sample) in enumerate(samples.items())}
        bad = {name: score("jitter", sample) for name, (sample, _) in found.items()}
        shares = [bad[name] / found[name][1] for name in of["steady"] if np.isfinite(bad[name])]
        rises = [bad[n] > whole[n] for n in of["carried"] if np.isfinite(bad[n]) and np.isfinite(whole[n])]
        low, middle, high = np.quantile(shares, [0.1, 0.5, 0.9])
        print(
            f"{f'a shake of {amplitude} px':25} {'jitter':16} {auc([bad[n] for n in of['steady']], steady):5.3f}   "
            f"score / true {middle:.2f} ({low:.2f} to {high:.2f}); carried: {sum(rises)} of {len(rises)} score higher",
            flush=True,
        )


# Moves of a camera. Each shifts the picture to the right and down (long sides per second), enlarges it (share per second) and
# turns it (radians per second).
MOVES: Mapping[str, tuple[str, tuple[float, float, float, float]]] = {
    "a slow pan": ("pan", (0.03, 0, 0, 0)),
    "a pan": ("pan", (-0.12, 0, 0, 0)),
    "a tilt": ("tilt", (0, 0.06, 0, 0)),
    "a slow zoom": ("zoom", (0, 0, 0.08, 0)),
    "a zoom out": ("zoom", (0, 0, -0.2, 0)),
    "a roll": ("roll", (0, 0, 0, 0.15)),
}


def moved(sample: Sample, move: tuple[float, float, float, float]) -> Sample:
    """With a camera that moves evenly between the pictures of each pair. The outer tenth is cut away, where it would see what no
    picture shows."""
    assert sample.motion is not None
    motion = sample.motion
    height, width = motion.first.shape[1:]
    inner = np.s_[height // 10 : height - height // 10, width // 10 : width - width // 10]
    second = []
    for image, gap in zip(motion.second, motion.partner_times - motion.times, strict=True):
        right, down, grow, turn = (gap * part for part in move)
        linear = np.array([[1 + grow, -turn], [turn, 1 + grow]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        offset = np.array([right, down]) * max(height, width) * 0.8 + centre - linear @ centre
        warped = cv2.warpAffine(image, np.column_stack([linear, offset]), (width, height), flags=cv2.INTER_CUBIC)
        second.append(warped[inner])
    first = np.stack([image[inner] for image in motion.first])
    return replace(sample, motion=Motion(first, np.stack(second), motion.times, motion.partner_times))


def report_moves(samples: Mapping[str, Sample], known: Mapping[str, Label]) -> None:
    """Of takes of a steady camera that stands by itself, as `camera` tells: how many have the class of a move that was put in,
    and the area under the curve of having it."""
    steady = {name: sample for name, sample in samples.items() if name in known and known[name].camera == "steady"}
    still = (0.0, 0.0, 0.0, 0.0)
    classes = {name: score("camera", moved(sample, still)) for name, sample in steady.items()}
    stand = [name for name, number in classes.items() if number == CLASSES.index("static")]
    for label, (name, move) in MOVES.items():
        found = [score("camera", moved(steady[take], move)) for take in stand]
        right = [float(number == CLASSES.index(name)) for number in found if np.isfinite(number)]
        before = [float(classes[take] == CLASSES.index(name)) for take in stand]
        print(
            f"{label:25} {'camera':16} {auc(right, before):5.3f}   {sum(right):.0f} of {len(right)} that are known are {name}; "
            f"not known: {len(found) - len(right)}",
            flush=True,
        )


def report_blur(samples: Mapping[str, Sample], known: Mapping[str, Label]) -> None:
    """The variance of the Laplacian (`blur`) and the sharpness of edges (what `blurred` counts by), on all takes and on those
    that are sharp by eye; and the share of takes of which half of the keyframes count as blurred."""

    def edges(sample: Sample) -> float:
        found = [edge_sharpness(bends(grey(picture))) for picture in sample.keyframes]
        return float(np.mean([sharp for sharp in found if np.isfinite(sharp)] or [np.nan]))

    # Half B was not labelled for sharpness.
    sharp = [name for name in samples if name in known and known[name].sharp == "sharp"] or list(samples)
    whole = {name: (score("blur", s), edges(s), score("blurred", s)) for name, s in samples.items()}
    for sigma in (1.0, 1.5, 2.0, 4.0, 8.0):
        less = {name: degraded(sample, blurred(sigma)) for name, sample in samples.items()}
        bad = {name: (score("blur", s), edges(s), score("blurred", s)) for name, s in less.items()}
        told = []
        for measure in (0, 1):
            for names in (list(samples), sharp):
                told.append(1 - auc([bad[n][measure] for n in names], [whole[n][measure] for n in names]))
        half = [np.mean([of[n][2] >= 0.5 for n in names]) for of in (bad, whole) for names in (list(samples), sharp)]
        print(
            f"{f'blur of {sigma:g} px':25} blur {told[0]:.3f} (sharp {told[1]:.3f}), edges {told[2]:.3f} (sharp {told[3]:.3f}); "
            f"blurred >= 0.5: {half[0]:.2f} (sharp {half[1]:.2f}), as they are {half[2]:.2f} (sharp {half[3]:.2f})",
            flush=True,
        )


def paths(folder: Path) -> list[Path]:
    """The films of the corpus that are takes."""
    found = (path for name in FOLDERS for path in (folder / name).iterdir())
    return sorted(path for path in found if path.name not in NO_TAKES)


def repeated_share(frames: Iterator[tuple[float, av.VideoFrame]], sample: Sample) -> float:
    """The score `repeats` of a film, looked at as the scan looks at it. sample: any, for its other fields."""
    meter, looked = ChangeMeter(), -1.0
    for at, frame in frames:
        if at > SECONDS:
            break
        if at - looked >= LOOK_SECONDS:
            looked = at
            meter.push(at, thumbnail(frame))
    return score("repeats", replace(sample, changes=meter.within(0.0, SECONDS + 1)))


def film(path: Path, skip: str = "DEFAULT") -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames of a film, with their times from the first on, seconds."""
    with open_video(str(path)) as video:
        video.stream.codec_context.skip_frame = skip
        begin: float | None = None
        for frame in video.container.decode(video.stream):
            at = float(frame.time or 0.0)
            begin = at if begin is None else begin
            yield at - begin, frame


def looped(path: Path, to: Path, seconds: float, back: bool) -> bool:
    """Encode a clip that shows the first `seconds` of a film over and over, x264 at 640 px. back: every second time backwards.
    False if the film is too short."""
    pictures: list[Image] = []
    times: list[float] = []
    for at, frame in film(path):
        if at >= seconds:
            break
        scale = min(1.0, 640 / max(frame.width, frame.height))
        width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
        pictures.append(np.asarray(frame.reformat(width=width, height=height, format="rgb24").to_ndarray(), np.uint8))
        times.append(at)
    if not times or times[-1] < seconds - 0.3:
        return False
    rate = round(len(times) / seconds)
    order = [*range(len(pictures)), *reversed(range(len(pictures)))] if back else list(range(len(pictures)))
    with av.open(str(to), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "26", "preset": "veryfast", "threads": "1"}
        for i in range(round(SECONDS * rate)):
            picture = av.VideoFrame.from_ndarray(pictures[order[i % len(order)]], format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return True


def report_loops(folder: Path, samples: Mapping[str, Sample]) -> None:
    """A line for each kind of loop."""
    whole = {
        path.name: repeated_share(film(path), samples[path.name]) for path in paths(folder) if path.name in samples
    }
    for seconds, back in LOOPS:
        bad, same = [], []
        for path in paths(folder):
            if path.name in whole and path.name not in STILL:
                with tempfile.TemporaryDirectory() as scratch:
                    to = Path(scratch) / "looped.mp4"
                    if looped(path, to, seconds, back):
                        bad.append(repeated_share(film(to, "NONREF"), samples[path.name]))
                        same.append(whole[path.name])
        worse = float(np.mean([a > b for a, b in zip(bad, same, strict=True)]))
        label = f"{'to and fro over' if back else 'a loop of'} {seconds:g} s"
        print(
            f"{label:25} {'repeats':16} {auc(bad, list(whole.values())):5.3f} {worse:7.2f}   ({len(bad)} takes)",
            flush=True,
        )


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
    folder = parser.parse_args().folder
    samples = takes(folder)
    print(f"{len(samples)} takes\n\nwhat was done             filter            AUC  than itself")
    for label, (degrade, name, higher) in KINDS.items():
        of = [
            sample for sample in samples.values() if degrade is not black_and_white or score("saturation", sample) > 1
        ]
        good = [score(name, sample) for sample in of]
        bad = [score(name, degraded(sample, degrade)) for sample in of]
        report(label, name, bad, good, higher)
    known = {path.rpartition("/")[2]: label for path, label in by_file(folder).items()}
    report_blur(samples, known)
    report_shakes(samples, known, "A")
    report_moves(samples, known)
    held = {
        folder / file: label for file, label in by_file(folder).items() if label.half == "B" and label.camera != "-"
    }
    others = samples_of(sorted(held), held)
    report_blur(others, known)
    report_shakes(others, known, "B")
    report_moves(others, known)
    report_loops(folder, samples)
    costs(samples)
    true_resolution.bench(folder)


if __name__ == "__main__":
    main()
