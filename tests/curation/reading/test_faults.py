"""Faults of the world are told from facts about a film: by the exceptions of clients, and in the middle of decoding."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longtake.curation import access, ahead
from longtake.curation.access import Source
from longtake.curation.errors import ERROR_KINDS, KINDS, OF_THE_WORLD, Sort, VideoError, is_of_the_world
from longtake.curation.reading import faults
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.faults import kind_of, words
from longtake.curation.reading.opening import open_video, source_file
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.reading.video import missing_tail, probe
from tests.curation.faulty_server import KINDS as OF_SERVERS
from tests.curation.faulty_server import Faulty, faulty_server
from tests.curation.workbench import videos


def test_every_kind_is_of_one_sort() -> None:
    assert ERROR_KINDS.keys() == KINDS.keys()
    assert {kind for kind, (sort, _) in KINDS.items() if sort == Sort.WORLD} == OF_THE_WORLD
    assert {"unreachable", "credentials", "throttled", "unreadable", "away", "timed_out", "no_memory"} == OF_THE_WORLD
    assert not any(map(is_of_the_world, ("corrupt", "crash", "memory", "timeout", "missing", None, "of tomorrow")))


class _Azure(Exception):
    status_code = 403


class _Google(Exception):
    code = "503"


class NoCredentialsError(Exception):
    """As botocore's."""


def botocore(code: str, status: int) -> Exception:
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def wrapped(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_Azure(), "credentials"),
        (_Google(), "throttled"),
        (NoCredentialsError(), "credentials"),
        (PermissionError("Access Denied"), "credentials"),
        (OSError(errno.EBUSY, "Please reduce your request rate."), "throttled"),
        (TimeoutError(), "timed_out"),
        (ConnectionResetError(), "unreachable"),
        (FileNotFoundError("a.mp4"), "missing"),
        (wrapped(FileNotFoundError("a.mp4"), ConnectionRefusedError()), "unreachable"),
        (wrapped(FileNotFoundError("a.mp4"), _Azure()), "credentials"),
        (MemoryError(), "no_memory"),
        (RuntimeError("of a client nobody knows"), "unreachable"),
    ],
    ids=repr,
)
def test_what_clients_of_stores_raise(error: Exception, kind: str) -> None:
    assert kind_of(error, remote=True) == kind


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, "credentials"),
        ("403", 403, "credentials"),
        ("ExpiredToken", 400, "credentials"),
        ("SlowDown", 503, "throttled"),
        ("ServiceUnavailable", 503, "throttled"),
        ("RequestTimeout", 400, "timed_out"),
        ("InternalError", 500, "unreachable"),
        ("NoSuchKey", 404, "missing"),
        ("NoSuchBucket", 404, "away"),
    ],
)
def test_what_s3_says_as_it_comes_and_as_s3fs_translates_it(code: str, status: int, kind: str) -> None:
    pytest.importorskip("s3fs")
    from s3fs.errors import translate_boto_error

    error = botocore(code, status)
    assert kind_of(error, remote=True) == kind
    assert kind_of(translate_boto_error(error), remote=True) == kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, "unreadable"), (errno.EIO, "unreadable"), (errno.ESTALE, "unreadable"),
        (errno.EMFILE, "unreadable"), (errno.ENOTCONN, "unreachable"), (errno.ETIMEDOUT, "timed_out"),
        (errno.ENOMEM, "no_memory"), (errno.ENOENT, "missing"), (errno.ELOOP, "not_a_file"),
    ],
)  # fmt: skip
def test_what_a_disk_of_this_machine_says(number: int, kind: str) -> None:
    assert kind_of(OSError(number, os.strerror(number)), remote=False) == kind


def test_no_address_with_a_signature_is_told() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from yarl import URL

    info: Any = type("Info", (), {"real_url": URL("https://bucket/a.mp4?X-Amz-Signature=secret")})()
    error = aiohttp.ClientResponseError(info, (), status=403, message="Forbidden")
    assert (
        words(wrapped(FileNotFoundError("https://bucket/a.mp4?X-Amz-Signature=secret"), error)) == "HTTP 403 Forbidden"
    )

    lost = wrapped(FileNotFoundError("https://bucket/a.mp4?X-Amz-Signature=secret"), ConnectionError("disconnected"))
    assert words(lost) == "disconnected"
    assert (
        words(RuntimeError("GET https://bucket/a.mp4?X-Amz-Signature=secret failed"))
        == "GET https://bucket/a.mp4?… failed"
    )


# ── in the middle of decoding ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("films"), 1)[0]


