"""Moments of a film as the rows of lists name them: seconds, clock times, time codes, milliseconds, frames."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from longtake.curation.errors import BadRow

_DROP_FRAME = re.compile(r"(\d+):(\d+):(\d+);(\d+)", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d{3}", re.ASCII)
_CLOCK_PART = re.compile(r"\d+([.,]\d*)?|[.,]\d+")


def moment_of(value: Any, unit: str, fps: float | None) -> float:
    """Seconds from a cell of a column in seconds, milliseconds or frames (unit). fps: of the film, if known. Raises BadRow."""
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


def with_point(value: Any) -> Any:
    """A number that was written with a decimal comma, with a point; any other value as it is. 1,500 stays, since it may be one
    and a half or fifteen hundred."""
    text = str(value).strip()
    return text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text) else value


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
