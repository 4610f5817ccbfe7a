"""Raters, halves and audits, against answers that are worked out by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from longtake.curation.errors import SetupError
from longtake.curation.looking.studio.marks import FOLDER, MOST_NOTE, NOBODY, Mark, Marks
from longtake.curation.looking.studio.raters import audited, cohen_kappa, drawn, half_of, raters
from longtake.curation.workspace import Workspace


def answers(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two raters by the four cells of their table: both say good, the first alone, the second alone, neither."""
    cells = [((True, True), both), ((True, False), first), ((False, True), second), ((False, False), neither)]
    pairs = [answer for answer, count in cells for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize(
    ("cells", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),  # The raters agree on 35 of 50; by chance 0.5·0.6 + 0.5·0.4 = 0.5.
        ((45, 15, 25, 15), 0.1304),  # The raters agree on 60 of 100; by chance 0.6·0.7 + 0.4·0.3 = 0.54.
        ((25, 35, 5, 35), 0.2593),  # The same share agrees; by chance 0.6·0.3 + 0.4·0.7 = 0.46.
        ((5, 0, 0, 5), 1.0),
        ((0, 5, 5, 0), -1.0),
    ],
)
def test_the_kappa_of_two_raters(cells: tuple[int, int, int, int], kappa: float) -> None:
    found = cohen_kappa(*answers(*cells))
    assert found == pytest.approx(kappa, abs=5e-5)


def test_raters_who_always_say_the_same_have_no_kappa() -> None:
    assert cohen_kappa([True] * 5, [True] * 5) is None
    assert cohen_kappa([], []) is None
    assert cohen_kappa([True] * 4, [True, True, False, True]) == 0  # The agreement is exactly that of chance.


def test_three_raters_agree_as_their_pairs_do_on_average() -> None:
    a, b = answers(20, 5, 10, 15)
    marks = {
        "ada": dict(zip(map(str, range(50)), a, strict=True)),
        "bob": dict(zip(map(str, range(50)), b, strict=True)),
        "eve": {"0": True, "49": False, "alone": True},
        "nobody else's": {"x": True},
    }
    found = raters(marks)
    assert found.marks == {"ada": 50, "bob": 50, "eve": 3, "nobody else's": 1}
    assert [(pair.one, pair.other, pair.clips, pair.same, pair.kappa) for pair in found.pairs] == [
        ("ada", "bob", 50, 35, pytest.approx(0.4)), ("ada", "eve", 2, 2, 1.0), ("bob", "eve", 2, 2, 1.0),
    ]  # fmt: skip
    # Wilson's interval for 35 of 50 is the one that prop.test of R gives without correction.
    assert (found.pairs[0].low, found.pairs[0].high) == (
        pytest.approx(0.5625, abs=1e-4),
        pytest.approx(0.8090, abs=1e-4),
    )
    assert found.kappa == pytest.approx((0.4 + 1 + 1) / 3)
    assert found.disputed == sorted(str(i) for i in range(20, 35))


def test_one_rater_agrees_with_nobody() -> None:
    found = raters({"ada": {"a": True}})
    assert (found.pairs, found.kappa, found.disputed) == ([], None, [])


def test_each_clip_is_of_one_half_for_ever() -> None:
    """Known digests: SHA-256 of `abc` is ba7816bf…, of the empty text e3b0c442…, of `a` ca978112…, of `hello` 2cf24dba…"""
    assert [half_of(clip) for clip in ("abc", "", "a", "hello")] == ["checking"] * 3 + ["choosing"]
    halves = [half_of(f"{i:032x}") for i in range(2000)]
    assert set(halves) == {"choosing", "checking"}
    assert 900 < halves.count("choosing") < 1100  # The bounds are 4.5 standard deviations from the mean.


def test_an_audit_draws_evenly_and_keeps_what_it_drew() -> None:
    clips = [f"{i:032x}" for i in range(1000)]
    first = [clips[at] for at in drawn(pa.array(clips), 40)]
    assert len(set(first)) == 40
    assert [clips[at] for at in drawn(pa.chunked_array([clips[:300], clips[300:]]), 60)][:40] == first
    fewer = [clip for clip in clips if clip not in first[:10]]
    assert [fewer[at] for at in drawn(pa.array(fewer), 30)] == first[10:]
    assert [clips[at] for at in drawn(pa.array(clips), 40, seed=1)] != first
    assert sorted(drawn(pa.array(clips[:7]), 40)) == list(range(7))
    assert drawn(pa.array([], pa.string()), 5) == []
    # Each clip is drawn as often as any other: of 400 draws of 50, 20 each on average.
    times = [0] * 1000
    for seed in range(400):
        for at in drawn(pa.array(clips), 50, seed):
            times[at] += 1
    assert 3 < min(times) < 20 < max(times) < 45


def test_an_audit_tells_the_share_of_good_ones_with_its_interval() -> None:
    clips = [str(i) for i in range(12)]
    marks = {str(i): i != 3 for i in range(10)} | {"of no interest": False}
    found = audited(clips, marks)
    assert (found.drawn, found.marked, found.good, found.share) == (12, 10, 9, 0.9)
    # Brown, Cai and DasGupta's formula by hand for 9 of 10: (0.9 + 1.96²/20 ± …) / (1 + 1.96²/10)
    assert (found.low, found.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    empty = audited(clips, {})
    assert (empty.marked, empty.share, empty.low, empty.high) == (0, None, None, None)


# ── files of marks ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_notes_are_kept_and_lines_without_rater_or_note_are_read(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    old = {"when": "2026-01-02T03:04:05+00:00", "clip": "x", "mark": "bad"}
    (folder / "old.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    ada, bob = Marks(workspace, "ada"), Marks(workspace, "bob")
    ada.add("x", "good", {}, "the crowd\nis real ☂")
    ada.add("y", "good", {})
    ada.add("y", None, {})
    bob.add("x", "bad", {}, "")
    found = Marks(workspace, "reader").newest()
    assert [(mark.clip, mark.who, mark.mark, mark.note) for mark in found] == [
        ("x", "ada", "good", "the crowd\nis real ☂"), ("x", "bob", "bad", None), ("x", NOBODY, "bad", None),
    ]  # fmt: skip
    assert found[2].when == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert ada.by_rater() == {"ada": {"x": True}, "bob": {"x": False}, NOBODY: {"x": False}}
    with pytest.raises(SetupError, match="at most 2000 characters"):
        ada.add("x", "good", {}, "x" * (MOST_NOTE + 1))


def test_marks_of_others_keep_who_made_them_and_when(tmp_path: Path) -> None:
    made = Mark("eve", datetime(2025, 5, 5, tzinfo=UTC), "x", "good", "from elsewhere")
    Marks(Workspace(str(tmp_path)), "ada").put([made, Mark("eve", made.when, "y", "bad")])
    assert Marks(Workspace(str(tmp_path)), "ada").newest() == [made, Mark("eve", made.when, "y", "bad")]
