"""Micro-batches: what is read of their clips, and what is random about them, all of it from the clips' numbers.

Timesteps and dropout are drawn where clips are read. Noise is drawn on the device that uses it (`noises`): in float32 it
is four times the bytes of the latents, and would cost a reading process more than reading does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from presto.config import TrainConfig
from presto.dataset import Clip, Drop
from presto.encoded import read_encoding
from presto.errors import ClipError
from presto.frames import read_frames
from presto.objective import TIMESTEPS, Objective
from presto.plan import Plan
from presto.text import pad_captions

_NOT_NOISE = 0xDEECE66D  # timesteps and dropout have seeds of their own


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips of one bucket.

    From an encoded folder: moments (B, 8, T, h, w), text (tokens, D), all captions one after the other, and lengths, the
    tokens of each caption of each clip: they are padded where they are used (`padded`). From a dataset: frames uint8 (B, F,
    H, W, 3) and N captions per clip. seeds: of each clip's noise; t: int64 (B); weight: 1, or 0 for a clip that could not
    be read and takes no part.
    """

    bucket: int
    clip_ids: list[str]
    seeds: list[int]
    t: Tensor
    weight: Tensor
    moments: Tensor | None = None
    text: Tensor | None = None
    lengths: list[list[int]] = field(default_factory=list)
    frames: Tensor | None = None
    captions: list[list[str]] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """Its tensors on `device`."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def padded(self) -> tuple[Tensor, Tensor]:
        """(text, mask) as the model takes them; of an encoded folder's batch."""
        assert self.text is not None
        captions = iter(torch.split(self.text, [n for clip in self.lengths for n in clip]))
        return pad_captions([[next(captions) for _ in clip] for clip in self.lengths])

    def pin_memory(self) -> Batch:
        """For torch's DataLoader."""
        pinned: dict[str, Any] = {
            f.name: v.pin_memory() for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **pinned)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a clip becomes a place in a batch. null: the embedding of the empty caption (encoded folders), or None."""

    config: TrainConfig
    null: Tensor | None

    def batch(
        self, clips: Sequence[Clip], numbers: Sequence[int], *, dropout: bool = True, t: int | None = None
    ) -> Batch:
        """One micro-batch. numbers: of each clip in the run, which all that is random depends on. t: a timestep for all
        of them, else uniform. A clip that cannot be read gets weight 0 and an entry in `drops`."""
        bucket = self.config.data.buckets[clips[0].bucket]
        drawn = [draw(self.config, number, dropout=dropout) for number in numbers]
        drops: list[Drop] = []
        read = [self._read(clip, d.dropped, drops) for clip, d in zip(clips, drawn, strict=True)]
        same: dict[str, Any] = {
            "bucket": clips[0].bucket,
            "clip_ids": [clip.clip_id for clip in clips],
            "seeds": [d.seed for d in drawn],
            "t": torch.tensor([d.t if t is None else t for d in drawn]),
            "weight": torch.tensor([0.0 if r is None else 1.0 for r in read]),
            "drops": drops,
        }
        if self.null is None:
            blank = torch.zeros(bucket.frames, bucket.height, bucket.width, 3, dtype=torch.uint8)
            none = [""] * self.config.captions
            return Batch(
                **same,
                frames=torch.stack([blank if r is None else r[0] for r in read]),
                captions=[none if r is None else r[1] for r in read],
            )
        moments = torch.stack(
            [torch.zeros(8, *bucket.latent, dtype=torch.float16) if r is None else r[0] for r in read]
        )
        texts = [[self.null] * self.config.captions if r is None else r[1] for r in read]
        return Batch(
            **same,
            moments=moments,
            text=torch.cat([caption for clip in texts for caption in clip]),
            lengths=[[len(caption) for caption in clip] for clip in texts],
        )

    def _read(self, clip: Clip, dropped: Sequence[bool], drops: list[Drop]) -> tuple[Tensor, list[Any]] | None:
        bucket = self.config.data.buckets[clip.bucket]
        wanted = slice(0, 1) if self.config.data.captions == "overall" else slice(1, None)
        try:
            if self.null is None:
                picture = read_frames(Path(clip.path), bucket.frames, bucket.height, bucket.width, clip.frames)
                texts = ["" if d else text for text, d in zip(clip.captions[wanted], dropped, strict=True)]
                return torch.from_numpy(picture), texts
            found = read_encoding(Path(clip.path))
            if found.moments.shape[1:] != bucket.latent:
                raise ClipError(
                    "bucket", f"{clip.path} holds latents {tuple(found.moments.shape)}, not {bucket.latent}"
                )
            captions = found.captions[wanted]
            return found.moments, [self.null if d else text for text, d in zip(captions, dropped, strict=True)]
        except ClipError as error:
            drops.append(Drop(clip.clip_id, clip.path, error.reason, str(error)))
            return None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is random about one clip of a step. seed: of its noise. dropped: for each caption, whether it is left out."""

    seed: int
    t: int
    dropped: list[bool]


