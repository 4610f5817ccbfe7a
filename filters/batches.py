"""Batches of model inputs: prepared in threads, grouped by shape, run on the device, halved when memory runs out.

What the filters with a torch model share. Order is kept: the caller gets one result per item, in the items' order.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from filters.base import FilterUnavailable, MeasureError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]
Item = TypeVar("Item")
Array = npt.NDArray[Any]


class Batches:
    """Runs a model over many items.

    size: items per forward pass, at most. After torch says that the device's memory is full it is halved, for good:
    what did not fit once will not fit the next time. At most three batches of prepared items are held at a time.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a batch needs at least one item, not {size}")
        self.size = size

    def run(
        self,
        items: Sequence[Item],
        prepare: Callable[[Item], Array],
        forward: Callable[[Array], Array],
    ) -> list[Array | MeasureError]:
        """One row of `forward`'s output per item, in order, or the MeasureError that `prepare` raised for it.

        prepare: makes an item's array, in a thread. forward: [n, ...] of arrays of one shape and dtype → [n, ...].
        Raises FilterUnavailable if the device's memory does not hold a single item.
        """
        results: dict[int, Array | MeasureError] = {}
        waiting: dict[tuple[tuple[int, ...], str], list[tuple[int, Array]]] = defaultdict(list)
        for index, prepared in self._prepared(items, prepare):
            if isinstance(prepared, MeasureError):
                results[index] = prepared
                continue
            group = waiting[prepared.shape, prepared.dtype.str]
            group.append((index, prepared))
            # Groups of odd shapes must not pile up: the fullest goes when two batches' worth wait in all.
            if len(group) >= self.size or sum(map(len, waiting.values())) >= 2 * self.size:
                fullest = max(waiting, key=lambda key: len(waiting[key]))
                results |= self._forward(waiting.pop(fullest), forward)
        for rest in waiting.values():
            results |= self._forward(rest, forward)
        return [results[index] for index in range(len(items))]

    def _prepared(
        self, items: Sequence[Item], prepare: Callable[[Item], Array]
    ) -> Iterator[tuple[int, Array | MeasureError]]:
        """Prepared items in order, a batch ahead of their use, so that the device does not wait."""

        def attempt(item: Item) -> Array | MeasureError:
            try:
                return prepare(item)
            except MeasureError as error:
                return error

        with ThreadPoolExecutor(_cores()) as pool:
            ahead = min(len(items), self.size + _cores())
            futures = [pool.submit(attempt, item) for item in items[:ahead]]
            for index in range(len(items)):
                prepared = futures[index % ahead].result()
                if index + ahead < len(items):
                    futures[index % ahead] = pool.submit(attempt, items[index + ahead])
                yield index, prepared

    def _forward(
        self, batch: list[tuple[int, Array]], forward: Callable[[Array], Array]
    ) -> dict[int, Array | MeasureError]:
        import torch

        results: dict[int, Array | MeasureError] = {}
        done = 0
        while done < len(batch):
            part = batch[done : done + self.size]
            try:
                outputs = forward(np.stack([array for _, array in part]))
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    shape = "×".join(map(str, part[0][1].shape))
                    raise FilterUnavailable(
                        f"the device has no memory for one input of {shape}: free it, or use device: cpu"
                    ) from error
                self.size = len(part) // 2
            else:
                results |= {index: row for (index, _), row in zip(part, outputs, strict=True)}
                done += len(part)
                continue
            # Outside the handler: while an exception lives, so do the tensors of its frames.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_device(device: Device, precision: Precision = "float32") -> torch.device:
    """The device for a setting; `auto` is CUDA where torch sees it. Raises FilterUnavailable."""
    try:
        import torch
    except ImportError as error:
        raise FilterUnavailable("torch is missing: pip install 'longtake[models]'") from error
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is auto, cpu or cuda, not {device!r}")
    if precision not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"precision is float32, float16 or bfloat16, not {precision!r}")
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise FilterUnavailable("device is cuda, and torch sees no CUDA device here")
    chosen = torch.device("cuda" if device != "cpu" and cuda else "cpu")
    if precision == "float16" and chosen.type == "cpu":
        raise FilterUnavailable("precision float16 needs a CUDA device; on the CPU use float32")
    return chosen


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """No gradients; true float32 (TF32 would change the third digit of a score), or autocast to a half precision."""
    import torch

    half = precision != "float32"
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False),
        torch.autocast(device.type, dtype=getattr(torch, precision) if half else None, enabled=half),
    ):
        yield
