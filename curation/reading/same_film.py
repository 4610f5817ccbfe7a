"""Whether a film is still the one that was scanned, before more is read out of it: its scores and captions are of the pictures
that it had then.

Its size and its time of writing are compared with those that the scan stored; of a remote film, what its store says of its state
(`access.tags_of`): one ETag or time that is still the same is enough, since machines of one server may give different ETags. A
file that was copied or restored has another time and holds the same film: then its content decides, by its SHA-256 where the scan
was asked for it, or by that of the packets of its video stream. A file that was replaced by one of the same size and the same
time is not noticed, nor is a replaced file of the same size of which no time is known.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

import fsspec

from longtake.curation.access import Source, is_plain_file, tags_of
from longtake.curation.errors import RowError, VideoError
from longtake.curation.folders import file_facts, listed_facts, sha256_of
from longtake.curation.reading.faults import kind_of, words
from longtake.curation.reading.opening import open_video, packets_of, source_file
from longtake.curation.reading.sandbox import allow_seconds
from longtake.manifests.folder import local_path, seconds_of
from longtake.manifests.members import container_of, file_of
from longtake.manifests.uris import join_uri

# The columns of a row of videos by which its film is known.
OF_THE_SCAN = ("bytes", "modified", "sha256", "stream_sha256", "duration", "store_tags")
AGAIN = "give the list or folder that holds it again, and it is scanned anew"


def require_scanned(
    source: Source, opened: str | BinaryIO, scanned: Mapping[str, Any], seconds: float, to_come: float
) -> None:
    """Raises RowError (changed) if a source holds another film than the one that was scanned, as far as is known, and VideoError
    as `open_video` does if it has to be read to know.

    opened: its path, or the open file, which is read from its beginning afterwards. scanned: OF_THE_SCAN of its video, null where
    it is not known. seconds: that reading it may take for each second of film. to_come: seconds that the job may take then."""
    try:
        size = os.stat(opened).st_size if isinstance(opened, str) else _length(opened)
    except OSError:
        # To open it, as is done next, says what its fault is.
        return
    if scanned["bytes"] not in (None, size):
        raise RowError("changed", _told(f"{size} bytes, {scanned['bytes']} then"))
    if (other := _other_state(source, opened, scanned)) is None:
        return
    now, told = other
    allow_seconds(seconds * (scanned["duration"] or 0.0) + to_come)
    same = _holds_the_same(source, now, scanned["sha256"], scanned["stream_sha256"])
    allow_seconds(to_come)
    if not same:
        unsure = scanned["sha256"] is None and scanned["stream_sha256"] is None
        film = "whether it holds the same film is not known" if unsure else "it holds another film of the same size"
        raise RowError("changed", _told(f"{told}; {film}"))


def require_source_scanned(source: Source, scanned: Mapping[str, Any], seconds: float) -> None:
    """As `require_scanned`, of a source that is not open. seconds: that it may take in all. Runs in the sandbox."""
    with source_file(source) as opened:
        require_scanned(source, opened, scanned, 0.0, seconds)


def _other_state(
    source: Source, opened: str | BinaryIO, scanned: Mapping[str, Any]
) -> tuple[datetime | tuple[str, ...], str] | None:
    """The state in which a source is now, where it is another one than when it was scanned, and both in words; None if it is the
    same, or not known. Raises VideoError."""
    tags, before = tags_of(opened), scanned["store_tags"]
    if tags and before:
        return None if {*tags} & {*before} else (tags, f"{', '.join(tags)}; {', '.join(before)} then")
    then = scanned["modified"]
    now = _written(source) if then is not None else None
    # A store may tell the whole seconds only where it is asked for one file.
    if now is None or now == then or now == then.replace(microsecond=0):
        return None
    return now, f"written at {_minute(now)}, {_minute(then)} then"


def packets_sha256(source: Source) -> str:
    """The SHA-256 of all packets of a film's video stream in their order: as `stream_sha256` of videos. Raises VideoError."""
    digest = hashlib.sha256()
    with open_video(source) as video:
        for packet in packets_of(video, video.stream):
            if packet.size:
                digest.update(packet)
    return digest.hexdigest()


@lru_cache(maxsize=1)  # The clips of a film come one after another.
def _holds_the_same(source: Source, now: object, sha256: str | None, stream_sha256: str | None) -> bool:
    """Whether the content of a source is that of which these are the hashes. now: the state that it is in."""
    path = local_path(source.uri)
    if sha256 is not None and path is not None and _is_file(source.uri):
        return sha256_of(path) == sha256
    return stream_sha256 is not None and packets_sha256(source) == stream_sha256


def _written(source: Source) -> datetime | None:
    """When a source was written last, as its listing has it; null if that is not known. Of what lies in an archive or a table, it
    is the time of the whole."""
    uri = source.uri if _is_file(source.uri) else file_of(source.uri)
    path = local_path(uri)
    if path is not None:
        facts = file_facts(path)
    else:
        try:
            filesystem, inside = fsspec.core.url_to_fs(join_uri(uri, source.access))
            facts = listed_facts(None, seconds_of(filesystem.info(inside)))
        except Exception as error:  # Clients of object stores raise errors of their own.
            raise VideoError(kind_of(error, remote=True), words(error)) from error
    written: datetime | None = facts["modified"]
    return written


def _is_file(uri: str) -> bool:
    return container_of(uri) is None or is_plain_file(uri)


def _length(file: BinaryIO) -> int:
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def _told(how: str) -> str:
    return f"its file has changed since it was scanned ({how}): {AGAIN}"


def _minute(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
