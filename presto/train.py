"""The training loop: one plain `fit` on torch.distributed, whoever launched it (torchrun, Ray Train, nobody).

RUN/config.yaml  log.jsonl  tensorboard/  drops.jsonl  checkpoints/  samples/  export/
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from longtake.presto import checkpoint
from longtake.presto.batches import Batch, Reader, StepBatches, loader, noises
from longtake.presto.budget import measured_peak, nominal_peak, step_flops, tokens
from longtake.presto.config import changes
from longtake.presto.dataset import Drop, write_ledger
from longtake.presto.errors import PrestoError
from longtake.presto.folder import scaling_factor
from longtake.presto.logs import Log
from longtake.presto.model import Rotary, empty_transformer, load_text_encoder, load_transformer, load_vae, rotary
from longtake.presto.objective import TIMESTEPS, Objective
from longtake.presto.parallel import Ranks, clip_gradients, local, ranks, shard
from longtake.presto.prepare import Prepared, Run, prepare
from longtake.presto.text import encode_captions, pad_captions
from longtake.presto.vae import allow_tf32, encode_moments, latents_of, vae_dtype

log = logging.getLogger(__name__)

Report = Callable[[dict[str, float]], None]
BINS = 10  # of timesteps, in the log
_VALIDATION = 1 << 31  # numbers of held-out clips: none of a run gets there


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
        self.objective = Objective(self.config.loss.gamma, self.config.loss.noise_offset)
        self.reader = Reader(self.config, prepared.null)
        self.dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        self.step = 0
        self.changed: list[str] = []  # Settings that are not those of the checkpoint that the run goes on from.
        self.damaged: tuple[str, ...] = ()  # What was wrong with newer checkpoints.
        self.drops: list[Drop] = []
        self.unreadable = 0  # clips of this epoch, over all ranks
        self._rotary: dict[int, Rotary] = {}
        self._text_length: dict[int, int] = {}
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
        self.average: dict[str, Tensor] = {}
        if settings.ema is not None:
            self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        if previous is not None:
            self._restore(previous)
        self.vae: Any = None
        self.text: tuple[Any, Any] | None = None
        self.scale = scaling_factor(run.model)
        if prepared.null is None:
            self.vae = load_vae(run.model, vae_dtype(self.config.encoding.vae_precision)).to(found.device)
            tokenizer, encoder = load_text_encoder(run.model, self.dtype)
            self.text = tokenizer, encoder.to(found.device)

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
        return {"model": model, "optimizer": optimizer, "ema": self.average}

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
        config, found = self.config, self.ranks
        if found.first:
            (self.run.output / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            write_ledger(self.prepared.drops, self.run.output / "drops.jsonl")
        for change in self.changed:
            log.info("changed since the checkpoint: %s", change)
        for kind, words in (("changed", self.changed), ("damaged", self.damaged)):
            if journal and words:
                journal.note(self.step, kind, words)
        batches = StepBatches(self.prepared.clips, self.prepared.plan, self.reader, found.rank, found.world)
        reading = loader(
            batches,
            self.step,
            config.steps,
            workers=config.data.workers,
            prefetch=config.data.prefetch,
            pin=found.device.type == "cuda",
        )
        meter = Meter(self)
        with closing(reading), _told_to_stop() as told:
            while self.step < config.steps:
                totals = self._one_step(reading, meter, stop=told.is_set())
                self.step += 1
                last = self.step == config.steps
                stop = bool(totals[2] > 0)
                if self.step % config.log_every == 0 or last:
                    meter.write(journal)
                with meter.aside():
                    self._between(journal, report, meter.latest, last=last, stop=stop)
                if stop and not last:
                    raise PrestoError(
                        f"told to stop: checkpoint of step {self.step} written, the same command goes on from it"
                    )

    def _between(
        self, journal: Log | None, report: Report | None, latest: dict[str, float], *, last: bool, stop: bool
    ) -> None:
        """Validation, checkpoint and samples, each at its step; every rank takes part in each."""
        config = self.config
        if self.prepared.held and (self.step % config.validation.every == 0 or last):
            values = self.validate()
            if journal:
                journal.write(self.step, "validation", values)
        if self.step % config.checkpoints.every == 0 or last or stop:
            self._save()
            if report:
                report({"step": float(self.step), **latest})
        if config.samples.every and (self.step % config.samples.every == 0 or last):
            self._sample()

    def _one_step(self, reading: Iterator[Batch], meter: Meter, *, stop: bool) -> Tensor:
        config, found = self.config, self.ranks
        bucket, places, _ = self.prepared.plan.share(self.step, found.rank, found.world)
        micro = config.data.buckets[bucket].micro_batch
        # [loss, clips, told to stop, dropped, then loss and clips by bin of t]
        totals = torch.zeros(4 + 2 * BINS, dtype=torch.float64, device=found.device)
        for _ in range(len(places) // micro):
            with meter.waiting():
                batch = next(reading)
            self.drops += batch.drops
            moved = batch.to(found.device)
            losses = self._losses(moved)
            ((losses * moved.weight).sum() / config.global_batch).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                weighted = (losses * moved.weight).double()
                bins = moved.t * BINS // TIMESTEPS
                totals[0] += weighted.sum()
                totals[1] += moved.weight.sum()
                totals[3] += len(batch.drops)
                totals[4 : 4 + BINS].index_add_(0, bins, weighted)
                totals[4 + BINS :].index_add_(0, bins, moved.weight.double())
        totals[2] = float(stop)
        found.sum(totals)
        self._require_readable(totals)
        if totals[1] < config.global_batch:  # a clip that could not be read weakens no other one's part
            factor = torch.tensor(config.global_batch / float(totals[1]), device=found.device)
            torch._foreach_mul_([local(p.grad) for p in self.model.parameters() if p.grad is not None], factor)
        norm = clip_gradients(self.model, config.optimizer.clip, found)
        if not torch.isfinite(torch.tensor(norm)):
            raise PrestoError(
                f"step {self.step}: the gradient is not finite (clips {', '.join(batch.clip_ids)} among others). The last "
                "checkpoint is from before; lower optimizer.rate, or look at these clips"
            )
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            kept = [local(a) for a in self.average.values()]
            now = [local(p.detach()) for p in self.model.parameters()]
            torch._foreach_lerp_(kept, now, 1 - average_decay(config.optimizer.ema or 0.0, self.step))
        meter.add(totals, norm, rate, bucket)
        return totals.cpu()

    def rate(self) -> float:
        """The learning rate of the step in hand: a linear rise, then constant."""
        settings = self.config.optimizer
        return settings.rate * min(1.0, (self.step + 1) / (settings.warmup + 1))

    def _losses(self, batch: Batch) -> Tensor:
        """Float32 (B)."""
        shape = (4, *self.config.data.buckets[batch.bucket].latent)
        noise, posterior = noises(batch.seeds, self.objective, shape, self.ranks.device)
        latents, text, mask = self._conditions(batch, posterior)
        noisy = self.objective.noisy(latents, noise, batch.t)
        self._text_length[batch.bucket] = text.shape[1] // self.config.captions
        predicted = self.model(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=batch.t,
            encoder_attention_mask=((1 - mask) * -10000.0).unsqueeze(1),
            image_rotary_emb=self._positions(batch.bucket),
            return_dict=False,
        )[0]
        return self.objective.losses(predicted, noise, batch.t)

    def _conditions(self, batch: Batch, posterior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(latents, text, mask); of frames and captions, by the encoders."""
        if batch.moments is not None:
            return latents_of(batch.moments, posterior, self.scale), *batch.padded()
        assert batch.frames is not None
        assert self.text is not None
        latents = latents_of(encode_moments(self.vae, batch.frames), posterior, self.scale)
        clean = self.config.encoding.clean_captions
        text, mask = pad_captions([encode_captions(*self.text, captions, clean=clean) for captions in batch.captions])
        return latents, text, mask

    def _positions(self, bucket: int) -> Rotary:
        if bucket not in self._rotary:
            latent = self.config.data.buckets[bucket].latent
            self._rotary[bucket] = rotary(self.model.config, *latent, device=self.ranks.device)
        return self._rotary[bucket]

    def _require_readable(self, totals: Tensor) -> None:
        """What only decoding finds out is counted as it comes; the run stops when it is too much for one epoch."""
        if self.step % self.prepared.plan.steps_per_epoch == 0:
            self.unreadable = 0
        if totals[3] == 0:
            return
        self.unreadable += int(totals[3])
        with open(self.run.output / f"unreadable-rank{self.ranks.rank}.jsonl", "a", encoding="utf-8") as ledger:
            ledger.writelines(json.dumps({"step": self.step, **asdict(drop)}) + "\n" for drop in self.drops)
        mine = self.drops or [Drop("", "", "unreadable", "see the ledgers unreadable-rank*.jsonl in the run's folder")]
        self.drops = []
        for drop in mine:
            log.warning("clip %s takes no part in step %d: %s", drop.clip_id, self.step, drop.message)
        bad, total, share = (
            self.unreadable + len(self.prepared.drops),
            self.prepared.total,
            self.config.data.max_dropped,
        )
        if totals[1] == 0 or bad > share * total:
            raise PrestoError(
                f"step {self.step}: {bad} of {total} clips cannot be used, more than data.max_dropped ({share:.0%}), clip "
                f"{mine[0].clip_id}: {mine[0].message}. Mend the data, or raise data.max_dropped"
            )

    # Looks

    @contextmanager
    def _exported_weights(self) -> Iterator[None]:
        """The weights that will be exported in the place of those in training: averaged ones, where they are kept."""
        self._swap_average()
        try:
            yield
        finally:
            self._swap_average()

    @torch.no_grad()
    def _swap_average(self) -> None:
        if not self.average:
            return
        for module in (*self.model.transformer_blocks, self.model):
            module.reshard()  # Weights that were gathered for a forward pass would be used again.
        for parameter, average in zip(self.model.parameters(), self.average.values(), strict=True):
            mine, other = local(parameter.detach()), local(average)
            held = mine.clone()
            mine.copy_(other)
            other.copy_(held)

    def validate(self) -> dict[str, float]:
        """The loss of the held-out clips at fixed noise and timesteps, by the weights that will be exported; the same
        forward passes on every rank."""
        with self._exported_weights():
            return self._held_out_losses()

    @torch.no_grad()
    def _held_out_losses(self) -> dict[str, float]:
        found, times = self.ranks, self.config.validation.timesteps
        self.model.eval()
        totals = torch.zeros(2, len(times), dtype=torch.float64, device=found.device)
        held = self.prepared.held
        for first in range(0, len(held), found.world):
            mine = first + found.rank
            clip = held[mine] if mine < len(held) else held[first]
            for j, t in enumerate(times):
                # FSDP gathers weights together: so all ranks must take the same bucket's pass, though sizes may differ
                batch = self.reader.batch([clip], [_VALIDATION + mine], dropout=False, t=t).to(found.device)
                weight = batch.weight * float(mine < len(held))
                totals[0, j] += (self._losses(batch) * weight).sum()
                totals[1, j] += weight.sum()
        found.sum(totals)
        self.model.train()
        means = (totals[0] / totals[1].clamp(min=1)).tolist()
        values = {f"loss_t{t}": mean for t, mean in zip(times, means, strict=True)}
        return {"loss": float(totals[0].sum() / totals[1].sum().clamp(min=1)), **values}

    def _sample(self) -> None:
        from longtake.presto.sample import embed_prompts, sample_in_training

        if not self.config.samples.prompts:
            return
        if self.sample_text is None:
            self.sample_text = embed_prompts(self.run, self.ranks, self.text)
        with self._exported_weights():
            sample_in_training(self.run, self.ranks, self.model, self.vae, self.sample_text, self.step)

    def _save(self) -> None:
        checkpoint.save(
            self.run.output, self.step, self._state(), self._meta(), self.config.checkpoints.keep, self.ranks
        )


