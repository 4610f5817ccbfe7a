"""The lock of a workspace, held by this process and by others that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from longtake.manifests import lock
from longtake.manifests.lock import LockLost, WorkspaceBusy, WorkspaceLock
from longtake.manifests.store import Manifest, StoreError

REPOSITORY = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from longtake.manifests.lock import WorkspaceLock
with WorkspaceLock(sys.argv[2]):
    child = os.fork() if sys.argv[3] == "fork" else None
    if child != 0:
        print(child, flush=True)
    time.sleep(60)
"""


def hold(workspace: Path, how: str = "alone") -> tuple[subprocess.Popen[str], str]:
    """Another process that holds the lock by the time this returns, and the id of its child if it has one."""
    command = [sys.executable, "-c", HOLDER, str(REPOSITORY), str(workspace), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_the_second_process_is_told_who_holds_it_and_kill_9_frees_it(tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    try:
        with pytest.raises(WorkspaceBusy) as caught, WorkspaceLock(str(tmp_path)):
            pass
        message = str(caught.value)
        assert str(tmp_path) in message
        assert f"process {process.pid} on {os.uname().nodename} since 20" in message
        assert caught.value.holder["pid"] == process.pid
        assert set(caught.value.holder) == {"host", "pid", "command", "started"}
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with WorkspaceLock(str(tmp_path)) as mine:
        assert mine.held
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not mine.held


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    process, child = hold(tmp_path, "fork")
    try:
        with pytest.raises(WorkspaceBusy), WorkspaceLock(str(tmp_path)):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(int(child), 0)  # The child lives.
        with WorkspaceLock(str(tmp_path)):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.communicate()


def test_a_forked_child_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    with WorkspaceLock(str(tmp_path)) as mine:
        child = os.fork()
        if child == 0:
            mine.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(WorkspaceBusy), WorkspaceLock(str(tmp_path)):
            pass
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_one_process_cannot_hold_it_twice_but_again_and_again(tmp_path: Path) -> None:
    workspace = str(tmp_path / "new" / "workspace")
    for _ in range(3):
        with WorkspaceLock(workspace) as mine:
            with pytest.raises(WorkspaceBusy, match=f"process {os.getpid()} "), WorkspaceLock(workspace):
                pass
            with pytest.raises(RuntimeError, match="already held"):
                mine.__enter__()
            assert mine.held


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), WorkspaceLock(str(tmp_path)):
        raise KeyError
    with WorkspaceLock(str(tmp_path)):
        pass


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"cannot lock the workspace .*file"), WorkspaceLock(str(tmp_path / "file")):
        pass


# The tests below lock a remote workspace.

REMOTE = "memory://locked"
OBJECT = "/locked/.lock"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    filesystem = MemoryFileSystem()
    yield filesystem
    if filesystem.exists(OBJECT):
        filesystem.rm(OBJECT)


def put(filesystem: MemoryFileSystem, age: float, **more: Any) -> None:
    holder = {"host": "elsewhere", "pid": 7, "command": "longtake scan", "started": "2025-01-02T03:04:05+00:00"}
    filesystem.pipe_file(OBJECT, json.dumps({**holder, "heartbeat": time.time() - age, **more}).encode())


