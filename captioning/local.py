"""`transformers`: the progressive method with a model in this process, from a local folder, on CPU or GPU.

Requests of all clips that wait are put together by their number of pictures, and generated in batches. The folder's code is
never run, its weights are safetensors, and nothing is fetched. transformers cannot hold a model to a schema, so the answer
is begun for it, up to the first quotation mark; at the next, the key that follows in the schema is put into its mouth; and after
the last it ends. Sampling is seeded per batch: the same requests in the same batches give the same captions.
"""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from longtake.captioning.base import Running
from longtake.captioning.chat import Batched, CaptionerFault, ChatAnswer, ChatRequest, Finish
from longtake.captioning.folder import check_folder, content
from longtake.captioning.progressive import Progressive
from longtake.captioning.settings import LocalSettings, Settings

GATHER_SECONDS = 0.02
CLIP_SECONDS = 60.0  # Seconds of CPU for one clip: eleven answers of a small model.


class Transformers(Progressive):
    """The progressive method, its questions put to an image-text-to-text model of transformers."""

    name: ClassVar[str] = "transformers"
    settings_type: ClassVar[type[Settings]] = LocalSettings

    @classmethod
    def backend(cls, settings: LocalSettings) -> LocalModel:
        return LocalModel(settings)

    @property
    def running(self) -> Running:
        """A worker per GPU, each with enough clips at a time to fill its batches; on CPU, one: it takes all cores."""
        assert isinstance(self.describer, LocalModel)
        gpu = self.describer.settings.device != "cpu"
        at_once = 1 + -(-2 * self.describer.settings.batch_size // Running().batch)
        return Running(workers=None if gpu else 1, at_once=at_once, on_gpu=gpu, clip_seconds=CLIP_SECONDS)


class LocalModel(Batched):
    """One model. Its weights are loaded with the first request."""

    def __init__(self, settings: LocalSettings) -> None:
        super().__init__(most=8 * settings.batch_size, wait=GATHER_SECONDS)
        self.settings = settings
        self.folder = Path(settings.path)
        self.model = self.folder.name
        self._size = settings.batch_size
        self._loading = threading.Lock()

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """The folder's name and what is in it. Raises CaptionerFault where there is no model."""
        return f"transformers:{self.model}@{content(self.folder)}"

    def check(self) -> None:
        """Raises CaptionerFault unless the folder holds a model, and torch and transformers are here."""
        import importlib.util

        for name in ("torch", "transformers", "PIL"):
            if importlib.util.find_spec(name) is None:
                raise CaptionerFault(f"the captioner transformers needs {name}: pip install 'longtake[models]'")
        check_folder(self.folder)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        """The processor, the model and its device."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        wanted = self.settings.device
        # The worker asks, and not the driver, which may have no GPU.
        if wanted == "cuda" and not torch.cuda.is_available():
            raise CaptionerFault("settings.device is cuda, and torch sees no CUDA device on this machine")
        device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
        local = {"local_files_only": True, "trust_remote_code": False}
        dtype = self.settings.dtype
        try:
            processor: Any = AutoProcessor.from_pretrained(str(self.folder), **local)  # type: ignore[no-untyped-call]
            model: Any = AutoModelForImageTextToText.from_pretrained(
                str(self.folder),
                use_safetensors=True,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                **local,
            )
        except (OSError, ValueError, KeyError) as error:
            raise CaptionerFault(f"the model in {self.folder} does not load: {error}") from error
        tokenizer = processor.tokenizer
        # With padding on the right, the model would continue a shorter prompt after its padding.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return processor, model.to(device).eval(), device

    def answers(self, requests: list[ChatRequest]) -> Sequence[ChatAnswer | Exception]:
        """In batches of one number of pictures and one length: then nobody waits for another's tail."""
        groups: dict[tuple[int, int, float, int], list[int]] = defaultdict(list)
        for at, request in enumerate(requests):
            groups[len(request.images), request.max_tokens, request.temperature, len(_keys(request))].append(at)
        results: dict[int, ChatAnswer | Exception] = {}
        for members in groups.values():
            done = 0
            while done < len(members):
                part = members[done : done + self._size]
                try:
                    with self.meter:
                        answers: Sequence[ChatAnswer | Exception] = self._generate([requests[at] for at in part])
                except Exception as error:
                    if _memory_is_full(error) and len(part) > 1:
                        self._size = len(part) // 2
                        continue
                    if fault := _of_the_device(error, requests[part[0]]):
                        return [results.get(at, fault) for at in range(len(requests))]
                    # Among several, one may have spoilt it for the others.
                    answers = [error] if len(part) == 1 else [self.answers([requests[at]])[0] for at in part]
                results |= dict(zip(part, answers, strict=True))
                done += len(part)
        return [results[at] for at in range(len(requests))]

    def _generate(self, requests: list[ChatRequest]) -> list[ChatAnswer]:
        import torch
        from PIL import Image
        from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

        with self._loading:
            processor, model, device = self._loaded
        tokenizer = processor.tokenizer
        prompts, pictures = [], []
        for request in requests:
            content = [{"type": "image"} for _ in request.images] + [{"type": "text", "text": request.text}]
            messages = [
                {"role": "system", "content": [{"type": "text", "text": request.system}]},
                {"role": "user", "content": content},
            ]
            prompts.append(
                processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                + begun(_keys(request)[0])
            )
            pictures.append([Image.open(io.BytesIO(image)).convert("RGB") for image in request.images])
        inputs = processor(
            text=prompts, images=pictures if pictures[0] else None, padding=True, return_tensors="pt"
        ).to(device, dtype=model.dtype)
        start = int(inputs["input_ids"].shape[1])

        forms = [Form(_keys(request), tokenizer, start) for request in requests]

        class Ended(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                last = tokenizer.batch_decode(input_ids[:, -1:])
                ended = [form.take(row, new) for form, row, new in zip(forms, input_ids, last, strict=True)]
                return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

        class Held(LogitsProcessor):
            def __call__(self, input_ids: Any, scores: Any) -> Any:
                for form, row in zip(forms, scores, strict=True):
                    if form.forced:
                        token = form.forced.pop(0)
                        row[:] = -torch.inf
                        row[token] = 0.0
                return scores

        first = requests[0]
        torch.manual_seed(first.seed)
        sampling = {"do_sample": True, "temperature": first.temperature} if first.temperature else {"do_sample": False}
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=first.max_tokens,
                pad_token_id=tokenizer.pad_token_id,
                stopping_criteria=StoppingCriteriaList([Ended()]),
                logits_processor=LogitsProcessorList([Held()]),
                **sampling,
            )
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        answers = []
        for form, row, count in zip(forms, output, asked, strict=True):
            written = int((row[start:] != tokenizer.pad_token_id).sum())
            answers.append(form.answer(row, int(count), written, first.max_tokens))
        return answers


def _keys(request: ChatRequest) -> list[str]:
    return list(request.schema["properties"])


def begun(key: str) -> str:
    """The beginning of an answer, up to where its first text begins."""
    return f'{{"{key}": "'


class Form:
    """One answer, held to its keys: what is a text is the model's, what is between two texts is put there.

    tokens are those of a row, the prompt first. start: where the present text begins. forced: what has to come next. texts: as
    they were written, within JSON's quotation marks.
    """

    def __init__(self, keys: list[str], tokenizer: Any, start: int) -> None:
        self.keys, self.texts, self.forced = keys, list[str](), list[int]()
        self._tokenizer, self._start = tokenizer, start

    def take(self, row: Any, new: str) -> bool:
        """Look at a row with one more token, which reads `new`; whether the answer has ended."""
        if self.forced or '"' not in new or self._start >= len(row):
            return len(self.texts) == len(self.keys)
        text = self._said(row)
        end = _closing(text)
        if end is not None and len(self.texts) < len(self.keys):
            self.texts.append(text[:end])
            if len(self.texts) < len(self.keys):
                between = f', "{self.keys[len(self.texts)]}": "'
                self.forced = list(self._tokenizer.encode(between, add_special_tokens=False))
                self._start = len(row) + len(self.forced)
        return len(self.texts) == len(self.keys)

    def _said(self, row: Any) -> str:
        return str(self._tokenizer.decode(row[self._start :], skip_special_tokens=True))

    def answer(self, row: Any, prompt_tokens: int, completion_tokens: int, limit: int) -> ChatAnswer:
        """What was said, as the JSON that it was to be."""
        finish = Finish.STOP
        if len(self.texts) < len(self.keys):
            if completion_tokens >= limit:
                finish = Finish.LENGTH
            self.texts.append(self._said(row))
        return ChatAnswer(as_json(self.keys, self.texts, finish), finish, prompt_tokens, completion_tokens)


def as_json(keys: list[str], texts: list[str], finish: Finish) -> str:
    """The answer that has these texts; one that was cut off stays so. Texts that are no JSON stay as they are as well."""
    cells = {}
    for key, text in zip(keys, texts, strict=False):
        try:
            cells[key] = json.loads(f'"{text}"', strict=False)
        except ValueError:
            return begun(key) + text
    if finish == Finish.LENGTH:
        return json.dumps(cells)[:-2]
    return json.dumps(cells)


def _closing(text: str) -> int | None:
    """Where the first quotation mark stands that is not escaped."""
    at = 0
    while (at := text.find('"', at)) >= 0:
        escapes = len(text[:at]) - len(text[:at].rstrip("\\"))
        if escapes % 2 == 0:
            return at
        at += 1
    return None


def _of_the_device(error: Exception, request: ChatRequest) -> CaptionerFault | None:
    """The fault that stops the run, where the device cannot answer the next request either; None if the error is that of one
    request."""
    import torch

    pictures = len(request.images)
    if _memory_is_full(error):
        return CaptionerFault(
            f"the device has no memory for one request with {pictures} picture{'s' * (pictures != 1)}: free it, or use "
            "device: cpu or a smaller model"
        )
    if isinstance(error, torch.AcceleratorError):  # After one of these, a process can use its device no more.
        return CaptionerFault(f"the device broke off: {error}; start the run again")
    return None


def _memory_is_full(error: Exception) -> bool:
    """Whether an exception of the model says so: torch has a type for it on CUDA only."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
