"""From an old dataset to a new one, so that whoever looks at any moment finds one of the two whole.

The new one is made beside the old. On a disk the two folders then change places in one step (renameat2 with
RENAME_EXCHANGE: ext4, xfs, btrfs, tmpfs). Where there is no such step (NFS, an object store) the files of the new one are put
among those of the old, under names that the old one does not use, the index last of all; only then does go what the new index
does not name. There, between the last two files, SHA256SUMS tells already of the new index.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.dataset.shards import CHECKSUMS, INDEX
from longtake.manifests.folder import Folder

# Names in a dataset's folder that export and the formats write.
OURS = (INDEX, CHECKSUMS, "README.md", "truth.json", "shards", "clips")
_EXCHANGE = 2  # Value of RENAME_EXCHANGE in linux/fs.h.
_AT_FDCWD = -100
_AT_ONCE = 16  # Copies that a store is asked for at the same moment; the store makes them itself.


def published(place: Folder, columns: list[str] | None = None) -> pa.Table | None:
    """These columns of a dataset's index (None: all); None if there is no dataset, or none that can be read."""
    try:
        # With a buffer before it, or by read_table, Arrow reads a Python file on threads of its own, which let go of it a moment
        # after the read: if the interpreter ends meanwhile, the process aborts.
        with place.open(INDEX) as file, pq.ParquetFile(file, pre_buffer=False) as index:
            return index.read(columns, use_threads=False)
    except (FileNotFoundError, NotADirectoryError, pa.ArrowException):
        return None


class ClipsGone(Exception):
    """Clips cannot be placed, since the files that they were encoded to are gone. files: their names in the workspace."""

    def __init__(self, files: list[str]) -> None:
        super().__init__(f"{len(files)} encoded files are gone, {files[0]} among them")
        self.files = files


@contextmanager
def beside(place: Folder) -> Iterator[Path]:
    """An empty folder of this machine to make a dataset in that takes the place of `place`; gone when the block ends. What a
    killed run left there goes first."""
    if not place.is_local:
        with tempfile.TemporaryDirectory(prefix="longtake-") as scratch:
            folder = Path(scratch) / place.uri.rstrip("/").rpartition("/")[2]
            folder.mkdir()
            yield folder
        return
    target = place.path.resolve()  # A dataset may lie on another disk, behind a link.
    folder = target.with_name(f".{target.name}.new")
    _remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _remove(folder)


def changes_at_once(place: Folder) -> bool:
    """Whether a folder beside `place` can change places with it in one step. Tries it on two empty folders."""
    if not place.is_local:
        return False
    parent = place.path.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(place.path.resolve()):
        return False
    with tempfile.TemporaryDirectory(prefix=".longtake-", dir=parent) as scratch:
        one, other = Path(scratch) / "one", Path(scratch) / "other"
        one.mkdir()
        other.mkdir()
        return _exchange(one, other)


# A function that copies files into a folder. It gets the folder, and path in it → the folder and name of the file to copy.
Copy = Callable[[Folder, Mapping[str, tuple[Folder, str]]], None]


def switch(
    new: Path,
    place: Folder,
    at_once: bool,
    ours: Sequence[str],
    clips: Mapping[str, tuple[Folder, str]],
    copy: Copy | None = None,
) -> None:
    """Put the dataset in the folder `new`, which `beside` gave, in the place of the one that is there. at_once: as
    `changes_at_once` said. ours: the files and folders in a dataset's folder that are its own; what else lies there is
    somebody's. clips: path in the dataset → where else the clip lies, which may be nearer to `place`; unless at_once, these need
    not be in `new`. copy: copies clips into a folder of a store, but for those that are gone; None: this process asks the store
    for it. Raises ClipsGone, OSError, and of a store what its client raises; then the old one is whole."""
    if place.is_local:
        target = place.path.resolve()
        if not target.exists() and (at_once or not clips):
            os.rename(new, target)
            _sync(target.parent)
            return
        if at_once and _exchange(new, target):
            _sync(target.parent)
            return
    _put_among(new, place, ours, clips, copy)


def _put_among(
    new: Path, place: Folder, ours: Sequence[str], clips: Mapping[str, tuple[Folder, str]], copy: Copy | None
) -> None:
    """Place what comes, then what tells of it, the index last; then remove what goes. The folder is listed once before clips are
    placed and once behind, and a clip that stays costs nothing. Clips that `clips` names need not lie in `new`."""
    files = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()} | clips.keys()
    last = [name for name in (CHECKSUMS, INDEX) if name in files]
    there = {entry.name for entry in place.entries()}
    old = published(place, ["path", "sha256"])
    before = dict(zip(*old.to_pydict().values(), strict=True)) if old is not None else {}
    made = pq.read_table(new / INDEX, columns=["path", "sha256"], use_threads=False)
    now = dict(zip(*made.to_pydict().values(), strict=True))
    stays = {name for name, sha256 in now.items() if before.get(name) == sha256 and name in there}

    def put(name: str) -> None:
        if name in clips:
            folder, nearer = clips[name]
            with suppress(FileNotFoundError):
                place.link(folder, nearer, name)
        elif place.is_local:
            place.link(Folder(new), name, name)
        else:
            place.put(new / name, name)

    coming = sorted(files - set(last) - stays)
    if copy is not None and not place.is_local:
        copy(place, {name: clips[name] for name in coming if name in clips})
        coming = [name for name in coming if name not in clips]
    _at_once(put, coming, place)
    there = {entry.name for entry in place.entries()}
    if missing := sorted(clips.keys() - there):
        raise ClipsGone([clips[name][1] for name in missing])
    for name in last:
        place.put(new / name, name)
    goes = [name for name in there if name.split("/")[0] in ours and name not in files]
    _at_once(place.remove, goes, place)


def _at_once(do: Callable[[str], None], names: Sequence[str], place: Folder) -> None:
    """Do something with each of many names; with several at once in a store, where each costs a way there and back."""
    with ThreadPoolExecutor(1 if place.is_local else _AT_ONCE) as pool:
        for _ in pool.map(do, names):
            pass


def carry_over(place: Folder, new: Path, ours: Sequence[str]) -> None:
    """Bring into the folder `new`, which will take the place of `place` at once, what lies there and is none of the dataset's
    own (see `switch`): by links where the disk has them."""
    if not place.exists():
        return
    for entry in os.scandir(place.path):
        target = new / entry.name
        if entry.name in ours or (entry.name.startswith(".") and entry.name.endswith((".part", ".tmp"))):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, target, symlinks=True, copy_function=_link)
        else:
            _link(entry.path, str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places; whether it was possible. Raises OSError for anything but that it is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EBUSY, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
