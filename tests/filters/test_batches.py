from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.base import FilterUnavailable, MeasureError
from filters.batches import Array, Batches, torch_device

torch = pytest.importorskip("torch")


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


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Batches(0)
    with pytest.raises(ValueError, match="device"):
        torch_device("tpu")  # type: ignore[arg-type]
    with pytest.raises(FilterUnavailable, match="float16 needs a CUDA"):
        torch_device("cpu", "float16")
    assert torch_device("cpu", "bfloat16").type == "cpu"
