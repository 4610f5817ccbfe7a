"""Questions about clips, put to the model of a captioner: all questions about a clip in one request, by the same machinery as
captions, so that pictures, keys, ceilings, the journal and retries are handled in one place.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longtake.captioning.answers import Wanted
from longtake.captioning.asking import Asker
from longtake.captioning.base import ClipFrames
from longtake.captioning.chat import CaptionerFault
from longtake.captioning.checks import CaptionError
from longtake.captioning.progressive import Progressive
from longtake.captioning.prompting import load_prompts
from longtake.captioning.quality import Standards
from longtake.captioning.story import Story

VERSION = 1  # Raise it when the pictures or texts that go with a question change.
LONGEST = 200  # Characters of an answer.


@dataclass(frozen=True)
class Questions:
    """What is asked about one clip. asked: by the name of the question, its text and the answers to choose from."""

    clip: ClipFrames
    asked: Mapping[str, tuple[str, tuple[str, ...]]]


class Questioner:
    """Asks the describing model of a captioner, which keeps its journal, its permission and its meter."""

    def __init__(self, captioner: Progressive) -> None:
        self.captioner = captioner
        self._prompts = load_prompts("longtake", "ask")

    @property
    def identity(self) -> str:
        """The model and the prompt around the questions, for protocols. Raises CaptionerFault where no model is named."""
        digest = hashlib.sha256("\0".join(map(str, self._prompts.templates.values())).encode()).hexdigest()[:8]
        return f"{self.captioner.describer.identity},asked@{digest},{VERSION}"

    def answers(self, batch: Sequence[Questions]) -> list[dict[str, str] | CaptionError]:
        """For each clip, in order, an answer to every question by its name, or why there is none. Raises CaptionerFault if no
        clip can be asked about any more."""
        flow = self.captioner.flow
        futures = [flow.submit(self._ask(questions)) for questions in batch]
        try:
            return [future.result() for future in futures]
        except concurrent.futures.CancelledError:
            raise CaptionerFault("the questions were stopped") from None
        except (CaptionerFault, KeyboardInterrupt):
            self.captioner.settle(flow)
            raise
        finally:
            for future in futures:
                future.cancel()

    async def _ask(self, questions: Questions) -> dict[str, str] | CaptionError:
        captioner = self.captioner
        story = Story(questions.clip)
        if captioner.journal is not None:
            loop = asyncio.get_running_loop()
            story.answers = await loop.run_in_executor(None, captioner.journal.read, questions.clip.clip_id)
        asked = "\n".join(
            f"{name}: {text} One of: {', '.join(answers)}." for name, (text, answers) in questions.asked.items()
        )
        asker = Asker(
            captioner.method.model_copy(update={"temperature": 0.0, "method": "joint"}),
            self._prompts,
            Standards(),
            captioner.describer,
            captioner.describer,
            captioner.stop,
            captioner.journal,
            # The text that is the same for all clips comes first, so that a server that caches prefixes computes it
            # once.
            system=self._prompts.fill("judge", questions=asked),
        )
        prompt = self._prompts.fill("questions", keys=", ".join(questions.asked), seconds=story.seconds)
        wanted = [
            Wanted(name, f"the answer to {name}", (1, 20), LONGEST, answers)
            for name, (_, answers) in questions.asked.items()
        ]
        images = tuple(questions.clip.encoded_keyframes)
        try:
            return await asker.ask(story, captioner.describer, "the questions", prompt, images, wanted)
        except CaptionError as error:
            return error
