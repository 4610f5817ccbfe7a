"""Filters with a torch model: inputs are prepared in threads, grouped by shape and run on the device in batches.

A batch has at most `batch` items and, where `memory` is set, as many as that many MiB hold besides the weights: the
first pass over each shape has one item, and what a pass took is measured (on CUDA by torch's own counters, on the CPU
as resident memory). A single item is always run. When memory runs out all the same, the batch is halved and goes on.
"""

from __future__ import annotations

import ctypes
import os
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator

from longtake.filters.base import (
    Filter,
    FilterSettings,
    FilterUnavailable,
    MeasureError,
    Needs,
    Sample,
    Score,
)

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "float16", "bfloat16"]
Item = TypeVar("Item")
Array = npt.NDArray[Any]
Shape = tuple[tuple[int, ...], str]  # The shape and the dtype of an item.


class ModelSettings(FilterSettings):
    """Where and how a model runs. Of these only the precision changes a score."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch", "device", "memory"})

    batch: int = Field(4, ge=1, description="inputs that go through the model together, at most")
    device: Device = Field("auto", description="where the model runs; `auto`: CUDA where torch sees it")
    precision: Precision = Field(
        "float32", description="`float16` (CUDA only) and `bfloat16` let the model run under autocast"
    )
    memory: int | None = Field(
        None, ge=1, description="MiB that a forward pass may take besides the weights; null: all there is"
    )

    @field_validator("precision")
    @classmethod
    def _can_run(cls, precision: Precision, others: ValidationInfo) -> Precision:
        if precision == "float16" and others.data.get("device") == "cpu":
            raise ValueError("float16 needs a CUDA device; with device cpu use float32 or bfloat16")
        return precision


class ModelFilter(Filter[Sample]):
    """A filter that runs a model with published weights over the stored frames, in batches across clips.

    Raises FilterUnavailable from the first measurement when a weight is missing or wrong.
    """

    needs: ClassVar[Needs] = Needs.FRAMES
    settings_model: ClassVar[type[FilterSettings]] = ModelSettings

    settings: ModelSettings

    def __init__(self, /, **settings: Any) -> None:
        super().__init__(**settings)
        self._batches = Batches(self.settings.batch, self.settings.memory, self.settings.device)

    @property
    def device(self) -> Device:
        """Where its model is to run."""
        return self.settings.device

    @property
    def precision(self) -> Precision:
        """The numbers that its model computes in."""
        return self.settings.precision

    @property
    @abstractmethod
    def weights(self) -> tuple[str, ...]:
        """Names of the weights it reads."""

    @abstractmethod
    def load(self) -> Any:
        """The model on the CPU, filled, in evaluation mode. Raises FilterUnavailable."""

    @cached_property
    def _model(self) -> tuple[Any, torch.device]:
        device = torch_device(self.device, self.precision)
        return self.load().to(device), device

    @property
    def busy_seconds(self) -> float:
        """How long its model has been running, all measurements together, without its loading."""
        return self._batches.busy_seconds

    @property
    def rounding(self) -> str:
        """What a half precision adds to the method."""
        return "" if self.precision == "float32" else f",{self.precision}"

    def run_each(
        self,
        groups: Sequence[Sequence[Item]],
        prepare: Callable[[Item], Array],
        forward: Callable[[Array], Array],
    ) -> list[list[Array] | MeasureError]:
        """`Batches.run` over the items of all groups together: each group's rows, or the first fault among them."""
        if any(len(group) for group in groups):
            _ = self._model  # Loading the model belongs neither to the time nor to the memory of the first pass.
        rows = iter(self._batches.run([item for group in groups for item in group], prepare, forward))
        results: list[list[Array] | MeasureError] = []
        for group in groups:
            own = list(islice(rows, len(group)))
            fault = next((row for row in own if isinstance(row, MeasureError)), None)
            results.append(fault or [row for row in own if not isinstance(row, MeasureError)])
        return results

    def score(self, detail: Iterable[Any]) -> Score | MeasureError:
        """The score of one clip, or what `reduce_detail` finds wrong with it."""
        try:
            return self.reduced(detail)
        except MeasureError as error:
            return error


