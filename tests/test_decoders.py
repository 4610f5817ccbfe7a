"""Decoders that are handed on: to whom they are, to whom they are not, and that none is handed on broken."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.sandbox import Limits
from tests import decoders
from tests.decoders import LentSandbox

EASY = Limits(60, 1024)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests have decoders of their own."""
    monkeypatch.setattr(decoders, "_waiting", [])
    yield
    decoders.end(list(decoders._waiting))


def decoder_of(sandbox: LentSandbox) -> int:
    found: int = sandbox.run(os.getpid, (), EASY)
    return found


def test_the_next_sandbox_in_the_same_surroundings_has_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, beside = LentSandbox(), LentSandbox()
    decoder = decoder_of(first)
    assert decoder_of(beside) != decoder, "a sandbox that is held keeps its decoder"
    beside.close()
    del first
    again = LentSandbox()
    assert decoder_of(again) == decoder
    again.close()
    with monkeypatch.context() as patched:
        patched.setenv("LONGTAKE_ALLOW_PRIVATE", "0")
        assert decoder_of(LentSandbox()) != decoder
    monkeypatch.chdir(tmp_path)
    assert decoder_of(LentSandbox()) != decoder


def test_a_sandbox_of_a_cycle_hands_on_a_decoder_that_can_be_talked_to() -> None:
    sandbox = LentSandbox()
    decoder = decoder_of(sandbox)
    sandbox.itself = sandbox  # type: ignore[attr-defined]
    del sandbox
    gc.collect()
    assert decoder_of(LentSandbox()) == decoder


def test_no_decoder_is_handed_on_that_a_job_ended_or_somebody_killed() -> None:
    sandbox = LentSandbox()
    decoder = decoder_of(sandbox)
    with pytest.raises(VideoError, match="exit status 3"):
        sandbox.run(os._exit, (3,), EASY)
    after = decoder_of(sandbox)
    assert after != decoder
    sandbox.close()
    psutil.Process(after).kill()
    assert decoder_of(LentSandbox()) not in (decoder, after)


def test_few_wait() -> None:
    held = [LentSandbox() for _ in range(decoders._MOST + 1)]
    started = [decoder_of(sandbox) for sandbox in held]
    while held:
        held.pop().close()
    assert len(decoders._waiting) == decoders._MOST
    assert sum(map(psutil.pid_exists, started)) == decoders._MOST
