"""DOVER's two networks, for `dover`: a Swin Transformer for video that knows which patch a place belongs to, and ConvNeXt in
3-D.

The first is torchvision's Swin3D-T with one change, in the attention of its first three stages: to each pair of places in a
window a learned bias is added, r, that of FAST-VQA's gated relative position biases. It has two tables of biases, r₁ and r₂,
over the offset of the two places; how many patches lie between them (along both sides together) is g, and r = g·r₁ + (1 −
g)·r₂. The second is ConvNeXt-T with kernels over 1, 3, 1, 1, … pictures. Both end in a head that gives each place a score, and
their mean is the answer. Sources: Wu et al., "FAST-VQA" (ECCV 2022) and "Exploring Video Quality Assessment on User Generated
Contents from Aesthetic and Technical Perspectives" (ICCV 2023); names of the weights as in VQAssessment/DOVER.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FRAGMENTS = 7  # Fragments along a side of the view.
DEPTHS = (2, 2, 6, 2)
CONVOLUTIONS = (3, 3, 9, 3)
WIDTHS = (96, 192, 384, 768)
# Pictures that the kernel of a block reaches over; the blocks of a stage take these numbers by turns.
SPANS = (1, 3, 1)
HIDDEN = 64
# Patterns of the names in the checkpoint, and torchvision's names for the same weights.
_RENAMED = (
    (r"^layers\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"^layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"\.mlp\.fc1\.", lambda m: ".mlp.0."),
    (r"\.mlp\.fc2\.", lambda m: ".mlp.3."),
)


def technical_network() -> Any:
    """The network on fragments, on the meta device: float32 [n, 3, frames, 224, 224] → [n]."""
    import torch
    from torch import nn

    swin: Any = importlib.import_module("torchvision.models.video.swin_transformer")

    class Gated(swin.ShiftedWindowAttention3d):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fragment_position_bias_table = nn.Parameter(torch.zeros_like(self.relative_position_bias_table))

        def forward(self, x: Tensor) -> Tensor:
            window, shift = swin._get_window_and_shift_size(
                list(self.shift_size), list(x.shape[1:4]), list(self.window_size)
            )
            near, far = (
                swin._get_relative_position_bias(table, self.relative_position_index, window)
                for table in (self.relative_position_bias_table, self.fragment_position_bias_table)
            )
            apart = patches_apart(x.shape[1:4], window, shift).to(x).unsqueeze(1)
            bias = (near * apart + far * (1 - apart)).repeat(len(x), 1, 1, 1)
            return swin.shifted_window_attention_3d(  # type: ignore[no-any-return]
                x, self.qkv.weight, self.proj.weight, bias, window, self.num_heads, shift_size=shift,
                qkv_bias=self.qkv.bias, proj_bias=self.proj.bias, training=False,
            )  # fmt: skip

    def block(dim: int, heads: int, **options: Any) -> Any:
        options["attn_layer"] = swin.ShiftedWindowAttention3d if dim == WIDTHS[-1] else Gated
        return swin.SwinTransformerBlock(dim, heads, **options)

    class Technical(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = swin.SwinTransformer3d(
                [2, 4, 4], WIDTHS[0], list(DEPTHS), [3, 6, 12, 24], [8, 7, 7], stochastic_depth_prob=0.0, block=block
            )
            del self.backbone.head
            self.head = _head(nn)

        def forward(self, x: Tensor) -> Tensor:
            y = self.backbone.norm(self.backbone.features(self.backbone.patch_embed(x)))
            return self.head(y).mean(dim=(1, 2, 3, 4))  # type: ignore[no-any-return]

    with torch.device("meta"):
        return Technical()


def patches_apart(size: Any, window: Any, shift: Any) -> Tensor:
    """How many patches lie between two places of a window, along both sides together: [windows, places, places]. size: places of
    the whole view (time, height, width); it is padded to whole windows."""
    import torch

    padded = [-(-int(side) // int(step)) * int(step) for side, step in zip(size, window, strict=True)]
    along = [torch.arange(side) * FRAGMENTS // side for side in padded[1:]]
    which = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).expand(padded[0], -1, -1, -1)
    which = torch.roll(which, [-int(step) for step in shift], dims=(0, 1, 2))
    parts = which.reshape(
        padded[0] // window[0], window[0], padded[1] // window[1], window[1], padded[2] // window[2], window[2], 2
    ).permute(0, 2, 4, 1, 3, 5, 6)
    places = parts.reshape(-1, window[0] * window[1] * window[2], 2)
    apart: Tensor = (places[:, None] - places[:, :, None]).abs().sum(dim=-1)
    return apart


def aesthetic_network() -> Any:
    """The network on whole pictures, on the meta device: float32 [n, 3, frames, 224, 224] → [n]."""
    import torch
    from torch import nn

    class Over(nn.LayerNorm):
        """A norm over the channels, which come second."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    class Block(nn.Module):
        def __init__(self, width: int, span: int) -> None:
            super().__init__()
            self.dwconv = nn.Conv3d(width, width, (span, 7, 7), padding=(span // 2, 3, 3), groups=width)
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.gamma = nn.Parameter(torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.dwconv(x).movedim(1, -1))
            y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
            return x + y.movedim(-1, 1)  # type: ignore[no-any-return]

    norm = partial(Over, eps=1e-6)

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = nn.Sequential(nn.Conv3d(3, WIDTHS[0], (2, 4, 4), (2, 4, 4)), norm(WIDTHS[0]))
            pairs = pairwise(WIDTHS)
            down = [nn.Sequential(norm(a), nn.Conv3d(a, b, (1, 2, 2), (1, 2, 2))) for a, b in pairs]
            self.downsample_layers = nn.ModuleList([first, *down])
            self.stages = nn.ModuleList(
                nn.Sequential(*(Block(width, SPANS[i % len(SPANS)]) for i in range(count)))
                for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True)
            )
            self.norm = nn.LayerNorm(WIDTHS[-1], eps=1e-6)

        def forward(self, x: Tensor) -> Tensor:
            for down, stage in zip(self.downsample_layers, self.stages, strict=True):
                x = stage(down(x))
            return self.norm(x.movedim(1, -1))  # type: ignore[no-any-return]

    class Aesthetic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = Backbone(), _head(nn)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x)).mean(dim=(1, 2, 3, 4))  # type: ignore[no-any-return]

    with torch.device("meta"):
        return Aesthetic()


def _head(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(WIDTHS[-1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))


def weights_of_branch(state: Mapping[str, Tensor], branch: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one branch (`technical`, `aesthetic`) out of a published checkpoint, by the names of our network. own:
    its own state, for the tables that are computed and not learned."""
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == f"{branch}_head":
            layer = {"fc_hid": "head.0", "fc_last": "head.2"}.get(rest.partition(".")[0])
            weights[f"{layer}.{rest.partition('.')[2]}"] = value.flatten(1) if value.ndim > 1 else value
        elif part == f"{branch}_backbone" and not rest.endswith("relative_position_index"):
            for pattern, new in _RENAMED:
                rest = re.sub(pattern, new, rest)
            weights[f"backbone.{rest}"] = value
    computed = {name: value for name, value in own.items() if name.endswith("relative_position_index")}
    return {**weights, **computed}
