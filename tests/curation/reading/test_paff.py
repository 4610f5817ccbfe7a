"""H.264 in fields: a packet is a field, and two of them make one frame of a film."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.paff import FieldPairs
from longtake.curation.reading.scan_video import scan_video
from tests.curation.reading.test_damage import recipe

WIDTH, HEIGHT, FRAMES = 64, 64, 75
Luma = NDArray[np.uint8]


class Bits:
    """Writes a unit of H.264 (ITU-T H.264, 7.2 and 9.1)."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def number(self, bits: int, value: int) -> Bits:
        self.bits += [value >> bit & 1 for bit in reversed(range(bits))]
        return self

    def golomb(self, *values: int) -> Bits:
        for value in values:
            bits = (value + 1).bit_length()
            self.number(bits - 1, 0).number(bits, value + 1)
        return self

    def aligned(self) -> Bits:
        return self.number(-len(self.bits) % 8, 0)

    def raw(self, data: bytes) -> Bits:
        self.bits += np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
        return self

    def unit(self, head: int) -> bytes:
        self.number(1, 1).aligned()
        data = np.packbits(np.array(self.bits, np.uint8)).tobytes()
        for last in range(4):
            data = data.replace(bytes((0, 0, last)), bytes((0, 0, 3, last)))
        return b"\0\0\0\1" + bytes([head]) + data


