"""What is logged of a step, against numbers done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longtake.presto import meter
from longtake.presto.batches import Batch
from longtake.presto.budget import step_flops
from longtake.presto.meter import Meter, Totals
from longtake.presto.parallel import Ranks
from longtake.presto.tiny import tiny_transformer
from tests.presto.made import config


def batch(t: list[int], weight: list[float]) -> Batch:
    names = [str(i) for i in range(len(t))]
    return Batch(0, names, list(range(len(t))), torch.tensor(t), torch.tensor(weight))


def test_sums_are_views_of_one_vector_and_by_timestep() -> None:
    totals = Totals()
    totals.add(batch([0, 99, 950], [1.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 4.0]))
    totals.add(batch([100, 999], [1.0, 0.0]), torch.tensor([8.0, 50.0]))  # The last one could not be read.
    assert (float(totals.loss), float(totals.clips), float(totals.dropped)) == (15.0, 4.0, 1.0)
    assert totals.loss_by_time.tolist() == [3.0, 8.0, 0, 0, 0, 0, 0, 0, 0, 4.0]
    assert totals.clips_by_time.tolist() == [2.0, 1.0, 0, 0, 0, 0, 0, 0, 0, 1.0]
    totals.vector *= 2  # A sum over two ranks of the same values doubles them.
    assert (float(totals.loss), float(totals.clips)) == (30.0, 8.0)
    assert totals.loss_by_time.tolist()[:2] == [6.0, 16.0]


def test_utilization_is_given_against_both_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the maker's figure where it is known, and against what was measured; on two ranks."""
    shape: dict[str, Any] = dict(tiny_transformer().config)
    settings, now = config(), [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(meter, "measured_peak", lambda *_: 4e9)
    monkeypatch.setattr(meter, "nominal_peak", lambda *_: 8e9)
    found = Meter(settings, shape, Ranks(0, 2, torch.device("cpu")))
    totals = Totals()
    totals.add(batch([10, 20], [1.0, 1.0]), torch.tensor([1.0, 3.0]))
    now[0] = 1.0
    with found.waiting():
        now[0] = 2.0
    with found.aside():
        now[0] = 7.0
    found.add(totals, 0.5, 1e-3, 0, 3)
    now[0] = 9.0  # Four seconds of a step, one of them waiting, and five of something else.
    entry = found.entry()
    rate = 2 * step_flops(shape, settings.data.buckets[0], settings.attention, 3) / 4.0 / 2
    assert entry["mfu_measured"] == pytest.approx(rate / 4e9)
    assert entry["mfu"] == pytest.approx(rate / 8e9)
    assert entry["data_wait"] == pytest.approx(0.25)
    assert entry["step_seconds"] == pytest.approx(4.0)
    assert (entry["loss"], entry["grad_norm"], entry["rate"], entry["loss_t0"]) == (2.0, 0.5, 1e-3, 2.0)
    assert "loss_t100" not in entry
    monkeypatch.setattr(meter, "nominal_peak", lambda *_: None)
    now[0] = 10.0
    assert "mfu" not in found.entry()
