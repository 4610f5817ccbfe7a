"""How much work a video will be, guessed from its header alone: what a sample of a corpus is drawn by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from longtake.curation.access import Access, Reach, source_of_row
from longtake.curation.errors import RowError
from longtake.curation.reading.judge import Judge
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.reading.video import probe
from longtake.curation.recipe import Recipe, parse_recipe

MOST = 5_000  # Videos. A header takes some 10 ms, and over a network more: 50 s of this is what a plan may take.
_OPENED = 0.02  # CPU-seconds. What a video costs of which nothing is decoded.
_OF_A_PIXEL = 1e-8  # CPU-seconds. H.264 of 1080p at 24 fps decodes in half its time, or a little less.
_LIMITS = Limits(20.0, 1024)  # Seconds and MiB, for one header.
_LONGEST = 7200.0  # Seconds. Of a film whose header promises more, no more is believed.


def expected_work(videos: pa.Table, recipe: Recipe, access: Access) -> list[float]:
    """About how many CPU-seconds the scan of each video takes, in proportion to one another. videos: rows of inputs."""
    sandbox, plain, sizes = Sandbox(), recipe.model_dump(mode="json"), []
    try:
        for row in access.attached(videos).to_pylist():
            try:
                sizes.append(float(sandbox.run(_of_header, (row, plain, access.reach), _LIMITS)))
            except RowError:
                sizes.append(_OPENED)
    finally:
        sandbox.close()
    return sizes


def _of_header(row: dict[str, Any], recipe: Mapping[str, Any], reach: Reach) -> float:
    """Of one video. Raises RowError. Runs in the sandbox."""
    spans = row["spans"] or []
    if row["error"] is not None:
        return _OPENED
    judge = Judge(parse_recipe(dict(recipe), source="the recipe of this plan"), all_scores=False)
    with open_video(source_of_row(row, reach)) as video:
        info = probe(video)
    seconds = info.duration if math.isfinite(info.duration) else 0.0
    if not spans and not judge.may_keep(info, Span(0.0, seconds)):
        return _OPENED
    named = sum(span["end"] - span["start"] for span in spans if span["end"] is not None)
    pixels = info.width * info.height * (info.fps if math.isfinite(info.fps) else 25.0)
    return _OPENED + _OF_A_PIXEL * pixels * min(named or seconds, _LONGEST)
