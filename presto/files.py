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

from longtake.manifests.folder import Folder, FolderError, folder_by_name, is_uri
from longtake.presto.errors import PrestoError

Place = Path | str  # A local path, or a URI.
WAITS = (1.0, 4.0, 16.0, 60.0)  # Seconds before each further try of a remote read.


def place(given: str) -> Place:
    """What the command line was given: a URI as it is, a local path made absolute."""
    return given.rstrip("/") if is_uri(given) else Path(given).resolve()


def is_remote(given: Place) -> bool:
    """Whether it is a URI, and not a path of this machine."""
    return isinstance(given, str)


def join(folder: Place, name: str) -> Place:
    """A file below a folder."""
    return folder / name if isinstance(folder, Path) else f"{folder}/{name}"


def folder_of(folder: Place) -> Folder:
    """The folder at a place. Raises PrestoError: no such protocol, its package is missing, or a secret in a URI."""
    try:
        return folder_by_name(folder)
    except FolderError as error:
        raise PrestoError(str(error)) from error


def _parted(file: Place) -> tuple[Folder, str]:
    """The folder that a file lies in, and its name there."""
    folder, _, name = str(file).rpartition("/")
    return folder_of(folder), name


def exists(file: Place) -> bool:
    """Raises PrestoError: nothing can be asked there."""
    folder, name = _parted(file)
    try:
        return folder.exists(name)
    except OSError as error:
        raise PrestoError(f"{file} cannot be looked at: {error}") from error


def listing(folder: Place) -> dict[str, int | None]:
    """Names of all files below a folder, relative to it, and their bytes where they are told; of one that is not there, none.
    Raises PrestoError."""
    try:
        return {entry.name: entry.size for entry in folder_of(folder).entries()}
    except OSError as error:
        raise PrestoError(f"{folder} cannot be listed: {error}") from error


def sizes(folder: Place, names: Iterable[str]) -> dict[str, int | None]:
    """Those of `names` that are files in a folder, and their bytes where they are told. Of a remote folder by one listing of it,
    not by a look at each. Raises PrestoError."""
    if isinstance(folder, Path):
        bytes_of: dict[str, int | None] = {}
        for name in names:
            with suppress(OSError):
                about = os.stat(folder / name)
                if stat.S_ISREG(about.st_mode):
                    bytes_of[name] = about.st_size
        return bytes_of
    there = listing(folder)
    return {name: there[name] for name in names if name in there}


def read(path: str) -> bytes:
    """A remote file. A fault of the way there is no fault of the clip: it is tried again. Raises FileNotFoundError;
    PrestoError when all tries failed, which stops the run at its last checkpoint."""
    folder, name = _parted(path)
    for wait in (*WAITS, None):
        try:
            return folder.read(name)
        except FileNotFoundError:
            raise
        except Exception as error:  # Each filesystem of fsspec raises errors of its own.
            if wait is None:
                raise PrestoError(f"{path} cannot be read, {len(WAITS) + 1} tries: {error}") from error
            time.sleep(wait)
    raise AssertionError


def write(path: Place, data: bytes) -> None:
    """Whole or not at all. Raises OSError."""
    folder, name = _parted(path)
    folder.write_whole(name, data)