def sequence(profile: int = 77, frames_only: bool = False, order: int = 0, number_bits: int = 4) -> bytes:
    """A parameter set of film that may be coded in fields. Profile 100: with lists of scaling, 244: in planes of their own."""
    bits = Bits().number(8, profile).number(16, 30).golomb(0)
    if profile != 77:
        bits.golomb(3 if profile == 244 else 1)
        if profile == 244:
            bits.number(1, 1)
        bits.golomb(0, 0).number(1, 0).number(1, 1)
        for number in range(12 if profile == 244 else 8):
            # One list is not there, one ends at once, and the others go up and down by one.
            bits.number(1, number != 1)
            if number == 2:
                bits.golomb(16)  # This number stands for −8, and a scale of 0.
            elif number != 1:
                bits.golomb(*([1, 2] * (8 if number < 6 else 32)))
    bits.golomb(number_bits - 4, order)
    if order == 0:
        bits.golomb(4)
    elif order == 1:
        bits.number(1, 0).golomb(0, 0, 2, 5, 6)
    bits.golomb(1).number(1, 0).golomb(WIDTH // 16 - 1, HEIGHT // 32 - 1).number(1, frames_only)
    bits.number(1, 0).number(1, 1).number(1, 0)
    # The rate of fields: 50 a second.
    bits.number(1, 1).number(4, 0).number(1, 1).number(32, 1).number(32, 50).number(1, 1).number(4, 0)
    return bits.unit(0x67)


def parameters() -> bytes:
    bits = Bits().golomb(0, 0).number(2, 0).golomb(0, 0, 0).number(3, 0).golomb(0, 0, 0)
    return bits.number(1, 1).number(2, 0).unit(0x68)


def picture(luma: Luma, number: int, field: int | None, first: bool) -> bytes:
    """A frame, or the upper (0) or lower (1) field of one, as its samples. first: of the film."""
    bits = Bits().golomb(0, 7, 0).number(4, number % 16).number(1, field is not None)
    if field is not None:
        bits.number(1, field)
    if first:
        bits.golomb(0)
    bits.number(8, (2 * number + (field or 0)) % 256).number(2 if first else 1, 0).golomb(0, 1)
    for y in range(0, luma.shape[0], 16):
        for x in range(0, WIDTH, 16):
            bits.golomb(25).aligned().raw(luma[y : y + 16, x : x + 16].tobytes() + bytes([128]) * 128)
    return bits.unit(0x65 if first else 0x61)


def scene(field: int) -> Luma:
    wave = 128 + 90 * np.sin((np.arange(WIDTH) - 6 * field) / 5)
    return np.broadcast_to(wave, (HEIGHT, WIDTH)).astype(np.uint8)


def stream(in_fields: Sequence[bool]) -> bytes:
    """Interlaced film, each frame of which is coded in fields or not."""
    units = []
    for number, apart in enumerate(in_fields):
        upper, lower = scene(2 * number)[0::2], scene(2 * number + 1)[1::2]
        head = b"\0\0\0\1\x09\xf0" + (sequence() + parameters() if number % 25 == 0 else b"")
        if apart:
            units.append(head + picture(upper, number, 0, number == 0) + picture(lower, number, 1, False))
        else:
            units.append(head + picture(np.stack([upper, lower], 1).reshape(HEIGHT, WIDTH), number, None, number == 0))
    return b"".join(units)


def film(path: Path, in_fields: Sequence[bool]) -> Path:
    """Such a film, of 25 frames a second, each field of which is shown 20 ms after the one before."""
    raw = path.with_suffix(".h264")
    raw.write_bytes(stream(in_fields))
    with av.open(str(raw)) as source, av.open(str(path), "w") as container:
        copy: Any = container.add_stream_from_template(source.streams.video[0])
        time, apart = 0, iter(flag for is_apart in in_fields for flag in ([True, True] if is_apart else [False]))
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            packet.time_base = Fraction(1, 50)
            packet.pts = packet.dts = time
            time += 1 if next(apart) else 2
            packet.stream = copy
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize("kind", ["fields", "frames", "both"])
def test_two_fields_are_one_frame(tmp_path: Path, suffix: str, kind: str) -> None:
    """A film in fields was said to have 50 frames a second, and one in both 37."""
    in_fields = [kind == "fields" or (kind == "both" and number % 10 >= 5) for number in range(FRAMES)]
    path = film(tmp_path / f"film.{suffix}", in_fields)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.count.packets == FRAMES + sum(in_fields)
    assert (scan.count.frames, scan.count.corrupt) == (FRAMES, 0)
    assert scan.info.fps == pytest.approx(25, rel=0.01)
    assert scan.info.duration == pytest.approx(FRAMES / 25, abs=0.001)
    (clip,) = scan.clips
    settings = EncodeSettings(fps=25, frames=None, preset="ultrafast")
    cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", settings)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        shown = [frame.to_ndarray()[:HEIGHT].astype(int) for frame in container.decode(video=0)]
    assert len(shown) == FRAMES
    # Each picture is that of the upper field; what there is between its lines is made of what lies around.
    wrong = [np.abs(image[0::2] - scene(2 * k)[0::2]).mean() for k, image in enumerate(shown)]
    assert max(wrong) < 6


@pytest.mark.parametrize("profile", [77, 100, 244])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_which_packets_are_second_fields(profile: int, order: int) -> None:
    """By parameter sets with all that may stand before what counts."""

    def field(number: int, parity: int | None) -> memoryview:
        bits = (
            Bits().golomb(0, 7, 0).number(2 if profile == 244 else 0, 1).number(9, number).number(1, parity is not None)
        )
        return memoryview(bits.number(1, parity or 0).golomb(3, 3).unit(0x41))

    pictures = [(511, 0), (511, 1), (0, None), (1, 1), (1, 0), (1, 0), (1, 1), (2, 0), (3, 1), (3, 0), (4, 0)]
    second = [False, True, False, False, True, False, True, False, False, True, False]
    pairs = FieldPairs("h264", sequence(profile, order=order, number_bits=9) + parameters(), 0)
    assert [pairs.is_second(field(*each)) for each in pictures] == second
    frames = FieldPairs("h264", sequence(profile, frames_only=True, order=order, number_bits=9), 0)
    assert not any(frames.is_second(field(*each)) for each in pictures)


def test_any_bytes_for_a_slice_or_a_parameter_set() -> None:
    numbers = np.random.default_rng(0)
    for record in (None, b"", b"\0\0\1\x67", sequence(), *(b"\0\0\0\1\x67" + numbers.bytes(40) for _ in range(200))):
        pairs = FieldPairs("h264", record, 0)
        for data in (b"", b"\0\0\1", b"\0\0\1\x41", b"\0\0\1\x41" + numbers.bytes(20)):
            pairs.is_second(memoryview(data))
