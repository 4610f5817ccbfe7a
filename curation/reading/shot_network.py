"""The shot network: from how like pictures are (`likeness`) to where a film is cut.

Four convolutions over time, two answers to each picture: that a cut lies between it and the one before, and that it belongs to a
transition (a dissolve, wipe, slide, iris …). It sees 26 pictures to both sides, some two seconds. Its 48,000 weights were
trained on films made of pieces of real takes (`benchmarks/shots_train.py`), at the rate at which a scan looks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

# Pictures from one tap to the next in each of the four convolutions, which have five taps each.
DILATIONS = (1, 2, 4, 6)
# The version of the rules beside the network (`fades.py`, `stills.py`, `camera_moves.py`, `pushes.py`). Another one means other
# cuts.
RULES = 5
REACH = 2 * sum(DILATIONS)  # Pictures. An answer depends on this number of them to either side.
_FAR = 6.0  # Standard deviations. A number further from its mean says no more than this.


@dataclass(frozen=True, slots=True)
class Weights:
    """mean, deviation: float32 [numbers], of the input. Each layer: float32 [taps, in, out] and [out]."""

    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    layers: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@cache
def weights() -> Weights:
    """Those that come with the package."""
    with (files(__package__) / "shot_network.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    count = len(DILATIONS) + 2
    layers = [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count)]
    return Weights(arrays["mean"], arrays["deviation"], layers)


@cache
def protocol() -> str:
    """Which network this is: a hash of its weights."""
    return hashlib.sha256((files(__package__) / "shot_network.npz").read_bytes()).hexdigest()[:12]


def judge(numbers: Matrix) -> Matrix:
    """numbers: float32 [pictures, numbers], one after another. Probabilities, float32 [pictures, 2]: that a cut lies before the
    picture, that it is in a transition. The first and last `REACH` rows know only one side."""
    known = weights()
    x = np.clip((numbers - known.mean) / known.deviation, -_FAR, _FAR)
    first, *middle, last = known.layers
    hidden = np.maximum(_convolve(x, *first, 1), 0)
    for (weight, bias), dilation in zip(middle, DILATIONS, strict=True):
        hidden = hidden + np.maximum(_convolve(hidden, weight, bias, dilation), 0)
    logits = _convolve(hidden, *last, 1)
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), dtype=np.float32)


def _convolve(x: Matrix, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], dilation: int) -> Matrix:
    """x: [pictures, in]; beyond its ends there is nothing (zeros)."""
    taps = len(weight)
    reach = taps // 2 * dilation
    wide = np.pad(x, ((reach, reach), (0, 0)))
    total = np.tile(bias, (len(x), 1))
    for tap in range(taps):
        total += wide[tap * dilation : tap * dilation + len(x)] @ weight[tap]
    return total
