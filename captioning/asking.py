"""One step of a method: a question is asked until every text that it asks for can be used. Each text of an answer is checked
by itself, and only those that fail are asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from longtake.captioning.answers import Wanted, read_answer, schema_of
from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatBackend, ChatFailed, ChatRequest, Gathered
from longtake.captioning.checks import CaptionError, Status, normalised
from longtake.captioning.journal import Journal
from longtake.captioning.prompting import Prompts
from longtake.captioning.quality import Standards, echoes, style_faults
from longtake.captioning.settings import MethodSettings
from longtake.captioning.story import Story

LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German", "es": "Spanish", "fr": "French", "ja": "Japanese"}

# For the sub-captions of each clip: how alike neighbours are.
Similarities = Gathered[tuple[str, ...], Sequence[float]]
# Takes the texts that are still wanted and what was wrong with them; gives a cheaper prompt and its pictures, or None.
Cheaper = Callable[[Sequence[Wanted], str], tuple[str, tuple[bytes, ...]] | None]


@dataclass
class Asker:
    """Puts questions to the models of a captioner, for any number of clips at once.

    system: the text that every question begins with; nothing: that of the prompts. stop: called with the fault that ends the
    run. journal, similarities, similarity_limit: see `base.Captioner`.
    """

    settings: MethodSettings
    prompts: Prompts
    standards: Standards
    describer: ChatBackend
    refiner: ChatBackend
    stop: Callable[[CaptionerFault], None]
    journal: Journal | None = None
    similarities: Similarities | None = None
    similarity_limit: float | None = None
    system: str = ""
    shown: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.shown = tuple(self.prompts.templates.values())
        self.system = self.system or self.prompts.fill(self.prompts.system, language=self.language)

    @property
    def language(self) -> str:
        """The language of the captions, by its English name where that is known."""
        return LANGUAGES.get(self.settings.language, self.settings.language)

    async def ask(
        self,
        story: Story,
        backend: ChatBackend,
        step: str,
        prompt: str,
        images: tuple[bytes, ...],
        wanted: Sequence[Wanted],
        stays: Mapping[str, str] | None = None,
        cheaper: Cheaper | None = None,
    ) -> dict[str, str]:
        """The texts that are wanted, by their keys; one that is optional may be missing. Asks again for what cannot be used,
        with what was wrong; and once for what could be better. Raises CaptionError.

        step: the name of the step, for its seed and its errors. stays: texts of an earlier answer by their keys, which a
        model that is asked again is shown as good. cheaper: what to ask in place of the whole question with another end,
        where little of its answer is still wanted.
        """
        passed = Passed(self, dict(stays or {}))
        left, asked = list(wanted), (prompt, images)
        for attempt in range(self.settings.tries):
            request = ChatRequest(
                system=self.system,
                text=asked[0],
                images=asked[1],
                schema=schema_of(left),
                seed=story.seed(self.settings.seed, step, attempt),
                temperature=self.settings.temperature,
                max_tokens=self.settings.answer_tokens,
            )
            story.attempts = max(story.attempts, attempt + 1)
            try:
                answer = await self.answered(story, backend, request)
            except ChatFailed as error:
                story.attempts = max(story.attempts, attempt + error.attempts)
                raise CaptionError(f"{step}: {error}", fault=error.fault) from error
            left = passed.take(answer, step, left)
            if not left:
                break
            asked = (cheaper(left, passed.wrong_with(left)) if cheaper else None) or (
                f"{prompt}\n\n{passed.asked_again(left, multiple=len(wanted) > 1)}",
                images,
            )
        return passed.texts(wanted)

    async def answered(self, story: Story, backend: ChatBackend, request: ChatRequest) -> ChatAnswer:
        """The answer to a request: from the journal, or paid for and noted there."""
        key = request.digest(backend.identity)
        answer = story.answers.get(key)
        if answer is None:
            if backend.fault is not None:
                raise backend.fault
            try:
                answer = await backend.answer(request)
                if self.journal is not None:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(None, self.journal.add, story.clip.clip_id, key, answer)
            except CaptionerFault as fault:
                self.stop(fault)
                raise
            story.answers[key] = answer
        story.requests += 1
        story.prompt_tokens += answer.prompt_tokens
        story.completion_tokens += answer.completion_tokens
        story.attempts = max(story.attempts, answer.attempts)
        return answer

    async def too_much_alike(self, subs: Sequence[str]) -> tuple[list[int], float] | None:
        """Which sub-captions are too much like an earlier one, and the greatest likeness of neighbours; None: none is."""
        texts = [normalised(text) for text in subs]
        same = [i for i in range(1, len(texts)) if texts[i] in texts[:i]]
        alike: Sequence[float] = []
        if self.similarities is not None and self.similarity_limit is not None:
            alike = await self.similarities(tuple(subs))
        over = [i + 1 for i, value in enumerate(alike) if value > (self.similarity_limit or 0.0)]
        if not same and not over:
            return None
        return sorted({*same, *over}), 2.0 if same else max(alike)


@dataclass
class Passed:
    """What the answers to one question have brought so far. good: texts that are settled, by their keys; usable: those that
    pass every check but have a fault of style; problems: what is wrong with the others."""

    asker: Asker
    stays: dict[str, str]
    good: dict[str, str] = field(default_factory=dict)
    usable: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    problems: dict[str, CaptionError] = field(default_factory=dict)

    def take(self, answer: ChatAnswer, step: str, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Take in an answer; what is still to be asked for."""
        try:
            answers = read_answer(answer, step, wanted, {*self.stays, *self.good})
        except CaptionError as error:
            self.problems |= {one.key: error for one in wanted}
            return list(wanted)
        left = [one for one in wanted if self._is_open(one, answers.get(one.key))]
        # A text that may be missing is worth no question of its own.
        return left if any(one.required for one in left) else []

    def _is_open(self, one: Wanted, text: str | CaptionError | None) -> bool:
        if isinstance(text, str) and not one.choices and echoes(text, self.asker.shown):
            text = CaptionError(f"{one.name}: it echoes the prompt: {text[:80]!r}")
        if not isinstance(text, str):
            self.problems[one.key] = text or CaptionError(f"{one.name} is missing")
            return True
        self.problems.pop(one.key, None)
        faults = [] if one.choices or not one.styled else style_faults(text, self.asker.standards, one.band)
        if not faults or one.key in self.usable:
            self.good[one.key] = text
            return False
        self.usable[one.key], self.faults[one.key] = text, faults
        return True

    def asked_again(self, left: Sequence[Wanted], *, multiple: bool) -> str:
        """The end of the next question: what is still wanted, and why."""
        if not multiple:
            (one,) = left
            return self.asker.prompts.fill("mend", faults=self._wrong(one.key, multiple=False))
        kept = "\n".join(f"{key}: {text}" for key, text in {**self.stays, **self.good}.items())
        return self.asker.prompts.fill(
            "again",
            kept=kept or "(none yet)",
            keys=", ".join(one.key for one in left),
            faults=self.wrong_with(left),
        )

    def wrong_with(self, left: Sequence[Wanted]) -> str:
        """What was wrong with each of these texts, by their keys."""
        return "; ".join(f"{one.key}: {self._wrong(one.key, multiple=True)}" for one in left)

    def _wrong(self, key: str, *, multiple: bool) -> str:
        if (problem := self.problems.get(key)) is not None:
            return _for_the_model(problem, multiple=multiple)
        return "; ".join(self.faults[key])

    def texts(self, wanted: Sequence[Wanted]) -> dict[str, str]:
        """What can be used. Raises the CaptionError of the first text that is required and that no answer brought."""
        usable = {**self.usable, **self.good}
        for one in wanted:
            if one.required and one.key not in usable:
                raise self.problems.get(one.key) or CaptionError(f"{one.name}: nothing was asked")
        return {one.key: usable[one.key] for one in wanted if one.key in usable}


def _for_the_model(error: CaptionError, *, multiple: bool) -> str:
    # The message never quotes the answer: text that a model wrote must not come back to it as an instruction.
    if error.status == Status.REFUSED:
        return "it did not describe what is given"
    if error.status == Status.TRUNCATED:
        return "it was too long and was cut off"
    if multiple:
        return "it was no text that can be used"
    return 'it was not one JSON object with the single key "caption" and a caption in it'
