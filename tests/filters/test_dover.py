"""DOVER's wiring on random weights under the published names: both networks against a plain calculation from the checkpoint, the
views, and the fusion. No published weights can be had here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtake.filters import dover, dover_network
from longtake.filters.base import FilterUnavailable, MeasureError, Score
from longtake.filters.dover import Dover, DoverAesthetic, DoverTechnical, fragments, fused, in_order, resized, to_input
from longtake.filters.weights import WEIGHTS
from tests.filters.pictures import crop, pan, sample

torch = pytest.importorskip("torch")
F = torch.nn.functional

HEADS = (3, 6, 12, 24)
State = dict[str, "torch.Tensor"]


def checkpoint(widths: tuple[int, ...], depths: tuple[int, ...], convolutions: tuple[int, ...], seed: int = 0) -> State:
    """Random weights of the published shapes and names, for these widths."""
    random = torch.Generator().manual_seed(seed)
    state: State = {}

    def put(name: str, *shape: int, scale: float | None = None) -> None:
        fan = int(np.prod(shape[1:])) or 1
        state[name] = torch.randn(shape, generator=random) * (scale or fan**-0.5)

    def linear(name: str, out: int, into: tuple[int, ...], bias: bool = True) -> None:
        put(f"{name}.weight", out, *into)
        if bias:
            put(f"{name}.bias", out, scale=0.1)

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, scale=0.3)
        put(f"{name}.bias", width, scale=0.1)

    base = "technical_backbone"
    linear(f"{base}.patch_embed.proj", widths[0], (3, 2, 4, 4))
    norm(f"{base}.patch_embed.norm", widths[0])
    for stage, (width, depth, heads) in enumerate(zip(widths, depths, HEADS, strict=True)):
        for i in range(depth):
            block = f"{base}.layers.{stage}.blocks.{i}"
            norm(f"{block}.norm1", width)
            norm(f"{block}.norm2", width)
            put(f"{block}.attn.relative_position_bias_table", 15 * 13 * 13, heads, scale=0.5)
            if stage < 3:
                put(f"{block}.attn.fragment_position_bias_table", 15 * 13 * 13, heads, scale=0.5)
            state[f"{block}.attn.relative_position_index"] = torch.zeros(392, 392, dtype=torch.int64)
            linear(f"{block}.attn.qkv", 3 * width, (width,))
            linear(f"{block}.attn.proj", width, (width,))
            linear(f"{block}.mlp.fc1", 4 * width, (width,))
            linear(f"{block}.mlp.fc2", width, (4 * width,))
        if stage < 3:
            norm(f"{base}.layers.{stage}.downsample.norm", 4 * width)
            linear(f"{base}.layers.{stage}.downsample.reduction", 2 * width, (4 * width,), bias=False)
    norm(f"{base}.norm", widths[-1])
    base = "aesthetic_backbone"
    linear(f"{base}.downsample_layers.0.0", widths[0], (3, 2, 4, 4))
    norm(f"{base}.downsample_layers.0.1", widths[0])
    for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
        if stage:
            norm(f"{base}.downsample_layers.{stage}.0", widths[stage - 1])
            linear(f"{base}.downsample_layers.{stage}.1", width, (widths[stage - 1], 1, 2, 2))
        for i in range(count):
            block = f"{base}.stages.{stage}.{i}"
            linear(f"{block}.dwconv", width, (1, (1, 3, 1)[i % 3], 7, 7))
            norm(f"{block}.norm", width)
            linear(f"{block}.pwconv1", 4 * width, (width,))
            linear(f"{block}.pwconv2", width, (4 * width,))
            put(f"{block}.gamma", width, scale=0.5)
    norm(f"{base}.norm", widths[-1])
    for branch in ("technical", "aesthetic"):
        linear(f"{branch}_head.fc_hid", 64, (widths[-1], 1, 1, 1))
        linear(f"{branch}_head.fc_last", 1, (64, 1, 1, 1))
    return state


class Plain:
    """The networks straight from a checkpoint, with windows, offsets and patches worked out place by place."""

    def __init__(self, state: State, branch: str) -> None:
        self.state, self.base, self.branch = state, f"{branch}_backbone", branch

    def of(self, name: str, kind: str = "weight") -> torch.Tensor:
        return self.state[f"{self.base}.{name}.{kind}"]

    def norm(self, x: torch.Tensor, name: str, eps: float = 1e-5) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.of(name), self.of(name, "bias"), eps)

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.of(name), self.state.get(f"{self.base}.{name}.bias"))

    def score(self, x: torch.Tensor) -> float:
        """Of features [places, width]."""
        head = f"{self.branch}_head"
        hid, last = (self.state[f"{head}.{name}.weight"].flatten(1) for name in ("fc_hid", "fc_last"))
        y = F.gelu(x @ hid.T + self.state[f"{head}.fc_hid.bias"])
        return float((y @ last.T + self.state[f"{head}.fc_last.bias"]).mean())

    def technical(self, view: torch.Tensor, depths: tuple[int, ...]) -> float:
        """view: [3, frames, 224, 224]."""
        x = F.conv3d(view[None], self.of("patch_embed.proj"), self.of("patch_embed.proj", "bias"), stride=(2, 4, 4))[0]
        x = self.norm(x.permute(1, 2, 3, 0), "patch_embed.norm")
        for stage, depth in enumerate(depths):
            for i in range(depth):
                name = f"layers.{stage}.blocks.{i}"
                x = x + self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attn", HEADS[stage], shifted=i % 2 == 1)
                y = self.norm(x, f"{name}.norm2")
                x = x + self.linear(F.gelu(self.linear(y, f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
            if stage < 3:
                four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
                y = self.norm(torch.cat(four, dim=-1), f"layers.{stage}.downsample.norm")
                x = self.linear(y, f"layers.{stage}.downsample.reduction")
        return self.score(self.norm(x, "norm").flatten(0, 2))

    def attention(self, x: torch.Tensor, name: str, heads: int, *, shifted: bool) -> torch.Tensor:
        size = x.shape[:3]
        window = [min(n, w) for n, w in zip(size, (8, 7, 7), strict=True)]
        shift = [w // 2 if shifted and n > w else 0 for n, w in zip(size, window, strict=True)]
        tables = [self.state.get(f"{self.base}.{name}.{kind}_position_bias_table") for kind in ("relative", "fragment")]
        qkv = self.linear(x, f"{name}.qkv").reshape(*size, 3, heads, -1)
        out = torch.zeros(*size, heads, qkv.shape[-1])
        groups: dict[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]]] = {}
        for place in np.ndindex(*size):
            moved = [(p - s) % n for p, s, n in zip(place, shift, size, strict=True)]
            wrapped = tuple(bool(s) and m >= n - s for m, s, n in zip(moved, shift, size, strict=True))
            group = tuple(m // w for m, w in zip(moved, window, strict=True))
            groups.setdefault(group, []).append(
                (tuple(m % w for m, w in zip(moved, window, strict=True)), place, wrapped)
            )
        for members in groups.values():
            inside, places, wrapped_ones = (torch.tensor(column) for column in zip(*members, strict=True))
            q, k, v = qkv[places[:, 0], places[:, 1], places[:, 2]].permute(1, 2, 0, 3)
            offset = inside[:, None] - inside[None] + torch.tensor([7, 6, 6])
            rows = (offset[..., 0] * 13 + offset[..., 1]) * 13 + offset[..., 2]
            assert tables[0] is not None
            bias = tables[0][rows]
            if tables[1] is not None:
                patch = places[:, 1:] * 7 // torch.tensor(size[1:])
                gate = (patch[:, None] - patch[None]).abs().sum(-1, keepdim=True)
                bias = gate * bias + (1 - gate) * tables[1][rows]
            apart = (wrapped_ones[:, None] != wrapped_ones[None]).any(-1)
            weights = q * q.shape[-1] ** -0.5 @ k.transpose(1, 2) + bias.permute(2, 0, 1) - 100.0 * apart
            out[places[:, 0], places[:, 1], places[:, 2]] = (weights.softmax(-1) @ v).transpose(0, 1)
        return self.linear(out.flatten(3), f"{name}.proj")

    def aesthetic(self, view: torch.Tensor, convolutions: tuple[int, ...]) -> float:
        def over(x: torch.Tensor, name: str) -> torch.Tensor:
            return self.norm(x.permute(0, 2, 3, 4, 1), name, 1e-6).permute(0, 4, 1, 2, 3)

        x = view[None]
        for stage, count in enumerate(convolutions):
            name = f"downsample_layers.{stage}"
            if stage:
                x = F.conv3d(over(x, f"{name}.0"), self.of(f"{name}.1"), self.of(f"{name}.1", "bias"), stride=(1, 2, 2))
            else:
                x = over(F.conv3d(x, self.of(f"{name}.0"), self.of(f"{name}.0", "bias"), stride=(2, 4, 4)), f"{name}.1")
            for i in range(count):
                block = f"stages.{stage}.{i}"
                kernel = self.of(f"{block}.dwconv")
                padding = tuple(side // 2 for side in kernel.shape[2:])
                y = F.conv3d(x, kernel, self.of(f"{block}.dwconv", "bias"), padding=padding, groups=len(kernel))
                y = self.norm(y.permute(0, 2, 3, 4, 1), f"{block}.norm", 1e-6)
                y = self.linear(F.gelu(self.linear(y, f"{block}.pwconv1")), f"{block}.pwconv2")
                x = x + (self.state[f"{self.base}.{block}.gamma"] * y).permute(0, 4, 1, 2, 3)
        return self.score(self.norm(x.permute(0, 2, 3, 4, 1), "norm", 1e-6).flatten(0, 3))


WIDTHS, DEPTHS, CONVOLUTIONS = (24, 48, 96, 192), (2, 2, 2, 2), (2, 1, 3, 1)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """A narrower DOVER with random weights, in the place of the published one."""
    state = checkpoint(WIDTHS, DEPTHS, CONVOLUTIONS)
    path = tmp_path / WEIGHTS[dover.WEIGHT].filename
    path.parent.mkdir()
    torch.save(state, path)
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    for name, value in (("WIDTHS", WIDTHS), ("DEPTHS", DEPTHS), ("CONVOLUTIONS", CONVOLUTIONS)):
        monkeypatch.setattr(dover_network, name, value)
    return state


CLIPS = [sample(pan(90)[:4]), sample([crop(10 * i, 40 * (i % 2)) for i in range(4)])]


@pytest.mark.slow  # The plain calculation goes place by place.
def test_scores_are_those_of_a_plain_calculation(small: State) -> None:
    technical = DoverTechnical().measure(CLIPS)
    aesthetic = DoverAesthetic().measure(CLIPS)
    whole = Dover().measure(CLIPS)
    for clip, t, a, both in zip(CLIPS, technical, aesthetic, whole, strict=True):
        assert isinstance(t, Score)
        assert isinstance(a, Score)
        assert isinstance(both, Score)
        views = [to_input(torch.from_numpy(view(in_order(clip)))[None])[0] for view in (fragments, resized)]
        assert t.value == pytest.approx(Plain(small, "technical").technical(views[0], DEPTHS), abs=2e-4)
        assert a.value == pytest.approx(Plain(small, "aesthetic").aesthetic(views[1], CONVOLUTIONS), abs=2e-4)
        assert both.detail == pytest.approx((t.value, a.value), abs=1e-4)
        assert both.value == pytest.approx(fused(t.value, a.value), abs=1e-2)
    values = [score.value for score in (*technical, *aesthetic) if isinstance(score, Score)]
    assert values[0] != pytest.approx(values[1], abs=1e-3)


def test_a_checkpoint_of_another_model_is_refused(small: State, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS[dover.WEIGHT].filename
    torch.save({key: value for key, value in small.items() if "fragment" not in key}, path)
    with pytest.raises(FilterUnavailable, match="another model"):
        DoverTechnical().measure(CLIPS)


def test_the_networks_have_as_many_weights_as_published() -> None:
    """The authors give 9.86 million for DOVER-Mobile, and DOVER 5.7 times as many; the checkpoint's names are all used."""
    state = checkpoint((96, 192, 384, 768), (2, 2, 6, 2), (3, 3, 9, 3))
    count = 0
    for branch, network in dover.NETWORKS.items():
        model = network()
        own = {name: value for name, value in model.state_dict().items() if "index" not in name}
        found = dover_network.weights_of_branch(state, branch, {})
        assert {name: tuple(value.shape) for name, value in found.items()} == {
            n: tuple(v.shape) for n, v in own.items()
        }
        count += sum(value.numel() for value in own.values())
    assert count == pytest.approx(5.7 * 9.86e6, rel=0.02)


