"""From what a model says to a text that can be used: nothing in an answer is believed before it was looked at."""

from __future__ import annotations

import json
import re
from typing import Any

from longtake.captioning.chat import ChatAnswer, Finish
from longtake.captioning.checks import CaptionError, Status, check_text

# Every step of the method asks for one text, so that no count, order or id in an answer has to be trusted.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"caption": {"type": "string"}},
    "required": ["caption"],
    "additionalProperties": False,
}
MAX_ANSWER = 65_536  # characters that are looked at; a caption has some hundreds

_FENCE = re.compile(r"^```[a-z]*\s*(.*?)\s*```$", re.DOTALL)
_REFUSAL = re.compile(
    r"^\W*(i['’]?m (very )?sorry|sorry,|i apologi[sz]e|i (can['’]?t|cannot|can not|am unable|['’]?m unable|won['’]?t)\b"
    r"|i['’]m (not able|unable)|unfortunately, i\b|as an ai\b|i do not feel comfortable|i must decline)",
    re.IGNORECASE,
)


def read_caption(answer: ChatAnswer, name: str, max_chars: int) -> str:
    """The caption in an answer, cleaned. name: of the step, for the error. Raises CaptionError with the status that says
    what is wrong: refused, truncated, or error for anything else."""
    if answer.finish == Finish.REFUSED:
        raise CaptionError(f"{name}: the model refused", Status.REFUSED)
    if len(answer.text) > MAX_ANSWER:
        raise CaptionError(f"{name}: an answer of {len(answer.text)} characters")
    # models that think aloud do so before they answer
    text = answer.text.rpartition("</think>")[2].strip()
    if not text:
        raise CaptionError(
            f"{name}: an empty answer", Status.TRUNCATED if answer.finish == Finish.LENGTH else Status.ERROR
        )
    if fenced := _FENCE.match(text):
        text = fenced[1]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if _REFUSAL.match(text):
            raise CaptionError(f"{name}: the model refused: {text[:80]!r}", Status.REFUSED) from None
        if answer.finish == Finish.LENGTH:
            raise CaptionError(f"{name}: the answer was cut off at its token limit", Status.TRUNCATED) from None
        raise CaptionError(f"{name}: the answer is no JSON: {text[:80]!r}") from None
    if not isinstance(found, dict) or set(found) != {"caption"}:
        what = f"the keys {sorted(map(str, found))[:5]}" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise CaptionError(f'{name}: the answer must have the one key "caption", not {what}')
    caption = check_text(found["caption"], name, max_chars)
    if _REFUSAL.match(caption):
        raise CaptionError(f"{name}: the model refused: {caption[:80]!r}", Status.REFUSED)
    return caption
