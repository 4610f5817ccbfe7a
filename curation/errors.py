"""Errors of rows and errors of set-ups.

A `RowError` costs one row: it is caught, and stored with its kind. A `SetupError` stops a command before any work begins:
a bad recipe, a missing weight, a workspace that cannot be written.
"""

from __future__ import annotations

ERROR_KINDS: dict[str, str] = {
    "input": "a row of a list, or a folder, that cannot be used, or an address that may not be read; the message says why",
    "missing": "there is nothing at this address; of a clip: the video ends before it",
    "unreadable": "it is there, but cannot be read: permissions, a folder, a disk error",
    "unreachable": "a remote source did not answer, or not in time",
    "empty": "zero bytes, or a video without a single frame",
    "not_video": "no container this project reads: not a video, or damaged from the first bytes on",
    "no_video": "a media file without a video stream (audio only, or only a cover picture)",
    "unsupported": "a video stream for which there is no decoder (or that is encrypted)",
    "too_large": "a frame larger than `scan.max_pixels`",
    "too_short": "fewer than two frames; of a clip: fewer than `export.frames` asks for",
    "truncated": "the file ends before the video does",
    "corrupt": "too much of it does not decode (`scan.max_corrupt`)",
    "timeout": "decoding took longer than `scan.time_limit` allows",
    "memory": "decoding took more memory than `scan.memory_limit_mib` allows",
    "crash": "the decoder crashed",
    "measure": "a filter could not measure the clip",
    "frames": "the stored frames of the clip are missing or damaged",
    "caption": "the captioner gave nothing usable",
    "export": "the clip could not be cut and encoded",
    "internal": "an error in this program: please report it",
}


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
