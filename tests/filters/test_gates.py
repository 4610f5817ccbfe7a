"""Gates: what is a gate, what passes it, and that verdicts over a table are those of a plain rule clip by clip."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.filters.base import Filter, FilterUnavailable, Needs, Reduce, Sample, Score, reduce_detail
from longtake.filters.gates import ClipScores, Gate, Verdict, alive, decide, rejecting


class Fake(Filter[Any]):
    """A filter that only has a protocol: tables are filled by hand."""

    name: ClassVar[str] = "a"
    backend: ClassVar[str] = "one"
    unit: ClassVar[str] = "1"
    needs: ClassVar[Needs] = Needs.SAMPLE

    def __init__(self, reduce: Reduce = "mean", method: str = "m1", bound: Filter[Sample] | None = None) -> None:
        super().__init__(reduce=reduce)
        self._method, self._bound = method, bound

    @property
    def method(self) -> str:
        return self._method

    @property
    def lower_bound(self) -> Filter[Sample] | None:
        return self._bound


class Absent(Fake):
    """One whose package is not installed."""

    @property
    def method(self) -> str:
        raise FilterUnavailable("its package is missing")


def named(filter_: Fake, name: str) -> Fake:
    return type(name, (type(filter_),), {"name": name})(filter_.reduce, filter_._method, filter_._bound)  # type: ignore[no-any-return]


Stored = tuple[float | None, Sequence[float] | None, str | None]  # value, detail, protocol


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


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (">= 40", 40, math.inf),
        ("  >=40 ", 40, math.inf),
        ("≥ 4.8", 4.8, math.inf),
        ("<= 0.05", -math.inf, 0.05),
        ("≤.75", -math.inf, 0.75),
        ("<= -1.5e-3", -math.inf, -0.0015),
        ("[20, 180]", 20, 180),
        ("[ 0 ,0.7 ]", 0, 0.7),
        ("[-1,+1]", -1, 1),
        ("[5, 5]", 5, 5),
        ([20, 180], 20, 180),
        ((0.5, 0.8), 0.5, 0.8),
        ([None, 4], -math.inf, 4),
        ([4, None], 4, math.inf),
        (Gate(1, 2), 1, 2),
    ],
)
def test_every_way_to_write_a_gate(text: object, low: float, high: float) -> None:
    assert Gate.parse(text) == Gate(low, high)


@pytest.mark.parametrize(
    "text",
    [
        "", "40", "> 40", "< 3", "== 3", ">= ", ">= nan", ">= inf", "<= 1, 2", ">= 1 <= 2", "[1]", "[1, 2, 3]",
        "[1; 2]",
        "(1, 2]", "[2, 1]", "[1, nan]", ">= 1\n>= 2", ">= 1_000", ">= ４x", ">= 1e", "[[1, 2]]", ">= __import__('os')",
        None, 3, 3.0, True, [1], [1, 2, 3], [True, 2], ["1", "2"], [2, 1], [math.nan, 1], [1, math.nan],
        [None, None], ">= 1e999", "<= -1e999", {}, {"low": 1},
        b">= 4", ">= " + "9" * 10_000 + "x",
    ],
)  # fmt: skip
def test_what_is_no_gate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"not a gate|an empty range"):
        Gate.parse(text)


@given(st.text(max_size=40) | st.text("[]<>=≥≤ ,.0123456789e+-naif", max_size=12))
def test_text_is_a_gate_or_a_value_error(text: str) -> None:
    try:
        gate = Gate.parse(text)
    except ValueError:
        return
    assert gate.low <= gate.high


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers, st.sampled_from(["low", "high", "both"]))
def test_a_gate_reads_back_what_it_writes(a: float, b: float, kind: str) -> None:
    low, high = sorted((a, b))
    gate = {"low": Gate(low=low), "high": Gate(high=high), "both": Gate(low, high)}[kind]
    assert Gate.parse(str(gate)) == gate


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ranges_are_closed_and_nan_never_passes() -> None:
    values = np.array([19.999, 20, 100, 180, 180.001, math.nan, math.inf, -math.inf])
    assert Gate(20, 180).passes(values, values).tolist() == [False, True, True, True, False, False, False, False]
    assert not Gate().passes(np.array([math.nan]), np.array([math.nan])).any()
    assert not Gate(low=0).passes(np.array([1.0, math.nan]), np.array([math.nan, 1.0])).any()


def test_excess_says_how_far_outside_and_on_which_side() -> None:
    values = np.array([10.0, 20.0, 50.0, 180.0, 190.0])
    assert Gate(20, 180).excess(values, values).tolist() == [-10, 0, 0, 0, 10]


# ── which scores count ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_score_counts_under_its_own_protocol_only() -> None:
    rows: list[dict[str, Stored]] = [
        {"a": (50.0, [50.0], "one/m1/mean")},
        {"a": (50.0, [50.0], "one/m2/mean")},  # another method
        {"a": (50.0, [50.0], "two/m1/mean")},  # another backend
        {"a": (50.0, [50.0], None)},  # nobody knows how it was measured
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


def test_a_filter_that_the_table_has_no_column_for_is_missing() -> None:
    scores = ClipScores(table([{"a": (50.0, None, "one/m1/mean")}]), {"a": Fake(), "b": named(Fake(), "b")})
    assert verdicts(scores, a=">= 40", b=">= 1") == ["undecided"]


def test_every_asks_each_value_and_the_mean_is_not_enough() -> None:
    rows: list[dict[str, Stored]] = [
        {"a": (50.0, [45.0, 55.0], "one/m1/every")},
        {"a": (50.0, [39.0, 61.0], "one/m1/every")},
        {"a": (50.0, [45.0, math.nan], "one/m1/every")},
        {"a": (50.0, [], "one/m1/every")},  # a filter that gives a value and no detail
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
        {"a": (99.0, [], f"one/m1/{stored}")},  # nothing to reduce: measure again
        {"a": (7.0, [10.0, 40.0, 10.0], f"one/m1/{reduce}")},  # under the wanted protocol the stored value stands
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
    # it may not be taken for one where nobody says that it is a bound
    assert verdicts(ClipScores(table(rows), {"a": Fake()}), a="<= 0.05") == ["undecided"] * 3


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
    assert result.only_failure == {}


# ── against a plain rule ─────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ("a", "b", "c")
REDUCES: tuple[Reduce, ...] = ("mean", "min", "max", "every")
values = st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0])
details = st.lists(values, min_size=1, max_size=4)


@st.composite
def cells(draw: st.DrawFn) -> Stored:
    kind = draw(st.sampled_from(["fresh", "reduce", "stale", "bound", "none"]))
    if kind == "none":
        return None, None, None
    reduce, detail = draw(st.sampled_from(REDUCES)), draw(details)
    method = {"stale": "old", "bound": "bound"}.get(kind, "m1")
    return reduce_detail(detail, reduce), detail, f"one/{method}/{reduce}"


gate_texts = st.sampled_from([">= 1", ">= 3", "<= 2", "<= 0", "[0, 3]", "[1, 2]", "[2, 2]"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Stored]], list[str], dict[str, Fake], dict[str, dict[str, Gate]]]:
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


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_verdicts_are_those_of_a_plain_rule(
    world: tuple[list[dict[str, Stored]], list[str], dict[str, Fake], dict[str, dict[str, Gate]]],
) -> None:
    rows, status, filters, tiers = world
    scores = ClipScores(table(rows, status, NAMES), filters)
    may_live = np.zeros(len(rows), bool)
    for tier, gates in tiers.items():
        result = decide(scores, gates)
        counts = np.bincount(result.verdicts, minlength=4)
        assert counts.sum() == len(rows)
        for i, (row, ok) in enumerate(zip(rows, status, strict=True)):
            outcome = {name: of_gate(row[name], filters[name], gate) for name, gate in gates.items()}
            failed = [name for name, what in outcome.items() if what == "failed"]
            if ok == "error":
                expected, outcome, failed = Verdict.ERROR, dict.fromkeys(outcome, "none"), []
            elif failed:
                expected = Verdict.REJECTED
            else:
                expected = Verdict.UNDECIDED if "missing" in outcome.values() else Verdict.KEPT
            assert result.verdicts[i] == expected, (tier, row)
            for name, what in outcome.items():
                got = result.gates[name]
                assert (got.passed[i], got.failed[i], got.missing[i]) == tuple(
                    what == each for each in ("passed", "failed", "missing")
                )
                assert result.only_failure[name][i] == (failed == [name])
            may_live[i] |= expected in (Verdict.KEPT, Verdict.UNDECIDED)
    assert alive(scores, tiers).tolist() == may_live.tolist()


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_the_cascade_for_one_clip_agrees_with_the_one_for_all(
    world: tuple[list[dict[str, Stored]], list[str], dict[str, Fake], dict[str, dict[str, Gate]]],
) -> None:
    rows, _, filters, tiers = world
    # a clip being measured has scores under the wanted protocols and bounds only
    fresh: list[dict[str, Stored]] = []
    left: list[set[str]] = []
    for row in rows:
        mine: dict[str, Stored] = {}
        tiers_left = set(tiers)
        for name, (value, detail, protocol) in row.items():
            if value is None or detail is None or protocol is None:
                continue
            filter_: Filter[Any] = filters[name]
            bound = "bound" in protocol and filter_.lower_bound is not None
            score = Score(reduce_detail(detail, filter_.reduce), tuple(detail))
            measured = filter_.lower_bound if bound else filter_
            assert measured is not None
            mine[name] = (score.value, detail, measured.protocol)
            tiers_left -= rejecting(filter_, score, tiers, bound=bound)
        fresh.append(mine)
        left.append(tiers_left)
    scores = ClipScores(table(fresh, None, NAMES), filters)
    assert alive(scores, tiers).tolist() == [bool(tiers_left) for tiers_left in left]
