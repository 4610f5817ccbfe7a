"""From five prompts to a video, by the unmodified AllegroPipeline: text goes in as embeddings, one caption after the other.

As in the released sampler, each prompt is lower-cased, put into a template of words for a good picture, and cleaned; the
VAE runs in float32; a video is written at 15 frames per second, faster than the 5.9 of its training. Doubling the frame
rate is left to an interpolator outside (EMA-VFI, RIFE); see docs/presto.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from longtake.manifests.folder import in_words, whole_file
from longtake.presto.config import POSITIVE, Bucket, Loss
from longtake.presto.errors import PrestoError
from longtake.presto.folder import SETTINGS, encoding_of, read_settings
from longtake.presto.model import load_pipeline, load_text_encoder, load_vae
from longtake.presto.objective import TIMESTEPS
from longtake.presto.text import encode_captions, pad_captions, require_known
from longtake.presto.vae import allow_tf32, decode, vae_dtype
from longtake.presto.video import Frames, write_video

if TYPE_CHECKING:
    from longtake.presto.parallel import Ranks
    from longtake.presto.prepare import Run

NEGATIVE = (  # The negative prompt of Allegro's own example.
    "nsfw, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst "
    "quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)


@dataclass(frozen=True, slots=True)
class Settings:
    """inference_steps, guidance: of the released sampler (Euler ancestral, 100, 7.0). negative: one prompt, for every
    segment. template: "{}" in it is each prompt, lower-cased; "{}" alone leaves prompts as they are. fps: of the file."""

    frames: int = 88
    height: int = 720
    width: int = 1280
    inference_steps: int = 100
    guidance: float = 7.0
    negative: str = NEGATIVE
    template: str = POSITIVE
    fps: float = 15.0
    seed: int = 0

    def wrapped(self, prompts: Sequence[str]) -> list[str]:
        """Prompts as they are put to the model."""
        return [self.template.replace("{}", prompt.lower().strip()) for prompt in prompts]


def scheduler_of(model: Path, loss: Loss) -> Any:
    """The scheduler for weights that were trained with `loss`, beginning from a model folder's."""
    from diffusers import EulerAncestralDiscreteScheduler, UniPCMultistepScheduler

    if loss.objective == "flow":
        return UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=loss.shift,
            num_train_timesteps=TIMESTEPS,
        )
    return EulerAncestralDiscreteScheduler.from_pretrained(model / "scheduler", local_files_only=True)


def solver(config: Any) -> Any:
    """What samples with a scheduler's settings: Euler ancestral, as released, or UniPC for flow matching."""
    from diffusers import EulerAncestralDiscreteScheduler, UniPCMultistepScheduler

    kind = UniPCMultistepScheduler if config.get("use_flow_sigmas") else EulerAncestralDiscreteScheduler
    return kind.from_config(config)


