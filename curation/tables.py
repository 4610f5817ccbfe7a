"""Parquet tables that hold videos themselves, as datasets of Hugging Face do: in which columns, and in which cells."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from longtake.curation.errors import SetupError
from longtake.manifests.members import open_table, rows_with_bytes, video_columns

CELL = "\0cell"  # The key of a record under which a video lies that a table holds itself; no column can be called so.


@dataclass(frozen=True, slots=True)
class Cell:
    """A video that a table of Hugging Face holds itself. has_bytes: false: its file lies beside the table, at `path`."""

    column: str
    row: int
    path: str | None
    has_bytes: bool


def table_records(file: BinaryIO, uri: str, wanted: Collection[str], read: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet table. wanted: names of columns of URIs; read: of all that mean something in a list.

    A table with columns of videos gives a record for each of its videos, with a `Cell`; of these columns only the names of
    files are read, and of the others those that mean something here.
    """
    table = open_table(file)
    schema = table.schema_arrow
    videos = cells_of(schema, uri, wanted)
    if not videos:
        for batch in table.iter_batches():
            yield from batch.to_pylist()
        return
    known = [name for name in schema.names if name.lower() in read and name not in videos]
    # Each row names these columns without a value, since they are not read.
    unknown = {name: None for name in schema.names if name not in known and name not in videos}
    first = 0
    for group in range(table.num_row_groups):
        full = {name: rows_with_bytes(table, group, name) for name in videos}
        at = 0
        for batch in table.iter_batches(row_groups=[group], columns=[*known, *(f"{name}.path" for name in videos)]):
            for record in batch.to_pylist():
                paths = {name: (record.pop(name) or {}).get("path") for name in videos}
                for name in videos:
                    cell = Cell(name, first + at, paths[name], full[name][at])
                    yield {**record, **unknown, CELL: cell}
                at += 1
        first += at


def cells_of(schema: Any, uri: str, wanted: Collection[str]) -> list[str]:
    """The columns of a table that hold videos, by what Hugging Face notes in it, else by their names. Pictures and sounds are
    stored the same way. Raises SetupError where it cannot be told."""
    structs = video_columns(schema)
    if not structs:
        return []
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {name: noted[name].get("_type") for name in structs if name in noted}
    except (ValueError, KeyError, TypeError, AttributeError):
        kinds = {}
    named = [name for name in structs if name.lower() in wanted]
    if len(wanted) == 1 and named:  # The user named the column.
        return named
    videos = [name for name in structs if kinds.get(name) == "Video"]
    left = [name for name in structs if kinds.get(name) in (None, "Value")]
    chosen = videos or [name for name in named if name in left]
    if not chosen and len(left) > 1:
        raise SetupError(f"{uri}: several columns may hold videos ({', '.join(left)}): say which by --uri-column")
    return chosen or left
