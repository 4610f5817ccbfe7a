"""Lists of videos, as people have them: text, CSV, JSON, JSONL, Parquet; with the clips and captions that they name.

One bad row never stops the rest: it comes out as a `BadRow` with its number and its reason.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from longtake.curation.access import Access, Source, is_chain, open_container, open_source
from longtake.curation.errors import SetupError, VideoError
from longtake.curation.folders import is_video_name
from longtake.curation.tables import CELL, Cell, cells_of, table_records
from longtake.manifests.folder import is_uri
from longtake.manifests.members import absolute, cell_uri, container_of, open_table
from longtake.manifests.uris import UriAccess, path_of, scheme_of, split_uri, stored_path, why_no_address

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"})
URI_COLUMNS = ("uri", "url", "path", "video", "video_path", "file", "filename", "videoid", "file_name")
_PAIRS = ("timestamp", "timestamps", "segments")
_CAPTIONS = ("caption", "captions", "text", "sentences")
_LICENCES = ("licence", "license")
_FPS = ("fps", "frame_rate", "framerate")
# The columns by which a row says where its clip lies: in seconds or clock times, in milliseconds, in frames.
_UNITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "seconds": (
        (
            *("start", "start_time", "begin", "start_s", "start_sec", "start_seconds", "begin_time"),
            *("clip_start", "start_timestamp", "t_start", "t0"),
        ),
        (
            *("end", "end_time", "stop", "end_s", "end_sec", "end_seconds", "stop_time"),
            *("clip_end", "end_timestamp", "t_end", "t1"),
        ),
        ("duration", "duration_s", "duration_sec", "duration_seconds", "clip_duration"),
    ),
    "milliseconds": (
        ("start_ms", "start_time_ms", "begin_ms"),
        ("end_ms", "end_time_ms", "stop_ms"),
        ("duration_ms",),
    ),
    "frames": (
        ("start_frame", "begin_frame", "frame_start"),
        ("end_frame", "stop_frame", "frame_end"),
        ("duration_frames",),
    ),
}
_READ = {
    *URI_COLUMNS, *_PAIRS, *_CAPTIONS, *_LICENCES, *_FPS, "sub_captions",
    *(name for unit in _UNITS.values() for names in unit for name in names),
}  # fmt: skip
# Names without what parts their words: `Start Time`, `start-time` and `startTime` are `start_time`. Not `videoid`, since a
# column `video_id` holds no addresses as a rule.
_WORDS = {name.replace("_", ""): name for name in _READ if name != "videoid"}
_NO_WORD = re.compile(r"[^0-9a-z]+")
_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
# Lines. A cell of a list may hold line breaks, but one that is still open after so many was opened by a stray quote.
_LONGESTCELL = 2000
_LOOKED_AT = 20  # Rows by which a list in a folder is recognised as one of videos.
_FIELD_BYTES = 2**31 - 1  # A cell may hold all captions of a video.
_DROP_FRAME = re.compile(r"(\d+):(\d+):(\d+);(\d+)", re.ASCII)
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_CLOCK_PART = re.compile(r"\d+([.,]\d*)?|[.,]\d+")
# Seconds, about four months. No recording is as long, and a decoder's clock can hold this, but not any number.
_LONGEST_FILM = 1e7
# How files begin that hold a list, and are none.
_PACKED = {
    b"\x1f\x8b": "it is compressed (gzip): unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd): unpack it",
    b"BZh": "it is compressed (bzip2): unpack it",
    b"\xfd7zXZ": "it is compressed (xz): unpack it",
    b"PK\x03\x04": "it is an archive or a spreadsheet: unpack it, or save its table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet: save its table as CSV in UTF-8",
}
_COMPRESSED = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})
_SPREADSHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods"})
_MOST_SHOWN = 300  # Characters. The columns of what is no list may be all of its bytes.
_MOST_UNREAD = 100  # Columns. At most this number of those that are not read are printed.


class NoUriColumn(SetupError):
    """A list has no column of URIs."""


class BadRow(ValueError):
    """A row of a list that cannot be used, and why."""


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


@dataclass(slots=True)
class ListNotes:
    """What was seen in a list and is not among its rows. comments: lines of text that begin with #."""

    comments: int = 0
    unread: list[str] = field(default_factory=list)


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


@lru_cache(4096)
def known_as(name: Any) -> str:
    """The name by which a column is known, in whatever case and with whatever signs between its words it is written."""
    lowered = str(name).strip().lower()
    return lowered if lowered in _READ else _WORDS.get(_NO_WORD.sub("", lowered), lowered)


