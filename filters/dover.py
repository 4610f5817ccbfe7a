"""Technical and aesthetic quality of a clip, as DOVER sees it: blur, noise, blocks and shake on the one hand, and how the
picture is composed on the other.

Formula: of the technical view (7×7 patches of 32 px, as they are, each from its own cell of a 7×7 grid over the frame and at
the same place in all frames, put together to 224×224) a Swin Transformer makes t; of the aesthetic view (each frame resized to
224×224) a ConvNeXt makes a; both views with ImageNet's mean and deviation taken out. `dover_technical` and `dover_aesthetic`
are t and a as they are; `dover` is σ(0.6104·(t − 0.1107)/0.07355 + 0.3896·(a + 0.08285)/0.03774), which its authors call the
overall score. Unit: none; `dover` lies between 0 and 1; t is mostly between −0.1 and 0.3, and a between −0.2 and 0. Detail: the
value itself; of `dover` t, then a. Source: Wu et al., ICCV 2023 (arXiv 2211.04894), VQAssessment/DOVER, whose code and weights
may be used for non-commercial purposes only (S-Lab License 1.0).

The views are made of the stored frames: all keyframes and their partners in their order of time, at most 960 px wide. That is
not what DOVER was trained on: it sees 3 × 32 frames of a film, every second one, at the film's own size, and for the other view
32 frames that are spread over it; and it draws the place of a patch within its cell at random, where here it is the middle of
the cell. So compression that 960 px hide, and shake within half a second, are not seen, and thresholds of others need not mean
the same here. `longtake calibrate` and marks tell what a threshold does.

**Not proven**: no published weights could be had here. That the two networks are those of the checkpoint is tested against a
calculation of its own on random weights under the checkpoint's names, and not on a published score.

Protocol: `dover/tiny@…,7x7fragments32,middle,frames+partners/mean`, the weights' hash after the @. Cost: ten frames on one CPU
core 1.5 s for the technical and 0.7 s for the aesthetic view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import FilterSettings, Image, MeasureError, Sample, Score
from longtake.filters.batches import ModelFilter, ModelSettings, inference
from longtake.filters.dover_network import FRAGMENTS, aesthetic_network, technical_network, weights_of_branch
from longtake.filters.weights import fill, load_weight, weight_tag

if TYPE_CHECKING:
    import torch

WEIGHT = "dover"
FRAGMENT = 32  # Pixels: the side of a fragment.
SIDE = FRAGMENTS * FRAGMENT
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Branch = Literal["technical", "aesthetic"]


class DoverSettings(ModelSettings):
    """How the model runs."""

    reduce: Literal["mean"] = Field("mean", description="nothing else: there is one value")
    batch: int = Field(2, ge=1, description="clips that go through the model together, at most")


class _Dover(ModelFilter):
    """What the three have in common. branches: the networks that it runs."""

    backend: ClassVar[str] = "dover"
    branches: ClassVar[tuple[Branch, ...]]
    settings_model: ClassVar[type[FilterSettings]] = DoverSettings

    settings: DoverSettings

    @property
    def weights(self) -> tuple[str, ...]:
        return (WEIGHT,)

    @property
    def method(self) -> str:
        return f"tiny@{weight_tag(WEIGHT)},{FRAGMENTS}x{FRAGMENTS}fragments{FRAGMENT},middle,frames+partners{self.rounding}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, in order."""
        clips = self.run_each([[item] for item in items], self._prepare, self._run)
        return [rows if isinstance(rows, MeasureError) else self._told(rows[0]) for rows in clips]

    def _told(self, answers: npt.NDArray[Any]) -> Score | MeasureError:
        return self.score(answers)

    def _prepare(self, item: Sample) -> Image:
        """uint8 [branches, frames, 224, 224, 3]."""
        frames = in_order(item)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise MeasureError(f"frames are uint8 [n, height, width, 3], not {frames.dtype} {list(frames.shape)}")
        return np.stack([VIEWS[branch](frames) for branch in self.branches])

    def _run(self, views: Image) -> npt.NDArray[np.float32]:
        """uint8 [n, branches, frames, 224, 224, 3] → float32 [n, branches]."""
        import torch

        models, device = self._model
        answers = []
        with inference(device, self.precision):
            for model, view in zip(models, np.moveaxis(views, 1, 0), strict=True):
                answers.append(model(to_input(torch.from_numpy(view.copy()).to(device))).float().cpu().numpy())
        return np.stack(answers, axis=1)

    def load(self) -> Any:
        """The networks of its branches."""
        import torch

        state, models = load_weight(WEIGHT), torch.nn.ModuleList()
        for branch in self.branches:
            model = NETWORKS[branch]()
            computed = {} if branch == "aesthetic" else _on_cpu(model)
            fill(model, weights_of_branch(state, branch, computed), WEIGHT)
            models.append(model)
        return models


