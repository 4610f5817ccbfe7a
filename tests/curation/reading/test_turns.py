"""Film that is turned or mirrored anew in its middle, as joined recordings of telephones are."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.orientation import UPRIGHT, Orientation
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.turns import is_aside, prefix_of, told_by, told_first
from longtake.curation.reading.video import probe
from tests.corpus import Encoding, film
from tests.curation.reading.test_orientation import photo_film
from tests.curation.reading.test_sizes import recipe, scanned

FPS = 20
AS_IT_IS = EncodeSettings(fps=None, frames=None, preset="ultrafast")
# Degrees by which a decoded picture is turned anticlockwise, once it was mirrored to the side, and downwards.
Said = tuple[int, int, int]
# Messages, and how a picture becomes upright by them.
SAID: list[tuple[Said, Orientation]] = [
    ((0, 0, 0), UPRIGHT),
    ((90, 0, 0), Orientation(270)),
    ((270, 0, 0), Orientation(90)),
    ((0, 1, 0), Orientation(0, True)),
    ((0, 0, 1), Orientation(180, True)),
    ((0, 1, 1), Orientation(180)),
    ((90, 1, 0), Orientation(270, True)),
]


def message(said: Said, codec: str) -> bytes:
    """The unit of messages that says it, with its start code. H.264 ends it with a period of 1 and no extension, HEVC with a flag
    that it persists."""
    degrees, across, down = said
    bits = f"0{across}{down}{degrees * 2**16 // 360:016b}" + ("0100" if codec == "h264" else "1") + "1"
    content = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    # Where two bytes of zero come before one of at most 3, a byte of 3 stands between them.
    unit = (bytes([5, 1, 7, 47, 3]) + content + b"\x80").replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1")
    return b"\0\0\0\1" + (b"\6" if codec == "h264" else b"\x4e\1") + unit


def turned(
    path: Path,
    parts: list[Said | None],
    seconds: float = 2.5,
    behind: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """H.264, of parts that say at each of their keyframes how they are turned, or say nothing: a texture that moves, dark above
    and light on the left. behind: they say it behind the picture."""
    ground = cv2.GaussianBlur(np.random.default_rng(3).integers(70, 170, (72, 640), np.uint8), (0, 0), 2)
    with av.open(str(path), "w") as out:
        options = {"preset": "ultrafast", "bf": "2", "tune": "fastdecode"} | (options or {})
        stream: Any = out.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 128, 72, "yuv420p", round(seconds * FPS)
        for number in range(len(parts) * round(seconds * FPS)):
            picture = np.roll(ground, -2 * number, axis=1)[:, :128].copy()
            picture[:, :16], picture[:16] = 235, 16
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            mux(out, stream, stream.encode(frame), parts, seconds, behind)
        mux(out, stream, stream.encode(None), parts, seconds, behind)
    return path


def mux(out: Any, stream: Any, packets: list[Any], parts: list[Said | None], seconds: float, behind: bool) -> None:
    for packet in packets:
        said = parts[int(packet.pts * packet.time_base / seconds + 1e-6)]
        if packet.is_keyframe and said is not None:
            data, told = bytes(packet), message(said, "h264")
            if data[:4] != b"\0\0\0\1" and data[:3] != b"\0\0\1":
                told = (len(told) - 4).to_bytes(4, "big") + told[4:]
            at = len(data) if behind else data.index(b"\0\0\1\x65") - (data[data.index(b"\0\0\1\x65") - 1] == 0)
            fresh = av.Packet(data[:at] + told + data[at:])
            fresh.pts, fresh.dts, fresh.time_base = packet.pts, packet.dts, packet.time_base
            fresh.stream, fresh.is_keyframe = stream, True
            packet = fresh
        out.mux(packet)


def corners(picture: Any) -> str:
    """Which sides of a picture are dark, and which of the others are light: top, right, bottom, left."""
    grey = np.asarray(picture, float).mean(-1)
    sides = grey[:8, 20:-20], grey[20:-20, -8:], grey[-8:, 20:-20], grey[20:-20, :8]
    return "".join("d" if side.mean() < 40 else "l" if side.mean() > 215 else "." for side in sides)


def test_each_clip_is_upright(tmp_path: Path) -> None:
    """A turn, a mere mirror, and film that says nothing again. The decoder tells of the second keyframe's turn too late."""
    path = turned(tmp_path / "film.ts", [None, (90, 0, 0), (0, 0, 1), None])
    scan, samples = scanned(path, recipe(detector="none"))
    assert scan.cuts == pytest.approx([2.5, 5.0, 7.5])
    sizes = [(128, 72), (72, 128), (128, 72), (128, 72)]
    for clip, sample, size, sides in zip(scan.clips, samples, sizes, ["d..l", "..ld", "..dl", "d..l"], strict=True):
        assert (clip.scores["width"].score.value, clip.scores["height"].score.value) == size
        assert {(keyframe.shape[1::-1], corners(keyframe)) for keyframe in sample.keyframes} == {(size, sides)}
        made = cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", AS_IT_IS)
        assert (made.width, made.height) == size
        with av.open(str(tmp_path / "clip.mp4")) as container:
            shown = {corners(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)}
        assert shown == {sides}


