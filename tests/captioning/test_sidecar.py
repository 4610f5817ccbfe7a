"""Captions from a source list: passed on if they are whole, an error with the reason if not, and never trusted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.captioning.base import Captions
from longtake.captioning.checks import Status
from longtake.captioning.sidecar import Sidecar
from tests.captioning.frames import flat_clip

FIVE = ["Rain falls.", "A door opens.", "A man steps out.", "He looks up.", "The sun returns."]


def captioned(sidecar: Any) -> Captions:
    (result,) = Sidecar().caption([flat_clip("a", sidecar=sidecar)])
    assert result.clip_id == "a"
    return result


def test_whole_captions_are_passed_on() -> None:
    result = captioned({"caption": "A man leaves his house.", "sub_captions": FIVE, "licence": "CC0"})
    assert result == Captions(
        "a", Status.OK, None, "A man leaves his house.", tuple(FIVE), model="sidecar", protocol="sidecar/1"
    )


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (None, "brings no captions"),
        ({}, "five sub-captions are missing"),
        ({"caption": "A man leaves his house."}, "five sub-captions are missing"),
        ({"sub_captions": FIVE}, "overall caption is missing"),
        ({"caption": "A.", "sub_captions": FIVE[:3]}, "not 3"),
        ({"caption": "A.", "sub_captions": FIVE * 200_000}, "not 1000000"),
        ({"caption": "A.", "sub_captions": "Rain falls."}, "no list but str"),
        ({"caption": float("nan"), "sub_captions": FIVE}, "no text but float"),
        ({"caption": b"A.", "sub_captions": FIVE}, "no text but bytes"),
        ({"caption": "A.\x00", "sub_captions": FIVE}, "U\\+0000"),
        ({"caption": "A" * 10_000_000, "sub_captions": FIVE}, "limit of 4000"),
        (["caption", "A."], "no table but list"),
        ("A man leaves his house.", "no table but str"),
    ],
)
def test_anything_less_is_an_error_that_says_why(sidecar: Any, reason: str) -> None:
    result = captioned(sidecar)
    assert result.status == Status.ERROR
    assert result.caption is None
    assert result.sub_captions is None
    assert re.search(reason, result.reason or "")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING | st.fixed_dictionaries({"caption": ANYTHING, "sub_captions": ANYTHING}))
def test_hostile_input_never_gets_through_and_never_raises(sidecar: Any) -> None:
    result = captioned(sidecar)
    assert (result.status == Status.OK) == (result.caption is not None) == (result.reason is None)
    assert "\x00" not in (result.reason or "")
