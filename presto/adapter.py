"""Low-rank adapters (LoRA, arXiv 2106.09685), by peft: they alone are trained; exported merged into the weights, or alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtake.presto.config import Lora
from longtake.presto.errors import PrestoError


def adapt(model: Any, lora: Lora, seed: int = 0) -> None:
    """Give linear layers of a model adapters, in place: its own weights are frozen, and the adapters begin, from `seed`,
    with an update of zero. Raises PrestoError."""
    peft = _peft()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(_config(lora), model)
        except ValueError as error:
            raise PrestoError(f"lora.targets: {error}") from error


def require_peft() -> None:
    """Raises PrestoError."""
    _peft()


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PrestoError("lora: adapters are made by the package peft: pip install '.[lora]'") from error
    return peft


def _config(lora: Lora) -> Any:
    return _peft().LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), bias="none")


def adapters(model: Any) -> dict[str, Tensor]:
    """The weights of an adapted model's adapters, by name."""
    return {name: tensor for name, tensor in model.state_dict().items() if ".lora_" in name}


def merged(model: Any) -> dict[str, Tensor]:
    """The weights that do what the adapted model does, under the names of the model without adapters. The model itself is
    merged by it."""
    for module in model.modules():
        if hasattr(module, "base_layer"):
            module.merge()
    own = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in own.items()}


def save_adapter(weights: dict[str, Tensor], lora: Lora, folder: Path) -> None:
    """A folder that `peft.PeftModel.from_pretrained` loads onto the transformer that the run started from."""
    from safetensors.torch import save_file

    named = {f"base_model.model.{name.replace('.default.', '.')}": t.contiguous() for name, t in weights.items()}
    _config(lora).save_pretrained(folder)
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
