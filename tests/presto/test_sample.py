"""Samples out of the unmodified pipeline, prompts in and out, evaluation on known answers, blind pages."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from presto.ab import count_votes, write_page
from presto.cli import app
from presto.errors import PrestoError
from presto.evaluate import (
    Clip,
    Subject,
    alignment,
    coherence,
    dis_flow,
    diversity,
    evaluate_folder,
    export_vbench,
    is_dynamic,
    measure,
    report,
    samples_of,
)
from presto.expand import expand
from presto.model import load_pipeline, load_transformer, save_transformer
from presto.prepare import Run
from presto.sample import NEGATIVE, Settings, read_prompts, sample
from presto.segments import Segmentation
from presto.text import encode_captions
from presto.train import fit
from presto.video import read_video, write_video
from tests.presto.made import config, dataset, encoded_folder, row

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


def test_equal_prompts_are_a_sample_of_plain_allegro(model: Path, trained: Path) -> None:
    """Five times the same prompt, against diffusers' own pipeline with one, from the same seed."""
    from diffusers import AllegroPipeline

    ours, peer = load_pipeline(trained), AllegroPipeline.from_pretrained(model)
    text = encode_captions(ours.tokenizer, ours.text_encoder, ["a red car"])[0]
    negative = encode_captions(ours.tokenizer, ours.text_encoder, [NEGATIVE])[0]
    found = sample(ours, [text] * 5, negative, SMALL)
    assert found.shape == (24, 64, 64, 3)
    peer.set_progress_bar_config(disable=True)
    peer.vae.enable_tiling()
    peer.vae.kernel, peer.vae.stride = (24, 64, 64), (16, 8, 8)
    (frames,) = peer(
        "a red car",
        negative_prompt=NEGATIVE,
        num_frames=24,
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=7.0,
        generator=torch.Generator().manual_seed(0),
        clean_caption=False,
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
    texts = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [*PROMPTS, "snow", NEGATIVE])
    latents = []
    pipeline.vae.decode = lambda z: latents.append(z) or _Decoded(z)  # what is decoded is what was sampled
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
        assert float(video.streams.video[0].average_rate) == pytest.approx(24 / 15)
    before = (out / "0000-seed1.mp4").stat().st_mtime_ns
    invoke(*arguments, "--seed", 1)
    assert (out / "0000-seed1.mp4").stat().st_mtime_ns == before  # it is there already
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
    with pytest.raises(PrestoError, match="is no http"):
        expand("a storm", 5, "file:///etc/passwd", "m")


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def moving(pixels: int, count: int = 12, size: int = 256, seed: int = 0) -> np.ndarray:
    """A textured picture that shifts by so many pixels per frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 8, (size + pixels * count) // 8 + 1, 3), np.uint8)
    board = cv2.resize(noise, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return np.stack([board[:, i * pixels : i * pixels + size] for i in range(count)])


def test_dynamic_degree_is_vbenchs_rule() -> None:
    still, slow, fast = moving(0), moving(3), moving(9)
    flow = dis_flow(fast[0], fast[1])
    assert abs(float(np.median(np.linalg.norm(flow, axis=2))) - 9) < 0.5
    assert [is_dynamic(f) for f in (still, slow, fast)] == [False, False, True]  # 6 px at a short side of 256

    def given(lengths: list[float]) -> bool:
        """Pairs whose top 5 % have these lengths, the rest of the frame at rest."""
        left = iter(lengths)

        def flow(_a: np.ndarray, _b: np.ndarray) -> np.ndarray:
            field = np.zeros((20, 20, 2))
            field[0, :, 0] = next(left)  # exactly 5 % of the pixels
            return field

        return is_dynamic(np.zeros((len(lengths) + 1, 256, 256, 3), np.uint8), flow)

    assert given([6.1, 6.1, 0, 0, 0, 0, 0])  # 8 frames: two pairs are needed
    assert not given([6.1, 0, 0, 0, 0, 0, 0])
    assert not given([6.0] * 7)  # not more than 6
    assert not is_dynamic(np.zeros((9, 512, 512, 3), np.uint8), lambda _a, _b: np.full((8, 8, 2), 11.9 / 2**0.5))


def test_alignment_of_known_embeddings() -> None:
    eye = np.eye(5)
    found = alignment(3 * eye, eye)
    assert (found.accuracy, found.margin) == (1.0, 1.0)
    assert alignment(eye, eye[[1, 2, 3, 4, 0]]).accuracy == 0.0
    assert alignment(eye, eye[[1, 2, 3, 4, 0]]).margin == pytest.approx(-0.25)
    assert diversity(eye) == 1.0
    assert diversity(np.ones((5, 3))) == pytest.approx(0.0)
    assert coherence(eye[:4], eye[:4]) == 1.0
    assert coherence(eye[:4], -eye[:4]) == -1.0


class Colours(Clip):
    """An encoder with known answers: a picture is its mean colour, a text the colour that it names."""

    NAMES = (
        ("red", (255, 0, 0)),
        ("green", (0, 255, 0)),
        ("blue", (0, 0, 255)),
        ("yellow", (255, 255, 0)),
        ("pink", (255, 0, 255)),
    )

    def __init__(self) -> None: ...

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        means: np.ndarray = frames.reshape(len(frames), -1, 3).mean(1)
        return means

    def texts(self, captions: object) -> np.ndarray:
        return np.array([dict(self.NAMES)[c] for c in captions], float)  # type: ignore[attr-defined]


def test_segments_are_matched_with_their_captions(tmp_path: Path) -> None:
    parts = [np.full((24, 64, 64, 3), colour, np.uint8) for _, colour in Colours.NAMES]
    write_video(tmp_path / "a.mp4", np.concatenate(parts), 8)
    subject = Subject(tmp_path / "a.mp4", tuple(name for name, _ in Colours.NAMES))
    found = measure([subject, Subject(tmp_path / "none.mp4", ("red",) * 5)], Colours(), None)
    assert (found["accuracy"], found["shuffled_accuracy"], found["videos"]) == (1.0, 0.0, 1)
    assert found["margin"] > 0.4 > 0 > found["shuffled_margin"]
    assert found["dynamic_degree_dis"] == 0.0
    assert list(found["failed"]) == [str(tmp_path / "none.mp4")]
    assert np.diag(found["similarity"]).min() > 0.95


def samples(folder: Path, prompts: list[list[str]], speed: int) -> Path:
    folder.mkdir()
    for i, texts in enumerate(prompts):
        write_video(folder / f"{i:04d}.mp4", moving(speed, 16, 128, seed=i)[:, :, :128], 8)
        (folder / f"{i:04d}.json").write_text(json.dumps({"prompts": texts}))
    return folder


def test_samples_are_measured_beside_real_clips(tmp_path: Path) -> None:
    made = samples(tmp_path / "made", [PROMPTS], 8)
    real = dataset(tmp_path / "real", [row(i, tmp_path / "real") for i in range(2)])
    found = evaluate_folder(made, real, None, None, 10)
    assert found["samples"]["dynamic_degree_dis"] == 1.0
    assert len(found["real"]["failed"]) == 2  # one second: too few frames for five segments
    assert "dynamic_degree_dis" in report(found)
    assert "too few to segment" in report(found)
    out = invoke("evaluate", made, "-o", tmp_path / "out")
    assert "1.000" in out
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["samples"]["videos"] == 1


def test_vbench_names(tmp_path: Path) -> None:
    made = samples(tmp_path / "made", [["a/../b", "c"], ["a/../b", "c"]], 2)
    names = [p.name for p in export_vbench(made, tmp_path / "vbench")]
    assert names == ["a .. b c-0.mp4", "a .. b c-1.mp4"]
    assert len(samples_of(made)) == 2
    with pytest.raises(PrestoError, match="holds no samples"):
        samples_of(tmp_path / "vbench")


# ── blind comparison ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blind_page_and_its_tally(tmp_path: Path) -> None:
    prompts = [["<script>alert(1)</script>", str(i)] for i in range(6)]
    first, second = samples(tmp_path / "ours", prompts, 2), samples(tmp_path / "theirs", prompts[::-1], 4)
    page = write_page(first, second, tmp_path / "page")
    text = page.read_text()
    assert "<script>alert" not in text
    assert "ours" not in text
    assert "theirs" not in text
    key = json.loads((tmp_path / "page" / "key.json").read_text())
    assert {pair["left"] for pair in key["pairs"].values()} == {"first", "second"}
    assert len(list((tmp_path / "page" / "videos").iterdir())) == 12
    side = {n: "left" if pair["left"] == "first" else "right" for n, pair in key["pairs"].items()}
    other = {"left": "right", "right": "left"}
    votes = {f"{n}:diversity": side[n] for n in side} | {f"{n}:coherence": other[side[n]] for n in side}
    votes |= {f"{n}:adherence": "tie" for n in side}
    (tmp_path / "a.json").write_text(json.dumps({**votes, "judge": "a"}))
    (tmp_path / "b.json").write_text(json.dumps({"0:diversity": other[side["0"]], "judge": "b"}))
    counts = count_votes(tmp_path / "page" / "key.json", [tmp_path / "a.json", tmp_path / "b.json"])
    assert counts == {
        "diversity": {"win": 6, "lose": 1, "tie": 0},
        "coherence": {"win": 0, "lose": 6, "tie": 0},
        "adherence": {"win": 0, "lose": 0, "tie": 6},
    }
    assert "6 (86%)" in invoke("tally", tmp_path / "page" / "key.json", tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(PrestoError, match="both of the judge 'a'"):
        count_votes(tmp_path / "page" / "key.json", [tmp_path / "a.json", tmp_path / "a.json"])
    (tmp_path / "c.json").write_text(json.dumps({"99:diversity": "left"}))
    with pytest.raises(PrestoError, match=r"c\.json: '99:diversity'"):
        count_votes(tmp_path / "page" / "key.json", [tmp_path / "c.json"])
    with pytest.raises(PrestoError, match="no prompts are in both"):
        write_page(first, samples(tmp_path / "else", [["x", "y"]], 2), tmp_path / "page2")
