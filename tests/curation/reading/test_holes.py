"""Files in which blocks are missing, as on a disk with a fault: what lies beside is read, and nothing spoilt is shown."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from tests.curation.reading.test_cutting import make, steady
from tests.curation.reading.test_damage import FRAMES, GOP, RATE, TRIM, exported, recipe

HIT = 130  # A frame between the keyframes 120 and 160.
BITS, BAR = 8, 40  # A picture shows its number in so many bars, px wide each.
CODECS = {
    "flv": ("libx264", {"preset": "ultrafast", "bf": "2", "crf": "18"}),
    "mkv": ("mpeg4", {"qmin": "3", "qmax": "3"}),
    "webm": ("libvpx", {"crf": "4", "b": "4M", "deadline": "realtime", "cpu-used": "8"}),
    "nut": ("libx264", {"preset": "ultrafast", "bf": "2", "crf": "18"}),
}


def film(path: Path) -> None:
    """Film of a ground that moves below the number of each picture."""
    codec, options = CODECS[path.suffix[1:]]
    ground = np.random.default_rng(0).integers(0, 90, (136, BITS * BAR, 1), dtype=np.uint8).repeat(3, axis=2)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = BITS * BAR, 200, "yuv420p", GOP
        stream.codec_context.thread_count = 1
        for number in range(FRAMES):
            bars = np.array([255 * (number >> bit & 1) for bit in range(BITS)], np.uint8).repeat(BAR)
            head = np.broadcast_to(bars[None, :, None], (64, BITS * BAR, 3))
            image = np.concatenate([head, np.roll(ground, (number, 3 * number), (0, 1))])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        lines = [frame.to_ndarray(format="gray")[32, BAR // 2 :: BAR] for frame in container.decode(video=0)]
    return [sum(int(level > 127) << bit for bit, level in enumerate(line)) for line in lines]


def places(path: Path) -> list[tuple[int, int]]:
    """Where each packet of the film begins, in bytes, and how many it has."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [(data.index(bytes(packet), max(packet.pos or 0, 0)), packet.size) for packet in packets]


