"""How likely a clip shows what is not safe for work, as LAION's detector sees the CLIP embeddings of its keyframes.

Formula: p = σ(W₄·r(W₃·r(W₂·r(W₁·n(e) + b₁) + b₂) + b₃) + b₄) per keyframe, with e the embedding of OpenAI's CLIP ViT-L/14,
divided by its length, n(e) = (e − mean) / √variance by the statistics of the detector's training set, r(x) = max(x, 0), and
layers of 768-64-512-256-1. Unit: probability, from 0 to 1; the score is that of the worst keyframe. Source: LAION-AI's
CLIP-based-NSFW-Detector (MIT), which publishes no threshold. No gate in the recipes that ship.

The embeddings are those that the aesthetic filter keeps (float16), so that no picture is looked at again; the recipe must have
that filter, with CLIP ViT-L/14. A clip without keyframe embeddings (its aesthetic score is older than they are) has no score: a
gate stays undecided. Five of the 768 values (180, 316, 413, 440, 644) go through a table in the published model, for AutoKeras
took them for categories; the table that was published is empty, so that each is the same constant for all pictures there. So it
is here: 1, which its own statistics bring to −1.

Protocol: `laion/ViT-L-14@…,center224+head@…,keyframes/max`: how the pictures were embedded, and the hash of the detector. Cost:
0.3 ms per clip. The weights are read from the published Keras archive, without TensorFlow. Tested against a calculation of its
own on random weights of this shape, and on the published file; not on pictures, since no CLIP weights are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.aesthetic import Aesthetic, normalised
from longtake.filters.base import Filter, FilterSettings, FilterUnavailable, MeasureError, Needs, Reduce, Score
from longtake.filters.weights import find_weight, load_weight, weight_tag

WEIGHT = "nsfw-vit-l-14"
LAYERS = ((768, 64), (64, 512), (512, 256), (256, 1))
KNOWN = (180, 316, 413, 440, 644)  # Places of an embedding whose values the published model replaces by 1.

Floats = npt.NDArray[np.float64]
Embeddings = npt.NDArray[Any] | None


class NsfwSettings(FilterSettings):
    """How the keyframes become one score."""

    reduce: Reduce = Field(
        "max",
        description="how the values of the detail become one score; `every`: each of them must pass the gate",
    )


class Nsfw(Filter[Embeddings]):
    """Probability that the worst keyframe is not safe for work. Detail: one value per keyframe.

    Measures the keyframe embeddings of a clip, [n, 768], or None where it has none.
    """

    name: ClassVar[str] = "nsfw"
    backend: ClassVar[str] = "laion"
    unit: ClassVar[str] = "probability (0-1)"
    needs: ClassVar[Needs] = Needs.FRAMES
    cost: ClassVar[float] = 0.3
    reads_embeddings: ClassVar[bool] = True
    settings_model: ClassVar[type[FilterSettings]] = NsfwSettings

    settings: NsfwSettings
    embedded_by: Aesthetic  # This filter embedded the keyframes; a recipe sets its own.

    def __init__(self, /, **settings: Any) -> None:
        super().__init__(**settings)
        self.embedded_by = Aesthetic()

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it reads."""
        return (WEIGHT,)

    @property
    def method(self) -> str:
        if self.embedded_by.clip != "ViT-L-14":
            raise FilterUnavailable(
                f"nsfw reads embeddings of CLIP ViT-L-14, and aesthetic has {self.embedded_by.clip}"
            )
        return f"{self.embedded_by.embedding_method}+head@{weight_tag(WEIGHT)},keyframes"

    def measure(self, items: Sequence[Embeddings]) -> list[Score | MeasureError]:
        """One score per clip, in order."""
        return [self._one(item) for item in items]

    def _one(self, item: Embeddings) -> Score | MeasureError:
        if item is None or not len(item):
            return Score(math.nan, (0.0,))
        try:
            return self.reduced(self.probabilities(normalised(item)))
        except MeasureError as error:
            return error

    def probabilities(self, embeddings: Floats) -> Floats:
        """Of pictures with these embeddings, float64 [n, 768], each of length 1. Raises MeasureError."""
        mean, scale, layers = self._head
        if embeddings.shape[1:] != mean.shape:
            raise MeasureError(f"embeddings of {embeddings.shape[1]} values, where the detector reads {len(mean)}")
        x = embeddings.copy()
        x[:, KNOWN] = 1.0
        x = (x - mean) / scale
        for weight, bias in layers[:-1]:
            x = np.maximum(x @ weight + bias, 0.0)
        weight, bias = layers[-1]
        return np.asarray(1 / (1 + np.exp(-np.clip(x @ weight + bias, -500, 500)[:, 0])))

    @cached_property
    def _head(self) -> tuple[Floats, Floats, list[tuple[Floats, Floats]]]:
        state = {key: value.numpy().astype(np.float64) for key, value in load_weight(WEIGHT).items()}
        try:
            mean, variance = (state[f"layer_with_weights-1/{part}"] for part in ("mean", "variance"))
            layers = [
                (state[f"layer_with_weights-{i}/kernel"], state[f"layer_with_weights-{i}/bias"])
                for i in range(2, 2 + len(LAYERS))
            ]
            if mean.shape != variance.shape or tuple(weight.shape for weight, _ in layers) != LAYERS:
                raise ValueError(f"layers of {[weight.shape for weight, _ in layers]}")
        except (KeyError, ValueError) as error:
            raise FilterUnavailable(f"{find_weight(WEIGHT)} holds the weights of another model: {error}") from error
        return mean, np.maximum(np.sqrt(variance), 1e-7), layers
