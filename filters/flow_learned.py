"""Optical flow by a network: what RAFT and UniMatch share, so that their scores have one unit and one protocol form.

Formula: the mean over all pixels of √(u² + v²), where (u, v) is the flow from a keyframe to its partner, in pixels of a
frame whose long side is 960, times 0.5 s / (the pair's real gap): as in longtake.filters.flow_dis, whose numbers are on another
scale all the same, since each method errs in its own way (`longtake calibrate flow` relates them).

Frames are reduced to a long side of 960 (never enlarged) and padded to the network's stride by repeating their edge
pixels; the flow of the padding is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from longtake.filters.base import Image, MeasureError, Sample, Score
from longtake.filters.batches import ModelFilter, inference
from longtake.filters.flow_dis import GAP_SECONDS, REPORT_SIDE

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 128  # Px. On a smaller frame RAFT's coarsest correlations vanish.


class LearnedFlow(ModelFilter):
    """Mean flow length in px per 0.5 s at a long side of 960. Detail: one value per keyframe and partner.

    `load` gives the network: float32 [n, 3, H, W] twice, values 0 to 255, H and W multiples of the stride → float32
    [n, 2, H, W], (right, down).

    MeasureError per clip for frames under 128 px a side, for a partner that is not later than its
    keyframe, and for a flow that is not finite.
    """

    name: ClassVar[str] = "flow"
    unit: ClassVar[str] = "px per 0.5 s at 960"
    stride: ClassVar[int] = 8  # Px. The frame's sides must be multiples of it.
    samples_time: ClassVar[bool] = True

    def protocol_form(self, model: str) -> str:
        """The method of a flow filter: `model`, then what all of them share."""
        protocol = f"{REPORT_SIDE}pad{self.stride},keyframe-partner,per{GAP_SECONDS:g}s@{REPORT_SIDE}"
        return f"{model},{protocol}{self.rounding}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, in order; pairs of one frame size go through the network together."""
        faults = [_fault(item) for item in items]
        pairs = [
            [] if fault is not None else list(zip(item.keyframes, item.partners, strict=True))
            for item, fault in zip(items, faults, strict=True)
        ]
        scores: list[Score | MeasureError] = []
        for item, fault, lengths in zip(items, faults, self.run_each(pairs, _prepare, self._lengths), strict=True):
            if fault is not None:
                scores.append(MeasureError(fault))
            elif isinstance(lengths, MeasureError):
                scores.append(lengths)
            else:
                scores.append(self.score(np.array(lengths) * GAP_SECONDS / (item.partner_times - item.times)))
        return scores

    def flow_fields(self, pairs: Image) -> npt.NDArray[np.float32]:
        """uint8 [n, 2, h, w, 3] → float32 [n, 2, h, w], (right, down) in pixels of the images as given."""
        with inference(self._model[1], self.precision):
            return np.asarray(self._flow(pairs).cpu().numpy())

    def _lengths(self, pairs: Image) -> npt.NDArray[np.float64]:
        """uint8 [n, 2, h, w, 3] → float64 [n]: mean vector lengths in pixels at a long side of 960."""
        import torch

        with inference(self._model[1], self.precision):
            lengths = self._flow(pairs).square().sum(dim=1).sqrt().mean(dim=(1, 2), dtype=torch.float64)
            return np.asarray(lengths.cpu().numpy() * (REPORT_SIDE / max(pairs.shape[2:4])), np.float64)

    def _flow(self, pairs: Image) -> Tensor:
        import torch

        network, device = self._model
        images = torch.from_numpy(pairs).to(device).permute(1, 0, 4, 2, 3).float()  # [2, n, 3, h, w]
        height, width = images.shape[3:]
        down, right = -height % self.stride, -width % self.stride
        top, left = down // 2, right // 2
        first, second = (
            torch.nn.functional.pad(image, (left, right - left, top, down - top), mode="replicate") for image in images
        )
        flow: Tensor = network(first, second).float()
        return flow[:, :, top : top + height, left : left + width]


def _fault(item: Sample) -> str | None:
    """Why no pair of this sample can be measured, or None."""
    if item.keyframes.shape != item.partners.shape or item.keyframes.ndim != 4 or item.keyframes.shape[3] != 3:
        return (
            "flow needs keyframes and partners of one shape [n, height, width, 3]; got "
            f"{list(item.keyframes.shape)} and {list(item.partners.shape)}"
        )
    if item.keyframes.dtype != np.uint8 or item.partners.dtype != np.uint8:
        return f"flow needs uint8 frames; got {item.keyframes.dtype} and {item.partners.dtype}"
    height, width = item.keyframes.shape[1:3]
    if min(height, width) * min(1.0, REPORT_SIDE / max(height, width, 1)) < MIN_SIDE:
        return (
            f"flow needs frames of at least {MIN_SIDE} px a side at a long side of {REPORT_SIDE}; got {width}×{height}"
        )
    for start, end in zip(item.times, item.partner_times, strict=True):
        if not end > start:
            return f"the partner of the keyframe at {start:g} s is not later than it ({end:g} s)"
    return None


def _prepare(pair: tuple[Image, Image]) -> Image:
    """uint8 [2, h, w, 3] with a long side of at most 960."""
    import cv2

    height, width = pair[0].shape[:2]
    scale = REPORT_SIDE / max(height, width)
    if scale >= 1:
        return np.stack(pair)
    size = (round(width * scale), round(height * scale))
    return np.stack([np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) for image in pair])