@pytest.mark.parametrize("name", ["film.ts", "film.mp4", "film.mkv", "film.avi"])
@pytest.mark.parametrize("options", [{}, {"bf": "0", "slices": "4"}])
def test_messages_behind_the_pictures(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    """As ffmpeg's filter writes them. A transport stream is parsed so that they come with the next packet, which is late for a
    decoder that does not reorder. Two turned groups are one take; what says nothing is upright."""
    path = turned(tmp_path / name, [(90, 0, 0), (90, 0, 0), None], behind=True, options=options)
    scan, samples = scanned(path, recipe(detector="none"))
    assert scan.cuts == pytest.approx([5.0])
    sizes = [(72, 128), (72, 128), (128, 72)]
    assert [sample.keyframes[0].shape[1::-1] for sample in samples] == sizes
    for clip, size, sides in zip(scan.clips, sizes, ["..ld", "..ld", "d..l"], strict=True):
        made = cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", AS_IT_IS)
        assert (made.width, made.height) == size
        with av.open(str(tmp_path / "clip.mp4")) as container:
            assert {corners(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)} == {sides}


def test_a_clip_of_a_list_may_not_be_turned_in_its_middle(tmp_path: Path) -> None:
    path = turned(tmp_path / "film.ts", [None, (0, 0, 1)])
    scan, _ = scanned(path, recipe(), spans=[Span(1.0, 3.0)])
    (error,) = [clip.error for clip in scan.clips]
    assert error is not None
    assert "its picture is turned or mirrored anew at 2.500 s" in str(error)
    with pytest.raises(VideoError, match=r"turned or mirrored anew at 2\.500 s"):
        cut_clip(str(path), 1.0, 3.0, tmp_path / "clip.mp4", AS_IT_IS)


@pytest.mark.parametrize("prefix", [0, 2, 4])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("said", "shown"), SAID)
def test_what_the_message_says(said: Said, shown: Orientation, codec: str, prefix: int) -> None:
    """Behind parameter sets, before the picture or behind it, with start codes or with lengths before each unit."""
    told = message(said, codec)[4:]
    sets, picture = (b"\x67", b"\x65pic") if codec == "h264" else (b"\x42\1", b"\x26\1pic")
    sets += b"abc" * 90  # The length of the unit is 0, 0, 1 and another byte.
    large = picture + b"\x55" * 60_000

    def packet(*units: bytes) -> memoryview:
        starts = [len(unit).to_bytes(prefix, "big") if prefix else b"\0\0\0\1" for unit in units]
        return memoryview(b"".join(start + unit for start, unit in zip(starts, units, strict=True)))

    assert told_by(packet(sets, told, picture), codec, prefix) == shown
    assert told_by(packet(sets, picture, told), codec, prefix) == shown
    assert told_by(packet(sets, large, told), codec, prefix) == shown
    assert told_by(packet(sets, large), codec, prefix) is None
    assert told_by(packet(sets, told[:-4] + b"\x80" + told[-3:], picture), codec, prefix) is None
    assert told_first(packet(told, picture), codec, prefix) == shown
    assert told_first(packet(sets, told, picture), codec, prefix) is None
    assert [
        is_aside(packet(*units), codec, prefix) for units in ((sets, told), (sets, picture), (sets, large), ())
    ] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(("codec", "at"), [("libx264", 4), ("libx265", 21)])
def test_what_stands_before_each_unit(tmp_path: Path, codec: str, at: int) -> None:
    found: list[int] = []
    records: list[bytes] = []
    for name in ("film.mp4", "film.mkv", "film.ts"):
        noise = np.random.default_rng(1).integers(0, 255, (20, 96, 64), np.uint8)  # Luma and chroma of 64 × 64 pixels.
        film(tmp_path / name, list(noise), Encoding((64, 64), codec=codec, options=()))
        with av.open(str(tmp_path / name)) as container:
            context = container.streams.video[0].codec_context
            found.append(prefix_of(context.name, context.extradata))
            records.append(bytes(context.extradata or b""))
    assert found == [4, 4, 0]
    # The last two bits of this byte are the length less 1, in both records.
    short = bytearray(records[0])
    short[at] &= 0xFC | 1
    assert prefix_of("h264" if at == 4 else "hevc", bytes(short)) == 2
    assert prefix_of("vp9", records[0]) == prefix_of("h264", None) == 0


def test_looking_at_orientations_holds_no_frame(tmp_path: Path) -> None:
    """Each frame of a film of photographs is a keyframe, and is looked at."""
    photo_film(tmp_path / "film", 5)
    gc.collect()
    before = {id(each) for each in gc.get_objects()}
    gc.disable()
    try:
        with open_video(str(tmp_path / "film")) as video:
            seen = sum(1 for _ in decode(video, probe(video), DecodeCount()))
            assert video.turns.at(0.5) == Orientation(270, True)
        fresh = [each for each in gc.get_objects() if id(each) not in before]
        held = [each.width for each in fresh if type(each) is av.VideoFrame]
    finally:
        gc.enable()
    assert seen == 10
    assert all(width <= 16 for width in held)
