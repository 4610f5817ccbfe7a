"""Captions to embeddings by Allegro's T5 encoder. Ragged: what is stored and moved is as long as the captions are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longtake.presto.errors import PrestoError

MAX_TOKENS = 512
_ROUND = 64  # Tokens. Padded lengths are multiples of it, so that compiled code and memory are used again.


MOST_UNKNOWN = 0.01  # Share of tokens that the tokenizer may not know: what it does not know is lost to the model.
_LOOKED_AT = 2000  # Captions of a dataset that are looked at for unknown tokens: enough for a share of 1 %, in seconds.


def prepared(captions: Sequence[str], *, clean: bool) -> list[str]:
    """Captions as the tokenizer takes them. clean: by AllegroPipeline's own `_clean_caption`, twice, as the released
    trainer and sampler do; else lower-cased and stripped, as AllegroPipeline does with `clean_caption=False`."""
    if not clean:
        return [caption.lower().strip() for caption in captions]
    import bs4  # noqa: F401 - diffusers would leave captions as they are where these two are missing, and only warn
    import ftfy  # noqa: F401
    from diffusers import AllegroPipeline

    def cleaned(caption: str) -> str:
        text: str = AllegroPipeline._clean_caption(AllegroPipeline, caption)
        return text

    return [cleaned(cleaned(caption)) for caption in captions]


def require_known(tokenizer: Any, captions: Sequence[str], *, clean: bool, where: str) -> None:
    """Raises PrestoError if more than 1 % of the captions' tokens are unknown to the tokenizer, naming `where` they are
    from. Of many captions, 2000 evenly spaced ones are looked at."""
    step = -(-len(captions) // _LOOKED_AT) or 1
    texts = prepared([caption for caption in captions[::step] if caption], clean=clean)
    if not texts:
        return
    rows = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    unknown = [sum(token == tokenizer.unk_token_id for token in row) for row in rows]
    total = sum(map(len, rows))
    if sum(unknown) > MOST_UNKNOWN * total:
        worst = max(range(len(texts)), key=lambda i: unknown[i] / max(1, len(rows[i])))
        raise PrestoError(
            f"{where}: {sum(unknown)} of {total} tokens are unknown to the tokenizer, more than {MOST_UNKNOWN:.0%}; for "
            f"example in {texts[worst][:80]!r}. Look at the language and the signs of the captions, and whether the "
            "tokenizer is the model's own"
        )


@torch.no_grad()
def encode_captions(tokenizer: Any, encoder: Any, captions: Sequence[str], *, clean: bool) -> list[Tensor]:
    """One (tokens, D) tensor per caption, in the encoder's dtype, on its device; at most 512 tokens.

    clean: see `prepared`. An empty caption is the null caption and has one token, the end of the sequence.
    """
    tokens = tokenizer(
        prepared(captions, clean=clean),
        padding=True,
        truncation=True,
        max_length=MAX_TOKENS,
        add_special_tokens=True,
        return_tensors="pt",
    ).to(encoder.device)
    embeddings = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    lengths = tokens.attention_mask.sum(1).tolist()
    return [embedding[:length].clone() for embedding, length in zip(embeddings, lengths, strict=True)]


def pad_captions(clips: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """(B, N·L, D) embeddings and (B, N·L) mask, 1 for tokens and 0 for padding, of N ragged captions for each clip.

    L: the longest caption's length, rounded up to a multiple of 64. Padding has no weight in the attention.
    """
    longest = max(len(caption) for clip in clips for caption in clip)
    size = -(-longest // _ROUND) * _ROUND
    width = clips[0][0].shape[-1]
    text = torch.zeros(len(clips), len(clips[0]), size, width, dtype=clips[0][0].dtype, device=clips[0][0].device)
    mask = torch.zeros(text.shape[:3], device=text.device)
    for i, clip in enumerate(clips):
        for j, caption in enumerate(clip):
            text[i, j, : len(caption)] = caption
            mask[i, j, : len(caption)] = 1
    return text.flatten(1, 2), mask.flatten(1, 2)
