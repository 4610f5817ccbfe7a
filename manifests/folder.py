"""A folder: one door to a place where files lie, on a disk of this machine or behind a URI that fsspec knows.

Everything that asks "local or remote?" asks here. A whole file appears at once or not at all: on a disk under a temporary
name that is synced and then renamed, in an object store by one put. So a reader never sees half a file, and what a row
names is on the disk before the row is.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from longtake.manifests.uris import path_of, scheme_of, split_uri

# Object stores: an object appears whole when its upload ends. Elsewhere (sftp, hdfs, smb, …) a file is uploaded under a
# temporary name and then renamed.
_ATOMIC_PUT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}
# Stores whose fsspec filesystem turns `mode="create"` into a conditional put.
_CONDITIONAL_PUT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"}
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
_appending = threading.Lock()  # Two threads that read, extend and write the same object would lose one addition.
_on_disk: set[str] = set()  # The folders whose names this process has synced.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class FolderError(Exception):
    """A place cannot be opened: the protocol of its URI is unknown, or the package for it is not installed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a folder. name: relative to the folder, with slashes. size: bytes, and modified: seconds since 1970; None
    where the store does not say."""

    name: str
    size: int | None
    modified: float | None = None


def is_uri(text: str) -> bool:
    """Whether a text is a URI and not a path of this machine: it begins with a scheme (`s3://`, `file://`)."""
    return _SCHEME.match(text) is not None


def local_path(uri: str) -> Path | None:
    """The path of this machine that a URI or a path names, made absolute; None if it is remote."""
    if uri.startswith("file://"):
        return Path(path_of(uri))
    return None if is_uri(uri) else Path(uri).absolute()


def in_words(error: BaseException) -> str:
    """What happened. An error of the system is told by its text, without its number and the name of its file, which the
    message around it gives; any other by its own text, and by its type where that alone says what it is."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        known = os.strerror(number)
        # Libraries have numbers of their own, such as FFmpeg's.
        return getattr(error, "strerror", None) or known if known.startswith("Unknown error") else known
    text = str(error).strip()
    return text if text and isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}".rstrip(": ")


