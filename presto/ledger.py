"""Clips that only reading shows to be unusable: written down by each rank, and counted over all of them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

from longtake.presto.dataset import Drop
from longtake.presto.errors import PrestoError
from longtake.presto.parallel import Ranks
from longtake.presto.prepare import Prepared, Run

log = logging.getLogger(__name__)


class Ledger:
    """RUN/unreadable-rank*.jsonl, and how many clips of the epoch could not be read, over all ranks."""

    def __init__(self, run: Run, prepared: Prepared, ranks: Ranks) -> None:
        self.run, self.prepared, self.ranks = run, prepared, ranks
        self.drops: list[Drop] = []  # The drops of this rank in the current step.
        self.unreadable = 0

    def settle(self, step: int, clips: float, dropped: int) -> None:
        """After a step's micro-batches. clips, dropped: that took part, and that could not, over all ranks. Raises
        PrestoError where they are too many for one epoch."""
        if step % self.prepared.plan.steps_per_epoch == 0:
            self.unreadable = 0
        if dropped == 0:
            return
        self.unreadable += dropped
        with open(self.run.output / f"unreadable-rank{self.ranks.rank}.jsonl", "a", encoding="utf-8") as ledger:
            ledger.writelines(json.dumps({"step": step, **asdict(drop)}) + "\n" for drop in self.drops)
        mine = self.drops or [Drop("", "", "unreadable", "see the ledgers unreadable-rank*.jsonl in the run's folder")]
        self.drops = []
        for drop in mine:
            log.warning("clip %s takes no part in step %d: %s", drop.clip_id, step, drop.message)
        bad, total = self.unreadable + len(self.prepared.drops), self.prepared.total
        share = self.run.config.data.max_dropped
        if clips == 0 or bad > share * total:
            raise PrestoError(
                f"step {step}: {bad} of {total} clips cannot be used, more than data.max_dropped ({share:.0%}), clip "
                f"{mine[0].clip_id}: {mine[0].message}. Mend the data, or raise data.max_dropped"
            )
