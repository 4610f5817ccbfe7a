"""The loop: against a plain one, over kills, over another number of ranks, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longtake.presto import checkpoint
from longtake.presto.average import average_decay
from longtake.presto.batches import Reader, noises
from longtake.presto.errors import PrestoError
from longtake.presto.export import export
from longtake.presto.logs import read_log
from longtake.presto.model import empty_transformer, load_pipeline, load_transformer, rotary
from longtake.presto.objective import Objective
from longtake.presto.parallel import local, ranks
from longtake.presto.prepare import Run, prepare
from longtake.presto.train import Trainer, fit
from longtake.presto.vae import latents_of
from tests.presto.made import BUCKET, config, dataset, encoded_folder, row
from tests.presto.ranks import finish, losses, start, steps_done, wait_until


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded_folder(tmp_path_factory.mktemp("encoded"), model, 8)


def weights(run: Run, part: str = "model") -> dict[str, Tensor]:
    """Of the newest checkpoint."""
    found = checkpoint.newest(run.output)
    assert found is not None
    state: dict[str, Tensor] = empty_transformer(run.model, run.config.attention).to_empty(device="cpu").state_dict()
    checkpoint.load_weights(found, state, part)
    return state


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def looks(run: Run) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_log(run.output) if line["kind"] == "validation"}


# ── against a plain loop ─────────────────────────────────────────────────────────────────────────────────────────────


def plain_loop(run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """(weights, averages, losses) of a loop without sharding, checkpointing of activations or accumulation."""
    found, settings = prepare(run), run.config.optimizer
    model = load_transformer(run.model, run.config.attention)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.rate, settings.betas, settings.eps, weight_decay=settings.weight_decay
    )
    objective, seen = Objective(), []
    reader = Reader(run.config, found.null)
    for step in range(run.config.steps):
        _, places = found.plan.step(step)
        numbers = range(step * len(places), (step + 1) * len(places))
        batch = reader.batch([found.clips[i] for i in places], list(numbers))
        assert batch.moments is not None
        text, mask = batch.padded()
        noise, posterior = noises(batch.seeds, objective, (4, 6, 8, 8))
        x = latents_of(batch.moments, posterior, 0.13)
        noisy = objective.noisy(x, noise, batch.t)
        place = rotary(model.config, *x.shape[2:])
        predicted = model(noisy, text.float(), batch.t, None, mask, place, return_dict=False)[0]
        loss = objective.losses(predicted, noise, batch.t).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float(loss.detach()))
        for name, p in model.named_parameters():
            decay = min(0.9, (1 + step) / (10 + step))
            average[name] = decay * average[name] + (1 - decay) * p.detach()
    return dict(model.state_dict()), average, seen


@pytest.mark.parametrize("micro", [1, 4])
def test_the_loop_is_a_plain_loop_and_accumulation_a_larger_batch(
    model: Path, data: Path, tmp_path: Path, micro: int
) -> None:
    run = Run(
        config(global_batch=4, data={"buckets": [{**BUCKET, "micro_batch": micro}]}), model, data, tmp_path / "run"
    )
    fit(run)
    wanted, average, seen = plain_loop(run)
    assert list(losses(run.output).values()) == pytest.approx(seen, rel=1e-5)
    for found, peer in ((weights(run), wanted), (weights(run, "ema"), average)):
        for name, tensor in peer.items():
            # The weights have moved by 4e-3; Adam enlarges rounding where a gradient is nearly zero.
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=5e-5)


def test_export_is_loaded_by_the_pipeline_and_gives_the_same(model: Path, data: Path, tmp_path: Path) -> None:
    run = Run(config(), model, data, tmp_path / "run")
    exported = fit(run)
    for folder, part in ((exported, "ema"), (export(run.output, model, tmp_path / "last", average=False), "model")):
        pipeline = load_pipeline(folder)
        assert_same_bits(dict(pipeline.transformer.state_dict()), weights(run, part))
        own = load_transformer(model, run.config.attention)
        own.load_state_dict(weights(run, part))
        video, text = torch.randn(1, 4, 6, 8, 8), torch.randn(1, 10, 32)
        outs = [m(video, text, torch.tensor([9]), return_dict=False)[0] for m in (own, pipeline.transformer)]
        assert torch.equal(*outs)
    with pytest.raises(PrestoError, match="no checkpoint"):
        export(tmp_path, model, tmp_path / "none")


def test_bf16_keeps_master_weights_in_float32(model: Path, data: Path, tmp_path: Path) -> None:
    runs = [Run(config(precision=p), model, data, tmp_path / p) for p in ("bf16", "float32")]
    for run in runs:
        fit(run)
    rough, exact = (losses(run.output) for run in runs)
    assert rough != exact
    assert list(rough.values()) == pytest.approx(list(exact.values()), rel=0.02)
    with ranks() as found:
        trainer = Trainer(runs[0], prepare(runs[0]), found)
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        moments = [s["exp_avg"].dtype for s in trainer.optimizer.state.values()]
        assert set(moments) == {torch.float32}
        assert len(moments) == len(list(trainer.model.parameters()))


# ── over ranks and restarts ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_resume_is_exact_on_two_ranks_and_from_two_to_one(model: Path, data: Path, tmp_path: Path) -> None:
    """SIGKILL of a rank in the middle, then the rest on two ranks, and on one; against a run that was never stopped."""
    settings = config(steps=12, checkpoints={"every": 3, "keep": 9}, validation={"clips": 2, "every": 4})
    whole, stopped = (Run(settings, model, data, tmp_path / name) for name in ("whole", "stopped"))
    first = start(whole, 2)
    assert finish(first) == [0, 0]
    second = start(stopped, 2)
    wait_until(lambda: steps_done(stopped) >= 5)
    assert second[1].pid is not None
    os.kill(second[1].pid, signal.SIGKILL)
    assert finish(second)[1] == -signal.SIGKILL
    reached = checkpoint.newest(stopped.output)
    assert reached is not None
    assert 3 <= reached.step < 12
    alone = replace(stopped, output=tmp_path / "alone")
    shutil.copytree(stopped.output, alone.output)
    assert finish(start(stopped, 2)) == [0, 0]
    fit(alone)
    for run in (stopped, alone):
        for part in ("model", "ema"):
            assert_same_bits(weights(run, part), weights(whole, part))
    assert losses(stopped.output) == losses(whole.output)
    assert losses(alone.output) == pytest.approx(losses(whole.output), rel=1e-12)
    assert looks(whole) == looks(stopped)
    assert list(looks(whole)) == [4, 8, 12]


def test_sigterm_writes_a_checkpoint_and_the_run_goes_on(model: Path, data: Path, tmp_path: Path) -> None:
    settings = config(steps=200, checkpoints={"every": 500, "keep": 1})
    run = Run(settings, model, data, tmp_path / "run")
    (process,) = start(run, 1)
    wait_until(lambda: steps_done(run) >= 2)
    process.terminate()
    assert finish([process]) == [2]
    found = checkpoint.newest(run.output)
    assert found is not None
    assert 2 <= found.step < 200
    assert f"checkpoint of step {found.step} written" in (run.output / "error-0.txt").read_text()
    short = replace(run, config=config(steps=found.step + 2, checkpoints={"every": 500, "keep": 1}))
    fit(short)
    assert list(losses(run.output)) == list(range(1, found.step + 3))


# ── frames, drops, looks ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clip_that_cannot_be_read_takes_no_part(model: Path, tmp_path: Path) -> None:
    """Of the two clips of a step one is damaged: its loss is that of the other alone, and the ledger names it."""
    folder = dataset(tmp_path / "data", [row(i, tmp_path / "data") for i in range(4)])
    run = Run(config(steps=1, data={"max_dropped": 0.5}), model, folder, tmp_path / "run")
    prepared = prepare(run)
    bad, good = (prepared.clips[i] for i in prepared.plan.step(0)[1])
    Path(bad.path).write_bytes(Path(bad.path).read_bytes()[:900])
    fit(run)
    lines = [json.loads(x) for x in (run.output / "unreadable-rank0.jsonl").read_text().splitlines()]
    assert [(line["clip_id"], line["reason"]) for line in lines] == [(bad.clip_id, "unreadable")]
    (entry,) = (line for line in read_log(run.output) if line["kind"] == "train")
    assert entry["dropped"] == 1
    with ranks() as found:
        trainer = Trainer(replace(run, output=tmp_path / "fresh"), prepared, found)
        alone = trainer.losses(trainer.reader.batch([good], [1]))
        assert entry["loss"] == pytest.approx(float(alone[0].detach()), rel=1e-5)
    with pytest.raises(PrestoError, match=rf"step 0: 1 of 4 clips cannot be used.*{bad.clip_id}"):
        fit(Run(config(steps=1), model, folder, tmp_path / "strict"))


def test_validation_and_samples_look_at_the_weights_that_are_exported(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an average: the loss of the held-out clips, and what a sampler is given, are the exported weights'; training
    goes on with its own, as without any look."""
    settings = {"steps": 3, "optimizer": {"ema": 0.9}, "validation": {"clips": 2, "every": 9}}
    prompts = {"every": 2, "prompts": [["a"] * 5]}
    run = Run(config(**settings, samples=prompts), model, data, tmp_path / "run")
    given: list[dict[str, Tensor]] = []

    def look(_run: Any, _ranks: Any, model: Any, *_: Any) -> None:
        given.append({name: local(p.detach()).clone() for name, p in model.named_parameters()})

    monkeypatch.setattr("longtake.presto.sample.sample_in_training", look)
    exported = fit(run)
    assert len(given) == 2  # The weights are given at step 2 and at the end.
    assert_same_bits(given[1], dict(load_transformer(exported).named_parameters()))
    with ranks() as found:
        plain = Run(config(**{**settings, "optimizer": {"ema": None}}), model, data, tmp_path / "plain")
        peer = Trainer(plain, prepare(plain), found)
        weights_of(peer.model, load_transformer(exported))
        assert looks(run)[3] == pytest.approx(peer.validate()["loss"], rel=1e-6)
    unseen = Run(config(**{**settings, "validation": {"clips": 2, "every": 9}}), model, data, tmp_path / "unseen")
    fit(unseen)
    assert_same_bits(weights(unseen), weights(run))
    assert losses(unseen.output) == losses(run.output)


