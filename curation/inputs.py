"""What a user hands in, as rows of the inputs manifest: files, folders, globs, lists (text, CSV, JSONL, Parquet)."""

from __future__ import annotations

import ast
import csv
import glob
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from longtake.curation.errors import SetupError
from longtake.manifests import ids
from longtake.manifests.schemas import INPUTS

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".ogv", ".ogg",
    ".flv", ".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".264", ".h264", ".265", ".h265", ".hevc", ".vvc", ".av1",
    ".ivf", ".obu", ".y4m", ".dv", ".vob", ".gif",
})  # fmt: skip
LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
URI_COLUMNS = ("uri", "url", "path", "video", "video_path", "file", "filename", "videoid")
_START = ("start", "start_time", "begin")
_END = ("end", "end_time", "stop")
_PAIRS = ("timestamp", "timestamps")
_DIALECTS = {".csv": "excel", ".tsv": "excel-tab"}


def read_inputs(items: Sequence[str], uri_column: str | None = None) -> pa.Table:
    """Rows of the inputs manifest for `items`, one per video, in order. Spans of one video in a list are gathered.

    uri_column: of the lists; None: the first of URI_COLUMNS that is there. Raises SetupError for an item that matches
    nothing, or a list that cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    spans: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for item in items:
        found = False
        for record in _records(item, uri_column):
            found = True
            uri = record["uri"]
            try:
                row = rows.setdefault(uri, {"video_id": ids.video_id(uri), "uri": uri, "licence": None})
            except UnicodeEncodeError as error:
                raise SetupError(f"{uri!r}: this name is not UTF-8 and cannot be stored; rename the file") from error
            row["licence"] = row["licence"] or record.get("licence")
            for span in record.get("spans", ()):
                # a clip's id is its span to the millisecond
                spans.setdefault(uri, {}).setdefault((round(span["start"] * 1e3), round(span["end"] * 1e3)), span)
        if not found:
            raise SetupError(
                f"{item}: there is no video in it, which a mount, bucket or drive that is away looks like, too; nothing "
                "was changed"
            )
    table = [row | {"spans": list(spans.get(uri, {}).values())} for uri, row in rows.items()]
    return pa.Table.from_pylist(table, schema=INPUTS)


def _records(item: str, uri_column: str | None) -> Iterator[dict[str, Any]]:
    item = item.removeprefix("file://")
    if "://" in item:
        if _suffix(item) in LIST_SUFFIXES:
            yield from _listed(item, uri_column)
        else:
            yield from ({"uri": uri} for uri in _remote(item))
    elif _suffix(item) not in LIST_SUFFIXES or os.path.isdir(item):
        yield from ({"uri": path} for path in _local(item))
    elif os.path.lexists(item):
        yield from _listed(item, uri_column)
    elif glob.has_magic(item):
        for path in sorted(glob.glob(item, recursive=True)):
            yield from _listed(path, uri_column)
    else:
        raise SetupError(f"{item}: there is no such list")


def _suffix(item: str) -> str:
    return Path(item.split("?")[0] if "://" in item else item).suffix.lower()


def _local(item: str) -> Iterator[str]:
    path = Path(item)
    if path.is_dir():
        # sorted, so that a run is the same twice; links are followed, since corpora are made of them
        for folder, folders, files in os.walk(path, followlinks=True):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and not _above(folder, f))
            for name in sorted(files):
                if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                    yield os.path.abspath(os.path.join(folder, name))
    elif os.path.lexists(path):
        yield os.path.abspath(path)
    elif glob.has_magic(item):
        yield from (
            os.path.abspath(found) for found in sorted(glob.glob(item, recursive=True)) if os.path.isfile(found)
        )
    elif item.strip() and (item.endswith("/") or not path.suffix):
        raise SetupError(
            f"{item}: there is no such folder or file; if a mount or drive is away, bring it back; nothing was changed"
        )
    elif item.strip():
        yield os.path.abspath(path)  # not there: an error row will say so


def _above(folder: str, name: str) -> bool:
    """Whether `name` in `folder` is a link back to the folder or to one above it: a walk through it has no end."""
    real = os.path.realpath(folder) + os.sep
    return real.startswith(os.path.join(os.path.realpath(os.path.join(folder, name)), ""))


def _remote(item: str) -> Iterable[str]:
    # a web address is never a pattern: its ? begins a query
    if item.startswith(("http://", "https://")) or (not glob.has_magic(item) and _suffix(item) in VIDEO_SUFFIXES):
        return [item]
    try:
        fs, path = fsspec.core.url_to_fs(item)
        if glob.has_magic(item):
            found = sorted(fs.glob(path))
        elif item.endswith("/") or fs.isdir(path):
            found = sorted(fs.find(path))
        else:
            return [item]
    except Exception as error:
        raise SetupError(f"{item}: cannot be listed: {error}") from error
    return [fs.unstrip_protocol(name) for name in found if Path(name).suffix.lower() in VIDEO_SUFFIXES]


def _listed(item: str, uri_column: str | None) -> Iterator[dict[str, Any]]:
    base = item.rpartition("/")[0]
    for number, original in enumerate(_rows(item), 1):
        where = f"{item}, row {number}"
        record = {str(key).strip().lower(): value for key, value in original.items()}
        wanted = (uri_column.lower(),) if uri_column else URI_COLUMNS
        name = next((column for column in wanted if column in record), None)
        if name is None:
            have = ", ".join(map(str, original)) or "none"
            raise SetupError(f"{item}: no column of URIs ({uri_column or ', '.join(URI_COLUMNS)}); its columns: {have}")
        uri = str(record[name] or "").strip().removeprefix("file://")
        if not uri:
            raise SetupError(f"{where}: the URI is empty")
        if "://" not in uri:
            uri = uri if os.path.isabs(uri) else f"{base}/{uri}" if base else uri
            uri = uri if "://" in uri else os.path.abspath(uri)
        yield {"uri": uri, "licence": _text(_first(record, ("licence", "license"))), "spans": _spans(record, where)}


def _rows(item: str) -> Iterator[Mapping[str, Any]]:
    suffix = _suffix(item)
    try:
        with fsspec.open(item, "rb") as file:
            if suffix == ".parquet":
                import pyarrow.parquet as pq

                for batch in pq.ParquetFile(file).iter_batches():
                    yield from batch.to_pylist()
                return
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            if suffix in (".csv", ".tsv"):
                csv.field_size_limit(2**31 - 1)  # a row may hold all captions of a video
                # everything is text, as it stands: a file may well be called 007 or NA
                for number, row in enumerate(csv.DictReader(text, dialect=_DIALECTS[suffix], strict=True), 1):
                    if None in row:
                        raise ValueError(f"row {number} has more cells than there are columns")
                    yield row
            elif suffix == ".txt":
                for line in text:
                    if line.strip() and not line.startswith("#"):
                        yield {"uri": line.strip()}
            else:
                yield from _json_lines(text)
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"{item}: this list cannot be read: {error}") from error


def _json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is not a JSON object")
        yield record


def _spans(record: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The clips that one row names: by start and end, or as Panda-70M does, all of a video in one row: `timestamp`
    [[start, end], …], `caption` a list as long."""
    if (pairs := _first(record, _PAIRS)) is not None:
        pairs, captions = _literal(pairs, where), record.get("caption")
        captions = _literal(captions, where) if captions not in (None, "") else [None] * len(pairs)
        if len(captions) != len(pairs) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            raise SetupError(f"{where}: write [[start, end], …], and as many captions ({len(captions)}) as clips")
        return [_span(pair[0], pair[1], caption, None, where) for pair, caption in zip(pairs, captions, strict=True)]
    start, end = _first(record, _START), _first(record, _END)
    if start is None and end is None:
        return []
    if start is None or end is None:
        raise SetupError(f"{where}: a clip needs both, start ({start}) and end ({end})")
    texts = record.get("sub_captions")
    return [_span(start, end, record.get("caption"), _literal(texts, where) if texts else None, where)]


def _span(start: Any, end: Any, caption: Any, sub_captions: list[Any] | None, where: str) -> dict[str, Any]:
    first, last = seconds(start, where), seconds(end, where)
    if not first < last:
        raise SetupError(f"{where}: the clip ends ({end}) before it starts ({start})")
    texts = None if sub_captions is None else [str(text) for text in sub_captions]
    return {"start": first, "end": last, "caption": _text(caption), "sub_captions": texts}


def _literal(value: Any, where: str) -> list[Any]:
    """A list, or the text of one in JSON or as Python writes it."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
    if not isinstance(value, list | tuple):
        raise SetupError(f"{where}: not a list: {str(value)[:60]!r}")
    return list(value)


def seconds(value: object, where: str) -> float:
    """Seconds from a number, or from '[HH:]MM:SS[.fraction]'. Raises SetupError."""
    try:
        total = 0.0
        for part in str(value).strip().split(":"):
            total = total * 60 + float(part)
    except ValueError:
        total = math.nan
    if not math.isfinite(total) or total < 0:
        raise SetupError(f"{where}: {value!r} is no time; write seconds or HH:MM:SS.fff")
    return total


def _first(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((record[name] for name in names if record.get(name) not in (None, "")), None)


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
