"""artifacts against eyes: how well it tells the real clips that have something over them from those that have not.

    python -m benchmarks.artifacts [A|B] [--scan]

The labels are tests/filters/artifacts_labels.tsv (see the page beside it), the clips ../shared/corpus. Printed: a line per clip
that is more than two points off, and the area under the ROC curve at an area above 0.05, for half A and half B apart. --scan:
by backend `borders`, what the scan sees without the text; a score that is not known counts as the least that it can be.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longtake.curation.errors import VideoError
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.filters.artifacts import Artifacts, Borders
from longtake.filters.base import Filter, Sample, Score

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
LABELS = ROOT / "tests" / "filters" / "artifacts_labels.tsv"
GATE = 0.05  # Share of the area that the paper allows (Table 4).
# Nothing is gated, and films that take minutes to decode (4K of black) are left out.
RECIPE = {
    "name": "labelled",
    "scan": {"max_pixels": 2600 * 1500},
    "filters": {"width": {}},
    "tiers": {"all": {"width": ">= 1"}},
}


@dataclass(frozen=True, slots=True)
class Label:
    """A clip, and the share of its worst keyframe's area that somebody put over the scene, by eye."""

    sha256: str
    span: Span
    area: float
    kind: str
    half: str


@dataclass(frozen=True, slots=True)
class Found:
    """A labelled clip as a filter scored it."""

    label: Label
    file: str
    score: float
    known: bool


def labels(half: str = "AB") -> list[Label]:
    """Those of one half or of both; test patterns are left out."""
    with LABELS.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Label(row["sha256"], Span(float(row["start"]), float(row["end"])), float(row["area"]), row["kind"], row["half"])
        for row in rows
        if row["half"] in half and row["kind"] != "pattern"
    ]


def samples(wanted: list[Label]) -> Iterator[tuple[Label, str, Sample]]:
    """Each clip as the score stage sees it, its frames having been stored and read again."""
    recipe = parse_recipe(RECIPE, source="benchmarks.artifacts")
    with (CORPUS / "corpus.tsv").open() as file:
        files = {row["sha256"]: row["file"] for row in csv.DictReader(file, delimiter="\t")}
    for sha256 in dict.fromkeys(label.sha256 for label in wanted):
        of_file = [label for label in wanted if label.sha256 == sha256]
        path = CORPUS / "videos" / files[sha256]
        kept = _kept(path, [label.span for label in of_file], recipe)
        for label in of_file:
            for span, sample in kept:
                if abs(span.start - label.span.start) < 0.01 and abs(span.end - label.span.end) < 0.01:
                    yield label, files[sha256], load_sample(store_sample("clip", sample, recipe.sampling.jpeg_quality))


def _kept(path: Path, spans: list[Span], recipe: Recipe) -> list[tuple[Span, Sample]]:
    """The samples of these spans of a film."""
    kept: list[tuple[Span, Sample]] = []

    def keep(span: Span, sample: Sample) -> None:
        kept.append((span, sample))

    try:
        scan_video(str(path), recipe, keep, spans=spans, all_scores=True)
    except VideoError as error:
        print(f"left out: {path.name}: {error}")
    return kept


def measured(filter_: Filter[Sample], half: str = "AB") -> list[Found]:
    """Every labelled clip's score."""
    found = []
    for label, file, sample in samples(labels(half)):
        (score,) = filter_.measure([sample])
        if not isinstance(score, Score):
            raise score
        known = not math.isnan(score.value)
        found.append(Found(label, file, score.value if known else max(score.detail), known))
    return found


def auc(found: list[Found]) -> float:
    """How often a clip with an area above the gate scores higher than one without; ties count half."""
    with_, without = ([f.score for f in found if (f.label.area > GATE) == over] for over in (True, False))
    pairs = [(a > b) + 0.5 * (a == b) for a in with_ for b in without]
    return sum(pairs) / len(pairs)


def main() -> None:
    """Print what is described above."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("half", nargs="?", default="AB", choices=["A", "B", "AB"])
    parser.add_argument("--scan", action="store_true", help="by backend borders, without the text")
    given = parser.parse_args()
    started = time.process_time()
    found = measured(Borders() if given.scan else Artifacts(), given.half)
    for one in found:
        if abs(one.score - one.label.area) > 0.02:
            wrong = "on the other side" if (one.score > GATE) != (one.label.area > GATE) else ""
            by_eye = f"by eye {one.label.area:.3f} ({one.label.kind})"
            print(f"{one.file} {one.label.span.start:.1f} s: {one.score:.3f}, {by_eye} {wrong}")
    for half in given.half:
        part = [one for one in found if one.label.half == half]
        right = sum((one.score > GATE) == (one.label.area > GATE) for one in part)
        unknown = sum(not one.known for one in part)
        print(f"half {half}: AUC {auc(part):.3f}, {right} of {len(part)} right at {GATE}, {unknown} not known")
    print(f"{1e3 * (time.process_time() - started) / len(found):.0f} ms of CPU per clip, decoding counted")


if __name__ == "__main__":
    main()
