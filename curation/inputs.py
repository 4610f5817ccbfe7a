"""What a user hands in, as rows of the inputs manifest: files, folders, globs, and lists (text, CSV, JSONL, Parquet)."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from curation.errors import SetupError
from manifests import ids
from manifests.schemas import INPUTS

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .ogv .ogg .flv .wmv .asf .3gp .3g2 .mxf .264 .h264 .265 .h265 "
    ".hevc .vvc .av1 .ivf .obu .y4m .dv .vob .gif".split()
)
LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
URI_COLUMNS = ("uri", "url", "path", "video", "video_path", "file", "filename", "videoid")
_START = ("start", "start_time", "begin")
_END = ("end", "end_time", "stop")


def read_inputs(items: Sequence[str], uri_column: str | None = None) -> pa.Table:
    """Rows of the inputs manifest for `items`, one per video, in order. Spans of one video in a list are gathered.

    uri_column: of the lists; None: the first of URI_COLUMNS that is there. Raises SetupError for an item that matches
    nothing, or a list that cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    for item in items:
        found = False
        for record in _records(item, uri_column):
            found = True
            row = rows.setdefault(record["uri"], {"uri": record["uri"], "licence": None, "spans": []})
            row["licence"] = row["licence"] or record.get("licence")
            if span := record.get("span"):
                row["spans"].append(span)
        if not found:
            raise SetupError(f"{item}: there is no video in it")
    for row in rows.values():
        row["video_id"] = ids.video_id(row["uri"])
    return pa.Table.from_pylist(list(rows.values()), schema=INPUTS)


def _records(item: str, uri_column: str | None) -> Iterator[dict[str, Any]]:
    remote = "://" in item and not item.startswith("file://")
    if Path(item.split("?")[0]).suffix.lower() in LIST_SUFFIXES and (remote or Path(item).is_file()):
        yield from _listed(item, uri_column)
    elif remote:
        yield from ({"uri": uri} for uri in _remote(item))
    else:
        yield from ({"uri": path} for path in _local(item.removeprefix("file://")))


def _local(item: str) -> Iterator[str]:
    path = Path(item)
    if path.is_dir():
        # sorted, so that a run is the same twice; links are followed, since corpora are made of them
        for folder, folders, files in os.walk(path, followlinks=True):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in sorted(files):
                if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                    yield os.path.abspath(os.path.join(folder, name))
    elif os.path.lexists(path):
        yield os.path.abspath(path)
    elif glob.has_magic(item):
        yield from (
            os.path.abspath(found) for found in sorted(glob.glob(item, recursive=True)) if os.path.isfile(found)
        )
    elif item.strip():
        yield os.path.abspath(path)  # not there: an error row will say so


def _remote(item: str) -> Iterable[str]:
    if not (glob.has_magic(item) or item.endswith("/")):
        return [item]
    try:
        fs, path = fsspec.core.url_to_fs(item)
        found = sorted(fs.glob(path)) if glob.has_magic(item) else sorted(fs.find(path))
    except Exception as error:
        raise SetupError(f"{item}: cannot be listed: {error}") from error
    return [fs.unstrip_protocol(name) for name in found if Path(name).suffix.lower() in VIDEO_SUFFIXES]


def _listed(item: str, uri_column: str | None) -> Iterator[dict[str, Any]]:
    base = item.rpartition("/")[0]
    for number, record in enumerate(_rows(item), 1):
        where = f"{item}, row {number}"
        name = uri_column or next((c for c in URI_COLUMNS if c in record), None)
        if name is None or name not in record:
            have = ", ".join(map(str, record)) or "none"
            raise SetupError(f"{item}: no column of URIs ({uri_column or ', '.join(URI_COLUMNS)}); its columns: {have}")
        uri = str(record[name] or "").strip()
        if not uri:
            raise SetupError(f"{where}: the URI is empty")
        if "://" not in uri:
            uri = uri if os.path.isabs(uri) else f"{base}/{uri}" if base else uri
            uri = uri if "://" in uri else os.path.abspath(uri)
        yield {"uri": uri, "licence": _text(_first(record, ("licence", "license"))), "span": _span(record, where)}


def _rows(item: str) -> Iterator[Mapping[str, Any]]:
    suffix = Path(item.split("?")[0]).suffix.lower()
    try:
        with fsspec.open(item, "rb") as file:
            if suffix == ".parquet":
                import pyarrow.parquet as pq

                for batch in pq.ParquetFile(file).iter_batches():
                    yield from batch.to_pylist()
            elif suffix in (".csv", ".tsv"):
                import pandas as pd

                # text, as it stands: a file may well be called 007 or NA
                frame = pd.read_csv(file, sep="\t" if suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
                yield from frame.to_dict("records")  # type: ignore[misc]
            elif suffix == ".txt":
                for line in file:
                    text = line.decode().strip()
                    if text and not text.startswith("#"):
                        yield {"uri": text}
            else:
                for line in file:
                    if line.strip():
                        record = json.loads(line)
                        if not isinstance(record, dict):
                            raise ValueError("each line must be a JSON object")
                        yield record
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"{item}: this list cannot be read: {error}") from error


def _span(record: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    start, end = _first(record, _START), _first(record, _END)
    captions = record.get("sub_captions")
    if isinstance(captions, str) and captions.strip():
        try:
            captions = json.loads(captions)
        except ValueError as error:
            raise SetupError(f"{where}: sub_captions is not a JSON list: {error}") from error
    if start in (None, "") or end in (None, ""):
        return None
    span = {"start": seconds(start, where), "end": seconds(end, where), "caption": _text(record.get("caption"))}
    if not span["start"] < span["end"]:
        raise SetupError(f"{where}: the clip ends ({end}) before it starts ({start})")
    return span | {"sub_captions": [str(text) for text in captions] if isinstance(captions, list | tuple) else None}


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