class Breaking(io.BytesIO):
    """A file whose reads fail once so many have gone well."""

    def __init__(self, data: bytes, good: int, error: Exception) -> None:
        super().__init__(data)
        self.good, self.error = good, error

    def read(self, size: int | None = -1, /) -> bytes:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().read(size)


def read_all(source: Any) -> int:
    with open_video(source) as video:
        count = DecodeCount()
        info = probe(video)
        if missing_tail(video):
            raise VideoError("truncated", "of the index")
        return sum(1 for _ in decode(video, info, count))


def outcome_of(source: Any) -> tuple[str | None, int]:
    """The kind of the error, or the number of frames."""
    try:
        return None, read_all(source)
    except VideoError as error:
        return error.kind, 0


@pytest.mark.parametrize("error", [_Azure(), OSError(errno.EIO, "I/O error"), ConnectionResetError(), TimeoutError()])
def test_a_read_that_fails_is_told_wherever_it_happens(film: Path, error: Exception) -> None:
    """Nothing that a decoder makes of it (damaged, cut short, no video) is believed."""
    data = film.read_bytes()
    frames, good = 0, 0
    while not frames:
        kind, frames = outcome_of(Breaking(data, good, error))
        assert kind in (None, kind_of(error, remote=True)), good
        good += 1
    assert frames == read_all(io.BytesIO(data))
    assert good > 3


def test_a_cut_tells_it_too(film: Path, tmp_path: Path) -> None:
    settings = EncodeSettings(frames=60, preset="ultrafast", crf=30)
    for good in range(4):
        with pytest.raises(VideoError) as told:
            cut_clip(Breaking(film.read_bytes(), good, TimeoutError()), 2.0, 4.0, tmp_path / "clip.mp4", settings)
        assert told.value.kind == "timed_out", good
    assert not (tmp_path / "clip.mp4").exists()


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(film: Path) -> Iterator[Faulty]:
    pytest.importorskip("aiohttp")
    with faulty_server(film.parent) as running:
        yield running


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("fault", ["403", "401", "429", "503", "500", "reset", "cut"])
def test_a_web_server_that_fails_at_once_or_later(
    server: Faulty, film: Path, fault: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEAST", "MOST"):  # Pieces this small let some arrive late.
        monkeypatch.setattr(ahead, name, 4096)
    server.fault, server.after = fault, after
    with pytest.raises(VideoError) as told:
        read_in_blocks(f"{server.url}/{film.name}")
    assert told.value.kind == OF_SERVERS[fault]
    assert server.url not in str(told.value)


def read_in_blocks(uri: str) -> None:
    """A whole film, piece by piece."""
    with source_file(Source(uri)) as file:
        read_all(file)


def test_a_web_server_that_says_nothing_for_too_long(
    server: Faulty, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SILENCE_SECONDS", 0.5)
    server.fault = "hang"
    with pytest.raises(VideoError) as told:
        read_in_blocks(f"{server.url}/{film.name}")
    assert told.value.kind == OF_SERVERS["hang"]


def test_a_web_server_that_hangs_is_not_a_film_that_takes_too_long(server: Faulty, film: Path) -> None:
    uri, sandbox = f"{server.url}/{film.name}", Sandbox()
    try:
        assert sandbox.run(read_all, (uri,), Limits(120.0, 2048)) > 40  # The imports of the child take their time.
        server.fault = "hang"
        with pytest.raises(VideoError) as told:
            sandbox.run(read_all, (uri,), Limits(3.0, 2048))
        assert told.value.kind == "timed_out"
    finally:
        sandbox.close()


def test_a_machine_without_memory_is_not_a_film_that_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    from longtake.curation.reading import sandbox

    assert sandbox._out_of_memory().kind == "memory"
    monkeypatch.setattr(sandbox, "_FEW_MIB", 2**40)
    assert sandbox._out_of_memory().kind == "no_memory"


def test_seconds_waited() -> None:
    from mmap import mmap

    with mmap(-1, 4096) as clock:
        faults.clock_started(clock)
        assert faults.seconds_waited(clock, 5.0) == 0.0
        faults._CLOCK.pack_into(clock, 0, 2.0, 10.0)
        assert faults.seconds_waited(clock, 13.0) == 5.0


def test_an_error_of_a_decoder_is_told_without_its_number(tmp_path: Path) -> None:
    """FFmpeg's number for data that are none is 1094995529, and no person knows it."""
    path = tmp_path / "noise.mp4"
    path.write_bytes(bytes(range(256)) * 256)
    with pytest.raises(VideoError) as caught:
        open_video(str(path)).__enter__()
    assert caught.value.kind == "not_video"
    assert str(caught.value).endswith("no container that this project reads: Invalid data found when processing input")
