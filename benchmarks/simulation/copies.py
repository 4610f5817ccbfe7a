"""The project's own modules, read anew for one simulated process, with the machine replaced by the simulated one."""

from __future__ import annotations

import builtins
import concurrent.futures
import fcntl
import importlib
import os
import pathlib
import posixpath
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.simulation.bucket import Bucket, Objects
from benchmarks.simulation.disk import Disk, Machine
from benchmarks.simulation.world import Process, World

MODULES = (
    "longtake.manifests.folder",
    "longtake.manifests.keys",
    "longtake.manifests.parts",
    "longtake.manifests.reader",
    "longtake.manifests.store",
    "longtake.manifests.lock",
    "longtake.captioning.journal",
)

# In a world of a dozen rows, what is many has to be few.
SMALL = {"longtake.manifests.store": {"FEW_PARTS": 2, "MERGE_PARTS": 2, "PART_ROWS": 8}}


@cache
def source(module: str) -> str:
    """The text of a module."""
    # Imported too: dataclasses look for the module of their class among those that are.
    file = importlib.import_module(module).__file__
    assert file is not None
    return Path(file).read_text(encoding="utf-8")


def compiled(changes: Mapping[str, Iterable[tuple[str, str]]] | None = None) -> dict[str, types.CodeType]:
    """The modules as code. changes: module → (what stands there, what is to stand there): a planted fault. Raises ValueError
    if it does not stand there exactly once."""
    codes = {}
    for name in MODULES:
        text = source(name)
        for old, new in (changes or {}).get(name, ()):
            if text.count(old) != 1:
                raise ValueError(f"{name} holds {text.count(old)} times: {old}")
            text = text.replace(old, new)
        codes[name] = compile(text, name, "exec")
    return codes


