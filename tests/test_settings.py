"""What a model allows, and what is wrong with given settings, in words."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, PositiveFloat, field_validator

from longtake.settings import Described, SettingsError, checked, described, near, one_of, quoted


class Inner(BaseModel, extra="forbid"):
    depth: int = 1


class Example(BaseModel, extra="forbid"):
    """One setting of each sort."""

    path: str = Field(description="a folder")
    kind: Literal["small", "large", "huge"] = Field("small", description="its size")
    count: int | None = Field(None, ge=1, le=9, description="how many")
    share: float = Field(0.5, gt=0, lt=1)
    seconds: PositiveFloat = 1.0
    least: float = Field(0, gt=-1, le=1)
    flag: bool = True
    pair: tuple[int, int] = (1, 2)
    either: str | dict[str, int] = "x"
    inner: Inner = Inner()
    many: list[Literal["a", "b"]] = ["a"]
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"path": 3},
            "path: must be a text, not 3; put a text in quotes that YAML takes for something else, such as 'no' or '2024'",
        ),
        ({"kind": "smal"}, "kind: must be one of small, large or huge, not 'smal'; did you mean 'small'?"),
        ({"kind": None}, "kind: must be one of small, large or huge, not null"),
        ({"count": 0}, "count: must be a whole number from 1 to 9, or null, not 0"),
        ({"share": 1}, "share: must be a number above 0 and below 1, not 1"),
        ({"seconds": 0}, "seconds: must be a number above 0, not 0"),
        ({"least": -1}, "least: must be a number above -1 and up to 1, not -1"),
        ({"flag": "perhaps"}, "flag: must be true or false, not 'perhaps'"),
        ({"pair": 7}, "pair: must be a list of 2 values, not 7"),
        ({"pair": [1, "x"]}, "pair.1: must be a whole number, not 'x'"),
        ({"either": 7}, "either: must be a text or a mapping, not 7"),
        ({"either": {"x": "y"}}, "either.x: must be a whole number, not 'y'"),
        ({"inner": {"deph": 1}}, "inner.deph: unknown setting; did you mean 'depth'?"),
        ({"inner": []}, "inner: must be a mapping, not a list"),
        ({"many": ["a", "c"]}, "many.1: must be a or b, not 'c'"),
        ({"even": 3}, "even: 3 is odd"),
        ({"zzz": 1}, "zzz: unknown setting; there are: path, kind, count, share, seconds, least, flag, pair, either, inner, "
         "many, even"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_what_would_be_right(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(Example, {"path": "x", **given})
    assert str(caught.value) == told


def test_values_are_not_repeated_where_they_may_be_secrets() -> None:
    with pytest.raises(SettingsError) as caught:
        checked(Example, {"kind": "secret", "count": "secret", "inner": "secret"}, quote=False)
    assert [str(fault) for fault in caught.value.faults] == [
        "path: must be given (a text)",
        "kind: must be one of small, large or huge",
        "count: must be a whole number from 1 to 9, or null",
        "inner: must be a mapping",
    ]


def test_a_model_is_described_for_a_page() -> None:
    assert described(Example)[:3] == [
        Described("path", "a text", "required", "a folder"),
        Described("kind", "one of small, large or huge", "small", "its size"),
        Described("count", "a whole number from 1 to 9, or null", "null", "how many"),
    ]


def test_words() -> None:
    assert [one_of(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "one of a, b or c"]
    assert near("widht", ["height", "width"]) == "; did you mean 'width'?"
    assert near("zzz", ["height", "width"]) == "; there are: height, width"
    assert near("x" * 10_000, ["x"]) == near(3, ["x"]) == "; there are: x"
    assert near("x", []) == "; there are: none"
    assert [quoted(value) for value in (None, True, 2.5, "x", [], {})] == [
        "null",
        "true",
        "2.5",
        "'x'",
        "a list",
        "a mapping",
    ]
    assert len(quoted("x" * 10_000)) < 70
    assert quoted(10**5000) == "a number with thousands of digits"
