"""Ranks that share the tokens of a clip: the same losses and weights as one rank's, in float64."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longtake.presto import checkpoint
from longtake.presto.attention import SegmentedAttnProcessor
from longtake.presto.errors import PrestoError
from longtake.presto.logs import read_log
from longtake.presto.model import empty_transformer
from longtake.presto.prepare import Run, describe, prepare
from longtake.presto.segments import Segmentation, Variant
from longtake.presto.tiny import tiny_transformer
from tests.presto.made import config, encoded_folder
from tests.presto.ranks import finish, losses, start

# Latents 10×8×12 are 240 tokens, 24 to a frame: four parts end in the middle of frames 2 and 7, and the windows of overlapped
# segments are (0,3)(1,5)(3,7)(5,9)(7,10).
SIZE = {"frames": 40, "height": 64, "width": 96, "micro_batch": 1}


def exact_rotary() -> None:
    """diffusers' rotary embedding, but for its rounding to float32."""
    import diffusers.models.embeddings as embeddings

    def rotate(x: Tensor, tables: Any, positions: Any) -> Tensor:
        parts = []
        for tokens, (cos, sin), place in zip(x.chunk(3, dim=-1), tables, positions, strict=True):
            first, second = tokens.chunk(2, dim=-1)
            turned = torch.cat((-second, first), dim=-1)
            parts.append(tokens * cos.to(x.dtype)[place][:, None] + turned * sin.to(x.dtype)[place][:, None])
        return torch.cat(parts, dim=-1)

    embeddings.apply_rotary_emb_allegro = rotate  # type: ignore[assignment]


@pytest.fixture(scope="module")
def four_heads(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "four"
    shutil.copytree(model, folder)
    tiny_transformer(num_attention_heads=4, attention_head_dim=12).save_pretrained(folder / "transformer")
    return folder


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded_folder(tmp_path_factory.mktemp("encoded"), model, 6, latent=(10, 8, 12))


def made(model: Path, data: Path, output: Path, **changed: Any) -> Run:
    settings: dict[str, Any] = {
        "attention": {"variant": "overlapped"},
        "data": {"buckets": [SIZE]},
        "steps": 5,
        "precision": "float64",
        "validation": {"clips": 2, "every": 5},
        "checkpoints": {"every": 2, "keep": 9},
    }
    return Run(config(**(settings | changed)), model, data, output)


def weights(run: Run, part: str) -> dict[str, Tensor]:
    found = checkpoint.newest(run.output)
    assert found is not None
    model = empty_transformer(run.model, run.config.attention).double().to_empty(device="cpu")
    state: dict[str, Tensor] = model.state_dict()
    checkpoint.load_weights(found, state, part)
    return state


def looks(run: Run) -> list[float]:
    return [line["loss"] for line in read_log(run.output) if line["kind"] == "validation"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "parallel", "batch"),
    [
        pytest.param(2, {"sequence": 2}, 1, marks=pytest.mark.campaign),
        (4, {"sequence": 4, "reduction": "each"}, 2),  # More ranks than clips in a step.
        (4, {"sequence": 2, "replicas": 2}, 4),
    ],
)
def test_losses_and_weights_are_those_of_one_rank(
    four_heads: Path, data: Path, tmp_path: Path, world: int, parallel: Any, batch: int
) -> None:
    """Slow: several processes. Five steps, with micro-batches that are accumulated, an average and a look at held-out clips;
    and from step 2 again, bit for bit."""
    alone = made(four_heads, data, tmp_path / "alone", global_batch=batch)
    shared = made(four_heads, data, tmp_path / "shared", global_batch=batch, parallel=parallel)
    assert finish(start(alone, 1, exact_rotary), timeout=600) == [0]
    assert finish(start(shared, world, exact_rotary), timeout=600) == [0] * world
    assert list(losses(shared.output).values()) == pytest.approx(list(losses(alone.output).values()), rel=1e-9)
    assert looks(shared) == pytest.approx(looks(alone), rel=1e-9)
    for part in ("model", "ema"):
        mine, theirs = weights(shared, part), weights(alone, part)
        for name, tensor in theirs.items():
            assert float((mine[name] - tensor).norm()) <= 1e-9 * float(tensor.norm()), name
    again = replace(shared, output=tmp_path / "again")
    shutil.copytree(shared.output, again.output)
    for step in (4, 5):
        shutil.rmtree(again.output / checkpoint.FOLDER / f"step-{step:08d}")
    assert finish(start(again, world, exact_rotary), timeout=600) == [0] * world
    assert losses(again.output) == losses(shared.output)
    for part in ("model", "ema"):
        mine, theirs = weights(again, part), weights(shared, part)
        assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("variant", ["isolated", "sequential", "sequential-pair", "overlapped"])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_of_the_tokens_attend_as_the_whole_does(variant: Variant, parts: int) -> None:
    """Without ranks: outputs put together, and gradients of the text added up, are those of all tokens at once."""
    attention = tiny_transformer(num_layers=1).transformer_blocks[0].attn2.double()
    processor = SegmentedAttnProcessor(Segmentation(variant=variant))
    processor.frames = 10
    video = torch.randn(2, 240, 48, dtype=torch.float64)
    text = torch.randn(2, 15, 48, dtype=torch.float64, requires_grad=True)
    mask = torch.where(torch.rand(2, 1, 15) < 0.2, -10000.0, 0.0)
    whole = processor(attention, video, text, mask)
    (wanted,) = torch.autograd.grad(whole.square().sum(), text)
    processor.parts, found, gradient = parts, [], torch.zeros_like(wanted)
    for processor.part, tokens in enumerate(video.chunk(parts, 1)):
        out = processor(attention, tokens, text, mask)
        gradient += torch.autograd.grad(out.square().sum(), text)[0]
        found.append(out)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_divided_is_said_first(four_heads: Path, data: Path, tmp_path: Path) -> None:
    run = made(four_heads, data, tmp_path, parallel={"sequence": 3})
    with pytest.raises(PrestoError, match=r"has 4 heads, no multiple of parallel\.sequence = 3"):
        prepare(run)
    odd = config(data={"buckets": [{"frames": 24, "height": 48, "width": 48}]}, parallel={"sequence": 4})
    with pytest.raises(PrestoError, match=r"24x48x48 has 54 tokens, no multiple of parallel\.sequence = 4"):
        prepare(Run(odd, four_heads, data, tmp_path))
    run = made(four_heads, data, tmp_path, parallel={"sequence": 4}, global_batch=1)
    with pytest.raises(PrestoError, match=r"6 ranks are no multiple of parallel\.sequence = 4"):
        describe(run, prepare(run), 6)
    assert "global batch 1 on 4 ranks" in describe(run, prepare(run), 4)
