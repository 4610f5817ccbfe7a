from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longtake.filters.base import FilterUnavailable, MeasureError, Sample, Score
from longtake.filters.flow_dis import FlowDis
from longtake.filters.flow_raft import FlowRaft, build, torchvision_names
from longtake.filters.weights import WEIGHTS, load_weight
from tests.filters.pictures import crop, resized, sample, world

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

SHARED = Path(__file__).parents[3] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
PICTURE = resized(world(), 1450, 380)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))


def panned(right: int, down: int, *, x: int = 400, width: int = 240, height: int = 140, gap: float = 0.5) -> Sample:
    """One keyframe, and a partner in which everything has moved by (right, down) pixels."""
    a = crop(x, 100, width, height, PICTURE)
    b = crop(x - right, 100 - down, width, height, PICTURE)
    return sample([a, b], gap)


def raft(batch: int = 4) -> FlowRaft:
    return FlowRaft(variant="small", source="princeton", device="cpu", batch=batch)


@needs_shared
@pytest.mark.parametrize(("right", "down"), [(0, 0), (6, -4), (-25, 10)])
def test_real_weights_under_translated_names_find_known_motion(right: int, down: int) -> None:
    item = panned(right, down, width=256)
    flow = raft().flow_fields(np.stack([item.keyframes[0], item.partners[0]])[None])[0]
    # The height 140 is no multiple of 8, so the pictures are padded and the flow is cut again.
    assert flow.shape == (2, 140, 256)
    end_point_error = np.hypot(flow[0] - right, flow[1] - down)
    assert end_point_error.mean() < 1.0
    assert np.median(end_point_error) < 0.5


@needs_shared
def test_the_score_is_the_speed_per_half_second_at_960_as_dis_says_it() -> None:
    items = [panned(6, 8), panned(12, 0, gap=0.6), panned(12, 0, width=320, height=180)]
    expected = [10 * 960 / 240, 12 * 960 / 240 * 0.5 / 0.6, 12 * 960 / 320]
    for item, score, speed in zip(items, raft().measure(items), expected, strict=True):
        assert isinstance(score, Score)
        assert score.value == pytest.approx(speed, rel=0.08)
        assert FlowDis(pairs="stored").measure([item])[0].value == pytest.approx(speed, rel=0.1)  # type: ignore[union-attr]


@needs_shared
def test_batches_change_nothing_and_a_bad_clip_harms_no_other() -> None:
    good = [panned(6, 8), panned(3, 0, width=200), panned(0, 9)]
    double = sample([*good[0].keyframes, *good[0].partners, *good[2].keyframes, *good[2].partners])
    early = panned(6, 8, gap=-0.5)
    small = panned(6, 8, height=100)
    scores = raft().measure([good[0], early, good[1], small, double, good[2]])
    assert isinstance(scores[1], MeasureError)
    assert "not later" in str(scores[1])
    assert isinstance(scores[3], MeasureError)
    assert "240×100" in str(scores[3])
    one = raft(batch=1)
    for item, score in zip((*good[:2], double, good[2]), (scores[i] for i in (0, 2, 4, 5)), strict=True):
        alone = one.measure([item])[0]
        assert isinstance(alone, Score)
        assert isinstance(score, Score)
        assert len(alone.detail) == len(item.keyframes)
        assert score.detail == pytest.approx(alone.detail, rel=1e-4)


@needs_shared
def test_half_precision_stays_within_three_per_cent() -> None:
    item = [panned(12, 5)]
    half = FlowRaft(variant="small", source="princeton", device="cpu", precision="bfloat16")
    whole_score, half_score = raft().measure(item)[0], half.measure(item)[0]
    assert isinstance(whole_score, Score)
    assert isinstance(half_score, Score)
    assert half_score.value == pytest.approx(whole_score.value, rel=0.03)
    assert half_score.value != whole_score.value  # The second measurement used another precision.


def test_wide_frames_are_reduced_and_the_unit_stays() -> None:
    """A network that sees everything move by 3 px: the answer is in pixels at 960, whatever the size."""
    filter_ = raft()
    network = torch.nn.Module()
    network.forward = lambda a, b: torch.stack([torch.full_like(a[:, 0], 3), torch.full_like(a[:, 0], 4)], dim=1)
    filter_.__dict__["_model"] = (network, torch.device("cpu"))
    for width, height, value in ((1920, 1080, 5), (960, 540, 5), (480, 270, 10), (270, 480, 10)):
        frames = np.zeros((1, height, width, 3), np.uint8)
        (score,) = filter_.measure([Sample(frames, frames, np.zeros(1), np.ones(1))])
        assert isinstance(score, Score)
        assert score.value == pytest.approx(value * 0.5)
    network.forward = lambda a, b: torch.full((len(a), 2, *a.shape[2:]), float("nan"))
    assert isinstance(filter_.measure([panned(1, 1)])[0], MeasureError)


def original_names_of_large() -> dict[str, tuple[str, ...]]:
    """The parameters of the original's large model, block by block as its source lists them."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names: dict[str, tuple[str, ...]] = {}
    for encoder in ("fnet", "cnet"):
        normed = encoder == "cnet"  # Instance norms have no parameters.
        names |= {f"{encoder}.conv1": ("weight", "bias"), f"{encoder}.conv2": ("weight", "bias")}
        names |= {f"{encoder}.norm1": norm} if normed else {}
        for layer in (1, 2, 3):
            for block in (0, 1):
                start = f"{encoder}.layer{layer}.{block}"
                names |= {f"{start}.conv{i}": ("weight", "bias") for i in (1, 2)}
                names |= {f"{start}.norm{i}": norm for i in (1, 2)} if normed else {}
                if layer > 1 and block == 0:
                    names[f"{start}.downsample.0"] = ("weight", "bias")
                    names |= {f"{start}.norm3": norm, f"{start}.downsample.1": norm} if normed else {}
    update = [f"encoder.{name}" for name in ("convc1", "convc2", "convf1", "convf2", "conv")]
    update += [f"gru.conv{gate}{axis}" for axis in (1, 2) for gate in "zrq"]
    update += ["flow_head.conv1", "flow_head.conv2", "mask.0", "mask.2"]
    return names | {f"update_block.{name}": ("weight", "bias") for name in update}


def test_every_name_of_the_large_original_has_its_place() -> None:
    state = {f"{module}.{part}": torch.ones(1) for module, parts in original_names_of_large().items() for part in parts}
    assert set(torchvision_names(state)) == set(build("large").raft.state_dict())


def test_weights_of_another_model_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/models")
    assert len(load_weight("raft-small-princeton")) > 50
    monkeypatch.setitem(WEIGHTS, "raft-large", replace(WEIGHTS["raft-small-princeton"], name="raft-large"))
    with pytest.raises(FilterUnavailable, match=r"raft-small.pth holds the weights of another model"):
        FlowRaft(device="cpu").measure([panned(1, 1)])


def test_protocols() -> None:
    end = "12updates,960pad8,keyframe-partner,per0.5s@960/mean"
    assert FlowRaft().protocol == f"raft/large@ff5fadd5,{end}"
    assert FlowRaft(variant="small").protocol == f"raft/small@01064c6d,{end}"
    assert raft().protocol == f"raft/small@c7d41b9c,{end}"
    with pytest.raises(ValueError, match="variant"):
        FlowRaft(variant="tiny")
    with pytest.raises(ValueError, match="source"):
        FlowRaft(source="here")