def test_fragments_are_patches_as_they_are_from_a_grid() -> None:
    frames = np.stack([crop(0), crop(300)])
    view = fragments(frames)
    assert view.shape == (2, 224, 224, 3)
    height, width = 540 // 7, 960 // 7
    for row, column in ((0, 0), (3, 5), (6, 6)):
        top, left = row * height + (height - 32) // 2, column * width + (width - 32) // 2
        patch = view[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        assert np.array_equal(patch, frames[:, top : top + 32, left : left + 32])
    assert fragments(np.stack([crop(0, width=200, height=100)])).shape == (1, 224, 224, 3)
    assert np.array_equal(fragments(np.stack([crop(0, width=224, height=224)]))[0], crop(0, width=224, height=224))


def test_frames_go_in_by_time_and_are_an_even_number() -> None:
    clip = CLIPS[0]
    frames = in_order(clip)
    assert np.array_equal(frames[0::2], clip.keyframes)
    assert np.array_equal(frames[1::2], clip.partners)
    view = resized(frames)
    assert view.shape == (4, 224, 224, 3)
    assert float(view.mean()) == pytest.approx(float(frames.mean()), abs=1)


def test_the_fusion_is_the_published_one() -> None:
    assert fused(0.1107, -0.08285) == 0.5
    assert fused(0.1107 + 0.07355, -0.08285) == pytest.approx(1 / (1 + np.exp(-0.6104)))
    assert fused(0.1107, -0.08285 - 0.03774) == pytest.approx(1 / (1 + np.exp(0.3896)))
    assert fused(-100, -100) == pytest.approx(0)


def test_what_is_no_picture_is_a_fault_of_that_clip(small: State) -> None:
    bad = sample([np.zeros((540, 960), np.uint8)] * 4)
    good, fault = DoverAesthetic().measure([CLIPS[0], bad])
    assert isinstance(good, Score)
    assert isinstance(fault, MeasureError)


def test_without_the_weights_it_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    with pytest.raises(FilterUnavailable, match="longtake models pull dover"):
        _ = Dover().protocol
