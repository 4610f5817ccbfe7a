"""The truth about a gate, as far as clips were marked good or bad by eye: how many of those that it lets through are good, how
many good ones it loses, and where it would have to stand for a wanted precision. With intervals, since marks are few.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import SetupError
from longtake.curation.looking.questions import agreement_with_marks, interval
from longtake.curation.looking.studio.marks import FEWEST, Agreement, Marks, agreement, let_through, this_user
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate, Tier
from longtake.filters.verdicts import ClipScores, GateResult, Verdict, decide
from longtake.manifests.folder import whole_file

TRUTH = "truth.json"  # The file's name in the folder of a dataset.
WANTED = 0.9  # Precision, unless another one is asked for: of ten clips that are let through, nine are good.

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Share:
    """Clips out of others, and the 95 % interval of the share (Wilson). None where there are no others."""

    hits: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def among(cls, hits: int, of: int) -> Share | None:
        """hits of these; None of none."""
        return cls(hits, of, hits / of, *interval(hits, of)) if of else None


@dataclass(frozen=True, slots=True)
class Reached:
    """A gate whose precision on the marked clips is at least the wanted one, and which loses the fewest good ones."""

    range: str
    precision: Share
    recall: Share


@dataclass(frozen=True, slots=True)
class Truth:
    """What marks say of one gate, or of a whole tier. precision: the good ones among the marked clips that it lets through.
    recall: those that it lets through among the good ones. clips: marked ones that it decides. silent: why the marks say nothing
    about it, None if they do. for_precision: None where no threshold reaches it."""

    gate: str
    range: str
    clips: int
    agreement: Agreement
    precision: Share | None
    recall: Share | None
    silent: str | None
    for_precision: Reached | None

    def as_json(self) -> dict[str, Any]:
        """As it is stored beside a dataset."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TierTruth:
    """What marks say of a tier: good and bad ones, the tier as a whole, gate by gate, and the answers of a captioning model to
    its yes/no questions (see `agreement_with_marks`). wanted: the precision that thresholds are sought for."""

    tier: str
    good: int
    bad: int
    wanted: float
    whole: Truth
    gates: list[Truth]
    questions: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """As it is stored beside a dataset."""
        return asdict(self)


def share_text(share: Share | None) -> str:
    """A share with its interval and its counts, in words."""
    if share is None:
        return "–"
    return f"{share.share:.2f} ({share.low:.2f} to {share.high:.2f}; {share.hits} of {share.of})"


def told(tier_truth: TierTruth) -> tuple[str, list[dict[str, object]], list[dict[str, object]]]:
    """For people to read: a paragraph, a row for the tier and for each gate, and a row for each question."""
    said = (
        f"{tier_truth.good} clips were marked good by eye and {tier_truth.bad} bad. Precision is the share of good ones among "
        "the marked clips that a gate lets through, recall the share of the good ones that it lets through, each with its "
        "95 % interval (Wilson). The clips that people mark are no random sample, so these are shares of the marked clips."
    )
    if silent := [one.gate for one in tier_truth.gates if one.silent]:
        said += f" The marks say nothing about {', '.join(silent)}."
    rows: list[dict[str, object]] = [
        {
            "gate": one.gate,
            "range": one.range,
            "marked": one.clips,
            "precision": share_text(one.precision),
            "recall": share_text(one.recall),
            f"for precision {tier_truth.wanted:g}": _reached(one),
            "silent": one.silent or "",
        }
        for one in (tier_truth.whole, *tier_truth.gates)
    ]
    answers: list[dict[str, object]] = [
        {
            "question": name,
            "answered": int(one["clips"]),
            "agrees with the marks": f"{one['agrees']:.2f} ({one['low']:.2f} to {one['high']:.2f})",
        }
        for name, one in tier_truth.questions.items()
    ]
    return said, rows, answers


def _reached(one: Truth) -> str:
    reached = one.for_precision
    return f"{reached.range}, recall {reached.recall.share:.2f}" if reached else ""


def agreed(workspace: Workspace) -> dict[str, bool]:
    """Clip id → good, by all raters; clips that one calls good and another bad are left out. Raises SetupError."""
    said: dict[str, set[bool]] = {}
    for marks in Marks(workspace, this_user()).by_rater().values():
        for clip, good in marks.items():
            said.setdefault(clip, set()).add(good)
    return {clip: good.pop() for clip, good in sorted(said.items()) if len(good) == 1}


