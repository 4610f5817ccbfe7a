"""The sandbox, by real crashes, hangs and floods of memory in real child processes."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading import sandbox
from longtake.curation.reading.sandbox import Limits, Sandbox, allow_seconds

ROOT = Path(__file__).parents[3]
EASY = Limits(seconds=60, memory_mib=1024)


# ---------------------------------------------------------------------------------------------------------------------
# Jobs; they run in the child


def add(a: int, b: int) -> int:
    return a + b


def my_pid() -> int:
    return os.getpid()


def segfault() -> None:
    ctypes.string_at(0)


def leave(status: int) -> None:
    os._exit(status)


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # A codec does not listen to signals either.
    time.sleep(600)


def eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * 2**24)
        time.sleep(0.01)


def wants_too_much() -> None:
    raise MemoryError


def disturbed(folder: str, times: int, how: int) -> str:
    """Killed or stopped as if from outside, so many times."""
    file = Path(folder) / str(os.getpid())
    file.touch()
    if len(list(file.parent.iterdir())) <= times:
        os.kill(os.getpid(), how)
    return "done"


def refuse(kind: str) -> None:
    raise VideoError(kind, "as it was said")


def complain() -> None:
    raise RowError("frames", "of a clip")


def stumble() -> None:
    raise ZeroDivisionError("in a filter")


def exit_politely() -> None:
    sys.exit(3)


def ask_for(seconds: float, then_take: float) -> str:
    allow_seconds(seconds)
    time.sleep(then_take)
    return "done"


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def talk() -> str:
    print("to standard output")  # The text must not reach the pipe between parent and child.
    return "quiet"


def start_and_hang(where: str) -> None:
    Path(where).write_text(str(os.getpid()))
    time.sleep(600)


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def kind_of(sandbox: Sandbox, function: Callable[..., object], *args: object, limits: Limits = EASY) -> str:
    with pytest.raises(VideoError) as caught:
        sandbox.run(function, args, limits)
    return caught.value.kind


def test_results_and_the_same_child_again(shared: Sandbox) -> None:
    assert shared.run(add, (2, 3), EASY) == 5
    child = shared.run(my_pid, (), EASY)
    assert child != os.getpid()
    assert shared.run(my_pid, (), EASY) == child
    assert shared.run(talk, (), EASY) == "quiet"


def test_a_job_in_a_new_child_after_each_death(shared: Sandbox) -> None:
    children = [shared.run(my_pid, (), EASY)]
    deaths: list[tuple[Callable[..., None], tuple[int, ...], str]] = [
        (segfault, (), "SIGSEGV"),
        (leave, (3,), "exit status 3"),
    ]
    for function, args, word in deaths:
        with pytest.raises(VideoError, match=word) as caught:
            shared.run(function, args, EASY)
        assert caught.value.kind == "crash"
        assert not psutil.pid_exists(children[-1])
        children.append(shared.run(my_pid, (), EASY))
    assert len(set(children)) == len(children)


def test_a_hang_ends(shared: Sandbox) -> None:
    child = shared.run(my_pid, (), EASY)
    assert kind_of(shared, hang, limits=Limits(seconds=0.5, memory_mib=1024)) == "timeout"
    assert not psutil.pid_exists(child)
    assert shared.run(add, (1, 1), EASY) == 2


def test_what_a_decoder_stands_in_line_for_a_cpu_is_not_held_against_its_film(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.run(add, (0, 0), EASY)
    told: list[float] = []
    monkeypatch.setattr(shared, "_allowed", told.append)
    # Seconds in line before the job, and when its half second is over: in between, the job had no CPU for 2 s.
    in_line = iter([5.0, 7.0])
    monkeypatch.setattr(sandbox, "_seconds_in_line", lambda pid: next(in_line, 7.0))
    assert shared.run(nap, (1.5,), Limits(seconds=0.5, memory_mib=1024)) == "rested"
    assert told == [2.0], "whoever watches the worker knows"
    assert kind_of(shared, nap, 30.0, limits=Limits(seconds=0.5, memory_mib=1024)) == "timeout"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell")
def test_seconds_in_line_are_those_of_the_kernel() -> None:
    """Of two processes that are held to one CPU, each stands in line for about half of the time."""
    code = "import os, time; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and min(sandbox._seconds_in_line(one.pid) for one in both) < 0.3:
            time.sleep(0.05)
        assert min(sandbox._seconds_in_line(one.pid) for one in both) >= 0.3
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert sandbox._seconds_in_line(both[0].pid) == 0.0, "nobody of that number any more"


def test_a_flood_of_memory_ends(shared: Sandbox) -> None:
    child = shared.run(my_pid, (), EASY)
    assert kind_of(shared, eat, limits=Limits(seconds=60, memory_mib=400)) == "memory"
    assert not psutil.pid_exists(child)
    assert kind_of(shared, wants_too_much) == "memory"
    assert shared.run(add, (1, 1), EASY) == 2


def test_errors_of_the_job_come_through_and_the_child_stays(shared: Sandbox) -> None:
    child = shared.run(my_pid, (), EASY)
    with pytest.raises(VideoError, match=r"^as it was said$") as caught:
        shared.run(refuse, ("no_video",), EASY)
    assert caught.value.kind == "no_video"
    with pytest.raises(RowError, match=r"^of a clip$") as other:
        shared.run(complain, (), EASY)
    assert type(other.value) is RowError
    with pytest.raises(VideoError, match="ZeroDivisionError: in a filter") as third:
        shared.run(stumble, (), EASY)
    assert third.value.kind == "internal"
    assert shared.run(my_pid, (), EASY) == child


def test_a_limit_of_the_job_itself_does_not_end_up_in_the_next_one(shared: Sandbox) -> None:
    """A job may itself raise what the parent raises for a limit; what follows is sound either way."""
    assert kind_of(shared, refuse, "timeout") == "timeout"
    assert shared.run(add, (20, 2), EASY) == 22
    assert kind_of(shared, exit_politely) in ("crash", "internal")
    assert shared.run(add, (20, 3), EASY) == 23


def test_a_job_may_ask_for_more_time_and_no_more(shared: Sandbox) -> None:
    shared.run(add, (0, 0), EASY)
    little = Limits(seconds=1.0, memory_mib=1024)
    assert shared.run(ask_for, (60, 2.0), little) == "done"
    assert kind_of(shared, ask_for, 0.2, 60) == "timeout"  # A job may ask for less time, too.


def test_a_parent_that_is_gone_ends_the_child_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that has not read all answers resets the connection, and one that is gone takes no further answer."""
    monkeypatch.setattr(sandbox, "_extend", sandbox._extend)  # A child sets it for its jobs.
    ours, theirs = socket.socketpair()
    with Connection(ours.detach()) as parent:
        parent.send((add, (1, 2)))
    sandbox._serve(Connection(theirs.detach()))
    ours, theirs = socket.socketpair()
    child = threading.Thread(target=sandbox._serve, args=(Connection(theirs.detach()),))
    with Connection(ours.detach()) as parent:
        child.start()
        assert parent.poll(10)  # The child's first word stays unread.
    child.join(10)
    assert not child.is_alive()


