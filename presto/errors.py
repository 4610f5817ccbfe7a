"""Errors of clips and errors of set-ups: a clip costs itself, a set-up stops before the first step."""

from __future__ import annotations

DROPS: dict[str, str] = {
    "missing": "its file is missing",
    "unreadable": "its file does not decode, or not all of it",
    "short": "it has fewer frames than its row says, or than its bucket takes",
    "small": "it is smaller than every bucket",
    "aspect": "no bucket has nearly its aspect ratio",
    "captions": "a caption is missing or empty",
    "bucket": "it was encoded for a size that is no bucket of this configuration",
    "crash": "the worker that encoded it was killed by it",
    "not_encoded": "`encode` has not reached it",
}


class PrestoError(Exception):
    """Nothing can start like this; the message names the file and the field, and says what to change."""


class ClipError(Exception):
    """One clip cannot be used. reason: a key of DROPS."""

    def __init__(self, reason: str, message: str) -> None:
        if reason not in DROPS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, str]]:
        return type(self), (self.reason, str(self))
