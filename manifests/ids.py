"""Names of videos and clips: made from where they come from, so that the same input has the same id everywhere."""

from __future__ import annotations

from uuid import UUID, uuid5

_NAMESPACE = UUID("9d2f0c5e-6c0b-5f8e-9a35-1f2c8a6f4b11")


def video_id(uri: str) -> str:
    """32 hex digits for a video's URI."""
    return uuid5(_NAMESPACE, uri).hex


def clip_id(uri: str, start: float, end: float) -> str:
    """32 hex digits for a span of a video; start and end in seconds, to the millisecond."""
    return uuid5(_NAMESPACE, f"{uri}#{start:.3f}-{end:.3f}").hex
