"""When faults of the world stop a run: the first refused credential, and a run of faults.

Workers report how each row ended; the driver counts here. What is done is kept, no result was replaced, and the same command
tries again what it could not read.
"""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import OF_THE_WORLD, SetupError, is_of_the_world
from longtake.manifests.folder import local_path
from longtake.manifests.keys import Seen
from longtake.manifests.members import file_of
from longtake.manifests.uris import host_of, scheme_of

IN_A_ROW = 20  # Rows. So many faults one after the other are no accident.
LAST = 200  # The last rows, among which faults are counted.
SHARE = 5  # Up to one in so many of the last rows may be a fault.
# Columns of a batch: see `with_past`.
HAD_RESULT, FAULT_BEFORE, SOURCE_WORKS = "had_result", "fault_before", "source_works"

_WHAT_TO_DO = {
    "away": "bring the folder, mount or bucket back",
    "unreadable": "let that machine read it",
    "unreachable": "see whether the source and the network are up",
    "timed_out": "see whether the source and the network are up",
    "throttled": "wait, or let fewer --workers ask it",
    "credentials": "give that machine credentials that the source takes",
    "no_memory": "free memory on that machine, or run fewer --workers on it",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a row ended. source: the server, bucket or folder it was read from. kind: of the fault of the world that it met, or
    None; message: what happened; host: the machine on which. had_result: it had a result, which stays. again: it met the same
    fault when it was tried last; works: its source gave others what is asked for now, before this run. key: the row, by its
    id and its scan."""

    source: str
    kind: str | None = None
    message: str = ""
    host: str = ""
    had_result: bool = False
    again: bool = False
    works: bool = False
    key: str = ""

    @property
    def left_as_it_was(self) -> bool:
        """Whether an older result of the row stays instead of the one that was asked for."""
        return self.kind is not None and self.had_result


def this_host() -> str:
    """The name of the machine that this process is on, as error rows tell it."""
    return socket.gethostname()


def source_of(uri: str) -> str:
    """The server or bucket of a URI, or the folder of a path."""
    path = local_path(file_of(uri))
    if path is not None:
        return str(path.parent)
    return f"{scheme_of(uri)}://{host_of(uri)}"


def with_past(todo: pa.Table, key: str, rows: pa.Table, done: Callable[[], pa.ChunkedArray] | None = None) -> pa.Table:
    """`todo` with what its output holds of each row: whether that is a result, whatever its protocol; else the kind of the
    fault of the world that it met last; and whether its source gave others what is asked for. rows: key and error_kind of
    the output. done: the URIs of its rows that are good and need nothing."""
    at = pc.index_in(todo[key], value_set=rows[key].combine_chunks())
    kind = rows["error_kind"].take(at).cast(pa.string())
    fault = of_the_world(kind)
    todo = todo.append_column(HAD_RESULT, pc.and_(at.is_valid(), pc.invert(fault)))
    before = pc.if_else(fault, kind, pa.scalar(None, pa.string()))
    works = pa.nulls(todo.num_rows, pa.bool_())
    # The column is needed only where access to a source was refused before.
    if done is not None and pc.any(pc.equal(before, "credentials")).as_py():
        working = {source_of(uri) for uri in done().to_pylist()}
        works = pa.array([source_of(uri) in working for uri in todo["uri"].to_pylist()], pa.bool_())
    return todo.append_column(FAULT_BEFORE, before).append_column(SOURCE_WORKS, works)


def of_the_world(kinds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each error kind is a fault of the world; false where there is none."""
    return pc.fill_null(pc.is_in(kinds.cast(pa.string()), value_set=pa.array(sorted(OF_THE_WORLD))), False)


def outcome(row: Mapping[str, Any], uri: str, kind: str | None, message: str | None) -> Outcome:
    """How a row of a batch ended. row: of the batch, with the columns of `with_past` (without them it had no result). kind,
    message: of its error, if any."""
    if not is_of_the_world(kind):
        return Outcome(source_of(uri), key=key_of(row))
    return Outcome(
        source_of(uri),
        kind,
        message or "",
        this_host(),
        had_result=bool(row.get(HAD_RESULT)),
        again=row.get(FAULT_BEFORE) == kind,
        works=bool(row.get(SOURCE_WORKS)),
        key=key_of(row),
    )


def kinds_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Kind → how many rows ended in an error of it."""
    return dict(Counter(str(row["error_kind"]) for row in rows if row.get("error_kind")))


def key_of(row: Mapping[str, Any]) -> str:
    """What a row of a batch is called within a run: its clip, else its video, and the scan that it is of."""
    return f"{row.get('clip_id') or row.get('video_id')} {row.get('scan_id')}"


def keys_of(rows: pa.Table) -> pa.ChunkedArray:
    """As `key_of`, of many rows."""
    none, space = (pa.scalar(text, pa.large_string()) for text in ("None", " "))
    named = rows["clip_id"] if "clip_id" in rows.column_names else rows["video_id"]
    scans = rows["scan_id"].cast(pa.large_string()) if "scan_id" in rows.column_names else none
    return pc.binary_join_element_wise(
        pc.fill_null(named.cast(pa.large_string()), none), pc.fill_null(scans, none), space
    )


def untried(rows: pa.Table, tried: Seen | None) -> pa.Table:
    """The rows that are not among those that were tried in this run. They have the columns that `key_of` looks at."""
    if tried is None or not len(tried) or not rows.num_rows:
        return rows
    return rows.filter(pa.array(~tried.has(keys_of(rows))))


class Faults:
    """What a stage's rows met so far. Raises SetupError when the run must stop."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.rows = 0
        self.met: list[Outcome] = []  # The first faults. All of them could be as many as the rows.
        self.count = 0
        self._in_a_row: list[Outcome] = []
        self._last: deque[Outcome] = deque(maxlen=LAST)
        self._working: set[str] = set()  # Sources that gave at least one result.

    def see(self, outcomes: Iterable[Outcome]) -> None:
        """Count the rows of a batch."""
        for one in outcomes:
            self.rows += 1
            self._last.append(one)
            if one.kind is None:
                self._working.add(one.source)
                self._in_a_row.clear()
                continue
            self.count += 1
            self._in_a_row.append(one)
            if len(self.met) < LAST:
                self.met.append(one)
            if one.kind == "credentials" and not self._only_this_one(one):
                raise self._stop([one], "was refused")
            if len(self._in_a_row) >= IN_A_ROW:
                raise self._stop(self._in_a_row, "in a row could not be read")
        faulty = [one for one in self._last if one.kind is not None]
        if len(self._last) == LAST and len(faulty) * SHARE >= LAST:
            raise self._stop(faulty, f"of the last {LAST} could not be read")

    def _only_this_one(self, one: Outcome) -> bool:
        """Whether a refusal is of one file, and not of whoever asks: it was refused before, and its source gives others."""
        return one.again and not one.had_result and (one.works or one.source in self._working)

    def end(self, anything_good: bool) -> None:
        """The stage is over. Nothing but faults stops the run, too, unless all of them are rows that never had a result in a
        workspace that has others: there a dead link must not be in the way for ever."""
        nothing_else = self.rows > 0 and self.count == self.rows
        if nothing_else and (not anything_good or any(one.had_result for one in self.met)):
            raise self._stop(self.met, f"of {self.rows} could not be read")

    def _stop(self, met: list[Outcome], how: str) -> SetupError:
        (kind, source, host), _ = Counter((one.kind, one.source, one.host) for one in met).most_common(1)[0]
        message = next(one.message for one in met if (one.kind, one.source, one.host) == (kind, source, host))
        rows = "1 row" if len(met) == 1 else f"{len(met)} rows"
        return SetupError(
            f"{self.stage}: {rows} {how}: {kind} ({message}) at {source}, seen from {host}; what is done is kept and no "
            f"result was replaced, so {_WHAT_TO_DO[str(kind)]}, and run the same command again"
        )
