"""Optical flow by RAFT: how far the picture moves in half a second.

Formula, unit and range: longtake.filters.flow_learned. Source: Teed & Deng, "RAFT: Recurrent All-Pairs Field Transforms for
Optical Flow" (ECCV 2020); the network is torchvision's, the weights torchvision's or the original repository's
(princeton-vl/RAFT), whose names are translated here. Gate ≥ 40 (≥ 50) in Table 4 of the Presto paper is for UniMatch.

Protocol: `raft/large@…,12updates,960pad8,keyframe-partner,per0.5s@960/mean`, the weights' hash after the @.
Cost: five pairs of 960×540 on two CPU cores: small 10 s, large 30 s.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from longtake.filters.base import FilterSettings, FilterUnavailable
from longtake.filters.batches import ModelSettings
from longtake.filters.flow_learned import LearnedFlow
from longtake.filters.weights import fill, load_weight, weight_tag

if TYPE_CHECKING:
    from torch import Tensor

Variant = Literal["small", "large"]
Source = Literal["torchvision", "princeton"]

UPDATES = 12  # The default of torchvision, with which its weights were trained and evaluated.

# The original's names → torchvision's, in this order.
_RENAMES = (
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^((?:feature|context)_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^((?:feature|context)_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^((?:feature|context)_encoder)\.conv2\.", r"\1.conv."),
    (r"^(.*\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"^(.*\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


class RaftSettings(ModelSettings):
    """Which RAFT, and how it runs."""

    variant: Variant = Field("large", description="the size of the network; `small` takes a third of the time")
    source: Source = Field("torchvision", description="whose weights: torchvision's, or princeton-vl's original ones")
    batch: int = Field(4, ge=1, description="pairs that go through the model together, at most")


class FlowRaft(LearnedFlow):
    """Mean flow length by RAFT. Otherwise as `LearnedFlow`."""

    backend: ClassVar[str] = "raft"
    cost: ClassVar[float] = 30_000.0
    settings_model: ClassVar[type[FilterSettings]] = RaftSettings

    settings: RaftSettings

    @property
    def weights(self) -> tuple[str, ...]:
        original = self.settings.source == "princeton"
        return (f"raft-{self.settings.variant}" + ("-princeton" if original else ""),)

    @property
    def method(self) -> str:
        return self.protocol_form(f"{self.settings.variant}@{weight_tag(self.weights[0])},{UPDATES}updates")

    def load(self) -> Any:
        (name,) = self.weights
        network = build(self.settings.variant)
        state = load_weight(name)
        fill(network.raft, torchvision_names(state) if self.settings.source == "princeton" else state, name)
        return network.eval()


def torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an original RAFT checkpoint (without 'module.') under torchvision's names.

    The original holds the norm of each downsampling twice, also as norm3 of its block; the second goes.
    """
    renamed = {}
    for key, value in state.items():
        block = key.partition(".norm3.")[0]
        if block != key and f"{block}.downsample.1.weight" in state:
            continue
        for pattern, replacement in _RENAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def build(variant: Variant) -> Any:
    """torchvision's RAFT with random weights; downloads nothing."""
    try:
        models: Any = importlib.import_module("torchvision.models.optical_flow")
    except ImportError as error:
        raise FilterUnavailable("torchvision is missing: pip install 'longtake[models]'") from error
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raft: Any = getattr(models, f"raft_{variant}")(weights=None, progress=False)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            flows: list[Tensor] = self.raft(first / 127.5 - 1, second / 127.5 - 1, num_flow_updates=UPDATES)
            return flows[-1]

    return Network()
