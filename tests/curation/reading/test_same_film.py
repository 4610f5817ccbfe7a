"""A film that was copied is the one that was scanned, and another one of its size is not."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from longtake.curation.access import Source
from longtake.curation.errors import RowError
from longtake.curation.folders import file_facts
from longtake.curation.reading import same_film
from longtake.curation.reading.same_film import packets_sha256, require_scanned
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.reading.test_shots_in_scan import scanned as scan
from tests.curation.workbench import videos

BYTES = 2**20  # Every film of these tests is filled up to this size.


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    yield
    same_film._holds_the_same.cache_clear()


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Two films of one size."""
    paths = videos(tmp_path / "films", 2)
    for path in paths:
        fill_up(path)
    return paths


def fill_up(path: Path) -> None:
    """Add a box that means nothing (ISO/IEC 14496-12, 8.1.2)."""
    left = BYTES - path.stat().st_size
    with open(path, "ab") as file:
        file.write(left.to_bytes(4, "big") + b"free" + bytes(left - 8))


def known(path: Path, **more: Any) -> dict[str, Any]:
    """What the scan stores of a film of this machine."""
    made = {"stream_sha256": scan(path).stream_sha256, "duration": 4.0, "store_tags": None}
    return {**file_facts(path), **made, **more}


def later(path: Path) -> None:
    """Its time of writing becomes another one."""
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 60))


def require(path: Path | str, before: dict[str, Any]) -> None:
    source = Source(str(path))
    if isinstance(path, Path):
        require_scanned(source, str(path), before, 1.0, 1.0)
        return
    from longtake.curation.reading.opening import source_file

    with source_file(source) as file:
        require_scanned(source, file, before, 1.0, 1.0)
        assert file.tell() == 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_the_packets_have_the_hash_that_the_scan_stored(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    film(path, pan("table", (2, 0), (200, 60), SMALL, 98), Encoding(size=SMALL))
    stored = scan(path).stream_sha256
    assert stored is not None
    assert packets_sha256(Source(str(path))) == stored


def test_a_copy_is_the_same_film_and_a_replacement_is_not(films: list[Path]) -> None:
    path, other = films
    before = known(path)
    require(path, before)
    later(path)
    require(path, before)
    shutil.copyfile(other, path)
    assert path.stat().st_size == before["bytes"]
    with pytest.raises(RowError, match=r"another film of the same size\): give the list or folder") as caught:
        require(path, before)
    assert caught.value.kind == "changed"


def test_a_recording_that_grew_is_another_film(films: list[Path]) -> None:
    path, _ = films
    before = known(path)
    with open(path, "ab") as file:
        file.write(bytes(8))
    with pytest.raises(RowError, match=rf"\({BYTES + 8} bytes, {BYTES} then\)"):
        require(path, before)


def test_the_hash_of_the_file_decides_where_it_was_asked_for(films: list[Path]) -> None:
    path, other = films
    before = known(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), stream_sha256=None)
    later(path)
    require(path, before)
    shutil.copyfile(other, path)
    with pytest.raises(RowError, match="another film"):
        require(path, before)


def test_a_film_of_which_no_hash_is_known_is_refused_by_its_time_alone(films: list[Path]) -> None:
    path, _ = films
    before = known(path, stream_sha256=None)
    require(path, before)
    later(path)
    with pytest.raises(RowError, match="whether it holds the same film is not known"):
        require(path, before)


def test_a_film_is_read_once_for_all_of_its_clips(films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = films
    before, read = known(path), list[Source]()

    def reading(source: Source) -> str:
        read.append(source)
        return packets_sha256(source)

    monkeypatch.setattr(same_film, "packets_sha256", reading)
    later(path)
    for _ in range(3):
        require(path, before)
    assert len(read) == 1


def test_what_is_not_known_decides_nothing(films: list[Path]) -> None:
    path, _ = films
    later(path)
    require(path, dict.fromkeys(same_film.OF_THE_SCAN))
    require(path, known(path, modified=None))


def test_an_object_is_known_by_when_it_was_written(films: list[Path], s3: str) -> None:
    import s3fs

    path, other = films
    store, uri = s3fs.S3FileSystem(), "s3://place/films/a b.mp4"
    store.put(str(path), uri)
    listed = store.find("place/films", detail=True, refresh=True)["place/films/a b.mp4"]["LastModified"]
    before = known(path, modified=listed.astimezone(UTC))
    require(uri, before)
    require(uri, before | {"modified": before["modified"] + timedelta(microseconds=1000)})
    require(uri, before | {"modified": datetime(2020, 1, 1, tzinfo=UTC)})
    store.put(str(other), uri)
    same_film._holds_the_same.cache_clear()  # Both may have been written in the same second.
    with pytest.raises(RowError, match="another film of the same size"):
        require(uri, before | {"modified": datetime(2020, 1, 1, tzinfo=UTC)})
