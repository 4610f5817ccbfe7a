"""Which addresses a captioner may send pictures and a key to.

An address that the user gives (on the command line, or in LONGTAKE_CAPTION_ENDPOINT) is the user's own word. One that stands
in a recipe may come from a stranger, as may a workspace's recipe: nothing is sent there before the user has allowed the host,
once and for good with `--allow-endpoint HOST`, or for a job in LONGTAKE_ALLOW_ENDPOINTS. A loopback address may be asked
without, since nothing leaves this machine, but gets no key. The driver makes the permission and hands it to its workers:
another machine's home decides nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from longtake.manifests.folder import in_words, is_uri

ENDPOINT = "LONGTAKE_CAPTION_ENDPOINT"
ALLOWED = "LONGTAKE_ALLOW_ENDPOINTS"
OPTION = "--allow-endpoint"
_PORTS = {"http": 80, "https": 443}
# A whole address must be printable ASCII without the characters that parsers read in different ways (backslashes, white
# space, other scripts).
_ADDRESS = re.compile(r"[!-\[\]-~]{1,2048}")
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\]")


class PermissionFault(Exception):
    """The user's list of allowed hosts cannot be read, written or trusted; the message says what to change."""


def plain_url(endpoint: str) -> str:
    """An endpoint's URL. Raises ValueError if it is none, or holds a password, which would end in recipes and logs."""
    wrong = ValueError("endpoint is a URL such as http://127.0.0.1:8000/v1")
    if not _ADDRESS.fullmatch(endpoint):
        raise wrong
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise wrong
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("endpoint is a URL without user, password or query; a key goes into LONGTAKE_CAPTION_KEY")
    if not _HOST.fullmatch(_bracketed(parts.hostname)):
        raise wrong
    return endpoint.rstrip("/")


def host_of(url: str) -> str:
    """`host:port` of a URL that `plain_url` took, the port written out: what a permission names."""
    parts = urlsplit(url)
    return f"{_bracketed(parts.hostname or '')}:{parts.port or _PORTS[parts.scheme]}"


def parse_host(text: str) -> str:
    """`host:port` from what a user types: HOST (then the port is 443), HOST:PORT, or a whole URL. Raises ValueError."""
    text = text.strip()
    wrong = ValueError(f"{text!r} is no host: give HOST, HOST:PORT or the endpoint's URL")
    try:
        return host_of(plain_url(text if is_uri(text) else f"https://{text}"))
    except ValueError:
        raise wrong from None


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine itself, whatever any name server says."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Permission:
    """hosts: `host:port` that the user has allowed. own: addresses, `scheme://host:port`, that are the user's own word."""

    hosts: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()

    @classmethod
    def of_user(cls, own: Iterable[str] = ()) -> Permission:
        """What this user's file and environment allow. own: further URLs that the user gave. Raises PermissionFault."""
        try:
            named = {parse_host(text) for text in os.environ.get(ALLOWED, "").split(",") if text.strip()}
        except ValueError as error:
            raise PermissionFault(f"{ALLOWED}: {error}") from None
        urls = {_origin(plain_url(url)) for url in own}
        try:
            urls |= {_origin(plain_url(url)) for url in [os.environ.get(ENDPOINT)] if url}
        except ValueError as error:
            raise PermissionFault(f"{ENDPOINT}: {error}") from None
        return cls(frozenset(named | _remembered()), frozenset(urls))

    def may_ask(self, url: str) -> bool:
        """Whether pictures may be sent to a URL."""
        return _origin(url) in self.own or host_of(url) in self.hosts or is_loopback(url)

    def may_have_key(self, url: str) -> bool:
        """Whether a URL may be given a key. Over plain http to another machine, everybody on the way could read it: only
        the user's own word does that."""
        if _origin(url) in self.own:
            return True
        return host_of(url) in self.hosts and (url.startswith("https://") or is_loopback(url))


def permissions_file() -> Path:
    """Where a user's allowed hosts are kept: one `host:port` a line."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "longtake" / "endpoints"


def allow(text: str) -> str:
    """Allow a host for this user from now on; gives it as `host:port`. Raises ValueError for what is no host, and
    PermissionFault if it cannot be written."""
    host, path = parse_host(text), permissions_file()
    if host in _remembered():
        return host
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"{host}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise PermissionFault(f"cannot write {path}: {error.strerror}; or set {ALLOWED}={host}") from None
    return host


def _remembered() -> set[str]:
    path = permissions_file()
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (os.getuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionFault(
                    f"{path} can be written by others, so it allows nothing: chmod 600 it, or remove it"
                )
            lines = file.read().split()
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise PermissionFault(f"{path} cannot be read: {in_words(error)}") from None
    try:
        return {parse_host(line) for line in lines}
    except ValueError as error:
        raise PermissionFault(f"{path}: {error}") from None


def _origin(url: str) -> str:
    return f"{urlsplit(url).scheme}://{host_of(url)}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
