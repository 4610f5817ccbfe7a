"""The questions that ship: what a vision-language model is asked about the five keyframes of a clip.

A yes/no question asks for a fault, so that a gate `<= 0` keeps what does not have it. A question with choices has them in the
order of its score: 1 for the first. `content_type` begins with live film of the world, and ends with what is no film at all.
"""

from __future__ import annotations

from dataclasses import dataclass

YES_NO = ("no", "yes")
NOT_SURE = "not sure"


@dataclass(frozen=True, slots=True)
class Question:
    """text: as it is asked. choices: the answers, in the order of their scores; `not sure` is always one more."""

    text: str
    choices: tuple[str, ...] = YES_NO

    @property
    def yes_or_no(self) -> bool:
        return self.choices == YES_NO

    @property
    def answers(self) -> tuple[str, ...]:
        """All that may be answered."""
        return (*self.choices, NOT_SURE)

    def score(self, answer: str) -> float | None:
        """no 0, yes 1; of choices the number, from 1; None: not sure."""
        if answer == NOT_SURE:
            return None
        return float(self.choices.index(answer) + (not self.yes_or_no))

    @property
    def least(self) -> float:
        """The lowest score that there is."""
        return 0.0 if self.yes_or_no else 1.0


def class_name(name: str) -> str:
    """What the filter that asks a question is called as a class."""
    return name.title().replace("_", "")


CONTENT_TYPES = (
    "nature or landscape", "animals", "city or street", "people in daily life", "work or craft", "travel", "sport or dance",
    "cooking or food", "vehicles or traffic", "aerial view", "underwater", "film or series", "documentary", "interview or talk",
    "music performance", "news", "advertisement", "fashion or beauty", "lesson or demonstration", "science or medicine",
    "military or police", "animation", "video game", "screen recording", "slides or still pictures", "abstract or test pattern",
)  # fmt: skip

QUESTIONS: dict[str, Question] = {
    "slideshow": Question("Are these still pictures shown one after the other, rather than moving film?"),
    "rendered": Question(
        "Was this drawn, animated, rendered by a computer or made by a generator, rather than filmed?"
    ),
    "strong_filter": Question(
        "Have the colours or the picture been changed strongly by an effect, such as a tint, a vignette, grain or a glow?"
    ),
    "added_text": Question(
        "Did an editor lay text or graphics over the picture, such as subtitles, titles, a ticker or stickers? Signs and labels "
        "within the scene do not count."
    ),
    "split_screen": Question("Does the frame hold several pictures, side by side or one within another?"),
    "watermark": Question("Is there a logo, a name or another mark of a maker or a channel laid over the picture?"),
    "photographic_defect": Question(
        "Does the camera work have a plain fault: out of focus, burnt out, far too dark, a dirty lens, or a finger before it?"
    ),
    "wrong_way_up": Question("Is the picture turned on its side or upside down?"),
    "low_quality": Question("Is the technical quality low: blocks, smears, heavy noise, or a small picture blown up?"),
    "blurred_region": Question("Is a part of the picture made unreadable on purpose, by blur, blocks or a bar?"),
    "shaking_camera": Question("Does the camera shake or jerk, so that it disturbs?"),
    "changed_speed": Question("Does it play faster or slower than life: time-lapse, fast or slow motion?"),
    "unsafe": Question("Does it show sex, nudity, gore, cruelty, or anything else that is not fit to be seen at work?"),
    "content_type": Question("What kind of content is it?", CONTENT_TYPES),
}
