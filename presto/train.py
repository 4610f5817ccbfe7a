"""The training loop: one plain `fit` on torch.distributed, whoever launched it (torchrun, Ray Train, nobody).

RUN/config.yaml  log.jsonl  tensorboard/  drops.jsonl  checkpoints/  samples/  export/

Each other part has a module of its own: `batches` reads, `losses` runs the model, `meter` sums and logs, `ledger` counts
what cannot be read, `average` and `validation` are what they say, `checkpoint` writes, `parallel` shards.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from longtake.presto import checkpoint
from longtake.presto.average import Average
from longtake.presto.batches import Batch, Reader, StepBatches, loader
from longtake.presto.config import changes
from longtake.presto.dataset import write_ledger
from longtake.presto.errors import PrestoError
from longtake.presto.ledger import Ledger
from longtake.presto.logs import Log
from longtake.presto.losses import Losses
from longtake.presto.meter import Meter, Totals
from longtake.presto.model import empty_transformer, load_transformer
from longtake.presto.parallel import Ranks, clip_gradients, local, ranks, shard
from longtake.presto.prepare import Prepared, Run, prepare
from longtake.presto.vae import allow_tf32
from longtake.presto.validation import held_out_losses

log = logging.getLogger(__name__)

Report = Callable[[dict[str, float]], None]


def fit(run: Run, report: Report | None = None) -> Path:
    """Train to the end of the configuration's steps, from the newest checkpoint in the run's folder if there is one; the
    folder of the export, which AllegroPipeline loads.

    Every rank calls it. report: called by every rank after each checkpoint, with what was last logged. On SIGTERM the
    step in hand is finished, a checkpoint is written, and PrestoError says so. Raises PrestoError before the first step
    where something can be known by then.
    """
    allow_tf32()
    with ranks() as found:
        prepared = prepare(run)
        prepared.plan.require_world(found.world)
        trainer = Trainer(run, prepared, found)
        with Log(run.output, trainer.step) if found.first else nullcontext() as journal:
            trainer.train(journal, report)
        exported = run.output / "export"
        if found.first:
            from longtake.presto.export import export

            export(run.output, run.model, exported)
        torch.distributed.barrier()
        return exported


class Trainer:
    """Model, optimizer, average and position of a run on one rank."""

    def __init__(self, run: Run, prepared: Prepared, found: Ranks) -> None:
        self.run, self.config, self.prepared, self.ranks = run, run.config, prepared, found
        self.step = 0
        self.changed: list[str] = []  # Settings that are not those of the checkpoint that the run goes on from.
        self.damaged: tuple[str, ...] = ()  # What was wrong with newer checkpoints.
        self.sample_text: list[Any] | None = None
        previous = checkpoint.newest(run.output, found)
        if previous is not None:
            self._require_same(previous)
            self.damaged = previous.passed
        self.model = self._sharded_model(load=previous is None)
        settings = self.config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            fused=found.device.type == "cuda",
        )
        self.average = Average(self.model, settings.ema)
        if previous is not None:
            self._restore(previous)
        self.reader = Reader(self.config, prepared.null)
        self.losses = Losses(run, self.model, found.device, encode=prepared.null is None)
        self.meter = Meter(self.config, prepared.model, found)
        self.ledger = Ledger(run, prepared, found)

    # Set-up

    def _sharded_model(self, *, load: bool) -> Any:
        """Only the first rank reads weights; the others receive their shards."""
        model = empty_transformer(self.run.model, self.config.attention)
        model.train()
        if self.config.activation_checkpointing:
            model.enable_gradient_checkpointing()
        if self.config.compile:
            for block in model.transformer_blocks:
                block.compile()
        shard(model, self.ranks, self.config.precision)
        model.to_empty(device=self.ranks.device)
        if load:
            weights = {}
            if self.ranks.first:
                weights = load_transformer(self.run.model, self.config.attention).state_dict()
            set_model_state_dict(
                model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            )
        return model

    def _meta(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "plan": self.prepared.plan.digest,
            "vae": self.prepared.vae,
            "world": self.ranks.world,
        }

    def _require_same(self, previous: checkpoint.Checkpoint) -> None:
        now = self._meta()
        refused, self.changed = changes(previous.meta["config"], now["config"])
        if refused:
            raise PrestoError(
                f"{previous.path / checkpoint.MANIFEST} is of another recipe: {'; '.join(refused)}. What the run has done "
                "rests on this: resume with the same, or start in a new folder from an export of this run"
            )
        for key, what in (("plan", "the clips of the data"), ("vae", "the VAE of the model")):
            if previous.meta[key] != now[key]:
                raise PrestoError(
                    f"{previous.path / checkpoint.MANIFEST}: {what} changed since ({key} {previous.meta[key]}, now "
                    f"{now[key]}), so the run would not go on where it stopped. Resume with the same data ({self.run.data}), "
                    "or start in a new folder from an export of this run"
                )

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "ema": self.average.weights}

    def _restore(self, previous: checkpoint.Checkpoint) -> None:
        state = self._state()
        checkpoint.load(previous, state)
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        settings = self.config.optimizer  # The checkpoint brings its own back.
        for group in self.optimizer.param_groups:
            group.update(betas=settings.betas, weight_decay=settings.weight_decay, eps=settings.eps)
        self.step = previous.step
        log.info("resumed from %s", previous.path)

    # Steps

    def train(self, journal: Log | None, report: Report | None) -> None:
        """All steps that are left."""
        config = self.config
        self._begin(journal)
        with closing(self._reading()) as reading, _told_to_stop() as told:
            while self.step < config.steps:
                totals = self.train_step(reading, stop=told.is_set())
                self.step += 1
                last, stop = self.step == config.steps, bool(totals.stop > 0)
                if self.step % config.log_every == 0 or last:
                    entry = self.meter.entry()
                    if journal:
                        journal.write(self.step, "train", entry)
                with self.meter.aside():
                    self._between(journal, report, last=last, stop=stop)
                if stop and not last:
                    raise PrestoError(
                        f"told to stop: checkpoint of step {self.step} written, the same command goes on from it"
                    )

    def _begin(self, journal: Log | None) -> None:
        """What is written down before the first step."""
        if self.ranks.first:
            (self.run.output / "config.yaml").write_text(self.config.to_yaml(), encoding="utf-8")
            write_ledger(self.prepared.drops, self.run.output / "drops.jsonl")
        for change in self.changed:
            log.info("changed since the checkpoint: %s", change)
        for kind, words in (("changed", self.changed), ("damaged", self.damaged)):
            if journal and words:
                journal.note(self.step, kind, words)

    def _reading(self) -> Any:
        """This rank's micro-batches of the steps that are left, read ahead."""
        data, found = self.config.data, self.ranks
        batches = StepBatches(self.prepared.clips, self.prepared.plan, self.reader, found.rank, found.world)
        pin = found.device.type == "cuda"
        return loader(batches, self.step, self.config.steps, workers=data.workers, prefetch=data.prefetch, pin=pin)

    def train_step(self, reading: Iterator[Batch], *, stop: bool) -> Totals:
        """Micro-batches forward and backward, then the optimizer; what it came to, over all ranks."""
        config, found = self.config, self.ranks
        bucket, places, _ = self.prepared.plan.share(self.step, found.rank, found.world)
        totals = Totals(found.device)
        for _ in range(len(places) // config.data.buckets[bucket].micro_batch):
            with self.meter.waiting():
                batch = next(reading)
            self.ledger.drops += batch.drops
            batch = batch.to(found.device)
            losses = self.losses(batch)
            ((losses * batch.weight).sum() / config.global_batch).backward()  # type: ignore[no-untyped-call]
            totals.add(batch, losses)
        totals.stop += float(stop)
        found.sum(totals.vector)
        self.ledger.settle(self.step, float(totals.clips), int(totals.dropped))
        norm = self._update(float(totals.clips), batch.clip_ids)
        self.meter.add(totals, norm, self.rate(), bucket, self.losses.text_length[bucket])
        return totals

    def _update(self, clips: float, clip_ids: list[str]) -> float:
        """From gradients to weights; the norm of the gradient. clips: that took part; clip_ids: some of them."""
        config, found = self.config, self.ranks
        if clips < config.global_batch:  # a clip that could not be read weakens no other one's part
            factor = torch.tensor(config.global_batch / clips, device=found.device)
            torch._foreach_mul_([local(p.grad) for p in self.model.parameters() if p.grad is not None], factor)
        norm = clip_gradients(self.model, config.optimizer.clip, found)
        if not math.isfinite(norm):
            raise PrestoError(
                f"step {self.step}: the gradient is not finite (clips {', '.join(clip_ids)} among others). The last "
                "checkpoint is from before; lower optimizer.rate, or look at these clips"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.follow(self.step)
        return norm

    def rate(self) -> float:
        """The learning rate of the step in hand: a linear rise, then constant."""
        settings = self.config.optimizer
        return settings.rate * min(1.0, (self.step + 1) / (settings.warmup + 1))

    # Between steps

    def _between(self, journal: Log | None, report: Report | None, *, last: bool, stop: bool) -> None:
        """Validation, checkpoint and samples, each at its step; every rank takes part in each."""
        config = self.config
        if self.prepared.held and (self.step % config.validation.every == 0 or last):
            values = self.validate()
            if journal:
                journal.write(self.step, "validation", values)
        if self.step % config.checkpoints.every == 0 or last or stop:
            checkpoint.save(
                self.run.output, self.step, self._state(), self._meta(), config.checkpoints.keep, self.ranks
            )
            if report:
                report({"step": float(self.step), **self.meter.latest})
        if config.samples.every and (self.step % config.samples.every == 0 or last):
            self._sample()

    def validate(self) -> dict[str, float]:
        """The loss of the held-out clips by the weights that will be exported."""
        with self.average.in_place():
            timesteps = self.config.validation.timesteps
            return held_out_losses(self.losses, self.reader, self.prepared.held, timesteps, self.ranks)

    def _sample(self) -> None:
        from longtake.presto.sample import embed_prompts, sample_in_training

        if not self.config.samples.prompts:
            return
        if self.sample_text is None:
            self.sample_text = embed_prompts(self.run, self.ranks, self.losses.text)
        with self.average.in_place():
            sample_in_training(self.run, self.ranks, self.model, self.losses.vae, self.sample_text, self.step)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets. In a thread (Ray Train) there are no signals."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
