"""Captions made from measurements: how the camera moves, and how the picture looks and changes.

These sentences are honest about little: they say what was measured on the stored frames, and name no thing, person or
place. They exist so that the whole pipeline runs with nothing downloaded. They are alike by construction, so the
paper's gate on text similarity does not fit them; the `embedded` recipe has its own. They rest on the frames alone, and
not on scores, so that a score under a new protocol leaves them valid.

Cost: about 0.12 s of CPU per clip, nearly all of it optical flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from longtake.captioning.base import Captioner, Captions, ClipFrames, check_frames
from longtake.captioning.checks import Status, normalised
from longtake.captioning.looks import Look, detail_words, difference, light_word, listed, look_at
from longtake.captioning.motion import CameraMotion, Move, Pace, camera_motion

# What the camera does; {} is where its pace goes.
MOVES: dict[Move, str] = {
    "static": "holds still",
    "pan left": "pans{} to the left",
    "pan right": "pans{} to the right",
    "tilt up": "tilts{} up",
    "tilt down": "tilts{} down",
    "zoom in": "zooms{} in",
    "zoom out": "zooms{} out",
    "roll left": "rolls{} to the left",
    "roll right": "rolls{} to the right",
    "unclear": "cannot be followed",
}
PACES: dict[Pace, str] = {"still": "", "slow": " slowly", "medium": " steadily", "fast": " quickly"}
ORDINALS = ("first", "second", "third", "fourth", "fifth")

OWN_SHARE = 0.15  # share of the picture that moves by itself, from which it is mentioned
BRIGHTER = 6.0  # change of L* that is mentioned
SAME, SHIFTED = 5.0, 15.0  # differences in Lab between keyframes: below, the view stays; above, it is another


@dataclass(frozen=True, slots=True)
class Segment:
    """One of the five segments as it was measured. `before` is the look of the segment before it, if there is one."""

    motion: CameraMotion
    look: Look
    before: Look | None


class Descriptors(Captioner):
    """Plain sentences from the keyframes and their partners; the same frames always give the same sentences."""

    name: ClassVar[str] = "descriptors"

    @property
    def protocol(self) -> str:
        # Raise the number whenever a sentence, a word or a threshold changes, here, in motion.py or in looks.py, and
        # when longtake.filters.flow_dis gives other vectors.
        return "descriptors/1"

    def write_one(self, clip: ClipFrames) -> Captions:
        check_frames(clip)
        segments = measure(clip)
        return Captions(clip.clip_id, Status.OK, caption=overall_caption(segments), sub_captions=sub_captions(segments))


def measure(clip: ClipFrames) -> list[Segment]:
    """The five segments of a clip, in order."""
    looks = [look_at(frame) for frame in clip.keyframes]
    gaps = clip.partner_times - clip.times
    motions = [camera_motion(a, b, float(gap)) for a, b, gap in zip(clip.keyframes, clip.partners, gaps, strict=True)]
    return [
        Segment(motion, look, before) for motion, look, before in zip(motions, looks, [None, *looks[:-1]], strict=True)
    ]


def sub_captions(segments: list[Segment]) -> tuple[str, ...]:
    """One sentence per segment, no two the same."""
    sentences = [sentence(segment, index) for index, segment in enumerate(segments)]
    keys = [normalised(text) for text in sentences]
    return tuple(
        text if keys.count(key) == 1 else f"In the {ORDINALS[index]} part, {text[0].lower()}{text[1:]}"
        for index, (text, key) in enumerate(zip(sentences, keys, strict=True))
    )


def sentence(segment: Segment, index: int) -> str:
    """What a segment shows, in one of five forms, so that neighbours do not read alike even when they look alike."""
    look = segment.look
    moves, light = motion_clause(segment.motion), light_word(look.light)
    colours, detail, change = listed(look.main_colours), detail_words(look), change_clause(segment)
    forms = (
        f"{moves}; the picture is {light}, in {colours}, with {detail}",
        f"{change}, and {moves}; there is {detail} in {colours}",
        f"a {light} picture of {colours} is seen as {moves}, and {change}",
        f"with {detail} in tones of {colours}, {change} while {moves}",
        f"{change} while {moves}; what is seen is {light} and mostly {colours}",
    )
    return as_sentence(forms[index % len(forms)])


def overall_caption(segments: list[Segment]) -> str:
    """The whole clip in three sentences: the camera, the light and colours, the change."""
    looks = [segment.look for segment in segments]
    return " ".join((_camera_summary(segments), _look_summary(looks), _change_summary(segments)))


def motion_clause(motion: CameraMotion) -> str:
    """A clause with a subject and a verb."""
    first, *second = motion.moves
    mixed = motion.own_motion >= OWN_SHARE
    if first == "unclear":
        return "much of the scene moves in its own way" if mixed else "the camera's movement cannot be told"
    clause = f"the camera {MOVES[first].format(PACES[motion.pace])}"
    clause += f" and {MOVES[second[0]].format('')}" if second else ""
    return clause + (" with parts of the scene in motion" if mixed else "")


def change_clause(segment: Segment) -> str:
    """How a segment differs from the one before it, as a clause with a subject and a verb."""
    if segment.before is None:
        return "the clip begins"
    before, look = segment.before, segment.look
    changes = []
    if abs(look.light - before.light) >= BRIGHTER:
        changes.append(f"the picture grows {'brighter' if look.light > before.light else 'darker'}")
    old, new = before.main_colours[0], look.main_colours[0]
    if new not in before.main_colours and old not in look.main_colours:
        changes.append(f"{old} gives way to {new}")
    elif added := [name for name in look.main_colours if name not in before.main_colours]:
        changes.append(f"{added[0]} comes in")
    if changes:
        return " and ".join(changes)
    changed = difference(before, look)
    if changed < SAME:
        return "the view stays much as it was"
    return "the view shifts a little" if changed < SHIFTED else "the view changes greatly"


def as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _camera_summary(segments: list[Segment]) -> str:
    moves = [move for move, _ in groupby(segment.motion.moves[0] for segment in segments)]
    if len(moves) > 1:
        return f"The camera {', then '.join(MOVES[move].format('') for move in moves)}."
    paces = {PACES[segment.motion.pace] for segment in segments}
    pace = paces.pop() if len(paces) == 1 else ""
    return as_sentence(f"throughout, the camera {MOVES[moves[0]].format(pace)}")


def _look_summary(looks: list[Look]) -> str:
    first, last = light_word(looks[0].light), light_word(looks[-1].light)
    shares: dict[str, float] = {}
    for look in looks:
        for name, share in look.colours:
            shares[name] = shares.get(name, 0.0) + share / len(looks)
    ranked = sorted(shares, key=lambda name: (-shares[name], name))
    main = (ranked[0], *(name for name in ranked[1:3] if shares[name] >= 0.1))
    light = f"The picture is {first}" if first == last else f"The picture goes from {first} to {last}"
    return f"{light}, mostly in {listed(main)}, with {detail_words(looks[len(looks) // 2])}."


def _change_summary(segments: list[Segment]) -> str:
    steps = [difference(segment.before, segment.look) for segment in segments if segment.before is not None]
    if max(steps) < SAME:
        return "The view stays much the same from start to end."
    if min(steps) >= SHIFTED:
        return "The view changes greatly from part to part."
    total = difference(segments[0].look, segments[-1].look)
    if total < SAME:
        return "The view changes on the way and comes back to where it began."
    return "The view changes little by little." if max(steps) < SHIFTED else "The view changes greatly at times."
