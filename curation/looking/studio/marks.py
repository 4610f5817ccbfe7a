"""Clips that somebody called good or bad by eye: the files that keep it, how well a gate agrees, and the threshold that would
agree best."""

from __future__ import annotations

import getpass
import json
import math
import os
import re
import secrets
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from longtake.curation.errors import SetupError
from longtake.curation.workspace import Workspace
from longtake.filters.gates import Gate
from longtake.manifests.folder import Entry, Folder, in_words

FOLDER = "studio/marks"  # The folder of the marks, below the workspace.
MOST_NAME = 64  # Characters of a rater's name: it stands in each of the rater's marks.
MOST_NOTE = 2000  # Characters of a note: all marks of a workspace are held in memory.
NOBODY = "unnamed"  # The rater of a mark whose line names none.
FEWEST = 3  # Marks: with fewer good ones, or fewer bad ones, no threshold is proposed.
_MOST_CUTS = 500
_PLAIN = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of a file of marks. mark: good, bad, or None: taken back. note: what the rater wrote beside it."""

    who: str
    when: datetime
    clip: str
    mark: str | None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the marked clips that have a score: how many good and bad ones a gate lets through and stops."""

    good_passed: int
    good_failed: int
    bad_passed: int
    bad_failed: int

    @property
    def precision(self) -> float | None:
        """The share of good ones among those let through."""
        passed = self.good_passed + self.bad_passed
        return self.good_passed / passed if passed else None

    @property
    def recall(self) -> float | None:
        """The share of the good ones that is let through."""
        good = self.good_passed + self.good_failed
        return self.good_passed / good if good else None


def agreement(passed: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_], good: npt.NDArray[np.bool_]) -> Agreement:
    """All [marked clips]; one that is neither passed nor failed has no score, and does not count."""
    return Agreement(
        int(np.sum(passed & good)), int(np.sum(failed & good)), int(np.sum(passed & ~good)), int(np.sum(failed & ~good))
    )


