from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from longtake.filters.base import FilterUnavailable, MeasureError, Score
from longtake.filters.flow_unimatch import VARIANTS, FlowUnimatch, Variant, build
from longtake.filters.weights import WEIGHTS
from tests.filters.pictures import crop, resized, sample, world

torch = pytest.importorskip("torch")
unimatch = importlib.import_module("longtake.filters.unimatch")

PICTURE = resized(world(), 1450, 380)


def clip(right: int, width: int = 160, height: int = 130, n: int = 1) -> object:
    frames = [crop(300 + 20 * i + right * (i % 2), 100, width, height, PICTURE) for i in range(2 * n)]
    return sample(frames)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_network_is_ptlflows_to_the_last_digits_of_float64(variant: Variant) -> None:
    """Random weights, exact arithmetic: another network would differ in the first digit."""
    peer = pytest.importorskip("ptlflow.models.unimatch.unimatch", reason="the peer is not installed")
    _, scales, refinements = VARIANTS[variant]
    names = {"scale1": "UniMatch", "scale2": "UniMatchScale2", "scale2-refine6": "UniMatchScale2With6Refinements"}
    torch.manual_seed(3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        theirs = getattr(peer, names[variant])().eval()
        ours = unimatch.UniMatch(scales=scales, refinements=refinements).eval()
        ours.load_state_dict(theirs.state_dict())
        first = torch.rand(2, 3, 128, 160) * 255
        second = first.roll((3, -9), (2, 3))
        with torch.inference_mode():
            expected = theirs({"images": torch.stack([first, second], dim=1).flip(2) / 255})["flows"][:, 0]
            assert (ours(first, second) - expected).abs().max() < 1e-6
    finally:
        torch.set_default_dtype(before)


def test_windows_split_and_merge() -> None:
    x = torch.arange(2 * 8 * 12 * 3.0).view(2, 8, 12, 3)
    split = unimatch.split_windows(x, 4)
    assert split.shape == (32, 2, 3, 3)
    assert torch.equal(split[6], x[0, 2:4, 6:9])  # The window is the third in the second row of windows.
    assert torch.equal(unimatch.merge_windows(split, 4), x)


def test_shifted_windows_keep_opposite_edges_apart() -> None:
    mask = unimatch.shift_mask(8, 8, 2, (2, 2))
    assert mask.shape == (4, 16, 16)
    assert (mask[0] == 0).all()  # The first window holds parts that lay together.
    # In the second, the right half came over from the left edge.
    left = torch.arange(16) % 4 < 2
    assert torch.equal(mask[1] == 0, left[:, None] == left[None, :])


def features(height: int = 16, width: int = 24) -> object:
    """Features that are alike at no two positions: long random ones."""
    return torch.randn(1, 128, height, width, generator=torch.Generator().manual_seed(0)) * 10


def test_matching_finds_a_known_shift() -> None:
    one = features()
    two = one.roll((2, -3), (2, 3))
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    expected = torch.tensor([-3.0, 2.0]).view(1, 2, 1, 1)
    for match in (unimatch.match_globally, unimatch.match_locally):
        assert (match(one, two)[inside] - expected).abs().max() < 1e-3
    places = unimatch.positions(one)
    products = unimatch.local_correlation(one, two, places)[inside]
    at = (2 + 4) * 9 + (-3 + 4)  # The places go row by row, from −4 to 4.
    assert (products.argmax(dim=1) == at).all()


def test_sampling_and_enlarging() -> None:
    one = features()
    places = unimatch.positions(one)
    assert torch.allclose(unimatch.sample(one, places), one, atol=1e-4)
    half = unimatch.sample(one, places + torch.tensor([0.5, 0.0]).view(1, 2, 1, 1))
    assert torch.allclose(half[..., :-1], (one[..., :-1] + one[..., 1:]) / 2, atol=1e-4)
    flow = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 7)
    large = unimatch.enlarge(flow, torch.randn(1, 9 * 16, 6, 7), 4)
    assert large.shape == (1, 2, 24, 28)
    inside = large[..., 4:-4, 4:-4]
    assert torch.allclose(inside, 4 * flow[..., :1, :1].expand_as(inside), atol=1e-5)


