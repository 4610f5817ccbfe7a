"""Captions to embeddings by Allegro's T5 encoder. Ragged: what is stored and moved is as long as the captions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_TOKENS = 512
_ROUND = 64  # padded lengths come in few sizes, so that compiled code and memory are used again


@torch.no_grad()
def encode_captions(tokenizer: Any, encoder: Any, captions: Sequence[str]) -> list[Tensor]:
    """One (tokens, D) tensor per caption, in the encoder's dtype, on its device; at most 512 tokens.

    Captions are lowered and stripped, which is what AllegroPipeline does with `clean_caption=False`; an empty one is
    the null caption and has one token, the end of the sequence.
    """
    texts = [caption.lower().strip() for caption in captions]
    tokens = tokenizer(
        texts, padding=True, truncation=True, max_length=MAX_TOKENS, add_special_tokens=True, return_tensors="pt"
    ).to(encoder.device)
    found = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    lengths = tokens.attention_mask.sum(1).tolist()
    return [embedding[:length].clone() for embedding, length in zip(found, lengths, strict=True)]


def pad_captions(clips: Sequence[Sequence[Tensor]], length: int | None = None) -> tuple[Tensor, Tensor]:
    """(B, N·L, D) embeddings and (B, N·L) mask, 1 for tokens and 0 for padding, of N ragged captions for each clip.

    L: `length`, or the longest caption's, rounded up to a multiple of 64. Padding has no weight in the attention.
    """
    longest = max(len(caption) for clip in clips for caption in clip)
    size = length or -(-longest // _ROUND) * _ROUND
    width = clips[0][0].shape[-1]
    text = torch.zeros(len(clips), len(clips[0]), size, width, dtype=clips[0][0].dtype, device=clips[0][0].device)
    mask = torch.zeros(text.shape[:3], device=text.device)
    for i, clip in enumerate(clips):
        for j, caption in enumerate(clip):
            text[i, j, : len(caption)] = caption
            mask[i, j, : len(caption)] = 1
    return text.flatten(1, 2), mask.flatten(1, 2)
