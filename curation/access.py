"""Opening sources: where an address may lead, and what lets this command in.

A source is named by its identity (`longtake.manifests.uris`). What else is needed to read it lives in an `Access`, in memory:
out of the lists of this command, out of `--access FILE` or out of the file that LONGTAKE_ACCESS names. It goes to a worker
with the row that it is for, never into a job's arguments, a manifest or a log.
"""

from __future__ import annotations

import csv
import ipaddress
import json
import os
import re
import socket
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import pyarrow as pa

from longtake.curation.ahead import ReadAhead
from longtake.curation.errors import SetupError, VideoError
from longtake.manifests.folder import is_uri, local_path
from longtake.manifests.members import container_of, file_of, open_inside
from longtake.manifests.uris import UriAccess, host_of, join_uri, redact, scheme_of, split_uri

SCHEMES = frozenset({"file", "https", "http", "s3", "gs", "az"})
CONNECT_SECONDS = 30.0  # Seconds within which a web server has to take a connection.
SILENCE_SECONDS = 60.0  # Seconds. A read of a web server that is silent for so long has failed.
ACCESS_VARIABLE = "LONGTAKE_ACCESS"
PRIVATE_VARIABLE = "LONGTAKE_ALLOW_PRIVATE"
SCHEMES_VARIABLE = "LONGTAKE_ALLOW_SCHEME"
SECRETS_VARIABLE = "LONGTAKE_SECRET_QUERY"
ACCESS, NEEDS = "access", "needs_access"  # Columns of a batch on its way to a worker.
_CHAIN = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*::|::[A-Za-z][A-Za-z0-9+.-]*:/")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ALLOW_PRIVATE = f"--allow-private (or {PRIVATE_VARIABLE}=1) allows it"


@dataclass(frozen=True, slots=True)
class Reach:
    """Where addresses may lead. schemes: of the URIs in lists. private: whether web addresses may lead into this machine or
    its network. secret_keys: query keys that are secret besides those of the known signers."""

    schemes: frozenset[str] = SCHEMES
    private: bool = False
    secret_keys: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, schemes: Iterable[str] | None = None, private: bool = False, secret_keys: Iterable[str] | None = None
    ) -> Reach:
        """What the options and the environment allow together."""
        more = [*(schemes or ()), *_words(SCHEMES_VARIABLE)]
        return cls(
            SCHEMES | {scheme.lower().removesuffix("://") for scheme in more},
            private or os.environ.get(PRIVATE_VARIABLE, "").lower() in ("1", "true", "yes"),
            frozenset([*(secret_keys or ()), *_words(SECRETS_VARIABLE)]),
        )

    def refusal(self, uri: str, named: Collection[str] = ()) -> str | None:
        """Why a URI of a list may not be read, in words; None if it may. named: schemes that the user wrote himself."""
        scheme = scheme_of(uri)
        if is_chain(uri):
            return "a chain of addresses (::) is not read"
        if scheme is not None and scheme not in self.schemes and scheme not in named:
            return f"the scheme {scheme}:// is not allowed in a list; --allow-scheme {scheme} allows it"
        if scheme in ("http", "https") and not self.private:
            name = re.sub(r":\d*$", "", host_of(uri)).strip("[]")
            if name == "localhost" or name.endswith(".localhost") or (is_address(name) and not is_public(name)):
                return f"{host_of(uri)} is an address of this machine or its network; {_ALLOW_PRIVATE}"
        return None


ANYWHERE = Reach(private=True)


def is_chain(uri: str) -> bool:
    """Whether a URI names one filesystem behind another (`zip://a::https://…`), as fsspec reads it."""
    if "::" not in uri or "://" not in uri:
        return False  # A path may therefore hold two colons.
    return bool(_CHAIN.search(uri)) or scheme_of(uri) not in (None, "http", "https", "file")


