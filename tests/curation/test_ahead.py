"""Reading on and going elsewhere: what is fetched of a remote file, counted."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation import ahead
from longtake.curation.ahead import LEAST, MOST, ReadAhead
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video


class Requests(io.BytesIO):
    """Remembers what was fetched."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.fetched: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.fetched.append(len(data))
        return data


@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(-1, 300)), max_size=20))
def test_it_reads_what_is_there(steps: list[tuple[int, int]]) -> None:
    data = random.Random(0).randbytes(1000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ahead, "LEAST", 16)
        patched.setattr(ahead, "MOST", 64)
        file, plain = ReadAhead(Requests(data)), io.BytesIO(data)
        for place, size in steps:
            assert file.seek(place) == plain.seek(place)
            assert file.read(size) == plain.read(size)
            assert file.tell() == max(plain.tell(), place) or size == 0
        assert file.seek(-10, 2) == 990
        assert file.read() == data[990:]


def test_who_reads_on_needs_few_requests_and_fetches_each_byte_once() -> None:
    data = bytes(40 * 2**20)
    requests = Requests(data)
    file = ReadAhead(requests)  # type: ignore[arg-type]
    while file.read(32_768):
        pass
    assert sum(requests.fetched) == len(data)
    assert len(requests.fetched) <= 14
    assert max(requests.fetched) == MOST


def test_who_goes_elsewhere_fetches_little_there_and_finds_what_was_fetched() -> None:
    requests = Requests(bytes(2**24))
    file = ReadAhead(requests)  # type: ignore[arg-type]
    for place in (0, 2**20, 2**23):
        file.seek(place)
        file.read(100)
    assert requests.fetched == [LEAST] * 3
    for place in (0, 2**23, 2**20):
        file.seek(place + 100)
        file.read(1000)
    assert len(requests.fetched) == 3


def test_a_listed_clip_of_a_remote_film_fetches_at_most_three_times_its_bytes(
    numbered: Path, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "LEAST", 4096)  # The film has 25 KB a second, a hundredth of a real one.
    monkeypatch.setattr(av, "open", small_buffer(av.open))
    requests = Requests(numbered.read_bytes())
    monkeypatch.setattr(
        "longtake.curation.reading.opening.open_source",
        lambda source: ReadAhead(requests),  # type: ignore[arg-type]
    )
    span = Span(200.0, 215.0)
    found = scan_video("s3://films/long.mp4", recipe, lambda clip, sample: None, spans=[span], all_scores=True)
    assert [clip.span for clip in found.clips] == [span]
    assert not found.clips[0].error
    with av.open(str(numbered)) as container:
        packets = [(p.pts * float(p.time_base), p.size) for p in container.demux(video=0) if p.pts is not None]
    own = sum(size for time, size in packets if span.start <= time < span.end)
    index = numbered.stat().st_size - sum(size for _, size in packets)
    assert sum(requests.fetched) <= 3 * own + index + 65_536
    assert np.sum(requests.fetched) < numbered.stat().st_size / 2


def small_buffer(opened: Any) -> Any:
    return lambda *args, **more: opened(*args, **{"buffer_size": 4096, **more})


@pytest.fixture
def recipe() -> Any:
    from longtake.curation.recipe import load_recipe

    return load_recipe("base")
