"""Scans of a film by the embedded recipe or a variant of it, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

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


def numbered_film(path: Path) -> None:
    """Five minutes, whose frame k shows k in thirteen bars; a keyframe each two seconds."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "bf": "2", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 20
        stream.codec_context.thread_count = 1
        noise = np.random.default_rng(0).integers(0, 40, (48, 160, 3), dtype=np.uint8)
        for number in range(3000):
            image = np.concatenate([np.zeros((48, 160, 3), np.uint8), np.roll(noise, number, 1)])
            for bit in range(13):
                image[:48, bit * 12 : bit * 12 + 12] = 255 * (number >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def shown(picture: Any) -> int:
    """The number that a frame of `numbered_film` shows."""
    return sum(int(picture[24, bit * 12 + 6].mean() > 127) << bit for bit in range(13))