def is_address(host: str) -> bool:
    """Whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not of this machine, a private network or a link."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


@dataclass(frozen=True, slots=True)
class Source:
    """What a worker reads: an identity, and what lets it in. needs: its URI had a secret when it was listed."""

    uri: str
    access: UriAccess | None = None
    needs: bool = False
    reach: Reach = ANYWHERE

    def __str__(self) -> str:
        return self.uri

    def redact(self, text: str) -> str:
        """A text about this source for people."""
        return redact(text, [self.access], self.reach.secret_keys)


@dataclass(slots=True)
class Access:
    """What lets this command in, by identity and by host, and where its addresses may lead. Lives in memory only."""

    reach: Reach = field(default_factory=Reach.of)
    _uris: dict[str, UriAccess] = field(default_factory=dict, repr=False)
    _hosts: dict[str, UriAccess] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, file: str | None = None, reach: Reach | None = None) -> Access:
        """Out of a file, or out of the one that LONGTAKE_ACCESS names. Raises SetupError."""
        access = cls(reach or Reach.of())
        if file := file or os.environ.get(ACCESS_VARIABLE):
            for key, value in _entries(file):
                access._add_entry(key, value, file)
        return access

    def add(self, identity: str, access: UriAccess | None) -> None:
        """Note what a list brings."""
        if access is not None:
            self._uris[identity] = access

    def of(self, identity: str) -> UriAccess | None:
        """What lets one in at an identity: its own, else that of the archive or table it lies in, else its host's."""
        if not self._uris and not self._hosts:
            return None
        return self._uris.get(identity) or self._uris.get(file_of(identity)) or self._hosts.get(host_of(identity))

    def source(self, identity: str, needs: bool = False) -> Source:
        return Source(identity, self.of(identity), needs, self.reach)

    def attached(self, batch: pa.Table, needs: pa.Table | None = None) -> pa.Table:
        """Rows with a `uri`, on their way to a worker, with what it needs to read each. needs: `video_id`, `needs_access`."""
        texts = [access.as_text() if (access := self.of(uri)) else None for uri in batch["uri"].to_pylist()]
        batch = batch.append_column(ACCESS, pa.array(texts, pa.string()))
        if NEEDS not in batch.column_names:
            known = (
                {} if needs is None else dict(zip(needs["video_id"].to_pylist(), needs[NEEDS].to_pylist(), strict=True))
            )
            column = pa.array([bool(known.get(video)) for video in batch["video_id"].to_pylist()], pa.bool_())
            batch = batch.append_column(NEEDS, column)
        return batch

    def _add_entry(self, key: str, value: str | None, file: str) -> None:
        if value is None:
            identity, access = split_uri(key, self.reach.secret_keys)
            self.add(identity, access)
            return
        if is_uri(value):
            access = split_uri(value, self.reach.secret_keys)[1]
        elif value.startswith("?"):
            access = UriAccess(tail=value)
        else:
            access = UriAccess(userinfo=value.removesuffix("@"))
        if access is None:
            raise SetupError(f"{file}: the access for {redact(key)} holds no user and no signature")
        if is_uri(key):
            self.add(split_uri(key, self.reach.secret_keys)[0], access)
        else:
            self._hosts[key.lower()] = access


def source_of_row(row: dict[str, Any], reach: Reach) -> Source:
    """The source of a row that `Access.attached` sent on its way; the row loses what nobody may store."""
    text = row.pop(ACCESS, None)
    needs = bool(row.pop(NEEDS, False))
    return Source(row["uri"], UriAccess.of_text(text) if text else None, needs, reach)


def open_source(source: Source) -> BinaryIO:
    """The file of a source, for reading, seekable: of a member of an archive or a cell of a table, its own bytes only. Raises
    VideoError for what may not be read or lacks its access, MemberError, and otherwise what its filesystem raises."""
    if is_chain(source.uri):
        raise VideoError("input", "a chain of addresses (::) is not read")
    container = container_of(source.uri)
    if container is None or is_plain_file(source.uri):
        return _open_file(source)
    file = _open_file(source, by_range=True)
    try:
        return open_inside(file, source.uri, container)
    except BaseException:
        file.close()
        raise


def open_container(source: Source) -> BinaryIO:
    """An archive or a table, for reading, seekable: each read of a remote one fetches what it asks for and no more. Raises as
    `open_source` does."""
    return _open_file(source, by_range=True)


def is_plain_file(uri: str) -> bool:
    """Whether there is a file of this machine that has the name of a member of an archive, and is none."""
    path = local_path(uri)
    return path is not None and os.path.lexists(path)


def _open_file(source: Source, by_range: bool = False) -> BinaryIO:
    path = local_path(source.uri)
    if path is not None:
        return open(str(local_path(file_of(source.uri))) if by_range else path, "rb")
    if source.needs and source.access is None:
        raise VideoError("credentials", missing_access(source.uri))
    try:
        return _opened(source, by_range)
    except Exception as error:
        if refused := _within(error, PrivateAddress):
            raise VideoError("input", f"{host_of(source.uri)}: {refused}") from None
        if source.access is None and (status := _denial(error)):
            told = f"the server refuses (HTTP {status}); {missing_access(source.uri)}"
            raise VideoError("credentials", told) from None
        raise


