"""Local folders, each file once; what is left out on the way is told. Workspaces among them are no inputs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from longtake.curation.listing import Inodes, Waiting, in_order
from longtake.curation.workspace import looks_like_workspace

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".ogv", ".ogg",
    ".flv", ".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".264", ".h264", ".265", ".h265", ".hevc", ".vvc", ".av1",
    ".ivf", ".obu", ".y4m", ".dv", ".vob", ".gif", ".apng", ".f4v", ".qt", ".divx", ".m2t", ".tp", ".trp", ".m1v",
    ".m2v", ".mk3d", ".ogm", ".nut", ".rm", ".rmvb",
})  # fmt: skip
ARCHIVE_SUFFIX = ".tar"
# Archives that have to be unpacked from their beginning to reach a member.
COMPRESSED = (".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
METADATA = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
# Folders of a workspace that hold videos which it made itself.
MADE_HERE = frozenset({"encoded", "dataset"})
MADE, WORKSPACE, HIDDEN, AGAIN, LINKED, OURS = (
    "made by a workspace",
    "a workspace",
    "hidden",
    "another name of a file that is read already",
    "a link or a device in an archive",
    "the table of an exported dataset, whose clips were cut out of the films it names",
)
_EXAMPLES = 3
_LINK, _FOLDER, _FILE = "link", "folder", "file"


@dataclass(slots=True)
class LeftOut:
    """What was left out for one reason: how many, and a few of them by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES and name not in self.examples:
            self.examples.append(name)


NO_FILE: Mapping[str, Any] = {"bytes": None, "modified": None, "sha256": None}


def file_facts(path: Path, inside: bool = False) -> Mapping[str, Any]:
    """What tells whether a file of this machine was changed: its size in bytes, and when it was written; null where it cannot be
    looked at. inside: of something that lies in it, so that its size says nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return NO_FILE
    if not stat.S_ISREG(status.st_mode):
        return NO_FILE
    return listed_facts(None if inside else status.st_size, status.st_mtime)


def listed_facts(size: int | None, seconds: float | None) -> Mapping[str, Any]:
    """As `file_facts`, of what a listing tells. seconds: since 1970."""
    when = datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    return {"bytes": size, "modified": when, "sha256": None}


def sha256_of(path: Path) -> str | None:
    """Of a file's content; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def is_video_name(name: str) -> bool:
    """Whether a file's name ends as those of videos do; a space behind it does not matter."""
    return Path(name).suffix.lower().rstrip() in VIDEO_SUFFIXES


def may_hold_videos(name: str) -> bool:
    """Whether a file in a folder is looked into for videos, by its name: an archive, a table, or what tells of a folder's files
    (metadata.csv, metadata.jsonl) as Hugging Face has it."""
    name = name.lower()
    return name.endswith((ARCHIVE_SUFFIX, *COMPRESSED, ".parquet")) or name.rpartition("/")[2] in METADATA


class Workspaces:
    """Knows which folders of this machine are workspaces. target: the one that this run writes to, which need not be there."""

    def __init__(self, target: str | None = None) -> None:
        self._target = os.path.realpath(target) if target is not None else None
        self._known: dict[str, bool] = {}

    def is_one(self, folder: str) -> bool:
        """Whether a folder is a workspace. folder: without links in it."""
        if folder not in self._known:
            self._known[folder] = folder == self._target or looks_like_workspace(folder)
        return self._known[folder]

    def above(self, path: str, below: str | None = None) -> str | None:
        """The workspace that a file or folder is left out for, if any: one that made it; and below the folder `below` (or
        that folder itself), any that it lies in."""
        real = os.path.realpath(path)
        inside = os.path.realpath(below) if below is not None else None
        folder, inner = os.path.dirname(real), os.path.basename(real)
        while True:
            walked = inside is not None and (folder + os.sep).startswith(inside.rstrip(os.sep) + os.sep)
            if (walked or inner in MADE_HERE) and self.is_one(folder):
                return folder
            parent = os.path.dirname(folder)
            if parent == folder:
                return None
            folder, inner = parent, os.path.basename(folder)


@dataclass(slots=True)
class Unlisted:
    """A folder that cannot be listed, and why."""

    folder: str
    why: str


class Walker:
    """Walks folders. Each folder and each file comes once, by its device and inode, however many links lead to it.

    left_out: reason → what. endings: of files that are no videos by their names.
    """

    def __init__(self, workspaces: Workspaces) -> None:
        self.workspaces = workspaces
        self.left_out: dict[str, LeftOut] = {}
        self.endings: Counter[str] = Counter()
        self.folders: set[str] = set()
        self._seen_folders: set[tuple[int, int]] = set()
        self._seen_files: dict[int, Inodes] = {}  # By device.

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, LeftOut()).add(name)

    def no_video(self, name: str) -> None:
        """Count a file that is no video by its name."""
        self.endings[Path(name).suffix.lower()[:12] or "none"] += 1

    def is_new(self, path: str) -> bool:
        """Whether a file has not come under another name. What is not there, or cannot be looked at, is new."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return True
        name = hash(path)
        if self._seen_files.setdefault(status.st_dev, Inodes()).first(status.st_ino, name) == name:
            return True
        self.leave_out(AGAIN, path)
        return False

    def knows(self, folder: str) -> bool:
        """Whether a folder was listed already, by whatever name."""
        status = os.stat(folder)
        return (status.st_dev, status.st_ino) in self._seen_folders

    def walk(self, root: str) -> Iterator[str | Unlisted]:
        """The videos in a folder, and what may hold some (`may_hold_videos`), in depth: first what lies in it, then what links
        lead to. Sorted, so that a run is the same twice. What lies in a hidden folder or has a hidden name is left out."""
        links = Waiting()
        yield from self._tree(os.path.abspath(root), links)
        for link in links:  # They become more on the way.
            if os.path.isdir(link):
                yield from self._tree(link, links)
            elif self._is_input(link) and not self._made_here(link, root) and self.is_new(link):
                yield link

    def _tree(self, root: str, links: Waiting) -> Iterator[str | Unlisted]:
        if self._made_here(root):
            return
        stack = [root]
        while stack:
            folder = stack.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in self._seen_folders:
                    continue
                self._seen_folders.add((status.st_dev, status.st_ino))
                real = os.path.realpath(folder)
                if self.workspaces.is_one(real):
                    self.leave_out(WORKSPACE, folder)
                    continue
                with os.scandir(folder) as listing:
                    entries = in_order(f"{entry.name}\0{_kind(entry)}" for entry in listing)
                    first = next(entries, None)  # Now the whole listing is read.
            except OSError as error:
                yield Unlisted(folder, error.strerror or str(error))
                continue
            self.folders.add(folder)
            inner: list[str] = []
            for entry in chain([first] if first is not None else [], entries):
                name, _, kind = entry.partition("\0")
                path = os.path.join(folder, name)
                if name.startswith("."):
                    self.leave_out(HIDDEN, path)
                elif kind == _LINK:
                    links.append(path)
                elif kind == _FOLDER:
                    inner.append(path)
                elif self._is_input(path) and self.is_new(path):
                    yield path
            stack += reversed(inner)

    def _is_input(self, path: str) -> bool:
        if is_video_name(path) or may_hold_videos(path):
            return True
        self.no_video(path)
        return False

    def _made_here(self, path: str, below: str | None = None) -> bool:
        if (workspace := self.workspaces.above(path, below)) is not None:
            self.leave_out(MADE, workspace)
        return workspace is not None


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return _LINK
    return _FOLDER if entry.is_dir(follow_symlinks=False) else _FILE
