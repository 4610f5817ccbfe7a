"""A simulated disk: what a process wrote is seen by all at once, and survives a power cut only as far as it was synced.

Files keep their synced bytes beside their present ones; folders keep the entries that were synced and, in order, the changes
since. After a power cut a folder has a part of these changes, from the first on, and a file that was not synced since it was
written has some beginning of its new bytes, perhaps none. That is what POSIX promises, and what journaling filesystems do.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class File:
    """The bytes of a file, and those that are on the platter."""

    data: bytes = b""
    synced: bytes = b""
    modified: float = 0.0
    links: int = 0
    locked_by: Any = None  # The process and the descriptor that hold an exclusive lock.
    durable: bool = False  # Whether `synced` has a value.

    def power_cut(self, chance: random.Random) -> None:
        if self.data != self.synced:
            # A torn write: some beginning of the new bytes, over what was there.
            self.data = self.data[: chance.randint(0, len(self.data))] if chance.random() < 0.7 else self.synced
        self.synced = self.data
        self.locked_by = None


@dataclass(eq=False)
class Directory:
    """The entries of a folder, and those that are on the platter with the changes that are not yet."""

    entries: dict[str, File | Directory] = field(default_factory=dict)
    synced: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[tuple[str, File | Directory | None]] = field(default_factory=list)
    locked_by: Any = None
    attributes: dict[str, bytes] = field(default_factory=dict)
    earlier: list[dict[str, bytes]] = field(default_factory=lambda: [{}])  # Attributes before each change of them.

    def put(self, name: str, what: File | Directory | None) -> None:
        """Add or replace an entry, or remove it (None)."""
        if what is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = what
        self.pending.append((name, what))

    def sync(self) -> None:
        self.synced, self.pending = dict(self.entries), []

    def power_cut(self, chance: random.Random) -> None:
        entries = dict(self.synced)
        for name, what in self.pending[: chance.randint(0, len(self.pending))]:
            if what is None:
                entries.pop(name, None)
            else:
                entries[name] = what
        self.entries = entries
        self.sync()
        if chance.random() < 0.5:  # No caller syncs attributes: any earlier ones may be left.
            self.attributes = chance.choice(self.earlier)
        self.earlier = [self.attributes]
        self.locked_by = None
        for what in self.entries.values():
            what.power_cut(chance)


def error(number: int, path: str = "") -> OSError:
    """As the system raises it: of the class for its number."""
    return OSError(number, os.strerror(number), path)


class Disk:
    """A filesystem of simulated files, by absolute path."""

    def __init__(self) -> None:
        self.root = Directory()

    def find(self, path: str) -> File | Directory:
        """Raises FileNotFoundError, NotADirectoryError."""
        here: File | Directory = self.root
        for name in _names(path):
            if not isinstance(here, Directory):
                raise error(errno.ENOTDIR, path)
            if name not in here.entries:
                raise error(errno.ENOENT, path)
            here = here.entries[name]
        return here

    def folder_of(self, path: str) -> tuple[Directory, str]:
        """The folder that has (or will have) a path, and the path's last name. Raises FileNotFoundError."""
        *_, last = _names(path)
        folder = self.find(posixpath.dirname(path))
        if not isinstance(folder, Directory):
            raise error(errno.ENOTDIR, path)
        return folder, last

    def power_cut(self, chance: random.Random) -> None:
        """What is left when the power comes back."""
        self.root.power_cut(chance)

    def walk(self) -> Iterator[tuple[str, File]]:
        """All files by path."""
        stack: list[tuple[str, Directory]] = [("", self.root)]
        while stack:
            path, folder = stack.pop()
            for name, what in folder.entries.items():
                if isinstance(what, Directory):
                    stack.append((f"{path}/{name}", what))
                else:
                    yield f"{path}/{name}", what


def _names(path: str) -> list[str]:
    return [name for name in posixpath.normpath(path).split("/") if name not in ("", ".")]


