"""Questions: what a vision-language model answers about the five keyframes of a clip.

Each question is a filter with a gate of its own, and all questions of a recipe that a clip lacks an answer to go into one
request, after every other filter of the stage has left the clip in. The model is that of the recipe's captioner
(docs/captioning.md). These ship: slideshow, rendered, strong_filter, added_text, split_screen, watermark, photographic_defect,
wrong_way_up, low_quality, blurred_region, shaking_camera, changed_speed, unsafe, content_type. Any other name with `backend: ask`
and a `question` is a question of your own.

Formula: none; the answer is the model's, at temperature 0. Unit: 0 for no and 1 for yes, so that a gate is `slideshow: '<= 0'`;
of a question with choices the number of the choice, from 1.
An answer of `not sure` is a score that cannot be known: the gate stays undecided, and `longtake stats --json` counts it apart.
Detail: the score, or the lowest that there is where it is not known. Source: the questions are this project's own.
Protocol: `ask/openai:MODEL,asked@…,1,question@…/mean`: the model, a hash of the prompt around the questions, one of the question
and its choices. What else is asked in the same request is not in it.
Cost: one request a clip, five pictures and some 45 prompt tokens a question.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from longtake.filters.base import Filter, FilterSettings, FilterUnavailable, MeasureError, Needs, Score
from longtake.filters.questions import QUESTIONS, YES_NO, Question, class_name


class AskSettings(FilterSettings):
    """What is asked."""

    question: str | None = Field(
        None, min_length=1, max_length=1000, description="the question in your own words; null: the one that ships"
    )
    choices: tuple[str, ...] | None = Field(
        None, description="answers to choose from, in the order of their scores; null: no and yes, or those that ship"
    )

    @field_validator("choices", mode="before")
    @classmethod
    def _plain(cls, choices: Any) -> Any:
        if choices is None:
            return None
        given = list(choices) if isinstance(choices, list | tuple) else []
        if any(isinstance(choice, bool) for choice in given):
            raise ValueError("choices are texts, and YAML takes yes and no for true and false: put them in quotes")
        if not all(isinstance(c, str) and 0 < len(c) <= 100 and c == c.strip().lower() for c in given):
            raise ValueError("choices are texts of 1 to 100 characters in lower case, with no space at their ends")
        if not 2 <= len(given) <= 100 or len(set(given)) != len(given):
            raise ValueError("choices are 2 to 100 different answers")
        return tuple(given)


class Ask(Filter[str | MeasureError]):
    """One question. It is given the answers, which the stage `score` gets from the model."""

    name: ClassVar[str] = ""
    backend: ClassVar[str] = "ask"
    unit: ClassVar[str] = "no 0, yes 1; or the number of the choice"
    needs: ClassVar[Needs] = Needs.FRAMES
    # The highest cost of all filters: each answer is paid for, so questions come last.
    cost: ClassVar[float] = 100_000.0
    asks: ClassVar[bool] = True
    settings_model: ClassVar[type[FilterSettings]] = AskSettings

    settings: AskSettings

    def __init__(self, /, **settings: Any) -> None:
        super().__init__(**settings)
        # Gives the model that is asked and the prompt around the questions; a recipe sets its own.
        self.asked_of: Callable[[], str] = _nobody

    @property
    def question(self) -> Question:
        """What is asked."""
        shipped = QUESTIONS.get(self.name)
        text = self.settings.question or (shipped.text if shipped else "")
        return Question(text, self.settings.choices or (shipped.choices if shipped else YES_NO))

    @property
    def method(self) -> str:
        question = self.question
        digest = hashlib.sha256(json.dumps([question.text, question.answers]).encode()).hexdigest()[:8]
        return f"{self.asked_of()},question@{digest}"

    def measure(self, items: Sequence[str | MeasureError]) -> list[Score | MeasureError]:
        """items: one of the question's answers each, or why there is none."""
        return [item if isinstance(item, MeasureError) else self._of(item) for item in items]

    def _of(self, answer: str) -> Score | MeasureError:
        if answer not in self.question.answers:
            return MeasureError(f"{answer!r} is no answer to it")
        score = self.question.score(answer)
        if score is None:
            return Score(math.nan, (self.question.least,))
        return self.reduced([score])


def _nobody() -> str:
    raise FilterUnavailable("a question needs a captioner that is a vision-language model: captioning.captioner")


def own_question(name: str) -> type[Ask]:
    """The class of the question of this name."""
    shipped = QUESTIONS.get(name)
    about = f"“{shipped.text}”" if shipped else "A question of the recipe's own."
    if shipped and not shipped.yes_or_no:
        about += f" Choices, in the order of their scores: {', '.join(shipped.choices)}."
    unit = "no 0, yes 1" if shipped and shipped.yes_or_no else Ask.unit
    return type(class_name(name), (Ask,), {"name": name, "unit": unit, "__module__": __name__, "__doc__": about})


for _name in QUESTIONS:  # Each question has a class, which the registry finds by its name.
    globals()[class_name(_name)] = own_question(_name)
