"""The loss of the held-out clips at fixed noise and timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longtake.presto.batches import Reader
from longtake.presto.dataset import Clip
from longtake.presto.losses import Losses
from longtake.presto.parallel import Ranks

# Numbers of held-out clips begin at it. The noise of a clip depends on its number, and no clip of a step reaches it.
_NUMBERS = 1 << 31


@torch.no_grad()
def held_out_losses(
    losses: Losses, reader: Reader, held: Sequence[Clip], timesteps: Sequence[int], ranks: Ranks
) -> dict[str, float]:
    """The mean loss, and that at each timestep (`loss_t500`); all ranks call it and make the same forward passes."""
    losses.model.eval()
    totals = torch.zeros(2, len(timesteps), dtype=torch.float64, device=ranks.device)
    for first in range(0, len(held), ranks.groups):
        mine = first + ranks.group
        clip = held[mine] if mine < len(held) else held[first]
        for j, t in enumerate(timesteps):
            # FSDP gathers weights together, so all ranks must take the same bucket's pass, though sizes may differ.
            batch = reader.batch([clip], [_NUMBERS + mine], dropout=False, t=t).to(ranks.device)
            weight = batch.weight * float(mine < len(held) and ranks.speaks)
            totals[0, j] += (losses(batch) * weight).sum()
            totals[1, j] += weight.sum()
    ranks.sum(totals)
    losses.model.train()
    means = (totals[0] / totals[1].clamp(min=1)).tolist()
    values = {f"loss_t{t}": mean for t, mean in zip(timesteps, means, strict=True)}
    return {"loss": float(totals[0].sum() / totals[1].sum().clamp(min=1)), **values}
