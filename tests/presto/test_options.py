"""What a run can be told besides: each option against a known answer, and a resumed run bit for bit with each."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longtake.presto import checkpoint
from longtake.presto.attention import segment
from longtake.presto.batches import draw
from longtake.presto.config import Loss, Optimizer
from longtake.presto.errors import PrestoError
from longtake.presto.export import export_adapter
from longtake.presto.logs import read_log
from longtake.presto.model import load_pipeline, load_transformer, rotary
from longtake.presto.objective import Flow, shifted
from longtake.presto.prepare import Run
from longtake.presto.recompute import recompute
from longtake.presto.sample import Settings, sample, scheduler_of
from longtake.presto.segments import Segmentation
from longtake.presto.tiny import tiny_transformer
from longtake.presto.train import fit
from tests.presto.made import WORDS, config, encoded_folder
from tests.presto.ranks import finish, losses, start

LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded_folder(tmp_path_factory.mktemp("encoded"), model, 8)


def state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, read without the program that wrote it."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    path = folder.with_suffix(".pt")
    dcp_to_torch_save(folder, path)
    found = torch.load(path, weights_only=False)
    path.unlink()
    return {name: tensor for name, tensor in leaves(found) if isinstance(tensor, Tensor)}


def leaves(found: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(found, dict):
        return [leaf for key, value in found.items() for leaf in leaves(value, f"{name}/{key}")]
    return [(name, found)]


def kept(run: Run, step: int) -> Path:
    return run.output / checkpoint.FOLDER / f"step-{step:08d}"


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


OPTIONS: dict[str, dict[str, Any]] = {
    "flow": {"loss": {"objective": "flow", "shift": 3.0}},
    "lora": {"lora": LORA},
    "in_background": {"checkpoints": {"every": 2, "keep": 2, "in_background": True}},
    "decay": {"optimizer": {"decay": "cosine", "warmup": 1, "floor": 0.1}},
    "selective": {"activation_checkpointing": "selective"},
    "reduction": {"parallel": {"reduction": "each"}},
}


@pytest.mark.parametrize("option", list(OPTIONS))
def test_a_resumed_run_is_the_same_bit_for_bit(model: Path, data: Path, tmp_path: Path, option: str) -> None:
    if option == "lora":
        pytest.importorskip("peft")
    whole = Run(config(**OPTIONS[option]), model, data, tmp_path / "whole")
    fit(whole)
    again = replace(whole, output=tmp_path / "again")
    shutil.copytree(whole.output, again.output)
    shutil.rmtree(kept(again, 4))
    fit(again)
    assert_same(state(kept(again, 4)), state(kept(whole, 4)))
    assert losses(again.output) == losses(whole.output)
    assert list(losses(again.output)) == [1, 2, 3, 4]


@pytest.mark.slow
def test_all_options_at_once_on_two_ranks_that_share_a_clip(model: Path, data: Path, tmp_path: Path) -> None:
    """Slow: two times two processes. Samples are drawn, too, and each once."""
    pytest.importorskip("peft")
    settings: dict[str, Any] = {
        **{key: value for option in OPTIONS.values() for key, value in option.items()},
        "parallel": {"sequence": 2},
        "samples": {"every": 4, "prompts": [WORDS], "inference_steps": 2},
        "validation": {"clips": 1, "every": 4},
    }
    whole = Run(config(**settings), model, data, tmp_path / "whole")
    assert finish(start(whole, 2), timeout=600) == [0, 0]
    assert [path.name for path in (whole.output / "samples" / "step-00000004").glob("*.mp4")] == ["0000.mp4"]
    again = replace(whole, output=tmp_path / "again")
    shutil.copytree(whole.output, again.output)
    shutil.rmtree(kept(again, 4))
    assert finish(start(again, 2), timeout=600) == [0, 0]
    assert_same(state(kept(again, 4)), state(kept(whole, 4)))
    assert losses(again.output) == losses(whole.output)


# ── the rate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rate_falls_to_its_floor_at_the_last_step() -> None:
    def rates(**given: Any) -> list[float]:
        settings = Optimizer(rate=2.0, **given)
        return [settings.rate_at(step, 7) for step in range(7)]

    assert rates() == [2.0] * 7
    assert rates(warmup=3) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0])
    assert rates(warmup=2, decay="linear") == pytest.approx([2 / 3, 4 / 3, 2.0, 1.5, 1.0, 0.5, 0.0])
    assert rates(decay="linear", floor=0.25) == pytest.approx([2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5])
    assert rates(decay="cosine") == pytest.approx([2, 1 + 3**0.5 / 2, 1.5, 1, 0.5, 1 - 3**0.5 / 2, 0])


# ── flow matching ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flow_is_a_straight_line_and_its_direction() -> None:
    flow = Flow(noise_offset=0.0)
    x, noise = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 4, 3, 2, 2)
    t = torch.tensor([0, 250])
    noisy = flow.noisy(x, noise, t)
    torch.testing.assert_close(noisy[0], x[0])
    torch.testing.assert_close(noisy[1], 0.75 * x[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy + (1 - t / 1000).view(-1, 1, 1, 1, 1) * flow.target(x, noise), noise)
    assert flow.losses(flow.target(x, noise), flow.target(x, noise), t).tolist() == [0.0, 0.0]
    assert flow.losses(flow.target(x, noise) + 2, flow.target(x, noise), t).tolist() == pytest.approx([4.0, 4.0])


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_its_sampler_follows_the_direction_to_the_latents(model: Path, shift: float) -> None:
    """Where all latents are one video, the direction is known: (noisy − it) / σ. The scheduler's timesteps are the model's."""
    scheduler = scheduler_of(model, Loss(objective="flow", shift=shift))
    scheduler.set_timesteps(12)
    video, noisy = torch.randn(1, 4, 3, 2, 2), torch.randn(1, 4, 3, 2, 2) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        direction = (noisy - video) / (int(t) / 1000)
        noisy = scheduler.step(direction, t, noisy, return_dict=False)[0]
    torch.testing.assert_close(noisy, video, rtol=0.02, atol=0.02)
    middle = int(scheduler.timesteps[6])
    assert middle == pytest.approx(1000 * shifted(500, shift) / 1000, abs=60)


def test_a_shift_draws_noisier_timesteps() -> None:
    assert [shifted(t, 1.0) for t in (0, 1, 500, 999)] == [0, 1, 500, 999]
    assert [shifted(t, 3.0) for t in (0, 500, 999)] == [0, 750, 999]
    plain, moved = (sum(draw(config(loss={"shift": shift}), i).t for i in range(400)) / 400 for shift in (1.0, 3.0))
    assert plain == pytest.approx(500, abs=60)
    assert moved == pytest.approx(674, abs=60)  # The mean of 3u / (1 + 2u).


def test_an_export_of_flow_is_sampled_as_flow(model: Path, data: Path, tmp_path: Path) -> None:
    exported = fit(Run(config(steps=2, **OPTIONS["flow"]), model, data, tmp_path / "run"))
    pipeline = load_pipeline(exported)
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
    assert pipeline.scheduler.config.flow_shift == 3.0
    settings = Settings(frames=24, height=64, width=64, inference_steps=2)
    frames = sample(pipeline, [torch.randn(3, 32)] * 5, torch.randn(2, 32), settings)
    assert frames.shape == (24, 64, 64, 3)
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"


# ── activations and gradients ────────────────────────────────────────────────────────────────────────────────────────


class Counted(TorchDispatchMode):
    """How often attention runs forward: of the video to itself, and to text of 15 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.own = self.text = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "scaled_dot_product" in name and "backward" not in name:
            self.text += args[1].shape[-2] != args[0].shape[-2]
            self.own += args[1].shape[-2] == args[0].shape[-2]
        return func(*args, **(kwargs or {}))


