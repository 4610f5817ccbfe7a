"""Which latent frames attend to which captions: the three variants of segmented cross-attention (Presto, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from longtake.presto.errors import PrestoError

Variant = Literal["isolated", "sequential", "sequential-pair", "overlapped"]


@dataclass(frozen=True, slots=True)
class Window:
    """Latent frames [start, end) attend to captions [first, last)."""

    start: int
    end: int
    first: int
    last: int


class Segmentation(BaseModel):
    """How the time axis is divided among the captions.

    isolated: segment i attends to caption i. sequential: to captions 1…i, as the one note on the paper has it;
    sequential-pair: to captions i−1 and i, another reading of it. overlapped: each segment is widened by `overlap`
    latent frames (δ of the paper) on both sides, and where windows overlap the mean counts (the released code). One
    segment is the plain model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant = "overlapped"
    segments: int = Field(5, ge=1)
    overlap: int = Field(1, ge=0)

    def edges(self, frames: int) -> list[int]:
        """floor(linspace(0, frames, segments + 1)). Raises PrestoError if a segment is empty or too short to overlap."""
        edges = [i * frames // self.segments for i in range(self.segments + 1)]
        least = min(b - a for a, b in pairwise(edges))
        need = max(1, 2 * self.overlap if self.variant == "overlapped" and self.segments > 1 else 1)
        if least < need:
            raise PrestoError(
                f"{frames} latent frames in {self.segments} segments ({self.variant}): the shortest has {least}, and "
                f"{need} are needed. Take more frames, fewer segments or a smaller overlap"
            )
        return edges

    def windows(self, frames: int) -> tuple[Window, ...]:
        """One window per segment, in order; together they cover all frames. Raises PrestoError, see `edges`."""
        spans = list(pairwise(self.edges(frames)))
        if self.variant == "overlapped":
            spans = [(max(0, a - self.overlap), min(frames, b + self.overlap)) for a, b in spans]
        before = {"sequential": self.segments, "sequential-pair": 1}.get(self.variant, 0)
        return tuple(Window(a, b, max(0, i - before), i + 1) for i, (a, b) in enumerate(spans))

    def coverage(self, frames: int) -> list[int]:
        """How many windows hold each latent frame."""
        windows = self.windows(frames)
        return [sum(w.start <= t < w.end for w in windows) for t in range(frames)]
