"""Segmented cross-attention as an attention processor of diffusers' Allegro: no parameter is added or renamed.

Text goes in as `(B, N·L, D)` with a mask `(B, N·L)`: N captions of L tokens each, one after the other. Tokens of the
video are (t h w), row-major, so a segment of latent frames is a contiguous slice of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtake.presto.errors import PrestoError
from longtake.presto.segments import Segmentation


class SegmentedAttnProcessor:
    """In the place of AllegroAttnProcessor2_0 in each block's `attn2`. One for all blocks: `segment` makes it.

    frames: latent frames of the video in hand; `segment` sees to it that the model's every forward sets it. part, parts:
    the tokens that come are part number `part`, from 0, of as many equal parts of the video's; all of them unless told.
    """

    def __init__(self, segmentation: Segmentation) -> None:
        self.segmentation = segmentation
        self.frames = 0
        self.part, self.parts = 0, 1

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor:
        """hidden_states (B, T·h·w / parts, C), encoder_hidden_states (B, N·L, C), attention_mask (B, 1, N·L), a bias → as
        hidden_states. Attention is scaled dot-product attention per window; overlapping windows are averaged before
        the output projection, which is affine, so that the mean is the same and the projection is done once."""
        count = self.segmentation.segments
        tokens, keys = hidden_states.shape[1], encoder_hidden_states.shape[1]
        if keys % count:
            raise PrestoError(f"text of {keys} tokens is not {count} captions of one length")
        area, length = tokens * self.parts // self.frames, keys // count
        first = self.part * tokens
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        )
        bias = None if attention_mask is None else attention_mask.to(q.dtype).unsqueeze(1)  # (B, 1, 1, N·L)
        # For each window: the tokens [start, end) of this call that it holds, counted from the first one, and their
        # attention to the window's texts.
        parts: list[tuple[int, int, Tensor]] = []
        for window in self.segmentation.windows(self.frames):
            start, end = max(0, window.start * area - first), min(tokens, window.end * area - first)
            if start >= end:
                continue
            texts = slice(window.first * length, window.last * length)
            mask = None if bias is None else bias[..., texts]
            attended = F.scaled_dot_product_attention(
                q[:, :, start:end], k[:, :, texts], v[:, :, texts], attn_mask=mask
            )
            parts.append((start, end, attended))
        # Between neighbouring edges the same windows hold every token. Their mean is taken for that stretch, and no
        # buffer of the whole length is written twice.
        edges = sorted({edge for start, end, _ in parts for edge in (start, end)})
        pieces = []
        for a, b in pairwise(edges):
            over = [part[:, :, a - start : b - start] for start, end, part in parts if start <= a and b <= end]
            pieces.append(over[0] if len(over) == 1 else sum(over[1:], over[0]) / len(over))
        out = torch.cat(pieces, dim=2).transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))  # The two layers are projection and dropout.
        result: Tensor = out / attn.rescale_output_factor
        return result


def segment(model: nn.Module, segmentation: Segmentation) -> None:
    """Give the blocks of an AllegroTransformer3DModel segmented cross-attention, in place."""
    processor = SegmentedAttnProcessor(segmentation)
    for block in model.transformer_blocks:  # type: ignore[union-attr]
        block.attn2.set_processor(processor)
    model.segmentation = segmentation  # type: ignore[assignment]
    if not hasattr(model, "_set_frames"):
        model._set_frames = model.register_forward_pre_hook(_set_frames, with_kwargs=True)  # type: ignore[assignment]


def _set_frames(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    video = args[0] if args else kwargs["hidden_states"]
    model.transformer_blocks[0].attn2.processor.frames = video.shape[2] // model.config.patch_size_t


def segmentation_of(model: nn.Module) -> Segmentation | None:
    """The segmentation that `segment` gave a model; None: the plain model."""
    segmentation = getattr(model, "segmentation", None)
    return segmentation if isinstance(segmentation, Segmentation) else None
