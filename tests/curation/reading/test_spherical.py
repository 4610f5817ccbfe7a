"""Film of all directions, and film in stereo: by MP4 and by Matroska, and what the film's row says."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from longtake.curation.stages.scan import scan_row
from tests.curation.reading.test_aperture import film, with_box
from tests.curation.reading.test_cut_off import recipe


def box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, name) + data


def plain(path: Path) -> Path:
    return film(path.with_suffix(".mp4"))


def by_boxes(path: Path) -> Path:
    """Spherical Video V2: a sphere, and two views above one another."""
    sphere = box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20)))
    boxes = box(b"st3d", bytes([0, 0, 0, 0, 1])) + box(b"sv3d", box(b"svhd", bytes(5)) + sphere)
    return with_box(plain(path), boxes)


def remuxed(path: Path, source: Path, **metadata: str) -> Path:
    with av.open(str(source)) as old, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(old.streams.video[0])
        stream.metadata.update(metadata)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def side_by_side(path: Path) -> Path:
    """As Matroska says it. ffmpeg's muxer writes it for this tag."""
    return remuxed(path.with_suffix(".mkv"), plain(path), stereo_mode="left_right")


@pytest.mark.parametrize(
    ("make", "told"),
    [(plain, (None, None)), (by_boxes, ("equirectangular", "top and bottom")), (side_by_side, (None, "side by side"))],
)
def test_the_row_says_what_pictures_hold(
    tmp_path: Path, make: Callable[[Path], Path], told: tuple[str | None, str | None]
) -> None:
    given = {"video_id": "a", "uri": str(make(tmp_path / "film")), "licence": None, "spans": []}
    by = recipe(window=0.6).model_dump(mode="json")
    row = scan_row(given, str(tmp_path / "ws"), by, all_scores=True)
    assert (row["status"], row["projection"], row["stereo"]) == ("ok", *told)
