"""Rotations read from boxes, against what PyAV finds on decoded frames of the same files; and against any bytes."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.orientation import Orientation, orientation_of, track_orientations
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.video import as_shown, probe
from tests.corpus import CASES, SMALL, Corpus, Encoding, film, pan

REAL = Path(__file__).parents[4] / "shared" / "corpus" / "videos"
TURNED = ["rot/media_720p.mp4", "rot/media_720p_rot270.mp4", "rot/media_editlist_hevc_rot.mp4"]
TURNED += [f"edge/decord_rot{degrees}.mov" for degrees in (0, 90, 180)]


def decoded_rotations(path: Path) -> dict[int, int]:
    """Track id → clockwise degrees, by the first decoded frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert isinstance(frame, av.VideoFrame)
        return {stream.id: -round(frame.rotation) % 360}


def read(path: Path) -> dict[int, int]:
    with path.open("rb") as file:
        return {track: shown.rotation for track, shown in track_orientations(file).items()}


@pytest.mark.parametrize("name", TURNED)
def test_real_files_as_their_frames_say(name: str) -> None:
    path = REAL / name
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    decoded = decoded_rotations(path)
    found = read(path)
    assert {track: found[track] for track in decoded} == decoded


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_made_files_as_they_were_made(tmp_path: Path, suffix: str, degrees: int) -> None:
    path = tmp_path / f"turned{suffix}"
    film(path, pan("street", (2, 0), size=SMALL, count=3), Encoding(size=SMALL, rotation=degrees))
    assert read(path) == decoded_rotations(path)
    assert list(read(path).values()) == [-degrees % 360]  # PyAV counts the angle the other way round.


def test_index_in_front_and_behind(tmp_path: Path) -> None:
    how = Encoding(size=SMALL, rotation=90)
    for name, options in {
        "behind": {},
        "front": {"movflags": "faststart"},
        "parts": {"movflags": "frag_keyframe"},
    }.items():
        path = tmp_path / f"{name}.mp4"
        film(path, pan("street", (2, 0), size=SMALL, count=3), how, **options)
        assert list(read(path).values()) == [270], name


def test_several_tracks(corpus: Corpus) -> None:
    found = read(corpus["film_with_cover"])  # The tracks are the film, its cover and its sound.
    assert len(found) >= 2
    assert set(found.values()) == {0}


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if Path(case.filename).suffix in {".mkv", ".webm", ".ts", ".avi"}]
)
def test_other_containers_have_none(corpus: Corpus, name: str) -> None:
    assert read(corpus[name]) == {}


# ---------------------------------------------------------------------------------------------------------------------
# Nothing is trusted


