"""What backends share: gathering, measuring, keeping answers; and vLLM's waves, on a stand-in for its engine."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longtake.captioning.answers import SCHEMA
from longtake.captioning.chat import CaptionerFault, ChatAnswer, ChatRequest, Finish, Gathered, Meter
from longtake.captioning.checks import Status
from longtake.captioning.journal import Journal
from longtake.captioning.progressive import Flow
from longtake.captioning.registry import make_captioner
from longtake.captioning.waves import Vllm
from longtake.manifests.folder import Folder
from tests.captioning.frames import clip_of
from tests.captioning.server import WORDS, number_in, picture

ASKED = ChatRequest("system", "text", (b"one", b"two"), SCHEMA, 1, 0.5, 100)
ANSWERED = ChatAnswer('{"caption": "é\\n"}', Finish.STOP, 7, 3, 2)


def test_gathered_items_go_together_and_come_back_to_whom_they_belong() -> None:
    batches: list[list[int]] = []

    def squares(numbers: list[int]) -> list[int | Exception]:
        batches.append(numbers)
        time.sleep(0.01)
        return [ValueError(str(n)) if n % 10 == 3 else n * n for n in numbers]

    async def main() -> list[int | BaseException]:
        gathered: Gathered[int, int] = Gathered(squares, most=16, wait=0.01)

        async def one(n: int) -> int:
            await asyncio.sleep(random.random() * 0.05)
            return await gathered(n)

        return await asyncio.gather(*map(one, range(100)), return_exceptions=True)

    for n, result in enumerate(asyncio.run(main())):
        assert str(result) == (str(n) if n % 10 == 3 else str(n * n))
    assert sorted(n for batch in batches for n in batch) == list(range(100))
    assert max(map(len, batches)) <= 16
    assert len(batches) < 50


def test_a_batch_that_breaks_breaks_for_all_of_it_and_the_next_one_goes_on() -> None:
    def breaks(numbers: list[int]) -> list[int | Exception]:
        if 1 in numbers:
            raise ZeroDivisionError("no")
        return list(numbers)

    async def main() -> None:
        gathered: Gathered[int, int] = Gathered(breaks, most=2, wait=0.0)
        found = await asyncio.gather(*map(gathered, range(4)), return_exceptions=True)
        assert [type(f) for f in found] == [ZeroDivisionError, ZeroDivisionError, int, int]

    asyncio.run(main())


def test_the_meter_adds_up_time_in_flight() -> None:
    meter = Meter()
    with meter:
        with meter:
            time.sleep(0.1)
        time.sleep(0.1)
    held = meter.flight_seconds
    assert held >= 0.3
    time.sleep(0.05)
    assert meter.flight_seconds == held


def test_a_request_is_known_by_all_that_it_asks() -> None:
    base = ASKED.digest("m")
    assert base == replace(ASKED).digest("m")
    others = [
        ASKED.digest("n"), *(replace(ASKED, **change).digest("m") for change in (
            {"system": "s"}, {"text": "t"}, {"images": (b"two", b"one")}, {"images": (b"onetwo",)}, {"seed": 2},
            {"temperature": 0.6}, {"max_tokens": 101}, {"schema": {}},
        )),
    ]  # fmt: skip
    assert len({base, *others}) == 10


@pytest.mark.parametrize("local", [True, False])
def test_the_journal_gives_back_what_was_kept(tmp_path: Path, local: bool) -> None:
    journal = Journal(Folder(str(tmp_path) if local else f"memory://{tmp_path.name}"))
    assert journal.read("abcd") == {}
    before: dict[str, ChatAnswer] = {}
    for key in ("one", "two", "three"):
        journal.add("abcd", key, replace(ANSWERED, text=key))
        before[key] = replace(ANSWERED, text=key)
    assert journal.read("abcd") == before
    journal.forget(["abcd", "never seen"])
    assert journal.read("abcd") == {}


def test_a_torn_or_foreign_line_is_no_answer(tmp_path: Path) -> None:
    """As a kill leaves it behind, and as a stranger might write it."""
    journal = Journal(Folder(tmp_path))
    journal.add("abcd", "one", ANSWERED)
    (file,) = tmp_path.rglob("*.jsonl")
    whole = file.read_bytes()
    for rest in (
        whole[: len(whole) // 2],
        b"\x00\xff",
        b"[]\n",
        b'{"key": 5}\n',
        b'{"key": "x", "text": 5, "finish": "stop"}\n',
    ):
        file.write_bytes(whole + rest)
        assert journal.read("abcd") == {"one": ANSWERED}
        journal.add("abcd", "two", ANSWERED)
        assert journal.read("abcd") == {"one": ANSWERED, "two": ANSWERED}


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def engine(settings: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Answers as `ray.data.llm` gives them: in any order, and now and then none, or an error."""
    assert settings["model_source"].endswith("model")
    for row in random.Random(len(rows)).sample(rows, len(rows)):
        system, user = row["messages"]
        assert system["role"] == "system"
        *images, text = user["content"]
        words = row["sampling_params"]
        assert words["structured_outputs"] == {"json": SCHEMA}
        if images:
            import base64

            number = number_in(base64.b64decode(images[0]["image_url"]["url"].partition(",")[2]))
        else:
            number = int(text["text"].partition("What is seen")[2].partition("Clip ")[2].partition(" ")[0])
        if number == 1 and not images:
            yield row["number"], {"__inference_error__": "CUDA went away", "generated_text": ""}
            continue
        if number == 2:
            continue
        rng = random.Random(words["seed"])
        caption = f"Clip {number} has " + " ".join(rng.sample(WORDS, 32)) + "."
        yield row["number"], {
            "__inference_error__": "", "generated_text": json.dumps({"caption": caption}),
            "num_input_tokens": 50, "num_generated_tokens": 40,
        }  # fmt: skip


