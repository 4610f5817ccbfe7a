"""A workspace has one run at a time, or several that each have a part of the videos. A further run stops with the name of
the holder.

On a local filesystem the lock is the kernel's (`flock` on `WORKSPACE/.lock`): exact, and lifted when its holder dies,
however it dies. Elsewhere it is an object that is created by a conditional put and kept alive by a heartbeat. That rests on
clocks that agree within a minute. A lock whose holder was silent for two minutes, or whose process on this machine is gone, is
taken over, by one only (`_take_over`). A holder that was frozen so long learns of it from `check`, which a run calls before
each batch and each compaction: appended rows do no harm, but two that compact at the same moment would.

A run with `--part I/N` holds `.lock` together with the other parts, and its own part alone. One of them compacts at a time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from longtake.manifests.folder import in_words
from longtake.manifests.parts import StoreError, guard, open_folder

HEARTBEAT_SECONDS = 30.0  # Seconds between two heartbeats of the holder of a remote lock.
STALE_SECONDS = 120.0  # Seconds without a heartbeat after which the holder of a remote lock counts as dead.
# Seconds after which the objects of two runs that take a remote lock at the same moment are both visible.
SETTLE_SECONDS = 1.0

_NAME = ".lock"
_LOCKS = ".locks"  # The folder of the locks of parts, and of the turn to compact.
_COMPACTING = f"{_LOCKS}/compacting"
_TURN_SECONDS = 0.2  # Seconds between two looks at whose turn it is to compact.
log = logging.getLogger(__name__)
_held_files: set[int] = set()


class WorkspaceBusy(Exception):
    """Another run writes to this workspace. The message names the run and the time of its start; `holder` is the content of
    the lock."""

    def __init__(self, message: str, holder: dict[str, Any] | None = None) -> None:
        super().__init__(message, holder)
        self.holder = holder or {}

    def __str__(self) -> str:
        return str(self.args[0])


class LockLost(WorkspaceBusy):
    """The lock was ours, and another run has taken it over: this one must stop."""


class _Lock:
    """A named lock in a workspace, which one process at a time holds; or, on a disk, several that share it.

    Raises WorkspaceBusy if another run, or another lock in this process, has it; StoreError if it cannot be written.
    """

    def __init__(self, workspace: str, name: str = _NAME, shared: bool = False) -> None:
        self._workspace, self._name, self._shared = workspace, name, shared
        self._folder = open_folder(workspace)
        self._path = self._folder.file(name)
        self._file: int | None = None
        self._token = ""
        self._holder: dict[str, Any] = {}
        self._process: str | None = None
        self._last_beat = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this lock is still ours: always so inside `with` on a local workspace."""
        if self._folder.is_local:
            return self._file is not None
        return bool(self._token) and time.monotonic() - self._last_beat < STALE_SECONDS

    def check(self) -> None:
        """Raises LockLost unless the lock is still ours. Looks, and does not rely on the last heartbeat."""
        if self._folder.is_local:
            with suppress(OSError):
                if self._file is not None and os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                    return
            holder: dict[str, Any] = {}
        else:
            try:
                holder = self._read_object()
            except Exception:  # The connection is bad: the last heartbeat decides.
                if self.held:
                    return
                holder = {}
            if self._token and holder.get("token") == self._token:
                return
        self._token = ""
        raise LockLost(
            f"the lock of the workspace {self._workspace} was lost: {self._path} is {_who(holder) if holder else 'gone'}. "
            "What is done is kept; make sure that no other run uses it, and run the same command again",
            holder,
        )

    def __enter__(self) -> Self:
        if self._file is not None or self._token:
            raise RuntimeError(f"this lock of {self._workspace} is already held")
        self._holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": shlex.join(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._process = None if self._folder.is_local else this_process()
        try:
            if self._folder.is_local:
                self._take_file()
            else:
                self._take_object()
        except (WorkspaceBusy, StoreError):
            raise
        except Exception as error:
            if self._folder.is_local and not isinstance(error, OSError):
                raise
            raise StoreError(
                f"cannot lock the workspace {self._workspace}: {in_words(error)} ({self._path}). "
                "Choose a workspace that can be written"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder.is_local:
            self._release_file()
        else:
            self._release_object()

    # Local.

    def _take_file(self) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # Another run may have taken the lock this instant, and be about to write who it is.
            holder = _parsed(os.pread(file, 65536, 0))
            os.close(file)
            raise self._busy(holder or self._part_at_work()) from None
        except BaseException:
            os.close(file)
            raise
        self._file = file
        _held_files.add(file)
        # The bytes name the holder to a person who meets the lock. Nothing depends on them, since the kernel holds the
        # lock.
        if not self._shared:
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(self._holder).encode(), 0)

    def _release_file(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        if os.getpid() != self._holder["pid"]:
            return  # This is a forked child, whose copy is closed already.
        _held_files.discard(file)
        # The file stays: were it deleted, a third run could lock a new file while a second run holds the old one.
        with suppress(OSError):
            os.ftruncate(file, 0)
        os.close(file)

    # Remote.

    def _take_object(self) -> None:
        there = self._look()
        if there is not None and self._is_alive(there):
            raise self._busy(there)
        self._token = uuid.uuid4().hex
        try:
            if there is None:
                self._create_object()
            else:
                self._take_over(there)
            time.sleep(SETTLE_SECONDS)
            holder = self._read_object()
            if holder.get("token") != self._token:
                raise self._busy(holder)
        except BaseException:
            self._token = ""
            raise
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="workspace-lock", daemon=True)
        self._thread.start()

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        """Whether the holder of a lock lives, as far as can be known."""
        if not holder or abs(time.time() - float(holder.get("heartbeat", 0.0))) >= STALE_SECONDS:
            return False
        return lives(str(holder.get("process", ""))) is not False

    def _take_over(self, dead: dict[str, Any]) -> None:
        """Put this run's note in the place of a dead holder's. If several runs try, the one that creates the mark with the
        dead holder's name may do so, if the dead holder's note still exists. Raises WorkspaceBusy."""
        mark = f"{self._name}.{dead.get('token') or 'unknown'}"
        try:
            self._folder.create_only(mark, self._note())
        except FileExistsError:
            try:
                other = _parsed(self._folder.read(mark))
            except FileNotFoundError:
                raise self._busy(self._read_object()) from None
            if other.get("token") != self._token:  # The object is ours if the token is, as in `_create_object`.
                # Its run died at this very point: the next run that tries may take the lock.
                if not self._is_alive(other):
                    self._folder.remove(mark)
                raise self._busy(other) from None
        try:
            now = self._read_object()
            if now.get("token") != dead.get("token"):
                raise self._busy(now)
            self._write_object()
        finally:
            with suppress(Exception):
                self._folder.remove(mark)

    def _part_at_work(self) -> dict[str, Any]:
        """The content of the lock of a part, if one is at work."""
        for name in (self._folder / _LOCKS).names():
            with suppress(OSError):
                if holder := _parsed(self._folder.read(f"{_LOCKS}/{name}")):
                    return holder
        return {}

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                holder = self._read_object()
                if holder.get("token") != self._token:
                    log.error("%s", self._busy(holder))
                    self._token = ""
                    return
                self._write_object()
            except Exception as error:  # The connection is bad: the next heartbeat may get through.
                log.warning("the lock of %s could not be refreshed: %s", self._workspace, error)

    def _release_object(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._token:
            with suppress(Exception):  # An object that is not removed goes stale by itself.
                if self._read_object().get("token") == self._token:
                    self._folder.remove(self._name)
            self._token = ""

    def _look(self) -> dict[str, Any] | None:
        """The content of the lock; None if there is no lock."""
        try:
            return _parsed(self._folder.read(self._name))
        except FileNotFoundError:
            return None

    def _read_object(self) -> dict[str, Any]:
        return self._look() or {}

    def _create_object(self) -> None:
        try:
            self._folder.create_only(self._name, self._note())
        except FileExistsError:
            # The object may be ours: where an answer is lost, the client asks once more.
            if (holder := self._read_object()).get("token") != self._token:
                raise self._busy(holder) from None
        self._last_beat = time.monotonic()

    def _note(self) -> bytes:
        note = {**self._holder, "process": self._process, "token": self._token, "heartbeat": time.time()}
        return json.dumps(note).encode()

    def _write_object(self) -> None:
        self._folder.write_whole(self._name, self._note())
        self._last_beat = time.monotonic()

    def _busy(self, holder: dict[str, Any]) -> WorkspaceBusy:
        who = _who(holder) if holder else "another process"
        message = f"the workspace {self._workspace} is in use by {who}. Wait for it to end, or stop it"
        if not self._folder.is_local:
            message += f"; if it died, its lock {self._path} lapses within two minutes"
        return WorkspaceBusy(message, holder)


class WorkspaceLock(_Lock):
    """`with WorkspaceLock(workspace):` is for all code that writes. The workspace is created if it does not exist.

    part: (I, N): this run has the I-th of N parts of the videos, and shares the workspace with those of other parts. Without, it
    has the workspace alone. Raises as `_Lock`; and within the block compactions of this process wait for their turn, or raise
    LockLost.
    """

    def __init__(self, workspace: str, part: tuple[int, int] | None = None) -> None:
        super().__init__(workspace, _NAME if part is None else f"{_LOCKS}/{part[0]}-of-{part[1]}")
        self._part = part
        self._together = _Lock(workspace, shared=True) if part is not None and self._folder.is_local else None

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            if self._together is not None:
                self._together.__enter__()
            elif not self._folder.is_local:
                self._look_for_others()
        except BaseException:
            super().__exit__(None, None, None)
            raise
        guard(self._workspace, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        guard(self._workspace, None)
        if self._together is not None:
            self._together.__exit__(kind, error, traceback)
        super().__exit__(kind, error, traceback)

    @contextmanager
    def turn(self, wait: bool) -> Iterator[bool]:
        """Hold the turn to compact, and yield whether this run has it. wait: until it has. Raises LockLost."""
        self.check()
        if self._part is None:
            yield True
            return
        turn = _Lock(self._workspace, _COMPACTING)
        while True:
            try:
                turn.__enter__()
                break
            except WorkspaceBusy:
                if not wait:
                    yield False
                    return
                self.check()
                time.sleep(_TURN_SECONDS)
        try:
            yield True
        finally:
            turn.__exit__(None, None, None)

    def _look_for_others(self) -> None:
        """On an object store, each run writes its own note first and then looks for the notes of others: if a whole run and
        a part start at the same moment, at most one of them goes on. Raises WorkspaceBusy."""
        if self._part is not None:
            names = [_NAME]
        else:
            files = (self._folder / _LOCKS).names()
            names = [f"{_LOCKS}/{name}" for name in files if f"{_LOCKS}/{name}" != _COMPACTING]
        for name in names:
            with suppress(FileNotFoundError):
                if self._is_alive(holder := _parsed(self._folder.read(name))):
                    raise self._busy(holder)


def _who(holder: dict[str, Any]) -> str:
    return (
        f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('started')} ({holder.get('command')})"
    )


def this_process() -> str | None:
    """Identifies this process among all that ran since this machine was started: by that start, the process namespace, the
    process's number and its own start. None where these are not available."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {os.getpid()} {_started('self')}"
    except (OSError, ValueError, IndexError):
        return None


def _started(process: str) -> int:
    """When a process was started, in the kernel's ticks. Raises OSError."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])


def lives(process: str) -> bool | None:
    """Whether a process with this identity (`this_process`) lives. None: this machine cannot know, since it is not one of
    its own."""
    ours = (this_process() or "").split()
    theirs = process.split()
    if len(ours) != 4 or len(theirs) != 4 or ours[:2] != theirs[:2]:
        return None
    try:
        return _started(theirs[2]) == int(theirs[3])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, IndexError):
        return None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
        return holder if isinstance(holder, dict) else {}
    except ValueError:
        return {}  # The holder has not written the file yet.


def _drop_in_child() -> None:
    """A forked child shares the lock, and would keep it when its parent is killed. Closing its copy lifts nothing."""
    for file in _held_files:
        with suppress(OSError):
            os.close(file)
    _held_files.clear()


os.register_at_fork(after_in_child=_drop_in_child)
