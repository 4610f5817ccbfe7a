"""One writer per workspace: the second run is told who the first one is, and stops.

On a local filesystem the lock is the kernel's (`flock` on `WORKSPACE/.lock`): exact, and lifted when its holder dies,
however it dies. Elsewhere it is an object with a heartbeat, and **best effort**: object stores have no locks, so it
rests on clocks that agree within a minute, and a holder that was frozen for two minutes can lose it without noticing at
once (`held` tells). It is there to stop the mistake of starting a run twice; data stays right even so, since the parts
of a manifest are only ever added, except when two runs compact at the same moment.
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
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from longtake.manifests.store import StoreError, open_folder

HEARTBEAT_SECONDS = 30.0  # how often the holder of a remote lock says that it lives
STALE_SECONDS = 120.0  # silent for so long, it is taken for dead
SETTLE_SECONDS = 1.0  # of two that take a remote lock at the same moment, the later one's object is there after this

_NAME = ".lock"
log = logging.getLogger(__name__)
_held_files: set[int] = set()


class WorkspaceBusy(Exception):
    """Another run writes to this workspace. The message says who, and since when; `holder` is what the lock says."""

    def __init__(self, message: str, holder: dict[str, Any] | None = None) -> None:
        super().__init__(message, holder)
        self.holder = holder or {}

    def __str__(self) -> str:
        return str(self.args[0])


class WorkspaceLock:
    """`with WorkspaceLock(workspace):` for all that writes. The workspace is made if it is not there.

    Raises WorkspaceBusy if another run, or another lock in this process, has it; StoreError if it cannot be written.
    """

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._folder = open_folder(workspace)
        self._path = self._folder.file(_NAME)
        self._file: int | None = None
        self._token = ""
        self._holder: dict[str, Any] = {}
        self._last_beat = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this lock is still ours: always so inside `with` on a local workspace."""
        if self._folder.is_local:
            return self._file is not None
        return bool(self._token) and time.monotonic() - self._last_beat < STALE_SECONDS

    def __enter__(self) -> WorkspaceLock:
        if self._file is not None or self._token:
            raise RuntimeError(f"this lock of {self._workspace} is already held")
        self._holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": shlex.join(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
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
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if isinstance(number, int) else f"{type(error).__name__}: {error}"
            raise StoreError(
                f"cannot lock the workspace {self._workspace}: {reason} ({self._path}). "
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

    # Local

    def _take_file(self) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # it may have taken it this instant, and be about to write who it is
            holder = _parsed(os.pread(file, 65536, 0))
            os.close(file)
            raise self._busy(holder) from None
        except BaseException:
            os.close(file)
            raise
        self._file = file
        _held_files.add(file)
        # For the person who meets the lock; it is the kernel that holds it, so nothing depends on these bytes.
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(self._holder).encode(), 0)

    def _release_file(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        if os.getpid() != self._holder["pid"]:
            return  # a forked child, whose copy is closed already
        _held_files.discard(file)
        # The file stays: were it deleted, a third run could lock a new one while a second one holds the old.
        with suppress(OSError):
            os.ftruncate(file, 0)
        os.close(file)

    # Remote

    def _take_object(self) -> None:
        there = self._look()
        holder = there or {}
        age = time.time() - float(holder.get("heartbeat", 0.0))
        if holder and abs(age) < STALE_SECONDS:
            raise self._busy(holder)
        self._token = uuid.uuid4().hex
        try:
            if there is None:
                self._create_object()
            else:  # a dead holder's, which is taken over
                self._write_object()
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

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                holder = self._read_object()
                if holder.get("token") != self._token:
                    log.error("%s", self._busy(holder))
                    self._token = ""
                    return
                self._write_object()
            except Exception as error:  # a bad connection: the next beat may do better
                log.warning("the lock of %s could not be refreshed: %s", self._workspace, error)

    def _release_object(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._token:
            with suppress(Exception):  # it goes stale by itself
                if self._read_object().get("token") == self._token:
                    self._folder.remove(_NAME)
            self._token = ""

    def _look(self) -> dict[str, Any] | None:
        """What the lock says; None if there is none."""
        try:
            return _parsed(self._folder.read(_NAME))
        except FileNotFoundError:
            return None

    def _read_object(self) -> dict[str, Any]:
        return self._look() or {}

    def _create_object(self) -> None:
        try:
            self._folder.create_only(_NAME, self._note())
        except FileExistsError:
            raise self._busy(self._read_object()) from None
        self._last_beat = time.monotonic()

    def _note(self) -> bytes:
        return json.dumps({**self._holder, "token": self._token, "heartbeat": time.time()}).encode()

    def _write_object(self) -> None:
        self._folder.write_whole(_NAME, self._note())
        self._last_beat = time.monotonic()

    def _busy(self, holder: dict[str, Any]) -> WorkspaceBusy:
        if not holder:
            who = "another process"
        else:
            who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('started')}"
            who += f" ({holder.get('command')})"
        message = f"the workspace {self._workspace} is in use by {who}. Wait for it to end, or stop it"
        if not self._folder.is_local:
            message += f"; if it died, its lock {self._path} lapses within two minutes"
        return WorkspaceBusy(message, holder)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
        return holder if isinstance(holder, dict) else {}
    except ValueError:
        return {}  # its holder has not written it yet


def _drop_in_child() -> None:
    """A forked child shares the lock, and would keep it when its parent is killed. Closing its copy lifts nothing."""
    for file in _held_files:
        with suppress(OSError):
            os.close(file)
    _held_files.clear()


os.register_at_fork(after_in_child=_drop_in_child)
