"""Optical flow by UniMatch (GMFlow): how far the picture moves in half a second.

Formula, unit and range: longtake.filters.flow_learned. Source: Xu et al., "Unifying Flow, Stereo and Depth Estimation" (TPAMI
2023), autonomousvision/unimatch, with the weights trained on mixed data, which its authors recommend for ordinary
pictures; gate ≥ 40 (≥ 50) in Table 4 of the Presto paper (arXiv 2412.01316). The network is longtake.filters.unimatch.

Protocol: `unimatch/scale2-refine6@…,960pad32,keyframe-partner,per0.5s@960/mean`, the weights' hash after the @.
Frames taller than wide are turned on their side for the network, as the authors do: it was trained on wide ones.
Cost: five pairs of 960×540 on two CPU cores: 4 minutes, variant scale1 25 s.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from longtake.filters.base import FilterSettings, FilterUnavailable
from longtake.filters.batches import ModelSettings
from longtake.filters.flow_learned import LearnedFlow
from longtake.filters.weights import fill, load_weight, weight_tag

Variant = Literal["scale2-refine6", "scale2", "scale1"]

# Variant → (weight, scales, refinements).
VARIANTS: dict[Variant, tuple[str, int, int]] = {
    "scale2-refine6": ("unimatch", 2, 6),
    "scale2": ("unimatch-scale2", 2, 0),
    "scale1": ("unimatch-scale1", 1, 0),
}


class UnimatchSettings(ModelSettings):
    """Which UniMatch, and how it runs."""

    variant: Variant = Field(
        "scale2-refine6", description="as the published files are named; the first is the most exact"
    )
    batch: int = Field(4, ge=1, description="pairs that go through the model together, at most")


class FlowUnimatch(LearnedFlow):
    """Mean flow length by UniMatch.

    Otherwise as `LearnedFlow`. `method`, too, raises FilterUnavailable where the weight is missing: no published hash
    could stand for it.
    """

    backend: ClassVar[str] = "unimatch"
    cost: ClassVar[float] = 240_000.0
    stride: ClassVar[int] = 32
    settings_model: ClassVar[type[FilterSettings]] = UnimatchSettings

    settings: UnimatchSettings

    @property
    def weights(self) -> tuple[str, ...]:
        return (VARIANTS[self.settings.variant][0],)

    @property
    def method(self) -> str:
        return self.protocol_form(f"{self.settings.variant}@{weight_tag(self.weights[0])}")

    def load(self) -> Any:
        name, scales, refinements = VARIANTS[self.settings.variant]
        state = load_weight(name)
        network = build(scales, refinements)
        fill(network.unimatch, state, name)
        return network.eval()


def build(scales: int, refinements: int) -> Any:
    """UniMatch with random weights, for frames of any orientation."""
    try:
        import torch
    except ImportError as error:
        raise FilterUnavailable("torch is missing: pip install 'longtake[models]'") from error
    from longtake.filters.unimatch import UniMatch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unimatch = UniMatch(scales=scales, refinements=refinements)

        def forward(self, first: Any, second: Any) -> Any:
            if first.shape[2] <= first.shape[3]:
                return self.unimatch(first, second)
            return self.unimatch(first.transpose(2, 3), second.transpose(2, 3)).transpose(2, 3).flip(1)

    return Network()
