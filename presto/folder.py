"""A model folder, without its weights: whether it is whole, its settings, and which weights they are. Loads no torch.

A model folder is what `AllegroPipeline.save_pretrained` writes: model_index.json, transformer, vae, text_encoder,
tokenizer, scheduler. The settings of the attention lie beside the weights, in `transformer/segmented_attention.json`:
they are no parameters, so without that file diffusers would run the plain attention in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from longtake.presto.config import Encoding
from longtake.presto.errors import PrestoError
from longtake.presto.segments import Segmentation

# The rules are applied in vae.py and frames.py, and explained there by these sentences. A new rule has a new name, so
# that clips that were encoded by the old rule are encoded again.
TILE_RULE = "the VAE's own tiles where they cover the size, else tiles of whole frames"
FRAME_RULE = "of evenly spaced moments, the frame that is shown"

SETTINGS = "segmented_attention.json"
WEIGHTS = "weights.json"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
# Embeddings have as many rows as the vocabulary has tokens, rounded up to a multiple of this (T5: 32,128 for 32,100).
VOCABULARY_STEP = 128
_SAMPLES = 64  # Places of a weight file that its fingerprint reads.
_SAMPLE_BYTES = 1 << 16


def require_model_folder(folder: Path) -> None:
    """Raises PrestoError unless `folder` holds the parts of an Allegro pipeline."""
    missing = [name for name in ("model_index.json", *PARTS) if not (folder / name).exists()]
    if missing:
        raise PrestoError(
            f"{folder} is no Allegro model folder: {', '.join(missing)} missing. Take a download of rhymes-ai/Allegro, "
            "or an export of this trainer"
        )


def write_weights_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Beside an export: which weights it holds, of which step and run, and how the run made its latents and texts."""
    (folder / WEIGHTS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def encoding_of(folder: Path) -> Encoding:
    """How the weights of a model folder want captions and latents made: as an export says, else as released. Raises
    PrestoError."""
    path = folder / WEIGHTS
    if not path.is_file():
        return Encoding()
    try:
        return Encoding.model_validate(json.loads(path.read_text(encoding="utf-8"))["encoding"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrestoError(f"{path} says no encoding: {error}") from error


def transformer_config(folder: Path) -> dict[str, Any]:
    """The transformer's config.json. Raises PrestoError."""
    path = folder / "transformer" / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrestoError(f"cannot read {path}: {error}") from error
    if data.get("_class_name") != "AllegroTransformer3DModel":
        raise PrestoError(f"{path}: _class_name is {data.get('_class_name')!r}, not AllegroTransformer3DModel")
    config: dict[str, Any] = data
    return config


def scaling_factor(folder: Path) -> float:
    """Of the VAE: latents are its posterior times this. Raises PrestoError."""
    return _number(folder / "vae" / "config.json", "scaling_factor")


def _number(path: Path, key: str) -> float:
    """A number of a JSON file. Raises PrestoError."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrestoError(f"{path} says no {key}: {error}") from error


def read_settings(path: Path) -> Segmentation:
    """Raises PrestoError."""
    try:
        return Segmentation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise PrestoError(f"{path} is no settings file of segmented attention: {error}") from error


def vae_fingerprint(model: Path, encoding: Encoding) -> str:
    """16 hex digits for what makes moments of a clip: the VAE of a model folder, the precision that it runs in, its rule
    of tiles and that of frames. Raises PrestoError."""
    return _together(fingerprint(model / "vae"), encoding.vae_precision, TILE_RULE, FRAME_RULE)


def text_fingerprint(model: Path, encoding: Encoding) -> str:
    """16 hex digits for what makes embeddings of a caption: the text encoder of a model folder, every file of its
    tokenizer, and whether captions are cleaned. Raises PrestoError."""
    files = sorted(path for path in (model / "tokenizer").rglob("*") if path.is_file())
    if not files:
        raise PrestoError(
            f"{model / 'tokenizer'} holds no file: the tokenizer's spiece.model or tokenizer.json is missing"
        )
    names = [f"{path.relative_to(model)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return _together(
        fingerprint(model / "text_encoder"), *names, "cleaned" if encoding.clean_captions else "as they are"
    )


def _together(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def vocabulary(folder: Path) -> int:
    """Rows of the text encoder's table of embeddings, by its config.json. Raises PrestoError."""
    return int(_number(folder / "text_encoder" / "config.json", "vocab_size"))


def fingerprint(folder: Path) -> str:
    """16 hex digits for the weights and config of a folder (`vae`, `text_encoder`).

    Of each weight file its size and 64 evenly spaced pieces of 64 KiB are read: any retraining changes all of them, and
    20 GB take no minute. Raises PrestoError if there are no weights.
    """
    config, weights = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not weights:
        raise PrestoError(f"{folder} has no config.json or no *.safetensors")
    digest = hashlib.sha256()
    settings = json.loads(config.read_text(encoding="utf-8"))
    digest.update(json.dumps({k: v for k, v in settings.items() if not k.startswith("_")}, sort_keys=True).encode())
    for path in weights:
        size = os.path.getsize(path)
        digest.update(f"{size}".encode())
        with open(path, "rb") as file:
            for i in range(_SAMPLES):
                file.seek(i * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
