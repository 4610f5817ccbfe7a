"""Two backends of one filter on the same stored clips: how their scales relate. A threshold is only worth its scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from longtake.curation.errors import RowError, SetupError
from longtake.curation.models import check_filter
from longtake.curation.reading.samples import load_sample
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import Filter, FilterUnavailable, Needs, Sample, Score
from longtake.filters.registry import UnknownFilter, build
from longtake.manifests.folder import in_words
from longtake.manifests.frames import read_frames

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
AT_ONCE = 16  # Clips that are measured at once.
ENOUGH = 10  # Clips. With fewer, no threshold would mean anything.

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    """The end of a gate on one backend's scale, and the one that lets as many clips pass on the other's.

    kept: share of the clips that pass. match: None if all or none do, so that no clip tells where it would lie. agree:
    share of the clips on which both decide alike.
    """

    of: str
    gate: str
    kept: float
    on: str
    match: str | None
    agree: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """protocols: of the two. clips: measured by both. failed: left out, since one of them could not measure them.
    rank_correlation: Spearman's, nan if either gives the same value everywhere. quantiles: share, value of the first,
    value of the second."""

    protocols: tuple[str, str]
    clips: int
    failed: int
    rank_correlation: float
    quantiles: list[tuple[float, float, float]]
    matches: list[Match]


def parse_backend(text: str) -> dict[str, Any]:
    """'raft' or 'raft:variant=small:source=princeton' as a filter's entry in a recipe. Raises SetupError."""
    backend, *settings = text.strip().split(":")
    entry: dict[str, Any] = {"backend": backend}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SetupError(f"{text!r}: a setting is KEY=VALUE, as in {backend}:variant=small; not {setting!r}")
        entry[key] = yaml.safe_load(value)
    return entry


def calibrate(
    workspace: Workspace,
    recipe: Recipe,
    name: str,
    backends: tuple[Mapping[str, Any], Mapping[str, Any]],
    thresholds: Sequence[float] = (),
    most: int = 200,
) -> Calibration:
    """Measure filter `name` by two backends on the stored frames of at most `most` clips (those with the lowest ids,
    which is as good as at random), and relate the two scales. `dis` measures the stored pairs then, as all others do.

    thresholds: ends of a gate '>= t' on either scale to be found on the other; none: those of the recipe's gates.
    Raises SetupError if a backend cannot work here, or if there are not ENOUGH clips.
    """
    first, second = (_built(name, entry) for entry in backends)
    ends = [(t, True) for t in thresholds] or _ends(recipe, name)
    values: tuple[list[float], list[float]] = ([], [])
    failed = 0
    for samples in _samples(workspace, most):
        good = [item for item in samples if isinstance(item, Sample)]
        failed += len(samples) - len(good)
        for pair in zip(_measured(first, good), _measured(second, good), strict=True):
            if not all(isinstance(score, Score) for score in pair):
                failed += 1
                continue
            for side, score in zip(values, pair, strict=True):
                assert isinstance(score, Score)
                side.append(score.value)
    if len(values[0]) < ENOUGH:
        raise SetupError(
            f"{workspace.path}: {len(values[0])} clips with stored frames can be measured by both backends ({failed} "
            f"cannot), and {ENOUGH} are needed. `longtake scan --all-scores` keeps the frames of more clips"
        )
    a, b = (np.array(side) for side in values)
    matches = []
    for end, at_least in ends:
        matches += [_match(end, at_least, a, b, first, second), _match(end, at_least, b, a, second, first)]
    both = [(q, float(np.quantile(a, q)), float(np.quantile(b, q))) for q in QUANTILES]
    return Calibration((first.protocol, second.protocol), len(a), failed, rank_correlation(a, b), both, matches)


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing their mean rank. [n] each."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else float("nan")


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)


def same_share(end: float, at_least: bool, a: Floats, b: Floats) -> float | None:
    """The end on b's scale that as many clips pass as pass `end` on a's; None if all or none do. [n] each.

    It lies in the middle between two neighbouring values; where values are equal, the share can only be near.
    """
    sign = 1 if at_least else -1
    count = int(np.count_nonzero(sign * a >= sign * end))
    if count in (0, len(a)):
        return None
    falling = np.sort(sign * b)[::-1]
    return float(sign * (falling[count - 1] + falling[count]) / 2)


def _match(end: float, at_least: bool, a: Floats, b: Floats, of: Filter[Any], on: Filter[Any]) -> Match:
    word, sign = (">=", 1) if at_least else ("<=", -1)
    passes = sign * a >= sign * end
    limit = same_share(end, at_least, a, b)
    agree = 1.0 if limit is None else float(np.mean(passes == (sign * b >= sign * limit)))
    text = None if limit is None else f"{word} {limit:.4g}"
    return Match(of.backend, f"{word} {end:g}", float(passes.mean()), on.backend, text, agree)


def _built(name: str, entry: Mapping[str, Any]) -> Filter[Any]:
    try:
        filter_: Filter[Any] = build(name, entry).on_stored
        check_filter(filter_)
    except UnknownFilter as error:
        raise SetupError(str(error)) from error
    except (FilterUnavailable, TypeError, ValueError) as error:
        raise SetupError(f"{name}: {error}") from error
    if filter_.asks or filter_.needs not in (Needs.SAMPLE, Needs.FRAMES):
        raise SetupError(f"{name} is not measured on frames; there is nothing to compare")
    return filter_


def _measured(filter_: Filter[Any], samples: Sequence[Sample]) -> Sequence[object]:
    try:
        return filter_.measure(samples)
    except FilterUnavailable as error:
        raise SetupError(f"filter {filter_.name}: {error}") from error


def _ends(recipe: Recipe, name: str) -> list[tuple[float, bool]]:
    """The finite ends of the recipe's gates on a filter, and whether a score must be at least that."""
    limits = []
    for gates in recipe.tiers.values():
        if gate := gates.get(name):
            limits += [(end, least) for end, least in ((gate.low, True), (gate.high, False)) if np.isfinite(end)]
    return list(dict.fromkeys(limits))


def _samples(workspace: Workspace, most: int) -> Iterator[list[Sample | RowError]]:
    """Stored samples, some clips at a time; a RowError for one that cannot be read."""
    clips = workspace.clips.read(["clip_id", "video_id", "status", "has_frames"])
    clips = clips.filter(pc.and_(clips["has_frames"], pc.equal(clips["status"], "ok")))
    clips = clips.sort_by("clip_id").slice(0, most).sort_by([("video_id", "ascending"), ("clip_id", "ascending")])
    for start in range(0, clips.num_rows, AT_ONCE):
        rows = clips.slice(start, AT_ONCE).to_pylist()
        yield [_sample(workspace, row) for row in rows]


def _sample(workspace: Workspace, row: Mapping[str, Any]) -> Sample | RowError:
    clip_id = row["clip_id"]
    try:
        return load_sample(read_frames(workspace.path, row["video_id"], [clip_id])[clip_id])
    except (OSError, KeyError, pa.ArrowException) as error:
        return RowError("frames", f"the frames of clip {clip_id} cannot be read: {in_words(error)}")
    except RowError as error:
        return error
