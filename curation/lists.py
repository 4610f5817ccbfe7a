"""Lists of videos, as people have them: text, CSV, JSON, JSONL, Parquet; with the clips and captions that they name.

One bad row never stops the rest: it comes out as a `BadRow` with its number and its reason.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from longtake.curation.access import Access, Source, is_chain, open_container, open_source
from longtake.curation.errors import BadRow, SetupError, VideoError
from longtake.curation.folders import is_video_name
from longtake.curation.list_columns import (
    CAPTIONS,
    LICENCES,
    LIST_SUFFIXES,
    PAIRS,
    RATES,
    READ,
    UNITS,
    URI_COLUMNS,
    by_name,
    first_of,
    is_nothing,
    known_as,
)
from longtake.curation.list_records import ListNotes, NoUriColumn, is_parquet, names_of, records, require_uris
from longtake.curation.list_times import moment_of, seconds, with_point
from longtake.curation.tables import CELL, Cell, cells_of
from longtake.manifests.folder import is_uri
from longtake.manifests.members import absolute, cell_uri, container_of, open_table
from longtake.manifests.uris import UriAccess, path_of, scheme_of, split_uri, stored_path, why_no_address

_LOOKED_AT = 20  # Rows by which a list in a folder is recognised as one of videos.
# Seconds, about four months. No recording is as long, and a decoder's clock can hold this, but not any number.
_LONGEST_FILM = 1e7
_COMPRESSED = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})
_SPREADSHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods"})
_NUMBERS = frozenset([*RATES, *(name for unit in UNITS.values() for names in unit for name in names)])
_MOST_UNREAD = 100  # Columns. At most this number of those that are not read are printed.


@dataclass(frozen=True, slots=True)
class ListRules:
    """How lists are read. uri_column: None: the first of URI_COLUMNS that is there. fps: the rate that frame numbers and
    the frames of a time code count at, where the list has no column of rates."""

    uri_column: str | None = None
    fps: float | None = None


@dataclass(slots=True)
class Row:
    """What one row of a list gives. spans: of its clips; an end of None is the end of the film. whole: it names no clip and
    no caption, just the film. why: the row cannot be used."""

    number: int
    uri: str = ""
    access: UriAccess | None = None
    licence: str | None = None
    spans: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = False
    why: str | None = None


def is_list(item: str) -> bool:
    """Whether a file is a list, by its ending. What lies in a table or an archive is none."""
    if container_of(item) is not None:
        return False
    name = item.partition("?")[0] if is_uri(item) else item
    return Path(name).suffix.lower() in LIST_SUFFIXES


def refuse_packed(item: str) -> None:
    """Raises SetupError for a spreadsheet and a list that is compressed, by its ending: neither is read."""
    path = Path(item.partition("?")[0] if is_uri(item) else item)
    suffix = path.suffix.lower()
    if suffix in _SPREADSHEETS or (suffix in _COMPRESSED and is_list(path.stem)):
        what = (
            "a spreadsheet is not read: save it as CSV"
            if suffix in _SPREADSHEETS
            else "a compressed list is not read: unpack it"
        )
        raise SetupError(f"{item}: {what}")


def read_list(source: Source, rules: ListRules, access: Access, notes: ListNotes) -> Iterator[Row]:
    """The rows of a list. Raises SetupError if it cannot be read, or has no column of URIs."""
    reader: _Reader | None = None
    wanted = (rules.uri_column.strip().lower(),) if rules.uri_column else URI_COLUMNS
    try:
        with open_container(source) if is_parquet(source.uri) else open_source(source) as file:
            for number, record in enumerate(records(file, source.uri, wanted, notes), 1):
                if isinstance(record, str):
                    yield Row(number, why=record)
                    continue
                if reader is None:
                    reader = _Reader(source, rules, access, wanted, list(record), notes.commas)
                    notes.unread = reader.unread
                elif reader.by_line:
                    reader.meet(record)
                yield reader.row(number, by_name(record))
    except SetupError:
        raise
    except (VideoError, Exception) as error:
        from longtake.curation.reading.faults import words

        told = str(error) if isinstance(error, VideoError) else words(error)
        raise SetupError(f"{source.uri}: this list cannot be read: {source.redact(told)}") from None


def names_videos(source: Source, name: str | None = None) -> bool | None:
    """Whether a list that was found, and not given, names or holds videos: by its columns and its first rows. name: of the
    column of URIs, if only one is meant. None: it is the table of a dataset that was exported. Raises what reading it raises."""
    wanted = (name.strip().lower(),) if name else URI_COLUMNS
    with open_container(source) if is_parquet(source.uri) else open_source(source) as file:
        if is_parquet(source.uri):
            schema = open_table(file).schema_arrow
            if {"clip_id", "video_id", "sha256"} <= set(schema.names):
                return None
            if cells_of(schema, source.uri, wanted):
                return True
            if names_of(schema.names).isdisjoint(wanted):
                return False
        try:
            for record in islice(records(file, source.uri, wanted, ListNotes()), _LOOKED_AT):
                named = {} if isinstance(record, str) else by_name(record)
                if is_video_name(str(first_of(named, wanted) or "")):
                    return True
        except NoUriColumn:
            pass
    return False


class _Reader:
    """Knows a list's columns and place, and turns its records into rows."""

    def __init__(
        self,
        source: Source,
        rules: ListRules,
        access: Access,
        wanted: Sequence[str],
        columns: Sequence[Any],
        commas: bool = False,
    ) -> None:
        self.commas = commas
        self.rules, self.access, self.wanted = rules, access, wanted
        # Each object of JSON has its own names.
        self.by_line = source.uri.partition("?")[0].lower().endswith((".json", ".jsonl", ".ndjson"))
        if not self.by_line and CELL not in columns:
            require_uris(source.uri, columns, wanted)
        # Columns that are not read, in the order in which they are met.
        self.unread: list[str] = []
        self._known = {*READ, *wanted, CELL}
        self.meet(columns)
        self.source = source
        self.scheme = scheme_of(source.uri)
        self.base = (source.uri.partition("?")[0] if is_uri(source.uri) else source.uri).rpartition("/")[0]
        # Films beside a list are read with the user and the password of the list.
        self.beside = UriAccess(source.access.userinfo) if source.access and source.access.userinfo else None

    def meet(self, columns: Iterable[Any]) -> None:
        """Note which columns of a record are not read, if it has any that no record before had. A list of lines of JSON may
        have another name in each: only so many are noted as can be looked at."""
        for column in columns:
            name = known_as(column)
            if name and name not in self._known and len(self.unread) < _MOST_UNREAD:
                self._known.add(name)
                self.unread.append(str(column))

    def row(self, number: int, record: Mapping[str, Any]) -> Row:
        row = Row(number)
        if self.commas:
            record = {name: with_point(value) if name in _NUMBERS else value for name, value in record.items()}
        try:
            name = next((name for name in (CELL, *self.wanted) if name in record), None)
            if name is None:
                raise BadRow(f"there is no URI in it ({', '.join(self.wanted)})")
            value = record[name]
            row.uri, row.access = self._cell(value) if isinstance(value, Cell) else self._film(value)
            row.licence = _text(first_of(record, LICENCES), "licence")
            row.spans = self._spans(record)
            row.whole = not row.spans
        except BadRow as error:
            row.why = str(error)
        return row

    def _film(self, value: Any) -> tuple[str, UriAccess | None]:
        """The identity of the film that a cell names, and its access."""
        if isinstance(value, bytes):
            value = os.fsdecode(value)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise BadRow("the URI is empty")
        if isinstance(value, bool | list | dict):
            raise BadRow(f"{str(value)[:60]!r} is no URI")
        original = str(value)
        text = original.strip()
        if not text:
            raise BadRow("the URI is empty")
        if text.lower().startswith("file:"):
            host = re.match(r"file://([^/]*)", text, re.IGNORECASE)
            if host and host[1].lower() not in ("", "localhost"):
                raise BadRow(f"{text!r} names a file of another machine ({host[1]})")
            return local_file(text), None
        if is_chain(text):
            raise BadRow(f"{text[:200]!r}: a chain of addresses (::) is not read")
        if is_uri(text):
            return self._remote(text)
        return self._local(original, text)

    def _cell(self, cell: Cell) -> tuple[str, UriAccess | None]:
        """The identity of a video that the list holds itself, or that lies beside it."""
        if cell.has_bytes:
            table = self.source.uri if is_uri(self.source.uri) else stored_path(os.path.abspath(self.source.uri))
            return cell_uri(table, cell.column, cell.row), self.source.access
        if not cell.path:
            raise BadRow(f"the cell of {cell.column} holds neither bytes nor a path")
        return self._film(cell.path)

    def _remote(self, uri: str) -> tuple[str, UriAccess | None]:
        _storable(uri, "URI")
        identity, access = split_uri(uri, self.access.reach.secret_keys)
        if why := why_no_address(identity) or self.access.reach.refusal(identity, [self.scheme or ""]):
            raise BadRow(f"{identity}: {why}")
        return identity, access

    def _local(self, original: str, text: str) -> tuple[str, UriAccess | None]:
        if self.base and is_uri(self.base + "/") and not os.path.isabs(text) and not text.startswith("~/"):
            return self._remote(f"{self.base}/{text}")[0], self.beside
        path = os.path.join(self.base, text)
        if path != (as_it_stands := os.path.join(self.base, original)) and not os.path.lexists(path):
            # A name may begin or end with a space.
            path = as_it_stands if os.path.lexists(as_it_stands) else path
        if text.startswith("~/") and not os.path.lexists(path):
            path = os.path.expanduser(text)
        if "\0" in path:
            raise BadRow(f"{text!r} holds a zero byte, which no name does")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise BadRow(f"{text!r} is no UTF-8, and no name of a file") from None
        return stored(absolute(path)), None

    def _spans(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The clips that one row names: one, or as Panda-70M does, all of a video in one row: `timestamp` [[start, end], …],
        `caption` a list as long. Captions without a start and an end are of the whole film."""
        fps = self._fps(record)
        captions = first_of(record, CAPTIONS)
        if (given := first_of(record, PAIRS)) is not None:
            return self._clips(given, captions, fps)
        texts, five = _texts(captions), _five(record)
        for unit, names in UNITS.items():
            start, end, duration = (first_of(record, several) for several in names)
            if start is None and end is None:
                continue
            first = None if start is None else moment_of(start, unit, fps)
            last = None if end is None else moment_of(end, unit, fps)
            if first is not None and last is None and duration is not None:
                last, end = first + moment_of(duration, unit, fps), f"{start} + {duration}"
            if first is None or last is None:
                raise BadRow(f"a clip needs both, start ({start}) and end ({end})")
            return [_span(first, last, (start, end), texts, five)]
        if texts or five:
            return [{"start": 0.0, "end": None, "captions": texts, "sub_captions": five}]
        return []

    def _clips(self, given: Any, captions: Any, fps: float | None) -> list[dict[str, Any]]:
        """All clips of a film out of one cell: [[start, end], …], [start, end] for a single one, or objects that say what rows
        say. captions: a list as long, or None."""
        clips = _literal(given)
        if len(clips) == 2 and not any(isinstance(clip, list | tuple | Mapping) for clip in clips):
            clips = [clips]
        if clips and captions is None and all(isinstance(clip, Mapping) for clip in clips):
            found = [self._spans({RATES[0]: fps, **by_name(clip)}) for clip in clips]
            if not all(spans and spans[0]["end"] is not None for spans in found):
                raise BadRow(f"each clip needs a start and an end: {str(clips)[:100]}")
            return [span for spans in found for span in spans]
        single = len(clips) == 1 and isinstance(captions, str) and not captions.lstrip().startswith("[")
        of_each = [None] * len(clips) if captions is None else [captions] if single else _literal(captions)
        if not all(isinstance(clip, list | tuple) and len(clip) == 2 for clip in clips):
            raise BadRow(f"write the clips as [[start, end], …], not as {str(clips)[:100]}")
        if len(of_each) != len(clips):
            raise BadRow(f"write as many captions ({len(of_each)}) as clips ({len(clips)})")
        return [
            _span(seconds(clip[0], fps), seconds(clip[1], fps), clip, _texts(texts), None)
            for clip, texts in zip(clips, of_each, strict=True)
        ]

    def _fps(self, record: Mapping[str, Any]) -> float | None:
        given = first_of(record, RATES)
        if given is None:
            return self.rules.fps
        try:
            top, _, bottom = str(given).partition("/")
            fps = float(top) / float(bottom or 1)
        except (ValueError, ZeroDivisionError):
            # The column may hold something else than a rate; where a rate is needed, the row reports it.
            return self.rules.fps
        return fps if math.isfinite(fps) and fps > 0 else self.rules.fps


def told_of_film(record: Mapping[str, Any], text: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
    """What a record beside a film tells of the whole of it: its span with its captions, none without captions; and its licence.
    Times in such a record are mostly those of a longer film, out of which this one was cut: they are not read. text: a further
    caption. Raises BadRow."""
    named = by_name(record)
    texts, five = _texts(first_of(named, CAPTIONS)), _five(named)
    if text and (text := _storable(text, "caption")) not in texts:
        texts.append(text)
    spans = [{"start": 0.0, "end": None, "captions": texts, "sub_captions": five}] if texts or five else []
    return spans, _text(first_of(named, LICENCES), "licence")


def _five(record: Mapping[str, Any]) -> list[str] | None:
    subs = record.get("sub_captions")
    if is_nothing(subs):
        return None
    if wrong := [text for text in _literal(subs) if not isinstance(text, str | bytes)]:
        raise BadRow(f"the sub-captions hold {str(wrong[0])[:60]!r}, which is no text")
    return [_storable(text, "sub-caption") for text in _literal(subs)]


def _span(start: float, end: float, said: Sequence[Any], captions: list[str], five: list[str] | None) -> dict[str, Any]:
    if not start < end:
        raise BadRow(f"the clip ends ({said[1]}) before it starts ({said[0]})")
    if end > _LONGEST_FILM:
        raise BadRow(
            f"no film is as long as to {said[1]}; give seconds, or name the column after its unit (end_ms, end_frame)"
        )
    if round(start * 1e3) == round(end * 1e3):
        raise BadRow(f"the clip from {said[0]} to {said[1]} is shorter than a millisecond")
    return {"start": start, "end": end, "captions": captions, "sub_captions": five}


def _literal(value: Any) -> list[Any]:
    """A list, or the text of one in JSON or as Python writes it."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
    if not isinstance(value, list | tuple):
        raise BadRow(f"not a list: {str(value)[:60]!r}")
    return list(value)


def _texts(value: Any) -> list[str]:
    """The captions in a cell: none, one, or several as a list or the text of a list."""
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            several = _literal(value)
        except BadRow:
            several = [value]
        value = several if all(isinstance(text, str) for text in several) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    several = list(value) if isinstance(value, list | tuple) else [value]
    if wrong := [text for text in several if isinstance(text, list | tuple | Mapping)]:
        raise BadRow(f"the caption {str(wrong[0])[:60]!r} is no text")
    return [_storable(text, "caption") for text in several if text not in (None, "")]


def _text(value: Any, what: str) -> str | None:
    is_nan = isinstance(value, float) and math.isnan(value)
    return None if value is None or is_nan else _storable(value, what)


def _storable(value: Any, what: str) -> str:
    """The text in a cell. Raises BadRow."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"the {what} {text[:60]!r} is no UTF-8: save the list in UTF-8") from None
    return text


def local_file(uri: str) -> str:
    """How the file that a `file:` URI names is stored. Its percent signs are decoded, unless only the name as it is written
    is there; those of a member of an archive stay."""
    container = container_of(uri)
    if container is not None and not os.path.lexists(path_of(uri)):
        return local_file(container) + uri[len(container) :]
    path = path_of(uri)
    literal = uri[len("file:") :].removeprefix("//")
    if literal != path and not os.path.lexists(path) and os.path.isabs(literal) and os.path.lexists(literal):
        path = literal
    return stored_path(os.path.abspath(path))


def stored(path: str) -> str:
    """How a local path is stored (`stored_path`), that of a member of an archive included."""
    container = container_of(path)
    return stored_path(path) if container is None else stored_path(container) + path[len(container) :]
