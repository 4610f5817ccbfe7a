"""A URI has an identity and an access.

The identity is what is stored, shown and hashed into ids: no user, no password, no signature. The access is the rest. It
stays in memory, and together they give the URI back. A signature that is renewed changes the access only, so the film is
the same film.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, quote_from_bytes, unquote, unquote_plus, unquote_to_bytes, urlsplit

# Query keys that are part of a signature or a key, in lower case: those of Azure, CloudFront, Google (V2), AWS (V2),
# Akamai, Alibaba and Tencent, and the names that people give to tokens of their own.
SECRET_KEYS = frozenset({
    "sig", "se", "sp", "sv",
    "signature", "expires", "key-pair-id",
    "googleaccessid", "awsaccesskeyid", "ossaccesskeyid",
    "q-ak", "q-signature", "auth_key", "authkey", "hmac", "sas",
    "hdnts", "hdnea", "hdntl", "__token__", "__gda__",
    "token", "access_token", "auth_token", "id_token", "session_token", "refresh_token", "jwt",
    "key", "api_key", "apikey", "api-key", "access_key", "secret", "secret_key", "client_secret",
    "auth", "authorization", "password", "passwd", "pwd", "passphrase", "credential", "credentials",
})  # fmt: skip
SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-tos-")
# Keys that belong to a signature only where one of these others is in the same query. By themselves they may name
# different films (`?st=12`, `?policy=open`).
_BESIDE: dict[str, frozenset[str]] = {
    "sig": frozenset({
        "ss", "srt", "sr", "st", "spr", "sip", "si", "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid",
        "sdd", "ses", "rscc", "rscd", "rsce", "rscl", "rsct",
    }),
    "key-pair-id": frozenset({"policy"}),
}  # fmt: skip
# Schemes whose addresses begin with a host or a bucket.
_WITH_HOST = {"http", "https", "s3", "gs", "az", "abfs", "abfss"}
# Schemes in which the text before an @ is a container and not a user.
_CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}
_HIDDEN = "…"
_LEAST_SECRET = 4  # Characters. A shorter text is no secret by itself, and blanking it would blank words as well.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PORT = re.compile(r"[^:]*(:\d*)?|\[[^\]]*\](:\d*)?")
_TAIL = re.compile(r"[?#]")
# In a text: a URI up to its @, and a query key with its value.
_USERINFO_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#'\"<>@]*(?:@[^\s/?#'\"<>@]*)*)@"
)
_KEY_IN_TEXT = re.compile(r"(?:[?&;#]|&amp;)([A-Za-z0-9_.%+-]{1,60})=")
_VALUE_IN_TEXT = re.compile(r"[^\s&#'\"<>;,)\]}]+")
# The same for a URI that is a value of another URI's query, with its signs written as percents once or several times.
_USERINFO_IN_VALUE = re.compile(
    r"(%(?:25)*3A(?:%(?:25)*2F){2})((?:(?!%(?:25)*(?:2F|3F|23|40))[^\s/?#&'\"<>@])+)%(?:25)*40", re.I
)
_KEY_IN_VALUE = re.compile(r"%(?:25)*(?:3F|26|23)([A-Za-z0-9_.+-]{1,60})%(?:25)*3D", re.I)
_VALUE_IN_VALUE = re.compile(r"(?:(?!%(?:25)*(?:26|23))[^\s&#'\"<>;,)\]}])+", re.I)
_PARAMETER = r"[A-Za-z0-9_.%+-]{1,60}="
_PIECE = re.compile(rf"(?:[?#&]|;(?={_PARAMETER}))(?:(?!;{_PARAMETER})[^?#&])*")
# Levels of URIs in one another that are searched for secrets, and of percents in one another. The work doubles with
# each level, and real links have fewer.
_NESTED = 4


@dataclass(frozen=True, slots=True)
class UriAccess:
    """What has to be added to an identity to read it. Never stored and never shown, so that its repr tells nothing.

    userinfo: before the @, as it was written. tail: the query and the fragment, as they were written, where a secret was
    among them. instead_of: what the identity has in their place; None: the tail is added to whatever is there.
    """

    userinfo: str | None = field(default=None, repr=False)
    tail: str | None = field(default=None, repr=False)
    instead_of: str | None = field(default=None, repr=False)

    def as_text(self) -> str:
        """For a worker, in memory."""
        return json.dumps([self.userinfo, self.tail, self.instead_of])

    @classmethod
    def of_text(cls, text: str) -> UriAccess:
        return cls(*json.loads(text))

    def secrets(self) -> list[str]:
        """Each text that must not be shown, the longest first: as it is written, and as a program may write it."""
        values = set()
        if self.userinfo:
            values |= {self.userinfo, self.userinfo.partition(":")[2] or self.userinfo}
        known = {piece[1:] for piece in _pieces(self.instead_of or "")}
        for piece in _pieces(self.tail or ""):
            if piece[1:] not in known:
                value = piece[1:].partition("=")[2]
                values |= {value, *_secrets_inside(value)}
        values |= {unquote(text) for text in values} | {unquote_plus(text) for text in values}
        return sorted((text for text in values if len(text) >= _LEAST_SECRET), key=len, reverse=True)


def split_uri(uri: str, secret_keys: Collection[str] = ()) -> tuple[str, UriAccess | None]:
    """The identity of a URI, and its access if it has one. A path, and a URI without a secret, is its own identity.

    secret_keys: query keys that are secret besides those of the known signers, in any case.
    """
    match = _URI.match(uri)
    if match is None or match[1].lower() == "file":
        return uri, None
    start, userinfo, rest = _userinfo(uri, match)
    cut = _TAIL.search(rest)
    head, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    open_tail = _without_secrets(tail, secret_keys)
    if userinfo is None and open_tail == tail:
        return uri, None
    signed = open_tail != tail
    return start + head + open_tail, UriAccess(userinfo, tail if signed else None, open_tail if signed else None)


def join_uri(identity: str, access: UriAccess | None) -> str:
    """The URI again. An access of another URI of the same host (or of the host itself) adds its user, and its query after
    the one that the identity has."""
    match = _URI.match(identity)
    if access is None or match is None:
        return identity
    start, rest = identity[: match.end()], identity[match.end() :]
    if access.tail is not None:
        cut = _TAIL.search(rest)
        head, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
        rest = head + (access.tail if access.instead_of == tail else _added(tail, access.tail))
    return start + (f"{access.userinfo}@" if access.userinfo is not None else "") + rest


def host_of(uri: str) -> str:
    """The host of a URI (with its port), the bucket of an object store, and the whole text of what is no URI."""
    match = _URI.match(uri)
    if match is None:
        return uri
    _, _, rest = _userinfo(uri, match)
    return re.split(r"[/?#]", rest, maxsplit=1)[0].lower()


def why_no_address(uri: str) -> str | None:
    """Why nothing can lie at a URI, in words: it names no host or bucket, or an impossible one. None: something may lie there."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        return "it is no address: its host or its port cannot be"
    if not host and parts.scheme in _WITH_HOST:
        return f"it is no address: no {'host' if parts.scheme in ('http', 'https') else 'bucket'} is named in it"
    return None


