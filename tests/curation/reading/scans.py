"""Scans of a film by the embedded recipe or a variant of it, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtake.curation.reading.judge import ClipScan, VideoScan
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.filters.base import Sample
from longtake.filters.gates import Gate
from longtake.manifests.frames import StoredFrames


def recipe(**changes: Any) -> Recipe:
    """The embedded recipe with other `splitting`, `scan` or `tiers`."""
    data = load_recipe("embedded").model_dump()
    for section, values in changes.items():
        data[section] = {**data[section], **values}
    return parse_recipe(data, source="a test")


EMBEDDED = load_recipe("embedded")
ANY = {"pretrain": {"fps": Gate(low=0)}, "finetune": {"fps": Gate(low=0)}}
NO_CUTS = {"detector": "none", "min_seconds": 2, "window_seconds": 15}


@dataclass
class Scanned:
    """A scan, and the samples that it kept: as JPEG, or they would fill the memory."""

    scan: VideoScan
    kept: list[tuple[Span, StoredFrames]]

    def samples(self) -> list[tuple[Span, Sample]]:
        return [(span, load_sample(stored)) for span, stored in self.kept]


def scanned(path: Path, by: Recipe = EMBEDDED, **options: Any) -> Scanned:
    kept: list[tuple[Span, StoredFrames]] = []
    scan = scan_video(str(path), by, lambda span, sample: kept.append((span, store_sample("", sample, 95))), **options)
    return Scanned(scan, kept)


def failing(clip: ClipScan, by: Recipe = EMBEDDED) -> set[str]:
    """The gates of `pretrain` that a clip's own scores fail."""
    gates = by.tiers["pretrain"]
    return {n for n, m in clip.scores.items() if n in gates and not gates[n].low <= m.score.value <= gates[n].high}


def value(clip: ClipScan, name: str) -> float:
    return clip.scores[name].score.value
