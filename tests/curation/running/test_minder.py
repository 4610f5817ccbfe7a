"""The minder kills a worker that hangs or is frozen, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.curation.workbench import environment

HEAD = """
import ctypes, os, signal, sys, time
from longtake.curation.running.jobs import allow
from longtake.curation.running.minder import Minder
minder = Minder(silent=float(sys.argv[1]), stopped=3.0)
"""


def ended(code: str, silent: float = 60.0) -> tuple[int, float]:
    """The exit status of a worker, and the seconds that it lived."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HEAD + code, str(silent)], env=environment(), check=False, timeout=100)
    return done.returncode, time.monotonic() - began


def test_who_holds_the_lock_of_the_interpreter_for_too_long_is_killed() -> None:
    code, seconds = ended("with minder.within(1, 'batch'): ctypes.PyDLL(None).sleep(90)")
    assert code == -signal.SIGKILL
    assert seconds < 60


@pytest.mark.slow  # A beat comes every five seconds.
def test_who_is_silent_between_two_batches_is_killed() -> None:
    code, _ = ended("ctypes.PyDLL(None).sleep(90)", silent=8.0)
    assert code == -signal.SIGKILL


def test_who_is_stopped_with_a_batch_in_hand_is_killed_long_before_the_batch_is_late() -> None:
    code, seconds = ended("with minder.within(1000, 'batch'): os.kill(os.getpid(), signal.SIGSTOP)")
    assert code == -signal.SIGKILL
    assert seconds < 60


def test_who_is_stopped_for_a_moment_lives() -> None:
    code, _ = ended("""
with minder.within(60, 'batch'):
    if not os.fork():
        time.sleep(1.5)
        os.kill(os.getppid(), signal.SIGCONT)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(2)
""")
    assert code == 0


def test_who_asks_for_more_time_or_is_done_lives() -> None:
    code, _ = ended("""
with minder.within(0.5, 'batch'):
    allow(60)
    time.sleep(1.5)
with minder.within(0.5, 'other'):
    pass
time.sleep(1)
""")
    assert code == 0


def test_the_minder_ends_with_its_worker() -> None:
    code = HEAD + "print(minder._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", code, "60"], env=environment(), check=False, capture_output=True, text=True
    )
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{int(done.stdout)}/fd/0") and time.monotonic() < end:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{int(done.stdout)}/fd/0")
