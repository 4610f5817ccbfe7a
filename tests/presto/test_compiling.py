"""Blocks as the trainer compiles them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longtake.presto.compiling import FUSED_WRONG, compile_blocks
from longtake.presto.model import rotary
from longtake.presto.tiny import tiny_transformer

# Frames, rows and columns of the latents: 8,448 tokens. With a third of them the fault does not show.
SIZE = 22, 32, 48


def test_the_fusion_that_computes_wrong_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch knows it by this name; another name would be refused by `compile` itself."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, options: asked.append(options))
    model = tiny_transformer()
    compile_blocks(model)
    known = FUSED_WRONG in torch._inductor.list_options()
    assert asked == [{FUSED_WRONG: False} if known else {}] * len(model.transformer_blocks)
    torch.compile(lambda x: x, options=asked[0])  # It refuses an option that it does not know.


def gradients(compiled: bool, frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """The gradients of all weights of two blocks of the published width, in bf16. Sizes: of the latents."""
    model = tiny_transformer(num_attention_heads=24, attention_head_dim=96, cross_attention_dim=2304).to(
        "cuda", torch.bfloat16
    )
    if compiled:
        compile_blocks(model)
    torch.manual_seed(1)
    video = torch.randn(1, 4, frames, height, width).to("cuda", torch.bfloat16)
    text = torch.randn(1, 64, 32).to("cuda", torch.bfloat16)
    place = rotary(model.config, frames, height, width, "cuda")
    found = model(video, text, torch.tensor([7], device="cuda"), None, None, place, return_dict=False)[0]
    found.float().square().mean().backward()
    return {name: weight.grad.float() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fault is that of a GPU's compiler")
def test_compiled_gradients_are_those_of_the_model_as_it_is() -> None:
    """With the fusion the scales' and shifts' are off by more than 20 times their length (torch 2.11, an H100)."""
    plain, compiled = (gradients(which, *SIZE) for which in (False, True))
    assert plain.keys() == compiled.keys()
    for name, wanted in plain.items():
        if name.endswith("to_k.bias"):
            continue  # A shift of all keys changes no attention: all that this gradient holds is rounding.
        off = (compiled[name] - wanted).norm() / wanted.norm()
        assert off < 0.02, name  # Rounding to bf16 makes 0.002; not a number is not less.
