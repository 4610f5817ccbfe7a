"""A real vision-language model, tiny and built here: in this process, and behind transformers' own OpenAI-compatible
server. Its weights are random, but for those that make it speak in JSON (see tiny_model)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.captioning.answers import SCHEMA
from longtake.captioning.base import Captions
from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatRequest, Finish
from longtake.captioning.checks import Status
from longtake.captioning.journal import Journal
from longtake.captioning.local import LocalModel, LocalSettings, _closing, as_json
from longtake.captioning.progressive import Progressive
from longtake.captioning.registry import make_captioner
from longtake.manifests.folder import Folder
from tests.captioning.frames import clip_of, flat_clip
from tests.captioning.server import picture
from tests.captioning.tiny_model import build_model, spoken
from tests.curation.workbench import free_port

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

JOINT = {"words": [10, 60], "caption_words": [10, 80]}
SHORT = {**JOINT, "max_tokens": 48, "method": "stepwise"}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "speaker", speaks=True)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but random weights."""
    return build_model(tmp_path_factory.mktemp("models") / "babbler", speaks=False)


def clips(count: int) -> list:  # type: ignore[type-arg]
    return [
        clip_of(f"c{i}", [picture(i, p) for p in range(5)], [picture(i, p) for p in range(5)]) for i in range(count)
    ]


def assert_spoken(results: list[Captions]) -> None:
    for result in results:
        assert result.status == Status.OK, result.reason
        assert result.caption is not None
        assert result.sub_captions is not None
        assert all(map(spoken, [result.caption, *result.sub_captions]))
        assert result.prompt_tokens > 11 * 100
        # The tokens are those of 30 words, their beginning and end, without the text that was begun for the answer.
        assert result.completion_tokens >= 11 * 30
        assert result.requests == 11


