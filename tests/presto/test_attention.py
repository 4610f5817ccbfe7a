"""Segmented cross-attention: the windows, what each caption reaches, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from longtake.presto.attention import segment
from longtake.presto.errors import PrestoError
from longtake.presto.model import rotary
from longtake.presto.segments import Segmentation, Variant
from longtake.presto.tiny import tiny_transformer

VARIANTS: list[Variant] = ["isolated", "sequential", "sequential-pair", "overlapped"]
T, SIDE, L, D = 22, 4, 3, 32


def model(variant: Variant | None, dtype: torch.dtype = torch.float64, **changed: Any) -> Any:
    made = tiny_transformer(0, **changed).to(dtype).eval()
    if variant is not None:
        segment(made, Segmentation(variant=variant))
    return made


def forward(net: Any, text: Tensor, mask: Tensor | None = None, frames: int = T, seed: int = 1) -> Tensor:
    video = torch.randn(len(text), 4, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).to(text.dtype)
    out: Tensor = net(
        video,
        text,
        torch.full((len(text),), 500),
        encoder_attention_mask=mask,
        image_rotary_emb=rotary(net.config, frames, SIDE, SIDE),
        return_dict=False,
    )[0]
    return out


def captions(seed: int = 2, count: int = 5, batch: int = 1) -> Tensor:
    return torch.randn(batch, count, L, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_windows_of_the_released_code() -> None:
    found = Segmentation(variant="overlapped")
    assert [(w.start, w.end) for w in found.windows(22)] == [(0, 5), (3, 9), (7, 14), (12, 18), (16, 22)]
    assert [(w.start, w.end) for w in found.windows(10)] == [(0, 3), (1, 5), (3, 7), (5, 9), (7, 10)]
    assert [(w.first, w.last) for w in Segmentation(variant="sequential").windows(22)] == [(0, i) for i in range(1, 6)]
    pairs = [(w.first, w.last) for w in Segmentation(variant="sequential-pair").windows(22)]
    assert pairs == [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5)]


@given(st.sampled_from(VARIANTS), st.integers(1, 12), st.integers(1, 100), st.integers(0, 4))
def test_windows_follow_linspace_and_cover_all(variant: Variant, count: int, frames: int, overlap: int) -> None:
    found = Segmentation(variant=variant, segments=count, overlap=overlap)
    edges = np.floor(np.linspace(0, frames, count + 1) + 1e-9).astype(int)
    least = np.diff(edges).min()
    if least < 1 or (variant == "overlapped" and count > 1 and least < 2 * overlap):
        with pytest.raises(PrestoError, match="latent frames"):
            found.windows(frames)
        return
    assert found.edges(frames) == edges.tolist()
    widen = overlap if variant == "overlapped" else 0
    for i, window in enumerate(found.windows(frames)):
        assert (window.start, window.end) == (max(0, edges[i] - widen), min(frames, edges[i + 1] + widen))
        assert window.first <= i == window.last - 1
    assert min(found.coverage(frames)) >= 1
    assert max(found.coverage(frames)) <= 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_captions_are_the_plain_model(variant: Variant) -> None:
    text, mask = captions(count=1, batch=2).flatten(1, 2), torch.tensor([[1.0, 1, 0], [1, 1, 1]]).double()
    plain = forward(model(None), text, mask)
    found = forward(model(variant), text.repeat(1, 5, 1), mask.repeat(1, 5))
    assert (found - plain).abs().max() < 1e-14


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_segment_is_the_plain_model(variant: Variant) -> None:
    net = model(None)
    plain = forward(net, captions().flatten(1, 2))
    segment(net, Segmentation(variant=variant, segments=1))
    assert torch.equal(forward(net, captions().flatten(1, 2)), plain)


def test_no_parameter_is_added_or_renamed() -> None:
    assert list(model("overlapped").state_dict()) == list(model(None).state_dict())


def cross_attention(net: Any, text: Tensor, frames: int = T) -> Tensor:
    """Output of the first block's text attention alone, (T, h·w, C): self-attention cannot carry anything between frames."""
    seen: list[Tensor] = []
    handle = net.transformer_blocks[0].attn2.register_forward_hook(lambda _m, _i, out: seen.append(out))
    forward(net, text.flatten(1, 2), frames=frames)
    handle.remove()
    return seen[0][0].unflatten(0, (frames, -1))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("frames", [10, 22, 23])
