"""The method `stepwise`, eleven questions a clip: a caption per keyframe, one of the whole clip, then a causal refinement.
Sub-caption i is written seeing the overall caption and sub-captions 1 to i−1, so that the five tell one story. Where two
neighbours come out more alike than the strictest gate allows, the rest of the story is told once more, asked for more
difference; the gate decides what becomes of it. After Presto (arXiv 2412.01316, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

from longtake.captioning.answers import Wanted
from longtake.captioning.asking import Asker
from longtake.captioning.checks import MAX_CAPTION, MAX_SUB_CAPTION, SUB_CAPTIONS
from longtake.captioning.story import Story, Told, numbered, together

VERSION = "progressive/1"  # Captions of this method have had this name from the start.
QUESTIONS = 11  # Requests for a clip if every answer can be used.


async def tell(asker: Asker, story: Story) -> Told:
    """The captions of a clip."""
    keyframes = await together(_describe(asker, story, i) for i in range(SUB_CAPTIONS))
    overall = await _overall(asker, story, keyframes)
    subs = await _refine(asker, story, overall, keyframes, [])
    if again := await asker.too_much_alike(subs):
        parts, before = again
        other = await _refine(asker, story, overall, keyframes, subs[: parts[0]], rejected=subs)
        after = await asker.too_much_alike(other)
        if after is None or after[1] < before:
            subs = other
    return Told(overall, tuple(subs))


async def _describe(asker: Asker, story: Story, i: int) -> str:
    low, high = asker.settings.band
    prompt = asker.prompts.fill(
        "describe", number=i + 1, seconds=story.seconds, camera=story.hint(i), low=low, high=high
    )
    name = f"keyframe {i + 1}"
    wanted = Wanted("caption", name, asker.settings.band, MAX_SUB_CAPTION)
    answers = await asker.ask(story, asker.describer, name, prompt, (story.clip.encoded_keyframes[i],), [wanted])
    return answers["caption"]


async def _overall(asker: Asker, story: Story, keyframes: Sequence[str]) -> str:
    low, high = asker.settings.caption_words
    prompt = asker.prompts.fill(
        "overall",
        seconds=story.seconds,
        camera="; ".join(f"{i + 1}. {story.hint(i)}" for i in range(SUB_CAPTIONS)),
        keyframes=numbered(keyframes),
        low=low,
        high=high,
    )
    name = "the overall caption"
    wanted = Wanted("caption", name, asker.settings.caption_words, MAX_CAPTION)
    answers = await asker.ask(story, asker.describer, name, prompt, tuple(story.clip.encoded_keyframes), [wanted])
    return answers["caption"]


async def _refine(
    asker: Asker,
    story: Story,
    overall: str,
    keyframes: Sequence[str],
    told: Sequence[str],
    rejected: Sequence[str] | None = None,
) -> list[str]:
    """All five sub-captions, of which the first are `told`. rejected: how the story was told before."""
    subs = list(told)
    low, high = asker.settings.band
    for i in range(len(told), SUB_CAPTIONS):
        prompt = asker.prompts.fill(
            "refine",
            number=i + 1,
            seconds=story.seconds,
            camera=story.hint(i),
            overall=overall,
            earlier=numbered(subs) or "(none yet)",
            keyframe=keyframes[i],
            low=low,
            high=high,
        )
        name = f"sub-caption {i + 1}"
        if rejected is not None:
            prompt += "\n\n" + asker.prompts.fill("differ", rejected=rejected[i])
            name += ", told anew"
        wanted = Wanted("caption", name, asker.settings.band, MAX_SUB_CAPTION)
        answers = await asker.ask(story, asker.refiner, name, prompt, (), [wanted])
        subs.append(answers["caption"])
    return subs
