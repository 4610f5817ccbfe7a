"""What a step comes to: sums over micro-batches and ranks, and the entries of the log that are made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from longtake.presto.batches import Batch
from longtake.presto.budget import measured_peak, nominal_peak, step_flops, tokens
from longtake.presto.config import TrainConfig
from longtake.presto.objective import TIMESTEPS
from longtake.presto.parallel import Ranks

BINS = 10  # Bins of timesteps in the log.
_SIZES = {"loss": 1, "clips": 1, "dropped": 1, "stop": 1, "written": 1, "loss_by_time": BINS, "clips_by_time": BINS}


class Totals:
    """Sums, float64. Each is a view of one vector, so that one all-reduce adds all of them up over the ranks.

    loss: of the clips that take part; clips: how many they are; dropped: those that cannot; stop: ranks that were told to;
    written: ranks that have written a checkpoint in the background;
    loss_by_time, clips_by_time: the first two by bin of the timestep.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.vector = torch.zeros(sum(_SIZES.values()), dtype=torch.float64, device=device)
        parts = dict(zip(_SIZES, torch.split(self.vector, list(_SIZES.values())), strict=True))
        self.loss, self.clips, self.dropped = parts["loss"], parts["clips"], parts["dropped"]
        self.stop, self.written = parts["stop"], parts["written"]
        self.loss_by_time, self.clips_by_time = parts["loss_by_time"], parts["clips_by_time"]

    @torch.no_grad()
    def add(self, batch: Batch, losses: Tensor) -> None:
        """A micro-batch, and the loss of each of its clips, (B)."""
        weighted, bins = (losses * batch.weight).double(), batch.t * BINS // TIMESTEPS
        self.loss += weighted.sum()
        self.clips += batch.weight.sum()
        self.dropped += (batch.weight == 0).sum()
        self.loss_by_time.index_add_(0, bins, weighted)
        self.clips_by_time.index_add_(0, bins, batch.weight.double())


class Meter:
    """Since the last entry: sums, operations and time. shape: the transformer's configuration."""

    def __init__(self, config: TrainConfig, shape: Mapping[str, Any], ranks: Ranks) -> None:
        self.config, self.shape, self.ranks = config, shape, ranks
        self.latest: dict[str, float] = {}
        self.peak: float | None = None
        self._clear()

    def _clear(self) -> None:
        self.started, self.waited = time.perf_counter(), 0.0
        self.steps, self.totals, self.norm, self.rate = 0, Totals(), 0.0, 0.0
        self.flops, self.tokens = 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around reading."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is no part of a step: its time does not count."""
        start = time.perf_counter()
        yield
        self.started += time.perf_counter() - start

    def add(self, totals: Totals, norm: float, rate: float, bucket: int, text_length: int) -> None:
        """After a step. totals: over all ranks; text_length: tokens of a caption, as padded."""
        if self.peak is None:  # The peak is measured once, before the first entry.
            with self.aside():
                self.peak = measured_peak(self.ranks.device, self.config.precision)
        size, clips = self.config.data.buckets[bucket], float(totals.clips)
        adapters = self.config.lora is not None
        self.flops += clips * step_flops(self.shape, size, self.config.attention, text_length, adapters=adapters)
        self.tokens += int(clips * tokens(self.shape, size))
        self.totals.vector += totals.vector.cpu()
        self.steps, self.norm, self.rate = self.steps + 1, norm, rate

    def _utilization(self, seconds: float) -> dict[str, float]:
        """mfu: against the device's nominal peak, as papers have it, where that is known; mfu_measured: against a matrix
        product that was measured here, which is lower."""
        rate = self.flops / seconds / self.ranks.world
        values = {"mfu_measured": rate / (self.peak or 1.0)}
        device = self.ranks.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        if (nominal := nominal_peak(name, self.config.precision)) is not None:
            values["mfu"] = rate / nominal
        return values

    def entry(self) -> dict[str, float]:
        """What is logged; then from zero."""
        seconds, clips = time.perf_counter() - self.started, float(self.totals.clips)
        values = {
            "loss": float(self.totals.loss) / max(clips, 1),
            "grad_norm": self.norm,
            "rate": self.rate,
            "clips_per_second": clips / seconds,
            "tokens_per_second": self.tokens / seconds,
            **self._utilization(seconds),
            "data_wait": self.waited / seconds,
            "step_seconds": seconds / max(self.steps, 1),
            "memory_gib": _memory(self.ranks.device) / 2**30,
            "dropped": float(self.totals.dropped),
        }
        by_time = zip(self.totals.loss_by_time.tolist(), self.totals.clips_by_time.tolist(), strict=True)
        for i, (total, count) in enumerate(by_time):
            if count:
                values[f"loss_t{i * TIMESTEPS // BINS}"] = total / count
        self.latest = values
        self._clear()
        return values


def _memory(device: torch.device) -> float:
    """Largest use so far, bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
