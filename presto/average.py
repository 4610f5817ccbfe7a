"""The average of the weights over the steps, where a run keeps one: what is then validated, sampled and exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from longtake.presto.parallel import local


def average_decay(decay: float, step: int) -> float:
    """Of the average at a step counted from 0: `decay`, and at first (1 + n) / (10 + n)."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """An exponential average of a sharded model's weights. decay: None keeps none, and the rest does nothing.

    weights: sharded as the model's, by their names; part of a checkpoint.
    """

    def __init__(self, model: Any, decay: float | None) -> None:
        self.model, self.decay = model, decay
        self.weights: dict[str, Tensor] = {}
        if decay is not None:
            self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After the optimizer's step, counted from 0."""
        if self.decay is None:
            return
        kept = [local(a) for a in self.weights.values()]
        now = [local(p.detach()) for p in self._trained()]
        torch._foreach_lerp_(kept, now, 1 - average_decay(self.decay, step))

    def _trained(self) -> list[Any]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights that will be exported in the place of those in training: averaged ones, where they are kept."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        if not self.weights:
            return
        for module in (*self.model.transformer_blocks, self.model):
            module.reshard()  # Weights that were gathered for a forward pass would be used again.
        for parameter, average in zip(self._trained(), self.weights.values(), strict=True):
            mine, other = local(parameter.detach()), local(average)
            held = mine.clone()
            mine.copy_(other)
            other.copy_(held)
