"""The verdict engine: which scores count, what a tier says, and that it is what a plain rule says clip by clip."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.filters.base import Filter, FilterUnavailable, Needs, Reduce, Sample, reduce_detail
from longtake.filters.gates import Gate
from longtake.filters.registry import build
from longtake.filters.verdicts import Alone, ClipScores, Verdict, alive, decide, to_measure


class Fake(Filter[Any]):
    """A filter that only has a protocol: tables are filled by hand."""

    name: ClassVar[str] = "a"
    backend: ClassVar[str] = "one"
    unit: ClassVar[str] = "1"
    needs: ClassVar[Needs] = Needs.SAMPLE

    def __init__(
        self,
        reduce: Reduce = "mean",
        method: str = "m1",
        bound: Filter[Sample] | None = None,
        early: Filter[Sample] | None = None,
    ) -> None:
        super().__init__(reduce=reduce)
        self._method, self._bound, self._early = method, bound, early

    @property
    def method(self) -> str:
        return self._method

    @property
    def lower_bound(self) -> Filter[Sample] | None:
        return self._bound

    @property
    def early(self) -> Filter[Sample] | None:
        return self._early


class Absent(Fake):
    """One whose package is not installed."""

    @property
    def method(self) -> str:
        raise FilterUnavailable("its package is missing")


def named(filter_: Fake, name: str) -> Fake:
    return type(name, (type(filter_),), {"name": name})(filter_.reduce, filter_._method, filter_._bound)  # type: ignore[no-any-return]


Stored = tuple[float | None, Sequence[float] | None, str | None]  # Value, detail, protocol.


def table(
    rows: Sequence[dict[str, Stored]], status: Sequence[str] | None = None, names: Sequence[str] = "a"
) -> pa.Table:
    protocols = [json.dumps({name: row[name][2] for name in row if row[name][2] is not None}) for row in rows]
    columns: dict[str, pa.Array] = {
        "status": pa.array(status or ["ok"] * len(rows), pa.string()),
        "protocols": pa.array(protocols, pa.string()),
    }
    for name in names:
        columns[name] = pa.array([row.get(name, (None,))[0] for row in rows], pa.float64())
        columns[f"{name}_detail"] = pa.array([row.get(name, (0, None))[1] for row in rows], pa.list_(pa.float64()))
    return pa.table(columns)


def verdicts(scores: ClipScores, **tier: str) -> list[str]:
    return [Verdict(v).name.lower() for v in decide(scores, {k: Gate.parse(g) for k, g in tier.items()}).verdicts]


# ── which scores count ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_score_counts_under_its_own_protocol_only() -> None:
    rows: list[dict[str, Stored]] = [
        {"a": (50.0, [50.0], "one/m1/mean")},
        {"a": (50.0, [50.0], "one/m2/mean")},  # The method is another one.
        {"a": (50.0, [50.0], "two/m1/mean")},  # The backend is another one.
        {"a": (50.0, [50.0], None)},  # The way in which it was measured is not known.
        {"a": (None, None, "one/m1/mean")},
        {"a": (math.nan, [math.nan], "one/m1/mean")},
        {},
    ]
    scores = ClipScores(table(rows), {"a": Fake()})
    assert verdicts(scores, a=">= 40") == ["kept"] + ["undecided"] * 6
    assert scores.missing("a").tolist() == [False] + [True] * 6
    assert verdicts(ClipScores(table(rows), {"a": Fake(method="m2")}), a=">= 40")[:3] == [
        "undecided",
        "kept",
        "undecided",
    ]


def test_what_cannot_be_known_stays_undecided_unless_the_least_that_it_can_be_fails() -> None:
    rows: list[dict[str, Stored]] = [
        {"a": (None, [0.01, 0.02], "one/m1/max")},
        {"a": (None, [0.01, 0.2], "one/m1/max")},
        {"a": (None, [0.01, 0.2], "one/m1/mean")},
        {"a": (None, [0.01, 0.2], "one/m2/max")},  # Another method counts as not measured.
        {"a": (0.01, [0.01], "one/m1/max")},
    ]
    scores = ClipScores(table(rows), {"a": Fake("max")})
    assert verdicts(scores, a="<= 0.05") == ["undecided", "rejected", "rejected", "undecided", "kept"]
    # A lower bound decides nothing about a low end: the score itself can only be higher.
    assert verdicts(scores, a=">= 0") == ["undecided"] * 4 + ["kept"]
    result = decide(scores, {"a": Gate(high=0.05)})
    assert [result.missing(row) for row in range(5)] == [(), (), (), ("a",), ()]
    assert [result.unknown(row) for row in range(5)] == [("a",), (), (), (), ()]
    # It is measured once, and not again in each run.
    assert scores.missing("a").tolist() == [False, False, False, True, False]
    assert "a" in scores.details_needed()


def test_a_filter_that_the_table_has_no_column_for_is_missing() -> None:
    scores = ClipScores(table([{"a": (50.0, None, "one/m1/mean")}]), {"a": Fake(), "b": named(Fake(), "b")})
    assert verdicts(scores, a=">= 40", b=">= 1") == ["undecided"]


def test_every_asks_each_value_and_the_mean_is_not_enough() -> None:
    rows: list[dict[str, Stored]] = [
        {"a": (50.0, [45.0, 55.0], "one/m1/every")},
        {"a": (50.0, [39.0, 61.0], "one/m1/every")},
        {"a": (50.0, [45.0, math.nan], "one/m1/every")},
        {"a": (50.0, [], "one/m1/every")},  # Some filters give a value and no detail.
    ]
    scores = ClipScores(table(rows), {"a": Fake("every")})
    assert verdicts(scores, a="[40, 60]") == ["kept", "rejected", "undecided", "kept"]
    low, high, _ = scores.span("a")
    assert (low[1], high[1]) == (39, 61)


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", 20.0), ("min", 10.0), ("max", 40.0)], ids=["mean", "min", "max"]
)
def test_another_reduction_is_taken_from_the_detail(reduce: Reduce, expected: float) -> None:
    stored = "max" if reduce == "min" else "min"
    rows: list[dict[str, Stored]] = [
        {"a": (99.0, [10.0, 40.0, 10.0], f"one/m1/{stored}")},
        {"a": (99.0, [], f"one/m1/{stored}")},  # Without a detail the clip has to be measured again.
        {"a": (7.0, [10.0, 40.0, 10.0], f"one/m1/{reduce}")},  # Under the wanted protocol the stored value stands.
    ]
    low, high, _ = ClipScores(table(rows), {"a": Fake(reduce)}).span("a")
    assert low[0] == high[0] == expected
    assert math.isnan(low[1])
    assert low[2] == high[2] == 7


def test_every_is_taken_from_details_stored_under_mean() -> None:
    rows: list[dict[str, Stored]] = [{"a": (50.0, [30.0, 70.0], "one/m1/mean")}, {"a": (50.0, [50.0], "one/m1/mean")}]
    scores = ClipScores(table(rows), {"a": Fake("every")})
    assert verdicts(scores, a="[40, 60]") == ["rejected", "kept"]
    assert scores.details_needed() == ["a"]


def test_details_are_needed_only_where_a_verdict_looks_at_them() -> None:
    rows: list[dict[str, Stored]] = [{"a": (50.0, [30.0, 70.0], "one/m1/mean")}]
    assert ClipScores(table(rows), {"a": Fake()}).details_needed() == []
    assert ClipScores(table(rows), {"a": Fake("min")}).details_needed() == ["a"]
    assert ClipScores(table(rows), {"a": Fake("min", "m2")}).details_needed() == []
    without = table(rows).drop_columns(["a_detail"])
    assert verdicts(ClipScores(without, {"a": Fake()}), a=">= 40") == ["kept"]


def test_a_lower_bound_rejects_from_above_and_never_passes() -> None:
    bound = Fake(method="bound")
    rows: list[dict[str, Stored]] = [{"a": (value, [value], "one/bound/mean")} for value in (0.0, 0.05, 0.06)]
    scores = ClipScores(table(rows), {"a": Fake(bound=bound)})
    assert verdicts(scores, a="<= 0.05") == ["undecided", "undecided", "rejected"]
    assert verdicts(scores, a=">= 0.05") == ["undecided"] * 3
    assert scores.missing("a").all()
    # A filter without a lower bound may not take the value for its score.
    assert verdicts(ClipScores(table(rows), {"a": Fake()}), a="<= 0.05") == ["undecided"] * 3


def test_an_early_look_rejects_on_both_sides_and_never_passes() -> None:
    early = Fake(method="early")
    ends = [(-5.0, 5.0), (3.0, 19.0), (10.0, 30.0), (40.0, 60.0), (175.0, 200.0), (181.0, 300.0)]
    rows: list[dict[str, Stored]] = [{"a": ((low + high) / 2, [low, high], "one/early/mean")} for low, high in ends]
    for reduce in REDUCES:
        scores = ClipScores(table(rows), {"a": Fake(reduce, early=early)})
        expected = ["rejected", "rejected", "undecided", "undecided", "undecided", "rejected"]
        assert verdicts(scores, a="[20, 180]") == expected
        assert scores.missing("a").all()
        result = scores.result("a", Gate.parse("[20, 180]"))
        value, excess = result.outside(slice(0, 6))
        assert value[[0, 1, 5]].tolist() == [5, 19, 181]  # The shown value is the one that lies nearest to the gate.
        assert excess[[0, 1, 5]].tolist() == [-15, -1, 1]
    assert ClipScores(table(rows), {"a": Fake(early=early)}).details_needed() == ["a"]
    assert verdicts(ClipScores(table(rows), {"a": Fake()}), a="[20, 180]") == ["undecided"] * 6


def test_without_its_package_scores_of_the_same_backend_are_believed() -> None:
    bound = Fake(method="bound")
    bound_of_another = named(bound, "bound")
    rows: list[dict[str, Stored]] = [
        {"a": (50.0, [50.0], "one/whatever@abc,1/2/mean")},
        {"a": (10.0, [10.0], "one/whatever@abc,1/2/mean")},
        {"a": (10.0, [50.0], "one/whatever/max")},
        {"a": (50.0, [50.0], "two/whatever/mean")},
    ]
    scores = ClipScores(table(rows), {"a": Absent()})
    assert verdicts(scores, a=">= 40") == ["kept", "rejected", "kept", "undecided"]
    assert scores.unchecked == {"a": "its package is missing"}
    assert bound_of_another.protocol == "one/bound/mean"


def test_encoded_columns_give_the_same_verdicts() -> None:
    rows: list[dict[str, Stored]] = [{"a": (float(i), [1.0], f"one/m{i % 3}/mean")} for i in range(20)]
    plain = table(rows, ["ok", "error"] * 10)
    encoded = plain
    for name in ("status", "protocols"):
        halves = [plain[name].slice(0, 7), plain[name].slice(7)]
        chunks = [half.combine_chunks().dictionary_encode() for half in halves]
        encoded = encoded.set_column(encoded.column_names.index(name), name, pa.chunked_array(chunks))
    assert verdicts(ClipScores(plain, {"a": Fake()}), a=">= 5") == verdicts(
        ClipScores(encoded, {"a": Fake()}), a=">= 5"
    )


def test_no_clips_and_no_gates() -> None:
    assert verdicts(ClipScores(table([]), {"a": Fake()}), a=">= 5") == []
    result = decide(ClipScores(table([{}, {}], ["ok", "error"]), {}), {})
    assert [Verdict(v).name for v in result.verdicts] == ["KEPT", "ERROR"]
    assert result.gates == {}
    assert [result.alone(row) for row in (0, 1)] == [None, None]


# ── against a plain rule ─────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("a", "b", "c")
REDUCES: tuple[Reduce, ...] = ("mean", "min", "max", "every")
values = st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0])
details = st.lists(values, min_size=1, max_size=4)


@st.composite
def cells(draw: st.DrawFn) -> Stored:
    kind = draw(st.sampled_from(["fresh", "reduce", "stale", "bound", "none", "null"]))
    if kind == "none":
        return None, None, None
    reduce, detail = draw(st.sampled_from(REDUCES)), draw(details)
    if kind == "null":
        return None, None, f"one/m1/{reduce}"
    method = {"stale": "old", "bound": "bound"}.get(kind, "m1")
    return reduce_detail(detail, reduce), detail, f"one/{method}/{reduce}"


gate_texts = st.sampled_from([">= 1", ">= 3", "<= 2", "<= 0", "[0, 3]", "[1, 2]", "[2, 2]"])


World = tuple[list[dict[str, Stored]], list[str], dict[str, Fake], dict[str, dict[str, Gate]]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rows = draw(st.lists(st.fixed_dictionaries({name: cells() for name in NAMES}), max_size=12))
    status = draw(st.lists(st.sampled_from(["ok", "ok", "ok", "error"]), min_size=len(rows), max_size=len(rows)))
    filters = {}
    for name in NAMES:
        reduce = draw(st.sampled_from(REDUCES))
        bound = named(Fake(reduce, "bound"), name) if draw(st.booleans()) else None
        filters[name] = named(Fake(reduce, "m1", bound), name)
    tiers = {}
    for tier in ("x", "y"):
        chosen = draw(st.dictionaries(st.sampled_from(NAMES), gate_texts))
        tiers[tier] = {name: Gate.parse(text) for name, text in chosen.items()}
    return rows, status, filters, tiers


def of_gate(cell: Stored, filter_: Fake, gate: Gate) -> str:
    """passed, failed or missing, as the design says it, for one clip."""
    value, detail, protocol = cell
    if value is None or detail is None or protocol is None:
        return "missing"
    backend, method, reduce = protocol.split("/")
    if (backend, method) == ("one", "m1"):
        if filter_.reduce == "every":
            looked_at = list(detail)
        elif reduce == filter_.reduce:
            looked_at = [value]
        else:
            looked_at = [reduce_detail(detail, filter_.reduce)]
        return "passed" if all(gate.low <= v <= gate.high for v in looked_at) else "failed"
    if filter_.lower_bound is not None and protocol == filter_.lower_bound.protocol:
        looked_at = list(detail) if filter_.reduce == "every" else [value]
        return "failed" if max(looked_at) > gate.high else "missing"
    return "missing"


def of_tier(
    row: Mapping[str, Stored], status: str, filters: Mapping[str, Fake], tier: Mapping[str, Gate]
) -> tuple[dict[str, str], Verdict, Alone | None]:
    """The outcome of each gate, the verdict, and what is known of single gates, for one clip."""
    if status == "error":
        return dict.fromkeys(tier, "none"), Verdict.ERROR, None
    outcome = {name: of_gate(row[name], filters[name], gate) for name, gate in tier.items()}
    told = list(outcome.values())
    if told.count("failed") == 0:
        return (outcome, Verdict.UNDECIDED, Alone.UNKNOWN) if "missing" in told else (outcome, Verdict.KEPT, None)
    if told.count("failed") > 1:
        return outcome, Verdict.REJECTED, None
    return outcome, Verdict.REJECTED, Alone.SO_FAR if "missing" in told else Alone.YES


def in_memory(row: Mapping[str, Stored], status: str = "ok") -> dict[str, Any]:
    """A clip as a worker holds it, with the keys of its row in the manifest."""
    scores = {name: value for name, (value, _, _) in row.items()}
    details = {f"{name}_detail": detail for name, (_, detail, _) in row.items()}
    protocols = {name: protocol for name, (_, _, protocol) in row.items() if protocol is not None}
    return {"status": status, "protocols": json.dumps(protocols), **scores, **details}


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_all_is_as_a_plain_rule_has_it(world: World) -> None:
    rows, status, filters, tiers = world
    scores = ClipScores(table(rows, status, NAMES), filters)
    may_live = np.zeros(len(rows), bool)
    for gates in tiers.values():
        result = decide(scores, gates)
        assert np.bincount(result.verdicts, minlength=4).sum() == len(rows)
        for i, (row, ok) in enumerate(zip(rows, status, strict=True)):
            outcome, verdict, alone = of_tier(row, ok, filters, gates)
            assert (result.verdicts[i], result.alone(i)) == (verdict, alone), (gates, row)
            assert result.kept[i] == (verdict == Verdict.KEPT)
            assert result.may_keep[i] == (verdict in (Verdict.KEPT, Verdict.UNDECIDED))
            assert result.missing(i) == tuple(name for name, what in outcome.items() if what == "missing")
            for name, what in outcome.items():
                got = result.gates[name]
                told = [what == each for each in ("passed", "failed", "missing")]
                assert [got.passed[i], got.failed[i], got.missing[i]] == told
                assert (got.failed & result.tally.by_one)[i] == (what == "failed" and alone == Alone.YES)
                assert (got.failed & result.tally.by_one_so_far)[i] == (what == "failed" and alone == Alone.SO_FAR)
            may_live[i] |= result.may_keep[i]
    assert alive(scores, tiers).tolist() == may_live.tolist()


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_one_row_at_a_time_is_decided_as_the_whole_table_is(world: World) -> None:
    rows, status, filters, tiers = world
    whole = ClipScores(table(rows, status, NAMES), filters)
    held = [in_memory(row, ok) for row, ok in zip(rows, status, strict=True)]
    one_by_one = [ClipScores.of_rows([row], filters) for row in held]
    for scores in (ClipScores.of_rows(held, filters), *one_by_one):
        assert scores.unchecked == whole.unchecked == {}
    for gates in tiers.values():
        result, batch = decide(whole, gates), decide(ClipScores.of_rows(held, filters), gates)
        assert batch.verdicts.tolist() == result.verdicts.tolist()
        for i, scores in enumerate(one_by_one):
            one = decide(scores, gates)
            assert (one.verdicts[0], one.alone(0), one.missing(0)) == (
                result.verdicts[i], result.alone(i), result.missing(i),
            )  # fmt: skip
    for name in NAMES:
        expected = to_measure(whole, [name], tiers).tolist()
        assert to_measure(ClipScores.of_rows(held, filters), [name], tiers).tolist() == expected
        assert [bool(to_measure(scores, [name], tiers)[0]) for scores in one_by_one] == expected
        assert expected == (whole.ok() & whole.missing(name) & alive(whole, tiers)).tolist()
        everything = to_measure(whole, [name], tiers, all_scores=True).tolist()
        assert everything == (whole.ok() & whole.missing(name)).tolist()


@given(worlds(), st.data())
@settings(max_examples=200, deadline=None)
def test_the_cascade_never_gives_up_a_clip_that_is_kept_in_the_end(world: World, data: st.DataObject) -> None:
    """Filters measure one after the other, lower bounds perhaps first, and after each of them the clip is asked about."""
    _, _, filters, tiers = world
    full: dict[str, list[float]] = {name: data.draw(details, name) for name in NAMES}
    true = {name: stored(filters[name], detail) for name, detail in full.items()}
    kept = any(of_tier(true, "ok", filters, gates)[1] == Verdict.KEPT for gates in tiers.values())
    now: dict[str, Stored] = dict.fromkeys(NAMES, (None, None, None))
    steps: list[dict[str, Stored]] = [dict(now)]
    for name, filter_ in filters.items():
        if filter_.lower_bound is not None:
            less = data.draw(st.lists(values.map(abs), min_size=len(full[name]), max_size=len(full[name])))
            lower = [value - by for value, by in zip(full[name], less, strict=True)]
            now[name] = stored(filter_.lower_bound, lower)
            steps.append(dict(now))
    for name in data.draw(st.permutations(NAMES)):
        now[name] = true[name]
        steps.append(dict(now))
    alive_then = [bool(alive(ClipScores.of_rows([in_memory(step)], filters), tiers)[0]) for step in steps]
    assert alive_then == sorted(alive_then, reverse=True)  # A clip that is given up stays given up.
    assert alive_then[-1] == kept


def stored(filter_: Filter[Any], detail: list[float]) -> Stored:
    return reduce_detail(detail, filter_.reduce), detail, filter_.protocol


@given(worlds(), st.sampled_from(NAMES))
@settings(max_examples=200, deadline=None)
def test_what_has_no_score_is_never_taken_as_passed(world: World, gone: str) -> None:
    rows, status, filters, tiers = world
    before = ClipScores(table(rows, status, NAMES), filters)
    less: list[dict[str, Stored]] = [{**row, gone: (None, None, None)} for row in rows]
    after = ClipScores(table(less, status, NAMES), filters)
    for gates in tiers.values():
        had, has = decide(before, gates), decide(after, gates)
        if gone not in gates:
            assert has.verdicts.tolist() == had.verdicts.tolist()
            continue
        assert not has.gates[gone].passed.any()
        assert not has.gates[gone].failed.any()
        assert not has.kept.any()
        assert not has.tally.by_one.any()  # The gate that is left may or may not reject it alone.
        for i, ok in enumerate(status):
            assert ok == "error" or gone in has.missing(i)
            if had.alone(i) == Alone.YES:
                assert has.alone(i) == (Alone.UNKNOWN if had.gates[gone].failed[i] else Alone.SO_FAR)


def test_a_gate_tells_how_far_outside_a_score_is() -> None:
    bound = Fake("every", "bound")
    rows: list[dict[str, Stored]] = [
        {"a": (3.0, [1.0, 5.0], "one/m1/every")},
        {"a": (6.0, [3.0, 9.0], "one/m1/every")},
        {"a": (3.0, [2.0, 4.0], "one/m1/every")},
        {"a": (5.0, [0.0, 9.0], "one/bound/every")},  # Only the height of a lower bound decides anything.
    ]
    result = decide(ClipScores(table(rows), {"a": Fake("every", bound=bound)}), {"a": Gate(2, 4)})
    score, excess = result.gates["a"].outside(np.array([0, 1, 2, 3]))
    assert result.gates["a"].failed.tolist() == [True, True, False, True]
    assert (score.tolist()[:2], excess.tolist()[:3]) == ([1.0, 9.0], [-1.0, 5.0, 0.0])
    assert (score[3], excess[3]) == (9.0, 5.0)


# ── how certain a gate is ────────────────────────────────────────────────────────────────────────────────────────────


def with_errors(reduce: Reduce = "mean") -> ClipScores:
    """Seven clips, and the standard errors of their scores: 5, of the last one not known."""
    values = [30.0, 36.0, 39.0, 44.0, 46.0, 58.0, 41.0]
    whole = table([{"a": (value, [value], f"one/m1/{reduce}")} for value in values])
    errors = pa.array([*[5.0] * 6, None], pa.float64())
    return ClipScores(whole.append_column("a_standard_error", errors), {"a": Fake(reduce)})


def test_a_gate_is_uncertain_of_what_lies_within_a_standard_error_of_its_ends() -> None:
    scores = with_errors()
    below = scores.result("a", Gate(low=40))
    assert below.uncertain.tolist() == [False, True, True, True, False, False, False]
    assert below.of(np.array([1, 4])).uncertain.tolist() == [True, False]
    both = scores.result("a", Gate(40, 60))
    assert both.uncertain.tolist() == [False, True, True, True, False, True, False]
    assert verdicts(scores, a=">= 40") == ["rejected"] * 3 + ["kept"] * 4  # An uncertain score decides all the same.


def test_no_error_is_known_of_another_reduction_or_of_a_score_that_does_not_count() -> None:
    assert not with_errors("min").result("a", Gate(low=40)).uncertain.any()
    stale = with_errors()
    stale.filters = {"a": Fake(method="m2")}
    assert not stale.result("a", Gate(low=40)).uncertain.any()
    plain = ClipScores(table([{"a": (50.0, [50.0], "one/m1/mean")}]), {"a": Fake()})
    assert not plain.result("a", Gate(low=50)).uncertain.any()


# ── clips that differ, not filters ───────────────────────────────────────────────────────────────────────────────────


def test_a_score_at_another_distance_does_not_count_and_is_not_measured_again() -> None:
    method = "grey/bt601,neighbouring-keyframes@{},cap100"
    rows: list[dict[str, Stored]] = [
        {"psnr": (10.0, [10.0], f"{method.format(distance)}/mean")} for distance in ("3s", "5.8s")
    ]
    # The score is of an older version.
    rows.append({"psnr": (10.0, [10.0], "grey/bt601,neighbouring-keyframes,cap100/mean")})
    whole = table(rows, names=["psnr"])
    tier = {"psnr": Gate(4, 20)}
    for spacing, expected, again in (
        (3.0, ["kept", "undecided", "undecided"], [False, False, True]),
        (5.8, ["undecided", "kept", "undecided"], [False, False, True]),
        ("any", ["kept", "kept", "undecided"], [False, False, True]),
    ):
        scores = ClipScores(whole, {"psnr": build("psnr", {"spacing": spacing})})
        assert verdicts(scores, psnr="[4, 20]") == expected
        assert to_measure(scores, ["psnr"], {"t": tier}).tolist() == again
