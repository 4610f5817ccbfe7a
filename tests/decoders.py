"""Decoding processes that serve one run after the other.

Hundreds of tests run the pipeline in their own process, most of them several times. Each run would start a decoder for its
scan and one for its export, at a second of CPU each: most of what such a run takes.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from longtake.curation.planning import work
from longtake.curation.reading.sandbox import Sandbox
from longtake.curation.stages import export, scan

# Variables that differ from test to test, and that no decoder reads.
_UNREAD = ("PYTEST_CURRENT_TEST", "XDG_CONFIG_HOME")
_MOST = 3  # Decoders that wait, each with some 150 MiB: tests of one file have one or two kinds of surroundings.


class Decoder(NamedTuple):
    """A decoding process, and the surroundings that it was started in."""

    around: object
    process: Any
    connection: Any
    clock: Any


_waiting: list[Decoder] = []


def surroundings() -> object:
    """All that a decoder takes over from the process that starts it. The file of its errors differs where a test looks at it."""
    variables = {name: value for name, value in os.environ.items() if name not in _UNREAD}
    errors = os.fstat(2)
    return os.getcwd(), list(sys.path), variables, errors.st_dev, errors.st_ino


class LentSandbox(Sandbox):
    """A sandbox whose decoder is handed on: once nobody holds the sandbox any more, to the next one in the same surroundings."""

    # Not `__del__`: where a sandbox is part of a cycle, the connection of its decoder could be closed before it is handed on.
    _handing_on: weakref.finalize[..., LentSandbox] | None = None

    def _ready(self, patience: float) -> Any:
        around, before = surroundings(), self._process
        if self._process is None:
            for decoder in [decoder for decoder in _waiting if decoder.around == around][-1:]:
                _waiting.remove(decoder)
                _, self._process, self._connection, self._clock = decoder
        ready = super()._ready(patience)
        if self._process is not before:
            decoder = Decoder(around, self._process, self._connection, self._clock)
            self._handing_on = weakref.finalize(self, hand_on, decoder)
            self._handing_on.atexit = False
        return ready

    def _stop(self) -> None:
        if self._handing_on is not None:
            self._handing_on.detach()
        super()._stop()

    def close(self) -> None:
        if self._handing_on is not None and self._handing_on.alive:
            self._handing_on()
            self._process = self._connection = None
        super().close()


def hand_on(decoder: Decoder) -> None:
    _waiting.append(decoder)
    end(_waiting[:-_MOST])


def end(decoders: list[Decoder]) -> None:
    for decoder in decoders:
        _waiting.remove(decoder)
        decoder.process.kill()
        decoder.process.wait()
        decoder.connection.close()


@contextmanager
def lent_decoders() -> Iterator[None]:
    """Runs in this process share their decoders; those of processes that are started have their own."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (scan, export, work):
            patched.setattr(module, "Sandbox", LentSandbox)
        yield
    end(list(_waiting))