def test_outside_of_a_sandbox_nobody_is_asked() -> None:
    assert ask_for(1.0, 0) == "done"


def test_a_child_that_died_between_jobs(shared: Sandbox) -> None:
    child = shared.run(my_pid, (), EASY)
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # The dead child is left for the sandbox to find.
    assert shared.run(my_pid, (), EASY) != child


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_child_that_somebody_kills_or_stops_says_nothing_of_the_film(
    shared: Sandbox, tmp_path: Path, how: int
) -> None:
    limits = Limits(seconds=1.0, memory_mib=1024)
    for times in (1, 2):
        (tmp_path / str(times)).mkdir()
    assert shared.run(disturbed, (str(tmp_path / "1"), 1, how), limits) == "done"
    assert len(list((tmp_path / "1").iterdir())) == 2
    assert kind_of(shared, disturbed, str(tmp_path / "2"), 2, how, limits=limits) == "crash"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_child_that_is_killed_or_stopped_while_it_starts_is_started_once_more(
    monkeypatch: pytest.MonkeyPatch, how: int, times: int
) -> None:
    """The error of the broken connection ended the whole run, and so did the wait for a child that was stopped, after ten
    minutes. A row whose child is disturbed twice is an error."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))
        if len(started) <= times:
            started[-1].send_signal(how)
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(sandbox.subprocess, "Popen", start)
    limits = Limits(seconds=2.0, memory_mib=1024)
    with closing(Sandbox()) as fresh:
        if times == 1:
            assert fresh.run(max, (2, 3), limits) == 3
        else:
            assert kind_of(fresh, max, 2, 3, limits=limits) == "crash"
        assert len(started) == 2
        assert fresh.run(max, (2, 3), limits) == 3, "the next row is not concerned"


def test_a_child_that_cannot_start_is_a_fault_of_the_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No film is to blame, and the run stops."""
    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
    with closing(Sandbox()) as fresh, pytest.raises(RuntimeError, match=r"does not start: it died \(exit status 1\)"):
        fresh.run(max, (2, 3), Limits(60, 2000))