def sample(pipeline: Any, text: Sequence[Any], negative: Any, settings: Settings) -> Frames:
    """One video. text: a (tokens, D) embedding per segment; negative: one, repeated for each. Raises PrestoError if the
    transformer has the plain attention or another number of segments."""
    from longtake.presto.attention import segmentation_of

    segmentation = segmentation_of(pipeline.transformer)
    if segmentation is None:
        raise PrestoError("this transformer has the plain attention: load it with longtake.presto.model.load_pipeline")
    if segmentation.segments != len(text):
        raise PrestoError(f"{len(text)} prompts for {segmentation.segments} segments: give {segmentation.segments}")
    segmentation.windows(settings.frames // 4)
    embeddings, mask = pad_captions([list(text), [negative] * len(text)])
    pipeline.scheduler = solver(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt_embeds=embeddings[:1],
        prompt_attention_mask=mask[:1],
        negative_prompt=None,
        negative_prompt_embeds=embeddings[1:],
        negative_prompt_attention_mask=mask[1:],
        num_frames=settings.frames,
        height=settings.height,
        width=settings.width,
        num_inference_steps=settings.inference_steps,
        guidance_scale=settings.guidance,
        # The noise is drawn on the CPU, so that a seed gives the same video on every device.
        generator=torch.Generator("cpu").manual_seed(settings.seed),
        output_type="latent",
    ).frames
    frames: Frames = decode(pipeline.vae, latents)[0].cpu().numpy()
    return frames


def sample_to_files(
    model: Path,
    prompts: Sequence[Sequence[str]],
    output: Path,
    settings: Settings,
    seeds: Sequence[int],
    ideas: Sequence[str] = (),
) -> list[Path]:
    """A video per list of prompts and seed, as OUTPUT/0000-seed0.mp4 with its settings in a .json beside it; those that
    are there are not made again. ideas: what each list was expanded from, kept in the .json. Raises PrestoError before
    anything is loaded where it can be known."""
    expected = read_settings(model / "transformer" / SETTINGS).segments
    for given in prompts:
        if len(given) != expected:
            raise PrestoError(f"{len(given)} prompts for {expected} segments of {model}: give {expected}")
    Bucket(frames=settings.frames, height=settings.height, width=settings.width)
    cuda, encoding = torch.cuda.is_available(), encoding_of(model)
    allow_tf32()
    pipeline = load_pipeline(
        model, dtype=torch.bfloat16 if cuda else torch.float32, vae_dtype=vae_dtype(encoding.vae_precision)
    )
    pipeline.to("cuda" if cuda else "cpu")
    clean, encoders = encoding.clean_captions, (pipeline.tokenizer, pipeline.text_encoder)
    words = [text for given in prompts for text in settings.wrapped(given)]
    require_known(pipeline.tokenizer, [*words, settings.negative], clean=clean, where="the prompts")
    negative = encode_captions(*encoders, [settings.negative], clean=clean)[0]
    made = []
    for number, given in enumerate(prompts):
        text = encode_captions(*encoders, settings.wrapped(given), clean=clean)
        for seed in seeds:
            path = output / f"{number:04d}-seed{seed}.mp4"
            made.append(path)
            this = Settings(**{**asdict(settings), "seed": seed})
            about = {"prompts": list(given), "model": str(model), "cleaned": clean, **asdict(this)}
            if ideas and ideas[number]:
                about["idea"] = ideas[number]
            if path.exists() and _about(path) == about:
                continue
            write_sample(path, sample(pipeline, text, negative, this), about)
    return made


def write_sample(path: Path, frames: Frames, about: dict[str, Any]) -> None:
    """The video, and what it was made of."""
    write_video(path, frames, about["fps"])
    with whole_file(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")


def _about(path: Path) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return about
    except (OSError, ValueError):
        return None


def read_prompts(path: Path) -> list[list[str]]:
    """Lists of prompts: JSON or YAML (a list of lists, or one list), or text with a prompt per line and a blank line
    between videos. Raises PrestoError."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".json", ".yaml", ".yml"):
            parsed = yaml.safe_load(text)
            parsed = [parsed] if isinstance(parsed, list) and parsed and isinstance(parsed[0], str) else parsed
        else:
            parsed = [[line.strip() for line in part.splitlines() if line.strip()] for part in text.split("\n\n")]
            parsed = [part for part in parsed if part]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PrestoError(f"{path} cannot be read: {in_words(error)}") from error
    ok = isinstance(parsed, list) and parsed and all(isinstance(p, list) and p for p in parsed)
    if not ok or not all(isinstance(text, str) and text.strip() for part in parsed for text in part):
        raise PrestoError(f"{path}: lists of prompts are wanted, each a text that is not empty")
    return [[str(text) for text in part] for part in parsed]


def embed_prompts(run: Run, ranks: Ranks, encoders: tuple[Any, Any] | None) -> list[Any]:
    """The embeddings of a run's prompts and, after each list, of the negative one, on the CPU of every rank. encoders: a
    tokenizer and a text encoder (None: those of the model are loaded, and let go again)."""
    embedded: list[Any] = [None]
    if ranks.first:
        used = encoders or load_text_encoder(run.model)
        prompts, clean, settings = run.config.samples.prompts, run.config.encoding.clean_captions, _settings(run)
        wanted = [[*settings.wrapped(p), settings.negative] for p in prompts]
        require_known(used[0], [text for texts in wanted for text in texts], clean=clean, where="samples.prompts")
        embedded = [[[t.cpu() for t in encode_captions(*used, texts, clean=clean)] for texts in wanted]]
    dist.broadcast_object_list(embedded, src=0)
    texts: list[Any] = embedded[0]
    return texts


def _settings(run: Run) -> Settings:
    """Of a run's samples."""
    size, samples = run.config.data.buckets[0], run.config.samples
    return Settings(
        size.frames,
        size.height,
        size.width,
        samples.inference_steps,
        samples.guidance,
        template=samples.template,
        fps=samples.fps,
        seed=run.config.seed,
    )


def sample_in_training(run: Run, ranks: Ranks, model: Any, vae: Any, texts: Sequence[Any], step: int) -> None:
    """Sample videos of a run's prompts with the weights in hand, as RUN/samples/step-…/0000.mp4. texts: as `embed_prompts`
    gives them. vae: None to load the model's. All ranks take part: each group of them samples its prompts, and where
    there are none left repeats one, since sharded weights are gathered together."""
    from diffusers import AllegroPipeline

    config, settings = run.config, _settings(run)
    pipeline = AllegroPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae if vae is not None else load_vae(run.model, vae_dtype(config.encoding.vae_precision)).to(ranks.device),
        transformer=model,
        scheduler=scheduler_of(run.model, config.loss),
    )
    model.eval()
    for first in range(0, len(texts), ranks.groups):
        mine = first + ranks.group
        text = [t.to(ranks.device) for t in texts[min(mine, len(texts) - 1)]]
        frames = sample(pipeline, text[:-1], text[-1], settings)
        if mine < len(texts) and ranks.speaks:
            about = {
                "prompts": list(config.samples.prompts[mine]),
                "step": step,
                "weights": "last" if config.optimizer.ema is None else "averaged",
                **asdict(settings),
            }
            write_sample(run.output / "samples" / f"step-{step:08d}" / f"{mine:04d}.mp4", frames, about)
    model.train()
