"""From a position, one integer, to the clips of a step: the whole state of reading.

Each epoch permutes each bucket anew, cuts it into global batches and shuffles those; what is left of a bucket, less than
one batch, waits for another epoch. A step's batch is of one bucket, on all ranks. The clip at place j of step n is
number n · global_batch + j, and everything random about it (timestep, noise, dropout) comes from that number and the
seed: neither ranks nor restarts change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from longtake.presto.config import Bucket
from longtake.presto.dataset import Clip
from longtake.presto.errors import PrestoError


class Plan:
    """Which clips make which step. clips: those to train on, in a fixed order. Raises PrestoError if a bucket that has
    clips cannot fill one global batch, or if none has any."""

    def __init__(self, clips: Sequence[Clip], buckets: Sequence[Bucket], global_batch: int, seed: int) -> None:
        self.buckets = tuple(buckets)
        self.global_batch = global_batch
        self.seed = seed
        numbers = np.array([clip.bucket for clip in clips], dtype=np.int64)
        self.members = [np.flatnonzero(numbers == i) for i in range(len(buckets))]
        few = [(b, m) for b, m in zip(buckets, self.members, strict=True) if len(m) < global_batch]
        if few:
            told = ", ".join(f"{b.name} has {len(m)}" for b, m in few)
            raise PrestoError(
                f"data.buckets: a step takes global_batch = {global_batch} clips of one bucket, and {told}. Take a smaller "
                "global_batch, leave the bucket out, or change its size"
            )
        self._batches = [len(m) // global_batch for m in self.members]
        ids = "\n".join(f"{clip.clip_id} {clip.bucket} {clip.content}" for clip in clips)
        self.digest = hashlib.sha256(ids.encode()).hexdigest()[:16]

    @property
    def steps_per_epoch(self) -> int:
        return sum(self._batches)

    def step(self, number: int) -> tuple[int, npt.NDArray[np.int64]]:
        """(number of the bucket, places in `clips` of the global batch) of a step, counted from 0."""
        epoch, place = divmod(number, self.steps_per_epoch)
        order, bucket_of = self._epoch(epoch)
        bucket = int(bucket_of[place])
        return bucket, order[bucket][(bucket_of[:place] == bucket).sum()]

    def share(self, number: int, group: int, groups: int) -> tuple[int, npt.NDArray[np.int64], int]:
        """(bucket, the places that a group of ranks takes of a step, the number of its first clip)."""
        bucket, members = self.step(number)
        each = self.global_batch // groups
        return bucket, members[group * each : (group + 1) * each], number * self.global_batch + group * each

    def require_groups(self, groups: int) -> None:
        """Raises PrestoError unless the global batch can be dealt out to so many groups of ranks in whole micro-batches.
        The ranks of a group share its clips (parallel.sequence); a group is one rank otherwise."""
        for bucket in self.buckets:
            if self.global_batch % (groups * bucket.micro_batch):
                raise PrestoError(
                    f"global_batch = {self.global_batch} is no multiple of {groups} ranks × micro_batch = "
                    f"{bucket.micro_batch} of bucket {bucket.name}: change one of them, or let ranks share clips "
                    "(parallel.sequence)"
                )

    @lru_cache(maxsize=2)  # noqa: B019 - a plan lives as long as its run
    def _epoch(self, epoch: int) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
        """For an epoch: per bucket (batches, global_batch) places; and the bucket of each step."""
        order = []
        for i, (members, batches) in enumerate(zip(self.members, self._batches, strict=True)):
            mixed = members[np.random.default_rng([self.seed, epoch, i]).permutation(len(members))]
            order.append(mixed[: batches * self.global_batch].reshape(batches, self.global_batch))
        bucket_of = np.repeat(np.arange(len(self.buckets)), self._batches)
        return order, bucket_of[np.random.default_rng([self.seed, epoch]).permutation(len(bucket_of))]
