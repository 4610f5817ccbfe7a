"""Ranks, devices and sharding. The model knows nothing of this (FSDP2: one `fully_shard` per block, one for the rest)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

_CAST = ("hidden_states", "encoder_hidden_states", "encoder_attention_mask")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        dist.all_reduce(values)
        return values


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The process group: one that is there already (Ray Train), torchrun's, else of this process alone."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    ours = not dist.is_initialized()
    if cuda:
        if not ours:
            device = torch.device("cuda", torch.cuda.current_device())  # Ray Train has chosen it
        torch.cuda.set_device(device)
    if ours:
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if ours:
            dist.destroy_process_group()


def shard(model: Any, found: Ranks, precision: str) -> None:
    """Shard an AllegroTransformer3DModel over all ranks, in place: master weights, gradients and their reduction are
    float32; forward and backward run in `precision`. Gradients are summed, not averaged, so that the loss alone says
    how clips are weighed."""
    mesh = init_device_mesh(found.device.type, (found.world,))
    compute = torch.bfloat16 if precision == "bf16" else torch.float32
    # inputs are cast by hand: the tables of the rotary embedding must stay float32
    same: dict[str, Any] = {"param_dtype": compute, "reduce_dtype": torch.float32, "cast_forward_inputs": False}
    inside, outside = MixedPrecisionPolicy(**same), MixedPrecisionPolicy(**same, output_dtype=torch.float32)
    for block in model.transformer_blocks:
        fully_shard(block, mesh=mesh, mp_policy=inside)
    fully_shard(model, mesh=mesh, mp_policy=outside)
    for module in (*model.transformer_blocks, model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)

    def cast(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = {k: v.to(compute) if k in _CAST and isinstance(v, Tensor) else v for k, v in kwargs.items()}
        return args, kwargs

    model.register_forward_pre_hook(cast, with_kwargs=True)


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def clip_gradients(model: nn.Module, largest: float, found: Ranks) -> float:
    """Scale gradients so that their norm is at most `largest`; the norm before.

    Squares are added up in float64, so that the norm, rounded to float32, is the same for any number of ranks: the last
    bit of it would otherwise part a resumed run from one that was never stopped.
    """
    gradients = [local(p.grad) for p in model.parameters() if p.grad is not None]
    squares = [torch.linalg.vector_norm(g, dtype=torch.float64).square() for g in gradients]
    total = found.sum(torch.stack(squares).sum())
    norm = total.sqrt().float()
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    return float(norm)
