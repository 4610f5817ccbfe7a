"""Whole captions of clips whose movement and colours are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.captioning.base import Captions, ClipFrames
from longtake.captioning.checks import Status, normalised
from longtake.captioning.descriptors import Descriptors, Segment, motion_clause, overall_caption, sub_captions
from longtake.captioning.looks import COLOURS, look_at
from longtake.captioning.motion import CameraMotion, Move
from longtake.captioning.quality import lead_in, list_marker, speculations
from tests.captioning.frames import TIMES, clip_of
from tests.captioning.test_motion import Image, photo, window


def clip(keyframes: list[Image], partners: list[Image], clip_id: str = "a") -> ClipFrames:
    return clip_of(clip_id, keyframes, partners)


def captioned(frames: ClipFrames) -> Captions:
    (result,) = Descriptors().caption([frames])
    assert result.status == Status.OK, result.reason
    assert result.sub_captions is not None
    assert len({normalised(text) for text in result.sub_captions}) == 5
    return result


def test_each_segment_is_described_by_its_own_movement() -> None:
    picture = photo("astronaut")
    cameras: list[dict[str, float]] = [{"x": 60}, {"x": -60}, {"y": -50}, {"zoom": 1.12}, {}]
    keyframe = window(picture)
    result = captioned(clip([keyframe] * 5, [window(picture, **camera) for camera in cameras]))
    said = [
        "pans steadily to the right",
        "now pans steadily to the left",
        "now tilts up steadily",
        "zooms",
        "comes to rest",
    ]
    assert result.sub_captions is not None
    for text, words in zip(result.sub_captions, said, strict=True):
        assert words in text
    assert (result.caption or "").startswith(
        "The camera pans to the right, then pans to the left, then tilts up, then zooms in, then holds still."
    )


@pytest.mark.parametrize("shape", [(16, 16), (40, 1280)])
def test_a_picture_too_small_for_flow_is_described_without_its_movement(shape: tuple[int, int]) -> None:
    """One side has under 32 px, also if the picture is made small first: the clip was an error of the captioner."""
    pictures = [np.ascontiguousarray(window(photo("coffee"), x=x)[: shape[0], : shape[1]]) for x in range(0, 250, 50)]
    pictures = [np.asarray(np.resize(picture, (*shape, 3)), np.uint8) for picture in pictures]
    result = captioned(clip(pictures, pictures))
    assert not re.search(r"\b(pan|tilt|zoom|roll)s?\b", " ".join(result.sub_captions or ()))


def test_one_movement_throughout_is_said_once() -> None:
    picture = photo("coffee")
    keyframes = [window(picture, x=x) for x in range(-100, 101, 50)]
    partners = [window(picture, x=x + 40) for x in range(-100, 101, 50)]
    result = captioned(clip(keyframes, partners))
    assert (result.caption or "").startswith("The camera pans steadily to the right throughout.")
    first, *others = result.sub_captions or ()
    assert first.startswith("The camera pans steadily to the right over ")
    assert all("keeps panning steadily to the right" in text for text in others)


def test_changes_of_light_and_colour_are_told() -> None:
    rng = np.random.default_rng(0)

    def plain(*rgb: int) -> Image:
        return np.clip(np.array(rgb) + rng.normal(0, 1, (90, 160, 3)), 0, 255).astype(np.uint8)

    frames = [plain(20, 35, 95), plain(35, 85, 210), plain(35, 85, 210), plain(215, 25, 30), plain(110, 20, 25)]
    result = captioned(clip(frames, frames))
    one, two, three, four, five = result.sub_captions or ()
    assert "dark blue" in one
    assert two.startswith("The picture brightens and dark blue gives way to blue")
    assert three == "Nothing new comes into view, still mostly in blue."
    assert four == "Blue gives way to red."
    assert five == "At the end the picture has darkened and is mostly in dark red."


@pytest.mark.parametrize(
    ("moves", "said"),
    [
        (
            ("pan left", "tilt up", "tilt up", "pan left", "pan left"),
            "pans to the left, then tilts up, then pans to the left again",
        ),
        (("pan left", "tilt up", "pan left", "tilt up", "pan left"), "pans to the left and tilts up by turns"),
        (("static", "static", "zoom in", "zoom in", "static"), "holds still, then zooms in, then holds still again"),
        (("static", "tilt up", "static", "tilt up", "static"), "tilts up now and then"),
        (("tilt up", "static", "tilt up", "static", "static"), "tilts up now and then"),
        (("zoom in", "unclear", "zoom in", "zoom in", "zoom in"), "zooms in slowly"),
    ],
)
def test_the_camera_over_the_whole_clip_as_a_person_tells_it(moves: tuple[Move, ...], said: str) -> None:
    motions = [CameraMotion((move,), 0.0 if move in ("static", "unclear") else 0.05, 0) for move in moves]
    segments = [Segment(motion, LOOKS[0], LOOKS[0]) for motion in motions]
    assert overall_caption(segments).startswith(f"The camera {said}.")


def test_what_the_camera_does_in_one_part_of_five_is_not_said_of_the_whole() -> None:
    motions = [CameraMotion(("unclear",), 0.0, 0.4)] * 4 + [CameraMotion(("tilt up",), 0.05, 0)]
    segments = [Segment(motion, LOOKS[0], LOOKS[0]) for motion in motions]
    assert overall_caption(segments).startswith("For a part of the shot the camera tilts up slowly.")


def test_that_no_movement_can_be_made_out_is_said_once() -> None:
    unclear = CameraMotion(("unclear",), 0.0, 0.0)
    segments = [Segment(unclear, LOOKS[0], LOOKS[0] if i else None, unclear if i else None) for i in range(5)]
    first, *others = sub_captions(segments)
    assert "no movement of the camera can be made out" in first
    assert not [text for text in others if "camera" in text]


def test_a_black_clip_is_captioned_and_claims_no_movement() -> None:
    black = np.zeros((90, 160, 3), np.uint8)
    result = captioned(clip([black] * 5, [black] * 5))
    assert result.caption == (
        "No movement of the camera can be made out. The scene is very dark and plain, mostly in black, with low contrast. "
        "The view stays much the same from start to end."
    )


def test_the_same_frames_always_give_the_same_words_in_any_batch() -> None:
    clips = []
    for name in ("astronaut", "coffee", "chelsea"):
        picture = photo(name)
        clips.append(clip([window(picture)] * 5, [window(picture, x=30)] * 5, name))
    alone = {one.clip_id: captioned(one) for one in clips}
    for order in ([2, 0, 1], [1, 2, 0]):
        batch = [clips[i] for i in order]
        assert Descriptors().caption(batch) == [alone[one.clip_id] for one in batch]


def test_frames_that_cannot_be_measured_are_an_error_for_their_clip_only() -> None:
    good, picture = window(photo("coffee")), window(photo("coffee"))
    other = picture[: len(picture) // 2]
    late = clip_of("late", [good] * 5, [picture] * 5, partner_times=TIMES)
    results = Descriptors().caption(
        [late, clip([good] * 5, [other] * 5, "other"), clip([good] * 5, [good] * 5, "good")]
    )
    assert [result.status for result in results] == [Status.ERROR, Status.ERROR, Status.OK]
    assert "each partner must follow its keyframe" in (results[0].reason or "")


MOVING: tuple[Move, ...] = ("pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll left")
MOTIONS = st.one_of(
    st.builds(CameraMotion, st.sampled_from([("static",), ("unclear",)]), st.just(0.0), st.floats(0, 1)),
    st.builds(
        CameraMotion,
        st.lists(st.sampled_from(MOVING), min_size=1, max_size=2, unique=True).map(tuple),
        st.floats(0.02, 2),
        st.floats(0, 1),
    ),
)
LOOKS = [look_at(np.broadcast_to(np.array(rgb, np.uint8), (9, 16, 3))) for _, rgb in COLOURS]


@given(st.lists(st.tuples(MOTIONS, st.sampled_from(LOOKS)), min_size=5, max_size=5))
@settings(max_examples=200)
def test_any_five_segments_give_five_distinct_well_formed_sentences(
    measured: list[tuple[CameraMotion, object]],
) -> None:
    looks, motions = [look for _, look in measured], [motion for motion, _ in measured]
    segments = [
        Segment(motion, look, *before)  # type: ignore[arg-type]
        for (motion, look), before in zip(measured, [(None, None), *zip(looks, motions, strict=True)][:-1], strict=True)
    ]
    texts = sub_captions(segments)
    assert len({normalised(text) for text in texts}) == 5
    for text in (*texts, overall_caption(segments)):
        assert re.fullmatch(r"[A-Z][a-z' ,;.A-Z]*\.", text), text
        assert "  " not in text
        assert not re.search(r"\b(\w+) \1\b|[ ,;]\.|{}", text), text


@pytest.mark.parametrize(
    ("motion", "before", "words"),
    [
        (("pan left",), None, "the camera pans slowly to the left"),
        (("zoom in", "tilt up"), None, "the camera zooms in slowly and tilts up"),
        (("static",), None, "the camera holds still"),
        (("unclear",), None, "no movement of the camera can be made out"),
        (("pan left",), "static", "the camera begins to pan slowly to the left"),
        (("pan left", "tilt up"), "pan left", "the camera keeps panning slowly to the left and tilting up"),
        (("pan left",), "pan right", "the camera now pans slowly to the left"),
        (("static",), "pan right", "the camera comes to rest"),
        (("static",), "static", "the camera stays where it is"),
    ],
)
def test_movement_in_words(motion: tuple[Move, ...], before: Move | None, words: str) -> None:
    moved = None if before is None else CameraMotion((before,), 0.05, 0)
    speed = 0.0 if motion[0] in ("static", "unclear") else 0.05
    segment = Segment(CameraMotion(motion, speed, 0), LOOKS[0], None if before is None else LOOKS[0], moved)
    assert motion_clause(segment, 0) == words


def test_what_moves_by_itself_is_told() -> None:
    mixed = CameraMotion(("unclear",), 0.3, 0.9)
    assert motion_clause(Segment(mixed, LOOKS[0], None), 0) == "much of the scene moves by itself"
    unclear = CameraMotion(("unclear",), 0.0, 0.0)
    assert motion_clause(Segment(mixed, LOOKS[0], LOOKS[0], unclear), 1) == "much of the scene moves by itself"
    assert motion_clause(Segment(mixed, LOOKS[0], LOOKS[0], mixed), 1) == "much of it keeps moving by itself"
    pan = CameraMotion(("pan left",), 0.05, 0.3)
    assert motion_clause(Segment(pan, LOOKS[0], LOOKS[0], pan), 1).endswith("as parts of the scene move")


def test_no_quality_check_finds_fault_with_its_words() -> None:
    picture = photo("coffee")
    keyframes = [window(picture, x=x) for x in range(-100, 101, 50)]
    for step in (0, 40):
        result = captioned(clip(keyframes, [window(picture, x=x + step) for x in range(-100, 101, 50)]))
        texts = [result.caption or "", *(result.sub_captions or ())]
        assert not any(lead_in(text) or list_marker(text) or speculations(text) for text in texts), texts
