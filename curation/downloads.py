"""Files fetched to disk, going on where an earlier attempt stopped: over http(s), or by fsspec (s3://, a folder, …).

What has come so far lies in FILE.part, and beside it, in FILE.part.tag, what the source calls that version of the file
(an ETag, a date). The rest is only appended while the source still gives the same tag; where it gives none, or knows no
ranges, the file starts over.
"""

from __future__ import annotations

import fcntl
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import fsspec

TRIES = 5  # Tries in a row that bring the file no further.
PAUSE = 1.0  # Seconds before the second try; the pause doubles with each further one.
TIMEOUT = 60.0  # Seconds without an answer.
BLOCK = 2**20

# Called with the bytes that are on the disk, and with the bytes in all where the source gives them.
Progress = Callable[[int, int | None], None]


class DownloadError(Exception):
    """A file cannot be fetched; names its source. missing: the source answers, and has no such file."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class _Opened:
    """A source from byte `start` on. total: bytes of the whole file. tag: names its version."""

    stream: IO[bytes]
    start: int
    total: int | None
    tag: str


class _Interrupted(Exception):
    """Worth another try."""


def fetch(source: str, part: Path, progress: Progress = lambda have, total: None) -> None:
    """Bring the file at `source` (a URL, an fsspec URI or a local path) whole into `part`.

    Raises DownloadError if it is not there, or if the connection fails TRIES times in a row without progress; OSError
    if `part` cannot be written. What has come is kept in both cases.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    most, failures = 0, 0
    while True:
        try:
            _attempt(source, part, progress)
            _tag_file(part).unlink(missing_ok=True)
            return
        except _Interrupted as error:
            here = _size(part)
            most, failures = (here, 0) if here > most else (most, failures + 1)
            if failures == TRIES:
                raise DownloadError(
                    f"{source}: {error}; {TRIES} tries brought nothing new. {part} keeps the {here} bytes that came, "
                    "and the same command goes on from there"
                ) from error
            time.sleep(PAUSE * 2**failures)


def read_text(source: str) -> str | None:
    """A small text file at `source`, None if there is none. Raises DownloadError."""
    try:
        with _open(source, 0, "").stream as stream:
            return stream.read(BLOCK).decode("utf-8", "replace")
    except DownloadError as error:
        if error.missing:
            return None
        raise
    except (_Interrupted, OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{source}: {_reason(error)}") from error


def _attempt(source: str, part: Path, progress: Progress) -> None:
    tag = _tag_file(part).read_text("utf-8") if _tag_file(part).is_file() else ""
    opened = _open(source, _size(part) if tag else 0, tag)
    with opened.stream as stream, part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"{part} is being written by another download: let it end") from error
        if not opened.start:
            file.truncate(0)
            _tag_file(part).write_text(opened.tag, "utf-8")
        elif file.tell() != opened.start:
            raise _Interrupted("another download wrote to the same file")
        have = opened.start
        progress(have, opened.total)
        while True:
            try:
                block = stream.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(_reason(error)) from error
            if not block:
                break
            file.write(block)
            have += len(block)
            progress(have, opened.total)
    if opened.total is not None and have < opened.total:
        raise _Interrupted(f"the connection ended after {have} of {opened.total} bytes")


def _open(source: str, start: int, tag: str) -> _Opened:
    if source.startswith(("http://", "https://")):
        return _open_http(source, start, tag)
    return _open_file(source, start, tag)


def _open_http(url: str, start: int, tag: str) -> _Opened:
    headers = {"User-Agent": "longtake", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            # The source has nothing after the bytes on the disk, so they are not the beginning of that file.
            if error.code == 416:
                return _open_http(url, 0, "")
            if error.code in (408, 429) or error.code >= 500:
                raise _Interrupted(f"HTTP {error.code} {error.reason}") from error
            missing = error.code in (404, 410)
            raise DownloadError(f"{url}: HTTP {error.code} {error.reason}", missing=missing) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_reason(error)) from error
    length = answer.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    # If-Range takes strong tags only.
    version = answer.headers.get("ETag") or ""
    if not version or version.startswith("W/"):
        version = answer.headers.get("Last-Modified") or ""
    if answer.status == 206:
        span, _, whole = (answer.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            answer.close()
            return _open_http(url, 0, "")
        return _Opened(answer, start, int(whole) if whole.isdigit() else None, tag)
    return _Opened(answer, 0, total, version)


def _open_file(source: str, start: int, tag: str) -> _Opened:
    try:
        fs, path = fsspec.core.url_to_fs(source)
        total = fs.size(path)
        version = str(fs.ukey(path))
        stream = fs.open(path, "rb")
        if version != tag or start > (total or 0):
            start = 0
        if start:
            stream.seek(start)
        return _Opened(stream, start, total, version)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DownloadError(f"{source}: there is no such file", missing=True) from error
    except (ImportError, ValueError, PermissionError) as error:
        raise DownloadError(f"{source}: {_reason(error)}") from error
    except Exception as error:  # The clients of stores raise errors of their own for a bad connection.
        raise _Interrupted(_reason(error)) from error


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner) or type(inner).__name__
