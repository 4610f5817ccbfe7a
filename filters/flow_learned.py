"""Optical flow by a network: what RAFT and UniMatch share, so that their scores have one unit and one protocol form.

Formula: the mean over all pixels of √(u² + v²), where (u, v) is the flow from a keyframe to its partner, in pixels of a
frame whose long side is 960, times 0.5 s / (the pair's real gap): as in filters.flow_dis, whose numbers are on another
scale all the same, since each method errs in its own way (`longtake calibrate flow` relates them).

Frames are reduced to a long side of 960 (never enlarged) and padded to the network's stride by repeating their edge
pixels; the flow of the padding is not counted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from filters.base import Filter, Image, MeasureError, Needs, Reduce, Sample, Score, reduce_detail
from filters.batches import Batches, Device, Precision, inference, torch_device
from filters.flow_dis import GAP_SECONDS, REPORT_SIDE

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 128  # below, RAFT's coarsest correlations vanish

# float32 [n, 3, H, W] twice, values 0 to 255, H and W multiples of the stride → float32 [n, 2, H, W], (right, down)
FlowNetwork = Any


class LearnedFlow(Filter[Sample]):
    """Mean flow length in px per 0.5 s at a long side of 960. Detail: one value per keyframe and partner.

    batch: pairs per forward pass, across clips; it halves by itself where memory runs out. device: auto (CUDA where
    torch sees it), cpu or cuda. precision: float16 (CUDA only) or bfloat16 let the network run under autocast. Raises
    FilterUnavailable from the first measurement when a weight is missing or wrong; MeasureError per clip for frames
    under 128 px a side, for a partner that is not later than its keyframe, and for a flow that is not finite.
    """

    name: ClassVar[str] = "flow"
    unit: ClassVar[str] = "px per 0.5 s at 960"
    needs: ClassVar[Needs] = Needs.FRAMES
    stride: ClassVar[int] = 8  # sides must be multiples of it

    def __init__(
        self, *, reduce: Reduce = "mean", batch: int = 4, device: Device = "auto", precision: Precision = "float32"
    ) -> None:
        super().__init__(reduce=reduce)
        self.device: Device = device
        self.precision: Precision = precision
        self._batches = Batches(batch)

    @property
    @abstractmethod
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it reads."""

    @abstractmethod
    def load(self) -> FlowNetwork:
        """The network on the CPU, filled, in evaluation mode. Raises FilterUnavailable."""

    def protocol_form(self, model: str) -> str:
        """The method of a flow filter: `model`, then what all of them share."""
        half = "" if self.precision == "float32" else f",{self.precision}"
        return f"{model},{REPORT_SIDE}pad{self.stride},keyframe-partner,per{GAP_SECONDS:g}s@{REPORT_SIDE}{half}"

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        """One score per clip, in order; pairs of one frame size go through the network together."""
        faults = [_fault(item) for item in items]
        pairs = [
            (item.keyframes[i], item.partners[i])
            for item, fault in zip(items, faults, strict=True)
            if fault is None
            for i in range(len(item.keyframes))
        ]
        lengths = iter(self._batches.run(pairs, _prepare, self._lengths) if pairs else [])
        scores: list[Score | MeasureError] = []
        for item, fault in zip(items, faults, strict=True):
            if fault is not None:
                scores.append(MeasureError(fault))
                continue
            own = [next(lengths) for _ in item.keyframes]
            scores.append(self._score_pairs(own, item))
        return scores

    def _score_pairs(self, lengths: Sequence[npt.NDArray[Any] | MeasureError], item: Sample) -> Score | MeasureError:
        try:
            detail = []
            for length, gap in zip(lengths, item.partner_times - item.times, strict=True):
                if isinstance(length, MeasureError):
                    raise length
                detail.append(float(length) * GAP_SECONDS / float(gap))
            return Score(reduce_detail(detail, self.reduce), tuple(detail))
        except MeasureError as error:
            return error

    def flow_fields(self, pairs: Image) -> npt.NDArray[np.float32]:
        """uint8 [n, 2, h, w, 3] → float32 [n, 2, h, w], (right, down) in pixels of the images as given."""
        with inference(self._network[1], self.precision):
            return np.asarray(self._flow(pairs).cpu().numpy())

    def _lengths(self, pairs: Image) -> npt.NDArray[np.float64]:
        """uint8 [n, 2, h, w, 3] → float64 [n]: mean vector lengths in pixels at a long side of 960."""
        import torch

        with inference(self._network[1], self.precision):
            lengths = self._flow(pairs).square().sum(dim=1).sqrt().mean(dim=(1, 2), dtype=torch.float64)
            return np.asarray(lengths.cpu().numpy() * (REPORT_SIDE / max(pairs.shape[2:4])), np.float64)

    def _flow(self, pairs: Image) -> Tensor:
        import torch

        network, device = self._network
        images = torch.from_numpy(pairs).to(device).permute(1, 0, 4, 2, 3).float()  # [2, n, 3, h, w]
        height, width = images.shape[3:]
        down, right = -height % self.stride, -width % self.stride
        top, left = down // 2, right // 2
        first, second = (
            torch.nn.functional.pad(image, (left, right - left, top, down - top), mode="replicate") for image in images
        )
        flow: Tensor = network(first, second).float()
        return flow[:, :, top : top + height, left : left + width]

    @cached_property
    def _network(self) -> tuple[Callable[[Tensor, Tensor], Tensor], Any]:
        device = torch_device(self.device, self.precision)
        return self.load().to(device), device


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
    height, width = pair[0].shape[:2]
    scale = REPORT_SIDE / max(height, width)
    if scale >= 1:
        return np.stack(pair)
    size = (round(width * scale), round(height * scale))
    return np.stack([np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) for image in pair])
