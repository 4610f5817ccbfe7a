"""The objective of the released trainer: epsilon prediction, linear betas, Min-SNR weights, noise offset, float32 loss; and
flow matching in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.presto.config import Loss

TIMESTEPS = 1000


@dataclass(frozen=True, slots=True)
class Objective:
    """How noise is added and how its prediction is weighed.

    gamma: of Min-SNR (Hang et al., arXiv 2303.09556); None weighs every timestep alike. noise_offset: standard
    deviation of a constant added to each channel of the noise, which is then predicted along with it.
    """

    gamma: float | None = 5.0
    noise_offset: float = 0.02

    def alphas_cumprod(self) -> Tensor:
        """ᾱ of DDPM with 1000 steps and β linear from 1e-4 to 0.02; float32 (1000,), computed in float64."""
        betas = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
        return torch.cumprod(1 - betas, 0).float()

    def noise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Float32 noise for one latent video (C, T, h, w), on the generator's device."""
        offset = torch.randn(shape[0], 1, 1, 1, generator=generator, device=generator.device)
        return torch.randn(shape, generator=generator, device=generator.device) + self.noise_offset * offset

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """√ᾱ x + √(1−ᾱ) ε, float32; latents and noise (B, C, T, h, w), t int64 (B)."""
        alpha = self.alphas_cumprod().to(latents.device)[t].view(-1, 1, 1, 1, 1)
        return alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise.float()

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What the model is to predict."""
        return noise

    def weight(self, t: Tensor) -> Tensor:
        """min(SNR, γ) / SNR with SNR = ᾱ / (1−ᾱ); float32 (B)."""
        if self.gamma is None:
            return torch.ones_like(t, dtype=torch.float32)
        alpha = self.alphas_cumprod().to(t.device)[t]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=self.gamma) / snr

    def losses(self, predicted: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The weighted mean squared error of each clip (B), float32, or as fine as the prediction is."""
        finer = torch.promote_types(predicted.dtype, torch.float32)
        squares = (predicted.to(finer) - target.to(finer)).square().flatten(1).mean(1)
        return self.weight(t) * squares


class Flow(Objective):
    """Rectified flow (Liu et al., arXiv 2209.03003): latents go to noise on a straight line, whose direction is predicted."""

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """(1−σ) x + σ ε with σ = t / 1000, float32."""
        sigma = (t.float() / TIMESTEPS).view(-1, 1, 1, 1, 1)
        return (1 - sigma) * latents.float() + sigma * noise.float()

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """ε − x."""
        return noise.float() - latents.float()

    def weight(self, t: Tensor) -> Tensor:
        """1 for every timestep."""
        return torch.ones_like(t, dtype=torch.float32)


def objective_of(loss: Loss) -> Objective:
    """The objective of a configuration."""
    return (Flow if loss.objective == "flow" else Objective)(loss.gamma, loss.noise_offset)


def shifted(t: int, shift: float) -> int:
    """A timestep drawn evenly, moved towards noise: σ' = s σ / (1 + (s − 1) σ), as diffusers' schedulers space theirs."""
    sigma = t / TIMESTEPS
    return min(TIMESTEPS - 1, round(TIMESTEPS * shift * sigma / (1 + (shift - 1) * sigma)))