def folder_by_name(place: str | os.PathLike[str]) -> Folder:
    """A folder that a person names. Its name reaches manifests, messages and the arguments of jobs, so none may hold a
    secret. Raises FolderError."""
    identity, access = split_uri(os.fspath(place))
    # A user by itself is no secret, and some servers (sftp) need it.
    if access is not None and (
        access.tail is not None or ":" in (access.userinfo or "") or scheme_of(identity) == "s3"
    ):
        raise FolderError(
            f"{identity}: the address of a folder is written into rows and logs, so it may hold no user, password or signature: "
            "give them in the environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        )
    folder = Folder(place)
    try:
        folder.root.encode()
    except UnicodeEncodeError:
        raise FolderError(
            f"{folder.root}: its name is no UTF-8, so no Parquet file in it can be read: rename the folder, or choose another one"
        ) from None
    return folder


class Folder:
    """A folder by its path (made absolute, so that all workers agree on it) or its URI. Making one touches nothing; folders
    come into being when the first file is written. It can be pickled.

    place: `/data/ws`, `ws`, `file:///data/ws`, `s3://bucket/ws`. Raises FolderError.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        place = os.fspath(place)
        if place.startswith("file://"):
            place = path_of(place)
        if is_uri(place):
            try:
                self.filesystem, root = fsspec.core.url_to_fs(place)
            except (ImportError, ValueError) as error:
                raise FolderError(f"{place}: {error}") from error
            self.root = str(root).rstrip("/")
        else:
            self.filesystem, self.root = LocalFileSystem(), os.path.abspath(place)

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` in this one."""
        inner = object.__new__(Folder)
        inner.filesystem, inner.root = self.filesystem, f"{self.root}/{name.strip('/')}"
        return inner

    def __getstate__(self) -> dict[str, Any]:
        return {"filesystem": self.filesystem, "root": self.root}

    @cached_property
    def is_local(self) -> bool:
        """Whether it is on a disk that this machine has mounted."""
        return isinstance(self.filesystem, LocalFileSystem)

    @cached_property
    def uri(self) -> str:
        """The folder as people write it: an absolute path, or a URI. What pandas and DuckDB take."""
        return self.root if self.is_local else str(self.filesystem.unstrip_protocol(self.root))

    @cached_property
    def path(self) -> Path:
        """The folder as a path. Raises ValueError unless it is local."""
        if not self.is_local:
            raise ValueError(f"{self.uri} is not a folder of this machine")
        return Path(self.root)

    def file(self, name: str) -> str:
        """A file's address, for messages and for people: an absolute path, or a URI."""
        return f"{self.uri}/{name}"

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, name: str) -> BinaryIO:
        """A file for reading, seekable. Raises FileNotFoundError, OSError, and of a remote store what its client raises."""
        if self.is_local:
            return open(f"{self.root}/{name}", "rb")
        return cast(BinaryIO, self.filesystem.open(f"{self.root}/{name}", "rb"))

    def open_by_range(self, name: str) -> BinaryIO:
        """As `open`, for who reads a few ranges and knows which: of a remote file just these are fetched. By default its client
        fetches megabytes around what is asked for, ahead of who reads on."""
        if self.is_local:
            return self.open(name)
        return cast(BinaryIO, self.filesystem.open(f"{self.root}/{name}", "rb", cache_type="none"))

    def read(self, name: str, at_most: int | None = None) -> bytes:
        """The bytes of a file, or its first `at_most` ones. Raises as `open` does."""
        if self.is_local:
            with self.open(name) as file:
                return file.read() if at_most is None else file.read(at_most)
        self.filesystem.invalidate_cache(self.root)
        return bytes(self.filesystem.cat_file(f"{self.root}/{name}", end=at_most))

    def exists(self, name: str = "") -> bool:
        """Whether a file or a folder of that name is there now."""
        if self.is_local:
            return os.path.exists(f"{self.root}/{name}")
        self.filesystem.invalidate_cache(self.root)
        return bool(self.filesystem.exists(f"{self.root}/{name}".rstrip("/")))

    def names(self) -> list[str]:
        """The names of what lies directly in the folder, in no order; none if there is no such folder. Raises
        NotADirectoryError if it is a file, and OSError."""
        try:
            if self.is_local:
                return os.listdir(self.root)
            self.filesystem.invalidate_cache(self.root)
            listed: list[str] = self.filesystem.ls(self.root, detail=False)
        except FileNotFoundError:
            return []
        if listed == [self.root] and self.filesystem.isfile(self.root):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.uri)
        return [name.rstrip("/").rsplit("/", 1)[-1] for name in listed if name.rstrip("/") != self.root]

    def entries(self) -> Iterator[Entry]:
        """All files below the folder, those in folders of it too, without temporary ones, in no order."""
        if not self.is_local:
            self.filesystem.invalidate_cache(self.root)
            try:
                listing = self.filesystem.find(self.root, detail=True)
            except FileNotFoundError:
                return
            for path, info in sorted(listing.items()):
                name = path[len(self.root) :].lstrip("/")
                if name and not _TEMPORARY.fullmatch(name.rsplit("/", 1)[-1]):
                    size = info.get("size")
                    yield Entry(name, None if size is None else int(size), seconds_of(info))
            return
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                if not _TEMPORARY.fullmatch(name):
                    with suppress(FileNotFoundError):
                        listing = os.stat(path)
                        if stat.S_ISREG(listing.st_mode):
                            yield Entry(os.path.relpath(path, self.root), listing.st_size, listing.st_mtime)

    def modified(self, name: str) -> datetime:
        """When a file was written last. Raises FileNotFoundError, OSError, NotImplementedError."""
        when: datetime = self.filesystem.modified(f"{self.root}/{name}")
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def write_whole(self, name: str, data: bytes | memoryview) -> None:
        """Write a file so that others see the old one or the whole new one, and a power cut leaves one of the two. Raises
        OSError, and of a remote store what its client raises."""
        with self.prepared(name, data) as give:
            give(name)

    @contextmanager
    def prepared(self, name: str, data: bytes | memoryview) -> Iterator[Callable[[str], None]]:
        """For a file whose final name is known only at the last moment. In the block the data is on the disk already, under
        a temporary name beside `name`; the function that the block gets gives it the name it is called with, in the same
        folder. (An object store has no temporary name: there the function puts.) Raises as `write_whole` does."""
        if self.puts_whole:
            yield lambda final: self.filesystem.pipe_file(f"{self.root}/{final}", bytes(data))
        elif self.is_local:
            with self._part(name) as part:
                with open(part, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield lambda final: os.replace(part, f"{self.root}/{final}")
            _sync_folder(os.path.dirname(f"{self.root}/{name}"))
        else:
            with self._uploaded(name) as part:
                self.filesystem.pipe_file(part, bytes(data))
                yield lambda final: self.filesystem.mv(part, f"{self.root}/{final}")

    @contextmanager
    def whole_file(self, name: str) -> Iterator[Path]:
        """A path to write a file to, for what wants a path or writes much; it takes its name when the block ends well, and
        otherwise nothing is left. For a remote folder the path is a temporary one of this machine."""
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="longtake-") as scratch:
                path = Path(scratch) / name.rsplit("/", 1)[-1]
                yield path
                self.put(path, name)
            return
        with self._part(name) as part:
            yield Path(part)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, f"{self.root}/{name}")
        _sync_folder(os.path.dirname(f"{self.root}/{name}"))

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine into the folder, whole. Raises as `write_whole` does."""
        if self.is_local:
            with self.whole_file(name) as part:
                shutil.copyfile(path, part)
        elif self.puts_whole:
            self.filesystem.put_file(str(path), f"{self.root}/{name}")
        else:
            with self._uploaded(name) as part:
                self.filesystem.put_file(str(path), part)
                self.filesystem.mv(part, f"{self.root}/{name}")

    def create_only(self, name: str, data: bytes) -> None:
        """Write a file that is not there yet, whole; of many that try, one succeeds. Raises FileExistsError if it is there.

        On a disk the name is taken by a link, which the kernel refuses if it exists. An object store does it by a
        conditional put (S3's If-None-Match, GCS's ifGenerationMatch, Azure's If-None-Match). Where the store has neither
        (sftp, hdfs, …), the file is looked for first, and two at the same moment may both succeed.
        """
        path = f"{self.root}/{name}"
        if self.is_local:
            with self._part(name) as part:
                with open(part, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                _link_new(part, path, data)
            _sync_folder(os.path.dirname(path))
            return
        if _CONDITIONAL_PUT.isdisjoint(self.protocols):
            if self.exists(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.file(name))
            self.write_whole(name, data)
            return
        try:
            self.filesystem.pipe_file(path, data, mode="create")
        except FileExistsError:
            raise
        except Exception as error:
            if _is_refused_precondition(error):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.file(name)) from error
            raise

    def append(self, name: str, data: bytes) -> None:
        """Add bytes to the end of a file, and sync it. A store that cannot append has the file written anew, whole: there a
        file has one process that appends to it."""
        if not self.is_local:
            with _appending:
                try:
                    before = self.read(name)
                except FileNotFoundError:
                    before = b""
                self.write_whole(name, before + data)
            return
        path = f"{self.root}/{name}"
        _make_folder(os.path.dirname(path))
        new = not os.path.exists(path)
        with open(path, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(os.path.dirname(path))

    def link(self, source: Folder, name: str, target: str) -> None:
        """Let `target` of this folder be the file `name` of `source`: by a hard link on one disk, by a copy that the store
        makes itself, else by a copy. A file that is there is replaced, whole."""
        if self.is_local and source.is_local:
            origin, path = f"{source.root}/{name}", f"{self.root}/{target}"
            with suppress(OSError):
                if os.path.samefile(origin, path):
                    return
            with self._part(target) as part:
                try:
                    os.link(origin, part)
                except OSError:  # The target is on another disk, or the filesystem has no links.
                    shutil.copyfile(origin, part)
                    with open(part, "rb") as file:
                        os.fsync(file.fileno())
                os.replace(part, path)
        elif type(self.filesystem) is type(source.filesystem) and self.filesystem == source.filesystem:
            self.filesystem.cp_file(f"{source.root}/{name}", f"{self.root}/{target}")
        else:
            with tempfile.TemporaryDirectory(prefix="longtake-") as scratch:
                copy = Path(scratch) / "file"
                source.filesystem.get_file(f"{source.root}/{name}", str(copy))
                self.put(copy, target)

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already. Raises OSError."""
        with suppress(FileNotFoundError):
            self.filesystem.rm_file(f"{self.root}/{name}")

    def remove_all(self) -> None:
        """Remove the folder and all that is in it; it may be gone already. A link to elsewhere is removed as a link."""
        if self.is_local:
            if os.path.islink(self.root):
                os.unlink(self.root)
            else:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self.root)
        elif self.exists():
            self.filesystem.rm(self.root, recursive=True)

    def remove_abandoned(self, older_than: float) -> int:
        """Remove temporary files in this folder (not in those below it) whose writers died: those older than so many
        seconds. How many; what cannot be looked at stays."""
        removed = 0
        for name in self.names():
            if _TEMPORARY.fullmatch(name):
                with suppress(OSError, NotImplementedError):
                    if time.time() - self.modified(name).timestamp() > older_than:
                        self.remove(name)
                        removed += 1
        return removed

    # ── how it is done ───────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def protocols(self) -> set[str]:
        """The schemes that the filesystem serves."""
        protocol = self.filesystem.protocol
        return {protocol} if isinstance(protocol, str) else set(protocol)

    @cached_property
    def puts_whole(self) -> bool:
        """Whether a remote file appears whole when its upload ends."""
        return not self.is_local and not _ATOMIC_PUT.isdisjoint(self.protocols)

    @contextmanager
    def _part(self, name: str) -> Iterator[str]:
        """A temporary path on the disk, beside the file it becomes; removed unless it was renamed."""
        folder, _, last = f"{self.root}/{name}".rpartition("/")
        _make_folder(folder)
        # A leading dot and another ending: neither a glob for *.parquet nor pandas on the folder takes it for a file.
        part = f"{folder}/{temporary_name(last)}"
        try:
            yield part
        finally:
            with suppress(OSError):
                os.unlink(part)

    @contextmanager
    def _uploaded(self, name: str) -> Iterator[str]:
        """A temporary name in a store whose uploads can be seen half done; removed if the block fails."""
        folder, _, last = f"{self.root}/{name}".rpartition("/")
        self.filesystem.makedirs(folder, exist_ok=True)
        part = f"{folder}/{temporary_name(last)}"
        try:
            yield part
        except BaseException:
            with suppress(Exception):
                self.filesystem.rm_file(part)
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name, synced, when the block ends well; otherwise nothing is left."""
    with Folder(path.parent).whole_file(path.name) as part:
        yield part


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder of this machine. One that is there already is removed first."""
    remove_folder(path)
    part = path.with_name(f".{path.name}.part")
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
        os.replace(part, path)
        _sync_folder(str(path.parent))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder of this machine, if there is one, and what a killed `whole_folder` left of it; nobody sees half of it.
    A link (to another disk, say) is removed as a link: what lies there is somebody's own."""
    part = path.with_name(f".{path.name}.part")
    _remove(part)
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        os.replace(path, part)
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def temporary_name(name: str) -> str:
    """What a file is called while it is being written: hidden, and told from others that are written at the same moment."""
    return f".{name}.{uuid.uuid4().hex[:8]}.tmp"