def _by_name(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record by the names of its columns in lower case, and by those that they are known as."""
    named = {str(key).strip().lower(): value for key, value in record.items() if key is not None}
    for name in list(named):
        named.setdefault(known_as(name), named[name])
    return named


def read_list(source: Source, rules: ListRules, access: Access, notes: ListNotes) -> Iterator[Row]:
    """The rows of a list. Raises SetupError if it cannot be read, or has no column of URIs."""
    reader: _Reader | None = None
    wanted = (rules.uri_column.strip().lower(),) if rules.uri_column else URI_COLUMNS
    try:
        with open_container(source) if _is_parquet(source.uri) else open_source(source) as file:
            for number, record in enumerate(_records(file, source.uri, wanted, notes), 1):
                if isinstance(record, str):
                    yield Row(number, why=record)
                    continue
                if reader is None:
                    reader = _Reader(source, rules, access, wanted, list(record))
                    notes.unread = reader.unread
                elif reader.by_line:
                    reader.meet(record)
                yield reader.row(number, _by_name(record))
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
    with open_container(source) if _is_parquet(source.uri) else open_source(source) as file:
        if _is_parquet(source.uri):
            schema = open_table(file).schema_arrow
            if {"clip_id", "video_id", "sha256"} <= set(schema.names):
                return None
            if cells_of(schema, source.uri, wanted):
                return True
            if _names(schema.names).isdisjoint(wanted):
                return False
        try:
            for record in islice(_records(file, source.uri, wanted, ListNotes()), _LOOKED_AT):
                named = {} if isinstance(record, str) else _by_name(record)
                if is_video_name(str(_first(named, wanted) or "")):
                    return True
        except NoUriColumn:
            pass
    return False


# ── records: one per row, still as the file has them ─────────────────────────────────────────────────────────────────


def _records(file: BinaryIO, uri: str, wanted: Collection[str], notes: ListNotes) -> Iterator[Mapping[str, Any] | str]:
    """The rows of a file as mappings, and why a row is none."""
    suffix = Path(uri.partition("?")[0] if is_uri(uri) else uri).suffix.lower()
    if suffix == ".parquet":
        _once(open_table(file).schema_arrow.names, wanted)
        yield from table_records(file, uri, wanted, _READ)
        return
    if why := next((why for start, why in _PACKED.items() if _head(file).startswith(start)), None):
        raise ValueError(why)
    # Bytes that are no text are kept, as in the names of files: in a path they are right.
    text = io.TextIOWrapper(file, encoding=_encoding(file), errors="surrogateescape", newline="")
    if suffix in _DELIMITERS:
        yield from _table(text, uri, _DELIMITERS[suffix], wanted)
    elif suffix == ".txt":
        for line in text:
            name = line.rstrip("\r\n")
            if name.startswith("#") and not os.path.lexists(os.path.join(os.path.dirname(uri), name)):
                notes.comments += 1
            elif name.strip():
                yield {"uri": name}
    else:
        yield from _json(text, lines=suffix != ".json")


def _is_parquet(uri: str) -> bool:
    return Path(uri.partition("?")[0] if is_uri(uri) else uri).suffix.lower() == ".parquet"


def _encoding(file: BinaryIO) -> str:
    """By the byte order mark; without one, UTF-16 by its zero bytes, and otherwise UTF-8."""
    head = _head(file)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) >= 4 and not any(head[1:8:2]) and all(head[0:8:2]):
        return "utf-16-le"
    if len(head) >= 4 and not any(head[0:8:2]) and all(head[1:8:2]):
        return "utf-16-be"
    return "utf-8-sig"


def _head(file: BinaryIO) -> bytes:
    head = file.read(64)
    file.seek(0)
    return head


def _table(text: Iterable[str], uri: str, delimiters: str, wanted: Collection[str]) -> Iterator[dict[str, Any] | str]:
    csv.field_size_limit(_FIELD_BYTES)
    lines = _Pushback(text)
    head = lines.next()
    while head is not None and not head.strip():
        head = lines.next()
    if head is None:
        return
    if (said := _SEPARATOR.fullmatch(head.rstrip("\r\n"))) is not None:
        # Excel's word for what parts the columns.
        delimiters, head = said[1], lines.next() or ""
    header, delimiter = _header(head.rstrip("\r\n"), delimiters, wanted)
    # The header is checked even where no row follows: a list without a header is not a list without videos.
    _require_uris(uri, header, wanted)
    for cells in _cells(lines, delimiter):
        if isinstance(cells, str):
            yield cells
        elif any(cell.strip() for cell in cells[len(header) :]):
            yield f"it has more cells ({len(cells)}) than there are columns ({len(header)})"
        else:
            # All cells are text, as they stand: a file may well be called 007 or NA.
            yield dict(zip(header, [*cells[: len(header)], *[None] * (len(header) - len(cells))], strict=True))


def _require_uris(uri: str, columns: Sequence[Any], wanted: Collection[str]) -> None:
    """Raises NoUriColumn."""
    if _names(columns).isdisjoint(wanted):
        have = ", ".join(map(str, columns)) or "none"
        have = have if len(have) <= _MOST_SHOWN else f"{have[:_MOST_SHOWN]}…"
        raise NoUriColumn(
            f"{uri}: no column of URIs ({', '.join(wanted)}); its columns: {have}; --uri-column names another one"
        )


def _names(columns: Iterable[Any]) -> set[str]:
    """The names of columns in lower case, and those that they are known as."""
    return {name for column in columns for name in (str(column).strip().lower(), known_as(column))}


def _header(line: str, delimiters: str, wanted: Collection[str]) -> tuple[list[str], str]:
    """The names of the columns, and what parts them: the first that gives a column of URIs. Raises ValueError."""
    for delimiter in (*delimiters, delimiters[0]):
        header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        if not _names(header).isdisjoint(wanted):
            break
    often = _once(header, wanted)
    if len(often) == 1 and "" in often:
        raise ValueError("its first line names no columns")
    return header, delimiter


def _once(columns: Iterable[Any], wanted: Collection[str]) -> Counter[str]:
    """How often each name stands among the columns. Raises ValueError if one that is read comes twice."""
    often = Counter(known_as(column) for column in columns)
    if twice := [name for name, n in often.items() if n > 1 and name in {*_READ, *wanted}]:
        raise ValueError(f"the column {twice[0]} comes twice in it")
    return often


class _Pushback:
    """Lines, of which some may be given back to be read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._back: list[str] = []

    def next(self) -> str | None:
        return self._back.pop() if self._back else next(self._lines, None)

    def give_back(self, lines: Sequence[str]) -> None:
        self._back += reversed(lines)


def _cells(lines: _Pushback, delimiter: str) -> Iterator[list[str] | str]:
    """The cells of each row. A quote that is never closed spoils its own line only: those after it are read again."""
    while (line := lines.next()) is not None:
        if not line.strip():
            continue
        held, quotes = [line], line.count('"')
        while True:
            try:
                # A row with an odd number of quotes may go on in the next line, or hold a mere inch sign.
                yield next(csv.reader(held, delimiter=delimiter, strict=True))
                break
            except csv.Error as error:
                if "unexpected end of data" not in str(error):
                    lines.give_back(held[1:])
                    yield f"it is no line of a table: {error}"
                    break
            closed = False
            while not closed and len(held) < _LONGESTCELL and (further := lines.next()) is not None:
                held.append(further)
                quotes += further.count('"')
                closed = quotes % 2 == 0
            if not closed:
                lines.give_back(held[1:])
                yield "a quote opens in it and is never closed"
                break


def _json(text: Iterable[str], lines: bool) -> Iterator[dict[str, Any] | str]:
    """The objects of a file with one in each line, or with all of them in one array. lines: the first is what it should be.
    Raises ValueError."""
    rest = iter(text)
    first = next((line for line in rest if line.strip()), "")
    if not _is_object(first):
        all_lines = [first, *rest]
        try:
            value = json.loads("".join(all_lines) or "[]")
        except (ValueError, RecursionError) as error:
            if not lines:
                raise ValueError(f"it is not JSON: {error}") from None
        else:
            # A single line of JSONL that is an array of something else is a bad line.
            if isinstance(value, list) and (not lines or any(isinstance(record, dict) for record in value)):
                yield from (record if isinstance(record, dict) else "it is not a JSON object" for record in value)
                return
            if not lines:
                raise ValueError('it holds no array of objects, [{"path": …}, …]')
        rest = iter(all_lines[1:])
    yield from _json_lines(chain([first], rest))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any] | str]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"it is not JSON: {error}"
            continue
        yield record if isinstance(record, dict) else "it is not a JSON object"