def wait_until(condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_a_remote_lock_is_refreshed_and_removed(memory: MemoryFileSystem) -> None:
    with WorkspaceLock(REMOTE) as mine:
        assert mine.held
        first = json.loads(memory.cat_file(OBJECT))
        assert first["pid"] == os.getpid()
        with (
            pytest.raises(WorkspaceBusy, match=f"process {os.getpid()} .*lapses within two minutes"),
            WorkspaceLock(REMOTE),
        ):
            pass
        wait_until(lambda: json.loads(memory.cat_file(OBJECT))["heartbeat"] > first["heartbeat"])
    assert not mine.held
    assert not memory.exists(OBJECT)


def test_a_living_remote_holder_is_respected_and_a_dead_one_is_not(memory: MemoryFileSystem) -> None:
    put(memory, age=100)
    with (
        pytest.raises(WorkspaceBusy, match=r"process 7 on elsewhere since 2025-01-02.*longtake scan"),
        WorkspaceLock(REMOTE),
    ):
        pass
    put(memory, age=130)
    with WorkspaceLock(REMOTE):
        assert json.loads(memory.cat_file(OBJECT))["pid"] == os.getpid()
    memory.pipe_file(OBJECT, b"not JSON")
    with WorkspaceLock(REMOTE):
        pass


def test_a_remote_lock_that_was_taken_over_is_noticed_and_left_alone(memory: MemoryFileSystem) -> None:
    with WorkspaceLock(REMOTE) as mine:
        put(memory, age=0, token="theirs")
        wait_until(lambda: not mine.held)
    assert json.loads(memory.cat_file(OBJECT))["token"] == "theirs"


# The tests below are about a lock that is lost, or whose holder is dead.


def test_a_local_lock_whose_file_is_gone_is_lost(tmp_path: Path) -> None:
    with WorkspaceLock(str(tmp_path)) as mine:
        mine.check()
        (tmp_path / ".lock").unlink()
        with pytest.raises(LockLost, match=r"lock of the workspace .* was lost.*\.lock is gone"):
            mine.check()
        with WorkspaceLock(str(tmp_path)) as other:
            other.check()
            with pytest.raises(LockLost):
                mine.check()


def test_who_lost_a_remote_lock_stops_before_a_compaction(memory: MemoryFileSystem) -> None:
    with WorkspaceLock(REMOTE) as mine:
        mine.check()
        manifest = Manifest(REMOTE, "clips", "clip_id", pa.schema([("clip_id", pa.string())]))
        for i in range(12):
            manifest.append(pa.table({"clip_id": [f"clip {i}"]}))
        put(memory, age=0, token="theirs")
        for action in (mine.check, manifest.compact):
            with pytest.raises(LockLost, match="is process 7 on elsewhere"):
                action()
        assert len(manifest.parts()) == 12
    memory.rm("/locked", recursive=True)


def test_a_dead_process_of_this_machine_is_seen_at_once(memory: MemoryFileSystem) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        boot, space, _, _ = (lock.this_process() or "no proc here at all").split()
        if boot == "no":
            pytest.skip("no /proc here")
        theirs = f"{boot} {space} {child.pid} {lock._started(str(child.pid))}"
        put(memory, age=0, process=theirs)
        with pytest.raises(WorkspaceBusy), WorkspaceLock(REMOTE):
            pass
        put(memory, age=0, process=f"{boot} {space} {child.pid} 1")  # Another process had this number before.
        with WorkspaceLock(REMOTE):
            pass
        put(memory, age=0, process=f"another-start {space} {child.pid} 1")
        with pytest.raises(WorkspaceBusy), WorkspaceLock(REMOTE):
            pass
    finally:
        child.kill()
        child.wait()
    put(memory, age=0, process=theirs)
    with WorkspaceLock(REMOTE):
        pass


def test_of_many_that_take_over_a_dead_holders_lock_one_has_it(memory: MemoryFileSystem) -> None:
    put(memory, age=500, token="dead")
    together, held, busy = threading.Barrier(6), list[int](), list[int]()

    def take(who: int) -> None:
        together.wait()
        try:
            with WorkspaceLock(REMOTE) as mine:
                held.append(who)
                time.sleep(0.3)
                mine.check()
        except WorkspaceBusy:
            busy.append(who)

    threads = [threading.Thread(target=take, args=[who]) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(busy)) == (1, 5)
    assert not memory.find("/locked")


# The tests below lock the parts of a workspace.


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_parts_share_a_workspace_with_each_other_and_with_nobody_else(
    where: str, tmp_path: Path, memory: MemoryFileSystem
) -> None:
    workspace = str(tmp_path) if where == "disk" else REMOTE
    with WorkspaceLock(workspace, (1, 3)) as one, WorkspaceLock(workspace, (2, 3)) as two:
        one.check()
        two.check()
        for part in (None, (2, 3)):
            with pytest.raises(WorkspaceBusy, match=f"process {os.getpid()} "), WorkspaceLock(workspace, part):
                pass
        one.check()
    with WorkspaceLock(workspace) as whole:
        whole.check()
        with pytest.raises(WorkspaceBusy, match=f"process {os.getpid()} "), WorkspaceLock(workspace, (3, 3)):
            pass
    with WorkspaceLock(workspace, (3, 3)):
        pass


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_parts_take_turns_at_compacting(where: str, tmp_path: Path, memory: MemoryFileSystem) -> None:
    workspace = str(tmp_path) if where == "disk" else REMOTE
    with WorkspaceLock(workspace, (1, 2)) as one, WorkspaceLock(workspace, (2, 2)) as two:
        with one.turn(wait=True) as ours:
            assert ours
            with two.turn(wait=False) as theirs:
                assert not theirs
        with two.turn(wait=True) as theirs:
            assert theirs


def test_a_lost_answer_to_the_note_of_a_lock_does_not_lock_its_writer_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose request was done, and whose answer was lost, asks again, and is told that the object is there: its own."""
    from longtake.manifests.folder import Folder

    MemoryFileSystem.store.clear()
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    create = Folder.create_only

    def answered_once_more(self: Folder, name: str, data: bytes) -> None:
        create(self, name, data)
        create(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "create_only", answered_once_more)
        with WorkspaceLock(REMOTE) as held:
            held.check()
            with pytest.raises(WorkspaceBusy), WorkspaceLock(REMOTE):
                pass
        dead = {"token": "dead", "pid": 1, "host": "elsewhere", "heartbeat": time.time() - 1000}
        Folder(REMOTE).write_whole(".lock", json.dumps(dead).encode())
        with WorkspaceLock(REMOTE) as held:  # The new holder takes the lock over by way of its mark.
            held.check()
