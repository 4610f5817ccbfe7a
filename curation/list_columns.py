"""The columns of a list of videos, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"})
URI_COLUMNS = ("uri", "url", "path", "video", "video_path", "file", "filename", "videoid", "file_name")
PAIRS = ("timestamp", "timestamps", "segments")
CAPTIONS = ("caption", "captions", "text", "sentences")
LICENCES = ("licence", "license")
RATES = ("fps", "frame_rate", "framerate")
# The columns by which a row says where its clip lies: in seconds or clock times, in milliseconds, in frames.
UNITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
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
READ = {
    *URI_COLUMNS, *PAIRS, *CAPTIONS, *LICENCES, *RATES, "sub_captions",
    *(name for unit in UNITS.values() for names in unit for name in names),
}  # fmt: skip
# Names without what parts their words: `Start Time`, `start-time` and `startTime` are `start_time`. Not `videoid`, since a
# column `video_id` holds no addresses as a rule.
_WORDS = {name.replace("_", ""): name for name in READ if name != "videoid"}
_NO_WORD = re.compile(r"[^0-9a-z]+")


@lru_cache(4096)
def known_as(name: Any) -> str:
    """The name by which a column is known, in whatever case and with whatever signs between its words it is written."""
    lowered = str(name).strip().lower()
    return lowered if lowered in READ else _WORDS.get(_NO_WORD.sub("", lowered), lowered)


def by_name(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record by the names of its columns in lower case, and by those that they are known as."""
    named = {str(key).strip().lower(): value for key, value in record.items() if key is not None}
    for name in list(named):
        named.setdefault(known_as(name), named[name])
    return named


def first_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """What a record holds in the first of some columns that holds anything; None if none does."""
    return next((record[name] for name in names if not is_nothing(record.get(name))), None)


def is_nothing(value: Any) -> bool:
    """Whether a cell is empty."""
    return value is None or (isinstance(value, str) and not value.strip())
