"""Lists as they are stored: text, CSV, JSON, JSONL, Parquet. One record per row, still as the file has it."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from longtake.curation.errors import SetupError
from longtake.curation.folders import is_video_name
from longtake.curation.list_columns import READ, known_as
from longtake.curation.tables import table_records
from longtake.manifests.folder import is_uri
from longtake.manifests.members import open_table

_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
# Lines. A cell of a list may hold line breaks, but one that is still open after so many was opened by a stray quote.
_LONGESTCELL = 2000
_FIELD_BYTES = 2**31 - 1  # A cell may hold all captions of a video.
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
# How files begin that hold a list, and are none.
_PACKED = {
    b"\x1f\x8b": "it is compressed (gzip): unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd): unpack it",
    b"BZh": "it is compressed (bzip2): unpack it",
    b"\xfd7zXZ": "it is compressed (xz): unpack it",
    b"PK\x03\x04": "it is an archive or a spreadsheet: unpack it, or save its table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet: save its table as CSV in UTF-8",
}
_MOST_SHOWN = 300  # Characters. Columns are shown up to this: in a file without lines, one may be all of its bytes.


class NoUriColumn(SetupError):
    """A list has no column of URIs."""


@dataclass(slots=True)
class ListNotes:
    """What was seen in a list and is not among its rows. comments: lines of text that begin with #. commas: whether a comma may
    stand in a number for a point, since something else parts the columns, as where spreadsheets write decimal commas."""

    comments: int = 0
    commas: bool = False
    unread: list[str] = field(default_factory=list)


def records(file: BinaryIO, uri: str, wanted: Collection[str], notes: ListNotes) -> Iterator[Mapping[str, Any] | str]:
    """The rows of a file as mappings, and why a row is none. wanted: the columns that may hold URIs. Raises SetupError and
    ValueError for a file that is no list."""
    suffix = Path(uri.partition("?")[0] if is_uri(uri) else uri).suffix.lower()
    if suffix == ".parquet":
        _once(open_table(file).schema_arrow.names, wanted)
        yield from table_records(file, uri, wanted, READ)
        return
    if why := next((why for start, why in _PACKED.items() if _head(file).startswith(start)), None):
        raise ValueError(why)
    # Bytes that are no text are kept, as in the names of files: in a path they are right.
    text = io.TextIOWrapper(file, encoding=_encoding(file), errors="surrogateescape", newline="")
    if suffix in _DELIMITERS:
        yield from _table(text, uri, _DELIMITERS[suffix], wanted, notes)
    elif suffix == ".txt":
        for line in text:
            name = line.rstrip("\r\n")
            if name.startswith("#") and not os.path.lexists(os.path.join(os.path.dirname(uri), name)):
                notes.comments += 1
            elif name.strip():
                yield {"uri": name}
    else:
        yield from _json(text, lines=suffix != ".json")


def is_parquet(uri: str) -> bool:
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


def _table(
    text: Iterable[str], uri: str, delimiters: str, wanted: Collection[str], notes: ListNotes
) -> Iterator[dict[str, Any] | str]:
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
    notes.commas = delimiter in ";\t"
    # The header is checked even where no row follows: a list without a header is not a list without videos.
    require_uris(uri, header, wanted)
    for cells in _cells(lines, delimiter):
        if isinstance(cells, str):
            yield cells
        elif any(cell.strip() for cell in cells[len(header) :]):
            yield f"it has more cells ({len(cells)}) than there are columns ({len(header)})"
        else:
            # All cells are text, as they stand: a file may well be called 007 or NA.
            yield dict(zip(header, [*cells[: len(header)], *[None] * (len(header) - len(cells))], strict=True))


def require_uris(uri: str, columns: Sequence[Any], wanted: Collection[str]) -> None:
    """Raises NoUriColumn."""
    if names_of(columns).isdisjoint(wanted):
        if film := next((name for name in map(str, columns) if is_video_name(name) or is_uri(name)), None):
            raise NoUriColumn(
                f"{uri}: its first line holds a film ({film[:_MOST_SHOWN]}) where the names of the columns belong: write a line "
                f"above it that names them, such as {next(iter(wanted))},start,end; a plain list, one film a line, ends in .txt"
            )
        have = ", ".join(map(str, columns)) or "none"
        have = have if len(have) <= _MOST_SHOWN else f"{have[:_MOST_SHOWN]}…"
        raise NoUriColumn(
            f"{uri}: no column of URIs ({', '.join(wanted)}); its columns: {have}; --uri-column names another one"
        )


def names_of(columns: Iterable[Any]) -> set[str]:
    """The names of columns in lower case, and those that they are known as."""
    return {name for column in columns for name in (str(column).strip().lower(), known_as(column))}


def _header(line: str, delimiters: str, wanted: Collection[str]) -> tuple[list[str], str]:
    """The names of the columns, and what parts them: the first that gives a column of URIs. Raises ValueError."""
    for delimiter in (*delimiters, delimiters[0]):
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        header = [name.strip() for name in cells]
        if not names_of(header).isdisjoint(wanted):
            break
    often = _once(header, wanted)
    if len(often) == 1 and "" in often:
        raise ValueError("its first line names no columns")
    return header, delimiter


def _once(columns: Iterable[Any], wanted: Collection[str]) -> Counter[str]:
    """How often each name stands among the columns. Raises ValueError if one that is read comes twice."""
    often = Counter(known_as(column) for column in columns)
    if twice := [name for name, n in often.items() if n > 1 and name in {*READ, *wanted}]:
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
    """The cells of each row. A quote that is never closed spoils its own line only: those after it are read again. Spaces
    between a delimiter and a quote are no part of the cell."""
    spaced = re.compile(rf'{re.escape(delimiter)} +"')
    while (line := lines.next()) is not None:
        if not line.strip():
            continue
        held, quotes = [line], line.count('"')
        padded = spaced.search(line) is not None
        while True:
            try:
                # A row with an odd number of quotes may go on in the next line, or hold a mere inch sign.
                yield next(csv.reader(held, delimiter=delimiter, strict=True, skipinitialspace=padded))
                break
            except csv.Error as error:
                if "unexpected end of data" not in str(error):
                    lines.give_back(held[1:])
                    if padded:
                        # The quote closes within the cell: it is one of the cell's own letters.
                        held, padded = [line], False
                        continue
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
