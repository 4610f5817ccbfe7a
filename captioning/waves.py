"""`vllm`: the progressive method with vLLM in GPU actors of the Ray cluster, through `ray.data.llm`.

A processor of `ray.data.llm` takes a dataset through one model once, and its actors live as long as that. The method's
steps depend on each other, so they go in waves: what all clips of a batch ask at the same time is one dataset, whose
answers wake the clips, which then ask what is next. A batch is therefore large, and waits for its slowest answer only
between waves; an engine is started for each wave, which is why a wave should last many times as long as that. A cluster
that captions all day does better to run `vllm serve` and the captioner `openai`.

This runs on the driver, and whoever runs it gives it `execute`, since Ray is not known here (longtake.curation.running.on_ray).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from longtake.captioning.base import Running
from longtake.captioning.chat import Batched, CaptionerFault, ChatAnswer, ChatFailed, ChatRequest, Finish, media_type
from longtake.captioning.folder import check_folder, content
from longtake.captioning.progressive import Progressive
from longtake.captioning.settings import Settings, WaveSettings

WAVE_SECONDS = 0.5  # Seconds without a new question after which a wave starts: by then all clips wait for an answer.
# Takes the settings of the engine and the rows; gives, as each is done, a row's number and the row that vLLM made of
# it.
Execute = Callable[[dict[str, Any], list[dict[str, Any]]], Iterable[tuple[int, dict[str, Any]]]]


class Vllm(Progressive):
    """The progressive method, its questions put to vLLM engines in the cluster."""

    name: ClassVar[str] = "vllm"
    settings_type: ClassVar[type[Settings]] = WaveSettings

    @classmethod
    def backend(cls, settings: WaveSettings) -> Waves:
        return Waves(settings)

    @property
    def running(self) -> Running:
        assert isinstance(self.describer, Waves)
        return Running(workers=1, batch=self.describer.settings.clips_per_wave, on_driver=True)

    def execute_with(self, execute: Execute) -> None:
        """How datasets are run; before the first clip."""
        for backend in self.backends:
            if isinstance(backend, Waves):
                backend.execute = execute


class Waves(Batched):
    """One model, asked in waves."""

    def __init__(self, settings: WaveSettings) -> None:
        # A wave holds at most five pictures of each of its clips.
        super().__init__(most=5 * settings.clips_per_wave, wait=WAVE_SECONDS)
        self.settings = settings
        self.folder = Path(settings.path)
        self.model = self.folder.name
        self.execute: Execute | None = None

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """The folder's name and what is in it. Raises CaptionerFault where there is no model."""
        return f"vllm:{self.model}@{content(self.folder)}"

    def check(self) -> None:
        """Raises CaptionerFault unless vLLM and the model are here."""
        import importlib.util

        if importlib.util.find_spec("vllm") is None:
            raise CaptionerFault(
                "the captioner vllm needs vLLM, on this machine and on every node: pip install 'longtake[vllm]'"
            )
        check_folder(self.folder)

    def answers(self, requests: list[ChatRequest]) -> Sequence[ChatAnswer | Exception]:
        if self.execute is None:
            raise CaptionerFault("the captioner vllm runs on a Ray cluster: without --engine inline")
        nothing: ChatAnswer | Exception = ChatFailed("vLLM gave no answer", 1)
        results = [nothing] * len(requests)
        rows = [{"number": number, **as_row(request)} for number, request in enumerate(requests)]
        try:
            with self.meter:
                for number, row in self.execute(self._engine(), rows):
                    # Answers come in any order, and each has the number of its question.
                    if 0 <= number < len(requests):
                        results[number] = as_answer(row, requests[number])
        except Exception as error:  # An engine that does not start fails for all clips; answers before it are paid for.
            fault = CaptionerFault(f"vLLM: {error}")
            return [fault if result is nothing else result for result in results]
        return results

    def _engine(self) -> dict[str, Any]:
        """Arguments of `vLLMEngineProcessorConfig`."""
        engine: dict[str, Any] = {
            "model_source": self.settings.path,
            "concurrency": max(1, self.settings.gpus),
            "engine_kwargs": {
                "tensor_parallel_size": self.settings.tensor_parallel,
                "trust_remote_code": False,
                **self.settings.engine,
            },
        }
        if not self.settings.gpus:
            engine["placement_group_config"] = {"bundle_per_worker": {"CPU": 1}}
            # Where a prompt is split, vLLM rewinds the request's random numbers. A CPU's cannot be rewound, and vLLM
            # dies.
            engine["engine_kwargs"].setdefault("enable_chunked_prefill", False)
        return engine


def as_row(request: ChatRequest) -> dict[str, Any]:
    """A request as `ray.data.llm` takes it: OpenAI's messages, and the sampling of vLLM with the schema."""
    content: list[dict[str, Any]] = []
    for image in request.images:
        url = f"data:{media_type(image)};base64,{base64.b64encode(image).decode('ascii')}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    content.append({"type": "text", "text": request.text})
    return {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": request.system}]},
            {"role": "user", "content": content},
        ],
        "sampling_params": {
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
            "structured_outputs": {"json": dict(request.schema)},
        },
    }


def as_answer(row: dict[str, Any], request: ChatRequest) -> ChatAnswer | Exception:
    """What vLLM made of a row, or why it made nothing."""
    if error := row.get("__inference_error__"):
        return ChatFailed(f"vLLM: {str(error)[:200]}", 1)
    text = row.get("generated_text")
    written = int(row.get("num_generated_tokens") or 0)
    if not isinstance(text, str):
        return ChatFailed("vLLM gave no text", 1)
    finish = Finish.LENGTH if written >= request.max_tokens else Finish.STOP
    return ChatAnswer(text, finish, int(row.get("num_input_tokens") or 0), written)
