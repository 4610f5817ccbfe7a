"""From a micro-batch to the loss of each of its clips: encoders where they are needed, noise, the model, the objective."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longtake.presto.batches import Batch, noises
from longtake.presto.config import TrainConfig
from longtake.presto.folder import scaling_factor
from longtake.presto.model import Rotary, load_text_encoder, load_vae, rotary
from longtake.presto.objective import objective_of
from longtake.presto.prepare import Run
from longtake.presto.text import encode_captions, pad_captions
from longtake.presto.vae import encode_moments, latents_of, vae_dtype


class Losses:
    """Called with a batch on the device: float32 (B). encode: clips are not encoded yet, and VAE and text encoder are loaded.

    text_length: tokens that each caption is padded to, by bucket, as the last batch had it.
    """

    def __init__(self, run: Run, model: Any, device: torch.device, *, encode: bool) -> None:
        self.config: TrainConfig = run.config
        self.model, self.device = model, device
        self.objective = objective_of(run.config.loss)
        self.scale = scaling_factor(run.model)
        self.text_length: dict[int, int] = {}
        self._rotary: dict[int, Rotary] = {}
        self.vae: Any = None
        self.text: tuple[Any, Any] | None = None
        if encode:
            self.vae = load_vae(run.model, vae_dtype(run.config.encoding.vae_precision)).to(device)
            dtype = torch.bfloat16 if run.config.precision == "bf16" else torch.float32
            tokenizer, encoder = load_text_encoder(run.model, dtype)
            self.text = tokenizer, encoder.to(device)

    def __call__(self, batch: Batch) -> Tensor:
        shape = (4, *self.config.data.buckets[batch.bucket].latent)
        noise, posterior = noises(batch.seeds, self.objective, shape, self.device)
        latents, text, mask = self._conditions(batch, posterior)
        noisy = self.objective.noisy(latents, noise, batch.t)
        self.text_length[batch.bucket] = text.shape[1] // self.config.captions
        predicted = self.model(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=batch.t,
            encoder_attention_mask=((1 - mask) * -10000.0).unsqueeze(1),
            image_rotary_emb=self._positions(batch.bucket),
            return_dict=False,
        )[0]
        return self.objective.losses(predicted, self.objective.target(latents, noise), batch.t)

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
            self._rotary[bucket] = rotary(self.model.config, *latent, device=self.device)
        return self._rotary[bucket]
