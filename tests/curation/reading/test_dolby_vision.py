"""Dolby Vision by its configuration record: film without a base layer is refused, all other is read."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import VideoError
from longtake.curation.reading.dolby_vision import without_base
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.video import probe
from tests.curation.reading.test_orientation import trees


def film(path: Path, profile: int, base: int, name: bytes = b"dvcC") -> Path:
    """An MP4 whose sample entry has a record: version 1.0, level 6, an RPU and a base layer. base: its compatibility id."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream: Any = out.add_stream("libx265", rate=24, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((144, 128), 90, np.uint8), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    record = bytes([1, 0, profile << 1, 6 << 3 | 0b101, base << 4]) + bytes(19)
    box = struct.pack(">I4s", len(record) + 8, name) + record
    entry = data.index(b"hev1", data.index(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    made = bytearray(data[:end] + box + data[end:])
    for at in (
        entry,
        *(data.rindex(outer, 0, entry) - 4 for outer in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov")),
    ):
        struct.pack_into(">I", made, at, struct.unpack_from(">I", made, at)[0] + len(box))
    path.write_bytes(made)
    return path


@pytest.mark.parametrize(("profile", "name"), [(5, b"dvcC"), (10, b"dvvC")])
def test_film_without_a_base_is_refused(tmp_path: Path, profile: int, name: bytes) -> None:
    path = film(tmp_path / "film.mp4", profile, 0, name)
    with open_video(str(path)) as video, pytest.raises(VideoError, match="Dolby Vision") as raised:
        probe(video)
    assert raised.value.kind == "unsupported"


@pytest.mark.parametrize(("profile", "base"), [(8, 1), (8, 2), (8, 4), (7, 6)])
def test_film_with_a_base_is_read(tmp_path: Path, profile: int, base: int) -> None:
    with open_video(str(film(tmp_path / "film.mp4", profile, base, b"dvvC"))) as video:
        assert probe(video).width == 128


@given(st.lists(trees, max_size=4).map(b"".join))
def test_any_boxes(data: bytes) -> None:
    assert all(isinstance(track, int) for track in without_base(io.BytesIO(data)))