# ── rows: what a record means ────────────────────────────────────────────────────────────────────────────────────────


class _Reader:
    """Knows a list's columns and place, and turns its records into rows."""

    def __init__(
        self, source: Source, rules: ListRules, access: Access, wanted: Sequence[str], columns: Sequence[Any]
    ) -> None:
        self.rules, self.access, self.wanted = rules, access, wanted
        # Each object of JSON has its own names.
        self.by_line = source.uri.partition("?")[0].lower().endswith((".json", ".jsonl", ".ndjson"))
        if not self.by_line and CELL not in columns:
            _require_uris(source.uri, columns, wanted)
        # Columns that are not read, in the order in which they are met.
        self.unread: list[str] = []
        self._known = {*_READ, *wanted, CELL}
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
        try:
            name = next((name for name in (CELL, *self.wanted) if name in record), None)
            if name is None:
                raise BadRow(f"there is no URI in it ({', '.join(self.wanted)})")
            value = record[name]
            row.uri, row.access = self._cell(value) if isinstance(value, Cell) else self._film(value)
            row.licence = _text(_first(record, _LICENCES), "licence")
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
        captions = _first(record, _CAPTIONS)
        if (given := _first(record, _PAIRS)) is not None:
            return self._clips(given, captions, fps)
        texts, five = _texts(captions), _five(record)
        for unit, names in _UNITS.items():
            start, end, duration = (_first(record, several) for several in names)
            if start is None and end is None:
                continue
            first = None if start is None else _moment(start, unit, fps)
            last = None if end is None else _moment(end, unit, fps)
            if first is not None and last is None and duration is not None:
                last, end = first + _moment(duration, unit, fps), f"{start} + {duration}"
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
            found = [self._spans({_FPS[0]: fps, **_by_name(clip)}) for clip in clips]
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
        given = _first(record, _FPS)
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
    named = _by_name(record)
    texts, five = _texts(_first(named, _CAPTIONS)), _five(named)
    if text and (text := _storable(text, "caption")) not in texts:
        texts.append(text)
    spans = [{"start": 0.0, "end": None, "captions": texts, "sub_captions": five}] if texts or five else []
    return spans, _text(_first(named, _LICENCES), "licence")


