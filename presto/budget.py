"""What a step costs: floating-point operations and memory, from the shape of the model and of the video."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from longtake.presto.config import Bucket, Encoding, Lora, Parallel
from longtake.presto.errors import PrestoError
from longtake.presto.segments import Segmentation
from longtake.presto.text import MAX_TOKENS
from longtake.presto.vae import tiles

# Values that a block saves for its backward pass, per video token and channel, in the precision of the passes. Counted by
# torch's hooks on a block of the published kind with overlapped attention: 25.9 (tests/presto/test_budget.py).
SAVED = 26.0
# Dense bf16, TFLOP/s, of the makers' data sheets; the first that fits a name counts.
NOMINAL = {
    "A100": 312.0,
    "L40S": 362.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "H200": 989.4,
    "B200": 2250.0,
}


def parameters(config: Mapping[str, Any]) -> int:
    """Parameters of an AllegroTransformer3DModel by its config.json; 2.77 B for the published one."""
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    cross, patch, text = config["cross_attention_dim"], config["patch_size"], config["caption_channels"]
    bias = dim if config["attention_bias"] else 0
    attention = 4 * dim * dim + 3 * bias + dim + 2 * dim * dim + 2 * cross * dim + 3 * bias + dim
    norms = 4 * dim if config["norm_elementwise_affine"] else 0  # These are norm1 and norm2; norm3 is counted below.
    norms += 2 * dim if config["norm_elementwise_affine"] else 0
    block = attention + 8 * dim * dim + 5 * dim + 6 * dim + norms
    ends = config["in_channels"] * patch**2 * dim + dim + dim * patch**2 * config["out_channels"]
    ends += patch**2 * config["out_channels"] + 2 * dim
    time_embedding = 256 * dim + dim + dim * dim + dim + 6 * dim * dim + 6 * dim
    captions = text * dim + dim + dim * dim + dim
    total: int = config["num_layers"] * block + ends + time_embedding + captions
    return total


def adapter_parameters(config: Mapping[str, Any], lora: Lora) -> int:
    """Parameters of a model's adapters: each layer of `width` inputs and outputs has 2 · rank · width."""
    dim, cross = config["num_attention_heads"] * config["attention_head_dim"], config["cross_attention_dim"]
    layers = {
        f"{attention}.{name}": (cross if attention == "attn2" and name in ("to_k", "to_v") else dim) + dim
        for attention in ("attn1", "attn2")
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    }
    layers |= {"ff.net.0.proj": 5 * dim, "ff.net.2": 5 * dim}
    chosen = [sides for name, sides in layers.items() if any(name.endswith(target) for target in lora.targets)]
    total: int = config["num_layers"] * lora.rank * sum(chosen)
    return total


def tokens(config: Mapping[str, Any], bucket: Bucket) -> int:
    """Video tokens of one clip: 79,200 for 88×720×1280."""
    t, h, w = bucket.latent
    patch, patch_t = int(config["patch_size"]), int(config["patch_size_t"])
    return t // patch_t * (h // patch) * (w // patch)


def forward_flops(config: Mapping[str, Any], bucket: Bucket, segmentation: Segmentation, text_tokens: int) -> float:
    """Operations (a multiplication and an addition count two) of one clip's forward pass: the linear layers and both
    attentions of all blocks; norms and embeddings of the ends are left out, under 1 %. text_tokens: per caption."""
    return sum(_operations(config, bucket, segmentation, text_tokens))


def _operations(
    config: Mapping[str, Any], bucket: Bucket, segmentation: Segmentation, text_tokens: int
) -> tuple[float, float]:
    """(of linear layers, of attention)."""
    n, dim = tokens(config, bucket), config["num_attention_heads"] * config["attention_head_dim"]
    keys = segmentation.segments * text_tokens
    frames = bucket.latent[0]
    area = n // frames
    linear = 2 * dim * dim * (n * (4 + 2 + 8) + keys * 2)
    own = 4 * dim * n * n
    cross = sum(
        4 * dim * (w.end - w.start) * area * (w.last - w.first) * text_tokens for w in segmentation.windows(frames)
    )
    return float(config["num_layers"] * linear), float(config["num_layers"] * (own + cross))


def step_flops(
    config: Mapping[str, Any],
    bucket: Bucket,
    segmentation: Segmentation,
    text_tokens: int,
    *,
    adapters: bool = False,
) -> float:
    """Model operations of one clip's training step: forward and twice as much backward. What activation checkpointing
    computes again is not counted, so that MFU means what it means elsewhere (PaLM, appendix B). adapters: they alone are
    trained, so that linear layers have no gradients of their weights to compute; their own few operations do not count."""
    linear, attention = _operations(config, bucket, segmentation, text_tokens)
    return (2 if adapters else 3) * linear + 3 * attention


