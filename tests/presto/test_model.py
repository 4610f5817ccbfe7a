"""Saving, loading, refusing; the rotary embedding and the VAE's tiles."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AllegroTransformer3DModel, AutoencoderKLAllegro
from hypothesis import given
from hypothesis import strategies as st

from longtake.presto.attention import segmentation_of
from longtake.presto.errors import PrestoError
from longtake.presto.folder import SETTINGS, fingerprint, require_model_folder
from longtake.presto.model import (
    empty_transformer,
    load_pipeline,
    load_text_encoder,
    load_transformer,
    load_vae,
    rotary,
    save_transformer,
)
from longtake.presto.segments import Segmentation
from longtake.presto.text import encode_captions, pad_captions
from longtake.presto.vae import decode, encode_moments, latents_of, require_covered, set_tiles


def test_settings_lie_beside_the_weights_and_are_applied(model: Path, tmp_path: Path) -> None:
    wanted = Segmentation(variant="sequential-pair", segments=3, overlap=0)
    first = load_transformer(model, wanted)
    save_transformer(first, tmp_path / "transformer")
    again = load_transformer(tmp_path)
    assert segmentation_of(again) == wanted
    video, text = torch.randn(1, 4, 6, 8, 8), torch.randn(1, 6, 32)
    outs = [m(video, text, torch.tensor([7]), return_dict=False)[0] for m in (first, again)]
    assert torch.equal(*outs)


def test_weights_without_settings_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(PrestoError, match=f"{SETTINGS} is not there"):
        load_transformer(model)
    with pytest.raises(PrestoError, match=f"{SETTINGS} is not there"):
        load_pipeline(model)
    with pytest.raises(PrestoError, match="plain attention"):
        save_transformer(AllegroTransformer3DModel.from_pretrained(model / "transformer"), tmp_path)


def test_other_settings_than_the_stored_are_refused(model: Path, tmp_path: Path) -> None:
    save_transformer(load_transformer(model, Segmentation(variant="isolated")), tmp_path / "transformer")
    with pytest.raises(PrestoError, match=r"isolated.*overlapped"):
        load_transformer(tmp_path, Segmentation(variant="overlapped"))
    (tmp_path / "transformer" / SETTINGS).write_text('{"variant": "diagonal"}')
    with pytest.raises(PrestoError, match=SETTINGS):
        load_transformer(tmp_path)


def test_a_folder_that_is_no_model_is_named(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "vae")
    with pytest.raises(PrestoError, match=r"m is no Allegro model folder: vae missing"):
        require_model_folder(tmp_path / "m")
    config = tmp_path / "m" / "transformer" / "config.json"
    config.write_text(json.dumps({"_class_name": "Other"}))
    with pytest.raises(PrestoError, match=r"config\.json: _class_name is 'Other'"):
        empty_transformer(tmp_path / "m", Segmentation())


def test_pickled_weights_are_not_read(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    weights = next((tmp_path / "m" / "vae").glob("*.safetensors"))
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(PrestoError, match="vae"):
        load_vae(tmp_path / "m")


@pytest.mark.parametrize("size", [(10, 8, 8), (22, 6, 14)])
def test_positions_are_those_of_the_pipeline(model: Path, size: tuple[int, int, int]) -> None:
    pipeline = load_pipeline(model, Segmentation())
    frames, height, width = size
    peer = pipeline._prepare_rotary_positional_embeddings(1, height * 8, width * 8, frames, torch.device("cpu"))
    found = rotary(pipeline.transformer.config, frames, height, width)
    flat = [[x for pair in parts[0] for x in pair] + list(parts[1]) for parts in (peer, found)]
    assert len(flat[0]) == 9
    assert all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def test_fingerprint_tells_weights_apart(model: Path, other_model: Path, tmp_path: Path) -> None:
    shutil.copytree(model / "vae", tmp_path / "vae")
    assert fingerprint(tmp_path / "vae") == fingerprint(model / "vae") != fingerprint(other_model / "vae")


# ── the VAE ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 40))
def test_coverage_is_what_the_tiles_reach(full: int, tile: int, step: int) -> None:
    """Against laying the tiles one by one, as diffusers does."""
    step = min(step, tile)  # Tiles that leave gaps are never laid.
    count = max(0, (full - tile) // step + 1)
    written = {i for n in range(count) for i in range(n * step, n * step + tile)}
    if written == set(range(full)):
        require_covered((full, 8, 8), (tile, 8, 8), (step, 8, 8))
    else:
        with pytest.raises(PrestoError, match=f"do not cover frames {full}"):
            require_covered((full, 8, 8), (tile, 8, 8), (step, 8, 8))


def test_the_default_tiles_lose_rows_and_are_refused() -> None:
    """368×640 with diffusers' own tiles: 6 of its 46 latent rows would stay zero."""
    with pytest.raises(PrestoError, match="cover height 368"):
        require_covered((40, 368, 640), (24, 320, 320), (16, 200, 240))


def test_every_latent_is_written(model: Path) -> None:
    vae = load_vae(model)
    frames = torch.randint(0, 256, (2, 40, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moments = encode_moments(vae, frames)
    assert moments.shape == (2, 8, 10, 8, 12)
    assert bool((moments.abs().sum(1) > 0).all())
    alone = encode_moments(vae, frames[1:])
    # The encoder slices the batch, so its clips do not affect each other.
    torch.testing.assert_close(moments[1:], alone)
    with pytest.raises(PrestoError, match="cover frames 32"):
        set_tiles(vae, 32, 64, 96)
    assert decode(vae, moments[:1, :4]).shape == (1, 40, 64, 96, 3)


def test_one_tile_is_the_encoder_itself(model: Path) -> None:
    vae: AutoencoderKLAllegro = load_vae(model)
    frames = torch.randint(0, 256, (1, 24, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    video = frames.permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        bare = vae.encoder(video).permute(0, 2, 1, 3, 4).flatten(0, 1)
        bare = vae.quant_conv(bare).unflatten(0, (1, -1)).permute(0, 2, 1, 3, 4)
    torch.testing.assert_close(encode_moments(vae, frames), bare)


def test_latents_are_a_sample_of_the_posterior() -> None:
    shape = (1, 4, 1, 1, 1)
    mean, logvar = torch.full(shape, 2.0), torch.full(shape, 2 * math.log(3.0))
    found = latents_of(torch.cat([mean, logvar], 1).half(), torch.full(shape, -1.0), 0.13)
    torch.testing.assert_close(found, torch.full(shape, 0.13 * (2 - 3)), rtol=5e-3, atol=0)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ragged_text_is_the_padded_text_of_the_pipeline(model: Path) -> None:
    """Against AllegroPipeline.encode_prompt, which pads to 512 tokens."""
    texts = ["A red car, moving.", "", "rain " * 20]
    tokenizer, encoder = load_text_encoder(model)
    found = encode_captions(tokenizer, encoder, texts, clean=False)
    peer, mask, _, _ = load_pipeline(model, Segmentation()).encode_prompt(texts, False, clean_caption=False)
    assert [len(f) for f in found] == mask.sum(1).tolist()
    assert len(found[1]) == 1  # The null caption is the end of the sequence alone.
    for mine, theirs in zip(found, peer, strict=True):
        torch.testing.assert_close(mine, theirs[: len(mine)], rtol=1e-4, atol=1e-5)
    padded, masked = pad_captions([found])
    assert padded.shape == (1, 3 * 128, 32)
    assert masked.view(3, 128).sum(1).tolist() == [len(f) for f in found]
