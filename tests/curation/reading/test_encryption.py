"""Film that is encrypted is told from film that is damaged: no key, no pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import VideoError
from longtake.curation.reading.matroska import video_tracks
from longtake.curation.reading.mp4 import encrypted
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.video import probe
from tests.curation.reading.test_aperture import element
from tests.curation.reading.test_orientation import trees

LOCKED = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}


def film(path: Path, options: dict[str, str]) -> Path:
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(12):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((144, 128), 9 * number, np.uint8), "yuv420p")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_an_encrypted_film_is_refused(tmp_path: Path, suffix: str) -> None:
    with open_video(str(film(tmp_path / f"clear{suffix}", {}))) as video:
        assert probe(video).width == 128
    path = film(tmp_path / f"film{suffix}", LOCKED)
    with open_video(str(path)) as video, pytest.raises(VideoError, match="encrypted") as raised:
        probe(video)
    assert raised.value.kind == "unsupported"


def track(*encodings: bytes) -> bytes:
    """A Matroska file with one track of video."""
    video = element(0x83, b"\1") + b"".join(element(0x6D80, element(0x6240, inner)) for inner in encodings)
    return element(0x1A45DFA3, b"") + element(0x18538067, element(0x1654AE6B, element(0xAE, video)))


def test_a_track_of_matroska_says_that_it_is_encrypted_and_not_only_compressed() -> None:
    compressed, locked = element(0x5034, element(0x4254, b"\3")), element(0x5035, element(0x47E1, b"\5"))
    assert [one.encrypted for one in video_tracks(io.BytesIO(track()))] == [False]
    assert [one.encrypted for one in video_tracks(io.BytesIO(track(compressed)))] == [False]
    assert [one.encrypted for one in video_tracks(io.BytesIO(track(compressed, locked)))] == [True]


@given(st.lists(trees, max_size=4).map(b"".join))
def test_any_boxes(data: bytes) -> None:
    assert all(isinstance(track, int) for track in encrypted(io.BytesIO(data)))
