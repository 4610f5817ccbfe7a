"""What a training run is: one YAML file, typed. Recipes that ship lie in presto/recipes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from longtake.manifests.folder import in_words
from longtake.presto.errors import PrestoError
from longtake.presto.segments import Segmentation


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bucket(_Part):
    """Clips that are trained on at one size. frames, height, width: of the video, pixels; micro_batch: clips that one
    rank takes at once."""

    frames: int = Field(88, ge=1)
    height: int = Field(720, ge=8)
    width: int = Field(1280, ge=8)
    micro_batch: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Bucket:
        if self.frames < 24 or (self.frames - 24) % 16:
            raise ValueError("frames must be 24 + 16·k (40, 88): the VAE's tiles cover no other number")
        if self.height % 16 or self.width % 16:
            raise ValueError("height and width must be multiples of 16: the VAE and the patches divide them")
        return self

    @property
    def latent(self) -> tuple[int, int, int]:
        """(T, h, w) of its latents: frames / 4, height / 8, width / 8."""
        return self.frames // 4, self.height // 8, self.width // 8

    @property
    def name(self) -> str:
        """88x720x1280."""
        return f"{self.frames}x{self.height}x{self.width}"


class Data(_Part):
    """Which clips, and how they are read.

    captions: `sub` gives each segment its own; `overall` gives the caption of the whole clip to a model of one segment
    (the ablation "one long caption"). aspect_tolerance: how far a clip's height / width may be from its bucket's, as a
    factor. max_dropped: the run does not start (or stops) when a larger share of the clips cannot be used. workers:
    reading threads per rank; prefetch: micro-batches that each holds ready.
    """

    buckets: tuple[Bucket, ...] = (Bucket(),)
    captions: Literal["sub", "overall"] = "sub"
    aspect_tolerance: float = Field(1.5, ge=1)
    max_dropped: float = Field(0.05, ge=0, le=1)
    workers: int = Field(4, ge=0)
    prefetch: int = Field(4, ge=1)


class Encoding(_Part):
    """How clips become what the model is trained on; part of the fingerprints of what `encode` writes.

    vae_precision: of the video's autoencoder; float32 (TF32 on GPUs) as released: bf16 changes the latents by several
    per cent. clean_captions: captions and prompts are cleaned as the released trainer does (addresses, markup, signs and
    Chinese characters go); false: they are lower-cased only.
    """

    vae_precision: Literal["float32", "bf16"] = "float32"
    clean_captions: bool = True


class Loss(_Part):
    """objective: `epsilon`, as released, or `flow` (longtake.presto.objective); an export says which, and is sampled by that.
    gamma: of epsilon; noise_offset: of both. shift: of the timesteps; above 1, noisier ones are drawn more often. dropout:
    the share of clips that lose all captions together, which is what guidance needs. independent_dropout: the share of
    single captions that are lost besides."""

    objective: Literal["epsilon", "flow"] = "epsilon"
    gamma: float | None = Field(5.0, gt=0)
    shift: float = Field(1.0, gt=0)
    noise_offset: float = Field(0.02, ge=0)
    dropout: float = Field(0.1, ge=0, le=1)
    independent_dropout: float = Field(0.0, ge=0, le=1)


class Optimizer(_Part):
    """AdamW, as released. warmup: steps over which the rate rises linearly to `rate`. decay: what it does then, to the end of
    the run's steps: stay, or fall to `rate` · `floor` along a line or half a cosine. clip: largest norm of the gradient.
    ema: decay of the averaged weights, which are then what is validated, sampled and exported; null, as released: none are
    kept. The n-th step's decay is at most (1 + n) / (10 + n), so that a short run's average is not the weights that it
    started from."""

    rate: float = Field(1e-4, gt=0)
    warmup: int = Field(0, ge=0)
    decay: Literal["none", "linear", "cosine"] = "none"
    floor: float = Field(0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(1e-2, ge=0)
    eps: float = Field(1e-8, gt=0)
    clip: float = Field(1.0, gt=0)
    ema: float | None = Field(None, ge=0, lt=1)

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of a run of `steps`; the last one's is `rate` · `floor`."""
        if step < self.warmup:
            return self.rate * (step + 1) / (self.warmup + 1)
        if self.decay == "none":
            return self.rate
        gone = (step - self.warmup) / max(1, steps - 1 - self.warmup)
        height = 1 - gone if self.decay == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.rate * (self.floor + (1 - self.floor) * height)