def weights_of(model: Any, other: Any) -> None:
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            local(mine).copy_(theirs)


def test_a_short_runs_average_is_not_its_start() -> None:
    """Share of the first weights in the average: 61 % after 500 steps of 0.999 alone."""

    def share(decay: Any, steps: int) -> float:
        return math.prod(decay(n) for n in range(steps))

    assert share(lambda _: 0.999, 500) == pytest.approx(0.606, abs=1e-3)
    assert share(lambda n: average_decay(0.999, n), 500) < 1e-6
    assert average_decay(0.999, 0) == 0.1
    assert average_decay(0.999, 10**6) == 0.999


def test_validation_is_at_fixed_noise(model: Path, data: Path, tmp_path: Path) -> None:
    run = Run(config(validation={"clips": 2, "every": 2}), model, data, tmp_path / "run")
    with ranks() as found:
        trainer = Trainer(run, prepare(run), found)
        first = trainer.validate()
        assert trainer.validate() == first
        assert first["loss"] == pytest.approx(sum(first[f"loss_t{t}"] for t in (50, 250, 500, 750, 950)) / 5)
        held = {clip.clip_id for clip in trainer.prepared.held}
        assert not held & {clip.clip_id for clip in trainer.prepared.clips}


def test_each_step_is_of_one_size(model: Path, tmp_path: Path) -> None:
    """Two buckets with micro-batches of 1 and 2, as many steps of each as they have batches."""
    data = encoded_folder(tmp_path / "data", model, 4)
    encoded_folder(data, model, 6, latent=(10, 8, 12), first=4)
    large = {"frames": 40, "height": 64, "width": 96, "micro_batch": 2}
    run = Run(config(steps=5, data={"buckets": [BUCKET, large]}), model, data, tmp_path / "run")
    fit(run)
    rates = [line["tokens_per_second"] / line["clips_per_second"] for line in read_log(run.output)]
    assert sorted(round(rate) for rate in rates) == [6 * 16] * 2 + [10 * 24] * 3


