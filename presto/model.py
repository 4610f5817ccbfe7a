"""Allegro's transformer with segmented cross-attention: loading, saving, and the pipeline around it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import AllegroTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro
from diffusers.utils.logging import disable_progress_bar
from torch import Tensor

from longtake.presto.attention import segment, segmentation_of
from longtake.presto.errors import PrestoError
from longtake.presto.folder import (
    SETTINGS,
    VOCABULARY_STEP,
    read_settings,
    require_model_folder,
    transformer_config,
    vocabulary,
)
from longtake.presto.segments import Segmentation

disable_progress_bar()  # Each pipeline would draw five bars, in logs too.

_INSTALL = "pip install '.[presto]'"

Rotary = tuple[tuple[Any, Any, Any], tuple[Tensor, Tensor, Tensor]]


def load_transformer(
    folder: Path, segmentation: Segmentation | None = None, dtype: torch.dtype = torch.float32
) -> AllegroTransformer3DModel:
    """The transformer of a model folder, with segmented attention.

    segmentation: for weights that have no settings beside them (the published Allegro); where there are some, they must
    be the same. None: as the settings say. Raises PrestoError, also if there would be none.
    """
    chosen = _chosen(folder, segmentation)
    model = _from_pretrained(AllegroTransformer3DModel, folder / "transformer", dtype=dtype)
    segment(model, chosen)
    return model


def empty_transformer(folder: Path, segmentation: Segmentation) -> AllegroTransformer3DModel:
    """As `load_transformer`, float32, on the meta device: without its weights."""
    chosen = _chosen(folder, segmentation)
    with torch.device("meta"):
        model = AllegroTransformer3DModel.from_config(transformer_config(folder))
    segment(model, chosen)
    return model


def _chosen(folder: Path, segmentation: Segmentation | None) -> Segmentation:
    path = folder / "transformer" / SETTINGS
    stored = read_settings(path) if path.exists() else None
    if stored is None and segmentation is None:
        raise PrestoError(
            f"{path} is not there: these weights do not say how they attend to their captions, and diffusers would run "
            "the plain attention. Sample from an export of this trainer, or say which attention to use"
        )
    if stored is not None and segmentation is not None and stored != segmentation:
        raise PrestoError(
            f"{path} says {stored.model_dump_json()}, and {segmentation.model_dump_json()} was asked for: "
            "take the stored settings, or other weights"
        )
    return stored or segmentation  # type: ignore[return-value]


def save_transformer(model: AllegroTransformer3DModel, folder: Path) -> None:
    """Weights, config and settings into `folder` (a model folder's `transformer`). Raises PrestoError: plain model."""
    segmentation = segmentation_of(model)
    if segmentation is None:
        raise PrestoError("this transformer has the plain attention: call longtake.presto.attention.segment first")
    model.save_pretrained(folder, safe_serialization=True)
    (folder / SETTINGS).write_text(segmentation.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_pipeline(
    folder: Path,
    segmentation: Segmentation | None = None,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype = torch.float32,
) -> Any:
    """The AllegroPipeline of a model folder, its transformer with segmented attention. dtype: of transformer and text
    encoder; the VAE has its own, float32 as released. Raises PrestoError."""
    from diffusers import AllegroPipeline

    require_model_folder(folder)
    tokenizer, encoder = load_text_encoder(folder, dtype)
    return _from_pretrained(
        AllegroPipeline,
        folder,
        transformer=load_transformer(folder, segmentation, dtype),
        vae=load_vae(folder, vae_dtype),
        tokenizer=tokenizer,
        text_encoder=encoder,
        dtype=dtype,
    )


def load_vae(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """AutoencoderKLAllegro of a model folder, for inference."""
    from diffusers import AutoencoderKLAllegro

    return _from_pretrained(AutoencoderKLAllegro, folder / "vae", dtype=dtype).eval().requires_grad_(False)


def load_text_encoder(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(tokenizer, T5 encoder) of a model folder, for inference."""
    from transformers import T5EncoderModel

    tokenizer = load_tokenizer(folder)
    encoder = _from_pretrained(T5EncoderModel, folder / "text_encoder", dtype=dtype)
    return tokenizer, encoder.eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    """The T5 tokenizer of a model folder. Raises PrestoError unless its vocabulary is that of the text encoder: with its
    file gone, transformers makes one that knows nothing, and says nothing."""
    from transformers import T5Tokenizer

    path = folder / "tokenizer"
    if not (path / "tokenizer.json").is_file():
        if not (path / "spiece.model").is_file():
            raise PrestoError(f"{path} holds no spiece.model and no tokenizer.json: download the folder again")
        if find_spec("sentencepiece") is None:
            raise PrestoError(f"{path} holds a sentencepiece model, which the package sentencepiece reads: {_INSTALL}")
    tokenizer = _from_pretrained(T5Tokenizer, path)
    rows, tokens = vocabulary(folder), len(tokenizer)
    if not rows - VOCABULARY_STEP < tokens <= rows:
        raise PrestoError(
            f"{path} knows {tokens} tokens, and {folder / 'text_encoder'} has embeddings for {rows}: they are not of one "
            "model, or the tokenizer's file is damaged. Download both folders again"
        )
    return tokenizer


def _from_pretrained(cls: Any, folder: Path, **more: Any) -> Any:
    """From this folder and nowhere else; weights are safetensors, since the others are pickles."""
    safe = {} if "Tokenizer" in cls.__name__ else {"use_safetensors": True}
    try:
        return cls.from_pretrained(folder, local_files_only=True, **safe, **more)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise PrestoError(f"cannot load {folder} as {cls.__name__}: {error}") from error


def rotary(config: Any, frames: int, height: int, width: int, device: torch.device | str = "cpu") -> Rotary:
    """Rotary position embedding of a latent video (frames, height, width in latents), as AllegroPipeline makes it."""
    grid = (height // config.patch_size, width // config.patch_size)
    freqs_t, freqs_h, freqs_w, *grids = get_3d_rotary_pos_embed_allegro(
        embed_dim=config.attention_head_dim,
        crops_coords=((0, 0), grid),
        grid_size=grid,
        temporal_size=frames,
        interpolation_scale=(
            config.interpolation_scale_t,
            config.interpolation_scale_h,
            config.interpolation_scale_w,
        ),
        device=torch.device(device),
    )
    place = torch.cartesian_prod(*(g.to(torch.long) for g in grids)).reshape(-1, 3)
    t, h, w = place.T.reshape(3, 1, -1).contiguous()
    return (freqs_t, freqs_h, freqs_w), (t, h, w)
