"""One prompt to five, by an OpenAI-compatible endpoint (vLLM, SGLang, a vendor): the same kind of model that captions."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request

from longtake.presto.errors import PrestoError

_SYSTEM = (
    "You write prompts for a text-to-video model that makes one continuous shot of 15 seconds. From the user's idea, write "
    "{count} prompts, one for each successive segment of the shot. They tell one story in order, keep subjects and place "
    "consistent, each says what is newly seen and how the camera moves, none repeats another. Answer with a JSON array of "
    "{count} strings and nothing else."
)
_TRIES = 3
_LARGEST = 1 << 20  # bytes of an answer


def expand(prompt: str, count: int, endpoint: str, model: str, timeout: float = 120.0) -> list[str]:
    """`count` prompts out of one. endpoint: base URL, such as http://127.0.0.1:8000/v1; a key comes from the environment
    variable OPENAI_API_KEY. Raises PrestoError: no answer, or none that is `count` different texts."""
    if not endpoint.startswith(("http://", "https://")):
        raise PrestoError(f"the endpoint {endpoint!r} is no http:// or https:// address")
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": _SYSTEM.format(count=count)},
            {"role": "user", "content": prompt},
        ],
    }
    fault = ""
    for _ in range(_TRIES):
        fault, found = _parse(_ask(endpoint.rstrip("/") + "/chat/completions", body, timeout), count)
        if found is not None:
            return found
    raise PrestoError(f"{endpoint} gave no {count} prompts in {_TRIES} tries: {fault}")


def _ask(address: str, body: dict[str, object], timeout: float) -> str:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return str(json.loads(answer.read(_LARGEST))["choices"][0]["message"]["content"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PrestoError(f"{address} did not answer as an OpenAI-compatible endpoint does: {error}") from error


def _parse(text: str, count: int) -> tuple[str, list[str] | None]:
    """(what is wrong, None) or ("", prompts)."""
    first, last = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[first : last + 1])
    except ValueError:
        return "the answer is no JSON array", None
    if not isinstance(found, list) or not all(isinstance(p, str) and p.strip() for p in found):
        return "the answer is no array of texts", None
    prompts = [" ".join(p.split()) for p in found]
    if len(prompts) != count:
        return f"{len(prompts)} prompts", None
    if len({p.lower() for p in prompts}) != count:
        return "a prompt is repeated", None
    return "", prompts