class CountedFile(io.BytesIO):
    """Bytes that know how often they were read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


def box(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


def check(data: bytes) -> dict[int, int]:
    file = CountedFile(data)
    found = {track: shown.rotation for track, shown in track_orientations(file).items()}
    assert all(isinstance(track, int) and angle in (0, 90, 180, 270) for track, angle in found.items())
    assert file.reads <= len(data) / 4 + 3  # Each box has at least 8 bytes and is read at most twice.
    return found


sizes = st.one_of(st.none(), st.integers(0, 20), st.sampled_from([0, 1, 7, 8, 2**31, 2**32 - 1]))
names = st.sampled_from([b"moov", b"trak", b"tkhd", b"mdia", b"free"])
leaves = st.builds(box, names, st.binary(max_size=100), sizes)
trees = st.recursive(
    leaves, lambda inner: st.builds(box, names, st.lists(inner, max_size=4).map(b"".join), sizes), max_leaves=12
)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    check(data)


@given(st.lists(trees, max_size=4).map(b"".join), st.binary(max_size=20))
@example(box(b"moov", box(b"trak", box(b"tkhd", b""))), b"")
@example(box(b"moov", box(b"trak", box(b"tkhd", b"\1" + bytes(50)))), b"")
@example(box(b"moov", struct.pack(">I4sQ", 1, b"trak", 2**63)), b"")
@example(box(b"moov", struct.pack(">I4sQ", 1, b"trak", 3)), b"")
def test_any_boxes(boxes: bytes, rest: bytes) -> None:
    check(boxes + rest)


def test_every_truncation_of_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "turned.mp4"
    how = Encoding(size=SMALL, rotation=90)
    film(path, pan("street", (2, 0), size=SMALL, count=1), how, movflags="faststart")
    data = path.read_bytes()
    whole = check(data)
    end = data.index(b"tkhd") + 4 + 84
    for cut in range(end + 8):
        assert check(data[:cut]) in ({}, whole)


def test_a_file_of_nothing_but_boxes_is_left_early() -> None:
    file = CountedFile(box(b"free", b"") * 200_000)
    assert track_orientations(file) == {}
    assert file.reads <= 10_001


header = st.tuples(st.integers(1, 2**32 - 1), st.sampled_from([0, 90, 180, 270]), st.booleans())


@given(st.lists(header, max_size=5, unique_by=lambda made: made[0]))
def test_tracks_as_the_standard_writes_them(tracks: list[tuple[int, int, bool]]) -> None:
    """ISO/IEC 14496-12, 8.3.2: a matrix of 16.16 numbers, behind 40 bytes in version 0 and 52 in version 1."""
    turns = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}
    traks = b""
    for track, degrees, wide in tracks:
        cos, sin = turns[degrees]
        dates = bytes(16 if wide else 8)
        duration = bytes(8 if wide else 4)
        matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
        fields = bytes([wide, 0, 0, 7]) + dates + struct.pack(">I", track) + bytes(4) + duration + bytes(16) + matrix
        traks += box(b"trak", box(b"tkhd", fields + bytes(8)))
    assert check(box(b"ftyp", b"isom") + box(b"moov", traks)) == {track: degrees for track, degrees, _ in tracks}


# ---------------------------------------------------------------------------------------------------------------------
# Mirrors

# The numbers a, b, c and d of a display matrix, and the corners of the picture that it makes (top left, top right, bottom left,
# bottom right). The pictures that ffmpeg's autorotation makes were looked at.
ORIENTATIONS = {
    "rot0": ((1, 0, 0, 1), "ABCD"),
    "rot90": ((0, 1, -1, 0), "CADB"),
    "rot180": ((-1, 0, 0, -1), "DCBA"),
    "rot270": ((0, -1, 1, 0), "BDAC"),
    "hflip": ((-1, 0, 0, 1), "BADC"),
    "vflip": ((1, 0, 0, -1), "CDAB"),
    "transpose": ((0, 1, 1, 0), "ACBD"),
    "transverse": ((0, -1, -1, 0), "DBCA"),
}


def shown_as(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """`source`, an upright MP4 of one track, with another display matrix."""
    data = source.read_bytes()
    at = data.index(b"tkhd") + 4
    at += 52 if data[at] else 40
    a, b, c, d = (value << 16 for value in matrix)
    target.write_bytes(data[:at] + struct.pack(">5i", a, b, 0, c, d) + data[at + 20 :])
    return target


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_eight_orientations(tmp_path: Path, name: str) -> None:
    matrix, corners = ORIENTATIONS[name]
    film(tmp_path / "film.mp4", pan("street", (2, 0), size=SMALL, count=2), Encoding(size=SMALL))
    path = shown_as(tmp_path / "film.mp4", tmp_path / "turned.mp4", matrix)
    with path.open("rb") as file:
        (shown,) = track_orientations(file).values()
    with av.open(str(path)) as container:
        assert orientation_of(next(container.decode(video=0))) == shown
    letters = np.array([["A", "B"], ["C", "D"]])
    assert "".join(shown.upright(letters).ravel()) == corners


def test_a_matrix_that_is_none_leaves_the_picture(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", pan("street", (2, 0), size=SMALL, count=2), Encoding(size=SMALL))
    path = shown_as(tmp_path / "film.mp4", tmp_path / "flat.mp4", (1, 1, 1, 1))
    with path.open("rb") as file:
        assert list(track_orientations(file).values()) == [Orientation()]


# ---------------------------------------------------------------------------------------------------------------------
# EXIF


def photo_film(path: Path, orientation: int, container: str = "mov") -> bytes:
    """Motion JPEG as photo cameras write it: each frame is a JPEG file with its own EXIF data. One of its frames."""
    corners = np.full((96, 160, 3), 128, np.uint8)
    corners[:48, :80], corners[:48, 80:], corners[48:, :80] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    jpeg = bytes(cv2.imencode(".jpg", corners)[1])
    entry = struct.pack("<HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
        for number in range(10):
            packet = av.Packet(jpeg)
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)
    return jpeg


@pytest.mark.parametrize("container", ["mov", "avi", "matroska"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_with_exif_data_are_shown_as_it_says(tmp_path: Path, orientation: int, container: str) -> None:
    """PyAV's own table of side data ends before EXIF."""
    jpeg = photo_film(tmp_path / "film", orientation, container)
    truth = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    with open_video(str(tmp_path / "film")) as video:
        info = probe(video)
        decoded = next(decode(video, info, DecodeCount()))
        analysis = AnalysisFrames(as_shown(video, info, decoded.frame))
        picture = analysis.rgb(analysis.shrink(decoded.frame))
    assert picture.shape == truth.shape
    assert np.abs(picture.astype(int) - truth).mean() < 4
    clip = cut_clip(str(tmp_path / "film"), 0.0, 1.0, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None))
    assert (clip.height, clip.width) == truth.shape[:2]
