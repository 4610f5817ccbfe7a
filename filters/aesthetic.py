"""Aesthetic score: how much people would like a clip's keyframes, as LAION's predictors see it.

Formula: wᵀ·e/‖e‖ + b per keyframe, where e is the image embedding of OpenAI's CLIP; the mean over the keyframes. The
head of V2 (`sac+logos+ava1-l14-linearMSE`, an MLP 768-1024-128-64-16-1) has no activations, and its dropouts do nothing
at inference, so it is one affine map: it is folded into (w, b) in float64. V1 heads are one linear layer. Unit: rating,
about 1 to 10; most frames lie at 4–7 (on embeddings that are not normalised the heads give 20–30). Source:
christophschuhmann/improved-aesthetic-predictor (V2), LAION-AI/aesthetic-predictor (V1), openai/CLIP through open_clip;
gates ≥ 4.8 and ≥ 5.0 in Table 4 of the Presto paper (arXiv 2412.01316).

Protocol: `laion-v2/ViT-L-14@…+head@…,center224,keyframes/mean`: the hashes of both weights, and how a frame becomes
224×224 by Pillow's bicubic resize: `center` (the predictor's own) reduces the short side to 224 and cuts the middle, so
that 44 % of a 16:9 frame is not seen; `squash` resizes both sides; `pad` reduces the long side to 224 and fills up with
CLIP's mean colour.
Cost: CLIP ViT-L/14 on 5 keyframes takes 7 s on two CPU cores.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import FilterSettings, FilterUnavailable, Image, MeasureError, Sample, Score
from longtake.filters.batches import ModelFilter, ModelSettings, inference
from longtake.filters.weights import fill, find_weight, load_weight, weight_tag

if TYPE_CHECKING:
    from torch import Tensor

Crop = Literal["center", "squash", "pad"]
Clip = Literal["ViT-L-14", "ViT-B-32", "ViT-B-16"]

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WIDTHS: dict[Clip, int] = {"ViT-L-14": 768, "ViT-B-32": 512, "ViT-B-16": 512}


class AestheticSettings(ModelSettings):
    """How a keyframe becomes what CLIP sees, and how the model runs."""

    crop: Crop = Field(
        "center",
        description="how a frame becomes a square: its middle, both sides squeezed, or filled up with CLIP's mean colour",
    )
    batch: int = Field(64, ge=1, description="keyframes that go through the model together, at most")


class AestheticV1Settings(AestheticSettings):
    """The same, and which CLIP."""

    clip: Clip = Field("ViT-L-14", description="the CLIP whose embeddings the head was trained on")


class Aesthetic(ModelFilter):
    """LAION's predictor V2 on CLIP ViT-L/14. Detail: one rating per keyframe.

    The head always runs in float64. A score carries the clip's
    embedding: the mean of its keyframes' normalised ones, normalised, float16 [dim]; and those of its keyframes. A frame whose
    output is not finite gives its clip a MeasureError.
    """

    name: ClassVar[str] = "aesthetic"
    backend: ClassVar[str] = "laion-v2"
    unit: ClassVar[str] = "rating (about 1 to 10)"
    cost: ClassVar[float] = 7000.0
    embeds: ClassVar[bool] = True
    settings_model: ClassVar[type[FilterSettings]] = AestheticSettings

    settings: AestheticSettings

    @property
    def clip(self) -> Clip:
        """The CLIP that makes the embeddings."""
        return "ViT-L-14"

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it reads: CLIP's, then the head's."""
        return f"clip-{self.clip.lower()}", self._head_weight

    @property
    def _head_weight(self) -> str:
        return "aesthetic-v2"

    @property
    def method(self) -> str:
        clip, head = (weight_tag(name) for name in self.weights)
        return f"{self.clip}@{clip}+head@{head},{self.settings.crop}{SIDE},keyframes{self.rounding}"

    @property
    def embedding_method(self) -> str:
        """How the embeddings that its scores carry are made: the method without the head."""
        return f"{self.clip}@{weight_tag(self.weights[0])},{self.settings.crop}{SIDE}{self.rounding}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, with its embedding, in order; keyframes go through CLIP in batches across clips."""
        clips = self.run_each([list(item.keyframes) for item in items], self._prepare, self._embed)
        return [rows if isinstance(rows, MeasureError) else self.score_embeddings(rows) for rows in clips]

    def score_embeddings(self, rows: Sequence[npt.NDArray[Any]]) -> Score | MeasureError:
        """The score of a clip whose keyframes have these embeddings, each [dim], as CLIP gives them."""
        if not rows:
            return MeasureError("nothing was measured")
        try:
            normal = normalised(np.stack(rows))
            embedding = normalised(normal.mean(axis=0, keepdims=True))[0].astype(np.float16)
        except MeasureError as error:
            return error
        weight, bias = self._head
        score = self.score(normal @ weight + bias)
        if isinstance(score, Score):
            score = replace(score, embedding=embedding, keyframe_embeddings=normal.astype(np.float16))
        return score

    def _prepare(self, frame: Image) -> Image:
        return frame_to_square(frame, self.settings.crop)

    def _embed(self, squares: Image) -> npt.NDArray[np.float32]:
        """uint8 [n, 224, 224, 3] → float32 [n, dim], not normalised."""
        import torch

        model, device = self._model
        with inference(device, self.precision):
            pixels = to_input(torch.from_numpy(squares).to(device))
            return np.asarray(model(pixels).float().cpu().numpy())

    def load(self) -> Any:
        """CLIP's image encoder."""
        prefix, name = "visual.", self.weights[0]
        state = {k.removeprefix(prefix): v for k, v in load_weight(name).items() if k.startswith(prefix)}
        visual = image_tower(self.clip)
        fill(visual, state, name)
        return visual

    @cached_property
    def _head(self) -> tuple[npt.NDArray[np.float64], float]:
        name = self._head_weight
        try:
            return fold_head({key: value.numpy() for key, value in load_weight(name).items()}, WIDTHS[self.clip])
        except ValueError as error:
            raise FilterUnavailable(f"{find_weight(name)} holds the weights of another model: {error}") from error


