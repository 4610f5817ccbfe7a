"""Whether the film is HDR, from the container and its first frame.

Source: a `Probe`; HDR is film whose transfer is PQ (SMPTE ST 2084) or HLG (ARIB STD-B67). Its pictures are mapped to SDR for
everything that is measured, captioned and exported (docs/architecture.md, "One reader"). Formula: 1 if it is, else 0. Unit:
1 or 0. Range: 0 or 1; `hdr: '<= 0'` as a gate leaves HDR out, `hdr: '>= 1'` keeps nothing else. Protocol:
`probe/transfer/mean`; one value per clip. Cost: none.

Known to go wrong: a file that does not name its transfer counts as SDR, and one that names it wrongly is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from longtake.filters.base import Filter, Needs, Probe


class Hdr(Filter[Probe]):
    """1 for HDR (PQ or HLG), 0 for SDR. Detail: that one value."""

    name: ClassVar[str] = "hdr"
    backend: ClassVar[str] = "probe"
    unit: ClassVar[str] = "1 (HDR) or 0"
    needs: ClassVar[Needs] = Needs.PROBE
    cost: ClassVar[float] = 0.0

    @property
    def method(self) -> str:
        return "transfer"

    def measure_one(self, item: Probe) -> Sequence[float]:
        return [float(item.hdr)]