def model_folder(tmp_path: Path) -> Path:
    """What names a model, without one."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_clips_in_waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtake.captioning.waves.WAVE_SECONDS", 0.3)
    waves: list[int] = []

    def counted(settings: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        waves.append(len(rows))
        return engine(settings, rows)

    captioner = make_captioner("vllm", {"path": str(model_folder(tmp_path)), "method": "stepwise"})
    assert isinstance(captioner, Vllm)
    assert captioner.running.on_driver
    captioner.execute_with(counted)
    clips = [clip_of(f"id{n}", [picture(n, 0)] * 5, [picture(n, 0)] * 5) for n in range(6)]
    results = captioner.caption(clips)
    captioner.close()
    assert [r.status for r in results] == [Status.OK, Status.ERROR, Status.ERROR, Status.OK, Status.OK, Status.OK]
    for number, result in enumerate(results):
        if result.status == Status.OK:
            assert all(f"Clip {number} has" in text for text in [result.caption or "", *(result.sub_captions or ())])
    assert (results[1].reason or "") == "sub-caption 1: vLLM: CUDA went away"
    assert (results[2].reason or "").endswith("vLLM gave no answer")
    assert len(waves) <= 10, "seven steps, and not one wave per clip"
    assert captioner.spent.completion_tokens == 40 * (4 * 11 + 6)


def test_what_a_wave_answered_before_its_engine_died_is_kept(tmp_path: Path) -> None:
    """Waves wait as long as ever: both clips are in the first one, also on a busy machine."""
    asked: list[tuple[int, ...]] = []

    def dies(settings: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        asked.append(tuple(row["sampling_params"]["seed"] for row in rows))
        for n, answer in enumerate(engine(settings, rows)):
            if n == 7 and len(asked) == 1:
                raise RuntimeError("CUDA out of memory")
            yield answer

    path = str(model_folder(tmp_path))
    clips = [clip_of(f"id{n}", [picture(n, 0)] * 5, [picture(n, 0)] * 5) for n in (3, 4)]
    for attempt in range(2):
        captioner = make_captioner("vllm", {"path": path, "method": "stepwise"})
        assert isinstance(captioner, Vllm)
        captioner.journal = Journal(Folder(tmp_path / "answers"))
        captioner.execute_with(dies)
        if attempt == 0:
            with pytest.raises(CaptionerFault, match="vLLM: CUDA out of memory"):
                captioner.caption(clips)
        else:
            assert {result.status for result in captioner.caption(clips)} == {Status.OK}
        captioner.close()
    assert [len(wave) for wave in asked[:2]] == [10, 3]
    assert set(asked[1]) < set(asked[0])


@pytest.mark.parametrize(
    "settings", [{}, {"gpus": 0}, {"gpus": 2, "tensor_parallel": 4, "engine": {"max_model_len": 8192}}]
)
def test_the_engine_is_what_ray_takes(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Ray's own model of the arguments, which knows no others."""
    llm = pytest.importorskip("ray.data.llm")
    captioner = make_captioner("vllm", {"path": str(model_folder(tmp_path)), **settings})
    config = llm.vLLMEngineProcessorConfig(**captioner.describer._engine())  # type: ignore[attr-defined]
    assert config.model_source == str(tmp_path / "model")
    assert config.concurrency == max(1, settings.get("gpus", 1))
    assert config.engine_kwargs["trust_remote_code"] is False
    assert config.engine_kwargs["tensor_parallel_size"] == settings.get("tensor_parallel", 1)
    bundle = (config.placement_group_config or {}).get("bundle_per_worker")
    assert (bundle is None) == (settings.get("gpus") != 0)
    if bundle:
        assert (bundle["CPU"], bundle["GPU"]) == (1, 0)


def test_vllm_that_is_missing_is_said_before_any_work(tmp_path: Path) -> None:
    captioner = make_captioner("vllm", {"path": str(tmp_path)})
    with pytest.raises(CaptionerFault, match=r"needs vLLM, on this machine and on every node|holds no model"):
        captioner.check()


def test_several_batches_that_settle_at_once_do_not_wait_for_each_other() -> None:
    flow = Flow()
    flying = flow.submit(asyncio.sleep(0.5))
    started = threading.Barrier(8)

    def settles() -> None:
        started.wait()
        flow.settle(60)
        ended.append(flying.done())

    ended: list[bool] = []
    threads = [threading.Thread(target=settles, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [True] * 8
    flow.close([])
