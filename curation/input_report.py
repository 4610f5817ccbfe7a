"""What one command was given and read, in sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from longtake.curation.folders import LeftOut

_SHOWN = 20  # Bad rows that are printed; all of them are rows of the workspace.


@dataclass(slots=True)
class InputReport:
    """What one command was given and read.

    videos: distinct ones. files: that came by name, out of folders and out of globs. folders: that were listed. lists, rows:
    of lists. archives, members: videos in archives. bad: each row and folder that cannot be used, and why; they become error
    rows. left_out: reason → how many, and a few by name. endings: of files that are no videos by their names. unread: list →
    columns that mean nothing here.
    comments: lines of text lists that begin with #. gone, changed, back: videos that are no longer in their folders, that are
    other files than those that were scanned, and that are there again (longtake.curation.growth).
    """

    videos: int = 0
    files: int = 0
    folders: int = 0
    lists: int = 0
    rows: int = 0
    archives: int = 0
    members: int = 0
    bad: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    endings: Counter[str] = field(default_factory=Counter)
    unread: dict[str, list[str]] = field(default_factory=dict)
    comments: int = 0
    gone: LeftOut = field(default_factory=LeftOut)
    changed: LeftOut = field(default_factory=LeftOut)
    back: LeftOut = field(default_factory=LeftOut)

    def lines(self) -> list[str]:
        """As sentences for a terminal."""
        rows = f", {count(self.rows, 'row')} of {count(self.lists, 'list')}" if self.lists else ""
        rows += f", {count(self.members, 'member')} of {count(self.archives, 'archive')}" if self.archives else ""
        printed = [
            f"inputs: {count(self.videos, 'video')} from {count(self.files, 'file')} in {count(self.folders, 'folder')}{rows}"
        ]
        printed += [_told(f"left out, {reason}", what) for reason, what in self.left_out.items()]
        growth = {
            "gone from their folders, so that their clips do not count": self.gone,
            "back in their folders": self.back,
            "changed since they were scanned, and scanned again": self.changed,
        }
        printed += [_told(words, what) for words, what in growth.items() if what.count]
        if self.endings:
            kinds = ", ".join(f"{shown(ending)} {n}" for ending, n in self.endings.most_common(8))
            printed.append(f"left out, no video by its name: {self.endings.total()} ({kinds})")
        if self.comments:
            printed.append(f"left out, lines of text lists that begin with #: {self.comments}")
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, columns in self.unread.items():
            alike.setdefault(tuple(columns), []).append(name)
        for unread, names in alike.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            printed.append(f"{shown(names[0])}{more}: columns that are not read: {', '.join(map(shown, unread))}")
        if self.bad:
            printed.append(f"cannot be used, and become error rows: {len(self.bad)}")
            printed += [f"    {shown(bad)}" for bad in self.bad[:_SHOWN]]
            if len(self.bad) > _SHOWN:
                printed.append(
                    f"    … and {len(self.bad) - _SHOWN} more, each with its reason in the manifest of videos"
                )
        return printed


def _told(words: str, what: LeftOut) -> str:
    more = ", …" if what.count > len(what.examples) else ""
    return f"{words}: {what.count} ({', '.join(map(shown, what.examples))}{more})"


def shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


def count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
