"""Decoding in a child process: a crash, a hang or a bomb in a codec library costs one video, and not the worker.

The child is kept for the next video (its imports cost a second) and made anew after it died or was stopped. Parent and
child talk through a socket pair; what travels is a job and its small result, never pictures.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from longtake.curation.cli.startup import leave_pandas_out
from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading import faults
from longtake.manifests.store import StoreError

_POLL_SECONDS = 0.2
# Seconds. A start takes one second of CPU; on Ray it has the lowest priority, so that minutes pass on a busy machine. If the
# process fails while it starts, this is noticed at once.
_START_SECONDS = 600.0
_END_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_MIB = 2**20
# MiB. A decoder takes this much for an ordinary film. If less is available, the machine is to blame, and no film is.
_FEW_MIB = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one job. seconds: until the child says otherwise (`allow_seconds`). memory_mib: resident."""

    seconds: float
    memory_mib: int


# The parent has no time limit, so it has nothing to extend.
_extend: Callable[[float], None] = lambda seconds: None  # noqa: E731


def allow_seconds(seconds: float) -> None:
    """Called by a job once it knows how long it may take, counted from now."""
    _extend(seconds)


class _Disturbed(VideoError):
    """Somebody killed or stopped the child. Whoever does so twice at one job is taken to have the job as their reason."""


class Sandbox:
    """Runs `function(*args)` in a child process. Not for several threads at once. allowed: told how many seconds a job may still
    take, when it says so itself."""

    def __init__(self, allowed: Callable[[float], None] = lambda seconds: None) -> None:
        self._allowed = allowed
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._clock: mmap.mmap | None = None

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> Any:
        """The function's result. Raises VideoError (timeout, timed_out, memory, no_memory, crash), and the RowError or
        StoreError that the function raised. A child that somebody kills or stops tells nothing of the film: the job is done
        once more."""
        try:
            return self._run(function, args, limits)
        except _Disturbed:
            return self._run(function, args, limits)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> Any:
        killed_before = _killed_for_memory()
        try:
            connection, process = self._ready(limits.seconds)
            assert self._clock is not None
            faults.clock_started(self._clock)
            connection.send((function, args))
            began = time.monotonic()
            deadline = began + limits.seconds
            stood, granted = _seconds_in_line(process.pid), 0.0
            watched = psutil.Process(process.pid)
            while True:
                while not connection.poll(_POLL_SECONDS):
                    if process.poll() is not None and not connection.poll(0):
                        raise EOFError
                    if (now := time.monotonic()) > deadline:
                        _require_moving(watched)
                        # The time that the child stood in line for a CPU is the machine's fault, and not the film's.
                        more = _seconds_in_line(process.pid) - stood - granted
                        if more > _POLL_SECONDS:
                            granted += more
                            deadline = now + more
                            self._allowed(more)
                            continue
                        raise _too_late(faults.seconds_waited(self._clock, now), now - began)
                    if watched.memory_info().rss > limits.memory_mib * _MIB:
                        limit = f"{limits.memory_mib} MiB"
                        raise VideoError("memory", f"decoding took more than {limit}; see scan.memory_limit_mib")
                kind, value = connection.recv()
                if kind == "allow":
                    deadline = time.monotonic() + float(value)
                    self._allowed(float(value))
                elif kind == "error":
                    raise value
                else:
                    return value
        except (EOFError, ConnectionError, psutil.NoSuchProcess) as error:
            assert self._process is not None
            process = self._process
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)  # The process may still end by its own cause, which the message then names.
            self._stop()
            if process.returncode == -signal.SIGKILL and _killed_for_memory() > killed_before:
                raise VideoError(
                    "no_memory", "the kernel ended the decoder, since the machine had no memory left"
                ) from error
            # A codec does not send itself SIGKILL, and this process had not sent it either when the connection broke.
            fault = _Disturbed if process.returncode == -signal.SIGKILL else VideoError
            raise fault("crash", f"the decoder died ({_cause(process.returncode)})") from error
        except BaseException as error:
            # Ctrl-C stops the child, too: in the middle of a video it is of no use any more.
            ended = ("timeout", "timed_out", "memory", "no_memory")
            if isinstance(error, _Disturbed) or not (isinstance(error, RowError) and error.kind not in ended):
                self._stop()
            raise

    def close(self) -> None:
        """End the child."""
        self._stop()

    def _ready(self, patience: float) -> tuple[Connection, subprocess.Popen[bytes]]:
        """The child, made anew if there is none. patience: seconds that it may be stopped while it starts."""
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self._stop()
            ours, theirs = socket.socketpair()
            clock = os.memfd_create("longtake-clock")
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            try:
                os.ftruncate(clock, mmap.PAGESIZE)
                self._clock = mmap.mmap(clock, mmap.PAGESIZE)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "longtake.curation.reading.sandbox", str(theirs.fileno()), str(clock)],
                    pass_fds=[theirs.fileno(), clock],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            finally:
                theirs.close()
                os.close(clock)
            self._connection = Connection(ours.detach())
            began = time.monotonic()
            while not self._connection.poll(_POLL_SECONDS):
                took = time.monotonic() - began
                if took > patience:
                    _require_moving(psutil.Process(self._process.pid))
                if took > _START_SECONDS:
                    raise RuntimeError(
                        f"the decoding process did not start within {_START_SECONDS:.0f} s, so busy is this machine; what is "
                        "done is kept, and the same command goes on from there"
                    )
            try:
                self._connection.recv()
            except (EOFError, ConnectionError):
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_SECONDS)
                if self._process.returncode == -signal.SIGKILL:
                    raise  # Each caller names the cause.
                cause = _cause(self._process.returncode)
                self._stop()
                raise RuntimeError(f"the decoding process does not start: it died ({cause})") from None
        return self._connection, self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def _require_moving(child: psutil.Process) -> None:
    """Raises VideoError (crash) if a signal has stopped the child, which is too late."""
    if child.status() == psutil.STATUS_STOPPED:
        raise _Disturbed("crash", "the decoder was stopped from outside (SIGSTOP)")


