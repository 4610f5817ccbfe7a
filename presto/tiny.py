"""A whole Allegro model folder with random weights, small enough for a CPU: for tests, demonstrations, a dry run of a
cluster. What it samples is noise; everything else behaves as with the published weights.

    python -m longtake.presto.tiny FOLDER
"""

from __future__ import annotations

import string
import sys
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


def tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a model folder like a download of rhymes-ai/Allegro, with random weights made from `seed`; its path."""
    from diffusers import AllegroPipeline, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(seed)
    vae = AutoencoderKLAllegro(
        block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=64, scaling_factor=0.13
    )
    letters = [f"▁{c}" for c in string.ascii_lowercase] + list(string.ascii_lowercase + string.digits + ".,-'")
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((piece, -3.0) for piece in letters)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(vocab),
            d_model=TRANSFORMER["caption_channels"],
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    pipeline = AllegroPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        transformer=tiny_transformer(seed),
        scheduler=EulerAncestralDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


if __name__ == "__main__":
    print(tiny_model(Path(sys.argv[1])))