@pytest.mark.parametrize("kind", ["zeros", "others"])
@pytest.mark.parametrize("suffix", CODECS)
def test_packets_that_a_demuxer_passes_over_are_damage(tmp_path: Path, suffix: str, kind: str) -> None:
    """The film was shown as if nothing was missing, spoilt from the hole to the next keyframe (FLV and WebM)."""
    path = tmp_path / f"film.{suffix}"
    film(path)
    data, begun = bytearray(path.read_bytes()), places(path)
    start = begun[HIT][0] + begun[HIT][1] // 2
    end = max(start + 4096, begun[HIT + 4][0] + begun[HIT + 4][1] // 2)
    assert end < begun[HIT + 20][0]
    others = np.random.default_rng(0).integers(0, 256, end - start, np.uint8).tobytes()
    data[start:end] = bytes(end - start) if kind == "zeros" else others
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.count.damaged
    before, after = exported(scan, path, numbers)
    assert before == list(range(len(before)))
    assert HIT - 15 < len(before) <= HIT
    assert after == list(range(160 + TRIM, FRAMES))


def test_what_lies_between_packets_is_no_hole_and_neither_is_a_picture_that_stands(tmp_path: Path) -> None:
    path = tmp_path / "film.flv"
    film(path)
    data, at = path.read_bytes(), places(path)[HIT][0] - 16
    assert data[at] == 9, "a tag of video begins at this place"
    script = b"\2\0\4note\2\x1f\x40" + b"x" * 8000
    tag = b"\x12" + len(script).to_bytes(3, "big") + bytes(7) + script + (len(script) + 11).to_bytes(4, "big")
    path.write_bytes(data[:at] + tag + data[at:])
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert (scan.count.packets, scan.count.damaged) == (FRAMES, 0)
    late, at = bytearray(data), 13
    while at + 11 < len(late):
        size, time = (int.from_bytes(late[at + k : at + k + 3], "big") for k in (1, 4))
        late[at + 4 : at + 7] = (time + 600 * (time > 1000 * HIT // RATE)).to_bytes(3, "big")
        at += 11 + size + 4
    path.write_bytes(late)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.duration == pytest.approx(FRAMES / RATE + 0.6, abs=0.02)
    assert (scan.count.packets, scan.count.damaged) == (FRAMES, 0)


def test_what_was_read_before_a_film_cannot_be_read_further_is_shown(tmp_path: Path) -> None:
    """The last frame before it was lost."""
    path = tmp_path / "film.y4m"
    make(path, steady(RATE, 60), codec="wrapped_avframe", rate=RATE, base=Fraction(1, RATE), options={"threads": "1"})
    assert path.read_bytes().count(b"FRAME\n") == 60
    path.write_bytes(path.read_bytes() + b"nothing that could be a frame" * 100)
    with open_video(str(path)) as video:
        count = DecodeCount()
        frames = list(decode(video, probe(video), count, all_frames=True))
    assert (len(frames), count.packets, count.damaged) == (60, 60, 1)
    assert "Invalid data" in count.fault


def test_a_clock_that_falls_has_not_run_through_all_of_its_numbers(tmp_path: Path) -> None:
    """As where a recorder lost the stream, and took it up anew. ffmpeg adds 49 days, in each quarter of a minute of which there
    was a clip that could not be measured."""
    path = tmp_path / "film.flv"
    film(path)
    data, at = bytearray(path.read_bytes()), 13
    while at + 11 < len(data):
        size, time = (int.from_bytes(data[at + k : at + k + 3], "big") for k in (1, 4))
        data[at + 4 : at + 7] = (time + 100_000 if time < 6000 else time - 6000).to_bytes(3, "big")
        at += 11 + size + 4
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert max(packet.dts or 0 for packet in container.demux(video=0)) > 2**32
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert (scan.count.restarts, scan.count.corrupt, len(scan.clips)) == (1, 0, 1)
    assert scan.info.duration == pytest.approx(FRAMES / RATE, abs=0.1)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, float("nan")])
def test_a_length_that_is_none_is_not_believed(tmp_path: Path, seconds: float) -> None:
    """With one below zero a film was `too_short`, a single frame."""
    path = tmp_path / "film.flv"
    film(path)
    data = path.read_bytes()
    at = data.index(b"duration") + 9
    path.write_bytes(data[:at] + struct.pack(">d", seconds) + data[at + 8 :])
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert (scan.count.corrupt, scan.info.duration) == (0, pytest.approx(FRAMES / RATE))


def test_streams_that_begin_in_the_middle_of_a_film(tmp_path: Path) -> None:
    """As in a recording to which sound was added, or where bytes look like it. The film was an error of the kind `internal`."""
    path = tmp_path / "film.flv"
    film(path)
    data, at = path.read_bytes(), places(path)[HIT][0] - 16
    for codec in (0x2F, 0xAF, 0x7F, 0x8F):  # MP3, AAC and two kinds of G.711, as the first byte of a tag of sound.
        tag = bytes((8, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, codec, 0, 0)) + (14).to_bytes(4, "big")
        data = data[:at] + tag + data[at:]
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.duration == pytest.approx(FRAMES / RATE)
    assert [clip.error for clip in scan.clips] == [None]


def test_an_error_by_number_of_a_decoder_does_not_end_a_film(tmp_path: Path) -> None:
    """The decoder of H.263 gives -1, the number of what is not permitted: the film ended there, as if it was whole."""
    path = tmp_path / "film.3gp"
    make(
        path,
        steady(25, 200),
        codec="h263",
        rate=25,
        size=(352, 288),
        gop=25,
        base=Fraction(1, 25),
        options={"qmax": "31"},
    )
    data, begun = bytearray(path.read_bytes()), places(path)
    for start, size in begun[100:103]:
        data[start : start + size] = b"\x7f" * size
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.duration == pytest.approx(8)
    assert "not permitted" in scan.count.fault
    assert [round(clip.span.end, 1) for clip in scan.clips] == [pytest.approx(4, abs=0.3), 8.0]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("film.avi", "amv", "yuvj420p"), ("flipped.avi", "rawvideo", "bgr24")]
)
def test_pictures_that_are_stored_from_the_lower_line_on(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    """AMV ended as `internal`, or memory behind a picture was read."""
    path = tmp_path / name
    ramp = np.linspace(20, 230, 64).astype(np.uint8)[:, None, None] * np.ones((1, 64, 3), np.uint8)
    with av.open(str(path), "w", options={"flipped_raw_rgb": "1"} if codec == "rawvideo" else {}) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        stream.codec_context.options = {"strict": "-2"}
        given = ramp[::-1] if codec == "rawvideo" else ramp  # The muxer only writes that pictures are stored so.
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(given), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).planes[0].line_size < 0, "this film tests nothing"
    with open_video(str(path)) as video:
        frames = [one.frame for one in decode(video, probe(video), DecodeCount(), all_frames=True)]
    assert len(frames) == 50
    plane = frames[7].planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:64, :64].mean(axis=1)
    assert np.abs(rows - ramp[:, 0, 0]).max() < 12
    assert scan_video(str(path), recipe(), lambda span, sample: None).clips[0].error is None
