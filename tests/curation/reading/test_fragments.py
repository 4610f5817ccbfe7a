"""MP4 whose file holds more than one film, fragments behind a hole, or samples of several kinds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading import fragments
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.fragments import layout
from longtake.curation.reading.opening import open_video, packets_of
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from tests.curation.reading.test_cutting import make, numbers, steady
from tests.curation.reading.test_damage import RATE, SETTINGS, TRIM, exported, recipe

FRAMES, GOP = 160, 20
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


INDEXED = {"movflags": "frag_keyframe+empty_moov+default_base_moof+dash+global_sidx"}


def film(
    path: Path,
    first: int = 0,
    size: tuple[int, int] = (320, 240),
    fragmented: bool = True,
    how: dict[str, str] = FRAGMENTED,
) -> bytes:
    """The bytes of a film whose pictures are shown from number `first` on, at their times."""
    make(
        path,
        steady(RATE, FRAMES, first / RATE),
        rate=RATE,
        gop=GOP,
        size=size,
        base=Fraction(1, RATE),
        options={"bf": "2", "preset": "ultrafast"},
        container_options=how if fragmented else None,
    )
    return path.read_bytes()


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, all bytes) of the outermost boxes."""
    found, at = [], 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at : at + size]))
        at += size
    return found


def without_index(data: bytes) -> list[bytes]:
    """The beginning of a film in fragments, and its fragments, each of two boxes."""
    kept = [each for name, each in boxes(data) if name != b"mfra"]
    return [b"".join(kept[:2]), *(b"".join(kept[k : k + 2]) for k in range(2, len(kept), 2))]


@pytest.mark.parametrize("kind", ["whole", "of another size", "in fragments", "fragments behind a whole one"])
def test_of_files_put_one_behind_another_the_first_is_the_film(tmp_path: Path, kind: str) -> None:
    """Fragments of the second were taken for some of the first (`corrupt`), or the file did not open (`not_video`)."""
    path = tmp_path / "film.mp4"
    one = film(tmp_path / "one.mp4", fragmented=kind == "in fragments")
    size = (480, 240) if kind == "of another size" else (320, 240)
    other = film(tmp_path / "other.mp4", size=size, fragmented="fragments" in kind)
    for data, others in ((one, 0), (one + other, 1)):
        path.write_bytes(data)
        scan = scan_video(str(path), recipe(), lambda span, sample: None)
        assert (scan.count.packets, scan.count.corrupt) == (FRAMES, 0)
        assert scan.info.duration == pytest.approx(FRAMES / RATE)
        assert (scan.info.streams_left_out, scan.info.cut_off) == (others, "")
        assert (scan.info.size, [clip.error for clip in scan.clips]) == (len(data), [None])
    cut_clip(str(path), scan.clips[0].span.start, scan.clips[0].span.end, tmp_path / "clip.mp4", SETTINGS)
    assert numbers(tmp_path / "clip.mp4") == list(range(FRAMES))
    # A second one that is cut off says nothing of the first.
    path.write_bytes((one + other)[:-5000])
    assert scan_video(str(path), recipe(), lambda span, sample: None).info.cut_off == ""


def test_a_beginning_that_is_repeated_ends_no_film(tmp_path: Path) -> None:
    """As streams are recorded in which something came between."""
    path = tmp_path / "film.mp4"
    begin, *fragments = without_index(film(path))
    path.write_bytes(begin + b"".join(fragments[:3]) + begin + b"".join(fragments[3:]))
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert (scan.count.packets, scan.count.corrupt, scan.info.streams_left_out) == (FRAMES, 0, 0)
    assert scan.info.duration == pytest.approx(FRAMES / RATE)


