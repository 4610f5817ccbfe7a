"""Tar archives of videos, as WebDataset has them: which members are videos, and the captions that lie beside them.

A sample of WebDataset is the files of one key: the name up to the first dot of its last part. `a/b.mp4`, `a/b.json` and
`a/b.txt` are one sample; so are `a/b.left.mp4` and `a/b.right.mp4`, and then `a/b.left.txt` tells of the first only.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from longtake.curation.access import Source, open_container
from longtake.curation.errors import BadRow
from longtake.curation.folders import ARCHIVE_SUFFIX, COMPRESSED, is_video_name
from longtake.curation.lists import told_of_film
from longtake.manifests.folder import is_uri
from longtake.manifests.members import Index, Member, MemberError, member_uri, read_index

NOT_BY_RANGE = "a compressed archive, whose members cannot be read without unpacking it all: store it as a plain .tar"
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_LONGEST_CAPTION = 2**20  # Bytes. A longer text or JSON beside a video is no caption, and is not read.
# Bytes of captions of one archive that are held in memory while it is listed; further ones are each read by themselves.
_TEXTS = 2**26
_TELLS = (".json", ".txt")


@dataclass(frozen=True, slots=True)
class Film:
    """A video in an archive. spans: its whole with its captions, none without captions."""

    uri: str
    spans: list[dict[str, Any]]
    licence: str | None


@dataclass(slots=True)
class Archive:
    """What an archive gives. endings: of members that are no videos, nor captions of one. others: links and devices. hidden: as
    in folders. bad: what cannot be used of it, each with a name and why; without a name, from where on it is damaged."""

    films: list[Film] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether it was read to its end."""
        return all(name for name, _ in self.bad)


def is_archive_name(name: str) -> bool:
    """Whether a file is an archive whose members can be read by range, by its ending."""
    return _path(name).endswith(ARCHIVE_SUFFIX)


def is_compressed_name(name: str) -> bool:
    """Whether a file is an archive that has to be unpacked, by its ending."""
    return _path(name).endswith(COMPRESSED)


def read_archive(source: Source, identity: str) -> Archive:
    """The videos of an archive, in its order; its headers and captions are read, its videos are not. identity: how the archive
    is stored. Raises MemberError for what is no archive, and what reading it raises."""
    with open_container(source) as file:
        if file.read(8).startswith(_MAGIC):
            raise MemberError(NOT_BY_RANGE)
        left = _TEXTS

        def keep(member: Member) -> bool:
            nonlocal left
            kept = member.name.lower().endswith(_TELLS) and member.size <= min(_LONGEST_CAPTION, left)
            left -= member.size if kept else 0
            return kept

        return _Reading(file, identity, read_index(file, keep)).run()


def key_of(name: str) -> tuple[str, str]:
    """The key of a member's name, and the rest, in lower case: `a/b.c.MP4` → (`a/b`, `.c.mp4`)."""
    folder, slash, last = name.rpartition("/")
    base, dot, rest = last.partition(".")
    return folder + slash + base, (dot + rest).lower()


class _Reading:
    """One archive while its videos are looked for."""

    def __init__(self, file: BinaryIO, identity: str, index: Index) -> None:
        self.file, self.identity, self.index = file, identity, index
        self.found = Archive(others=index.others)
        self.beside: dict[str, dict[str, Member]] = defaultdict(dict)

    def run(self) -> Archive:
        videos = [member for member in self.index.files if _is_video(member)]
        keys = {key_of(video.name)[0] for video in videos}
        for member in self.index.files:
            key, rest = key_of(member.name)
            if _is_hidden(member):
                self.found.hidden.append(member.name)
            elif not is_video_name(member.name):
                if rest.endswith(_TELLS) and key in keys:
                    self.beside[key].setdefault(rest, member)
                else:
                    self.found.endings[Path(member.name).suffix.lower()[:12] or "none"] += 1
        for video in videos:
            uri = member_uri(self.identity, video.name, video.number)
            try:
                spans, licence = told_of_film(*self._told(video))
            except (BadRow, ValueError, RecursionError) as error:
                self.found.bad.append(
                    (video.name, f"what lies beside it cannot be read, so it has no caption: {error}")
                )
                spans, licence = [], None
            self.found.films.append(Film(uri, spans, licence))
        if self.index.damage:
            self.found.bad.append(("", f"{self.index.damage}; {len(videos)} videos before it are read"))
        return self.found

    def _told(self, video: Member) -> tuple[dict[str, Any], str | None]:
        """What the JSON and the text beside a video say. Raises ValueError."""
        key, rest = key_of(video.name)
        own = rest.removesuffix(Path(rest).suffix)  # The `.left` of `b.left.mp4`.
        beside = self.beside.get(key, {})
        record, text = (beside.get(own + ending) or beside.get(ending) for ending in _TELLS)
        known: Any = {}
        if record is not None:
            known = json.loads(self._bytes(record).decode("utf-8-sig"))
            known = known if isinstance(known, dict) else {}
        return known, self._bytes(text).decode("utf-8-sig").strip() if text is not None else None

    def _bytes(self, member: Member) -> bytes:
        if member.size > _LONGEST_CAPTION:
            raise ValueError(f"{member.name} has {member.size} bytes")
        if member in self.index.kept:
            return self.index.kept[member]
        self.file.seek(member.offset)
        return self.file.read(member.size)


def _is_video(member: Member) -> bool:
    return is_video_name(member.name) and not _is_hidden(member)


def _is_hidden(member: Member) -> bool:
    """A member as folders have them hidden: macOS puts a `._name` beside each file."""
    return any(part.startswith(".") and part not in (".", "..") for part in member.name.split("/"))


def _path(name: str) -> str:
    return (name.partition("?")[0] if is_uri(name) else name).lower().rstrip()