def missing_access(uri: str) -> str:
    """For which host access is missing, and how to give it, in one sentence."""
    return f"access to {host_of(uri)} is missing: give the list with its URIs again, or --access FILE, or set {ACCESS_VARIABLE}"


class PrivateAddress(OSError):
    """A name led to an address of this machine or its network."""


def _opened(source: Source, by_range: bool = False) -> BinaryIO:
    uri = join_uri(source.uri, source.access)
    # Read-ahead would fetch the neighbours of an archive's member, which are other videos.
    if by_range:
        return _by_range(source, file_of(uri))[0]
    file, told = _by_range(source, uri)
    return cast(BinaryIO, ReadAhead(file, tuple(f"{name}: {told[name]}" for name in _TAGS if told.get(name))))


# How stores say in which state an object is, by the names of fsspec's clients: of the web, S3, Google's and Azure's.
_TAGS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "updated")


def tags_of(opened: object) -> tuple[str, ...]:
    """What the store of an open source said of its state when it was opened; nothing for a file of this machine, and for a member
    of an archive."""
    return opened.tags if isinstance(opened, ReadAhead) else ()


def _by_range(source: Source, uri: str) -> tuple[BinaryIO, Mapping[str, Any]]:
    """A remote file, and what its store says of it."""
    import fsspec

    how = {"cache_type": "none"}
    scheme = scheme_of(uri) or ""
    if scheme in ("http", "https"):
        import aiohttp

        # By default a request has five minutes in all: too much for a server that is silent, too little for a slow
        # line.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        options: dict[str, Any] = {"client_kwargs": {"timeout": timeout}}
        if not source.reach.private:
            options["get_client"] = public_client
        web = fsspec.filesystem(scheme, **options)
        told = web.info(uri)
        # With a size, the client asks the server no second time, and takes it to answer with ranges.
        size = told["size"] if told.get("partial", True) else None
        return cast(BinaryIO, web.open(uri, "rb", size=size, **how)), told
    filesystem, path = fsspec.core.url_to_fs(uri)
    file = filesystem.open(path, "rb", **how)
    return cast(BinaryIO, file), getattr(file, "details", {})


async def public_client(**kwargs: Any) -> Any:
    """A client of the web that connects to no private address, whatever a name, a redirect or a name server says."""
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_public_socket), **kwargs)


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise PrivateAddress(f"{place[0]} is an address of this machine or its network; {_ALLOW_PRIVATE}")
    return socket.socket(family, kind, protocol)


def _within(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The error itself, or one that led to it, if it is of a kind."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return error
        seen.add(id(error))
        for inner in getattr(error, "exceptions", ()):
            if match := _within(inner, kind):
                return match
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return None


def _denial(error: BaseException | None) -> int | None:
    """The status by which a server refuses whoever asks; None for any other fault."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        for status in (getattr(error, "status", None), getattr(error, "status_code", None)):
            if status in (401, 403):
                return int(status)
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _words(variable: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", os.environ.get(variable, "")) if word]


def _entries(file: str) -> Iterator[tuple[str, str | None]]:
    """(identity or host, access) of a file: a JSON object, or lines `IDENTITY_OR_HOST,ACCESS`, or whole URIs. Raises
    SetupError; nothing of the file's content is ever in its words."""
    try:
        mode = os.stat(file).st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise SetupError(
                f"{file}: others may read this file of secrets (mode {stat.S_IMODE(mode):o}): chmod 600 {file}"
            )
        with open(file, encoding="utf-8-sig", newline="") as opened:
            text = opened.read()
    except OSError as error:
        raise SetupError(f"{file}: this file of accesses cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SetupError(f"{file}: this file of accesses is not UTF-8") from None
    if text.lstrip().startswith("{"):
        try:
            known = json.loads(text)
        except ValueError:
            raise SetupError(f"{file}: this file of accesses is not a JSON object") from None
        for key, value in known.items():
            if not isinstance(value, str):
                raise SetupError(f"{file}: the access for {redact(key)} is no text")
            yield key, value
        return
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not cells or cells[0].startswith("#"):
            continue
        if len(cells) > 2 or (len(cells) == 1 and not is_uri(cells[0])):
            raise SetupError(f"{file}, line {number}: write IDENTITY_OR_HOST,ACCESS or a whole URI")
        yield cells[0].strip(), cells[1].strip() if len(cells) == 2 else None
