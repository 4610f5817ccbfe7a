"""Answers that were paid for and whose clip has no row yet: a file per clip, gone when its row is stored.

A kill then costs the requests that were under way and the answers that were being written, and nothing else. An answer is a
line that is appended and synced; a torn last line is no answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict

from longtake.captioning.chat import CaptionerFault, ChatAnswer, Finish
from longtake.manifests.folder import Folder, in_words

ANSWERS = ".answers"  # The folder of the journal, in the workspace.
QUESTIONS = ".questions"  # The journal of questions that are filters: their rows are stored before there are captions.
MAX_BYTES = 4 * 2**20  # Bytes of one clip's file. A larger file was not written by this program.


class Journal:
    """folder: below which the files lie."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self, clip_id: str) -> dict[str, ChatAnswer]:
        """The answers to a clip's requests, by `ChatRequest.digest`; lines that are damaged are left out. Raises CaptionerFault
        if they cannot be read: without them they would be paid for again."""
        try:
            data = self._folder.read(_file(clip_id), at_most=MAX_BYTES)
        except FileNotFoundError:
            return {}
        except Exception as error:  # Clients of object stores raise errors of their own.
            raise self._fault("read", clip_id, error) from error
        answers: dict[str, ChatAnswer] = {}
        for line in data.decode("utf-8", "replace").splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                row = json.loads(line)
                key = str(row.pop("key"))
                row["finish"] = Finish(row["finish"])
                answer = ChatAnswer(**row)
                if isinstance(answer.text, str):
                    answers[key] = answer
        return answers

    def add(self, clip_id: str, key: str, answer: ChatAnswer) -> None:
        """Keep an answer; it is on the disk when this returns. Raises CaptionerFault if it cannot be kept."""
        try:
            self._folder.append(_file(clip_id), _line(key, answer))
        except Exception as error:
            raise self._fault("kept", clip_id, error) from error

    def forget(self, clip_ids: Iterable[str]) -> None:
        """The rows of these clips are stored. A file that cannot be removed now stays: it answers the same requests once more."""
        for clip_id in clip_ids:
            with suppress(Exception):  # Clients of object stores raise errors of their own.
                self._folder.remove(_file(clip_id))

    def _fault(self, verb: str, clip_id: str, error: Exception) -> CaptionerFault:
        place = self._folder.file(_file(clip_id))
        return CaptionerFault(f"the answers that are paid for cannot be {verb}: {in_words(error)} ({place})")


def _file(clip_id: str) -> str:
    return f"{clip_id[:2]}/{clip_id}.jsonl"


def _line(key: str, answer: ChatAnswer) -> bytes:
    # The line stands by itself even after a line that a kill tore off.
    return b"\n" + json.dumps({"key": key, **asdict(answer)}).encode() + b"\n"