@dataclass(frozen=True, slots=True)
class LetThrough:
    """Gates with low and high ends (each sorted), and how many marked clips each lets through [low, high]. away: how far its ends
    are from those of the gate as it is."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    good: npt.NDArray[np.int64]
    bad: npt.NDArray[np.int64]
    n_good: int
    n_bad: int
    away: npt.NDArray[np.float64]


def let_through(gate: Gate, values: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> LetThrough | None:
    """All gates with the same open ends as `gate` that decide some marked clip otherwise than another one does: their ends are
    round numbers between two scores. None with fewer than FEWEST good or bad ones. values, good: [marked clips]; nan is left
    out."""
    known = ~np.isnan(values)
    values, good = values[known], good[known]
    n_good, n_bad = int(good.sum()), int((~good).sum())
    if n_good < FEWEST or n_bad < FEWEST:
        return None
    order = np.unique(values)
    if order.size > _MOST_CUTS:
        order = np.unique(np.quantile(values, np.linspace(0, 1, _MOST_CUTS)))
    cuts = [_round_between(a, b) for a, b in pairwise(order.tolist())]
    span = float(order[-1] - order[0]) or 1.0
    lows = [-math.inf] if math.isinf(gate.low) else [*cuts, gate.low, _below(float(order[0]), span)]
    highs = [math.inf] if math.isinf(gate.high) else [*cuts, gate.high, -_below(-float(order[-1]), span)]
    low, high = np.array(sorted(lows)), np.array(sorted(highs))
    # Clips below each low end, and clips up to each high end, are counted: a gate lets through those in between.
    counts = []
    for chosen in (good, ~good):
        sorted_values = np.sort(values[chosen])
        under, up_to = np.searchsorted(sorted_values, low, "left"), np.searchsorted(sorted_values, high, "right")
        counts.append(np.maximum(up_to[None, :] - under[:, None], 0))
    away = np.zeros((low.size, high.size))
    if not math.isinf(gate.low):
        away += np.abs(low - gate.low)[:, None]
    if not math.isinf(gate.high):
        away += np.abs(high - gate.high)[None, :]
    return LetThrough(low, high, counts[0], counts[1], n_good, n_bad, away)


def propose(gate: Gate, values: npt.NDArray[np.float64], good: npt.NDArray[np.bool_]) -> Gate | None:
    """The gate with the same open ends that tells good from bad best: of the largest mean of the share of good ones let
    through and the share of bad ones stopped, the one nearest to `gate`. None as of `let_through`."""
    choices = let_through(gate, values, good)
    if choices is None:
        return None
    quality = (choices.good / choices.n_good + 1 - choices.bad / choices.n_bad) / 2
    quality[choices.low[:, None] > choices.high[None, :]] = -1
    best = quality >= quality.max() - 1e-12
    i, j = np.unravel_index(int(np.argmin(np.where(best, choices.away, np.inf))), quality.shape)
    return Gate(float(choices.low[i]), float(choices.high[j]))


def _below(value: float, span: float) -> float:
    return _round_between(value - 0.05 * span, value)


def _round_between(a: float, b: float) -> float:
    """The number with the fewest digits above a and below b, near their middle."""
    first = math.floor(math.log10(b - a)) + 1
    for power in range(first, first - 17, -1):
        value = float(f"{round((a + b) / 2, -power):.15g}")
        if a < value < b:
            return value
    return (a + b) / 2


class Marks:
    """All marks of a workspace, those of every rater, and the door for one rater's own. Any thread may use it.

    Each writer (a studio that runs) has a file of its own, to which every mark is appended and synced before it is answered:
    studios beside each other lose nothing, on a disk and in an object store. Of one rater's marks on one clip the newest
    counts; what several raters say of a clip stays apart. Raises SetupError where marks cannot be read or written.
    """

    def __init__(self, workspace: Workspace, who: str) -> None:
        self.who = rater_name(who)
        self._folder = workspace.folder / FOLDER
        self._lock = threading.RLock()
        self._files: dict[str, tuple[Entry, list[Mark]]] = {}
        self._file: str | None = None
        self._last = datetime.min.replace(tzinfo=UTC)

    def everything(self) -> list[Mark]:
        """Every mark that was ever made, as it is on the disk now."""
        with self._lock:
            self._refresh()
            return [mark for _, (_, marks) in sorted(self._files.items()) for mark in marks]

    def newest(self) -> list[Mark]:
        """Of each rater the newest mark on each clip, as it is on the disk now, by clip and rater; marks that were taken back are
        left out."""
        newest: dict[tuple[str, str], Mark] = {}
        for mark in self.everything():
            old = newest.get((mark.clip, mark.who))
            if old is None or mark.when >= old.when:
                newest[mark.clip, mark.who] = mark
        return [mark for _, mark in sorted(newest.items()) if mark.mark is not None]

    def by_rater(self) -> dict[str, dict[str, bool]]:
        """Rater → clip id → good, as it is on the disk now; marks that were taken back are left out."""
        marks: dict[str, dict[str, bool]] = {}
        for mark in self.newest():
            marks.setdefault(mark.who, {})[mark.clip] = mark.mark == "good"
        return marks

    def own(self) -> dict[str, bool]:
        """Clip id → good, by this rater."""
        return self.by_rater().get(self.who, {})

    def add(self, clip: str, mark: str | None, known: Mapping[str, Any], note: str | None = None) -> None:
        """Append a mark of this rater; when this returns, it is on the disk. mark: good, bad, or None: taken back. known: what
        the rater saw beside it (scores, gates), kept with it. note: what the rater says of the clip."""
        with self._lock:
            # A clock that is set back must not make a newer mark the older one.
            self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
            self.put([Mark(self.who, self._last, clip, mark, None if note is None else checked_note(note))], known)

    def put(self, marks: Sequence[Mark], known: Mapping[str, Any] | None = None) -> None:
        """Append marks as they are, of any raters and times; when this returns, they are on the disk. known: as of `add`."""
        lines = [_line(mark) | dict(known or {}) for mark in marks]
        with self._lock:
            if self._file is None:
                name = "-".join(_PLAIN.sub("_", part)[:40] for part in (self.who, socket.gethostname()))
                self._file = f"{name.lstrip('.')}-{secrets.token_hex(6)}.jsonl"
            try:
                self._folder.append(self._file, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
            except Exception as error:  # An OSError, or an error of a remote store's client.
                path, self._file = self._folder.file(self._file), None  # The file may now end in half a line.
                raise SetupError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error

    def _refresh(self) -> None:
        """Read the files that are new or have grown."""
        try:
            there = {entry.name: entry for entry in self._folder.entries() if entry.name.endswith(".jsonl")}
            for name, entry in there.items():
                known = self._files.get(name)
                if known is None or known[0] != entry:
                    self._files[name] = entry, _parsed(self._folder.read(name), self._folder.file(name))
        except OSError as error:
            raise SetupError(f"marks in {self._folder.uri} cannot be read: {in_words(error)}") from error
        for name in self._files.keys() - there.keys():
            del self._files[name]


def rater_name(who: str) -> str:
    """A rater's name as it is kept. Raises SetupError for what is none."""
    if not who.isprintable() or not 1 <= len(who.strip()) <= MOST_NAME:
        raise SetupError(f"a rater's name is a text of 1 to {MOST_NAME} characters in one line, not {who!r}")
    return who.strip()


