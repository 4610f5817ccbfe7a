"""Captions made from measurements: how the camera moves, and how the picture looks and changes.

These sentences are honest about little: they say what was measured on the stored frames, and name no thing, person or
place. They exist so that the whole pipeline runs with nothing downloaded. The first part sets the scene, those after it say what
changes. Neighbours are made to differ: on 20 real clips text similarity is 0.50 to 0.70. But clips are alike by construction,
and the paper's gate is none for such texts; the `embedded` recipe has its own. They rest on the frames alone, and
not on scores, so that a score under a new protocol leaves them valid.

Cost: about 0.12 s of CPU per clip, nearly all of it optical flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from longtake.captioning.base import Captioner, Captions, ClipFrames, check_frames
from longtake.captioning.checks import Status, normalised
from longtake.captioning.looks import (
    Look,
    contrast_word,
    detail_word,
    difference,
    light_word,
    look_at,
    shades,
)
from longtake.captioning.motion import CameraMotion, Move, Pace, camera_motion

# Phrases for what the camera does: as the clip shows it, as it goes on, as it begins. {} stands for the pace.
MOVES: dict[Move, tuple[str, str, str]] = {
    "static": ("holds still", "holding still", "hold still"),
    "pan left": ("pans{} to the left", "panning{} to the left", "pan{} to the left"),
    "pan right": ("pans{} to the right", "panning{} to the right", "pan{} to the right"),
    "tilt up": ("tilts up{}", "tilting up{}", "tilt up{}"),
    "tilt down": ("tilts down{}", "tilting down{}", "tilt down{}"),
    "zoom in": ("zooms in{}", "zooming in{}", "zoom in{}"),
    "zoom out": ("zooms out{}", "zooming out{}", "zoom out{}"),
    "roll left": ("rolls{} to the left", "rolling{} to the left", "roll{} to the left"),
    "roll right": ("rolls{} to the right", "rolling{} to the right", "roll{} to the right"),
}
SEEN, GOES_ON, BEGINS = range(3)
PACES: dict[Pace, str] = {"still": "", "slow": " slowly", "medium": " steadily", "fast": " quickly"}
ORDINALS = ("first", "second", "third", "fourth", "fifth")
# Phrases for a segment in which nothing changes, one for each part of a caption.
RESTS = ("stays where it is", "does not move", "remains at rest", "keeps still", "holds its place")
SAME_VIEW = (
    "the view stays as it was",
    "hardly anything changes",
    "nothing new comes into view",
    "the scene remains the same",
    "the view has not changed",
)
# The same phrases for a moving camera: the picture is then never exactly as it was.
SAME_SCENE = (
    "the scene is as it was",
    "little else changes",
    "the scene stays as it was",
    "the scene remains the same",
)
# Phrases for a view that shifts: first for a camera that shows what was outside of the picture, then for all other
# cameras; and for a view that is another one.
REVEALING = ("pan left", "pan right", "tilt up", "tilt down", "zoom out")
MORE_COMES = (
    "the view moves on",
    "more of the scene comes into view",
    "the view moves on a little",
    "the view shifts a little",
)
SHIFTS = (
    "the picture changes",
    "something in the picture changes",
    "the picture changes a little",
    "a few things change",
)
OTHER_VIEWS = ("the view is another one", "another view comes up", "the view is a different one", "the view changes")

OWN_SHARE = 0.15  # Share of the picture. Movement of its own is mentioned from this share on.
BRIGHTER = 6.0  # Change of L*. A smaller change of brightness is not mentioned.
# Differences in Lab between keyframes: below the first the view stays, above the second it is another one.
SAME, SHIFTED = 5.0, 15.0


@dataclass(frozen=True, slots=True)
class Segment:
    """One of the five segments as it was measured. `before` is the look of the segment before it, if there is one, and `moved`
    how the camera moved there."""

    motion: CameraMotion
    look: Look
    before: Look | None
    moved: CameraMotion | None = None


class Descriptors(Captioner):
    """Plain sentences from the keyframes and their partners; the same frames always give the same sentences."""

    name: ClassVar[str] = "descriptors"

    @property
    def protocol(self) -> str:
        # Raise the number whenever a sentence, a word or a threshold changes in this file, in motion.py or in looks.py,
        # and when longtake.filters.flow_dis gives other vectors.
        return "descriptors/3"

    @property
    def least_requests(self) -> int:
        return 0

    def write_one(self, clip: ClipFrames) -> Captions:
        check_frames(clip)
        segments = measure(clip)
        return Captions(clip.clip_id, Status.OK, caption=overall_caption(segments), sub_captions=sub_captions(segments))


def measure(clip: ClipFrames) -> list[Segment]:
    """The five segments of a clip, in order."""
    looks = [look_at(frame) for frame in clip.keyframes]
    gaps = clip.partner_times - clip.times
    motions = [camera_motion(a, b, float(gap)) for a, b, gap in zip(clip.keyframes, clip.partners, gaps, strict=True)]
    before = [(None, None), *zip(looks, motions, strict=True)]
    return [Segment(motion, look, *seen) for motion, look, seen in zip(motions, looks, before[:-1], strict=True)]


def sub_captions(segments: list[Segment]) -> tuple[str, ...]:
    """One sentence per segment, no two the same."""
    sentences = [sentence(segment, index) for index, segment in enumerate(segments)]
    keys = [normalised(text) for text in sentences]
    return tuple(
        text if keys.count(key) == 1 else f"In the {ORDINALS[index]} part, {text[0].lower()}{text[1:]}"
        for index, (text, key) in enumerate(zip(sentences, keys, strict=True))
    )


def sentence(segment: Segment, index: int) -> str:
    """What a segment shows: the first sets the scene, those after it tell what changes and how the camera goes on, each in a form
    of its own, so that neighbours do not read alike even when they look alike. That the camera's movement cannot be made out is
    said once."""
    look = segment.look
    moves, change, colours = motion_clause(segment, index), change_clause(segment, index), shades(look.main_colours)
    silent = segment.motion.moves[0] == "unclear" and segment.motion.own_motion < OWN_SHARE
    if index % len(ORDINALS) == 0:
        if segment.motion.moves[0] == "unclear":
            return as_sentence(f"{scene(look, colours)}; {moves}")
        mixed = ", parts of which move" if segment.motion.own_motion >= OWN_SHARE else ""
        over = {"static": "on", "zoom in": "on", "zoom out": "from"}.get(segment.motion.moves[-1], "over")
        return as_sentence(f"{moves} {over} {scene(look, colours)}{mixed}")
    fill = f", and {colours} {'fills' if len(look.main_colours) == 1 else 'fill'} the frame" if _quiet(segment) else ""
    end = f"at the end the picture {_end(segment, colours)}"
    if silent:
        rest = f", still mostly in {colours}" if _quiet(segment) else ""
        forms = (change + fill, change + rest, change, end)
    else:
        kind, stirs = segment.motion.moves[0], segment.motion.own_motion >= OWN_SHARE
        link = ", and" if kind == "unclear" or (kind == "static" and stirs) else " while"
        forms = (f"{change}, and {moves}", f"{moves}; {change}{fill}", f"{change}{link} {moves}", f"{end}, and {moves}")
    return as_sentence(forms[index % len(ORDINALS) - 1])


def _end(segment: Segment, colours: str) -> str:
    """How the picture is in the last part: `has darkened and is mostly in dark red`."""
    before, light = segment.before, segment.look.light
    if before is not None and abs(light - before.light) >= BRIGHTER:
        return f"has {'brightened' if light > before.light else 'darkened'} and is mostly in {colours}"
    word = light_word(light)
    return f"is {f'{word}, ' if word else ''}mostly in {colours}"


def scene(look: Look, colours: str = "") -> str:
    """A noun phrase: `a bright, busy scene in brown and tan with strong contrast`."""
    words = [word for word in (light_word(look.light), detail_word(look)) if word]
    article = "an" if words and words[0][0] in "aeiou" else "a"
    contrast = contrast_word(look)
    within = f" in {colours}" if colours else ""
    return f"{article} {', '.join(words)}{' ' if words else ''}scene{within}{f' with {contrast} contrast' if contrast else ''}"


def _quiet(segment: Segment) -> bool:
    """Whether neither light nor colours differ from the segment before."""
    before, look = segment.before, segment.look
    same = before is not None and set(look.main_colours) <= set(before.main_colours)
    return before is not None and same and abs(look.light - before.light) < BRIGHTER


def overall_caption(segments: list[Segment]) -> str:
    """The whole clip in three sentences: the camera, the light and colours, the change."""
    looks = [segment.look for segment in segments]
    return " ".join((_camera_summary(segments), _look_summary(looks), _change_summary(segments)))


def motion_clause(segment: Segment, index: int) -> str:
    """A clause with a subject and a verb: how the camera moves, beside how it moved before."""
    motion, before = segment.motion, segment.moved
    first = motion.moves[0]
    mixed = motion.own_motion >= OWN_SHARE
    if first == "unclear":
        if mixed:
            goes_on = before is not None and before.own_motion >= OWN_SHARE
            return "much of it keeps moving by itself" if goes_on else "much of the scene moves by itself"
        return "no movement of the camera can be made out" if index % 2 == 0 else "how the camera moves cannot be told"
    goes_on = before is not None and before.moves[0] == first
    if first == "static":
        rests = RESTS[index % len(RESTS)]
        was_moving = before is not None and before.moves[0] not in ("static", "unclear")
        clause = f"the camera {rests if goes_on else 'comes to rest' if was_moving else 'holds still'}"
    elif goes_on:
        clause = f"the camera keeps {_moves(motion, GOES_ON)}"
    elif before is not None and before.moves[0] == "static":
        clause = f"the camera begins to {_moves(motion, BEGINS)}"
    elif before is not None and before.moves[0] != "unclear":
        clause = f"the camera now {_moves(motion, SEEN)}"
    else:
        clause = f"the camera {_moves(motion, SEEN)}"
    beside = " though parts of the scene move" if first == "static" else " as parts of the scene move"
    return clause + (beside if mixed and before is not None else "")


def _moves(motion: CameraMotion, form: int) -> str:
    first, *second = motion.moves
    also = f" and {MOVES[second[0]][form].format('')}" if second else ""
    return MOVES[first][form].format(PACES[motion.pace]) + also


def change_clause(segment: Segment, index: int) -> str:
    """How a segment differs from the one before it, as a clause with a subject and a verb."""
    if segment.before is None:
        return "the clip begins"
    before, look = segment.before, segment.look
    changes = []
    if abs(look.light - before.light) >= BRIGHTER:
        changes.append(f"the picture {'brightens' if look.light > before.light else 'darkens'}")
    old, new = before.main_colours[0], look.main_colours[0]
    if new not in before.main_colours and old not in look.main_colours:
        changes.append(f"{old} gives way to {new}")
    elif added := [name for name in look.main_colours if name not in before.main_colours]:
        changes.append(f"{added[0]} comes in")
    if changes:
        return " and ".join(changes)
    changed = difference(before, look)
    if changed < SAME:
        same = SAME_VIEW if segment.motion.moves[0] in ("static", "unclear") else SAME_SCENE
        return same[index % len(same)]
    if changed >= SHIFTED:
        return OTHER_VIEWS[index % len(OTHER_VIEWS)]
    shifts = MORE_COMES if segment.motion.moves[0] in REVEALING else SHIFTS
    return shifts[index % len(shifts)]


def as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _camera_summary(segments: list[Segment]) -> str:
    # A segment whose camera motion is unclear is left out of the story, unless all of them are.
    known = [segment.motion for segment in segments if segment.motion.moves[0] != "unclear"]
    if not known:
        mixed = any(segment.motion.own_motion >= OWN_SHARE for segment in segments)
        return "Much of the scene moves by itself." if mixed else "No movement of the camera can be made out."
    moves = [move for move, _ in groupby(motion.moves[0] for motion in known)]
    seen = [MOVES[move][SEEN].format("") for move in moves]
    if len(moves) > 3 and len(set(moves)) == 2:
        if "static" in moves:
            return f"The camera {seen[moves[0] == 'static']} now and then."
        return f"The camera {seen[0]} and {seen[1]} by turns."
    if len(moves) > 1:
        again = " again" if len(moves) == 3 and moves[0] == moves[2] else ""
        return f"The camera {', then '.join(seen)}{again}."
    paces = {PACES[motion.pace] for motion in known}
    pace = paces.pop() if len(paces) == 1 else ""
    throughout = " throughout" if len(known) == len(segments) else ""
    if 2 * len(known) < len(segments):
        return f"For a part of the shot the camera {MOVES[moves[0]][SEEN].format(pace)}."
    return f"The camera {MOVES[moves[0]][SEEN].format(pace)}{throughout}."


def _look_summary(looks: list[Look]) -> str:
    first, last = light_word(looks[0].light), light_word(looks[-1].light)
    shares: dict[str, float] = {}
    for look in looks:
        for name, share in look.colours:
            shares[name] = shares.get(name, 0.0) + share / len(looks)
    ranked = sorted(shares, key=lambda name: (-shares[name], name))
    main = (ranked[0], *(name for name in ranked[1:3] if shares[name] >= 0.1))
    middle = looks[len(looks) // 2]
    if first and last and first != last:
        return f"The picture goes from {first} to {last}, mostly in {shades(main)}."
    words = " and ".join(word for word in (light_word(middle.light), detail_word(middle)) if word)
    contrast = contrast_word(middle)
    end = f", with {contrast} contrast" if contrast else ""
    return f"The scene is {f'{words}, ' if words else ''}mostly in {shades(main)}{end}."


def _change_summary(segments: list[Segment]) -> str:
    steps = [difference(segment.before, segment.look) for segment in segments if segment.before is not None]
    if max(steps) < SAME:
        return "The view stays much the same from start to end."
    if min(steps) >= SHIFTED:
        return "Each part shows another view."
    total = difference(segments[0].look, segments[-1].look)
    if total < SAME:
        return "The view changes on the way and comes back to where it began."
    return "The view changes little by little." if max(steps) < SHIFTED else "Now and then the view changes."