def test_in_this_process_in_batches_across_clips(speaker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    generate = LocalModel._generate

    def noted(self: LocalModel, requests: list) -> list[ChatAnswer]:  # type: ignore[type-arg]
        sizes.append((len(requests), len(requests[0].images)))
        assert len({len(request.images) for request in requests}) == 1
        return generate(self, requests)

    monkeypatch.setattr(LocalModel, "_generate", noted)
    captioner = make_captioner("transformers", {"path": str(speaker), "device": "cpu", "batch_size": 8, **SHORT})
    captioner.check()
    results = captioner.caption([*clips(2), flat_clip("dark", partner_times=flat_clip("x").times)])
    captioner.close()
    assert_spoken(results[:2])
    assert results[2].status == Status.ERROR
    assert "partner must follow" in (results[2].reason or "")
    assert sum(count for count, _ in sizes) == 2 * 11
    assert max(count for count, _ in sizes) == 8, "requests of several clips go together"
    assert {images for _, images in sizes} == {0, 1, 5}
    spent = captioner.spent
    assert spent.requests == 22
    assert spent.completion_tokens == sum(result.completion_tokens for result in results)
    assert spent.busy_seconds > 0
    assert results[0].protocol.startswith("progressive/1/transformers:speaker@")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "no memory for one request with 5 pictures"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "no memory"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "the device broke off"),
    ],
)
def test_a_fault_of_the_device_stops_the_run(
    speaker: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """Each clip ended as an error of its own, which is never tried again."""

    def broken(self: LocalModel, requests: list[ChatRequest]) -> list[ChatAnswer]:
        raise error

    monkeypatch.setattr(LocalModel, "_generate", broken)
    captioner = make_captioner("transformers", {"path": str(speaker), "device": "cpu", **JOINT})
    with pytest.raises(CaptionerFault, match=said):
        captioner.caption(clips(3))
    captioner.close()


def test_a_request_that_fails_costs_no_other_one_its_answer(speaker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that went through the model with it were errors."""
    generate = LocalModel._generate

    def odd(self: LocalModel, requests: list[ChatRequest]) -> list[ChatAnswer]:
        if any(request.text == "odd" for request in requests):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return generate(self, requests)

    monkeypatch.setattr(LocalModel, "_generate", odd)
    model = LocalModel(LocalSettings(path=str(speaker), device="cpu"))
    answers = model.answers([ChatRequest("s", text, (), SCHEMA, 1, 0.0, 48) for text in ("one", "odd", "two")])
    assert [type(answer) for answer in answers] == [ChatAnswer, ValueError, ChatAnswer]


def test_greedy_answers_do_not_depend_on_the_batch(speaker: Path) -> None:
    """Padding on the wrong side, or a mask that is not used, would show."""
    model = LocalModel(LocalSettings(path=str(speaker), device="cpu"))
    texts = ["short", "a much longer question " * 20, "one of a middle length"]
    requests = [ChatRequest("s", text, (), SCHEMA, 1, 0.0, 48) for text in texts]
    together = [answer for answer in model.answers(requests) if isinstance(answer, ChatAnswer)]
    alone = [answer for request in requests for answer in model.answers([request]) if isinstance(answer, ChatAnswer)]
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.prompt_tokens for a in together] == [a.prompt_tokens for a in alone]
    assert [a.completion_tokens for a in together] == [a.completion_tokens for a in alone]


def test_random_weights_end_as_errors_and_every_clip_is_accounted_for(babbler: Path) -> None:
    captioner = make_captioner("transformers", {"path": str(babbler), "device": "cpu", "tries": 2, **SHORT})
    results = captioner.caption(clips(1))
    captioner.close()
    assert [result.clip_id for result in results] == ["c0"]
    for result in results:
        assert result.status in (Status.ERROR, Status.TRUNCATED)
        assert result.reason
        assert result.caption is None
        assert result.attempts == 2


def test_another_models_folder_is_another_protocol_and_no_folder_an_error(speaker: Path, babbler: Path) -> None:
    one, other = (make_captioner("transformers", {"path": str(path)}) for path in (speaker, babbler))
    assert one.protocol != other.protocol
    assert one.protocol == make_captioner("transformers", {"path": str(speaker)}).protocol
    with pytest.raises(CaptionerFault, match=r"holds no model: settings.path must be a folder with config.json"):
        make_captioner("transformers", {"path": str(speaker.parent)}).check()


@pytest.fixture(scope="module")
def served(speaker: Path) -> Iterator[str]:
    """`transformers serve`, on loopback."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("openai")
    port = free_port()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = str(Path(sys.executable).with_name("transformers"))
    process = subprocess.Popen(
        [program, "serve", str(speaker), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                    assert response.status == 200
                    break
            except OSError:
                assert process.poll() is None, "transformers serve ended"
                assert time.monotonic() < end, "transformers serve does not start"
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_whole_way_over_http_against_transformers_serve(speaker: Path, served: str) -> None:
    captioner = make_captioner(
        "openai", {"endpoint": served, "model": str(speaker), "concurrency": 4, "request_tries": 2, **SHORT}
    )
    captioner.check()
    results = captioner.caption(clips(1))
    captioner.close()
    assert_spoken(results)
    assert captioner.spent.requests == 11


def test_describer_and_refiner_may_be_different_models(speaker: Path, babbler: Path) -> None:
    settings = {"path": str(speaker), "device": "cpu", "refiner": {"path": str(babbler)}, "tries": 1, **SHORT}
    captioner = make_captioner("transformers", settings)
    assert captioner.model == "speaker + babbler"
    (result,) = captioner.caption(clips(1))
    captioner.close()
    assert result.status == Status.ERROR
    assert result.requests >= 7, "five keyframes, the whole, and a refinement, which fails"
    assert (result.reason or "").startswith("sub-caption")


@pytest.mark.parametrize(
    ("text", "end"), [("", None), ('a"', 1), ("a\\", None), ('a\\"b', None), ('a\\\\"b', 3), ('\\"x"', 3)]
)
def test_where_a_string_ends(text: str, end: int | None) -> None:
    assert _closing(text) == end


def test_an_answer_that_was_begun_is_whole_json_or_cut_off() -> None:
    assert as_json(["caption"], ["A dog."], Finish.STOP) == '{"caption": "A dog."}'
    assert as_json(["caption"], ["A line\nand a tab\t"], Finish.STOP) == '{"caption": "A line\\nand a tab\\t"}'
    assert as_json(["caption"], ["A dog runs"], Finish.LENGTH) == '{"caption": "A dog runs'
    assert as_json(["caption"], ["A dog\\"], Finish.STOP) == '{"caption": "A dog\\'
    assert as_json(["one", "two", "three"], ["A.", "B."], Finish.STOP) == '{"one": "A.", "two": "B."}'


def test_the_joint_method_in_this_process_is_held_to_its_keys(speaker: Path) -> None:
    captioner = make_captioner("transformers", {"path": str(speaker), "device": "cpu", **JOINT})
    results = captioner.caption(clips(2))
    captioner.close()
    for result in results:
        assert result.status == Status.OK, result.reason
        assert all(map(spoken, [result.caption or "", *(result.sub_captions or ())]))
        assert result.requests == 2
        assert result.completion_tokens > 11 * 30


def test_ctrl_c_keeps_what_was_under_way(speaker: Path, tmp_path: Path) -> None:
    """In the main thread, where it is raised while a batch is generated: that is paid for, in time at least."""
    captioner = make_captioner("transformers", {"path": str(speaker), **SHORT})
    assert isinstance(captioner, Progressive)
    captioner.journal = Journal(Folder(tmp_path))
    meter = captioner.describer.meter

    def interrupt() -> None:
        while meter.flight_seconds == 0:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    two = clips(2)
    with pytest.raises(KeyboardInterrupt):
        captioner.caption(two)
    thread.join()
    captioner.close()
    assert meter.requests > 0
    assert sum(len(captioner.journal.read(clip.clip_id)) for clip in two) == meter.requests < 22