def test_selective_recomputation_runs_self_attention_once() -> None:
    """In two blocks: without recomputation 2 + 2 forward, with all of it 4 + 4, selective 2 + 4; the gradients are the same."""
    gradients, counts = [], []
    video, text, t = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 15, 32), torch.tensor([7])
    which: tuple[Any, ...] = (None, "all", "selective")
    for each in which:
        model = tiny_transformer()
        if each:
            recompute(model, each)
        place = rotary(model.config, 2, 8, 8)
        with Counted() as counted:
            model(video, text, t, None, None, place, return_dict=False)[0].square().sum().backward()
        counts.append((counted.own, counted.text))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert counts == [(2, 2), (4, 4), (2, 4)]
    for found in gradients[1:]:
        assert all(torch.equal(found[name], gradients[0][name]) for name in gradients[0])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["all", "selective"])
def test_compiled_blocks_compute_again_without_graph_breaks(which: Any) -> None:
    """Slow: blocks are traced, forward and backward."""
    gradients = []
    video, text, t = torch.randn(1, 4, 10, 8, 8), torch.randn(1, 15, 32), torch.tensor([7])
    for compiled in (False, True):
        model = tiny_transformer()
        segment(model, Segmentation())
        recompute(model, which)
        if compiled:
            for block in model.transformer_blocks:
                block.compile(backend="aot_eager", fullgraph=True)
        place = rotary(model.config, 10, 8, 8)
        model(video, text, t, None, None, place, return_dict=False)[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_gradients_are_reduced_once_per_step(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four micro-batches: one reduction for each of three groups of weights, or four; the weights agree."""
    from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups

    reduced: list[int] = []
    plain = groups.foreach_reduce
    monkeypatch.setattr(groups, "foreach_reduce", lambda *a, **k: (reduced.append(1), plain(*a, **k))[1])
    found = []
    for reduction, count in (("last", 3), ("each", 12)):
        run = Run(config(steps=1, global_batch=4, parallel={"reduction": reduction}), model, data, tmp_path / reduction)
        reduced.clear()
        fit(run)
        assert len(reduced) == count
        found.append(load_transformer(run.output / "export").state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-5, atol=1e-6)


# ── checkpoints in the background ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_in_the_background_is_what_was(model: Path, data: Path, tmp_path: Path) -> None:
    """Though the weights go on changing while it is written."""
    at_once, later = (
        Run(config(steps=6, checkpoints={"every": 2, "keep": 9, **more}), model, data, tmp_path / name)
        for name, more in (("at_once", {}), ("later", {"in_background": True}))
    )
    reported: list[float] = []
    fit(at_once)
    fit(later, lambda values: reported.append(values["step"]))
    assert reported == [2.0, 4.0, 6.0]
    for step in (2, 4, 6):
        assert_same(state(kept(later, step)), state(kept(at_once, step)))
    assert [p.name for p in kept(later, 2).parent.iterdir() if p.name.startswith(".")] == []


def test_a_fault_in_the_background_stops_the_run(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "_hash", full)
    run = Run(config(checkpoints={"every": 1, "keep": 2, "in_background": True}), model, data, tmp_path / "run")
    with pytest.raises(PrestoError, match="step-00000001 cannot be written: OSError: No space left"):
        fit(run)
    assert checkpoint.newest(run.output) is None


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_adapters_alone_are_trained_and_exported_merged_or_alone(model: Path, data: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    run = Run(config(lora=LORA), model, data, tmp_path / "run")
    exported = load_transformer(fit(run))
    names = {name for name in state(kept(run, 4)) if name.startswith("/model/")}
    assert names
    assert all(".lora_" in name for name in names)
    base = load_transformer(model, run.config.attention)
    touched = {name for name, t in exported.state_dict().items() if not torch.equal(t, base.state_dict()[name])}
    ends = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    assert touched == {name for name in base.state_dict() if name.endswith(ends)}
    alone = export_adapter(run.output, model, tmp_path / "adapter")
    video, text, t = torch.randn(1, 4, 6, 8, 8), torch.randn(1, 10, 32), torch.tensor([9])
    wanted = exported(video, text, t, return_dict=False)[0]
    adapted = peft.PeftModel.from_pretrained(load_transformer(model, run.config.attention), alone)
    torch.testing.assert_close(adapted(video, text, t, return_dict=False)[0], wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base(video, text, t, return_dict=False)[0], wanted, atol=1e-4)
    with pytest.raises(PrestoError, match=r"refused|is of another recipe: lora"):
        fit(replace(run, config=config(steps=5, lora={"rank": 2})))


def test_adapters_go_on_over_their_own_weights_only(model: Path, other_model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = Run(config(steps=2, lora=LORA), model, data, tmp_path / "run")
    fit(run)
    mixed = tmp_path / "mixed"
    shutil.copytree(model, mixed)
    shutil.rmtree(mixed / "transformer")
    shutil.copytree(other_model / "transformer", mixed / "transformer")
    with pytest.raises(PrestoError, match="the weights that adapters are for changed"):
        fit(replace(run, model=mixed, config=config(steps=3, lora=LORA)))


def test_what_is_not_installed_is_said_before_the_first_step(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("peft", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PrestoError, match=r"pip install '\.\[lora\]'"):
        fit(Run(config(lora=LORA), model, data, tmp_path / "run"))
    with pytest.raises(PrestoError, match="pip install wandb"):
        fit(Run(config(wandb={"project": "p"}), model, data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# ── Weights & Biases ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_goes_to_weights_and_biases_too(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in takes what the package would be given; a resumed run goes on under its id."""
    begun: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []
    ended: list[int] = []

    def init(**given: Any) -> Any:
        begun.append(given)
        return SimpleNamespace(
            define_metric=lambda *_, **__: None, log=sent.append, finish=lambda exit_code: ended.append(exit_code)
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    board = {"project": "films", "entity": "us"}
    run = Run(config(steps=2, wandb=board), model, data, tmp_path / "run")
    fit(run)
    fit(replace(run, config=config(steps=3, wandb=board)))
    assert [(b["project"], b["entity"], b["config"]["steps"]) for b in begun] == [
        ("films", "us", 2),
        ("films", "us", 3),
    ]
    assert begun[0]["id"] == begun[1]["id"]
    assert ended == [0, 0]
    logged = [line for line in read_log(run.output) if line["kind"] == "train"]
    assert [(s["step"], s["train/loss"]) for s in sent] == [(line["step"], line["loss"]) for line in logged]
    json.dumps(begun[0]["config"])
