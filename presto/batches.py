"""Micro-batches: what is read of their clips, and what is random about them, all of it from the clips' numbers.

Timesteps and dropout are drawn where clips are read. Noise is drawn on the device that uses it (`noises`): in float32 it
is four times the bytes of the latents, and would cost a reader more than reading does.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from longtake.presto.config import TrainConfig
from longtake.presto.dataset import Clip, Drop
from longtake.presto.encoded import EncodingFile
from longtake.presto.errors import ClipError
from longtake.presto.frames import read_frames
from longtake.presto.objective import TIMESTEPS, Objective, shifted
from longtake.presto.plan import Plan
from longtake.presto.text import pad_captions

_NOT_NOISE = 0xDEECE66D  # Gives the seeds of timesteps and dropout, which differ from those of the noise.


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
        """Its tensors in memory from which a GPU copies by itself."""
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
        drawn = [draw(self.config, number, dropout=dropout) for number in numbers]
        drops: list[Drop] = []
        read = self._decoded if self.null is None else self._encoded
        return Batch(
            bucket=clips[0].bucket,
            clip_ids=[clip.clip_id for clip in clips],
            seeds=[d.seed for d in drawn],
            t=torch.tensor([d.t if t is None else t for d in drawn]),
            drops=drops,
            **read(clips, [d.dropped for d in drawn], drops),
        )

    @property
    def _wanted(self) -> slice:
        """Of a clip's captions, the overall one first."""
        return slice(0, 1) if self.config.data.captions == "overall" else slice(1, None)

    def _decoded(self, clips: Sequence[Clip], dropped: Sequence[Sequence[bool]], drops: list[Drop]) -> dict[str, Any]:
        bucket = self.config.data.buckets[clips[0].bucket]
        frames = torch.zeros(len(clips), bucket.frames, bucket.height, bucket.width, 3, dtype=torch.uint8)
        weight, captions = torch.ones(len(clips)), []
        for i, (clip, left_out) in enumerate(zip(clips, dropped, strict=True)):
            texts = ["" if d else text for text, d in zip(clip.captions[self._wanted], left_out, strict=True)]
            try:
                pictures = read_frames(clip.path, bucket.frames, bucket.height, bucket.width, clip.frames)
                frames[i] = torch.from_numpy(pictures)
            except ClipError as error:
                drops.append(Drop(clip.clip_id, clip.path, error.reason, str(error)))
                weight[i] = 0
            captions.append(texts)
        return {"frames": frames, "captions": captions, "weight": weight}

    def _encoded(self, clips: Sequence[Clip], dropped: Sequence[Sequence[bool]], drops: list[Drop]) -> dict[str, Any]:
        assert self.null is not None
        null, latent = self.null, self.config.data.buckets[clips[0].bucket].latent
        weight = torch.ones(len(clips))

        def drop(i: int, error: ClipError) -> None:
            drops.append(Drop(clips[i].clip_id, clips[i].path, error.reason, str(error)))
            weight[i] = 0

        with ExitStack() as closing:
            files: list[EncodingFile | None] = []
            for i, clip in enumerate(clips):
                try:
                    files.append(closing.enter_context(self._open(clip, latent)))
                except ClipError as error:
                    files.append(None)
                    drop(i, error)
            # A file whose head cannot be read brings no lengths of captions.
            lengths = [
                [
                    len(null) if file is None or out else length
                    for length, out in zip(file.lengths[self._wanted] if file else left_out, left_out, strict=True)
                ]
                for file, left_out in zip(files, dropped, strict=True)
            ]
            moments = torch.empty(len(clips), 8, *latent, dtype=torch.float16)
            text = torch.empty(sum(map(sum, lengths)), null.shape[1], dtype=null.dtype)
            places = iter(torch.split(text, [n for clip_lengths in lengths for n in clip_lengths]))
            for i, (file, left_out) in enumerate(zip(files, dropped, strict=True)):
                seeds = [next(places) for _ in left_out]
                try:
                    if file is not None:
                        file.read_moments(moments[i])
                        for number, (place, out) in enumerate(zip(seeds, left_out, strict=True), self._wanted.start):
                            if out:
                                place.copy_(null)
                            else:
                                file.read_caption(number, place)
                except ClipError as error:
                    drop(i, error)
                if not weight[i]:
                    for tensor in (moments[i], *seeds):
                        tensor.zero_()
        return {"moments": moments, "text": text, "lengths": lengths, "weight": weight}

    def _open(self, clip: Clip, latent: tuple[int, int, int]) -> EncodingFile:
        assert self.null is not None
        file = EncodingFile(clip.path)
        count = len(file.lengths[self._wanted])
        try:
            if file.moments != (8, *latent):
                raise ClipError("bucket", f"{clip.path} holds latents {file.moments}, not {latent}")
            if count != self.config.captions:
                raise ClipError("captions", f"{clip.path} holds {count} captions, not {self.config.captions}")
            if file.text != (self.null.dtype, self.null.shape[1]):
                raise ClipError("unreadable", f"{clip.path} holds text of another kind than the empty caption's")
        except ClipError:
            with file:
                raise
        return file


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is random about one clip of a step. seed: of its noise. dropped: for each caption, whether it is left out."""

    seed: int
    t: int
    dropped: list[bool]


def draw(config: TrainConfig, number: int, *, dropout: bool = True) -> Drawn:
    """Drawn from the run's seed and the clip's number in the run, and from nothing else."""
    # The generator of torch on the CPU takes 32 bits of a seed. Runs therefore begin at places far apart, and count on from
    # there.
    start = int.from_bytes(hashlib.sha256(str(config.seed).encode()).digest()[:4], "big")
    seed = (start + number) % 2**32
    generator = torch.Generator().manual_seed(_NOT_NOISE ^ seed)
    t = shifted(int(torch.randint(TIMESTEPS, (), generator=generator)), config.loss.shift)
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


class StepBatches:
    """The micro-batches of one group of ranks, by their place in the run: item i is micro-batch i % accumulation of step i //
    accumulation. With several micro-batch sizes the number per step differs; so items are (step, first, count)."""

    def __init__(self, clips: Sequence[Clip], plan: Plan, reader: Reader, group: int, groups: int) -> None:
        self.clips, self.plan, self.reader, self.group, self.groups = clips, plan, reader, group, groups

    def __getitem__(self, item: tuple[int, int, int]) -> Batch:
        step, first, count = item
        _, places, number = self.plan.share(step, self.group, self.groups)
        chosen = places[first : first + count]
        return self.reader.batch([self.clips[i] for i in chosen], range(number + first, number + first + count))

    def items(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Those of steps [start, end)."""
        for step in range(start, end):
            size = self.plan.buckets[self.plan.step(step)[0]].micro_batch
            for first in range(0, self.plan.global_batch // self.groups, size):
                yield step, first, size


def loader(
    batches: StepBatches, start: int, end: int, *, workers: int, prefetch: int, pin: bool
) -> Generator[Batch, None, None]:
    """The micro-batches of steps [start, end), in order, read ahead by `workers` threads (0: none), `prefetch` by each.

    By threads, and not by processes: reading and decoding leave Python's lock to others, processes would copy what they
    read, and have to be told of every way in which a run can end. pin: into memory from which a GPU copies by itself.
    Close it (`contextlib.closing`) to stop reading ahead.
    """

    def read(item: tuple[int, int, int]) -> Batch:
        return batches[item].pin_memory() if pin else batches[item]

    if not workers:
        yield from map(read, batches.items(start, end))
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    ahead: deque[Future[Batch]] = deque()
    try:
        for item in batches.items(start, end):
            ahead.append(pool.submit(read, item))
            if len(ahead) > workers * prefetch:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
