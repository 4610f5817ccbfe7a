"""Checks of texts: what passes is clean, and each kind of bad output ends in its own status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.captioning.checks import (
    MAX_CAPTION,
    MAX_SUB_CAPTION,
    CaptionError,
    Status,
    check_captions,
    check_text,
    normalised,
)

FIVE = [
    "A dog runs along the beach.",
    "It stops at the water.",
    "A wave comes in.",
    "The dog shakes its fur.",
    "They walk home.",
]


def with_fourth(text: object) -> list[object]:
    return [*FIVE[:3], text, FIVE[4]]


def test_good_captions_pass_with_their_white_space_made_plain() -> None:
    caption, texts = check_captions("  A dog\r\n\tat the beach. ", [f" {text}\n" for text in FIVE])
    assert caption == "A dog at the beach."
    assert texts == tuple(FIVE)


@pytest.mark.parametrize(
    ("caption", "sub_captions", "status", "reason"),
    [
        (None, FIVE, Status.ERROR, "overall caption is missing"),
        ("", FIVE, Status.ERROR, "overall caption is empty"),
        (3.5, FIVE, Status.ERROR, "no text but float"),
        ("A.", None, Status.ERROR, "missing"),
        ("A.", "five", Status.ERROR, "no list but str"),
        ("A.", {"1": "a"}, Status.ERROR, "no list but dict"),
        ("A.", FIVE[:4], Status.ERROR, "not 4"),
        ("A.", [*FIVE, "More."], Status.ERROR, "not 6"),
        ("A.", with_fourth(None), Status.ERROR, "sub-caption 4 is missing"),
        ("A.", with_fourth(["nested"]), Status.ERROR, "sub-caption 4 is no text but list"),
        ("A.", with_fourth(" \n\t"), Status.ERROR, "sub-caption 4 is empty"),
        ("A.", with_fourth("?!"), Status.ERROR, "sub-caption 4 holds no word"),
        ("A.", with_fourth("\u200b\u2060"), Status.ERROR, "sub-caption 4 holds no word"),
        ("A.", with_fourth("a\x00b"), Status.ERROR, "U+0000"),
        ("A.", with_fourth("a\x1b[31mb"), Status.ERROR, "U+001B"),
        ("A.", with_fourth("a\ud800b"), Status.ERROR, "U+D800"),
        ("A.", with_fourth("A cat " * 1000), Status.ERROR, "limit of 2000"),
        ("A" * (MAX_CAPTION + 1), FIVE, Status.ERROR, "limit of 4000"),
        ("A.", with_fourth("Then the dog..."), Status.TRUNCATED, "cut off"),
        ("A.", with_fourth("Then the dog…  "), Status.TRUNCATED, "cut off"),
        ("It begins [Truncated]", FIVE, Status.TRUNCATED, "overall caption was cut off"),
        ("A.", with_fourth("Then the d\N{REPLACEMENT CHARACTER}"), Status.TRUNCATED, "cut off"),
        ("A.", with_fourth(FIVE[1]), Status.DUPLICATE, "sub-captions 2 and 4"),
        ("A.", with_fourth("it stops, at the WATER!"), Status.DUPLICATE, "sub-captions 2 and 4"),
    ],
)
def test_a_bad_answer_ends_in_its_status(caption: object, sub_captions: object, status: Status, reason: str) -> None:
    with pytest.raises(CaptionError, match=reason.replace("+", r"\+")) as caught:
        check_captions(caption, sub_captions)
    assert caught.value.status == status


def test_a_text_of_the_longest_length_passes() -> None:
    assert len(check_text("a" * MAX_SUB_CAPTION, "it", MAX_SUB_CAPTION)) == MAX_SUB_CAPTION


def test_texts_in_other_scripts_that_differ_in_a_vowel_sign_are_two_texts() -> None:
    assert normalised("दो") != normalised("दी")
    assert normalised("Straße") == normalised("STRASSE!")


@given(st.text(max_size=80))
def test_what_passes_can_be_stored_and_passes_again(text: str) -> None:
    try:
        cleaned = check_text(text, "it", 60)
    except CaptionError:
        return
    assert cleaned.encode("utf-8")
    assert cleaned.isprintable() or any(not c.isprintable() for c in text)
    assert not {"\x00", "\n", "\t"} & set(cleaned)
    assert check_text(cleaned, "it", 60) == cleaned


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_anything_at_all_is_either_five_captions_or_a_caption_error(value: object) -> None:
    try:
        caption, texts = check_captions(value, value)
    except CaptionError:
        return
    assert caption
    assert len(texts) == 5