def hole(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


@pytest.mark.parametrize("kind", ["zeros", "missing"])
def test_fragments_behind_a_hole_are_found(tmp_path: Path, kind: str) -> None:
    """The film ended at the hole."""
    path = tmp_path / "film.mp4"
    begin, *fragments = without_index(film(path))
    start = len(begin) + sum(map(len, fragments[:2])) + len(fragments[2]) - 20
    end = start + 100 + len(fragments[3])
    data = begin + b"".join(fragments)
    path.write_bytes(hole(data, start, end) if kind == "zeros" else data[:start] + data[end:])
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.duration == pytest.approx(FRAMES / RATE, abs=0.1)
    assert 0 < scan.count.damaged <= 4
    before, after = exported(scan, path, numbers)
    assert before == list(range(len(before)))
    assert 2 * GOP < len(before) < 3 * GOP
    assert after == list(range(5 * GOP + TRIM, FRAMES))


class Counted(BytesIO):
    """Counts how often it is read, and remembers the last place."""

    reads = 0
    farthest = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        self.farthest = max(self.farthest, self.tell())
        return super().read(size)


def test_what_stands_before_the_fragments_is_not_looked_for_among_them(tmp_path: Path) -> None:
    """Each of five questions to the header of a film went on through all of its fragments, to the end of the file."""
    begin, *fragments = without_index(film(tmp_path / "film.mp4"))

    reads = []
    for times in (1, 9):
        file = Counted(begin + b"".join(fragments) * times)
        with open_video(file) as video:
            file.reads = 0
            assert probe(video).has_audio is False
        reads.append(file.reads)
    assert reads[0] == reads[1] > 0


def test_of_a_remote_film_with_an_index_no_fragment_is_looked_at(tmp_path: Path) -> None:
    """Each of them was a request to the store."""
    data = film(tmp_path / "film.mp4", how=INDEXED)
    assert [name for name, _ in boxes(data)].count(b"moof") == FRAMES // GOP
    (behind,) = [len(each) for name, each in boxes(data) if name == b"mfra"]
    for whole in (data, data[:-behind], data[: len(data) // 2]):
        file, first = Counted(whole), data.index(b"moof") - 4
        known = layout(file, len(whole), by_index=True)
        assert (known.end, known.boxes, known.instead) == (len(whole), len(data) - behind, {})
        assert file.farthest < first or file.farthest == len(data) - behind
        walked = Counted(whole)
        layout(walked, len(whole))
        assert file.reads <= walked.reads - 2 * whole.count(b"moof")
        with open_video(Counted(whole)) as remote:
            assert probe(remote).cut_off.startswith("the file ends") is (len(whole) < len(data) - behind)
    # Where more lies behind the film than its index names, each fragment is looked at.
    other = film(tmp_path / "other.mp4", how=INDEXED)
    for joined in (data + other, data[:-behind] + other):
        assert layout(BytesIO(joined), len(joined), by_index=True) == layout(BytesIO(joined), len(joined))


def test_a_hole_in_a_remote_film_with_an_index_costs_its_fragment(tmp_path: Path) -> None:
    data = film(tmp_path / "film.mp4", how=INDEXED)
    before = b"".join(each for _, each in boxes(data)[:7])  # Beginning, index and two fragments.
    broken = hole(data, len(before), len(before) + 100)
    with open_video(BytesIO(broken)) as video:
        assert not video.layout.instead
        shown = [packet.pts for packet in packets_of(video, video.stream) if packet.size]
    assert len(shown) == FRAMES - GOP


def test_thousands_of_segments_are_one_film_without_a_hole(tmp_path: Path) -> None:
    """From the ten thousandth box on, a box of pictures was taken for bytes that are none."""
    begin, *fragments = without_index(film(tmp_path / "film.mp4"))
    segment = struct.pack(">I4s4sI", 16, b"styp", b"msdh", 0) + fragments[0]
    data = begin + segment * 3400
    known = layout(BytesIO(data), len(data))
    assert (known.instead, known.boxes, known.end) == ({}, len(data), len(data))


def test_a_file_of_the_smallest_boxes_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile file of 1 GB kept the scan busy for four minutes."""
    monkeypatch.setattr(fragments, "_BOXES", 100)
    data = struct.pack(">I4s", 8, b"free") * 1000

    file = Counted(data)
    known = layout(file, len(data))
    assert (known.end, known.instead, file.reads) == (len(data), {}, 100)


def test_a_file_that_is_nothing_but_holes_is_not_looked_through_to_its_end(tmp_path: Path) -> None:
    """A hostile file of 1 GB would hold forty million of them."""
    fragment = struct.pack(">I4sI4s8x", 24, b"moof", 16, b"mfhd")
    data = film(tmp_path / "film.mp4") + (b"\xff" * 16 + fragment) * 2000
    known = layout(BytesIO(data), len(data))
    assert len(known.instead) == 1000
    assert known.end == len(data)


def changed(data: bytes, path: list[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """Boxes in which the contents of one are changed. path: its name, and before it those of the boxes around it."""
    out = b""
    for name, each in boxes(data):
        inner = each[8:]
        if name == path[0]:
            inner = changed(inner, path[1:], change) if path[1:] else change(inner)
        out += struct.pack(">I4s", 8 + len(inner), name) + inner
    return out


def two_chunks(inner: bytes, half: int) -> bytes:
    """Where the only chunk of a film begins, and its second half."""
    count, first = struct.unpack_from(">II", inner, 4)
    assert count == 1
    return struct.pack(">IIII", 0, 2, first, first + half)


@pytest.mark.parametrize(
    ("kind", "used", "read"), [(b"hvc1", True, False), (b"hvc1", False, True), (b"avc1", True, True)]
)
def test_a_track_of_several_kinds(tmp_path: Path, kind: bytes, used: bool, read: bool) -> None:
    """It was `truncated`, or its later part `corrupt`, since ffmpeg reads the first kind only."""
    path = tmp_path / "film.mp4"
    data = film(path, fragmented=False)
    table = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]

    def second_entry(inner: bytes) -> bytes:
        entry = inner[8:]
        return struct.pack(">II", 0, 2) + entry + entry[:4] + kind + entry[8:]

    with av.open(str(path)) as container:
        half = sum(packet.size for packet in list(container.demux(video=0))[: FRAMES // 2])
    data = changed(data, [*table, b"stsd"], second_entry)
    if used:
        chunks = struct.pack(">II6I", 0, 2, 1, FRAMES // 2, 1, 2, FRAMES // 2, 2)
        data = changed(data, [*table, b"stsc"], lambda inner: chunks)
        data = changed(data, [*table, b"stco"], lambda inner: two_chunks(inner, half))
    path.write_bytes(data)
    with open_video(str(path)) as video:
        if read:
            assert probe(video).codec == "h264"
        else:
            with pytest.raises(VideoError, match="avc1, hvc1") as caught:
                probe(video)
            assert caught.value.kind == "unsupported"


def test_a_film_in_fragments_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    film(path)
    with open_video(str(path)) as video, av.open(str(path)) as container:
        assert (video.layout.end, video.layout.instead) == (path.stat().st_size, {})
        ours = [(packet.pts, bytes(packet)) for packet in video.container.demux(video.stream)]
        assert ours == [(packet.pts, bytes(packet)) for packet in container.demux(video=0)]


@pytest.mark.parametrize("clock", [0, 1_700_000_000])
def test_a_live_stream_is_recorded_from_its_middle_on(tmp_path: Path, clock: int) -> None:
    """Its clock goes on, often that of the day. The demuxer takes it for the length of the film, which was `truncated`."""
    path = tmp_path / "film.mp4"
    begin, *fragments = without_index(film(path))
    data = bytearray(begin + b"".join(fragments[4:]))
    with av.open(str(path)) as container:
        scale = round(1 / float(container.streams.video[0].time_base or 1))
    at = 0
    while (at := data.find(b"tfdt", at + 1)) > 0:
        assert data[at + 4] == 1  # Its time has 64 bits.
        (time,) = struct.unpack_from(">Q", data, at + 8)
        struct.pack_into(">Q", data, at + 8, time + clock * scale)
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.duration == pytest.approx((FRAMES - 4 * GOP) / RATE, abs=0.01)
    assert scan.count.corrupt == 0
    assert exported(scan, path, numbers) == [list(range(4 * GOP, FRAMES))]


def test_a_segment_without_the_beginning_of_its_stream(tmp_path: Path) -> None:
    """It was said to be cut off behind its end."""
    path = tmp_path / "segment.m4s"
    path.write_bytes(struct.pack(">I4s4sI", 16, b"styp", b"msdh", 0) + without_index(film(tmp_path / "film.mp4"))[1])
    with pytest.raises(VideoError, match=r"another file: put that before it$") as caught, open_video(str(path)):
        pass
    assert caught.value.kind == "truncated"