def memory_bytes(
    config: Mapping[str, Any],
    bucket: Bucket,
    world: int,
    *,
    ema: bool,
    checkpointing: bool | Literal["selective"],
    precision: str,
    captions: int,
    encoders: Encoders | None = None,
    parallel: Parallel = Parallel(),  # noqa: B008 - it is frozen
    accumulates: bool = False,
    lora: Lora | None = None,
) -> dict[str, float]:
    """An estimate of a rank's memory at its fullest, in bytes, by part. captions: per clip. encoders: of clips that are
    encoded in the loop; None: they were encoded before. accumulates: a step has several micro-batches on a rank.

    Sharded float32: weights, gradients, AdamW's two moments, the average; and where gradients are reduced at the last of
    several micro-batches (parallel.reduction), a whole gradient. Where adapters are trained, all but the weights are of
    them alone. Gathered, in the precision of the passes: two blocks (FSDP fetches the next), what is no block; besides one
    block's gradients, with their float32 copy that is reduced. Cast copies: the text, as it comes and projected.
    Activations: each block's input (with checkpointing; selective: also what its self-attention gives) or all that it
    saves, one block computed again, and the gradients in its feed-forward layer. Encoders come before the passes, so the
    VAE's tile and the activations do not meet.
    """
    count, n = parameters(config), tokens(config, bucket) * bucket.micro_batch // parallel.sequence
    shards, whole = world // parallel.replicas, accumulates and parallel.reduction == "last"
    dim, layers = config["num_attention_heads"] * config["attention_head_dim"], config["num_layers"]
    width = 2 if precision == "bf16" else 4
    ends = parameters({**config, "num_layers": 0})
    block = (count - ends) / layers
    keys = captions * MAX_TOKENS * bucket.micro_batch
    saved = (SAVED * n + 2 * keys) * dim * width  # Each block saves its keys and values of the text.
    again = saved + 2 * 4 * n * dim * width
    kept = n * dim * width * (2 if checkpointing == "selective" else 1)  # The input, and what self-attention gives.
    activations = layers * kept + again if checkpointing else layers * saved + 2 * 4 * n * dim * width
    trained = count if lora is None else adapter_parameters(config, lora)
    return {
        "weights": 4 * count / shards,
        "gradients": 4 * trained / shards + (4 * trained if whole else 0),
        "optimizer": 8 * trained / shards,
        "average": 4 * trained / shards if ema else 0.0,
        "gathered": (2 * block + ends) * width + block * (width + 4),
        "cast copies": keys * (config["caption_channels"] + 2 * dim) * width,
        "encoders": encoders.weights if encoders else 0.0,
        "activations": max(activations, encoders.tile if encoders else 0.0),
    }


@dataclass(frozen=True, slots=True)
class Encoders:
    """Memory of VAE and text encoder, bytes. weights: of both; tile: what the VAE holds while it encodes a tile."""

    weights: float
    tile: float


def encoder_memory(model: Path, bucket: Bucket, encoding: Encoding, precision: str) -> Encoders:
    """Of a model folder's encoders in the training loop, from the heads of their files. Raises PrestoError."""
    path = model / "vae" / "config.json"
    try:
        vae = json.loads(path.read_text(encoding="utf-8"))
        side, channels = int(vae["sample_size"]), int(vae["block_out_channels"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PrestoError(f"{path} says no sample_size and block_out_channels: {error}") from error
    width = 2 if encoding.vae_precision == "bf16" else 4
    weights = width * stored_parameters(model / "vae")
    weights += (2 if precision == "bf16" else 4) * stored_parameters(model / "text_encoder")
    # The first block works at full size; three of its maps are there at once: its input, a normed copy and its output.
    kernel, _ = tiles(side, (bucket.frames, bucket.height, bucket.width))
    return Encoders(float(weights), 3.0 * math.prod(kernel) * channels * width)


def stored_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a folder. Raises PrestoError."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with open(path, "rb") as file:
                head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            total += sum(math.prod(about["shape"]) for name, about in head.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise PrestoError(f"{path} is no safetensors file: {error}") from error
    return total


def nominal_peak(device: str, precision: str) -> float | None:
    """Operations per second that the maker of a GPU states for dense products, which papers give MFU against; None for a
    device that is not listed. device: as torch.cuda.get_device_name tells. Of float32, TF32's rate, which is half."""
    for name, teraflops in NOMINAL.items():
        if all(word in device.replace("-", " ").split() for word in name.split()):
            return teraflops * 1e12 * (1.0 if precision == "bf16" else 0.5)
    return None


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