class Parallel(_Part):
    """How ranks share the work; none of it changes what is computed, but for rounding.

    sequence: ranks that share the tokens of a clip (longtake.presto.sequence): so many times more ranks than clips of a step can
    work, and each holds so much less of a clip. They must divide the model's heads and the tokens of every size, and be
    neighbours with a fast link. replicas: copies of the model, each sharded over its ranks (HSDP); 1: one, over all.
    reduction: gradients are summed over ranks at the `last` micro-batch of a step, for which each rank keeps a whole
    float32 gradient meanwhile, or after `each`.
    """

    sequence: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1)
    reduction: Literal["last", "each"] = "last"

    def require_world(self, world: int) -> None:
        """Raises PrestoError unless `world` ranks can be divided like this."""
        for name in ("sequence", "replicas"):
            if world % (count := getattr(self, name)):
                raise PrestoError(f"{world} ranks are no multiple of parallel.{name} = {count}: change one of them")


class Lora(_Part):
    """Low-rank adapters (longtake.presto.adapter): the model's own weights stay as they are. rank, alpha: the update of a
    layer is alpha / rank times a product of two matrices of that rank. targets: the linear layers that get one, by the
    ends of their names."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


class Board(_Part):
    """Weights & Biases, beside TensorBoard: what is logged is also sent there. project, entity: of the account that `wandb
    login` knows."""

    project: str = Field(min_length=1)
    entity: str | None = None


class Checkpoints(_Part):
    """every: steps between checkpoints; keep: how many of the newest stay. in_background: a copy in the memory of the CPU is
    written while the run goes on."""

    every: int = Field(100, ge=1)
    keep: int = Field(3, ge=1)
    in_background: bool = False


class Validation(_Part):
    """every: steps between looks at the held-out clips. clips: at least so many are held out, by whole videos; 0: none.
    timesteps: of the noise, which is the same at every look."""

    every: int = Field(100, ge=1)
    clips: int = Field(0, ge=0)
    timesteps: tuple[int, ...] = (50, 250, 500, 750, 950)


# The released sampler wraps each prompt in words for a good picture. Its own words are not ours to copy: these say the same.
POSITIVE = (
    "finely detailed footage without any watermark. {} sharp, rich in colour, shot on cinema film with great care."
)


def template_text(given: str) -> str:
    """A template of prompts, "{}" for the prompt; given as it is, or as the path of a text file. Raises ValueError."""
    text = given
    if "{}" not in given:
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{given!r} has no {{}} where the prompt goes, and is no text file: {in_words(error)}"
            ) from error
    if text.count("{}") != 1:
        raise ValueError(f"the template {given!r} must have one {{}}, where the prompt goes")
    return text.strip()


class Samples(_Part):
    """every: steps between sample videos; 0: none. prompts: lists of as many prompts as there are segments; their size
    is that of the first bucket. inference_steps, guidance, template, fps: see longtake.presto.sample; template: text with
    {} for the prompt, or a file of it."""

    every: int = Field(0, ge=0)
    prompts: tuple[tuple[str, ...], ...] = ()
    inference_steps: int = Field(100, ge=1)
    guidance: float = Field(7.0, ge=1)
    template: Annotated[str, AfterValidator(template_text)] = POSITIVE
    fps: float = Field(15.0, gt=0)


class TrainConfig(_Part):
    """A training run. name, description: for people. tier: which tier's dataset the run is meant for, as a word to
    check the data against; null: any. global_batch: clips per step over all ranks and accumulated micro-batches.
    precision: of forward and backward; master weights, gradients and their reduction are float32. float64, of all of
    these, is there to compare runs on CPUs. activation_checkpointing: a block's activations are computed again for its
    backward pass; `selective`: all but what self-attention gives, which is kept.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str = ""
    tier: str | None = None
    attention: Segmentation = Segmentation()
    data: Data = Data()
    encoding: Encoding = Encoding()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    lora: Lora | None = None
    steps: int = Field(500, ge=1)
    global_batch: int = Field(256, ge=1)
    precision: Literal["bf16", "float32", "float64"] = "bf16"
    parallel: Parallel = Parallel()
    activation_checkpointing: bool | Literal["selective"] = True
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**31)
    checkpoints: Checkpoints = Checkpoints()
    validation: Validation = Validation()
    samples: Samples = Samples()
    log_every: int = Field(10, ge=1)
    wandb: Board | None = None

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        if self.data.captions == "overall" and self.attention.segments != 1:
            raise ValueError(
                f"data.captions: overall is one caption, and attention.segments is {self.attention.segments}"
            )
        wrong = [prompts for prompts in self.samples.prompts if len(prompts) != self.attention.segments]
        if wrong:
            raise ValueError(
                f"samples.prompts: {len(wrong[0])} prompts where attention.segments is {self.attention.segments}"
            )
        names = [bucket.name for bucket in self.data.buckets]
        if len(set(names)) != len(names) or not names:
            raise ValueError("data.buckets: there must be at least one, and no size twice")
        for bucket in self.data.buckets:
            self.attention.windows(bucket.latent[0])
            if self.global_batch % bucket.micro_batch:
                raise ValueError(f"global_batch {self.global_batch} is no multiple of {bucket.name}'s micro_batch")
        return self

    @property
    def captions(self) -> int:
        """Captions per clip."""
        return self.attention.segments

    def to_yaml(self) -> str:
        """Every value written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# Settings that the past of a run rests on: which clips it took in which order, with which captions and sizes, and the
# model that they trained. A resumed run may not change them, since its past would then be that of another run. Any
# other change holds from then on, and is logged.
PAST = (
    "tier",
    "attention",
    "data.buckets",
    "data.captions",
    "data.aspect_tolerance",
    "encoding",
    "loss.objective",
    "lora",
    "seed",
    "global_batch",
    "validation.clips",
)


def recipes() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(
        f.name.removesuffix(".yaml") for f in files("longtake.presto.recipes").iterdir() if f.name.endswith(".yaml")
    )


def load_config(name_or_file: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A shipped recipe or a YAML file. changes: values by dotted key that take the place of its own. Raises PrestoError."""
    path = Path(name_or_file)
    if name_or_file in recipes():
        text = files("longtake.presto.recipes").joinpath(f"{name_or_file}.yaml").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name_or_file, recipes(), 1)
        raise PrestoError(
            f"there is no recipe {name_or_file!r} and no such file"
            + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(recipes())}")
        )
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PrestoError(f"{name_or_file} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise PrestoError(f"{name_or_file} is no training recipe: it holds no mapping")
    for key, value in (changes or {}).items():
        _set(data, key, value)
    return parse_config(data, name_or_file)


def parse_config(data: Mapping[str, Any], source: str) -> TrainConfig:
    """Raises PrestoError, with every fault and the field it is in."""
    try:
        return TrainConfig.model_validate(dict(data))
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}" for fault in error.errors()]
        raise PrestoError("\n".join([f"{source}:", *faults])) from error


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise PrestoError(f"--set {key}: {parent} holds no keys")
    data[last] = value


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What differs between two configurations: (what a resumed run may not change, what it may), each such as
    "optimizer.rate: 0.0001 → 0.001"."""
    refused: list[str] = []
    allowed: list[str] = []
    for key, a, b in _differing(old, new):
        # An average that begins in the middle of a run would lack the steps before.
        past = any(key == name or key.startswith(f"{name}.") for name in PAST) or (key == "optimizer.ema" and a is None)
        if key == "data.buckets" and _without(a, "micro_batch") == _without(b, "micro_batch"):
            past = False
        (refused if past else allowed).append(f"{key}: {a} → {b}")
    return refused, allowed


def _without(rows: Any, key: str) -> Any:
    return [{k: v for k, v in row.items() if k != key} for row in rows]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        name, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differing(a, b, f"{name}.")
        elif a != b:
            yield name, a, b
