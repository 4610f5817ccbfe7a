"""Answers that were paid for and whose clip has no row yet: a file per clip, gone when its row is stored.

A kill then costs the requests that were in the air, and nothing that was answered. On a local disk an answer is a line
that is appended (a torn last line is no answer); an object store has no appending, so the clip's object is written anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from longtake.captioning.chat import ChatAnswer, Finish

MAX_BYTES = 4 * 2**20  # of one clip's file: more is not ours


class Journal:
    """filesystem: fsspec's. folder: below which the files lie. local: whether `folder` is a path of this machine."""

    def __init__(self, filesystem: Any, folder: str, *, local: bool) -> None:
        self._fs, self._folder, self._local = filesystem, folder, local

    def _file(self, clip_id: str) -> str:
        return f"{self._folder}/{clip_id[:2]}/{clip_id}.jsonl"

    def read(self, clip_id: str) -> dict[str, ChatAnswer]:
        """The answers to a clip's requests, by `ChatRequest.digest`; lines that are damaged are left out."""
        try:
            if self._local:
                with open(self._file(clip_id), "rb") as file:
                    data = file.read(MAX_BYTES)
            else:
                data = self._fs.cat_file(self._file(clip_id), end=MAX_BYTES)
        except FileNotFoundError:
            return {}
        found: dict[str, ChatAnswer] = {}
        for line in data.decode("utf-8", "replace").splitlines():
            with suppress(ValueError, TypeError, KeyError):
                row = json.loads(line)
                key = str(row.pop("key"))
                row["finish"] = Finish(row["finish"])
                answer = ChatAnswer(**row)
                if isinstance(answer.text, str):
                    found[key] = answer
        return found

    def add(self, clip_id: str, key: str, answer: ChatAnswer, before: Iterable[tuple[str, ChatAnswer]]) -> None:
        """Keep an answer. before: those that the clip has already, for stores that cannot append."""
        if self._local:
            path = self._file(clip_id)
            line = _line(key, answer)
            try:
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        else:
            lines = [_line(old, kept) for old, kept in before if old != key]
            self._fs.pipe_file(self._file(clip_id), b"".join([*lines, _line(key, answer)]))

    def forget(self, clip_ids: Iterable[str]) -> None:
        """The rows of these clips are stored."""
        for clip_id in clip_ids:
            with suppress(FileNotFoundError):
                if self._local:
                    os.unlink(self._file(clip_id))
                else:
                    self._fs.rm_file(self._file(clip_id))


def _line(key: str, answer: ChatAnswer) -> bytes:
    # a line of its own even after one that was torn
    return b"\n" + json.dumps({"key": key, **asdict(answer)}).encode() + b"\n"
