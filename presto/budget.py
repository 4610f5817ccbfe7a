"""What a step costs: floating-point operations and memory, from the shape of the model and of the video."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from longtake.presto.config import Bucket
from longtake.presto.segments import Segmentation


def parameters(config: Mapping[str, Any]) -> int:
    """Parameters of an AllegroTransformer3DModel by its config.json; 2.77 B for the published one."""
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    cross, patch, text = config["cross_attention_dim"], config["patch_size"], config["caption_channels"]
    bias = dim if config["attention_bias"] else 0
    attention = 4 * dim * dim + 3 * bias + dim + 2 * dim * dim + 2 * cross * dim + 3 * bias + dim
    norms = 4 * dim if config["norm_elementwise_affine"] else 0  # norm1, norm2 (norm3 counted below)
    norms += 2 * dim if config["norm_elementwise_affine"] else 0
    block = attention + 8 * dim * dim + 5 * dim + 6 * dim + norms
    ends = config["in_channels"] * patch**2 * dim + dim + dim * patch**2 * config["out_channels"]
    ends += patch**2 * config["out_channels"] + 2 * dim
    time_embedding = 256 * dim + dim + dim * dim + dim + 6 * dim * dim + 6 * dim
    captions = text * dim + dim + dim * dim + dim
    total: int = config["num_layers"] * block + ends + time_embedding + captions
    return total


def tokens(config: Mapping[str, Any], bucket: Bucket) -> int:
    """Video tokens of one clip: 79,200 for 88×720×1280."""
    t, h, w = bucket.latent
    patch, patch_t = int(config["patch_size"]), int(config["patch_size_t"])
    return t // patch_t * (h // patch) * (w // patch)


def forward_flops(config: Mapping[str, Any], bucket: Bucket, segmentation: Segmentation, text_tokens: int) -> float:
    """Operations (a multiplication and an addition count two) of one clip's forward pass: the linear layers and both
    attentions of all blocks; norms and embeddings of the ends are left out, under 1 %. text_tokens: per caption."""
    n, dim = tokens(config, bucket), config["num_attention_heads"] * config["attention_head_dim"]
    keys = segmentation.segments * text_tokens
    frames = bucket.latent[0]
    area = n // frames
    linear = 2 * dim * dim * (n * (4 + 2 + 8) + keys * 2)
    own = 4 * dim * n * n
    cross = sum(
        4 * dim * (w.end - w.start) * area * (w.last - w.first) * text_tokens for w in segmentation.windows(frames)
    )
    return float(config["num_layers"] * (linear + own + cross))


def step_flops(config: Mapping[str, Any], bucket: Bucket, segmentation: Segmentation, text_tokens: int) -> float:
    """Model operations of one clip's training step: forward and twice as much backward. What activation checkpointing
    computes again is not counted, so that MFU means what it means elsewhere (PaLM, appendix B)."""
    return 3 * forward_flops(config, bucket, segmentation, text_tokens)


def memory_bytes(
    config: Mapping[str, Any], bucket: Bucket, world: int, *, ema: bool, checkpointing: bool, precision: str
) -> dict[str, float]:
    """An estimate of a rank's memory, in bytes, by part.

    Sharded float32: weights, gradients, AdamW's two moments, the average. Activations: per block its input (with
    checkpointing) or some 34 values per token and channel (without; Korthikanti et al., arXiv 2205.05198), and the
    block in hand, with its weights gathered.
    """
    count, n = parameters(config), tokens(config, bucket) * bucket.micro_batch
    dim, layers = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]
    width = 2 if precision == "bf16" else 4
    block = count / layers
    inside = 17.0 * n * dim * width
    return {
        "weights": 4 * count / world,
        "gradients": 4 * count / world,
        "optimizer": 8 * count / world,
        "average": 4 * count / world if ema else 0.0,
        "gathered": 2 * block * width + block * 4,
        "activations": (layers * n * dim * width + inside) if checkpointing else layers * inside,
    }


def measured_peak(device: torch.device, precision: str) -> float:
    """Operations per second of a large matrix product on this device: the ceiling that MFU is a share of."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size, repeats = (8192, 20) if device.type == "cuda" else (768, 3)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def seconds() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / repeats

    return 2 * size**3 / min(seconds() for _ in range(3))
