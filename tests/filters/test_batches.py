from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.filters.base import FilterUnavailable, MeasureError
from longtake.filters.batches import Array, Batches, torch_device

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, and limits that hold")


def prepare(item: tuple[int, int]) -> Array:
    value, length = item
    if value < 0:
        raise MeasureError(f"bad {value}")
    return np.full(length, value)


class Device:
    """Memory for so many items of a batch, and a note of what ran."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ran: list[int] = []

    def __call__(self, batch: Array) -> Array:
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("full")
        self.ran.append(len(batch))
        return np.stack([batch.sum(axis=1), batch[:, 0]], axis=1)


@given(
    st.lists(st.tuples(st.integers(-2, 50), st.integers(1, 4)), max_size=40),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_one_result_per_item_in_order_whatever_the_shapes_the_batch_and_the_memory(
    items: list[tuple[int, int]], size: int, room: int
) -> None:
    device = Device(room)
    results = Batches(size).run(items, prepare, device)
    assert len(results) == len(items)
    for (value, length), result in zip(items, results, strict=True):
        if value < 0:
            assert isinstance(result, MeasureError)
            assert str(result) == f"bad {value}"
        else:
            assert not isinstance(result, MeasureError)
            assert result.tolist() == [value * length, value]
    assert max(device.ran, default=0) <= min(size, room)


def test_a_full_memory_halves_the_batch_for_good() -> None:
    device, batches = Device(3), Batches(16)
    items = [(i, 2) for i in range(40)]
    batches.run(items, prepare, device)
    assert batches.size == 2
    device.ran.clear()
    batches.run(items, prepare, device)
    assert device.ran == [2] * 20


def test_no_memory_for_one_item_is_a_fault_of_the_set_up() -> None:
    with pytest.raises(FilterUnavailable, match="no memory for one input of 5"):
        Batches(4).run([(1, 5)] * 3, prepare, Device(0))


# A process whose memory ends 700 MiB above what it has when torch is loaded; an item of the model takes 100 MiB.
IN_LITTLE_MEMORY = """
import json, resource, sys
import numpy as np, torch
from longtake.filters.batches import Batches

ran = []

def forward(batch):
    mib = 100 if batch[0, 0] >= 0 else 100_000
    rows = torch.ones(len(batch), mib * 2**18)
    ran.append(len(batch))
    return (rows[:, :2] * torch.from_numpy(batch)).numpy()

torch.ones(2).sum()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 700 * 2**20,) * 2)
items, batches = json.loads(sys.argv[1]), Batches(16)
results = batches.run(items, lambda item: np.full(2, item, np.float32), forward)
print(json.dumps([ran, batches.size, [row.tolist() for row in results]]))
"""


def in_little_memory(*items: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, json.dumps(items)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


@on_linux
def test_the_cpus_real_memory_ends_and_the_batch_is_halved() -> None:
    """There torch raises a plain RuntimeError."""
    done = in_little_memory(*range(20))
    assert done.returncode == 0, done.stderr
    ran, size, results = json.loads(done.stdout)
    assert results == [[i, i] for i in range(20)]
    assert size == max(ran) in (1, 2, 4)
    assert sum(ran) == 20


@on_linux
def test_the_cpus_real_memory_does_not_hold_one_item() -> None:
    done = in_little_memory(-1)
    assert done.returncode == 1
    assert "FilterUnavailable: the device has no memory for one input of 2" in done.stderr


def test_another_fault_of_the_model_is_no_lack_of_memory() -> None:
    def forward(batch: Array) -> Array:
        raise RuntimeError("shapes do not fit")

    batches = Batches(8)
    with pytest.raises(RuntimeError, match="do not fit"):
        batches.run([(1, 2)] * 4, prepare, forward)
    assert batches.size == 8


class Hungry:
    """A model of which each item takes some MiB, given by the item's length; notes its batches."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, int]] = []

    def __call__(self, batch: Array) -> Array:
        mib = batch.shape[1]
        rows = torch.ones(len(batch), mib * 2**18)
        self.ran.append((mib, len(batch)))
        return np.stack([rows[:, 0].numpy() * batch[:, 0]])[0][:, None]


@on_linux
def test_the_batch_adapts_to_the_memory_that_is_allowed() -> None:
    """130 MiB hold three items of 40 MiB, one of 100, and a whole batch of 16 of the smallest."""
    model, batches = Hungry(), Batches(16, memory=130, device="cpu")
    results = batches.run([(i, 40) for i in range(20)], prepare, model)
    assert [float(row[0]) for row in results] == list(range(20))  # type: ignore[index]
    sizes = [size for _, size in model.ran]
    assert sizes[0] == 1
    assert sizes[1:4] == [3, 3, 3]
    assert max(sizes) == 3
    model.ran.clear()
    batches.run([(i, 100) for i in range(3)], prepare, model)
    assert model.ran == [(100, 1)] * 3
    model.ran.clear()
    batches.run([(i, 1) for i in range(40)], prepare, model)
    assert max(size for _, size in model.ran) > 4
    assert batches.size == 16


@on_linux
def test_one_item_is_run_even_if_it_takes_more_than_is_allowed() -> None:
    model = Hungry()
    assert len(Batches(4, memory=10, device="cpu").run([(i, 50) for i in range(3)], prepare, model)) == 3
    assert model.ran == [(50, 1)] * 3


def test_the_time_of_the_model_is_counted_and_no_other() -> None:
    def slow(item: tuple[int, int]) -> Array:
        time.sleep(0.02)
        return prepare(item)

    spent: list[float] = []

    def forward(batch: Array) -> Array:
        started = time.perf_counter()
        time.sleep(0.01 * len(batch))
        spent.append(time.perf_counter() - started)
        return batch

    batches = Batches(2)
    started = time.perf_counter()
    batches.run([(1, 2)] * 6, slow, forward)
    # The first batch waits for its input.
    assert sum(spent) <= batches.busy_seconds <= time.perf_counter() - started - 0.02


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Batches(0)
    with pytest.raises(ValueError, match="memory"):
        Batches(4, memory=0)
    with pytest.raises(ValueError, match="device"):
        torch_device("tpu")  # type: ignore[arg-type]
    with pytest.raises(FilterUnavailable, match="float16 needs a CUDA"):
        torch_device("cpu", "float16")
    assert torch_device("cpu", "bfloat16").type == "cpu"