def checked_note(note: str) -> str | None:
    """A note as it is kept; None for an empty one. Raises SetupError for one that is too long, or that no file can hold."""
    if len(note) > MOST_NOTE:
        raise SetupError(f"a note has at most {MOST_NOTE} characters, not {len(note)}")
    try:
        note.encode()
    except UnicodeEncodeError as error:
        raise SetupError("a note holds half of a character") from error
    return note.strip() or None


def _line(mark: Mark) -> dict[str, Any]:
    told = {"who": mark.who, "when": mark.when.isoformat(), "clip": mark.clip, "mark": mark.mark}
    return told if mark.note is None else told | {"note": mark.note}


def _parsed(content: bytes, path: str) -> list[Mark]:
    """The marks of one file. Half a line at its end is a mark that is being written, or never was answered for."""
    *lines, _ = content.split(b"\n")
    marks = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            when = datetime.fromisoformat(row["when"])
            mark = Mark(row.get("who", NOBODY), when, row["clip"], row["mark"], row.get("note"))
            texts = (mark.who, mark.clip, mark.note or "")
            if not all(isinstance(text, str) for text in texts) or mark.mark not in ("good", "bad", None):
                raise ValueError("a mark is good, bad or null, of a clip, by a rater")
            if mark.when.tzinfo is None:
                raise ValueError("when has no time zone")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            fault = f"line {number} of {path} holds no mark that can be read ({error}): mend it, or move the file away"
            raise SetupError(fault) from error
        marks.append(mark)
    return marks


def _clip(line: bytes) -> str | None:
    """The clip that a line of a file of marks is about."""
    try:
        clip = json.loads(line)["clip"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return clip if isinstance(clip, str) else None


def without_clips(folder: Folder, clips: Collection[str]) -> None:
    """Take all marks of some clips out of the files of marks. folder: of these files. A studio that runs may append a mark at the
    same moment, which is then lost: end studios first. Raises OSError."""
    for entry in list(folder.entries()):
        lines = folder.read(entry.name).split(b"\n")
        stays = [line for line in lines if _clip(line) not in clips]
        if len(stays) < len(lines):
            folder.write_whole(entry.name, b"\n".join(stays))


def this_user() -> str:
    """Who sits here, for marks that name nobody else."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # The user of a container may have no name.
        return f"user {os.getuid()}"


def write_whole(workspace: Workspace, name: str, text: str, replace: bool = True) -> str:
    """Write a text file below the workspace, all of it or nothing; where it lies. Raises SetupError; and FileExistsError if it is
    there and may not be replaced."""
    path = workspace.folder.file(name)
    try:
        (workspace.folder.write_whole if replace else workspace.folder.create_only)(name, text.encode())
    except FileExistsError:
        raise
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror or error}") from error
    return path