def test_a_child_that_is_not_there_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")

    def held() -> int:
        with closing(Sandbox()) as box, pytest.raises(FileNotFoundError):
            box.run(my_pid, (), EASY)
        return len(os.listdir("/proc/self/fd"))

    assert held() == held()


def test_close_ends_the_child_and_may_be_repeated() -> None:
    sandbox = Sandbox()
    sandbox.close()
    child = sandbox.run(my_pid, (), EASY)
    sandbox.close()
    sandbox.close()
    assert not psutil.pid_exists(child)


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    """Also a child in the middle of a job that never looks at its parent again."""
    note = tmp_path / "pid"
    program = (
        "from longtake.curation.reading.sandbox import Limits, Sandbox\n"
        "from tests.curation.reading.test_sandbox import start_and_hang\n"
        f"Sandbox().run(start_and_hang, ({str(note)!r},), Limits(600, 1024))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        child = None
        while child is None:
            assert parent.poll() is None
            time.sleep(0.05)
            if note.exists() and note.read_text():
                child = psutil.Process(int(note.read_text()))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone == [child] or child.status() == psutil.STATUS_ZOMBIE


# ---------------------------------------------------------------------------------------------------------------------
# The kernel's own end of a process, where this user may set it a limit


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], object]]:
    """Gives a process 256 MiB of the machine's memory, no swap, and the kernel's end if it wants more."""
    for root, limit, swap in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
    ):
        group = Path(root, f"longtake-test-{os.getpid()}")
        if not Path(root, "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(256 * 2**20))
            if (group / swap).exists():
                (group / swap).write_text("0" if swap.endswith("max") else str(256 * 2**20))
        except OSError:
            group.rmdir()
            continue
        break
    else:
        pytest.skip("this user cannot limit the memory of a process (control groups)")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    group.rmdir()


def flood(mebibytes: int) -> int:
    """Touches every page, so that the kernel must give them."""
    return len([bytearray(os.urandom(2**20)) for _ in range(mebibytes)])


def test_a_process_that_the_kernel_ends_for_memory_is_a_fault_of_the_world(
    little_memory: Callable[[int], object],
) -> None:
    sandbox = Sandbox()
    try:
        little_memory(sandbox.run(my_pid, (), EASY))
        with pytest.raises(VideoError) as raised:
            sandbox.run(flood, (900,), EASY)
        assert raised.value.kind == "no_memory"
        assert "the machine had no memory left" in str(raised.value)
        assert sandbox.run(add, (1, 2), EASY) == 3, "the next film gets a decoder of its own"
    finally:
        sandbox.close()
