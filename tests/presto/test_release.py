"""Where it claims to be as released: the published configurations, without weights, and random weights through the code
paths of diffusers."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AllegroPipeline, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler

from longtake.presto.budget import parameters
from longtake.presto.config import POSITIVE, Bucket, Encoding, load_config, template_text
from longtake.presto.encode import encode_here, plan
from longtake.presto.errors import PrestoError
from longtake.presto.folder import encoding_of, text_fingerprint, transformer_config, vae_fingerprint
from longtake.presto.model import (
    empty_transformer,
    load_pipeline,
    load_text_encoder,
    load_tokenizer,
    load_vae,
)
from longtake.presto.prepare import Run, prepare
from longtake.presto.sample import NEGATIVE, Settings
from longtake.presto.segments import Segmentation
from longtake.presto.text import encode_captions, prepared, require_known
from longtake.presto.vae import OVERLAP, TILE_FRAMES, decode, encode_moments, require_covered, set_tiles, vae_dtype
from tests.presto.made import BUCKET, config, dataset, encoded_folder, row

# The transformer's config.json in its two revisions: of diffusers' classes, and of the release's own.
DIFFUSERS: dict[str, Any] = {
    "_class_name": "AllegroTransformer3DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 96,
    "caption_channels": 4096,
    "cross_attention_dim": 2304,
    "dropout": 0.0,
    "in_channels": 4,
    "interpolation_scale_h": 2.0,
    "interpolation_scale_t": 2.2,
    "interpolation_scale_w": 2.0,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "num_attention_heads": 24,
    "num_layers": 32,
    "out_channels": 4,
    "patch_size": 2,
    "patch_size_t": 1,
    "sample_frames": 22,
    "sample_height": 90,
    "sample_width": 160,
}
RELEASE: dict[str, Any] = {
    **{key: value for key, value in DIFFUSERS.items() if not key.startswith("sample_")},
    "ca_attention_mode": "xformers",
    "double_self_attention": False,
    "downsampler": None,
    "model_max_length": 300,
    "norm_type": "ada_norm_single",
    "num_embeds_ada_norm": 1000,
    "only_cross_attention": False,
    "sa_attention_mode": "flash",
    "sample_size": [90, 160],
    "sample_size_t": 22,
    "upcast_attention": False,
    "use_additional_conditions": None,
    "use_linear_projection": False,
    "use_rope": True,
}


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return folder


def broken(model: Path, folder: Path) -> Path:
    """A copy of a model folder that may be damaged."""
    shutil.copytree(model, folder)
    return folder


# ── the configurations ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("revision", [DIFFUSERS, RELEASE])
def test_both_revisions_make_the_published_model(tmp_path: Path, revision: dict[str, Any]) -> None:
    made = empty_transformer(written(tmp_path, revision), Segmentation())
    state = made.state_dict()
    assert {p.device.type for p in state.values()} == {"meta"}
    assert len(state) == 687
    count = sum(p.numel() for p in made.parameters())
    assert count == parameters(transformer_config(tmp_path))
    assert round(count / 1e9, 3) == 2.772
    assert (made.config.sample_frames, made.config.sample_height, made.config.sample_width) == (22, 90, 160)


def test_the_stand_in_is_as_awkward_as_the_original(model: Path) -> None:
    assert [path.name for path in (model / "tokenizer").iterdir()] == ["spiece.model"]
    published, tiny = AutoencoderKLAllegro.load_config(model / "vae"), load_vae(model)
    with torch.device("meta"):
        original = AutoencoderKLAllegro()
    assert (tiny.kernel, tiny.stride) == (original.kernel, original.stride) == ((24, 320, 320), (16, 200, 240))
    assert published["sample_size"] == original.config.sample_size
    assert any(isinstance(module, torch.nn.GroupNorm) for module in tiny.encoder.modules())
    scheduler = EulerAncestralDiscreteScheduler.from_pretrained(model / "scheduler")
    plain = EulerAncestralDiscreteScheduler().config
    assert {key: scheduler.config[key] for key in plain if not key.startswith("_")} == {
        key: value for key, value in plain.items() if not key.startswith("_")
    }
    assert scheduler.config.timestep_spacing == "linspace"
    tokenizer = load_tokenizer(model)
    encoder = json.loads((model / "text_encoder" / "config.json").read_text())
    assert len(tokenizer) < encoder["vocab_size"] == 128 * math.ceil(len(tokenizer) / 128)


# ── the tokenizer ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tokenizer_without_its_vocabulary_is_refused(model: Path, tmp_path: Path) -> None:
    other = broken(model, tmp_path / "m")
    (other / "tokenizer" / "spiece.model").unlink()
    (other / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    for load in (load_tokenizer, load_text_encoder, lambda folder: load_pipeline(folder, Segmentation())):
        with pytest.raises(PrestoError, match=r"holds no spiece\.model and no tokenizer\.json"):
            load(other)
    from transformers import T5Tokenizer

    # The call makes the tokenizer that transformers makes where the file is missing.
    T5Tokenizer().save_pretrained(other / "tokenizer")
    with pytest.raises(PrestoError, match=r"tokenizer knows 104 tokens, and .*text_encoder has embeddings for 384"):
        load_tokenizer(other)


def test_the_extra_brings_sentencepiece(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longtake.presto.model.find_spec", lambda _name: None)
    with pytest.raises(PrestoError, match=r"the package sentencepiece reads: pip install '\.\[presto\]'"):
        load_tokenizer(model)
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {re.split("[><=[]", each)[0] for each in extras["presto"]}
    assert {"sentencepiece", "protobuf", "beautifulsoup4", "ftfy"} <= names


def test_another_tokenizer_is_another_text_encoder(model: Path, tmp_path: Path) -> None:
    other = broken(model, tmp_path / "m")
    path = other / "tokenizer" / "spiece.model"
    before = text_fingerprint(other, Encoding())
    assert before == text_fingerprint(model, Encoding())
    path.write_bytes(path.read_bytes().replace("▁q".encode(), "▁Q".encode(), 1))
    assert text_fingerprint(other, Encoding()) != before
    folder = encoded_folder(tmp_path / "data", model, 4)
    with pytest.raises(PrestoError, match="encoded by another text encoder"):
        prepare(Run(config(), other, folder, tmp_path / "run"))


def test_captions_of_unknown_tokens_are_refused(model: Path, tmp_path: Path) -> None:
    rows = [row(i, tmp_path / "data") for i in range(4)]
    rows[2]["sub_captions"] = ["красная машина едет"] * 5
    data = dataset(tmp_path / "data", rows)
    told = r"\d+ of \d+ tokens are unknown to the tokenizer, more than 1%; for example in 'красная машина едет'"
    with pytest.raises(PrestoError, match=told):
        plan(data, model, tmp_path / "out", [Bucket(**BUCKET)], 1.6, Encoding())
    assert not (tmp_path / "out").exists()
    with pytest.raises(PrestoError, match=told):
        prepare(Run(config(), model, data, tmp_path / "run"))
    # One sign in more than a hundred is no fault.
    require_known(load_tokenizer(model), ["a red car " * 50 + "~"], clean=False, where="a test")


def test_a_caption_of_which_cleaning_leaves_nothing_is_an_error_row(model: Path, tmp_path: Path) -> None:
    rows = [row(i, tmp_path / "data") for i in range(2)]
    rows[0]["sub_captions"] = ["a red car", "红色汽车", "it turns", "rain", "night"]
    todo = plan(dataset(tmp_path / "data", rows), model, tmp_path / "out", [Bucket(**BUCKET)], 1.6, Encoding())
    assert encode_here(todo) == (2, 1)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

MESSY = [
    "A Red Car (very fast) — at 12:30",
    "<b>Bold</b> &amp; 'quoted' text... photo.jpg IMG_12345 free shipping",
    "",
    "  Plain words, and no more. ",
]


@pytest.mark.parametrize("clean", [False, True])
def test_text_is_that_of_both_code_paths_of_the_pipeline(model: Path, clean: bool) -> None:
    """AllegroPipeline.encode_prompt with and without `clean_caption`, which pads to 512 tokens."""
    pipeline = load_pipeline(model, Segmentation())
    peer, mask, _, _ = pipeline.encode_prompt(MESSY, False, clean_caption=clean)
    found = encode_captions(pipeline.tokenizer, pipeline.text_encoder, MESSY, clean=clean)
    assert [len(each) for each in found] == mask.sum(1).tolist()
    for mine, theirs in zip(found, peer, strict=True):
        torch.testing.assert_close(mine, theirs[: len(mine)], rtol=1e-4, atol=1e-5)


def test_captions_are_cleaned_unless_told_otherwise(model: Path) -> None:
    assert load_config("pretrain").encoding == load_config("finetune").encoding == Encoding() == encoding_of(model)
    assert prepared(MESSY, clean=True)[0] == "a red car very fast - at 12:30"
    assert prepared(MESSY, clean=False)[3] == "plain words, and no more."
    assert text_fingerprint(model, Encoding()) != text_fingerprint(model, Encoding(clean_captions=False))


def test_prompts_are_wrapped_and_lowered(tmp_path: Path) -> None:
    assert Settings(template="good: {}!").wrapped([" A Red CAR "]) == ["good: a red car!"]
    assert Settings(template="{}").wrapped(["as It is"]) == ["as it is"]
    assert Settings().template == POSITIVE == load_config("finetune").samples.template
    assert POSITIVE.count("{}") == 1
    (tmp_path / "words.txt").write_text("from a file, {}\n")
    assert template_text(str(tmp_path / "words.txt")) == "from a file, {}"
    assert load_config("tiny", {"samples.template": str(tmp_path / "words.txt")}).samples.template == "from a file, {}"
    with pytest.raises(PrestoError, match=r"samples\.template.*no text file"):
        load_config("tiny", {"samples.template": "words without a place"})
    with pytest.raises(PrestoError, match=r"must have one \{\}"):
        load_config("tiny", {"samples.template": "{} and {}"})


# ── the VAE ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_published_grid_stays_where_it_covers_the_size() -> None:
    with torch.device("meta"):
        vae = AutoencoderKLAllegro()
    own = (vae.kernel, vae.stride)
    require_covered((88, 720, 1280), *own)
    for size, covered in (
        ((88, 720, 1280), True),
        ((40, 368, 640), False),
        ((88, 520, 800), True),
        ((24, 320, 320), True),
    ):
        set_tiles(vae, *size)
        assert ((vae.kernel, vae.stride) == own) is covered
        require_covered(size, vae.kernel, vae.stride)
    assert own == ((TILE_FRAMES, 320, 320), (TILE_FRAMES - OVERLAP[0], 320 - OVERLAP[1], 320 - OVERLAP[2]))


def test_moments_are_those_of_the_vaes_own_tiles(model: Path) -> None:
    """Two tiles of 128×128, a smaller grid of the published kind, against diffusers' own tiling, and against one tile of
    the whole frame: GroupNorm tells them apart."""
    torch.manual_seed(0)
    shape = {**AutoencoderKLAllegro.load_config(model / "vae"), "sample_size": 128}
    vae = AutoencoderKLAllegro.from_config(shape).eval()
    peer = AutoencoderKLAllegro.from_config(shape).eval()
    peer.load_state_dict(vae.state_dict())
    small = torch.rand(1, 3, 24, 4, 6, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(small, (24, 128, 176)).mul(255).byte().permute(0, 2, 3, 4, 1)
    found = encode_moments(vae, frames)
    peer.enable_tiling()
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(found, peer.encode(video).latent_dist.parameters)
        peer.kernel, peer.stride = (24, 128, 176), (16, 8, 96)
        whole = peer.encode(video).latent_dist.parameters
    mean, other = found[:, :4], whole[:, :4]
    assert float((mean - other).square().mean().sqrt() / other.square().mean().sqrt()) > 0.02


def test_what_the_vae_runs_in_is_part_of_the_fingerprint(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = vae_fingerprint(model, Encoding())
    assert vae_fingerprint(model, Encoding(vae_precision="bf16")) != before
    for rule in ("TILE_RULE", "FRAME_RULE"):
        with monkeypatch.context() as patch:
            patch.setattr(f"longtake.presto.folder.{rule}", "another")
            assert vae_fingerprint(model, Encoding()) != before
    assert vae_dtype(Encoding().vae_precision) == torch.float32


def test_a_pipeline_in_bf16_keeps_its_vae_in_float32(model: Path) -> None:
    pipeline = load_pipeline(model, Segmentation(), torch.bfloat16)
    assert (pipeline.transformer.dtype, pipeline.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert pipeline.vae.dtype == torch.float32
    latents = torch.randn(1, 4, 6, 8, 8).bfloat16()
    frames = decode(pipeline.vae, latents)
    set_tiles(pipeline.vae, 24, 64, 64)
    with torch.no_grad():
        exact = pipeline.vae.decode(latents.float() / 0.13).sample[0].permute(0, 2, 3, 1)
    assert np.abs(frames[0].numpy().astype(float) - ((exact.clamp(-1, 1) + 1) * 127.5).round().numpy()).max() <= 1


# ── the recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_recipes_called_released_are(name: str) -> None:
    found = load_config(name)
    assert found.optimizer.model_dump() == {
        "rate": 1e-4,
        "warmup": 0,
        "decay": "none",
        "floor": 0.0,
        "betas": (0.9, 0.999),
        "weight_decay": 1e-2,
        "eps": 1e-8,
        "clip": 1.0,
        "ema": None,
    }
    assert (found.loss.gamma, found.loss.noise_offset, found.data.aspect_tolerance) == (5.0, 0.02, 1.5)
    assert (found.loss.objective, found.loss.shift, found.lora) == ("epsilon", 1.0, None)
    assert (found.checkpoints.every, found.global_batch, found.precision) == (50, 256, "bf16")
    # The one difference, which the recipe explains: all captions are dropped together.
    assert (found.loss.dropout, found.loss.independent_dropout) == (0.1, 0.0)
    as_released = load_config(name, {"loss.dropout": 0.0, "loss.independent_dropout": 0.1})
    assert as_released.loss.independent_dropout == 0.1


def test_samples_are_spaced_as_the_released_sampler_spaces_them(model: Path) -> None:
    """The scheduler of the folder gives the sigmas of the released sampler's, which takes the defaults."""
    ours = EulerAncestralDiscreteScheduler.from_config(AllegroPipeline.load_config(model) and load_scheduler(model))
    peer = EulerAncestralDiscreteScheduler()
    for each in (ours, peer):
        each.set_timesteps(100)
    assert torch.equal(ours.sigmas, peer.sigmas)
    assert ours.timesteps[0] == 999
    assert (Settings().inference_steps, Settings().guidance, Settings().fps) == (100, 7.0, 15.0)
    assert "watermark" in NEGATIVE


def load_scheduler(model: Path) -> Any:
    return EulerAncestralDiscreteScheduler.load_config(model / "scheduler")


def test_which_weights_an_export_holds_is_said(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from longtake.presto.export import export
    from longtake.presto.train import fit

    data = encoded_folder(tmp_path / "data", model, 4)
    run = Run(config(steps=2, optimizer={"ema": 0.999}), model, data, tmp_path / "run")
    with caplog.at_level(logging.INFO):
        exported = fit(run)
    record = json.loads((exported / "weights.json").read_text())
    assert (record["weights"], record["decay"], record["step"], record["recipe"]) == ("averaged", 0.999, 2, "small")
    assert "export holds the averaged weights of step 2" in caplog.text
    last = export(run.output, model, tmp_path / "last", average=False)
    assert json.loads((last / "weights.json").read_text())["weights"] == "last"
    assert encoding_of(last) == Encoding()