class Dover(_Dover):
    """The overall quality. Detail: the technical and the aesthetic one."""

    name: ClassVar[str] = "dover"
    unit: ClassVar[str] = "quality (0-1)"
    branches: ClassVar[tuple[Branch, ...]] = ("technical", "aesthetic")
    cost: ClassVar[float] = 2200.0

    def _told(self, answers: npt.NDArray[Any]) -> Score | MeasureError:
        technical, aesthetic = map(float, answers)
        if not np.isfinite(answers).all():
            return MeasureError(f"not a finite number: {answers.tolist()}")
        return Score(fused(technical, aesthetic), (technical, aesthetic))


class DoverTechnical(_Dover):
    """The technical quality. Detail: that one value."""

    name: ClassVar[str] = "dover_technical"
    unit: ClassVar[str] = "quality (about -0.1 to 0.3)"
    branches: ClassVar[tuple[Branch, ...]] = ("technical",)
    cost: ClassVar[float] = 1500.0


class DoverAesthetic(_Dover):
    """The aesthetic quality. Detail: that one value."""

    name: ClassVar[str] = "dover_aesthetic"
    unit: ClassVar[str] = "quality (about -0.2 to 0)"
    branches: ClassVar[tuple[Branch, ...]] = ("aesthetic",)
    cost: ClassVar[float] = 700.0


def fused(technical: float, aesthetic: float) -> float:
    """The overall score of the two, 0 to 1."""
    x = 0.6104 * (technical - 0.1107) / 0.07355 + 0.3896 * (aesthetic + 0.08285) / 0.03774
    return float(1 / (1 + np.exp(-np.clip(x, -500, 500))))


def in_order(item: Sample) -> Image:
    """Keyframes and partners by time, uint8 [n, height, width, 3], the last one twice if they are an odd number."""
    frames = np.concatenate([item.keyframes, item.partners])
    frames = frames[np.argsort(np.concatenate([item.times, item.partner_times]), kind="stable")]
    return frames if len(frames) % 2 == 0 else np.concatenate([frames, frames[-1:]])


def fragments(frames: Image) -> Image:
    """The technical view: uint8 [n, height, width, 3] → [n, 224, 224, 3]. Frames that are smaller are enlarged first."""
    import cv2

    height, width = frames.shape[1:3]
    scale = max(SIDE / height, SIDE / width, 1.0)
    if scale > 1:
        size = max(SIDE, round(width * scale)), max(SIDE, round(height * scale))
        frames = np.stack(
            [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), np.uint8) for frame in frames]
        )
        height, width = frames.shape[1:3]
    view = np.empty((len(frames), SIDE, SIDE, 3), np.uint8)
    for row in range(FRAGMENTS):
        for column in range(FRAGMENTS):
            top, left = (side // FRAGMENTS * at for side, at in ((height, row), (width, column)))
            top += (height // FRAGMENTS - FRAGMENT) // 2
            left += (width // FRAGMENTS - FRAGMENT) // 2
            y, x = row * FRAGMENT, column * FRAGMENT
            view[:, y : y + FRAGMENT, x : x + FRAGMENT] = frames[:, top : top + FRAGMENT, left : left + FRAGMENT]
    return view


def resized(frames: Image) -> Image:
    """The aesthetic view: uint8 [n, height, width, 3] → [n, 224, 224, 3], bilinear and smoothed where it is reduced."""
    import PIL.Image

    bilinear = PIL.Image.Resampling.BILINEAR
    return np.stack([np.asarray(PIL.Image.fromarray(frame).resize((SIDE, SIDE), bilinear)) for frame in frames])


def to_input(view: torch.Tensor) -> torch.Tensor:
    """uint8 [n, frames, 224, 224, 3] → float32 [n, 3, frames, 224, 224], with ImageNet's mean and deviation taken out."""
    pixels = view.permute(0, 4, 1, 2, 3).float().div(255)
    mean, std = (pixels.new_tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def _on_cpu(model: Any) -> dict[str, torch.Tensor]:
    """The tables of a network on the meta device that are computed and not learned."""
    import torch

    return {
        f"{name}.relative_position_index": _index(module.window_size)
        for name, module in model.named_modules()
        if hasattr(module, "relative_position_index") and isinstance(module.relative_position_index, torch.Tensor)
    }


def _index(window: Sequence[int]) -> torch.Tensor:
    """For each two places of a window the row of the bias tables for their offset: [places, places]."""
    import torch

    places = torch.cartesian_prod(*(torch.arange(side) for side in window))
    offsets = places[:, None] - places[None] + torch.tensor([side - 1 for side in window])
    _, height, width = (2 * side - 1 for side in window)
    return offsets @ torch.tensor([height * width, width, 1])


VIEWS = {"technical": fragments, "aesthetic": resized}
NETWORKS = {"technical": technical_network, "aesthetic": aesthetic_network}
