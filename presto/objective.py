"""The objective of the released trainer: epsilon prediction, linear betas, Min-SNR weights, noise offset, float32 loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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

    def weight(self, t: Tensor) -> Tensor:
        """min(SNR, γ) / SNR with SNR = ᾱ / (1−ᾱ); float32 (B)."""
        if self.gamma is None:
            return torch.ones_like(t, dtype=torch.float32)
        alpha = self.alphas_cumprod().to(t.device)[t]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=self.gamma) / snr

    def losses(self, predicted: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The weighted mean squared error of each clip, float32 (B)."""
        squares = (predicted.float() - noise.float()).square().flatten(1).mean(1)
        return self.weight(t) * squares
