"""Blocks as the trainer compiles them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longtake.presto.compiling import FUSED_WRONG, compile_blocks
from longtake.presto.tiny import tiny_transformer


def test_the_fusion_that_computes_wrong_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch knows it by this name; another name would be refused by `compile` itself."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, options: asked.append(options))
    model = tiny_transformer()
    compile_blocks(model)
    known = FUSED_WRONG in torch._inductor.list_options()
    assert asked == [{FUSED_WRONG: False} if known else {}] * len(model.transformer_blocks)
    torch.compile(lambda x: x, options=asked[0])  # It refuses an option that it does not know.
