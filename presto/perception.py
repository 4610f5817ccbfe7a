"""What looks at videos for `evaluate`: optical flow, CLIP and LPIPS, by the code and the weights of the curation's filters.

This is the only module of the trainer that knows `filters`: a dynamic degree or an LPIPS that came from other code would
not be the one that the clips were chosen by. Weights lie in the models folder (`longtake models pull NAME`), are checked
by their SHA-256 and read with `weights_only=True`; nothing is fetched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.filters.aesthetic import WIDTHS, frame_to_square, to_input
from longtake.filters.base import FilterUnavailable, MeasureError, Sample
from longtake.filters.batches import inference, torch_device
from longtake.filters.flow_dis import flow_field
from longtake.filters.flow_learned import MIN_SIDE, LearnedFlow
from longtake.filters.flow_raft import FlowRaft
from longtake.filters.flow_unimatch import FlowUnimatch
from longtake.filters.lpips import Lpips, LpipsSqueeze, LpipsVgg
from longtake.filters.weights import fill, load_weight
from longtake.presto.errors import ClipError, PrestoError
from longtake.presto.frames import fit
from longtake.presto.video import Frames

Array = npt.NDArray[np.floating]
Flow = Callable[[Frames, Frames], Array]

# By the names of their weights. VBench's dynamic degree uses raft-large-princeton (raft-things.pth).
_LEARNED: dict[str, Callable[[], LearnedFlow]] = {
    "raft-small": partial(FlowRaft, variant="small"),
    "raft-large": partial(FlowRaft, variant="large"),
    "raft-small-princeton": partial(FlowRaft, variant="small", source="princeton"),
    "raft-large-princeton": partial(FlowRaft, variant="large", source="princeton"),
    "unimatch": partial(FlowUnimatch, variant="scale2-refine6"),
    "unimatch-scale2": partial(FlowUnimatch, variant="scale2"),
    "unimatch-scale1": partial(FlowUnimatch, variant="scale1"),
}
_NETS: dict[str, type[Lpips]] = {"alex": Lpips, "vgg": LpipsVgg, "squeeze": LpipsSqueeze}
FLOWS = ("dis", *_LEARNED)
CLIPS = tuple(WIDTHS)
NETS = tuple(_NETS)
_LONG_SIDE = 960  # Pixels of the frames that LPIPS compares, as in curation.
_NO_PARAMETERS = ("input_resolution", "context_length", "vocab_size")  # Entries of OpenAI's files that are no weights.


@contextmanager
def _as_set_up() -> Iterator[None]:
    """A package or a weight that is missing, or another one, is a fault of the set-up."""
    try:
        yield
    except FilterUnavailable as error:
        raise PrestoError(str(error)) from error


def optical_flow(name: str) -> Flow:
    """Flow by one of FLOWS: of two RGB frames uint8 (H, W, 3), float (H, W, 2), (right, down) in their pixels. Raises
    PrestoError; the function raises ClipError for frames that are too small."""
    if name == "dis":
        return _dis
    if name not in _LEARNED:
        raise PrestoError(f"there is no flow {name!r}; there are {', '.join(FLOWS)}")
    network = _LEARNED[name]()
    with _as_set_up():
        _ = network._model  # The model loads now, and not at the first video.
    return partial(_learned, network)


def _dis(first: Frames, second: Frames) -> Array:
    try:
        return flow_field(first, second)
    except MeasureError as error:
        raise ClipError("small", str(error)) from error


def _learned(network: LearnedFlow, first: Frames, second: Frames) -> Array:
    if min(first.shape[:2]) < MIN_SIDE:
        raise ClipError(
            "small", f"the flow needs frames of {MIN_SIDE} px a side; got {first.shape[1]}×{first.shape[0]}"
        )
    return np.moveaxis(network.flow_fields(np.stack([first, second])[None])[0], 0, 2)


class Clip:
    """CLIP as OpenAI trained it, both towers, one of CLIPS: embeddings of pictures and texts, float32 (N, D). Raises
    PrestoError."""

    def __init__(self, name: str) -> None:
        if name not in WIDTHS:
            raise PrestoError(f"there is no CLIP {name!r}; there are {', '.join(CLIPS)}")
        weight = f"clip-{name.lower()}"
        with _as_set_up():
            self._device = torch_device("auto")
            state = {key: value for key, value in load_weight(weight).items() if key not in _NO_PARAMETERS}
            self._package: Any = importlib.import_module("open_clip")
            made = self._package.CLIP(**{**self._package.get_model_config(name), "quick_gelu": True})
            fill(made, state, weight)
        self._model = made.to(self._device)

    def pictures(self, frames: Frames) -> Array:
        """frames: uint8 (N, H, W, 3). The short side is reduced to 224 and the middle cut, as CLIP's own transform."""
        import torch

        squares = np.stack([frame_to_square(frame, "center") for frame in frames])
        with inference(self._device, "float32"):
            features = self._model.encode_image(to_input(torch.from_numpy(squares).to(self._device)))
        return np.asarray(features.cpu().numpy())

    def texts(self, captions: Sequence[str]) -> Array:
        """Of each caption its first 75 tokens count: CLIP takes no more."""
        with inference(self._device, "float32"):
            features = self._model.encode_text(self._package.tokenize(list(captions)).to(self._device))
        return np.asarray(features.cpu().numpy())


class Distance:
    """LPIPS (v0.1) by one of NETS, of frames with a long side of at most 960. Raises PrestoError."""

    def __init__(self, net: str) -> None:
        if net not in _NETS:
            raise PrestoError(f"there is no LPIPS {net!r}; there are {', '.join(NETS)}")
        self.net = net
        self._filter = _NETS[net]()
        with _as_set_up():
            _ = self._filter._model

    def neighbours(self, frames: Frames) -> list[float]:
        """Distances of frame 0 and 1, 1 and 2, … of uint8 (N, H, W, 3). Raises ClipError: small."""
        _, height, width, _ = frames.shape
        scale = min(1.0, _LONG_SIDE / max(height, width))
        small = fit(frames, round(height * scale), round(width * scale))
        times = np.arange(len(small), dtype=np.float64)
        (score,) = self._filter.measure([Sample(small, small, times, times)])
        if isinstance(score, MeasureError):
            raise ClipError("small", str(score))
        return list(score.detail)
