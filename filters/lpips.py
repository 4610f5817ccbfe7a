"""LPIPS: how different neighbouring keyframes look to a network trained on images, calibrated on human judgements.

Formula: Σ over layers l of the mean over positions of w_l · (f_l(a)/‖f_l(a)‖ − f_l(b)/‖f_l(b)‖)², with f_l the features
of AlexNet, VGG-16 or SqueezeNet 1.1 trained on ImageNet and w_l the heads of version 0.1. Unit: distance from 0 (the
same picture), rarely above 1. Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric" (CVPR 2018) and its package `lpips`, which carries the heads; gates ≥ 0.4 and [0.5, 0.8] in Table 4 of the
Presto paper (arXiv 2412.01316), which does not name its network.

Protocol: `alex/v0.1,trunk@…+heads@…,neighbouring-keyframes@3s/mean`, 3 s being how far apart the keyframes are: frames at the
size of the stored sample (long side at most 960), neither resized nor cropped, scaled to [−1, 1]. LPIPS depends on the size:
scores of samples of another size are not comparable.
Detail: one value per pair of neighbouring keyframes, in order. Cost: each keyframe goes through the trunk once, though
it is in two pairs; 5 frames of 960×540, on two CPU cores: AlexNet 2.5 s, SqueezeNet 4 s, VGG a minute.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from longtake.filters.base import FilterSettings, FilterUnavailable, Image, MeasureError, Sample, Score
from longtake.filters.batches import ModelFilter, ModelSettings, inference
from longtake.filters.spacing import Spaced, SpacedSettings
from longtake.filters.weights import fill, load_weight, missing, weight_tag

if TYPE_CHECKING:
    from torch import Tensor

Net = Literal["alex", "vgg", "squeeze"]

# The files of the trunks. The first one that exists is read; SqueezeNet's weights are also in VMAF's ONNX file.
TRUNKS: dict[Net, tuple[str, ...]] = {
    "alex": ("alexnet",),
    "vgg": ("vgg16",),
    "squeeze": ("squeezenet1_1", "squeezenet1_1-vmaf"),
}
MIN_SIDE = 64  # Px. On a smaller frame the last feature maps of AlexNet and SqueezeNet vanish.


class LpipsSettings(ModelSettings, SpacedSettings):
    """How the network runs, and which clips its scores are comparable of."""

    batch: int = Field(4, ge=1, description="clips that go through the model together, at most")


class Lpips(Spaced, ModelFilter):
    """LPIPS with AlexNet. Detail: one value per pair of neighbouring keyframes.

    MeasureError per clip below two keyframes or 64 px a side, and where a distance is not finite.
    """

    name: ClassVar[str] = "lpips"
    backend: ClassVar[str] = "alex"
    unit: ClassVar[str] = "distance (from 0)"
    cost: ClassVar[float] = 3000.0
    samples_time: ClassVar[bool] = True
    net: ClassVar[Net] = "alex"
    settings_model: ClassVar[type[FilterSettings]] = LpipsSettings

    settings: LpipsSettings

    @property
    def weights(self) -> tuple[str, ...]:
        """Name of the weight it reads: that of the trunk."""
        names = TRUNKS[self.net]
        return (next((name for name in names if not missing([name])), names[0]),)

    @property
    def method(self) -> str:
        files = f"trunk@{weight_tag(self.weights[0])}+heads@{_heads_hash(self.net)[:8]}"
        return f"v0.1,{files},{self.compared}{self.rounding}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, in order; clips of one frame size go through the network together."""
        clips = self.run_each([[item] for item in items], self._prepare, self._distances)
        return [
            rows if isinstance(rows, MeasureError) else self.at_its_distance(self.score(rows[0]), item)
            for rows, item in zip(clips, items, strict=True)
        ]

    def _prepare(self, item: Sample) -> Image:
        frames = item.keyframes
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise MeasureError(f"keyframes are uint8 [n, height, width, 3], not {frames.dtype} {list(frames.shape)}")
        if len(frames) < 2:
            raise MeasureError(f"LPIPS needs two keyframes, the sample has {len(frames)}")
        if min(frames.shape[1:3]) < MIN_SIDE:
            height, width = frames.shape[1:3]
            raise MeasureError(f"LPIPS needs frames of at least {MIN_SIDE} px a side; got {width}×{height}")
        return frames

    def _distances(self, clips: Image) -> npt.NDArray[np.float32]:
        """uint8 [clips, n, h, w, 3] → float32 [clips, n − 1]."""
        import torch

        model, device = self._model
        count, n = clips.shape[:2]
        with inference(device, self.precision):
            frames = torch.from_numpy(clips).flatten(0, 1).to(device).permute(0, 3, 1, 2)
            distances = neighbour_distances(model, frames.float() / 127.5 - 1, n)
            return np.asarray(distances.float().cpu().numpy().reshape(count, n - 1))

    def load(self) -> Any:
        """`lpips.LPIPS`."""
        (name,) = self.weights
        model = build(self.net)
        state = load_weight(name)
        # The file holds the classifier too; LPIPS uses the features, cut into slices that keep their numbers.
        layers = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
        slices = {key.partition(".")[2]: key for key in model.net.state_dict()}
        fill(model.net, {slices.get(key, key): value for key, value in layers.items()}, name)
        return model.requires_grad_(False).eval()


