"""What was gathered of inputs: rows of videos, of which only so many are in memory at a time.

A list may name ten million films, some of them in many rows, which need not stand together. Above HELD rows, what is known of
each film is put aside in a temporary folder, in one of some files by its id, and the parts of one film are joined when rows are
asked for: a file at a time.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longtake.curation.folders import NO_FILE
from longtake.curation.input_report import InputReport
from longtake.manifests.ids import video_id
from longtake.manifests.keys import hashed
from longtake.manifests.schemas import INPUTS

HELD = 200_000  # Films that are held in memory, at some 1.5 KB each. Further films are put aside in files.
_FILES = 64  # Files of films that are put aside: with ten million films, each holds some 160,000.
_ROWS = 50_000  # Rows of one table that is read or written.

Row = dict[str, Any]
Spans = dict[tuple[int, int | None], dict[str, Any]]


@dataclass(slots=True)
class Gathered:
    """Rows of the inputs manifest, the report, and the places (lists, folders) that were read through. chosen: what is to be
    left of each table of rows."""

    found: Found
    report: InputReport
    places: set[str]
    chosen: list[Callable[[pa.Table], pa.Table]] = field(default_factory=list)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, some of them at a time; at least one table."""
        for table in self.found.tables():
            for choose in self.chosen:
                table = choose(table)
            yield table

    @property
    def table(self) -> pa.Table:
        """All rows in one table: for few."""
        return pa.concat_tables(self.tables())


