"""The shot networks: from how like pictures are (`likeness`) to where a film is cut.

Four convolutions over time, two answers to each picture: that a cut lies between it and the one before, and that it belongs to a
transition (a dissolve, wipe, slide, iris …). They see 26 pictures to both sides, some two seconds. There are two of them, with
48,000 weights each, which were trained on films made of pieces of real takes (`benchmarks/shots_train.py`), at the rate at which
a scan looks: the second one later, on films with slower transitions, cameras that move further, and more that is no cut. Its
answer about transitions is a second opinion; about cuts the first one alone is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Layer = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

# Pictures from one tap to the next in each of the four convolutions, which have five taps each.
DILATIONS = (1, 2, 4, 6)
# The version of the rules beside the network (`bars.py`, `fades.py`, `stills.py`, `camera_moves.py`, `grounds.py`,
# `pushes.py`, `passers.py`, `jerks.py`). Another one means other cuts.
RULES = 12
REACH = 2 * sum(DILATIONS)  # Pictures. An answer depends on this number of them to either side.
_FAR = 6.0  # Standard deviations. A number further from its mean says no more than this.


@dataclass(frozen=True, slots=True)
class Weights:
    """mean, deviation: float32 [numbers], of the input. networks: the layers of both, float32 [taps, in, out] and [out] each."""

    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    networks: list[list[Layer]]


@cache
def weights() -> Weights:
    """Those that come with the package."""
    with (files(__package__) / "shot_network.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    count = len(DILATIONS) + 2
    networks = [[(arrays[f"weight{i}"][n], arrays[f"bias{i}"][n]) for i in range(count)] for n in range(2)]
    return Weights(arrays["mean"], arrays["deviation"], networks)


@cache
def protocol() -> str:
    """Which networks these are: a hash of their weights."""
    return hashlib.sha256((files(__package__) / "shot_network.npz").read_bytes()).hexdigest()[:12]


def judge(numbers: Matrix) -> Matrix:
    """numbers: float32 [pictures, numbers], one after another. Probabilities, float32 [pictures, 3]: that a cut lies before the
    picture, and that it is in a transition, by the first network and by the second. The first and last `REACH` rows know only
    one side."""
    known = weights()
    x = np.clip((numbers - known.mean) / known.deviation, -_FAR, _FAR)
    first, second = (_answers(x, layers) for layers in known.networks)
    return np.concatenate([first, second[:, 1:]], axis=1)


def _answers(x: Matrix, layers: list[Layer]) -> Matrix:
    """x: float32 [pictures, numbers], scaled. Both probabilities by one network, float32 [pictures, 2]."""
    first, *middle, last = layers
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