def _link_new(part: str, path: str, data: bytes) -> None:
    try:
        os.link(part, path)
        return
    except FileExistsError:
        raise
    except OSError:
        # The filesystem has no links: `open` is exclusive, too, but a reader may see the file before it is whole.
        pass
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _is_refused_precondition(error: BaseException) -> bool:
    """Whether a store answered 412, or 409 to a put at the same moment: somebody else's object is there."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in (409, 412) or response.get("Error", {}).get("Code") in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
            ):
                return True
        if getattr(seen, "code", None) in (409, 412) or getattr(seen, "status_code", None) in (409, 412):
            return True
        if getattr(seen, "errno", None) == errno.EEXIST:
            return True
        seen = seen.__cause__ or seen.__context__
    return "At least one of the pre-conditions" in str(error)


def seconds_of(info: Mapping[str, Any]) -> float | None:
    """When a file was written last, in seconds since 1970, as the listing of an fsspec filesystem tells; None if it does not."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _make_folder(path: str) -> None:
    """Make a folder, and those above it, so that they survive a power cut: a file that is synced in a folder whose own name
    is not on the disk is lost with it. A folder that is there may have been made by another process a moment ago, so the names
    above it are synced once by each process that writes into it."""
    there = os.path.exists(path)
    if there and path in _on_disk:
        return
    if not there:
        os.makedirs(path, exist_ok=True)
    above = path
    while (parent := os.path.dirname(above)) != above:
        with suppress(OSError):  # A folder above the workspace that this user may not open is older than this run.
            _sync_folder(parent)
        above = parent
    _on_disk.add(path)


def _sync_folder(path: str) -> None:
    """Make a rename in this folder survive a power cut; without it the file may be gone after one, though not torn."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