def draw(config: TrainConfig, number: int, *, dropout: bool = True) -> Drawn:
    """Drawn from the run's seed and the clip's number in the run, and from nothing else."""
    # torch's generator on the CPU takes 32 bits of a seed: so runs begin at places far apart, and count on from there
    start = int.from_bytes(hashlib.sha256(str(config.seed).encode()).digest()[:4], "big")
    seed = (start + number) % 2**32
    generator = torch.Generator().manual_seed(_NOT_NOISE ^ seed)
    t = int(torch.randint(TIMESTEPS, (), generator=generator))
    dice = torch.rand(1 + config.captions, generator=generator)
    joint = bool(dice[0] < config.loss.dropout)
    dropped = [dropout and (joint or bool(p < config.loss.independent_dropout)) for p in dice[1:]]
    return Drawn(seed, t, dropped)


def noises(
    seeds: Sequence[int], objective: Objective, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """(noise to add, noise of the posterior), float32 (B, *shape), drawn on `device`: the same for a seed on every rank,
    though not on another kind of device."""
    drawn = []
    for seed in seeds:
        generator = torch.Generator(device).manual_seed(seed)
        drawn.append((objective.noise(shape, generator), torch.randn(shape, generator=generator, device=device)))
    added, posterior = zip(*drawn, strict=True)
    return torch.stack(added), torch.stack(posterior)


class StepBatches(Dataset[Batch]):
    """The micro-batches of one rank, by their place in the run: item i is micro-batch i % accumulation of step i //
    accumulation. With several micro-batch sizes the number per step differs; so items are (step, first, count)."""

    def __init__(self, clips: Sequence[Clip], plan: Plan, reader: Reader, rank: int, world: int) -> None:
        self.clips, self.plan, self.reader, self.rank, self.world = clips, plan, reader, rank, world

    def __getitem__(self, item: tuple[int, int, int]) -> Batch:
        step, first, count = item
        _, places, number = self.plan.share(step, self.rank, self.world)
        chosen = places[first : first + count]
        return self.reader.batch([self.clips[i] for i in chosen], range(number + first, number + first + count))

    def items(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Those of steps [start, end)."""
        for step in range(start, end):
            size = self.plan.buckets[self.plan.step(step)[0]].micro_batch
            for first in range(0, self.plan.global_batch // self.world, size):
                yield step, first, size


class _Items:
    """A sampler: torch's DataLoader wants something that can be iterated again."""

    def __init__(self, batches: StepBatches, start: int, end: int) -> None:
        self.batches, self.start, self.end = batches, start, end

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return self.batches.items(self.start, self.end)


def _one(batch: Any) -> Any:
    return batch


def loader(batches: StepBatches, start: int, end: int, *, workers: int, prefetch: int, pin: bool) -> DataLoader[Batch]:
    """The micro-batches of steps [start, end), in order, read ahead by `workers` processes (0: none)."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=_Items(batches, start, end),
        collate_fn=_one,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin,
        # decord and OpenMP do not survive a fork of a process that runs threads
        multiprocessing_context="forkserver" if workers else None,
    )