class LpipsVgg(Lpips):
    """LPIPS with VGG-16. Otherwise as `Lpips`."""

    backend: ClassVar[str] = "vgg"
    net: ClassVar[Net] = "vgg"
    cost: ClassVar[float] = 60000.0


class LpipsSqueeze(Lpips):
    """LPIPS with SqueezeNet 1.1. Otherwise as `Lpips`."""

    backend: ClassVar[str] = "squeeze"
    net: ClassVar[Net] = "squeeze"
    cost: ClassVar[float] = 5000.0


def build(net: Net) -> Any:
    """`lpips.LPIPS` with its own heads and a random trunk; downloads nothing. Raises FilterUnavailable."""
    path = _heads_path(net)
    import torch

    package: Any = importlib.import_module("lpips")
    with warnings.catch_warnings():
        # The package passes arguments that torchvision calls old.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torchvision\.")
        model = package.LPIPS(pretrained=False, net=net, version="0.1", pnet_rand=True, verbose=False)
    # The package itself would load them as an open pickle.
    heads = torch.load(path, map_location="cpu", weights_only=True)
    if set(heads) != {f"lin{layer}.model.1.weight" for layer in range(model.L)}:
        raise FilterUnavailable(f"{path} holds no heads for {net}: install the package lpips again")
    model.load_state_dict(heads, strict=False)
    return model.eval()


def neighbour_distances(model: Any, frames: Tensor, n: int) -> Tensor:
    """LPIPS of neighbouring frames within each run of `n`: float32 [clips · n, 3, h, w] in [−1, 1] → [clips, n − 1].

    The same sum as `lpips.LPIPS.forward`, with each frame's features computed once.
    """
    import torch

    total: Any = 0.0
    for layer, features in enumerate(model.net(model.scaling_layer(frames))):
        wide = features.float()
        wide = wide / (wide.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10)
        wide = torch.unflatten(wide, 0, (-1, n))
        squares = (wide[:, 1:] - wide[:, :-1]).pow(2).flatten(0, 1)
        with torch.autocast(frames.device.type, enabled=False):
            total = total + model.lins[layer](squares).mean(dim=(1, 2, 3))
    return torch.unflatten(total, 0, (-1, n - 1))


@cache
def _heads_hash(net: Net) -> str:
    return hashlib.sha256(_heads_path(net).read_bytes()).hexdigest()


def _heads_path(net: Net) -> Path:
    return _package() / "weights" / "v0.1" / f"{net}.pth"


def _package() -> Path:
    """The folder of the package `lpips`, without importing it (it imports torchvision)."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise FilterUnavailable("the package lpips is missing: pip install 'longtake[models]'")
    return Path(spec.origin).parent