def test_a_caption_reaches_its_frames_and_no_others(variant: Variant, frames: int) -> None:
    net, text = model(variant), captions()
    before = cross_attention(net, text, frames)
    for k in range(5):
        changed = text.clone()
        changed[:, k] += 1
        differs = (cross_attention(net, changed, frames) != before).flatten(1).any(1)
        windows = net.segmentation.windows(frames)
        wanted = [any(w.start <= t < w.end and w.first <= k < w.last for w in windows) for t in range(frames)]
        assert differs.tolist() == wanted


@pytest.mark.parametrize("frames", [7, 10, 22])
def test_where_windows_overlap_the_mean_counts(frames: int) -> None:
    """Against each window computed by the plain processor on its own, summed and divided by the coverage."""
    overlap = 1 if frames > 7 else 0
    net, text = model(None), captions()
    segment(net, Segmentation(variant="overlapped", overlap=overlap))
    found = cross_attention(net, text, frames)
    single = model(None)
    total = torch.zeros_like(found)
    for k, window in enumerate(net.segmentation.windows(frames)):
        alone = cross_attention(single, text[:, k : k + 1], frames)  # All frames attend to caption k.
        total[window.start : window.end] += alone[window.start : window.end]
    mean = total / torch.tensor(net.segmentation.coverage(frames)).view(-1, 1, 1)
    assert (found - mean).abs().max() < 1e-14


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_all_parameters_and_all_captions(variant: Variant) -> None:
    net = model(variant)
    net.enable_gradient_checkpointing()
    net.train()
    text = captions().requires_grad_()
    forward(net, text.flatten(1, 2)).square().sum().backward()
    assert text.grad is not None
    assert bool((text.grad.flatten(2).abs().sum(2) > 0).all())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_padding_has_no_weight() -> None:
    net, text = model("overlapped"), captions()
    padded = torch.cat([text, torch.full((1, 5, 2, D), 7.0).double()], dim=2)
    mask = torch.tensor([1.0, 1, 1, 0, 0]).double().repeat(1, 5)
    found = forward(net, padded.flatten(1, 2), mask)
    assert (found - forward(net, text.flatten(1, 2), torch.ones(1, 15).double())).abs().max() < 1e-13


def test_one_model_takes_any_number_of_frames() -> None:
    net = model("overlapped")
    assert [forward(net, captions().flatten(1, 2), frames=t).shape[2] for t in (22, 10, 23)] == [22, 10, 23]
    with pytest.raises(PrestoError, match="4 latent frames in 5 segments"):
        forward(net, captions().flatten(1, 2), frames=4)
    with pytest.raises(PrestoError, match="16 tokens is not 5 captions"):
        forward(net, torch.zeros(1, 16, D).double())


@pytest.mark.parametrize("variant", ["sequential", "overlapped"])
def test_compiles_without_graph_breaks(variant: Variant) -> None:
    net = model(variant, torch.float32, num_layers=1)
    text = captions().flatten(1, 2).float()
    plain = forward(net, text)
    explained = torch._dynamo.explain(net.transformer_blocks[0].attn2)(
        torch.randn(1, T * 4, 48), encoder_hidden_states=torch.randn(1, 5 * L, 48)
    )
    assert explained.graph_break_count == 0
    for block in net.transformer_blocks:
        block.compile(backend="aot_eager")
    torch.testing.assert_close(forward(net, text), plain)
