"""What a step costs, against what torch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AllegroTransformer3DModel
from diffusers.models.transformers.transformer_allegro import AllegroTransformerBlock
from torch import Tensor

from longtake.presto.attention import segment
from longtake.presto.budget import (
    SAVED,
    adapter_parameters,
    encoder_memory,
    forward_flops,
    memory_bytes,
    nominal_peak,
    parameters,
    step_flops,
    stored_parameters,
)
from longtake.presto.config import Bucket, Encoding, Lora, Parallel
from longtake.presto.model import load_text_encoder, load_vae, rotary
from longtake.presto.segments import Segmentation
from longtake.presto.tiny import tiny_transformer
from tests.presto.made import config, dataset, row

PUBLISHED = Bucket(frames=88, height=720, width=1280)


def published() -> dict[str, Any]:
    with torch.device("meta"):
        return dict(AllegroTransformer3DModel().config)


def test_a_block_saves_what_the_budget_says() -> None:
    """Storages that autograd keeps for the backward pass, of a narrow block of the published kind, in bf16."""
    dim, frames, height, width = 192, 10, 24, 32
    block = AllegroTransformerBlock(
        dim,
        2,
        96,
        cross_attention_dim=dim,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
    ).bfloat16()
    holder = torch.nn.Module()
    holder.transformer_blocks = torch.nn.ModuleList([block])
    segment(holder, Segmentation())
    block.attn2.processor.frames = frames
    place = rotary(_Rotary(), frames, height, width)
    tokens = frames * height * width // 4
    x = torch.randn(1, tokens, dim).bfloat16().requires_grad_()
    text, mask = torch.randn(1, 40, dim).bfloat16(), torch.zeros(1, 1, 40).bfloat16()
    parameters_of = {p.untyped_storage()._cdata for p in block.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters_of:
            saved.setdefault(storage, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x, text, temb=torch.randn(1, 6 * dim).bfloat16(), encoder_attention_mask=mask, image_rotary_emb=place)
    # The tables of the rotary embedding have one width, which is the same for every model: for the published one they
    # are 1 %.
    wide = [t for t in saved.values() if not (t.dtype == torch.float32 and t.shape[-1] == 32)]
    values = sum(t.untyped_storage().nbytes() for t in wide) / 2 / (tokens * dim)
    assert values == pytest.approx(SAVED, rel=0.01)


class _Rotary:
    """What the rotary embedding asks of a configuration."""

    attention_head_dim, patch_size = 96, 2
    interpolation_scale_t, interpolation_scale_h, interpolation_scale_w = 2.2, 2.0, 2.0


def test_memory_counts_all_that_a_rank_holds(model: Path) -> None:
    shape = published()
    common: dict[str, Any] = {"ema": False, "checkpointing": True, "precision": "bf16", "captions": 5}
    encoded = memory_bytes(shape, PUBLISHED, 8, **common)
    assert encoded["gradients"] == encoded["weights"] == 4 * parameters(shape) / 8
    assert encoded["encoders"] == encoded["average"] == 0
    with torch.device("meta"):
        block = AllegroTransformerBlock(
            2304,
            24,
            96,
            cross_attention_dim=2304,
            activation_fn="gelu-approximate",
            attention_bias=True,
            norm_elementwise_affine=False,
        )
    assert encoded["gathered"] > sum(p.numel() for p in block.parameters()) * 8
    assert encoded["cast copies"] == 5 * 512 * (4096 + 2 * 2304) * 2
    whole = memory_bytes(shape, PUBLISHED, 8, **{**common, "checkpointing": False})
    assert whole["activations"] > 31 * SAVED * 79_200 * 2304 * 2
    encoders = encoder_memory(model, PUBLISHED, Encoding(), "bf16")
    in_loop = memory_bytes(shape, PUBLISHED, 8, **common, encoders=encoders)
    assert in_loop["encoders"] == encoders.weights > 0
    assert stored_parameters(model / "vae") == sum(p.numel() for p in load_vae(model).parameters())
    assert stored_parameters(model / "text_encoder") == sum(p.numel() for p in load_text_encoder(model)[1].parameters())


def test_memory_follows_how_ranks_share() -> None:
    """At 88×720×1280 on 16 ranks, each against the plain way."""
    shape, size = published(), 79_200 * 2304 * 2  # Bytes of the tokens of a clip.
    common: dict[str, Any] = {"ema": True, "precision": "bf16", "captions": 5}
    plain = memory_bytes(shape, PUBLISHED, 16, checkpointing=True, **common)
    selective = memory_bytes(shape, PUBLISHED, 16, checkpointing="selective", **common)
    assert selective["activations"] - plain["activations"] == 32 * size
    four = memory_bytes(shape, PUBLISHED, 16, checkpointing=True, parallel=Parallel(sequence=4), **common)
    assert four["activations"] == pytest.approx(plain["activations"] / 4, rel=0.03)
    assert four["optimizer"] == plain["optimizer"]
    copies = memory_bytes(shape, PUBLISHED, 16, checkpointing=True, parallel=Parallel(replicas=2), **common)
    assert copies["optimizer"] == 2 * plain["optimizer"]
    last = memory_bytes(shape, PUBLISHED, 16, checkpointing=True, accumulates=True, **common)
    assert last["gradients"] - plain["gradients"] == 4 * parameters(shape)
    each = Parallel(reduction="each")
    assert memory_bytes(shape, PUBLISHED, 16, checkpointing=True, accumulates=True, parallel=each, **common) == plain
    lora = Lora(rank=16)
    adapted = memory_bytes(shape, PUBLISHED, 16, checkpointing=True, lora=lora, **common)
    # 32 blocks of eight layers of 2304 inputs and outputs.
    assert adapted["optimizer"] == 8 * (32 * 8 * 16 * 2 * 2304) / 16
    assert adapted["weights"] == plain["weights"]


def test_adapters_are_counted_as_peft_makes_them() -> None:
    pytest.importorskip("peft")
    from longtake.presto.adapter import adapt, adapters

    model = tiny_transformer()
    lora = Lora(rank=3, targets=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"))
    adapt(model, lora)
    made = sum(tensor.numel() for tensor in adapters(model).values())
    assert adapter_parameters(dict(model.config), lora) == made


def test_operations_of_a_step() -> None:
    """Selective recomputation spares self-attention: 3.2 forward passes of operations and not 4, as documented."""
    shape, segmentation = published(), Segmentation()
    forward = forward_flops(shape, PUBLISHED, segmentation, 512)
    assert step_flops(shape, PUBLISHED, segmentation, 512) == pytest.approx(3 * forward, rel=1e-12)
    own = 32 * 4 * 2304 * 79_200**2
    assert own / forward == pytest.approx(0.82, abs=0.01)
    assert 4 - own / forward == pytest.approx(3.2, abs=0.03)
    adapted = step_flops(shape, PUBLISHED, segmentation, 512, adapters=True)
    assert own < adapted / 3 < forward


def test_a_dry_run_counts_encoders_where_they_are_needed(model: Path, tmp_path: Path) -> None:
    from longtake.presto.prepare import Run, describe, prepare

    data = dataset(tmp_path / "data", [row(i, tmp_path / "data") for i in range(4)])
    run = Run(config(), model, data, tmp_path / "run")
    assert "encoders" in describe(run, prepare(run), 1)


def test_nominal_peaks_are_found_by_name() -> None:
    assert nominal_peak("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12
    assert nominal_peak("NVIDIA H100 PCIe", "bf16") == 756e12
    assert nominal_peak("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert nominal_peak("NVIDIA H200", "bf16") == 989.4e12
    assert nominal_peak("NVIDIA GeForce RTX 3060", "bf16") is None
    assert nominal_peak("", "bf16") is None
