"""How `encode` goes, for whoever watches: what is left before it begins, a line now and then, and what came of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from longtake.presto import encoded
from longtake.presto.config import Bucket
from longtake.presto.encode import Todo
from longtake.presto.errors import DROPS

_EVERY_SECONDS = 10.0  # Seconds between two lines: a log of a day's encoding stays under 9,000 of them.


def left(todo: Todo) -> str:
    """Clips by bucket and what their encodings will take, and the clips that cannot be encoded, by reason."""
    counts = Counter(number for batch in todo.batches for number in batch["bucket"].to_pylist())
    lines = [
        f"{todo.total:,} clips: {todo.done:,} done, {todo.unusable:,} cannot be used, {sum(counts.values()):,} to encode"
    ]
    for number, bucket in enumerate(todo.settings.buckets):
        if counts[number]:
            size = counts[number] * moments_bytes(bucket)
            lines.append(
                f"  {bucket.name}: {counts[number]:,} clips, {size / 2**30:,.2f} GiB of latents, and their text"
            )
    return "\n".join(lines)


def moments_bytes(bucket: Bucket) -> int:
    """Of one clip's moments, float16."""
    return 2 * 8 * math.prod(bucket.latent)


class Progress:
    """Counts what comes, and says how far it is, at most once in ten seconds. say: takes a line."""

    def __init__(self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.say, self.clock = total, say, clock
        self.rows = self.errors = 0
        self.started = self.said = clock()

    def add(self, rows: int, errors: int) -> None:
        """rows: that are done, of them errors."""
        self.rows, self.errors, now = self.rows + rows, self.errors + errors, self.clock()
        if now - self.said >= _EVERY_SECONDS and self.rows < self.total:
            self.said = now
            self.say(self.line())

    def line(self) -> str:
        """120 of 4,000 clips, 3 failed, 2.1 clips per second, 31 min left."""
        rate = self.rows / max(self.clock() - self.started, 1e-9)
        rest = (self.total - self.rows) / rate if rate else math.inf
        failed = f", {self.errors:,} failed" if self.errors else ""
        return f"{self.rows:,} of {self.total:,} clips{failed}, {rate:.3g} clips per second, {_duration(rest)} left"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def outcome(todo: Todo) -> str:
    """What lies in the output now, of all the clips that the dataset has: encoded, and by reason what is not."""
    rows = encoded.manifest(todo.settings.output).read()
    return told(rows.column("status"), rows.column("error_kind"))


def told(status: pa.ChunkedArray | Sequence[str], kinds: pa.ChunkedArray | Sequence[str | None]) -> str:
    """Such as "40 encoded, 2 not (2 short: it has fewer frames than …)"."""
    statuses = Counter(str(s) for s in status)
    reasons: Mapping[str, int] = Counter(str(kind) for kind in kinds if str(kind) != "None")
    lines = [f"{statuses['ok']:,} encoded, {statuses['error']:,} not"]
    lines += [f"  {count:,} {kind}: {DROPS.get(kind, kind)}" for kind, count in sorted(reasons.items())]
    return "\n".join(lines)
