"""Samples out of the unmodified pipeline, prompts in and out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from longtake.presto.cli import app
from longtake.presto.errors import PrestoError
from longtake.presto.expand import expand
from longtake.presto.model import load_pipeline, load_transformer, save_transformer
from longtake.presto.prepare import Run
from longtake.presto.sample import NEGATIVE, Settings, read_prompts, sample
from longtake.presto.segments import Segmentation
from longtake.presto.text import encode_captions
from longtake.presto.train import fit
from longtake.presto.video import read_video
from tests.presto.made import config, encoded_folder

PROMPTS = ["a red car", "it turns", "rain falls", "a man waves", "night comes"]
SMALL = Settings(frames=24, height=64, width=64, inference_steps=2)
runner = CliRunner()


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with isolated attention, as an export has it; its weights are random."""
    folder = tmp_path_factory.mktemp("trained") / "export"
    pipeline = load_pipeline(model, Segmentation(variant="isolated"))
    pipeline.save_pretrained(folder)
    save_transformer(load_transformer(model, Segmentation(variant="isolated")), folder / "transformer")
    return folder


def invoke(*arguments: object) -> str:
    done = runner.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


# ── sampling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clean", [False, True])
def test_equal_prompts_are_a_sample_of_plain_allegro(model: Path, trained: Path, clean: bool) -> None:
    """Five times the same prompt, as embeddings, against diffusers' own pipeline with one, as text, from the same seed; on
    both of its ways to treat captions."""
    from diffusers import AllegroPipeline

    ours, peer = load_pipeline(trained), AllegroPipeline.from_pretrained(model)
    text = encode_captions(ours.tokenizer, ours.text_encoder, ["A red (car)"], clean=clean)[0]
    negative = encode_captions(ours.tokenizer, ours.text_encoder, [NEGATIVE], clean=clean)[0]
    found = sample(ours, [text] * 5, negative, SMALL)
    assert found.shape == (24, 64, 64, 3)
    peer.set_progress_bar_config(disable=True)
    peer.vae.enable_tiling()
    peer.vae.kernel, peer.vae.stride = (24, 64, 64), (16, 8, 8)
    (frames,) = peer(
        "A red (car)",
        negative_prompt=NEGATIVE,
        num_frames=24,
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=7.0,
        generator=torch.Generator().manual_seed(0),
        clean_caption=clean,
        output_type="np",
    ).frames
    assert np.abs(found.astype(int) - np.rint(frames * 255)).max() <= 1


def test_each_segment_is_sampled_from_its_prompt(trained: Path) -> None:
    """With the text attention alone between frames (self-attention silenced), another last prompt changes the last
    segment's frames only."""
    pipeline = load_pipeline(trained)
    for block in pipeline.transformer.transformer_blocks:
        torch.nn.init.zeros_(block.attn1.to_out[0].weight)
        torch.nn.init.zeros_(block.attn1.to_out[0].bias)
    texts = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [*PROMPTS, "snow", NEGATIVE], clean=True)
    latents = []
    # The latents that are decoded are those that were sampled.
    pipeline.vae.decode = lambda z: latents.append(z) or _Decoded(z)
    for last in (4, 5):
        sample(pipeline, [*texts[:4], texts[last]], texts[6], SMALL)
    same = (latents[0] == latents[1]).all(dim=1).flatten(2).all(dim=2)[0]
    start = Segmentation(variant="isolated").windows(6)[-1].start
    assert same.tolist() == [t < start for t in range(6)]


class _Decoded:
    def __init__(self, latents: torch.Tensor) -> None:
        self.sample = torch.zeros(1, 24, 3, 64, 64)


