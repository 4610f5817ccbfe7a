"""The real vLLM, where it is installed (its build for CPUs will do), with a tiny model that is built here: served over HTTP,
and in actors of a Ray cluster. Minutes: the machine that has vLLM is not the one that runs the suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from longtake.captioning.answers import SCHEMA
from longtake.captioning.base import ClipFrames
from longtake.captioning.chat import ChatAnswer, ChatRequest, Finish
from longtake.captioning.checks import Status
from longtake.captioning.registry import make_captioner
from longtake.captioning.waves import Waves, WaveSettings
from longtake.curation.running.on_ray import Cluster, run_llm
from tests.captioning.frames import clip_of, png
from tests.captioning.server import picture
from tests.captioning.tiny_model import build_model, spoken
from tests.curation.workbench import free_port

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ENGINE = {"enforce_eager": True, "max_model_len": 4096, "max_num_seqs": 16, "dtype": "float32"}


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}.items():
            patch.setenv(name, value)
        yield


def clip(number: int) -> ClipFrames:
    pictures = [picture(number, part) for part in range(5)]
    return clip_of(f"c{number}", pictures, pictures)


@pytest.mark.parametrize("speaks", [True, False])
def test_vllm_serve(tmp_path: Path, speaks: bool) -> None:
    """Pictures arrive; and the schema holds a model of random weights to JSON, which it could not know."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("vllm")), "serve", str(build_model(tmp_path / "model", speaks=speaks)),
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager",
        "--max-model-len", "4096", "--max-num-seqs", "16", "--dtype", "float32", "--no-enable-chunked-prefill",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=dict(os.environ), stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 400
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < end, "vllm serve does not start"
                time.sleep(1)
        captioner = make_captioner(
            "openai",
            {
                "endpoint": f"http://127.0.0.1:{port}/v1",
                "model": "tiny",
                "max_tokens": 200,
                "tries": 2,
                "method": "stepwise",
            },
        )
        captioner.check()
        results = captioner.caption([clip(0), clip(1)])
        captioner.close()
    finally:
        process.terminate()
        process.wait(60)
    for result in results:
        if speaks:
            assert result.status == Status.OK, result.reason
            assert all(map(spoken, [result.caption or "", *(result.sub_captions or ())]))
            assert (result.requests, result.attempts) == (11, 1)
        else:
            assert "no JSON" not in (result.reason or "")
            assert "one key" not in (result.reason or "")
        assert result.completion_tokens > 0


def test_vllm_in_the_cluster(tmp_path: Path) -> None:
    """One wave: questions with one picture, five and none, and one that is too long, which costs itself only."""
    from ray import cluster_resources

    folder = build_model(tmp_path / "model", speaks=True)
    cluster = Cluster(workers=2)
    try:
        assert cluster.workers == 2
        gpus = int(cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        model = Waves(WaveSettings(path=str(folder), gpus=min(1, gpus), engine=ENGINE))
        model.check()
        model.execute = run_llm
        pictures = tuple(png(picture(7, part)) for part in range(5))
        texts = [("What is seen?", pictures[:1]), ("What happens?", pictures), ("Tell it.", ()), ("Long. " * 9000, ())]
        requests = [ChatRequest("Answer.", text, images, SCHEMA, 1, 0.7, 100) for text, images in texts]
        answers = model.answers(requests)
    finally:
        cluster.close()
    for answer in answers[:3]:
        assert isinstance(answer, ChatAnswer), answer
        assert answer.finish == Finish.STOP
        assert spoken(json.loads(answer.text)["caption"].strip())
    counts = [answer.prompt_tokens for answer in answers[:3] if isinstance(answer, ChatAnswer)]
    assert counts[1] - counts[0] > 4 * 16, "sixteen patches of each of four more pictures"
    assert "maximum context length" in str(answers[3])