def _five(record: Mapping[str, Any]) -> list[str] | None:
    subs = record.get("sub_captions")
    if _is_nothing(subs):
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


def _moment(value: Any, unit: str, fps: float | None) -> float:
    if unit == "seconds":
        return seconds(value, fps)
    number = _number(value)
    if number is None:
        raise BadRow(f"{value!r} is no number of {unit}")
    if unit == "milliseconds":
        return number / 1e3
    if fps is None:
        raise BadRow(f"frame {value} of an unknown rate: give --list-fps, or a column fps")
    return number / fps


def _number(value: Any) -> float | None:
    """A number that is not negative, from a cell; None if it is none."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 and "_" not in text else None


def seconds(value: object, fps: float | None = None) -> float:
    """Seconds from a number, from '[HH:]MM:SS[.fraction]' (SubRip has a comma in place of the point), or with `fps` from the time
    codes 'HH:MM:SS:FF' and 'HH:MM:SS;FF'. Raises BadRow."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or value is None:
        raise BadRow(f"{value!r} is no time; write seconds or HH:MM:SS.fff")
    text = str(value).strip()
    parts = text.split(":")
    if (dropped := _DROP_FRAME.fullmatch(text)) is not None:
        return _timecode(text, [int(part) for part in dropped.groups()], fps, dropped=True)
    if len(parts) == 1:
        number = _number(value)
        if number is None:
            raise BadRow(f"{value!r} is no time; write seconds or HH:MM:SS.fff")
        return number
    whole = all(part.isascii() and part.isdigit() for part in parts[:-1])
    if len(parts) == 4 and whole and parts[3].isascii() and parts[3].isdigit():
        return _timecode(text, [int(part) for part in parts], fps)
    if len(parts) > 3 or not whole or not _CLOCK_PART.fullmatch(parts[-1]):
        raise BadRow(f"{value!r} is no time; write seconds or HH:MM:SS.fff")
    total = 0.0
    for part in parts:
        total = total * 60 + float(part.replace(",", "."))
    return total


def _timecode(text: str, parts: Sequence[int], fps: float | None, dropped: bool = False) -> float:
    """dropped: numbers are dropped from the count, so that it keeps up with the clock (SMPTE ST 12-1): the first two of each
    minute at 29.97 frames a second, four at 59.94, none in every tenth minute."""
    if fps is None:
        raise BadRow(f"{text} counts frames after its last colon: give --list-fps, the rate that it counts at")
    hours, minutes, whole, frames = parts
    nominal = max(1, round(fps))  # A time code of 29.97 frames a second counts to 30.
    if frames >= nominal:
        raise BadRow(f"{text} has frame {frames}, and at {fps:g} frames a second the last one is {nominal - 1}")
    total = ((hours * 60 + minutes) * 60 + whole) * nominal + frames
    if dropped:
        if nominal not in (30, 60) or fps == nominal:
            raise BadRow(f"{text} drops frame numbers, as only 29.97 and 59.94 frames a second do, not {fps:g}")
        minutes += hours * 60
        total -= nominal // 15 * (minutes - minutes // 10)
    return total / fps


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


def _first(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((record[name] for name in names if not _is_nothing(record.get(name))), None)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


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