def scheme_of(uri: str) -> str | None:
    """The scheme of a URI, in lower case; None for a path."""
    match = _URI.match(uri)
    return match[1].lower() if match else None


def redact(text: str, accesses: Iterable[UriAccess | None] = (), secret_keys: Collection[str] = ()) -> str:
    """A text for people without what lets one in: users and passwords in URIs, the values of secret query keys, and every
    secret of `accesses`, in whatever form it stands there."""
    for access in accesses:
        for secret in access.secrets() if access else ():
            text = text.replace(secret, _HIDDEN)
    text = _USERINFO_IN_TEXT.sub(lambda m: m[0] if _is_container(m[1], m[2]) else f"{m[1]}{_HIDDEN}@", text)
    beside = _beside(text)

    for key, value in ((_KEY_IN_TEXT, _VALUE_IN_TEXT), (_KEY_IN_VALUE, _VALUE_IN_VALUE)):
        text = _without_values(text, key, value, lambda name: _is_secret(name, secret_keys, beside))
    return _USERINFO_IN_VALUE.sub(lambda m: f"{m[1]}{_HIDDEN}%40", text)


def path_of(uri: str) -> str:
    """The path that a `file:` URI names, its percent signs decoded; bytes that are no UTF-8 as Python has them in names."""
    rest = uri[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path if host.lower() in ("", "localhost") else rest[2:]
    return os.fsdecode(unquote_to_bytes(rest.encode("utf-8", "surrogateescape")))


def stored_path(path: str) -> str:
    """How a local path is stored: as it is, and as a `file://` URI if it is no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def _userinfo(uri: str, match: re.Match[str]) -> tuple[str, str | None, str]:
    """The scheme, the user and password, and what follows the @."""
    start, rest = uri[: match.end()], uri[match.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        userinfo, _, host = authority.rpartition("@")
        if _is_container(start, userinfo):
            return start, None, rest
        return start, userinfo, host + rest[len(authority) :]
    # The text after the colon is no port, so it is a password that holds a slash, a question mark or a hash sign
    # unescaped.
    if ":" in authority and "@" in rest and not _PORT.fullmatch(authority):
        userinfo, _, host = rest.partition("@")
        return start, userinfo, host
    return start, None, rest


def _is_container(start: str, userinfo: str) -> bool:
    return start.rstrip(":/").lower() in _CONTAINERS and ":" not in userinfo


def _is_secret(key: str, more: Collection[str], beside: Collection[str]) -> bool:
    name = unquote_plus(key).strip().lower()
    return (
        name in SECRET_KEYS or name.startswith(SECRET_PREFIXES) or name in beside or name in {m.lower() for m in more}
    )


def _beside(tail: str) -> frozenset[str]:
    """The keys that are secret in this query because of another one that stands there."""
    keys = {unquote_plus(key).lower() for key in re.findall(r"[?&#;]([^?&#;=\s]+)=", tail)}
    return frozenset().union(*(with_it for key, with_it in _BESIDE.items() if key in keys))


def _pieces(tail: str) -> list[str]:
    """The parts of a query and a fragment, each with the mark before it."""
    return _PIECE.findall(tail)


def _without_values(text: str, key: re.Pattern[str], value: re.Pattern[str], is_secret: Callable[[str], bool]) -> str:
    """A text in which the values of secret keys are hidden."""
    kept, at = [], 0
    for match in key.finditer(text):
        if match.start() >= at and is_secret(match[1]) and (hidden := value.match(text, match.end())):
            kept += [text[at : match.end()], _HIDDEN]
            at = hidden.end()
    return "".join(kept) + text[at:]


def _without_secrets(tail: str, secret_keys: Collection[str] = (), depth: int = _NESTED) -> str:
    """A query and fragment without what is secret. depth: how many URIs in one another are still looked into."""
    beside = _beside(tail)
    kept, lost = "", ""
    for piece in _pieces(tail):
        key, equals, value = piece[1:].partition("=")
        # A value may hold semicolons: the text after a secret's semicolon belongs to the secret.
        if (equals and _is_secret(key, secret_keys, beside)) or (lost and piece[0] == ";"):
            lost = lost or piece[0]
        else:
            # Where the secret opened the query or the fragment, the piece after it opens it now.
            mark = lost if piece[0] == "&" and lost in ("?", "#") else piece[0]
            kept += mark + key + equals + (_open_value(value, secret_keys, depth) if depth else value)
            lost = ""
    return kept


def _open_value(value: str, secret_keys: Collection[str], depth: int) -> str:
    """The value of a query's key; a URI with secrets in it, as its identity, written with percents as it was."""
    text, opened, times = value, value, 0
    while times <= _NESTED and opened == text:
        text = _decoded(text) if times else value
        opened = _open_text(text, secret_keys, depth - 1)
        times += 1
    if opened == text:
        return value
    for _ in range(times - 1):
        opened = quote(opened, safe="", errors="backslashreplace")
    return _open_value(opened, secret_keys, depth)


def _open_text(text: str, secret_keys: Collection[str], depth: int) -> str:
    """The identity of a URI, or of what follows a host, that stands in another URI."""
    if match := _URI.match(text):
        start, _, text = _userinfo(text, match)
    else:
        start = ""
    cut = _TAIL.search(text)
    return start + (text[: cut.start()] + _without_secrets(text[cut.start() :], secret_keys, depth) if cut else text)


def _secrets_inside(value: str) -> set[str]:
    """What is secret in a URI that is the value of a query's key."""
    for _ in range(_NESTED + 1):
        access = split_uri(value)[1]
        if access is not None:
            return set(access.secrets())
        value = _decoded(value)
    return set()


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _added(tail: str, more: str) -> str:
    """A query with the pieces of another one behind it, and its fragment last."""
    query, mark, fragment = tail.partition("#")
    further = [piece[1:] for piece in _pieces(more.partition("#")[0])]
    known = {piece[1:] for piece in _pieces(query)}
    joined = "&".join(piece for piece in further if piece not in known)
    return query + (("&" if query else "?") + joined if joined else "") + mark + fragment
