"""One model folder for all tests of the trainer: random weights, as `python -m longtake.presto.tiny` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longtake.presto.tiny import tiny_model

torch.set_num_threads(1)  # Products this small are slower on more threads.


def _require_extra() -> None:
    """What only the extra `presto` brings: the stand-in's tokenizer is a sentencepiece model, as the published one, and
    captions are cleaned by way of bs4."""
    pytest.importorskip("sentencepiece")
    pytest.importorskip("bs4")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _require_extra()
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shapes, other weights."""
    _require_extra()
    return tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1)
