"""A scripted OpenAI-compatible server on loopback: good answers that tell where they belong, or whatever faults a test
wants. It knows clips by their pictures alone, as a real one does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from aiohttp import web

from tests.captioning.counting import PrefixCache
from tests.captioning.frames import Image

WORDS = [
    "harbour", "lantern", "market", "river", "tower", "garden", "bridge", "window", "orchard", "tram", "valley",
    "cottage", "mirror", "staircase", "meadow", "ferry", "statue", "canal", "pavilion", "workshop", "forest",
    "rooftop", "fountain", "corridor", "island", "chapel", "quarry", "stadium", "terrace", "railway", "glacier",
    "desert", "bakery", "library", "lighthouse", "vineyard",
]  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """One request as the server sees it. step: describe, overall or refine, and of the method joint watch or tell; number: of
    the part (0: the whole clip); tag: of the clip; nth: how many requests with this step, number and tag there were before.
    keys: that the answer should have."""

    body: dict[str, Any]
    text: str
    images: list[bytes]
    step: str
    number: int
    tag: str
    nth: int
    headers: dict[str, str]
    keys: tuple[str, ...] = ("caption",)


@dataclass(frozen=True)
class Reply:
    """What the server does. body: as it is, or else a completion with `text`. cut: after so many bytes."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    cut: int | None = None
    finish: str = "stop"
    refusal: str | None = None

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        return json.dumps(
            {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
            }
        ).encode()


def story(ask: Ask) -> str:
    """A caption that no other step of no other clip gets, of a length that passes for one."""
    rng = random.Random(f"{ask.tag}/{ask.step}/{ask.number}/{ask.nth}")
    things = rng.sample(WORDS, 24)
    pairs = ", ".join(f"a {a} beside a {b}" for a, b in zip(things[::2], things[1::2], strict=True))
    return f"Scene {ask.tag}, {ask.step} {ask.number}: {pairs}."


# Texts about the whole clip: a few words, or one of some choices.
FACTS = {
    "subject": "a lantern", "action": "swinging", "place": "a harbour", "light": "dim daylight", "camera": "static",
    "shot_size": "wide shot",
}  # fmt: skip


def told(ask: Ask) -> dict[str, str]:
    """A good answer: under each key what the question about that text alone would be answered by."""
    if ask.step not in ("watch", "tell"):
        return {"caption": story(ask)}
    found = {}
    for key in ask.keys:
        what, _, number = key.partition("_")
        step = {"keyframe": "describe", "part": "refine"}.get(what, "overall")
        text = story(replace(ask, step=step, number=int(number) if number.isdigit() else 0))
        if number in ("short", "long"):
            text = {"short": " ".join(text.split()[:12]) + ".", "long": f"{text} {text[:-1]}, {text}"}[number]
        found[key] = FACTS.get(key, text)
    return found


def good(ask: Ask) -> Reply:
    return Reply(json.dumps(told(ask)))