class Batches:
    """Runs a model over many items. Order is kept: the caller gets one result per item, in the items' order.

    size: items per forward pass, at most. After torch says that memory is full it is halved, for good: what did not fit
    once will not fit the next time. memory: see above. device: where the model runs. At most three batches of prepared
    items are held at a time.
    """

    def __init__(self, size: int, memory: int | None = None, device: Device = "auto") -> None:
        if size < 1:
            raise ValueError(f"a batch needs at least one item, not {size}")
        if memory is not None and memory < 1:
            raise ValueError(f"memory is a number of MiB from 1, not {memory}")
        self.size = size
        self.busy_seconds = 0.0
        self._bytes = None if memory is None else memory * 2**20
        self._device: Device = device
        self._of_one: dict[Shape, float] = {}  # Bytes that an item of this shape takes, at most.

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
        waiting: dict[Shape, list[tuple[int, Array]]] = defaultdict(list)
        for index, prepared in self._prepared(items, prepare):
            if isinstance(prepared, MeasureError):
                results[index] = prepared
                continue
            group = waiting[prepared.shape, prepared.dtype.str]
            group.append((index, prepared))
            # Groups of odd shapes must not pile up: the fullest group goes when two batches' worth wait in all.
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

        with ThreadPoolExecutor(cores()) as pool:
            ahead = min(len(items), self.size + cores())
            futures = [pool.submit(attempt, item) for item in items[:ahead]]
            for index in range(len(items)):
                prepared = futures[index % ahead].result()
                if index + ahead < len(items):
                    futures[index % ahead] = pool.submit(attempt, items[index + ahead])
                yield index, prepared

    def _forward(
        self, batch: list[tuple[int, Array]], forward: Callable[[Array], Array]
    ) -> dict[int, Array | MeasureError]:
        results: dict[int, Array | MeasureError] = {}
        done = 0
        while done < len(batch):
            part = batch[done : done + self._room(batch[0][1])]
            try:
                outputs = self._timed(part, forward)
            except (MemoryError, RuntimeError) as error:
                if not _memory_is_full(error):
                    raise
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
            # The retry is outside of the handler: while an exception lives, so do the tensors of its frames.
            if _on_cuda(self._device):
                import torch

                torch.cuda.empty_cache()
        return results

    def _room(self, item: Array) -> int:
        """How many items of this shape go through the model together."""
        if self._bytes is None:
            return self.size
        one = self._of_one.get((item.shape, item.dtype.str))
        return 1 if one is None else max(1, min(self.size, int(self._bytes / max(one, 1.0))))

    def _timed(self, part: list[tuple[int, Array]], forward: Callable[[Array], Array]) -> Array:
        """One forward pass, its time and memory taken down."""
        started = time.perf_counter()
        try:
            with _peak_memory(self._device, measured=self._bytes is not None) as taken:
                outputs = forward(np.stack([array for _, array in part]))
        finally:
            self.busy_seconds += time.perf_counter() - started
        first = part[0][1]
        shape = first.shape, first.dtype.str
        self._of_one[shape] = max(self._of_one.get(shape, 0.0), taken[0] / len(part))
        return outputs


def _on_cuda(device: Device) -> bool:
    import torch

    return device != "cpu" and torch.cuda.is_available()


def _memory_is_full(error: BaseException) -> bool:
    """Whether an exception of a forward pass says so: torch has a type for it on CUDA only."""
    import torch

    # The first text is from torch's allocator on the CPU, the second from cuBLAS and cuDNN.
    said = ("can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in said)


@contextmanager
def _peak_memory(device: Device, *, measured: bool) -> Iterator[list[int]]:
    """A list whose only value is, at the end of the block, by how many bytes memory rose in it at most (0: unmeasured).

    Raises FilterUnavailable where the system does not tell.
    """
    taken = [0]
    if not measured:
        yield taken
    elif _on_cuda(device):
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield taken
        taken[0] = torch.cuda.max_memory_allocated() - before
    else:
        _trim()
        try:
            # The 5 sets the peak back to the memory that is resident now.
            Path("/proc/self/clear_refs").write_text("5", "ascii")
            before = _resident_peak()
        except OSError as error:
            raise FilterUnavailable("memory: on the CPU it is measured on Linux only; leave it out") from error
        yield taken
        taken[0] = _resident_peak() - before


def _trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc): taken again, it would not be seen."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident_peak() -> int:
    """Bytes: the highest resident memory of this process."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def cores() -> int:
    """How many this process may use."""
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
        raise FilterUnavailable("device is cuda, and torch sees no CUDA device on this machine")
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
