"""Train the shot networks. `python -m benchmarks.shots_train OUT.npz [half] [second]`; needs torch and ../shared.

Takes are the stretches of the real corpus between the cuts that were seen by eye (../shared/cases/cuts.tsv) and the films of
which its table says that they have none, with pans over scikit-image's photographs and plain cards. Out of them come 400 films
(`benchmarks/shots_films.py`); to them come the corpus itself and spliced films (seeds 1 to 3), each ten times.
half: only every second film of the corpus (by the hash of its name), to see on the others what the network makes of film that it
never saw. second: both networks, of which the first is the one that comes with the package; the second learns about cuts from its
answers, and about transitions from the films, where they weigh twice.

The first network was trained in four runs on 2026-11-25, each going on from the last one's, on the films that were made then: no
views, half as many kinds of trouble, transitions of up to 2.2 s. The second was trained in two runs on 2026-11-27 with these
films and losses: 3,682 films without stills (on a GPU, 23,000 steps of 96 crops), then, from those weights, 2,614 films, a part
of them with stills (2,464 steps).
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.shots import CASES, FILMS, SHARED, VIDEOS, pictures
from benchmarks.shots_films import Film, described, film
from benchmarks.shots_takes import WIDE, Take, cards, pans
from longtake.curation.errors import VideoError
from longtake.curation.reading.likeness import NUMBERS
from longtake.curation.reading.shot_network import DILATIONS, judge, weights

FILMS_MADE, EPOCHS, CHANNELS, CROP, BATCH = 400, 40, 48, 128, 48
REPEATED = 10  # Repeats of real films among those that are made.
FAR = 0.75  # Seconds around a cut by eye that have no label for transitions.


class Network(nn.Module):
    """As `shot_network.judge`, to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(NUMBERS, CHANNELS, 1)
        self.middle = nn.ModuleList([nn.Conv1d(CHANNELS, CHANNELS, 5, dilation=d, padding=2 * d) for d in DILATIONS])
        self.last = nn.Conv1d(CHANNELS, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [films, NUMBERS, pictures] → logits [films, 2, pictures]."""
        hidden = functional.relu(self.first(x))
        for layer in self.middle:
            hidden = hidden + functional.relu(layer(functional.dropout(hidden, 0.1, self.training)))
        return self.last(hidden)


def for_training(name: str) -> bool:
    return int(hashlib.sha256(name.replace("/", "__").encode()).hexdigest(), 16) % 2 == 0


def corpus(half: bool) -> Iterator[tuple[str, list[float]]]:
    """Films whose cuts are known, and those cuts."""
    with open(CASES / "cuts.tsv", encoding="utf-8") as file:
        known = {
            row["file"]: [float(cut) for cut in (row["cuts"] or "").split()]
            for row in csv.DictReader(file, delimiter="\t")
        }
    with open(SHARED / "corpus" / "corpus.tsv", encoding="utf-8") as file:
        rough = {row["file"]: row["rough_cuts"] for row in csv.DictReader(file, delimiter="\t")}
    for name in sorted({*known, *(name for name, cuts in rough.items() if cuts == "0" and "fades" not in name)}):
        if (not half or for_training(name)) and (VIDEOS / name).exists() and _has_times(VIDEOS / name):
            yield name, known.get(name, [])


def _has_times(path: Path) -> bool:
    """Whether a scan takes the film. Of the corpus raw streams are refused."""
    try:
        next(pictures(path, every=False))
    except VideoError:
        return False
    return True


def takes_of(name: str, cuts: list[float]) -> Iterator[Take]:
    """The stretches of a film that are a second and more from any cut."""
    seen = [
        (time, cv2.resize(thumb, WIDE, interpolation=cv2.INTER_AREA)) for time, thumb in pictures(VIDEOS / name, True)
    ]
    times = np.array([time for time, _ in seen])
    for start, end in zip([-1.0, *cuts], [*cuts, times[-1] + 2], strict=True):
        (inside,) = np.nonzero((times > start + 1) & (times < end - 1))
        if len(inside) > 20 and times[inside[-1]] - times[inside[0]] > 2.5:
            yield Take(times[inside] - times[inside[0]], np.stack([seen[i][1] for i in inside]))


def real(path: Path, cuts: list[float], jumps: list[float], by_eye: bool) -> Film:
    seen = list(pictures(path, every=False))
    times = np.array([time for time, _ in seen])
    truth = np.zeros((len(times), 2), np.float32)
    for moments, value in ((cuts, 1.0), (jumps, 0.6)):
        for moment in moments:
            if by_eye:
                truth[np.abs(times - moment) < FAR, 1] = -1
            else:
                truth[min(int(np.searchsorted(times, moment - 1e-3)), len(times) - 1), 0] = value
    return Film(times, described(times, [thumb for _, thumb in seen]), truth)


def photos() -> list[np.ndarray]:
    folder = files("skimage.data")
    names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "ihc", "moon", "page")
    found = [
        cv2.imdecode(np.frombuffer((folder / f"{name}.png").read_bytes(), np.uint8), cv2.IMREAD_COLOR) for name in names
    ]
    return [cv2.resize(photo, (384, 256), interpolation=cv2.INTER_AREA) for photo in found]


def material(half: bool) -> list[Film]:
    rng = np.random.default_rng(1)
    known = list(corpus(half))
    takes = [take for name, cuts in known for take in takes_of(name, cuts)]
    takes += cards(rng, len(takes) // 5) + pans(rng, photos(), len(takes) // 2)
    whole = [real(VIDEOS / name, cuts, [], by_eye=True) for name, cuts in known]
    for seed in (1, 2, 3):
        for kind in ("different", "jumps"):
            truth = json.loads((FILMS / f"splices{seed}" / f"{kind}.json").read_text())
            whole.append(real(FILMS / f"splices{seed}" / f"{kind}.mp4", truth["cuts"], truth["jumps"], by_eye=False))
    return [film(rng, takes) for _ in range(FILMS_MADE)] + whole * REPEATED


def batches(films: list[Film], rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and truth, float32 [films, numbers or answers, pictures]: crops, three in ten of them at an end of their film,
    since there the network sees one side only; and short films whole."""
    short = [one for one in films if len(one.times) <= CROP]
    crops = []
    for one in films:
        spare = len(one.times) - CROP
        for at in rng.integers(0, spare, len(one.times) // CROP) if spare > 0 else []:
            crops.append((one, int(rng.choice([at, 0, spare], p=[0.7, 0.15, 0.15]))))
    rng.shuffle(crops)
    for i in range(0, len(crops), BATCH):
        chosen = [(one.numbers[at : at + CROP].T, one.truth[at : at + CROP].T) for one, at in crops[i : i + BATCH]]
        yield np.stack([numbers for numbers, _ in chosen]), np.stack([truth for _, truth in chosen])
    for one in short:
        yield one.numbers.T[None], one.truth.T[None]


def train(films: list[Film], second: bool) -> dict[str, np.ndarray]:
    """The input's scale and one network's arrays, as `shot_network.weights` reads those of both. second: scaled as the first
    network's input, with its answers for the truth about cuts."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if second:
        mean, deviation = weights().mean, weights().deviation
        films = [
            replace(one, truth=np.concatenate([one.truth, judge(one.numbers)[:, :1]], axis=1, dtype=np.float32))
            for one in films
        ]
    else:
        every = np.concatenate([one.numbers for one in films])
        mean, deviation = every.mean(0), every.std(0) + 1e-3
    network, loss_of = Network(), _second_loss if second else _loss
    # The mean of the weights over the last steps is smoother than the last ones.
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS)
    for epoch in range(EPOCHS):
        total = 0.0
        for numbers, truth in batches(films, rng):
            x = torch.tensor(np.clip((numbers - mean[:, None]) / deviation[:, None], -6, 6))
            loss = loss_of(network(x + torch.randn_like(x) * 0.03), torch.tensor(truth)) * len(x) / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(network)
            total += loss.item()
        schedule.step()
        print(epoch, f"{total:.2f}", flush=True)
    arrays = {"mean": mean, "deviation": deviation}
    network = averaged.module if second else network
    for i, layer in enumerate([network.first, *network.middle, network.last]):
        arrays[f"weight{i}"] = layer.weight.detach().numpy().transpose(2, 1, 0).astype(np.float16)
        arrays[f"bias{i}"] = layer.bias.detach().numpy()
    return arrays


def _loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cuts are rare, so they weigh four times. Within a transition a cut is half wrong. Without a label the weight is 0."""
    cut, transition = truth[:, 0], truth[:, 1]
    weight = torch.where(transition > 0, 0.5, 1.0) * (transition >= 0)
    cuts = functional.binary_cross_entropy_with_logits(logits[:, 0], (cut > 0).float(), weight)
    slow = functional.binary_cross_entropy_with_logits(logits[:, 1], transition.clamp(0, 1), (transition >= 0).float())
    return 4 * cuts + slow


def _second_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """truth: with the first network's answers about cuts behind it, which weigh four times where there may be one."""
    cut, transition, answer = truth.unbind(1)
    weight = 1 + 3 * ((answer > 0.2) | (cut > 0)).float()
    cuts = functional.binary_cross_entropy_with_logits(logits[:, 0], answer, weight)
    known = (transition >= 0) * (1 + (transition > 0).float())
    slow = functional.binary_cross_entropy_with_logits(logits[:, 1], transition.clamp(0, 1), known)
    return 4 * cuts + slow


def both(second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the first network, which comes with the package, and of a second one, stacked."""
    path = files("longtake.curation.reading") / "shot_network.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {
            name: values if name in ("mean", "deviation") else np.stack([stored[name][0], values])
            for name, values in second.items()
        }


if __name__ == "__main__":
    options = sys.argv[2:]
    trained = train(material("half" in options), "second" in options)
    np.savez_compressed(sys.argv[1], **(both(trained) if "second" in options else trained))
