"""Alignment: whether each sub-caption describes its own keyframe, by CLIP.

Unit: cosine in [-1, 1], higher is more alike; captions and pictures that belong together lie near 0.2 to 0.35. Detail: one
value per sub-caption and keyframe, in order, so that two captions that are swapped show as two low values. Formula: cos(t_i,
v_i), with t the text embedding of CLIP, computed in float32, and v the image embedding of keyframe i that the aesthetic filter
keeps, stored in float16. Source: CLIPScore (Hessel et al., arXiv 2104.08718) without its factor of 2.5 and without cutting off
below 0; openai/CLIP through open_clip. CLIP reads 77 tokens: of a longer sub-caption (some 55 words) its beginning counts.

The recipe must have the filter aesthetic, whose CLIP it is. A clip without keyframe embeddings (its aesthetic score is older
than they are) has no alignment: the score is not known, and a gate stays undecided.
Protocol: `clip/ViT-L-14@…,text77,images ViT-L-14@…,center224/mean`: the text encoder, and how the pictures were embedded.
Cost: five texts through CLIP's text encoder; not measured here, since no weights of a text encoder can be had without a network.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.aesthetic import Aesthetic, normalised
from longtake.filters.base import (
    Captioned,
    Filter,
    FilterSettings,
    FilterUnavailable,
    MeasureError,
    Needs,
    Score,
)
from longtake.filters.batches import inference, torch_device
from longtake.filters.weights import fill, load_weight, weight_tag

CONTEXT = 77  # Tokens that CLIP reads.
BATCH = 64  # Texts per forward pass.


class AlignmentSettings(FilterSettings):
    """Where the text encoder runs."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"device"})

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the model runs; `auto`: CUDA where torch sees it"
    )


class Alignment(Filter[Captioned]):
    """Cosine of each sub-caption with its keyframe, in CLIP's space."""

    name: ClassVar[str] = "alignment"
    backend: ClassVar[str] = "clip"
    unit: ClassVar[str] = "cosine"
    needs: ClassVar[Needs] = Needs.CAPTIONS
    cost: ClassVar[float] = 500.0
    reads_embeddings: ClassVar[bool] = True
    settings_model: ClassVar[type[FilterSettings]] = AlignmentSettings

    settings: AlignmentSettings
    embedded_by: Aesthetic  # The filter that embedded the keyframes; a recipe sets its own.

    def __init__(self, /, **settings: Any) -> None:
        super().__init__(**settings)
        self.embedded_by = Aesthetic()

    @property
    def method(self) -> str:
        images = self.embedded_by
        return f"{images.clip}@{weight_tag(images.weights[0])},text{CONTEXT},images {images.embedding_method}"

    def measure(self, items: Sequence[Captioned]) -> list[Score | MeasureError]:
        """One score per clip, in order; all texts go through the encoder together, each distinct one once."""
        texts = list(dict.fromkeys(text for item in items if item.embeddings is not None for text in item.texts))
        rows = dict(zip(texts, self._embed(texts), strict=True)) if texts else {}
        return [self._one(item, rows) for item in items]

    def _one(self, item: Captioned, rows: dict[str, npt.NDArray[np.float32]]) -> Score | MeasureError:
        if item.embeddings is None or len(item.embeddings) != len(item.texts):
            return Score(math.nan, (-1.0,) * len(item.texts))
        try:
            pictures = normalised(item.embeddings)
            said = normalised(np.stack([rows[text] for text in item.texts]))
            return self.reduced(np.clip((pictures * said).sum(axis=1), -1.0, 1.0))
        except (MeasureError, ValueError) as error:
            return MeasureError(str(error))

    def _embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), dim], not normalised."""
        model, tokenizer, device = self._model
        parts = []
        for start in range(0, len(texts), BATCH):
            with inference(device, "float32"):
                tokens = tokenizer(texts[start : start + BATCH]).to(device)
                parts.append(model.encode_text(tokens).float().cpu().numpy())
        return np.concatenate(parts)

    @cached_property
    def _model(self) -> tuple[Any, Any, Any]:
        try:
            open_clip: Any = importlib.import_module("open_clip")
        except ImportError as error:
            raise FilterUnavailable("open_clip is missing: pip install 'longtake[models]'") from error
        import torch

        clip, name = self.embedded_by.clip, self.embedded_by.weights[0]
        device = torch_device(self.settings.device)
        with torch.device("meta"):
            model = open_clip.CLIP(**{**open_clip.get_model_config(clip), "quick_gelu": True})
        # The mask is computed and stands in no file: a text's later tokens are not seen.
        mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu_(1)
        model.register_buffer("attn_mask", mask, persistent=False)
        own = set(model.state_dict())  # OpenAI's files hold three numbers besides the weights.
        fill(model, {key: value for key, value in load_weight(name).items() if key in own}, name)
        model.visual = None
        return model.to(device), open_clip.get_tokenizer(clip), device
