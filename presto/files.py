"""Files of a dataset, on a disk or behind a URI that fsspec knows (s3://, gs://, https://): what is there, and its bytes.

Remote files are read whole into memory, one clip at a time, and kept nowhere: a run takes a clip once or twice, so a
cache would cost a disk and save little. Whoever wants one gives fsspec's own, `simplecache::s3://…`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from longtake.manifests.dataset.shards import whole_file
from longtake.manifests.store import StoreError, locate
from longtake.presto.errors import PrestoError

Place = Path | str  # a local path, or a URI
WAITS = (1.0, 4.0, 16.0, 60.0)  # seconds before each further try of a remote read


def place(given: str) -> Place:
    """What the command line was given: a URI as it is, a local path made absolute."""
    return given.rstrip("/") if is_remote(given) else Path(given).resolve()


def is_remote(given: Place) -> bool:
    return "://" in str(given)


def join(folder: Place, name: str) -> Place:
    """A file below a folder."""
    return folder / name if isinstance(folder, Path) else f"{folder}/{name}"


def open_folder(folder: Place) -> tuple[Any, str]:
    """(filesystem of fsspec, path in it), as pyarrow takes them. Raises PrestoError: no such protocol, its package is
    missing."""
    try:
        return locate(str(folder))
    except StoreError as error:
        raise PrestoError(str(error)) from error


def exists(file: Place) -> bool:
    """Raises PrestoError: nothing can be asked there."""
    filesystem, path = open_folder(file)
    try:
        return bool(filesystem.exists(path))
    except OSError as error:
        raise PrestoError(f"{file} cannot be looked at: {error}") from error


def listing(folder: Place) -> dict[str, int | None]:
    """Names of all files below a folder, relative to it, and their bytes where they are told; of one that is not there,
    none. Raises PrestoError."""
    filesystem, root = open_folder(folder)
    prefix = root.rstrip("/") + "/"
    try:
        found = filesystem.find(prefix, detail=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PrestoError(f"{folder} cannot be listed: {error}") from error
    return {path.removeprefix(prefix): about.get("size") for path, about in found.items()}


def sizes(folder: Place, names: Iterable[str]) -> dict[str, int | None]:
    """Those of `names` that are files in a folder, and their bytes where they are told. Of a remote folder by one listing
    of it, not by a look at each. Raises PrestoError."""
    if isinstance(folder, Path):
        found: dict[str, int | None] = {}
        for name in names:
            with suppress(OSError):
                about = os.stat(folder / name)
                if stat.S_ISREG(about.st_mode):
                    found[name] = about.st_size
        return found
    there = listing(folder)
    return {name: there[name] for name in names if name in there}


def read(path: str) -> bytes:
    """A remote file. A fault of the way there is no fault of the clip: it is tried again. Raises FileNotFoundError;
    PrestoError when all tries failed, which stops the run at its last checkpoint."""
    filesystem, where = open_folder(path)
    for wait in (*WAITS, None):
        try:
            return bytes(filesystem.cat_file(where))
        except FileNotFoundError:
            raise
        except Exception as error:  # each filesystem of fsspec raises its own
            if wait is None:
                raise PrestoError(f"{path} cannot be read, {len(WAITS) + 1} tries: {error}") from error
            time.sleep(wait)
    raise AssertionError


def write(path: Place, data: bytes) -> None:
    """Whole or not at all (an object store shows an object when all of it is there). Raises OSError."""
    if isinstance(path, Path):
        with whole_file(path) as part:
            part.write_bytes(data)
    else:
        filesystem, where = open_folder(path)
        filesystem.pipe_file(where, data)
