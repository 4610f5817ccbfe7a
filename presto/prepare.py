"""What can be known before the first step: clips, drops, plan, budget. `train --dry-run` prints it; `fit` starts from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.presto.adapter import require_peft
from longtake.presto.config import Parallel, TrainConfig
from longtake.presto.dataset import Clip, Drop, divided, read_dataset, require_few_drops, summary, usable
from longtake.presto.encoded import is_encoded, read_encoded, read_null
from longtake.presto.errors import DROPS, PrestoError
from longtake.presto.files import Place
from longtake.presto.folder import (
    fingerprint,
    require_model_folder,
    text_fingerprint,
    transformer_config,
    vae_fingerprint,
)
from longtake.presto.logs import require_wandb
from longtake.presto.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its configuration, the model folder that it starts from, its data (a dataset, or a folder of `encode`; may
    be a URI), and the folder that it writes."""

    config: TrainConfig
    model: Path
    data: Place
    output: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """clips are trained on, held are validated on, drops are neither. null: see batches.Reader. vae: fingerprint. base:
    that of the transformer, where adapters are trained, whose checkpoints do not hold it."""

    clips: list[Clip]
    held: list[Clip]
    drops: list[Drop]
    plan: Plan
    null: Tensor | None
    vae: str
    model: dict[str, Any] = field(default_factory=dict)
    base: str = ""

    @property
    def total(self) -> int:
        return len(self.clips) + len(self.held) + len(self.drops)

    def require_world(self, parallel: Parallel, world: int) -> None:
        """Raises PrestoError unless `world` ranks can be divided as asked, and the global batch be dealt out to them."""
        parallel.require_world(world)
        self.plan.require_groups(world // parallel.sequence)


def prepare(run: Run) -> Prepared:
    """Reads tables and settings, no weights and no video. Raises PrestoError."""
    config = run.config
    require_model_folder(run.model)
    shape = transformer_config(run.model)
    _require_fits(config, shape, run.model)
    segments = config.attention.segments if config.data.captions == "sub" else None
    vae = vae_fingerprint(run.model, config.encoding)
    null = None
    if is_encoded(run.data):
        text_encoder = text_fingerprint(run.model, config.encoding)
        clips, drops, tiers = read_encoded(run.data, config.data.buckets, segments, vae, text_encoder)
        null = read_null(run.data, text_encoder)
    else:
        table = read_dataset(run.data)
        tiers = set(table["tier"].unique().to_pylist())
        clips, drops = usable(table, run.data, config.data.buckets, config.data.aspect_tolerance, segments)
        _require_known(run, clips)
    if config.tier is not None and tiers != {config.tier}:
        raise PrestoError(
            f"{run.data}: the column 'tier' says {', '.join(sorted(map(str, tiers))) or 'nothing'}, and the recipe "
            f"{config.name} is for {config.tier}: give that tier's dataset, or set tier to null"
        )
    require_few_drops(drops, len(clips) + len(drops), config.data.max_dropped)
    kept, held = divided(clips, config.validation.clips)
    plan = Plan(kept, config.data.buckets, config.global_batch, config.seed)
    if config.wandb is not None:
        require_wandb()
    base = ""
    if config.lora is not None:
        require_peft()
        base = fingerprint(run.model / "transformer")
    return Prepared(kept, held, drops, plan, null, vae, shape, base)


def _require_known(run: Run, clips: Sequence[Clip]) -> None:
    from longtake.presto.model import load_tokenizer
    from longtake.presto.text import require_known

    words = [text for clip in clips for text in clip.captions]
    clean = run.config.encoding.clean_captions
    require_known(load_tokenizer(run.model), words, clean=clean, where=f"the captions of {run.data}")


def _require_fits(config: TrainConfig, shape: dict[str, Any], model: Path) -> None:
    from longtake.presto.budget import tokens

    patch, sharing = shape["patch_size"], config.parallel.sequence
    if shape["num_attention_heads"] % sharing:
        raise PrestoError(
            f"{model} has {shape['num_attention_heads']} heads, no multiple of parallel.sequence = {sharing}: take a divisor"
        )
    for bucket in config.data.buckets:
        t, h, w = bucket.latent
        if t % shape["patch_size_t"] or h % patch or w % patch:
            raise PrestoError(f"bucket {bucket.name}: its latents {t}×{h}×{w} are not whole patches of {model}")
        count = tokens(shape, bucket)
        if count % sharing:
            raise PrestoError(
                f"bucket {bucket.name} has {count} tokens, no multiple of parallel.sequence = {sharing}: take another divisor"
            )


def describe(run: Run, prepared: Prepared, world: int) -> str:
    """The bucket table, steps, memory and drops, as text for `--dry-run`."""
    from longtake.presto.budget import encoder_memory, memory_bytes, parameters, step_flops, tokens
    from longtake.presto.text import MAX_TOKENS

    config, shape = run.config, prepared.model
    prepared.require_world(config.parallel, world)
    groups = world // config.parallel.sequence
    counts = Counter(clip.bucket for clip in prepared.clips)
    lines = [
        f"{config.name}: {config.attention.variant} attention, {config.attention.segments} segments",
        f"model {run.model}: {parameters(shape) / 1e6:,.1f} M parameters",
        f"data {run.data}: {'encoded' if prepared.null is not None else 'frames are read and encoded in the loop'}",
        "",
        f"{'bucket':>16} {'clips':>8} {'latents':>10} {'tokens':>8} {'micro':>6} {'accumulate':>10} {'PFLOP/clip':>10}",
    ]
    for i, bucket in enumerate(config.data.buckets):
        latent = "×".join(map(str, bucket.latent))
        accumulate = config.global_batch // (groups * bucket.micro_batch)
        flops = step_flops(shape, bucket, config.attention, MAX_TOKENS) / 1e15
        lines.append(
            f"{bucket.name:>16} {counts[i]:>8} {latent:>10} {tokens(shape, bucket):>8} {bucket.micro_batch:>6} "
            f"{accumulate:>10} {flops:>10.3g}"
        )
    epoch = prepared.plan.steps_per_epoch
    lines += [
        "",
        f"{len(prepared.clips)} clips to train on, {len(prepared.held)} held out, global batch {config.global_batch} on {world} "
        f"ranks: {epoch} steps per epoch, {config.steps} steps are {config.steps / epoch:.2f} epochs",
    ]
    memory: dict[str, float] = {}
    for bucket in config.data.buckets:
        estimate = memory_bytes(
            shape,
            bucket,
            world,
            ema=config.optimizer.ema is not None,
            checkpointing=config.activation_checkpointing,
            precision=config.precision,
            captions=config.captions,
            parallel=config.parallel,
            lora=config.lora,
            accumulates=config.global_batch > groups * bucket.micro_batch,
            encoders=None
            if prepared.null is not None
            else encoder_memory(run.model, bucket, config.encoding, config.precision),
        )
        memory = max(memory, estimate, key=lambda m: sum(m.values()))
    parts = ", ".join(f"{name} {_size(size)}" for name, size in memory.items())
    lines.append(f"memory per rank, estimated: {_size(sum(memory.values()))} ({parts})")
    lines.append(_dropped(prepared.drops, prepared.total))
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _dropped(drops: Sequence[Drop], total: int) -> str:
    if not drops:
        return "dropped: none"
    told = [f"dropped: {len(drops)} of {total}"]
    for reason, count in summary(drops).items():
        example = next(d for d in drops if d.reason == reason)
        told.append(f"  {count} {reason}: {DROPS[reason]}; for example {example.clip_id}: {example.message}")
    return "\n".join(told)
