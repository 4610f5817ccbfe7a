"""The training loop: one plain `fit` on torch.distributed, launched by torchrun, by Ray Train, or directly.

RUN/config.yaml  log.jsonl  tensorboard/  drops.jsonl  checkpoints/  samples/  export/

Each other part has a module of its own: `batches` reads, `losses` runs the model, `meter` sums and logs, `ledger` counts
clips that cannot be read, `average` averages weights, `validation` validates, `checkpoint` writes, `parallel` shards.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
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
from longtake.presto.adapter import adapt
from longtake.presto.average import Average
from longtake.presto.batches import Batch, Reader, StepBatches, loader
from longtake.presto.compiling import compile_blocks
from longtake.presto.config import changes, parse_config
from longtake.presto.dataset import write_ledger
from longtake.presto.errors import PrestoError
from longtake.presto.ledger import Ledger
from longtake.presto.logs import Log
from longtake.presto.losses import Losses
from longtake.presto.meter import Meter, Totals
from longtake.presto.model import empty_transformer, load_transformer
from longtake.presto.parallel import Ranks, clip_gradients, local, master_dtype, ranks, reduce_gradients, shard
from longtake.presto.prepare import Prepared, Run, prepare
from longtake.presto.recompute import recompute
from longtake.presto.sequence import share_tokens
from longtake.presto.vae import allow_tf32
from longtake.presto.validation import held_out_losses

log = logging.getLogger(__name__)

Report = Callable[[dict[str, float]], None]


def fit(run: Run, report: Report | None = None) -> Path:
    """Train to the end of the configuration's steps, from the newest checkpoint in the run's folder if there is one; the
    folder of the export, which AllegroPipeline loads.

    Every rank calls it. report: called by every rank after each checkpoint, with what was last logged. On SIGTERM the
    current step is finished, a checkpoint is written, and PrestoError says so. Faults that can be found before the first
    step raise PrestoError then.
    """
    allow_tf32()
    with ranks() as joined:
        prepared = prepare(run)
        prepared.require_world(run.config.parallel, joined.world)
        trainer = Trainer(run, prepared, joined)
        with Log(run.output, trainer.step, run.config) if joined.first else nullcontext() as journal:
            trainer.train(journal, report)
        exported = run.output / "export"
        if joined.first:
            from longtake.presto.export import export

            export(run.output, run.model, exported)
        torch.distributed.barrier()
        return exported


class Trainer:
    """Model, optimizer, average and position of a run on one rank."""

    def __init__(self, run: Run, prepared: Prepared, ranks: Ranks) -> None:
        self.run, self.config, self.prepared = run, run.config, prepared
        self.ranks = ranks = ranks.sharing(run.config.parallel)
        self.step = 0
        self.changed: list[str] = []  # Settings that are not those of the checkpoint that the run goes on from.
        self.damaged: tuple[str, ...] = ()  # The faults of newer checkpoints.
        self.sample_text: list[Any] | None = None
        previous = checkpoint.newest(run.output, ranks)
        if previous is not None:
            self._require_same(previous)
            self.damaged = previous.passed
        self.model = self._sharded_model(load=previous is None or self.config.lora is not None)
        settings = self.config.optimizer
        self.optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=settings.rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            fused=ranks.device.type == "cuda",
        )
        self.average = Average(self.model, settings.ema)
        if previous is not None:
            self._restore(previous)
        self.reader = Reader(self.config, prepared.null)
        self.losses = Losses(run, self.model, ranks.device, encode=prepared.null is None)
        self.meter = Meter(self.config, prepared.model, ranks)
        self.ledger = Ledger(run, prepared, ranks)
        kept = self.config.checkpoints
        self.writer = checkpoint.Writer(run.output, kept.keep, ranks, in_background=kept.in_background)

    # Set-up.

    def _sharded_model(self, *, load: bool) -> Any:
        """Only the first rank reads weights; the others receive their shards."""
        precision = self.config.precision
        model = empty_transformer(self.run.model, self.config.attention)
        torch.nn.Module.to(model, master_dtype(precision))  # The `to` of diffusers warns of any cast.
        if self.config.lora is not None:
            adapt(model, self.config.lora)
        model.train()
        if self.config.activation_checkpointing:
            recompute(model, "selective" if self.config.activation_checkpointing == "selective" else "all")
        if self.config.compile:
            compile_blocks(model)
        if self.ranks.sharers is not None:
            share_tokens(model, self.ranks.sharers)
        shard(model, self.ranks, precision)
        model.to_empty(device=self.ranks.device)
        if load:
            weights = {}
            if self.ranks.first:
                loaded = load_transformer(self.run.model, self.config.attention, master_dtype(precision))
                if self.config.lora is not None:
                    adapt(loaded, self.config.lora, self.config.seed)
                weights = loaded.state_dict()
            set_model_state_dict(
                model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            )
        return model

    def _meta(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "plan": self.prepared.plan.digest,
            "vae": self.prepared.vae,
            "base": self.prepared.base,
            "world": self.ranks.world,
        }

    def _require_same(self, previous: checkpoint.Checkpoint) -> None:
        now = self._meta()
        # Settings that the program did not have then were as they are by default.
        then = parse_config(previous.meta["config"], str(previous.path / checkpoint.MANIFEST))
        refused, self.changed = changes(then.model_dump(mode="json"), now["config"])
        if refused:
            raise PrestoError(
                f"{previous.path / checkpoint.MANIFEST} is of another recipe: {'; '.join(refused)}. What the run has done "
                "rests on this: resume with the same, or start in a new folder from an export of this run"
            )
        if previous.step > self.config.steps:
            raise PrestoError(
                f"{self.run.output} has done {previous.step} steps, and steps is {self.config.steps}: resume with as many at "
                "least, or start in a new folder"
            )
        whats = {
            "plan": "the clips of the data",
            "vae": "the VAE of the model",
            "base": "the weights that adapters are for",
        }
        for key, what in whats.items():
            if (before := previous.meta.get(key, "")) != now[key]:
                raise PrestoError(
                    f"{previous.path / checkpoint.MANIFEST}: {what} changed since ({key} {before}, now "
                    f"{now[key]}), so the run would not go on where it stopped. Resume with the same data ({self.run.data}), "
                    "or start in a new folder from an export of this run"
                )

    def _state(self) -> dict[str, Any]:
        options = StateDictOptions(ignore_frozen_params=True)
        model, optimizer = get_state_dict(self.model, self.optimizer, options=options)
        return {"model": model, "optimizer": optimizer, "ema": self.average.weights}

    def _restore(self, previous: checkpoint.Checkpoint) -> None:
        state = self._state()
        checkpoint.load(previous, state)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(ignore_frozen_params=True, strict=self.config.lora is None),
        )
        settings = self.config.optimizer  # The checkpoint brings its own back.
        for group in self.optimizer.param_groups:
            group.update(betas=settings.betas, weight_decay=settings.weight_decay, eps=settings.eps)
        self.step = previous.step
        log.info("resumed from %s", previous.path)

    # Steps.

    def train(self, journal: Log | None, report: Report | None) -> None:
        """All steps that are left."""
        config = self.config
        self._begin(journal)
        with closing(self._reading()) as reading, closing(self.writer), _told_to_stop() as told:
            while self.step < config.steps:
                totals = self.train_step(reading, stop=told.is_set())
                self.step += 1
                last, stop = self.step == config.steps, bool(totals.stop > 0)
                if self.step % config.log_every == 0 or last:
                    entry = self.meter.entry()
                    if journal:
                        journal.write(self.step, "train", entry)
                with self.meter.aside():
                    self._between(
                        journal, report, last=last, stop=stop, written=int(totals.written) == self.ranks.world
                    )
                if stop and not last:
                    raise PrestoError(
                        f"stopped on request: checkpoint of step {self.step} written, the same command goes on from it"
                    )

    def _begin(self, journal: Log | None) -> None:
        """Write the run's configuration and drops before the first step."""
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
        data, ranks = self.config.data, self.ranks
        batches = StepBatches(self.prepared.clips, self.prepared.plan, self.reader, ranks.group, ranks.groups)
        pin = ranks.device.type == "cuda"
        return loader(batches, self.step, self.config.steps, workers=data.workers, prefetch=data.prefetch, pin=pin)

    def train_step(self, reading: Iterator[Batch], *, stop: bool) -> Totals:
        """Micro-batches forward and backward, then the optimizer. Gives the sums over all ranks."""
        config, ranks = self.config, self.ranks
        bucket, places, _ = self.prepared.plan.share(self.step, ranks.group, ranks.groups)
        totals, count = Totals(ranks.device), len(places) // config.data.buckets[bucket].micro_batch
        for i in range(count):
            with self.meter.waiting():
                batch = next(reading)
            batch = batch.to(ranks.device)
            batch = replace(batch, weight=ranks.agreed(batch.weight))
            reduce_gradients(self.model, config.parallel.reduction == "each" or i == count - 1)
            losses = self.losses(batch)
            ((losses * batch.weight).sum() / config.global_batch).backward()  # type: ignore[no-untyped-call]
            self.ledger.drops += batch.drops
            if ranks.speaks:
                totals.add(batch, losses)
        totals.stop += float(stop)
        totals.written += float(self.writer.written)
        ranks.sum(totals.vector)
        self.ledger.settle(self.step, float(totals.clips), int(totals.dropped))
        norm = self._update(float(totals.clips), batch.clip_ids)
        self.meter.add(totals, norm, self.rate(), bucket, self.losses.text_length[bucket])
        return totals

    def _update(self, clips: float, clip_ids: list[str]) -> float:
        """Apply the gradients to the weights. Gives the norm of the gradient. clips: the number of clips that took part;
        clip_ids: some of them."""
        config, ranks = self.config, self.ranks
        if clips < config.global_batch:  # A clip that could not be read does not weaken the part of the others.
            factor = torch.tensor(config.global_batch / clips, device=ranks.device)
            torch._foreach_mul_([local(p.grad) for p in self.model.parameters() if p.grad is not None], factor)
        norm = clip_gradients(self.model, config.optimizer.clip, ranks)
        if not math.isfinite(norm):
            # A compiler's fault ended a step so once, which trained without compiling (longtake.presto.compiling).
            first = "set compile to false first; then " if config.compile else ""
            raise PrestoError(
                f"step {self.step}: the gradient is not finite (clips {', '.join(clip_ids)} among others). The last "
                f"checkpoint is from before; {first}lower optimizer.rate, or look at these clips"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.follow(self.step)
        return norm

    def rate(self) -> float:
        """The learning rate of the current step."""
        return self.config.optimizer.rate_at(self.step, self.config.steps)

    # Between steps.

    def _between(self, journal: Log | None, report: Report | None, *, last: bool, stop: bool, written: bool) -> None:
        """Validation, checkpoint and samples, each at its step; every rank takes part in each."""
        config = self.config
        if self.prepared.held and (self.step % config.validation.every == 0 or last):
            values = self.validate()
            if journal:
                journal.write(self.step, "validation", values)
        self._keep(report, written=written, now=last or stop)
        if config.samples.every and (self.step % config.samples.every == 0 or last):
            self._sample()

    def _keep(self, report: Report | None, *, written: bool, now: bool) -> None:
        """A checkpoint at its steps, and `now`. written: all ranks have written the last one, in the background."""
        due = now or self.step % self.config.checkpoints.every == 0
        if self.writer.pending is not None and (written or due):
            self._finish(report)
        if due:
            self.writer.begin(self.step, self._state(), self._meta())
            if now or not self.config.checkpoints.in_background:
                self._finish(report)

    def _finish(self, report: Report | None) -> None:
        step = self.writer.pending
        self.writer.finish()
        if report:
            report({**self.meter.latest, "step": float(step or 0)})

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
