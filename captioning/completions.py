"""Chat completions as OpenAI-compatible servers take and give them: the body of a request, and what comes back, of which nothing
is believed."""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from longtake.captioning.chat import ChatAnswer, ChatRequest, Finish, media_type

# Stands for a picture in the text of a request; it is random, so that no text contains it.
_MARK = f"@{secrets.token_hex(8)}@"
_SHOWN = 200  # Characters of a server's message that an error quotes.


def encoded(fields: Mapping[str, Any], request: ChatRequest) -> bytes:
    """The body as JSON. The pictures are put in as they are: base64 needs no escaping, and to look for some takes longer
    than all the rest."""
    marks = [f"{_MARK}{i}@" for i in range(len(request.images))]
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": mark}} for mark in marks]
    content.append({"type": "text", "text": request.text})
    # A model without vision may be served by a server that takes a message as plain text only.
    said: Any = content if request.images else request.text
    messages = [{"role": "system", "content": request.system}, {"role": "user", "content": said}]
    rest = json.dumps({**fields, "messages": messages}).encode()
    parts = []
    for mark, image in zip(marks, request.images, strict=True):
        before, _, rest = rest.partition(mark.encode())
        parts += [before, b"data:", media_type(image).encode(), b";base64,", base64.b64encode(image)]
    return b"".join([*parts, rest])


def read_completion(body: bytes) -> ChatAnswer | str:
    """The answer that a body holds, or why it is no completion."""
    try:
        parsed = json.loads(body)
        choice = parsed["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"the answer is no chat completion: {body[:80]!r}"
    if isinstance(text, list):  # Some servers give the text in parts.
        text = "".join(
            part.get("text", "") for part in text if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    finish = Finish.STOP
    if choice.get("finish_reason") == "length":
        finish = Finish.LENGTH
    if (isinstance(refusal, str) and refusal.strip()) or choice.get("finish_reason") == "content_filter":
        finish = Finish.REFUSED
    usage = parsed.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ChatAnswer(
        text if isinstance(text, str) else "",
        finish,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
    )


def status_said(body: bytes) -> int | None:
    """The status of an error that a server sends as a good answer, as OpenRouter does once a provider has begun; None if it is
    none."""
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        code = json.loads(body)["error"]["code"]
        return code if isinstance(code, int) and 400 <= code < 600 else None
    return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def message_of(body: bytes) -> str:
    """What a server says of an error, in one short line."""
    text = body[:4096].decode("utf-8", "replace")
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        answer = json.loads(body)
        inner = answer.get("error", answer)
        said = inner.get("message", inner) if isinstance(inner, dict) else inner
        text = said if isinstance(said, str) else json.dumps(said)
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_SHOWN]).split())


def seconds_of(retry_after: str | None) -> float | None:
    """`Retry-After`: seconds, or a date."""
    if retry_after is None:
        return None
    with suppress(ValueError):
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return None