def test_samples_are_written_with_what_they_were_made_of(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    arguments = ["sample", trained, "-o", out, "--frames", 24, "--height", 64, "--width", 64, "--steps", 2]
    for prompt in PROMPTS:
        arguments += ["-p", prompt]
    invoke(*arguments, "--seed", 1, "--seed", 2)
    assert sorted(p.name for p in out.glob("*.mp4")) == ["0000-seed1.mp4", "0000-seed2.mp4"]
    about = json.loads((out / "0000-seed1.json").read_text())
    assert (about["prompts"], about["seed"], about["guidance"], about["negative"]) == (PROMPTS, 1, 7.0, NEGATIVE)
    with av.open(str(out / "0000-seed1.mp4")) as video:
        assert video.streams.video[0].frames == 24
        assert float(video.streams.video[0].average_rate) == 15
    before = (out / "0000-seed1.mp4").stat().st_mtime_ns
    invoke(*arguments, "--seed", 1)
    assert (out / "0000-seed1.mp4").stat().st_mtime_ns == before  # A sample that exists is not made again.
    other = (read_video(out / f"0000-seed{s}.mp4")[0] for s in (1, 2))
    assert not np.array_equal(*other)


def test_what_cannot_be_sampled_is_said_first(model: Path, trained: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([model, "-p", "one"], "no settings file of segmented attention"),
        ([trained, "-p", "one"], "1 prompts for 5 segments"),
        ([trained, *[x for p in PROMPTS for x in ("-p", p)], "--frames", 30], "24 + 16"),
    ):
        done = runner.invoke(app, ["sample", *map(str, arguments), "-o", str(tmp_path)])
        assert done.exit_code != 0
        assert message in str(done.output) + str(done.exception)


def test_samples_at_intervals_of_a_run(model: Path, tmp_path: Path) -> None:
    data = encoded_folder(tmp_path / "data", model, 4)
    samples = {"every": 2, "prompts": [PROMPTS], "inference_steps": 2}
    for precision in ("float32", "bf16"):
        run = Run(config(steps=2, samples=samples, precision=precision), model, data, tmp_path / precision)
        fit(run)
        frames, _ = read_video(run.output / "samples" / "step-00000002" / "0000.mp4")
        assert frames.shape == (24, 64, 64, 3)


def test_prompts_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\nfour\n")
    (tmp_path / "a.json").write_text('["one", "two"]')
    (tmp_path / "a.yaml").write_text("- [one, two]\n- [three, four]\n")
    (tmp_path / "bad.yaml").write_text("- {one: two}\n")
    assert read_prompts(tmp_path / "a.txt") == read_prompts(tmp_path / "a.yaml") == [["one", "two"], ["three", "four"]]
    assert read_prompts(tmp_path / "a.json") == [["one", "two"]]
    with pytest.raises(PrestoError, match=r"bad\.yaml: lists of prompts"):
        read_prompts(tmp_path / "bad.yaml")


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """A server on 127.0.0.1 that answers as OpenAI's does, with the texts that are put into the list."""
    answers: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked["messages"][1]["content"] == "a storm"
            # The rules of the released director.
            for rule in (
                "5 scene",
                "Coherent",
                "Independent",
                "Simple",
                "differ little",
                "smoothly",
                "No atmosphere",
                "No titles",
            ):
                assert rule in asked["messages"][0]["content"]
            body = json.dumps({"choices": [{"message": {"content": answers.pop(0)}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_prompt_becomes_five(endpoint: tuple[str, list[str]]) -> None:
    address, answers = endpoint
    answers += ["I will not.", '["a", "b"]', f"Here you are: {json.dumps(PROMPTS)}"]
    assert expand("a storm", 5, address, "m") == PROMPTS
    answers += ['["a", "a", "b", "c", "d"]'] * 3
    with pytest.raises(PrestoError, match="a prompt is repeated"):
        expand("a storm", 5, address, "m")
    answers += [json.dumps([f"Scene {i}: {text}" for i, text in enumerate(PROMPTS)])] * 3
    with pytest.raises(PrestoError, match="a prompt begins with a title or a number"):
        expand("a storm", 5, address, "m")
    answers += [json.dumps(["Two cars", "3 men walk", "a scene", "part of it", "shot of rain"])]
    assert len(expand("a storm", 5, address, "m")) == 5
    with pytest.raises(PrestoError, match="endpoint is a URL such as"):
        expand("a storm", 5, "file:///etc/passwd", "m")