class Found:
    """Rows by identity, and the clips that lists name of each."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.spans: dict[str, Spans] = {}
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._keys: list[npt.NDArray[np.uint64]] = []  # Hashes of the films that were put aside, at 8 bytes each.

    def __bool__(self) -> bool:
        return bool(self.rows) or self._aside is not None

    def videos(self) -> int:
        """How many videos that can be used were found, each counted once."""
        good = sum(row["error"] is None for row in self.rows.values())
        if self._aside is None:
            return good
        known = [*self._keys, self._good_keys()]
        return len(np.unique(np.concatenate(known)))

    def _good_keys(self) -> npt.NDArray[np.uint64]:
        good = [row["video_id"] for row in self.rows.values() if row["error"] is None]
        keys: npt.NDArray[np.uint64] = hashed(pa.array(good, pa.string()))[0]
        return keys

    def relieve(self) -> None:
        """Put what is known aside, if it is much. Not while somebody changes a row."""
        if len(self.rows) > HELD:
            self._put_aside()

    def contradictions(self) -> list[str]:
        """Why inputs cannot be used, as far as it was put aside: rows that contradict each other were mostly not in memory at one
        time. Call it once all rows are known."""
        if self._aside is None:
            return []
        self._put_aside()
        return [row["error"] for rows in self._joined() for row in rows if row["error"] is not None]

    def tables(self) -> Iterator[pa.Table]:
        """The rows of the inputs manifest, one for each video."""
        if self._aside is not None and self.rows:
            self._put_aside()
        for rows in self._joined() if self._aside is not None else [self._finished(self.rows, self.spans)]:
            for start in range(0, max(1, len(rows)), _ROWS):
                yield pa.Table.from_pylist(rows[start : start + _ROWS], schema=INPUTS)

    def _put_aside(self) -> None:
        if self._aside is None:
            self._aside = tempfile.TemporaryDirectory(prefix="longtake-inputs-")
        parts: dict[int, list[tuple[Row, Spans]]] = {}
        for uri, row in self.rows.items():
            parts.setdefault(int(row["video_id"][:4], 16) % _FILES, []).append((row, self.spans.get(uri, {})))
        self._keys.append(self._good_keys())
        for number, part in parts.items():
            with open(Path(self._aside.name) / str(number), "ab") as file:
                pickle.dump(part, file)
        self.rows.clear()
        self.spans.clear()

    def _joined(self) -> Iterator[list[Row]]:
        """What was put aside, the parts of each film joined, some of them at a time."""
        assert self._aside is not None
        for path in sorted(Path(self._aside.name).iterdir()):
            rows: dict[str, Row] = {}
            spans: dict[str, Spans] = {}
            with open(path, "rb") as file:
                while file.peek(1):
                    for row, clips in pickle.load(file):
                        uri = row["uri"]
                        old = rows.setdefault(uri, row)
                        if old is not row and "two_licences" not in old:
                            why = two_licences(old, row["licence"], row.get("licensed_by", ""))
                            why = why or row.get("two_licences")
                            old |= {} if why is None else {"two_licences": why}
                        old["licence"] = old["licence"] or row["licence"]
                        old["needs_access"] = old["needs_access"] or row["needs_access"]
                        old["error"] = row["error"] or old["error"]
                        old |= {name: row[name] for name in NO_FILE if old[name] is None}
                        for wrong in _join(spans.setdefault(uri, {}), clips):
                            rows[wrong["uri"]] = wrong
            yield self._finished(rows, spans)

    def _finished(self, rows: Mapping[str, Row], spans: Mapping[str, Spans]) -> list[Row]:
        return [
            row | {"spans": finished(spans.get(uri, {})), "error": row["error"] or row.get("two_licences")}
            for uri, row in rows.items()
        ]


def add_span(spans: Spans, span: Mapping[str, Any], number: int, where: tuple[str, str]) -> None:
    """Add a clip that a row of a list names. number: of the list. where: the URI of the row, if it turns out to contradict an
    earlier one, and what it is called."""
    known = spans.setdefault(key_of(span), {**span, "captions": []})
    known["bare"] = False
    if span["sub_captions"]:
        known.setdefault("where", where)
    known["sub_captions"] = known["sub_captions"] or span["sub_captions"]
    known["captions"] += [text for text in span["captions"] if text not in known["captions"]]
    known.setdefault("lists", set()).add(number)


def contradicts(spans: Spans, span: Mapping[str, Any]) -> str | None:
    """Why a clip cannot be added: an earlier row gives it other sub-captions. None if it can."""
    known = spans.get(key_of(span), {})
    if known.get("sub_captions") and span["sub_captions"] and known["sub_captions"] != span["sub_captions"]:
        return f"an earlier row gives other sub-captions for the clip from {span['start']} to {span['end']}"
    return None


def two_licences(known: Row, licence: str | None, name: str) -> str | None:
    """Why a film whose rows give it two licences cannot be used; None if they do not. name: of the row with `licence`."""
    first = known["licence"]
    if not first or not licence or first.strip().casefold() == licence.strip().casefold():
        return None
    film = known["uri"]
    return (
        f"{name}: it gives {film} the licence {licence!r}, and an earlier row gives it {first!r}: let both say the same"
    )


def _join(spans: Spans, later: Spans) -> list[Row]:
    """Add what later rows told of a film; the rows that contradict, as errors."""
    wrong = []
    for key, span in later.items():
        if (why := contradicts(spans, span)) is not None:
            uri, name = span["where"]
            wrong.append(bad_row(uri, f"{name}: {why}"))
        elif (known := spans.setdefault(key, span)) is not span:
            known["bare"] = known["bare"] and span["bare"]
            known["sub_captions"] = known["sub_captions"] or span["sub_captions"]
            known["captions"] += [text for text in span["captions"] if text not in known["captions"]]
            known["lists"] |= span["lists"]
    return wrong


def bad_row(uri: str, why: str) -> Row:
    """The row of what cannot be used."""
    row = {"video_id": video_id(uri), "uri": uri, "licence": None, "needs_access": False}
    return row | {"error": why.encode("utf-8", "backslashreplace").decode(), **NO_FILE}


def key_of(span: Mapping[str, Any]) -> tuple[int, int | None]:
    """A clip's id is its span to the millisecond."""
    return round(span["start"] * 1e3), None if span["end"] is None else round(span["end"] * 1e3)


def finished(spans: Spans) -> list[dict[str, Any]]:
    """The clips of a film. A row that names the film only is its whole as a clip if its list names other clips of it, and
    otherwise asks for shots to be looked for."""
    others: set[int] = set().union(*(span.get("lists", ()) for span in spans.values() if not span.get("bare")))
    return [
        {
            "start": span["start"],
            "end": span["end"],
            "caption": span["captions"][0] if span["captions"] else None,
            "sub_captions": span["sub_captions"],
            "captions": span["captions"] if len(span["captions"]) > 1 else None,
        }
        for span in spans.values()
        if not span.get("bare") or not others.isdisjoint(span["lists"])
    ]