def truth(scores: ClipScores, tier: str, gates: Tier, marks: Mapping[str, bool], wanted: float = WANTED) -> TierTruth:
    """What marks (clip id → good) say of a tier. scores: of all clips, with the column clip_id. Marks of clips that are not
    there, or that ended in an error, do not count."""
    at = pc.index_in(pa.array(list(marks), pa.string()), value_set=scores.table["clip_id"].combine_chunks())
    good = np.array(list(marks.values()), bool)[at.is_valid().to_numpy(zero_copy_only=False)]
    rows = at.drop_null().to_numpy().astype(np.int64)
    ok = scores.ok()[rows]
    rows, good = rows[ok], good[ok]
    result = decide(scores, gates)
    verdicts = result.verdicts[rows]
    kept, rejected = verdicts == Verdict.KEPT, verdicts == Verdict.REJECTED
    return TierTruth(
        tier,
        int(good.sum()),
        int((~good).sum()),
        wanted,
        _told("all gates", "", kept, rejected, good, None),
        [gate_truth(name, one.of(rows), good, wanted) for name, one in result.gates.items()],
        agreement_with_marks(scores, rows, good),
    )


def write_truth(workspace: Workspace, scores: ClipScores, tier: str, gates: Tier, folder: Path) -> dict[str, Any]:
    """Write what marks say of a tier into the folder of its dataset, and give what its card says of it: `marks`, `truth` and
    `answers` of DatasetFacts, none where nobody marked a clip."""
    try:
        tier_truth = truth(scores, tier, gates, agreed(workspace))
    except (
        SetupError
    ):  # A bad file of marks costs no dataset. The fault names paths of this machine, which must not be on a card.
        return {
            "marks": "The result of marking is left out, since a file of marks could not be read; `longtake studio` names it."
        }
    if not tier_truth.good + tier_truth.bad:
        return {}
    with whole_file(folder / TRUTH) as part:
        part.write_text(json.dumps(tier_truth.as_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    said, rows, answers = told(tier_truth)
    return {"marks": f"{said} All numbers: {TRUTH}.", "truth": rows, "answers": answers}


def gate_truth(name: str, gate: GateResult, good: Bools, wanted: float = WANTED) -> Truth:
    """What marks say of one gate. gate: of the marked clips, whose marks `good` are."""
    decided = gate.passed | gate.failed
    values = np.where(decided & (gate.low == gate.high), gate.low, math.nan)
    reached = for_precision(gate.gate, values, good, wanted)
    return _told(name, str(gate.gate), gate.passed, gate.failed, good, reached)


def _told(name: str, range_: str, passed: Bools, failed: Bools, good: Bools, reached: Reached | None) -> Truth:
    agreed_on = agreement(passed, failed, good)
    clips = int(np.count_nonzero(passed | failed))
    return Truth(
        name,
        range_,
        clips,
        agreed_on,
        Share.among(agreed_on.good_passed, agreed_on.good_passed + agreed_on.bad_passed),
        Share.among(agreed_on.good_passed, agreed_on.good_passed + agreed_on.good_failed),
        _silence(agreed_on),
        reached,
    )


def _silence(agreement: Agreement) -> str | None:
    """Why these marks say nothing about a gate."""
    good, bad = agreement.good_passed + agreement.good_failed, agreement.bad_passed + agreement.bad_failed
    if not good + bad:
        return "no marked clip has its score"
    if good < FEWEST or bad < FEWEST:
        return f"too few marks: {good} good, {bad} bad, of each {FEWEST} are needed"
    if not agreement.good_failed + agreement.bad_failed:
        return "it rejects no marked clip"
    return None


def for_precision(gate: Gate, values: npt.NDArray[np.float64], good: Bools, wanted: float) -> Reached | None:
    """The gate with the same open ends whose precision on the marked clips is at least `wanted`, with the greatest recall; of
    equal ones that of the greatest precision, then the one nearest to `gate`. values, good: [marked clips]; nan is left out."""
    counts = let_through(gate, values, good)
    if counts is None:
        return None
    passed = counts.good + counts.bad
    with np.errstate(invalid="ignore"):
        precision = np.where(passed > 0, counts.good / np.maximum(passed, 1), -1.0)
    # Recall comes first, since it is what a threshold costs. Shares that differ by less than 1e-9 are equal.
    rank = np.where(precision >= wanted, counts.good + precision / 2, -1.0)
    best = rank >= rank.max() - 1e-9
    if rank.max() < 0:
        return None
    i, j = np.unravel_index(int(np.argmin(np.where(best, counts.away, np.inf))), rank.shape)
    hits, through = int(counts.good[i, j]), int(passed[i, j])
    shares = Share.among(hits, through), Share.among(hits, counts.n_good)
    if shares[0] is None or shares[1] is None or not hits:
        return None
    return Reached(str(Gate(float(counts.low[i]), float(counts.high[j]))), shares[0], shares[1])