def average_decay(decay: float, step: int) -> float:
    """Of the average at a step counted from 0: `decay`, and at first (1 + n) / (10 + n)."""
    return min(decay, (1 + step) / (10 + step))


class Meter:
    """What is logged: sums since the last entry."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.latest: dict[str, float] = {}
        self.peak: float | None = None
        self._clear()

    def _clear(self) -> None:
        self.started, self.waited = time.perf_counter(), 0.0
        self.steps, self.totals, self.norm, self.rate = 0, torch.zeros(4 + 2 * BINS, dtype=torch.float64), 0.0, 0.0
        self.flops, self.tokens = 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around reading."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around what is no part of a step: its time does not count."""
        start = time.perf_counter()
        yield
        self.started += time.perf_counter() - start

    def add(self, totals: Tensor, norm: float, rate: float, bucket: int) -> None:
        """After a step. totals: over all ranks."""
        trainer = self.trainer
        if self.peak is None:  # measured once, before the first entry
            start = time.perf_counter()
            self.peak = measured_peak(trainer.ranks.device, trainer.config.precision)
            self.started += time.perf_counter() - start
        size, clips = trainer.config.data.buckets[bucket], float(totals[1])
        length = trainer._text_length[bucket]
        self.flops += clips * step_flops(trainer.prepared.model, size, trainer.config.attention, length)
        self.tokens += int(clips * tokens(trainer.prepared.model, size))
        self.totals += totals.cpu()
        self.steps, self.norm, self.rate = self.steps + 1, norm, rate

    def _utilization(self, seconds: float) -> dict[str, float]:
        """mfu: against the device's nominal peak, as papers have it, where that is known; mfu_measured: against a matrix
        product that was measured here, which is lower."""
        found, config = self.trainer.ranks, self.trainer.config
        rate = self.flops / seconds / found.world
        values = {"mfu_measured": rate / (self.peak or 1.0)}
        name = torch.cuda.get_device_name(found.device) if found.device.type == "cuda" else ""
        if (nominal := nominal_peak(name, config.precision)) is not None:
            values["mfu"] = rate / nominal
        return values

    def write(self, journal: Log | None) -> None:
        """One entry; then from zero."""
        seconds = time.perf_counter() - self.started
        found, clips = self.trainer.ranks, float(self.totals[1])
        values = {
            "loss": float(self.totals[0]) / max(clips, 1),
            "grad_norm": self.norm,
            "rate": self.rate,
            "clips_per_second": clips / seconds,
            "tokens_per_second": self.tokens / seconds,
            **self._utilization(seconds),
            "data_wait": self.waited / seconds,
            "step_seconds": seconds / max(self.steps, 1),
            "memory_gib": _memory(found.device) / 2**30,
            "dropped": float(self.totals[3]),
        }
        sums, counts = self.totals[4 : 4 + BINS].tolist(), self.totals[4 + BINS :].tolist()
        for i, (total, count) in enumerate(zip(sums, counts, strict=True)):
            if count:
                values[f"loss_t{i * TIMESTEPS // BINS}"] = total / count
        self.latest = values
        if journal:
            journal.write(self.trainer.step, "train", values)
        self._clear()


def _memory(device: torch.device) -> float:
    """Largest use so far, bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


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
