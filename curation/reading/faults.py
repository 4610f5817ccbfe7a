"""Which kind of error an exception of a disk or of a store's client is, and a file that remembers its first one.

fsspec's filesystems (s3fs, gcsfs, adlfs, http) raise what their clients raise, often wrapped: the chain of causes is
searched for a status, a code or an error number. Nothing here imports a client.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

from longtake.curation.errors import VideoError
from longtake.manifests.folder import in_words
from longtake.manifests.members import MemberError, NoMemberError

_STATUS = {
    401: "credentials", 403: "credentials", 407: "credentials", 404: "missing", 410: "missing", 408: "timed_out",
    429: "throttled", 503: "throttled", 504: "timed_out",
}  # fmt: skip
# Codes of S3 and of stores with its protocol, of Google and of Azure.
_CODES = {
    "AccessDenied": "credentials", "AllAccessDisabled": "credentials", "Forbidden": "credentials",
    "ExpiredToken": "credentials", "ExpiredTokenException": "credentials", "TokenRefreshRequired": "credentials",
    "InvalidToken": "credentials", "InvalidAccessKeyId": "credentials", "SignatureDoesNotMatch": "credentials",
    "RequestTimeTooSkewed": "credentials", "AuthFailure": "credentials", "UnrecognizedClientException": "credentials",
    "AuthenticationFailed": "credentials", "AuthorizationFailure": "credentials",
    "AuthorizationPermissionMismatch": "credentials", "InvalidAuthenticationInfo": "credentials",
    "SlowDown": "throttled", "Throttling": "throttled", "ThrottlingException": "throttled",
    "RequestLimitExceeded": "throttled", "TooManyRequests": "throttled", "TooManyRequestsException": "throttled",
    "ServiceUnavailable": "throttled", "ServerBusy": "throttled",
    "RequestTimeout": "timed_out", "OperationTimedOut": "timed_out",
    "NoSuchKey": "missing", "BlobNotFound": "missing", "NoSuchBucket": "away", "ContainerNotFound": "away",
}  # fmt: skip
_QUERY = re.compile(r"(\w+://[^\s?'\"]+)\?[^\s'\"]*")
# Error numbers of a local file. Any other number is `unreadable`.
_LOCAL = {
    errno.ELOOP: "not_a_file", errno.EISDIR: "not_a_file", errno.ENAMETOOLONG: "not_a_file", errno.ENXIO: "not_a_file",
    errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.ENOMEM: "no_memory", errno.ETIMEDOUT: "timed_out",
    errno.ENOTCONN: "unreachable", errno.EHOSTDOWN: "unreachable", errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable", errno.ENODEV: "away",
}  # fmt: skip


def kind_of(error: BaseException, remote: bool) -> str:
    """The key of ERROR_KINDS for what went wrong with the bytes of a source. remote: it is behind a URI."""
    chain = list(_chain(error))
    for one in chain:
        if kind := _by_status(one):
            return kind
    for one in chain:
        if isinstance(one, MemoryError):
            return "no_memory"
        name = type(one).__name__
        if isinstance(one, TimeoutError | asyncio.TimeoutError) or name.endswith("TimeoutError"):
            return "timed_out"
        if "Credential" in name or name in ("RefreshError", "ClientAuthenticationError", "UnauthorizedSSOTokenError"):
            return "credentials"
    if isinstance(error, MemberError):
        # The error says what the archive or the table lacks, unless a fault of the world kept it from being read.
        behind: list[BaseException] = [
            one for one in chain if isinstance(one, OSError) and not isinstance(one, MemberError)
        ]
        if not behind:
            return "missing" if isinstance(error, NoMemberError) else "not_video"
        chain = behind
    if not remote:
        return _of_this_machine(chain[0])
    if any(isinstance(one, PermissionError) for one in chain):
        return "credentials"
    if any(getattr(one, "errno", None) == errno.EBUSY for one in chain):
        # The client s3fs reports SlowDown by this number.
        return "throttled"
    if isinstance(error, FileNotFoundError) and all(isinstance(one, FileNotFoundError | LookupError) for one in chain):
        # If another kind of error is behind a FileNotFoundError of fsspec, then fsspec could not connect.
        return "missing"
    return "unreachable"


def _of_this_machine(error: BaseException) -> str:
    if isinstance(error, OSError):
        return _LOCAL.get(error.errno or 0, "unreadable")
    # A ValueError comes from a NUL in the name.
    return "not_a_file" if isinstance(error, ValueError) else "unreadable"


def _by_status(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        # The client botocore has such a response.
        told = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return _CODES.get(str(told)) or _of_status(told) or _of_status(status)
    # The errors of Azure, aiohttp, Azure and gcsfs have these attributes, in this order.
    for name in ("error_code", "status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, str) and value in _CODES:
            return _CODES[value]
        if kind := _of_status(value):
            return kind
    return None


def _of_status(value: object) -> str | None:
    if not isinstance(value, int | str) or not str(value).isdigit() or not 400 <= int(value) < 600:
        return None
    return _STATUS.get(int(value), "unreachable")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def words(error: BaseException) -> str:
    """What happened. Of an address without its query, which may be a signature."""
    chain = list(_chain(error))
    for one in chain:
        status = getattr(one, "status", None)
        if isinstance(status, int) and 400 <= status < 600:
            return f"HTTP {status} {getattr(one, 'message', '') or ''}".strip()
    if any(isinstance(one, socket.gaierror) for one in chain):
        host = next((str(known) for one in chain if (known := getattr(one, "host", None))), "")
        return f"unknown host {host}".rstrip()
    if isinstance(error, FileNotFoundError) and not error.errno and len(chain) > 1:
        # The error of fsspec has the address only; the error behind it says what happened.
        error = chain[-1]
    if isinstance(error, MemberError):
        return str(error)[:300]
    # Errors of FFmpeg have numbers, too, and are no errors of the system.
    numbered = isinstance(getattr(error, "errno", None), int)
    text = in_words(error) if numbered else str(error).split(": '")[0].split("; last error log")[0]
    return _QUERY.sub(r"\1?…", text)[:300] or type(error).__name__


def is_away(path: Path) -> bool:
    """Whether a file that is not there lacks its folder, too, or lies in one that lists nothing: a mount that is away
    leaves an empty folder, or none."""
    folder = Path(os.path.realpath(path)).parent  # For a link, this is the folder of the file that it leads to.
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def is_away_remotely(filesystem: Any, path: str) -> bool:
    """Whether the folder of a remote file lists nothing. A web server lists nothing ever, so there it is not asked."""
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple | list) else (filesystem.protocol,)
    folder = path.rstrip("/").rpartition("/")[0]
    if not folder or {"http", "https"} & set(protocols):
        return False
    try:
        filesystem.invalidate_cache(folder)
        return not filesystem.isdir(folder)
    except Exception:
        # Nothing is known of the folder, so the error of the file itself stays.
        return False


# Reading ------------------------------------------------------------------------------------------------------------

# Seconds that were spent in reads that have ended, and the time at which the read under way began, or 0 if none is.
_CLOCK = struct.Struct("dd")
# In the sandbox's child, this memory is shared with the parent, which must know how long the source let the child wait.
_clock: mmap | None = None


def use_clock(shared: mmap) -> None:
    """From now on, tell in `shared` how long this process waits for its source."""
    global _clock
    _clock = shared


def clock_started(shared: mmap) -> None:
    """Begin at zero, for another job."""
    _CLOCK.pack_into(shared, 0, 0.0, 0.0)


def seconds_waited(shared: mmap, now: float) -> float:
    """Seconds that a process waited for its source, by what it told. now: of the monotonic clock."""
    total, began = _CLOCK.unpack_from(shared, 0)
    return float(total + (now - began if began else 0.0))


@contextmanager
def waiting() -> Iterator[None]:
    """The time in the block goes to the source, and not to the decoder."""
    if _clock is None:
        yield
        return
    began = time.monotonic()
    total, _ = _CLOCK.unpack_from(_clock, 0)
    _CLOCK.pack_into(_clock, 0, total, began)
    try:
        yield
    finally:
        _CLOCK.pack_into(_clock, 0, total + time.monotonic() - began, 0.0)


class Watched:
    """An open file that remembers the first error of a read. A decoder that gets none of the bytes speaks of a damaged
    file, or of its end; what happened is told by `raise_fault`. instead: place in the file → bytes that are read instead of
    those at it. end: it is read as if it ended there, in bytes."""

    def __init__(self, file: BinaryIO, remote: bool) -> None:
        self._file = file
        self._remote = remote
        self.fault: Exception | None = None
        self.instead: dict[int, bytes] = {}
        self.end: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1, /) -> bytes:
        with waiting():
            try:
                if self.end is None:
                    return self._file.read(size)
                start = self._file.tell()
                left = max(self.end - start, 0)
                return self._shown(start, self._file.read(left if size < 0 else min(size, left)))
            except Exception as error:
                self.fault = self.fault or error
                raise

    def _shown(self, start: int, data: bytes) -> bytes:
        """What is read of bytes that begin at a place of the file."""
        for at, others in self.instead.items():
            first, last = max(at, start), min(at + len(others), start + len(data))
            if first < last:
                data = data[: first - start] + others[first - at : last - at] + data[last - start :]
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            if whence == os.SEEK_END and self.end is not None:
                return self._file.seek(self.end + offset)
            return self._file.seek(offset, whence)
        except OSError as error:
            # A decoder may ask for an impossible place, which is no fault of the file.
            if error.errno != errno.EINVAL:
                self.fault = self.fault or error
            raise

    def tell(self) -> int:
        return self._file.tell()

    def raise_fault(self) -> None:
        """Raises VideoError if a read failed."""
        if self.fault is not None:
            kind = kind_of(self.fault, self._remote)
            raise VideoError(kind, f"reading broke off: {words(self.fault)}") from self.fault


def watched(file: BinaryIO, remote: bool) -> tuple[BinaryIO, Watched]:
    """The file to read from, and the same object as the one to ask afterwards."""
    watch = Watched(file, remote)
    return cast(BinaryIO, watch), watch