class Server:
    """Serves `script` until closed. asked: all requests, in order of arrival. flying: how many at once, over time."""

    def __init__(self, script: Callable[[Ask], Reply] = good, models: tuple[str, ...] = ("tiny",)) -> None:
        self.script, self.models = script, models
        self.models_text: str | None = None  # The answer to a question for models, in place of their list.
        self.asked: list[Ask] = []
        self.keys: list[str | None] = []  # Keys that came with the questions for models.
        self.counts: Counter[tuple[str, int, str]] = Counter()
        self.answered: Counter[tuple[str, int, str]] = Counter()
        self.flying: list[tuple[float, int]] = [(time.monotonic(), 0)]
        self.cache = PrefixCache()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.shutdown())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(runner.cleanup())

    async def _list(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization"))
        if self.models_text is not None:
            return web.Response(text=self.models_text, content_type="application/json")
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self._fly(1)
        try:
            ask = self._understood(await request.json(), dict(request.headers))
            self.asked.append(ask)
            reply = self.script(ask)
            if reply.delay:
                await asyncio.sleep(reply.delay)
            body = reply.encoded()
            if reply.cut is not None:
                response = web.StreamResponse(headers={"Content-Length": str(len(body))})
                await response.prepare(request)
                await response.write(body[: reply.cut])
                assert request.transport is not None
                request.transport.abort()
                return response
            if reply.status == 200:
                self.answered[ask.step, ask.number, ask.tag] += 1
            headers = {"Content-Type": "application/json", **reply.headers}
            return web.Response(body=body, status=reply.status, headers=headers)
        finally:
            self._fly(-1)

    def _fly(self, by: int) -> None:
        self.flying.append((time.monotonic(), self.flying[-1][1] + by))

    def _understood(self, body: dict[str, Any], headers: dict[str, str]) -> Ask:
        content = body["messages"][1]["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        texts = [part["text"] for part in content if part["type"] == "text"]
        images = [
            base64.b64decode(p["image_url"]["url"].partition(",")[2]) for p in content if p["type"] == "image_url"
        ]
        (text,) = texts
        keys = keys_of(body, text)
        self.cache.take(body["messages"][0]["content"], images, text)
        ask = asked(keys, text, images)
        step, number, tag = ask.step, ask.number, ask.tag
        nth = self.counts[step, number, tag]
        self.counts[step, number, tag] += 1
        return replace(ask, body=body, nth=nth, headers=headers)


def asked(keys: Iterable[str], text: str, images: list[bytes]) -> Ask:
    """A question by what is in it: the clip by its pictures, or, where there are none, by what was written of them."""
    keys = tuple(keys)
    if keys != ("caption",):
        step, number = ("watch" if images else "tell"), 0
    elif len(images) == 1:
        step, number = "describe", int(re.findall(r"keyframe (\d) of 5", text)[0])
    elif images:
        step, number = "overall", 0
    else:
        step, number = "refine", int(re.findall(r"the caption of part (\d)", text)[0])
    if images:
        tags = sorted({tag_of(image) for image in images})
        assert len(tags) == 1 or not any(tag.startswith("clip") for tag in tags), "pictures of several clips"
        tag = tags[0] if len(tags) == 1 else hashlib.sha256("".join(tags).encode()).hexdigest()[:12]
    else:
        tag = re.findall(r"Scene (\w+),", text.partition("What is seen")[2])[0]
    return Ask({}, text, images, step, number, tag, 0, {}, keys)


def keys_of(body: dict[str, Any], text: str) -> tuple[str, ...]:
    """The keys that an answer should have: from its schema, or from the words where a server takes none."""
    form = body.get("response_format")
    if form is not None:
        return tuple(form["json_schema"]["schema"]["properties"])
    last = text.rpartition("Answer now only with what is missing: ")[2]
    found = re.findall(r"\b(keyframe_\d|part_\d|caption(?:_short|_long)?)\b(?!\")", last)
    return tuple(dict.fromkeys(found)) or ("caption",)


def picture(number: int, part: int) -> Image:
    """A picture with a number in it that survives JPEG: 16 black or white squares, and the part in a corner of its own."""
    grey = np.full((72, 160, 3), 40 + 30 * part, np.uint8)
    for bit in range(16):
        x, y = 20 * (bit % 8), 36 * (bit // 8)
        grey[y + 4 : y + 32, x + 2 : x + 18] = 255 if number >> bit & 1 else 0
    return grey


@lru_cache(4096)  # The same pictures are looked at several times.
def number_in(encoded: bytes) -> int:
    """The number of a `picture`."""
    grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    squares = [grey[36 * (b // 8) + 10 : 36 * (b // 8) + 26, 20 * (b % 8) + 6 : 20 * (b % 8) + 14] for b in range(16)]
    return sum(1 << bit for bit, square in enumerate(squares) if square.mean() > 127)


@lru_cache(4096)
def tag_of(image: bytes) -> str:
    """What the server calls a clip: the number in the picture; of other pictures, their content."""
    grey = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    return f"clip{number_in(image)}" if grey.shape == (72, 160) else hashlib.sha256(image).hexdigest()[:12]