class AestheticV1(Aesthetic):
    """LAION's first predictor: one linear layer on CLIP ViT-L/14, ViT-B/32 or ViT-B/16. Otherwise as `Aesthetic`."""

    backend: ClassVar[str] = "laion-v1"
    settings_model: ClassVar[type[FilterSettings]] = AestheticV1Settings

    settings: AestheticV1Settings

    @property
    def clip(self) -> Clip:
        return self.settings.clip

    @property
    def _head_weight(self) -> str:
        return f"aesthetic-v1-{self.clip.lower()}"


def fold_head(state: Mapping[str, npt.NDArray[Any]], width: int) -> tuple[npt.NDArray[np.float64], float]:
    """(w, b) with head(x) = w·x + b: float64 [width] and a float.

    state: the linear layers in the order of their names (`layers.0.weight` …, or one `weight` and `bias`), weights
    [out, in]. Raises ValueError if they are no chain of layers from `width` to 1.
    """
    names = sorted(
        (key.removesuffix("weight") for key in state if key.endswith("weight")),
        key=lambda name: [int(part) for part in name.split(".") if part.isdigit()],
    )
    weight, bias = np.eye(width), np.zeros(width)
    for name in names:
        w, b = (np.asarray(state.get(name + part, ()), np.float64) for part in ("weight", "bias"))
        if w.ndim != 2 or w.shape[1] != len(weight) or b.shape != w.shape[:1]:
            raise ValueError(f"layer {name or 'linear'!r} has shape {w.shape} where {len(weight)} values come in")
        weight, bias = w @ weight, w @ bias + b
    if set(state) != {name + part for name in names for part in ("weight", "bias")} or weight.shape != (1, width):
        raise ValueError(f"no chain of linear layers from {width} to 1: {', '.join(sorted(state)[:8])}")
    return weight[0], float(bias[0])


def normalised(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Each row [n, dim] divided by its length, in float64. Raises MeasureError if a length is 0 or not finite."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise MeasureError("the image embedding is not finite, or zero")
    return np.asarray(wide / lengths)


def frame_to_square(frame: Image, crop: Crop) -> Image:
    """uint8 [h, w, 3] RGB → uint8 [224, 224, 3], as CLIP wants it. Raises MeasureError for another array."""
    import PIL.Image

    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise MeasureError(f"a keyframe is uint8 [height, width, 3], not {frame.dtype} {list(frame.shape)}")
    height, width = frame.shape[:2]
    if crop == "squash":
        size = (SIDE, SIDE)
    else:  # Like torchvision's Resize, this cuts the other side off, and does not round it.
        fitted = min(height, width) if crop == "center" else max(height, width)
        size = (max(1, width * SIDE // fitted), max(1, height * SIDE // fitted))
    resized = np.asarray(PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.BICUBIC))
    if crop == "pad":
        square = np.empty((SIDE, SIDE, 3), np.uint8)
        square[:] = [round(255 * mean) for mean in MEAN]
        top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
        square[top : top + size[1], left : left + size[0]] = resized
        return square
    top, left = round((size[1] - SIDE) / 2), round((size[0] - SIDE) / 2)
    return np.ascontiguousarray(resized[top : top + SIDE, left : left + SIDE])


def to_input(squares: Tensor) -> Tensor:
    """uint8 [n, 224, 224, 3] → float32 [n, 3, 224, 224], with CLIP's mean and deviation taken out."""
    pixels = squares.permute(0, 3, 1, 2).float().div(255)
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def image_tower(clip: Clip) -> Any:
    """CLIP's image encoder as OpenAI trained it (quick-GELU), on the meta device: with shapes, without values."""
    try:
        open_clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise FilterUnavailable("open_clip is missing: pip install 'longtake[models]'") from error
    import torch

    with torch.device("meta"):
        return open_clip.CLIP(**{**open_clip.get_model_config(clip), "quick_gelu": True}).visual
