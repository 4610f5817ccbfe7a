"""Allegro's video VAE: from frames to moments, from moments to latents, and back; its tile grid is checked.

diffusers' tiling leaves borders unwritten unless the size fits its grid exactly (368×640 would lose 6 of its 46 latent
rows, in silence). Here the VAE's own grid is kept where it covers the size, elsewhere a tile is as large as the frame, and a
size that neither covers is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longtake.presto.errors import PrestoError

Size = tuple[int, int, int]  # Frames, height, width.

TILE_FRAMES = 24
OVERLAP = (8, 120, 80)  # Frames, rows, columns.


def require_covered(size: Size, kernel: Size, stride: Size) -> None:
    """Raises PrestoError unless tiles of `kernel`, `stride` apart, reach the end of a video of `size`: each (frames,
    height, width). diffusers lays floor((size − kernel) / stride) + 1 of them along each axis."""
    for axis, full, tile, step in zip(("frames", "height", "width"), size, kernel, stride, strict=True):
        if full < tile or (full - tile) % step:
            raise PrestoError(
                f"the VAE's tiles of {tile}, {step} apart, do not cover {axis} {full}: {axis} must be {tile} + {step}·k"
            )


def _covers(size: Size, kernel: Size, stride: Size) -> bool:
    return all(
        full >= tile and (full - tile) % step == 0 for full, tile, step in zip(size, kernel, stride, strict=True)
    )


def tiles(side: int, size: Size) -> tuple[Size, Size]:
    """(kernel, stride) of the tiles for a video of a size. side: of the VAE's own tiles, its `sample_size`. Raises
    PrestoError if no tiles cover the frames, which must be 24 + 16·k.

    The VAE's own grid (published: 320×320 pixels, 200 rows and 240 columns apart) stays where it covers the size, as
    88×720×1280: GroupNorm takes its statistics over a tile, and the weights were trained on tiles of that size.
    Elsewhere a tile is as large as the frame.
    """
    _, height, width = size
    kernel = (TILE_FRAMES, side, side)
    stride = (TILE_FRAMES - OVERLAP[0], side - OVERLAP[1], side - OVERLAP[2])
    if not _covers(size, kernel, stride):
        kernel = (TILE_FRAMES, height, width)
        stride = (TILE_FRAMES - OVERLAP[0], max(8, height - OVERLAP[1]), max(8, width - OVERLAP[2]))
    require_covered(size, kernel, stride)
    return kernel, stride


def set_tiles(vae: Any, frames: int, height: int, width: int) -> None:
    """Make `vae` (AutoencoderKLAllegro) take videos of this size, see `tiles`. Raises PrestoError."""
    vae.kernel, vae.stride = tiles(vae.config.sample_size, (frames, height, width))
    vae.enable_tiling()
    vae.enable_slicing()


def vae_dtype(precision: str) -> torch.dtype:
    """Of a configuration's `encoding.vae_precision`."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def allow_tf32() -> None:
    """Let GPUs compute float32 products in TF32, as the released trainer does; convolutions do so by torch's default."""
    torch.set_float32_matmul_precision("high")


@torch.no_grad()
def encode_moments(vae: Any, frames: Tensor) -> Tensor:
    """Mean and log variance of the posterior, (B, 2·4, T, h, w), of uint8 frames (B, F, H, W, 3) on the VAE's device."""
    _, count, height, width, _ = frames.shape
    set_tiles(vae, count, height, width)
    video = (frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(vae.dtype)
    moments: Tensor = vae.encode(video).latent_dist.parameters
    return moments


def latents_of(moments: Tensor, noise: Tensor, scale: float) -> Tensor:
    """A sample of the posterior times the VAE's scaling factor, float32 (B, 4, T, h, w); noise: standard normal."""
    mean, logvar = moments.float().chunk(2, dim=1)
    return (mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise) * scale


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """uint8 frames (B, F, H, W, 3) of scaled latents (B, 4, T, h, w)."""
    _, _, frames, height, width = latents.shape
    set_tiles(vae, frames * 4, height * 8, width * 8)
    video = vae.decode((latents.float() / vae.config.scaling_factor).to(vae.dtype)).sample  # (B, F, 3, H, W)
    shown: Tensor = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return shown.permute(0, 1, 3, 4, 2)
