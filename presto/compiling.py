"""Compiled blocks of a transformer."""

from __future__ import annotations

from typing import Any

import torch

# A fusion of sums over the tokens of a block with sums over its channels, which torch 2.11 computes wrong: the gradients of the
# scales and shifts are then off by more than they are long, or not finite, with any kind of attention, recomputed or not, sharded
# or not (measured on an H100; docs/measured.md).
FUSED_WRONG = "triton.mix_order_reduction"


def compile_blocks(model: Any) -> None:
    """Let the blocks of an AllegroTransformer3DModel be compiled at their first call, in place."""
    known = FUSED_WRONG in torch._inductor.list_options()
    options = {FUSED_WRONG: False} if known else {}
    for block in model.transformer_blocks:
        block.compile(options=options)