def test_propagation_of_a_constant_flow_leaves_it() -> None:
    module = unimatch.Propagation()
    flow = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1).expand(1, 2, 16, 24)
    with torch.inference_mode():
        assert torch.allclose(module(features(), flow, None), flow, atol=1e-5)
        assert torch.allclose(module(features(), flow, 1)[..., 1:-1, 1:-1], flow[..., 1:-1, 1:-1], atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, wrapped as the published files are, with features small enough to match smoothly."""
    folder = tmp_path_factory.mktemp("models")
    for variant in ("scale2-refine6", "scale1"):
        name, scales, refinements = VARIANTS[variant]
        torch.manual_seed(4)
        network = unimatch.UniMatch(scales=scales, refinements=refinements)
        for key, value in network.named_parameters():
            value.data *= 0.3 if "norm" in key or "conv2" in key else 1
        torch.save({"model": network.state_dict(), "step": 1}, folder / Path(WEIGHTS[name].filename).name)
    return folder


def test_pairs_of_a_batch_do_not_touch_one_another(folder: Path) -> None:
    """The largest variant, with its refinement, on pictures so small that it takes a moment."""
    name, scales, refinements = VARIANTS["scale2-refine6"]
    network = build(scales, refinements).eval()
    network.unimatch.load_state_dict(torch.load(folder / Path(WEIGHTS[name].filename).name)["model"])
    first = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(6)) * 255
    second = torch.stack([picture.roll((3, 4 + 4 * i), (1, 2)) for i, picture in enumerate(first)])
    with torch.inference_mode():
        many = network(first, second)
        alone = torch.cat([network(a[None], b[None]) for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(many, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "variant", [pytest.param("scale2-refine6", marks=(pytest.mark.slow, pytest.mark.campaign)), "scale1"]
)
def test_a_batch_of_one_is_a_batch_of_many(variant: Variant, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(folder))
    items = [clip(5, n=2), clip(9, width=130, height=170), clip(-4)]
    early = replace(items[0], partner_times=items[0].times)  # type: ignore[type-var]
    many = FlowUnimatch(variant=variant, device="cpu").measure([items[0], early, *items[1:]])
    assert isinstance(many.pop(1), MeasureError)
    one = FlowUnimatch(variant=variant, device="cpu", batch=1)
    for item, score in zip(items, many, strict=True):
        alone = one.measure([item])[0]
        assert isinstance(alone, Score)
        assert isinstance(score, Score)
        assert len(score.detail) == len(item.keyframes)
        assert score.detail == pytest.approx(alone.detail, rel=1e-3)


def test_half_precision_stays_within_five_per_cent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(folder))
    whole, half = (
        FlowUnimatch(variant="scale1", device="cpu", precision=p).measure([clip(5)])[0] for p in ("float32", "bfloat16")
    )
    assert isinstance(whole, Score)
    assert isinstance(half, Score)
    assert half.value == pytest.approx(whole.value, rel=0.05)
    assert half.value != whole.value  # The second measurement used another precision.


def test_tall_frames_are_turned(folder: Path) -> None:
    torch.manual_seed(5)
    network = build(1, 0).eval()
    first, second = torch.rand(2, 1, 3, 192, 128) * 255
    with torch.inference_mode():
        tall = network(first, second)
        wide = network.unimatch(first.transpose(2, 3), second.transpose(2, 3))
    assert tall.shape == (1, 2, 192, 128)
    assert torch.equal(tall[:, 0], wide[:, 1].transpose(1, 2))
    assert torch.equal(tall[:, 1], wide[:, 0].transpose(1, 2))


def test_weights_and_protocol(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(folder))
    filter_ = FlowUnimatch()
    assert filter_.method.startswith("scale2-refine6@")
    assert filter_.method.endswith(",960pad32,keyframe-partner,per0.5s@960")
    other = WEIGHTS["unimatch"]
    monkeypatch.setitem(WEIGHTS, "unimatch-scale1", replace(other, name="unimatch-scale1"))
    with pytest.raises(FilterUnavailable, match=r"regrefine6.*holds the weights of another model"):
        FlowUnimatch(variant="scale1", device="cpu").measure([clip(5)])
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    with pytest.raises(FilterUnavailable, match="longtake models pull unimatch"):
        _ = filter_.method
    with pytest.raises(ValueError, match="variant"):
        FlowUnimatch(variant="scale3")
