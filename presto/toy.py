"""A task with a known answer, on a CPU in a minute: which segment listens to which caption (`make toy`).

Caption k names one of six classes; segment k of the latent video has that class's mean. A model that attends by segment
can put every class in its place; one that sees all captions at once, with nothing that tells it which is whose, cannot.
So each is trained twice: on captions alone, and on captions that say which in order they are (`cue`: a vector for each
place is added to the caption's), as captions such as "then, …" may do. What the cue mends is no merit of the attention.
What comes out is sampled from pure noise (DDIM), and each latent frame is given the nearest class. Chance: 1/6.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from longtake.presto.attention import segment
from longtake.presto.model import rotary
from longtake.presto.objective import TIMESTEPS, Objective
from longtake.presto.segments import Segmentation, Variant
from longtake.presto.tiny import tiny_transformer

CLASSES, SEGMENTS, FRAMES, SIDE, CHANNELS, WIDTH, TOKENS = 6, 5, 22, 2, 4, 32, 2


@dataclass(frozen=True, slots=True)
class Result:
    """Share of latent frames with the right class: of all, of those that one window holds, of those that two share."""

    name: str
    all: float
    inside: float
    shared: float | None


def examples(count: int, generator: torch.Generator, *, cue: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(latents (B, C, T, h, w), captions (B, N·L, D), class of each frame (B, T)); latents are means plus a little noise.
    cue: each caption tells its place in the order."""
    fixed = torch.Generator().manual_seed(1)
    means = 1.5 * torch.nn.functional.normalize(torch.randn(CLASSES, CHANNELS, generator=fixed), dim=1) * CHANNELS**0.5
    words = torch.randn(CLASSES, TOKENS, WIDTH, generator=fixed)
    places = torch.randn(SEGMENTS, 1, WIDTH, generator=fixed) * float(cue)
    classes = torch.randint(CLASSES, (count, SEGMENTS), generator=generator)
    edges = Segmentation(segments=SEGMENTS).edges(FRAMES)
    owner = torch.tensor([i for i in range(SEGMENTS) for _ in range(edges[i + 1] - edges[i])])
    of_frame = classes[:, owner]
    latents = means[of_frame].transpose(1, 2)[..., None, None].expand(-1, -1, -1, SIDE, SIDE)
    latents = latents + 0.1 * torch.randn(latents.shape, generator=generator)
    return latents, (words[classes] + places).flatten(1, 2), of_frame


def nearest_class(latents: Tensor) -> Tensor:
    """Class of each latent frame, (B, T)."""
    fixed = torch.Generator().manual_seed(1)
    means = 1.5 * torch.nn.functional.normalize(torch.randn(CLASSES, CHANNELS, generator=fixed), dim=1) * CHANNELS**0.5
    frames = latents.mean((3, 4)).transpose(1, 2)
    return torch.cdist(frames, means.expand(len(frames), -1, -1)).argmin(2)


def train(variant: Variant | None, steps: int = 400, seed: int = 0, *, cue: bool = False) -> Any:
    """A small transformer trained on the task; None: with the plain attention, on the captions one after the other."""
    model = tiny_transformer(seed, attention_head_dim=24, num_attention_heads=4, cross_attention_dim=96, num_layers=3)
    if variant is not None:
        segment(model, Segmentation(variant=variant, segments=SEGMENTS))
    objective, generator = Objective(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    place = rotary(model.config, FRAMES, SIDE, SIDE)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        latents, text, _ = examples(16, generator, cue=cue)
        noise = torch.stack([objective.noise(x.shape, generator) for x in latents])
        t = torch.randint(TIMESTEPS, (len(latents),), generator=generator)
        predicted = model(objective.noisy(latents, noise, t), text, t, image_rotary_emb=place, return_dict=False)[0]
        objective.losses(predicted, noise, t).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def sample(model: Any, text: Tensor, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Latents out of pure noise by deterministic DDIM (η = 0)."""
    alphas = Objective().alphas_cumprod()
    place = rotary(model.config, FRAMES, SIDE, SIDE)
    x = torch.randn(len(text), CHANNELS, FRAMES, SIDE, SIDE, generator=generator)
    times = torch.linspace(TIMESTEPS - 1, 0, steps + 1).long()
    for now, then in pairwise(times):
        t = now.expand(len(text))
        noise = model(x, text, t, image_rotary_emb=place, return_dict=False)[0]
        clean = (x - (1 - alphas[now]).sqrt() * noise) / alphas[now].sqrt()
        x = alphas[then].sqrt() * clean.clamp(-5, 5) + (1 - alphas[then]).sqrt() * noise
    return x


def run(variant: Variant | None, steps: int = 400, seed: int = 0, *, cue: bool = False) -> Result:
    """Train, sample 64 videos, compare."""
    model = train(variant, steps, seed, cue=cue)
    generator = torch.Generator().manual_seed(seed + 1000)
    _, text, wanted = examples(64, generator, cue=cue)
    right = nearest_class(sample(model, text, generator)) == wanted
    overlapped = Segmentation(variant="overlapped", segments=SEGMENTS)
    shared = torch.tensor(overlapped.coverage(FRAMES)) > 1
    ours = variant == "overlapped"
    inside = right[:, ~shared] if ours else right
    return Result(
        variant or "plain",
        float(right.float().mean()),
        float(inside.float().mean()),
        float(right[:, shared].float().mean()) if ours else None,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # Products as small as these are slower on more threads.
    print(f"Share of frames with the right class after {given.steps} steps; chance {1 / CLASSES:.2f}.")
    print(f"{'':<16} {'captions alone':>24} {'captions with a cue':>24}")
    print(f"{'attention':<16}" + f" {'right':>8}{'inside':>8}{'shared':>8}" * 2)
    variants: tuple[Variant | None, ...] = (None, "sequential", "sequential-pair", "overlapped", "isolated")
    for variant in variants:
        print(f"{variant or 'plain':<16}", end="", flush=True)
        for cue in (False, True):
            accuracy = run(variant, given.steps, given.seed, cue=cue)
            shared = "" if accuracy.shared is None else f"{accuracy.shared:.3f}"
            print(f" {accuracy.all:>8.3f}{accuracy.inside:>8.3f}{shared:>8}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
