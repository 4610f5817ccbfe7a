"""The method `joint`, two questions a clip, and one more where a check fails. The first shows all five keyframes, and is
answered by a note of each, the overall caption, and what else the recipe asks for. The second is answered by the five
sub-captions, written in order from those notes: in an answer, what comes first cannot depend on what comes after it.

Whatever cannot be used is asked for again by itself: notes of keyframes with the pictures of these keyframes alone, all else at
the end of the same question, so that a server which caches prefixes computes the instructions and the pictures once. For that
the prompts begin with what is the same for all clips, go on with the pictures, and end with what changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from longtake.captioning.answers import Wanted
from longtake.captioning.asking import Asker
from longtake.captioning.checks import MAX_CAPTION, MAX_SUB_CAPTION, SUB_CAPTIONS
from longtake.captioning.story import Story, Told

VERSION = "joint/2"  # Raise it when the steps change, or the pictures and texts that they show to the model.
QUESTIONS = 2  # Requests for a clip if every answer can be used.

NOTE_WORDS = (10, 60)  # Words of the note on a keyframe, which is read by a model only.
# Texts of a few words about the whole clip, kept in columns of these names.
FACTS = ("subject", "action", "place", "light")
FACT_WORDS = (1, 20)
MAX_FACT = 200  # Characters of one text about the whole clip.
# Answers on the camera over the whole clip: the movements that are measured, or that there are several.
CAMERA = (
    "static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll left", "roll right", "several",
)  # fmt: skip
SHOT_SIZES = ("extreme close-up", "close-up", "medium shot", "full shot", "wide shot", "extreme wide shot")


async def tell(asker: Asker, story: Story) -> Told:
    """The captions of a clip."""
    seen = await _watch(asker, story)
    notes = [seen.pop(f"keyframe_{i + 1}") for i in range(SUB_CAPTIONS)]
    caption = seen.pop("caption")
    low, high = asker.settings.band
    prompt = asker.prompts.fill(
        "tell",
        low=low,
        high=high,
        seconds=story.seconds,
        overall=caption,
        notes="\n".join(f"{i + 1}. (camera: {story.hint(i)}) {note}" for i, note in enumerate(notes)),
    )
    wanted = [
        Wanted(f"part_{i + 1}", f"sub-caption {i + 1}", asker.settings.band, MAX_SUB_CAPTION)
        for i in range(SUB_CAPTIONS)
    ]
    answers = await asker.ask(story, asker.refiner, "the sub-captions", prompt, (), wanted)
    subs = tuple(answers[one.key] for one in wanted)
    return Told(caption, await _told_apart(asker, story, prompt, wanted, subs), seen)


async def _watch(asker: Asker, story: Story) -> dict[str, str]:
    settings = asker.settings
    note_low, note_high = NOTE_WORDS
    low, high = settings.caption_words
    lengths = {"short": settings.short_words, "long": settings.long_words}
    more = [
        asker.prompts.fill(name, low=band[0], high=band[1])
        for name, band in lengths.items()
        if name in settings.lengths
    ]
    if settings.facts:
        more.append(asker.prompts.fill("facts", cameras=", ".join(CAMERA), sizes=", ".join(SHOT_SIZES)))
    prompt = asker.prompts.fill(
        "watch",
        note_low=note_low,
        note_high=note_high,
        low=low,
        high=high,
        more="\n".join(more),
        seconds=story.seconds,
        camera="; ".join(f"{i + 1}. {story.hint(i)}" for i in range(SUB_CAPTIONS)),
    )
    wanted = [
        Wanted(f"keyframe_{i + 1}", f"keyframe {i + 1}", NOTE_WORDS, MAX_SUB_CAPTION, styled=False)
        for i in range(SUB_CAPTIONS)
    ]
    wanted.append(Wanted("caption", "the overall caption", settings.caption_words, MAX_CAPTION))
    for name, band in lengths.items():
        if name in settings.lengths:
            wanted.append(Wanted(f"caption_{name}", f"the {name} overall caption", band, MAX_CAPTION))
    if settings.facts:
        wanted += [Wanted(name, f"the {name}", FACT_WORDS, MAX_FACT, required=False) for name in FACTS]
        wanted.append(Wanted("camera", "the camera's movement", FACT_WORDS, MAX_FACT, CAMERA, required=False))
        wanted.append(Wanted("shot_size", "the shot size", FACT_WORDS, MAX_FACT, SHOT_SIZES, required=False))
    images = tuple(story.clip.encoded_keyframes)

    def notes_alone(left: Sequence[Wanted], faults: str) -> tuple[str, tuple[bytes, ...]] | None:
        """A question for notes of some keyframes, which shows no other pictures: a picture is most of what a question costs."""
        parts = [wanted.index(one) for one in left]
        if max(parts) >= SUB_CAPTIONS:
            return None
        keys = ", ".join(one.key for one in left)
        look = asker.prompts.fill("look", keys=keys, note_low=note_low, note_high=note_high, faults=faults)
        return look, tuple(images[i] for i in parts)

    return await asker.ask(story, asker.describer, "the keyframes", prompt, images, wanted, cheaper=notes_alone)


async def _told_apart(
    asker: Asker, story: Story, prompt: str, wanted: list[Wanted], subs: tuple[str, ...]
) -> tuple[str, ...]:
    """`subs`, those that are too much like the one before told once more; the version whose neighbours are less alike."""
    again = await asker.too_much_alike(subs)
    if again is None:
        return subs
    parts, before = again
    stays = {one.key: text for i, (one, text) in enumerate(zip(wanted, subs, strict=True)) if i not in parts}
    anew = asker.prompts.fill(
        "again",
        kept="\n".join(f"{key}: {text}" for key, text in stays.items()),
        keys=", ".join(wanted[i].key for i in parts),
        faults="each of these was too much like the one before it; tell other details of that part, in other words, "
        "with another beginning, and leave out what the one before it already tells",
    )
    answers = await asker.ask(
        story,
        asker.refiner,
        "the sub-captions, told anew",
        f"{prompt}\n\n{anew}",
        (),
        [wanted[i] for i in parts],
        stays,
    )
    other = tuple(answers.get(one.key, text) for one, text in zip(wanted, subs, strict=True))
    after = await asker.too_much_alike(other)
    return other if after is None or after[1] < before else subs