class Copies:
    """The modules of one process."""

    def __init__(
        self, codes: Mapping[str, types.CodeType], world: World, process: Process, disk: Disk, objects: Objects
    ) -> None:
        self.world, self.process = world, process
        self._codes = codes
        self.machine = Machine(world, process, disk)
        self._bucket = Bucket(world, process, objects)
        self._loaded: dict[str, types.ModuleType] = {}
        self._shims = _shims(self)

    def __getitem__(self, name: str) -> Any:
        """A module by its full name."""
        if name not in self._loaded:
            module = self._loaded[name] = types.ModuleType(name)
            module.__dict__["__simulated__"] = True
            module.__dict__["__builtins__"] = {
                **vars(builtins), "__import__": self._import, "open": self.machine.open,
            }  # fmt: skip
            exec(self._codes[name], module.__dict__)
            for constant, value in SMALL.get(name, {}).items():
                assert hasattr(module, constant), constant
                setattr(module, constant, value)
        return self._loaded[name]

    def _import(
        self,
        name: str,
        globals_: Mapping[str, Any] | None = None,
        locals_: Mapping[str, Any] | None = None,
        fromlist: Iterable[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name in self._codes:
            return self[name]
        if name in self._shims:
            return self._shims[name]
        if name.split(".")[0] == "pyarrow" and not fromlist:
            importlib.import_module(name)
            return self._shims["pyarrow"]
        return builtins.__import__(name, globals_, locals_, tuple(fromlist or ()), level)


class _Over:
    """A module with some of its names replaced."""

    def __init__(self, under: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self.__dict__["_under"] = under

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)


def _shims(copies: Copies) -> dict[str, Any]:
    import socket
    import time
    import uuid

    import fsspec
    import fsspec.implementations.local

    world, process, machine = copies.world, copies.process, copies.machine

    class SimulatedLocal:
        """What the project asks of fsspec's filesystem of this machine."""

        protocol = ("file", "local")

        def rm_file(self, path: str) -> None:
            machine.unlink(path)

        def modified(self, path: str) -> datetime:
            return datetime.fromtimestamp(machine.stat(path).st_mtime, UTC)

    def url_to_fs(place: str) -> tuple[Any, str]:
        assert place.startswith("s3://"), place
        return copies._bucket, place.removeprefix("s3://")

    class SimulatedPath(pathlib.PosixPath):
        """A path, by which the files of /proc of the process's host can be read."""

        def read_text(self, *_: Any, **__: Any) -> str:
            *_, whose, what = self.parts
            if what == "boot_id":
                return f"{process.host.name}-{world.boots}"
            pid = process.pid if whose == "self" else int(whose)
            if what != "stat" or not world.lives(pid, process.host):
                raise FileNotFoundError(str(self))
            return f"{pid} (python) " + " ".join(["0"] * 19 + [str(1000 + pid)])

    path = _Over(
        posixpath,
        exists=machine.exists,
        samefile=lambda a, b: machine.disk.find(a) is machine.disk.find(b),
        islink=lambda path: False,
        isfile=machine.exists,
    )
    simulated_os = _Over(
        os,
        path=path,
        open=machine.os_open,
        close=machine.close,
        fsync=machine.fsync,
        replace=machine.replace,
        link=machine.link,
        unlink=machine.unlink,
        remove=machine.unlink,
        makedirs=machine.makedirs,
        mkdir=machine.mkdir,
        listdir=machine.listdir,
        stat=machine.stat,
        fstat=machine.fstat,
        ftruncate=machine.ftruncate,
        pread=machine.pread,
        pwrite=machine.pwrite,
        getxattr=machine.getxattr,
        setxattr=machine.setxattr,
        removexattr=machine.removexattr,
        getpid=lambda: process.pid,
        register_at_fork=lambda **_: None,
    )

    def clock() -> float:
        return world.now + process.host.skew

    return {
        "os": simulated_os,
        "fcntl": _Over(fcntl, flock=machine.flock),
        "time": _Over(
            time,
            time=clock,
            time_ns=lambda: int(clock() * 1e9),
            monotonic=lambda: world.now,
            sleep=lambda seconds: world.sleep(process, seconds),
        ),
        "threading": _Over(
            threading,
            Thread=lambda **how: _Thread(world, process, **how),
            Event=lambda: _Event(world, process),
            Lock=lambda: _Lock(world, process),
        ),
        "uuid": _Over(uuid, uuid4=lambda: types.SimpleNamespace(hex=f"{world.random.getrandbits(128):032x}")),
        "pathlib": _Over(pathlib, Path=SimulatedPath),
        "socket": _Over(socket, gethostname=lambda: process.host.name),
        "pyarrow": _Over(pa, OSFile=lambda path, mode: pa.BufferReader(machine.open(path, mode).read())),
        "concurrent.futures": _Over(concurrent.futures, ThreadPoolExecutor=_OneThread),
        "fsspec": _Over(fsspec, core=types.SimpleNamespace(url_to_fs=url_to_fs)),
        "fsspec.implementations.local": _Over(fsspec.implementations.local, LocalFileSystem=SimulatedLocal),
    }


class _OneThread:
    """An executor that does the work at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _OneThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *items: Iterable[Any]) -> Iterable[Any]:
        return map(function, *items)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


class _Thread:
    def __init__(
        self, world: World, process: Process, target: Callable[..., None], args: tuple[Any, ...] = (), **_: Any
    ):
        self._world, self._process = world, process
        self._run = lambda: target(*args)

    def start(self) -> None:
        self._task = self._world.spawn(self._process, self._run)

    def join(self, timeout: float | None = None) -> None:
        self._world.wait_while(self._process, lambda: not self._task.ended)

    def is_alive(self) -> bool:
        return not self._task.ended


class _Event:
    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        end = self._world.now + (1e9 if timeout is None else timeout)
        while not self._set and self._world.now < end:
            self._world.sleep(self._process, min(1.0, max(0.001, end - self._world.now)))
        return self._set


class _Lock:
    """A lock between the threads of one process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._held = False

    def acquire(self) -> bool:
        self._world.wait_while(self._process, lambda: self._held)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
