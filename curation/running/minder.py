"""A small process beside each worker that kills it when it hangs: in a library, with the interpreter's lock held, or frozen.

Ray sees that a process died, not that it stands still. The minder is told when each batch has to be done, hears a beat of
the worker's own every few seconds, and looks whether a signal (SIGSTOP) has stopped the worker, which its silence does not tell
alone while it has a batch: a library may hold the interpreter's lock for minutes. What is too late, silent or stopped is killed,
and Ray makes it anew. All times are of CLOCK_MONOTONIC, which the processes of a machine share. It ends with its worker.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from longtake.curation.running.jobs import hears_allow

_BEAT_SECONDS = 5.0
_SILENT_SECONDS = 120.0  # Seconds without a beat after which a worker that has no batch is taken to be frozen.
_STOPPED_SECONDS = 30.0  # Seconds. A worker may be stopped by a signal for this long, for example by a debugger.

# Lines `KEY DEADLINE`, a deadline of 0 for none. A pause of the minder itself (a machine that slept) is not the worker's.
_PROGRAM = """
import os, select, signal, sys, time
silent, patience, worker = float(sys.argv[1]), float(sys.argv[2]), os.getppid()
due, heard, moved, rest = {}, time.monotonic(), time.monotonic(), b""

def stopped():
    with open(f"/proc/{worker}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"

while os.getppid() == worker:
    before = time.monotonic()
    ready, _, _ = select.select([0], [], [], 1)
    now = time.monotonic()
    if now - before > 5:
        heard, moved = heard + now - before, moved + now - before
        due = {key: at + now - before for key, at in due.items()}
    if ready:
        data = os.read(0, 65536)
        if not data:
            break
        heard = now
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            key, at = line.split()
            due.pop(key, None)
            if float(at):
                due[key] = float(at)
    try:
        moved = moved if stopped() else now
    except OSError:
        break
    if now - moved > patience:
        os.kill(worker, signal.SIGKILL)
        break
    if not ready and min([*due.values(), heard + silent] if not due else due.values()) < now:
        os.kill(worker, signal.SIGKILL)
        break
"""


class Minder:
    """The minder of this process. For several threads."""

    def __init__(self, silent: float = _SILENT_SECONDS, stopped: float = _STOPPED_SECONDS) -> None:
        command = [sys.executable, "-S", "-E", "-c", _PROGRAM, str(silent), str(stopped)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._turn = threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()

    @contextmanager
    def within(self, seconds: float, key: str) -> Iterator[None]:
        """What is done in here takes at most so many seconds, or from `jobs.allow` on as many as were asked for there."""
        self._tell(key, time.monotonic() + seconds)
        hears_allow(lambda more: self._tell(key, time.monotonic() + more))
        try:
            yield
        finally:
            hears_allow(None)
            self._tell(key, 0.0)

    def close(self) -> None:
        """End the minder; the worker is on its own."""
        self._process.kill()
        self._process.wait()

    def _beat(self) -> None:
        while self._process.poll() is None:
            self._tell("beat", 0.0)
            time.sleep(_BEAT_SECONDS)

    def _tell(self, key: str, deadline: float) -> None:
        assert self._process.stdin is not None
        with self._turn, suppress(OSError, ValueError):
            self._process.stdin.write(f"{key} {deadline}\n".encode())
            self._process.stdin.flush()
