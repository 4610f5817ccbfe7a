"""The objective against diffusers' own scheduler and SNR, and against its formulas."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from longtake.presto.objective import TIMESTEPS, Objective


def test_noise_is_added_as_ddpm_does() -> None:
    peer = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(6, 4, 3, 2, 2, generator=generator) for _ in range(2))
    t = torch.tensor([0, 1, 250, 500, 750, 999])
    torch.testing.assert_close(Objective().noisy(x, noise, t), peer.add_noise(x, noise, t), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_weights_are_min_snr() -> None:
    peer = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    t = torch.arange(TIMESTEPS)
    snr = compute_snr(peer, t)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(Objective(5.0).weight(t), torch.minimum(snr, torch.tensor(5.0)) / snr, rtol=2e-3, atol=0)
    assert torch.equal(Objective(None).weight(t), torch.ones(TIMESTEPS))


def test_loss_is_the_weighted_mean_square_in_float32() -> None:
    noise = torch.zeros(2, 4, 3, 2, 2, dtype=torch.bfloat16)
    predicted = torch.full_like(noise, 3.0)
    t = torch.tensor([10, 990])
    found = Objective().losses(predicted, noise, t)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, 9 * Objective().weight(t))
    assert float(found[0]) < 1 < float(found[1])  # A step with little noise has a small weight.


def test_offset_is_one_constant_per_channel() -> None:
    shape = (4, 6, 40, 40)
    plain = Objective(noise_offset=0.0).noise(shape, torch.Generator().manual_seed(5))
    found = Objective(noise_offset=0.5).noise(shape, torch.Generator().manual_seed(5)) - plain
    assert (found.amax((1, 2, 3)) - found.amin((1, 2, 3))).max() < 1e-6
    many = torch.stack([Objective().noise((64, 1, 1, 1), torch.Generator().manual_seed(i)) for i in range(400)])
    assert abs(float(many.var()) - (1 + 0.02**2)) < 0.03
    offsets = torch.stack(
        [Objective(noise_offset=0.02).noise((512, 1, 2, 2), torch.Generator().manual_seed(i)) for i in range(8)]
    ) - torch.stack(
        [Objective(noise_offset=0).noise((512, 1, 2, 2), torch.Generator().manual_seed(i)) for i in range(8)]
    )
    assert abs(float(offsets.std()) - 0.02) < 0.001
