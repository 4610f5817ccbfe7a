"""The checks on how captions read: each against texts of which a person can say what is wrong."""

from __future__ import annotations

import pytest

from longtake.captioning.prompting import load_prompts
from longtake.captioning.quality import (
    Standards,
    camera_agrees,
    camera_claims,
    contradicts,
    count_words,
    echoes,
    language,
    lead_in,
    likeness,
    list_marker,
    measured_quality,
    speculations,
    style_faults,
)

PLAIN = "A woman in a red coat crosses the wet street while a tram passes behind her and its lights colour the puddles."


@pytest.mark.parametrize(
    "text",
    [
        "The video shows a dog.", "This image depicts a street at night.", "In this video, a dog runs.", "Caption: a dog.",
        "Part 2: the dog turns.", "Keyframe 3 - a dog.", "The short clip begins with" .replace("clip", "video"),
        "In the scene, a man waits.", "Sure, here is a caption.", "**The footage captures** a dog", "These frames show a dog.",
    ],
)  # fmt: skip
def test_lead_ins_are_found(text: str) -> None:
    assert lead_in(text)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN, "Framed by two trees, a dog waits.", "A video wall glows behind the singer.", "Party guests dance.",
        "A frame is carried across the yard.".replace("A frame", "A mirror"), "In the square, a man waits.",
        "Scene after scene of the town passes by the train's window.", "The camera pans left over a harbour.",
    ],
)  # fmt: skip
def test_ordinary_beginnings_are_no_lead_ins(text: str) -> None:
    assert not lead_in(text)


def test_list_marks_are_found_and_numbers_are_none() -> None:
    for text in ("1. A dog", "- a dog", "* a dog", "A dog. 2. A cat", "# Dogs", "a **brown** dog", "• dog"):
        assert list_marker(text), text
    for text in (PLAIN, "Bus 42 stops at 3.15 in the rain.", "A well-kept garden – and a dog.", "Number 7 wins."):
        assert not list_marker(text), text


def test_guesses_are_counted() -> None:
    assert speculations(PLAIN) == 0
    assert speculations("He seems tired, perhaps from work; it might rain.") == 3
    assert speculations("She appears to wait. A dog appears.") == 1
    assert speculations("The look suggests joy as if nothing had happened.") == 2
    assert speculations("In May, a mighty seam of likeness") == 1, "a month is a word of guessing to us: only a column"


def test_echoes_of_the_prompts_are_found_in_any_case_and_punctuation() -> None:
    prompts = tuple(load_prompts("longtake", "stepwise").templates.values())
    assert echoes("It tells WHAT is happening now -- what has changed since then.", prompts)
    assert not echoes(PLAIN, prompts)
    assert not echoes("the whole shot", prompts)


def test_words_and_likeness() -> None:
    assert count_words("  a  b\nc ") == 3
    assert likeness("a b c d", "A, b c d!") == 1
    assert likeness("a b c", "d e f") == 0
    assert likeness("a b c", "a b d") == pytest.approx(1 / 3)  # The sequences are ab, bc and bd.


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (PLAIN, "en"),
        (
            "Eine Frau im roten Mantel überquert die nasse Straße, während hinter ihr eine Straßenbahn vorbeifährt.",
            "de",
        ),
        ("Une femme en manteau rouge traverse la rue mouillée pendant qu'un tramway passe derrière elle.", "fr"),
        ("一位穿红色外套的女士走过潮湿的街道，一辆电车从她身后驶过。", "zh"),
    ],
)
def test_languages_are_told_apart(text: str, code: str) -> None:
    assert language([text]) == code


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("The camera pans slowly to the left past a wall.", {"pan left"}),
        ("Panning right, the view opens.", {"pan right"}),
        ("The camera tilts up toward the spire and zooms in on the bell.", {"tilt up", "zoom in"}),
        ("The shot dollies back out of the room.", {"zoom out"}),
        ("The camera pushes in on her face.", {"zoom in"}),
        ("The camera remains static.", {"static"}),
        ("A static shot of a harbour.", {"static"}),
        ("The camera tilts down.", {"tilt down"}),
        ("A man walks to the left and looks up at a still lake.", set()),
        (PLAIN, set()),
    ],
)
def test_named_camera_movements_are_read(text: str, claims: set[str]) -> None:
    assert camera_claims(text) == claims


@pytest.mark.parametrize(
    ("claims", "measured", "wrong"),
    [
        (set(), "pan left (fast)", False),
        ({"pan left"}, "pan left (slow)", False),
        ({"pan right"}, "pan left (slow)", True),
        ({"pan left"}, "pan left and tilt up (medium)", False),
        ({"tilt up", "pan left"}, "pan left and tilt up (medium)", False),
        ({"zoom in"}, "pan left (fast)", True),
        ({"zoom in"}, "pan left (slow)", False),  # A slow pan is too little to be sure.
        ({"static"}, "static", False),
        ({"pan left"}, "static", True),
        ({"static"}, "pan left (medium)", True),
        ({"static"}, "pan left (slow)", False),
        ({"pan right"}, "unclear", False),
    ],
)
def test_claims_against_what_was_measured(claims: set[str], measured: str, wrong: bool) -> None:
    assert contradicts(frozenset(claims), measured) == wrong


@pytest.mark.parametrize(
    ("camera", "measured", "agrees"),
    [
        ("pan left", ["pan left (slow)", "static", "static", "static", "unclear"], True),
        ("pan right", ["pan left and tilt up (slow)"] * 5, False),
        ("tilt up", ["pan left and tilt up (slow)"] * 5, True),
        ("static", ["static"] * 4 + ["pan left (slow)"], True),
        ("static", ["static"] * 4 + ["pan left (fast)"], False),
        ("pan left", ["static"] * 5, False),
        ("several", ["pan left (slow)", "zoom in (fast)", "static", "static", "static"], True),
        ("several", ["pan left (slow)"] * 5, False),
        ("pan left", ["unclear"] * 5, None),
        ("pan left", None, None),
        (None, ["static"] * 5, None),
    ],
)
def test_the_camera_of_a_whole_clip_against_what_was_measured(
    camera: str | None, measured: list[str] | None, agrees: bool | None
) -> None:
    assert camera_agrees(camera, measured) is agrees


def test_every_check_is_a_column() -> None:
    subs = ["The video shows a dog.", "2. A dog", "A dog, perhaps.", "a DOG perhaps", "The camera pans left."]
    found = measured_quality("Ein Hund läuft über die Straße und bellt.", subs, Standards(), (), ["static"] * 5)
    assert found["words"] == [8, 5, 3, 3, 3, 4]
    assert found["outside_band"] == 6
    assert (found["lead_ins"], found["list_markers"], found["speculations"]) == (1, 1, 2)
    assert (found["distinct"], found["most_alike"]) == (4, 1.0)
    assert (found["moves_named"], found["moves_wrong"]) == (1, 1)
    assert measured_quality(PLAIN, [PLAIN] * 5, Standards())["moves_wrong"] is None


def test_faults_are_told_in_words_for_the_model() -> None:
    standards = Standards(words=(8, 30))
    assert style_faults(PLAIN, standards, standards.words) == []
    faults = style_faults("The video shows what might be a dog.", standards, (10, 20))
    assert len(faults) == 3
    assert faults[-1] == "it had 8 words, not 10 to 20"
