"""Labels of takes by eye: how the camera stands, and how sharp the picture is (tests/filters/takes_labels.md)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LABELS = ROOT / "tests" / "filters" / "takes_labels.tsv"


@dataclass(frozen=True, slots=True)
class Label:
    """A take. sha256: of its film. start, end: seconds in the film. camera: steady, carried, unclear or "-". sharp: at analysis
    size: sharp, soft, plain or "-". full: at full size: sharp, soft or "-". half: A or B."""

    sha256: str
    start: float
    end: float
    camera: str
    sharp: str
    full: str
    half: str


def labels() -> list[Label]:
    """All of them."""
    with LABELS.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Label(
            row["sha256"], float(row["start"]), float(row["end"]), row["camera"], row["sharp"], row["full"], row["half"]
        )
        for row in rows
    ]


def by_file(videos: Path) -> dict[str, Label]:
    """The labels by the path of the film below the folder `videos` of the corpus, as its table corpus.tsv names it."""
    known = {label.sha256: label for label in labels()}
    with (videos.parent / "corpus.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["file"]: known[row["sha256"]] for row in rows if row["sha256"] in known}
