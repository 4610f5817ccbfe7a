"""Errors of rows and errors of set-ups.

A `RowError` costs one row: it is caught, and stored with its kind. A `SetupError` stops a command before any work begins:
a bad recipe, a missing weight, a workspace that cannot be written.

Kinds are of two sorts. A fact is a result: the film is like that, and it is not read again unasked. A fault of the world
says nothing of the film: it never replaces a result, and the same command tries the row again.
"""

from __future__ import annotations

from enum import StrEnum


class Sort(StrEnum):
    """What an error tells of: the film, or the world around it."""

    FACT = "fact"
    WORLD = "world"


# Kind → its sort, and what it means. docs/guide.md has the same table.
KINDS: dict[str, tuple[Sort, str]] = {
    "input": (
        Sort.FACT,
        "a row of a list, or a folder, that cannot be used, or an address that may not be read; the message says why",
    ),
    "missing": (Sort.FACT, "there is nothing at this address; of a clip: the video ends before it"),
    "not_a_file": (
        Sort.FACT,
        "no file, but a folder, a pipe, a device, a link that leads to itself, or an impossible name",
    ),
    "empty": (Sort.FACT, "zero bytes, or a video without a single frame"),
    "not_video": (Sort.FACT, "no container this project reads: not a video, or damaged from the first bytes on"),
    "no_video": (Sort.FACT, "a media file without a video stream (audio only, or only a cover picture)"),
    "unsupported": (
        Sort.FACT,
        (
            "a video stream that no decoder reads, that is encrypted, or that has no times (a raw stream: put it into a "
            "container first); Dolby Vision without a base that other players can show (profile 5); an edit list that changes "
            "the speed of a part, or has a gap behind one; a track of MP4 or MOV whose parts are of several codecs; HEVC "
            "coded in fields; of a clip of a list: its picture changes its size within it, or is turned"
        ),
    ),
    "too_large": (Sort.FACT, "a frame larger than `scan.max_pixels`"),
    "too_short": (
        Sort.FACT,
        "fewer than two frames; of a clip: fewer than `export.frames` asks for, or no shot of `splitting.min_seconds`",
    ),
    "truncated": (
        Sort.FACT,
        "the file ends before the video does, or before the index without which it cannot be read",
    ),
    "corrupt": (
        Sort.FACT,
        "too much of it does not decode (`scan.max_corrupt`); of a clip of a list: something of it does not, or refers to what "
        "does not",
    ),
    "timeout": (Sort.FACT, "decoding took longer than `scan.time_limit` allows"),
    "memory": (Sort.FACT, "decoding took more memory than `scan.memory_limit_mib` allows"),
    "crash": (Sort.FACT, "the decoder crashed"),
    "measure": (Sort.FACT, "a filter could not measure the clip"),
    "frames": (Sort.FACT, "the stored frames of the clip are missing or damaged"),
    "caption": (Sort.FACT, "the captioner gave nothing usable"),
    "export": (Sort.FACT, "the clip could not be cut and encoded"),
    "changed": (
        Sort.FACT,
        "the clip was not cut: its file has changed since it was scanned. Give the list or folder that holds it again",
    ),
    "removed": (
        Sort.FACT,
        "it is gone from a folder or bucket that was read again; its clips do not count, and come back when it does",
    ),
    "internal": (Sort.FACT, "an error in this program: please report it"),
    "away": (
        Sort.WORLD,
        "the folder or bucket of the file is missing or lists nothing: a mount may be away; of a clip: its encoded file is gone",
    ),
    "unreadable": (
        Sort.WORLD,
        "the file exists, but this machine cannot read it: permissions, a disk error, a stale mount",
    ),
    "unreachable": (Sort.WORLD, "a remote source did not answer, or broke off"),
    "timed_out": (Sort.WORLD, "the source did not answer in time, or a read took most of the time limit"),
    "throttled": (Sort.WORLD, "the source asks for fewer requests (HTTP 429 or 503, SlowDown)"),
    "credentials": (Sort.WORLD, "the source refuses the credentials (HTTP 401 or 403, AccessDenied, an expired token)"),
    "no_memory": (Sort.WORLD, "the machine had no memory left"),
}

ERROR_KINDS: dict[str, str] = {kind: meaning for kind, (_, meaning) in KINDS.items()}
OF_THE_WORLD: frozenset[str] = frozenset(kind for kind, (sort, _) in KINDS.items() if sort is Sort.WORLD)


def is_of_the_world(kind: str | None) -> bool:
    """Whether an error of this kind says nothing of the film. None, and kinds of newer programs, do."""
    return kind in OF_THE_WORLD


class RowError(Exception):
    """What went wrong with one video or clip. kind: a key of ERROR_KINDS."""

    def __init__(self, kind: str, message: str) -> None:
        if kind not in ERROR_KINDS:
            raise ValueError(f"unknown error kind {kind!r}")
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class VideoError(RowError):
    """A video, or a clip of it, cannot be read or cut."""


class SetupError(Exception):
    """Nothing can start like this; the message says what to change."""


class BadRow(ValueError):
    """A row of a list that cannot be used, and why."""
