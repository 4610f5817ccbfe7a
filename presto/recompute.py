"""Activation checkpointing: a block keeps its input, and its backward pass computes the rest again.

`selective` also keeps what self-attention gives. It is most of a block's work at full size (82 % at 88×720×1280) and small
to keep, so that a step costs 3.2 forward passes, not 4. Text attention gives as much and costs little: it is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

_ATTENTION = {
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
    if hasattr(torch.ops.aten, name)
}


def recompute(model: Any, which: Literal["all", "selective"]) -> None:
    """Let the blocks of an AllegroTransformer3DModel compute activations again, in place. Before sharding: weights are
    gathered once for a block's backward pass, and the second forward pass is within."""
    context: dict[str, Any] = {}
    if which == "selective":
        context["context_fn"] = partial(create_selective_checkpoint_contexts, _kept)
    for block in model.transformer_blocks:
        block.forward = _again(block.forward, context)


def _again(forward: Callable[..., Any], context: dict[str, Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **context, **kwargs)

    return run


def _kept(_: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Attention of the video to itself has as many keys as queries; text has other numbers."""
    if op in _ATTENTION and args[0].shape[-2] == args[1].shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
