"""A simulated object store, as an fsspec filesystem of it: whole objects, conditional puts, and the faults of a network.

What a put stored is seen by all from then on (as in S3 since 2020), a listing comes in pages, and a request may fail before it
did anything, or after: then its answer is lost.
"""

from __future__ import annotations

import errno
import io
from datetime import UTC, datetime
from typing import Any

from benchmarks.simulation.disk import in_pieces


class Objects:
    """The objects of a store by path, each with the time it was stored at."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[bytes, float]] = {}


class ServerError(Exception):
    """A store's 503, or a connection that broke."""


class Bucket:
    """The filesystem of one process. Only what the project asks of one."""

    protocol = ("s3", "s3a")

    def __init__(self, world: Any, process: Any, objects: Objects) -> None:
        self.world, self.process, self.objects = world, process, objects

    def _step(self, call: str) -> bool:
        """Whether the answer of this request gets lost. Raises ServerError where the request does."""
        fault = self.world.step(self.process, f"bucket.{call}")
        if fault == "error":
            raise ServerError("503 Slow Down")
        return bool(fault == "lost answer")

    def unstrip_protocol(self, path: str) -> str:
        return f"s3://{path}"

    def invalidate_cache(self, path: str | None = None) -> None:
        """There is no cache."""

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        lost = self._step("get")
        if path not in self.objects.stored:
            raise FileNotFoundError(errno.ENOENT, "No such object", path)
        if lost:
            raise ServerError("connection reset")
        return self.objects.stored[path][0][start:end]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite", **_: Any) -> None:
        lost = self._step("create" if mode == "create" else "put")
        if mode == "create" and path in self.objects.stored:
            raise FileExistsError(errno.EEXIST, "412 Precondition Failed", path)
        self.objects.stored[path] = bytes(data), self.world.now
        if lost:
            raise ServerError("connection reset")

    def rm_file(self, path: str) -> None:
        lost = self._step("delete")
        self.objects.stored.pop(path, None)  # S3 answers 204 even where the object did not exist.
        if lost:
            raise ServerError("connection reset")

    def _under(self, path: str) -> set[str]:
        """The names directly in a folder."""
        root = path.rstrip("/") + "/"
        return {name[len(root) :].split("/")[0] for name in self.objects.stored if name.startswith(root)}

    def ls(self, path: str, detail: bool = False, **_: Any) -> list[str]:
        if self._step("list"):
            raise ServerError("connection reset")
        first = sorted(self._under(path))
        if not first:
            if path in self.objects.stored:
                return [path]
            raise FileNotFoundError(errno.ENOENT, "No such prefix", path)
        pages = in_pieces(first, lambda: self._under(path), lambda: self.world.linger(self.process), self.world.random)
        return [f"{path.rstrip('/')}/{name}" for name in pages]

    def isfile(self, path: str) -> bool:
        return path in self.objects.stored

    def exists(self, path: str) -> bool:
        if self._step("head"):
            raise ServerError("connection reset")
        return path in self.objects.stored or bool(self._under(path))

    def info(self, path: str) -> dict[str, Any]:
        if self._step("head"):
            raise ServerError("connection reset")
        if path not in self.objects.stored:
            raise FileNotFoundError(errno.ENOENT, "No such object", path)
        data, stored = self.objects.stored[path]
        return {"name": path, "type": "file", "size": len(data), "LastModified": datetime.fromtimestamp(stored, UTC)}

    def modified(self, path: str) -> datetime:
        when: datetime = self.info(path)["LastModified"]
        return when
