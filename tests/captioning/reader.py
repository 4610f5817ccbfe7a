"""A captioner that knows a clip by what is in its pictures and by nothing else, and whose model is as unruly as a served one:
answers come late, out of order, spoiled, more than once, or not at all."""

from __future__ import annotations

import asyncio
import json
import random
from typing import ClassVar

from longtake.captioning.chat import ChatAnswer, ChatBackend, ChatFailed, ChatRequest, Finish
from longtake.captioning.progressive import Progressive
from longtake.captioning.settings import Settings
from tests.captioning.server import asked, number_in, told


class Unruly(ChatBackend):
    """Reads the number in each picture. refused: the share of requests that get no answer at all."""

    identity = model = "reader"
    concurrency = 400
    refused: ClassVar[float] = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.dice = random.Random(4)
        self.asked = 0
        self._places: asyncio.Semaphore | None = None

    async def answer(self, request: ChatRequest) -> ChatAnswer:
        self._places = self._places or asyncio.Semaphore(self.concurrency)
        async with self._places:
            self.asked += 1
            await asyncio.sleep(self.dice.random() * self.dice.choice([0.0, 0.01, 0.05]))
            if self.dice.random() < self.refused:
                raise ChatFailed("no answer", 1, "unreachable")
            return ChatAnswer(self._text(request), Finish.STOP, 10, 10)

    def _text(self, request: ChatRequest) -> str:
        ask = asked(request.schema["properties"], request.text, list(request.images))
        if request.images:
            numbers = {number_in(image) for image in request.images}
            assert len(numbers) == 1, "pictures of several clips in one question"
        answer = told(ask)
        chance = self.dice.random()
        if chance < 0.04:
            return "no JSON at all"
        if chance < 0.08:
            return json.dumps({**answer, ask.keys[0]: "A text that breaks off..."})
        if chance < 0.12:
            return json.dumps({key: answer[key] for key in ask.keys[1:]})
        if chance < 0.2:
            return json.dumps({key: answer[key] for key in self.dice.sample(ask.keys, len(ask.keys))})
        return json.dumps(answer)


class Reader(Progressive):
    """The methods over `Unruly`."""

    name: ClassVar[str] = "reader"
    settings_type: ClassVar[type[Settings]] = Settings

    @classmethod
    def backend(cls, settings: Settings) -> ChatBackend:
        return Unruly()
