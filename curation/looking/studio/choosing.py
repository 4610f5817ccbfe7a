"""What marks say to a page: of a tier and each of its gates as they are set, of raters beside each other, of kept clips drawn at
random. Marks are written at once. Functions on a session; each takes a question as `Session.setting` reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import SetupError
from longtake.curation.looking.questions import agreement_with_marks
from longtake.curation.looking.report.columns import Bools, Columns, Rows
from longtake.curation.looking.studio.asked import StudioError, ends_of, shown, whole_number, word
from longtake.curation.looking.studio.marks import Agreement, Marks, agreement, checked_note, propose, rater_name
from longtake.curation.looking.studio.raters import audited, drawn, half_of, raters
from longtake.curation.looking.studio.session import Session
from longtake.curation.looking.truth import WANTED, Share, gate_truth
from longtake.filters.gates import Gate
from longtake.filters.verdicts import GateResult, Verdict

MOST_DRAWN = 500  # Clips that an audit draws at most.
LOST = 12  # Clips that are shown at most of those marked good and rejected.


def who_of(session: Session, question: Mapping[str, Any]) -> str:
    """The rater that a question names; without, the one that the studio began with. Raises StudioError for no name."""
    who = word(question, "who")
    try:
        return session.marks.who if who is None else rater_name(who)
    except SetupError as error:
        raise StudioError(str(error)) from error


def marks_of(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """The marks and notes of the rater `who`, how many others made, and how far raters agree."""
    who = who_of(session, question)
    newest = session.marks.newest()
    by_rater: dict[str, dict[str, bool]] = {}
    for mark in newest:
        by_rater.setdefault(mark.who, {})[mark.clip] = mark.mark == "good"
    own = by_rater.get(who, {})
    return {
        "who": who,
        "marks": {clip: "good" if good else "bad" for clip, good in own.items()},
        "notes": {mark.clip: mark.note for mark in newest if mark.who == who and mark.note},
        "others": {other: len(made) for other, made in sorted(by_rater.items()) if other != who},
        "raters": asdict(raters(by_rater)),
    }


def mark(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """Call a clip good or bad; null takes it back. When this returns, it is on the disk, with the clip's scores and the gates of
    the question. question: clip, mark; optionally tiers, who, note. Gives all marks of this rater. Raises KeyError for an unknown
    clip, and SetupError."""
    clip_id, said, who = word(question, "clip") or "", word(question, "mark"), who_of(session, question)
    row = session.row(clip_id)
    if said not in ("good", "bad", None):
        raise StudioError(f"a mark is good, bad or null, not {said!r}")
    try:
        note = checked_note(word(question, "note") or "")
    except SetupError as error:
        raise StudioError(str(error)) from error
    tiers = session.parse_tiers(question["tiers"]) if "tiers" in question else session.recipe.tiers
    columns = session.columns
    values = {name: columns.values(name, np.array([row])).tolist()[0] for name in session.recipe.filters}
    known = {
        "scores": {name: None if math.isnan(value) else shown(value) for name, value in values.items()},
        "gates": {tier: {name: ends_of(gate) for name, gate in gates.items()} for tier, gates in tiers.items()},
    }
    session.marks_of(who).add(clip_id, said, known, note)
    return {"who": who, "marks": {clip: "good" if good else "bad" for clip, good in own(session.marks, who).items()}}


def own(marks: Marks, who: str) -> dict[str, bool]:
    """Clip id → good, by one rater."""
    return marks.by_rater().get(who, {})


def agreement_of(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """How each gate of a tier, as it is set, agrees with the marks of the rater `who`; a threshold that would agree best, chosen
    on one half of the marks and checked on the other; and the clips marked good that the tier rejects."""
    setting, marks = session.setting(question), own(session.marks, who_of(session, question))
    with session.lock:
        columns = session.apply(setting)
        rows, good, checking = _marked(columns, marks)
        now = columns.tiers[setting.tier]
        gates = {name: _of_gate(columns, name, r, rows, good, checking) for name, r in now.gates.items()}
        verdicts = columns.verdicts(setting.tier)[rows]
        kept, rejected = verdicts == Verdict.KEPT, verdicts == Verdict.REJECTED
        lost = rows[rejected & good]
        cards = session.cards(lost[:LOST], setting.tier)
        for card, row in zip(cards, lost[:LOST].tolist(), strict=True):
            card["by"] = [name for name, result in now.gates.items() if result.failed[row]]
        return {
            "good": int(good.sum()),
            "bad": int((~good).sum()),
            "checking": int(checking.sum()),
            "tier": _told(agreement(kept, rejected, good)),
            "tier_checked": _told(agreement(kept[checking], rejected[checking], good[checking])),
            "gates": gates,
            "questions": agreement_with_marks(columns.scores, rows, good),
            "lost": {"of": int(lost.size), "clips": cards},
        }


def _marked(columns: Columns, marks: Mapping[str, bool]) -> tuple[Rows, Bools, Bools]:
    """Of the marked clips that there are: their rows, which are good, and which belong to the checking half."""
    ids = columns.scores.table["clip_id"]
    at = pc.index_in(pa.array(list(marks), pa.string()), value_set=ids.combine_chunks())
    there = at.is_valid().to_numpy(zero_copy_only=False)
    good = np.array(list(marks.values()), bool)[there]
    checking = np.array([half_of(clip) == "checking" for clip in marks], bool)[there]
    return at.drop_null().to_numpy().astype(np.int64), good, checking


def _of_gate(
    columns: Columns, name: str, result: GateResult, rows: Rows, good: Bools, checking: Bools
) -> dict[str, Any]:
    truth = gate_truth(name, result.of(rows), good)
    values = columns.values(name, rows)
    # If the choosing half has too few marks, all marks choose, and no mark is left to check the choice.
    proposed, chosen_by = propose(result.gate, values[~checking], good[~checking]), "half"
    if proposed is None:
        proposed, chosen_by = propose(result.gate, values, good), "all"
    return _told(truth.agreement) | {
        "silent": truth.silent,
        "for_precision": None if truth.for_precision is None else truth.for_precision.range,
        "wanted": WANTED,
        "proposed": None if proposed is None else ends_of(proposed),
        "range": None if proposed is None else str(proposed),
        "chosen_by": chosen_by,
        "checked": None if proposed is None or chosen_by == "all" else _checked(proposed, values, good, checking),
    }


def _checked(gate: Gate, values: np.ndarray[Any, np.dtype[np.float64]], good: Bools, checking: Bools) -> dict[str, Any]:
    """What a proposed gate lets through of the checking half."""
    some, known = values[checking], ~np.isnan(values[checking])
    passes = gate.passes(some, some) & known
    return _told(agreement(passes, ~passes & known, good[checking]))


def audit(session: Session, question: Mapping[str, Any]) -> dict[str, Any]:
    """Kept clips of a tier drawn at random, in the order in which they are to be marked, and what the marks of the rater `who`
    say of the share of good ones among all kept. question: count, seed, too."""
    setting, marks = session.setting(question), own(session.marks, who_of(session, question))
    most, seed = whole_number(question, "count", 30), whole_number(question, "seed", 0)
    with session.lock:
        columns = session.apply(setting)
        kept = columns.kept(setting.tier)
        ids = columns.scores.table["clip_id"].take(pa.array(kept))
        rows = kept[drawn(ids, min(most, MOST_DRAWN), seed)]
        cards = session.cards(rows, setting.tier)
        told = audited([card["id"] for card in cards], marks)
        return {"kept": int(kept.size), "clips": cards, "told": asdict(told)}


def _told(agreement: Agreement) -> dict[str, Any]:
    """The agreement of a gate or a tier: its counts, and its shares with their intervals."""
    shares = {
        "precision": Share.among(agreement.good_passed, agreement.good_passed + agreement.bad_passed),
        "recall": Share.among(agreement.good_passed, agreement.good_passed + agreement.good_failed),
    }
    told = {name: None if share is None else share.share for name, share in shares.items()}
    spans = {f"{name}_interval": None if share is None else [share.low, share.high] for name, share in shares.items()}
    return asdict(agreement) | told | spans