class Handle(io.RawIOBase):
    """An open file."""

    def __init__(self, os_: Machine, file: File, path: str, mode: str) -> None:
        super().__init__()
        self._os, self._file, self._at = os_, file, len(file.data) if "a" in mode else 0
        self._mode, self.path = mode, path
        self._number = os_.number(file)

    def fileno(self) -> int:
        return self._number

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "r" not in self._mode

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: len(self._file.data)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return len(self._file.data)

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._file.data) if size is None or size < 0 else self._at + size
        data = self._file.data[self._at : end]
        self._at += len(data)
        return data

    def write(self, data: Any) -> int:
        data = bytes(data)
        fault = self._os.step("write", self.path)
        if fault == "torn":  # The disk becomes full in the middle.
            data = data[: len(data) // 2]
        at = len(self._file.data) if "a" in self._mode else self._at
        self._file.data = self._file.data[:at] + data + self._file.data[at + len(data) :]
        self._file.modified = self._os.world.now
        self._at = at + len(data)
        if fault == "torn":
            raise error(errno.ENOSPC, self.path)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""


class Machine:
    """The functions of `os`, `fcntl` and `open` for one process, over a disk. Each asks the world first."""

    def __init__(self, world: Any, process: Any, disk: Disk) -> None:
        self.world, self.process, self.disk = world, process, disk
        self._open: dict[int, Any] = {}
        self._next = 3

    def step(self, call: str, path: str = "") -> str | None:
        """Raises OSError where the world wants one at this call."""
        fault: str | None = self.world.step(self.process, f"os.{call}")
        if fault == "error":
            raise error(self.world.random.choice([errno.EIO, errno.ENOSPC]), path)
        return fault

    def number(self, what: Any) -> int:
        """A new descriptor."""
        self._next += 1
        self._open[self._next] = what
        return self._next

    # ── open ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: Any, mode: str = "r", *_: Any, **__: Any) -> Handle | io.BytesIO:
        path = os.fspath(path)
        if path == "/proc/sys/kernel/random/boot_id":
            return io.BytesIO(f"{self.process.host.name}-{self.world.boots}".encode())
        self.step(f"open({mode})", path)
        if "r" in mode:
            file = self.disk.find(path)
        else:
            folder, name = self.disk.folder_of(path)
            there = folder.entries.get(name)
            if there is not None and "x" in mode:
                raise error(errno.EEXIST, path)
            if there is None:
                there = File(modified=self.world.now, links=1)
                folder.put(name, there)
            elif "w" in mode and isinstance(there, File):
                there.data = b""
            file = there
        if isinstance(file, Directory):
            raise error(errno.EISDIR, path)
        return Handle(self, file, path, mode)

    def os_open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        path = os.fspath(path)
        self.step("open", path)
        try:
            found = self.disk.find(path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            folder, name = self.disk.folder_of(path)
            found = File(modified=self.world.now, links=1)
            folder.put(name, found)
        else:
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise error(errno.EEXIST, path)
        return self.number(found)

    def close(self, number: int) -> None:
        what = self._open.pop(number, None)
        if what is not None and what.locked_by == (self.process, number):
            what.locked_by = None
            self.process.locks.discard(number)

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def fsync(self, number: int) -> None:
        self.step("fsync")
        what = self._open[number]
        if isinstance(what, Directory):
            what.sync()
        else:
            what.synced = what.data

    def ftruncate(self, number: int, size: int) -> None:
        self.step("ftruncate")
        self._open[number].data = self._open[number].data[:size].ljust(size, b"\0")

    def pread(self, number: int, size: int, offset: int) -> bytes:
        self.step("pread")
        data: bytes = self._open[number].data[offset : offset + size]
        return data

    def pwrite(self, number: int, data: bytes, offset: int) -> int:
        self.step("pwrite")
        file = self._open[number]
        file.data = file.data[:offset] + bytes(data) + file.data[offset + len(data) :]
        return len(data)

    def getxattr(self, number: int, name: str) -> bytes:
        self.step("getxattr")
        attributes: dict[str, bytes] = self._open[number].attributes
        if name not in attributes:
            raise error(errno.ENODATA)
        return attributes[name]

    def setxattr(self, number: int, name: str, value: bytes) -> None:
        self.step("setxattr")
        folder = self._open[number]
        folder.earlier.append(folder.attributes)
        folder.attributes = {**folder.attributes, name: value}

    def removexattr(self, number: int, name: str) -> None:
        self.step("removexattr")
        folder = self._open[number]
        folder.earlier.append(folder.attributes)
        folder.attributes = {one: value for one, value in folder.attributes.items() if one != name}

    # ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def replace(self, source: str, target: str) -> None:
        self.step("replace", target)
        folder, name = self.disk.folder_of(source)
        if name not in folder.entries:
            raise error(errno.ENOENT, source)
        into, new = self.disk.folder_of(target)
        what = folder.entries[name]
        folder.put(name, None)
        into.put(new, what)

    def link(self, source: str, target: str) -> None:
        self.step("link", target)
        what = self.disk.find(source)
        folder, name = self.disk.folder_of(target)
        if name in folder.entries:
            raise error(errno.EEXIST, target)
        folder.put(name, what)

    def unlink(self, path: str) -> None:
        self.step("unlink", path)
        folder, name = self.disk.folder_of(path)
        if name not in folder.entries:
            raise error(errno.ENOENT, path)
        folder.put(name, None)

    def makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        self.step("makedirs", path)
        here: Any = self.disk.root
        made = False
        for name in _names(path):
            if name not in here.entries:
                here.put(name, Directory())
                made = True
            here = here.entries[name]
            if not isinstance(here, Directory):
                raise error(errno.EEXIST, path)
        if not made and not exist_ok:
            raise error(errno.EEXIST, path)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self.step("mkdir", path)
        folder, name = self.disk.folder_of(path)
        if name in folder.entries:
            raise error(errno.EEXIST, path)
        folder.put(name, Directory())

    def listdir(self, path: str) -> list[str]:
        """A folder is read in pieces, as large ones are: what comes or goes meanwhile may be seen or not."""
        self.step("listdir", path)
        folder = self.disk.find(path)
        if not isinstance(folder, Directory):
            raise error(errno.ENOTDIR, path)
        chance = self.world.random
        names = sorted(folder.entries)
        chance.shuffle(names)  # A folder lists its names in the order of a hash table.
        half = chance.randint(0, len(names))
        seen = names[:half]
        if len(names) > 1:
            self.pause()
        rest = [name for name in names[half:] if name in folder.entries]
        new = [name for name in sorted(set(folder.entries) - set(names)) if chance.random() < 0.5]
        return seen + rest + new

    def pause(self) -> None:
        """Others may run."""
        self.world.linger(self.process)

    def stat(self, path: Any, **_: Any) -> os.stat_result:
        if os.fspath(path).startswith("/proc/"):
            return os.stat_result((stat.S_IFREG | 0o755, 1, 1, 1, 0, 0, 0, 0.0, 0.0, 0.0))
        self.step("stat", os.fspath(path))
        what = self.disk.find(os.fspath(path))
        kind = stat.S_IFDIR if isinstance(what, Directory) else stat.S_IFREG
        size = 0 if isinstance(what, Directory) else len(what.data)
        modified = 0.0 if isinstance(what, Directory) else what.modified
        return os.stat_result((kind | 0o755, id(what), 1, 1, 0, 0, size, modified, modified, modified))

    def fstat(self, number: int) -> os.stat_result:
        what = self._open[number]
        return os.stat_result((stat.S_IFREG | 0o755, id(what), 1, 1, 0, 0, 0, 0.0, 0.0, 0.0))

    def exists(self, path: Any) -> bool:
        try:
            self.stat(path)
        except OSError:
            return False
        return True

    # ── locks ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def flock(self, number: int, how: int) -> None:
        import fcntl

        what = self._open[number]
        if how & fcntl.LOCK_UN:
            if what.locked_by == (self.process, number):
                what.locked_by = None
                self.process.locks.discard(number)
            return
        self.step("flock")

        def taken() -> bool:
            holder = what.locked_by
            return holder is not None and not holder[0].dead and holder != (self.process, number)

        if how & fcntl.LOCK_SH:
            return
        if taken():
            if how & fcntl.LOCK_NB:
                raise error(errno.EAGAIN)
            self.world.wait_while(self.process, taken)
        what.locked_by = (self.process, number)
        self.process.locks.add(number)


def in_pieces(first: list[str], now: Any, pause: Any, chance: random.Random) -> Iterator[str]:
    """A listing of names in order that is no snapshot: each half is what is there when it is read."""
    half = chance.randint(0, len(first))
    yield from first[:half]
    if len(first) > 1:
        pause()
    edge = first[half - 1] if half else ""
    yield from sorted(name for name in now() if name > edge)