def _too_late(waited: float, took: float) -> VideoError:
    """What a job that passed its time limit was busy with: its film, or waiting for the bytes of it. Both in seconds."""
    if waited > took / 2:
        return VideoError("timed_out", f"the source kept the decoder waiting for {waited:.0f} of {took:.0f} s")
    return VideoError("timeout", "decoding did not end within its time limit; see scan.time_limit")


def _seconds_in_line(pid: int) -> float:
    """How long the threads of a process could have run and had no CPU: the longest of them. 0 where the kernel does not tell."""
    longest = 0.0
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                longest = max(longest, int(file.read().split()[1]) / 1e9)
    return longest


def _killed_for_memory() -> int:
    """How many processes the kernel has ended on this machine because it had no memory left; 0 where it does not tell."""
    with suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _out_of_memory() -> VideoError:
    """Of a job that was refused memory: by the machine if that has next to none, and else because it asked for too much."""
    if psutil.virtual_memory().available < _FEW_MIB * _MIB:
        return VideoError("no_memory", "the machine had no memory left for the decoder")
    return VideoError("memory", "decoding ran out of memory")


def _cause(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        with suppress(ValueError):
            return signal.Signals(-returncode).name
    return f"exit status {returncode}"


def _serve(connection: Connection) -> None:
    global _extend
    _extend = lambda seconds: connection.send(("allow", seconds))  # noqa: E731
    # A parent that is gone closes the connection, or resets it if there are answers that it did not read.
    with suppress(EOFError, ConnectionError):
        connection.send("ready")
        while True:
            connection.send(_answer(connection.recv_bytes()))


def _answer(data: bytes) -> tuple[str, Any]:
    """What a job gave. data: its function and arguments, pickled."""
    try:
        function, args = pickle.loads(data)
        return "result", function(*args)
    except (RowError, StoreError) as error:
        # A StoreError is no fault of the video: it stops the run.
        return "error", error
    except MemoryError:
        return "error", _out_of_memory()
    except Exception:
        return "error", VideoError("internal", traceback.format_exc(limit=-3))


def _main() -> None:
    # A parent that is killed takes the child along, even if it hangs in a codec.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2

    cv2.setNumThreads(1)
    leave_pandas_out()  # Importing pandas takes half a second of CPU and 40 MiB, and no scan has any use for it.
    # This process was started as the module `__main__`, which is not the module that jobs import.
    from longtake.curation.reading import sandbox

    faults.use_clock(mmap.mmap(int(sys.argv[2]), mmap.PAGESIZE))
    sandbox._serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    _main()
