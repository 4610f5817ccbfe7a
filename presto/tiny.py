"""A whole Allegro model folder with random weights, small enough for a CPU: for tests, demonstrations, a dry run of a
cluster. What it samples is noise; everything else behaves as with the published weights.

    python -m longtake.presto.tiny FOLDER
"""

from __future__ import annotations

import shutil
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "num_layers": 2,
    "cross_attention_dim": 48,
    "caption_channels": 32,
    "sample_height": 8,
    "sample_width": 8,
    "sample_frames": 10,
}


def tiny_transformer(seed: int = 0, **changed: Any) -> Any:
    """AllegroTransformer3DModel with two layers and the plain attention; float32."""
    from diffusers import AllegroTransformer3DModel

    torch.manual_seed(seed)
    return AllegroTransformer3DModel(**{**TRANSFORMER, **changed})


# The published VAE's tiling (24 frames and 320×320 pixels, 16 frames, 200 rows and 240 columns apart) and its
# GroupNorm.
VAE: dict[str, Any] = {
    "block_out_channels": (4, 4, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 320,
    "scaling_factor": 0.13,
}

# T5's own sentencepiece model knows no braces, tilde, caret, backslash and less-than either.
_LETTERS = "".join(c for c in string.digits + string.ascii_letters + string.punctuation if c not in "{}~^\\<")
_EXTRA_IDS = 100  # Sentinels that T5Tokenizer adds to the pieces of its file.
# T5's embeddings have as many rows as the vocabulary, rounded up to a multiple of this: 32,128 for 32,100.
_PADDED = 128


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a model folder like a download of rhymes-ai/Allegro, with random weights made from `seed`; its path.

    It is as awkward as the original: the tokenizer is a `spiece.model` alone, the encoder has more embeddings than the
    tokenizer has tokens, the VAE has the published tile grid, the scheduler is spaced `linspace`.
    """
    from diffusers import AllegroPipeline, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(seed)
    vae = AutoencoderKLAllegro(**VAE)
    pieces = ["▁", *(f"▁{c}" for c in _LETTERS), *_LETTERS]
    tokens = 3 + len(pieces) + _EXTRA_IDS
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=-(-tokens // _PADDED) * _PADDED,
            d_model=TRANSFORMER["caption_channels"],
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    pipeline = AllegroPipeline(
        tokenizer=T5Tokenizer(),
        text_encoder=text_encoder,
        vae=vae,
        transformer=tiny_transformer(seed),
        scheduler=EulerAncestralDiscreteScheduler(),  # Its defaults, as the released sampler makes it.
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(_sentencepiece(pieces))
    return folder


def _sentencepiece(pieces: Sequence[str]) -> bytes:
    """A sentencepiece model of `pieces`, all alike in score, after T5's padding, end and unknown."""
    from transformers.convert_slow_tokenizer import import_protobuf

    model = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    normal, unknown, control = 1, 2, 3
    for piece, score, kind in (
        ("<pad>", 0.0, control),
        ("</s>", 0.0, control),
        ("<unk>", 0.0, unknown),
        *((piece, -3.0, normal) for piece in pieces),
    ):
        model.pieces.add(piece=piece, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size = 1, len(model.pieces)
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, -1
    data: bytes = model.SerializeToString()
    return data


if __name__ == "__main__":
    print(tiny_model(Path(sys.argv[1])))
