"""What a container wants shown of its pictures: keyframes and exports hold that, and nothing of the sides."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import VideoError
from longtake.curation.reading.aperture import Aperture, of_matroska, of_mp4
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.matroska import VideoTrack, video_tracks
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import VideoInfo, probe
from longtake.curation.recipe import parse_recipe
from longtake.filters.base import Sample
from tests.curation.reading.test_orientation import trees

SIZE = (192, 128)
SHOWN = Aperture(16, 8, 160, 112)  # The rest of each picture is white.


def film(path: Path, sound: bool = False) -> Path:
    """A grey picture, its upper half the darker one, with white sides that the container does not want shown."""
    planes = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
    planes[: SIZE[1]] = 235
    planes[SHOWN.y : SHOWN.y + SHOWN.height, SHOWN.x : SHOWN.x + SHOWN.width] = 120
    planes[SHOWN.y : SHOWN.y + SHOWN.height // 2, SHOWN.x : SHOWN.x + SHOWN.width] = 60
    with av.open(str(path), "w") as out:
        if sound:  # The sound comes first, so that the second track is the first of video.
            out.add_stream("aac", rate=48000, layout="mono")
        stream: Any = out.add_stream("libx264", rate=24, options={"crf": "4", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def clap(wide: int, high: int, right: Fraction | int = 0, down: Fraction | int = 0) -> bytes:
    right, down = Fraction(right), Fraction(down)
    numbers = (wide, 1, high, 1, right.numerator, right.denominator, down.numerator, down.denominator)
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", *numbers)


def with_box(path: Path, box: bytes) -> Path:
    """An MP4 with another box at the end of its sample entry. Its index comes after the film, whose place stays."""
    data = path.read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    made = bytearray(data[:end] + box + data[end:])
    outer = [data.rindex(name, 0, entry) - 4 for name in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov")]
    for at in (entry, *outer):
        struct.pack_into(">I", made, at, struct.unpack_from(">I", made, at)[0] + len(box))
    path.write_bytes(made)
    return path


def element(kind: int, data: bytes) -> bytes:
    """With a size of eight bytes."""
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (1 << 56 | len(data)).to_bytes(8, "big") + data


def inside(data: bytes, at: int) -> tuple[int, int, int]:
    """Where the size of an element of Matroska lies whose id is at `at`, where its contents begin, and where they end."""
    begins = at + 9 - data[at].bit_length()
    width = 9 - data[begins].bit_length()
    size = int.from_bytes(data[begins : begins + width], "big") & ((1 << 7 * width) - 1)
    return begins, begins + width, begins + width + size


def children(data: bytes, at: int) -> dict[int, int]:
    """The ids of the elements in one, with their places, the last of each."""
    _, start, end = inside(data, at)
    found = {}
    while start < end:
        begins, _, stop = inside(data, start)
        found[int.from_bytes(data[start:begins], "big")] = start
        start = stop
    return found


def with_element(path: Path, added: bytes, of_video: bool) -> Path:
    """A Matroska file with another element in its last track, or in what that says of its pictures."""
    data = path.read_bytes()
    segment = data.index(bytes.fromhex("18538067"))
    tracks = children(data, segment)[0x1654AE6B]
    track = children(data, tracks)[0xAE]
    path_in = [segment, tracks, track, *([children(data, track)[0xE0]] if of_video else [])]
    made = data
    for depth, at in enumerate(reversed(path_in)):
        begins, start, end = inside(data, at)
        grown = made[start : end + len(made) - len(data)] if depth else data[start:end] + added
        made = made[:begins] + (1 << 56 | len(grown)).to_bytes(8, "big") + grown + made[end + len(made) - len(data) :]
    path.write_bytes(made)
    return path


def crop_of(top: int, right: int, bottom: int, left: int) -> bytes:
    sides = {0x54BB: top, 0x54DD: right, 0x54AA: bottom, 0x54CC: left}
    return b"".join(element(kind, bytes([value])) for kind, value in sides.items() if value)


def cropped_film(path: Path) -> Path:
    if path.suffix == ".mkv":
        return with_element(film(path, sound=True), crop_of(8, 16, 8, 16), of_video=True)
    return with_box(film(path), clap(160, 112))


def shown_by_scan(path: Path) -> tuple[VideoInfo, Sample]:
    recipe = parse_recipe(
        {
            "name": "x",
            "splitting": {"detector": "none", "min_seconds": 0.9, "window_seconds": 0.9},
            "filters": {"width": {}},
            "tiers": {"all": {"width": ">= 1"}},
        },
        source="a test",
    )
    samples: list[Sample] = []
    found = scan_video(str(path), recipe, lambda span, sample: samples.append(sample), spans=(Span(0.0, 0.9),))
    return found.info, samples[0]


def require_no_side(picture: npt.NDArray[Any]) -> None:
    assert picture.shape[:2] == (SHOWN.height, SHOWN.width)
    grey = picture.mean(axis=2)
    assert grey.max() < 150
    assert grey[:54].max() < 80 < grey[58:].min()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_sides_are_in_neither_keyframe_nor_export(tmp_path: Path, suffix: str) -> None:
    path = cropped_film(tmp_path / f"film.{suffix}")
    info, sample = shown_by_scan(path)
    assert (info.width, info.height) == (SHOWN.width, SHOWN.height)
    for picture in (*sample.keyframes, *sample.partners):
        require_no_side(picture)
    made = cut_clip(str(path), 0.0, 0.9, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None, crf=4))
    assert (made.width, made.height) == (SHOWN.width, SHOWN.height)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for picture in pictures:
        require_no_side(picture)
    assert np.abs(pictures[2].astype(float) - sample.keyframes[0]).mean() < 2


def test_a_film_that_wants_all_shown_is_shown_whole(tmp_path: Path) -> None:
    for path in (film(tmp_path / "film.mp4"), film(tmp_path / "film.mkv")):
        with open_video(str(path)) as video:
            info = probe(video)
            assert info.aperture is None
            frame = next(decode(video, info, DecodeCount())).frame
            assert (frame.width, frame.height) == SIZE
            analysis = AnalysisFrames(info)
            assert analysis.rgb(analysis.shrink(frame)).shape[:2] == SIZE[::-1]


@pytest.mark.parametrize(
    ("box", "known"),
    [
        (clap(160, 112), SHOWN),
        (clap(160, 112, 16, 8), Aperture(32, 16, 160, 112)),
        (clap(160, 112, -16, -8), Aperture(0, 0, 160, 112)),
        (clap(161, 112, Fraction(1, 2)), Aperture(16, 8, 161, 112)),
        (
            clap(160, 112, 1, 1),
            Aperture(16, 8, 161, 113),
        ),  # One column and one line more, so that both begin at an even one.
        (clap(*SIZE), None),
        (clap(1000, 112), None),
        (clap(160, 112, 40), None),
        (struct.pack(">I4s8I", 40, b"clap", 160, 0, 112, 1, 0, 1, 0, 1), None),
        (struct.pack(">I4s4I", 24, b"clap", 160, 1, 112, 1), None),
    ],
)
def test_the_clean_aperture_lies_about_the_centre(tmp_path: Path, box: bytes, known: Aperture | None) -> None:
    path = with_box(film(tmp_path / "film.mp4"), box)
    with open(path, "rb") as file:
        assert of_mp4(file, 1, *SIZE) == known
        assert of_mp4(file, 2, *SIZE) is None


def test_sides_wider_than_the_picture_make_no_sense() -> None:
    assert of_matroska(VideoTrack((0, 100, 0, 100)), *SIZE) is None
    assert of_matroska(VideoTrack((1, 0, 0, 3)), *SIZE) == Aperture(2, 0, 190, 128)


@pytest.mark.parametrize(("name", "base", "refused"), [(b"dvcC", 0, True), (b"dvvC", 0, True), (b"dvcC", 1, False)])
def test_dolby_vision_without_a_base_is_refused_in_matroska_too(
    tmp_path: Path, name: bytes, base: int, refused: bool
) -> None:
    record = bytes([1, 0, 5 << 1, 6 << 3 | 0b101, base << 4]) + bytes(19)
    mapping = element(0x41E4, element(0x41E7, name) + element(0x41ED, record))
    path = with_element(film(tmp_path / "film.mkv", sound=True), mapping, of_video=False)
    with open_video(str(path)) as video:
        if not refused:
            assert probe(video).width == SIZE[0]
            return
        with pytest.raises(VideoError, match="Dolby Vision") as raised:
            probe(video)
        assert raised.value.kind == "unsupported"


def test_the_film_is_read_on_where_the_container_left_off(tmp_path: Path) -> None:
    path = cropped_film(tmp_path / "film.mkv")
    with open_video(str(path)) as video:
        info = probe(video)
        assert len(list(decode(video, info, DecodeCount(), all_frames=True))) == 24


@given(st.lists(trees, max_size=4).map(b"".join))
def test_any_boxes(data: bytes) -> None:
    assert of_mp4(io.BytesIO(data), 1, *SIZE) is None


pieces = st.recursive(
    st.binary(max_size=12),
    lambda inner: st.tuples(
        st.sampled_from([0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0, 0x54AA, 0x54CC, 0x41E4, 0x41E7, 0x1F43B675, 0x42]),
        st.lists(inner, max_size=3).map(b"".join),
    ).map(lambda pair: element(*pair)),
    max_leaves=8,
)


@given(st.lists(pieces, max_size=4).map(b"".join), st.integers(0, 40))
def test_any_elements(data: bytes, cut: int) -> None:
    """Whole, cut short, and within a segment of unknown size."""
    for made in (data, data[:-cut], bytes.fromhex("18538067" + "01ffffffffffffff") + data):
        assert all(isinstance(track, VideoTrack) for track in video_tracks(io.BytesIO(made)))
