"""From what a model says to a text that can be used: nothing in an answer is believed before it was looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from longtake.captioning.chat import ChatAnswer, Finish
from longtake.captioning.checks import CaptionError, Status, check_text

MAX_ANSWER = 65_536  # Characters of an answer that are read: a caption has some hundreds.

_FENCE = "```"  # Markdown's fence, before and behind a block of code.
_REFUSAL = re.compile(
    r"^\W*(i['’]?m (very )?sorry|sorry,|i apologi[sz]e|i (can['’]?t|cannot|can not|am unable|['’]?m unable|won['’]?t)\b"
    r"|i['’]m (not able|unable)|unfortunately, i\b|as an ai\b|i do not feel comfortable|i must decline)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One text that a question asks for.

    key: its name in the answer, so that no count and no order has to be trusted. name: what it is, for errors. band: from and
    to how many words. most: characters. choices: it is one of these. required: without it the answer is of no use. styled: it
    is kept, so that its style counts.
    """

    key: str
    name: str
    band: tuple[int, int]
    most: int
    choices: tuple[str, ...] = ()
    required: bool = True
    styled: bool = True


def schema_of(wanted: Sequence[Wanted]) -> dict[str, Any]:
    """The JSON Schema of an answer that has these texts, in this order."""
    return {
        "type": "object",
        "properties": {
            one.key: {"type": "string", "enum": list(one.choices)} if one.choices else {"type": "string"}
            for one in wanted
        },
        "required": [one.key for one in wanted],
        "additionalProperties": False,
    }


# The schema of a question that asks for one caption.
SCHEMA = schema_of([Wanted("caption", "the caption", (1, 1), 1)])


def read_answer(
    answer: ChatAnswer, name: str, wanted: Sequence[Wanted], settled: Collection[str] = ()
) -> dict[str, str | CaptionError]:
    """What an answer says under each key that is wanted: the text, cleaned, or what is wrong with it. name: of the step, for
    errors. settled: keys of earlier answers, which a model may repeat; they are not read.

    Raises CaptionError if nothing of the answer can be used, with the status that says why: refused, truncated, or error for
    anything else.
    """
    parsed = _object_of(answer, name)
    keys = [one.key for one in wanted]
    parsed = {key: value for key, value in parsed.items() if key not in settled or key in keys}
    if len(keys) == 1 and set(parsed) != set(keys):
        raise CaptionError(f'{name}: the answer must have the one key "{keys[0]}", not the keys {_shown(parsed)}')
    if others := {key: value for key, value in parsed.items() if key not in keys}:
        raise CaptionError(f"{name}: the answer must have the keys {keys}, not the keys {_shown(others)}")
    return {one.key: _read(parsed.get(one.key), one) for one in wanted}


def _shown(keys: Mapping[str, Any]) -> list[str]:
    return sorted(map(str, keys))[:5]


def _read(value: object, one: Wanted) -> str | CaptionError:
    try:
        text = check_text(value, one.name, one.most)
    except CaptionError as error:
        return error
    if one.choices:
        chosen = text.lower().rstrip(".")
        return chosen if chosen in one.choices else CaptionError(f"{one.name} is none of the choices: {text[:80]!r}")
    if _REFUSAL.match(text):
        return CaptionError(f"{one.name}: the model refused: {text[:80]!r}", Status.REFUSED)
    return text


def _object_of(answer: ChatAnswer, name: str) -> dict[str, Any]:
    """The JSON object that an answer is."""
    if answer.finish == Finish.REFUSED:
        raise CaptionError(f"{name}: the model refused", Status.REFUSED)
    if len(answer.text) > MAX_ANSWER:
        raise CaptionError(f"{name}: an answer of {len(answer.text)} characters")
    # Models that write down their reasoning do so before the answer.
    text = answer.text.rpartition("</think>")[2].strip()
    if not text:
        raise CaptionError(
            f"{name}: an empty answer", Status.TRUNCATED if answer.finish == Finish.LENGTH else Status.ERROR
        )
    if text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE):
        # The language stands behind the first fence.
        text = text[len(_FENCE) : -len(_FENCE)].lstrip(ascii_lowercase).strip()
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        if _REFUSAL.match(text):
            raise CaptionError(f"{name}: the model refused: {text[:80]!r}", Status.REFUSED) from None
        if answer.finish == Finish.LENGTH:
            raise CaptionError(f"{name}: the answer was cut off at its token limit", Status.TRUNCATED) from None
        raise CaptionError(f"{name}: the answer is no JSON: {text[:80]!r}") from None
    if not isinstance(parsed, dict):
        raise CaptionError(f"{name}: the answer must be one object, not a {type(parsed).__name__}")
    return parsed
