"""Sequence parallelism: the ranks of a group share the video tokens of a clip (Ulysses, arXiv 2309.14509).

Each rank holds an equal part of the tokens, one after the other. All of a block works on tokens by themselves, but for the
self-attention: for it the parts are exchanged, so that each rank has all tokens of some of the heads, and back. Text
attention needs no exchange: a rank's tokens attend to those captions whose windows they lie in (longtake.presto.attention).
Everything is put onto a model from outside, by hooks and an attention processor; weights and their names stay as they are.

The loss is computed by each rank of the group from the whole prediction. So a rank's own part of the prediction's gradient is
all of the gradient that its tokens have, and each weight's gradient is the sum over the group, which FSDP takes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single_autograd

Group = dist.ProcessGroup


def share_tokens(model: Any, group: Group) -> None:
    """Let the ranks of `group` share the tokens of each clip that an AllegroTransformer3DModel with segmented attention is
    given, in place: all of them are given the same clips, and all get the whole prediction. Heads and tokens must be
    multiples of the group's size."""
    ranks, rank = group.size(), group.rank()
    text = model.transformer_blocks[0].attn2.processor  # One for all blocks.
    text.part, text.parts = rank, ranks
    video = SharedAttnProcessor(group)
    for block in model.transformer_blocks:
        block.attn1.set_processor(video)

    def keep_part(_: Any, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        """(B·T, h·w, C) → (B, tokens of this rank, C), which the model then takes for the whole."""
        return embedded.reshape(-1, text.frames * embedded.shape[1], embedded.shape[2]).chunk(ranks, 1)[rank]

    def gather(_: Any, args: tuple[Any, ...], projected: Tensor) -> Tensor:
        """(B, tokens of this rank, C) → (B, tokens, C)."""
        whole: Tensor = _Gather.apply(projected, group)
        return whole

    model.pos_embed.register_forward_hook(keep_part)
    model.proj_out.register_forward_hook(gather)


class SharedAttnProcessor:
    """In the place of AllegroAttnProcessor2_0 in each block's `attn1`, on a part of the tokens."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor:
        """hidden_states (B, n/S, C) → the same; image_rotary_emb: of all n tokens."""
        from diffusers.models.embeddings import apply_rotary_emb_allegro

        parts = [
            projection(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        ]
        q, k, v = heads_for_tokens(torch.cat(parts), self.group).chunk(3)  # Shape of each: (B, H/S, n, d).
        q, k = (apply_rotary_emb_allegro(x, *image_rotary_emb) for x in (q, k))
        out = tokens_for_heads(F.scaled_dot_product_attention(q, k, v), self.group)  # (B, H, n/S, d)
        # The two layers are projection and dropout.
        out = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        result: Tensor = out / attn.rescale_output_factor
        return result


def heads_for_tokens(x: Tensor, group: Group) -> Tensor:
    """(B, H, n/S, d), some tokens of all heads → (B, H/S, n, d), all tokens of some heads."""
    batch, _, tokens, width = x.shape
    sent = x.reshape(batch, group.size(), -1, tokens, width).movedim(1, 0)  # (S, B, H/S, n/S, d)
    return _exchange(sent, group).movedim(0, 2).flatten(2, 3)


def tokens_for_heads(x: Tensor, group: Group) -> Tensor:
    """(B, H/S, n, d) → (B, H, n/S, d): the way back."""
    batch, heads, _, width = x.shape
    sent = x.reshape(batch, heads, group.size(), -1, width).movedim(2, 0)  # (S, B, H/S, n/S, d)
    return _exchange(sent, group).movedim(0, 1).flatten(1, 2)


def _exchange(x: Tensor, group: Group) -> Tensor:
    """Piece i of the first dimension goes to rank i, and the pieces that come are in the order of the ranks."""
    received: Tensor = all_to_all_single_autograd(x.contiguous(), None, None, group)
    return received


class _Gather(torch.autograd.Function):
    """The parts of all ranks, one after the other (B, n/S, C) → (B, n, C); backward keeps this rank's part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.place = group.rank(), group.size()
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(group.size())]
        dist.all_gather(parts, x.contiguous(), group)
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rank, ranks = ctx.place
        return gradient.chunk(ranks, 1)[rank], None
