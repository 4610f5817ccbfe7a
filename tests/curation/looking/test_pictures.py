"""Every clip can be seen: by the strip that the scan stored, by a stored sample, or by frames of its source."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from longtake.curation.access import PRIVATE_VARIABLE, Source
from longtake.curation.errors import VideoError
from longtake.curation.folders import file_facts
from longtake.curation.looking import pictures as module
from longtake.curation.looking.pictures import NoStrip, Pictures, Strip, strip_of
from longtake.curation.reading.same_film import packets_sha256
from longtake.curation.reading.samples import store_sample
from longtake.curation.reading.sandbox import Sandbox
from longtake.curation.workspace import Workspace
from longtake.filters.base import Sample
from longtake.manifests import schemas
from longtake.manifests.frames import StoredStrip, frames_writer
from longtake.manifests.ids import clip_id, video_id
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.workbench import videos

STORED = StoredStrip(b"a jpeg", [1.0, 2.0])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "workspace"))


def clip(uri: str, start: float = 0.0, end: float = 3.0) -> dict[str, Any]:
    return {"clip_id": clip_id(uri, start, end), "video_id": video_id(uri), "uri": uri, "start": start, "end": end}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "film.mp4"
    film(path, pan("table", (2, 0), (200, 60), SMALL, 96), Encoding(size=SMALL))
    return str(path)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pictures]:
    """One process that reads sources, for all tests."""
    pictures = Pictures(Workspace(str(tmp_path_factory.mktemp("none"))))
    yield pictures
    pictures.close()


def test_a_stored_strip_is_given_as_it_is(workspace: Workspace) -> None:
    one = clip("/films/gone.mp4")
    with frames_writer(workspace.path, one["video_id"]) as writer:
        writer.write_strip(one["clip_id"], STORED)
    assert strip_of(workspace, one) == Strip(STORED.jpeg, STORED.times, True)


def test_a_sample_of_an_older_version_makes_a_strip(workspace: Workspace) -> None:
    one = clip("/films/gone.mp4")
    frames = np.stack([np.full((90, 160, 3), 40 * i, np.uint8) for i in range(1, 6)])
    sample = Sample(frames, frames, np.arange(5.0), np.arange(5.0) + 0.5)
    with frames_writer(workspace.path, one["video_id"]) as writer:
        writer.write(store_sample(one["clip_id"], sample, 90))
    found = strip_of(workspace, one)
    assert isinstance(found, Strip)
    assert (found.times, found.stored) == ([0, 1, 2, 3, 4], True)
    picture = np.asarray(cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR))
    parts = np.split(picture, 5, axis=1)
    assert [part.mean() for part in parts] == pytest.approx([40, 80, 120, 160, 200], abs=2)


def test_a_clip_that_was_not_decoded_shows_its_source(reader: Pictures, source: str) -> None:
    one = clip(source)
    assert reader.strip_of(one, sources=False) == NoStrip("No picture of this clip is stored.", again=True)
    found = reader.strip_of(one)
    assert isinstance(found, Strip)
    assert not found.stored
    assert found.times == pytest.approx([0.3, 0.9, 1.5, 2.1, 2.7], abs=0.1)
    assert reader.strip_of(one, sources=False) is found  # The strip is remembered.


def test_a_picture_that_a_run_stored_is_shown_after_it(workspace: Workspace) -> None:
    """The studio went on saying that there is none."""
    one, pictures = clip("/films/gone.mp4"), Pictures(workspace)
    assert isinstance(pictures.strip_of(one), NoStrip)
    with frames_writer(workspace.path, one["video_id"]) as writer:
        writer.write_strip(one["clip_id"], STORED)
    pictures.forget()
    assert pictures.strip_of(one) == Strip(STORED.jpeg, STORED.times, True)


def test_a_source_that_is_gone_or_no_film_is_said_in_a_sentence(reader: Pictures, tmp_path: Path) -> None:
    gone = reader.strip_of(clip("/films/gone.mp4"))
    assert gone == NoStrip("No picture of this clip is stored, and its source is not there.")
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no film at all" * 100)
    found = reader.strip_of(clip(str(junk)))
    assert isinstance(found, NoStrip)
    assert found.why.startswith("No picture of this clip is stored, and its source cannot be shown: no container")
    assert found.why.endswith(".")
    assert "\n" not in found.why


def test_no_picture_comes_out_of_another_film_than_the_one_that_was_scanned(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The studio played whatever lay under the film's name, beside the scores and captions of the old film."""
    path, other = videos(tmp_path / "films", 2)
    longest = max(path.stat().st_size, other.stat().st_size)
    for each in (path, other):
        each.write_bytes(each.read_bytes() + bytes(longest - each.stat().st_size))
    one = clip(str(path))
    row = {"video_id": one["video_id"], "uri": one["uri"], "status": "ok", "duration": 4.0, **file_facts(path)}
    row["stream_sha256"] = packets_sha256(Source(str(path)))
    workspace.videos.append(pa.Table.from_pylist([row], schema=schemas.VIDEOS))
    shown = Pictures(workspace)
    try:
        assert shown.changed(one) is None
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        os.utime(path, (0, 1_700_000_000))
        why = shown.changed(one)
        assert why is not None
        assert why.startswith("its file has changed since it was scanned (written at 2023-11-14 22:13:20 UTC")
        found = shown.strip_of(one)
        assert isinstance(found, NoStrip)
        assert "its source cannot be shown: its file has changed since it was scanned" in found.why
        path.write_bytes(content)  # It was copied back, at another time.
        os.utime(path, (0, 1_700_000_060))
        assert shown.changed(one) is None
        path.unlink()
        assert shown.changed(one) is None  # The player says itself that the file is gone.
    finally:
        shown.close()


def test_a_source_that_may_not_be_read_is_not(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRIVATE_VARIABLE, raising=False)
    found = strip_of(workspace, clip("http://127.0.0.1:9/film.mp4"))
    assert isinstance(found, NoStrip)
    assert "127.0.0.1 is an address of this machine or its network" in found.why


def test_a_film_that_takes_too_long_is_stopped(reader: Pictures, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def hangs(self: object, function: object, args: tuple[Any, ...], limits: Any) -> None:
        asked.append(limits.seconds)
        raise VideoError("timeout", "decoding did not end within its time limit; see scan.time_limit")

    monkeypatch.setattr(Sandbox, "run", hangs)
    found = reader.strip_of(clip(source, 0.0, 1.0))
    assert isinstance(found, NoStrip)
    assert (found.why.endswith("it gave none in 10 s."), asked) == (True, [10.0])


def test_few_are_waited_for_at_a_time(workspace: Workspace, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page with many such clips leaves threads to its server."""
    going_on = threading.Event()

    def waits(self: object, function: object, args: Any, limits: Any) -> StoredStrip:
        going_on.wait(20)
        return STORED

    monkeypatch.setattr(Sandbox, "run", waits)
    pictures = Pictures(workspace)
    found: dict[int, Strip | NoStrip] = {}

    def ask(number: int) -> None:
        found[number] = pictures.strip_of(clip(source, number, number + 1.0))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(module.WAITING + 4)]
    for thread in threads:
        thread.start()
    while len(found) < 4:
        threads[0].join(0.01)
    going_on.set()
    for thread in threads:
        thread.join()
    answers = [asdict(one) for one in found.values()]
    assert sum("again" in one and one["again"] for one in answers) == 4
    assert sum("jpeg" in one for one in answers) == module.WAITING
