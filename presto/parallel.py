"""Ranks, devices and sharding. The model knows nothing of this (FSDP2: one `fully_shard` per block, one for the rest).

Ranks are numbered so that neighbours share a clip's tokens (longtake.presto.sequence), which is most of what is sent; then come
the shards of one copy of the model, and then its copies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from longtake.presto.config import Parallel

# Types of the forward and backward passes.
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
_CAST = ("hidden_states", "encoder_hidden_states", "encoder_attention_mask")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others. parallel: how they share the work; see longtake.presto.config. sharers: those that share
    a clip's tokens with this rank, if it is not alone."""

    rank: int
    world: int
    device: torch.device
    parallel: Parallel = Parallel()  # noqa: RUF009 - it is frozen
    sharers: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def groups(self) -> int:
        """Groups of ranks that each take clips of their own; the ranks of one share its clips' tokens."""
        return self.world // self.parallel.sequence

    @property
    def group(self) -> int:
        """The number of this rank's group."""
        return self.rank // self.parallel.sequence

    @property
    def speaks(self) -> bool:
        """Whether this rank is the first of its group: what all of them know is counted once."""
        return self.rank % self.parallel.sequence == 0

    @property
    def counts(self) -> bool:
        """Whether this rank's shards are of the model's first copy."""
        return self.rank < self.world // self.parallel.replicas

    def sharing(self, parallel: Parallel) -> Ranks:
        """These ranks, sharing the work so; all of them call it. Raises PrestoError if they cannot be divided like that."""
        parallel.require_world(self.world)
        if parallel.sequence == 1:
            return replace(self, parallel=parallel)
        shape = (self.world // parallel.sequence, parallel.sequence)
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=("groups", "sequence"))
        return replace(self, parallel=parallel, sharers=mesh["sequence"].get_group())

    def agreed(self, weight: Tensor) -> Tensor:
        """Weights of clips, 0 of those that some rank of this one's group could not read: then no rank takes them."""
        if self.sharers is not None:
            dist.all_reduce(weight, dist.ReduceOp.MIN, self.sharers)
        return weight

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
            device = torch.device("cuda", torch.cuda.current_device())  # Ray Train has chosen the device.
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


def master_dtype(precision: str) -> torch.dtype:
    """Of weights, gradients and their reduction, where forward and backward run in `precision`: float32 at least."""
    return torch.promote_types(DTYPES[precision], torch.float32)


def shard(model: Any, ranks: Ranks, precision: str) -> None:
    """Shard an AllegroTransformer3DModel over all ranks, or over those of each copy, in place: master weights, gradients
    and their reduction are float32 (or float64, as the passes are); forward and backward run in `precision`. Gradients are
    summed, not averaged, so that the loss alone says how clips are weighed."""
    replicas = ranks.parallel.replicas
    mesh = init_device_mesh(
        ranks.device.type, (replicas, ranks.world // replicas), mesh_dim_names=("replicas", "shards")
    )
    mesh = mesh if replicas > 1 else mesh["shards"]
    compute, master = DTYPES[precision], master_dtype(precision)
    # Inputs are cast by hand, since the tables of the rotary embedding must stay float32.
    same: dict[str, Any] = {"param_dtype": compute, "reduce_dtype": master, "cast_forward_inputs": False}
    inside, outside = MixedPrecisionPolicy(**same), MixedPrecisionPolicy(**same, output_dtype=master)
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


def reduce_gradients(model: Any, wanted: bool) -> None:
    """Whether the backward passes from now on sum gradients over the ranks. Until one does, each rank keeps a whole
    gradient of its own."""
    model.set_requires_gradient_sync(wanted)


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def clip_gradients(model: nn.Module, largest: float, ranks: Ranks) -> float:
    """Scale gradients so that their norm is at most `largest`; the norm before.

    Squares are added up in float64, so that the norm, rounded as gradients are, is the same for any number of ranks: the
    last bit of it would otherwise part a resumed run from one that was never stopped.
    """
    gradients = [local(p.grad) for p in model.parameters() if p.grad is not None]
    squares = [torch.linalg.vector_norm(g, dtype=torch.float64).square() for g in gradients]
    total = ranks.sum(torch.stack(squares).sum() * float(ranks.counts))
    norm = total.sqrt()
    norm = norm if gradients[0].dtype == torch.float64 else norm.float()
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    return float(norm)
