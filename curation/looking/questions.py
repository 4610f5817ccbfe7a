"""What was answered to the questions that are filters: how often, in words, and how it agrees with a person's marks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.filters.ask import Ask
from longtake.filters.base import Filter
from longtake.filters.questions import NOT_SURE
from longtake.filters.verdicts import ClipScores

Z = 1.96  # Standard deviations on both sides of the mean that hold 95 % of a normal distribution.


NOT_SURE_SHARE = "not_sure_share"


def questions_of(built: Mapping[str, Filter[Any]]) -> dict[str, Ask]:
    """The questions among the filters of a recipe."""
    return {name: filter_ for name, filter_ in built.items() if isinstance(filter_, Ask)}


def answer_counts(scores: ClipScores) -> dict[str, dict[str, float]]:
    """For each question, how often each answer was given, and the share of `not sure` among all of them; answers of a question
    with many choices that nobody gave are left out."""
    counts_of: dict[str, dict[str, float]] = {}
    for name, filter_ in questions_of(scores.filters).items():
        question = filter_.question
        value, _, bound = scores.span(name)
        known = value[~np.isnan(value) & ~bound]
        counts = {answer: int(np.sum(known == question.score(answer))) for answer in question.choices}
        if not question.yes_or_no:
            counts = {answer: count for answer, count in counts.items() if count}
        counts_of[name] = with_share({**counts, NOT_SURE: int(scores.unknown(name).sum())})
    return counts_of


def with_share(counts: Mapping[str, int]) -> dict[str, float]:
    """How often each answer to a question was given, with the share of `not sure` among all of them."""
    asked = sum(counts.values())
    return {**counts, NOT_SURE_SHARE: counts[NOT_SURE] / asked if asked else 0.0}


def answer_words(
    built: Mapping[str, Filter[Any]], values: Mapping[str, float], unknown: Collection[str] = ()
) -> dict[str, str]:
    """The answers about one clip in words. values: its scores by filter; nan where there is none. unknown: filters that looked,
    and whose score cannot be known."""
    words = {}
    for name, filter_ in questions_of(built).items():
        value = values.get(name, math.nan)
        by_score = {filter_.question.score(answer): answer for answer in filter_.question.choices}
        if value in by_score:
            words[name] = by_score[value]
        elif name in unknown:
            words[name] = NOT_SURE
    return words


def agreement_with_marks(
    scores: ClipScores, rows: npt.NDArray[np.int64], good: npt.NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """For each yes/no question, of the marked clips that have an answer: how many, and the share whose answer agrees with the
    mark (a yes with bad, a no with good), with its 95 % interval (Wilson). rows: the marked clips [n]; good: their marks."""
    agreement = {}
    for name, filter_ in questions_of(scores.filters).items():
        value, _, bound = scores.span(name)
        answered = ~np.isnan(value[rows]) & ~bound[rows]
        if filter_.question.yes_or_no and answered.any():
            agrees = int(np.sum((value[rows][answered] == 0) == good[answered]))
            clips = int(answered.sum())
            low, high = interval(agrees, clips)
            agreement[name] = {"clips": clips, "agrees": agrees / clips, "low": low, "high": high}
    return agreement


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, "Probable inference", 1927)."""
    share = hits / of
    middle = (share + Z**2 / (2 * of)) / (1 + Z**2 / of)
    half = Z / (1 + Z**2 / of) * math.sqrt(share * (1 - share) / of + Z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)
