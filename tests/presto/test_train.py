"""The loop: against a plain one, over kills, over another number of ranks, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longtake.presto import checkpoint
from longtake.presto.batches import Reader, noises
from longtake.presto.errors import PrestoError
from longtake.presto.export import export
from longtake.presto.logs import read_log
from longtake.presto.model import empty_transformer, load_pipeline, load_transformer, rotary
from longtake.presto.objective import Objective
from longtake.presto.parallel import ranks
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
            average[name] = settings.ema * average[name] + (1 - settings.ema) * p.detach()  # type: ignore[operator]
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
            # weights have moved by 4e-3; Adam enlarges rounding where a gradient is nearly zero
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


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_resume_with_another_recipe_data_or_model_is_refused(
    model: Path, other_model: Path, data: Path, tmp_path: Path
) -> None:
    run = Run(config(steps=2), model, data, tmp_path / "run")
    fit(run)
    other = config(steps=6, optimizer={"rate": 5e-4}, log_every=2)
    with pytest.raises(
        PrestoError, match=r"checkpoint\.json is of another recipe: optimizer\.rate: 0\.001 → 0\.0005\."
    ):
        fit(replace(run, config=other))
    more = encoded_folder(tmp_path / "more", model, 9)
    with pytest.raises(PrestoError, match="the clips of the data changed"):
        fit(replace(run, data=more))
    again = encoded_folder(tmp_path / "other", other_model, 8)
    with pytest.raises(PrestoError, match="the VAE of the model changed"):
        fit(replace(run, data=again, model=other_model))
    fit(replace(run, config=config(steps=3)))  # more steps are the same run
    assert list(losses(run.output)) == [1, 2, 3]


def test_a_checkpoint_cut_short_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    run = Run(config(), model, data, tmp_path / "run")
    fit(run)
    found = checkpoint.newest(run.output)
    assert found is not None
    assert sorted(p.name for p in found.path.parent.iterdir()) == ["step-00000002", "step-00000004"]
    part = next(found.path.glob("*.distcp"))
    size = part.stat().st_size
    os.truncate(part, size - 7)
    with pytest.raises(PrestoError, match=rf"{part.name} has {size - 7} bytes, not {size}: delete .*step-00000004"):
        fit(run)
    (found.path / checkpoint.MANIFEST).write_text("{")
    with pytest.raises(PrestoError, match=r"checkpoint\.json cannot be read"):
        fit(run)
    shutil.rmtree(found.path)
    (found.path.parent / ".step-00000003").mkdir()  # what a kill in the middle of writing leaves
    fit(run)
    assert list(losses(run.output)) == [1, 2, 3, 4]


def test_only_the_newest_are_kept(model: Path, data: Path, tmp_path: Path) -> None:
    run = Run(config(steps=5, checkpoints={"every": 1, "keep": 2}), model, data, tmp_path / "run")
    fit(run)
    names = [p.name for p in sorted((run.output / checkpoint.FOLDER).iterdir())]
    assert names == ["step-00000004", "step-00000005"]


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
        alone = trainer._losses(trainer.reader.batch([good], [1]))
        assert entry["loss"] == pytest.approx(float(alone[0].detach()), rel=1e-5)
    with pytest.raises(PrestoError, match=rf"step 0: 1 of 4 clips cannot be used.*{bad.clip_id}"):
        fit(Run(config(steps=1), model, folder, tmp_path / "strict"))


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
    assert {"loss", "grad_norm", "clips_per_second", "tokens_per_second", "mfu", "memory_gib", "data_wait"} <= set(
        logged
    )
    assert any(key.startswith("loss_t") for key in logged)