def test_the_rate_rises_and_stays(model: Path, data: Path, tmp_path: Path) -> None:
    run = Run(config(steps=5, optimizer={"rate": 1e-3, "warmup": 3, "ema": None}), model, data, tmp_path / "run")
    fit(run)
    rates = [line["rate"] for line in read_log(run.output) if line["kind"] == "train"]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert (run.output / "export" / "transformer" / "segmented_attention.json").exists()
    events = list((run.output / "tensorboard").glob("events.*"))
    assert events
    logged = read_log(run.output)[-1]
    assert {
        "loss",
        "grad_norm",
        "clips_per_second",
        "tokens_per_second",
        "mfu_measured",
        "memory_gib",
        "data_wait",
    } <= set(logged)
    assert any(key.startswith("loss_t") for key in logged)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_gradient_that_is_not_finite_stops_the_run_and_says_what_to_try(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Weights that a rate of 1e30 made: the norm of the gradient overflows. The blocks are not really compiled here."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, options: None)
    settings = config(optimizer={"rate": 1e30, "clip": 1e9}, steps=4, compile=compiled)
    with pytest.raises(PrestoError, match="the gradient is not finite") as failed:
        fit(Run(settings, model, data, tmp_path / "run"))
    assert "lower optimizer.rate" in str(failed.value)
    assert ("set compile to false" in str(failed.value)) == compiled
