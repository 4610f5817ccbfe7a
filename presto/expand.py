"""One prompt to five, by an OpenAI-compatible endpoint (vLLM, SGLang, a vendor): the same kind of model that captions, asked
by the captioner's client and under its rules: no redirect is followed, and no answer is read without end."""

from __future__ import annotations

import asyncio
import json
import random
import re

from longtake.captioning.chat import CaptionerFault, ChatFailed, ChatRequest, Finish
from longtake.captioning.endpoint import Endpoint
from longtake.captioning.permission import Permission, PermissionFault, plain_url
from longtake.captioning.settings import EndpointSettings
from longtake.presto.errors import PrestoError

_SYSTEM = (
    "You write prompts for a text-to-video model that makes one silent, continuous shot of 15 seconds. From the user's "
    "idea, write {count} scene descriptions, one for each successive segment of the shot.\n"
    "- Coherent: together they are one continuous story, in order, with the same subjects in the same place.\n"
    "- Independent: each can be understood without the others.\n"
    "- Alike: neighbouring scenes differ little, so that one passes smoothly into the next; none is a copy of another.\n"
    "- Simple: scenes that are easy to generate. To a short idea add a few details, to a long one none, and none that has "
    "nothing to do with it.\n"
    "- Each says what changes: how the camera moves, what moves, what becomes visible. The camera moves smoothly, without "
    "sudden turns or jumps to another side.\n"
    "- Factual and brief: only what can be seen. No atmosphere, no mood, no guesses.\n"
    "- No titles, no numbers, no headings.\n"
    'Answer with JSON: an object whose only key "prompts" holds an array of {count} strings, and nothing else.'
)
_TITLE = re.compile(r"\W*(?:(?:scene|segment|shot|part|prompt)\s*\d+\b|\d+\s*[.:)])", re.IGNORECASE)
_TRIES = 3
_MOST_TOKENS = 4096  # Tokens of an answer: five prompts of some 100 words are a fifth of it.


def expand(prompt: str, count: int, endpoint: str, model: str, timeout: float = 120.0) -> list[str]:
    """`count` prompts out of one. endpoint: base URL, such as http://127.0.0.1:8000/v1, the user's own word; a key comes from
    LONGTAKE_CAPTION_KEY or the file that LONGTAKE_CAPTION_KEY_FILE names. Raises PrestoError: no answer, or none that is
    `count` different texts."""
    try:
        url = plain_url(endpoint)
        # The caller gave the address, so it needs no further permission.
        client = Endpoint(EndpointSettings(endpoint=url, model=model, timeout=timeout, request_tries=_TRIES))
        client.permit(Permission.of_user([url]))
    except (ValueError, PermissionFault) as error:
        raise PrestoError(f"the endpoint {endpoint!r} cannot be asked: {error}") from error
    return asyncio.run(_expand(prompt, count, client))


async def _expand(prompt: str, count: int, client: Endpoint) -> list[str]:
    texts = {"type": "array", "items": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": {"prompts": texts},
        "required": ["prompts"],
        "additionalProperties": False,
    }
    fault = ""
    try:
        for _ in range(_TRIES):
            seed = random.randrange(2**31)
            question = ChatRequest(_SYSTEM.format(count=count), prompt, (), schema, seed, 0.7, _MOST_TOKENS)
            answer = await client.answer(question)
            if answer.finish is Finish.REFUSED:
                fault = "the model refused"
                continue
            fault, prompts = _parse(answer.text, count)
            if prompts is not None:
                return prompts
    except (ChatFailed, CaptionerFault) as error:
        raise PrestoError(f"{client.url} did not answer as an OpenAI-compatible endpoint does: {error}") from error
    finally:
        await client.close()
    raise PrestoError(f"{client.url} gave no {count} prompts in {_TRIES} tries: {fault}")


def _parse(text: str, count: int) -> tuple[str, list[str] | None]:
    """(what is wrong, None) or ("", prompts)."""
    first, last = text.find("["), text.rfind("]")
    try:
        parsed = json.loads(text[first : last + 1])
    except (ValueError, RecursionError):
        return "the answer is no JSON array", None
    if not isinstance(parsed, list) or not all(isinstance(p, str) and p.strip() for p in parsed):
        return "the answer is no array of texts", None
    prompts = [" ".join(p.split()) for p in parsed]
    if len(prompts) != count:
        return f"{len(prompts)} prompts", None
    if any(_TITLE.match(p) for p in prompts):
        return "a prompt begins with a title or a number", None
    if len({p.lower() for p in prompts}) != count:
        return "a prompt is repeated", None
    return "", prompts
