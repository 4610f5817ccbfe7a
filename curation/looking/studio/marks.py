"""Clips that somebody called good or bad by eye: how well a gate agrees, and the threshold that would agree best."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from longtake.curation.errors import SetupError
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate

FILE = "studio/marks.json"  # in the workspace
FEWEST = 3  # good ones and bad ones, for a proposal
_MOST_CUTS = 500


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the marked clips that have a score: how many good and bad ones a gate lets through and stops."""

    good_passed: int
    good_failed: int
    bad_passed: int
    bad_failed: int

    @property
    def precision(self) -> float | None:
        """The share of good ones among those let through."""
        passed = self.good_passed + self.bad_passed
        return self.good_passed / passed if passed else None

    @property
    def recall(self) -> float | None:
        """The share of the good ones that is let through."""
        good = self.good_passed + self.good_failed
        return self.good_passed / good if good else None


def agreement(passed: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_], good: npt.NDArray[np.bool_]) -> Agreement:
    """All [marked clips]; one that is neither passed nor failed has no score, and does not count."""
    return Agreement(
        int(np.sum(passed & good)), int(np.sum(failed & good)), int(np.sum(passed & ~good)), int(np.sum(failed & ~good))
    )


def propose(gate: Gate, values: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> Gate | None:
    """The gate with the same open ends that tells good from bad best: of the largest mean of the share of good ones let
    through and the share of bad ones stopped, the one nearest to `gate`. Its ends are round numbers between two scores.
    None with fewer than FEWEST of either. values, good: [marked clips]; nan is left out."""
    known = ~np.isnan(values)
    values, good = values[known], good[known]
    n_good, n_bad = int(good.sum()), int((~good).sum())
    if n_good < FEWEST or n_bad < FEWEST:
        return None
    order = np.unique(values)
    if order.size > _MOST_CUTS:
        order = np.unique(np.quantile(values, np.linspace(0, 1, _MOST_CUTS)))
    cuts = [_round_between(a, b) for a, b in pairwise(order.tolist())]
    span = float(order[-1] - order[0]) or 1.0
    lows = [-math.inf] if math.isinf(gate.low) else [*cuts, gate.low, _below(float(order[0]), span)]
    highs = [math.inf] if math.isinf(gate.high) else [*cuts, gate.high, -_below(-float(order[-1]), span)]
    low, high = np.array(sorted(lows)), np.array(sorted(highs))
    # clips below each low end, and up to each high end: what lies between is let through
    shares = []
    for chosen, count in ((good, n_good), (~good, n_bad)):
        sorted_values = np.sort(values[chosen])
        under, up_to = np.searchsorted(sorted_values, low, "left"), np.searchsorted(sorted_values, high, "right")
        shares.append(np.maximum(up_to[None, :] - under[:, None], 0) / count)
    quality = (shares[0] + 1 - shares[1]) / 2
    quality[low[:, None] > high[None, :]] = -1
    away = np.zeros_like(quality)
    if not math.isinf(gate.low):
        away += np.abs(low - gate.low)[:, None]
    if not math.isinf(gate.high):
        away += np.abs(high - gate.high)[None, :]
    best = quality >= quality.max() - 1e-12
    i, j = np.unravel_index(int(np.argmin(np.where(best, away, np.inf))), quality.shape)
    return Gate(float(low[i]), float(high[j]))


def _below(value: float, span: float) -> float:
    return _round_between(value - 0.05 * span, value)


def _round_between(a: float, b: float) -> float:
    """The number with the fewest digits above a and below b, near their middle."""
    first = math.floor(math.log10(b - a)) + 1
    for power in range(first, first - 17, -1):
        value = float(f"{round((a + b) / 2, -power):.15g}")
        if a < value < b:
            return value
    return (a + b) / 2


def read_marks(workspace: Workspace) -> dict[str, bool]:
    """Clip id → good, as they were saved. Raises SetupError."""
    path = workspace.folder.file(FILE)
    try:
        stored = json.loads(workspace.folder.read(FILE))["marks"]
        if not all(mark in ("good", "bad") for mark in stored.values()):
            raise ValueError("a mark is good or bad")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"{path} holds no marks that can be read ({error}): mend it, or move it away") from error
    return {str(clip): mark == "good" for clip, mark in stored.items()}


def write_marks(workspace: Workspace, marks: dict[str, bool]) -> None:
    """Save them. Raises SetupError."""
    text = json.dumps(
        {"version": 1, "marks": {clip: "good" if good else "bad" for clip, good in sorted(marks.items())}}
    )
    write_whole(workspace, FILE, text)


def write_whole(workspace: Workspace, name: str, text: str) -> str:
    """Write a text file below the workspace, all of it or nothing; where it lies. Raises SetupError."""
    path = workspace.folder.file(name)
    try:
        workspace.folder.write_whole(name, text.encode())
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror or error}") from error
    return path
